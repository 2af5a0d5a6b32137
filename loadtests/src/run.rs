//! One run on one server: people are made, readers park their long polls, senders send what is scheduled, and what came
//! of it is a [`Block`].

use crate::guard::Target;
use crate::latency::{Latencies, OverTime, Quantiles};
use crate::ledger::{Counts, Finding, Ledger};
use crate::meter::{Look, Meter, Reading};
use crate::open::{self, Came, Driven, ask, drive, explain, since};
use crate::page::{Plot, Scale, Series};
use crate::samples::Samples;
use crate::schedule::{Arrival, Plan, Schedule};
use crate::server::{Kind, Server};
use crate::shard::Shard;
use crate::validity::{Clocks, Doubt, Validity};
use anyhow::{Context, Result, bail};
use futures_util::StreamExt as _;
use reqwest::{Client, Method, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

/// What is done to a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// When what is sent.
    pub plan: Plan,
    /// Members of the room, senders and readers among them.
    pub members: u32,
    /// Devices with a parked long poll.
    pub readers: u32,
    /// Rooms that each reader is joined to, the busy one among them.
    pub rooms: u32,
    /// Messages that are in the room before.
    pub history: u32,
    /// The same traffic before, which is not measured.
    pub warm: Duration,
}

/// What one run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Block {
    /// Which server, where it was started for the run.
    pub kind: Option<Kind>,
    /// The schedule that it was put to.
    pub schedule_hash: String,
    /// From the start of its container to its first answer, in milliseconds, where it was started for the run.
    pub ready_ms: Option<f64>,
    /// What the ledger says.
    pub counts: Counts,
    /// The first of what must not be.
    pub findings: Vec<Finding>,
    /// What went wrong on the way, how often.
    pub troubles: BTreeMap<String, u64>,
    /// From the schedule to the acknowledgement, in milliseconds.
    pub acknowledged: Option<Quantiles>,
    /// From the schedule to a reader that sees it, in milliseconds.
    pub delivered: Option<Quantiles>,
    /// Answers to long polls.
    pub syncs: u64,
    /// Times that a reader had to ask for what a sync had left out.
    pub gaps: u64,
    /// The server before the traffic, with everybody logged in and nobody waiting.
    pub idle: Look,
    /// Before what was measured.
    pub before: Look,
    /// After it.
    pub after: Look,
    /// What may be drawn of it.
    pub plots: Vec<Plot>,
    /// What the run says about itself.
    pub validity: Validity,
    /// Ended by hand: what is there is what was measured until then.
    pub interrupted: bool,
}

/// Somebody logged in.
#[derive(Clone)]
struct Person {
    client: Client,
    base: Url,
    id: String,
    token: String,
}

/// What readers see during one phase.
struct Watch {
    phase: &'static str,
    begin: Instant,
    ledger: Ledger,
    delivery: Latencies,
    over_time: OverTime,
    troubles: BTreeMap<String, u64>,
    syncs: u64,
    gaps: u64,
}

type Shared = Arc<Mutex<Watch>>;

fn locked(shared: &Shared) -> MutexGuard<'_, Watch> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    fn new(phase: &'static str, begin: Instant, devices: &[u32], length: Duration) -> Self {
        Self {
            phase,
            begin,
            ledger: Ledger::new(devices.iter().copied()),
            delivery: Latencies::default(),
            over_time: OverTime::of(length),
            troubles: BTreeMap::new(),
            syncs: 0,
            gaps: 0,
        }
    }

    fn trouble(&mut self, what: String) {
        *self.troubles.entry(what).or_default() += 1;
    }

    fn saw(&mut self, reader: u32, tag: &Tag) {
        if tag.phase == self.phase {
            self.ledger.saw(reader, tag.seq);
            let latency = since(self.begin).saturating_sub(tag.at);
            self.delivery.record(latency);
            self.over_time.record(tag.at, latency);
        }
    }
}

/// What every event carries, so that it is known again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Tag {
    phase: String,
    seq: u64,
    at: u64,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    content: Content,
}

#[derive(Default, Deserialize)]
struct Content {
    #[serde(rename = "test.fleet.load")]
    tag: Option<Tag>,
}

/// An answer to `/sync`, as far as readers read it.
#[derive(Deserialize)]
pub struct Synced {
    next_batch: String,
    #[serde(default)]
    rooms: Rooms,
}

impl Synced {
    /// Decodes one.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(answer: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(answer)
    }

    /// How many events its timelines have.
    pub fn events(&self) -> usize {
        let joined = self.rooms.join.values();
        joined.map(|joined| joined.timeline.events.len()).sum()
    }
}

#[derive(Default, Deserialize)]
struct Rooms {
    #[serde(default)]
    join: BTreeMap<String, Joined>,
}

#[derive(Deserialize)]
struct Joined {
    #[serde(default)]
    timeline: Timeline,
}

#[derive(Default, Deserialize)]
struct Timeline {
    #[serde(default)]
    events: Vec<Event>,
    #[serde(default)]
    limited: bool,
    prev_batch: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    chunk: Vec<Event>,
    end: Option<String>,
}

impl Person {
    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<T> {
        self.find(method, path, body).await?.with_context(|| {
            format!(
                "ask `{}`: the target knows nothing of it (404)",
                path.join("/")
            )
        })
    }

    /// The same, where it may not be there yet.
    async fn find<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Option<T>> {
        let answer = self
            .request(method, path, &[], body)
            .timeout(Duration::from_secs(60))
            .send()
            .await;
        let what = || format!("ask `{}`", path.join("/"));
        let answer = answer
            .map_err(|error| anyhow::anyhow!(explain(&error)))
            .with_context(what)?;
        let status = answer.status();
        let text = answer.text().await.with_context(what)?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            let advice = open::advice(status.as_str());
            bail!("{}: answered {status}{advice}: {text}", what());
        }
        serde_json::from_str(&text).map(Some).with_context(what)
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .clear()
                .extend(["_matrix", "client", "v3"])
                .extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.client.request(method, url);
        let request = if self.token.is_empty() {
            request
        } else {
            request.bearer_auth(&self.token)
        };
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    async fn register(client: &Client, base: &Url, name: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Registered {
            user_id: String,
            access_token: String,
        }
        let mut person = Self {
            client: client.clone(),
            base: base.clone(),
            id: String::new(),
            token: String::new(),
        };
        let body = json!({"username": name, "password": "load", "auth": {"type": "m.login.dummy"}});
        let registered: Registered = person
            .call(Method::POST, &["register"], Some(&body))
            .await?;
        (person.id, person.token) = (registered.user_id, registered.access_token);
        Ok(person)
    }

    async fn join(&self, room: &str) -> Result<()> {
        self.call::<Value>(Method::POST, &["join", room], Some(&json!({})))
            .await
            .map(|_| ())
    }

    async fn say(&self, room: &str, phase: &str, arrival: Arrival) -> Came {
        let words = vec!["word"; arrival.words as usize].join(" ");
        let tag = Tag {
            phase: phase.to_owned(),
            seq: arrival.seq,
            at: arrival.at,
        };
        let body = json!({"msgtype": "m.text", "body": words, "test.fleet.load": tag});
        let transaction = format!("{phase}-{}", arrival.seq);
        let path = ["rooms", room, "send", "m.room.message", &transaction];
        let request = self.request(Method::PUT, &path, &[], Some(&body));
        ask(request.timeout(Duration::from_secs(30))).await
    }

    async fn sync(&self, since: Option<&str>) -> Result<Synced> {
        let mut query = vec![("filter", FILTER)];
        if let Some(since) = since {
            query.extend([("since", since), ("timeout", "30000")]);
        }
        let request = self.request(Method::GET, &["sync"], &query, None);
        let answer = request.timeout(Duration::from_secs(60)).send().await;
        let answer = answer.map_err(|error| anyhow::anyhow!(explain(&error)))?;
        if !answer.status().is_success() {
            bail!("{}", answer.status().as_u16());
        }
        Ok(Synced::decode(&answer.bytes().await?)?)
    }

    /// What a limited sync has left out, oldest first: back until something that is known.
    async fn fill(
        &self,
        room: &str,
        from: Option<String>,
        known: &HashSet<Tag>,
    ) -> Result<Vec<Tag>> {
        let mut missed = Vec::new();
        let mut from = from;
        while let Some(token) = from {
            let path = ["rooms", room, "messages"];
            let query = [("dir", "b"), ("limit", "100"), ("from", &token)];
            let request = self
                .request(Method::GET, &path, &query, None)
                .timeout(Duration::from_secs(60));
            let page: Page = request.send().await?.error_for_status()?.json().await?;
            let tags: Vec<_> = page
                .chunk
                .into_iter()
                .filter_map(|event| event.content.tag)
                .collect();
            let new: Vec<_> = tags
                .iter()
                .filter(|tag| !known.contains(tag))
                .cloned()
                .collect();
            from = page
                .end
                .filter(|_| !new.is_empty() && new.len() == tags.len());
            missed.extend(new);
        }
        missed.reverse();
        Ok(missed)
    }
}

/// As a client that shows messages asks.
const FILTER: &str = concat!(
    r#"{"presence":{"types":[]},"account_data":{"types":[]},"room":{"timeline":{"limit":100},"#,
    r#""state":{"lazy_load_members":true},"ephemeral":{"types":[]},"account_data":{"types":[]}}}"#
);

/// Reads on and on. Dropped, it stops at once, whatever it waits for.
async fn read(person: Person, reader: u32, room: String, mut next: String, shared: Shared) {
    let mut known = HashSet::new();
    loop {
        let synced = match person.sync(Some(&next)).await {
            Ok(synced) => synced,
            Err(error) => {
                locked(&shared).trouble(format!("sync: {error:#}"));
                // So that a server that refuses at once is not asked without end.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        locked(&shared).syncs += 1;
        next = synced.next_batch;
        for joined in synced.rooms.join.into_values() {
            let mut tags = Vec::new();
            if joined.timeline.limited {
                locked(&shared).gaps += 1;
                match person.fill(&room, joined.timeline.prev_batch, &known).await {
                    Ok(missed) => tags = missed,
                    Err(error) => locked(&shared).trouble(format!("messages: {error:#}")),
                }
            }
            tags.extend(
                joined
                    .timeline
                    .events
                    .into_iter()
                    .filter_map(|event| event.content.tag),
            );
            let mut watch = locked(&shared);
            for tag in tags {
                watch.saw(reader, &tag);
                known.insert(tag);
            }
        }
    }
}

/// How long shards wait for each other.
const MEETING: Duration = Duration::from_secs(300);
/// From the last shard's mark to the common beginning: long enough for all to have seen it.
const NOTICE: u64 = 2_000;
/// The type of the state events by which shards know how far the others are.
const MARK: &str = "test.fleet.load.mark";

/// What a shard leaves in the room when it has come to a point.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Mark {
    /// By its own clock, in milliseconds since 1970.
    at: u64,
    /// Events that were accepted so far.
    accepted: u64,
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// The people of a run, or of one shard of it, in their room.
#[derive(Clone)]
pub struct Cast {
    people: BTreeMap<u32, Person>,
    room: String,
    shard: Shard,
}

/// What a run has measured, with what its server said of itself.
pub struct Measured {
    /// Of the generator.
    pub samples: Samples,
    /// The hash of the whole schedule.
    pub schedule: String,
    /// The server at that.
    pub looks: Looks,
    /// Whether it was given up, because too much was under way.
    pub overrun: bool,
    /// When it began, in milliseconds since 1970.
    pub began: u64,
}

/// How a server looked.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    /// Before the traffic, with everybody logged in and nobody waiting.
    pub idle: Look,
    /// Before what was measured.
    pub before: Look,
    /// After it.
    pub after: Look,
    /// Meanwhile, with the seconds from the beginning.
    pub during: Vec<(f64, Look)>,
}

/// One stretch of traffic.
struct Phase<'a> {
    name: &'static str,
    arrivals: Vec<Arrival>,
    length: Duration,
    /// The readers that are ours.
    devices: &'a [u32],
    shared: &'a Shared,
    /// The most that may be under way.
    most: Option<u64>,
}

/// What was so when a phase really began.
struct Start {
    at: Instant,
    look: Look,
    clocks: Clocks,
    began: u64,
}

impl Start {
    fn now(meter: Option<&Meter>, began: u64) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            look: look(meter),
            clocks: Clocks::read()?,
            began,
        })
    }
}

/// Looks at a server again and again, from a thread that waits for disks in nobody's way.
async fn observe(meter: Meter, every: Duration, looks: Arc<Mutex<Vec<(Instant, Look)>>>) {
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        let meter = meter.clone();
        let Ok(look) = tokio::task::spawn_blocking(move || meter.look()).await else {
            return;
        };
        looks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((Instant::now(), look));
    }
}

fn look(meter: Option<&Meter>) -> Look {
    meter.map(Meter::look).unwrap_or_default()
}

impl Cast {
    /// Makes the people of this shard and gathers them in the run's room, which its first shard makes.
    ///
    /// # Errors
    /// The target does not let them in, or the plan cannot be kept on this machine.
    pub async fn make(target: &Target, shape: &Shape, name: &str, shard: Shard) -> Result<Self> {
        let talkers = shape.plan.senders + shape.readers;
        if shape.members < talkers {
            bail!("{talkers} senders and readers are members: give at least `--members {talkers}`");
        }
        if shape.plan.senders < shard.of {
            bail!(
                "{} senders are too few for {} shards: each needs one",
                shape.plan.senders,
                shard.of
            );
        }
        let own = (0..talkers).filter(|person| shard.has(*person)).count();
        enough_descriptors(own as u64)?;
        let (client, base) = (target.client()?, &target.url);
        let mut people = BTreeMap::new();
        for number in (0..shape.members).filter(|person| shard.has(*person)) {
            let person = Person::register(&client, base, &format!("{name}{number}")).await;
            let person = person.map_err(|error| {
                if format!("{error:#}").contains("M_USER_IN_USE") {
                    error.context(format!(
                        "`--name {}` was used on this target before: give another",
                        name.trim_end_matches('-')
                    ))
                } else {
                    error.context("make the people")
                }
            })?;
            people.insert(number, person);
        }
        let room = gather(&people, name, shard)
            .await
            .context("gather the people in a room")?;
        let cast = Self {
            people,
            room,
            shard,
        };
        cast.join_rooms(shape)
            .await
            .context("join the readers to further rooms")?;
        if shard.number == 0 {
            cast.fill(shape.history)
                .await
                .context("fill the room's history")?;
        }
        Ok(cast)
    }

    /// The same people on a copy of their server.
    ///
    /// # Errors
    /// Of the library, about the certificates of this machine.
    pub fn at(&self, target: &Target) -> Result<Self> {
        let client = target.client()?;
        let mut cast = self.clone();
        for person in cast.people.values_mut() {
            (person.client, person.base) = (client.clone(), target.url.clone());
        }
        Ok(cast)
    }

    /// Our readers, with their people.
    fn readers(&self, shape: &Shape) -> Vec<(u32, &Person)> {
        let person = |reader| Some((reader, self.people.get(&(shape.plan.senders + reader))?));
        (0..shape.readers).filter_map(person).collect()
    }

    async fn join_rooms(&self, shape: &Shape) -> Result<()> {
        for _ in 1..shape.rooms {
            let body = json!({"preset": "public_chat", "room_version": "11"});
            let mut readers = self.readers(shape).into_iter();
            let Some((_, first)) = readers.next() else {
                return Ok(());
            };
            let room: Room = first
                .call(Method::POST, &["createRoom"], Some(&body))
                .await?;
            for (_, reader) in readers {
                reader.join(&room.room_id).await?;
            }
        }
        Ok(())
    }

    async fn fill(&self, history: u32) -> Result<()> {
        let person = self.first();
        let mut said = futures_util::stream::iter(0..u64::from(history))
            .map(|seq| {
                person.say(
                    &self.room,
                    "history",
                    Arrival {
                        seq,
                        at: 0,
                        sender: 0,
                        words: 8,
                    },
                )
            })
            .buffer_unordered(8);
        while let Some(came) = said.next().await {
            if let Some(trouble) = came.trouble {
                bail!("{trouble}{}", open::advice(&trouble));
            }
        }
        Ok(())
    }

    /// Has a newcomer sync for the first time, so often; gives the server's processor time for each, in microseconds.
    ///
    /// # Errors
    /// The target does not answer, or its processor time is not known.
    pub async fn newcomer(&self, meter: &Meter, times: u32) -> Result<f64> {
        let before = meter.look();
        for _ in 0..times {
            self.first().sync(None).await?;
        }
        let after = meter.look();
        let cpu = difference(&before, &after, |look| look.cpu_ns.as_ref());
        Ok(cpu.context("read the server's processor time")? / f64::from(times) / 1e3)
    }

    fn first(&self) -> &Person {
        self.people
            .values()
            .next()
            .expect("each shard has a sender")
    }

    /// Leaves a mark, and waits until all shards have left theirs.
    async fn meet(&self, step: &str, accepted: u64) -> Result<Vec<Mark>> {
        let mark = Mark {
            at: unix_ms(),
            accepted,
        };
        let person = self.first();
        let key = |number: u32| format!("{step}-{number}");
        let own = key(self.shard.number);
        let path = ["rooms", &self.room, "state", MARK, &own];
        person
            .call::<Value>(Method::PUT, &path, Some(&json!(mark)))
            .await
            .context("leave a mark for the other shards")?;
        let deadline = Instant::now() + MEETING;
        let mut marks = vec![mark];
        for other in (0..self.shard.of).filter(|number| *number != self.shard.number) {
            let key = key(other);
            let path = ["rooms", &self.room, "state", MARK, &key];
            marks.push(loop {
                if let Some(mark) = person.find(Method::GET, &path, None).await? {
                    break mark;
                }
                if Instant::now() > deadline {
                    bail!(
                        "shard {other}/{} has not come to `{step}` in {} s: run all shards at once, with one `--name` and one \
                         target",
                        self.shard.of,
                        MEETING.as_secs()
                    );
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            });
        }
        Ok(marks)
    }

    /// How far the target's clock is ahead of ours, at least and at most, in milliseconds: by an event of which we know
    /// when we sent it and when it was taken.
    ///
    /// # Errors
    /// The target does not answer.
    #[expect(clippy::cast_precision_loss, reason = "differences of clocks")]
    pub async fn clock(&self) -> Result<[f64; 2]> {
        #[derive(Deserialize)]
        struct Made {
            event_id: String,
        }
        #[derive(Deserialize)]
        struct Dated {
            origin_server_ts: u64,
        }
        let key = format!("clock-{}", self.shard.number);
        let path = ["rooms", &self.room, "state", MARK, &key];
        let mut known = [f64::NEG_INFINITY, f64::INFINITY];
        // What is true of each time is true of all; the quickest narrows it most.
        for _ in 0..5 {
            let from = unix_ms();
            let mark = json!({"at": from});
            let made: Made = self.first().call(Method::PUT, &path, Some(&mark)).await?;
            let to = unix_ms();
            let path = ["rooms", &self.room, "event", &made.event_id];
            let dated: Dated = self.first().call(Method::GET, &path, None).await?;
            let ahead = |ours: u64| dated.origin_server_ts as f64 - ours as f64;
            // What is cut off below a millisecond is allowed for.
            known = [
                known[0].max(ahead(to) - 1.0),
                known[1].min(ahead(from) + 1.0),
            ];
        }
        Ok(known)
    }

    /// Sends one schedule and waits until everybody has seen everything, or nothing more comes.
    async fn phase(
        &self,
        phase: Phase<'_>,
        meter: Option<&Meter>,
        start: &mut Start,
        driven: &mut Driven,
    ) -> Result<bool> {
        let Phase {
            name,
            arrivals,
            length,
            devices,
            shared,
            most,
        } = phase;
        let mut began = unix_ms();
        if self.shard.of > 1 {
            let marks = self.meet(name, 0).await?;
            began = marks.iter().map(|mark| mark.at).max().unwrap_or(began) + NOTICE;
        }
        let begin = Instant::now() + Duration::from_millis(began.saturating_sub(unix_ms()));
        *locked(shared) = Watch::new(name, begin, devices, length);
        tokio::time::sleep_until(begin.into()).await;
        *start = Start::now(meter, began)?;
        let begin = if self.shard.of > 1 {
            begin
        } else {
            // What was looked at meanwhile is no slip.
            let begin = Instant::now();
            locked(shared).begin = begin;
            begin
        };
        let (senders, room, watched) = (
            Arc::new(self.people.clone()),
            Arc::<str>::from(self.room.as_str()),
            shared.clone(),
        );
        let send = move |arrival: Arrival| {
            let (sender, room) = (senders[&arrival.sender].clone(), room.clone());
            async move { sender.say(&room, name, arrival).await }
        };
        let due: Vec<u64> = arrivals.iter().map(|arrival| arrival.at).collect();
        let answered = AtomicU64::new(0);
        let driving = drive(arrivals, begin, send, |sent| {
            driven.note(&sent);
            answered.store(driven.answered, Ordering::Relaxed);
            locked(&watched).ledger.sent(
                sent.arrival.seq,
                sent.sent,
                sent.answered,
                sent.came.outcome,
            );
        });
        let overrun = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let due = due.partition_point(|at| *at <= since(begin)) as u64;
                let under_way = due - answered.load(Ordering::Relaxed).min(due);
                if most.is_some_and(|most| under_way > most) {
                    return;
                }
            }
        };
        tokio::select! {
            () = driving => {}
            () = overrun => return Ok(true),
        }
        let mut accepted = driven.accepted;
        if self.shard.of > 1 {
            let marks = self.meet(&format!("after-{name}"), accepted).await?;
            accepted = marks.iter().map(|mark| mark.accepted).sum();
        }
        let deadline = Instant::now() + DRAIN;
        while !settled(&locked(shared).ledger, accepted) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(false)
    }

    /// Puts the traffic of the shape to the target, until its end, until more than `most` sends are under way, or until
    /// `stop` comes.
    ///
    /// # Errors
    /// The plan cannot be drawn, or the other shards do not come.
    pub async fn perform(
        &self,
        shape: &Shape,
        meter: Option<&Meter>,
        most: Option<u64>,
        stop: impl Future<Output = ()>,
    ) -> Result<Measured> {
        let schedule = self.share(&shape.plan)?;
        let idle = look(meter);
        let people = self.readers(shape);
        let devices: Vec<u32> = people.iter().map(|(reader, _)| *reader).collect();
        let watch = Watch::new("none", Instant::now(), &devices, shape.plan.length);
        let shared: Shared = Arc::new(Mutex::new(watch));
        let mut readers = JoinSet::new();
        for (reader, person) in people {
            let next = person
                .sync(None)
                .await
                .context("sync for the first time")?
                .next_batch;
            readers.spawn(read(
                person.clone(),
                reader,
                self.room.clone(),
                next,
                shared.clone(),
            ));
        }
        let mut driven = Driven::default();
        let mut start = Start::now(meter, unix_ms())?;
        let scheduled = schedule.arrivals.len() as u64;
        let traffic = async {
            let phase = |name, arrivals, length| Phase {
                name,
                arrivals,
                length,
                devices: &devices,
                shared: &shared,
                most,
            };
            if !shape.warm.is_zero() {
                let warm = Plan {
                    seed: shape.plan.seed ^ u64::MAX,
                    length: shape.warm,
                    ..shape.plan.clone()
                };
                let warm = self.share(&warm).context("draw the traffic before")?;
                let warm = phase("warm", warm.arrivals, shape.warm);
                let overrun = self
                    .phase(warm, meter, &mut start, &mut Driven::default())
                    .await?;
                if overrun {
                    return Ok(true);
                }
            }
            let main = phase("main", schedule.arrivals, shape.plan.length);
            self.phase(main, meter, &mut start, &mut driven).await
        };
        let during = Arc::default();
        let every = Duration::from_secs(OverTime::of(shape.plan.length).width);
        if let Some(meter) = meter {
            readers.spawn(observe(meter.clone(), every, Arc::clone(&during)));
        }
        let (overrun, interrupted) = tokio::select! {
            done = traffic => (done?, false),
            () = stop => (false, true),
        };
        let (to, after) = (Clocks::read()?, look(meter));
        readers.abort_all();
        let during = std::mem::take(&mut *during.lock().unwrap_or_else(PoisonError::into_inner));
        let during = during
            .into_iter()
            .filter(|(at, _)| *at >= start.at)
            .map(|(at, look)| ((at - start.at).as_secs_f64(), look))
            .collect();
        let mut watch = locked(&shared);
        if watch.phase != "main" {
            // Cut off before anything was measured.
            *watch = Watch::new("main", Instant::now(), &devices, shape.plan.length);
        }
        let samples = Samples {
            scheduled,
            driven,
            delivered: watch.delivery.clone(),
            over_time: watch.over_time.clone(),
            ledger: watch.ledger.clone(),
            troubles: watch.troubles.clone(),
            syncs: watch.syncs,
            gaps: watch.gaps,
            doubt: Doubt::between(&start.clocks, &to),
            interrupted,
        };
        Ok(Measured {
            samples,
            schedule: schedule.hash,
            looks: Looks {
                idle,
                before: start.look,
                after,
                during,
            },
            overrun,
            began: start.began,
        })
    }

    /// What of a plan this shard sends. The hash is the whole schedule's.
    fn share(&self, plan: &Plan) -> Result<Schedule> {
        let mut schedule = plan.draw().map_err(anyhow::Error::msg)?;
        schedule
            .arrivals
            .retain(|arrival| self.shard.has(arrival.sender));
        Ok(schedule)
    }
}

/// Ended by hand before anything was measured.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was interrupted before anything was measured")
    }
}

impl std::error::Error for Interrupted {}

/// How long deliveries may take after the last send.
const DRAIN: Duration = Duration::from_secs(30);

fn settled(ledger: &Ledger, accepted: u64) -> bool {
    ledger.deliveries() >= accepted * ledger.devices() as u64 && ledger.complete()
}

/// Runs the shape on a server, until its end or until `stop` comes.
///
/// # Errors
/// The people could not be made, or the plan cannot be kept on this machine.
pub async fn run(server: &Server, shape: &Shape, stop: impl Future<Output = ()>) -> Result<Block> {
    let mut stop = std::pin::pin!(stop);
    let cast = tokio::select! {
        cast = Cast::make(&server.target, shape, "load", Shard::WHOLE) => cast?,
        () = &mut stop => bail!(Interrupted),
    };
    let measured = cast.perform(shape, Some(&server.meter), None, stop).await?;
    let mut block = Block::of(measured.samples, measured.schedule, measured.looks);
    block.kind = Some(server.kind);
    block.ready_ms = Some(server.started.as_secs_f64() * 1e3);
    Ok(block)
}

impl Block {
    /// What samples come to, with looks at their server.
    pub fn of(samples: Samples, schedule_hash: String, looks: Looks) -> Self {
        let plots = plots(&samples, &looks.during);
        let Looks {
            idle,
            before,
            after,
            during: _,
        } = looks;
        let findings = samples.ledger.findings();
        let mut troubles = samples.driven.troubles.clone();
        open::add(&mut troubles, &samples.troubles);
        let cpu = difference(&before, &after, |look| look.cpu_ns.as_ref())
            .map(|nanoseconds| nanoseconds / 1e9);
        let driven = &samples.driven;
        let mut validity = Validity::judge(driven, samples.scheduled, &samples.doubt, cpu);
        if samples.interrupted {
            validity.against_all.push("it was interrupted".to_owned());
        }
        // A repetition costs what it costs, and clients pass over it by the event's id; anything else is work not done.
        let undone = findings
            .iter()
            .filter(|finding| !matches!(finding, Finding::Duplicated { .. }))
            .count();
        if undone > 0 {
            validity.against_all.push(format!(
                "the ledger has {undone} events lost, out of order or never sent"
            ));
        }
        Self {
            kind: None,
            schedule_hash,
            ready_ms: None,
            counts: samples.ledger.counts(),
            findings: findings.into_iter().take(20).collect(),
            troubles,
            acknowledged: driven.latency.quantiles(),
            delivered: samples.delivered.quantiles(),
            syncs: samples.syncs,
            gaps: samples.gaps,
            idle,
            before,
            after,
            plots,
            validity,
            interrupted: samples.interrupted,
        }
    }
}

/// The plots of a run.
fn plots(samples: &Samples, during: &[(f64, Look)]) -> Vec<Plot> {
    let parts = &samples.over_time.parts;
    #[expect(clippy::cast_precision_loss, reason = "seconds of a run")]
    let over_time = |name: &str, share| Series {
        name: name.to_owned(),
        points: parts
            .iter()
            .filter_map(|(part, latencies)| {
                let second = (part * samples.over_time.width) as f64;
                Some((second, latencies.quantile_ms(share)?))
            })
            .collect(),
    };
    let curve = |name: &str, latencies: &Latencies| Series {
        name: name.to_owned(),
        points: latencies.curve(),
    };
    let looked = |name: &str, of: &dyn Fn(&Look) -> Option<f64>| Series {
        name: name.to_owned(),
        points: during
            .iter()
            .filter_map(|(at, look)| Some((*at, of(look)?)))
            .collect(),
    };
    let plot = |title: &str, x: (&str, Scale), y: (&str, Scale), series| Plot {
        title: title.to_owned(),
        x: (x.0.to_owned(), x.1),
        y: (y.0.to_owned(), y.1),
        series,
    };
    let seconds = ("seconds from the beginning", Scale::Linear);
    vec![
        plot(
            "Latency over time",
            seconds,
            ("ms from the schedule to a reader", Scale::Log),
            vec![
                over_time("half", 0.5),
                over_time("nine of ten", 0.9),
                over_time("the slowest", 1.0),
            ],
        ),
        plot(
            "Percentiles",
            ("share that is no slower", Scale::Nines),
            ("ms from the schedule", Scale::Log),
            vec![
                curve("delivered", &samples.delivered),
                curve("acknowledged", &samples.driven.latency),
                curve("sent (slip)", &samples.driven.slip),
            ],
        ),
        plot(
            "Memory over time",
            seconds,
            ("MiB", Scale::Linear),
            vec![
                looked("PSS", &|look| mib(look.pss.as_ref())),
                looked("working set", &|look| mib(look.working_set.as_ref())),
            ],
        ),
        plot(
            "Disk over time",
            seconds,
            ("MiB", Scale::Linear),
            vec![looked("data", &|look| mib(look.disk.as_ref()))],
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a reading")]
fn mib(reading: Option<&Reading>) -> Option<f64> {
    reading.map(|reading| reading.value as f64 / 1_048_576.0)
}

#[derive(Deserialize)]
struct Room {
    room_id: String,
}

async fn gather(people: &BTreeMap<u32, Person>, name: &str, shard: Shard) -> Result<String> {
    let first = people.values().next().context("nobody is there")?;
    let (_, server) = first
        .id
        .split_once(':')
        .context("read the server's name in a user's id")?;
    let made = shard.number == 0;
    let room = if made {
        let mut body = json!({"preset": "public_chat", "room_version": "11"});
        if shard.of > 1 {
            body["room_alias_name"] = json!(name);
            // Every shard may leave its marks.
            body["power_level_content_override"] = json!({"events": {MARK: 0}});
        }
        first
            .call::<Room>(Method::POST, &["createRoom"], Some(&body))
            .await?
    } else {
        let alias = format!("#{name}:{server}");
        let path = ["directory", "room", &alias];
        let deadline = Instant::now() + MEETING;
        loop {
            if let Some(found) = first.find(Method::GET, &path, None).await? {
                break found;
            }
            if Instant::now() > deadline {
                bail!(
                    "shard 0/{} has made no room in {} s: run all shards at once, with one `--name` and one target",
                    shard.of,
                    MEETING.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let room = room.room_id;
    for person in people.values().skip(usize::from(made)) {
        person.join(&room).await?;
    }
    Ok(room)
}

/// Before anything is made: each talker needs a connection, and what waits in flight as many again.
///
/// # Errors
/// This process may not open that many.
pub fn enough_descriptors(talkers: u64) -> Result<()> {
    let limits =
        std::fs::read_to_string("/proc/self/limits").context("read `/proc/self/limits`")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let limit = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let needed = talkers * 2 + 64;
    match limit {
        Some(limit) if limit < needed => bail!(
            "the plan needs {needed} descriptors and this process may open {limit}: raise `ulimit -n`, or ask for fewer"
        ),
        _ => Ok(()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a reading")]
fn difference<'a>(
    before: &'a Look,
    after: &'a Look,
    of: impl Fn(&'a Look) -> Option<&'a Reading>,
) -> Option<f64> {
    Some(of(after)?.value as f64 - of(before)?.value as f64)
}

/// One figure of a block.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What is measured.
    pub name: &'static str,
    /// In what.
    pub unit: &'static str,
    /// The figure, where there is one.
    pub value: Option<f64>,
    /// Of how many samples.
    pub samples: u64,
    /// How it was had.
    pub method: &'static str,
    /// Whether the run allows to quote it.
    pub valid: bool,
    /// Whether the decision record's word is formed from it.
    pub decides: bool,
}

impl Block {
    /// The server's processor time in what was measured, in seconds.
    pub fn cpu(&self) -> Option<f64> {
        difference(&self.before, &self.after, |look| look.cpu_ns.as_ref()).map(|ns| ns / 1e9)
    }

    /// What the server wrote towards the disk in what was measured, in bytes.
    pub fn written(&self) -> Option<f64> {
        difference(&self.before, &self.after, |look| look.written.as_ref())
    }

    /// What may be compared.
    #[expect(clippy::cast_precision_loss, reason = "readings and counts of a run")]
    pub fn cells(&self) -> Vec<Cell> {
        let (events, deliveries) = (self.counts.accepted, self.counts.delivered);
        let per = |value: Option<f64>, count: u64| {
            value
                .filter(|_| count > 0)
                .map(|value| value / count as f64)
        };
        let cpu = difference(&self.before, &self.after, |look| look.cpu_ns.as_ref());
        let disk = difference(&self.before, &self.after, |look| look.disk.as_ref());
        let written = difference(&self.before, &self.after, |look| look.written.as_ref());
        let switches = difference(&self.before, &self.after, |look| look.switches.as_ref());
        let method =
            |reading: Option<&Reading>| reading.map_or("not had", |reading| reading.method);
        let (costs, latencies) = (self.validity.costs(), self.validity.latencies());
        let cell = |name, unit, value, samples, method, decides| Cell {
            name,
            unit,
            value,
            samples,
            method,
            valid: if unit == "ms" { latencies } else { costs },
            decides,
        };
        let (after, idle) = (&self.after, &self.idle);
        let cpu_method = method(after.cpu_ns.as_ref());
        let pss_method = method(idle.pss.as_ref());
        let scheduled = "open loop, from the schedule";
        vec![
            cell(
                "CPU per delivered event",
                "us",
                per(cpu, deliveries).map(|cpu| cpu / 1e3),
                deliveries,
                cpu_method,
                true,
            ),
            cell(
                "CPU per accepted event",
                "us",
                per(cpu, events).map(|cpu| cpu / 1e3),
                events,
                cpu_method,
                false,
            ),
            cell(
                "idle PSS",
                "MiB",
                mib(idle.pss.as_ref()),
                1,
                pss_method,
                true,
            ),
            cell(
                "loaded PSS",
                "MiB",
                mib(after.pss.as_ref()),
                1,
                pss_method,
                true,
            ),
            cell(
                "working set",
                "MiB",
                mib(after.working_set.as_ref()),
                1,
                method(after.working_set.as_ref()),
                false,
            ),
            cell(
                "disk per event",
                "B",
                per(disk, events),
                events,
                method(after.disk.as_ref()),
                true,
            ),
            cell(
                "written per event",
                "B",
                per(written, events),
                events,
                method(after.written.as_ref()),
                false,
            ),
            cell(
                "events seen twice",
                "%",
                per(Some(self.counts.duplicated as f64 * 100.0), deliveries),
                deliveries,
                "ledger",
                false,
            ),
            cell(
                "syncs per delivery",
                "",
                per(Some(self.syncs as f64), deliveries),
                deliveries,
                "answers of /sync",
                false,
            ),
            cell(
                "switches per delivery",
                "",
                per(switches, deliveries),
                deliveries,
                method(after.switches.as_ref()),
                false,
            ),
            cell(
                "delivery p50",
                "ms",
                self.delivered.map(|of| of.p50),
                deliveries,
                scheduled,
                false,
            ),
            cell(
                "delivery p99",
                "ms",
                self.delivered.and_then(|of| of.p99),
                deliveries,
                scheduled,
                false,
            ),
            cell(
                "acknowledgement p50",
                "ms",
                self.acknowledged.map(|of| of.p50),
                events,
                scheduled,
                false,
            ),
        ]
    }

    /// For a document.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "```\n{}```\n\n| | | how | |\n|---|---|---|---|\n",
            self.head()
        );
        for cell in self.cells() {
            let doubt = if cell.valid { "" } else { "INVALID" };
            let value = cell
                .value
                .map_or("-".to_owned(), |value| format!("{value:.2} {}", cell.unit));
            let _ = writeln!(
                text,
                "| {} | {value} | {} | {doubt} |",
                cell.name, cell.method
            );
        }
        text
    }

    /// For a person.
    pub fn lines(&self) -> String {
        let mut text = self.head();
        for cell in self.cells() {
            let doubt = if cell.valid { "" } else { "  INVALID" };
            let value = cell
                .value
                .map_or("-".to_owned(), |value| format!("{value:.2}"));
            let _ = writeln!(
                text,
                "  {:<24} {value:>12} {:<4} ({}){doubt}",
                cell.name, cell.unit, cell.method
            );
        }
        text
    }

    /// What comes before the figures.
    fn head(&self) -> String {
        let counts = &self.counts;
        let mut text = format!(
            "{}: {}\n  schedule {}; accepted {}, refused {}, unanswered {}; delivered {}, lost {}, duplicated {}, reordered {}, \
             alien {}; {} syncs, {} gaps filled\n",
            self.kind.map_or("the target", Kind::name),
            self.validity.lines(),
            &self.schedule_hash[..12],
            counts.accepted,
            counts.refused,
            counts.unanswered,
            counts.delivered,
            counts.lost,
            counts.duplicated,
            counts.reordered,
            counts.alien,
            self.syncs,
            self.gaps,
        );
        for finding in &self.findings {
            let _ = writeln!(text, "  {finding}");
        }
        for trouble in open::advise(&self.troubles) {
            let _ = writeln!(text, "  {trouble}");
        }
        text
    }
}
