//! A drill: the newest backup of a store is restored by the runbook on a machine that never was the site, in a lab from
//! which nothing leaves, and what its users then see is compared with what was recorded when the backup was made.
//!
//! The store is mounted read-only and hashed before and after. Nobody's password is used: the scratch server is given a
//! secret of its own with which the drill signs logins for everybody (Conduit's `jwt_secret`), and an emergency password
//! with which it asks the server for its accounts, rooms and appservices.
//!
//! A [`Record`] says what the site was. A drill of a lab site has one that was taken through the users' own sessions just
//! before the backup. Of a store that comes from elsewhere the first drill takes one, proves what needs none, and
//! compares with what the last good drill of that site saw; a later drill of the same snapshot must see the same again.

pub mod command;
mod sentinel;

pub use sentinel::{READ, Read, Sentinel, Watch};

use crate::admins::Admins;
use crate::client::{Client, NewRoom, Session};
use crate::failure::{Failure, OrBlame, Result};
use crate::fingerprint::{Fingerprint, Media};
use crate::homeserver::{Binary, Server};
use crate::host::{Host, Needs, STORE};
use crate::rehearse::{self, Fleet};
use crate::report::{Reached, Report};
use crate::runbook::nonce;
use crate::scenario::nothing_left;
use crate::site::Site;
use crate::verdict::{Exit, Verdict};
use crate::world::{Options, World};
use crate::{authority, tools, ui};
use reqwest::Method;
use ring::hmac;
use ruma::OwnedMxcUri;
use ruma::serde::Base64;
use ruma::serde::base64::UrlSafe;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The runbook brings the site back.
pub const RESTORED: &str =
    "the newest backup is restored by restore.md on a machine that never was the site";
/// Nobody's secret is needed to look.
pub const ENTERED: &str = "every account logs in without a secret of production";
/// It is what it was.
pub const SAME: &str = "the restored site is the site that was recorded";
/// Nothing was lost since the last drill.
pub const KEPT: &str = "what the last good drill saw is still there";
/// The archive is only read.
pub const UNTOUCHED: &str = "the store is as it was before the drill";

/// The device that a drill looks with; it is in no comparison.
const DEVICE: &str = "DRILL";

/// A restic repository in a directory of this machine.
#[derive(Clone, Debug)]
pub struct Store {
    /// The repository.
    pub directory: PathBuf,
    /// Its password.
    pub password: String,
}

impl Store {
    /// Opens one whose password is in a file.
    ///
    /// # Errors
    /// The environment's, where it is no repository or has no password.
    pub fn open(directory: &Path, password_file: &Path) -> Result<Self> {
        let what = || format!("open the store `{}`", directory.display());
        let directory = std::fs::canonicalize(directory).or_environment(what)?;
        if !directory.join("config").is_file() {
            return Err(Failure::environment(format!("{}: it is no restic repository", what()))
                .hint("name a directory that holds `config`, `data/` and `snapshots/`; an object store is copied first"));
        }
        let password = std::fs::read_to_string(password_file)
            .or_environment(|| format!("read the password in `{}`", password_file.display()))?;
        Ok(Self {
            directory,
            password: password.trim_end().to_owned(),
        })
    }

    /// A hash of every file's name and content.
    ///
    /// # Errors
    /// The environment's, where something cannot be read.
    pub fn hash(&self) -> Result<String> {
        let mut hasher = Sha256::new();
        let mut pending = vec![self.directory.clone()];
        let mut files = BTreeSet::new();
        while let Some(directory) = pending.pop() {
            let what = || format!("read `{}`", directory.display());
            for entry in std::fs::read_dir(&directory).or_environment(what)? {
                let entry = entry.or_environment(what)?;
                if entry.file_type().or_environment(what)?.is_dir() {
                    pending.push(entry.path());
                } else {
                    files.insert(entry.path());
                }
            }
        }
        for file in files {
            hasher.update(file.to_string_lossy().as_bytes());
            hasher.update(crate::homeserver::sha256_of(&file)?);
        }
        Ok(format!("{:x}", hasher.finalize()))
    }
}

/// What only the server knows of itself: it is asked by an administrator's commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// The accounts with a password.
    pub accounts: BTreeSet<String>,
    /// Every room, with the number of its members.
    pub rooms: BTreeSet<String>,
    /// The registered appservices.
    pub appservices: BTreeSet<String>,
}

impl Census {
    /// Asks the server, as somebody who may.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn take(administrator: &Client) -> Result<Self> {
        let mut admins = Admins::enter(administrator.clone()).await?;
        let lines = |told: &str| -> BTreeSet<String> {
            let lines = told.lines().skip(1).map(str::trim);
            lines
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let accounts = admins.ask("list-local-users", "local user account").await?;
        let rooms = admins.ask("list-rooms", "Rooms:").await?;
        let told = admins.ask("list-appservices", "Appservices (").await?;
        let appservices = told.split_once("): ").map_or("", |(_, list)| list);
        let localpart = |line: String| {
            let name = line.split(':').next().unwrap_or_default();
            name.trim_start_matches('@').to_owned()
        };
        let mut accounts: BTreeSet<_> = lines(&accounts).into_iter().map(localpart).collect();
        // The server's own account has a password for as long as there is an emergency.
        accounts.remove("conduit");
        Ok(Self {
            accounts,
            rooms: lines(&rooms),
            appservices: appservices
                .split(", ")
                .filter(|id| !id.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }

    fn differences(&self, after: &Self) -> Vec<String> {
        let mut list = Vec::new();
        for (what, before, after) in [
            ("account", &self.accounts, &after.accounts),
            ("room with its members", &self.rooms, &after.rooms),
            ("appservice", &self.appservices, &after.appservices),
        ] {
            let gone = before.difference(after).map(|one| (one, "is missing"));
            let come = after.difference(before).map(|one| (one, "is new"));
            for (one, how) in gone.chain(come) {
                list.push(format!("server: {what} `{one}` {how}"));
            }
        }
        list
    }
}

/// What a site was when a snapshot of it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The snapshot's full id.
    pub snapshot: String,
    /// What its users saw.
    pub fingerprint: Fingerprint,
    /// What the server said of itself.
    pub census: Census,
}

impl Record {
    /// Everything that differs in what is seen now, each in a sentence.
    pub fn differences(&self, seen: &Seen) -> Vec<String> {
        let list = self.fingerprint.differences(&seen.fingerprint);
        let list = list.iter().map(ToString::to_string);
        list.chain(self.census.differences(&seen.census)).collect()
    }

    /// What this record has and a later sight of the site lacks although nothing that users do takes it away.
    pub fn vanished(&self, seen: &Seen) -> Vec<String> {
        let (old, new) = (&self.fingerprint, &seen.fingerprint);
        let mut list = Vec::new();
        if (&old.server_name, &old.signing_keys) != (&new.server_name, &new.signing_keys) {
            list.push(format!(
                "site `{}`: name or signing key changed",
                old.server_name
            ));
        }
        for (id, room) in &old.rooms {
            let Some(now) = new.rooms.get(id) else {
                continue;
            };
            let gone = room
                .events
                .keys()
                .filter(|event| !now.events.contains_key(*event));
            list.extend(
                gone.map(|event| format!("room `{}`: event `{event}` is missing", room.label)),
            );
            for (event, old) in &room.reached {
                let now = now.reached.get(event).map(|now| &now.answer);
                if let Some(now) = now.filter(|now| **now != old.answer) {
                    list.push(format!(
                        "room `{}`: event `{event}` by its id: {} -> {now}",
                        room.label, old.answer
                    ));
                }
            }
        }
        for (uri, media) in &old.media {
            if let (Media::Held { .. }, Some(now @ Media::Refused(_))) = (media, new.media.get(uri))
            {
                list.push(format!("media `{uri}`: {media} -> {now}"));
            }
        }
        let gone = self.census.accounts.difference(&seen.census.accounts);
        list.extend(gone.map(|account| format!("server: account `{account}` is missing")));
        list
    }
}

/// A site as a drill sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As its users do.
    pub fingerprint: Fingerprint,
    /// As it says itself.
    pub census: Census,
}

/// The secrets that only the scratch server has.
struct Secrets {
    signing: String,
    emergency: String,
}

impl Secrets {
    fn draw() -> Self {
        Self {
            signing: format!("{}{}{}", nonce(), nonce(), nonce()),
            emergency: format!("{}{}", nonce(), nonce()),
        }
    }

    /// A login for anybody: a JSON Web Token (RFC 7519) signed with HMAC-SHA-256, good for ten minutes.
    fn token(&self, localpart: &str) -> String {
        let encoded =
            |value: &Value| Base64::<UrlSafe>::new(value.to_string().into_bytes()).encode();
        let claims = json!({"sub": localpart, "exp": now() + 600});
        let head = json!({"alg": "HS256", "typ": "JWT"});
        let signed = format!("{}.{}", encoded(&head), encoded(&claims));
        let tag = hmac_sha256(self.signing.as_bytes(), signed.as_bytes());
        format!("{signed}.{}", Base64::<UrlSafe>::new(tag).encode())
    }
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text).as_ref().to_vec()
}

/// Now, in seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A machine that never was the site, with the store to read and the scratch secrets, ready to be restored onto.
pub struct Scratch {
    /// The kit is installed there.
    pub site: Site,
    secrets: Secrets,
    /// What is said from then on is about the drill, in milliseconds since 1970.
    since: u64,
}

/// What was restored.
#[derive(Clone, Debug, Deserialize)]
pub struct Restored {
    /// The snapshot's full id.
    pub snapshot: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl Scratch {
    /// Boots a fresh machine with this store and follows `install.md` there.
    ///
    /// # Errors
    /// Whatever keeps it from serving.
    pub async fn open(
        world: &World,
        conduit: &Binary,
        store: &Store,
        server_name: &str,
    ) -> Result<Self> {
        let needs = Needs {
            bundle: Some(tools::bundle(conduit).await?),
            store: Some(store.directory.clone()),
            ..Needs::default()
        };
        let host = world.host_with(server_name, needs).await?;
        let (secrets, since) = (Secrets::draw(), now() * 1000);
        host.write("/root/store-password", "600", store.password.as_bytes())
            .await?;
        let site = world.install(host).await?;
        let environment = format!(
            "[Service]\nEnvironment=CONDUIT_JWT_SECRET={} CONDUIT_EMERGENCY_PASSWORD={}\n",
            secrets.signing, secrets.emergency
        );
        site.host
            .write(
                "/etc/systemd/system/conduit.service.d/drill.conf",
                "600",
                environment.as_bytes(),
            )
            .await?;
        let backup =
            format!("RESTIC_REPOSITORY={STORE}\nRESTIC_PASSWORD_FILE=/root/store-password\n");
        site.host
            .write("/opt/conduit/backup.env", "600", backup.as_bytes())
            .await?;
        site.host.shell("systemctl daemon-reload").await?;
        Ok(Self {
            site,
            secrets,
            since,
        })
    }

    /// Finds a snapshot of the store, `latest` or by its id.
    ///
    /// # Errors
    /// The deployment's, where there is none that can be read.
    pub async fn find(&self, snapshot: &str) -> Result<Restored> {
        let choose = if snapshot == "latest" {
            "max_by(.time)"
        } else {
            "map(select(.id | startswith($id)))[0]"
        };
        let script = format!(
            "set -euo pipefail; {RESTIC}; \
             id=$(r snapshots --json --tag conduit | jq -er --arg id {snapshot} '{choose} | .id'); \
             r dump \"$id\" manifest.json | jq -ce --arg id \"$id\" '{{snapshot: $id, created: (.created | fromdate)}}'"
        );
        let found = self.site.host.try_shell(&script).await?;
        let what = || format!("find the snapshot `{snapshot}` of the store");
        if found.exit != 0 {
            return Err(Failure::deployment(what())
                .last_seen(format!("{}{}", found.stdout, found.stderr))
                .hint("is it the right store, password and server name?"));
        }
        serde_json::from_str(&found.stdout).or_harness(what)
    }

    /// Follows `restore.md`, and takes away what production's secrets the snapshot brought.
    ///
    /// # Errors
    /// The deployment's, where the runbook does not come to its end.
    pub async fn restore(&self, snapshot: &str) -> Result<()> {
        let given = [
            ("SNAPSHOT", snapshot),
            ("EXISTING_DATA", "--replace"),
            // Nobody comes here who could be given a used key, and the drain talks in the administrators' room.
            ("DRAIN", "0"),
        ];
        self.site.follow("restore.md", &given).await?;
        self.site
            .host
            .shell("find /opt/conduit/secrets -type f -delete")
            .await
            .map(|_| ())
    }

    /// Logs everybody in with tokens of the drill's own.
    ///
    /// # Errors
    /// Where the server refuses one.
    pub async fn enter<'a>(&self, users: impl IntoIterator<Item = &'a str>) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for user in users {
            let token = self.secrets.token(user);
            let (http, base) = (self.site.http(), self.site.base_url());
            clients.push(Client::login_with_token(http, &base, user, token, DEVICE).await?);
        }
        Ok(clients)
    }

    /// Has a new device of the sentinel's user read it. Returns how old it was when the backup was made, in seconds.
    ///
    /// # Errors
    /// The deployment's, where it cannot be read or was too old.
    pub async fn reads(&self, watch: &Watch, found: &Restored) -> Result<u64> {
        let sentinel = &watch.sentinel;
        let entered = self.enter([sentinel.user.localpart()]).await?;
        let Some(client) = entered.first() else {
            return Err(Failure::harness("enter the restored site"));
        };
        let said = (watch.read)(&self.site, client.session(), sentinel).await?;
        sentinel.age(said, found.created)
    }

    /// Asks the server for what only it knows, as its own account.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn census(&self) -> Result<Census> {
        let (http, base) = (self.site.http(), self.site.base_url());
        let conduit =
            Client::login(http, &base, "conduit", &self.secrets.emergency, "drill").await?;
        Census::take(&conduit).await
    }

    /// Looks at the site with the eyes of the accounts of a record; `sessions` are those that were valid then.
    ///
    /// # Errors
    /// Where anything cannot be observed.
    pub async fn look(&self, record: &Record, sessions: &[Session]) -> Result<Seen> {
        let accounts = record.fingerprint.accounts.keys();
        let mut clients = self.enter(accounts.map(|user| user.localpart())).await?;
        clients.extend(self.sessions(sessions));
        let media: Vec<_> = record.fingerprint.media.keys().cloned().collect();
        let mut fingerprint = self.fingerprint(&clients, &media).await?;
        if sessions.is_empty() {
            fingerprint.forget_sessions();
        }
        Ok(Seen {
            fingerprint,
            census: self.census().await?,
        })
    }

    fn sessions(&self, sessions: &[Session]) -> impl Iterator<Item = Client> {
        let sessions = sessions.iter().cloned();
        sessions
            .map(|session| Client::with_session(self.site.http(), &self.site.base_url(), session))
    }

    async fn fingerprint(&self, clients: &[Client], media: &[OwnedMxcUri]) -> Result<Fingerprint> {
        let eyes: Vec<_> = clients.iter().collect();
        let (http, base) = (self.site.http(), self.site.base_url());
        let mut fingerprint = Fingerprint::take(&eyes, http, &base, media).await?;
        fingerprint.forget_device(DEVICE.into());
        fingerprint.forget_since(self.since);
        Ok(fingerprint)
    }

    /// Must see what was recorded.
    ///
    /// # Errors
    /// The deployment's, which names what differs.
    pub async fn compare(&self, record: &Record, sessions: &[Session]) -> Result<()> {
        let seen = self.look(record, sessions).await?;
        let mut record = record.clone();
        if sessions.is_empty() {
            record.fingerprint.forget_sessions();
        }
        named(SAME, record.differences(&seen))
    }
}

/// Restic on the scratch machine, without a trace in the store.
const RESTIC: &str = "r() { restic --no-lock --no-cache --repo /root/store --password-file /root/store-password \"$@\"; }";

/// A failure that names every difference, or none.
fn named(what: &str, differences: Vec<String>) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = differences.iter().take(40).map(String::as_str).collect();
    Err(Failure::deployment(format!("find that {what}: {} differences", differences.len()))
        .last_seen(list.join("\n"))
        .hint("the backup is not what the site was; keep the store, and look into the one before it (`--snapshot`)"))
}

/// A small site of the lab, backed up, with the record of what it was.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The store that its backup went to.
    pub store: Store,
    /// What it was.
    pub record: Record,
    /// The sessions of its users.
    pub sessions: Vec<Session>,
}

impl Sample {
    /// Makes the site with something of everything that a backup must not lose, records it, follows `backup.md`, and
    /// copies the store to `directory`.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    pub async fn make(world: &World, conduit: &Binary, directory: &Path) -> Result<Self> {
        Self::make_with(world, conduit, directory, async |_| Ok(())).await
    }

    /// The same with something more that happens on the site before it is recorded.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    pub async fn make_with(
        world: &World,
        conduit: &Binary,
        directory: &Path,
        more: impl AsyncFnOnce(&Site) -> Result<()>,
    ) -> Result<Self> {
        let site = world.site(authority::PRODUCTION_NAME, conduit).await?;
        site.follow("bootstrap.md", &[]).await?;
        let mut fleet = Fleet::settle(&site).await?;
        // So that there is an older one, which must not be taken for the newest.
        site.host
            .shell("/opt/conduit/scripts/backup.sh --label first")
            .await?;
        // What was said so far goes into tables at the next start; what is said from now on is in the write-ahead log.
        site.host.shell("systemctl restart conduit.service").await?;
        let password = site
            .host
            .shell("cat /opt/conduit/secrets/canary.password")
            .await?;
        let canary = Client::login(
            site.http(),
            &site.base_url(),
            "canary",
            &password,
            "rehearsal",
        )
        .await?;
        fleet.clients.push(canary);
        let password = site
            .host
            .shell("cat /opt/conduit/secrets/alexander.password")
            .await?;
        furnish(&fleet, &password).await?;
        more(&site).await?;
        let census = Census::take(&fleet.clients[0]).await?;
        let fingerprint = fleet.fingerprint(&site).await?;
        let snapshot = site.follow("backup.md", &[]).await?.result("SNAPSHOT")?;
        let password = site
            .host
            .shell("cat /opt/conduit/secrets/restic-password")
            .await?;
        take_away(&site.host, directory).await?;
        Ok(Self {
            store: Store {
                directory: directory.join("restic"),
                password,
            },
            sessions: fleet
                .clients
                .iter()
                .map(|client| client.session().clone())
                .collect(),
            record: Record {
                snapshot,
                fingerprint,
                census,
            },
        })
    }
}

/// The store as an operator carries it away.
async fn take_away(host: &Host, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).or_environment(|| format!("make `{}`", to.display()))?;
    let from = format!("{}:/opt/conduit/backups/restic", host.container());
    crate::docker::copy(&from, &to.display().to_string()).await
}

/// One of everything that a backup must not lose and that talk alone does not make; the password is alexander's.
async fn furnish(fleet: &Fleet, password: &str) -> Result<()> {
    let [admin, alexander, _, timmy, canary] = fleet.clients.as_slice() else {
        return Err(Failure::harness("furnish a site with another cast"));
    };
    let put = async |client: &Client, method: Method, path: &str, body: Value| {
        client.try_raw(method, path, Some(&body)).await?.must()
    };
    let garden = NewRoom::public("garden")
        .alias("garden")
        .topic("roses")
        .invite(timmy.user_id());
    let garden = alexander.create_room(garden).await?;
    alexander.publish(&garden, true).await?;
    for number in 1..=5 {
        alexander.say(&garden, &format!("rose {number}")).await?;
    }
    let picture = alexander
        .upload(
            fixtures::media::ROSE.bytes,
            fixtures::media::ROSE.content_type,
        )
        .await?;
    alexander.set_avatar(&picture).await?;
    alexander
        .set_account_data("org.example.colour", &json!({"colour": "red"}))
        .await?;
    canary
        .set_account_data("org.example.song", &json!({"song": "dawn"}))
        .await?;
    let me = alexander.user_id();
    let tag = format!("/_matrix/client/v3/user/{me}/rooms/{garden}/tags/m.favourite");
    put(alexander, Method::PUT, &tag, json!({"order": 0.5})).await?;
    let rule = json!({"actions": ["notify"], "pattern": "thorn"});
    put(
        alexander,
        Method::PUT,
        "/_matrix/client/v3/pushrules/global/content/org.example.thorn",
        rule,
    )
    .await?;
    let device = alexander.device_id();
    alexander
        .upload_device_keys(&json!({
            "user_id": me, "device_id": device, "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {format!("curve25519:{device}"): "c2FtcGxl", format!("ed25519:{device}"): "c2FtcGxl"},
            "signatures": {},
        }))
        .await?;
    let signing = |usage: &str, key: &str| {
        let name = format!("ed25519:{key}");
        json!({"user_id": me, "usage": [usage], "keys": {name: key}})
    };
    let identity = json!({
        "master_key": signing("master", "bWFzdGVy"),
        "self_signing_key": signing("self_signing", "c2VsZg"),
        "user_signing_key": signing("user_signing", "dXNlcg"),
        "auth": {
            "type": "m.login.password", "password": password,
            "identifier": {"type": "m.id.user", "user": me},
        },
    });
    put(
        alexander,
        Method::POST,
        "/_matrix/client/v3/keys/device_signing/upload",
        identity,
    )
    .await?;
    let pusher = json!({
        "pushkey": "key-of-the-lab", "kind": "http", "app_id": "org.example.lab", "app_display_name": "Lab",
        "device_display_name": "phone", "lang": "en", "data": {"url": "https://push.invalid/_matrix/push/v1/notify"},
    });
    put(
        timmy,
        Method::POST,
        "/_matrix/client/v3/pushers/set",
        pusher,
    )
    .await?;
    let version = put(
        alexander,
        Method::POST,
        "/_matrix/client/v3/room_keys/version",
        json!({
            "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
            "auth_data": {"public_key": "abcdefg", "signatures": {}},
        }),
    )
    .await?;
    let version = version["version"].as_str().unwrap_or_default().to_owned();
    let session = |number: u32| {
        json!({
            "first_message_index": number, "forwarded_count": 0, "is_verified": true,
            "session_data": {"ephemeral": "a", "ciphertext": format!("key {number}"), "mac": "c"},
        })
    };
    let keys =
        json!({"rooms": {garden.as_str(): {"sessions": {"one": session(1), "two": session(2)}}}});
    put(
        alexander,
        Method::PUT,
        &format!("/_matrix/client/v3/room_keys/keys?version={version}"),
        keys,
    )
    .await?;
    let bridge = json!({
        "id": "bridge", "url": null, "as_token": "as-token-of-the-lab", "hs_token": "hs-token-of-the-lab",
        "sender_localpart": "bridge", "rate_limited": false,
        "namespaces": {"users": [{"exclusive": true, "regex": "@bridge.*"}], "aliases": [], "rooms": []},
    });
    let mut admins = Admins::enter(admin.clone()).await?;
    admins
        .ask(
            &format!("register-appservice\n```\n{bridge}\n```"),
            "registered with ID: bridge",
        )
        .await?;
    Ok(())
}

/// What to drill.
pub enum Subject {
    /// A lab site that is made for it.
    Lab,
    /// The store of a site.
    Store {
        /// Where the backups are.
        store: Store,
        /// The server name that they must have.
        server_name: String,
        /// Which: an id, or `latest`.
        snapshot: String,
        /// What must be read of it with a recovery key.
        watch: Option<Watch>,
    },
}

/// Drills, and reports on every claim, whatever happens; what came of it is added to the history.
///
/// # Errors
/// Only what keeps the drill from beginning or from being noted.
pub async fn drill(
    conduit: &Binary,
    subject: Subject,
    history: &History,
    options: Options,
) -> Result<(Report, Line)> {
    let began = now();
    let mut report = Report::default();
    let lab = tempfile::tempdir().or_environment(|| "make a directory for the store".to_owned())?;
    let (store, server_name, snapshot, watch, sample) = match subject {
        Subject::Store {
            store,
            server_name,
            snapshot,
            watch,
        } => (store, server_name, snapshot, watch, None),
        Subject::Lab => {
            // Gone before the drill begins, as the site that a backup is wanted for.
            let world = World::open(Options::default()).await?;
            let sample = Sample::make(&world, conduit, lab.path()).await?;
            world.close().await?;
            let name = authority::PRODUCTION_NAME.to_owned();
            (
                sample.store.clone(),
                name,
                "latest".to_owned(),
                None,
                Some(sample),
            )
        }
    };
    let hash = store.hash()?;
    let world = World::open(options).await?;
    report.seed = format!("{:x}", world.seed());
    let mut line = Line {
        time: began,
        site: server_name.clone(),
        ..Line::default()
    };
    let course = Course {
        world: &world,
        conduit,
        store: &store,
        server_name,
        snapshot,
        watch: watch.as_ref(),
        sample: sample.as_ref(),
        history,
    };
    let clock = Instant::now();
    let reached = course.run(&mut report, &mut line).await;
    line.seconds = clock.elapsed().as_secs_f64();
    let server = &conduit.server;
    // What the report says of these is all that there is to know.
    let _ = report
        .put(rehearse::CLOSED_LAB, server, nothing_left(&world))
        .await;
    let untouched = async {
        if store.hash()? == hash {
            return Ok(());
        }
        Err(Failure::deployment(
            "leave the store as it was: its files have changed",
        ))
    };
    let _ = report.put(UNTOUCHED, server, untouched).await;
    if let Err(Reached { after }) = &reached {
        let evidence = world.run().join("evidence");
        match world.collect_evidence(&evidence).await {
            Ok(()) => ui::say(format!("evidence: {}", evidence.display())),
            Err(failure) => ui::say(failure.to_string()),
        }
        let read = watch.is_some().then_some(READ);
        for name in [RESTORED, ENTERED, SAME].into_iter().chain(read) {
            if !report.claims.iter().any(|claim| claim.name == name) {
                report.not_put(
                    name,
                    &format!("not reached: `{after}` did not hold before it"),
                );
            }
        }
        let failed = report
            .claims
            .iter()
            .any(|claim| claim.verdict == Verdict::Fail);
        // The evidence of a red drill stays with its run.
        if failed {
            line.evidence = Some(evidence.display().to_string());
        }
    }
    world.close().await?;
    line.judge(&report);
    history.append(&line)?;
    report.exit = report.exit(false).code();
    Ok((report, line))
}

/// One drill from the fresh machine to the comparison.
struct Course<'a> {
    world: &'a World,
    conduit: &'a Binary,
    store: &'a Store,
    server_name: String,
    snapshot: String,
    watch: Option<&'a Watch>,
    sample: Option<&'a Sample>,
    history: &'a History,
}

impl Course<'_> {
    async fn run(&self, report: &mut Report, line: &mut Line) -> std::result::Result<(), Reached> {
        let server = &self.conduit.server;
        let (began, clock) = (Instant::now(), now());
        let (scratch, found) = report
            .put(RESTORED, server, async {
                let scratch =
                    Scratch::open(self.world, self.conduit, self.store, &self.server_name).await?;
                let found = scratch.find(&self.snapshot).await?;
                scratch.restore(&found.snapshot).await?;
                Ok((scratch, found))
            })
            .await?;
        line.snapshot.clone_from(&found.snapshot);
        line.created = found.created;
        line.rto_seconds = Some(began.elapsed().as_secs_f64());
        line.rpo_seconds = Some(clock.saturating_sub(found.created));
        let sessions = self.sample.map_or(&[][..], |sample| &sample.sessions);
        let recorded = match self.sample {
            Some(sample) => Ok(Some(sample.record.clone())),
            None => self.history.record(&found.snapshot),
        };
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(failure) => report.put(SAME, server, async { Err(failure) }).await?,
        };
        self.look(report, server, &scratch, &found, recorded, sessions)
            .await?;
        if let Some(watch) = self.watch {
            let age = report
                .put(READ, server, scratch.reads(watch, &found))
                .await?;
            report.figure(
                "age of the newest readable message when the backup was made",
                age as f64,
                "s",
            );
        }
        report.figure(
            "age of the backup: what would be lost if the site died now (RPO)",
            clock.saturating_sub(found.created) as f64,
            "s",
        );
        report.figure(
            "bare machine to restored site (RTO)",
            line.rto_seconds.unwrap_or_default(),
            "s",
        );
        report.figure(
            "drill, bare machine to comparison",
            began.elapsed().as_secs_f64(),
            "s",
        );
        Ok(())
    }

    async fn look(
        &self,
        report: &mut Report,
        server: &Server,
        scratch: &Scratch,
        found: &Restored,
        recorded: Option<Record>,
        sessions: &[Session],
    ) -> std::result::Result<(), Reached> {
        if let Some(record) = recorded {
            report
                .put(ENTERED, server, async {
                    scratch
                        .enter(record.census.accounts.iter().map(String::as_str))
                        .await
                })
                .await?;
            return report
                .put(SAME, server, scratch.compare(&record, sessions))
                .await;
        }
        let record = report
            .put(ENTERED, server, async {
                let census = scratch.census().await?;
                let clients = scratch
                    .enter(census.accounts.iter().map(String::as_str))
                    .await?;
                let mut fingerprint = scratch.fingerprint(&clients, &[]).await?;
                fingerprint.forget_sessions();
                let record = Record {
                    snapshot: found.snapshot.clone(),
                    fingerprint,
                    census,
                };
                self.history.keep(&record)?;
                Ok(record)
            })
            .await?;
        report.not_put(SAME, "nothing was recorded when this snapshot was made; this drill has recorded what it saw, for later ones");
        let seen = Seen {
            fingerprint: record.fingerprint.clone(),
            census: record.census.clone(),
        };
        match self.history.last_good(&self.server_name, found.created) {
            Ok(Some(old)) => {
                report
                    .put(KEPT, server, async { named(KEPT, old.vanished(&seen)) })
                    .await?;
            }
            Ok(None) => report.not_put(KEPT, "this is the first good drill of this site"),
            Err(failure) => report.put(KEPT, server, async { Err(failure) }).await?,
        }
        Ok(())
    }
}

/// What came of drills: `drills.jsonl`, one line each, and `records/`, what each good one of a foreign store saw.
#[derive(Clone, Debug)]
pub struct History(PathBuf);

/// One drill.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Line {
    /// When it began, in seconds since 1970.
    pub time: u64,
    /// `pass`, `fail` or `unknown`.
    pub verdict: String,
    /// The server name.
    pub site: String,
    /// The snapshot's full id.
    pub snapshot: String,
    /// When that was made.
    pub created: u64,
    /// How old it was.
    pub rpo_seconds: Option<u64>,
    /// From a bare machine to the restored site.
    pub rto_seconds: Option<f64>,
    /// To the end of the comparison.
    pub seconds: f64,
    /// The claims that did not hold.
    #[serde(default)]
    pub failed: Vec<String>,
    /// Where the evidence lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

impl Line {
    /// The line that drill.md notes on the site itself, for its health check.
    pub fn noted(&self) -> String {
        json!({"time": self.time, "verdict": self.verdict, "snapshot": self.snapshot}).to_string()
    }

    fn judge(&mut self, report: &Report) {
        let of = |verdict| {
            report
                .claims
                .iter()
                .filter(move |claim| claim.verdict == verdict)
        };
        // What was never put, for want of a record, does not make a drill undecided; a check that broke does.
        let broken = of(Verdict::Unknown).any(|claim| claim.blame.is_some());
        self.failed = of(Verdict::Fail).map(|claim| claim.name.clone()).collect();
        let verdict = match (self.failed.is_empty(), broken) {
            (false, _) => "fail",
            (true, true) => "unknown",
            (true, false) => "pass",
        };
        self.verdict = verdict.to_owned();
    }
}

impl History {
    /// A directory; nothing need be there.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    fn lines_path(&self) -> PathBuf {
        self.0.join("drills.jsonl")
    }

    /// Adds a drill.
    ///
    /// # Errors
    /// The environment's.
    pub fn append(&self, line: &Line) -> Result<()> {
        use std::io::Write as _;
        let path = self.lines_path();
        let what = || format!("note the drill in `{}`", path.display());
        std::fs::create_dir_all(&self.0).or_environment(what)?;
        let text = serde_json::to_string(line).or_harness(what)? + "\n";
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path);
        let mut file = file.or_environment(what)?;
        file.write_all(text.as_bytes()).or_environment(what)?;
        file.sync_all().or_environment(what)
    }

    /// Every drill, the oldest first. A line that cannot be read is none.
    ///
    /// # Errors
    /// The environment's, where the file is there and cannot be read.
    pub fn lines(&self) -> Result<Vec<Line>> {
        let path = self.lines_path();
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.or_environment(|| format!("read `{}`", path.display()))?,
        };
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    fn record_path(&self, snapshot: &str) -> PathBuf {
        self.0.join("records").join(format!("{snapshot}.json"))
    }

    fn keep(&self, record: &Record) -> Result<()> {
        let path = self.record_path(&record.snapshot);
        let what = || format!("keep the record `{}`", path.display());
        std::fs::create_dir_all(self.0.join("records")).or_environment(what)?;
        let text = serde_json::to_string(record).or_harness(what)?;
        std::fs::write(&path, text).or_environment(what)
    }

    /// What was recorded of a snapshot.
    fn record(&self, snapshot: &str) -> Result<Option<Record>> {
        let path = self.record_path(snapshot);
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => {
                let text = read.or_environment(|| format!("read `{}`", path.display()))?;
                let record = serde_json::from_str(&text);
                record
                    .or_environment(|| format!("understand `{}`", path.display()))
                    .map(Some)
            }
        }
    }

    /// What the last good drill of a site saw, of a snapshot older than this.
    fn last_good(&self, site: &str, created: u64) -> Result<Option<Record>> {
        let lines = self.lines()?;
        let mut good = lines
            .iter()
            .rev()
            .filter(|line| line.verdict == "pass" && line.site == site && line.created < created);
        good.find_map(|line| self.record(&line.snapshot).transpose())
            .transpose()
    }

    /// How things stand: the last drills, and whether that is cause for alarm: the last one was not good, or none has
    /// been good for so many days.
    ///
    /// # Errors
    /// The environment's, where the history cannot be read.
    pub fn status(&self, now: u64, days: u32) -> Result<(String, Exit)> {
        let lines = self.lines()?;
        let mut text = String::new();
        for line in lines.iter().rev().take(10).rev() {
            let time = format!("{} h ago", now.saturating_sub(line.time) / 3600);
            let snapshot = line.snapshot.get(..8).unwrap_or("none");
            let seconds = |of: Option<f64>| of.map_or("-".to_owned(), |of| format!("{of:.0} s"));
            let _ = writeln!(
                text,
                "{:<7} {time:>10}  {} {snapshot}  RPO {:>8}  RTO {:>6}  {}",
                line.verdict,
                line.site,
                seconds(line.rpo_seconds.map(|of| of as f64)),
                seconds(line.rto_seconds),
                line.failed.join("; ")
            );
        }
        let good = lines.iter().rev().find(|line| line.verdict == "pass");
        let (verdict, exit) = match (lines.last(), good) {
            (None, _) => ("ALARM: no drill has ever run".to_owned(), Exit::Unknown),
            (Some(last), _) if last.verdict == "fail" => {
                ("ALARM: the last drill was red".to_owned(), Exit::Deployment)
            }
            (Some(last), _) if last.verdict != "pass" => (
                "ALARM: the last drill did not come to its end".to_owned(),
                Exit::Unknown,
            ),
            (_, Some(good)) if now.saturating_sub(good.time) <= u64::from(days) * 86_400 => {
                ("ok: the last drill was good".to_owned(), Exit::Ok)
            }
            _ => (
                format!("ALARM: no drill has run for {days} days"),
                Exit::Unknown,
            ),
        };
        let _ = writeln!(text, "{verdict}");
        Ok((text, exit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_signed_as_rfc_4231_has_it() {
        let tag = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        let hex = tag
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(
            hex,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    fn drilled(time: u64, verdict: &str) -> Line {
        Line {
            time,
            verdict: verdict.to_owned(),
            ..Line::default()
        }
    }

    #[test]
    fn a_red_drill_and_a_drill_that_did_not_run_are_cause_for_alarm() {
        let directory = tempfile::tempdir().expect("a directory");
        let history = History::at(directory.path().join("new"));
        let day = 86_400;
        let status = |now| {
            let (text, exit) = history.status(now, 8).expect("a status");
            (text.lines().last().unwrap_or_default().to_owned(), exit)
        };
        assert_eq!(
            status(0),
            ("ALARM: no drill has ever run".to_owned(), Exit::Unknown)
        );
        history.append(&drilled(day, "pass")).expect("noted");
        assert_eq!(
            status(9 * day),
            ("ok: the last drill was good".to_owned(), Exit::Ok)
        );
        assert_eq!(
            status(9 * day + 1),
            (
                "ALARM: no drill has run for 8 days".to_owned(),
                Exit::Unknown
            )
        );
        history.append(&drilled(2 * day, "fail")).expect("noted");
        assert_eq!(
            status(2 * day),
            ("ALARM: the last drill was red".to_owned(), Exit::Deployment)
        );
        history.append(&drilled(3 * day, "unknown")).expect("noted");
        assert_eq!(status(3 * day).1, Exit::Unknown);
        history.append(&drilled(4 * day, "pass")).expect("noted");
        assert_eq!(status(4 * day).1, Exit::Ok);
    }

    /// A site with one room, one message, one file and one account.
    fn garden() -> Seen {
        let fingerprint = json!({
            "format": 2, "server_name": "vale.test", "signing_keys": {"ed25519:a": "key"}, "accounts": {},
            "rooms": {"!garden:vale.test": {
                "label": "garden", "published": false, "aliases": [], "state": {}, "timelines": {},
                "events": {"$rose": {
                    "event_id": "$rose", "type": "m.room.message", "sender": "@alice:vale.test",
                    "origin_server_ts": 1, "content": "hash",
                }},
            }},
            "media": {"mxc://vale.test/rose": {"held": {"sha256": "hash", "bytes": 1}}},
        });
        let census = json!({"accounts": ["alice"], "rooms": [], "appservices": ["bridge"]});
        Seen {
            fingerprint: serde_json::from_value(fingerprint).expect("a fingerprint"),
            census: serde_json::from_value(census).expect("a census"),
        }
    }

    #[test]
    fn what_nobody_takes_away_and_is_gone_is_named_and_what_is_new_is_not() {
        let Seen {
            fingerprint,
            census,
        } = garden();
        let record = Record {
            snapshot: "1".to_owned(),
            fingerprint,
            census,
        };
        let vanished = |change: fn(&mut Seen)| {
            let mut seen = garden();
            change(&mut seen);
            record.vanished(&seen).join("\n")
        };
        let nothing = vanished(|seen| _ = seen.census.accounts.insert("bob".to_owned()));
        assert_eq!(nothing, "");
        let event = vanished(|seen| {
            seen.fingerprint
                .rooms
                .values_mut()
                .for_each(|room| room.events.clear());
        });
        assert_eq!(event, "room `garden`: event `$rose` is missing");
        let account = vanished(|seen| seen.census.accounts.clear());
        assert_eq!(account, "server: account `alice` is missing");
        let file = vanished(|seen| {
            let gone = Media::Refused("404 `M_NOT_FOUND`".to_owned());
            seen.fingerprint
                .media
                .values_mut()
                .for_each(|media| *media = gone.clone());
        });
        assert!(file.contains("refused with 404 `M_NOT_FOUND`"), "{file}");
        let key = vanished(|seen| seen.fingerprint.signing_keys.clear());
        assert!(key.contains("signing key changed"), "{key}");
        let bridge = record.differences(&Seen {
            census: Census::default(),
            ..garden()
        });
        assert!(
            bridge.contains(&"server: appservice `bridge` is missing".to_owned()),
            "{bridge:?}"
        );
    }
}
