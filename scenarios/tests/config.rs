//! What the linter says of a configuration is what the real server does with it.
//!
//! Every claim here starts real Conduits: the sets are drawn from the catalogue with a seed, and `FLEET_TRIALS` says how
//! many of each (60 by default; the published table has 1000).

use fleet_lint::catalogue::{self, Status};
use fleet_lint::{Diagnostic, Effect, Kind, Severity, Source};
use harness::scenario::{Outcome, Stage, scenario};
use harness::{OrBlame, Result, paths};
use scenarios::drafts::{Draft, Mutation, sensible};
use scenarios::must;
use scenarios::trial::{self, Case, Trial, Trials, directory_of};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What becomes of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// The server starts and does what stands there.
    Clean,
    /// It starts, and does something that a careful person would want to know of.
    InForce,
    /// It starts as if a part did not stand there.
    Ignored,
    /// It does not start, and ends with this code.
    Fatal(i32),
    /// It neither answers nor ends within a minute.
    Hangs,
}

impl Fate {
    /// What the server did; whether it dropped something is not known from one start alone.
    fn of(trial: &Trial) -> Self {
        match (trial.outcome, trial.exit) {
            (trial::Outcome::Exited, Some(exit)) => Self::Fatal(exit),
            (trial::Outcome::Served, _) => Self::Clean,
            _ => Self::Hangs,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.write_str("clean"),
            Self::InForce => f.write_str("in force"),
            Self::Ignored => f.write_str("ignored"),
            Self::Fatal(exit) => write!(f, "fatal, exit {exit}"),
            Self::Hangs => f.write_str("hangs"),
        }
    }
}

/// The linter's word on a draft.
fn predicted(draft: &Draft) -> (Fate, Vec<Diagnostic>) {
    let mut sources = vec![Source::new("conduit.toml", Kind::Conduit, draft.toml())];
    if !draft.env.is_empty() {
        let lines: String = draft
            .env
            .iter()
            .map(|(name, value)| format!("{name}='{value}'\n"))
            .collect();
        sources.push(Source::new("conduit.env", Kind::Environment, lines));
    }
    let said: Vec<_> = fleet_lint::lint(&sources)
        .into_iter()
        .filter(|diagnostic| diagnostic.severity >= Severity::Warning)
        .collect();
    let fatal = said.iter().find_map(|diagnostic| match diagnostic.effect {
        Effect::Fatal { exit } => Some(i32::from(exit)),
        _ => None,
    });
    let fate = match fatal {
        Some(exit) => Fate::Fatal(exit),
        None if said
            .iter()
            .any(|diagnostic| diagnostic.effect == Effect::Ignored) =>
        {
            Fate::Ignored
        }
        None if !said.is_empty() => Fate::InForce,
        None => Fate::Clean,
    };
    (fate, said)
}

fn count() -> usize {
    std::env::var("FLEET_TRIALS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(60)
}

/// Tries a set in parts, so that a long one shows that it goes on.
async fn try_all(trials: &Trials, cases: &[Case]) -> Result<BTreeMap<String, Trial>> {
    let mut done = BTreeMap::new();
    for part in cases.chunks(100) {
        for trial in trials.run(part).await? {
            done.insert(trial.id.clone(), normal(trial));
        }
        if cases.len() > 100 {
            eprintln!("tried {} of {} configurations", done.len(), cases.len());
        }
    }
    Ok(done)
}

/// Without what differs between two trials of the same configuration: their own directories.
fn normal(mut trial: Trial) -> Trial {
    let directory = directory_of(&trial.id);
    for value in trial.seen.values_mut() {
        let text = value.to_string();
        if text.contains(&directory) {
            *value = serde_json::Value::String(text.replace(&directory, "@"));
        }
    }
    trial
}

/// Everything that is known of one configuration, for a person who is to mend the linter or the server's notes.
fn story(id: &str, draft: &Draft, fate: Fate, said: &[Diagnostic], trial: &Trial) -> String {
    let said: Vec<_> = said
        .iter()
        .map(|diagnostic| {
            format!(
                "  {}: {} ({:?})",
                diagnostic.code.slug(),
                diagnostic.message,
                diagnostic.effect
            )
        })
        .collect();
    format!(
        "{id}: the linter says {fate}\n{}\nthe server: {:?}, exit {:?}\n{}\n{}\nenvironment: {:?}\n",
        said.join("\n"),
        trial.outcome,
        trial.exit,
        trial
            .said
            .lines()
            .rev()
            .take(4)
            .collect::<Vec<_>>()
            .join("\n"),
        draft.toml(),
        draft.env
    )
}

/// Zero false alarms and zero misses: sensible configurations that lint clean start and do what they say, in the
/// server's own words; broken ones meet the fate that the linter foretells: no start, with that exit code, or a start
/// as if the broken part did not stand there, or a start that a careful person would want to know of.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_linter_foretells_is_what_the_server_does() -> Outcome {
    scenario(async |stage: &Stage| {
        let conduit = stage.conduit().await?;
        let trials = Trials::open(stage, &conduit).await?;
        let mut rng = fastrand::Rng::with_seed(stage.world.seed());

        let wholes: Vec<(String, Draft)> = (0..count())
            .map(|number| {
                let id = format!("whole-{number}");
                (id.clone(), sensible(&mut rng, &id))
            })
            .collect();
        let mut broken = Vec::new();
        let mut mutations = Mutation::ALL.iter().cycle();
        let mut number = 0;
        while broken.len() < count() {
            let mutation = *mutations.next().unwrap_or(&Mutation::WrongType);
            let id = format!("broken-{}", broken.len());
            number += 1;
            must(
                number < 100 * count(),
                "find something to break in every kind",
                format!("{mutation:?}"),
            )?;
            if let Some(result) = mutation.apply(&mut rng.fork(), &sensible(&mut rng, &id)) {
                broken.push((id, mutation, result));
            }
        }

        let mut cases: Vec<_> = wholes.iter().map(|(id, draft)| draft.case(id)).collect();
        cases.extend(broken.iter().map(|(id, _, result)| result.draft.case(id)));
        let seen = try_all(&trials, &cases).await?;
        // Whether a part was dropped shows beside a server that never had it.
        let without: Vec<_> = broken
            .iter()
            .filter(|(id, _, _)| seen[id].outcome == trial::Outcome::Served)
            .map(|(id, _, result)| {
                let mut case = result.without.case(id);
                case.toml = Some(result.without.toml());
                case
            })
            .collect();
        let dropped = try_all(&trials, &without).await?;

        let mut table: BTreeMap<(String, String), u32> = BTreeMap::new();
        let mut wrong = Vec::new();
        for (id, draft) in &wholes {
            let (fate, said) = predicted(draft);
            let trial = &seen[id];
            let truth = Fate::of(trial);
            *table
                .entry((format!("sensible, {truth}"), fate.to_string()))
                .or_default() += 1;
            let echoes = echoes(draft, trial);
            if fate != truth || !echoes.is_empty() {
                wrong.push(format!(
                    "{}{}",
                    story(id, draft, fate, &said, trial),
                    echoes.join("\n")
                ));
            }
        }
        for (id, mutation, result) in &broken {
            let (fate, said) = predicted(&result.draft);
            let trial = &seen[id];
            let truth = match (Fate::of(trial), dropped.get(id)) {
                (Fate::Clean, Some(without)) if trial.differences(without).is_empty() => {
                    Fate::Ignored
                }
                (Fate::Clean, _) => Fate::InForce,
                (ended, _) => ended,
            };
            *table
                .entry((format!("broken, {truth}"), fate.to_string()))
                .or_default() += 1;
            let agrees = match (fate, truth) {
                // What is in force need not show in anything that can be asked for, such as a lost log.
                (Fate::InForce, Fate::Ignored) => mutation.is_in_force(),
                // Traces that nobody takes: foretold as possible, for it is a matter of cores and of what is traced.
                (Fate::InForce, Fate::Hangs) => *mutation == Mutation::NoLog,
                (fate, truth) => fate == truth,
            };
            if !agrees {
                let differences = dropped
                    .get(id)
                    .map(|without| trial.differences(without))
                    .unwrap_or_default();
                wrong.push(format!(
                    "{mutation:?}: truth is {truth}\n{}{}",
                    story(id, &result.draft, fate, &said, trial),
                    differences.join("\n")
                ));
            }
        }
        publish(stage.world.seed(), &conduit.describe(), &table, &wrong)?;
        must(
            wrong.is_empty(),
            "foretell what the server does with every configuration",
            format!(
                "{} of {} wrong\n\n{}",
                wrong.len(),
                2 * count(),
                wrong
                    .iter()
                    .take(12)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("\n\n")
            ),
        )
    })
    .await
}

/// The confusion table, where a person finds it.
fn publish(
    seed: u64,
    server: &str,
    table: &BTreeMap<(String, String), u32>,
    wrong: &[String],
) -> Result<()> {
    let directory = paths::runs();
    let path = directory.join("lint-confusion.md");
    let columns: BTreeSet<_> = table.keys().map(|(_, said)| said.clone()).collect();
    let rows: BTreeSet<_> = table.keys().map(|(truth, _)| truth.clone()).collect();
    let mut text = format!(
        "Seed {seed:x}, on {server}.\n\n| the server | {} |\n|---|",
        columns.iter().cloned().collect::<Vec<_>>().join(" | ")
    );
    text.push_str(&"---|".repeat(columns.len()));
    text.push('\n');
    for row in rows {
        let cells: Vec<_> = columns
            .iter()
            .map(|column| {
                table
                    .get(&(row.clone(), column.clone()))
                    .map_or(String::new(), ToString::to_string)
            })
            .collect();
        text.push_str(&format!("| {row} | {} |\n", cells.join(" | ")));
    }
    eprintln!("{text}");
    text.push_str(&format!(
        "\n{} wrong\n\n{}",
        wrong.len(),
        wrong.join("\n\n")
    ));
    std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::write(&path, text))
        .or_environment(|| format!("write `{}`", path.display()))
}

/// What the server says of itself that is not what the draft says.
fn echoes(draft: &Draft, trial: &Trial) -> Vec<String> {
    let mut wrong = Vec::new();
    if trial.outcome != trial::Outcome::Served
        || !trial.seen.contains_key("show-config Server name")
    {
        return wrong;
    }
    for (key, name) in [
        ("db_cache_capacity_mb", "Database cache capacity (MB)"),
        ("conduit_cache_capacity_modifier", "Cache capacity modifier"),
        ("pdu_cache_capacity", "PDU cache capacity"),
        ("cleanup_second_interval", "Cleanup interval in seconds"),
        ("max_request_size", "Maximum request size"),
        ("max_concurrent_requests", "Maximum concurrent requests"),
        ("allow_registration", "Allow registration"),
        ("enable_lightning_bolt", "Enabled lightning bolt"),
        ("allow_encryption", "Allow encryption"),
        ("allow_federation", "Allow federation"),
        ("allow_room_creation", "Allow room creation"),
    ] {
        let default = catalogue::GLOBAL.key(key).and_then(|key| key.default);
        let Some(wanted) = draft.get("[global]", key).or(default) else {
            continue;
        };
        let said = trial
            .seen
            .get(&format!("show-config {name}"))
            .and_then(|value| value.as_str())
            .unwrap_or("nothing");
        let same = match (said.parse::<f64>(), wanted.parse::<f64>()) {
            (Ok(said), Ok(wanted)) => (said - wanted).abs() < f64::EPSILON,
            _ => said == wanted,
        };
        if !same {
            wrong.push(format!(
                "`{key}` is {wanted} in the file, and {said} in the server"
            ));
        }
    }
    wrong
}

/// The catalogue cannot rot: each of its keys is one that the real binary reads, at that place and of that type; each
/// default is what the binary has without the key; and what the catalogue calls a stranger, or a key of the next
/// version, is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_what_the_real_binary_accepts() -> Outcome {
    scenario(async |stage: &Stage| {
        let conduit = stage.conduit().await?;
        let trials = Trials::open(stage, &conduit).await?;
        let minimal = |data: &str| {
            format!(
                "[global]\nserver_name = \"{}\"\ndatabase_backend = \"rocksdb\"\ndatabase_path = \"{data}\"\n\
                 allow_check_for_updates = false\n",
                trial::NAME
            )
        };
        let mut cases = vec![Case::new("minimal", minimal)];
        // A value that no key takes: an array of arrays in a table; and for tables, which take what they do not know, a word.
        let impossible = "{ a = [[{ b = 1 }]] }";
        let mut keys = Vec::new();
        for (number, located) in catalogue::all().into_iter().enumerate() {
            let id = format!("key-{number}");
            let required = located.path.len() == 1 && located.key.required;
            let table = around(&located.path);
            cases.push(Case::new(&id, |data| {
                let whole = minimal(data);
                let whole = if required {
                    whole.lines().filter(|line| !line.starts_with(located.key.name)).fold(String::new(), |text, line| text + line + "\n")
                } else {
                    whole
                };
                let mut text = if located.key.name == "allow_check_for_updates" {
                    whole.replace("allow_check_for_updates = false\n", "")
                } else {
                    whole
                };
                let value = if located.key.takes.table().is_some() { "\"word\"" } else { impossible };
                text.push_str(&table.replace('@', value));
                text
            }));
            keys.push((id, located));
        }
        // Each default, written out.
        let defaults: Vec<_> = catalogue::GLOBAL
            .keys
            .iter()
            .filter(|key| key.status == Status::Current && key.name != "allow_check_for_updates")
            .filter_map(|key| key.default.map(|default| format!("{} = {default}\n", key.name)))
            .collect();
        must(defaults.len() > 20, "find the defaults", defaults.join(""))?;
        cases.push(Case::new("defaults", |data| minimal(data) + &defaults.concat()));
        // Strangers, all at once: none may be read.
        let strangers: BTreeSet<_> = catalogue::STRANGERS
            .iter()
            .filter_map(|stranger| stranger.path.split_once('.').map(|(_, name)| name))
            .filter(|name| catalogue::GLOBAL.key(name).is_none())
            .collect();
        let impossible_strangers: String = strangers.iter().map(|name| format!("{name} = {impossible}\n")).collect();
        cases.push(Case::new("strangers", |data| minimal(data) + &impossible_strangers));

        let seen = try_all(&trials, &cases).await?;
        let base = &seen["minimal"];
        must(base.outcome == trial::Outcome::Served, "start with the least", &base.said)?;
        let mut differences = Vec::new();
        for (id, located) in keys {
            let trial = &seen[&id];
            // What is read shows in the end of the server, or in what it does: an impossible directory structure is flat.
            let changed = !base.differences(trial).is_empty();
            let read = trial.outcome == trial::Outcome::Exited || changed;
            let name = located.dotted();
            match located.key.status {
                Status::Next if read => differences.push(format!("`{name}` is read already:\n{}", trial.said)),
                Status::Next => {}
                _ if !read => differences.push(format!("`{name}` is not read: with an impossible value the server starts as without")),
                _ if !changed && trial.exit != Some(1) => differences.push(format!("`{name}`: exit {:?} instead of 1\n{}", trial.exit, trial.said)),
                // serde names the innermost key, or, behind a flattened table, the value's kind only.
                _ => {}
            }
        }
        for (what, id) in [("a default", "defaults"), ("a stranger", "strangers")] {
            let trial = &seen[id];
            if trial.outcome != trial::Outcome::Served {
                differences.push(format!("{what} is refused:\n{}", trial.said));
            }
            differences.extend(base.differences(trial).into_iter().map(|line| format!("{what}: {line}")));
        }
        must(
            differences.is_empty(),
            "be what the catalogue says",
            differences.join("\n"),
        )
    })
    .await
}

/// The lines that set a key by its path, with `@` for its value, and beside it what its table needs.
fn around(path: &[&str]) -> String {
    match path {
        [key] => format!("{key} = @\n"),
        ["media", "retention", key] => format!(
            "[global.media]\nbackend = \"filesystem\"\n[[global.media.retention]]\n{key} = @\n"
        ),
        ["media", "backend"] => "[global.media]\nbackend = @\n".to_owned(),
        ["media", key] => format!("[global.media]\nbackend = \"filesystem\"\n{key} = @\n"),
        ["media", table, key] => {
            let other = if *key == "length" { "depth" } else { "length" };
            format!(
                "[global.media]\nbackend = \"filesystem\"\n[global.media.{table}]\n{key} = @\n{other} = 2\n"
            )
        }
        ["ignored_keys", key] => format!("[[global.ignored_keys]]\n{key} = @\n"),
        ["tls", key] => {
            let other = if *key == "key" { "certs" } else { "key" };
            format!("[global.tls]\n{key} = @\n{other} = \"/nowhere\"\n")
        }
        ["turn", key] => {
            let rest: String = [("uris", "[]"), ("secret", "\"x\"")]
                .into_iter()
                .filter(|(name, _)| {
                    name != key && !(matches!(*key, "username" | "password") && *name == "secret")
                })
                .map(|(name, value)| format!("{name} = {value}\n"))
                .collect();
            let pair = match *key {
                "username" => "password = \"x\"\n",
                "password" => "username = \"x\"\n",
                _ => "",
            };
            format!("[global.turn]\n{key} = @\n{rest}{pair}")
        }
        ["proxy", "by_domain", key] => {
            let rest = if *key == "url" {
                ""
            } else {
                "url = \"http://127.0.0.1:9\"\n"
            };
            format!("[[global.proxy.by_domain]]\n{key} = @\n{rest}")
        }
        [tables @ .., key] => format!("[global.{}]\n{key} = @\n", tables.join(".")),
        [] => String::new(),
    }
}
