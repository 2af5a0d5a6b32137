//! One run on one server: people are made, readers park their long polls, senders send what is scheduled, and what came
//! of it is a [`Block`].

use crate::latency::{Latencies, Quantiles};
use crate::ledger::{Counts, Finding, Ledger};
use crate::meter::Look;
use crate::open::{self, Came, Driven, ask, drive, explain, since};
use crate::schedule::{Arrival, Plan};
use crate::server::{Kind, Server};
use crate::validity::{Clocks, Validity};
use anyhow::{Context, Result, bail};
use reqwest::{Client, Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What is done to a server.
#[derive(Clone, Debug, Serialize)]
pub struct Shape {
    /// When what is sent.
    pub plan: Plan,
    /// Members of the room, senders and readers among them.
    pub members: u32,
    /// Devices with a parked long poll.
    pub readers: u32,
    /// The same traffic before, which is not measured.
    pub warm: Duration,
}

/// What one run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Block {
    /// Which server.
    pub kind: Kind,
    /// The schedule that it was put to.
    pub schedule_hash: String,
    /// From the start of its container to its first answer, in milliseconds.
    pub ready_ms: f64,
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
    token: String,
}

/// What readers see during one phase.
struct Watch {
    phase: &'static str,
    begin: Instant,
    ledger: Ledger,
    delivery: Latencies,
    troubles: BTreeMap<String, u64>,
    syncs: u64,
    gaps: u64,
}

type Shared = Arc<Mutex<Watch>>;

fn locked(shared: &Shared) -> MutexGuard<'_, Watch> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    fn new(phase: &'static str, readers: u32) -> Self {
        Self {
            phase,
            begin: Instant::now(),
            ledger: Ledger::new(readers),
            delivery: Latencies::default(),
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
            self.delivery
                .record(since(self.begin).saturating_sub(tag.at));
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

#[derive(Deserialize)]
struct Synced {
    next_batch: String,
    #[serde(default)]
    rooms: Rooms,
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
        if !status.is_success() {
            bail!("{}: answered {status}: {text}", what());
        }
        serde_json::from_str(&text).with_context(what)
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
            access_token: String,
        }
        let mut person = Self {
            client: client.clone(),
            base: base.clone(),
            token: String::new(),
        };
        let body = json!({"username": name, "password": "load", "auth": {"type": "m.login.dummy"}});
        person.token = person
            .call::<Registered>(Method::POST, &["register"], Some(&body))
            .await?
            .access_token;
        Ok(person)
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
        Ok(answer.json().await?)
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

/// How long deliveries may take after the last send.
const DRAIN: Duration = Duration::from_secs(30);

/// Sends one schedule and waits until everybody has seen everything, or nothing more comes.
async fn phase(
    arrivals: Vec<Arrival>,
    senders: &Arc<Vec<Person>>,
    room: &str,
    shared: &Shared,
    driven: &mut Driven,
) {
    let (name, begin) = {
        let watch = locked(shared);
        (watch.phase, watch.begin)
    };
    let (senders, room, watched) = (senders.clone(), Arc::<str>::from(room), shared.clone());
    let send = move |arrival: Arrival| {
        let (sender, room) = (senders[arrival.sender as usize].clone(), room.clone());
        async move { sender.say(&room, name, arrival).await }
    };
    drive(arrivals, begin, send, |sent| {
        driven.note(&sent);
        locked(&watched).ledger.sent(
            sent.arrival.seq,
            sent.sent,
            sent.answered,
            sent.came.outcome,
        );
    })
    .await;
    let deadline = Instant::now() + DRAIN;
    while !settled(&locked(shared).ledger, driven.accepted) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn settled(ledger: &Ledger, accepted: u64) -> bool {
    ledger.deliveries() >= accepted * ledger.devices() as u64 && ledger.complete()
}

/// Runs the shape on a server, until its end or until `stop` comes.
///
/// # Errors
/// The people could not be made, or the plan cannot be kept on this machine.
pub async fn run(server: &Server, shape: &Shape, stop: impl Future<Output = ()>) -> Result<Block> {
    let schedule = shape.plan.draw().map_err(anyhow::Error::msg)?;
    let talkers = shape.plan.senders + shape.readers;
    if shape.members < talkers {
        bail!("{talkers} senders and readers are members: give at least `--members {talkers}`");
    }
    enough_descriptors(u64::from(talkers))?;
    let (client, base) = (server.target.client()?, &server.target.url);
    let mut people = Vec::new();
    for number in 0..shape.members {
        people.push(
            Person::register(&client, base, &format!("load{number}"))
                .await
                .context("make the people")?,
        );
    }
    let room = gather(&people)
        .await
        .context("gather the people in a room")?;
    let idle = server.meter.look();

    let shared: Shared = Arc::new(Mutex::new(Watch::new("warm", shape.readers)));
    let mut readers = JoinSet::new();
    let senders = Arc::new(people[..shape.plan.senders as usize].to_vec());
    let reading = people
        .iter()
        .skip(shape.plan.senders as usize)
        .take(shape.readers as usize);
    for (number, person) in (0..).zip(reading) {
        let next = person
            .sync(None)
            .await
            .context("sync for the first time")?
            .next_batch;
        readers.spawn(read(
            person.clone(),
            number,
            room.clone(),
            next,
            shared.clone(),
        ));
    }
    let mut driven = Driven::default();
    let mut warmed = Driven::default();
    let mut stop = std::pin::pin!(stop);
    let mut interrupted = false;
    if !shape.warm.is_zero() {
        let warm = Plan {
            seed: shape.plan.seed ^ u64::MAX,
            length: shape.warm,
            ..shape.plan.clone()
        };
        let warm = warm
            .draw()
            .map_err(anyhow::Error::msg)
            .context("draw the traffic before")?;
        tokio::select! {
            () = phase(warm.arrivals, &senders, &room, &shared, &mut warmed) => {}
            () = &mut stop => interrupted = true,
        }
    }
    let (before, from) = (server.meter.look(), Clocks::read()?);
    *locked(&shared) = Watch::new("main", shape.readers);
    let scheduled = schedule.arrivals.len() as u64;
    if !interrupted {
        tokio::select! {
            () = phase(schedule.arrivals, &senders, &room, &shared, &mut driven) => {}
            () = &mut stop => interrupted = true,
        }
    }
    let (to, after) = (Clocks::read()?, server.meter.look());
    readers.abort_all();
    let watch = locked(&shared);
    let findings = watch.ledger.findings();
    let mut troubles = driven.troubles.clone();
    for (trouble, times) in &watch.troubles {
        *troubles.entry(trouble.clone()).or_default() += times;
    }
    let cpu = difference(&before, &after, |look| look.cpu_ns.as_ref())
        .map(|nanoseconds| nanoseconds / 1e9);
    let mut validity = Validity::judge(&driven, scheduled, &from, &to, cpu);
    if interrupted {
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
    Ok(Block {
        kind: server.kind,
        schedule_hash: schedule.hash,
        ready_ms: server.started.as_secs_f64() * 1e3,
        counts: watch.ledger.counts(),
        findings: findings.into_iter().take(20).collect(),
        troubles,
        acknowledged: driven.latency.quantiles(),
        delivered: watch.delivery.quantiles(),
        syncs: watch.syncs,
        gaps: watch.gaps,
        idle,
        before,
        after,
        validity,
        interrupted,
    })
}

async fn gather(people: &[Person]) -> Result<String> {
    #[derive(Deserialize)]
    struct Room {
        room_id: String,
    }
    let (first, others) = people.split_first().context("nobody is there")?;
    let body = json!({"preset": "public_chat", "room_version": "11"});
    let room = first
        .call::<Room>(Method::POST, &["createRoom"], Some(&body))
        .await?
        .room_id;
    for person in others {
        person
            .call::<Value>(Method::POST, &["join", &room], Some(&json!({})))
            .await?;
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
    of: impl Fn(&'a Look) -> Option<&'a crate::meter::Reading>,
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
        let mib = |look: &Look| look.pss.as_ref().map(|pss| pss.value as f64 / 1_048_576.0);
        let set = self
            .after
            .working_set
            .as_ref()
            .map(|set| set.value as f64 / 1_048_576.0);
        let method = |reading: Option<&crate::meter::Reading>| {
            reading.map_or("not had", |reading| reading.method)
        };
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
            cell("idle PSS", "MiB", mib(idle), 1, pss_method, true),
            cell("loaded PSS", "MiB", mib(after), 1, pss_method, true),
            cell(
                "working set",
                "MiB",
                set,
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

    /// For a person.
    pub fn lines(&self) -> String {
        let counts = &self.counts;
        let mut text = format!(
            "{}: {}\n  schedule {}; accepted {}, refused {}, unanswered {}; delivered {}, lost {}, duplicated {}, reordered {}, \
             alien {}; {} syncs, {} gaps filled\n",
            self.kind.name(),
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
}
