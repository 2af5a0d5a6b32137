//! The fleet's own people in their own encrypted room, on a day on which programs die and a phone is replaced.

use crate::{Between, Cast, demand, encryption_alone};
use fleet_device::matrix_sdk::encryption::{BackupDownloadStrategy, EncryptionSettings};
use fleet_device::{Device, Mutant, Shown, sdk};
use harness::accounts::Account;
use harness::scenario::Outcome;
use harness::{OrBlame, Result};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomAliasId, RoomId};

/// The operator and two bots in `#fleet-ops`, as `bootstrap.md` has made it: encrypted, by invitation, and nobody reads what
/// was said before he came. Everybody reads everybody. ezra's program is killed and comes back with its store: it reads what
/// was said before, meanwhile and after. timmy's has lost its store: it is signed out and comes back as a new device, which
/// reads what is said from then on and not what was said before, and the old one reads nothing of what is said after. The operator
/// changes phones with his recovery key: the new one reads all of it. Who is not in the room is not even given the
/// ciphertext.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_of_the_fleet_reads_what_he_is_entitled_to_and_nothing_else() -> Outcome {
    encryption_alone(
        &[Between::Neighbours],
        &[Mutant::DropsToDevice],
        async |stage, cast| {
            if !cast.home.site.server.is_conduit() {
                return Err(stage.unproved("meet the fleet: only a Conduit is bootstrapped"));
            }
            let [phone, ezra, timmy] = [
                enters(cast, "alexander", "phone").await?,
                enters(cast, "ezra", "program").await?,
                enters(cast, "timmy", "program").await?,
            ];
            let ops = ops(&phone, cast).await?;
            let everybody = [&phone, &ezra, &timmy];
            know_each_other(&everybody).await?;
            let report = phone.say(&ops, "report, everybody").await?;
            let found = ezra.say(&ops, "the archive is whole").await?;
            let well = timmy.say(&ops, "all rovers are well").await?;
            let morning = [
                (&report, "report, everybody"),
                (&found, "the archive is whole"),
                (&well, "all rovers are well"),
            ];
            for device in everybody {
                read(device, &ops, &morning).await?;
            }
            phone
                .makes_identity(&account(cast, "alexander").await?)
                .await?;
            let recovery_key = phone.enables_recovery().await?;

            let killed = ezra.close();
            let meanwhile = timmy.say(&ops, "ezra does not answer").await?;
            let ezra = Device::reopened(killed).await?;
            read(&ezra, &ops, &[(&meanwhile, "ezra does not answer")]).await?;
            for (event, text) in morning {
                is_fetched(&ezra, &ops, event, text).await?;
            }

            let lost = timmy;
            // First, because Conduit tells of a device that has gone only together with the user's next change
            // (`device-changes-are-untold`).
            lost.logs_out().await?;
            let timmy = enters(cast, "timmy", "new program").await?;
            for other in [&phone, &ezra] {
                let user = timmy.user_id();
                other.knows_device(user, timmy.device_id(), true).await?;
                other.knows_device(user, lost.device_id(), false).await?;
            }
            let after = phone.say(&ops, "welcome back, timmy").await?;
            read(&timmy, &ops, &[(&after, "welcome back, timmy")]).await?;
            for (event, _) in morning {
                cannot_read(&timmy, &ops, event).await?;
            }
            let secret = ezra.say(&ops, "the lost program hears nothing").await?;
            read(&timmy, &ops, &[(&secret, "the lost program hears nothing")]).await?;
            let carried = crate::carried(&timmy, &ops, &secret).await?;
            let handed = lost.handed(&ops, &carried).await?;
            demand(
                !matches!(handed, Shown::Read { .. }),
                "keep what is said from a device that was signed out",
                carried.to_string(),
            )?;

            read(&phone, &ops, &[(&secret, "the lost program hears nothing")]).await?;
            phone.has_backed_up().await?;
            let alexander = account(cast, "alexander").await?;
            let settings = EncryptionSettings {
                backup_download_strategy: BackupDownloadStrategy::OneShot,
                ..EncryptionSettings::default()
            };
            let new_phone =
                Device::login_with(&cast.home_way, &alexander, "new phone", settings).await?;
            cannot_read(&new_phone, &ops, &report).await?;
            new_phone.recovers(&recovery_key).await?;
            for (event, text) in morning {
                is_fetched(&new_phone, &ops, event, text).await?;
            }
            for (event, text) in [
                (&meanwhile, "ezra does not answer"),
                (&after, "welcome back, timmy"),
                (&secret, "the lost program hears nothing"),
            ] {
                is_fetched(&new_phone, &ops, event, text).await?;
            }

            let canary = enters(cast, "canary", "program").await?;
            let told = crate::carried(&canary, &ops, &secret).await;
            demand(
                told.as_ref()
                    .is_err_and(|failure| failure.to_string().contains("403")),
                "keep even the ciphertext from who is not in the room",
                format!("{told:?}"),
            )
        },
    )
    .await
}

/// One of the fleet's accounts, with the password that the bootstrap made.
async fn account(cast: &Cast, name: &str) -> Result<Account> {
    let path = format!("cat /opt/conduit/secrets/{name}.password");
    Ok(Account {
        name: name.to_owned(),
        password: cast.home.site.host.shell(&path).await?,
    })
}

async fn enters(cast: &Cast, name: &str, device: &str) -> Result<Device> {
    let account = account(cast, name).await?;
    Device::login(&cast.home_way, &account, device).await
}

/// `#fleet-ops`, which all of them have joined.
async fn ops(device: &Device, cast: &Cast) -> Result<OwnedRoomId> {
    let alias = format!("#fleet-ops:{}", cast.home.site.name);
    let alias = RoomAliasId::parse(&alias).or_harness(|| format!("name `{alias}`"))?;
    let found = device.sdk().resolve_room_alias(&alias).await;
    Ok(sdk(found, || format!("find `{alias}`"))?.room_id)
}

/// Returns once everybody knows everybody's device.
async fn know_each_other(devices: &[&Device]) -> Result<()> {
    for one in devices {
        for other in devices {
            one.knows_device(other.user_id(), other.device_id(), true)
                .await?;
        }
    }
    Ok(())
}

async fn read(device: &Device, room: &RoomId, said: &[(&OwnedEventId, &str)]) -> Result<()> {
    for (event, text) in said {
        device.reads(room, event, text).await?;
    }
    Ok(())
}

async fn is_fetched(device: &Device, room: &RoomId, event: &EventId, text: &str) -> Result<()> {
    let shown = device.fetched(room, event).await?;
    let what = format!("let {device} read `{text}`, which was said before");
    demand(shown.text() == Some(text), &what, shown.to_string())
}

async fn cannot_read(device: &Device, room: &RoomId, event: &EventId) -> Result<()> {
    let shown = device.fetched(room, event).await?;
    let what = format!("keep `{event}` from {device}, which has no key of it");
    demand(
        matches!(shown, Shown::Unreadable { .. }),
        &what,
        shown.to_string(),
    )
}
