//! A real partner, or the home itself, is out of order for a while: the same claim under each kind of fault.

use crate::abroad::{Pair, Partner, SETTLED, agree, between, enters, receives, whisper, whispers};
use crate::known::NO_RETRY_TIMER;
use crate::{Table, demand};
use harness::client::{Client, Listener, NewRoom};
use harness::fault::{Column, FAULTS, Fault, Meanwhile, Part};
use harness::probe::ProbeState;
use harness::scenario::{Outcome, Stage, scenario};
use harness::site::Site;
use harness::{Failure, OrBlame, Result};
use ruma::{OwnedEventId, RoomId};
use serde_json::json;
use std::time::Duration;

/// A server that delivers by itself has done so by then. Conduit's own patience, and that it has none beyond it, is looked at
/// in `outages.rs`.
const BY_ITSELF: Duration = Duration::from_secs(4);

/// Who speaks, and who should hear of it.
#[derive(Clone, Copy)]
struct Ways<'a> {
    speaking: &'a Site,
    speaker: &'a Client,
    /// Lives where the speaker does, and comes in meanwhile.
    companion: &'a Client,
    faulty: &'a Site,
    hearer: &'a Client,
}

/// What came of speaking.
struct Said {
    messages: Vec<OwnedEventId>,
    all: Vec<OwnedEventId>,
}

/// E12, E13, F9. alice speaks at home while the partner is out of order, and charlie abroad while the home is: messages, a
/// topic, somebody who comes in, and messages to a device. All of it is granted at once, and when the fault is over it is
/// there on the other side, in order, once, and both servers agree on the room, state and timeline. Where connections were
/// refused, Conduit waits for an occasion; the next start is one. "Transactions"; "Send-to-device messaging".
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_whatever_is_the_matter_with_a_synapse() -> Outcome {
    between(Partner::Synapse, async |stage, pair| {
        let mut table = Table::default();
        let (mut abroad, mut home) = (pair.charlie.listen().await?, pair.alice.listen().await?);
        for column in FAULTS {
            let (out, back) = (outward(pair), inward(pair));
            under(stage, column, out, &mut abroad, "abroad", &mut table).await;
            under(stage, column, back, &mut home, "at home", &mut table).await;
        }
        table.verdict("lose nothing and double nothing over a fault")
    })
    .await
}

/// The same between two sites of the kit. What holds for one as the speaker holds for the other.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_whatever_is_the_matter_with_another_conduit() -> Outcome {
    between(Partner::Conduit, async |stage, pair| {
        let mut table = Table::default();
        let mut abroad = pair.charlie.listen().await?;
        for column in FAULTS {
            under(
                stage,
                column,
                outward(pair),
                &mut abroad,
                "abroad",
                &mut table,
            )
            .await;
        }
        table.verdict("lose nothing and double nothing over a fault")
    })
    .await
}

fn outward(pair: &Pair) -> Ways<'_> {
    Ways {
        speaking: &pair.home,
        speaker: &pair.alice,
        companion: &pair.bob,
        faulty: &pair.abroad,
        hearer: &pair.charlie,
    }
}

fn inward(pair: &Pair) -> Ways<'_> {
    Ways {
        speaking: &pair.abroad,
        speaker: &pair.charlie,
        companion: &pair.dora,
        faulty: &pair.home,
        hearer: &pair.alice,
    }
}

async fn under(
    stage: &Stage,
    column: &Column,
    ways: Ways<'_>,
    listener: &mut Listener,
    at: &str,
    table: &mut Table,
) {
    let name = format!("{}, {at}", column.name);
    let step = stage.world.recorder().begin(&name);
    let outcome = carries(stage, column, ways, listener).await;
    if outcome.is_ok() {
        step.done();
    }
    table.row(&name, outcome);
}

/// The listener goes on from row to row: an initial sync would be one that Synapse has kept, and with it what was whispered
/// rows ago.
async fn carries(
    stage: &Stage,
    column: &Column,
    ways: Ways<'_>,
    listener: &mut Listener,
) -> Result<()> {
    let Ways {
        speaker, hearer, ..
    } = ways;
    let room = NewRoom::public("garden").version("11");
    let garden = speaker.create_room(room).await?;
    enters(hearer, &garden, ways.speaking).await?;
    let greeting = hearer.say(&garden, "good morning").await?;
    speaker.sees(&garden, &greeting).await?;
    listener
        .until("the speaker's room is in sync", SETTLED, |seen| {
            seen.event(&garden, &greeting)
        })
        .await?;
    listener.forget();
    let fault = (column.fault)(ways.faulty, ways.speaking);
    let said = stage
        .world
        .during(&fault, async || {
            meets(column, ways).await?;
            speaks(ways, &garden).await
        })
        .await?;
    let by_itself = receives(hearer, &garden, &said.messages, BY_ITSELF).await;
    let waits = ways.speaking.server.is_conduit();
    match (column.meanwhile, by_itself) {
        // A proxy that waits for its server may deliver what was sent to it meanwhile; that nothing else does, E12 of
        // `outages.rs` insists on.
        (Meanwhile::Refused | Meanwhile::Either, outcome @ Err(_)) if waits => {
            stage
                .flaws
                .known(&NO_RETRY_TIMER, &ways.speaking.server, outcome)?
        }
        _ => receives(hearer, &garden, &said.messages, SETTLED).await?,
    }
    if waits && !matches!(column.meanwhile, Meanwhile::Silent | Meanwhile::Served) {
        // The occasion.
        let restart = Fault::restarted(ways.speaking, Part::Homeserver);
        stage.world.during(&restart, async || Ok(())).await?;
    }
    receives(hearer, &garden, &said.all, SETTLED).await?;
    listener
        .until(
            "the last whisper arrives",
            SETTLED,
            |seen| match whispers(seen).last() {
                Some(&"and again") => ProbeState::Ready(()),
                last => ProbeState::NotYet(format!("the last one is {last:?}")),
            },
        )
        .await?;
    for event in &said.all {
        listener
            .until("what was said arrives in sync", SETTLED, |seen| {
                seen.event(&garden, event)
            })
            .await?;
    }
    agree([speaker, hearer], &garden, &greeting).await?;
    // Everything above has come, so that what came twice would be here.
    let seen = listener.seen();
    let whispers = whispers(seen);
    demand(
        whispers == ["listen", "and again"],
        "deliver to a device once and in order",
        format!("{whispers:?}"),
    )?;
    let shown = hearer.messages(&garden).await?;
    let synced = seen.room(&garden).map_or(&[][..], |room| &room.timeline);
    for (way, events) in [("pages", &shown[..]), ("sync", synced)] {
        let of_these: Vec<_> = events
            .iter()
            .map(|event| &event.event_id)
            .filter(|id| said.all.contains(id))
            .collect();
        demand(
            of_these.iter().copied().eq(&said.all),
            &format!("show on {way} what was said once and in order"),
            format!("said {:?}\nshown {of_these:?}", said.all),
        )?;
    }
    Ok(())
}

/// The fault is what it is called: from where the speaker lives, the faulty site looks so.
async fn meets(column: &Column, ways: Ways<'_>) -> Result<()> {
    if column.meanwhile == Meanwhile::Either {
        return Ok(());
    }
    // Who is to be served waits for packets that are lost and come again, and who is refused for a proxy that waits for its
    // server.
    let limit = if column.meanwhile == Meanwhile::Silent {
        2
    } else {
        30
    };
    let asks = format!(
        "curl -s -m {limit} -o /dev/null -w '%{{http_code}}' https://matrix.{}/_matrix/federation/v1/version",
        ways.faulty.name
    );
    let output = ways.speaking.host.try_shell(&asks).await?;
    let met = match (output.exit, &*output.stdout) {
        (28, _) => Meanwhile::Silent,
        (0, "200") => Meanwhile::Served,
        _ => Meanwhile::Refused,
    };
    if met == column.meanwhile {
        return Ok(());
    }
    Err(
        Failure::harness(format!("find a faulty site {:?}", column.meanwhile))
            .last_seen(format!("{met:?}: {output:?}")),
    )
}

async fn speaks(ways: Ways<'_>, garden: &RoomId) -> Result<Said> {
    let Ways {
        speaker,
        companion,
        hearer,
        ..
    } = ways;
    let mut messages = Vec::new();
    for number in 0..3 {
        messages.push(speaker.say(garden, &format!("number {number}")).await?);
    }
    let mut all = messages.clone();
    let topic = json!({"topic": "what grows here"});
    all.push(
        speaker
            .send_state(garden, "m.room.topic", "", &topic)
            .await?,
    );
    whisper(speaker, hearer, "listen").await?;
    companion.join(garden).await?;
    all.push(companion.say(garden, "may I?").await?);
    whisper(speaker, hearer, "and again").await?;
    Ok(Said { messages, all })
}

/// A fault ends with its scope however that ends: when the body fails, when it panics, and when nobody waits for it any
/// longer. A fault that breaks nothing is no fault: it never begins. And what should be slow and lossy is.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_heals_when_its_scope_fails_panics_or_is_given_up() -> Outcome {
    scenario(async |stage| {
        let (site, other) = two_sites(stage).await?;
        let asks = "curl -s -m 1 -o /dev/null http://127.0.0.1:6167/_matrix/client/versions";
        let answers = async || Ok::<_, Failure>(site.host.try_shell(asks).await?.exit == 0);
        let paused = Fault::paused(&site, Part::Homeserver);
        let failed = stage
            .world
            .during(&paused, async || {
                must(!answers().await?, "be paused in a scope")?;
                Err::<(), _>(Failure::product("fail on purpose"))
            })
            .await;
        let failed = failed.err().map(|failure| failure.what);
        must(
            failed.as_deref() == Some("fail on purpose"),
            "hand on the body's failure",
        )?;
        must(answers().await?, "heal after a failure")?;

        let panics = async || -> Result<()> { std::panic::resume_unwind(Box::new("on purpose")) };
        let scope = std::panic::AssertUnwindSafe(stage.world.during(&paused, panics));
        let unwound = futures_util::FutureExt::catch_unwind(scope).await;
        must(unwound.is_err(), "hand on the body's panic")?;
        must(answers().await?, "heal after a panic")?;

        let begun = tokio::sync::Notify::new();
        let scope = stage.world.during(&paused, async || {
            begun.notify_one();
            std::future::pending::<Result<()>>().await
        });
        tokio::select! {
            _ = scope => must(false, "go on for ever")?,
            () = begun.notified() => {}
        }
        must(answers().await?, "heal when it is given up")?;

        // Nobody cuts a machine off from itself.
        let none = Fault::cut(&site, &site);
        let begun = stage.world.during(&none, async || Ok(())).await;
        must(begun.is_err(), "tell that nothing is broken")?;

        for (loss, repeats) in [(0, false), (40, true)] {
            let slow = Fault::slow(&site, &other, Duration::from_millis(60), loss);
            let took = stage
                .world
                .during(&slow, async || connects(&site, &other).await)
                .await?;
            // A lost packet of a handshake is sent again after a second.
            let (fastest, slowest) = (took.iter().min(), took.iter().max());
            let delays = fastest.is_some_and(|took| (120..1000).contains(took));
            let loses = slowest.is_some_and(|took| *took >= 1000);
            let what = format!("delay by 120 ms and lose {loss} %: {took:?}");
            must(delays && loses == repeats, &what)?;
        }
        Ok(())
    })
    .await
}

async fn two_sites(stage: &Stage) -> Result<(Site, Site)> {
    let sites = tokio::try_join!(
        stage.world.synapse("mere.test"),
        stage.world.synapse("vale.test")
    )?;
    stage.put_to(&sites.0.server);
    Ok(sites)
}

/// How long connections take, in milliseconds.
async fn connects(from: &Site, to: &Site) -> Result<Vec<u64>> {
    let script = format!(
        "for n in {{1..15}}; do began=$(date +%s%N); timeout 20 bash -c '</dev/tcp/{}/443'; \
         echo $(( ($(date +%s%N) - began) / 1000000 )); done",
        to.host.address
    );
    let took = from.host.shell(&script).await?;
    took.lines()
        .map(|line| line.parse().or_harness(|| format!("read `{line}`")))
        .collect()
}

fn must(holds: bool, what: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Failure::harness(what))
}
