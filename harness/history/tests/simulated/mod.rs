//! Two servers that make no mistake, and the record of what people do on them.

use fleet_history::{Deed, Membership, Operation, Outcome, Record, RoomTold, Told};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

pub const ROOM: &str = "!garden:vale.test";
/// How much of a timeline one sync tells, and of the history one page.
const SYNC: usize = 4;
const PAGE: usize = 6;

/// Who is on stage: alice, who makes the room, and bob at home; charlie and carol abroad.
pub const USERS: [(&str, usize); 4] = [
    ("@alice:vale.test", 0),
    ("@bob:vale.test", 0),
    ("@charlie:mere.test", 1),
    ("@carol:mere.test", 1),
];
const SERVERS: [&str; 2] = ["vale.test", "mere.test"];

#[derive(Clone, Debug)]
pub enum Step {
    Say(usize),
    Topic(usize),
    Sync(usize),
    Join(usize),
    Leave(usize),
    Kick(usize),
    Cut,
    Heal,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..USERS.len();
    let guest = 1..USERS.len();
    vec(
        prop_oneof![
            10 => who.clone().prop_map(Step::Say),
            2 => who.clone().prop_map(Step::Topic),
            4 => who.prop_map(Step::Sync),
            3 => guest.clone().prop_map(Step::Join),
            1 => guest.clone().prop_map(Step::Leave),
            1 => guest.prop_map(Step::Kick),
            1 => Just(Step::Cut),
            1 => Just(Step::Heal),
        ],
        10..60,
    )
}

#[derive(Default)]
struct Server {
    /// What arrived, and who was in the room then.
    log: Vec<(Told, Vec<usize>)>,
    members: Vec<usize>,
    state: BTreeMap<(String, String), Told>,
    /// What the other one has not been told yet.
    queue: Vec<Told>,
}

/// What happened, and what is known about it that the checker must find out.
pub struct Simulated {
    pub record: Record,
    /// Events with who was in the room from then to the end.
    pub owed: Vec<(String, usize)>,
    /// Events with who was in the room then, and not in the end.
    pub left: Vec<(String, usize)>,
    /// Events with who had left before, for good.
    pub foreign: Vec<(String, usize)>,
}

struct Simulation {
    servers: [Server; 2],
    operations: Vec<Operation>,
    now: u64,
    next: usize,
    cut: Option<u64>,
    tokens: [usize; 4],
    /// Every message with its time, and every change of a membership.
    said: Vec<(String, u64)>,
    changes: Vec<(usize, u64, bool)>,
}

pub fn simulate(steps: &[Step]) -> Simulated {
    let mut it = Simulation {
        servers: [Server::default(), Server::default()],
        operations: Vec::new(),
        now: 0,
        next: 0,
        cut: None,
        tokens: [0; 4],
        said: Vec::new(),
        changes: Vec::new(),
    };
    for who in 0..USERS.len() {
        it.sync(who, true);
    }
    it.deed(
        0,
        Deed::Create {
            room: ROOM.to_owned(),
        },
        Outcome::Ok,
    );
    it.changes.push((0, it.now, true));
    it.happens(0, "m.room.create", Some(""), "12");
    it.happens(0, "m.room.member", Some(USERS[0].0), "join");
    it.happens(0, "m.room.power_levels", Some(""), "100");
    for step in steps {
        it.step(step);
    }
    it.step(&Step::Heal);
    it.now += 1000;
    for who in 0..USERS.len() {
        it.sync(who, false);
        it.sync(who, false);
        it.pages(who, None, |_| false);
        it.read_state(who);
    }
    let mut owed = Vec::new();
    let mut left = Vec::new();
    let mut foreign = Vec::new();
    for (event, time) in &it.said {
        for who in 0..USERS.len() {
            let of = |after: bool| {
                it.changes
                    .iter()
                    .filter(move |change| change.0 == who && (change.1 > *time) == after)
            };
            let was_in = of(false).next_back().is_some_and(|change| change.2);
            // The server of whoever is removed hears of it at once, but the record allows it a while.
            let long_ago = of(false).all(|change| change.1 + 300 < *time);
            let last = it.changes.iter().rfind(|change| change.0 == who);
            match (was_in, of(true).count()) {
                (true, 0) if long_ago => owed.push((event.clone(), who)),
                (true, 1)
                    if long_ago
                        && of(true).all(|change| change.1 > time + 300)
                        && last.is_some_and(|last| !last.2) =>
                {
                    left.push((event.clone(), who));
                }
                (false, 0) if long_ago && of(false).count() > 0 => {
                    foreign.push((event.clone(), who))
                }
                _ => {}
            }
        }
    }
    Simulated {
        record: Record {
            patience: 100,
            operations: it.operations,
        },
        owed,
        left,
        foreign,
    }
}

impl Simulation {
    fn is_in(&self, who: usize) -> bool {
        self.servers[USERS[who].1].members.contains(&who)
    }

    fn deed(&mut self, who: usize, deed: Deed, outcome: Outcome) {
        let (name, server) = USERS[who];
        self.operations.push(Operation {
            who: name.to_owned(),
            server: SERVERS[server].to_owned(),
            began: self.now,
            ended: self.now + 10,
            deed,
            outcome,
        });
        self.now += 20;
    }

    fn step(&mut self, step: &Step) {
        let room = ROOM.to_owned();
        match *step {
            Step::Say(who) => {
                let (txn, marker) = (format!("t{}", self.next), format!("m{}", self.next));
                let event = self.is_in(who).then(|| format!("$e{}", self.next));
                let outcome = if event.is_some() {
                    Outcome::Ok
                } else {
                    Outcome::Refused
                };
                let kind = "m.room.message".to_owned();
                if let Some(event) = &event {
                    self.said.push((event.clone(), self.now));
                    self.happens(who, &kind, None, &marker);
                }
                self.deed(
                    who,
                    Deed::Send {
                        room,
                        kind,
                        txn,
                        marker,
                        event,
                    },
                    outcome,
                );
            }
            Step::Topic(who) if self.is_in(who) => {
                let (kind, key) = ("m.room.topic".to_owned(), String::new());
                let marker = format!("topic {}", self.next);
                let event = Some(self.happens(who, &kind, Some(""), &marker));
                self.deed(
                    who,
                    Deed::State {
                        room,
                        kind,
                        key,
                        marker,
                        event,
                    },
                    Outcome::Ok,
                );
            }
            Step::Sync(who) => self.sync(who, false),
            // Who is removed on one side of a split and speaks on the other is another story.
            _ if self.cut.is_some() && !matches!(step, Step::Heal) => {}
            Step::Join(who) if !self.is_in(who) => self.changes(who, who, Membership::Join),
            Step::Leave(who) if self.is_in(who) => self.changes(who, who, Membership::Leave),
            Step::Kick(who) if self.is_in(who) => self.changes(0, who, Membership::Leave),
            // Both with a quiet time around them, in which everybody is told everything.
            Step::Cut => {
                self.now += 1000;
                self.cut = Some(self.now);
            }
            Step::Heal => {
                if let Some(began) = self.cut.take() {
                    self.deed(
                        0,
                        Deed::Fault {
                            what: "cut".to_owned(),
                        },
                        Outcome::Ok,
                    );
                    if let Some(fault) = self.operations.last_mut() {
                        fault.began = began;
                    }
                    for from in 0..2 {
                        for told in std::mem::take(&mut self.servers[from].queue) {
                            self.servers[1 - from].arrives(told);
                        }
                    }
                    self.now += 1000;
                }
            }
            _ => {}
        }
    }

    fn changes(&mut self, by: usize, who: usize, membership: Membership) {
        self.changes
            .push((who, self.now, membership == Membership::Join));
        self.happens(by, "m.room.member", Some(USERS[who].0), membership.word());
        let (room, user) = (ROOM.to_owned(), USERS[who].0.to_owned());
        self.deed(
            by,
            Deed::Member {
                room,
                user,
                membership,
            },
            Outcome::Ok,
        );
        (0..USERS.len()).for_each(|who| self.read_state(who));
        self.sync(who, false);
    }

    fn read_state(&mut self, who: usize) {
        if self.is_in(who) {
            let state = self.servers[USERS[who].1].state.values().cloned().collect();
            self.deed(
                who,
                Deed::ReadState {
                    room: ROOM.to_owned(),
                    state,
                },
                Outcome::Ok,
            );
        }
    }

    fn happens(&mut self, who: usize, kind: &str, key: Option<&str>, marker: &str) -> String {
        let told = Told {
            id: format!("$e{}", self.next),
            sender: USERS[who].0.to_owned(),
            kind: kind.to_owned(),
            key: key.map(str::to_owned),
            marker: Some(marker.to_owned()),
        };
        self.next += 1;
        let here = USERS[who].1;
        self.servers[here].arrives(told.clone());
        match self.cut {
            None => self.servers[1 - here].arrives(told.clone()),
            Some(_) => self.servers[here].queue.push(told.clone()),
        }
        told.id
    }

    fn sync(&mut self, who: usize, initial: bool) {
        let server = &self.servers[USERS[who].1];
        let since = self.tokens[who];
        let news: Vec<_> = (since..server.log.len())
            .filter(|place| server.log[*place].1.contains(&who))
            .collect();
        let shown = &news[news.len().saturating_sub(SYNC)..];
        let told = |place: &usize| server.log[*place].0.clone();
        let limited = shown.len() < news.len();
        let first = shown.first().copied().unwrap_or_default();
        let room = RoomTold {
            room: ROOM.to_owned(),
            joined: server.members.contains(&who),
            timeline: shown.iter().map(told).collect(),
            limited,
            prev_batch: Some(format!("p{first}")),
            state: Vec::new(),
        };
        let next = server.log.len();
        let silent = room.timeline.is_empty();
        let deed = Deed::Sync {
            since: (!initial).then(|| since.to_string()),
            next: Some(next.to_string()),
            filtered: false,
            rooms: if silent { Vec::new() } else { vec![room] },
        };
        self.tokens[who] = next;
        self.deed(who, deed, Outcome::Ok);
        if limited {
            self.pages(who, Some(first), |place| place < since);
        }
    }

    /// Pages back from a place, until enough is known.
    fn pages(&mut self, who: usize, from: Option<usize>, known: impl Fn(usize) -> bool) {
        let mut from = from;
        loop {
            let log = &self.servers[USERS[who].1].log;
            // Who has left sees what happened until then.
            let Some(last) = log.iter().rposition(|line| line.1.contains(&who)) else {
                return;
            };
            let to = from.unwrap_or(last + 1);
            let first = to.saturating_sub(PAGE);
            let deed = Deed::Page {
                room: ROOM.to_owned(),
                from: from.map(|from| format!("p{from}")),
                end: (first > 0).then(|| format!("p{first}")),
                events: log[first..to]
                    .iter()
                    .rev()
                    .map(|line| line.0.clone())
                    .collect(),
            };
            self.deed(who, deed, Outcome::Ok);
            if first == 0 || known(first) {
                return;
            }
            from = Some(first);
        }
    }
}

impl Server {
    fn arrives(&mut self, told: Told) {
        let mut present = self.members.clone();
        if told.kind == "m.room.member"
            && let Some(who) = USERS
                .iter()
                .position(|user| Some(user.0) == told.key.as_deref())
        {
            // Who is removed is told so, and who comes is told of it.
            self.members.retain(|member| *member != who);
            if told.marker.as_deref() == Some("join") {
                self.members.push(who);
                present.push(who);
            }
        }
        if let Some(key) = &told.key {
            // Of two that were set during a split the same one wins on both sides.
            let place = (told.kind.clone(), key.clone());
            let number = |told: &Told| told.id[2..].parse::<usize>().unwrap_or_default();
            if self
                .state
                .get(&place)
                .is_none_or(|other| number(other) < number(&told))
            {
                self.state.insert(place, told.clone());
            }
        }
        self.log.push((told, present));
    }
}
