//! What the benches put through our own hot paths: an answer to `/sync` as a busy room gives it, a ledger of a run, a
//! record of a history, and a runbook. Nothing is drawn, so that instructions can be counted.

use fleet_load::ledger::{Counts, Ledger, Outcome};
use fleet_load::run::Synced;
use harness::runbook::Runbook;
use serde_json::json;

// What the history's own tests play on; not all of it is used here.
#[allow(dead_code, missing_docs)]
#[path = "../../harness/history/tests/simulated/mod.rs"]
mod simulated;

pub use fleet_history::{Judgement, Record};

/// An answer to `/sync` with a hundred messages of one room, and nine rooms that have nothing new.
pub fn sync_answer() -> Vec<u8> {
    let event = |seq: u32| {
        json!({
            "type": "m.room.message", "event_id": format!("$event{seq:040}"), "sender": "@alice:vale.test",
            "origin_server_ts": 1_790_000_000_000_u64 + u64::from(seq),
            "content": {
                "msgtype": "m.text", "body": "a few words about roses and when to cut them",
                "test.fleet.load": {"phase": "main", "seq": seq, "at": u64::from(seq) * 1_000_000},
            },
            "unsigned": {"age": 12, "transaction_id": format!("main-{seq}")},
        })
    };
    let events: Vec<_> = (0..100).map(event).collect();
    let room = |events| {
        json!({
            "timeline": {"events": events, "limited": false, "prev_batch": "1234"},
            "state": {"events": []}, "ephemeral": {"events": []}, "account_data": {"events": []},
            "unread_notifications": {"notification_count": 0, "highlight_count": 0}, "summary": {},
        })
    };
    let mut joined = serde_json::Map::new();
    joined.insert("!busy:vale.test".to_owned(), room(events));
    for quiet in 0..9 {
        joined.insert(format!("!quiet{quiet}:vale.test"), room(Vec::new()));
    }
    json!({"next_batch": "1300", "rooms": {"join": joined}})
        .to_string()
        .into_bytes()
}

/// Decodes it as a reader does.
///
/// # Panics
/// It is no answer to `/sync`.
pub fn decode(answer: &[u8]) -> usize {
    let events = Synced::decode(answer)
        .expect("an answer to `/sync`")
        .events();
    assert_eq!(events, 100);
    events
}

/// A ledger of a thousand events that ten devices have seen.
pub fn ledger() -> Ledger {
    let mut ledger = Ledger::new(0..10);
    for seq in 0..1_000 {
        ledger.sent(seq, seq * 10, seq * 10 + 15, Outcome::Accepted);
        (0..10).for_each(|device| ledger.saw(device, seq));
    }
    ledger
}

/// Judges it.
///
/// # Panics
/// It does not come out as it was made.
pub fn count(ledger: &Ledger) -> Counts {
    let counts = ledger.counts();
    assert_eq!((counts.delivered, counts.lost), (10_000, 0));
    counts
}

/// What four people did on two servers: two hundred messages, and somebody leaves and comes back.
pub fn record() -> Record {
    use simulated::Step;
    let mut steps: Vec<_> = (1..4).map(Step::Join).collect();
    for turn in 0..200 {
        steps.push(Step::Say(turn % 4));
        match turn % 50 {
            10 => steps.push(Step::Leave(2)),
            20 => steps.push(Step::Join(2)),
            30 => steps.push(Step::Cut),
            40 => steps.push(Step::Heal),
            _ if turn % 4 == 3 => steps.push(Step::Sync(turn / 4 % 4)),
            _ => {}
        }
    }
    simulated::simulate(&steps).record
}

/// Checks it.
///
/// # Panics
/// Something is found in it.
pub fn check(record: &Record) -> Judgement {
    let judgement = fleet_history::check(record);
    assert!(judgement.findings.is_empty(), "{:?}", judgement.findings);
    judgement
}

/// A runbook that does not grow with the kit.
const RUNBOOK: &str = include_str!("../../harness/tests/runbook/restore.md");

/// Parses it as often as the kit has runbooks; says how many steps they have.
///
/// # Panics
/// It cannot be parsed.
pub fn parse() -> usize {
    let steps = |_| {
        let runbook = Runbook::parse("restore.md", RUNBOOK).expect("a runbook");
        runbook.steps().len()
    };
    (0..10).map(steps).sum()
}
