//! What the units say that run Conduit, and who their user is: systemd.exec(5), sysusers.d(5).

use super::fact::Fact;
use crate::environment::{self, Variable};
use crate::source::Source;
pub use crate::systemd::Skipped;
use crate::systemd::{self, Word};
use crate::value::Place;
use std::path::{Component, Path, PathBuf};

/// What one unit says, its drop-ins applied.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The file's name, such as `conduit.service`.
    pub name: String,
    /// Whether somebody enables it: a unit without `[Install]` runs for a while only, when another asks for it.
    pub installed: bool,
    /// The program that it runs.
    pub program: Option<Fact<String>>,
    /// `User=`.
    pub user: Option<Fact<String>>,
    /// `Group=`.
    pub group: Option<Fact<String>>,
    /// `WorkingDirectory=`.
    pub working_directory: Option<Fact<String>>,
    /// The value of `CONDUIT_CONFIG`.
    config: Option<Fact<String>>,
    /// `ProtectSystem=`.
    pub protect_system: Option<Fact<String>>,
    /// What is writable, among it the directories that systemd makes.
    pub writable: Vec<Fact<String>>,
    /// What is not, whatever `writable` says.
    pub closed: Vec<Fact<String>>,
    /// All that it says.
    pub(super) written: systemd::Unit,
}

impl Unit {
    /// Whether Conduit is what it runs. Of a drop-in without its unit, and of a wrapper, only what they give it tells.
    fn runs_conduit(&self) -> bool {
        self.config.is_some() || self.written.starts_conduit()
    }

    /// The value of `CONDUIT_CONFIG`.
    pub fn config(&self) -> Option<&Fact<String>> {
        self.config.as_ref()
    }

    /// Its `Environment=`.
    pub fn environment(&self) -> Vec<Fact<String>> {
        self.written
            .environment()
            .iter()
            .map(Variable::fact)
            .collect()
    }

    /// An absolute form of a path that Conduit is given; `None` where nobody can know.
    pub fn resolve(&self, path: &str) -> Option<PathBuf> {
        if path.contains('%') {
            return None;
        }
        let path = Path::new(path);
        if path.is_absolute() {
            return Some(normal(path));
        }
        let directory = self.working_directory.as_ref()?.value.as_str();
        Path::new(directory)
            .is_absolute()
            .then(|| normal(&Path::new(directory).join(path)))
    }

    /// What keeps the server from writing below `path`: the place that says so; `None` if nothing does.
    pub fn forbids(&self, path: &Path) -> Option<Fact<String>> {
        let covers = |fact: &&Fact<String>| {
            let listed = fact.value.trim_start_matches(['-', '+']);
            listed.contains('%') || path.starts_with(normal(Path::new(listed)))
        };
        if let Some(closed) = self.closed.iter().find(covers) {
            return Some(closed.clone());
        }
        if self.writable.iter().any(|fact| covers(&fact)) {
            return None;
        }
        let protect = self.protect_system.as_ref()?;
        let below = |roots: &[&str]| roots.iter().any(|root| path.starts_with(root));
        let read_only = match protect.value.as_str() {
            "strict" => !below(&["/dev", "/proc", "/sys"]),
            "full" => below(&["/usr", "/boot", "/efi", "/etc"]),
            yes if systemd::is_true(yes) => below(&["/usr", "/boot", "/efi"]),
            _ => false,
        };
        // What was meant to be writable explains more than what makes the rest read-only.
        read_only.then(|| self.writable.first().unwrap_or(protect).clone())
    }
}

/// A path without `.` and `..`, by its letters alone.
pub fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts
}

/// The units among the sources that run Conduit, drop-ins applied to whom they belong to; and what systemd would skip.
pub fn read(sources: &[&Source]) -> (Vec<Unit>, Vec<Skipped>) {
    let mut skipped = Vec::new();
    let units = systemd::units(sources.iter().copied(), &mut skipped)
        .into_iter()
        .map(Unit::of)
        .filter(Unit::runs_conduit)
        .collect();
    (units, skipped)
}

impl Unit {
    fn of(unit: systemd::Unit) -> Self {
        let one = |key| {
            let assignment = unit.last(key)?;
            let text = assignment.text();
            let span = assignment.value.span(0..text.len());
            let fact = Fact::new(text.to_owned(), &assignment.place.source, span);
            (!text.is_empty()).then_some(fact)
        };
        let words = |key| unit.list_words(key).into_iter().map(fact);
        // systemd.exec(5): a dynamic user implies it.
        let dynamic = one("DynamicUser")
            .filter(|fact| systemd::is_true(&fact.value))
            .map(|fact| fact.with("strict".to_owned()));
        let made = [
            ("CacheDirectory", "/var/cache"),
            ("LogsDirectory", "/var/log"),
            ("RuntimeDirectory", "/run"),
            ("StateDirectory", "/var/lib"),
        ];
        let mut writable: Vec<_> = words("ReadWritePaths").collect();
        for (key, root) in made {
            writable.extend(words(key).map(|fact| {
                let name = fact.value.split(':').next().unwrap_or_default();
                fact.with(format!("{root}/{name}"))
            }));
        }
        Self {
            name: unit.name.clone(),
            installed: unit
                .assignments
                .iter()
                .any(|assignment| assignment.section == "Install"),
            program: unit.program().map(fact),
            user: one("User"),
            group: one("Group"),
            working_directory: one("WorkingDirectory").map(|fact| {
                let path = fact.value.trim_start_matches('-').to_owned();
                let place = Place::new(&fact.source, fact.span.clone());
                Fact::at(path.clone(), &place.skip(fact.value.len() - path.len()))
            }),
            config: environment::config_path(&unit.environment()).map(Variable::fact),
            protect_system: dynamic.or_else(|| one("ProtectSystem")),
            closed: words("InaccessiblePaths")
                .chain(words("ReadOnlyPaths"))
                .collect(),
            writable,
            written: unit,
        }
    }
}

fn fact(word: Word) -> Fact<String> {
    Fact::at(word.text, &word.place)
}

/// Users and groups that a sysusers.d file makes.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Names of users.
    pub users: Vec<Fact<String>>,
    /// Names of groups; every user's own is among them.
    pub groups: Vec<Fact<String>>,
}

/// Reads a sysusers.d file.
pub fn accounts(source: &Source) -> Accounts {
    let mut accounts = Accounts::default();
    for words in systemd::fields(source) {
        let mut fields = words.into_iter().map(fact);
        let (Some(kind), Some(name)) = (fields.next(), fields.next()) else {
            continue;
        };
        match kind.value.trim_end_matches('!') {
            "u" => {
                accounts.users.push(name.clone());
                accounts.groups.push(name);
            }
            "g" => accounts.groups.push(name),
            _ => {}
        }
    }
    accounts
}
