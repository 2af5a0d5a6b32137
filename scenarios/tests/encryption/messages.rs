//! Messages are read by whom they are for.

use crate::{carried, demand, encryption};
use fleet_device::Mutant;
use harness::scenario::Outcome;

/// F1. alice makes an encrypted room, bob follows her invitation, and each reads what the other says, on either side of the
/// federation. What their servers carry is encrypted: the event as it comes is an `m.room.encrypted` without the text.
/// "End-to-End Encryption", "m.megolm.v1.aes-sha2".
#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_message_is_read_on_both_sides() -> Outcome {
    encryption(
        &[Mutant::DropsToDevice, Mutant::TellsClearText],
        async |_, cast| {
            let (alice, bob) = cast.phones().await?;
            let room = cast.garden(&alice, &bob).await?;
            for (from, to, text) in [
                (&alice, &bob, "the hedgehog sleeps under the roses"),
                (&bob, &alice, "then I shall walk on tiptoe"),
            ] {
                let said = from.say(&room, text).await?;
                to.reads(&room, &said, text).await?;
                let carried = carried(to, &room, &said).await?;
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
