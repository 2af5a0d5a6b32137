//! What goes wrong with an object store.

use hyper::{Method, StatusCode};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is answered with this status and the error code that S3 has for it, and nothing is done.
    Answers(StatusCode, &'static str),
    /// The connection ends when half of its body has come; nothing is stored.
    CutsShort,
    /// It is answered as if all were well, and half of what was put is kept.
    KeepsHalf,
    /// It is never answered.
    NeverAnswers,
    /// It is done, and the answer comes byte by byte, one in a second.
    Trickles,
}

impl Trouble {
    /// The store is overloaded.
    pub const UNAVAILABLE: Self = Self::Answers(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    /// These credentials may not do that.
    pub const FORBIDDEN: Self = Self::Answers(StatusCode::FORBIDDEN, "AccessDenied");
}

/// A trouble, and the requests that it strikes.
#[derive(Clone, Debug)]
pub struct Fault {
    trouble: Trouble,
    method: Option<Method>,
    key: &'static str,
    skipped: usize,
    times: usize,
    pub(crate) struck: usize,
}

impl Fault {
    /// It strikes every request.
    pub fn of(trouble: Trouble) -> Self {
        Self {
            trouble,
            method: None,
            key: "",
            skipped: 0,
            times: usize::MAX,
            struck: 0,
        }
    }

    /// It strikes what puts an object whose key has this in it.
    pub fn of_puts(trouble: Trouble, key: &'static str) -> Self {
        Self::of_requests(trouble, Method::PUT, key)
    }

    /// It strikes what gets such an object.
    pub fn of_gets(trouble: Trouble, key: &'static str) -> Self {
        Self::of_requests(trouble, Method::GET, key)
    }

    fn of_requests(trouble: Trouble, method: Method, key: &'static str) -> Self {
        Self {
            method: Some(method),
            key,
            ..Self::of(trouble)
        }
    }

    /// It strikes one of these requests only, after so many of them.
    #[must_use]
    pub fn once_after(mut self, skipped: usize) -> Self {
        self.skipped = skipped;
        self.times = 1;
        self
    }

    /// What this fault does to a request.
    pub(crate) fn strikes(&mut self, method: &Method, path: &str) -> Option<Trouble> {
        let meant = self.method.as_ref().is_none_or(|meant| meant == method);
        if !meant || !path.contains(self.key) || self.struck == self.times {
            return None;
        }
        if self.skipped > 0 {
            self.skipped -= 1;
            return None;
        }
        self.struck += 1;
        Some(self.trouble)
    }
}
