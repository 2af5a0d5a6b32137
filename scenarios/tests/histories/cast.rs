//! One history on real servers: who is on stage, what they do, what is written down, and how it is judged.

use crate::act::{Act, EVERYBODY, Trouble, Who};
use crate::oracle::Oracle;
use fleet_history::{
    Anomaly, Deed, Finding, Judgement, Membership, Outcome as Came, Record, Verdict, check,
};
use harness::client::{self, Answer, Client, Event, Line, Log, NewRoom};
use harness::commons::Scene;
use harness::fault::{Fault, Part};
use harness::faulty::{Faulty, Mutant};
use harness::history::{Broken, record};
use harness::probe::{self, ProbeState};
use harness::{Failure, OrBlame, Result};
use reqwest::Method;
use ruma::{OwnedRoomId, OwnedServerName, UserId};
use scenarios::ear::Ear;
use scenarios::{encoded, product};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long an event may take from one server to the other.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same after a trouble: connections that were cut off come to life again by and by.
const LONG_PATIENCE: Duration = Duration::from_secs(25);

/// Who is on stage in one history.
pub struct Cast<'a> {
    scene: &'a Scene<'a>,
    log: Log,
    pub alice: Client,
    pub bob: Client,
    pub charlie: Client,
    pub garden: OwnedRoomId,
    ears: tokio::sync::Mutex<Vec<Ear>>,
    broken: Mutex<Vec<Broken>>,
    apart: AtomicBool,
    counter: AtomicUsize,
    /// Where a server and the rules disagree about who may do what.
    disputes: Mutex<Vec<String>>,
    _proxy: Option<Faulty>,
}

/// What a history came to.
pub struct Judged {
    pub judgement: Judgement,
    pub disputes: Vec<String>,
    /// What is known of the home, and happened again; claims of their own see to it that it does.
    pub known: Vec<String>,
}

impl Judged {
    /// What is wrong, by name: of several the first.
    pub fn wrong(&self) -> Option<&str> {
        let found = self
            .judgement
            .findings
            .first()
            .map(|finding| finding.name.word());
        found.or_else(|| self.disputes.first().map(|_| "dispute"))
    }

    pub fn verdict(&self) -> Verdict {
        match self.wrong() {
            Some(_) => Verdict::Fail,
            None => self.judgement.verdict(),
        }
    }

    /// Why, in sentences.
    pub fn told(&self) -> String {
        format!("{}{}", self.judgement, self.disputes.join("\n"))
    }
}

impl<'a> Cast<'a> {
    /// Everybody new, in a new room of alice's.
    pub async fn on(scene: &'a Scene<'a>, mutant: Option<Mutant>) -> Result<Self> {
        let log = Log::default();
        let what = || "make an HTTP client".to_owned();
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .or_harness(what)?;
        let proxy = match mutant {
            Some(mutant) => Some(Faulty::start(mutant, scene.base(), http.clone()).await?),
            None => None,
        };
        let base = proxy
            .as_ref()
            .map_or(scene.base(), |proxy| &proxy.base)
            .to_owned();
        let elsewhere = scene.abroad();
        let (alice, bob, charlie) = (
            scene.cast("alice").await?,
            scene.cast("bob").await?,
            elsewhere.cast("charlie").await?,
        );
        let home = || Line::recorded(http.clone(), log.clone());
        let (alice, bob) = (alice.at(home(), &base), bob.at(home(), &base));
        let there = elsewhere.site();
        let line = Line::recorded(there.http().clone(), log.clone());
        let charlie = charlie.at(line, &there.base_url());
        let mut ears: Vec<_> = [&alice, &bob, &charlie]
            .map(|client| Ear::of(client, None))
            .into();
        for ear in &mut ears {
            ear.hear(None).await?;
        }
        let room = NewRoom {
            public: true,
            ..NewRoom::from("garden")
        }
        .version("11");
        let garden = alice.create_room(room).await?;
        let cast = Self {
            scene,
            log,
            alice,
            bob,
            charlie,
            garden,
            ears: tokio::sync::Mutex::new(ears),
            broken: Mutex::default(),
            apart: AtomicBool::new(false),
            counter: AtomicUsize::new(0),
            disputes: Mutex::default(),
            _proxy: proxy,
        };
        for guest in [&cast.bob, &cast.charlie] {
            let answer = cast.try_join(guest).await?;
            answer.must()?;
            cast.settles(None).await?;
        }
        Ok(cast)
    }

    fn client(&self, who: Who) -> &Client {
        match who {
            Who::Alice => &self.alice,
            Who::Bob => &self.bob,
            Who::Charlie => &self.charlie,
        }
    }

    fn number(&self) -> usize {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Joins the room, by the way of its home.
    pub async fn try_join(&self, who: &Client) -> Result<Answer<OwnedRoomId>, client::Failure> {
        let via: Vec<OwnedServerName> = vec![self.alice.user_id().server_name().to_owned()];
        who.try_join_via(self.garden.as_str(), &via).await
    }

    /// Sets the topic.
    pub async fn try_topic(
        &self,
        who: &Client,
        topic: &str,
    ) -> Result<Answer<ruma::OwnedEventId>, client::Failure> {
        who.try_send_state(&self.garden, "m.room.topic", "", &json!({"topic": topic}))
            .await
    }

    /// Sets somebody's power level.
    pub async fn try_level(
        &self,
        who: &Client,
        of: &UserId,
        level: i64,
    ) -> Result<Answer<ruma::OwnedEventId>, client::Failure> {
        let content = self.level(who, of, level).await;
        who.try_send_state(&self.garden, "m.room.power_levels", "", &content)
            .await
    }

    async fn level(&self, who: &Client, of: &UserId, level: i64) -> Value {
        let levels = who.room_state(&self.garden).await.unwrap_or_default();
        let mut content = Oracle::of(&self.garden, &levels).content("m.room.power_levels", "");
        content["users"][of.as_str()] = level.into();
        content
    }

    /// Redacts what somebody said last.
    pub async fn try_redact_last(
        &self,
        who: &Client,
        of: &UserId,
    ) -> Result<Answer<ruma::OwnedEventId>, client::Failure> {
        let said = self
            .last_of(of)
            .unwrap_or_else(|| ruma::owned_event_id!("$nothing"));
        who.try_redact(&self.garden, &said, "enough").await
    }

    fn last_of(&self, of: &UserId) -> Option<ruma::OwnedEventId> {
        let sent = |operation: &fleet_history::Operation| match &operation.deed {
            Deed::Send {
                kind,
                event: Some(event),
                ..
            } if kind == "m.room.message" && operation.who == *of => {
                ruma::OwnedEventId::try_from(event.as_str()).ok()
            }
            _ => None,
        };
        self.record().operations.iter().rev().find_map(sent)
    }

    /// Something is broken for a while.
    pub async fn during(
        &self,
        trouble: Trouble,
        body: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<()> {
        let (home, elsewhere) = (self.scene.site(), self.scene.abroad());
        let fault = match trouble {
            Trouble::Cut => Fault::cut(home, elsewhere.site()),
            Trouble::Restart => Fault::restarted(home, Part::Homeserver),
            Trouble::Kill => Fault::killed(home, Part::Homeserver),
        };
        let began = Instant::now();
        self.apart.store(true, Ordering::Relaxed);
        let outcome = self.scene.world().during(&fault, body).await;
        self.apart.store(false, Ordering::Relaxed);
        let mut broken = self
            .broken
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        broken.push((fault.to_string(), began, Instant::now()));
        outcome
    }

    /// Does all of it, one after the other, and judges it.
    pub async fn plays(&self, acts: &[Act]) -> Result<Judged> {
        for act in acts {
            match act {
                Act::During(trouble, acts) => {
                    self.during(*trouble, async || {
                        for act in acts {
                            self.plays_one(act, *trouble == Trouble::Cut).await?;
                        }
                        Ok(())
                    })
                    .await?;
                    self.insists().await?;
                    self.settles(None).await?;
                }
                act => self.plays_one(act, true).await?,
            }
        }
        self.comes_out().await
    }

    async fn plays_one(&self, act: &Act, predictable: bool) -> Result<()> {
        let garden = &self.garden;
        let id = |who: &Who| self.client(*who).user_id();
        match act {
            Act::Say(who, times) => {
                for _ in 0..*times {
                    let text = format!("number {}", self.number());
                    let oracle = self.oracle(*who, predictable).await;
                    let content = json!({"msgtype": "m.text", "body": text});
                    let came = came(&self.client(*who).try_say(garden, &text).await);
                    self.compare(
                        act,
                        oracle.as_ref(),
                        id(who),
                        ("m.room.message", None, &content),
                        came,
                    );
                }
                return Ok(());
            }
            Act::Topic(who) => {
                let oracle = self.oracle(*who, predictable).await;
                let topic = format!("topic {}", self.number());
                let came = came(&self.try_topic(self.client(*who), &topic).await);
                self.compare(
                    act,
                    oracle.as_ref(),
                    id(who),
                    ("m.room.topic", Some(""), &json!({"topic": topic})),
                    came,
                );
            }
            Act::Level(who, of, level) => {
                let oracle = self.oracle(*who, predictable).await;
                let content = self.level(self.client(*who), id(of), *level).await;
                let answer = self
                    .client(*who)
                    .try_send_state(garden, "m.room.power_levels", "", &content)
                    .await;
                self.compare(
                    act,
                    oracle.as_ref(),
                    id(who),
                    ("m.room.power_levels", Some(""), &content),
                    came(&answer),
                );
            }
            Act::Redact(by, of) => {
                let oracle = self.oracle(*by, predictable).await;
                let Some(said) = self.last_of(id(of)) else {
                    return Ok(());
                };
                let came = came(&self.client(*by).try_redact(garden, &said, "enough").await);
                // Of another's, a server may refuse at once or make an event that has no effect.
                let oracle = oracle.filter(|_| by == of);
                let content = json!({"redacts": said});
                self.compare(
                    act,
                    oracle.as_ref(),
                    id(by),
                    ("m.room.redaction", None, &content),
                    came,
                );
                return Ok(());
            }
            Act::Join(who) => {
                self.plays_member(act, *who, *who, "join", predictable)
                    .await
            }
            Act::Leave(who) => {
                self.plays_member(act, *who, *who, "leave", predictable)
                    .await
            }
            Act::Invite(by, of) => {
                self.plays_member(act, *by, *of, "invite", predictable)
                    .await
            }
            Act::Kick(by, of) | Act::Unban(by, of) => {
                self.plays_member(act, *by, *of, "leave", predictable).await
            }
            Act::Ban(by, of) => self.plays_member(act, *by, *of, "ban", predictable).await,
            Act::During(..) => {
                return Err(Failure::harness(
                    "break something while something is broken",
                ));
            }
        }
        if self.apart.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.settles(None).await
    }

    async fn plays_member(&self, act: &Act, by: Who, of: Who, membership: &str, predictable: bool) {
        let (client, garden) = (self.client(by), &self.garden);
        let user = self.client(of).user_id();
        let oracle = self.oracle(by, predictable).await;
        let came = match act {
            Act::Join(_) => came(&self.try_join(client).await),
            Act::Leave(_) => came(&client.try_leave(garden).await),
            Act::Invite(..) => came(&client.try_invite(garden, user).await),
            Act::Kick(..) => came(&client.try_kick(garden, user).await),
            Act::Unban(..) => came(&client.try_unban(garden, user).await),
            _ => came(&client.try_ban(garden, user).await),
        };
        // What changes nothing a server may refuse or nod through; whoever kicks himself leaves.
        let idle = |oracle: &Oracle| {
            let now = oracle.membership(user);
            now == membership
                || (matches!(act, Act::Kick(..) | Act::Leave(_))
                    && !matches!(&*now, "join" | "invite"))
                || (matches!(act, Act::Unban(..)) && now != "ban")
                || (by == of && !matches!(act, Act::Join(_) | Act::Leave(_)))
        };
        let oracle = oracle.filter(|oracle| !idle(oracle));
        let content = json!({"membership": membership});
        self.compare(
            act,
            oracle.as_ref(),
            client.user_id(),
            ("m.room.member", Some(user.as_str()), &content),
            came,
        );
    }

    /// The rules, with the state that the server of the one who acts goes by.
    async fn oracle(&self, who: Who, predictable: bool) -> Option<Oracle> {
        let apart = self.apart.load(Ordering::Relaxed);
        let near = |other: &&Who| other.at_home() == who.at_home();
        let far = |other: &&Who| !near(other) && !apart;
        let readers = EVERYBODY
            .iter()
            .filter(near)
            .chain(EVERYBODY.iter().filter(far));
        for reader in readers.filter(|_| predictable) {
            if let Some(state) = self.state(*reader).await {
                return Some(Oracle::of(&self.garden, &state));
            }
        }
        None
    }

    /// The state, if he is in the room.
    async fn state(&self, who: Who) -> Option<Vec<Event>> {
        let client = self.client(who);
        let state = client
            .try_room_state(&self.garden)
            .await
            .ok()?
            .outcome
            .ok()?;
        let oracle = Oracle::of(&self.garden, &state);
        (oracle.membership(client.user_id()) == "join").then_some(state)
    }

    fn compare(
        &self,
        act: &Act,
        oracle: Option<&Oracle>,
        sender: &UserId,
        (kind, key, content): (&str, Option<&str>, &Value),
        came: Came,
    ) {
        let Some(oracle) = oracle else { return };
        let allowed = oracle.allows(sender, kind, key, content);
        let dispute = match (&allowed, came) {
            (Ok(()), Came::Refused) => format!("{act:?} is allowed by the rules, and was refused"),
            (Err(reason), Came::Ok) => {
                format!("{act:?} is forbidden by the rules, and was accepted: {reason}")
            }
            _ => return,
        };
        let mut disputes = self
            .disputes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        disputes.push(dispute);
    }

    /// Returns once both servers hold the same state, and everybody has been told what there is to tell; or after a while, for
    /// the checker to judge.
    async fn settles(&self, limit: Option<Duration>) -> Result<()> {
        let limit = limit.unwrap_or(if self.troubled() {
            LONG_PATIENCE
        } else {
            PATIENCE
        });
        let agree = probe::until("both servers hold the same state", limit, async || {
            let home = match self.state(Who::Alice).await {
                None => self.state(Who::Bob).await,
                home => home,
            };
            let there = self.state(Who::Charlie).await;
            let ids = |state: &[Event]| {
                state
                    .iter()
                    .map(|event| event.event_id.clone())
                    .collect::<HashSet<_>>()
            };
            match (home, there) {
                (Some(home), Some(there)) if ids(&home) != ids(&there) => {
                    ProbeState::NotYet(format!("{home:?}\n{there:?}"))
                }
                (Some(home), None)
                    if Oracle::of(&self.garden, &home).membership(self.charlie.user_id())
                        == "join" =>
                {
                    ProbeState::NotYet("charlie does not know that he is in".to_owned())
                }
                _ => ProbeState::Ready(()),
            }
        });
        // The checker says so, by name.
        let _ = agree.await;
        self.all_hear().await
    }

    fn troubled(&self) -> bool {
        !self
            .broken
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .is_empty()
    }

    async fn all_hear(&self) -> Result<()> {
        for ear in self.ears.lock().await.iter_mut() {
            ear.hear(Some(&self.garden)).await?;
        }
        Ok(())
    }

    /// Whatever had no answer is done again, as clients do: under the same transaction id it is the same.
    async fn insists(&self) -> Result<()> {
        for operation in self.record().operations {
            if operation.outcome != Came::Indefinite {
                continue;
            }
            let Some(client) = EVERYBODY
                .map(|who| self.client(who))
                .into_iter()
                .find(|client| client.user_id().as_str() == operation.who)
            else {
                continue;
            };
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
            let garden = &self.garden;
            // The record has what comes of it.
            match &operation.deed {
                Deed::Send {
                    kind, marker, txn, ..
                } if kind == "m.room.redaction" => {
                    let path = format!(
                        "/_matrix/client/v3/rooms/{}/redact/{}/{txn}",
                        encoded(garden.as_str()),
                        encoded(marker)
                    );
                    let _ = client.try_raw(Method::PUT, &path, Some(&json!({}))).await;
                }
                Deed::Send {
                    kind, marker, txn, ..
                } => {
                    let _ = client
                        .try_send_again(garden, kind, &parsed(marker), txn.as_str().into())
                        .await;
                }
                Deed::State {
                    kind, key, marker, ..
                } => {
                    let _ = client
                        .try_send_state(garden, kind, key, &parsed(marker))
                        .await;
                }
                Deed::Member {
                    user, membership, ..
                } => {
                    let user = UserId::parse(user).or_harness(|| format!("name `{user}`"))?;
                    match membership {
                        Membership::Join => _ = self.try_join(client).await,
                        Membership::Leave if user == client.user_id() => {
                            _ = client.try_leave(garden).await
                        }
                        Membership::Leave => _ = client.try_kick(garden, &user).await,
                        Membership::Invite => _ = client.try_invite(garden, &user).await,
                        Membership::Ban => _ = client.try_ban(garden, &user).await,
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn record(&self) -> Record {
        let broken = self
            .broken
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let patience = if broken.is_empty() {
            PATIENCE
        } else {
            LONG_PATIENCE
        };
        record(&[&self.log], &broken, patience)
    }

    /// Everybody takes leave, and listens until all is told or nothing more may come.
    pub async fn comes_out(&self) -> Result<Judged> {
        self.insists().await?;
        // A server that was out of reach is tried again when there is something new for it: known as `no-retry-timer`.
        for who in EVERYBODY {
            let _ = self
                .client(who)
                .try_say(&self.garden, &format!("goodbye of {}", who.name()))
                .await;
        }
        let deadline = Instant::now()
            + Duration::from_secs(2)
            + if self.troubled() {
                LONG_PATIENCE
            } else {
                PATIENCE
            };
        loop {
            self.settles(Some(Duration::from_secs(2))).await?;
            for who in EVERYBODY {
                // Refused to who is not in: the record says so.
                let _ = self.client(who).messages(&self.garden).await;
            }
            let record = self.record();
            let (judgement, known) = self.without_known(check(&record));
            // What is found stays found; what is open may yet be decided.
            if judgement.verdict() != Verdict::Unknown || Instant::now() > deadline {
                let disputes = self
                    .disputes
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .clone();
                return Ok(Judged {
                    judgement,
                    disputes,
                    known,
                });
            }
        }
    }

    /// Sorts out what is known of Conduit, see `left-without-timeline` and `sync-repeats`: the history goes on around it.
    fn without_known(&self, mut judgement: Judgement) -> (Judgement, Vec<String>) {
        let home = [&self.alice, &self.bob].map(|client| client.user_id().as_str());
        let is_known = |finding: &Finding| {
            self.scene.server().is_conduit()
                && matches!(finding.name, Anomaly::LostOnLeaving | Anomaly::Repeated)
                && home.iter().any(|user| finding.told.contains(user))
        };
        let known = judgement
            .findings
            .extract_if(.., |finding| is_known(finding));
        let known = known
            .map(|finding| format!("{}: {}", finding.name.word(), finding.told))
            .collect();
        (judgement, known)
    }

    /// The end of a scenario that was printed: it must come out as it does on a server without a fault.
    pub async fn must_come_out(&self) -> Result<()> {
        let judged = self.comes_out().await?;
        product(
            judged.wrong().is_none(),
            "tell everybody everything once, in order, and nobody anything else",
            judged.told(),
        )
    }
}

/// What came of it, as far as the rules are concerned: who is not reached has not refused.
fn came<T>(answer: &Result<Answer<T>, client::Failure>) -> Came {
    match answer {
        Ok(answer) if answer.accepted() => Came::Ok,
        Ok(answer) if answer.status < 500 => Came::Refused,
        _ => Came::Indefinite,
    }
}
