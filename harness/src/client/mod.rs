//! The `Client`: one logged-in device of one user.
//!
//! Verbs come in two tiers. `alice.join(&room)` must succeed; anything else is a [`Failure`] that reads as a complete sentence.
//! `alice.try_join(&room)` hands back the [`Answer`], accepted or refused, to look at; it fails only when there was no answer.
//! Every request has an explicit [limit](Limits); a timeout is never a refusal ([`Failure::definite`]).
//!
//! Waits live in [`sync`](Client::listen): arm a [`Listener`], act, then await; or ask [`Client::sees`].
//!
//! Requests and responses are ruma's types, so that a server which strays from the specification is noticed
//! ([`Cause::Unreadable`]) instead of being read leniently.

mod account;
mod answer;
mod line;
mod media;
mod rooms;
mod sync;

use std::{
    borrow::Cow,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use ruma::{
    OwnedDeviceId, OwnedTransactionId, OwnedUserId, UserId,
    api::{
        IncomingResponse, MatrixVersion, OutgoingRequest, SupportedVersions,
        auth_scheme::{AuthScheme, SendAccessToken},
        client::{
            account::{register, whoami},
            session::{login, logout},
            uiaa,
        },
        error::FromHttpResponseError,
        path_builder::PathBuilder,
    },
    exports::http,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::media::sha256;
pub use self::{
    account::{Device, Profile},
    answer::{Answer, Asked, Cause, Failure, FailureParts, Refusal},
    line::{Exchange, Line, Log, Question, Unanswered},
    media::Media,
    rooms::{Event, NewRoom},
    sync::{Listener, Membership, RoomSeen, Seen},
};
use crate::probe;

/// The newest version that both Conduit 0.10.12 (`src/api/client_server/unversioned.rs:21-41`) and current Synapse declare. Fixed
/// instead of asked, so that every run speaks the same dialect; it selects the authenticated media endpoints (v1.11).
static DIALECT: LazyLock<SupportedVersions> = LazyLock::new(|| SupportedVersions {
    versions: [
        MatrixVersion::V1_1,
        MatrixVersion::V1_11,
        MatrixVersion::V1_12,
    ]
    .into(),
    features: Default::default(),
});

/// How long each kind of request may take. A request that takes longer ends in [`Cause::TimedOut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that the server answers by itself.
    pub call: Duration,
    /// Requests for which the server must ask other servers (join, leave, invite, knock, alias lookups, remote profiles).
    /// Conduit's own limits for one outgoing request are 30 s to connect and 180 s in all.
    pub federated: Duration,
    /// Uploads and downloads.
    pub media: Duration,
    /// How much waiting in all a server may impose on one request by answering 429. Zero: a 429 is handed back at once.
    /// Conduit 0.10.12 never answers 429; Synapse and later Conduits do.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(30),
            federated: Duration::from_secs(90),
            media: Duration::from_secs(60),
            patience: Duration::from_secs(30),
        }
    }
}

/// What a device needs to speak for its user again: the credentials of one session. `Debug` does not show the token.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Session {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// The access token: a secret.
    pub access_token: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

/// How a test server lets accounts be made. Client-Server API, "Account registration".
#[derive(Clone, Copy, Debug)]
pub enum Registration<'a> {
    /// Anybody may register (`m.login.dummy`).
    Open,
    /// With a registration token (`m.login.registration_token`).
    Token(&'a str),
}

/// One logged-in device of one user. Cheap to clone; clones share the transaction counter.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    server: Server,
    session: Session,
    limits: Limits,
    txn: Arc<Transactions>,
}

/// Transaction ids that no other client of this user's device has used, in this process or another.
///
/// Conduit keys transaction ids by user, device and id alone, not by room or endpoint: an id that is used again in another room
/// answers 200 with the *old* event's id, and the message is lost. So one counter serves all rooms and event types, behind a
/// prefix that is random for each client.
struct Transactions {
    prefix: String,
    next: AtomicU64,
}

impl Transactions {
    fn new() -> Self {
        // The hasher's keys come from the operating system's random numbers.
        let random = RandomState::new().hash_one(std::time::SystemTime::now());
        Self {
            prefix: format!("fleet-{random:016x}"),
            next: AtomicU64::new(1),
        }
    }

    fn next(&self) -> OwnedTransactionId {
        format!(
            "{}-{}",
            self.prefix,
            self.next.fetch_add(1, Ordering::Relaxed)
        )
        .into()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.0.server.base)
            .field("session", &self.0.session)
            .finish()
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.session.user_id)
    }
}

/// Where requests go to, without anybody's credentials.
#[derive(Clone)]
struct Server {
    line: Line,
    base: String,
}

/// A response as it came.
struct Received {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
    took: Duration,
    throttled: Duration,
}

impl Server {
    fn new(line: impl Into<Line>, base: &str) -> Self {
        Self {
            line: line.into(),
            base: base.trim_end_matches('/').to_owned(),
        }
    }

    /// Sends one ruma request and reads the answer.
    async fn call<R>(
        &self,
        who: &str,
        what: String,
        token: SendAccessToken<'_>,
        request: R,
        limit: Duration,
        patience: Duration,
    ) -> Result<Answer<R::IncomingResponse>, Failure>
    where
        R: OutgoingRequest,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = Cow<'a, SupportedVersions>>,
    {
        let mut asked = Asked {
            who: who.to_owned(),
            what,
            request: String::new(),
        };
        let request = match request.try_into_http_request::<Vec<u8>>(
            &self.base,
            token,
            Cow::Borrowed(&DIALECT),
        ) {
            Ok(request) => request,
            Err(error) => {
                return Err(Failure::new(
                    asked,
                    Cause::Invalid(answer::chain(&error)),
                    Duration::ZERO,
                ));
            }
        };
        asked.request = format!("{} {}", request.method(), request.uri().path());
        let received = self
            .send(&asked, request.map(Bytes::from), limit, patience)
            .await?;
        let Received {
            status,
            headers,
            body,
            took,
            throttled,
        } = received;
        if status >= 300 {
            let outcome = Err(Refusal::read(status, &headers, body));
            return Ok(Answer {
                asked,
                status,
                took,
                throttled,
                outcome,
            });
        }
        let mut response = http::Response::new(body.clone());
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
        *response.headers_mut() = headers;
        match R::IncomingResponse::try_from_http_response(response) {
            Ok(value) => Ok(Answer {
                asked,
                status,
                took,
                throttled,
                outcome: Ok(value),
            }),
            Err(error) => {
                let reason = match error {
                    FromHttpResponseError::Deserialization(error) => {
                        format!("its body is not what the endpoint promises: {error}")
                    }
                    _ => "it cannot be read".to_owned(),
                };
                Err(Failure::new(
                    asked,
                    Cause::Unreadable {
                        status,
                        reason,
                        body,
                    },
                    took,
                ))
            }
        }
    }

    /// Sends one request, again after each 429 while patience lasts. The limit counts for each attempt.
    async fn send(
        &self,
        asked: &Asked,
        request: http::Request<Bytes>,
        limit: Duration,
        patience: Duration,
    ) -> Result<Received, Failure> {
        let mut throttled = Duration::ZERO;
        let began = Instant::now();
        let question = || {
            let uri = request.uri();
            Question::since(began, uri.path(), uri.query(), request.body())
        };
        loop {
            let started = Instant::now();
            let fail = |cause| {
                let failure = Failure::new(asked.clone(), cause, started.elapsed());
                self.line.note_unanswered(|| Unanswered {
                    who: asked.who.clone(),
                    method: request.method().clone(),
                    path: request.uri().path().to_owned(),
                    question: question(),
                    definite: failure.definite(),
                });
                failure
            };
            let once = async {
                let request = request.clone().map(reqwest::Body::from);
                let request = reqwest::Request::try_from(request)
                    .map_err(|e| Cause::Invalid(answer::chain(&e)))?;
                let response = self
                    .line
                    .http
                    .execute(request)
                    .await
                    .map_err(|e| no_answer(&e, limit))?;
                let (status, version) = (response.status().as_u16(), response.version());
                let headers = response.headers().clone();
                let body = response.bytes().await.map_err(|e| no_answer(&e, limit))?;
                Ok((status, version, headers, body))
            };
            let (status, version, headers, body) = match tokio::time::timeout(limit, once).await {
                Ok(Ok(received)) => received,
                Ok(Err(cause)) => return Err(fail(cause)),
                Err(_) => return Err(fail(Cause::TimedOut { limit })),
            };
            let took = started.elapsed();
            tracing::debug!(target: "harness::http", who = %asked.who, request = %asked.request, status, ?took);
            if status == 429 {
                let pause = retry_after(&headers, &body);
                if throttled + pause <= patience {
                    throttled += pause;
                    probe::as_long_as_asked(pause).await;
                    continue;
                }
            }
            self.line.note(|| Exchange {
                who: asked.who.clone(),
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
                question: question(),
                version,
                status,
                headers: headers.clone(),
                body: body.clone(),
            });
            return Ok(Received {
                status,
                headers,
                body,
                took,
                throttled,
            });
        }
    }
}

/// Sorts the reasons for which there was no answer by what they say about the effect.
fn no_answer(error: &reqwest::Error, limit: Duration) -> Cause {
    if error.is_connect() {
        Cause::Unreachable(answer::chain(error))
    } else if error.is_builder() {
        Cause::Invalid(answer::chain(error))
    } else if error.is_timeout() {
        Cause::TimedOut { limit }
    } else {
        Cause::Broken(answer::chain(error))
    }
}

/// The pause that a 429 asks for. Client-Server API, "Rate limiting": the `Retry-After` header in seconds, or the older
/// `retry_after_ms` in the body; neither is mandatory.
fn retry_after(headers: &http::HeaderMap, body: &[u8]) -> Duration {
    let header = headers
        .get(http::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let millis = || serde_json::from_slice::<Value>(body).ok()?["retry_after_ms"].as_u64();
    header
        .map(Duration::from_secs)
        .or_else(|| millis().map(Duration::from_millis))
        .unwrap_or(Duration::from_millis(500))
        .max(Duration::from_millis(10))
}

/// Reads a JSON document that anybody may read, as nobody in particular.
pub(crate) async fn read_document(
    http: &reqwest::Client,
    url: &str,
    who: &str,
    what: &str,
) -> Result<Answer<Value>, Failure> {
    let limits = Limits::default();
    let bare = url.split('?').next().unwrap_or(url);
    let asked = Asked {
        who: who.to_owned(),
        what: what.to_owned(),
        request: format!("GET {bare}"),
    };
    let request = http::Request::get(url)
        .body(Bytes::new())
        .map_err(|error| {
            Failure::new(
                asked.clone(),
                Cause::Invalid(error.to_string()),
                Duration::ZERO,
            )
        })?;
    let received = Server::new(http, "")
        .send(&asked, request, limits.call, limits.patience)
        .await?;
    let Received {
        status,
        headers,
        body,
        took,
        throttled,
    } = received;
    if status >= 300 {
        let outcome = Err(Refusal::read(status, &headers, body));
        return Ok(Answer {
            asked,
            status,
            took,
            throttled,
            outcome,
        });
    }
    match serde_json::from_slice(&body) {
        Ok(value) => Ok(Answer {
            asked,
            status,
            took,
            throttled,
            outcome: Ok(value),
        }),
        Err(error) => {
            let reason = format!("its body is not JSON: {error}");
            Err(Failure::new(
                asked,
                Cause::Unreadable {
                    status,
                    reason,
                    body,
                },
                took,
            ))
        }
    }
}

impl Client {
    /// Logs in with a password; makes a new device with that name. `user` is a localpart or a full user id.
    /// Client-Server API, "Login". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn login(
        line: impl Into<Line>,
        base: &str,
        user: &str,
        password: &str,
        device: &str,
    ) -> Result<Self, Failure> {
        Self::try_login(line, base, user, password, device)
            .await?
            .must()
    }

    /// Logs in with a password, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_login(
        line: impl Into<Line>,
        base: &str,
        user: &str,
        password: &str,
        device: &str,
    ) -> Result<Answer<Self>, Failure> {
        let identifier =
            uiaa::UserIdentifier::Matrix(uiaa::MatrixUserIdentifier::new(user.to_owned()));
        let info = login::v3::LoginInfo::Password(login::v3::Password::new(
            identifier,
            password.to_owned(),
        ));
        let mut request = login::v3::Request::new(info);
        request.initial_device_display_name = Some(device.to_owned());
        Self::send_login(Server::new(line, base), user, request).await
    }

    /// Logs in with a token that the server's operator signed (`m.login.token`), as the device `device`, whose earlier
    /// session it takes over. Client-Server API, "Login". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn login_with_token(
        line: impl Into<Line>,
        base: &str,
        user: &str,
        token: String,
        device: &str,
    ) -> Result<Self, Failure> {
        let info = login::v3::LoginInfo::Token(login::v3::Token::new(token));
        let mut request = login::v3::Request::new(info);
        request.device_id = Some(device.into());
        request.initial_device_display_name = Some(device.to_owned());
        Self::send_login(Server::new(line, base), user, request)
            .await?
            .must()
    }

    async fn send_login(
        server: Server,
        user: &str,
        request: login::v3::Request,
    ) -> Result<Answer<Self>, Failure> {
        let limits = Limits::default();
        // Never with an Authorization header: Conduit refuses a login that carries one (`src/api/ruma_wrapper/axum.rs:310`).
        let answer = server
            .call(
                user,
                "log in".to_owned(),
                SendAccessToken::None,
                request,
                limits.call,
                limits.patience,
            )
            .await?;
        Ok(answer.map(|response| {
            let session = Session {
                user_id: response.user_id,
                device_id: response.device_id,
                access_token: response.access_token,
            };
            Self::assemble(server, session, limits)
        }))
    }

    /// Registers an account on a test server and returns its first device. Client-Server API, "Account registration". Must succeed.
    ///
    /// # Errors
    /// When the server refuses, offers no flow that `how` can walk, or does not answer.
    pub async fn register(
        line: impl Into<Line>,
        base: &str,
        localpart: &str,
        password: &str,
        device: &str,
        how: Registration<'_>,
    ) -> Result<Self, Failure> {
        Self::try_register(line, base, localpart, password, device, how)
            .await?
            .must()
    }

    /// Registers an account, and hands back the answer: of the request that made the account, or of the one that was refused.
    ///
    /// # Errors
    /// When there is no answer, or the server offers no flow that `how` can walk.
    pub async fn try_register(
        line: impl Into<Line>,
        base: &str,
        localpart: &str,
        password: &str,
        device: &str,
        how: Registration<'_>,
    ) -> Result<Answer<Self>, Failure> {
        let server = Server::new(line, base);
        let limits = Limits::default();
        let mut request = register::v3::Request::new();
        request.username = Some(localpart.to_owned());
        request.password = Some(password.to_owned());
        request.initial_device_display_name = Some(device.to_owned());
        loop {
            let answer = server
                .call(
                    localpart,
                    "register".to_owned(),
                    SendAccessToken::None,
                    request.clone(),
                    limits.call,
                    limits.patience,
                )
                .await?;
            // Client-Server API, "User-interactive authentication in the REST API": 401 without a credential is an invitation to
            // authenticate; 401 after one lists what is completed, and an `errcode` when the stage was failed.
            let refused = answer.refusal().filter(|refusal| refusal.status == 401);
            let info = refused
                .and_then(|refusal| serde_json::from_slice::<uiaa::UiaaInfo>(&refusal.body).ok());
            if let Some(info) = info.filter(|info| info.auth_error.is_none()) {
                match next_stage(&info, how) {
                    Ok(auth) => request.auth = Some(auth),
                    Err(reason) => {
                        return Err(Failure::new(
                            answer.asked,
                            Cause::Unexpected(reason),
                            answer.took,
                        ));
                    }
                }
                continue;
            }
            let Answer {
                asked,
                status,
                took,
                throttled,
                outcome,
            } = answer;
            let outcome = match outcome {
                Err(refusal) => Err(refusal),
                Ok(response) => match (response.access_token, response.device_id) {
                    (Some(access_token), Some(device_id)) => {
                        let session = Session {
                            user_id: response.user_id,
                            device_id,
                            access_token,
                        };
                        Ok(Self::assemble(server, session, limits))
                    }
                    _ => {
                        let reason =
                            "the server made the account but handed out no session".to_owned();
                        return Err(Failure::new(asked, Cause::Unexpected(reason), took));
                    }
                },
            };
            return Ok(Answer {
                asked,
                status,
                took,
                throttled,
                outcome,
            });
        }
    }

    /// Takes up a session by its token alone; asks the server who that is ("whoami"). Must succeed.
    ///
    /// # Errors
    /// When the token is not valid, belongs to no device, or the server does not answer.
    pub async fn with_token(
        line: impl Into<Line>,
        base: &str,
        token: &str,
    ) -> Result<Self, Failure> {
        let server = Server::new(line, base);
        let limits = Limits::default();
        let request = whoami::v3::Request::new();
        let what = "say who it is (whoami)".to_owned();
        let token_of = SendAccessToken::Always(token);
        let answer = server
            .call(
                "the owner of a token",
                what,
                token_of,
                request,
                limits.call,
                limits.patience,
            )
            .await?;
        let (asked, took) = (answer.asked.clone(), answer.took);
        let me = answer.must()?;
        let Some(device_id) = me.device_id else {
            let reason = format!("the token of `{}` belongs to no device", me.user_id);
            return Err(Failure::new(asked, Cause::Unexpected(reason), took));
        };
        let session = Session {
            user_id: me.user_id,
            device_id,
            access_token: token.to_owned(),
        };
        Ok(Self::assemble(server, session, limits))
    }

    /// Takes up a session without asking the server anything.
    pub fn with_session(line: impl Into<Line>, base: &str, session: Session) -> Self {
        Self::assemble(Server::new(line, base), session, Limits::default())
    }

    fn assemble(server: Server, session: Session, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            server,
            session,
            limits,
            txn: Arc::new(Transactions::new()),
        }))
    }

    /// The same device with other limits.
    pub fn with_limits(&self, limits: Limits) -> Self {
        let Inner {
            server,
            session,
            txn,
            ..
        } = &*self.0;
        Self(Arc::new(Inner {
            server: server.clone(),
            session: session.clone(),
            limits,
            txn: txn.clone(),
        }))
    }

    /// The same device at another address, as after a restore onto another host.
    pub fn at(&self, line: impl Into<Line>, base: &str) -> Self {
        let Inner {
            session,
            limits,
            txn,
            ..
        } = &*self.0;
        Self(Arc::new(Inner {
            server: Server::new(line, base),
            session: session.clone(),
            limits: *limits,
            txn: txn.clone(),
        }))
    }

    /// The user.
    pub fn user_id(&self) -> &UserId {
        &self.0.session.user_id
    }

    /// The device.
    pub fn device_id(&self) -> &ruma::DeviceId {
        &self.0.session.device_id
    }

    /// The session, with its secret.
    pub fn session(&self) -> &Session {
        &self.0.session
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// The base URL, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.0.server.base
    }

    /// A transaction id that this device has never used. Client-Server API, "Transaction identifiers".
    pub fn next_txn(&self) -> OwnedTransactionId {
        self.0.txn.next()
    }

    /// Whether the session still is what it was: asks the server who its owner is. Client-Server API, "Current account
    /// information". Must succeed, and must name the same user and device.
    ///
    /// # Errors
    /// When the token is not valid any more, belongs to somebody else, or the server does not answer.
    pub async fn whoami(&self) -> Result<(), Failure> {
        let answer = self.try_whoami().await?;
        let (asked, took) = (answer.asked.clone(), answer.took);
        let me = answer.must()?;
        let Session {
            user_id, device_id, ..
        } = self.session();
        if me.user_id == *user_id && me.device_id.as_ref() == Some(device_id) {
            return Ok(());
        }
        let (other, device) = (me.user_id, me.device_id);
        let reason = format!(
            "the server takes the token of `{user_id}`, device `{device_id}` for that of `{other}`, device {device:?}"
        );
        Err(Failure::new(asked, Cause::Unexpected(reason), took))
    }

    /// Asks whose session this is, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_whoami(&self) -> Result<Answer<whoami::v3::Response>, Failure> {
        self.try_call(
            "say who it is (whoami)",
            whoami::v3::Request::new(),
            self.0.limits.call,
        )
        .await
    }

    /// Ends the session: afterwards the token is dead. Client-Server API, "Logout". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn logout(&self) -> Result<(), Failure> {
        self.try_logout().await?.must()
    }

    /// Ends the session, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_logout(&self) -> Result<Answer<()>, Failure> {
        Ok(self
            .try_call("log out", logout::v3::Request::new(), self.0.limits.call)
            .await?
            .map(|_| ()))
    }

    /// Sends any request that ruma knows, as this device. For endpoints that have no verb here.
    ///
    /// # Errors
    /// When there is no answer within `limit`, or the server accepts in a form that is not the endpoint's.
    pub async fn try_call<R>(
        &self,
        what: impl Into<String>,
        request: R,
        limit: Duration,
    ) -> Result<Answer<R::IncomingResponse>, Failure>
    where
        R: OutgoingRequest,
        for<'a> R::Authentication: AuthScheme<Input<'a> = SendAccessToken<'a>>,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = Cow<'a, SupportedVersions>>,
    {
        let Inner {
            server,
            session,
            limits,
            ..
        } = &*self.0;
        // Always: a profile lookup is open by specification, but Synapse may be told to ask for a token.
        let token = SendAccessToken::Always(&session.access_token);
        server
            .call(
                session.user_id.as_str(),
                what.into(),
                token,
                request,
                limit,
                limits.patience,
            )
            .await
    }

    /// Sends any request at all, as this device: a method, a path with query (`/_matrix/…`, already percent-encoded), and a JSON
    /// body. A body of the answer that is not JSON becomes a JSON string.
    ///
    /// # Errors
    /// When there is no answer, or the path makes no URL.
    pub async fn try_raw(
        &self,
        method: http::Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer<Value>, Failure> {
        let Inner {
            server,
            session,
            limits,
            ..
        } = &*self.0;
        let bare = path.split('?').next().unwrap_or(path);
        let asked = Asked {
            who: session.user_id.to_string(),
            what: format!("call `{method} {bare}`"),
            request: format!("{method} {bare}"),
        };
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", server.base))
            .header(
                http::header::AUTHORIZATION,
                format!("Bearer {}", session.access_token),
            );
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(
                body.map(|body| Bytes::from(body.to_string()))
                    .unwrap_or_default(),
            )
            .map_err(|error| {
                Failure::new(
                    asked.clone(),
                    Cause::Invalid(error.to_string()),
                    Duration::ZERO,
                )
            })?;
        let Received {
            status,
            headers,
            body,
            took,
            throttled,
        } = server
            .send(&asked, request, limits.call, limits.patience)
            .await?;
        let outcome = if status >= 300 {
            Err(Refusal::read(status, &headers, body))
        } else {
            Ok(serde_json::from_slice(&body)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned())))
        };
        Ok(Answer {
            asked,
            status,
            took,
            throttled,
            outcome,
        })
    }

    /// A failure of this client before anything was sent.
    fn invalid(&self, what: impl Into<String>, reason: impl fmt::Display) -> Failure {
        let asked = Asked {
            who: self.to_string(),
            what: what.into(),
            request: String::new(),
        };
        Failure::new(asked, Cause::Invalid(reason.to_string()), Duration::ZERO)
    }
}

/// The credential for the next stage of an interactive authentication, along the first flow that we can walk to its end.
fn next_stage(info: &uiaa::UiaaInfo, how: Registration<'_>) -> Result<uiaa::AuthData, String> {
    let can = |stage: &uiaa::AuthType| match stage {
        uiaa::AuthType::Dummy => true,
        uiaa::AuthType::RegistrationToken => matches!(how, Registration::Token(_)),
        _ => false,
    };
    let offered = || {
        let flows = info.flows.iter().map(|flow| {
            flow.stages
                .iter()
                .map(|stage| stage.as_str())
                .collect::<Vec<_>>()
                .join(" + ")
        });
        flows.collect::<Vec<_>>().join(" or ")
    };
    let flow = info.flows.iter().find(|flow| flow.stages.iter().all(can));
    let flow = flow.ok_or_else(|| {
        format!(
            "the server wants `{}`, which {how:?} cannot give",
            offered()
        )
    })?;
    match (
        flow.stages
            .iter()
            .find(|stage| !info.completed.contains(stage)),
        how,
    ) {
        (Some(uiaa::AuthType::Dummy), _) => {
            let mut dummy = uiaa::Dummy::new();
            dummy.session = info.session.clone();
            Ok(uiaa::AuthData::Dummy(dummy))
        }
        (Some(uiaa::AuthType::RegistrationToken), Registration::Token(token)) => {
            let mut token = uiaa::RegistrationToken::new(token.to_owned());
            token.session = info.session.clone();
            Ok(uiaa::AuthData::RegistrationToken(token))
        }
        _ => Err(format!(
            "the server lists every stage of `{}` as completed and still refuses",
            offered()
        )),
    }
}

#[cfg(test)]
mod tests;
