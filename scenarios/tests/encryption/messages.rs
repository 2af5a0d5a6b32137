//! Messages are read by whom they are for.

use crate::{demand, encryption, user};
use fleet_device::{EncryptedRoom, Mutant};
use harness::scenario::Outcome;
use scenarios::encoded;

/// F1. alice makes an encrypted room, bob follows her invitation, and each reads what the other says, on either side of the
/// federation. What their servers carry is encrypted: the event as it comes is an `m.room.encrypted` without the text.
/// "End-to-End Encryption", "m.megolm.v1.aes-sha2".
#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_message_is_read_on_both_sides() -> Outcome {
    encryption(
        &[Mutant::DropsToDevice, Mutant::TellsClearText],
        async |_, cast| {
            let (alice, bob) = cast.phones().await?;
            let room = alice
                .make_room(&EncryptedRoom {
                    invited: vec![user(&cast.bob, &cast.abroad)?],
                    ..EncryptedRoom::default()
                })
                .await?;
            cast.follows(&alice, &bob, &room).await?;
            for (from, to, text) in [
                (&alice, &bob, "the hedgehog sleeps under the roses"),
                (&bob, &alice, "then I shall walk on tiptoe"),
            ] {
                let said = from.say(&room, text).await?;
                to.reads(&room, &said, text).await?;
                let path = format!(
                    "/_matrix/client/v3/rooms/{}/event/{}",
                    encoded(room.as_str()),
                    encoded(said.as_str())
                );
                let carried = to.asks(&path).await?;
                demand(
                    carried["type"] == "m.room.encrypted" && !carried.to_string().contains(text),
                    "carry what was said encrypted",
                    carried.to_string(),
                )?;
            }
            Ok(())
        },
    )
    .await
}
