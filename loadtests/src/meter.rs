//! What a server costs while it works, read from the kernel: its cgroup in version 1, 2 or both, else its processes.
//! Each reading says by which method it was had.

use anyhow::{Context, Result};
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A number with the method that it was had by; not every machine has every number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The number.
    pub value: u64,
    /// How it was had.
    pub method: &'static str,
}

/// One look at a server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Look {
    /// Processor time since the server started, in nanoseconds.
    pub cpu_ns: Option<Reading>,
    /// Proportional set size, in bytes.
    pub pss: Option<Reading>,
    /// What its cgroup uses without the cache that can be dropped, in bytes.
    pub working_set: Option<Reading>,
    /// What its data take on the disk, in bytes.
    pub disk: Option<Reading>,
    /// What was written towards the disk, in bytes.
    pub written: Option<Reading>,
    /// Open descriptors.
    pub descriptors: Option<Reading>,
    /// Context switches, of threads that still live.
    pub switches: Option<Reading>,
}

/// Looks at one server.
#[derive(Clone, Debug)]
pub struct Meter {
    proc: PathBuf,
    groups: Groups,
    data: PathBuf,
    first: u32,
}

/// Where the control groups of a process lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Groups {
    cpu_v1: Option<PathBuf>,
    memory_v1: Option<PathBuf>,
    unified: Option<PathBuf>,
}

impl Meter {
    /// Of the server whose first process this is, and whose data lie there.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(process: u32, data: &Path) -> Result<Self> {
        Self::below(
            Path::new("/proc"),
            Path::new("/sys/fs/cgroup"),
            process,
            data,
        )
    }

    fn below(proc: &Path, sys: &Path, process: u32, data: &Path) -> Result<Self> {
        let path = proc.join(format!("{process}/cgroup"));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("read `{}`: does the server still run?", path.display()))?;
        Ok(Self {
            proc: proc.to_owned(),
            groups: Groups::find(&text, sys),
            data: data.to_owned(),
            first: process,
        })
    }

    /// Looks now.
    pub fn look(&self) -> Look {
        let processes = self.processes();
        let sum = |method, of: &dyn Fn(&Path) -> Option<u64>| {
            let values: Option<Vec<u64>> = processes.iter().map(|process| of(process)).collect();
            values
                .filter(|values| !values.is_empty())
                .map(|values| Reading {
                    value: values.iter().sum(),
                    method,
                })
        };
        Look {
            cpu_ns: self.groups.cpu().or_else(|| {
                sum(
                    "/proc/PID/stat utime+stime, in hundredths of a second",
                    &|process| {
                        let stat = read(&process.join("stat"))?;
                        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
                        let ticks = fields.next()?.parse::<u64>().ok()?
                            + fields.next()?.parse::<u64>().ok()?;
                        Some(ticks * 10_000_000)
                    },
                )
            }),
            pss: sum("/proc/PID/smaps_rollup Pss", &|process| {
                Some(field(&read(&process.join("smaps_rollup"))?, "Pss:")? * 1024)
            }),
            working_set: self.groups.working_set(),
            disk: Some(Reading {
                value: on_disk(&self.data),
                method: "blocks of all files in the data directory",
            }),
            written: sum("/proc/PID/io write_bytes", &|process| {
                field(&read(&process.join("io"))?, "write_bytes:")
            }),
            descriptors: sum("entries of /proc/PID/fd", &|process| {
                Some(std::fs::read_dir(process.join("fd")).ok()?.count() as u64)
            }),
            switches: sum("/proc/PID/task/*/status", &|process| {
                let tasks = std::fs::read_dir(process.join("task")).ok()?.flatten();
                let of_task = |status: String| {
                    Some(
                        field(&status, "voluntary_ctxt_switches:")?
                            + field(&status, "nonvoluntary_ctxt_switches:")?,
                    )
                };
                // A thread that ends meanwhile is not counted.
                Some(
                    tasks
                        .filter_map(|task| of_task(read(&task.path().join("status"))?))
                        .sum(),
                )
            }),
        }
    }

    /// All processes of its cgroup; the first alone where there is none.
    fn processes(&self) -> Vec<PathBuf> {
        let group = self.groups.cpu_v1.as_ref().or(self.groups.unified.as_ref());
        let listed = group.and_then(|group| read(&group.join("cgroup.procs")));
        let listed = listed
            .filter(|text| !text.trim().is_empty())
            .unwrap_or_else(|| self.first.to_string());
        listed
            .split_whitespace()
            .map(|process| self.proc.join(process))
            .collect()
    }
}

impl Groups {
    /// From `/proc/PID/cgroup`. A group that is the root's is everybody's, and no use.
    fn find(text: &str, sys: &Path) -> Self {
        let mut groups = Self::default();
        let hybrid = sys.join("unified");
        let unified = if hybrid.is_dir() { &hybrid } else { sys };
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            if path == "/" {
                continue;
            }
            let path = path.trim_start_matches('/');
            let existing = |root: &Path| Some(root.join(path)).filter(|path| path.is_dir());
            if controllers.is_empty() {
                groups.unified = existing(unified);
            }
            for controller in controllers.split(',') {
                match controller {
                    "cpuacct" => groups.cpu_v1 = existing(&sys.join("cpuacct")),
                    "memory" => groups.memory_v1 = existing(&sys.join("memory")),
                    _ => {}
                }
            }
        }
        groups
    }

    fn cpu(&self) -> Option<Reading> {
        let v1 = || {
            let value = read(&self.cpu_v1.as_ref()?.join("cpuacct.usage"))?
                .trim()
                .parse()
                .ok()?;
            Some(Reading {
                value,
                method: "cgroup v1 cpuacct.usage",
            })
        };
        let v2 = || {
            let value = field(
                &read(&self.unified.as_ref()?.join("cpu.stat"))?,
                "usage_usec",
            )? * 1_000;
            Some(Reading {
                value,
                method: "cgroup v2 cpu.stat usage_usec",
            })
        };
        v1().or_else(v2)
    }

    fn working_set(&self) -> Option<Reading> {
        let less = |group: &Path, usage: &str, inactive: &str, method| {
            let usage: u64 = read(&group.join(usage))?.trim().parse().ok()?;
            let inactive = field(&read(&group.join("memory.stat"))?, inactive)?;
            Some(Reading {
                value: usage.saturating_sub(inactive),
                method,
            })
        };
        let v1 = || {
            let method = "cgroup v1 memory.usage_in_bytes - total_inactive_file";
            less(
                self.memory_v1.as_ref()?,
                "memory.usage_in_bytes",
                "total_inactive_file",
                method,
            )
        };
        let v2 = || {
            let method = "cgroup v2 memory.current - inactive_file";
            less(
                self.unified.as_ref()?,
                "memory.current",
                "inactive_file",
                method,
            )
        };
        v1().or_else(v2)
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut words = text
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    words.next()?.parse().ok()
}

/// Files that come and go meanwhile are passed over: databases compact when they like.
fn on_disk(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => on_disk(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine made of files: what the kernel shows of process 7.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    fn look(files: &[(&str, &str)]) -> Look {
        let root = machine(files);
        let at = |name| root.path().join(name);
        Meter::below(&at("proc"), &at("sys"), 7, &at("data"))
            .expect("process 7 is there")
            .look()
    }

    #[test]
    fn each_kind_of_cgroup_is_read_and_named() {
        let v1 = [
            (
                "proc/7/cgroup",
                "8:memory:/docker/x\n2:cpu,cpuacct:/docker/x\n0::/docker/x\n",
            ),
            ("sys/cpuacct/docker/x/cpuacct.usage", "1234567\n"),
            ("sys/memory/docker/x/memory.usage_in_bytes", "5000\n"),
            (
                "sys/memory/docker/x/memory.stat",
                "inactive_file 1\ntotal_inactive_file 1000\n",
            ),
            ("sys/unified/docker/x/cpu.stat", "usage_usec 9\n"),
        ];
        let hybrid = look(&v1);
        assert_eq!(
            hybrid.cpu_ns,
            Some(Reading {
                value: 1_234_567,
                method: "cgroup v1 cpuacct.usage"
            })
        );
        assert_eq!(hybrid.working_set.expect("read").value, 4_000);

        let v2 = look(&[
            ("proc/7/cgroup", "0::/docker/x\n"),
            ("sys/docker/x/cpu.stat", "usage_usec 9\nuser_usec 5\n"),
            ("sys/docker/x/memory.current", "5000\n"),
            ("sys/docker/x/memory.stat", "anon 5\ninactive_file 2000\n"),
        ]);
        assert_eq!(
            v2.cpu_ns,
            Some(Reading {
                value: 9_000,
                method: "cgroup v2 cpu.stat usage_usec"
            })
        );
        assert_eq!(v2.working_set.expect("read").value, 3_000);

        // In the root's group, as a plain process: that group's figures are everybody's.
        let none = look(&[
            ("proc/7/cgroup", "2:cpuacct:/\n0::/\n"),
            (
                "proc/7/stat",
                "7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20\n",
            ),
            ("sys/cpuacct/cpuacct.usage", "1\n"),
        ]);
        assert_eq!(none.cpu_ns.expect("read").value, 2_000_000_000);
        assert_eq!(none.working_set, None);
    }

    #[test]
    fn all_processes_of_the_group_are_summed() {
        let look = look(&[
            ("proc/7/cgroup", "2:cpuacct:/x\n"),
            ("sys/cpuacct/x/cgroup.procs", "7\n8\n"),
            (
                "proc/7/smaps_rollup",
                "00-ff ---p\nRss: 9 kB\nPss:  10 kB\nPss_Dirty: 3 kB\n",
            ),
            ("proc/8/smaps_rollup", "Pss: 5 kB\n"),
            (
                "proc/7/io",
                "wchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n",
            ),
        ]);
        assert_eq!(look.pss.expect("read").value, 15 * 1024);
        // Of process 8 it is not known, so that the sum is not either.
        assert_eq!(look.written, None);
    }

    #[test]
    fn this_process_is_metered_for_real() {
        let data = machine(&[("a/b", "some bytes")]);
        let look = Meter::of(std::process::id(), data.path())
            .expect("we run")
            .look();
        assert!(look.cpu_ns.expect("read").value > 0);
        assert!(look.pss.expect("read").value > 100_000);
        assert!(look.disk.expect("read").value >= 512);
        assert!(look.descriptors.expect("read").value > 2);
        assert!(look.switches.is_some());
    }

    #[test]
    fn a_server_that_is_gone_is_said() {
        let root = machine(&[("sys/x", "")]);
        let told = Meter::below(root.path(), root.path(), 7, root.path())
            .expect_err("nobody")
            .to_string();
        assert!(told.contains("does the server still run?"), "{told}");
    }
}
