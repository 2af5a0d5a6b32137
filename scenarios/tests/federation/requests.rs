//! Who may ask what, once or twice.

use crate::invitations::{is, written};
use crate::known::{NOT_401, REPLAYED_INVITATION, TOO_LARGE_TRANSACTION};
use crate::{Cast, Table, demand, federation, federation_noticing, on_conduit, soon};
use fleet_peer::{Mutant, Replied, Room, Sealed, Signed, Signing};
use harness::client::Membership;
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use ruma::OwnedEventId;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

type Request = (&'static str, bool, fn(&Cast) -> Result<Signed>);

/// What alice would not have everybody know.
const DISPLAY_NAME: &str = "alice of the garden";

fn path(cast: &Cast) -> String {
    let alice = cast.alice.user_id().as_str();
    let alice = alice.replace('@', "%40").replace(':', "%3A");
    format!("/_matrix/federation/v1/query/profile?user_id={alice}")
}

/// The header of a correct request, changed.
fn header(cast: &Cast, change: impl FnOnce(&str) -> Option<String>) -> Result<Signed> {
    let mut request = cast.peer.sign("GET", &path(cast), None)?;
    request.authorization = request.authorization.as_deref().and_then(change);
    Ok(request)
}

fn without(header: &str, parameter: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    let kept: Vec<_> = rest
        .split(',')
        .filter(|part| !part.starts_with(&format!("{parameter}=")))
        .collect();
    Some(format!("{scheme} {}", kept.join(",")))
}

/// Each is a correct request with one thing wrong; those that must be granted are the controls.
const REQUESTS: &[Request] = &[
    ("nothing is wrong", true, |cast| {
        header(cast, |h| Some(h.to_owned()))
    }),
    (
        "without a destination, as older servers send it",
        true,
        |cast| header(cast, |h| without(h, "destination")),
    ),
    ("without a signature at all", false, |cast| {
        header(cast, |_| None)
    }),
    ("without an origin", false, |cast| {
        header(cast, |h| without(h, "origin"))
    }),
    ("without a key id", false, |cast| {
        header(cast, |h| without(h, "key"))
    }),
    ("without the signature's bytes", false, |cast| {
        header(cast, |h| without(h, "sig"))
    }),
    ("with another scheme", false, |cast| {
        header(cast, |h| Some(h.replacen("X-Matrix", "Bearer", 1)))
    }),
    ("signed by another key of that name", false, |cast| {
        let impostor = Signing::new(cast.peer.signing().name());
        let (origin, home) = (&cast.peer.name, &cast.site.name);
        cast.peer
            .sign_as(&impostor, origin, home, "GET", &path(cast), None)
    }),
    ("meant for another server", false, |cast| {
        let signing = cast.peer.signing();
        cast.peer.sign_as(
            &signing,
            &cast.peer.name,
            "vale.test",
            "GET",
            &path(cast),
            None,
        )
    }),
    (
        "meant for another server, the destination changed afterwards",
        false,
        |cast| {
            let signing = cast.peer.signing();
            let mut request = cast.peer.sign_as(
                &signing,
                &cast.peer.name,
                "vale.test",
                "GET",
                &path(cast),
                None,
            )?;
            let home = cast.site.name.clone();
            request.authorization = request
                .authorization
                .map(|header| header.replace("\"vale.test\"", &format!("\"{home}\"")));
            Ok(request)
        },
    ),
    ("signed for another path", false, |cast| {
        let other = format!("{}&field=displayname", path(cast));
        let mut request = cast.peer.sign("GET", &other, None)?;
        request.path = path(cast);
        Ok(request)
    }),
    ("signed for another method", false, |cast| {
        let mut request = cast.peer.sign("POST", &path(cast), None)?;
        request.method = "GET".to_owned();
        Ok(request)
    }),
    ("signed for another body", false, |cast| {
        let path = "/_matrix/federation/v1/user/keys/query";
        let alice = cast.alice.user_id();
        let mut request = cast
            .peer
            .sign("POST", path, Some(&json!({"device_keys": {}})))?;
        request.body = json!({"device_keys": {alice: []}}).to_string().into();
        Ok(request)
    }),
    ("in the name of a server that nobody finds", false, |cast| {
        let signing = Signing::new("nobodys");
        cast.peer.sign_as(
            &signing,
            "nowhere.test",
            &cast.site.name,
            "GET",
            &path(cast),
            None,
        )
    }),
    ("in the home's own name", false, |cast| {
        let signing = Signing::new("impostors");
        let home = &cast.site.name;
        cast.peer
            .sign_as(&signing, home, home, "GET", &path(cast), None)
    }),
];

/// E4. A server answers other servers only when it knows who asks, that the question was meant for it, and that nothing of
/// it was changed on the way: method, path, body. Whatever is wrong, the answer is 401 and tells nothing. "Request
/// authentication".
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_signed_as_it_stands_is_refused_with_401() -> Outcome {
    federation_noticing(
        &[Mutant::MendsRequests, Mutant::GrantsEverything],
        async |stage, cast| {
            on_conduit(stage, cast).await?;
            cast.alice.set_display_name(DISPLAY_NAME).await?;
            let mut table = Table::default();
            let mut codes = Table::default();
            for (what, granted, make) in REQUESTS {
                let answer = cast.peer.send(&make(cast)?).await?;
                table.row(what, told(*granted, &answer));
                if !granted {
                    let outcome =
                        demand(answer.status == 401, "refuse with 401", answer.to_string());
                    codes.row(what, cast.not_401(&answer, outcome));
                }
            }
            // The check itself: an answer that tells something is noticed where none may be given.
            let leak = cast
                .peer
                .send(&cast.peer.sign("GET", &path(cast), None)?)
                .await?;
            table.row(
                "the control",
                match told(false, &leak) {
                    Ok(()) => Err(Failure::harness("notice an answer that tells something")),
                    Err(_) => Ok(()),
                },
            );
            table.verdict("answer only signed requests")?;
            codes.verdict("refuse with 401")
        },
    )
    .await
}

impl Cast {
    /// Conduit refuses most of them with 403 or 400; where it answers 401 it is right.
    fn not_401(&self, answer: &Replied, outcome: Result<()>) -> Result<()> {
        if answer.status == 401 {
            outcome
        } else {
            self.known(&NOT_401, outcome)
        }
    }
}

fn told(granted: bool, answer: &Replied) -> Result<()> {
    let tells =
        answer.body.to_string().contains(DISPLAY_NAME) || answer.body["device_keys"].is_object();
    if granted {
        demand(
            answer.status == 200 && tells,
            "grant the request",
            answer.to_string(),
        )
    } else {
        demand(
            matches!(answer.status, 400 | 401 | 403) && !tells,
            "refuse the request and tell nothing",
            answer.to_string(),
        )
    }
}

/// What alice sees of a room, each event as often as sync brought it.
async fn shown(
    cast: &Cast,
    listener: &mut harness::client::Listener,
    garden: &ruma::RoomId,
    sentinel: &OwnedEventId,
) -> Result<Vec<OwnedEventId>> {
    listener
        .until("alice sees the sentinel", soon(), |seen| {
            seen.event(garden, sentinel)
        })
        .await?;
    let seen = listener.seen().room(garden);
    let timeline = seen.map(|room| room.timeline.clone()).unwrap_or_default();
    let mut all: Vec<_> = timeline.into_iter().map(|event| event.event_id).collect();
    // A limited timeline leaves out what the pages show.
    if seen.is_some_and(|room| room.limited) {
        let pages = cast.alice.messages(garden).await?;
        for event in pages {
            if !all.contains(&event.event_id) {
                all.push(event.event_id);
            }
        }
    }
    Ok(all)
}

fn to_device(cast: &Cast, id: &str) -> Value {
    json!({
        "edu_type": "m.direct_to_device",
        "content": {
            "sender": cast.delia(),
            "type": "test.note",
            "message_id": id,
            "messages": {cast.alice.user_id(): {"*": {"note": id}}},
        },
    })
}

/// E17. A transaction whose answer was lost is sent again, under the same id and signed anew. Both are answered alike, the
/// events are there once, and so is the to-device message. "Transactions".
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_sent_twice_is_answered_alike_and_has_one_effect() -> Outcome {
    federation_noticing(&[Mutant::RefusesRepetitions], async |_, cast| {
        cast.peer.takes_transactions();
        let (garden, mut room) = cast.shared_garden().await?;
        let mut listener = cast.alice.listen().await?;
        let delia = cast.delia();
        let first = cast.peer.message(&room, &delia, "once")?;
        room.add(&first);
        let second = cast.peer.message(&room, &delia, "and once")?;
        room.add(&second);
        let (events, note) = ([&first, &second], to_device(cast, "note-1"));
        let mut answers = Vec::new();
        for _ in 0..2 {
            let request = cast
                .peer
                .transaction("again-1", &events, std::slice::from_ref(&note))?;
            answers.push(cast.peer.send(&request).await?.must()?);
        }
        demand(
            answers[0] == answers[1],
            "answer the same transaction alike",
            format!("{}\n{}", answers[0], answers[1]),
        )?;
        let sentinel = cast.peer.say(&mut room, &delia, "good night").await?;
        let seen = shown(cast, &mut listener, &garden, &sentinel.id).await?;
        for event in events {
            let times = seen.iter().filter(|id| **id == event.id).count();
            demand(
                times == 1,
                "show each event once",
                format!("{times} times in {seen:?}"),
            )?;
        }
        notes_once(&mut listener, 1).await
    })
    .await
}

/// To-device messages arrive once each; a further one behind them is the sentinel of those that must not come.
async fn notes_once(listener: &mut harness::client::Listener, expected: usize) -> Result<()> {
    listener
        .until(
            "alice has the to-device messages",
            soon(),
            |seen| match seen.to_device.len() {
                n if n >= expected => ProbeState::Ready(()),
                n => ProbeState::NotYet(format!("she has {n}")),
            },
        )
        .await?;
    let notes = &listener.seen().to_device;
    demand(
        notes.len() == expected,
        "bring each to-device message once",
        format!("{notes:?}"),
    )
}

/// E17. A transaction holds at most 50 events and 100 ephemeral ones: one that is full is taken whole, one that is overfull
/// is refused whole. "Transactions".
#[tokio::test(flavor = "multi_thread")]
async fn a_full_transaction_is_taken_and_an_overfull_one_refused() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let (garden, mut room) = cast.shared_garden().await?;
        let delia = cast.delia();
        let many = |room: &mut Room, count: usize| -> Result<Vec<Sealed>> {
            (0..count)
                .map(|number| {
                    let event = cast
                        .peer
                        .message(room, &delia, &format!("number {number}"))?;
                    room.add(&event);
                    Ok(event)
                })
                .collect()
        };
        let notes = |count: usize| -> Vec<Value> {
            (0..count)
                .map(|n| to_device(cast, &format!("n-{count}-{n}")))
                .collect()
        };
        let full = many(&mut room, 50)?;
        let full: Vec<_> = full.iter().collect();
        let answer = cast.peer.deliver(&full, &notes(100)).await?;
        demand(
            answer.status == 200,
            "take a full transaction",
            answer.to_string(),
        )?;
        for event in &full {
            cast.alice.sees_within(&garden, &event.id, soon()).await?;
        }
        let mut table = Table::default();
        let mut beyond = room.clone();
        let overfull = many(&mut beyond, 51)?;
        let overfull: Vec<_> = overfull.iter().collect();
        for (what, events, edus) in [
            ("51 events", &overfull[..], 0),
            ("101 ephemeral events", &[][..], 101),
        ] {
            let answer = cast.peer.deliver(events, &notes(edus)).await?;
            let outcome = demand(
                (400..500).contains(&answer.status),
                "refuse an overfull transaction",
                format!("{} {}", answer.request, answer.status),
            );
            table.row(what, cast.known(&TOO_LARGE_TRANSACTION, outcome));
        }
        table.verdict("keep to the limits of a transaction")
    })
    .await
}

/// G8. A signed request can be kept by whoever sees it, and sent again: byte by byte the same, with a signature that is
/// still right. A message is not said twice, who has left is not brought back, who came back is not sent away, and who
/// declined is not invited again. "Request authentication", "Checks performed on receipt of a PDU".
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_request_has_no_second_effect() -> Outcome {
    federation(async |_, cast| {
        cast.peer.takes_transactions();
        let mut table = Table::default();
        table.row("a message", message(cast).await);
        table.row("a join and a leave", coming_and_going(cast).await);
        table.row(
            "an invitation",
            cast.known(&REPLAYED_INVITATION, invitation(cast).await),
        );
        table.verdict("let a replayed request have no effect")
    })
    .await
}

async fn message(cast: &Cast) -> Result<()> {
    let (garden, mut room) = cast.shared_garden().await?;
    let mut listener = cast.alice.listen().await?;
    let event = cast.peer.message(&room, &cast.delia(), "once")?;
    room.add(&event);
    let request = cast.peer.transaction("replayed-1", &[&event], &[])?;
    let answers = [
        cast.peer.send(&request).await?,
        cast.peer.send(&request).await?,
    ];
    demand(
        answers[0].status == 200 && answers[0] == answers[1],
        "answer a replay as the first time",
        format!("{}\n{}", answers[0], answers[1]),
    )?;
    let sentinel = cast
        .peer
        .say(&mut room, &cast.delia(), "good night")
        .await?;
    let seen = shown(cast, &mut listener, &garden, &sentinel.id).await?;
    let times = seen.iter().filter(|id| **id == event.id).count();
    demand(times == 1, "show a message once", format!("{times} times"))
}

async fn coming_and_going(cast: &Cast) -> Result<()> {
    let garden = cast.garden().await?;
    let delia = cast.delia();
    // Somebody of hers stays, so that the server stays in the room.
    cast.joins(&garden, &cast.peer.user("dora")).await?;
    let join = join_request(cast, &garden, &delia).await?;
    cast.peer.send(&join).await?.must()?;
    membership(cast, &garden, &delia, "join").await?;
    let leave = leave_request(cast, &garden, &delia).await?;
    cast.peer.send(&leave).await?.must()?;
    membership(cast, &garden, &delia, "leave").await?;
    let replay = cast.peer.send(&join).await?;
    still(cast, &garden, &delia, "leave", &replay).await?;
    let again = join_request(cast, &garden, &delia).await?;
    cast.peer.send(&again).await?.must()?;
    membership(cast, &garden, &delia, "join").await?;
    let replay = cast.peer.send(&leave).await?;
    still(cast, &garden, &delia, "join", &replay).await
}

async fn join_request(cast: &Cast, garden: &ruma::RoomId, who: &str) -> Result<Signed> {
    let (_, event) = cast.peer.join_event(garden, who).await?;
    let path = format!("/_matrix/federation/v2/send_join/{garden}/{}", event.id);
    cast.peer.sign("PUT", &path, Some(&json!(event.json)))
}

async fn leave_request(cast: &Cast, garden: &ruma::RoomId, who: &str) -> Result<Signed> {
    let path = format!("/_matrix/federation/v1/make_leave/{garden}/{who}");
    let template = cast.peer.ask("GET", &path, None).await?.must()?;
    let (known, _) = cast
        .peer
        .join_event(garden, &cast.peer.user("nobody"))
        .await?;
    let event = cast.peer.seal_template(&known, &template["event"])?;
    let path = format!("/_matrix/federation/v2/send_leave/{garden}/{}", event.id);
    cast.peer.sign("PUT", &path, Some(&json!(event.json)))
}

async fn membership(cast: &Cast, garden: &ruma::RoomId, who: &str, expected: &str) -> Result<()> {
    let who = crate::user(who)?;
    harness::probe::until(
        &format!("{who} is in state {expected}"),
        soon(),
        async || match cast.alice.members(garden).await {
            Ok(members) => match members.get(&who) {
                Some(membership) if membership == expected => ProbeState::Ready(()),
                other => ProbeState::NotYet(format!("{other:?}")),
            },
            Err(failure) => ProbeState::NotYet(failure.to_string()),
        },
    )
    .await?;
    Ok(())
}

/// Behind a later event, the membership is what it was.
async fn still(
    cast: &Cast,
    garden: &ruma::RoomId,
    who: &str,
    expected: &str,
    replay: &Replied,
) -> Result<()> {
    let sentinel = cast.alice.say(garden, "still here").await?;
    cast.alice.sees(garden, &sentinel).await?;
    let members = cast.alice.members(garden).await?;
    let found = members.get(&crate::user(who)?);
    demand(
        found.is_some_and(|membership| membership == expected),
        &format!("leave {who} as `{expected}`"),
        format!("{found:?} after {replay}"),
    )
}

async fn invitation(cast: &Cast) -> Result<()> {
    let invitation = written(cast)?;
    let id = invitation.room.id.clone();
    cast.peer
        .lets_leave(&Arc::new(Mutex::new(invitation.room.clone())));
    let mut listener = cast.alice.listen().await?;
    cast.peer.send(&invitation.request).await?.must()?;
    is(&mut listener, &id, Membership::Invited).await?;
    cast.alice.leave(&id).await?;
    is(&mut listener, &id, Membership::Left).await?;
    let replay = cast.peer.send(&invitation.request).await?;
    // Something later that certainly shows.
    let garden = cast.garden().await?;
    is(&mut listener, &garden, Membership::Joined).await?;
    let now = listener.seen().room(&id).map(|room| room.membership);
    demand(
        now == Some(Membership::Left),
        "not invite again who declined",
        format!("{now:?} after {replay}"),
    )
}
