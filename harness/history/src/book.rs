//! What the record says was done: events and memberships, with the times between which each may have happened.

use crate::record::{Deed, Membership, Operation, Outcome, Record, Told};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Something that was accepted, or that was seen although its sender never heard so.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    pub room: &'a str,
    pub sender: &'a str,
    pub server: &'a str,
    /// It happened after this, ...
    pub began: u64,
    /// ... and before this.
    pub ended: u64,
    /// The operation that sent it.
    pub operation: usize,
    /// Membership: its id was told by syncs only, so that its order among others is not known.
    pub member: bool,
}

/// Whether a user is in a room during some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    In,
    Out,
    Maybe,
}

/// A change of a user's membership of a room.
struct Change<'a> {
    from: u64,
    to: u64,
    joined: bool,
    server: &'a str,
}

/// The changes of one user's membership of one room, as one server sees them.
#[derive(Debug, Default)]
struct Standings {
    /// From when to when it may have happened, whether the user is in the room afterwards, and the latest end so far.
    changes: Vec<(u64, u64, Standing, u64)>,
}

impl Standings {
    /// Of windows, in which a change happened as far as one server sees it, with the change itself.
    fn of(mut windows: Vec<(u64, u64, &Change<'_>)>) -> Self {
        windows.sort_unstable_by_key(|window| (window.0, window.1));
        let mut before: Option<(u64, Standing, &Change<'_>)> = None;
        let changes = windows
            .into_iter()
            .map(|(from, to, change)| {
                let mut after = if change.joined {
                    Standing::In
                } else {
                    Standing::Out
                };
                let mut reach = to;
                if let Some((far, standing, other)) = before {
                    // Of two at the same time nobody knows which was the last; one server keeps the order of its own.
                    let at_once =
                        from <= far && (change.server != other.server || change.from <= other.to);
                    if at_once && standing != after {
                        after = Standing::Maybe;
                    }
                    reach = reach.max(far);
                }
                before = Some((reach, after, change));
                (from, to, after, reach)
            })
            .collect();
        Self { changes }
    }

    fn during(&self, from: u64, to: u64) -> Standing {
        let known = self.changes.partition_point(|change| change.0 <= to);
        match known.checked_sub(1).map(|last| self.changes[last]) {
            None => Standing::Out,
            Some((.., reach)) if reach >= from => Standing::Maybe,
            Some((_, _, standing, _)) => standing,
        }
    }
}

#[derive(Debug)]
struct Memberships<'a> {
    server: &'a str,
    /// In the eyes of the user's own server, about what happens there.
    near: Standings,
    /// About what happens on another server.
    far: Standings,
}

pub(crate) struct Book<'a> {
    pub record: &'a Record,
    /// The rooms that were made within the record, with the operation: of others too little is known.
    pub rooms: HashMap<&'a str, usize>,
    pub events: HashMap<&'a str, Event<'a>>,
    /// Two operations that were answered with one event, or one that was answered with two.
    pub clashes: Vec<(usize, usize, &'a str)>,
    /// Sends by what they said, to know an event by that nobody was told the id of.
    sends: HashMap<Content<'a>, Vec<usize>>,
    members: HashMap<(&'a str, &'a str, &'a str, &'a str), Vec<usize>>,
    memberships: BTreeMap<(&'a str, &'a str), Memberships<'a>>,
    servers: HashMap<&'a str, &'a str>,
    faults: Vec<(u64, u64)>,
    /// What was done by an operation without an answer, or by another attempt at the same.
    pub settled: HashSet<usize>,
}

/// State by type and key, as the ids of its events.
pub(crate) fn state_of(deed: &Deed) -> BTreeMap<(&str, &str), &str> {
    let Deed::ReadState { state, .. } = deed else {
        return BTreeMap::new();
    };
    state
        .iter()
        .filter_map(|told| Some(((&*told.kind, told.key.as_deref()?), &*told.id)))
        .collect()
}

/// Room, user.
type Place<'a> = (&'a str, &'a str);
/// When he asked, when he was told, whether he is in.
type ToldMembership = (u64, u64, bool);

/// Room, sender, type, state key, marker.
type Content<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, &'a str);

/// What an event is that no operation was answered with.
pub(crate) enum Origin {
    /// This operation's, which had no answer, or whose answer names no event.
    Of(usize),
    /// The same as that operation's, which was answered with another event.
    Again(usize),
    /// Made with the room.
    Creation,
    Nobodys,
}

fn room_of(deed: &Deed) -> Option<&str> {
    match deed {
        Deed::Create { room }
        | Deed::Send { room, .. }
        | Deed::State { room, .. }
        | Deed::Member { room, .. } => Some(room),
        _ => None,
    }
}

impl<'a> Book<'a> {
    pub fn open(record: &'a Record) -> Self {
        let mut book = Self {
            record,
            rooms: HashMap::new(),
            events: HashMap::new(),
            clashes: Vec::new(),
            sends: HashMap::new(),
            members: HashMap::new(),
            memberships: BTreeMap::new(),
            servers: HashMap::new(),
            faults: Vec::new(),
            settled: HashSet::new(),
        };
        let mut faults: Vec<_> = book
            .all()
            .filter(|(_, operation)| matches!(operation.deed, Deed::Fault { .. }))
            .map(|(_, operation)| (operation.began, operation.ended))
            .collect();
        faults.sort_unstable();
        for (began, ended) in faults {
            match book.faults.last_mut() {
                Some(last) if began <= last.1 => last.1 = last.1.max(ended),
                _ => book.faults.push((began, ended)),
            }
        }
        book.enter_deeds();
        book.enter_memberships();
        book
    }

    pub fn all(&self) -> impl Iterator<Item = (usize, &'a Operation)> + use<'a> {
        self.record.operations.iter().enumerate()
    }

    pub fn operation(&self, number: usize) -> &'a Operation {
        &self.record.operations[number]
    }

    fn enter_deeds(&mut self) {
        // An attempt that had no answer and the next one under the same transaction id are one deed.
        let mut attempts: HashMap<(&str, &str, &str), (usize, u64)> = HashMap::new();
        for (number, operation) in self.all() {
            let who = operation.who.as_str();
            if !matches!(operation.deed, Deed::Fault { .. }) {
                self.servers.insert(who, &operation.server);
            }
            if operation.outcome == Outcome::Refused {
                continue;
            }
            let (room, kind, key, marker, event, mut began) = match &operation.deed {
                Deed::Create { room } => {
                    self.rooms.insert(room, number);
                    continue;
                }
                Deed::Member {
                    room,
                    user,
                    membership,
                } => {
                    let key = (room.as_str(), who, user.as_str(), membership.word());
                    self.members.entry(key).or_default().push(number);
                    continue;
                }
                Deed::Send {
                    room,
                    kind,
                    txn,
                    marker,
                    event,
                } => {
                    let first = attempts
                        .entry((who, room, txn))
                        .or_insert((number, operation.began));
                    if operation.outcome == Outcome::Ok && first.0 != number {
                        self.settled.insert(first.0);
                    }
                    (room, kind, None, marker, event, first.1)
                }
                Deed::State {
                    room,
                    kind,
                    key,
                    marker,
                    event,
                } => (
                    room,
                    kind,
                    Some(key.as_str()),
                    marker,
                    event,
                    operation.began,
                ),
                _ => continue,
            };
            let content: Content<'_> = (room, who, kind, key, marker);
            let same = self.sends.entry(content).or_default();
            if operation.outcome == Outcome::Ok && key.is_some() {
                // State has no transaction id: the same content is the next attempt.
                for &earlier in same.iter() {
                    if self.record.operations[earlier].outcome == Outcome::Indefinite {
                        self.settled.insert(earlier);
                        began = began.min(self.record.operations[earlier].began);
                    }
                }
            }
            same.push(number);
            let Some(event) = event
                .as_deref()
                .filter(|_| operation.outcome == Outcome::Ok)
            else {
                continue;
            };
            let known = Event {
                room,
                sender: who,
                server: &operation.server,
                began,
                ended: operation.ended,
                operation: number,
                member: false,
            };
            if let Some(earlier) = self.events.get(event) {
                if self.deed_of(earlier.operation) != self.deed_of(number) {
                    self.clashes.push((earlier.operation, number, event));
                }
                continue;
            }
            self.events.insert(event, known);
        }
        let mut answered: HashMap<_, (usize, &str)> = HashMap::new();
        for (number, operation) in self.all() {
            if let Deed::Send {
                room,
                txn,
                event: Some(event),
                ..
            } = &operation.deed
                && let Some((earlier, other)) =
                    answered.insert((operation.who.as_str(), room, txn), (number, event))
                && other != event
            {
                self.clashes.push((earlier, number, event));
            }
        }
    }

    /// What an attempt wants, whatever came of it.
    fn deed_of(&self, number: usize) -> Option<(&str, &str, &str, &str)> {
        let operation = self.operation(number);
        match &operation.deed {
            Deed::Send {
                room, kind, txn, ..
            } => Some((&operation.who, room, kind, txn)),
            // Setting state to what it is already may be answered with the event that did so before.
            Deed::State {
                room, kind, key, ..
            } => Some((&operation.who, room, kind, key)),
            _ => None,
        }
    }

    /// When all servers were seen to hold the same state of a room: what had changed by the first time is known to all by the
    /// second.
    fn agreements(&self) -> HashMap<&'a str, Vec<(u64, u64)>> {
        let servers: HashSet<_> = self.servers.values().collect();
        let mut last: HashMap<&str, HashMap<&str, usize>> = HashMap::new();
        let mut agreements: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
        for (number, operation) in self.all().filter(|(_, it)| it.outcome == Outcome::Ok) {
            let Deed::ReadState { room, .. } = &operation.deed else {
                continue;
            };
            let reads = last.entry(room).or_default();
            reads.insert(&operation.server, number);
            let state = state_of(&operation.deed);
            let alike = |read: &usize| state_of(&self.operation(*read).deed) == state;
            if reads.len() == servers.len() && reads.values().all(alike) {
                let since = reads.values().map(|read| self.operation(*read).began).min();
                let agreed = (since.unwrap_or_default(), operation.ended);
                agreements.entry(room).or_default().push(agreed);
            }
        }
        agreements
    }

    /// What each user's own server told him of his membership: when he asked, when he was told, whether he is in.
    fn told_memberships(&self) -> HashMap<Place<'a>, Vec<ToldMembership>> {
        let mut told: HashMap<_, Vec<_>> = HashMap::new();
        for (_, operation) in self.all().filter(|(_, it)| it.outcome == Outcome::Ok) {
            if let Deed::Sync { rooms, .. } = &operation.deed {
                for room in rooms {
                    let place = (room.room.as_str(), operation.who.as_str());
                    let line = (operation.began, operation.ended, room.joined);
                    told.entry(place).or_default().push(line);
                }
            }
        }
        told
    }

    fn enter_memberships(&mut self) {
        let (agreements, told) = (self.agreements(), self.told_memberships());
        let pair = self.servers.values().collect::<HashSet<_>>().len() <= 2;
        let mut changes: HashMap<_, Vec<Change<'a>>> = HashMap::new();
        let mut retried: HashMap<_, u64> = HashMap::new();
        for number in (0..self.record.operations.len()).rev() {
            let operation = self.operation(number);
            let who = operation.who.as_str();
            let (room, user, joined) = match &operation.deed {
                Deed::Create { room } => (room, who, true),
                Deed::Member {
                    room,
                    user,
                    membership,
                } => (room, user.as_str(), *membership == Membership::Join),
                _ => continue,
            };
            let same = (who, room.as_str(), user, joined);
            let to = match operation.outcome {
                Outcome::Refused => continue,
                Outcome::Ok => {
                    retried.insert(same, operation.ended);
                    operation.ended
                }
                // Until somebody succeeds with it, it may still come.
                Outcome::Indefinite => match retried.get(&same) {
                    Some(ended) => {
                        self.settled.insert(number);
                        *ended
                    }
                    None => u64::MAX,
                },
            };
            let (from, server) = (operation.began, operation.server.as_str());
            let change = Change {
                from,
                to,
                joined,
                server,
            };
            changes
                .entry((room.as_str(), user))
                .or_default()
                .push(change);
        }
        for ((room, user), changes) in changes {
            let server = self.servers.get(user).copied();
            let server = server.or_else(|| user.split_once(':').map(|(_, server)| server));
            let server = server.unwrap_or_default();
            let agreed = agreements.get(room).map(Vec::as_slice).unwrap_or_default();
            let told = told
                .get(&(room, user))
                .map(Vec::as_slice)
                .unwrap_or_default();
            let windows = |near: bool| {
                let window = |change: &'_ Change<'a>| {
                    let &Change {
                        from,
                        to,
                        joined,
                        server: at,
                    } = change;
                    if near && at == server {
                        return (from, to);
                    }
                    let later = agreed
                        .iter()
                        .find(|agreed| agreed.0 >= to)
                        .map(|agreed| agreed.1);
                    // Between two servers: the one made the change, the other tells of it.
                    let told = told
                        .iter()
                        .find(|told| pair && at != server && told.0 >= from && told.2 == joined);
                    let told = told.map(|told| told.1.max(to));
                    let known = self.known_elsewhere(to).min(later.unwrap_or(u64::MAX));
                    let earlier = agreed
                        .iter()
                        .rfind(|agreed| agreed.1 < from)
                        .map(|agreed| agreed.1 + 1);
                    let before = self.before(from).max(earlier.unwrap_or_default());
                    (before, known.min(told.unwrap_or(u64::MAX)))
                };
                let windows = changes.iter().map(|change| {
                    let (from, to) = window(change);
                    (from, to, change)
                });
                Standings::of(windows.collect())
            };
            let (near, far) = (windows(true), windows(false));
            self.memberships
                .insert((room, user), Memberships { server, near, far });
        }
    }

    /// When what was accepted then must be known on every server.
    pub fn known_elsewhere(&self, mut time: u64) -> u64 {
        let next = self.faults.partition_point(|fault| fault.1 < time);
        for &(began, ended) in &self.faults[next..] {
            if began > time.saturating_add(self.record.patience) {
                break;
            }
            time = time.max(ended);
        }
        time.saturating_add(self.record.patience)
    }

    /// What happened before this was known on every server then.
    fn before(&self, mut time: u64) -> u64 {
        let last = self.faults.partition_point(|fault| fault.0 < time);
        for &(began, ended) in self.faults[..last].iter().rev() {
            if ended < time.saturating_sub(self.record.patience) {
                break;
            }
            time = time.min(began);
        }
        time.saturating_sub(self.record.patience)
    }

    /// The users that ever had to do with a room, with their servers.
    pub fn users_of(&self, room: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.memberships
            .range((room, "")..)
            .take_while(move |((of, _), _)| *of == room)
            .map(|((_, user), memberships)| (*user, memberships.server))
    }

    /// Whether a user was in a room all the time, as far as it is seen by what happened on `server`.
    pub fn standing(&self, room: &str, user: &str, server: &str, from: u64, to: u64) -> Standing {
        match self.memberships.get(&(room, user)) {
            None => Standing::Out,
            Some(known) if known.server == server => known.near.during(from, to),
            Some(known) => known.far.during(from, to),
        }
    }

    /// Whose an event is that no operation was answered with.
    pub fn origin(&self, room: &str, told: &Told) -> Origin {
        let sender = told.sender.as_str();
        let marker = told.marker.as_deref();
        if told.kind == "m.room.member"
            && let (Some(user), Some(membership)) = (told.key.as_deref(), marker)
            && let Some(of) = self.members.get(&(room, sender, user, membership))
        {
            return Origin::Of(of[0]);
        }
        let same = marker.and_then(|marker| {
            let content = (room, sender, &*told.kind, told.key.as_deref(), marker);
            self.sends.get(&content)
        });
        let mut same = same.into_iter().flatten();
        let first = same.clone().next();
        let open = same.find(|number| {
            self.operation(**number).outcome == Outcome::Indefinite
                && !self.settled.contains(number)
        });
        let creator = self.rooms.get(room).map(|number| self.operation(*number));
        let creation = creator.is_some_and(|creator| told.key.is_some() && creator.who == sender);
        match (open, first) {
            (Some(open), _) => Origin::Of(*open),
            // What was made with the room may have been set to the same once more.
            _ if creation => Origin::Creation,
            (None, Some(first)) => Origin::Again(*first),
            (None, None) => Origin::Nobodys,
        }
    }

    /// An event turns out to be that of an operation whose answer did not name it.
    pub fn settle(&mut self, told: &'a Told, room: &'a str, number: usize, seen: u64) {
        let operation = self.operation(number);
        let mut known = Event {
            room,
            sender: &operation.who,
            server: &operation.server,
            began: operation.began,
            ended: operation.ended,
            operation: number,
            member: false,
        };
        let mut of = vec![number];
        if let Deed::Member {
            user, membership, ..
        } = &operation.deed
        {
            // Of several that would make the same event it may be any.
            let key = (room, &*operation.who, user.as_str(), membership.word());
            of = self.members.get(&key).cloned().unwrap_or_default();
            known.member = true;
            let creation = self.rooms.get(room).map(|number| self.operation(*number));
            if let Some(creation) = creation.filter(|creation| creation.who == operation.who) {
                known.began = creation.began;
            }
        }
        for number in of {
            let operation = self.operation(number);
            known.began = known.began.min(operation.began);
            known.ended = known.ended.max(operation.ended);
            if operation.outcome == Outcome::Indefinite {
                known.ended = known.ended.max(seen);
                self.settled.insert(number);
            }
        }
        self.events.insert(&told.id, known);
    }

    /// Operations of which nobody knows whether they were done.
    pub fn open_ends(&self) -> impl Iterator<Item = usize> {
        self.all()
            .filter(|(number, operation)| {
                operation.outcome == Outcome::Indefinite
                    && room_of(&operation.deed).is_some()
                    && !self.settled.contains(number)
            })
            .map(|(number, _)| number)
    }
}
