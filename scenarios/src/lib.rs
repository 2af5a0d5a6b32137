//! What the claims in `tests/` share: the people on stage and what they do more than once.

pub mod drafts;
pub mod ear;
pub mod table;
pub mod trial;

use harness::client::{Client, Registration};
use harness::homeserver::Binary;
use harness::scenario::Stage;
use harness::site::Site;
use harness::world::World;
use harness::{Failure, OrBlame, Result};
use ruma::{OwnedRoomAliasId, OwnedRoomId};

/// The home of alice and bob: the server name that every artifact is written for.
pub const HOME: &str = "timmy.foundation";
/// Where charlie lives.
pub const ABROAD: &str = "vale.test";

/// The installer on a Host.
pub const INSTALL: &str = "/root/fleet/deploy/conduit/install.sh";

/// A site that followed `install.md` and `bootstrap.md`, on a real Conduit.
pub async fn fleet_site(stage: &Stage) -> Result<Site> {
    let conduit = stage.conduit().await?;
    bootstrapped(&stage.world, &conduit).await
}

/// The same in any world.
pub async fn bootstrapped(world: &World, conduit: &Binary) -> Result<Site> {
    let site = world.site(HOME, conduit).await?;
    site.follow("bootstrap.md", &[]).await?;
    Ok(site)
}

/// A site that followed `install.md`, on Conduit or, for claims about the scripts alone, on the stand-in.
pub async fn any_site(stage: &Stage) -> Result<(Site, Binary)> {
    let binary = stage.conduit_or_standin().await?;
    Ok((stage.world.site(HOME, &binary).await?, binary))
}

/// Logs one of the fleet's accounts in, with the password that the bootstrap made.
pub async fn login(stage: &Stage, site: &Site, name: &str) -> Result<Client> {
    let password = site
        .host
        .shell(&format!("cat /opt/conduit/secrets/{name}.password"))
        .await?;
    Ok(Client::login(
        &stage.world.http()?,
        &site.base_url(),
        name,
        &password,
        "scenario",
    )
    .await?)
}

/// Registers somebody on a Synapse of the lab. Its registration is open, on purpose and behind the lab's walls.
pub async fn register_abroad(stage: &Stage, site: &Site, name: &str) -> Result<Client> {
    let password = format!("{name} keeps a secret");
    Ok(Client::register(
        &stage.world.http()?,
        &site.base_url(),
        name,
        &password,
        "scenario",
        Registration::Open,
    )
    .await?)
}

/// The room behind an alias of the fleet.
pub async fn room(client: &Client, alias: &str, server_name: &str) -> Result<OwnedRoomId> {
    let alias = format!("#{alias}:{server_name}");
    let alias =
        OwnedRoomAliasId::try_from(alias.as_str()).or_harness(|| format!("name `{alias}`"))?;
    Ok(client.resolve(&alias).await?)
}

/// What is installed, as a hash of every file's name, mode, owner, inode, time of change and content, and the state
/// of every unit. The data and the logs are the server's, not the installation's.
pub async fn installation(site: &Site) -> Result<String> {
    site.host
        .shell(
            "cd / && { find opt/conduit etc/caddy etc/systemd/system etc/sysusers.d usr/local \
             -path opt/conduit/data -prune -o -printf '%p %m %u %i %C@ %s %l\\n'; \
             find opt/conduit etc/caddy etc/systemd/system -path opt/conduit/data -prune -o -type f -print0 | \
             xargs -0 openssl dgst -sha256; systemctl list-unit-files --no-legend --no-pager 'conduit*' 'caddy*'; \
             systemctl show --property=MainPID --property=ActiveEnterTimestampMonotonic conduit.service caddy.service; }",
        )
        .await
}

/// Two texts must be the same; otherwise the lines that differ are the failure.
pub fn unchanged(what: &str, before: &str, after: &str) -> Result<()> {
    if before == after {
        return Ok(());
    }
    let gone = before
        .lines()
        .filter(|line| !after.lines().any(|other| other == *line))
        .map(|line| format!("- {line}"));
    let come = after
        .lines()
        .filter(|line| !before.lines().any(|other| other == *line))
        .map(|line| format!("+ {line}"));
    let differences: Vec<_> = gone.chain(come).take(30).collect();
    Err(Failure::deployment(format!("leave {what} unchanged")).last_seen(differences.join("\n")))
}

/// A condition of the deployment that must hold, with what was seen.
pub fn must(holds: bool, what: &str, seen: impl Into<String>) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Failure::deployment(what).last_seen(seen))
    }
}

/// Something that a homeserver must do, with what was seen.
pub fn product(holds: bool, what: &str, seen: impl Into<String>) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Failure::product(what).last_seen(seen))
    }
}

/// A room id in a path.
pub fn encoded(text: &str) -> String {
    let mut path = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                path.push(byte.into())
            }
            _ => path += &format!("%{byte:02X}"),
        }
    }
    path
}

/// Long enough for anything that a single server does, on a busy machine.
pub const SOON: std::time::Duration = std::time::Duration::from_secs(30);

/// Has the site's proxy answer at once when the homeserver is away, where the kit has it wait.
///
/// # Errors
/// When it cannot be told.
pub async fn impatient(site: &Site) -> Result<()> {
    let tell =
        "sed -i /lb_try_duration/d /etc/caddy/conf.d/conduit.caddy && systemctl reload caddy";
    site.host.shell(tell).await?;
    Ok(())
}
