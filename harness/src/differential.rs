//! The same questions, asked by two ways: whatever the answers differ in is a finding with a name. Judged are the
//! status, the code of a refusal, every header that is not declared here, and the body: the shape of JSON, the bytes
//! of anything else. Values differ of themselves (ids, times, tokens); shapes do not.

use crate::client::Exchange;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The headers that may differ, and nothing else may: of the connection (`date` to `upgrade`), of the program that
/// answers (`server`, `via`, `alt-svc`), of how the body is framed, and the two that the Caddyfile adds to everything.
const MAY_DIFFER: [&str; 11] = [
    "date",
    "connection",
    "keep-alive",
    "upgrade",
    "server",
    "via",
    "alt-svc",
    "content-length",
    "transfer-encoding",
    "x-frame-options",
    "x-content-type-options",
];

/// What two ways differ in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Its name: what differs, of which question. `header cache-control of GET /_matrix/client/versions`.
    pub name: String,
    /// What the first way gave.
    pub first: String,
    /// What the other way gave.
    pub other: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, first, other } = self;
        write!(f, "{name}: {first} | {other}")
    }
}

/// A question as both ways have it: who asked, and the path without what is drawn anew for each run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    who: String,
    what: String,
}

/// What must be equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    status: String,
    code: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Every difference between what went over two ways in the same scenario.
pub fn differences(first: &[Exchange], other: &[Exchange]) -> Vec<Difference> {
    let (first, other) = (sorted(first), sorted(other));
    let questions: BTreeSet<_> = first.keys().chain(other.keys()).collect();
    let mut found = BTreeSet::new();
    for question in questions {
        let of = |answers: &BTreeMap<Question, Vec<Answer>>| {
            answers.get(question).cloned().unwrap_or_default()
        };
        let (mut ours, mut theirs) = (of(&first), of(&other));
        if is_waiting(&question.what) {
            // How often somebody who waits asks, and what is told in which answer, is a matter of time.
            for answer in ours.iter_mut().chain(&mut theirs) {
                answer.body.clear();
            }
            for answers in [&mut ours, &mut theirs] {
                answers.sort();
                answers.dedup();
            }
        }
        if ours.len() != theirs.len() {
            found.insert(Difference {
                name: format!("times that {} asked {}", question.who, question.what),
                first: ours.len().to_string(),
                other: theirs.len().to_string(),
            });
        }
        for (ours, theirs) in ours.iter().zip(&theirs) {
            compare(&question.what, ours, theirs, &mut found);
        }
    }
    found.into_iter().collect()
}

fn compare(question: &str, first: &Answer, other: &Answer, found: &mut BTreeSet<Difference>) {
    let mut note = |what: String, first: &str, other: &str| {
        if first != other {
            found.insert(Difference {
                name: format!("{what} of {question}"),
                first: first.to_owned(),
                other: other.to_owned(),
            });
        }
    };
    note("status".to_owned(), &first.status, &other.status);
    note("errcode".to_owned(), &first.code, &other.code);
    note("body".to_owned(), &first.body, &other.body);
    for name in first.headers.keys().chain(other.headers.keys()) {
        let of = |answer: &Answer| {
            answer
                .headers
                .get(name)
                .map_or_else(|| "none".to_owned(), |value| format!("`{value}`"))
        };
        note(format!("header {name}"), &of(first), &of(other));
    }
}

fn sorted(exchanges: &[Exchange]) -> BTreeMap<Question, Vec<Answer>> {
    let mut answers = BTreeMap::<_, Vec<_>>::new();
    for exchange in exchanges {
        let what = format!("{} {}", exchange.method, template(&exchange.path));
        let who = role(&exchange.who).to_owned();
        answers
            .entry(Question { who, what })
            .or_default()
            .push(answer(exchange));
    }
    answers
}

fn answer(exchange: &Exchange) -> Answer {
    let json = serde_json::from_slice::<Value>(&exchange.body).ok();
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &exchange.headers {
        if MAY_DIFFER.contains(&name.as_str()) {
            continue;
        }
        let all = headers.entry(name.to_string()).or_default();
        if !all.is_empty() {
            all.push_str("` and `");
        }
        all.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Answer {
        status: exchange.status.to_string(),
        code: json
            .as_ref()
            .and_then(|body| body["errcode"].as_str())
            .unwrap_or_default()
            .to_owned(),
        headers,
        body: match json {
            Some(json) => shape(&json),
            None if exchange.body.is_empty() => "nothing".to_owned(),
            None => format!(
                "{} bytes with SHA-256 {}",
                exchange.body.len(),
                crate::client::sha256(&exchange.body)
            ),
        },
    }
}

/// Alice is alice, whatever the number of the account that she was given: `@alice-12:vale.test` is `alice`.
fn role(who: &str) -> &str {
    let local = who.trim_start_matches('@');
    local.split(['-', ':']).next().unwrap_or(local)
}

fn is_waiting(question: &str) -> bool {
    question.starts_with("GET ") && (question.ends_with("/sync") || question.ends_with("/messages"))
}

/// A path with everything that is no word of the specification replaced.
fn template(path: &str) -> String {
    let mut before = "";
    let segments: Vec<_> = path
        .split('/')
        .map(|segment| {
            let version =
                segment.len() == 2 && (segment.starts_with('v') || segment.starts_with('r'));
            // Short ids that the server draws, which now and then look like a word.
            let drawn = matches!(before, "filter" | "devices");
            before = segment;
            if version || !drawn && is_word(segment) {
                segment
            } else {
                "{}"
            }
        })
        .collect();
    segments.join("/")
}

fn is_word(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_'))
        || matches!(
            text,
            "joinedRooms" | "createRoom" | "publicRooms" | "sendToDevice" | "initialSync"
        )
}

/// What JSON looks like without its values. Members of an array count as a set; `unsigned` differs from reader to
/// reader and from moment to moment.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(members) => {
            let shapes: BTreeSet<_> = members.iter().map(shape).collect();
            format!("[{}]", shapes.into_iter().collect::<Vec<_>>().join(" | "))
        }
        Value::Object(members) => {
            let shapes: BTreeSet<_> = members
                .iter()
                .filter(|(key, _)| *key != "unsigned")
                .map(|(key, value)| {
                    // An id that serves as a key; words of the specification have neither digits nor capitals.
                    let id = key.starts_with(['@', '!', '$', '#'])
                        || key
                            .bytes()
                            .any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
                    format!("{}: {}", if id { "{}" } else { key }, shape(value))
                })
                .collect();
            format!("{{{}}}", shapes.into_iter().collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter's id has four letters; one in thirty has no capital and no digit.
    #[test]
    fn an_id_that_looks_like_a_word_is_an_id() {
        let at = |id: &str| template(&format!("/_matrix/client/v3/user/@a:vale.test/filter/{id}"));
        assert_eq!(at("mfvu"), at("NLWb"));
        assert_eq!(
            template("/_matrix/client/v3/room_keys/version"),
            "/_matrix/client/v3/room_keys/version"
        );
    }
    use ruma::exports::http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

    fn exchange(
        path: &str,
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: &'static str,
    ) -> Exchange {
        let headers: HeaderMap = headers
            .iter()
            .map(|&(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        Exchange {
            who: "@alice-7:vale.test".to_owned(),
            method: Method::GET,
            question: crate::client::Question::since(
                std::time::Instant::now(),
                path,
                None,
                &bytes::Bytes::new(),
            ),
            path: path.to_owned(),
            version: Version::HTTP_11,
            status,
            headers,
            body: body.into(),
        }
    }

    fn names(first: &Exchange, other: &Exchange) -> Vec<String> {
        differences(std::slice::from_ref(first), std::slice::from_ref(other))
            .into_iter()
            .map(|difference| difference.name)
            .collect()
    }

    #[test]
    fn ids_values_and_declared_headers_make_no_difference() {
        let json = ("content-type", "application/json");
        let first = exchange(
            "/_matrix/client/v3/rooms/!aB1:x/members",
            200,
            &[json, ("date", "now")],
            r#"{"chunk":[{"a":1},{"a":2}]}"#,
        );
        let mut other = exchange(
            "/_matrix/client/v3/rooms/!cD2:x/members",
            200,
            &[json, ("server", "Caddy")],
            r#"{"chunk":[{"a":3}]}"#,
        );
        other.who = "@alice-8:vale.test".to_owned();
        other.version = Version::HTTP_2;
        assert_eq!(names(&first, &other), [""; 0]);
    }

    #[test]
    fn each_kind_of_difference_has_a_name() {
        let first = exchange(
            "/a",
            200,
            &[("cache-control", "no-store")],
            r#"{"errcode":"M_A","x":1}"#,
        );
        let other = exchange("/a", 404, &[("vary", "origin")], r#"{"errcode":"M_B"}"#);
        assert_eq!(
            names(&first, &other),
            [
                "body of GET /a",
                "errcode of GET /a",
                "header cache-control of GET /a",
                "header vary of GET /a",
                "status of GET /a"
            ]
        );
        let bytes = exchange("/a", 200, &[], "rose");
        assert_eq!(
            names(&bytes, &exchange("/a", 200, &[], "ros")),
            ["body of GET /a"]
        );
        assert_eq!(names(&bytes, &exchange("/b", 200, &[], "rose")).len(), 2);
    }

    #[test]
    fn how_often_a_waiting_client_asks_does_not_count_but_what_it_meets_does() {
        let path = "/_matrix/client/v3/sync";
        let full = exchange(path, 200, &[], r#"{"next_batch":"1","rooms":{}}"#);
        let empty = exchange(path, 200, &[], r#"{"next_batch":"1"}"#);
        assert_eq!(
            differences(
                std::slice::from_ref(&full),
                &[empty.clone(), empty.clone(), full.clone()]
            ),
            []
        );
        let broken = exchange(path, 502, &[], "");
        let other = [full.clone(), broken];
        assert!(!differences(&other[..1], &other).is_empty());
    }
}
