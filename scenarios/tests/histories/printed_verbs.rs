//! A scenario as it is printed, with every verb in it.

use crate::act::Trouble;
use crate::cast::Cast;
use crate::retold;
use harness::scenario::Outcome;

/// Every verb.
#[expect(dead_code)]
fn a_shrunk_history() -> Outcome {
    retold(async |cast| {
        let Cast {
            alice,
            bob,
            charlie,
            garden,
            ..
        } = cast;
        _ = alice.try_say(garden, "number 1").await;
        _ = alice.try_say(garden, "number 2").await;
        _ = cast.try_topic(bob, "topic 3").await;
        _ = cast.try_join(charlie).await;
        _ = bob.try_leave(garden).await;
        _ = alice.try_invite(garden, bob.user_id()).await;
        _ = alice.try_kick(garden, charlie.user_id()).await;
        _ = alice.try_ban(garden, bob.user_id()).await;
        _ = alice.try_unban(garden, bob.user_id()).await;
        _ = cast.try_level(alice, charlie.user_id(), 50).await;
        cast.during(Trouble::Cut, async || {
            _ = charlie.try_say(garden, "number 4").await;
            _ = cast.try_redact_last(charlie, charlie.user_id()).await;
            Ok(())
        })
        .await?;
        cast.must_come_out().await
    })
}
