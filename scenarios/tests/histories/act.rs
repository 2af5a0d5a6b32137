//! What a history is made of: what people do, and what breaks meanwhile.

use proptest::collection::vec;
use proptest::prelude::*;
use std::fmt::Write as _;

/// Who is on stage: alice, who made the room, and bob at home, charlie abroad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Alice,
    Bob,
    Charlie,
}

/// All of them.
pub const EVERYBODY: [Who; 3] = [Who::Alice, Who::Bob, Who::Charlie];

impl Who {
    /// The name of the binding.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
            Self::Charlie => "charlie",
        }
    }

    /// Lives at home.
    pub fn at_home(self) -> bool {
        self != Self::Charlie
    }
}

/// Something that breaks for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The two servers do not reach each other.
    Cut,
    /// The home is restarted.
    Restart,
    /// The home is killed with `kill -9`, and comes back afterwards.
    Kill,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// So many messages, one after the other.
    Say(Who, u8),
    Topic(Who),
    Join(Who),
    Leave(Who),
    Invite(Who, Who),
    Kick(Who, Who),
    Ban(Who, Who),
    Unban(Who, Who),
    Level(Who, Who, i64),
    /// The last message that was said by somebody.
    Redact(Who, Who),
    During(Trouble, Vec<Act>),
}

fn who() -> impl Strategy<Value = Who> {
    proptest::sample::select(&EVERYBODY[..])
}

fn simple() -> impl Strategy<Value = Act> {
    let levels = proptest::sample::select(&[0, 50, 100][..]);
    let other = || (who(), who());
    prop_oneof![
        6 => (who(), 1..16_u8).prop_map(|(who, times)| Act::Say(who, times)),
        2 => who().prop_map(Act::Topic),
        2 => who().prop_map(Act::Join),
        1 => who().prop_map(Act::Leave),
        1 => other().prop_map(|(by, of)| Act::Invite(by, of)),
        1 => other().prop_map(|(by, of)| Act::Kick(by, of)),
        1 => other().prop_map(|(by, of)| Act::Ban(by, of)),
        1 => other().prop_map(|(by, of)| Act::Unban(by, of)),
        2 => (who(), who(), levels).prop_map(|(by, of, level)| Act::Level(by, of, level)),
        1 => other().prop_map(|(by, of)| Act::Redact(by, of)),
    ]
}

/// Histories in which nothing breaks.
pub fn calm() -> impl Strategy<Value = Vec<Act>> {
    vec(simple(), 1..9)
}

/// Histories in which something breaks once.
pub fn troubled() -> impl Strategy<Value = Vec<Act>> {
    let trouble = proptest::sample::select(&[Trouble::Cut, Trouble::Restart, Trouble::Kill][..]);
    let during =
        (trouble, vec(simple(), 1..6)).prop_map(|(trouble, acts)| Act::During(trouble, acts));
    (vec(simple(), 0..3), during, vec(simple(), 0..3))
        .prop_map(|(before, during, after)| [before, vec![during], after].concat())
}

/// A history in which people only talk; for faults that need no more to show.
pub fn talk() -> impl Strategy<Value = Vec<Act>> {
    vec(
        (who(), 1..6_u8).prop_map(|(who, times)| Act::Say(who, times)),
        1..4,
    )
}

/// The history as a scenario that one can paste into `printed.rs`: it is judged like every drawn one.
pub fn scenario(why: &str, acts: &[Act]) -> String {
    let mut body = String::new();
    let mut number = 0;
    for act in acts {
        print(act, 2, &mut number, &mut body);
    }
    let names = ["alice", "bob", "charlie", "garden"];
    let mut used: Vec<_> = names
        .into_iter()
        .filter(|name| body.contains(name))
        .collect();
    used.push("..");
    // As rustfmt has it.
    let names = match used.join(", ") {
        short if short.len() <= 18 => format!(" {short} "),
        _ => format!("\n            {}\n        ", used.join(",\n            ")),
    };
    format!(
        "/// {why}\n#[test]\nfn a_shrunk_history() -> Outcome {{\n    retold(async |cast| {{\n        let Cast {{{names}}} = cast;\n\
         {body}        cast.must_come_out().await\n    }})\n}}\n"
    )
}

fn print(act: &Act, depth: usize, number: &mut usize, text: &mut String) {
    let margin = "    ".repeat(depth);
    let verb = |by: &Who, verb: &str, of: &Who| {
        format!(
            "_ = {}.{verb}(garden, {}.user_id()).await;",
            by.name(),
            of.name()
        )
    };
    let line = match act {
        Act::Say(who, times) => {
            for _ in 0..*times {
                *number += 1;
                let _ = writeln!(
                    text,
                    "{margin}_ = {}.try_say(garden, \"number {number}\").await;",
                    who.name()
                );
            }
            return;
        }
        Act::Topic(who) => {
            *number += 1;
            format!(
                "_ = cast.try_topic({}, \"topic {number}\").await;",
                who.name()
            )
        }
        Act::Join(who) => format!("_ = cast.try_join({}).await;", who.name()),
        Act::Leave(who) => format!("_ = {}.try_leave(garden).await;", who.name()),
        Act::Invite(by, of) => verb(by, "try_invite", of),
        Act::Kick(by, of) => verb(by, "try_kick", of),
        Act::Ban(by, of) => verb(by, "try_ban", of),
        Act::Unban(by, of) => verb(by, "try_unban", of),
        Act::Level(by, of, level) => {
            format!(
                "_ = cast.try_level({}, {}.user_id(), {level}).await;",
                by.name(),
                of.name()
            )
        }
        Act::Redact(by, of) => format!(
            "_ = cast.try_redact_last({}, {}.user_id()).await;",
            by.name(),
            of.name()
        ),
        Act::During(trouble, acts) => {
            let _ = writeln!(
                text,
                "{margin}cast.during(Trouble::{trouble:?}, async || {{"
            );
            for act in acts {
                print(act, depth + 1, number, text);
            }
            let _ = writeln!(text, "{margin}    Ok(())\n{margin}}})\n{margin}.await?;");
            return;
        }
    };
    let _ = writeln!(text, "{margin}{line}");
}
