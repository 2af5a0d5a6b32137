//! The checker's kill matrix: records without a fault pass, and of each kind of fault that is planted in one, each is found
//! under its name.

mod simulated;

use fleet_history::{
    Anomaly, Deed, Doubt, Judgement, Operation, Outcome, Record, Told, Verdict, check,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use simulated::{ROOM, Simulated, USERS, simulate, steps};
use std::collections::BTreeSet;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_record_without_a_fault_passes(steps in steps()) {
        let Simulated { record, .. } = simulate(&steps);
        let judgement = check(&record);
        // Where nobody did anything, nothing is known.
        let expected = match judgement.doubts.iter().all(|doubt| doubt.name == Doubt::NothingRecorded) {
            true if !judgement.doubts.is_empty() => Verdict::Unknown,
            _ => Verdict::Pass,
        };
        prop_assert_eq!(judgement.verdict(), expected, "{}", told(&record, &judgement));
    }

    #[test]
    fn a_record_comes_back_from_json_as_it_was(steps in steps()) {
        let Simulated { record, .. } = simulate(&steps);
        let text = serde_json::to_string(&record).expect("it is plain data");
        prop_assert_eq!(record, serde_json::from_str::<Record>(&text).expect("it was written so"));
    }
}

/// The record by numbers, to understand a judgement.
fn told(record: &Record, judgement: &Judgement) -> String {
    let lines = record.operations.iter().enumerate().map(|(number, it)| {
        let mut what = format!("{:?}", it.deed);
        if !events_of(it).is_empty() {
            let ids: Vec<_> = events_of(it).iter().map(|told| told.id.as_str()).collect();
            what = format!(
                "{} {ids:?}",
                what.split_once('[').map_or(&*what, |(what, _)| what)
            );
        }
        format!(
            "{number} {}..{} {} {:?} {what}\n",
            it.began, it.ended, it.who, it.outcome
        )
    });
    format!("{judgement}{}", lines.collect::<String>())
}

type Plant<T> = (&'static str, T, fn(&mut Simulated, usize) -> Option<()>);

/// How often each is planted, in different records and places.
const TIMES: usize = 30;

/// Plants one in many records, and hands over the judgements.
fn planted<T: Copy>(
    plant: &Plant<T>,
    judge: impl Fn(&str, Verdict, &Judgement) -> Result<(), String>,
) {
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let strategy = (steps(), any::<prop::sample::Index>());
    let mut times = 0;
    for _ in 0..TIMES * 200 {
        let (steps, place) = strategy
            .new_tree(&mut runner)
            .expect("it can be drawn")
            .current();
        let mut simulated = simulate(&steps);
        if plant.2(&mut simulated, place.index(1 << 20)).is_none() {
            continue;
        }
        let judgement = check(&simulated.record);
        if let Err(complaint) = judge(plant.0, judgement.verdict(), &judgement) {
            panic!("{complaint}\n{}", told(&simulated.record, &judgement));
        }
        times += 1;
        if times == TIMES {
            return;
        }
    }
    panic!("`{}` could be planted {times} times only", plant.0);
}

#[test]
fn every_planted_anomaly_is_found_under_its_name() {
    for plant in ANOMALIES {
        planted(plant, |what, verdict, judgement| {
            match judgement
                .findings
                .iter()
                .any(|finding| finding.name == plant.1)
            {
                true if verdict == Verdict::Fail => Ok(()),
                _ => Err(format!("{what} is not found as `{}`", plant.1.word())),
            }
        });
    }
    let names: BTreeSet<_> = ANOMALIES.iter().map(|plant| plant.1).collect();
    assert_eq!(
        names,
        BTreeSet::from(Anomaly::ALL),
        "none may be without a proof"
    );
}

#[test]
fn what_the_record_does_not_decide_is_unknown() {
    for plant in DOUBTS {
        planted(plant, |what, verdict, judgement| {
            match judgement.doubts.iter().any(|doubt| doubt.name == plant.1) {
                true if verdict == Verdict::Unknown => Ok(()),
                _ => Err(format!("{what} is not unknown as `{}`", plant.1.word())),
            }
        });
    }
}

fn unanswered(simulated: &mut Simulated, place: usize) -> Option<String> {
    let (number, event) = pick(&sends(&simulated.record), place)?;
    let operation = &mut simulated.record.operations[number];
    operation.outcome = Outcome::Indefinite;
    if let Deed::Send { event, .. } = &mut operation.deed {
        *event = None;
    }
    Some(event)
}

/// An operation without an answer, the effect of which somebody saw, was done: then all must see it.
#[test]
fn an_operation_without_an_answer_counts_as_done_once_its_effect_was_seen() {
    planted(
        &("an answer is lost", (), |simulated, place| {
            unanswered(simulated, place).map(|_| ())
        }),
        |what, verdict, _| match verdict {
            Verdict::Pass => Ok(()),
            _ => Err(format!("{what}, and nothing else, yet it does not pass")),
        },
    );
    planted(
        &(
            "an answer is lost, and the event too, for one",
            (),
            |simulated, place| {
                let event = unanswered(simulated, place)?;
                let (_, who) = simulated.owed.iter().find(|(id, _)| *id == event)?.clone();
                let others = simulated.owed.iter().filter(|(id, _)| *id == event).count();
                forget(&mut simulated.record, who, &event);
                (others > 1).then_some(())
            },
        ),
        // It may have been done as late as somebody saw it; who looked before that proves nothing.
        |what, verdict, _| match verdict {
            Verdict::Pass => Err(format!("{what}, and it passes")),
            _ => Ok(()),
        },
    );
}

#[test]
fn of_nothing_nothing_is_known() {
    let judgement = check(&Record {
        patience: 0,
        operations: Vec::new(),
    });
    assert_eq!(judgement.verdict(), Verdict::Unknown);
    assert_eq!(
        judgement.to_string(),
        "nothing-recorded [0]: nothing was accepted\n"
    );
}

/// A long record is judged in a time in proportion to its length; nothing is asserted of time, but were it quadratic, this
/// test would not end.
#[test]
fn a_hundred_thousand_deliveries_are_judged() {
    use simulated::Step;
    let joins = (1..4).map(Step::Join);
    let talk = (0..50_000).map(|number| {
        if number % 5 == 4 {
            Step::Sync(number / 5 % 4)
        } else {
            Step::Say(number % 4)
        }
    });
    let simulated = simulate(&joins.chain(talk).collect::<Vec<_>>());
    let deliveries: usize = simulated
        .record
        .operations
        .iter()
        .map(|operation| events_of(operation).len())
        .sum();
    assert!(deliveries > 200_000, "{deliveries}");
    let judgement = check(&simulated.record);
    assert_eq!(
        judgement.verdict(),
        Verdict::Pass,
        "{:?}",
        judgement.findings.first()
    );
}

const ANOMALIES: &[Plant<Anomaly>] = &[
    (
        "an event that one member is never told",
        Anomaly::Lost,
        |it, place| {
            let (event, who) = pick(&it.owed, place)?;
            forget(&mut it.record, who, &event);
            Some(())
        },
    ),
    (
        "a message that is answered with the event of another",
        Anomaly::Lost,
        |it, place| {
            let sends = sends(&it.record);
            let ((number, event), (_, other)) = (pick(&sends, place)?, pick(&sends, place / 7)?);
            (0..USERS.len()).for_each(|who| forget(&mut it.record, who, &event));
            if let Deed::Send { event, .. } = &mut it.record.operations[number].deed {
                event.clone_from(&Some(other.clone()));
            }
            (event != other).then_some(())
        },
    ),
    (
        "an event that the pages lack",
        Anomaly::Lost,
        |it, place| {
            let (event, who) = pick(&it.owed, place)?;
            let syncs = &mut |operation: &mut Operation| {
                if matches!(operation.deed, Deed::Page { .. }) {
                    events_mut(operation).for_each(|events| events.retain(|told| told.id != event));
                }
            };
            of(&mut it.record, who).for_each(syncs);
            Some(())
        },
    ),
    (
        "an event that who left was never told",
        Anomaly::LostOnLeaving,
        |it, place| {
            let (event, who) = pick(&it.left, place)?;
            // By a sync from before he would have to be told.
            let left = it.record.operations.iter().any(|operation| match &operation.deed {
            Deed::Sync { rooms, .. } => rooms.iter().any(|room| !room.joined && room.timeline.iter().any(|told| told.id == event)),
            _ => false,
        } && operation.who == USERS[who].0);
            left.then_some(())?;
            forget(&mut it.record, who, &event);
            Some(())
        },
    ),
    (
        "an event that is on the pages and in no sync",
        Anomaly::Skipped,
        |it, place| {
            let (event, who) = pick(&it.owed, place)?;
            // Not the last of its timeline: a gap behind it would be filled with it.
            let timeline = timelines(&mut it.record, who)
                .find(|timeline| timeline.iter().rev().skip(1).any(|told| told.id == event))?;
            timeline.retain(|told| told.id != event);
            Some(())
        },
    ),
    (
        "an event that two syncs tell",
        Anomaly::Repeated,
        |it, place| {
            let (event, who) = pick(&it.owed, place)?;
            let mut timelines = timelines(&mut it.record, who);
            let told = timelines
                .find_map(|timeline| timeline.iter().find(|told| told.id == event).cloned())?;
            timelines.next()?.push(told);
            Some(())
        },
    ),
    (
        "a message that becomes two events",
        Anomaly::Duplicate,
        |it, place| {
            let (event, who) = pick(&it.owed, place)?;
            let timeline = timelines(&mut it.record, who)
                .find(|timeline| timeline.iter().any(|told| told.id == event))?;
            let mut told = timeline.iter().find(|told| told.id == event)?.clone();
            told.id += "-again";
            timeline.push(told);
            Some(())
        },
    ),
    (
        "a transaction that is answered with two events",
        Anomaly::Duplicate,
        |it, place| {
            let (number, _) = pick(&sends(&it.record), place)?;
            let mut again = it.record.operations[number].clone();
            if let Deed::Send {
                event: Some(event), ..
            } = &mut again.deed
            {
                *event += "-again";
            }
            it.record.operations.insert(number + 1, again);
            Some(())
        },
    ),
    (
        "two events of one sender that change places",
        Anomaly::Reordered,
        |it, place| {
            let (event, who) = pick(&it.owed, place)?;
            let timeline = timelines(&mut it.record, who)
                .find(|timeline| timeline.iter().any(|told| told.id == event))?;
            let first = timeline.iter().position(|told| told.id == event)?;
            let same = |told: &Told| {
                told.sender == timeline[first].sender && told.kind == "m.room.message"
            };
            let second = first + 1 + timeline[first + 1..].iter().position(same)?;
            timeline.swap(first, second);
            Some(())
        },
    ),
    (
        "a page that is not in order",
        Anomaly::Reordered,
        |it, place| {
            let mut pages: Vec<_> = it
                .record
                .operations
                .iter_mut()
                .filter_map(|operation| match &mut operation.deed {
                    Deed::Page {
                        from: None, events, ..
                    } => Some(events),
                    _ => None,
                })
                .collect();
            let count = pages.len().max(1);
            let page = pages.get_mut(place % count)?;
            let message = |told: &&Told| told.kind == "m.room.message";
            let sender = page.iter().find(message)?.sender.clone();
            let second = page
                .iter()
                .filter(message)
                .filter(|told| told.sender == sender)
                .count()
                > 1;
            page.reverse();
            second.then_some(())
        },
    ),
    (
        "an event that nobody sent",
        Anomaly::Phantom,
        |it, place| {
            let who = place % USERS.len();
            let timeline = timelines(&mut it.record, who).next()?;
            let mut told = timeline.first()?.clone();
            told = Told {
                id: "$nobodys".into(),
                kind: "m.room.message".into(),
                key: None,
                marker: Some("?".into()),
                ..told
            };
            timeline.push(told);
            Some(())
        },
    ),
    (
        "an event of who was not in the room",
        Anomaly::Leak,
        |it, place| {
            let (event, who) = pick(&it.foreign, place)?;
            let told = it
                .record
                .operations
                .iter()
                .flat_map(events_of)
                .find(|told| told.id == event)?
                .clone();
            let last = of(&mut it.record, who)
                .filter(|operation| matches!(operation.deed, Deed::Sync { .. }))
                .last()?;
            leak(last, told);
            Some(())
        },
    ),
    (
        "a read of the own event that is refused",
        Anomaly::StaleRead,
        |it, place| {
            let (event, who) = pick(&it.owed, place)?;
            let sent = it.record.operations.iter().position(|operation| {
            matches!(&operation.deed, Deed::Send { event: Some(id), .. } if *id == event)
        })?;
            let mut read = it.record.operations[sent].clone();
            (read.began, read.ended) = (read.ended + 1, read.ended + 2);
            read.outcome = Outcome::Refused;
            let mine = read.who == USERS[who].0;
            read.deed = Deed::Read {
                room: ROOM.to_owned(),
                event,
            };
            it.record.operations.insert(sent + 1, read);
            mine.then_some(())
        },
    ),
    (
        "a state without the own change",
        Anomaly::StaleRead,
        |it, place| {
            let reads: Vec<_> = it
                .record
                .operations
                .iter()
                .enumerate()
                .filter(|(_, operation)| matches!(operation.deed, Deed::ReadState { .. }))
                .map(|(number, operation)| (number, operation.who.clone()))
                .collect();
            let (number, who) = pick(&reads, place)?;
            let last = it
                .record
                .operations
                .iter()
                .rfind(|operation| matches!(operation.deed, Deed::State { .. }))?;
            // Nobody else wrote shortly before.
            let alone = it
                .record
                .operations
                .iter()
                .filter(|operation| matches!(operation.deed, Deed::State { .. }))
                .all(|other| other.ended + 300 < last.began || other == last);
            let cut = it
                .record
                .operations
                .iter()
                .any(|operation| matches!(operation.deed, Deed::Fault { .. }));
            let after = it.record.operations[number].began > last.ended;
            let mine = last.who == who && alone && after && !cut;
            events_mut(&mut it.record.operations[number])
                .for_each(|state| state.retain(|told| told.kind != "m.room.topic"));
            mine.then_some(())
        },
    ),
    (
        "the own event, a sync too late",
        Anomaly::StaleRead,
        |it, place| {
            let (event, who) = pick(&it.owed, place)?;
            let mine = it.record.operations.iter().any(|operation| {
                operation.who == USERS[who].0
                    && matches!(&operation.deed, Deed::Send { event: Some(id), .. } if *id == event)
            });
            let mut timelines: Vec<_> = timelines(&mut it.record, who).collect();
            let at = timelines
                .iter()
                .position(|timeline| timeline.last().is_some_and(|told| told.id == event))?;
            if !mine || at + 1 == timelines.len() {
                return None;
            }
            let told = timelines[at].pop()?;
            timelines[at + 1].insert(0, told);
            Some(())
        },
    ),
    ("a token that goes back", Anomaly::TokenBack, |it, place| {
        let who = place % USERS.len();
        let mut syncs: Vec<_> = of(&mut it.record, who)
            .filter_map(|operation| match &mut operation.deed {
                Deed::Sync { since, next, .. } => Some((since, next)),
                _ => None,
            })
            .collect();
        let at = syncs.iter().position(|(since, next)| {
            since.is_some() && *since != *next && since.as_deref() != Some("0")
        })?;
        let back = Some("0".to_owned());
        syncs[at].1.clone_from(&back);
        syncs.get_mut(at + 1)?.0.clone_from(&back);
        Some(())
    }),
    (
        "a piece of state that one server lacks",
        Anomaly::Diverged,
        |it, place| {
            let (vale, mere) = (
                last_state(&it.record, "vale.test")?,
                last_state(&it.record, "mere.test")?,
            );
            let number = if place % 2 == 0 { vale } else { mere };
            events_mut(&mut it.record.operations[number]).for_each(|state| {
                let which = place % state.len();
                state[which].id += "-other";
            });
            Some(())
        },
    ),
];

const DOUBTS: &[Plant<Doubt>] = &[
    (
        "a send without an answer that nobody saw",
        Doubt::Indefinite,
        |it, place| {
            let (number, event) = pick(&sends(&it.record), place)?;
            let operation = &mut it.record.operations[number];
            operation.outcome = Outcome::Indefinite;
            (0..USERS.len()).for_each(|who| forget(&mut it.record, who, &event));
            Some(())
        },
    ),
    (
        "a member who stopped listening",
        Doubt::NotToTheEnd,
        |it, place| {
            let (event, who) = pick(&it.owed, place)?;
            let sent = it.record.operations.iter().find(|operation| {
            matches!(&operation.deed, Deed::Send { event: Some(id), .. } if *id == event)
        })?.began;
            it.record.operations.retain(|operation| {
                let listens = matches!(operation.deed, Deed::Sync { .. } | Deed::Page { .. });
                !(listens && operation.who == USERS[who].0 && operation.ended > sent)
            });
            Some(())
        },
    ),
    (
        "a gap that nobody looked into",
        Doubt::GapNotFilled,
        |it, place| {
            let who = place % USERS.len();
            let is_page = |operation: &Operation| matches!(operation.deed, Deed::Page { .. });
            let told: BTreeSet<_> = it
                .record
                .operations
                .iter()
                .filter(|operation| {
                    operation.who == USERS[who].0
                        && !is_page(operation)
                        && !matches!(operation.deed, Deed::ReadState { .. })
                })
                .flat_map(events_of)
                .map(|told| told.id.clone())
                .collect();
            let missing = it
                .owed
                .iter()
                .any(|(event, of)| *of == who && !told.contains(event));
            it.record
                .operations
                .retain(|operation| !(operation.who == USERS[who].0 && is_page(operation)));
            missing.then_some(())
        },
    ),
    (
        "a server whose state nobody read",
        Doubt::StateNotRead,
        |it, place| {
            let server = ["vale.test", "mere.test"][place % 2];
            last_state(&it.record, "mere.test")?;
            last_state(&it.record, "vale.test")?;
            it.record.operations.retain(|operation| {
                !(operation.server == server && matches!(operation.deed, Deed::ReadState { .. }))
            });
            Some(())
        },
    ),
    (
        "states that differ and were read too early",
        Doubt::ReadTooEarly,
        |it, _| {
            let number = last_state(&it.record, "mere.test")?;
            events_mut(&mut it.record.operations[number]).for_each(|state| _ = state.remove(0));
            it.record.patience = 1_000_000;
            Some(())
        },
    ),
];

fn pick<T: Clone>(from: &[T], place: usize) -> Option<T> {
    from.get(place % from.len().max(1)).cloned()
}

fn of(record: &mut Record, who: usize) -> impl Iterator<Item = &mut Operation> {
    record
        .operations
        .iter_mut()
        .filter(move |operation| operation.who == USERS[who].0)
}

fn events_of(operation: &Operation) -> Vec<&Told> {
    match &operation.deed {
        Deed::Sync { rooms, .. } => rooms.iter().flat_map(|room| &room.timeline).collect(),
        Deed::Page { events, .. } | Deed::ReadState { state: events, .. } => {
            events.iter().collect()
        }
        _ => Vec::new(),
    }
}

fn events_mut(operation: &mut Operation) -> impl Iterator<Item = &mut Vec<Told>> {
    let events: Vec<_> = match &mut operation.deed {
        Deed::Sync { rooms, .. } => rooms.iter_mut().map(|room| &mut room.timeline).collect(),
        Deed::Page { events, .. } | Deed::ReadState { state: events, .. } => vec![events],
        _ => Vec::new(),
    };
    events.into_iter()
}

fn timelines(record: &mut Record, who: usize) -> impl Iterator<Item = &mut Vec<Told>> {
    of(record, who)
        .filter(|operation| matches!(operation.deed, Deed::Sync { .. }))
        .flat_map(events_mut)
}

/// Nobody ever told him.
fn forget(record: &mut Record, who: usize, event: &str) {
    let tells = |operation: &&mut Operation| !matches!(operation.deed, Deed::ReadState { .. });
    of(record, who)
        .filter(tells)
        .flat_map(events_mut)
        .for_each(|events| events.retain(|told| told.id != event));
}

fn sends(record: &Record) -> Vec<(usize, String)> {
    let sent = |(number, operation): (usize, &Operation)| match &operation.deed {
        Deed::Send {
            event: Some(event), ..
        } => Some((number, event.clone())),
        _ => None,
    };
    record
        .operations
        .iter()
        .enumerate()
        .filter_map(sent)
        .collect()
}

fn last_state(record: &Record, server: &str) -> Option<usize> {
    let done = |operation: &Operation| {
        matches!(
            operation.deed,
            Deed::Send { .. } | Deed::State { .. } | Deed::Member { .. }
        )
    };
    let last = record.operations.iter().rposition(done)?;
    let read = |operation: &Operation| {
        operation.server == server && matches!(operation.deed, Deed::ReadState { .. })
    };
    record
        .operations
        .iter()
        .rposition(read)
        .filter(|read| *read > last + USERS.len() + 2)
}

fn leak(sync: &mut Operation, told: Told) {
    if let Deed::Sync { rooms, .. } = &mut sync.deed {
        rooms.push(fleet_history::RoomTold {
            room: ROOM.to_owned(),
            joined: false,
            timeline: vec![told],
            limited: false,
            prev_batch: None,
            state: Vec::new(),
        });
    }
}
