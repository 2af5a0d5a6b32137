//! A device is lost, and the operator does what the runbook says.

use crate::{Between, demand, encryption_between};
use fleet_device::Device;
use harness::accounts::Account;
use harness::scenario::Outcome;
use harness::{Failure, Result};

/// DOC. alice has lost her tablet. The operator follows `lost-device.md`: from then on the tablet is not let in any more,
/// bob's client knows that it is gone and what he says is encrypted for her phone alone, the phone goes on as if nothing had
/// happened, and her password is the one that the runbook left; the lost device's is worth nothing. "Device management".
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_device_that_was_logged_out_by_the_runbook_is_out_and_the_others_know() -> Outcome {
    encryption_between(
        &[Between::Neighbours, Between::Conduits],
        &[],
        async |stage, cast| {
            let home = &cast.home.site;
            if !home.server.is_conduit() {
                return Err(stage.unproved("follow `lost-device.md`: there is no Conduit"));
            }
            let (alice, bob) = cast.phones().await?;
            let room = cast.garden(&alice, &bob).await?;
            let tablet = cast.alices("tablet").await?;
            // A server tells another one of keys with the next message only.
            alice.say(&room, "I have a tablet now").await?;
            bob.knows_device(tablet.user_id(), tablet.device_id(), true)
                .await?;
            let before = bob.say(&room, "the roses are yours").await?;
            tablet.reads(&room, &before, "the roses are yours").await?;
            // Before the runbook was followed nothing of it holds.
            let premature = is_out(&tablet).await;
            stage.must_notice("a device that is still logged in", premature)?;

            let given = [
                ("ACCOUNT", cast.alice.name.as_str()),
                ("DEVICE", tablet.device_id().as_str()),
            ];
            home.follow("lost-device.md", &given).await?;

            is_out(&tablet).await?;
            alice.say(&room, "I have lost my tablet").await?;
            bob.knows_device(tablet.user_id(), tablet.device_id(), false)
                .await?;
            let after = bob.say(&room, "the roses are still yours").await?;
            let (was, is) = (
                alice.reads(&room, &before, "the roses are yours").await?,
                alice
                    .reads(&room, &after, "the roses are still yours")
                    .await?,
            );
            demand(
                was.session() != is.session(),
                "use another room key once a device is gone",
                format!("{:?}", is.session()),
            )?;
            let old = Device::login(&cast.home_way, &cast.alice, "thief").await;
            demand(
                old.is_err(),
                "refuse the password that the lost device may have known",
                "it was taken",
            )?;
            let file = format!("cat /opt/conduit/secrets/{}.password", cast.alice.name);
            let fresh = Account {
                name: cast.alice.name.clone(),
                password: home.host.shell(&file).await?.trim().to_owned(),
            };
            Device::login(&cast.home_way, &fresh, "new tablet").await?;
            Ok(())
        },
    )
    .await
}

/// The server does not let a device in any more.
async fn is_out(device: &Device) -> Result<()> {
    match device.asks("/_matrix/client/v3/account/whoami").await {
        Err(failure) if failure.to_string().contains("401") => Ok(()),
        Err(failure) => Err(failure),
        Ok(answer) => Err(
            Failure::product(format!("keep {device} out, which was logged out"))
                .last_seen(answer.to_string()),
        ),
    }
}
