//! The machine itself: who holds which port, and whether there is room.
//!
//! What systemd, Caddy and the kernel's sockets are asked goes through their own programs, which the kit needs anyway:
//! in a container `ss` still sees the control group of a listener where `/proc` hides the process.

use crate::check::Finding;
use crate::context::Context;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `NoExecPaths=` in the unit came with it.
const SYSTEMD: u32 = 248;
/// Debian 12's; the Caddyfile is written for it.
const CADDY: [u32; 3] = [2, 6, 2];
/// What the design asks for.
const SQLITE: [u32; 2] = [3, 30];
/// Below it Conduit is killed sooner or later: mebibytes available.
const MEMORY_FAILED: u64 = 256;
/// Less than this is available: mebibytes.
const MEMORY_WARN: u64 = 512;
/// The unit's `MemoryMax` and something for Caddy: mebibytes in total.
const MEMORY_TOTAL_WARN: u64 = 1536;

/// A socket that waits for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// UDP, not TCP.
    pub datagrams: bool,
    /// The address, as `ss` writes it.
    pub address: String,
    /// The port.
    pub port: u16,
    /// Program, unit or user: the best that is known.
    pub holder: String,
    /// The unit, if it is known.
    pub unit: Option<String>,
}

impl Listener {
    fn belongs_to(&self, program: &str) -> bool {
        self.unit.as_deref() == Some(&format!("{program}.service"))
            || self.holder.split(' ').next() == Some(program)
    }

    fn is_local(&self) -> bool {
        self.address.starts_with("127.") || self.address.starts_with("[::1]")
    }
}

/// Runs a program to its end, at most ten seconds, and hands back what it printed.
fn ask(program: &str, arguments: &[&str]) -> Result<(bool, String), String> {
    let output = Command::new("timeout")
        .arg("10")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{program}`: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(124) => Err(format!("`{program}` did not end within 10 s")),
        Some(126 | 127) => Err(format!("`{program}` is not installed")),
        _ => Ok((output.status.success(), said)),
    }
}

impl Context {
    /// Every listening socket, asked for once.
    fn listeners(&self) -> &Result<Vec<Listener>, String> {
        self.listeners.get_or_init(|| {
            let (fine, said) = ask(
                "ss",
                &[
                    "--no-header",
                    "--numeric",
                    "--listening",
                    "--processes",
                    "--extended",
                    "--cgroup",
                    "--tcp",
                    "--udp",
                ],
            )?;
            if fine {
                Ok(said.lines().filter_map(read_listener).collect())
            } else {
                Err("`ss` failed".to_owned())
            }
        })
    }

    fn is_installed(&self) -> bool {
        self.settings.root.join("site.identity").exists()
    }

    /// The nearest directory above the site that exists.
    fn place(&self) -> PathBuf {
        self.settings
            .root
            .ancestors()
            .find(|path| path.is_dir())
            .unwrap_or(Path::new("/"))
            .to_path_buf()
    }
}

/// One line of `ss`.
fn read_listener(line: &str) -> Option<Listener> {
    let mut words = line.split_whitespace();
    let datagrams = match words.next()? {
        "tcp" => false,
        "udp" => true,
        _ => return None,
    };
    let (address, port) = words.nth(3)?.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let _peer = words.next()?;
    let details: Vec<&str> = words.collect();
    let unit = details
        .iter()
        .find_map(|word| word.strip_prefix("cgroup:"))
        .and_then(|path| path.rsplit('/').next())
        .filter(|unit| unit.contains('.'))
        .map(str::to_owned);
    let process = details
        .iter()
        .find_map(|word| word.strip_prefix("users:((\""))
        .and_then(|rest| {
            let (program, rest) = rest.split_once("\",pid=")?;
            let pid: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Some(format!("{program} (pid {pid})"))
        });
    let user = details
        .iter()
        .find_map(|word| word.strip_prefix("uid:"))
        .map(|uid| format!("a process of uid {uid}"));
    Some(Listener {
        datagrams,
        address: address.to_owned(),
        port,
        holder: process
            .or_else(|| unit.clone())
            .or(user)
            .unwrap_or_else(|| "a process that `ss` cannot name".to_owned()),
        unit,
    })
}

/// Who holds a port, and whether it may.
fn port(context: &Context, port: u16, judge: impl Fn(&[&Listener]) -> Finding) -> Finding {
    match context.listeners() {
        Err(why) => Finding::unknown(why.clone(), "apt-get install iproute2"),
        Ok(all) => {
            let here: Vec<_> = all.iter().filter(|one| one.port == port).collect();
            judge(&here)
        }
    }
}

fn named(listeners: &[&Listener]) -> String {
    let mut words: Vec<String> = Vec::new();
    for listener in listeners {
        let word = format!(
            "`{}`{}",
            listener.holder,
            if listener.datagrams { " (udp)" } else { "" }
        );
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(", ")
}

/// 22 is the operator's way in.
pub fn port_22(context: &Context) -> Option<Finding> {
    Some(port(context, 22, |here| {
        let foreign: Vec<_> = here
            .iter()
            .filter(|one| {
                !one.belongs_to("sshd")
                    && !one.belongs_to("ssh")
                    && one.unit.as_deref() != Some("ssh.socket")
            })
            .copied()
            .collect();
        if here.is_empty() {
            Finding::ok("nobody listens")
        } else if foreign.is_empty() {
            Finding::ok(format!("held by {}", named(here)))
        } else {
            Finding::warning(
                format!("held by {}", named(&foreign)),
                "sshd",
                "be sure that there is another way into this machine before its firewall is changed",
            )
        }
    }))
}

fn caddys(context: &Context, number: u16) -> Option<Finding> {
    let waited_for = context.is_installed() && !context.settings.before_install;
    Some(port(context, number, |here| {
        let foreign: Vec<_> = here
            .iter()
            .filter(|one| !one.belongs_to("caddy"))
            .copied()
            .collect();
        if !foreign.is_empty() {
            Finding::failed(
                format!("held by {}", named(&foreign)),
                "Caddy, or nobody yet",
                "stop that program, or move its sites into Caddy (/etc/caddy/conf.d/)",
            )
        } else if here.iter().any(|one| !one.datagrams) {
            Finding::ok(format!("held by {}", named(here)))
        } else if waited_for {
            Finding::failed(
                "nobody listens",
                "Caddy",
                "systemctl status caddy; install.sh install brings its site back",
            )
        } else {
            Finding::ok("free")
        }
    }))
}

/// 80 answers the certificate authority.
pub fn port_80(context: &Context) -> Option<Finding> {
    caddys(context, 80)
}

/// 443 serves clients and servers.
pub fn port_443(context: &Context) -> Option<Finding> {
    caddys(context, 443)
}

/// 8448 serves servers that come without the delegation.
pub fn port_8448(context: &Context) -> Option<Finding> {
    caddys(context, 8448)
}

/// 3000 is Gitea's.
pub fn port_3000(context: &Context) -> Option<Finding> {
    Some(port(context, 3000, |here| {
        let ours: Vec<_> = here
            .iter()
            .filter(|one| one.belongs_to("caddy") || one.belongs_to("conduit"))
            .copied()
            .collect();
        if !ours.is_empty() {
            Finding::failed(
                format!("held by {}", named(&ours)),
                "Gitea, or nobody",
                "Gitea cannot start while one of ours holds its port",
            )
        } else if here.is_empty() {
            Finding::ok("nobody listens")
        } else {
            Finding::ok(format!("held by {}", named(here)))
        }
    }))
}

/// 6167 is Conduit's, and nobody outside reaches it.
pub fn port_6167(context: &Context) -> Option<Finding> {
    let waited_for = context.is_installed() && !context.settings.before_install;
    Some(port(context, 6167, |here| {
        let foreign: Vec<_> = here
            .iter()
            .filter(|one| !one.belongs_to("conduit") && !one.datagrams)
            .copied()
            .collect();
        if !foreign.is_empty() {
            Finding::failed(
                format!("held by {}", named(&foreign)),
                "Conduit, or nobody yet",
                "stop that program, or move it to another port",
            )
        } else if let Some(open) = here.iter().find(|one| !one.is_local()) {
            Finding::failed(
                format!("Conduit listens on {}", open.address),
                "127.0.0.1",
                "it speaks plain HTTP: set `address = \"127.0.0.1\"` in conduit.toml",
            )
        } else if !here.is_empty() {
            Finding::ok(format!("held by {} on loopback", named(here)))
        } else if waited_for {
            Finding::failed(
                "nobody listens",
                "Conduit",
                "journalctl -u conduit; systemctl start conduit",
            )
        } else {
            Finding::ok("free")
        }
    }))
}

/// Space where the site lives.
pub fn disk(context: &Context) -> Option<Finding> {
    let place = context.place();
    let stat = match rustix::fs::statvfs(&place) {
        Ok(stat) => stat,
        Err(error) => {
            return Some(Finding::unknown(
                format!("`{}`: {error}", place.display()),
                "",
            ));
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    // As the installer: an installed site needs room for one more release, not for a site.
    let need = context.settings.min_free_mb / if context.is_installed() { 4 } else { 1 };
    let seen = format!("{free} MB free at `{}`", place.display());
    let hint = "make room, or mount a larger volume there";
    Some(if free < need {
        Finding::failed(seen, format!("{need} MB"), hint)
    } else if free < need * 2 {
        Finding::warning(seen, format!("{} MB, to live on", need * 2), hint)
    } else {
        Finding::ok(seen)
    })
}

/// Room for files where the site lives.
pub fn inodes(context: &Context) -> Option<Finding> {
    let place = context.place();
    let stat = match rustix::fs::statvfs(&place) {
        Ok(stat) => stat,
        Err(error) => {
            return Some(Finding::unknown(
                format!("`{}`: {error}", place.display()),
                "",
            ));
        }
    };
    let need = context.settings.min_free_inodes;
    // Some file systems make them as they are needed.
    if stat.f_files == 0 {
        return Some(Finding::ok(format!(
            "the file system of `{}` has no fixed number",
            place.display()
        )));
    }
    let seen = format!("{} free at `{}`", stat.f_favail, place.display());
    Some(if stat.f_favail < need {
        Finding::failed(
            seen,
            need.to_string(),
            "remove small files, or mount another volume there",
        )
    } else {
        Finding::ok(seen)
    })
}

/// Memory for Conduit beside its neighbours.
pub fn memory(_: &Context) -> Option<Finding> {
    let text = match std::fs::read_to_string("/proc/meminfo") {
        Ok(text) => text,
        Err(error) => return Some(Finding::unknown(format!("`/proc/meminfo`: {error}"), "")),
    };
    Some(judge_memory(&text))
}

fn judge_memory(meminfo: &str) -> Finding {
    let mebibytes = |key: &str| {
        meminfo.lines().find_map(|line| {
            let kilobytes: u64 = line
                .strip_prefix(key)?
                .strip_prefix(':')?
                .split_whitespace()
                .next()?
                .parse()
                .ok()?;
            Some(kilobytes >> 10)
        })
    };
    let (Some(total), Some(available)) = (mebibytes("MemTotal"), mebibytes("MemAvailable")) else {
        return Finding::unknown("`/proc/meminfo` lacks MemTotal or MemAvailable", "");
    };
    let seen = format!("{available} of {total} MiB available");
    let hint = "the unit bounds Conduit to 1280 MiB (conduit.service): add memory or swap, or lower its caches";
    if available < MEMORY_FAILED {
        Finding::failed(seen, format!("{MEMORY_FAILED} MiB available"), hint)
    } else if available < MEMORY_WARN || total < MEMORY_TOTAL_WARN {
        Finding::warning(
            seen,
            format!("{MEMORY_WARN} MiB available of {MEMORY_TOTAL_WARN}"),
            hint,
        )
    } else {
        Finding::ok(seen)
    }
}

/// The numbers at the beginning of a version.
fn numbers(version: &str) -> Vec<u32> {
    version
        .trim_start_matches('v')
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|part| part.parse().ok())
        .collect()
}

/// systemd is process 1, new enough for the unit, and content.
pub fn systemd(_: &Context) -> Option<Finding> {
    let hint = "the kit is for a Debian 12 host with systemd";
    if !Path::new("/run/systemd/system").is_dir() {
        return Some(Finding::failed(
            "systemd is not process 1 here",
            "systemd",
            hint,
        ));
    }
    let version = match ask("systemctl", &["--version"]) {
        Ok((_, said)) => said
            .split_whitespace()
            .nth(1)
            .map(numbers)
            .and_then(|numbers| numbers.first().copied()),
        Err(why) => return Some(Finding::unknown(why, hint)),
    };
    let Some(version) = version else {
        return Some(Finding::unknown("systemd does not tell its version", hint));
    };
    if version < SYSTEMD {
        return Some(Finding::failed(
            format!("systemd {version}"),
            format!("at least {SYSTEMD}, for the sandbox of conduit.service"),
            hint,
        ));
    }
    let state = match ask("systemctl", &["is-system-running"]) {
        Ok((_, said)) => said.trim().to_owned(),
        Err(why) => return Some(Finding::unknown(why, hint)),
    };
    let seen = format!("systemd {version} is {state}");
    Some(match state.as_str() {
        "running" => Finding::ok(seen),
        "degraded" => {
            let units = ask("systemctl", &["--failed", "--no-legend", "--plain"])
                .map(|(_, said)| {
                    said.lines()
                        .filter_map(|line| line.split_whitespace().next())
                        .map(|unit| format!("`{unit}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                })
                .unwrap_or_default();
            Finding::warning(
                format!("{seen}: {units} failed"),
                "running",
                "systemctl status UNIT; systemctl reset-failed when it is mended",
            )
        }
        "initializing" | "starting" => {
            Finding::warning(seen, "running", "wait until the machine is up")
        }
        "" => Finding::unknown("systemd does not tell its state", hint),
        _ => Finding::failed(seen, "running", hint),
    })
}

/// Caddy is there, and new enough for the Caddyfile.
pub fn caddy(_: &Context) -> Option<Finding> {
    let expected = format!("at least {}.{}.{}", CADDY[0], CADDY[1], CADDY[2]);
    let hint = "apt-get install caddy";
    Some(match ask("caddy", &["version"]) {
        Err(why) => Finding::failed(why, expected, hint),
        Ok((_, said)) => {
            let version = said.split_whitespace().next().unwrap_or_default();
            let found = numbers(version);
            if found.is_empty() {
                Finding::unknown("`caddy version` tells no version", hint)
            } else if found.as_slice() < CADDY.as_slice() {
                Finding::failed(format!("Caddy {version}"), expected, hint)
            } else {
                Finding::ok(format!("Caddy {version}"))
            }
        }
    })
}

/// SQLite, where it is used.
pub fn sqlite(context: &Context) -> Option<Finding> {
    let file = context.settings.root.join("conduit.toml");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            return Some(Finding::unknown(
                format!("`{}`: {error}", file.display()),
                "run it as root",
            ));
        }
    };
    let backend = match text.parse::<toml::Table>() {
        Ok(table) => table
            .get("global")
            .and_then(|global| global.get("database_backend"))
            .and_then(toml::Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        Err(error) => {
            return Some(Finding::unknown(
                format!("`{}` is no TOML: {}", file.display(), error.message()),
                "",
            ));
        }
    };
    if backend != "sqlite" {
        return Some(Finding::ok(format!("not used (`{backend}`)")));
    }
    let expected = "`rocksdb`";
    let hint = "SQLite lets two processes open one database, and nothing converts it later: decide before there is data";
    Some(match ask("sqlite3", &["--version"]) {
        Ok((true, said)) if numbers(&said).as_slice() < SQLITE.as_slice() => Finding::failed(
            format!(
                "`database_backend` is `sqlite`, and SQLite is {}",
                said.split_whitespace().next().unwrap_or_default()
            ),
            format!("at least {}.{}, better {expected}", SQLITE[0], SQLITE[1]),
            hint,
        ),
        Ok((true, said)) => Finding::warning(
            format!(
                "`database_backend` is `sqlite`, with SQLite {}",
                said.split_whitespace().next().unwrap_or_default()
            ),
            expected,
            hint,
        ),
        _ => Finding::warning(
            "`database_backend` is `sqlite`, and there is no `sqlite3` to look into it",
            expected,
            hint,
        ),
    })
}

/// `ACME_CA` in the environment of caddy.service, if there is such a service.
pub fn acme_of_caddy() -> Option<String> {
    let (_, said) = ask(
        "systemctl",
        &["show", "--property=Environment", "--value", "caddy.service"],
    )
    .ok()?;
    said.split_whitespace()
        .find_map(|word| word.trim_matches('"').strip_prefix("ACME_CA="))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_listener_is_named_by_process_else_unit_else_user() {
        let line = "tcp LISTEN 0 4096 *:443 *:* users:((\"caddy\",pid=61,fd=7)) uid:999 ino:1 sk:2 cgroup:/system.slice/caddy.service v6only:0 <->";
        let found = read_listener(line).expect("a listener");
        assert_eq!(
            (found.port, found.holder.as_str(), found.unit.as_deref()),
            (443, "caddy (pid 61)", Some("caddy.service"))
        );
        assert!(found.belongs_to("caddy") && !found.is_local());
        let line = "tcp LISTEN 0 1024 127.0.0.1:6167 0.0.0.0:* uid:998 ino:1 sk:2 cgroup:/docker/1f/system.slice/conduit.service <->";
        let found = read_listener(line).expect("a listener");
        assert!(found.belongs_to("conduit") && found.is_local());
        let line = "udp UNCONN 0 0 [::]:443 [::]:* uid:7 ino:1 sk:2 cgroup:/ <->";
        let found = read_listener(line).expect("a listener");
        assert_eq!(
            (found.datagrams, found.holder.as_str(), found.unit),
            (true, "a process of uid 7", None)
        );
    }

    #[test]
    fn memory_is_judged_by_what_is_available_and_by_all_of_it() {
        let judge = |total: u64, available: u64| {
            judge_memory(&format!(
                "MemTotal: {} kB\nMemFree: 1 kB\nMemAvailable: {} kB\n",
                total << 10,
                available << 10
            ))
            .verdict
        };
        assert_eq!(judge(4096, 2048), Verdict::Ok);
        assert_eq!(judge(1024, 700), Verdict::Warning);
        assert_eq!(judge(4096, 400), Verdict::Warning);
        assert_eq!(judge(4096, 200), Verdict::Failed);
        assert_eq!(judge_memory("").verdict, Verdict::Unknown);
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("v2.10.0 h1:abc").as_slice() > CADDY.as_slice());
        assert!(numbers("2.6.1").as_slice() < CADDY.as_slice());
        assert!(numbers("3.40.1 2022-12-28").as_slice() > SQLITE.as_slice());
    }
}
