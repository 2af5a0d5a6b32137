//! What is written down.

use serde::{Deserialize, Serialize};

/// Everything that some clients did and were told, in the order in which they began it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How long what was accepted on one server may take to be known on another that it can reach, in microseconds.
    pub patience: u64,
    /// The operations; findings point at them by their place here.
    pub operations: Vec<Operation>,
}

/// One operation, from when it was begun to when its outcome was known. All times are microseconds of one monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The user.
    pub who: String,
    /// The server that was asked.
    pub server: String,
    /// When it was begun.
    pub began: u64,
    /// When it was answered, or given up.
    pub ended: u64,
    /// What was asked, and what was told.
    pub deed: Deed,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The server said yes.
    Ok,
    /// The server said no, or was never reached: it certainly was not done.
    Refused,
    /// No answer, or one that leaves it open: it may have been done, or be done later.
    Indefinite,
}

/// What was asked, and what was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// A room is made; whoever makes it is in it. Its history is shared among its members.
    Create {
        /// The room's id.
        room: String,
    },
    /// An event without a state key is sent; also a redaction.
    Send {
        /// Where to.
        room: String,
        /// The event's type.
        kind: String,
        /// The transaction id: the same one in the same room is the same event again.
        txn: String,
        /// By what its content can be told from any other.
        marker: String,
        /// The event id that was answered.
        event: Option<String>,
    },
    /// State other than membership is set.
    State {
        /// Where.
        room: String,
        /// The event's type.
        kind: String,
        /// The state key.
        key: String,
        /// By what its content can be told from any other.
        marker: String,
        /// The event id that was answered.
        event: Option<String>,
    },
    /// A membership is changed, the own or another's.
    Member {
        /// Where.
        room: String,
        /// Whose.
        user: String,
        /// To what.
        membership: Membership,
    },
    /// A sync.
    Sync {
        /// The token that it goes on from.
        since: Option<String>,
        /// The token that was answered.
        next: Option<String>,
        /// Only some of the rooms or events were asked for: what is missing is no loss.
        filtered: bool,
        /// What was told of the rooms that the user is in, or was.
        rooms: Vec<RoomTold>,
    },
    /// A page of a room's history, backwards.
    Page {
        /// The room.
        room: String,
        /// The token from which it goes back; none: from the newest event.
        from: Option<String>,
        /// The token from which to go on; none: this is the beginning of the room.
        end: Option<String>,
        /// The events, newest first.
        events: Vec<Told>,
    },
    /// One event is read by its id.
    Read {
        /// The room.
        room: String,
        /// The event.
        event: String,
    },
    /// The whole state of a room is read.
    ReadState {
        /// The room.
        room: String,
        /// The state.
        state: Vec<Told>,
    },
    /// Something was broken on purpose between `began` and `ended`: what one server knows may be unknown to others for so long.
    Fault {
        /// What was broken.
        what: String,
    },
}

/// A membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Membership {
    /// In the room.
    Join,
    /// Asked in.
    Invite,
    /// Out of it, by own will or another's; not banned any more.
    Leave,
    /// Out of it for good.
    Ban,
}

impl Membership {
    /// As it stands in events.
    pub fn word(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Leave => "leave",
            Self::Ban => "ban",
        }
    }
}

/// What a sync told of one room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomTold {
    /// The room's id.
    pub room: String,
    /// The user is in it, by this answer.
    pub joined: bool,
    /// The timeline, oldest first.
    pub timeline: Vec<Told>,
    /// There are events before the timeline that were not told.
    pub limited: bool,
    /// The token that leads back to them.
    pub prev_batch: Option<String>,
    /// The state that was told outside of the timeline.
    pub state: Vec<Told>,
}

/// An event as it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its id.
    pub id: String,
    /// Who sent it.
    pub sender: String,
    /// Its type.
    pub kind: String,
    /// Its state key, if it is state.
    pub key: Option<String>,
    /// By what its content can be told from any other; of a membership the word. `None` once it was redacted.
    pub marker: Option<String>,
}
