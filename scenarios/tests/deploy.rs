//! What the deployment kit promises, put to real servers on bare hosts.

use fixtures::media::ROSE;
use harness::examine::Cause;
use harness::homeserver::{Binary, Origin};
use harness::host::{BUNDLE, Needs};
use harness::rehearse::{self, Fleet, backed_up, not_reborn, registers_nobody, restored, same};
use harness::scenario::{Outcome, nothing_left, scenario};
use harness::visitors::Visitors;
use harness::{Failure, OrBlame, authority, tools};
use scenarios::{
    ABROAD, HOME, INSTALL, any_site, fleet_site, impatient, installation, login, must,
    register_abroad, room, unchanged,
};

/// The runbook is followed to its last line on a bare host; the client on this side trusts nothing but the lab's
/// authority, so that its answer over TLS proves where the certificate comes from.
#[tokio::test(flavor = "multi_thread")]
async fn a_bare_host_that_followed_the_install_runbook_serves_the_client_api_over_tls() -> Outcome {
    scenario(async |stage| {
        let (site, binary) = any_site(stage).await?;
        must(site.server.name == binary.server.name, "serve what was installed", site.server.to_string())?;
        let issuer = site
            .host
            .shell(&format!(
                "openssl s_client -connect 127.0.0.1:443 -servername matrix.{HOME} </dev/null 2>/dev/null | \
                 openssl x509 -noout -ext subjectAltName"
            ))
            .await?;
        must(issuer.contains(&format!("DNS:matrix.{HOME}")), "serve a certificate for the Matrix host", issuer)?;
        let untrusting = harness::site::client(&authority::Root::generate("another")?.certificate, &[(HOME, site.host.ports)])?;
        let refused = untrusting.get(format!("{}/_matrix/client/versions", site.base_url())).send().await;
        must(refused.is_err(), "be trusted only by those who trust the lab's authority", format!("{refused:?}"))
    })
    .await
}

/// Files, inodes, times, unit states and process ids: nothing may differ after a second run of the installer.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_install_changes_nothing() -> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        let before = installation(&site).await?;
        let said = site
            .host
            .shell(&format!("{INSTALL} install --bundle {BUNDLE}"))
            .await?;
        must(
            said == "made 0 changes",
            "say that nothing was changed",
            &said,
        )?;
        unchanged("the installation", &before, &installation(&site).await?)
    })
    .await
}

/// What the dry run announces is what the run then does, line by line.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_exactly_what_the_run_then_does() -> Outcome {
    scenario(async |stage| {
        let binary = stage.conduit_or_standin().await?;
        let bundle = tools::bundle(&binary).await?;
        let host = stage
            .world
            .host_with(
                HOME,
                Needs {
                    bundle: Some(bundle),
                    ..Needs::default()
                },
            )
            .await?;
        let untouched = host
            .shell("find /opt /etc -printf '%p %C@\\n' | sort")
            .await?;
        let planned = host
            .shell(&format!("{INSTALL} install --bundle {BUNDLE} --dry-run"))
            .await?;
        unchanged(
            "a bare host by a dry run",
            &untouched,
            &host
                .shell("find /opt /etc -printf '%p %C@\\n' | sort")
                .await?,
        )?;
        let done = host
            .shell(&format!("{INSTALL} install --bundle {BUNDLE} 2>/dev/null"))
            .await?;
        must(
            planned.contains("would make ") && done.contains("made "),
            "sum up",
            format!("{planned}\n{done}"),
        )?;
        unchanged("the plan", &planned.replace("would make ", "made "), &done)
    })
    .await
}

/// Over the network, as a release is fetched: one bit is wrong, so nothing of it is executed, and the old server
/// goes on as if nobody had tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_download_is_refused_and_the_old_server_stays() -> Outcome {
    scenario(async |stage| {
        let (site, binary) = any_site(stage).await?;
        let (mut content, digest) = another_build(&binary)?;
        let middle = content.len() / 2;
        content[middle] ^= 1;
        let url = stage
            .world
            .authority()
            .await?
            .offer("conduit", &content)
            .await?;
        let before = installation(&site).await?;
        let upgrade = format!("{INSTALL} upgrade --no-backup --url {url} --sha256 {digest}");
        let refused = site.host.try_shell(&upgrade).await?;
        let said = format!(
            "exit {}\n{}{}",
            refused.exit, refused.stdout, refused.stderr
        );
        must(
            refused.exit == 3 && said.contains("SHA-256"),
            "refuse a damaged download by name",
            said,
        )?;
        unchanged("the installation", &before, &installation(&site).await?)
    })
    .await
}

/// The new server exits at its start. The upgrade says so, the old one serves again with the same key, and nothing of
/// the new one is left.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_to_a_server_that_does_not_start_is_rolled_back() -> Outcome {
    scenario(async |stage| {
        let (site, binary) = any_site(stage).await?;
        let standin = tools::standin().await?;
        let directory = tempfile::tempdir().or_environment(|| "make a directory".to_owned())?;
        let broken = directory.path().join("conduit");
        let baked = tokio::process::Command::new(&standin.path)
            .arg("--standin-bake")
            .arg(&broken)
            .args(["exit-at-start=1", "version=0.10.13"])
            .status()
            .await
            .or_harness(|| "bake a broken server".to_owned())?;
        must(baked.success(), "bake a broken server", baked.to_string())?;
        site.host.copy(&broken, "/root/broken", "755").await?;
        let digest = harness::homeserver::sha256_of(&broken)?;
        let key = "curl -sf http://127.0.0.1:6167/_matrix/key/v2/server | jq -cS .verify_keys";
        let (link, old_key) = (site.host.shell("readlink /opt/conduit/conduit").await?, site.host.shell(key).await?);
        let upgrade = format!("{INSTALL} upgrade --no-backup --binary /root/broken --sha256 {digest} --version 0.10.13");
        let rolled_back = site.host.try_shell(&upgrade).await?;
        let said = format!("exit {}\n{}{}", rolled_back.exit, rolled_back.stdout, rolled_back.stderr);
        must(rolled_back.exit == 4, "roll back an upgrade to a server that does not start", said)?;
        unchanged("the release", &link, &site.host.shell("readlink /opt/conduit/conduit").await?)?;
        unchanged("the signing key", &old_key, &site.host.shell(key).await?)?;
        let releases = site.host.shell("ls /opt/conduit/releases").await?;
        must(!releases.contains("0.10.13"), "remove the release that did not start", releases)?;
        let again = site.ask_for_server().await?;
        must(again.name == binary.server.name, "serve again through the proxy", again.to_string())
    })
    .await
}

/// Registration is refused on every flow, through the proxy; and yet the administrator is there, in the admin room
/// that only administrators are in (Conduit `service/users`: admin is who is joined to `#admins`).
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_server_registers_nobody_yet_the_first_administrator_exists() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        registers_nobody(&site).await?;
        let admin = login(stage, &site, "admin").await?;
        let admins = room(&admin, "admins", HOME).await?;
        let members = admin.members(&admins).await?;
        let expected = format!("@admin:{HOME}");
        must(
            members
                .iter()
                .any(|(user, how)| *user == expected && how == "join"),
            "make `admin` the administrator",
            format!("{members:?}"),
        )?;
        let others: Vec<_> = members
            .keys()
            .filter(|user| **user != expected && user.localpart() != "conduit")
            .collect();
        must(
            others.is_empty(),
            "make nobody else an administrator",
            format!("{others:?}"),
        )
    })
    .await
}

/// While the bootstrap makes the accounts, somebody tries to register through the proxy without pause: refused by
/// Conduit (403; 503 while it stops, Conduit src/main.rs:283), or not let through at all while the window is open
/// (502), and never anything else. An open server would answer 200, or 401 with what it wants for an account.
#[tokio::test(flavor = "multi_thread")]
async fn registration_is_never_open_to_the_network_while_the_bootstrap_runs() -> Outcome {
    scenario(async |stage| {
        let conduit = stage.conduit().await?;
        let site = stage.world.site(HOME, &conduit).await?;
        let (http, url) = (
            site.http().clone(),
            format!("{}/_matrix/client/v3/register", site.base_url()),
        );
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let mallory = tokio::spawn(async move {
            let body = serde_json::json!({
                "username": "mallory", "password": "mallory", "auth": {"type": "m.login.dummy"},
            });
            let mut answers = std::collections::BTreeMap::<u16, u32>::new();
            while stopped.try_recv().is_err() {
                if let Ok(answer) = http.post(&url).json(&body).send().await {
                    *answers.entry(answer.status().as_u16()).or_default() += 1;
                }
            }
            answers
        });
        let run = "systemctl show --property=InvocationID --value conduit";
        let before = site.host.shell(run).await?;
        let followed = site.follow("bootstrap.md", &[]).await;
        // Whoever listens has ended if this cannot be sent.
        let _ = stop.send(());
        let answers = mallory
            .await
            .or_harness(|| "join the one who tries".to_owned())?;
        followed?;
        let window = before != site.host.shell(run).await?;
        let seen = format!("{answers:?}, the server was started again: {window}");
        must(
            answers
                .keys()
                .all(|status| matches!(status, 403 | 502 | 503)),
            "refuse registration throughout",
            &seen,
        )?;
        must(
            // A try within the window waits in the proxy, and is refused after it or with 502.
            answers.contains_key(&403) && window,
            "have been tried before, in and after the window",
            seen,
        )
    })
    .await
}

/// The second run finds everything as declared: it only asks. Judged by what the tool counts and by the rooms, whose
/// newest events must be the same.
#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_applied_twice_sends_nothing() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let fleet = Fleet::settle(&site).await?;
        let before = fleet.fingerprint(&site).await?;
        let said = site.host.shell(&format!("{BOOTSTRAP} apply")).await?;
        must(
            said.contains("sent 0 requests that change something"),
            "send nothing the second time",
            said,
        )?;
        same("the site", &before, &fleet.fingerprint(&site).await?)
    })
    .await
}

const BOOTSTRAP: &str = "/opt/conduit/scripts/bootstrap.sh";

/// Somebody changes a topic and a power level by hand: the plan names both and changes nothing, the run mends both.
#[tokio::test(flavor = "multi_thread")]
async fn drift_from_the_manifest_is_shown_and_mended() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let admin = login(stage, &site, "admin").await?;
        let intel = room(&admin, "fleet-intel", HOME).await?;
        admin
            .send_state(
                &intel,
                "m.room.topic",
                "",
                &serde_json::json!({"topic": "gossip"}),
            )
            .await?;
        let plan = site.host.shell(&format!("{BOOTSTRAP} plan")).await?;
        must(
            plan.contains("topic") && plan.contains("0 to add, 1 to change"),
            "show the drift",
            &plan,
        )?;
        let again = site.host.shell(&format!("{BOOTSTRAP} plan")).await?;
        unchanged("the site by planning", &plan, &again)?;
        site.host.shell(&format!("{BOOTSTRAP} apply")).await?;
        let topic = admin
            .room_state(&intel)
            .await?
            .into_iter()
            .find(|event| event.kind == "m.room.topic")
            .map(|event| event.content["topic"].to_string());
        must(
            topic.as_deref() == Some("\"Reports and findings\""),
            "mend the drift",
            format!("{topic:?}"),
        )
    })
    .await
}

/// The tool is killed after its first request, run again and killed after its second, and so on, until it comes to
/// its end: then the site is what the manifest says, and nothing exists twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_killed_between_any_two_requests_converges_when_it_is_run_again() -> Outcome {
    scenario(async |stage| {
        let conduit = stage.conduit().await?;
        let site = stage.world.site(HOME, &conduit).await?;
        let sweep = format!(
            "for n in $(seq 1 200); do if FLEET_BOOTSTRAP_EXIT_AFTER=$n {BOOTSTRAP} apply >/tmp/said 2>&1; then \
             echo \"whole after $n\"; exit 0; fi; done; cat /tmp/said; exit 1"
        );
        let whole = site.host.shell(&sweep).await?;
        let after: u32 = whole.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        // Were the hook not heeded, the first run would come to its end.
        must(after > 10, "kill the tool many times before it comes to its end", &whole)?;
        let plan = site.host.shell(&format!("{BOOTSTRAP} plan")).await?;
        must(plan.contains("0 to add, 0 to change"), "converge", plan)?;
        registers_nobody(&site).await?;
        let admin = login(stage, &site, "admin").await?;
        let rooms = admin.joined_rooms().await?;
        // The three of the manifest and the admin room.
        must(rooms.len() == 4, "make each room once", format!("{rooms:?}"))
    })
    .await
}

/// No password and no token of the bootstrap stands in the journal, in any room's history, or in a file that others
/// than root can read.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_the_bootstrap_is_left_where_others_can_read_it() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let admin = login(stage, &site, "admin").await?;
        let secrets = site
            .host
            .shell("cd /opt/conduit/secrets && for file in *.password restic-password; do cat $file; echo; done; jq -r .administrator.access_token bootstrap-session.json; jq -r .access_token canary-session.json")
            .await?;
        let mut histories = String::new();
        for id in admin.joined_rooms().await? {
            for event in admin.messages(&id).await? {
                histories.push_str(&event.content.to_string());
            }
        }
        let secrets: Vec<_> = secrets.split_whitespace().filter(|secret| secret.len() > 15).collect();
        must(secrets.len() >= 8, "find the secrets that are looked for", format!("{} secrets", secrets.len()))?;
        for secret in secrets {
            must(!histories.contains(secret), "keep secrets out of rooms", format!("`{}…` is in a room", &secret[..4]))?;
            let found = site
                .host
                .shell(&format!(
                    "journalctl --no-pager | grep -c -F -- '{secret}' || true; \
                     find /opt/conduit /etc /run /tmp /var/tmp -xdev -type f -perm /044 -size -1M -print0 2>/dev/null | \
                     xargs -0 grep -l -F -- '{secret}' 2>/dev/null || true"
                ))
                .await?;
            must(found.trim() == "0", "keep secrets out of the journal and of readable files", found)?;
        }
        Ok(())
    })
    .await
}

/// Messages, media bytes, sessions, state and the signing key; and the partner in federation still takes what the
/// restored site sends, and reaches it. Alice's and charlie's bindings are carried from before the loss to after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_site_is_the_site_its_users_left() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let abroad = stage.world.synapse(ABROAD).await?;
        let charlie = register_abroad(stage, &abroad, "charlie").await?;
        let alexander = login(stage, &site, "alexander").await?;
        let social = room(&alexander, "fleet-social", HOME).await?;
        alexander.invite(&social, charlie.user_id()).await?;
        charlie
            .join_via(
                social.as_str(),
                &[alexander.user_id().server_name().to_owned()],
            )
            .await?;
        let rose = alexander.upload(ROSE.bytes, ROSE.content_type).await?;
        let hello = alexander.say(&social, "hello").await?;
        charlie.sees(&social, &hello).await?;
        let fleet = Fleet::settle(&site).await?;
        let before = fleet.fingerprint(&site).await?;

        let snapshot = backed_up(&site).await?;
        site.lose_data().await?;
        restored(&site, &snapshot.id).await?;

        same("the site", &before, &fleet.fingerprint(&site).await?)?;
        alexander.sees(&social, &hello).await?;
        alexander.downloads(&rose, ROSE.bytes).await?;
        let back = alexander.say(&social, "we are back").await?;
        charlie.sees(&social, &back).await?;
        let welcome = charlie.say(&social, "welcome back").await?;
        alexander.sees(&social, &welcome).await?;
        Ok(())
    })
    .await
}

/// The fleet says 20 messages a second through the proxy, everybody reads along and somebody asks for the API every 10 ms,
/// while a backup stops and starts the server: requests wait and none fails, and each message is there once. The
/// snapshot holds what was acknowledged before the backup, and of each who spoke no message without the one before.
///
/// Before, the proxy is told not to wait, and the same visitors must notice a restart. Afterwards a backup forgets the
/// write-ahead logs, and what it lost must be named.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_a_backup_and_what_was_acknowledged_before_it_is_in_it() -> Outcome {
    const SCRIPT: &str = "/opt/conduit/scripts/backup.sh";
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let fleet = Fleet::settle(&site).await?;
        let reader = &fleet.clients[0];
        let social = room(reader, "fleet-social", HOME).await?;

        let conf = "/etc/caddy/conf.d/conduit.caddy";
        let host = &site.host;
        host.shell(&format!("cp -p {conf} /root/waits")).await?;
        impatient(&site).await?;
        let mut visitors = Visitors::come(&site, &fleet, &social, "impatient");
        visitors.have_spoken(1).await?;
        host.shell("systemctl restart conduit").await?;
        let noticed = visitors.leave().await;
        must(
            noticed.unnoticed().is_err(),
            "notice a restart behind a proxy that does not wait",
            format!("{} polls", noticed.polls),
        )?;
        let patient = format!("cp -p /root/waits {conf} && systemctl reload caddy");
        host.shell(&patient).await?;

        let backed_up_under_way = async |word| {
            let mut visitors = Visitors::come(&site, &fleet, &social, word);
            visitors.have_spoken(3).await?;
            let began = std::time::Instant::now();
            let snapshot = backed_up(&site).await;
            let seen = visitors.leave().await;
            let snapshot = snapshot?;
            seen.unnoticed()?;
            seen.all_there_once(reader, &social).await?;
            site.lose_data().await?;
            restored(&site, &snapshot.id).await?;
            Ok::<_, Failure>((seen, began))
        };
        let (seen, began) = backed_up_under_way("patient").await?;
        seen.there_without_gap(reader, &social, began).await?;
        let later = seen.all_there_once(reader, &social).await;
        must(
            later.is_err(),
            "have been spoken to after the snapshot, so that a gap could have been",
            format!("{} messages", seen.count()),
        )?;

        let forget = format!(
            "sed -i 's|^ *list_staged >|truncate -s 0 \"$STAGE\"/data/*.log; &|' {SCRIPT} && grep -q truncate {SCRIPT}"
        );
        host.shell(&forget).await?;
        let (seen, began) = backed_up_under_way("forgotten").await?;
        let lost = seen.there_without_gap(reader, &social, began).await;
        must(
            lost.is_err_and(|lost| lost.to_string().contains("`forgotten 1 of ")),
            "name what a backup without its logs has lost",
            format!("{} messages", seen.count()),
        )
    })
    .await
}

/// The comparison that every restore is judged by can fail: what was said after the backup is missing, and named.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_does_not_bring_back_is_named() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let fleet = Fleet::settle(&site).await?;
        let snapshot = backed_up(&site).await?;
        let alexander = login(stage, &site, "alexander").await?;
        let social = room(&alexander, "fleet-social", HOME).await?;
        let late = alexander.say(&social, "after the backup").await?;
        let before = fleet.fingerprint(&site).await?;
        site.lose_data().await?;
        restored(&site, &snapshot.id).await?;
        let lost = same("the site", &before, &fleet.fingerprint(&site).await?);
        let named = lost
            .err()
            .map(|failure| failure.to_string())
            .unwrap_or_default();
        must(
            named.contains(late.as_str()),
            "name the message that was lost",
            named,
        )
    })
    .await
}

/// A machine that never was the site becomes it: installed from the bundle, then restored from the copied repository.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_restored_onto_a_new_host() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let before = Fleet::settle(&site).await?.fingerprint(&site).await?;
        let snapshot = backed_up(&site).await?;
        let brought = site
            .host
            .shell("cd /opt/conduit && tar -cf - backups secrets/restic-password | base64 -w0")
            .await?;
        let key = &before.signing_keys;
        // The old machine is gone; its name now points to the new one.
        site.host
            .shell("systemctl disable --now conduit.service caddy.service")
            .await?;
        let conduit = stage.conduit().await?;
        let new = stage.world.site(HOME, &conduit).await?;
        new.host
            .write("/root/brought", "600", brought.as_bytes())
            .await?;
        new.host
            .shell("base64 -d /root/brought | tar -C /opt/conduit -xf -")
            .await?;
        new.follow(
            "restore.md",
            &[("SNAPSHOT", &snapshot.id), ("EXISTING_DATA", "--replace")],
        )
        .await?;
        // The passwords came back with the site, so everybody can log in there.
        let fleet = Fleet::settle(&new).await?;
        let after = fleet.fingerprint(&new).await?;
        must(
            *key == after.signing_keys,
            "bring the signing key to the new host",
            format!("{key:?}\n{:?}", after.signing_keys),
        )?;
        let lost: Vec<_> = before
            .rooms
            .keys()
            .filter(|room| !after.rooms.contains_key(*room))
            .collect();
        must(
            lost.is_empty(),
            "bring every room to the new host",
            format!("{lost:?}"),
        )
    })
    .await
}

/// The script is killed at each of its steps in turn. Afterwards the server answers, the next backup is whole, and
/// whatever is catalogued can be verified.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_killed_at_any_step_leaves_the_server_running_and_no_snapshot_that_is_not_whole()
-> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        let steps = site
            .host
            .shell("grep -oE '^  step [a-z-]+' /opt/conduit/scripts/backup.sh | awk '{print $2}' | sort -u")
            .await?;
        must(steps.lines().count() >= 10, "find the steps of backup.sh", &steps)?;
        for step in steps.lines() {
            let killed = site
                .host
                .try_shell(&format!(
                    "echo {step} > /run/conduit-backup.failpoint; timeout 120 /opt/conduit/scripts/backup.sh; code=$?; \
                     rm -f /run/conduit-backup.failpoint; exit $code"
                ))
                .await?;
            let said = format!("{step}: exit {}\n{}{}", killed.exit, killed.stdout, killed.stderr);
            must(killed.exit != 0, "fail when it is killed", &said)?;
            let up = site
                .host
                .try_shell("for n in $(seq 200); do curl -sf -o /dev/null http://127.0.0.1:6167/_matrix/client/versions && exit 0; sleep 0.05; done; exit 1")
                .await?;
            must(up.exit == 0, "leave the server running", &said)?;
            let catalogued = site
                .host
                .try_shell("for id in $(jq -r .snapshot /opt/conduit/backups/catalog.jsonl 2>/dev/null | sort -u); do /opt/conduit/scripts/backup.sh verify $id || exit 1; done")
                .await?;
            must(catalogued.exit == 0, "catalogue only what is whole", format!("{said}\n{}{}", catalogued.stdout, catalogued.stderr))?;
        }
        let snapshot = backed_up(&site).await?;
        let stale = site.host.shell("ls /opt/conduit/staging 2>/dev/null | wc -l").await?;
        must(stale == "0", "clean up after killed runs", stale)?;
        site.host.shell(&format!("/opt/conduit/scripts/backup.sh verify {}", snapshot.id)).await.map(|_| ())
    })
    .await
}

/// The disk fills up. A backup that cannot be whole is refused or fails with a reason, the server goes on, nothing is
/// catalogued, and with room again the next one is whole. So is one of a site that is larger than the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_on_a_full_disk_fails_with_a_reason_and_leaves_the_server_running() -> Outcome {
    scenario(async |stage| {
        let binary = stage.conduit_or_standin().await?;
        let bundle = tools::bundle(&binary).await?;
        let needs = Needs { bundle: Some(bundle), disk_mib: Some(1800), ..Needs::default() };
        stage.on_purpose(Cause::Disk);
        let host = stage.world.host_with(HOME, needs).await?;
        let site = stage.world.install(host).await?;
        site.host.shell("dd if=/dev/zero of=/opt/ballast bs=1M status=none || true; truncate -s -4M /opt/ballast").await?;
        let full = site.host.try_shell("/opt/conduit/scripts/backup.sh").await?;
        let said = format!("exit {}\n{}{}", full.exit, full.stdout, full.stderr);
        must(matches!(full.exit, 1 | 3) && said.contains("hint:"), "fail with a reason on a full disk", &said)?;
        let catalogue = site.host.try_shell("test -s /opt/conduit/backups/catalog.jsonl").await?;
        must(catalogue.exit != 0, "catalogue nothing that is not whole", &said)?;
        site.host.shell("curl -sf -o /dev/null http://127.0.0.1:6167/_matrix/client/versions; rm /opt/ballast").await?;
        // Of holes: what a large site needs is reckoned without rounding.
        let giant = "mkdir -p /opt/conduit/data/media; truncate -s 5G /opt/conduit/data/media/giant; \
                     /opt/conduit/scripts/backup.sh 2>&1; echo exit $?; rm /opt/conduit/data/media/giant";
        let said = site.host.shell(giant).await?;
        must(said.contains("exit 3") && said.contains("needs about 6."), "say how much a large site needs", said)?;
        backed_up(&site).await.map(|_| ())
    })
    .await
}

/// A byte of a file that nobody writes changes: the disk fails. Backups do not read again what has not been written, and what
/// they keep is what was there before; but each reads a tenth, and the one whose turn it is names the file.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_unwritten_is_not_kept_and_is_named_in_its_turn() -> Outcome {
    const CHANGE: &str = "set -e; cd /opt/conduit; f=data/media/kept; touch -r $f /run/then; \
         printf '\\377\\376\\375' | dd of=$f bs=1 seek=500 conv=notrunc status=none; touch -r /run/then $f; \
         echo $f $(($(stat -c %i $f) % 10)) $(wc -l <backups/catalog.jsonl)";
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        let host = &site.host;
        let first = "mkdir -p /opt/conduit/data/media; printf 'a file of some length\\n%.0s' $(seq 100) >/opt/conduit/data/media/kept; \
                     /opt/conduit/scripts/backup.sh";
        host.shell(first).await?;
        let changed = host.shell(CHANGE).await?;
        let mut words = changed.split_whitespace();
        let file = words.next().unwrap_or_default().to_owned();
        let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        let [turn, count] = numbers[..] else {
            return Err(Failure::harness("change a byte").last_seen(changed));
        };
        // Backups before its turn: as many lines more as it takes, of a backup that there is.
        let lines = |missing: usize| {
            format!(
                "cd /opt/conduit/backups; for n in $(seq {missing}); do tail -n 1 catalog.jsonl >>catalog.jsonl; done; \
                 /opt/conduit/scripts/backup.sh 2>&1; echo exit $?"
            )
        };
        let mut missing = (10 + turn - count % 10) % 10;
        if missing != 0 {
            let said = host.shell(&lines(0)).await?;
            must(said.contains("exit 0"), "keep the file as it was", said)?;
            missing -= 1;
        }
        let said = host.shell(&lines(missing)).await?;
        must(
            said.contains("exit 5") && said.contains("although nobody wrote it") && said.contains(&*file),
            "name what has changed unwritten",
            said,
        )
    })
    .await
}

/// While one backup is at work a second one gives way, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_at_the_same_time_gives_way() -> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        let both = site
            .host
            .shell(
                "/opt/conduit/scripts/backup.sh >/tmp/one 2>&1 & one=$!; \
                 for n in $(seq 500); do systemctl is-active --quiet conduit-backup.service && break; \
                 [ \"$(systemctl show -p ActiveState --value conduit-backup.service)\" = activating ] && break; sleep 0.01; done; \
                 /opt/conduit/scripts/backup.sh >/tmp/two 2>&1; second=$?; wait $one; first=$?; echo \"$first $second\"",
            )
            .await?;
        must(both.trim().ends_with("0 75"), "let the first finish and the second give way with 75", both)
    })
    .await
}

/// A restore refuses a running server, another site's name, data that it would overwrite, and a damaged archive; each
/// time everything stays as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_refuses_what_would_lose_something() -> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        let snapshot = backed_up(&site).await?;
        let content = "find /opt/conduit/data -type f -printf '%P %s %T@\\n' | sort";
        for (why, before, arguments, code) in [
            ("a running server", "true", snapshot.id.clone(), 3),
            ("a foreign name", "systemctl stop conduit", format!("{} --replace --server-name vale.test", snapshot.id), 3),
            ("existing data", "systemctl stop conduit", snapshot.id.clone(), 3),
            ("an unknown snapshot", "systemctl stop conduit", "00000000 --replace".to_owned(), 3),
            (
                "a damaged archive",
                "systemctl stop conduit; pack=$(find /opt/conduit/backups/restic/data -type f -size +2k | head -1); \
                 cp -p $pack /root/pack; chmod u+w $pack; \
                 size=$(stat -c %s $pack); printf '\\xff\\x00\\xff\\x00' | dd of=$pack bs=1 seek=$((size / 3)) conv=notrunc status=none",
                format!("{} --replace", snapshot.id),
                5,
            ),
        ] {
            site.host.shell(before).await?;
            let old = site.host.shell(content).await?;
            let refused = site.host.try_shell(&format!("/opt/conduit/scripts/restore.sh {arguments}")).await?;
            let said = format!("{why}: exit {}\n{}{}", refused.exit, refused.stdout, refused.stderr);
            must(refused.exit == code, &format!("refuse {why} with {code}"), &said)?;
            if why != "a running server" {
                unchanged("the data by a refused restore", &old, &site.host.shell(content).await?)?;
            }
        }
        site.host.shell("systemctl start conduit").await.map(|_| ())
    })
    .await
}

/// The data directory is emptied under the server. It must not come back as somebody else with the same name.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_data_directory_does_not_become_a_new_homeserver() -> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        not_reborn(&site).await
    })
    .await
}

/// RocksDB's old information logs go, its write-ahead log stays: that is the newest messages.
#[tokio::test(flavor = "multi_thread")]
async fn logs_rotate_without_touching_the_databases_log_files() -> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        // Every start renames LOG to LOG.old.*; the stand-in makes none, so that some are made by hand.
        site.host
            .shell("for n in $(seq 10 22); do echo old > /opt/conduit/data/LOG.old.17000000000000$n; done; echo decoy > /opt/conduit/data/LOG.old.log")
            .await?;
        let wal = "cd /opt/conduit/data && ls -i *.log && wc -c *.log | tail -1 >/dev/null && ls *.log | wc -l";
        let before = site.host.shell(wal).await?;
        site.host.shell("systemctl start conduit-rotate-logs.service").await?;
        let left = site.host.shell("ls /opt/conduit/data | grep -cE '^LOG\\.old\\.[0-9]+$'").await?;
        must(left == "5", "keep the newest five of the old information logs", left)?;
        unchanged("the write-ahead log", &before, &site.host.shell(wal).await?)?;
        site.host.shell("systemctl restart conduit && systemctl is-active conduit").await.map(|_| ())
    })
    .await
}

/// Gitea on port 3000 and a site of Caddy's that was there before are asked without pause while the kit is installed,
/// backed up and uninstalled: neither misses an answer.
#[tokio::test(flavor = "multi_thread")]
async fn giteas_port_answers_before_during_and_after_an_installation() -> Outcome {
    scenario(async |stage| {
        let binary = stage.conduit_or_standin().await?;
        let bundle = tools::bundle(&binary).await?;
        let host = stage.world.host_with(HOME, Needs { bundle: Some(bundle), ..Needs::default() }).await?;
        host.write("/etc/systemd/system/gitea.service", "644", GITEA.as_bytes()).await?;
        let neighbour = ":8081 {\n\trespond \"the neighbour\"\n}\n";
        host.write("/etc/caddy/Caddyfile", "644", neighbour.as_bytes()).await?;
        host.shell("systemctl daemon-reload; systemctl start gitea; systemctl reload caddy; \
             for port in 3000 8081; do n=0; until curl -sf -o /dev/null http://127.0.0.1:$port/; do \
             n=$((n+1)); [ $n -lt 300 ] || exit 1; sleep 0.05; done; done").await?;
        host.shell(
            "cat > /root/ask <<'ASK'\n#!/bin/bash\nwhile [ ! -e /root/enough ]; do for url in http://127.0.0.1:3000/ http://127.0.0.1:8081/; do \
             curl -sSf -m 20 -o /dev/null $url 2>/tmp/why && echo ok $url || echo \"MISSED $url $(date +%T.%N) $(cat /tmp/why)\"; done; done > /root/asked\nASK\n\
             chmod +x /root/ask; systemd-run --unit=ask /root/ask",
        )
        .await?;
        let site = stage.world.install(host).await?;
        site.host.shell("/opt/conduit/scripts/backup.sh").await?;
        site.host.shell(&format!("{INSTALL} uninstall")).await?;
        site.host.shell("touch /root/enough; while systemctl is-active --quiet ask; do sleep 0.05; done").await?;
        let missed = site.host.shell("grep -c MISSED /root/asked || true").await?;
        let asked = site.host.shell("grep -c ok /root/asked").await?;
        let why = site.host.shell("grep MISSED /root/asked | head -20 || true").await?;
        must(missed == "0", "let the neighbours answer throughout", format!("{missed} of {asked} missed\n{why}"))?;
        must(asked.parse::<u32>().unwrap_or_default() > 50, "have asked often enough to know", asked)?;
        let caddyfile = site.host.shell("cat /etc/caddy/Caddyfile").await?;
        unchanged("the neighbour's Caddyfile", neighbour.trim_end(), caddyfile.trim_end())
    })
    .await
}

/// Stands for Gitea: something of the operator's that listens on port 3000.
const GITEA: &str =
    "[Service]\nExecStart=/usr/bin/python3 -m http.server 3000 --directory /usr/share/caddy\n";

/// What cannot work is refused before anything is touched, with the culprit named.
#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_cannot_work_is_refused_and_changes_nothing() -> Outcome {
    scenario(async |stage| {
        let binary = stage.conduit_or_standin().await?;
        let bundle = tools::bundle(&binary).await?;
        stage.on_purpose(Cause::Disk);
        let host = stage.world.host_with(HOME, Needs { bundle: Some(bundle), disk_mib: Some(1200), ..Needs::default() }).await?;
        for (why, before, command, named, after) in [
            (
                "a port is taken",
                "systemd-run --unit=squatter python3 -m http.server 6167 --bind 127.0.0.1; for n in $(seq 100); do curl -s -o /dev/null http://127.0.0.1:6167/ && break; sleep 0.05; done",
                format!("{INSTALL} install --bundle {BUNDLE}"),
                "python3",
                "systemctl stop squatter",
            ),
            (
                "the disk is too small",
                "dd if=/dev/zero of=/opt/ballast bs=1M count=1000 status=none",
                format!("{INSTALL} install --bundle {BUNDLE}"),
                "MB",
                "rm /opt/ballast",
            ),
            (
                "it is not root",
                "chmod 755 /root",
                format!("setpriv --reuid=nobody --regid=nogroup --clear-groups {INSTALL} install --bundle {BUNDLE}"),
                "root",
                "chmod 700 /root",
            ),
            (
                "the bundle is not whole",
                "cp -r /root/bundle /root/broken; printf x >> /root/broken/conduit",
                format!("{INSTALL} install --bundle /root/broken"),
                "SHA256SUMS",
                "rm -r /root/broken",
            ),
            (
                "it is another program",
                "printf '#!/bin/sh\\necho something else\\n' > /root/other; chmod +x /root/other",
                format!("{INSTALL} install --binary /root/other --sha256 $(sha256sum /root/other | cut -c1-64)"),
                "something else",
                "rm /root/other",
            ),
        ] {
            host.shell(before).await?;
            let untouched = host.shell("find /opt /etc -printf '%p %C@\\n' | sort").await?;
            let refused = host.try_shell(&command).await?;
            let said = format!("{why}: exit {}\n{}{}", refused.exit, refused.stdout, refused.stderr);
            must(refused.exit == 3, &format!("refuse where {why}"), &said)?;
            must(said.contains(named) && said.contains("hint:"), &format!("name the culprit and the way out where {why}"), &said)?;
            unchanged("the host by a refused installation", &untouched, &host.shell("find /opt /etc -printf '%p %C@\\n' | sort").await?)?;
            host.shell(after).await?;
        }
        Ok(())
    })
    .await
}

/// Uninstalling takes the kit away and leaves what is the operator's: data, secrets, backups, the configuration. An
/// installation afterwards finds the same site.
#[tokio::test(flavor = "multi_thread")]
async fn uninstalling_keeps_the_data_and_installing_again_finds_the_same_site() -> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        let key = "curl -sf http://127.0.0.1:6167/_matrix/key/v2/server | jq -cS .verify_keys";
        let before = site.host.shell(key).await?;
        site.host.shell(&format!("{INSTALL} uninstall")).await?;
        let left = site.host.shell("ls /opt/conduit; ls /etc/systemd/system | grep conduit || true; ls /etc/caddy/conf.d 2>/dev/null || true").await?;
        must(
            left.contains("data") && left.contains("secrets") && !left.contains("conduit.service") && !left.contains("conduit.caddy"),
            "remove the kit and keep the data",
            &left,
        )?;
        site.host.shell(&format!("{INSTALL} install --bundle {BUNDLE}")).await?;
        unchanged("the signing key", &before, &site.host.shell(key).await?)
    })
    .await
}

/// Alexander at home and charlie abroad, each behind the own proxy, found by `.well-known`, over TLS.
#[tokio::test(flavor = "multi_thread")]
async fn two_sites_exchange_messages_over_federation() -> Outcome {
    scenario(async |stage| {
        let conduit = stage.conduit().await?;
        let home = fleet_site(stage).await?;
        let abroad = stage.world.site(ABROAD, &conduit).await?;
        abroad.follow("bootstrap.md", &[]).await?;
        let alexander = login(stage, &home, "alexander").await?;
        let charlie = login(stage, &abroad, "ezra").await?;
        exchange(&alexander, &charlie).await
    })
    .await
}

/// The same with a server of another make, in both positions.
#[tokio::test(flavor = "multi_thread")]
async fn a_conduit_site_and_a_synapse_site_exchange_messages_over_federation() -> Outcome {
    scenario(async |stage| {
        let home = fleet_site(stage).await?;
        let abroad = stage.world.synapse(ABROAD).await?;
        let alexander = login(stage, &home, "alexander").await?;
        let charlie = register_abroad(stage, &abroad, "charlie").await?;
        exchange(&alexander, &charlie).await?;
        exchange(&charlie, &alexander).await
    })
    .await
}

/// Where there is no Conduit, what can be proved of the lab's federation: two Synapse sites through the same proxies.
#[tokio::test(flavor = "multi_thread")]
async fn two_synapse_sites_exchange_messages_through_the_same_proxies() -> Outcome {
    scenario(async |stage| {
        let home = stage.world.synapse("mere.test").await?;
        let abroad = stage.world.synapse(ABROAD).await?;
        stage.put_to(&home.server);
        let alice = register_abroad(stage, &home, "alice").await?;
        let charlie = register_abroad(stage, &abroad, "charlie").await?;
        exchange(&alice, &charlie).await
    })
    .await
}

/// One makes a room and invites, the other joins over federation, and each sees what the other says.
async fn exchange(
    host: &harness::client::Client,
    guest: &harness::client::Client,
) -> harness::Result<()> {
    let garden = host.create_room("garden").await?;
    host.invite(&garden, guest.user_id()).await?;
    let via = host.user_id().server_name().to_owned();
    guest.join_via(garden.as_str(), &[via]).await?;
    let hello = host.say(&garden, "hello").await?;
    guest.sees(&garden, &hello).await?;
    let answer = guest.say(&garden, "good morning").await?;
    host.sees(&garden, &answer).await?;
    Ok(())
}

/// The manifest is applied to another make of homeserver too: what the tool sends is the specification's, not
/// Conduit's.
#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_is_applied_to_synapse_as_well() -> Outcome {
    scenario(async |stage| {
        let site = stage.world.synapse(ABROAD).await?;
        stage.put_to(&site.server);
        rehearse::apply_manifest(&site).await?;
        let said = rehearse::apply_manifest(&site).await?;
        must(
            said.contains("sent 0 requests that change something"),
            "send nothing the second time",
            said,
        )
    })
    .await
}

/// Whatever a host sends towards the outside ends in the lab, and is seen: here on purpose, so that the check which
/// every scenario ends with is known to be able to fail.
#[tokio::test(flavor = "multi_thread")]
async fn no_packet_leaves_the_lab() -> Outcome {
    scenario(async |stage| {
        let binary = stage.conduit_or_standin().await?;
        let site = stage.world.site(HOME, &binary).await?;
        nothing_left(&stage.world).await?;
        // TEST-NET-1 (RFC 5737): nobody's address.
        let tried = site
            .host
            .try_shell("curl --silent --max-time 2 http://192.0.2.1/")
            .await?;
        must(tried.exit != 0, "reach nothing outside", tried.stdout)?;
        let seen = nothing_left(&stage.world)
            .await
            .err()
            .map(|failure| failure.to_string())
            .unwrap_or_default();
        must(
            seen.contains("192.0.2.1:80 (tcp)"),
            "see an attempt to leave",
            seen,
        )?;
        stage.world.authority().await?.forget_escapes().await?;
        let named = site.host.try_shell("getent hosts matrix.org").await?;
        must(
            named.exit != 0,
            "resolve no name but the lab's",
            named.stdout,
        )
    })
    .await
}

/// A Conduit of another version is refused by the installer, however it is called.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_older_than_the_installed_one_is_refused() -> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        let standin = tools::standin().await?;
        let directory = tempfile::tempdir().or_environment(|| "make a directory".to_owned())?;
        let old = directory.path().join("conduit");
        tokio::process::Command::new(&standin.path)
            .arg("--standin-bake")
            .arg(&old)
            .arg("version=0.10.3")
            .status()
            .await
            .or_harness(|| "bake an old server".to_owned())?;
        let examined = Binary::examine(&old, Origin::Given).await;
        must(examined.is_err_and(|failure| failure.what.contains("it is version 0.10.3")), "be refused by the harness too", "")?;
        site.host.copy(&old, "/root/old", "755").await?;
        let digest = harness::homeserver::sha256_of(&old)?;
        let before = installation(&site).await?;
        let refused = site
            .host
            .try_shell(&format!("{INSTALL} upgrade --no-backup --binary /root/old --sha256 {digest} --version 0.10.3"))
            .await?;
        let said = format!("exit {}\n{}{}", refused.exit, refused.stdout, refused.stderr);
        must(refused.exit == 3, "refuse a downgrade before anything is stopped", said)?;
        unchanged("the installation", &before, &installation(&site).await?)
    })
    .await
}

/// The same program with something behind it, which no loader reads: another digest, hence another release.
fn another_build(binary: &Binary) -> harness::Result<(Vec<u8>, String)> {
    let directory = tempfile::tempdir().or_environment(|| "make a directory".to_owned())?;
    let path = directory.path().join("conduit");
    let mut content =
        std::fs::read(&binary.path).or_environment(|| "read the binary".to_owned())?;
    content.push(b'\n');
    std::fs::write(&path, &content).or_environment(|| "write another build".to_owned())?;
    Ok((content, harness::homeserver::sha256_of(&path)?))
}

/// The upgrade runbook, followed with another build of the same version, keeps the site.
#[tokio::test(flavor = "multi_thread")]
async fn the_upgrade_runbook_keeps_the_site() -> Outcome {
    scenario(async |stage| {
        let (site, binary) = any_site(stage).await?;
        let (content, digest) = another_build(&binary)?;
        site.host.write("/root/new/conduit", "755", &content).await?;
        site.host.write("/root/new/SHA256SUMS", "644", format!("{digest}  conduit\n").as_bytes()).await?;
        let key = site.host.shell("jq -r .public_key /opt/conduit/site.identity").await?;
        site.follow("upgrade.md", &[("BUNDLE", "/root/new")]).await?;
        let link = site.host.shell("readlink /opt/conduit/conduit").await?;
        must(link.contains(&digest[..12]), "run the new build", link)?;
        unchanged("the signing key", &key, &site.host.shell("curl -sf http://127.0.0.1:6167/_matrix/key/v2/server | jq -r '.verify_keys[].key'").await?)
    })
    .await
}

/// Three servers that must not stay: one that crashes, one that changes the database and then fails, and one that runs
/// and answers nothing. There is no earlier release to come from, so each is a wrapper around the same Conduit that reports
/// another version. Each time the runbook's command says so with code 4, and the old pair is back: the same binary,
/// and a site in which the fingerprint finds no difference.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_that_fails_is_taken_back_together_with_what_it_did_to_the_data() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let fleet = Fleet::settle(&site).await?;
        let before = fleet.fingerprint(&site).await?;
        let real = site.host.shell("readlink -f /opt/conduit/conduit").await?;
        for (number, fails) in [
            ("1", "kill -SEGV $$"),
            ("2", "exec sleep infinity"),
            // Serves where nobody looks, so that the real binary has written; then leaves what no older release could read.
            ("3", "CONDUIT_PORT=6199 REAL & until curl -sf -o /dev/null http://127.0.0.1:6199/_matrix/client/versions; do :; done; kill $!; wait; \
                   for file in /opt/conduit/data/MANIFEST-* /opt/conduit/data/CURRENT; do echo migrated > $file; done; rm -f /opt/conduit/data/*.log; exit 1"),
        ] {
            let wrapper = format!(
                "#!/bin/bash\nif [[ ${{1-}} == --version ]]; then echo conduit 0.10.12{number}; exit 0; fi\n{}\n",
                fails.replace("REAL", &real)
            );
            site.host.write("/root/wrapped/conduit", "755", wrapper.as_bytes()).await?;
            site.host.shell("cd /root/wrapped && sha256sum conduit > SHA256SUMS").await?;
            let upgrade = format!("CONDUIT_HEALTHY_WITHIN=15 {INSTALL} upgrade --no-backup --bundle /root/wrapped --version 0.10.12{number}");
            let failed = site.host.try_shell(&upgrade).await?;
            let said = format!("{fails}: exit {}\n{}{}", failed.exit, failed.stdout, failed.stderr);
            must(failed.exit == 4 && said.contains("rolled back to"), "take the new server back", &said)?;
            unchanged("the binary", &real, &site.host.shell("readlink -f /opt/conduit/conduit").await?)?;
            same("the site", &before, &fleet.fingerprint(&site).await?)?;
            let left = site.host.shell("ls /opt/conduit/staging; ls /opt/conduit/releases").await?;
            must(!left.contains("failed") && !left.contains("before-upgrade") && !left.contains(&format!("0.10.12{number}")), "leave nothing of the new server", left)?;
        }
        // The last of them once more, taken back by a kit that forgets the data: it is known to have harmed it.
        let careless = site
            .host
            .try_shell(
                "cp -r /root/fleet/deploy /root/careless && sed -i '/then exchange_data; fi$/d' /root/careless/conduit/install.d/server.sh && \
                 CONDUIT_HEALTHY_WITHIN=15 /root/careless/conduit/install.sh upgrade --no-backup --bundle /root/wrapped --version 0.10.123",
            )
            .await?;
        let said = format!("exit {}\n{}{}", careless.exit, careless.stdout, careless.stderr);
        must(careless.exit == 1 && said.contains("does not start either"), "be unable to serve harmed data", said)
    })
    .await
}

/// The zone that the operator publishes is the one that is served, with only the address changed.
#[tokio::test(flavor = "multi_thread")]
async fn the_published_zone_is_the_one_that_the_lab_serves() -> Outcome {
    scenario(async |stage| {
        let (site, _) = any_site(stage).await?;
        let zone = authority::zone_for(HOME, &site.host.address)?;
        must(
            !zone.contains(authority::PRODUCTION_ADDRESS),
            "never serve the production address",
            zone,
        )?;
        let address = site
            .host
            .shell(&format!(
                "getent ahostsv4 matrix.{HOME} | head -1 | cut -d' ' -f1"
            ))
            .await?;
        must(address == site.host.address, "point to the host", address)
    })
    .await
}
