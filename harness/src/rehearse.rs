//! The main job: takes a bare host to an installed, bootstrapped, backed-up and restored site, by the runbooks, and
//! says which claims held on which server.

use crate::client::Client;
use crate::failure::{Failure, OrBlame, Result};
use crate::fingerprint::Fingerprint;
use crate::homeserver::{Binary, Server};
use crate::host::BUNDLE;
use crate::image::SYNAPSE_VERSION;
use crate::report::{Reached, Report};
use crate::scenario::nothing_left;
use crate::site::Site;
use crate::verdict::Blame;
use crate::world::{Options, World};
use crate::{authority, tools, ui};
use ruma::OwnedMxcUri;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A bare host serves.
pub const INSTALLED: &str = "a bare host that followed install.md serves the client API over TLS";
/// Nobody gets in by themselves.
pub const CLOSED: &str = "a closed server registers nobody";
/// The fleet is there.
pub const BOOTSTRAPPED: &str = "the fleet's accounts and rooms are those of the manifest";
/// Nothing is done twice.
pub const BOOTSTRAPPED_ONCE: &str = "bootstrap applied twice sends nothing";
/// There is something to go back to.
pub const BACKED_UP: &str = "backup.md leaves a verified snapshot and a running server";
/// A lost disk is not a new start.
pub const NOT_REBORN: &str = "an emptied data directory does not become a new homeserver";
/// What was lost is back.
pub const RESTORED: &str = "a restored site is the site its users left";
/// It all stayed in the lab.
pub const CLOSED_LAB: &str = "no packet left the lab";

/// Every claim of a rehearsal, in the order in which they are put.
pub const CLAIMS: [&str; 8] = [
    INSTALLED,
    CLOSED,
    BOOTSTRAPPED,
    BOOTSTRAPPED_ONCE,
    BACKED_UP,
    NOT_REBORN,
    RESTORED,
    CLOSED_LAB,
];

/// The accounts that the manifest declares and whose sessions the fingerprint is taken with.
const CAST: [&str; 4] = ["admin", "alexander", "ezra", "timmy"];

/// Rehearses with a Conduit, or with what there is instead, and reports on every claim, whatever happens.
///
/// # Errors
/// Only what keeps the rehearsal from beginning; everything later is part of the report.
pub async fn rehearse(conduit: Option<&Binary>, options: Options) -> Result<Report> {
    let world = World::open(options).await?;
    let mut report = Report {
        seed: format!("{:x}", world.seed()),
        ..Report::default()
    };
    let reached = match conduit {
        Some(conduit) => with_conduit(&world, conduit, &mut report).await,
        None => without_conduit(&world, &tools::standin().await?, &mut report).await,
    };
    let server = report.claims.first().and_then(|claim| claim.server.clone());
    if let (Ok(()), Some(server)) = (&reached, server) {
        // What the report says of it is all that there is to know.
        let _ = report.put(CLOSED_LAB, &server, nothing_left(&world)).await;
    }
    if let Err(Reached { after }) = &reached {
        let evidence = world.run().join("evidence");
        match world.collect_evidence(&evidence).await {
            Ok(()) => ui::say(format!("evidence: {}", evidence.display())),
            Err(failure) => ui::say(failure.to_string()),
        }
        let put: BTreeSet<_> = report
            .claims
            .iter()
            .map(|claim| claim.name.clone())
            .collect();
        for name in CLAIMS.into_iter().filter(|&name| !put.contains(name)) {
            report.not_put(
                name,
                &format!("not reached: `{after}` did not hold before it"),
            );
        }
    }
    world.close().await?;
    Ok(report)
}

async fn with_conduit(world: &World, conduit: &Binary, report: &mut Report) -> Result<(), Reached> {
    let server = &conduit.server;
    let site = report
        .put(INSTALLED, server, installed(world, conduit))
        .await?;
    report.put(CLOSED, server, registers_nobody(&site)).await?;
    let fleet = report
        .put(BOOTSTRAPPED, server, async {
            site.follow("bootstrap.md", &[]).await?;
            // Everybody can log in with the password that was made, and talk in the rooms.
            Fleet::settle(&site).await
        })
        .await?;
    report
        .put(BOOTSTRAPPED_ONCE, server, bootstrap_sends_nothing(&site))
        .await?;
    let look = async || fleet.fingerprint(&site).await;
    lost_and_restored(&site, server, report, look, |before, after| {
        same("the site", before, after)
    })
    .await
}

/// Where there is no Conduit, the scripts are rehearsed on the stand-in and the manifest on Synapse.
async fn without_conduit(
    world: &World,
    standin: &Binary,
    report: &mut Report,
) -> Result<(), Reached> {
    let server = &standin.server;
    let site = report
        .put(INSTALLED, server, async {
            let site = installed(world, standin).await?;
            // Something to lose and to find again.
            let write = "for n in $(seq 20); do curl -sf -X POST --data \"record $n\" \
                         http://127.0.0.1:6167/standin/write || exit 1; done";
            site.host.shell(write).await?;
            Ok(site)
        })
        .await?;
    report.not_put(
        CLOSED,
        "there is no Conduit; nothing about Matrix is proved by what the stand-in refuses",
    );
    let synapse = Server {
        name: "synapse".to_owned(),
        version: SYNAPSE_VERSION.to_owned(),
    };
    let partner = report
        .put(BOOTSTRAPPED, &synapse, async {
            let partner = world.synapse("vale.test").await?;
            apply_manifest(&partner).await?;
            Ok(partner)
        })
        .await?;
    report
        .put(BOOTSTRAPPED_ONCE, &synapse, async {
            let said = apply_manifest(&partner).await?;
            sent_nothing(&said)
        })
        .await?;
    let look = async || records(&site).await;
    lost_and_restored(&site, server, report, look, |before, after| {
        if before == after {
            return Ok(());
        }
        Err(Failure::deployment("restore the records that were there")
            .last_seen(format!("before: {before}\nafter: {after}")))
    })
    .await
}

/// Backs the site up, loses its data, restores it; `look` must see before and after what `compare` finds the same.
async fn lost_and_restored<T>(
    site: &Site,
    server: &Server,
    report: &mut Report,
    look: impl AsyncFn() -> Result<T>,
    compare: impl Fn(&T, &T) -> Result<()>,
) -> Result<(), Reached> {
    let (before, snapshot) = report
        .put(BACKED_UP, server, async {
            Ok((look().await?, backed_up(site).await?))
        })
        .await?;
    report.figure(
        "client API away during the backup",
        snapshot.away.as_secs_f64(),
        "s",
    );
    report.put(NOT_REBORN, server, not_reborn(site)).await?;
    report
        .put(RESTORED, server, async {
            restored(site, &snapshot.id).await?;
            compare(&before, &look().await?)
        })
        .await
}

/// Follows `install.md` on a bare host. The client trusts only the lab's authority, so that an answer over TLS proves
/// where the certificate comes from.
async fn installed(world: &World, conduit: &Binary) -> Result<Site> {
    let site = world.site(authority::PRODUCTION_NAME, conduit).await?;
    if site.server.name == conduit.server.name {
        return Ok(site);
    }
    Err(
        Failure::deployment("serve the homeserver that was installed")
            .last_seen(format!("`{}` answers", site.server)),
    )
}

/// Every way to register is refused, through the proxy, as anybody on the network would try
/// (Client-Server API, "Account registration").
pub async fn registers_nobody(site: &Site) -> Result<()> {
    let attempts = [
        ("", serde_json::json!({})),
        (
            "",
            serde_json::json!({"username": "mallory", "password": "mallory", "auth": {"type": "m.login.dummy"}}),
        ),
        (
            "",
            serde_json::json!({
                "username": "mallory", "password": "mallory",
                "auth": {"type": "m.login.registration_token", "token": "guessed"},
            }),
        ),
        ("?kind=guest", serde_json::json!({})),
    ];
    for (query, body) in attempts {
        let url = format!("{}/_matrix/client/v3/register{query}", site.base_url());
        let what = || format!("try to register at `{url}` with {body}");
        let answer = site
            .http()
            .post(&url)
            .json(&body)
            .send()
            .await
            .or_blame(Blame::Deployment, what)?;
        let status = answer.status().as_u16();
        let text = answer.text().await.or_blame(Blame::Deployment, what)?;
        if status != 403 || !text.contains("M_FORBIDDEN") {
            return Err(Failure::deployment(format!("{}: it must be refused with 403 M_FORBIDDEN", what()))
                .last_seen(format!("status {status}: {text}"))
                .hint("`allow_registration` in conduit.toml, or a `CONDUIT_ALLOW_REGISTRATION` that is left over"));
        }
    }
    Ok(())
}

async fn bootstrap_sends_nothing(site: &Site) -> Result<()> {
    let said = site
        .host
        .shell(&format!(
            "/opt/conduit/scripts/bootstrap.sh apply --manifest /root/fleet/fixtures/fleet.toml --server-name {}",
            site.name
        ))
        .await?;
    sent_nothing(&said)
}

/// The tool itself, where there is no Conduit whose window the script could open.
pub async fn apply_manifest(site: &Site) -> Result<String> {
    site.host
        .shell(&format!(
            "mkdir -p -m 700 /opt/conduit/secrets && {BUNDLE}/fleet-bootstrap apply \
             --manifest /root/fleet/fixtures/fleet.toml --server-name {} --secrets /opt/conduit/secrets 2>&1",
            site.name
        ))
        .await
}

/// What the tool says of a run that had nothing to do.
fn sent_nothing(said: &str) -> Result<()> {
    if said.contains("sent 0 requests that change something") {
        return Ok(());
    }
    Err(
        Failure::deployment("apply the manifest a second time: it must send nothing")
            .last_seen(said),
    )
}

/// A backup, and how long clients were without the API.
pub struct Snapshot {
    /// The snapshot's id.
    pub id: String,
    /// The longest gap between two answers of the client API, asked for every 10 ms through the proxy.
    pub away: Duration,
}

/// Follows `backup.md` while a client asks for the API every 10 ms.
pub async fn backed_up(site: &Site) -> Result<Snapshot> {
    let judge = Judge::start(site);
    let followed = site.follow("backup.md", &[]).await;
    let away = judge.stop().await;
    Ok(Snapshot {
        id: followed?.result("SNAPSHOT")?,
        away,
    })
}

/// Asks for the client API every 10 ms, and measures the longest time without an answer.
pub struct Judge {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Duration>,
}

impl Judge {
    /// Begins to ask.
    pub fn start(site: &Site) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let http = site.http().clone();
        let url = format!("{}/_matrix/client/versions", site.base_url());
        let task = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            let mut last = Instant::now();
            let mut pulse = tokio::time::interval(Duration::from_millis(10));
            pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while stopped.try_recv().is_err() {
                pulse.tick().await;
                let asked = http.get(&url).timeout(Duration::from_secs(5)).send().await;
                if asked.is_ok_and(|answer| answer.status().is_success()) {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
            }
            // Whoever stops the judge while the API is still away must not get the time before that.
            longest.max(last.elapsed())
        });
        Self { stop, task }
    }

    /// Ends it: the longest time between two answers.
    pub async fn stop(self) -> Duration {
        let _ = self.stop.send(());
        self.task.await.unwrap_or(Duration::MAX)
    }
}

/// With its database gone the server must not start, nor must anybody get an answer in its name; and its data
/// directory must stay as empty as it is.
pub async fn not_reborn(site: &Site) -> Result<()> {
    site.lose_data().await?;
    let started = site
        .host
        .try_shell("systemctl start conduit.service")
        .await?;
    if started.exit == 0 {
        return Err(Failure::deployment(
            "start over an emptied data directory: it must be refused, and it started",
        )
        .hint("see `ExecStartPre=` of conduit.service"));
    }
    let files = site
        .host
        .shell("find /opt/conduit/data -mindepth 1 | wc -l")
        .await?;
    if files != "0" {
        return Err(Failure::deployment(format!(
            "refuse to start over an emptied data directory: {files} files were made"
        )));
    }
    let url = format!("{}/_matrix/key/v2/server", site.base_url());
    let answer = site
        .http()
        .get(&url)
        .send()
        .await
        .or_blame(Blame::Deployment, || format!("ask `{url}`"))?;
    if answer.status().is_success() {
        return Err(Failure::deployment(
            "refuse to start over an emptied data directory: a signing key is published",
        ));
    }
    let journal = site
        .host
        .shell("journalctl --unit=conduit.service --no-pager --lines=20 --output=cat")
        .await?;
    if journal.contains("restore") {
        return Ok(());
    }
    Err(Failure::deployment(
        "say in the journal why an emptied data directory keeps the server from starting",
    )
    .last_seen(journal))
}

/// Follows `restore.md`. One-time keys are not drained: for that the administrator asks for the list of users, and these two
/// messages would be all that differs from the site that was lost.
pub async fn restored(site: &Site, snapshot: &str) -> Result<()> {
    site.follow("restore.md", &[("SNAPSHOT", snapshot), ("DRAIN", "0")])
        .await
        .map(|_| ())
}

/// What the stand-in knows, and its key.
async fn records(site: &Site) -> Result<String> {
    site.host
        .shell(
            "set -e; curl -sf http://127.0.0.1:6167/standin/records; \
             curl -sf http://127.0.0.1:6167/_matrix/key/v2/server | jq -c .verify_keys",
        )
        .await
}

/// The fleet's accounts with a session each, and what they have said and shown each other.
pub struct Fleet {
    /// One session of each account, through the proxy.
    pub clients: Vec<Client>,
    media: Vec<OwnedMxcUri>,
}

impl Fleet {
    /// Logs everybody in with the passwords of the bootstrap, and lets them talk and share a file.
    pub async fn settle(site: &Site) -> Result<Self> {
        let mut clients = Vec::new();
        for name in CAST {
            let password = site
                .host
                .shell(&format!("cat /opt/conduit/secrets/{name}.password"))
                .await?;
            let client =
                Client::login(site.http(), &site.base_url(), name, &password, "rehearsal").await?;
            clients.push(client);
        }
        let rose = &fixtures::media::ROSE;
        let mut media = Vec::new();
        for alias in ["fleet-intel", "fleet-social"] {
            let alias = format!("#{alias}:{}", site.name);
            let alias = ruma::OwnedRoomAliasId::try_from(alias.as_str())
                .or_harness(|| format!("name `{alias}`"))?;
            let room = clients[0].resolve(&alias).await?;
            for client in &clients {
                for number in 1..=3 {
                    client
                        .say(&room, &format!("message {number} of {}", client.user_id()))
                        .await?;
                }
            }
            let uri = clients[1].upload(rose.bytes, rose.content_type).await?;
            clients[1]
                .send(
                    &room,
                    "m.room.message",
                    &serde_json::json!({"msgtype": "m.image", "body": rose.name, "url": uri}),
                )
                .await?;
            media.push(uri);
        }
        Ok(Self { clients, media })
    }

    /// The same sessions on another machine that is the site now.
    #[must_use]
    pub fn moved_to(&self, site: &Site) -> Self {
        let sessions = self.clients.iter().map(|client| client.session().clone());
        Self {
            clients: sessions
                .map(|session| Client::with_session(site.http(), &site.base_url(), session))
                .collect(),
            media: self.media.clone(),
        }
    }

    /// What they would notice if it changed.
    pub async fn fingerprint(&self, site: &Site) -> Result<Fingerprint> {
        let clients: Vec<_> = self.clients.iter().collect();
        Ok(Fingerprint::take(&clients, site.http(), &site.base_url(), &self.media).await?)
    }
}

/// Two fingerprints must be equal; every difference is named.
pub fn same(what: &str, before: &Fingerprint, after: &Fingerprint) -> Result<()> {
    let differences = before.differences(after);
    if differences.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = differences
        .iter()
        .take(40)
        .map(ToString::to_string)
        .collect();
    Err(Failure::deployment(format!(
        "bring back {what} as it was: {} differences",
        differences.len()
    ))
    .last_seen(list.join("\n")))
}
