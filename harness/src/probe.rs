//! Waiting for a state: a question asked until it is answered.
//!
//! A wait never sleeps for a fixed time and hopes. It asks, and each answer is one of three: ready, not yet *because*, or failed
//! for good. When the time is up, the error says what was last seen and for how long it had looked like that, so that a reader
//! can tell a server that was still moving from one that was stuck.
//!
//! ```no_run
//! # async fn example(http: reqwest::Client) -> Result<(), harness::probe::Unmet> {
//! use std::time::Duration;
//! use harness::probe::{self, ProbeState};
//!
//! probe::until("the client API answers", Duration::from_secs(10), async || {
//!     match http.get("http://127.0.0.1:6167/_matrix/client/versions").send().await {
//!         Ok(answer) if answer.status() == 200 => ProbeState::Ready(()),
//!         Ok(answer) => ProbeState::NotYet(format!("it answered {}", answer.status())),
//!         Err(error) => ProbeState::NotYet(error.to_string()),
//!     }
//! })
//! .await
//! # }
//! ```

use std::{fmt, time::Duration};

use tokio::time::Instant;

/// The first pause between two questions.
pub const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two questions.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// One answer to the question of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeState<T> {
    /// The state holds; the value is what the wait was for.
    Ready(T),
    /// The state does not hold yet; the text says what was seen instead, and becomes the "last seen" of a failed wait.
    NotYet(String),
    /// The state cannot come any more; asking again is pointless. The text says why.
    Failed(String),
}

impl<T> ProbeState<T> {
    /// The same answer with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> ProbeState<U> {
        match self {
            Self::Ready(value) => ProbeState::Ready(f(value)),
            Self::NotYet(reason) => ProbeState::NotYet(reason),
            Self::Failed(reason) => ProbeState::Failed(reason),
        }
    }
}

/// Why a wait ended without the state it waited for. `Debug` is the same text as `Display`, because it is what a test prints that
/// returns its error.
#[derive(Clone, PartialEq, Eq)]
pub struct Unmet {
    /// The state that was waited for, as a sentence: "`@alice:vale.test` sees `$ev` in `!room`".
    pub what: String,
    /// How it ended.
    pub end: UnmetEnd,
    /// How long was waited.
    pub waited: Duration,
    /// How often the question was asked, the last one (perhaps cut short) included.
    pub attempts: u32,
}

/// How a wait ended that was not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnmetEnd {
    /// The limit passed. This is no refusal: the state may still come later.
    TimedOut {
        /// The limit of the wait.
        limit: Duration,
        /// What the last complete answer said, and for how long the answers had been saying exactly that; `None` when not
        /// even one question was answered within the limit.
        last_seen: Option<(String, Duration)>,
        /// Whether a question was under way, unanswered, when the limit passed, and since when.
        unanswered: Option<Duration>,
    },
    /// The question was answered for good: the state cannot come.
    Failed {
        /// The reason that the last answer gave.
        reason: String,
    },
}

impl Unmet {
    /// Whether the state certainly cannot come any more. A timeout is not definite.
    pub fn definite(&self) -> bool {
        matches!(self.end, UnmetEnd::Failed { .. })
    }

    /// A wait that failed for good.
    pub fn failed(
        what: impl Into<String>,
        reason: impl Into<String>,
        waited: Duration,
        attempts: u32,
    ) -> Self {
        Self {
            what: what.into(),
            end: UnmetEnd::Failed {
                reason: reason.into(),
            },
            waited,
            attempts,
        }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = self.attempts;
        let times = if attempts == 1 { "attempt" } else { "attempts" };
        match &self.end {
            UnmetEnd::TimedOut {
                limit,
                last_seen,
                unanswered,
            } => {
                write!(
                    f,
                    "waited in vain until {}: limit of {} passed after {attempts} {times}",
                    self.what,
                    took(*limit)
                )?;
                match last_seen {
                    Some((seen, unchanged)) => {
                        write!(
                            f,
                            "\n  last seen: {seen} (unchanged for {})",
                            took(*unchanged)
                        )?;
                    }
                    None => write!(f, "\n  last seen: nothing, no question was answered")?,
                }
                if let Some(since) = unanswered {
                    write!(
                        f,
                        "\n  the last question had been unanswered for {}",
                        took(*since)
                    )?;
                }
                Ok(())
            }
            UnmetEnd::Failed { reason } => write!(
                f,
                "gave up waiting until {}: it failed for good after {} and {attempts} {times}\n  last seen: {reason}",
                self.what,
                took(self.waited)
            ),
        }
    }
}

impl fmt::Debug for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Unmet {}

/// Asks `question` until it is answered with [`ProbeState::Ready`] or [`ProbeState::Failed`], or until `limit` has passed.
///
/// `what` is the state that is waited for, as a sentence in the present tense: "the client API answers". Pauses grow from
/// [`FIRST_PAUSE`] to [`LONGEST_PAUSE`]. A question that is still unanswered when the limit passes is cut short, so that a
/// server that accepts and never answers cannot hold the wait. The question is always asked at least once. To move a wait to
/// another task (`tokio::spawn`), its question must own what it uses: `async move || …`.
///
/// # Errors
/// [`Unmet`], with what was last seen.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut question: impl AsyncFnMut() -> ProbeState<T>,
) -> Result<T, Unmet> {
    let mut watch = Watch::start(what, limit);
    loop {
        let Some(state) = watch.ask(question()).await else {
            return Err(watch.timed_out());
        };
        if let Some(end) = watch.settle(state) {
            return end;
        }
        if !watch.pause().await {
            return Err(watch.timed_out());
        }
    }
}

/// The book-keeping of one wait: limit, pauses, what was last seen and since when. For waits whose questions block by themselves
/// (a long poll) and which therefore do not want [`until`]'s pauses; everything else calls [`until`].
#[derive(Debug)]
pub struct Watch {
    what: String,
    limit: Duration,
    started: Instant,
    attempts: u32,
    last_seen: Option<(String, Instant)>,
    asked_at: Option<Instant>,
    next_pause: Duration,
}

impl Watch {
    /// Starts the clock.
    pub fn start(what: impl Into<String>, limit: Duration) -> Self {
        Self {
            what: what.into(),
            limit,
            started: Instant::now(),
            attempts: 0,
            last_seen: None,
            asked_at: None,
            next_pause: FIRST_PAUSE,
        }
    }

    /// What is left of the limit.
    pub fn left(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    /// Awaits one question, at most until the limit; `None` when the limit passed first.
    pub async fn ask<T>(&mut self, question: impl Future<Output = T>) -> Option<T> {
        self.attempts += 1;
        self.asked_at = Some(Instant::now());
        let answer = tokio::time::timeout_at(self.started + self.limit, question)
            .await
            .ok()?;
        self.asked_at = None;
        Some(answer)
    }

    /// Notes one answer; `Some` when it ends the wait.
    pub fn settle<T>(&mut self, state: ProbeState<T>) -> Option<Result<T, Unmet>> {
        match state {
            ProbeState::Ready(value) => Some(Ok(value)),
            ProbeState::Failed(reason) => Some(Err(Unmet::failed(
                &*self.what,
                reason,
                self.started.elapsed(),
                self.attempts,
            ))),
            ProbeState::NotYet(reason) => {
                if self
                    .last_seen
                    .as_ref()
                    .is_none_or(|(seen, _)| *seen != reason)
                {
                    self.last_seen = Some((reason, Instant::now()));
                }
                None
            }
        }
    }

    /// Waits before the next question, longer each time; `false` when the limit leaves no room for another question.
    pub async fn pause(&mut self) -> bool {
        let pause = self.next_pause.min(self.left());
        self.next_pause = self.next_pause.mul_f64(1.5).min(LONGEST_PAUSE);
        tokio::time::sleep(pause).await;
        !self.left().is_zero()
    }

    /// Begins again with the shortest pause: something moved.
    pub fn hurry(&mut self) {
        self.next_pause = FIRST_PAUSE;
    }

    /// The error of a wait whose limit has passed.
    pub fn timed_out(self) -> Unmet {
        Unmet {
            end: UnmetEnd::TimedOut {
                limit: self.limit,
                last_seen: self.last_seen.map(|(seen, since)| (seen, since.elapsed())),
                unanswered: self.asked_at.map(|since| since.elapsed()),
            },
            what: self.what,
            waited: self.started.elapsed(),
            attempts: self.attempts,
        }
    }
}

/// Waits as long as a server asked for (`Retry-After`): the one pause that is not ours to choose.
pub(crate) async fn as_long_as_asked(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// A duration as a person reads it: `35 ms`, `1.2 s`.
pub(crate) fn took(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_ready_answer_ends_the_wait_with_its_value() {
        let mut asked = 0;
        let found = until("three", Duration::from_secs(5), async || {
            asked += 1;
            if asked == 3 {
                ProbeState::Ready(asked)
            } else {
                ProbeState::NotYet(format!("at {asked}"))
            }
        })
        .await;
        assert_eq!(found, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_answer_ends_the_wait_at_once_and_is_definite() {
        let unmet = until::<()>("the unit is up", Duration::from_secs(60), async || {
            ProbeState::Failed("the unit exited with 1".to_owned())
        })
        .await
        .unwrap_err();
        assert!(unmet.definite());
        assert_eq!(unmet.attempts, 1);
        assert_eq!(
            unmet.to_string(),
            "gave up waiting until the unit is up: it failed for good after 0 ms and 1 attempt\n  last seen: the unit exited with 1"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_in_vain_says_what_was_last_seen_and_for_how_long() {
        let started = Instant::now();
        let unmet = until::<()>("the API answers", Duration::from_secs(10), async || {
            if started.elapsed() < Duration::from_secs(4) {
                ProbeState::NotYet("connection refused".to_owned())
            } else {
                ProbeState::NotYet("it answered 502".to_owned())
            }
        })
        .await
        .unwrap_err();
        assert!(!unmet.definite(), "a timeout is not a refusal");
        let UnmetEnd::TimedOut {
            last_seen: Some((seen, unchanged)),
            ..
        } = &unmet.end
        else {
            panic!("{unmet}")
        };
        assert_eq!(seen, "it answered 502");
        assert!(
            *unchanged > Duration::from_secs(5) && *unchanged <= Duration::from_secs(6),
            "{unchanged:?}"
        );
        assert!(
            unmet.to_string().contains("limit of 10.0 s passed"),
            "{unmet}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_never_answered_does_not_hold_the_wait() {
        let unmet = until::<()>(
            "a deaf server answers",
            Duration::from_secs(2),
            async || std::future::pending().await,
        )
        .await
        .unwrap_err();
        assert_eq!(unmet.waited, Duration::from_secs(2));
        let text = unmet.to_string();
        assert!(
            text.contains("last seen: nothing, no question was answered"),
            "{text}"
        );
        assert!(text.contains("unanswered for 2.0 s"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_from_fifty_to_five_hundred_milliseconds() {
        let mut asked_at = Vec::new();
        let _ = until::<()>("never", Duration::from_secs(5), async || {
            asked_at.push(Instant::now());
            ProbeState::NotYet("no".to_owned())
        })
        .await;
        let pauses: Vec<_> = asked_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // tokio's timer has a resolution of one millisecond and rounds up.
        let near = |a: Duration, b: Duration| a >= b && a <= b + Duration::from_millis(2);
        assert!(near(pauses[0], FIRST_PAUSE), "{pauses:?}");
        assert!(
            pauses.is_sorted_by(|a, b| *a <= *b + Duration::from_millis(2)),
            "{pauses:?}"
        );
        assert!(near(*pauses.last().unwrap(), LONGEST_PAUSE), "{pauses:?}");
        assert!(pauses.len() < 20, "{pauses:?}");
    }

    #[tokio::test]
    async fn a_question_is_asked_once_even_without_any_time() {
        let found = until("now", Duration::ZERO, async || ProbeState::Ready("now")).await;
        assert_eq!(found, Ok("now"));
    }

    #[tokio::test]
    async fn a_wait_can_be_moved_to_another_task() {
        let waited = tokio::spawn(async {
            let word = String::from("ready");
            until("it is ready", Duration::from_secs(1), async move || {
                ProbeState::Ready(word.clone())
            })
            .await
        });
        assert_eq!(waited.await.unwrap().unwrap(), "ready");
    }
}
