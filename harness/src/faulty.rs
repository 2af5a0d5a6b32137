//! A proxy that is wrong on purpose, in one way at a time. It stands between a client and a server that is right, and
//! every check that it should fool must fail: a check that no fault fails has proved nothing.

mod relay;

use crate::failure::{OrBlame, Result};
use crate::intercept::{Answer, Intercept, Interceptor, Question, Reply, Way};
use hyper::header::{AUTHORIZATION, HeaderValue, SET_COOKIE};
use hyper::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::task::AbortHandle;

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mutant {
    /// The control: no fault at all. Whatever fails behind it fails because of the proxy and not because of a fault.
    ChangesNothing,
    /// Every fifth message is answered as accepted, and lost.
    DropsMessages,
    /// Every message is sent again under another transaction id.
    DuplicatesMessages,
    /// Timelines of syncs come newest first.
    ReordersTimelines,
    /// No timeline says that it is limited.
    StripsLimited,
    /// No sync tells state outside of timelines.
    StripsState,
    /// To-device messages are answered as accepted, and lost.
    DropsToDevice,
    /// Redactions are answered as accepted, and not made.
    IgnoresRedactions,
    /// Refusals with 403 become empty successes, without the deed.
    ForgivesForbidden,
    /// Refusals with 401 become empty successes.
    ForgivesBadTokens,
    /// Logging out is answered as done, and not done.
    ForgetsLogouts,
    /// Who asks for something under another user's name is given it as that user.
    ServesOthersData,
    /// Whoever asks for media without a token is given it as somebody who has one.
    ServesMediaToAnybody,
    /// The last byte of every download is missing.
    TruncatesMedia,
    /// Every download may be shown inline.
    ShowsMediaInline,
    /// No answer is for web clients of other origins.
    StripsCors,
    /// Escaped slashes are unescaped on the way.
    UnescapesSlashes,
    /// Integers beyond 2^53 - 2 are rounded.
    RoundsIntegers,
    /// A poll is answered only when its time is over.
    SleepsThroughPolls,
    /// Polls are cut off after a second.
    CutsPolls,
    /// Refusals of what is malformed or too large, and breakdowns over it, become empty successes.
    TakesAnything,
    /// What does not exist is answered as an empty success.
    FindsEverything,
    /// Of two `Authorization` headers the last one counts.
    PrefersTheLastToken,
    /// Every device was last seen where its user says that he is.
    BelievesForwarded,
    /// The body of a message that is read comes twice.
    DoublesKeys,
    /// Account data and profiles are answered as stored, and lost.
    ForgetsWhatIsStored,
    /// Leaving is answered as done, and not done.
    KeepsWhoLeft,
    /// A file's name is told as it was given, whatever is in it.
    TellsNamesAsGiven,
    /// The control for what is sent as bare bytes: none is changed.
    PassesBytes,
    /// Doubled slashes and steps up are taken out of paths.
    TidiesPaths,
    /// All clients share one connection to the server, and a length is believed as announced.
    SharesOneConnection,
}

impl Mutant {
    /// What it is called.
    pub fn word(self) -> String {
        let json = serde_json::to_value(self).unwrap_or_default();
        json.as_str().unwrap_or_default().to_owned()
    }

    /// The proxy of this kind that has no fault.
    pub fn control(self) -> Self {
        if self.is_about_bytes() {
            Self::PassesBytes
        } else {
            Self::ChangesNothing
        }
    }

    /// Whether it is no fault at all.
    pub fn is_control(self) -> bool {
        self == self.control()
    }

    fn is_about_bytes(self) -> bool {
        matches!(
            self,
            Self::PassesBytes | Self::TidiesPaths | Self::SharesOneConnection
        )
    }
}

/// The proxy; it ends when it is dropped.
pub struct Faulty {
    /// Where it listens, as a base URL.
    pub base: String,
    _listener: Listener,
}

enum Listener {
    Requests(#[expect(dead_code, reason = "held for its end")] Interceptor),
    Bytes(AbortHandle),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Bytes(task) = self {
            task.abort();
        }
    }
}

struct State {
    mutant: Mutant,
    counter: AtomicU64,
    /// The newest token of every user who logged in through here.
    tokens: Mutex<BTreeMap<String, String>>,
}

impl Faulty {
    /// Listens on loopback, in front of `target`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(mutant: Mutant, target: &str, http: reqwest::Client) -> Result<Self> {
        if mutant.is_about_bytes() {
            let what = || format!("start the proxy that {}", mutant.word());
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
                .await
                .or_environment(what)?;
            let base = format!("http://{}", listener.local_addr().or_environment(what)?);
            let task = tokio::spawn(relay::carry(mutant, listener, target)?);
            let _listener = Listener::Bytes(task.abort_handle());
            return Ok(Self { base, _listener });
        }
        let state = State {
            mutant,
            counter: AtomicU64::new(0),
            tokens: Mutex::default(),
        };
        let interceptor = Interceptor::start(target, http, state).await?;
        Ok(Self {
            base: interceptor.base.clone(),
            _listener: Listener::Requests(interceptor),
        })
    }
}

impl Intercept for State {
    async fn answer(&self, mut question: Question, way: &Way) -> reqwest::Result<Reply> {
        if let Some(answer) = self.instead(&question) {
            return Ok(Reply::Answer(answer));
        }
        self.change(&mut question);
        if self.mutant == Mutant::DuplicatesMessages && is_message(&question) {
            let mut again = question.clone();
            again.path += "-again";
            way.forward(&again).await?;
        }
        let began = tokio::time::Instant::now();
        let mut answer = way.forward(&question).await?;
        if self.mutant == Mutant::SleepsThroughPolls
            && let Some(time) = poll_of(&question)
        {
            tokio::time::sleep_until(began + time).await;
        }
        self.remember(&question, &answer);
        self.spoil(&question, &mut answer);
        Ok(Reply::Answer(answer))
    }
}

impl State {
    /// What is answered without asking the server at all.
    fn instead(&self, question: &Question) -> Option<Answer> {
        let nth = || self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        let accepted = |body: Value| {
            Some(Answer {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: body.to_string().into(),
            })
        };
        let event = |number: u64| json!({"event_id": format!("$lost{number}")});
        match self.mutant {
            Mutant::DropsMessages if is_message(question) => Some(nth())
                .filter(|number| number % 5 == 0)
                .and_then(|number| accepted(event(number))),
            Mutant::DropsToDevice if question.path.contains("/sendToDevice/") => {
                accepted(json!({}))
            }
            Mutant::IgnoresRedactions if question.path.contains("/redact/") => {
                accepted(event(nth()))
            }
            Mutant::ForgetsLogouts if question.path.contains("/logout") => accepted(json!({})),
            Mutant::KeepsWhoLeft if question.path.ends_with("/leave") => accepted(json!({})),
            Mutant::ForgetsWhatIsStored
                if question.method == Method::PUT
                    && ["/account_data/", "/profile/"]
                        .iter()
                        .any(|kind| question.path.contains(kind)) =>
            {
                accepted(json!({}))
            }
            _ => None,
        }
    }

    /// What is asked otherwise.
    fn change(&self, question: &mut Question) {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = match self.mutant {
            Mutant::ServesOthersData => {
                let owner = |(user, _): &(&String, &String)| {
                    question.path.contains(&format!("/user/{user}/"))
                };
                tokens.iter().find(owner).map(|(_, token)| token)
            }
            Mutant::ServesMediaToAnybody
                if question.path.contains("/media/")
                    && !question.headers.contains_key(AUTHORIZATION) =>
            {
                tokens.values().next()
            }
            _ => None,
        };
        if let Some(value) = token.and_then(|token| format!("Bearer {token}").parse().ok()) {
            question.headers.insert(AUTHORIZATION, value);
        }
        if self.mutant == Mutant::UnescapesSlashes {
            question.path = question.path.replace("%2F", "/");
        }
        if self.mutant == Mutant::PrefersTheLastToken
            && let Some(last) = question.headers.get_all(AUTHORIZATION).iter().next_back()
        {
            let last = last.clone();
            question.headers.insert(AUTHORIZATION, last);
        }
        if self.mutant == Mutant::CutsPolls
            && let Some((before, after)) = question.path.split_once("timeout=")
        {
            let after = after.trim_start_matches(|char: char| char.is_ascii_digit());
            question.path = format!("{before}timeout=1000{after}");
        }
    }

    fn remember(&self, question: &Question, answer: &Answer) {
        if !question.path.ends_with("/login") {
            return;
        }
        let Ok(session) = serde_json::from_slice::<Value>(&answer.body) else {
            return;
        };
        if let (Some(user), Some(token)) = (
            session["user_id"].as_str(),
            session["access_token"].as_str(),
        ) {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.insert(
                user.replace('@', "%40").replace(':', "%3A"),
                token.to_owned(),
            );
        }
    }

    /// What is told otherwise.
    fn spoil(&self, question: &Question, answer: &mut Answer) {
        let downloads =
            question.method == Method::GET && question.path.contains("/media/download/");
        match self.mutant {
            Mutant::ForgivesForbidden if answer.status == StatusCode::FORBIDDEN => forgive(answer),
            Mutant::ForgivesBadTokens if answer.status == StatusCode::UNAUTHORIZED => {
                forgive(answer)
            }
            Mutant::TakesAnything if matches!(answer.status.as_u16(), 400 | 413 | 500..=599) => {
                forgive(answer)
            }
            Mutant::FindsEverything if answer.status == StatusCode::NOT_FOUND => forgive(answer),
            Mutant::TruncatesMedia if downloads => {
                answer.body.truncate(answer.body.len().saturating_sub(1))
            }
            Mutant::ShowsMediaInline if downloads => {
                if let Some(how) = answer.headers.get_mut("content-disposition")
                    && let Some(value) = how
                        .to_str()
                        .ok()
                        .and_then(|text| text.replace("attachment", "inline").parse().ok())
                {
                    *how = value;
                }
            }
            Mutant::StripsCors => {
                answer.headers.remove("access-control-allow-origin");
            }
            Mutant::RoundsIntegers => {
                let text = String::from_utf8_lossy(&answer.body);
                answer.body = text.replace("9007199254740991", "9007199254740990").into();
            }
            Mutant::DoublesKeys if question.path.contains("/event/") => {
                let text = String::from_utf8_lossy(&answer.body);
                answer.body = text
                    .replace("\"body\":", "\"body\":\"another\",\"body\":")
                    .into();
            }
            Mutant::BelievesForwarded => {
                let said = question.headers.get("x-forwarded-for");
                if let (Some(said), Ok(mut told)) = (
                    said.and_then(|said| said.to_str().ok()),
                    serde_json::from_slice::<Value>(&answer.body),
                ) {
                    for device in told["devices"].as_array_mut().into_iter().flatten() {
                        device["last_seen_ip"] = said.into();
                    }
                    answer.body = told.to_string().into();
                }
            }
            Mutant::TellsNamesAsGiven if downloads => {
                let how = HeaderValue::from_static("attachment; filename=evil.exe");
                answer.headers.insert("content-disposition", how);
                let cookie = HeaderValue::from_static("a=b.txt");
                answer.headers.insert(SET_COOKIE, cookie);
            }
            Mutant::ReordersTimelines | Mutant::StripsLimited | Mutant::StripsState
                if question.path.contains("/sync") =>
            {
                self.spoil_sync(answer);
            }
            _ => {}
        }
    }

    fn spoil_sync(&self, answer: &mut Answer) {
        let Ok(mut sync) = serde_json::from_slice::<Value>(&answer.body) else {
            return;
        };
        let rooms = sync["rooms"]["join"].as_object_mut();
        for room in rooms.into_iter().flat_map(|rooms| rooms.values_mut()) {
            match self.mutant {
                Mutant::ReordersTimelines => {
                    if let Some(events) = room["timeline"]["events"].as_array_mut() {
                        events.reverse();
                    }
                }
                Mutant::StripsLimited => room["timeline"]["limited"] = false.into(),
                _ => room["state"] = json!({"events": []}),
            }
        }
        answer.body = sync.to_string().into();
    }
}

fn forgive(answer: &mut Answer) {
    answer.status = StatusCode::OK;
    answer.body = "{}".into();
}

fn is_message(question: &Question) -> bool {
    question.method == Method::PUT && question.path.contains("/send/")
}

/// How long a poll may wait, of a sync that goes on from somewhere.
fn poll_of(question: &Question) -> Option<std::time::Duration> {
    let (path, query) = question.path.split_once('?')?;
    let time = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("timeout="))?;
    (path.ends_with("/sync") && query.contains("since="))
        .then(|| time.parse().map(std::time::Duration::from_millis).ok())?
}
