//! Where callers come: TLS, HTTP, what is expected, and what came.

use bytes::Bytes;
use futures_util::future::try_join_all;
use harness::authority::Issued;
use harness::examine::{Cause, Trouble};
use harness::probe::{self, ProbeState};
use harness::wire::{Arrival, Wire};
use harness::world::World;
use harness::{Blame, Failure, OrBlame, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_rustls::LazyConfigAcceptor;

/// A caller that does not finish its handshake or its request is given up after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What callers ask of a federation server, by endpoint. Server-Server API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// `/.well-known/matrix/server`
    WellKnown,
    /// `/_matrix/key/v2/server`
    Keys,
    /// `/_matrix/federation/v1/version`
    Version,
    /// `/_matrix/federation/v1/make_join`
    MakeJoin,
    /// `/_matrix/federation/v{1,2}/send_join`
    SendJoin,
    /// `/_matrix/federation/v1/make_leave`
    MakeLeave,
    /// `/_matrix/federation/v{1,2}/send_leave`
    SendLeave,
    /// `/_matrix/federation/v{1,2}/invite`
    Invite,
    /// `/_matrix/federation/v1/send`
    Send,
    /// `/_matrix/federation/v1/event`
    Event,
    /// `/_matrix/federation/v1/state`
    State,
    /// `/_matrix/federation/v1/state_ids`
    StateIds,
    /// `/_matrix/federation/v1/event_auth`
    EventAuth,
    /// `/_matrix/federation/v1/backfill`
    Backfill,
    /// `/_matrix/federation/v1/get_missing_events`
    MissingEvents,
    /// `/_matrix/federation/v1/query/profile`
    Profile,
    /// `/_matrix/federation/v1/query/directory`
    Directory,
    /// `/_matrix/federation/v1/user/devices`
    Devices,
    /// `/_matrix/federation/v1/user/keys`
    UserKeys,
    /// Anything else.
    Unknown,
}

impl Ask {
    fn of(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or(path);
        match path {
            "/.well-known/matrix/server" => return Self::WellKnown,
            "/_matrix/federation/v1/version" => return Self::Version,
            _ => {}
        }
        if path == "/_matrix/key/v2/server" || path.starts_with("/_matrix/key/v2/server/") {
            return Self::Keys;
        }
        let Some((_, rest)) = path
            .strip_prefix("/_matrix/federation/v")
            .and_then(|rest| rest.split_once('/'))
        else {
            return Self::Unknown;
        };
        let mut words = rest.split('/');
        match (words.next().unwrap_or_default(), words.next()) {
            ("make_join", _) => Self::MakeJoin,
            ("send_join", _) => Self::SendJoin,
            ("make_leave", _) => Self::MakeLeave,
            ("send_leave", _) => Self::SendLeave,
            ("invite", _) => Self::Invite,
            ("send", _) => Self::Send,
            ("event", _) => Self::Event,
            ("state", _) => Self::State,
            ("state_ids", _) => Self::StateIds,
            ("event_auth", _) => Self::EventAuth,
            ("backfill", _) => Self::Backfill,
            ("get_missing_events", _) => Self::MissingEvents,
            ("query", Some("profile")) => Self::Profile,
            ("query", Some("directory")) => Self::Directory,
            ("user", Some("devices")) => Self::Devices,
            ("user", Some("keys")) => Self::UserKeys,
            _ => Self::Unknown,
        }
    }

    /// Whether the specification lets anybody ask, without a signature.
    pub fn is_open(self) -> bool {
        matches!(self, Self::WellKnown | Self::Keys | Self::Version)
    }
}

/// One request, and the way by which it came.
#[derive(Clone, Debug)]
pub struct Call {
    /// The address in the lab that was dialled.
    pub address: String,
    /// The port that was dialled.
    pub port: u16,
    /// The name that the caller demanded a certificate for (TLS server name indication).
    pub sni: Option<String>,
    /// The `Host` header.
    pub host: Option<String>,
    /// What is asked.
    pub ask: Ask,
    /// `GET`, ...
    pub method: String,
    /// Path and query, exactly as they came.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Call {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The name by which it was called: the server name indication, or the address without one.
    pub fn called(&self) -> &str {
        self.sni.as_deref().unwrap_or(&self.address)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} at {}:{} (SNI {}, Host {})",
            self.method,
            self.path,
            self.address,
            self.port,
            self.sni.as_deref().unwrap_or("none"),
            self.host.as_deref().unwrap_or("none"),
        )
    }
}

/// What came to a door, in its order.
#[derive(Clone, Debug)]
pub enum Visit {
    /// Somebody connected, and was turned away before a word was said: [`Door::slam`].
    Slammed {
        /// Where.
        address: String,
        /// At which port.
        port: u16,
    },
    /// Somebody connected and did not come through the TLS handshake.
    Refused {
        /// Where.
        address: String,
        /// At which port.
        port: u16,
        /// Whom it asked for.
        sni: Option<String>,
        /// Why it ended.
        reason: String,
    },
    /// A request that was expected.
    Expected(Call),
    /// A request that nobody declared: it fails the scenario.
    Unexpected(Call, String),
}

impl fmt::Display for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slammed { address, port } => write!(f, "turned away at {address}:{port}"),
            Self::Refused {
                address,
                port,
                sni,
                reason,
            } => {
                let sni = sni.as_deref().unwrap_or("none");
                write!(f, "no handshake at {address}:{port} (SNI {sni}): {reason}")
            }
            Self::Expected(call) => write!(f, "{call}"),
            Self::Unexpected(call, why) => write!(f, "{call}: {why}"),
        }
    }
}

/// What is sent back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers beside the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A JSON document.
    pub fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_string().into(),
        }
    }

    /// The same with one header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Something that is held back until it is opened.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everything pass, from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        // The sender lives as long as this gate.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// How an expected request is answered.
#[derive(Clone)]
pub enum Reply {
    /// At once.
    Now(Answer),
    /// Once a gate opens: late.
    After(Gate, Answer),
    /// Never: the caller waits until its own patience ends.
    Never,
}

impl Reply {
    /// A JSON document with status 200.
    pub fn json(body: &Value) -> Self {
        Self::Now(Answer::json(200, body))
    }

    /// A Matrix error.
    pub fn refuse(status: u16, errcode: &str) -> Self {
        let body = json!({"errcode": errcode, "error": "The peer was told to refuse this."});
        Self::Now(Answer::json(status, &body))
    }

    /// Status 200 and bytes that are nothing.
    pub fn garbage() -> Self {
        Self::Now(Answer {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Bytes::from_static(GARBAGE),
        })
    }

    /// Whether it says 200 and then nothing that a Matrix server would say, without being meant to.
    fn is_rubbish(&self) -> bool {
        let (Self::Now(answer) | Self::After(_, answer)) = self else {
            return false;
        };
        answer.status == 200
            && answer.body != GARBAGE
            && serde_json::from_slice::<Value>(&answer.body).is_err()
    }
}

const GARBAGE: &[u8] = b"\x00\xff{\"pdus\": [,";

type Decide = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;

struct Rule {
    called: String,
    ask: Ask,
    decide: Decide,
}

/// Says why a request is not one that its caller may make.
type Inspect = Arc<dyn Fn(&Call) -> std::result::Result<(), String> + Send + Sync>;

#[derive(Default)]
struct Inner {
    certificates: Mutex<BTreeMap<String, Arc<ServerConfig>>>,
    rules: Mutex<Vec<Rule>>,
    inspections: Mutex<BTreeMap<String, Inspect>>,
    visits: Mutex<Vec<Visit>>,
    rubbish: Mutex<Vec<String>>,
    slams: Mutex<bool>,
    held: Mutex<Option<Gate>>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
    wires: Arc<Vec<Wire>>,
}

impl Door {
    /// Opens a door with that many addresses in the lab, each with these ports.
    pub async fn open(world: &World, addresses: usize, ports: &[u16]) -> Result<Self> {
        // The crypto provider of this process is the one that its clients use.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let step = world
            .recorder()
            .begin(format!("open a door with {addresses} addresses"));
        let inner = Arc::<Inner>::default();
        let wires = (0..addresses).map(|_| world.wire(ports));
        let mut listening = Vec::new();
        for (wire, arrivals) in try_join_all(wires).await? {
            tokio::spawn(receive(inner.clone(), wire.address.clone(), arrivals));
            listening.push(wire);
        }
        step.done();
        Ok(Self {
            inner,
            wires: Arc::new(listening),
        })
    }

    /// Its addresses in the lab.
    pub fn addresses(&self) -> Vec<&str> {
        self.wires.iter().map(|wire| &*wire.address).collect()
    }

    /// Its first address.
    pub fn address(&self) -> &str {
        self.wires.first().map_or("", |wire| &wire.address)
    }

    /// Shows this certificate to callers that ask for `called`: a name, or an address for those that name nobody. `NAME:PORT`
    /// is for those who come to that port.
    pub fn show(&self, called: &str, certificate: &Issued) -> Result<()> {
        let what = || format!("show a certificate for `{called}`");
        let chain = CertificateDer::pem_slice_iter(certificate.certificate.as_bytes())
            .collect::<std::result::Result<Vec<_>, _>>()
            .or_harness(what)?;
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).or_harness(what)?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .or_harness(what)?;
        lock(&self.inner.certificates).insert(called.to_owned(), Arc::new(config));
        Ok(())
    }

    /// Expects a request of those who call it by that name, and answers so. A later declaration replaces an earlier one.
    pub fn expect(
        &self,
        called: &str,
        ask: Ask,
        decide: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) {
        let rule = Rule {
            called: called.to_owned(),
            ask,
            decide: Arc::new(decide),
        };
        lock(&self.inner.rules).push(rule);
    }

    /// Looks at every request of those who call it by that name before it is answered.
    pub fn inspect(
        &self,
        called: &str,
        inspect: impl Fn(&Call) -> std::result::Result<(), String> + Send + Sync + 'static,
    ) {
        lock(&self.inner.inspections).insert(called.to_owned(), Arc::new(inspect));
    }

    /// Breaks every connection off and refuses new ones: the machine is away.
    pub async fn leave(&self) -> Result<()> {
        for wire in &*self.wires {
            wire.refuse().await?;
        }
        Ok(())
    }

    /// Listens again after [`Door::leave`].
    pub async fn come_back(&self) -> Result<()> {
        for wire in &*self.wires {
            wire.listen().await?;
        }
        Ok(())
    }

    /// Hangs up on whoever connects, and notes it; or stops doing so. To the caller it is a server that is down, to the
    /// scenario one that knows when it was tried.
    pub fn slam(&self, slams: bool) {
        *lock(&self.inner.slams) = slams;
    }

    /// Answers whatever is asked from now on, keys excepted, only once the gate opens: late.
    pub fn holds(&self, gate: &Gate) {
        *lock(&self.inner.held) = Some(gate.clone());
    }

    /// What came so far.
    pub fn visits(&self) -> Vec<Visit> {
        lock(&self.inner.visits).clone()
    }

    /// How many visits there were: from where to look with [`Door::since`].
    pub fn mark(&self) -> usize {
        lock(&self.inner.visits).len()
    }

    /// What came since a mark.
    pub fn since(&self, mark: usize) -> Vec<Visit> {
        lock(&self.inner.visits)
            .iter()
            .skip(mark)
            .cloned()
            .collect()
    }

    /// The expected requests since a mark.
    pub fn calls(&self, mark: usize, ask: Ask) -> Vec<Call> {
        self.since(mark)
            .into_iter()
            .filter_map(|visit| match visit {
                Visit::Expected(call) if call.ask == ask => Some(call),
                _ => None,
            })
            .collect()
    }

    /// Waits until what came since a mark is enough. `what` says it as a sentence.
    pub async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mark: usize,
        mut judge: impl FnMut(&[Visit]) -> ProbeState<T>,
    ) -> Result<T> {
        Ok(probe::until(what, limit, async || judge(&self.since(mark))).await?)
    }

    /// What was answered with 200 and no JSON, though it was not [`Reply::garbage`]: then the server that we play is wrong, and
    /// whoever asked it cannot be blamed for what follows.
    pub fn rubbish(&self) -> Option<Trouble> {
        let answered = lock(&self.inner.rubbish);
        (!answered.is_empty()).then(|| Trouble {
            cause: Cause::Partner,
            blame: Blame::Harness,
            what: format!(
                "answer as a server does: the peer answered with no JSON to\n{}",
                answered.join("\n")
            ),
        })
    }

    /// Forgets what came unexpectedly: for the scenario that provokes it.
    pub fn forget_the_unexpected(&self) {
        lock(&self.inner.visits).retain(|visit| !matches!(visit, Visit::Unexpected(..)));
    }

    /// Fails if anything came that nobody had declared.
    ///
    /// # Errors
    /// The product's: it asked what it should not have.
    pub fn nothing_unexpected(&self) -> Result<()> {
        let unexpected: Vec<_> = self
            .visits()
            .iter()
            .filter(|visit| matches!(visit, Visit::Unexpected(..)))
            .map(ToString::to_string)
            .collect();
        if unexpected.is_empty() {
            return Ok(());
        }
        Err(
            Failure::product("ask of the peer only what it was told to expect")
                .last_seen(unexpected.join("\n"))
                .hint("declare it with `expect` if a well-behaved server may ask this"),
        )
    }
}

impl Inner {
    fn note(&self, visit: Visit) {
        lock(&self.visits).push(visit);
    }

    /// Notes a request, and decides what it is answered.
    fn decide(&self, call: Call) -> Reply {
        let inspection = lock(&self.inspections).get(call.called()).cloned();
        if let Some(inspect) = inspection
            && let Err(why) = inspect(&call)
        {
            self.note(Visit::Unexpected(call, why));
            return Reply::refuse(401, "M_UNAUTHORIZED");
        }
        let decide = lock(&self.rules)
            .iter()
            .rev()
            .find(|rule| rule.ask == call.ask && rule.called == call.called())
            .map(|rule| rule.decide.clone());
        let Some(decide) = decide else {
            self.note(Visit::Unexpected(call, "nobody declared it".to_owned()));
            return Reply::refuse(404, "M_UNRECOGNIZED");
        };
        // What it decides is part of what the visit shows: whoever waits for the visit finds it done.
        let decided = decide(&call);
        // Documents that stand by themselves are often wrong on purpose.
        if !call.ask.is_open() && decided.is_rubbish() {
            lock(&self.rubbish).push(call.to_string());
        }
        let held = lock(&self.held).clone().filter(|_| !call.ask.is_open());
        let reply = match (decided, held) {
            (Reply::Now(answer), Some(gate)) => Reply::After(gate, answer),
            (reply, _) => reply,
        };
        self.note(Visit::Expected(call));
        reply
    }
}

async fn receive(
    inner: Arc<Inner>,
    address: String,
    mut arrivals: mpsc::UnboundedReceiver<Arrival>,
) {
    while let Some(arrival) = arrivals.recv().await {
        if *lock(&inner.slams) {
            let (address, port) = (address.clone(), arrival.port);
            inner.note(Visit::Slammed { address, port });
            continue;
        }
        tokio::spawn(serve(inner.clone(), address.clone(), arrival));
    }
}

async fn serve(inner: Arc<Inner>, address: String, arrival: Arrival) {
    let port = arrival.port;
    let mut sni = None;
    let handshake = async {
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), arrival.stream);
        let start = acceptor.await.map_err(|error| error.to_string())?;
        sni = start.client_hello().server_name().map(str::to_owned);
        let called = sni.clone().unwrap_or_else(|| address.clone());
        let config = {
            let certificates = lock(&inner.certificates);
            let at_port = certificates.get(&format!("{called}:{port}"));
            at_port.or_else(|| certificates.get(&called)).cloned()
        };
        let config = config.ok_or_else(|| format!("no certificate for `{called}` here"))?;
        start
            .into_stream(config)
            .await
            .map_err(|error| error.to_string())
    };
    let stream = match tokio::time::timeout(PATIENCE, handshake).await {
        Ok(Ok(stream)) => stream,
        outcome => {
            let reason = match outcome {
                Ok(Err(reason)) => reason,
                _ => "the caller did not finish the handshake".to_owned(),
            };
            inner.note(Visit::Refused {
                address,
                port,
                sni,
                reason,
            });
            return;
        }
    };
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let (inner, address, sni) = (inner.clone(), address.clone(), sni.clone());
        async move {
            let call = read(request, address, port, sni).await;
            Ok::<_, Infallible>(answer(inner.decide(call)).await)
        }
    });
    // A caller that hangs up in the middle is no concern of ours: what it asked is noted.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn read(request: Request<Incoming>, address: String, port: u16, sni: Option<String>) -> Call {
    let (head, body) = request.into_parts();
    let text = |name| {
        let value = head.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let path = head
        .uri
        .path_and_query()
        .map_or_else(String::new, |path| path.as_str().to_owned());
    Call {
        address,
        port,
        sni,
        host: text("host"),
        ask: Ask::of(&path),
        method: head.method.to_string(),
        authorization: text("authorization"),
        path,
        body: body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default(),
    }
}

async fn answer(reply: Reply) -> Response<Full<Bytes>> {
    let answer = match reply {
        Reply::Now(answer) => answer,
        Reply::After(gate, answer) => {
            gate.passed().await;
            answer
        }
        Reply::Never => std::future::pending().await,
    };
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(answer.body)).unwrap_or_else(|_| {
        let mut broken = Response::new(Full::default());
        *broken.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        broken
    })
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
