//! The homeserver's client API over loopback, and the count of what was sent to it.

use std::{
    cell::Cell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;
use ureq::{Agent, RequestExt as _, http};

use crate::error::Error;

/// Aborts the process (SIGKILL) after the answer to this many requests has arrived and before it is acted upon.
/// A hook for tests that kill a run between any two requests.
pub const EXIT_AFTER: &str = "FLEET_BOOTSTRAP_EXIT_AFTER";

/// How long a homeserver may put us off with 429 before a request counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a homeserver answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body; `Null` when it was not JSON.
    pub body: Value,
}

impl Answer {
    /// Whether the request was granted.
    #[must_use]
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The `errcode` of the answer, or an empty text.
    #[must_use]
    pub fn errcode(&self) -> &str {
        self.text("errcode")
    }

    /// A text member of the body, or an empty text.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.body.get(key).and_then(Value::as_str).unwrap_or("")
    }

    /// Status, `errcode` and `error`, for a person. Never the body of a granted request: that may carry a token.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} {} {}", self.status, self.errcode(), self.text("error"))
            .trim_end()
            .to_owned()
    }
}

/// A connection to one homeserver on this machine.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    base: String,
    requests: Cell<u32>,
    changes: Cell<u32>,
    exit_after: Option<u32>,
}

impl Client {
    /// Connects to a base URL, which must be `http://` with a loopback address: passwords cross this connection.
    ///
    /// # Errors
    /// When the URL is anything else.
    pub fn new(base: &str) -> Result<Self, Error> {
        let address = base
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'))
            .and_then(|rest| rest.parse::<SocketAddr>().ok())
            .filter(|address| address.ip().is_loopback())
            .ok_or_else(|| {
                Error::refused(
                    format!("`{base}` is not plain HTTP on a loopback address"),
                    "passwords are sent over this connection, so it must not leave the machine: use `http://127.0.0.1:6167`",
                )
            })?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .user_agent(concat!("fleet-bootstrap/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self {
            agent,
            base: format!("http://{address}"),
            requests: Cell::new(0),
            changes: Cell::new(0),
            exit_after: std::env::var(EXIT_AFTER).ok().and_then(|n| n.parse().ok()),
        })
    }

    /// The base URL, without a slash at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// How many requests were sent, and how many of them were not GET.
    #[must_use]
    pub fn sent(&self) -> (u32, u32) {
        (self.requests.get(), self.changes.get())
    }

    /// Asks without changing anything.
    ///
    /// # Errors
    /// When no answer arrives.
    pub fn get(&self, path: &str, token: Option<&str>) -> Result<Answer, Error> {
        self.send("GET", path, token, None)
    }

    /// Sends a request that changes something. `path` begins with `/` and is escaped already.
    ///
    /// # Errors
    /// When no answer arrives.
    pub fn change(
        &self,
        method: &'static str,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<Answer, Error> {
        self.send(method, path, token, Some(body))
    }

    fn send(
        &self,
        method: &'static str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, Error> {
        let begun = Instant::now();
        loop {
            let answer = self.once(method, path, token, body)?;
            if answer.status != 429 {
                return Ok(answer);
            }
            let wait = Duration::from_millis(
                answer
                    .body
                    .get("retry_after_ms")
                    .and_then(Value::as_u64)
                    .unwrap_or(1000),
            );
            if begun.elapsed() + wait > PATIENCE {
                return Err(Error::failed(
                    format!(
                        "`{method} {path}` was put off by the homeserver: {}",
                        answer.describe()
                    ),
                    "run this again later; it continues where it stopped",
                ));
            }
            // The homeserver names the time at which it will listen again.
            std::thread::sleep(wait);
        }
    }

    fn once(
        &self,
        method: &'static str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, Error> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let failed = |error: ureq::Error| {
            Error::failed(
                format!(
                    "`{method} {path}` at `{}` got no answer: {error}",
                    self.base
                ),
                "is the homeserver running (`systemctl status conduit`)? run this again afterwards; it continues where it stopped",
            )
        };
        self.requests.set(self.requests.get() + 1);
        let response = match body {
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| request.with_agent(&self.agent).run()),
            Some(body) => {
                self.changes.set(self.changes.get() + 1);
                request
                    .header("content-type", "application/json")
                    .body(body.to_string())
                    .map_err(ureq::Error::from)
                    .and_then(|request| request.with_agent(&self.agent).run())
            }
        };
        let mut response = response.map_err(failed)?;
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_string()
            .map_err(failed)?;
        if self.exit_after == Some(self.requests.get()) {
            // What a kill -9 from outside does, at a chosen moment; the signal cannot be caught or delayed.
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
        Ok(Answer {
            status,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        })
    }
}

/// Escapes one segment of a path, or one value of a query (RFC 3986: everything but the unreserved characters).
#[must_use]
pub fn escape(segment: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(segment.len() + 12);
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_on_loopback_is_spoken() {
        for good in [
            "http://127.0.0.1:6167",
            "http://127.0.0.1:6167/",
            "http://[::1]:8008",
        ] {
            assert!(Client::new(good).is_ok(), "{good}");
        }
        for bad in [
            "https://127.0.0.1:6167",
            "http://192.0.2.1:6167",
            "http://localhost:6167",
            "http://127.0.0.1",
            "http://127.0.0.1:6167/path",
            "http://127.0.0.1@192.0.2.1:80",
            "",
        ] {
            let error = Client::new(bad).expect_err(bad);
            assert_eq!(error.exit_code(), 3, "{bad}");
        }
    }

    #[test]
    fn room_ids_and_aliases_are_escaped() {
        assert_eq!(
            escape("#fleet-ops:timmy.foundation"),
            "%23fleet-ops%3Atimmy.foundation"
        );
        assert_eq!(escape("!a/b"), "%21a%2Fb");
    }
}
