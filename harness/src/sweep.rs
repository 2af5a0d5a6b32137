//! The fault sweep: into real runs of `backup.sh` and `restore.sh` on one site one fault after the other is put, and after
//! each the six invariants of the operations notes are looked at, and the same command is run again.
//!
//! Faults happen as a step of the script begins, by a hook that bash itself offers (`BASH_ENV`), so that the scripts are the
//! ones that are shipped. What is not of a fixed list is drawn from a seed: which system call fails for whom and how, and
//! how much of the disk is left. A fault that found nothing to break is not counted.

use crate::failure::{Failure, OrBlame, Result};
use crate::homeserver::Binary;
use crate::host::Needs;
use crate::site::Site;
use crate::world::World;
use crate::{tools, ui};
use fastrand::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The disk of the machine in mebibytes, as `trial.sh` gives it back.
pub const DISK: u32 = 1600;
const HOOK: &str = include_str!("sweep/hook.sh");
const TRIAL: &str = include_str!("sweep/trial.sh");

/// Which of the kit's scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Script {
    /// `backup.sh`
    Backup,
    /// `restore.sh`
    Restore,
}

impl Script {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Backup, Self::Restore];

    fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
    }

    /// What of its command line says that it is this one, and does the work.
    fn known_by(self) -> &'static str {
        match self {
            Self::Backup => "backup.sh run",
            Self::Restore => "restore.sh",
        }
    }
}

/// What kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `kill -9` of the script, or of it and its children.
    Kill,
    /// The k-th system call of its kind fails, or whoever makes it is killed there.
    Call,
    /// No space, or no inode.
    Disk,
    /// Conduit does not stop, or does not start.
    Service,
    /// Somebody else wants to do something to the site at the same time.
    Second,
    /// The clock jumps.
    Clock,
    /// Memory is short, and the kernel kills who wants more.
    Memory,
    /// The power is cut: nothing that was not synced is there when the machine boots again.
    Power,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::Call,
        Self::Disk,
        Self::Service,
        Self::Second,
        Self::Clock,
        Self::Memory,
        Self::Power,
    ];
}

impl FromStr for Family {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let find = Self::ALL
            .into_iter()
            .find(|family| family.to_string() == name);
        find.ok_or_else(|| {
            let names: Vec<_> = Self::ALL
                .iter()
                .map(|family| format!("`{family}`"))
                .collect();
            format!("a kind of fault is one of {}", names.join(", "))
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9",
            Self::Call => "k-th system call",
            Self::Disk => "full disk",
            Self::Service => "stop and start",
            Self::Second => "a second run",
            Self::Clock => "clock",
            Self::Memory => "out of memory",
            Self::Power => "power cut",
        })
    }
}

/// When the power is cut, counted from the beginning of a step.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// As it begins.
    AtOnce,
    /// So many milliseconds later.
    Milliseconds(u32),
    /// After the n-th of these system calls that the script and its children make together.
    Call(&'static str, u32),
}

/// The system calls that put a file in another's place.
pub const RENAMES: &str = "rename,renameat,renameat2";
/// Those after which what was written is on the disk.
pub const SYNCS: &str = "fsync,fdatasync,syncfs,sync";
const UNLINKS: &str = "unlink,unlinkat,rmdir";

/// One fault, as it is put to one run of one script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// To which script.
    pub script: Script,
    /// Its kind.
    pub family: Family,
    what: String,
    order: BTreeMap<&'static str, String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}", self.script.name(), self.family, self.what)
    }
}

impl Fault {
    fn new(script: Script, family: Family, what: impl Into<String>) -> Self {
        let order = BTreeMap::from([("FAULT_SCRIPT", script.known_by().to_owned())]);
        Self {
            script,
            family,
            what: what.into(),
            order,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.order.insert(name, value.into());
        self
    }

    fn at(mut self, step: &str, does: &str) -> Self {
        self.what = format!("{} at `{step}`", self.what);
        self.with("FAULT_STEP", step).with("FAULT_DO", does)
    }

    /// `kill -9` as a step begins; with its children, or without.
    pub fn kill(script: Script, step: &str, group: bool) -> Self {
        let (what, does) = if group {
            ("script and children", "group")
        } else {
            ("script", "kill")
        };
        Self::new(script, Family::Kill, what).at(step, does)
    }

    /// The script must end with one of these codes.
    #[must_use]
    pub fn ending(self, exits: &str) -> Self {
        self.with("EXITS", exits)
    }

    /// A restore that the fault left unfinished is undone before the same command is run again.
    #[must_use]
    pub fn undone(mut self) -> Self {
        self.what = format!("{}, then undone", self.what);
        self.with("UNDO", "yes")
    }

    /// From this step on the k-th of these system calls in the script and in each of its children ends like that.
    pub fn call(script: Script, step: &str, calls: &str, how: &str, k: u32) -> Self {
        Self::new(script, Family::Call, format!("{calls} number {k}: {how}"))
            .at(step, "inject")
            .with("FAULT_CALLS", calls)
            .with("FAULT_HOW", how)
            .with("FAULT_K", k.to_string())
    }

    /// From this step on so many kibibytes are left, or inodes.
    pub fn disk(script: Script, step: &str, inodes: bool, free: u32) -> Self {
        let (what, does) = if inodes {
            ("inodes", "inodes")
        } else {
            ("KiB", "disk")
        };
        Self::new(script, Family::Disk, format!("{free} {what} left"))
            .at(step, does)
            .with("FAULT_FREE", free.to_string())
    }

    /// From this step on so many mebibytes of memory are there for the script and its children together.
    pub fn memory(script: Script, step: &str, mib: u32) -> Self {
        Self::new(script, Family::Memory, format!("{mib} MiB left"))
            .at(step, "memory")
            .with("FAULT_FREE", mib.to_string())
    }

    /// The power is cut.
    pub fn power(script: Script, step: &str, moment: Moment) -> Self {
        let fault = |what| Self::new(script, Family::Power, what).at(step, "power");
        match moment {
            Moment::AtOnce => fault("as it begins".to_owned()),
            Moment::Milliseconds(number) => {
                fault(format!("{number} ms later")).with("FAULT_MILLISECONDS", number.to_string())
            }
            Moment::Call(calls, nth) => fault(format!("after {calls} number {nth}"))
                .with("FAULT_CALLS", calls)
                .with("FAULT_HOW", "signal=STOP")
                .with("FAULT_K", "1+")
                .with("FAULT_NTH", nth.to_string()),
        }
    }

    /// Another command is given meanwhile: it must end with 75, and the first one must not notice.
    fn second(script: Script, step: &str, command: &str) -> Self {
        Self::new(script, Family::Second, format!("`{command}`"))
            .at(step, "second")
            .with("FAULT_SECOND", format!("/opt/conduit/scripts/{command}"))
            .ending("0")
    }

    /// The clock says something else, throughout.
    fn clock(script: Script, clock: &str) -> Self {
        Self::new(script, Family::Clock, clock)
            .at("lock", "clock")
            .with("FAULT_CLOCK", clock)
            .ending("0")
    }

    /// Conduit's unit is changed for this run, `also` is done before it, and `mended` what an operator must do after it.
    fn service(
        script: Script,
        what: &str,
        unit: &str,
        exits: &str,
        (also, mended): (&str, &str),
    ) -> Self {
        const DIRECTORY: &str = "/run/systemd/system/conduit.service.d";
        let before = format!(
            "mkdir -p {DIRECTORY}; printf '[Service]\\n{unit}\\n' >{DIRECTORY}/fault.conf; systemctl daemon-reload; {also}"
        );
        let after = format!("rm -f {DIRECTORY}/fault.conf; systemctl daemon-reload; {mended}");
        Self::new(script, Family::Service, what)
            .with("BEFORE", before)
            .with("AFTER", after)
            .ending(exits)
    }

    /// What `trial.sh` and `hook.sh` read.
    fn order(&self) -> String {
        self.order
            .iter()
            .fold(String::new(), |text, (name, value)| {
                format!("{text}{name}='{}'\n", value.replace('\'', "'\\''"))
            })
    }
}

/// Conduit does not stop, or does not start as it must: all of them.
pub fn services() -> Vec<Fault> {
    const START: &str = "systemctl reset-failed conduit.service; systemctl start conduit.service";
    const FAILS: [(&str, &str); 3] = [
        ("a start that fails", "ExecStartPre=/bin/false"),
        (
            "a start that hangs",
            "TimeoutStartSec=3\\nExecStartPre=/bin/sleep 300",
        ),
        (
            "a start that is not healthy",
            "Environment=CONDUIT_PORT=6199 CONDUIT_START_WAIT=3",
        ),
    ];
    let fails = FAILS.iter().flat_map(|(what, unit)| {
        // A backup says so and leaves the rest to the operator, a restore goes back.
        [
            Fault::service(Script::Backup, what, unit, "1", ("", START)),
            Fault::service(Script::Restore, what, unit, "4", ("", "")),
            Fault::service(Script::Restore, what, unit, "4", ("", "")).with("DRAIN", "2"),
        ]
    });
    let hangs = Fault::service(
        Script::Backup,
        "a stop that hangs",
        "TimeoutStopSec=3",
        "0",
        (
            "kill -STOP $(systemctl show -P MainPID conduit.service)",
            "",
        ),
    );
    let seems = Fault::service(
        Script::Backup,
        "a stop that only seems to succeed",
        "KillMode=none\\nExecStop=/bin/true",
        "1",
        (
            "",
            "pkill -KILL -x conduit; systemctl reset-failed conduit.service; systemctl start conduit.service",
        ),
    );
    let stray = Fault::service(
        Script::Restore,
        "a server that runs on outside of its unit",
        "",
        "3",
        (
            "systemd-run --quiet --unit=stray --uid=conduit --setenv=CONDUIT_CONFIG=/opt/conduit/conduit.toml /opt/conduit/conduit; up",
            // It writes as well, and what it leaves is the old data then.
            "systemctl stop stray.service; listing >$STATE/old",
        ),
    );
    fails.chain([hangs, seems, stray]).collect()
}

/// The power is cut between any two renames that decide something: of what is catalogued and forgotten, of the exchange,
/// and of the way back from it.
fn cuts() -> Vec<Fault> {
    let renames = |script, step: &'static str, most| {
        (1..=most).map(move |nth| Fault::power(script, step, Moment::Call(RENAMES, nth)))
    };
    let exchange = renames(Script::Restore, "journal", 5).map(|fault| fault.with("DRAIN", "2"));
    let way_back = renames(Script::Restore, "start", 3).map(|mut fault| {
        fault.what = format!("{} with a start that fails", fault.what);
        let fails = services()
            .into_iter()
            .find(|service| service.script == Script::Restore);
        fault.order.extend(
            fails
                .into_iter()
                .flat_map(|fails| fails.order.into_iter().filter(|(name, _)| *name != "EXITS")),
        );
        fault
    });
    let undone = renames(Script::Restore, "journal", 4).map(Fault::undone);
    renames(Script::Backup, "archive", 10)
        .chain(exchange)
        .chain(undone)
        .chain(way_back)
        .collect()
}

/// Draws from a seed: what is of a fixed list once at most, the rest without end. Every kill comes first.
pub struct Draw {
    seed: u64,
    random: Rng,
    steps: BTreeMap<Script, Vec<String>>,
    fixed: BTreeMap<Family, VecDeque<Fault>>,
    turns: Vec<Family>,
    turn: usize,
    mixed: bool,
}

/// Whose turn it is, one after the other.
const TURNS: [Family; 12] = [
    Family::Kill,
    Family::Call,
    Family::Power,
    Family::Service,
    Family::Call,
    Family::Disk,
    Family::Power,
    Family::Second,
    Family::Call,
    Family::Memory,
    Family::Clock,
    Family::Power,
];

impl Draw {
    /// Over the steps that each script has.
    pub fn new(seed: u64, steps: BTreeMap<Script, Vec<String>>) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut kills = Vec::new();
        let mut seconds = Vec::new();
        let mut cuts = cuts();
        for (&script, steps) in &steps {
            for step in steps {
                kills.extend([false, true].map(|group| Fault::kill(script, step, group)));
                cuts.push(Fault::power(script, step, Moment::AtOnce));
            }
            // The lock is held from the next step on.
            for step in steps.iter().filter(|step| *step != "lock") {
                let command = *random
                    .choice(["backup.sh", "restore.sh latest --replace"].iter())
                    .unwrap_or(&"backup.sh");
                seconds.push(Fault::second(script, step, command));
            }
        }
        let clocks = Script::ALL.into_iter().flat_map(|script| {
            ["1 hour ago", "1 year", "@1700000000", "1 year ago"]
                .map(|clock| Fault::clock(script, clock))
        });
        let mut fixed = BTreeMap::from([
            (Family::Kill, kills),
            (Family::Second, seconds),
            (Family::Clock, clocks.collect()),
            (Family::Service, services()),
            (Family::Power, cuts),
        ]);
        for list in fixed.values_mut() {
            random.shuffle(list);
        }
        Self {
            seed,
            random,
            steps,
            fixed: fixed
                .into_iter()
                .map(|(family, list)| (family, list.into()))
                .collect(),
            turns: TURNS.into(),
            turn: 0,
            mixed: false,
        }
    }

    /// Of these families alone.
    #[must_use]
    pub fn of(mut self, families: &[Family]) -> Self {
        self.turns.retain(|family| families.contains(family));
        self
    }

    /// A few of each kind, rather than every kill before anything else.
    #[must_use]
    pub fn mixed(mut self) -> Self {
        self.mixed = true;
        self
    }

    fn kills_first(&mut self) -> Option<Fault> {
        if self.mixed || !self.turns.contains(&Family::Kill) {
            return None;
        }
        self.fixed.get_mut(&Family::Kill)?.pop_front()
    }

    fn drawn(&mut self, family: Family) -> Fault {
        const CALLS: [(&str, u32); 9] = [
            ("write,pwrite64", 40),
            (RENAMES, 3),
            (SYNCS, 4),
            (UNLINKS, 6),
            ("openat", 60),
            ("link,linkat", 20),
            ("mkdir,mkdirat", 6),
            ("read,pread64", 40),
            ("execve,clone,clone3", 4),
        ];
        const HOW: [&str; 3] = ["error=EIO", "error=ENOSPC", "signal=KILL"];
        let random = &mut self.random;
        let script = *random.choice(Script::ALL.iter()).unwrap_or(&Script::Backup);
        let step = self
            .steps
            .get(&script)
            .and_then(|steps| random.choice(steps));
        let step = step.map_or("lock", String::as_str);
        if family == Family::Memory {
            // A shell needs two or three, restic some fifty.
            return Fault::memory(script, step, random.u32(1..=48));
        }
        if family == Family::Power {
            let calls = *random
                .choice([RENAMES, SYNCS, UNLINKS].iter())
                .unwrap_or(&RENAMES);
            let moment = if random.bool() {
                Moment::Call(calls, random.u32(1..=12))
            } else {
                Moment::Milliseconds(random.u32(0..=1500))
            };
            let drained = script == Script::Restore && random.bool();
            let fault = Fault::power(script, step, moment);
            return if drained {
                fault.with("DRAIN", "2")
            } else {
                fault
            };
        }
        if family == Family::Disk {
            let inodes = random.u8(0..4) == 0;
            // As many powers of two of room as there are: each write that matters is to be the one that fails.
            let most = random.u32(0..=if inodes { 6 } else { 15 });
            let free = random.u32(0..=1 << most);
            return Fault::disk(script, step, inodes, free);
        }
        let (calls, most) = *random.choice(CALLS.iter()).unwrap_or(&CALLS[0]);
        let how = *random.choice(HOW.iter()).unwrap_or(&HOW[0]);
        let k = random.u32(1..=most);
        let fault = Fault::call(script, step, calls, how, k);
        if script == Script::Restore && random.u8(0..4) == 0 {
            return fault.with("DRAIN", "2");
        }
        fault
    }
}

impl Iterator for Draw {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if let Some(kill) = self.kills_first() {
            return Some(kill);
        }
        for _ in 0..self.turns.len() {
            let family = self.turns[self.turn % self.turns.len()];
            self.turn += 1;
            let fixed = self.fixed.get_mut(&family).and_then(VecDeque::pop_front);
            if fixed.is_some() {
                return fixed;
            }
            // A list that has come to its end is passed over.
            if matches!(
                family,
                Family::Call | Family::Disk | Family::Memory | Family::Power
            ) {
                return Some(self.drawn(family));
            }
        }
        None
    }
}

/// What came of one fault.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The fault.
    pub fault: Fault,
    /// How the script ended.
    pub exit: String,
    /// The last that it said.
    pub said: Vec<String>,
    /// Each broken invariant by its number, with what was seen; 0 stands for another end than the fault must have.
    pub broken: Vec<(u8, String)>,
    /// How long it took, with the looks and the second run.
    pub took: Duration,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (exit {}, {:.1} s)",
            self.fault,
            self.exit,
            self.took.as_secs_f64()
        )?;
        for (number, seen) in &self.broken {
            write!(f, "\n    invariant {number}: {seen}")?;
        }
        if !self.broken.is_empty() {
            for line in &self.said {
                write!(f, "\n    | {line}")?;
            }
        }
        Ok(())
    }
}

/// A site to which faults are put.
pub struct Bench {
    /// The site.
    pub site: Site,
    steps: BTreeMap<Script, Vec<String>>,
    /// Why no power can be cut here, where none can.
    pub without_power: Option<String>,
}

impl Bench {
    /// Installs and bootstraps a site on a disk of its own, and makes its first backup.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    pub async fn set_up(world: &World, conduit: &Binary) -> Result<Self> {
        let needs = Needs {
            bundle: Some(tools::bundle(conduit).await?),
            disk_mib: Some(DISK),
            loop_devices: true,
            ..Needs::default()
        };
        let host = world
            .host_with(crate::authority::PRODUCTION_NAME, needs)
            .await?;
        let site = world.install(host).await?;
        site.follow("bootstrap.md", &[]).await?;
        let host = &site.host;
        host.write("/root/fault/hook.sh", "644", HOOK.as_bytes())
            .await?;
        host.write("/root/fault/trial.sh", "755", TRIAL.as_bytes())
            .await?;
        let power = host.shell("/root/fault/trial.sh setup").await?;
        let without_power = match power.trim().split_once(' ') {
            Some(("power", "yes")) => None,
            _ => Some(power.trim().to_owned()),
        };
        if let Some(why) = &without_power {
            ui::say(format!("  no power cuts: {why}"));
        }
        let mut steps = BTreeMap::new();
        for script in Script::ALL {
            let find = format!(
                "grep -oE '^ +step [a-z-]+' /opt/conduit/scripts/{}.sh | awk '!seen[$2]++ {{print $2}}'",
                script.name()
            );
            let found = host.shell(&find).await?;
            steps.insert(script, found.lines().map(str::to_owned).collect::<Vec<_>>());
        }
        if steps.values().any(|steps| steps.len() < 8) {
            return Err(
                Failure::harness("find the steps of the scripts").last_seen(format!("{steps:?}"))
            );
        }
        Ok(Self {
            site,
            steps,
            without_power,
        })
    }

    /// Draws faults for the steps that the scripts have, of the kinds that this machine can be put to.
    pub fn draw(&self, seed: u64) -> Draw {
        let mut draw = Draw::new(seed, self.steps.clone());
        if self.without_power.is_some() {
            draw.turns.retain(|family| *family != Family::Power);
        }
        draw
    }

    /// Puts one, or nothing where it found nothing to break.
    ///
    /// # Errors
    /// Where it was not found out what came of it.
    pub async fn put(&self, fault: &Fault) -> Result<Option<Trial>> {
        let began = Instant::now();
        let host = &self.site.host;
        host.write("/run/fault/order", "600", fault.order().as_bytes())
            .await?;
        let put = format!("/root/fault/trial.sh {}", fault.script.name());
        let output = tokio::time::timeout(Duration::from_secs(900), host.try_shell(&put))
            .await
            .or_harness(|| format!("put a fault: {fault}"))??;
        let (mut exit, mut fired, mut said, mut broken) =
            (String::new(), None, Vec::new(), Vec::new());
        for line in output.stdout.lines() {
            match line.split_once(' ') {
                Some(("exit", code)) => code.clone_into(&mut exit),
                Some(("fired", word)) => fired = Some(word == "yes"),
                Some(("said", line)) => said.push(line.to_owned()),
                Some(("broken", text)) => {
                    let (number, seen) = text.split_once(' ').unwrap_or((text, ""));
                    broken.push((number.parse().unwrap_or_default(), seen.to_owned()));
                }
                _ => {}
            }
        }
        let Some(fired) = fired else {
            return Err(Failure::harness(format!("put a fault: {fault}"))
                .last_seen(format!("{}{}", output.stdout, output.stderr)));
        };
        let trial = Trial {
            fault: fault.clone(),
            exit,
            said,
            broken,
            took: began.elapsed(),
        };
        Ok((fired || !trial.broken.is_empty()).then_some(trial))
    }
}

/// What came of a sweep.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// The faults that happened.
    pub trials: Vec<Trial>,
    idle: usize,
    seed: u64,
    without_power: Option<String>,
}

impl Sweep {
    /// Draws and puts faults until so many have happened.
    ///
    /// # Errors
    /// Where one of them found nothing out.
    pub async fn take(bench: &Bench, draw: Draw, count: usize) -> Result<Self> {
        let mut sweep = Self {
            seed: draw.seed,
            without_power: bench.without_power.clone(),
            ..Self::default()
        };
        let task = ui::Task::begin(1, format!("put {count} faults"));
        for fault in draw {
            if sweep.trials.len() >= count {
                break;
            }
            let Some(trial) = bench.put(&fault).await? else {
                sweep.idle += 1;
                continue;
            };
            ui::say(format!("  {:3} {trial}", sweep.trials.len() + 1));
            sweep.trials.push(trial);
            task.parts(sweep.trials.len() as u64, count as u64);
        }
        task.end("done");
        Ok(sweep)
    }

    /// Those after which an invariant did not hold.
    pub fn broken(&self) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(|trial| !trial.broken.is_empty())
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took: Duration = self.trials.iter().map(|trial| trial.took).sum();
        let each = took.as_secs_f64() / self.trials.len().max(1) as f64;
        writeln!(
            f,
            "{} faults (seed {:x}, {} more found nothing to break), {each:.1} s each; an invariant did not hold after {}",
            self.trials.len(),
            self.seed,
            self.idle,
            self.broken().count(),
        )?;
        for family in Family::ALL {
            let of = |script| {
                let of = self
                    .trials
                    .iter()
                    .filter(|trial| trial.fault.family == family && trial.fault.script == script);
                of.count()
            };
            writeln!(
                f,
                "  {family}: {} in backups, {} in restores",
                of(Script::Backup),
                of(Script::Restore)
            )?;
        }
        if let Some(why) = &self.without_power {
            writeln!(f, "  {} was left out: {why}", Family::Power)?;
        }
        for trial in self.broken() {
            writeln!(f, "  {trial}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_faults_and_each_kill_once() {
        let steps = || {
            let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
            BTreeMap::from([
                (Script::Backup, names(&["lock", "stop", "start"])),
                (Script::Restore, names(&["lock", "swap"])),
            ])
        };
        let drawn = |seed| Draw::new(seed, steps()).take(200).collect::<Vec<_>>();
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        let kills: Vec<_> = drawn(7)
            .into_iter()
            .filter(|fault| fault.family == Family::Kill)
            .collect();
        let distinct: std::collections::BTreeSet<_> =
            kills.iter().map(ToString::to_string).collect();
        assert_eq!((kills.len(), distinct.len()), (10, 10));
        for family in Family::ALL {
            assert!(
                drawn(7).iter().any(|fault| fault.family == family),
                "{family}"
            );
        }
    }
}
