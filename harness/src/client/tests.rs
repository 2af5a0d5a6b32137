//! The plumbing against a server that answers what it was told to.

use std::sync::Mutex;

use ruma::room_id;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// The room of these tests.
fn garden() -> &'static ruma::RoomId {
    room_id!("!garden:vale.test")
}

/// One canned response: status, extra header lines, body. `None`: accept the request and hang up.
type Canned = Option<(u16, &'static str, Value)>;

/// A server on loopback that answers each request with the next response, and keeps the requests. After the last response it
/// accepts requests and never answers.
struct Stub {
    base: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    async fn start(responses: Vec<Canned>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = requests.clone();
        tokio::spawn(async move {
            let mut responses = responses.into_iter();
            let mut deaf = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                kept.lock().unwrap().push(request);
                match responses.next() {
                    Some(Some((status, headers, body))) => {
                        let body = body.to_string();
                        let head = format!("HTTP/1.1 {status} X\r\n{headers}connection: close\r\n");
                        let rest = format!("content-length: {}\r\n\r\n{body}", body.len());
                        stream.write_all((head + &rest).as_bytes()).await.unwrap();
                    }
                    Some(None) => drop(stream),
                    None => deaf.push(stream),
                }
            }
        });
        Self { base, requests }
    }

    fn alice(&self) -> Client {
        let session = Session {
            user_id: "@alice:vale.test".try_into().unwrap(),
            device_id: "PHONE".into(),
            access_token: "secret".to_owned(),
        };
        Client::with_session(&reqwest_client(), &self.base, session)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let mut some = [0; 4096];
        let count = stream.read(&mut some).await.unwrap();
        request.extend_from_slice(&some[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            line.to_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        if count == 0 || body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}

fn reqwest_client() -> reqwest::Client {
    _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn ok(body: Value) -> Canned {
    Some((200, "", body))
}

#[tokio::test]
async fn a_refused_verb_fails_and_its_try_hands_the_refusal_back() {
    let refusal = || {
        Some((
            403,
            "",
            json!({ "errcode": "M_FORBIDDEN", "error": "not invited" }),
        ))
    };
    let stub = Stub::start(vec![refusal(), refusal()]).await;
    let failure = stub.alice().join(garden()).await.unwrap_err();
    assert!(failure.definite());
    let text = failure.to_string();
    let start = "`@alice:vale.test` could not join `!garden:vale.test`: the server answered 403 `M_FORBIDDEN` \"not invited\"";
    assert!(text.starts_with(start), "{text}");
    assert!(
        text.contains("[POST /_matrix/client/v3/join/!garden:vale.test, "),
        "{text}"
    );
    let refusal = stub
        .alice()
        .try_join(garden())
        .await
        .unwrap()
        .must_be_refused(403, "M_FORBIDDEN")
        .unwrap();
    assert_eq!(
        refusal.error.error_kind(),
        Some(&ruma::api::error::ErrorKind::Forbidden)
    );
}

#[tokio::test]
async fn a_timeout_is_not_a_refusal() {
    let stub = Stub::start(vec![]).await;
    let limits = Limits {
        federated: Duration::from_millis(80),
        ..Limits::default()
    };
    let failure = stub
        .alice()
        .with_limits(limits)
        .join(garden())
        .await
        .unwrap_err();
    assert!(
        matches!(failure.cause, Cause::TimedOut { .. }) && !failure.definite(),
        "{:?}",
        failure.cause
    );
    assert!(
        failure
            .to_string()
            .contains("no answer within 80 ms (a timeout is not a refusal: it may have been done)"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_the_effect_open() {
    let stub = Stub::start(vec![None]).await;
    let failure = stub.alice().say(garden(), "hello").await.unwrap_err();
    assert!(
        matches!(failure.cause, Cause::Broken(_)) && !failure.definite(),
        "{:?}",
        failure.cause
    );
}

#[tokio::test]
async fn nothing_was_sent_where_nobody_listens() {
    let stub = Stub::start(vec![]).await;
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let failure = stub
        .alice()
        .at(&reqwest_client(), &format!("http://{free}"))
        .joined_rooms()
        .await
        .unwrap_err();
    assert!(
        matches!(failure.cause, Cause::Unreachable(_)) && failure.definite(),
        "{:?}",
        failure.cause
    );
    assert!(failure.to_string().contains("refused"), "{failure}");
}

#[tokio::test]
async fn an_answer_in_another_form_is_the_servers_fault() {
    let stub = Stub::start(vec![ok(json!({ "room": "!x" }))]).await;
    let failure = stub.alice().join(garden()).await.unwrap_err();
    assert!(
        matches!(failure.cause, Cause::Unreadable { status: 200, .. }),
        "{:?}",
        failure.cause
    );
    assert!(
        failure.to_string().contains(r#"body: `{"room":"!x"}`"#),
        "{failure}"
    );
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it() {
    let slow = || {
        Some((
            429,
            "",
            json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "slow", "retry_after_ms": 30 }),
        ))
    };
    let stub = Stub::start(vec![slow(), slow(), ok(json!({ "joined_rooms": [] }))]).await;
    let answer = stub.alice().try_whoami().await;
    assert!(
        answer.is_err(),
        "the third answer is no whoami, but it came"
    );
    assert_eq!(stub.requests().len(), 3);

    let stub = Stub::start(vec![Some((
        429,
        "retry-after: 60\r\n",
        json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "slow" }),
    ))])
    .await;
    let refusal = stub
        .alice()
        .try_whoami()
        .await
        .unwrap()
        .must_be_refused(429, "M_LIMIT_EXCEEDED")
        .unwrap();
    assert_eq!(
        refusal.message, "slow",
        "more than the patience is handed back at once"
    );

    let stub = Stub::start(vec![slow()]).await;
    let none = Limits {
        patience: Duration::ZERO,
        ..Limits::default()
    };
    let answer = stub.alice().with_limits(none).try_whoami().await.unwrap();
    assert_eq!((answer.status, answer.throttled), (429, Duration::ZERO));
}

#[tokio::test]
async fn no_transaction_id_is_used_twice() {
    let stub = Stub::start(vec![]).await;
    let alice = stub.alice();
    let (clone, other) = (alice.with_limits(Limits::default()), stub.alice());
    let ids: std::collections::BTreeSet<_> = (0..100)
        .flat_map(|_| [alice.next_txn(), clone.next_txn(), other.next_txn()])
        .collect();
    assert_eq!(ids.len(), 300);
}

#[tokio::test]
async fn registration_walks_the_flow_that_the_server_offers() {
    let flows = json!({ "flows": [{ "stages": ["m.login.recaptcha"] }, { "stages": ["m.login.registration_token", "m.login.dummy"] }],
        "params": {}, "session": "s1" });
    let mut half_way = flows.clone();
    half_way["completed"] = json!(["m.login.registration_token"]);
    let done = json!({ "user_id": "@bob:vale.test", "device_id": "D", "access_token": "t" });
    let stub = Stub::start(vec![
        Some((401, "", flows.clone())),
        Some((401, "", half_way)),
        ok(done),
    ])
    .await;
    let http = reqwest_client();
    let bob = Client::register(
        &http,
        &stub.base,
        "bob",
        "pw",
        "Desk",
        Registration::Token("let me in"),
    )
    .await
    .unwrap();
    assert_eq!(
        (bob.user_id().as_str(), bob.device_id().as_str()),
        ("@bob:vale.test", "D")
    );
    let requests = stub.requests();
    assert!(
        requests[1]
            .contains(r#""type":"m.login.registration_token","token":"let me in","session":"s1""#),
        "{requests:?}"
    );
    assert!(
        requests[2].contains(r#""type":"m.login.dummy","session":"s1""#),
        "{requests:?}"
    );
    assert!(
        requests
            .iter()
            .all(|request| !request.to_lowercase().contains("authorization:")),
        "{requests:?}"
    );

    let stub = Stub::start(vec![Some((401, "", flows))]).await;
    let failure = Client::register(&http, &stub.base, "bob", "pw", "Desk", Registration::Open)
        .await
        .unwrap_err();
    assert!(
        failure.to_string().contains(
            "the server wants `m.login.recaptcha or m.login.registration_token + m.login.dummy`"
        ),
        "{failure}"
    );
}

#[tokio::test]
async fn a_wrong_token_at_registration_is_a_refusal() {
    let flows = json!({ "flows": [{ "stages": ["m.login.registration_token"] }], "session": "s1" });
    let mut wrong = flows.clone();
    wrong["errcode"] = json!("M_FORBIDDEN");
    wrong["error"] = json!("Invalid registration token.");
    let stub = Stub::start(vec![Some((401, "", flows)), Some((401, "", wrong))]).await;
    let how = Registration::Token("wrong");
    let answer = Client::try_register(&reqwest_client(), &stub.base, "bob", "pw", "Desk", how)
        .await
        .unwrap();
    answer
        .map(|_| ())
        .must_be_refused(401, "M_FORBIDDEN")
        .unwrap();
}

#[tokio::test]
async fn the_token_is_not_shown() {
    let stub = Stub::start(vec![]).await;
    assert!(!format!("{:?}", stub.alice()).contains("secret"));
    assert!(!format!("{:?}", stub.alice().session()).contains("secret"));
    let written = serde_json::to_string(stub.alice().session()).unwrap();
    assert_eq!(
        &serde_json::from_str::<Session>(&written).unwrap(),
        stub.alice().session(),
        "but it is written where asked for"
    );
}

#[tokio::test]
async fn a_listener_outlasts_empty_answers_and_a_restart_but_not_a_dead_session() {
    let sync = |next: &str, rooms: Value| json!({ "next_batch": next, "rooms": rooms });
    let event = json!({ "event_id": "$hello", "type": "m.room.message", "sender": "@bob:vale.test", "origin_server_ts": 1,
        "content": { "body": "hello" }, "unsigned": { "age": 5 } });
    let news = json!({ "join": { garden().as_str(): { "timeline": { "events": [event] } } } });
    let bad_gateway = Some((502, "", json!({})));
    let empty = || ok(sync("1", json!({})));
    let stub = Stub::start(vec![
        empty(),
        empty(),
        bad_gateway,
        None,
        ok(sync("2", news)),
    ])
    .await;
    let mut listener = stub.alice().listen().await.unwrap();
    let hello = ruma::event_id!("$hello");
    let heard = listener
        .until("alice hears it", Duration::from_secs(10), |seen| {
            seen.event(garden(), hello)
        })
        .await
        .unwrap();
    assert_eq!(heard.body(), Some("hello"));
    assert_eq!(listener.since(), Some("2"));

    let dead = Some((
        401,
        "",
        json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "gone" }),
    ));
    let stub = Stub::start(vec![empty(), dead]).await;
    let mut listener = stub.alice().listen().await.unwrap();
    let unmet = listener
        .until("alice hears it", Duration::from_secs(10), |seen| {
            seen.event(garden(), hello)
        })
        .await
        .unwrap_err();
    assert!(
        unmet.definite() && unmet.to_string().contains("401 `M_UNKNOWN_TOKEN`"),
        "{unmet}"
    );
}

#[tokio::test]
async fn a_listener_that_waits_in_vain_tells_what_it_heard() {
    let stub = Stub::start(vec![ok(json!({ "next_batch": "1" }))]).await;
    let limit = Duration::from_millis(300);
    let unmet = stub
        .alice()
        .sync_until("alice hears it", limit, |seen| {
            seen.event(garden(), ruma::event_id!("$x"))
        })
        .await
        .unwrap_err();
    let text = unmet.to_string();
    assert!(
        !unmet.definite()
            && text.contains("waited in vain until alice hears it: limit of 300 ms passed"),
        "{text}"
    );
    assert!(
        text.contains("last seen: 1 sync responses have not mentioned `!garden:vale.test`"),
        "{text}"
    );
}
