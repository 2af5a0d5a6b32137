//! What an upgrade survives: `install.sh upgrade` is killed, or one of its commands fails, wherever it exchanges server and
//! data; on its way forward, on its way back, and on the way back that the next run takes after a kill.
//!
//! There is one release of Conduit 0.10 that the kit knows, so a *new* release is a wrapper around it that reports another version.
//! It does to the data what a real one does: it marks it with its number, and refuses data with a higher mark. So a server that
//! finds the other one's data does not start.

use harness::client::Client;
use harness::scenario::{Outcome, Stage, scenario};
use harness::shared::{Settled, Shared, inside};
use harness::site::Site;
use harness::{Failure, Result};
use ruma::{OwnedEventId, OwnedRoomId};
use scenarios::{HOME, INSTALL, bootstrapped, must, room, unchanged};
use std::sync::Arc;
use tokio::sync::Mutex;

const CUT: &str = include_str!("../src/cut.sh");

/// Where server and data are exchanged.
const FORWARD: &str =
    "guarded_start|take_snapshot|set_link|start_conduit|drop_snapshot|ensure_identity";
/// The way back from a server that does not start.
const BACK: &str = "roll_back|exchange_data|undo_files";
/// The way back of a run that finds what a killed one left.
const RECOVERY: &str = "recover_upgrade|exchange_data";

/// One site for all of these claims, for one upgrade at a time.
static BENCH: Shared<Mutex<Bench>> = Shared::new();

struct Bench {
    site: Site,
    alexander: Client,
    social: OwnedRoomId,
    /// The real server.
    real: String,
    key: String,
    /// The newest release that there was.
    number: u32,
    /// The one that should serve.
    serving: u32,
    said: Vec<OwnedEventId>,
}

/// What happens to an upgrade.
#[derive(Clone, Copy, Debug)]
struct Cut {
    functions: &'static str,
    at: usize,
    how: &'static str,
}

impl Cut {
    const fn kill(functions: &'static str, at: usize) -> Self {
        Self {
            functions,
            at,
            how: "kill",
        }
    }

    const fn fail(functions: &'static str, at: usize) -> Self {
        Self {
            functions,
            at,
            how: "fail",
        }
    }
}

async fn bench(stage: &Stage) -> Result<Arc<Settled<Mutex<Bench>>>> {
    let conduit = stage.conduit().await?;
    inside(BENCH.get(async |world| {
        let site = bootstrapped(world, &conduit).await?;
        let password = site
            .host
            .shell("cat /opt/conduit/secrets/alexander.password")
            .await?;
        let alexander = Client::login(
            site.http(),
            &site.base_url(),
            "alexander",
            &password,
            "upgrade",
        )
        .await?;
        let social = room(&alexander, "fleet-social", HOME).await?;
        site.host
            .write("/root/cut.sh", "644", CUT.as_bytes())
            .await?;
        let real = site.host.shell("readlink -f /opt/conduit/conduit").await?;
        let key = site
            .host
            .shell("jq -c '{server_name, key_id, public_key}' /opt/conduit/site.identity")
            .await?;
        Ok(Mutex::new(Bench {
            site,
            alexander,
            social,
            real,
            key,
            number: 12,
            serving: 12,
            said: Vec::new(),
        }))
    }))
    .await
}

/// Has `cut.sh` do it.
fn order(cut: Cut) -> String {
    format!(
        "rm -rf /run/cut; mkdir /run/cut; printf \"CUT_IN='%s'\\nCUT_AT=%s\\nCUT_HOW=%s\\n\" '{}' {} {} > /run/cut/order",
        cut.functions, cut.at, cut.how
    )
}

impl Bench {
    /// Builds the next release; `fails` is what it does instead of serving.
    async fn release(&mut self, fails: &str) -> Result<()> {
        self.number += 1;
        let (number, real) = (self.number, &self.real);
        let wrapper = format!(
            "#!/bin/bash\nif [[ ${{1-}} == --version ]]; then echo conduit 0.10.{number}; exit 0; fi\n\
             mark=0; if [[ -e /opt/conduit/data/mark ]]; then mark=$(</opt/conduit/data/mark); fi\n\
             if ((mark > {number})); then echo \"the data is of 0.10.$mark, this is 0.10.{number}\"; exit 1; fi\n\
             echo {number} >/opt/conduit/data/mark\n{fails}\nexec {real}\n"
        );
        self.site
            .host
            .write("/root/wrapped/conduit", "755", wrapper.as_bytes())
            .await?;
        self.site
            .host
            .shell("cd /root/wrapped && sha256sum conduit > SHA256SUMS")
            .await?;
        Ok(())
    }

    async fn say(&mut self) -> Result<()> {
        let text = format!("message {}", self.said.len());
        self.said
            .push(self.alexander.say(&self.social, &text).await?);
        Ok(())
    }

    fn command(&self, installer: &str) -> String {
        format!(
            "BASH_ENV=/root/cut.sh CONDUIT_HEALTHY_WITHIN=100 {installer} upgrade --no-backup --bundle /root/wrapped --version 0.10.{}",
            self.number
        )
    }

    /// Upgrades to the newest release with this installer. Returns how it ended, at which command it was cut (nothing where it did not get
    /// that far), and what it said.
    async fn upgrade(&self, installer: &str, cut: Option<Cut>) -> Result<(i64, String, String)> {
        let order = cut.map_or_else(|| "rm -rf /run/cut".to_owned(), order);
        let line = format!("{order}; {}", self.command(installer));
        let ended = self.site.host.try_shell(&line).await?;
        let reached = self
            .site
            .host
            .shell("cat /run/cut/reached 2>/dev/null || true; rm -f /run/cut/order")
            .await?;
        Ok((
            ended.exit,
            reached,
            format!("exit {}\n{}{}", ended.exit, ended.stdout, ended.stderr),
        ))
    }

    /// The lock is free, and whichever server is linked does not find the data of a newer one. Returns whether it serves.
    async fn belongs_together(&self, said: &str) -> Result<bool> {
        let seen = self
            .site
            .host
            .shell(
                "cd /opt/conduit; for name in install backup; do flock --nonblock /run/lock/conduit-$name true || echo \"lock $name\"; done; \
                 echo linked $(./conduit --version | grep -o '[0-9]*$') marked $(cat data/mark 2>/dev/null || echo 0) \
                 data $(test -e data/CURRENT && echo there || echo away) $(systemctl is-active conduit.service)",
            )
            .await?;
        let words: Vec<_> = seen.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok());
        let (Some(linked), Some(marked)) = (number(1), number(3)) else {
            return Err(
                Failure::deployment("leave no lock behind").last_seen(format!("{seen}\n{said}"))
            );
        };
        must(
            words.get(5) == Some(&"away") || marked <= linked,
            "never link a server to the data of a newer one",
            format!("{seen}\n{said}"),
        )?;
        Ok(words.last() == Some(&"active"))
    }

    /// This release serves with its own data, the key and every message; nothing is left of what was cut off.
    async fn serves(&mut self, release: u32, said: &str) -> Result<()> {
        let running = self.belongs_together(said).await?;
        let seen = self
            .site
            .host
            .shell(
                "curl -sf http://127.0.0.1:6167/_matrix/key/v2/server | jq -c '{server_name, key_id: (.verify_keys | keys[0]), public_key: .verify_keys[].key}'; \
                 jq -c '{server_name, key_id, public_key}' /opt/conduit/site.identity; /opt/conduit/conduit --version; jq -r .installed_version /opt/conduit/site.identity; \
                 ls -A /opt/conduit/staging; systemctl show -P NeedDaemonReload conduit.service",
            )
            .await?;
        let (key, version) = (&self.key, format!("0.10.{release}"));
        let wanted = format!("{key}\n{key}\nconduit {version}\n{version}\nno");
        must(running, "serve in the end", said)?;
        unchanged(
            &format!("the site, served by {version} ({said})"),
            &wanted,
            &seen,
        )?;
        self.serving = release;
        self.say().await?;
        for event in &self.said {
            let found = self.alexander.try_event(&self.social, event).await?;
            must(
                found.outcome.is_ok(),
                "keep every message",
                format!("{event}\n{said}"),
            )?;
        }
        Ok(())
    }

    /// A copy of the kit that this has edited `server.sh` of, as `sed` does.
    async fn careless(&self, edit: &str) -> Result<&'static str> {
        let line = format!(
            "rm -rf /root/careless; cp -r /root/fleet/deploy /root/careless; cd /root/careless/conduit/install.d; sed -i '{edit}' server.sh; \
             ! cmp -s server.sh /root/fleet/deploy/conduit/install.d/server.sh"
        );
        self.site.host.shell(&line).await?;
        Ok("/root/careless/conduit/install.sh")
    }

    /// An upgrade waits while the server is stopped; meanwhile others try. (While it is being started a backup waits for that.)
    async fn holds_off(&mut self) -> Result<()> {
        self.release("").await?;
        let order = order(Cut {
            functions: "take_snapshot",
            at: 1,
            how: "wait",
        });
        let line = format!(
            "{order}; rm -f /root/ended; ({0}; echo $? >/root/ended) >/root/upgrade 2>&1 & \
             until [[ -e /run/cut/reached ]]; do [[ ! -e /root/ended ]] || exit 1; sleep 0.05; done; \
             /opt/conduit/scripts/backup.sh >/root/second 2>&1; echo backup $?; \
             /opt/conduit/scripts/restore.sh latest --replace >>/root/second 2>&1; echo restore $?; \
             {0} >>/root/second 2>&1; echo upgrade $?; touch /run/cut/go; wait; echo first $(cat /root/ended)",
            self.command(INSTALL)
        );
        let ends = self.site.host.shell(&line).await?;
        let said = self
            .site
            .host
            .shell("rm /run/cut/order; cat /root/upgrade /root/second")
            .await?;
        must(
            ends == "backup 75\nrestore 75\nupgrade 75\nfirst 0",
            "hold the others off",
            format!("{ends}\n{said}"),
        )
    }

    /// An upgrade is cut; then the server is started as `upgrade.md` says, if it is down and `by_hand`; then the same command is given
    /// again. Nothing where the upgrade did not get as far as the cut.
    async fn survives(&mut self, cut: Cut, by_hand: bool) -> Result<Option<String>> {
        let back = cut.functions == BACK;
        self.release(if back { "exit 1" } else { "" }).await?;
        self.say().await?;
        if cut.functions == RECOVERY {
            // The first one left its snapshot, and a server that is linked and not started.
            self.upgrade(INSTALL, Some(Cut::kill("start_conduit", 1)))
                .await?;
        }
        let (exit, reached, said) = self.upgrade(INSTALL, Some(cut)).await?;
        let (ends, release) = if back {
            (4, self.serving)
        } else {
            (0, self.number)
        };
        if reached.is_empty() {
            self.serves(release, &said).await?;
            return Ok(None);
        }
        let said = format!("{cut:?} at `{reached}`: {said}");
        let mut running = self.belongs_together(&said).await?;
        match cut.how {
            "kill" => must(exit == 137, "be killed", &said)?,
            _ => must(
                running && matches!(exit, 0 | 1 | 4),
                "leave a server that serves",
                &said,
            )?,
        }
        if !running && by_hand && !back {
            let started = self.site.host.try_shell("systemctl start conduit").await?;
            running = started.exit == 0;
            let guarded = self
                .site
                .host
                .try_shell("test -e /opt/conduit/data/CURRENT")
                .await?
                .exit
                != 0;
            must(
                running || guarded,
                "start by hand, unless there is no data yet",
                &said,
            )?;
        }
        if running {
            self.say().await?;
        }
        let (exit, _, again) = self.upgrade(INSTALL, None).await?;
        let said = format!("{said}\n{again}");
        must(
            exit == ends,
            &format!("end with {ends} when it is run again"),
            &said,
        )?;
        self.serves(release, &said).await?;
        Ok(Some(reached))
    }
}

/// `CUT_ALL=N` tries every command from the N-th on; otherwise the seed draws some of the first ones.
async fn survive(stage: &Stage, how: fn(usize) -> Cut, drawn: usize, of: usize) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(stage.world.seed());
    let all: Option<usize> = std::env::var("CUT_ALL")
        .ok()
        .and_then(|first| first.parse().ok());
    let ats = all.map_or_else(
        || rng.choose_multiple(1..=of, drawn),
        |first| (first..100).collect(),
    );
    let bench = bench(stage).await?;
    let mut bench = bench.lock().await;
    let mut reached = Vec::new();
    for at in ats {
        match Box::pin(bench.survives(how(at), rng.bool())).await? {
            Some(place) => reached.push(format!("{at} {place}")),
            None if all.is_some() => break,
            None => {}
        }
    }
    let reached = reached.join("\n");
    eprintln!("{reached}");
    must(
        reached.lines().count() >= drawn,
        "get as far as the cuts",
        reached,
    )
}

/// On its way forward: whatever was done by then, the server runs or can be started, on data that is its own, and the same command
/// goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_killed_at_any_command_leaves_a_pair_and_goes_on_when_it_is_run_again() -> Outcome
{
    scenario(async |stage| survive(stage, |at| Cut::kill(FORWARD, at), 3, 24).await).await
}

/// On its way back from a server that does not start, and on the way back that the next run takes after a kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_is_killed_ends_with_the_old_pair_when_it_is_run_again() -> Outcome {
    scenario(async |stage| {
        survive(stage, |at| Cut::kill(RECOVERY, at), 1, 17).await?;
        survive(stage, |at| Cut::kill(BACK, at), 1, 30).await
    })
    .await
}

/// A command that fails, as on a full disk, does not leave the server stopped: the old one serves when the upgrade has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_in_an_upgrade_leaves_a_server_that_serves() -> Outcome {
    scenario(async |stage| survive(stage, |at| Cut::fail(FORWARD, at), 2, 9).await).await
}

/// After an upgrade was cut off somebody starts the server, people write, and it is stopped again: the next run must not take that
/// for data that nobody has seen.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_after_an_upgrade_was_cut_off_is_not_taken_back() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let mut bench = bench.lock().await;
        let careless = bench
            .careless("s/ && ! -e $UNPROVED ||/ \\&\\& -e \\/nowhere ||/")
            .await?;
        for installer in [INSTALL, careless] {
            bench.release("").await?;
            bench.say().await?;
            let (_, reached, said) = bench
                .upgrade(INSTALL, Some(Cut::kill("start_conduit", 1)))
                .await?;
            must(!reached.is_empty(), "be cut off before the start", &said)?;
            bench.site.host.shell("systemctl start conduit").await?;
            bench.say().await?;
            bench.site.host.shell("systemctl stop conduit").await?;
            let (exit, _, said) = bench.upgrade(installer, None).await?;
            must(exit == 0, "go on", &said)?;
            let number = bench.number;
            let kept = bench.serves(number, &said).await;
            if installer == INSTALL {
                kept?;
            } else {
                stage.must_notice(
                    "a kit that goes back to before the upgrade whatever was written since",
                    kept,
                )?;
                // It is lost for good.
                bench.said.clear();
            }
        }
        Ok(())
    })
    .await
}

/// The checks above can fail: a kit that links the old server before it has put the old data back, and one that leaves the server
/// stopped when a command fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_careless_upgrade_is_noticed() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let mut bench = bench.lock().await;
        for (what, edit, cut) in [
            (
                "a kit that links the old server to the new one's data",
                "s/^  if .. -d $SNAPSHOT ..; then exchange_data; fi$/  set_link \"$OLD_TARGET\"; &/",
                Cut { functions: "exchange_data", at: 1, how: "kill" },
            ),
            (
                "a kit that leaves the server stopped",
                "/could not be put in place/d",
                Cut::fail("take_snapshot", 1),
            ),
        ] {
            let careless = bench.careless(edit).await?;
            bench.release(if cut.how == "kill" { "exit 1" } else { "" }).await?;
            let (_, reached, said) = bench.upgrade(careless, Some(cut)).await?;
            must(!reached.is_empty(), "reach the cut", &said)?;
            let running = bench.belongs_together(&said).await;
            let noticed = running.and_then(|running| must(running || cut.how == "kill", "leave a server that serves", &said));
            stage.must_notice(what, noticed)?;
            bench.release("").await?;
            let (_, _, said) = bench.upgrade(INSTALL, None).await?;
            let number = bench.number;
            bench.serves(number, &said).await?;
        }
        Ok(())
    })
    .await
}

/// While an upgrade has the server stopped, a backup, a restore and another upgrade give way with 75, and it ends well.
#[tokio::test(flavor = "multi_thread")]
async fn neither_a_backup_nor_a_restore_begins_during_an_upgrade() -> Outcome {
    scenario(async |stage| {
        let bench = bench(stage).await?;
        let mut bench = bench.lock().await;
        bench.holds_off().await?;
        let number = bench.number;
        bench.serves(number, "after the others gave way").await
    })
    .await
}
