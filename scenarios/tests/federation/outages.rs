//! A partner or the home itself is away for a while.

use crate::known::NO_RETRY_TIMER;
use crate::{Cast, demand, federation, federation_alone, federation_noticing, on_conduit, soon};
use fleet_peer::{Ask, Gate, Mutant, Reply, Visit};
use harness::Result;
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use ruma::{OwnedEventId, RoomId};
use std::time::Duration;

/// Conduit waits 30 s after a first failure before it would try again at an occasion; a server that tries by itself has then
/// had its chance.
const ITS_CHANCE: Duration = Duration::from_secs(35);

/// What alice says while delia's server hangs up on everybody; returns once the home has tried and failed.
async fn says_in_vain(cast: &Cast, garden: &RoomId, count: usize) -> Result<Vec<OwnedEventId>> {
    let mark = cast.door.mark();
    cast.door.slam(true);
    let mut said = Vec::new();
    for number in 0..count {
        said.push(cast.alice.say(garden, &format!("number {number}")).await?);
    }
    cast.door
        .until(
            "the home has tried to reach delia's server",
            soon(),
            mark,
            |visits| {
                let tried = |visit: &Visit| matches!(visit, Visit::Slammed { port: 8448, .. });
                if visits.iter().any(tried) {
                    ProbeState::Ready(())
                } else {
                    ProbeState::NotYet(format!("it made {} visits", visits.len()))
                }
            },
        )
        .await?;
    demand(
        said.iter().all(|id| !cast.peer.received().contains(id)),
        "be kept from delivering",
        "an event arrived while nobody was let in",
    )?;
    Ok(said)
}

/// Each of them came, once, in the order in which it was said; and no transaction was larger than allowed.
fn once_and_in_order(cast: &Cast, said: &[OwnedEventId]) -> Result<()> {
    let received = cast.peer.received();
    let of_these: Vec<_> = received.iter().filter(|id| said.contains(id)).collect();
    demand(
        of_these.iter().copied().eq(said),
        "deliver what was queued once and in order",
        format!("said {said:?}\nreceived {of_these:?}"),
    )?;
    let transactions = cast.peer.transactions();
    let largest = |count: fn(&fleet_peer::Transaction) -> usize| {
        transactions.iter().map(count).max().unwrap_or_default()
    };
    let (pdus, edus) = (largest(|t| t.pdus.len()), largest(|t| t.edus.len()));
    demand(
        pdus <= 50 && edus <= 100,
        "keep to the limits of a transaction",
        format!("{pdus} events and {edus} ephemeral ones in one"),
    )
}

/// E12. delia's server is down while alice speaks, and comes back. What she said should arrive by itself; Conduit waits for
/// an occasion. The next message is one: everything arrives, in order, once. "Transactions": a transaction is retried until
/// it is acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_during_an_outage_arrives_after_it() -> Outcome {
    federation(async |stage, cast| {
        on_conduit(stage, cast).await?;
        cast.peer.takes_transactions();
        let (garden, _) = cast.shared_garden().await?;
        let mut said = says_in_vain(cast, &garden, 3).await?;
        cast.door.slam(false);
        let by_itself = cast.peer.receives(&said, ITS_CHANCE).await;
        cast.known(&NO_RETRY_TIMER, by_itself)?;
        said.push(cast.alice.say(&garden, "are you there?").await?);
        cast.peer.receives(&said, soon()).await?;
        once_and_in_order(cast, &said)
    })
    .await
}

/// The home's own server, by the name of its unit.
fn unit(cast: &Cast) -> &str {
    &cast.site.server.name
}

/// E13. The home is stopped, properly or by `kill -9`, while it has not been able to deliver: what it had accepted from alice
/// is delivered when it runs again, without anybody saying more. "Transactions".
#[tokio::test(flavor = "multi_thread")]
async fn the_outgoing_queue_survives_a_stop_and_kill_nine() -> Outcome {
    federation_alone(&[Mutant::LosesEvents], async |stage, cast| {
        on_conduit(stage, cast).await?;
        cast.peer.takes_transactions();
        let (garden, _) = cast.shared_garden().await?;
        for (count, stop) in [(60, "stop"), (20, "kill --signal=KILL")] {
            let said = says_in_vain(cast, &garden, count).await?;
            restart(cast, stop).await?;
            cast.peer.receives(&said, soon()).await?;
            once_and_in_order(cast, &said)?;
        }
        Ok(())
    })
    .await
}

async fn restart(cast: &Cast, stop: &str) -> Result<()> {
    let unit = unit(cast);
    // Let in only once it is down: what arrives comes from the queue that it left.
    cast.site
        .host
        .shell(&format!("systemctl {stop} {unit} && systemctl stop {unit}"))
        .await?;
    cast.door.slam(false);
    cast.site
        .host
        .shell(&format!(
            "systemctl reset-failed {unit} 2>/dev/null; systemctl start {unit}"
        ))
        .await?;
    cast.site.ask_for_server().await?;
    Ok(())
}

/// E13. `kill -9` between sending a transaction and hearing that it was taken: it is sent again, under the same id, so that
/// the other side can tell that it is the same. "Transactions".
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_mid_flight_is_sent_again_under_its_id_after_kill_nine() -> Outcome {
    federation_alone(&[], async |stage, cast| {
        on_conduit(stage, cast).await?;
        cast.peer.takes_transactions();
        let (garden, _) = cast.shared_garden().await?;
        let hello = cast.alice.say(&garden, "hello").await?;
        cast.peer.receives(&[hello], soon()).await?;
        let mark = cast.door.mark();
        cast.peer.expect(Ask::Send, |_| Reply::Never);
        let said = cast.alice.say(&garden, "in mid-flight").await?;
        cast.door
            .until("the transaction is under way", soon(), mark, |_| match cast
                .door
                .calls(mark, Ask::Send)
                .len()
            {
                0 => ProbeState::NotYet("no transaction came".to_owned()),
                _ => ProbeState::Ready(()),
            })
            .await?;
        let again = cast.door.mark();
        cast.peer.takes_transactions();
        restart(cast, "kill --signal=KILL").await?;
        cast.peer
            .receives(std::slice::from_ref(&said), soon())
            .await?;
        let ids = |mark: usize| -> Vec<_> {
            let calls = cast.door.calls(mark, Ask::Send);
            calls.into_iter().map(|call| call.path).collect()
        };
        let (first, later) = (ids(mark), ids(again));
        demand(
            later.len() == 1 && first.iter().all(|path| *path == later[0]),
            "send a transaction again under its own id",
            format!("{first:?}"),
        )
    })
    .await
}

/// E12. delia's server takes a transaction and says so only after a while. What alice says meanwhile waits, nothing is sent a
/// second time, and all of it arrives in order. "Transactions": one transaction at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_partner_that_answers_late_is_sent_everything_once() -> Outcome {
    federation_noticing(
        &[
            Mutant::LosesEvents,
            Mutant::DoublesEvents,
            Mutant::ReordersEvents,
        ],
        async |_, cast| {
            cast.peer.takes_transactions();
            let (garden, _) = cast.shared_garden().await?;
            let before = cast.alice.say(&garden, "before").await?;
            cast.peer.receives(&[before], soon()).await?;
            let late = Gate::closed();
            cast.peer.takes_transactions_late(&late);
            let mut said = vec![cast.alice.say(&garden, "number 0").await?];
            cast.peer.receives(&said, soon()).await?;
            for number in 1..10 {
                said.push(cast.alice.say(&garden, &format!("number {number}")).await?);
            }
            demand(
                cast.peer.received().last() == said.first(),
                "wait for the answer to a transaction before the next one",
                format!("{:?}", cast.peer.received()),
            )?;
            late.open();
            cast.peer.receives(&said, soon()).await?;
            once_and_in_order(cast, &said)
        },
    )
    .await
}
