//! What a delegation says: a file under `/.well-known/matrix/`, or the body that Caddy answers there.

use super::fact::Fact;
use crate::source::Source;
use serde_json::Value;
use std::ops::Range;

/// Which of the two documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Document {
    /// `/.well-known/matrix/server`, read by servers.
    Server,
    /// `/.well-known/matrix/client`, read by clients.
    Client,
}

impl Document {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Server, Self::Client];

    /// Its path in a URL.
    pub fn path(self) -> &'static str {
        match self {
            Self::Server => "/.well-known/matrix/server",
            Self::Client => "/.well-known/matrix/client",
        }
    }

    /// Where in it the one value stands that matters here.
    pub fn member(self) -> &'static str {
        match self {
            Self::Server => "m.server",
            Self::Client => "m.homeserver.base_url",
        }
    }

    /// The value in a body.
    ///
    /// # Errors
    /// Why it holds none.
    pub fn value(self, body: &str) -> Result<String, String> {
        let json: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let value = match self {
            Self::Server => json.get("m.server"),
            Self::Client => json
                .get("m.homeserver")
                .and_then(|server| server.get("base_url")),
        };
        match value {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(format!("`{}` is not a string", self.member())),
            None => Err(format!("`{}` is missing", self.member())),
        }
    }
}

/// Reads one of the two files.
///
/// # Errors
/// Where it is not what it must be, and why.
pub fn read(source: &Source, document: Document) -> Result<Fact<String>, (Range<usize>, String)> {
    let text = source.text();
    match document.value(text) {
        Ok(value) => {
            let span = literal(text, document, &value).unwrap_or_else(|| source.first_line());
            Ok(Fact::new(value, source, span))
        }
        Err(why) => {
            let span = match serde_json::from_str::<Value>(text) {
                Err(error) => at_line(source, error.line(), error.column()),
                Ok(_) => source.first_line(),
            };
            Err((span, why))
        }
    }
}

/// Where the value stands in a text that holds the document: after the member's name, between quotes.
pub fn literal(text: &str, document: Document, value: &str) -> Option<Range<usize>> {
    let name = match document {
        Document::Server => "m.server",
        Document::Client => "base_url",
    };
    let mut from = 0;
    while let Some(at) = text[from..].find(name) {
        let after = from + at + name.len();
        let line_end = text[after..]
            .find('}')
            .map_or(text.len(), |end| after + end);
        if let Some(start) = text[after..line_end].find(value) {
            let start = after + start;
            let quoted = text[..start].ends_with('"')
                && text[start + value.len()..].starts_with(['"', '\\']);
            if quoted {
                return Some(start..start + value.len());
            }
        }
        from = after;
    }
    None
}

/// The bytes at a line and column as serde counts them (from 1, the column in bytes and possibly 0).
fn at_line(source: &Source, line: usize, column: usize) -> Range<usize> {
    let text = source.text();
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let at = text.floor_char_boundary((start + column.saturating_sub(1)).min(text.len()));
    let end = text[at..]
        .chars()
        .next()
        .map_or(at, |next| at + next.len_utf8());
    at..end
}
