//! Looks for words wherever a machine keeps bytes: in files, in databases (what is compressed there is unpacked), in what
//! commands print, in a capture of all that its network carried, each word in every encoding that somebody might write it
//! in.
//!
//! A [`Canary`] is a word that nothing else writes. That it is not found somewhere means something only where another one
//! is found by the same look.

use crate::failure::{Failure, OrBlame, Result};
use crate::host::Host;
use crate::runbook::nonce;
use crate::tools;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const SCAN: &str = include_str!("scan.py");
const CAPTURE: &str = include_str!("capture.py");
/// Letters only: neither JSON nor a URL changes them.
const STEM: &str = "quetzalcoatlus";

/// A word that nothing else writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    token: String,
}

impl Canary {
    /// One that is different from all others of this process, and from those of most others.
    pub fn new() -> Self {
        Self { token: nonce() }
    }

    /// The word.
    pub fn word(&self) -> String {
        format!("{STEM}{}", self.token)
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self::new()
    }
}

/// What is looked for, each under a name.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    canaries: BTreeMap<String, Canary>,
    literals: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    /// A new canary under this name. Returns its word.
    pub fn canary(&mut self, item: &str) -> String {
        let canary = Canary::new();
        let word = canary.word();
        self.canaries.insert(item.to_owned(), canary);
        word
    }

    /// A text that is the world's own, as it is, in JSON and in a URL. Several texts may have one name.
    pub fn literal(&mut self, item: &str, text: impl Into<String>) {
        let texts = self.literals.entry(item.to_owned()).or_default();
        texts.push(text.into());
    }
}

/// Where to look.
#[derive(Clone, Debug)]
pub enum Within {
    /// All files below a directory, as they are.
    Files(String),
    /// A RocksDB: every key and value of every column family. It must not be in use.
    RocksDb(String),
    /// An SQLite database: every row of every table.
    Sqlite(String),
    /// What a line of shell prints.
    Printed(String),
    /// What was [captured](Host::capture) on this interface.
    Captured(&'static str),
}

/// What was found in one place.
#[derive(Clone, Debug, Deserialize)]
pub struct Found {
    /// How much was looked through.
    pub bytes: u64,
    /// In how many pieces.
    pub parts: u64,
    /// What was there.
    pub hits: Vec<Hit>,
    /// The sizes of the pieces.
    pub sizes: BTreeSet<u64>,
}

/// Something that was looked for, and found.
#[derive(Clone, Debug, Deserialize)]
pub struct Hit {
    /// The name under which it was looked for; `unknown` for a canary that was not.
    pub item: String,
    /// How it was written.
    pub encoding: String,
    /// In which file, column family, table or connection it was first.
    pub within: String,
}

impl Found {
    /// Where something was found, if it was.
    pub fn hit(&self, item: &str) -> Option<&Hit> {
        self.hits.iter().find(|hit| hit.item == item)
    }
}

impl Host {
    /// Begins to write down everything that this machine's network carries, loopback included.
    ///
    /// # Errors
    /// The environment's, when it does not begin.
    pub async fn capture(&self) -> Result<()> {
        self.write("/lab/capture.py", "644", CAPTURE.as_bytes())
            .await?;
        self.shell(
            "cd /lab; setsid python3 capture.py > capture.log 2>&1 < /dev/null & echo $! > /lab/capture.pid; \
             n=0; until [ -e /lab/capturing ]; do n=$((n+1)); [ $n -lt 500 ] || { cat /lab/capture.log; exit 1; }; \
             sleep 0.02; done",
        )
        .await?;
        Ok(())
    }

    /// Ends it. Fails when the machine was too slow to see everything.
    ///
    /// # Errors
    /// The environment's.
    pub async fn captured(&self) -> Result<()> {
        let said = self
            .shell(
                "kill $(cat /lab/capture.pid); n=0; until [ -e /lab/captured ]; do n=$((n+1)); \
                 [ $n -lt 500 ] || { cat /lab/capture.log; exit 1; }; sleep 0.02; done; cat /lab/captured",
            )
            .await?;
        let what = || format!("capture what the network of `{}` carries", self.server_name);
        let said: Value = serde_json::from_str(&said).or_harness(what)?;
        if said["dropped"] == 0 && said["packets"] != 0 {
            return Ok(());
        }
        Err(Failure::environment(what())
            .last_seen(said.to_string())
            .hint("a machine that is too busy to see every packet proves nothing: try again when it is not"))
    }

    /// Looks for all that is wanted, in each of these places, which have names.
    ///
    /// # Errors
    /// Ours, when a place cannot be looked through.
    pub async fn scan(
        &self,
        wanted: &Wanted,
        places: &[(String, Within)],
    ) -> Result<BTreeMap<String, Found>> {
        let what = || format!("look through `{}`", self.server_name);
        self.write("/lab/scan.py", "644", SCAN.as_bytes()).await?;
        if places
            .iter()
            .any(|(_, within)| matches!(within, Within::RocksDb(_)))
        {
            let module = tools::rocksdict().await?.join("rocksdict");
            for file in std::fs::read_dir(module).or_environment(what)? {
                let file = file.or_environment(what)?;
                let name = file.file_name();
                let to = format!("/lab/rocksdict/{}", name.to_string_lossy());
                self.copy(&file.path(), &to, "644").await?;
            }
        }
        let order = order(wanted, places).to_string();
        let command = ["python3", "/lab/scan.py"];
        let docker = &self.world.docker;
        let looked = docker.exec(self.container(), &command, Some(order.as_bytes()));
        let answer = looked.await?.success(&what())?;
        serde_json::from_str(&answer).or_harness(what)
    }
}

fn order(wanted: &Wanted, places: &[(String, Within)]) -> Value {
    let places = places.iter().map(|(name, within)| {
        let (kind, given) = match within {
            Within::Files(path) => ("files", json!([path])),
            Within::RocksDb(path) => ("rocksdb", json!([path])),
            Within::Sqlite(path) => ("sqlite", json!([path])),
            Within::Printed(command) => ("run", json!([command])),
            Within::Captured(interface) => ("capture", json!(["/lab/capture", interface])),
        };
        json!({"name": name, "kind": kind, "given": given})
    });
    let tokens = wanted.canaries.iter();
    let tokens: BTreeMap<_, _> = tokens.map(|(item, canary)| (item, &canary.token)).collect();
    json!({
        "stem": STEM,
        "tokens": tokens,
        "literals": wanted.literals,
        "places": places.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// What `scan.py` finds in one file below a directory, by the Python of this machine.
    fn look(wanted: &Wanted, directory: &std::path::Path) -> Found {
        let places = [(
            "here".to_owned(),
            Within::Files(directory.display().to_string()),
        )];
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/scan.py");
        let mut scan = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let order = order(wanted, &places).to_string();
        let stdin = scan.stdin.take().expect("a pipe");
        { stdin }.write_all(order.as_bytes()).expect("to be read");
        let said = scan.wait_with_output().expect("an end");
        let mut found: BTreeMap<String, Found> =
            serde_json::from_slice(&said.stdout).expect("JSON");
        found.remove("here").expect("the place")
    }

    /// Writes a text in some way, by a filter of this machine's Python.
    fn written(how: &str, text: &str) -> Vec<u8> {
        let program = format!(
            "import sys, base64, gzip, subprocess; t = sys.argv[1].encode(); sys.stdout.buffer.write({how})"
        );
        let run = Command::new("python3")
            .args(["-c", &program, text])
            .output();
        run.expect("python3").stdout
    }

    #[test]
    fn a_canary_is_found_in_every_encoding() {
        for how in [
            "t",
            "b'\\0' + t.decode().encode('utf-16-le')",
            "b'x' + t.decode().encode('utf-16-be')",
            "base64.b64encode(t)",
            "base64.b64encode(b'a' + t + b'bc')",
            "base64.urlsafe_b64encode(b'\\xff\\xfe' + t + b'\\xff\\xff')",
            "t.hex().encode()",
            "t.hex().upper().encode()",
            "b'head' + gzip.compress(base64.b64encode(t)) + b'tail'",
            "b'head' + subprocess.run(['zstd', '-c'], input=t, capture_output=True).stdout + b'tail'",
        ] {
            let mut wanted = Wanted::default();
            let (there, _) = (wanted.canary("there"), wanted.canary("not there"));
            let directory = tempfile::tempdir().expect("a directory");
            let bytes = written(how, &there);
            assert!(bytes.len() >= 20, "{how} writes something");
            std::fs::write(directory.path().join("file"), &bytes).expect("a file");
            let found = look(&wanted, directory.path());
            assert!(found.hit("there").is_some(), "{how}: {found:?}");
            assert!(found.hit("not there").is_none(), "{how}: {found:?}");
            assert_eq!(found.bytes, bytes.len() as u64);
        }
    }

    #[test]
    fn a_literal_is_found_in_json_and_in_a_url_and_no_other_is() {
        for (text, there) in [
            ("{\"a\":1}", true),
            ("{\\\"a\\\":1}", true),
            ("%7B%22a%22%3A1%7D", true),
            ("{\"a\":2}", false),
        ] {
            let mut wanted = Wanted::default();
            wanted.literal("it", "{\"a\":1}");
            let directory = tempfile::tempdir().expect("a directory");
            std::fs::write(directory.path().join("file"), text).expect("a file");
            let found = look(&wanted, directory.path());
            assert_eq!(found.hit("it").is_some(), there, "{text}");
        }
    }
}
