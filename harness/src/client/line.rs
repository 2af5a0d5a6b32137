//! The Line of a client: what carries its requests, and perhaps somebody who writes them down.

use std::sync::{Arc, Mutex, PoisonError};

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
    /// The protocol of the answer.
    pub version: http::Version,
    /// The status.
    pub status: u16,
    /// The headers of the answer.
    pub headers: http::HeaderMap,
    /// The body of the answer.
    pub body: Bytes,
}

/// What went over one or several lines, in the order of the answers.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Exchange>>>);

impl Log {
    /// Writes one down.
    pub fn push(&self, exchange: Exchange) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(exchange);
    }

    /// All of them.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
