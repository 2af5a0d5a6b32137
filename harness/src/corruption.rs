//! The mutation score of restore and drill: a backup is corrupted in one way after the other, and whatever none of the
//! checks catches is named and explained.
//!
//! There are three places for it: the store's own files; the unpacked snapshot, whose manifest then no longer fits; and
//! the data before the backup was made, so that the manifest fits and only a drill can know. What is corrupted is drawn
//! from a seed. That the server starts says nothing: it tolerates torn logs and makes anew what is missing.

use crate::drill::{Record, Sample, Scratch};
use crate::failure::{Failure, OrBlame, Result};
use crate::homeserver::Binary;
use crate::verdict::Blame;
use crate::world::World;
use crate::{tools, ui};
use fastrand::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Where something is corrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the files of the restic repository.
    Store,
    /// In the unpacked snapshot, after its manifest was written.
    Snapshot,
    /// In the data, before its manifest was written.
    Source,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::Snapshot => "snapshot",
            Self::Source => "source",
        })
    }
}

/// One way to corrupt a backup, as `corrupt.py` takes it.
#[derive(Clone, Debug)]
pub struct Corruption {
    /// Where.
    pub place: Place,
    order: Value,
}

impl Corruption {
    /// None at all: what a check makes of a backup that is whole.
    pub fn nothing() -> Self {
        Self {
            place: Place::Source,
            order: json!({"op": "nothing"}),
        }
    }

    /// A row of this family that holds this text in its key or value is gone from the data; the seed says which of them.
    pub fn row_lost(family: &str, holding: &str, seed: u64) -> Self {
        Self {
            place: Place::Source,
            order: json!({"op": "row", "family": family, "how": "delete", "holding": holding, "seed": seed}),
        }
    }

    /// A file is gone from the data.
    pub fn file_lost(name: &str) -> Self {
        Self {
            place: Place::Source,
            order: json!({"op": "remove", "file": name, "seed": 0}),
        }
    }
}

/// Who noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Catcher {
    /// `backup.sh verify` or `restic check`, which every backup ends with.
    Backup,
    /// `restore.sh` before it changed anything.
    Verification,
    /// The restored server did not prove to be the site, and the old data came back.
    Proof,
    /// The comparison of a drill.
    Drill,
}

impl Catcher {
    const ALL: [Self; 4] = [Self::Backup, Self::Verification, Self::Proof, Self::Drill];

    fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup verification",
            Self::Verification => "restore, before anything changes",
            Self::Proof => "restore, by its proof",
            Self::Drill => "drill",
        }
    }
}

/// What came of one corruption.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Where.
    pub place: Place,
    /// What was done, in words.
    pub did: String,
    /// Everybody who noticed.
    pub caught: Vec<Catcher>,
    /// What the last of them said, or why nobody did.
    pub said: String,
    /// What a drill found to differ.
    pub seen: Vec<String>,
    /// Nothing that the database holds differs: the site is what it was.
    pub harmless: bool,
}

/// The score.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Every corruption that was made.
    pub trials: Vec<Trial>,
    /// Names what was drawn.
    pub seed: u64,
    /// Those of which nothing was found out, and why; they are in no figure.
    pub undecided: Vec<String>,
}

/// What `corrupt.py` calculates with fits into JSON's integers.
fn number(rng: &mut Rng) -> u64 {
    rng.u64(..1 << 52)
}

/// The families of rows whose loss a user, another server or the operator would notice (Conduit
/// `src/database/mod.rs:305-410`).
const FAMILIES: [&str; 32] = [
    "alias_roomid",
    "backupid_algorithm",
    "backupkeyid_backup",
    "eventid_pduid",
    "eventid_shorteventid",
    "id_appserviceregistrations",
    "keyid_key",
    "pduid_pdu",
    "publicroomids",
    "roomid_shortroomid",
    "roomid_shortstatehash",
    "roomuserid_joined",
    "roomuserdataid_accountdata",
    "roomusertype_roomuserdataid",
    "senderkey_pusher",
    "servernamemediaid_metadata",
    "shorteventid_eventid",
    "shorteventid_shortstatehash",
    "shortstatehash_statediff",
    "shortstatekey_statekey",
    "statekey_shortstatekey",
    "token_userdeviceid",
    "userdeviceid_metadata",
    "userid_avatarurl",
    "userid_displayname",
    "userid_masterkeyid",
    "userid_password",
    "userid_selfsigningkeyid",
    "userid_usersigningkeyid",
    "userroomid_invitestate",
    "userroomid_joined",
    "global",
];

/// What lies in a backup, to draw from.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The files of the snapshot, `manifest.json` among them.
    pub tree: Vec<String>,
    /// The files of the store.
    pub store: Vec<String>,
}

impl Inventory {
    fn kinds(&self) -> Vec<Vec<String>> {
        let matching = |judge: &dyn Fn(&str) -> bool| -> Vec<String> {
            self.tree
                .iter()
                .filter(|name| judge(name))
                .cloned()
                .collect()
        };
        let ends =
            |end: &'static str| move |name: &str| name.starts_with("data/") && name.ends_with(end);
        let starts = |start: &'static str| move |name: &str| name.starts_with(start);
        let kinds = vec![
            matching(&ends(".sst")),
            matching(&ends(".log")),
            matching(&starts("data/MANIFEST-")),
            matching(&starts("data/CURRENT")),
            matching(&starts("data/media/")),
            matching(&starts("manifest.json")),
            matching(&starts("site/site.identity")),
            matching(&starts("data/IDENTITY")),
            matching(&starts("data/OPTIONS-")),
            matching(&|name| name.starts_with("site/") && name != "site/site.identity"),
        ];
        kinds.into_iter().filter(|kind| !kind.is_empty()).collect()
    }
}

/// Draws so many corruptions: three in five of the snapshot, one in five each of the store and of the source.
pub fn draw(seed: u64, count: usize, inventory: &Inventory) -> Vec<Corruption> {
    let mut rng = Rng::with_seed(seed);
    let kinds = inventory.kinds();
    let mut list = hostile(inventory);
    list.truncate(count / 5);
    while list.len() < count {
        let place = match list.len() % 5 {
            0 => Place::Store,
            1 => Place::Source,
            _ => Place::Snapshot,
        };
        let drawn = match place {
            Place::Store => in_file(&mut rng, &inventory.store, STORE_OPS),
            Place::Source if rng.u8(..4) < 3 => row(&mut rng),
            // Of the database and the identity only: the rest of the site is not compared.
            Place::Source => rng
                .choice(&kinds[..kinds.len().min(5)])
                .cloned()
                .and_then(|kind| in_file(&mut rng, &kind, SOURCE_OPS)),
            Place::Snapshot => rng
                .choice(&kinds)
                .cloned()
                .and_then(|kind| in_file(&mut rng, &kind, SNAPSHOT_OPS)),
        };
        if let Some(order) = drawn {
            list.push(Corruption { place, order });
        }
    }
    list
}

const STORE_OPS: &[&str] = &[
    "flip", "flip", "flip", "truncate", "empty", "remove", "swap", "zero",
];
const SOURCE_OPS: &[&str] = &[
    "flip", "flip", "truncate", "remove", "older", "zero", "empty",
];
const SNAPSHOT_OPS: &[&str] = &[
    "flip", "flip", "flip", "truncate", "empty", "remove", "swap", "older", "zero", "link",
    "outside", "pipe",
];

fn in_file(rng: &mut Rng, kind: &[String], ops: &[&str]) -> Option<Value> {
    let file = rng.choice(kind)?;
    let op = rng.choice(ops)?;
    let mut order = json!({"op": op, "file": file, "seed": number(rng)});
    if *op == "swap" {
        let other = rng.choice(kind)?;
        if other == file {
            order["op"] = json!("flip");
        }
        order["other"] = json!(other);
    }
    Some(order)
}

fn row(rng: &mut Rng) -> Option<Value> {
    let family = rng.choice(&FAMILIES)?;
    // A password that is another one shows to nobody who does not know it, which a drill must not.
    let how = if rng.u8(..3) > 0 || *family == "userid_password" {
        "delete"
    } else {
        "change"
    };
    let mut order = json!({"op": "row", "family": family, "how": how, "seed": number(rng)});
    if *family == "global" {
        order["key"] = json!("keypair");
    }
    Some(order)
}

/// Those that nothing but intent makes.
fn hostile(inventory: &Inventory) -> Vec<Corruption> {
    let snapshot = |order: Value| Corruption {
        place: Place::Snapshot,
        order,
    };
    let source = |order: Value| Corruption {
        place: Place::Source,
        order,
    };
    let manifest = |path: &[&str], value: Value| {
        snapshot(json!({"op": "manifest", "path": path, "value": value}))
    };
    let file = |op: &str, name: &str| json!({"op": op, "file": name, "seed": 0});
    let mut list = vec![
        source(json!({"op": "foreign", "what": "all"})),
        source(json!({"op": "foreign", "what": "data"})),
        snapshot(json!({"op": "foreign", "what": "all"})),
        snapshot(json!({"op": "foreign", "what": "data"})),
        snapshot(json!({"op": "foreign", "what": "identity"})),
        snapshot(file("giant", "data/000001.sst")),
        snapshot(file("giant", "site/release/giant")),
        snapshot(file("extra", "data/000001.sst")),
        snapshot(file("extra", "data/conduit.db")),
        snapshot(file("extra", "site/secrets/stranger.password")),
        snapshot(file("extra", "data/media/00/00/stranger")),
        snapshot(file("pipe", "manifest.json")),
        snapshot(file("link", "manifest.json")),
        manifest(&["server_name"], json!("vale.test")),
        manifest(&["key_id"], json!("ed25519:other")),
        manifest(
            &["public_key"],
            json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ),
        manifest(&["conduit", "version"], json!("0.9.0")),
        manifest(&["conduit", "version"], json!("99.0.0")),
        manifest(&["conduit", "sha256"], json!("0")),
        manifest(&["created"], json!("2020-01-01T00:00:00Z")),
        manifest(&["label"], json!("another")),
        manifest(&["total_bytes"], json!(1)),
        manifest(&["media_count"], json!(0)),
        manifest(&["seconds_down"], json!(0.5)),
        manifest(&["damaged_media"], json!(["data/media/00/00/00"])),
        manifest(&["format"], json!(3)),
        manifest(&["format"], Value::Null),
        manifest(&["files"], json!({})),
        manifest(&["digest"], Value::Null),
        manifest(
            &["files", "../../etc/passwd"],
            json!({"bytes": 1, "sha256": "0"}),
        ),
        manifest(
            &["files", "/etc/passwd"],
            json!({"bytes": 1, "sha256": "0"}),
        ),
    ];
    let some = inventory
        .tree
        .iter()
        .filter(|name| name.starts_with("data/"))
        .take(6);
    list.extend(some.map(|name| manifest(&["files", name], Value::Null)));
    list
}

/// A machine on which backups are corrupted, restored and looked at.
pub struct Bench {
    scratch: Scratch,
    sample: Sample,
    /// What lies in the sample's backup.
    pub inventory: Inventory,
    snapshot: String,
}

const PROGRAM: &str = include_str!("corrupt.py");

impl Bench {
    /// Boots a scratch machine, unpacks the newest backup of the sample and an older one there, and takes the database
    /// that the installation made for another server's.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    pub async fn set_up(world: &World, conduit: &Binary, sample: &Sample) -> Result<Self> {
        let rocksdict = tools::rocksdict().await?;
        let scratch = Scratch::open(
            world,
            conduit,
            &sample.store,
            crate::authority::PRODUCTION_NAME,
        )
        .await?;
        let host = &scratch.site.host;
        let to = format!("{}:/opt/rocksdict", host.container());
        crate::docker::copy(&rocksdict.display().to_string(), &to).await?;
        host.write("/opt/corrupt.py", "644", PROGRAM.as_bytes())
            .await?;
        // What does not come up soon does not come up. One byte of a program is like another: it is cut short. And a store of the newest snapshot alone, every byte of which counts.
        host.shell(
            "set -euo pipefail; cat > /etc/systemd/system/conduit.service.d/bench.conf <<'END'\n\
             [Service]\nEnvironment=CONDUIT_START_WAIT=20\nEND\n\
             systemctl daemon-reload; systemctl stop conduit.service; rm -f /opt/conduit/backup.env\n\
             mkdir -p /opt/foreign; cp -a /opt/conduit/data /opt/conduit/site.identity /opt/foreign/\n\
             cp /root/store-password /opt/conduit/secrets/restic-password\n\
             from() { restic --no-lock --no-cache --repo /root/store --password-file /root/store-password \"$@\"; }\n\
             ids=$(from snapshots --json --tag conduit | jq -r 'sort_by(.time) | .[].id')\n\
             from restore --quiet --target /opt/older \"$(head -n 1 <<<\"$ids\")\"\n\
             from restore --quiet --target /opt/whole \"$(tail -n 1 <<<\"$ids\")\"\n\
             find /opt/whole/site -type f -size +1M -exec truncate -s 4096 {} +\n\
             python3 /opt/corrupt.py '{\"op\": \"nothing\", \"base\": \"/opt/whole\", \"to\": \"/opt/pristine\"}' >/dev/null\n\
             export RESTIC_PASSWORD_FILE=/root/store-password RESTIC_REPOSITORY=/opt/store\n\
             restic --no-cache init --quiet; cd /opt/pristine\n\
             restic --no-cache backup --quiet --tag conduit .",
        )
        .await?;
        let snapshot = host
            .shell("restic --no-cache --no-lock --repo /opt/store --password-file /root/store-password snapshots --json | jq -r '.[0].id'")
            .await?;
        host.shell(&format!(
            "mkdir -p /opt/conduit/backups; echo '{{\"snapshot\": \"{snapshot}\"}}' > /opt/conduit/backups/catalog.jsonl"
        ))
        .await?;
        let files = async |directory: &str| -> Result<Vec<String>> {
            let listed = host
                .shell(&format!(
                    "cd {directory} && find . -type f -size +0 -printf '%P\\n' | sort"
                ))
                .await?;
            Ok(listed.lines().map(str::to_owned).collect())
        };
        let inventory = Inventory {
            tree: files("/opt/pristine").await?,
            store: files("/opt/store").await?,
        };
        Ok(Self {
            sample: sample.clone(),
            inventory,
            snapshot,
            scratch,
        })
    }

    /// The machine that it happens on; after something was [put](Self::put) there and nobody refused it, it serves the site.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// What the site of the sample was.
    pub fn record(&self) -> &Record {
        &self.sample.record
    }

    /// Corrupts, restores and looks. `None` where there was nothing of that kind to corrupt.
    ///
    /// # Errors
    /// The harness's or the environment's: nothing was found out.
    pub async fn put(&self, corruption: &Corruption) -> Result<Option<Trial>> {
        let Some(did) = self.corrupt(corruption).await? else {
            return Ok(None);
        };
        let mut trial = Trial {
            place: corruption.place,
            did,
            caught: Vec::new(),
            said: String::new(),
            seen: Vec::new(),
            harmless: false,
        };
        if corruption.place == Place::Store {
            let check = "export RESTIC_REPOSITORY=/opt/mutant; restic --no-cache --no-lock --password-file /root/store-password check >/tmp/check 2>&1 \
                         || { tail -n 1 /tmp/check; exit 5; }";
            let verify = format!(
                "export RESTIC_REPOSITORY=/opt/mutant; timeout 60 /opt/conduit/scripts/backup.sh verify {}",
                self.snapshot
            );
            for line in [verify.as_str(), check] {
                let answer = self.scratch.site.host.try_shell(line).await?;
                if answer.exit != 0 {
                    trial.note(Catcher::Backup, &answer.stderr, &answer.stdout);
                    break;
                }
            }
        }
        let arguments = match corruption.place {
            Place::Store => format!(
                "{} --repository /opt/mutant --password-file /root/store-password",
                self.snapshot
            ),
            Place::Snapshot | Place::Source => "--from /opt/mutant".to_owned(),
        };
        let restore = format!(
            "systemctl stop conduit.service; systemctl reset-failed conduit.service 2>/dev/null; \
             timeout 120 /opt/conduit/scripts/restore.sh {arguments} --replace --drain 0 --server-name {}",
            self.scratch.site.name
        );
        let answer = self.scratch.site.host.try_shell(&restore).await?;
        match answer.exit {
            0 => self.look(corruption, &mut trial).await?,
            1 | 3 | 5 => trial.note(Catcher::Verification, &answer.stderr, &answer.stdout),
            4 => trial.note(Catcher::Proof, &answer.stderr, &answer.stdout),
            // A restore that hangs or dies has caught nothing.
            other => {
                trial.said = format!("`restore.sh` ended with {other}: {}", answer.stderr.trim())
            }
        }
        let clean = "set -e; if [ -e /opt/conduit/staging/restore.json ]; then systemctl stop conduit.service; \
                     /opt/conduit/scripts/restore.sh undo; fi; rm -rf /opt/conduit/data.before-* /opt/conduit/data.failed-*";
        self.scratch.site.host.shell(clean).await?;
        Ok(Some(trial))
    }

    async fn corrupt(&self, corruption: &Corruption) -> Result<Option<String>> {
        let mut order = corruption.order.clone();
        let base = if corruption.place == Place::Store {
            "/opt/store"
        } else {
            "/opt/pristine"
        };
        order["base"] = json!(base);
        order["sealed"] = json!(corruption.place == Place::Source);
        let answer = self.program(&order).await?;
        Ok(answer["did"].as_str().map(str::to_owned))
    }

    async fn program(&self, order: &Value) -> Result<Value> {
        let mut order = order.clone();
        order["to"] = json!("/opt/mutant");
        let what = || format!("corrupt a backup by {order}");
        let text = order.to_string();
        let output = self
            .scratch
            .site
            .host
            .exec(&["python3", "/opt/corrupt.py", &text])
            .await?;
        serde_json::from_str(output.stdout.trim())
            .or_harness(what)
            .map_err(|failure| failure.last_seen(output.stderr))
    }

    /// The restore has passed: what does a drill say?
    async fn look(&self, corruption: &Corruption, trial: &mut Trial) -> Result<()> {
        let compared = self
            .scratch
            .compare(&self.sample.record, &self.sample.sessions);
        match tokio::time::timeout(Duration::from_secs(90), compared).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) if matches!(failure.blame, Blame::Product | Blame::Deployment) => {
                let seen = failure.last_seen.clone().unwrap_or_default();
                trial.note(Catcher::Drill, &seen, &failure.what);
                trial.seen = seen.lines().map(str::to_owned).collect();
                return Ok(());
            }
            Ok(Err(failure)) => return Err(failure),
            // What was restored byte by byte is the site: then it is this machine that is slow.
            Err(_) if corruption.place != Place::Source => {
                return Err(Failure::environment("hear of the restored site in 90 s"));
            }
            Err(_) => {
                trial.note(Catcher::Drill, "", "the server gave no answer in 90 s");
                return Ok(());
            }
        }
        if corruption.place != Place::Store {
            let told = self
                .program(&json!({"op": "explain", "base": "/opt/pristine"}))
                .await?;
            told["did"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut trial.said);
            trial.harmless = trial.said.ends_with(": none");
        } else {
            // Its every byte was compared with the manifest.
            "the snapshot was restored and is what it was".clone_into(&mut trial.said);
            trial.harmless = true;
        }
        Ok(())
    }
}

impl Trial {
    /// Notes who noticed, and the first line of what was said that says something.
    fn note(&mut self, catcher: Catcher, said: &str, or: &str) {
        self.caught.push(catcher);
        let lines = || {
            said.lines()
                .chain(or.lines())
                .map(str::trim)
                .filter(|line| !line.is_empty())
        };
        let error = lines().find(|line| line.starts_with("error:"));
        error
            .or_else(|| lines().next())
            .unwrap_or_default()
            .clone_into(&mut self.said);
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by: Vec<_> = self.caught.iter().map(|catcher| catcher.name()).collect();
        let by = if by.is_empty() {
            "nobody".to_owned()
        } else {
            by.join(" and ")
        };
        write!(
            f,
            "{}: {}\n    caught by {by}: {}",
            self.place, self.did, self.said
        )
    }
}

impl Score {
    /// Draws and puts corruptions until so many were made.
    ///
    /// # Errors
    /// Where one in ten found nothing out: then it is the bench that is broken.
    pub async fn take(bench: &Bench, seed: u64, count: usize) -> Result<Self> {
        let mut score = Self {
            seed,
            ..Self::default()
        };
        let task = ui::Task::begin(1, format!("corrupt a backup in {count} ways"));
        // Some of those drawn find nothing of their kind.
        for corruption in draw(seed, count * 2, &bench.inventory) {
            if score.trials.len() == count {
                break;
            }
            let put = match bench.put(&corruption).await {
                Err(failure) if score.undecided.len() * 10 < count => {
                    ui::say(format!("  {failure}"));
                    let lost = format!(
                        "{} {}: {}",
                        corruption.place, corruption.order, failure.what
                    );
                    score.undecided.push(lost);
                    continue;
                }
                put => put?,
            };
            if let Some(trial) = put {
                if trial.caught.is_empty() {
                    ui::say(format!("  {trial}"));
                }
                score.trials.push(trial);
                task.parts(score.trials.len() as u64, count as u64);
                // Hundreds take a while.
                if score.trials.len().is_multiple_of(50) {
                    ui::say(format!("  so far: {score}"));
                }
            }
        }
        task.end("done");
        Ok(score)
    }

    /// Those that nobody caught.
    pub fn survivors(&self) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(|trial| trial.caught.is_empty())
    }

    /// How many of a hundred were caught.
    pub fn percent(&self) -> f64 {
        let caught = self.trials.len() - self.survivors().count();
        100.0 * caught as f64 / self.trials.len().max(1) as f64
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let survivors = self.survivors().count();
        writeln!(
            f,
            "{} corruptions (seed {:x}), {} caught: {:.1} %",
            self.trials.len(),
            self.seed,
            self.trials.len() - survivors,
            self.percent()
        )?;
        let mut table = BTreeMap::<_, BTreeMap<_, usize>>::new();
        for trial in &self.trials {
            let row = table.entry(trial.place).or_default();
            for catcher in &trial.caught {
                *row.entry(*catcher).or_default() += 1;
            }
        }
        for (place, row) in table {
            let all = self
                .trials
                .iter()
                .filter(|trial| trial.place == place)
                .count();
            let by: Vec<_> = Catcher::ALL
                .iter()
                .filter_map(|catcher| Some(format!("{} {}", row.get(catcher)?, catcher.name())))
                .collect();
            writeln!(f, "  {place}: {all}, caught by: {}", by.join(", "))?;
        }
        for lost in &self.undecided {
            writeln!(f, "  undecided: {lost}")?;
        }
        for trial in self.survivors() {
            let harmless = if trial.harmless { " (harmless)" } else { "" };
            writeln!(f, "  survived{harmless}: {trial}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_corruptions_of_every_place() {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
        let inventory = Inventory {
            tree: names(&[
                "manifest.json",
                "data/000001.sst",
                "data/000002.log",
                "data/CURRENT",
                "site/site.identity",
                "data/media/a/b/c",
            ]),
            store: names(&["config", "data/00/0011"]),
        };
        let drawn = |seed| -> Vec<String> {
            draw(seed, 100, &inventory)
                .iter()
                .map(|one| format!("{} {}", one.place, one.order))
                .collect()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        for place in ["store", "snapshot", "source"] {
            let count = drawn(7).iter().filter(|one| one.starts_with(place)).count();
            assert!(count >= 10, "{count} of {place}");
        }
    }
}
