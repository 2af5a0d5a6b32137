//! What a server answered, and the letter that is written when it did not answer as it should.

use std::{fmt, ops::Deref, time::Duration};

use bytes::Bytes;
use ruma::{
    api::{EndpointError as _, error::Error as MatrixError},
    exports::http,
};

use crate::probe::took;

/// How much of a response body an error message quotes, in bytes.
const EXCERPT: usize = 300;

/// The answer to one verb: the server accepted it or refused it.
///
/// That there *was* an answer is certain. A request without one (refused connection, timeout) is a [`Failure`] instead: a
/// timeout is not a refusal.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// Who asked, and for what; the beginning of every message about this answer.
    pub asked: Asked,
    /// The HTTP status code.
    pub status: u16,
    /// From sending the (last) request to the last byte of its response.
    pub took: Duration,
    /// How long the server made us wait by answering 429 before it gave this answer.
    pub throttled: Duration,
    /// The value, or the refusal.
    pub outcome: Result<T, Refusal>,
}

/// Who asked for what, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The user, in full where it is known: `@alice:vale.test`.
    pub who: String,
    /// The verb and its object: "join `!room`".
    pub what: String,
    /// Method and path of the request, without the query (which may hold secrets of other endpoints).
    pub request: String,
}

/// A refusal, in the server's own words.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP status code.
    pub status: u16,
    /// `errcode` of a standard error response; `None` when the body had none.
    /// Client-Server API, "Standard error response".
    pub errcode: Option<String>,
    /// `error` of a standard error response, or empty. Conduit 0.10.12 begins it with the code again.
    pub message: String,
    /// The whole body as it came.
    pub body: Bytes,
    /// The same, as ruma understands it.
    pub error: MatrixError,
}

/// A verb that should have succeeded and did not: who, what, and everything the server said. `Display` is a complete sentence.
/// So is `Debug`, which is what a test prints that returns its error; the parts print themselves as usual.
#[derive(Clone)]
pub struct Failure(Box<FailureParts>);

/// The parts of a [`Failure`], for checks that look closer than its text.
#[derive(Clone, Debug)]
pub struct FailureParts {
    /// Who asked for what.
    pub asked: Asked,
    /// What went wrong.
    pub cause: Cause,
    /// How long the request had been under way.
    pub took: Duration,
}

/// What went wrong with a request.
#[derive(Clone, Debug)]
pub enum Cause {
    /// The server answered no.
    Refused(Refusal),
    /// The server answered yes, but not in the form that the specification gives to this endpoint.
    Unreadable {
        /// The HTTP status code.
        status: u16,
        /// What could not be read.
        reason: String,
        /// The body as it came.
        body: Bytes,
    },
    /// The server answered something else than the caller demands of it.
    Unexpected(String),
    /// No (complete) answer within the limit. The effect may have happened.
    TimedOut {
        /// The limit of this call.
        limit: Duration,
    },
    /// No connection could be made: nothing was sent.
    Unreachable(String),
    /// The connection broke after (part of) the request was sent. The effect may have happened.
    Broken(String),
    /// The request could not even be written: an argument is not valid.
    Invalid(String),
}

impl Failure {
    /// A failure with its parts.
    pub fn new(asked: Asked, cause: Cause, took: Duration) -> Self {
        Self(Box::new(FailureParts { asked, cause, took }))
    }

    /// Whether the effect certainly did not happen.
    ///
    /// True for a 4xx answer, for a connection that was never made and for a request that was never sent. False for a timeout,
    /// for a broken connection and for 5xx: a proxy answers 502 or 504 also for requests that the server behind it carried out,
    /// and Conduit writes without transactions, so that an internal error can leave half of an operation behind.
    pub fn definite(&self) -> bool {
        match &self.cause {
            Cause::Refused(refusal) => {
                (400..500).contains(&refusal.status) && !matches!(refusal.status, 408 | 499)
            }
            Cause::Unreachable(_) | Cause::Invalid(_) => true,
            Cause::Unreadable { .. }
            | Cause::Unexpected(_)
            | Cause::TimedOut { .. }
            | Cause::Broken(_) => false,
        }
    }

    /// The status that the server answered, if it answered.
    pub fn status(&self) -> Option<u16> {
        match &self.cause {
            Cause::Refused(refusal) => Some(refusal.status),
            Cause::Unreadable { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The refusal, if the server refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.cause {
            Cause::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl Deref for Failure {
    type Target = FailureParts;

    fn deref(&self) -> &FailureParts {
        &self.0
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { who, what, request } = &self.asked;
        write!(f, "`{who}` could not {what}: ")?;
        match &self.cause {
            Cause::Refused(refusal) => write!(f, "the server answered {refusal}")?,
            Cause::Unreadable {
                status,
                reason,
                body,
            } => {
                write!(
                    f,
                    "the server answered {status}, but {reason}; body: {}",
                    excerpt(body)
                )?;
            }
            Cause::Unexpected(reason) => write!(f, "{reason}")?,
            Cause::TimedOut { limit } => {
                write!(
                    f,
                    "no answer within {} (a timeout is not a refusal: it may have been done)",
                    took(*limit)
                )?;
            }
            Cause::Unreachable(reason) => write!(f, "no connection, nothing was sent: {reason}")?,
            Cause::Broken(reason) => {
                write!(f, "the connection broke, it may have been done: {reason}")?
            }
            Cause::Invalid(reason) => write!(f, "nothing was sent: {reason}")?,
        }
        if request.is_empty() {
            Ok(())
        } else {
            write!(f, " [{request}, {}]", took(self.took))
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match &self.errcode {
            Some(errcode) => write!(f, " `{errcode}` \"{}\"", self.message),
            None => write!(f, " with {}", excerpt(&self.body)),
        }
    }
}

impl Refusal {
    pub(crate) fn read(status: u16, headers: &http::HeaderMap, body: Bytes) -> Self {
        let mut response = http::Response::new(body.clone());
        *response.status_mut() =
            http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers.clone();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        Self {
            status,
            errcode: json["errcode"].as_str().map(str::to_owned),
            message: json["error"].as_str().unwrap_or_default().to_owned(),
            error: MatrixError::from_http_response(response),
            body,
        }
    }

    /// Whether this is the refusal with that code: `refusal.is("M_FORBIDDEN")`.
    pub fn is(&self, errcode: &str) -> bool {
        self.errcode.as_deref() == Some(errcode)
    }
}

impl<T> Answer<T> {
    /// The value, or the refusal as a complete letter.
    ///
    /// # Errors
    /// When the server refused.
    pub fn must(self) -> Result<T, Failure> {
        self.outcome
            .map_err(|refusal| Failure::new(self.asked, Cause::Refused(refusal), self.took))
    }

    /// Whether the server accepted.
    pub fn accepted(&self) -> bool {
        self.outcome.is_ok()
    }

    /// The refusal, if there is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.outcome.as_ref().err()
    }

    /// Demands that the server refused with this status and code.
    ///
    /// # Errors
    /// When it accepted, or refused differently.
    pub fn must_be_refused(self, status: u16, errcode: &str) -> Result<Refusal, Failure> {
        let expected = format!("expected to be refused with {status} `{errcode}`");
        let unexpected = match self.outcome {
            Ok(_) => format!(
                "{expected}, but the server accepted it with {}",
                self.status
            ),
            Err(refusal) if refusal.status == status && refusal.is(errcode) => return Ok(refusal),
            Err(refusal) => format!("{expected}, but the server answered {refusal}"),
        };
        Err(Failure::new(
            self.asked,
            Cause::Unexpected(unexpected),
            self.took,
        ))
    }

    /// The same answer with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            asked: self.asked,
            status: self.status,
            took: self.took,
            throttled: self.throttled,
            outcome: self.outcome.map(f),
        }
    }
}

/// The beginning of a body, printable on one line.
pub(crate) fn excerpt(body: &[u8]) -> String {
    if body.is_empty() {
        return "an empty body".to_owned();
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(EXCERPT)]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if body.len() > EXCERPT {
        format!("`{text}…` ({} bytes)", body.len())
    } else {
        format!("`{text}`")
    }
}

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        // Many layers of hyper repeat the text of the layer below.
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            who: "@bob:vale.test".to_owned(),
            what: "join `!garden:vale.test`".to_owned(),
            request: "POST /_matrix/client/v3/join/!garden:vale.test".to_owned(),
        }
    }

    fn refusal(status: u16, body: &'static str) -> Refusal {
        Refusal::read(
            status,
            &http::HeaderMap::new(),
            Bytes::from_static(body.as_bytes()),
        )
    }

    fn failure(cause: Cause) -> Failure {
        Failure::new(asked(), cause, Duration::from_millis(12))
    }

    #[test]
    fn a_refusal_is_told_with_status_code_and_words() {
        let refused = refusal(
            403,
            r#"{"errcode":"M_FORBIDDEN","error":"You are not invited"}"#,
        );
        assert_eq!(
            failure(Cause::Refused(refused)).to_string(),
            "`@bob:vale.test` could not join `!garden:vale.test`: the server answered 403 `M_FORBIDDEN` \"You are not invited\" \
             [POST /_matrix/client/v3/join/!garden:vale.test, 12 ms]"
        );
    }

    #[test]
    fn a_refusal_that_is_not_matrix_is_quoted() {
        let refused = refusal(502, "<html>\n  Bad Gateway</html>");
        assert!(refused.errcode.is_none());
        assert!(
            failure(Cause::Refused(refused))
                .to_string()
                .contains("answered 502 with `<html> Bad Gateway</html>`")
        );
    }

    #[test]
    fn only_what_certainly_did_not_happen_is_definite() {
        let definite = [
            Cause::Refused(refusal(403, "{}")),
            Cause::Refused(refusal(429, "{}")),
            Cause::Unreachable("connection refused".to_owned()),
            Cause::Invalid("not a room".to_owned()),
        ];
        let indefinite = [
            Cause::Refused(refusal(500, "{}")),
            Cause::Refused(refusal(502, "{}")),
            Cause::Refused(refusal(504, "{}")),
            Cause::Refused(refusal(408, "{}")),
            Cause::TimedOut {
                limit: Duration::from_secs(1),
            },
            Cause::Broken("reset".to_owned()),
            Cause::Unreadable {
                status: 200,
                reason: "no".to_owned(),
                body: Bytes::new(),
            },
        ];
        for cause in definite {
            assert!(failure(cause.clone()).definite(), "{cause:?}");
        }
        for cause in indefinite {
            assert!(!failure(cause.clone()).definite(), "{cause:?}");
        }
    }

    #[test]
    fn a_demanded_refusal_names_what_came_instead() {
        let answer = |outcome| Answer::<()> {
            asked: asked(),
            status: 200,
            took: Duration::ZERO,
            throttled: Duration::ZERO,
            outcome,
        };
        let accepted = answer(Ok(()))
            .must_be_refused(403, "M_FORBIDDEN")
            .unwrap_err()
            .to_string();
        assert!(
            accepted.contains(
                "expected to be refused with 403 `M_FORBIDDEN`, but the server accepted it"
            ),
            "{accepted}"
        );
        let other = answer(Err(refusal(
            404,
            r#"{"errcode":"M_NOT_FOUND","error":"x"}"#,
        )));
        let other = other
            .must_be_refused(403, "M_FORBIDDEN")
            .unwrap_err()
            .to_string();
        assert!(
            other.contains("but the server answered 404 `M_NOT_FOUND`"),
            "{other}"
        );
        let right = answer(Err(refusal(
            403,
            r#"{"errcode":"M_FORBIDDEN","error":"x"}"#,
        )));
        assert_eq!(
            right.must_be_refused(403, "M_FORBIDDEN").unwrap().message,
            "x"
        );
    }

    #[test]
    fn excerpts_are_short_and_on_one_line() {
        assert_eq!(excerpt(b""), "an empty body");
        assert!(excerpt(&[b'x'; 5000]).ends_with("…` (5000 bytes)"));
    }
}
