//! Disasters: a site is really broken, the trouble is seen where an operator would see it, and the runbook that the table in
//! `deploy/README.md` names brings the site back.

use harness::rehearse::{Fleet, backed_up, same};
use harness::scenario::{Outcome, scenario};
use scenarios::{HOME, fleet_site, login, must};

/// One site, broken three ways in turn: its list of files is garbage; its key is lost with the rest of the database and a
/// new database has its place; the file that a database begins with is gone. Each time Conduit does not serve, the
/// journal says what the table of symptoms promises, `health.sh` is critical, and `restore.md` brings back the site that
/// was backed up.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_foreign_database_is_named_and_restored_from_the_backup() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        let fleet = Fleet::settle(&site).await?;
        let before = fleet.fingerprint(&site).await?;
        let snapshot = backed_up(&site).await?;
        for (disaster, harm, symptom) in [
            (
                "a corrupted database",
                "for file in /opt/conduit/data/MANIFEST-*; do echo garbage > $file; done",
                "Corruption",
            ),
            (
                "a lost signing key",
                "rm -rf /opt/conduit/data/* && mv /opt/conduit/site.identity /root/identity && systemctl start conduit && \
                 systemctl stop conduit && mv /root/identity /opt/conduit/site.identity",
                "the running server is not this site",
            ),
            (
                "a database that is gone in part",
                "rm /opt/conduit/data/CURRENT",
                "the database is gone or not whole",
            ),
        ] {
            site.host.shell("systemctl stop conduit").await?;
            site.host.shell(harm).await?;
            let cursor = site.host.shell("date +%s").await?;
            let started = site.host.try_shell("systemctl start conduit").await?;
            let journal = site
                .host
                .shell(&format!("journalctl --unit=conduit --since=@{cursor} --no-pager --output=cat"))
                .await?;
            must(started.exit != 0, &format!("refuse to serve with {disaster}"), &journal)?;
            must(journal.contains(symptom), &format!("say `{symptom}` of {disaster}"), &journal)?;
            let health = site.host.try_shell("/opt/conduit/scripts/health.sh --only unit").await?;
            must(health.exit == 2, &format!("be critical with {disaster}"), health.stdout)?;
            let wrong = fleet.fingerprint(&site).await;
            must(wrong.is_err(), &format!("serve nobody with {disaster}"), "a fingerprint could be taken")?;
            let given = [("SNAPSHOT", snapshot.id.as_str()), ("EXISTING_DATA", "--replace"), ("DRAIN", "0")];
            site.follow("restore.md", &given).await?;
            same("the site", &before, &fleet.fingerprint(&site).await?)?;
        }
        Ok(())
    })
    .await
}

/// Nobody knows the administrator's password. The runbook begins with seeing that; it lets her in again, and leaves no way
/// in behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_out_administrator_is_let_in_again_and_the_way_in_is_closed() -> Outcome {
    scenario(async |stage| {
        let site = fleet_site(stage).await?;
        site.host.shell("echo forgotten > /opt/conduit/secrets/admin.password; rm -f /opt/conduit/secrets/bootstrap-session.json").await?;
        must(login(stage, &site, "admin").await.is_err(), "be locked out", "the administrator could log in")?;
        site.follow("locked-out.md", &[]).await?;
        let admin = login(stage, &site, "admin").await?;
        must(admin.user_id().as_str() == format!("@admin:{HOME}"), "let the administrator in", admin.user_id().to_string())?;
        let left = site.host.shell("systemctl show --property=EnvironmentFiles --value conduit; ls -d /run/locked-out.* 2>/dev/null || true").await?;
        must(left.trim().is_empty(), "leave nothing of the way in", left)
    })
    .await
}
