//! Disasters: a site is really broken, the trouble is seen where an operator would see it, and the runbook that the table in
//! `deploy/README.md` names brings the site back.

use harness::scenario::{Outcome, scenario};
use scenarios::{HOME, fleet_site, login, must};

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
