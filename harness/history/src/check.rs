//! The checker: whether what was told can be, given what was done.

use crate::book::{Book, Event, Origin, Standing, state_of};
use crate::record::{Deed, Outcome, Record, RoomTold, Told};
use crate::view::{Chain, Line, Reader, readers};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

/// What cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// A member was never told of an accepted event.
    Lost,
    /// Who was removed was never told what happened while he still was in.
    LostOnLeaving,
    /// Only the pages show an event, and no sync said that there was a gap.
    Skipped,
    /// What was sent once became two events, or a page shows an event twice.
    Duplicate,
    /// Two syncs told the same event.
    Repeated,
    /// Of two events of one sender the later was told first.
    Reordered,
    /// An event was told that nobody sent.
    Phantom,
    /// An event was told to who was not in the room.
    Leak,
    /// Who was answered 200 did not find what he had done.
    StaleRead,
    /// The token of a sync is behind the one that it went on from.
    TokenBack,
    /// Servers that could reach each other hold different states of a room.
    Diverged,
}

impl Anomaly {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Lost,
        Self::LostOnLeaving,
        Self::Skipped,
        Self::Duplicate,
        Self::Repeated,
        Self::Reordered,
        Self::Phantom,
        Self::Leak,
        Self::StaleRead,
        Self::TokenBack,
        Self::Diverged,
    ];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::LostOnLeaving => "lost-on-leaving",
            Self::Skipped => "skipped",
            Self::Duplicate => "duplicate",
            Self::Repeated => "repeated",
            Self::Reordered => "reordered",
            Self::Phantom => "phantom",
            Self::Leak => "leak",
            Self::StaleRead => "stale-read",
            Self::TokenBack => "token-back",
            Self::Diverged => "diverged",
        }
    }
}

/// Why the record does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doubt {
    /// Nothing was accepted, or nothing was asked.
    NothingRecorded,
    /// An operation had no answer, and nobody saw its effect.
    Indefinite,
    /// A member stopped listening before he had to be told.
    NotToTheEnd,
    /// A sync said that there is a gap, and nobody looked into it.
    GapNotFilled,
    /// Nobody read the state of a room on one of its servers in the end.
    StateNotRead,
    /// States differ that were read before all servers had to agree.
    ReadTooEarly,
}

impl Doubt {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::NothingRecorded => "nothing-recorded",
            Self::Indefinite => "indefinite",
            Self::NotToTheEnd => "not-to-the-end",
            Self::GapNotFilled => "gap-not-filled",
            Self::StateNotRead => "state-not-read",
            Self::ReadTooEarly => "read-too-early",
        }
    }
}

/// Something that the checker has to say, and which operations say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding<N = Anomaly> {
    /// What it is.
    pub name: N,
    /// Places in the record, the cause first.
    pub operations: Vec<usize>,
    /// A sentence.
    pub told: String,
}

impl<N> Finding<N> {
    pub(crate) fn new(name: N, operations: impl Into<Vec<usize>>, told: String) -> Self {
        Self {
            name,
            operations: operations.into(),
            told,
        }
    }
}

/// Pass, fail or unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it can be, and everything was looked at.
    Pass,
    /// Nothing is wrong, but not everything was looked at.
    Unknown,
    /// Something cannot be.
    Fail,
}

/// What a record comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What cannot be.
    pub findings: Vec<Finding>,
    /// What the record leaves open.
    pub doubts: Vec<Finding<Doubt>>,
}

impl Judgement {
    /// In one word.
    pub fn verdict(&self) -> Verdict {
        match (self.findings.is_empty(), self.doubts.is_empty()) {
            (false, _) => Verdict::Fail,
            (true, false) => Verdict::Unknown,
            (true, true) => Verdict::Pass,
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = self
            .findings
            .iter()
            .map(|it| (it.name.word(), &it.operations, &it.told));
        let doubts = self
            .doubts
            .iter()
            .map(|it| (it.name.word(), &it.operations, &it.told));
        for (name, operations, told) in findings.chain(doubts) {
            writeln!(f, "{name} {operations:?}: {told}")?;
        }
        Ok(())
    }
}

/// Judges a record; see the crate. Takes n log n in its length, times the users of a room.
pub fn check(record: &Record) -> Judgement {
    let mut checker = Checker {
        book: Book::open(record),
        findings: Vec::new(),
        doubts: BTreeMap::new(),
    };
    checker.clashes();
    checker.origins();
    let readers = readers(&checker.book, &mut checker.findings);
    for (who, reader) in &readers {
        checker.order(who, reader);
        checker.leaks(who, reader);
    }
    checker.everything_arrives(&readers);
    checker.own_effects(&readers);
    checker.convergence();
    for number in checker.book.open_ends().collect::<Vec<_>>() {
        checker.doubt(Doubt::Indefinite, String::new(), number, || {
            "nobody knows whether it was done".to_owned()
        });
    }
    if checker.book.events.is_empty() {
        checker.doubt(Doubt::NothingRecorded, String::new(), 0, || {
            "nothing was accepted".to_owned()
        });
    }
    let mut findings = checker.findings;
    findings.sort_by(|a, b| (a.name, &a.operations).cmp(&(b.name, &b.operations)));
    findings.dedup();
    Judgement {
        findings,
        doubts: checker.doubts.into_values().collect(),
    }
}

struct Checker<'a> {
    book: Book<'a>,
    findings: Vec<Finding>,
    /// One of each kind about each subject; the others would say the same.
    doubts: BTreeMap<(Doubt, String, usize), Finding<Doubt>>,
}

impl<'a> Checker<'a> {
    fn find(&mut self, name: Anomaly, operations: impl Into<Vec<usize>>, told: String) {
        self.findings.push(Finding::new(name, operations, told));
    }

    fn doubt(
        &mut self,
        name: Doubt,
        subject: String,
        number: usize,
        told: impl FnOnce() -> String,
    ) {
        // An operation is its own subject.
        let place = if subject.is_empty() { number } else { 0 };
        self.doubts
            .entry((name, subject, place))
            .or_insert_with(|| Finding::new(name, [number], told()));
    }

    fn clashes(&mut self) {
        for (earlier, later, event) in std::mem::take(&mut self.book.clashes) {
            let [a, b] = [earlier, later].map(|number| match &self.book.operation(number).deed {
                Deed::Send { room, txn, .. } => (Some(txn), room),
                Deed::State { room, .. } => (None, room),
                _ => unreachable!("only these are answered with events"),
            });
            if a == b {
                let told =
                    format!("one transaction was answered with two events, at last `{event}`");
                self.find(Anomaly::Duplicate, [earlier, later], told);
            } else {
                let told = format!(
                    "it was answered with `{event}`, which is another deed's: it is lost itself"
                );
                self.find(Anomaly::Lost, [later, earlier], told);
            }
        }
    }

    /// Every event that was told is somebody's.
    fn origins(&mut self) {
        let mut created: HashMap<(&str, &str, &str), &str> = HashMap::new();
        let mut judged: HashSet<&str> = HashSet::new();
        for (number, operation) in self.book.all() {
            for (room, told) in told_by(&operation.deed) {
                let ours = self.book.rooms.contains_key(room);
                if !ours || self.book.events.contains_key(&*told.id) || !judged.insert(&told.id) {
                    continue;
                }
                let by = format!("`{}` `{}` of {}", told.kind, told.id, told.sender);
                match self.book.origin(room, told) {
                    Origin::Of(of) => self.book.settle(told, room, of, operation.ended),
                    Origin::Again(of) => {
                        self.find(
                            Anomaly::Duplicate,
                            [of, number],
                            format!("{by} says the same again"),
                        );
                    }
                    Origin::Creation => {
                        let key = (
                            room,
                            told.kind.as_str(),
                            told.key.as_deref().unwrap_or_default(),
                        );
                        if created.insert(key, &told.id).is_some() {
                            self.find(Anomaly::Phantom, [number], format!("nobody sent {by}"));
                        }
                    }
                    Origin::Nobodys => {
                        self.find(Anomaly::Phantom, [number], format!("nobody sent {by}"));
                    }
                }
            }
        }
    }

    /// Each sender's events are told in the order in which he was answered.
    fn order(&mut self, who: &str, reader: &Reader<'a>) {
        let parts = reader.chains.iter().flat_map(|chain| chain.rooms.values());
        let parts = parts
            .flat_map(|view| &view.parts)
            .map(|part| part.iter().collect::<Vec<_>>());
        let runs = reader
            .runs
            .iter()
            .map(|run| run.lines.iter().rev().collect());
        for lines in parts.chain(runs) {
            let mut newest: HashMap<&str, (u64, Line<'_>)> = HashMap::new();
            for line in lines {
                let Some(event) = self
                    .book
                    .events
                    .get(&*line.0.id)
                    .filter(|event| !event.member)
                else {
                    continue;
                };
                let (began, ended, operation) = (event.began, event.ended, event.operation);
                match newest.get(event.sender) {
                    Some((later, other)) if ended < *later => {
                        let told = format!("{who} is told `{}` before `{}`", other.0.id, line.0.id);
                        self.find(Anomaly::Reordered, [operation, line.1], told);
                    }
                    Some((later, _)) if *later >= began => {}
                    _ => _ = newest.insert(event.sender, (began, *line)),
                }
            }
        }
    }

    /// Nobody is told what happened where he was not.
    fn leaks(&mut self, who: &str, reader: &Reader<'a>) {
        let told = reader.chains.iter().flat_map(|chain| chain.rooms.values());
        let told = told.flat_map(|view| view.seen.iter());
        for (id, number) in told.chain(&reader.paged) {
            let Some(event) = self.book.events.get(id) else {
                continue;
            };
            let told = self.book.operation(*number);
            let outside = |server: &str, to: u64| {
                self.book.standing(event.room, who, server, event.began, to) == Standing::Out
            };
            if outside(event.server, told.ended) && outside(&told.server, told.ended) {
                let operations = [event.operation, *number];
                let told = format!("{who} is told `{id}`, and was not in the room");
                self.find(Anomaly::Leak, operations, told);
            }
        }
    }

    /// Each member is told of each event, by syncs without a hole, and finds it on the pages.
    fn everything_arrives(&mut self, readers: &BTreeMap<&'a str, Reader<'a>>) {
        let nobody = Reader::default();
        let events = std::mem::take(&mut self.book.events);
        for (id, event) in &events {
            let users: Vec<_> = self.book.users_of(event.room).collect();
            for (user, server) in users {
                let (began, ended) = (event.began, event.ended);
                if self
                    .book
                    .standing(event.room, user, event.server, began, ended)
                    == Standing::In
                {
                    let reader = readers.get(user).unwrap_or(&nobody);
                    self.arrives(id, event, user, server, reader);
                }
            }
        }
        self.book.events = events;
    }

    fn arrives(
        &mut self,
        id: &'a str,
        event: &Event<'a>,
        user: &str,
        server: &str,
        reader: &Reader<'a>,
    ) {
        let due = match server == event.server {
            true => event.ended,
            false => self.book.known_elsewhere(event.ended),
        };
        let inside = |to: u64| {
            // In the eyes of the user's own server, and of the event's.
            let standing = |at| self.book.standing(event.room, user, at, event.began, to);
            standing(server) == Standing::In && standing(event.server) == Standing::In
        };
        let paged = reader.paged.contains_key(id);
        let missing_on_pages = reader.runs.iter().find(|run| {
            run.whole
                && run.room == event.room
                && run.began >= due
                && inside(run.ended)
                && !run.events.contains_key(id)
        });
        let mut found: Option<(Anomaly, usize)> =
            missing_on_pages.and_then(|run| Some((Anomaly::Lost, run.lines.last()?.1)));
        let mut covered = false;
        let mut hole = None;
        for chain in reader
            .chains
            .iter()
            .filter(|chain| !chain.filtered && chain.opens <= event.began)
        {
            let Some(until) = self.until(chain, due) else {
                continue;
            };
            covered = true;
            let view = chain.rooms.get(event.room);
            if view.is_some_and(|view| view.seen.contains_key(id)) {
                continue;
            }
            let told = self.book.operation(until);
            let gap = view.and_then(|view| {
                view.gaps
                    .iter()
                    .find(|gap| self.book.operation(**gap).ended > event.began)
            });
            if let Some(gap) = gap {
                hole = Some(*gap);
            } else if inside(told.ended) {
                found.get_or_insert((
                    if paged {
                        Anomaly::Skipped
                    } else {
                        Anomaly::Lost
                    },
                    until,
                ));
            } else if let Some(last) = chain.syncs.last().filter(|_| inside(due)) {
                // He was in until he had to be told.
                let told = self.book.operation(*last);
                let standing = |at| {
                    self.book
                        .standing(event.room, user, at, told.began, told.ended)
                };
                if standing(server) == Standing::Out && standing(event.server) == Standing::Out {
                    found.get_or_insert((Anomaly::LostOnLeaving, *last));
                }
            }
        }
        let operation = event.operation;
        match (found, hole) {
            (Some((name, until)), _) => {
                let told = format!("{user} is not told `{id}` of {}", event.sender);
                self.find(name, [operation, until], told);
            }
            (None, Some(gap)) if !paged => {
                self.doubt(
                    Doubt::GapNotFilled,
                    format!("{user} {}", event.room),
                    gap,
                    || format!("{user} did not look into a gap, where `{id}` may be"),
                );
            }
            (None, None) if !covered && !paged => {
                self.doubt(
                    Doubt::NotToTheEnd,
                    format!("{user} {}", event.room),
                    operation,
                    || format!("{user} had no occasion to be told `{id}`"),
                );
            }
            _ => {}
        }
    }

    /// The first sync of a chain that was begun when everything until then had to be told.
    fn until(&self, chain: &Chain<'a>, due: u64) -> Option<usize> {
        let began = |number: &usize| self.book.operation(*number).began < due;
        chain.syncs.get(chain.syncs.partition_point(began)).copied()
    }

    /// Who was answered 200 finds at once what he did.
    fn own_effects(&mut self, readers: &BTreeMap<&'a str, Reader<'a>>) {
        let mut own: HashMap<(&str, &str), Vec<_>> = HashMap::new();
        for (id, event) in self.book.events.iter().filter(|(_, event)| !event.member) {
            if self.book.operation(event.operation).outcome == Outcome::Ok {
                let events = own.entry((event.sender, event.room)).or_default();
                events.push((*id, event.ended, event.operation));
            }
        }
        let mut stale = Vec::new();
        for ((who, room), events) in &mut own {
            events.sort_unstable_by_key(|event| event.1);
            let Some(reader) = readers.get(who) else {
                continue;
            };
            for chain in &reader.chains {
                let Some(view) = chain.rooms.get(room).filter(|_| !chain.filtered) else {
                    continue;
                };
                for &(id, ended, operation) in events.iter().filter(|event| event.1 >= chain.opens)
                {
                    // Told by a later sync than by the first that was begun after the answer.
                    let first = self.until(chain, ended + 1);
                    let told = view.seen.get(id);
                    if let (Some(first), Some(&told)) = (first, told)
                        && first < told
                        && matches!(self.book.operation(told).deed, Deed::Sync { .. })
                    {
                        stale.push((
                            operation,
                            first,
                            format!("{who} is told `{id}` a sync too late"),
                        ));
                    }
                }
            }
        }
        for (number, operation) in self.book.all() {
            let Deed::Read { room, event } = &operation.deed else {
                continue;
            };
            let Some(known) = self.book.events.get(event.as_str()) else {
                continue;
            };
            let mine = known.sender == operation.who && known.ended < operation.began;
            let inside = || {
                let (who, at) = (&operation.who, &operation.server);
                self.book
                    .standing(room, who, at, known.began, operation.ended)
                    == Standing::In
            };
            if mine && operation.outcome == Outcome::Refused && inside() {
                let told = format!("{} cannot read the own `{event}`", operation.who);
                stale.push((known.operation, number, told));
            }
        }
        for (cause, number, told) in stale {
            self.find(Anomaly::StaleRead, [cause, number], told);
        }
        self.own_state();
    }

    fn own_state(&mut self) {
        // The writes of each piece of state, in the order of their beginnings.
        let mut writes: HashMap<(&str, &str, &str), Vec<usize>> = HashMap::new();
        let mut stale = Vec::new();
        for (number, operation) in self.book.all() {
            match &operation.deed {
                _ if operation.outcome == Outcome::Refused => {}
                Deed::State {
                    room, kind, key, ..
                } => {
                    writes.entry((room, kind, key)).or_default().push(number);
                }
                Deed::Member { room, user, .. } => {
                    writes
                        .entry((room, "m.room.member", user))
                        .or_default()
                        .push(number);
                }
                Deed::ReadState { room, state } if operation.outcome == Outcome::Ok => {
                    let state: HashMap<_, _> = state
                        .iter()
                        .map(|told| ((&*told.kind, told.key.as_deref()), told))
                        .collect();
                    for ((_, kind, key), written) in
                        writes.iter().filter(|((of, ..), _)| of == room)
                    {
                        let Some(&last) = written.last() else {
                            continue;
                        };
                        let write = self.book.operation(last);
                        let mine = write.who == operation.who
                            && write.outcome == Outcome::Ok
                            && write.ended < operation.began;
                        let told = state.get(&(*kind, Some(*key)));
                        let right = match &write.deed {
                            Deed::State { event, .. } => {
                                told.map(|told| &told.id) == event.as_ref()
                            }
                            Deed::Member { membership, .. } => {
                                told.and_then(|told| told.marker.as_deref())
                                    == Some(membership.word())
                            }
                            _ => true,
                        };
                        // Only what nobody wrote at about the same time.
                        let alone = || {
                            written.iter().rev().skip(1).all(|other| {
                                let other = self.book.operation(*other);
                                let known = match other.server == write.server {
                                    true => other.ended,
                                    false => self.book.known_elsewhere(other.ended),
                                };
                                other.outcome == Outcome::Ok && known < write.began
                            })
                        };
                        if mine && !right && alone() {
                            stale.push((
                                last,
                                number,
                                format!("{} does not find the own `{kind}` of `{key}`", write.who),
                            ));
                        }
                    }
                }
                _ => {}
            }
        }
        for (cause, number, told) in stale {
            self.find(Anomaly::StaleRead, [cause, number], told);
        }
    }

    /// In the end every server that has members in a room holds the same state.
    fn convergence(&mut self) {
        let mut calm: HashMap<&str, (u64, usize)> = HashMap::new();
        let mut reads: HashMap<&str, BTreeMap<&str, usize>> = HashMap::new();
        for (number, operation) in self.book.all() {
            match &operation.deed {
                Deed::Create { room }
                | Deed::Send { room, .. }
                | Deed::State { room, .. }
                | Deed::Member { room, .. }
                    if operation.outcome != Outcome::Refused =>
                {
                    let last = calm.entry(room).or_default();
                    *last = (*last).max((operation.ended, number));
                }
                Deed::ReadState { room, .. } if operation.outcome == Outcome::Ok => {
                    reads
                        .entry(room)
                        .or_default()
                        .insert(&operation.server, number);
                }
                _ => {}
            }
        }
        let rooms: Vec<_> = self.book.rooms.keys().copied().collect();
        for room in rooms {
            let (calm, last) = calm.get(room).copied().unwrap_or_default();
            let due = self.book.known_elsewhere(calm);
            let members = self.book.users_of(room);
            let servers: BTreeSet<&str> = members
                .filter(|(user, server)| {
                    self.book.standing(room, user, server, due + 1, due + 1) != Standing::Out
                })
                .map(|(_, server)| server)
                .collect();
            if servers.len() < 2 {
                continue;
            }
            let mut first: Option<(usize, BTreeMap<_, _>)> = None;
            for server in servers {
                let read = reads.get(room).and_then(|reads| reads.get(server)).copied();
                let Some(read) = read.filter(|read| self.book.operation(*read).began >= calm)
                else {
                    self.doubt(
                        Doubt::StateNotRead,
                        format!("{server} {room}"),
                        last,
                        || format!("nobody read the state of `{room}` on {server} in the end"),
                    );
                    continue;
                };
                let state = state_of(&self.book.operation(read).deed);
                let Some((other, expected)) = &first else {
                    first = Some((read, state));
                    continue;
                };
                let differ = |key: &&(&str, &str)| expected.get(*key) != state.get(*key);
                let keys: BTreeSet<_> =
                    expected.keys().chain(state.keys()).filter(differ).collect();
                if keys.is_empty() {
                    continue;
                }
                let other = *other;
                let told = format!(
                    "{server} and {} differ in {keys:?}",
                    self.book.operation(other).server
                );
                if [other, read]
                    .iter()
                    .all(|read| self.book.operation(*read).began >= due)
                {
                    self.find(Anomaly::Diverged, [last, other, read], told);
                } else {
                    self.doubt(
                        Doubt::ReadTooEarly,
                        format!("{server} {room}"),
                        read,
                        || told,
                    );
                }
            }
        }
    }
}

/// Every event that an answer holds, with its room.
fn told_by(deed: &Deed) -> Vec<(&str, &Told)> {
    match deed {
        Deed::Sync { rooms, .. } => rooms
            .iter()
            .flat_map(
                |RoomTold {
                     room,
                     timeline,
                     state,
                     ..
                 }| {
                    timeline
                        .iter()
                        .chain(state)
                        .map(move |told| (room.as_str(), told))
                },
            )
            .collect(),
        Deed::Page { room, events, .. } => {
            events.iter().map(|told| (room.as_str(), told)).collect()
        }
        Deed::ReadState { room, state } => state.iter().map(|told| (room.as_str(), told)).collect(),
        _ => Vec::new(),
    }
}
