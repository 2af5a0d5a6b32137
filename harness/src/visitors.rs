//! Visitors use a site while something is done to it, and should see a pause at most: each account speaks at a steady
//! pace and follows the conversation, and somebody asks for the API every 10 ms.

use crate::client::Client;
use crate::failure::{Failure, OrBlame, Result};
use crate::rehearse::Fleet;
use crate::site::Site;
use crate::verdict::Blame;
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Messages a second, of all together.
pub const PACE: u32 = 20;
/// Time between two questions for the API.
const PULSE: Duration = Duration::from_millis(10);

/// See the module.
pub struct Visitors {
    enough: Arc<AtomicBool>,
    /// How many messages of each were acknowledged.
    spoken: Vec<watch::Receiver<usize>>,
    seen: JoinSet<Seen>,
}

/// What the visitors saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What was acknowledged, by who said it, in the order in which it was said: the next only after the answer.
    pub said: BTreeMap<String, Vec<Said>>,
    /// Every request that was refused or not answered.
    pub failed: Vec<String>,
    /// How often the API was asked for and `/sync` answered.
    pub polls: u64,
    /// See `polls`.
    pub syncs: u64,
    /// The longest time without an answer, of those who ask for the API and of those who speak.
    pub pause: Duration,
}

/// A message that the site acknowledged.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its id.
    pub event: OwnedEventId,
    /// What it says; nobody says the same twice.
    pub text: String,
    /// When the answer was there.
    pub at: Instant,
}

impl Visitors {
    /// They come, and speak in this room under this word until they are stopped.
    pub fn come(site: &Site, fleet: &Fleet, room: &RoomId, word: &str) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let mut seen = JoinSet::new();
        let mut spoken = Vec::new();
        let cast = u32::try_from(fleet.clients.len()).unwrap_or(1);
        for (number, client) in (0..).zip(&fleet.clients) {
            let begin = Duration::from_secs(1) * number / PACE;
            let every = Duration::from_secs(1) * cast / PACE;
            let (aloud, heard) = watch::channel(0);
            spoken.push(heard);
            let what = Speech {
                room: room.to_owned(),
                word: word.to_owned(),
                begin,
                every,
                aloud,
            };
            seen.spawn(speak(client.clone(), what, enough.clone()));
            seen.spawn(follow(client.clone(), enough.clone()));
        }
        let url = format!("{}/_matrix/client/versions", site.base_url());
        seen.spawn(ask(site.http().clone(), url, enough.clone()));
        Self {
            enough,
            spoken,
            seen,
        }
    }

    /// Waits until so many messages of each were acknowledged.
    ///
    /// # Errors
    /// When they are not after half a minute.
    pub async fn have_spoken(&mut self, times: usize) -> Result<()> {
        let each = self.spoken.iter_mut();
        let all = each.map(|heard| heard.wait_for(|spoken| *spoken >= times));
        tokio::time::timeout(
            Duration::from_secs(30),
            futures_util::future::try_join_all(all),
        )
        .await
        .or_blame(Blame::Deployment, || {
            format!("take {times} messages of each visitor")
        })?
        .or_harness(|| "hear of what was said".to_owned())?;
        Ok(())
    }

    /// Lets each finish what it is at: what they saw together.
    pub async fn leave(mut self) -> Seen {
        self.enough.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        while let Some(seen) = self.seen.join_next().await {
            match seen {
                Ok(seen) => all.add(seen),
                Err(error) => all.failed.push(format!("a visitor broke off: {error}")),
            }
        }
        all
    }
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.said.extend(other.said);
        self.failed.extend(other.failed);
        self.polls += other.polls;
        self.syncs += other.syncs;
        self.pause = self.pause.max(other.pause);
    }

    /// How many messages were acknowledged.
    pub fn count(&self) -> usize {
        self.said.values().map(Vec::len).sum()
    }

    /// Nothing failed, and everybody had something to do.
    ///
    /// # Errors
    /// Every request that failed; or that there was no load, and nothing is known.
    pub fn unnoticed(&self) -> Result<()> {
        if !self.failed.is_empty() {
            let first: Vec<_> = self.failed.iter().take(20).cloned().collect();
            return Err(Failure::deployment(format!(
                "let no request fail: {} of {} failed",
                self.failed.len(),
                self.failed.len() as u64 + self.polls + self.syncs + self.count() as u64
            ))
            .last_seen(first.join("\n")));
        }
        if self.polls == 0
            || self.syncs == 0
            || self.said.is_empty()
            || self.said.values().any(Vec::is_empty)
        {
            return Err(Failure::environment(
                "load the site: somebody had nothing to say or to read",
            )
            .last_seen(format!("{self:?}")));
        }
        Ok(())
    }

    /// Everything that was acknowledged is in the room, once.
    ///
    /// # Errors
    /// What is missing, and what is there more than once.
    pub async fn all_there_once(&self, reader: &Client, room: &RoomId) -> Result<()> {
        let count = texts(reader, room).await?;
        let wrong: Vec<_> = self
            .said
            .values()
            .flatten()
            .filter_map(
                |said| match count.get(&said.text).copied().unwrap_or_default() {
                    1 => None,
                    times => Some(format!(
                        "`{}` ({}) is there {times} times",
                        said.text, said.event
                    )),
                },
            )
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(
            Failure::deployment(format!("keep each of {} messages once", self.count()))
                .last_seen(wrong.join("\n")),
        )
    }

    /// Of each who spoke everything up to some message is in the room and nothing after it, and what was acknowledged
    /// before `moment` is among it.
    ///
    /// # Errors
    /// What is missing before something that is there, or before the moment.
    pub async fn there_without_gap(
        &self,
        reader: &Client,
        room: &RoomId,
        moment: Instant,
    ) -> Result<()> {
        let count = texts(reader, room).await?;
        let mut missing = Vec::new();
        for said in self.said.values() {
            let last = said.iter().rposition(|said| count.contains_key(&said.text));
            for (place, said) in said.iter().enumerate() {
                let due = said.at < moment || last.is_some_and(|last| place < last);
                if due && !count.contains_key(&said.text) {
                    missing.push(format!("`{}` ({})", said.text, said.event));
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::deployment("leave no gap in what was acknowledged")
            .last_seen(missing.join("\n")))
    }
}

/// How often each text was said in a room.
async fn texts(reader: &Client, room: &RoomId) -> Result<BTreeMap<String, usize>> {
    let mut count = BTreeMap::new();
    for event in reader.messages(room).await? {
        if let Some(text) = event.content["body"].as_str() {
            *count.entry(text.to_owned()).or_default() += 1;
        }
    }
    Ok(count)
}

/// What somebody has to say.
struct Speech {
    room: OwnedRoomId,
    word: String,
    begin: Duration,
    every: Duration,
    aloud: watch::Sender<usize>,
}

async fn speak(client: Client, what: Speech, enough: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let mut said = Vec::new();
    let mut pulse = tokio::time::interval_at(tokio::time::Instant::now() + what.begin, what.every);
    // What was held up is said afterwards: the pace is that of the day, not of the site.
    pulse.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut number = 0_u32;
    while !enough.load(Ordering::Relaxed) {
        pulse.tick().await;
        number += 1;
        let text = format!("{} {number} of {}", what.word, client.user_id());
        let asked = Instant::now();
        match client
            .try_say(&what.room, &text)
            .await
            .and_then(|answer| answer.must())
        {
            Ok(event) => {
                said.push(Said {
                    event,
                    text,
                    at: Instant::now(),
                });
                what.aloud.send_replace(said.len());
            }
            Err(failure) => seen.failed.push(format!("say `{text}`: {failure}")),
        }
        seen.pause = seen.pause.max(asked.elapsed());
    }
    seen.said.insert(client.user_id().to_string(), said);
    seen
}

async fn follow(client: Client, enough: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let mut since: Option<String> = None;
    while !enough.load(Ordering::Relaxed) {
        let poll = client.try_sync(since.as_deref(), Duration::from_secs(10), None);
        match poll.await.and_then(|answer| answer.must()) {
            Ok(answer) => {
                since = Some(answer.next_batch);
                seen.syncs += 1;
            }
            Err(failure) => seen
                .failed
                .push(format!("sync of {}: {failure}", client.user_id())),
        }
    }
    seen
}

async fn ask(http: reqwest::Client, url: String, enough: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    let mut pulse = tokio::time::interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    while !enough.load(Ordering::Relaxed) {
        pulse.tick().await;
        // To its end: answers that are left lying make the connection give up after a thousand of them.
        let asked = async {
            let request = http.get(&url).timeout(Duration::from_secs(30));
            request.send().await?.error_for_status()?.bytes().await
        };
        match asked.await {
            Ok(_) => {
                seen.pause = seen.pause.max(last.elapsed());
                last = Instant::now();
                seen.polls += 1;
            }
            Err(error) => seen.failed.push(format!("ask for the API: {error}")),
        }
    }
    seen
}
