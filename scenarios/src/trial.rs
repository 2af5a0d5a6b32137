//! Trials: a real Conduit is started once for each configuration of a set, in a bare Host of a closed lab, and what it
//! then does is written down. Nothing is judged here; [`trial.py`](trial.rs) runs on the host.

use harness::OrBlame;
use harness::Result;
use harness::homeserver::Binary;
use harness::host::{Host, Needs};
use harness::scenario::Stage;
use harness::tools;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The server name that the databases which trials start from belong to.
pub const NAME: &str = "trial.test";

const DRIVER: &str = include_str!("trial.py");

/// A configuration that is to be tried.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Unique in its set; letters, digits and hyphens.
    pub id: String,
    /// The content of the file that `CONDUIT_CONFIG` names; `None`: it names none.
    pub toml: Option<String>,
    /// What else stands in the environment.
    pub env: BTreeMap<String, String>,
    /// Where the server would answer, as a URL without a slash at its end.
    pub base: String,
    /// The database's directory, below `/opt/trial/case/ID/`.
    pub data: String,
    /// The backend of the database that it starts from, `rocksdb` or `sqlite`; `None`: from nothing.
    pub template: Option<&'static str>,
    /// Where media is to be looked for, if not in `media` below the database.
    pub media_path: Option<String>,
    /// A password that the server's own account is tried with.
    pub emergency_password: Option<String>,
    /// Files that must be there before, such as certificates.
    pub files: BTreeMap<String, String>,
}

impl Case {
    /// A case on the usual address that starts from the RocksDB template; `toml` gets the directory for its data.
    pub fn new(id: impl Into<String>, toml: impl FnOnce(&str) -> String) -> Self {
        let id = id.into();
        let data = format!("{}/data", directory_of(&id));
        Self {
            toml: Some(toml(&data)),
            id,
            env: BTreeMap::new(),
            base: "http://127.0.0.1:8000".to_owned(),
            data,
            template: Some("rocksdb"),
            media_path: None,
            emergency_password: None,
            files: BTreeMap::new(),
        }
    }
}

/// The directory of a case on the host.
pub fn directory_of(id: &str) -> String {
    format!("/opt/trial/case/{id}")
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It answered.
    Served,
    /// It ended by itself.
    Exited,
    /// Neither: nothing is known.
    Hung,
}

/// One start of the server.
#[derive(Clone, Debug, Deserialize)]
pub struct Trial {
    /// Of its case.
    pub id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Its exit code where it ended by itself.
    pub exit: Option<i32>,
    /// The end of what it wrote.
    pub said: String,
    /// What a setting can show in, by name; empty where it did not serve.
    pub seen: BTreeMap<String, serde_json::Value>,
}

impl Trial {
    /// In what two trials differ, as lines; they are equal where there are none.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<_> = self.seen.keys().chain(other.seen.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.seen.get(*name) != other.seen.get(*name))
            .map(|name| {
                let text = |trial: &Self| {
                    trial
                        .seen
                        .get(name)
                        .map_or("-".to_owned(), ToString::to_string)
                };
                format!("{name}: {} | {}", text(self), text(other))
            })
            .collect()
    }
}

/// A host on which configurations are tried.
pub struct Trials {
    host: Host,
}

impl Trials {
    /// Boots it, and makes the databases that trials start from.
    pub async fn open(stage: &Stage, conduit: &Binary) -> Result<Self> {
        let needs = Needs {
            bundle: Some(tools::bundle(conduit).await?),
            ..Needs::default()
        };
        let host = stage.world.host_with(NAME, needs).await?;
        host.write("/root/trial.py", "755", DRIVER.as_bytes())
            .await?;
        host.shell(
            "set -e; for backend in rocksdb sqlite; do \
             unshare --user --map-root-user --net sh -c \
             \"ip link set lo up && exec python3 /root/trial.py template /opt/trial/template-$backend $backend\"; done",
        )
        .await?;
        Ok(Self { host })
    }

    /// Tries every case; the trials stand in the order of the cases.
    ///
    /// # Errors
    /// The harness's, if a trial is missing: nothing that was not observed may count.
    pub async fn run(&self, cases: &[Case]) -> Result<Vec<Trial>> {
        let what = || format!("try {} configurations", cases.len());
        let mut lines = String::new();
        for case in cases {
            lines.push_str(&serde_json::to_string(case).or_harness(what)?);
            lines.push('\n');
        }
        self.host
            .write("/opt/trial/cases", "644", lines.as_bytes())
            .await?;
        let output = self
            .host
            .shell("exec python3 /root/trial.py run /opt/trial/cases 3")
            .await?;
        let mut trials = BTreeMap::new();
        for line in output.lines() {
            let trial: Trial =
                serde_json::from_str(line).or_harness(|| format!("read `{line}`"))?;
            trials.insert(trial.id.clone(), trial);
        }
        cases
            .iter()
            .map(|case| {
                trials.remove(&case.id).ok_or_else(|| {
                    harness::Failure::harness(format!("{}: `{}` is missing", what(), case.id))
                })
            })
            .collect()
    }
}
