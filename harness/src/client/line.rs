//! The Line of a client: what carries its requests, and perhaps somebody who writes them down.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use ruma::exports::http;

/// An HTTP client, and whether what it carries is written down. A plain `&reqwest::Client` is a line that nobody listens on.
#[derive(Clone)]
pub struct Line {
    pub(super) http: reqwest::Client,
    pub(super) log: Option<Log>,
}

impl Line {
    /// A line whose every answer is written down.
    pub fn recorded(http: reqwest::Client, log: Log) -> Self {
        Self {
            http,
            log: Some(log),
        }
    }

    pub(super) fn note(&self, exchange: impl FnOnce() -> Exchange) {
        if let Some(log) = &self.log {
            log.push(exchange());
        }
    }

    pub(super) fn note_unanswered(&self, unanswered: impl FnOnce() -> Unanswered) {
        if let Some(log) = &self.log {
            log.lock().unanswered.push(unanswered());
        }
    }
}

impl From<&reqwest::Client> for Line {
    fn from(http: &reqwest::Client) -> Self {
        Self {
            http: http.clone(),
            log: None,
        }
    }
}

impl From<&Self> for Line {
    fn from(line: &Self) -> Self {
        line.clone()
    }
}

/// One question and its answer, as they went over the line. Without the question's headers and body: they hold secrets.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Who asked: a user id where it is known, else what the asker was called.
    pub who: String,
    /// The method.
    pub method: http::Method,
    /// The path without its query.
    pub path: String,
    /// What else was asked, and when.
    pub question: Question,
    /// The protocol of the answer.
    pub version: http::Version,
    /// The status.
    pub status: u16,
    /// The headers of the answer.
    pub headers: http::HeaderMap,
    /// The body of the answer.
    pub body: Bytes,
}

/// What a [history](crate::history) needs to know of a question besides its path.
#[derive(Clone, Debug)]
pub struct Question {
    /// When it was first asked.
    pub began: Instant,
    /// When it was answered, or given up.
    pub ended: Instant,
    /// The query.
    pub query: String,
    /// The body, where it is about a room: others hold secrets.
    pub body: Bytes,
}

impl Question {
    /// Asked from `began` until now.
    pub fn since(began: Instant, path: &str, query: Option<&str>, body: &Bytes) -> Self {
        let body = match path.starts_with("/_matrix/client/v3/rooms/") {
            true => body.clone(),
            false => Bytes::new(),
        };
        Self {
            began,
            ended: Instant::now(),
            query: query.unwrap_or_default().to_owned(),
            body,
        }
    }
}

/// A question that got no answer.
#[derive(Clone, Debug)]
pub struct Unanswered {
    /// Who asked.
    pub who: String,
    /// The method.
    pub method: http::Method,
    /// The path without its query.
    pub path: String,
    /// What else was asked, and when.
    pub question: Question,
    /// Certainly nothing was done.
    pub definite: bool,
}

/// What went over one or several lines, in the order of the answers.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    exchanges: Vec<Exchange>,
    unanswered: Vec<Unanswered>,
}

impl Log {
    /// Writes one down.
    pub fn push(&self, exchange: Exchange) {
        self.lock().exchanges.push(exchange);
    }

    /// All of them.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.lock().exchanges.clone()
    }

    /// What got no answer.
    pub fn unanswered(&self) -> Vec<Unanswered> {
        self.lock().unanswered.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
