//! A drill's sentinel, read.

use crate::{Device, Shown, Way, sdk};
use futures_util::future::LocalBoxFuture;
use harness::client::Session;
use harness::drill::Sentinel;
use harness::site::Site;
use harness::{Failure, Result};
use matrix_sdk::room::MessagesOptions;

/// As a new device, gets the user's secrets with the recovery key, and reads the newest encrypted message of the room. Tells
/// when it was said, in seconds since 1970. Client-Server API, "Secrets", "Server-side key backups".
///
/// # Errors
/// The deployment's, when the user is not in the room, nothing encrypted is in it, the key is not the user's, or what was said
/// last cannot be read.
pub fn reads_sentinel<'a>(
    site: &'a Site,
    session: &'a Session,
    sentinel: &'a Sentinel,
) -> LocalBoxFuture<'a, Result<u64>> {
    Box::pin(reads(site, session, sentinel))
}

async fn reads(site: &Site, session: &Session, sentinel: &Sentinel) -> Result<u64> {
    /// Of 100 events each.
    const PAGES: usize = 50;
    let Sentinel { user, room: id, .. } = sentinel;
    let device = Device::of_session(&Way::to(site), session, "drill").await?;
    // A device that had keys before need not have asked for anything yet.
    device.step().await?;
    let Some(room) = device.sdk().get_room(id) else {
        return Err(
            Failure::deployment(format!("find `{user}` in `{id}`")).hint(
                "is the sentinel's file right? In the backup that user is no member of such a room",
            ),
        );
    };
    device
        .recovers(&sentinel.recovery_key)
        .await
        .map_err(|failure| failure.hint("is it that user's recovery key, and the newest?"))?;
    let keys = device.sdk().encryption().backups();
    let keys = keys.download_room_keys_for_room(id).await;
    sdk(keys, || format!("get the keys of `{id}` from the backup"))?;
    let mut page = MessagesOptions::backward();
    page.limit = 100_u32.into();
    for _ in 0..PAGES {
        let got = sdk(room.messages(page).await, || format!("page through `{id}`"))?;
        for event in &got.chunk {
            let shown = Shown::of(event);
            match &shown {
                Shown::Read { event, .. } => {
                    let said = event["origin_server_ts"].as_u64();
                    let said = said.ok_or_else(|| Failure::product("say when it was said"))?;
                    return Ok(said / 1000);
                }
                Shown::Unreadable { .. } => {
                    return Err(Failure::deployment(format!(
                        "read what was said last in `{id}` with the recovery key"
                    ))
                    .last_seen(shown.to_string())
                    .hint("the key of that message is not in the backup of the room keys: does the one who says it belong to \
                           this user, and had the key backup on?"));
                }
                Shown::Plain { .. } | Shown::Nothing => {}
            }
        }
        let Some(end) = got.end else { break };
        page = MessagesOptions::backward().from(&*end);
        page.limit = 100_u32.into();
    }
    Err(
        Failure::deployment(format!("find an encrypted message in `{id}`"))
            .hint("is the sentinel's file right? In the backup nothing encrypted was said there"),
    )
}
