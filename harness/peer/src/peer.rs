//! A server name that a scenario plays: its keys, its requests, its rooms, what it was sent.

use crate::door::{Answer, Ask, Call, Door, Gate, Reply, lock};
use crate::faulty::Mutant;
use crate::room::{Room, Sealed, canonical, event_id, now, value};
use bytes::Bytes;
use harness::authority::Validity;
use harness::probe::{self, ProbeState};
use harness::site::Site;
use harness::world::World;
use harness::{Failure, OrBlame, Result};
use ruma::api::federation::authentication::XMatrix;
use ruma::canonical_json::{CanonicalJsonObject, CanonicalJsonValue};
use ruma::exports::http;
use ruma::room_version_rules::RoomVersionRules;
use ruma::serde::Base64;
use ruma::signatures::{
    Ed25519KeyPair, KeyPair, PublicKeyMap, PublicKeySet, hash_and_sign_event, sign_json,
    verify_json,
};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, RoomVersionId, ServerName};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The longest that the home may take to answer one request of ours.
const PATIENCE: Duration = Duration::from_secs(60);
const DAY: u64 = 24 * 60 * 60 * 1000;

/// A signing key of a server.
pub struct Signing(Ed25519KeyPair);

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signing({})", self.id())
    }
}

impl Signing {
    /// Makes a key of that name: its id is `ed25519:NAME`.
    ///
    /// # Panics
    /// Never: what ruma generates it can read.
    pub fn new(name: &str) -> Self {
        let document = Ed25519KeyPair::generate();
        let pair = Ed25519KeyPair::from_der(&document, name.to_owned());
        Self(pair.expect("a generated key can be read"))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.version()
    }

    /// Its id.
    pub fn id(&self) -> String {
        format!("ed25519:{}", self.name())
    }

    /// Its public half, in base64.
    pub fn public(&self) -> String {
        Base64::<ruma::serde::base64::Standard, _>::new(self.0.public_key().to_vec()).encode()
    }

    pub(crate) fn pair(&self) -> &Ed25519KeyPair {
        &self.0
    }
}

/// What `/_matrix/key/v2/server` answers. Server-Server API, "Publishing keys".
#[derive(Clone, Debug)]
pub struct KeyDocument {
    /// Whom the keys belong to.
    pub server_name: String,
    /// The keys that sign now.
    pub verify: Vec<Arc<Signing>>,
    /// The keys that signed once, and until when.
    pub old: Vec<(Arc<Signing>, u64)>,
    /// How long this may be believed, in milliseconds since 1970.
    pub valid_until: u64,
    /// Who signs it.
    pub signers: Vec<Arc<Signing>>,
}

impl KeyDocument {
    /// What an honest server publishes that has one key: valid for a day.
    pub fn honest(server_name: &str, signing: &Arc<Signing>) -> Self {
        Self {
            server_name: server_name.to_owned(),
            verify: vec![signing.clone()],
            old: Vec::new(),
            valid_until: now() + DAY,
            signers: vec![signing.clone()],
        }
    }

    /// Signed, as it is published.
    pub fn json(&self) -> Result<Value> {
        let key = |signing: &Arc<Signing>| json!({"key": signing.public()});
        let verify: BTreeMap<_, _> = self.verify.iter().map(|s| (s.id(), key(s))).collect();
        let old: BTreeMap<_, _> = self
            .old
            .iter()
            .map(|(s, until)| (s.id(), json!({"key": s.public(), "expired_ts": until})))
            .collect();
        let mut document = canonical(json!({
            "server_name": self.server_name,
            "verify_keys": verify,
            "old_verify_keys": old,
            "valid_until_ts": self.valid_until,
        }))?;
        for signer in &self.signers {
            sign_json(&self.server_name, signer.pair(), &mut document)
                .or_harness(|| "sign a key document".to_owned())?;
        }
        Ok(value(&document))
    }
}

/// A request with its signature, as often as one likes.
#[derive(Clone, Debug)]
pub struct Signed {
    /// `GET`, ...
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body.
    pub body: Bytes,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

/// What the home answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replied {
    /// What was asked.
    pub request: String,
    /// The status.
    pub status: u16,
    /// The body; null where it is no JSON.
    pub body: Value,
}

impl Replied {
    /// The Matrix error code; empty where there is none.
    pub fn errcode(&self) -> &str {
        self.body["errcode"].as_str().unwrap_or_default()
    }

    /// The body of an answer that must be 200.
    pub fn must(self) -> Result<Value> {
        if self.status == 200 {
            return Ok(self.body);
        }
        Err(
            Failure::product(format!("answer the peer's `{}`", self.request))
                .last_seen(self.to_string()),
        )
    }
}

impl fmt::Display for Replied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} answered {}: {}",
            self.request, self.status, self.body
        )
    }
}

/// A transaction that the peer was sent.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Its id.
    pub id: String,
    /// Its events, in their order.
    pub pdus: Vec<Sealed>,
    /// Its ephemeral events.
    pub edus: Vec<Value>,
}

struct Home {
    name: OwnedServerName,
    base: String,
    http: reqwest::Client,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Peer {
    /// Where it is found.
    pub door: Door,
    /// Its server name.
    pub name: String,
    home: Arc<Home>,
    signing: Arc<Mutex<Arc<Signing>>>,
    keys: Arc<Mutex<Reply>>,
    transactions: Arc<Mutex<Vec<Transaction>>>,
    mutant: Option<Mutant>,
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl Peer {
    /// Takes up residence under a name behind a door: its zone points there, its certificate is shown, its keys are
    /// published, and it has no `.well-known`. Whatever else the home may ask has to be declared.
    ///
    /// Key ids are as unlike as the names: Conduit 0.10.12 counts failed look-ups of keys by the key's id alone, whoever's
    /// it is (`src/service/rooms/event_handler/mod.rs:1832`), so that equal ids would disturb each other.
    pub async fn open(world: &World, door: &Door, name: &str, home: &Site) -> Result<Self> {
        let step = world.recorder().begin(format!("play the server {name}"));
        world
            .publish([(name.to_owned(), zone(name, door.address(), &[]))])
            .await?;
        door.show(name, &world.certificate(&[name], Validity::Current)?)?;
        let signing = Arc::new(Signing::new(&format!(
            "k_{}",
            name.replace(['.', '-'], "_")
        )));
        let peer = Self {
            door: door.clone(),
            name: name.to_owned(),
            home: Arc::new(Home {
                name: ServerName::parse(&home.name)
                    .or_harness(|| format!("name the home `{}`", home.name))?,
                base: home.base_url(),
                http: home.http().clone(),
            }),
            keys: Arc::new(Mutex::new(Reply::json(
                &KeyDocument::honest(name, &signing).json()?,
            ))),
            signing: Arc::new(Mutex::new(signing)),
            transactions: Arc::default(),
            mutant: None,
            asked: Arc::default(),
        };
        let published = peer.keys.clone();
        door.expect(name, Ask::Keys, move |_| lock(&published).clone());
        door.expect(name, Ask::WellKnown, |_| Reply::refuse(404, "M_NOT_FOUND"));
        let keys = peer.home_keys().await?;
        let (own, home) = (ServerName::parse(name), peer.home.name.clone());
        let own = own.or_harness(|| format!("name the peer `{name}`"))?;
        door.inspect(name, move |call| {
            if call.ask.is_open() {
                return Ok(());
            }
            verify(call, &home, &own, &keys)
        });
        step.done();
        Ok(peer)
    }

    /// The same, wrong in one way from now on.
    #[must_use]
    pub fn wrong(self, mutant: Option<Mutant>) -> Self {
        Self { mutant, ..self }
    }

    /// The keys that the home publishes, if they are signed by themselves.
    pub async fn home_keys(&self) -> Result<PublicKeyMap> {
        let document = self.bare("GET", "/_matrix/key/v2/server").await?.must()?;
        read_keys(self.home.name.as_str(), &document)
    }

    /// The key that it signs with.
    pub fn signing(&self) -> Arc<Signing> {
        lock(&self.signing).clone()
    }

    /// Signs with this key from now on; what it publishes stays as it is.
    pub fn sign_with(&self, signing: &Arc<Signing>) {
        *lock(&self.signing) = signing.clone();
    }

    /// Answers like this when its keys are asked for.
    pub fn publish_keys(&self, reply: Reply) {
        *lock(&self.keys) = reply;
    }

    /// A user of it.
    pub fn user(&self, localpart: &str) -> String {
        format!("@{localpart}:{}", self.name)
    }

    /// Expects a request of those who call this peer by its name.
    pub fn expect(&self, ask: Ask, decide: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        self.door.expect(&self.name, ask, decide);
    }

    /// Takes transactions from now on, and keeps them.
    pub fn takes_transactions(&self) {
        self.takes_transactions_so(Reply::Now);
    }

    /// Takes transactions from now on, and says so only once the gate opens: late.
    pub fn takes_transactions_late(&self, gate: &Gate) {
        let gate = gate.clone();
        self.takes_transactions_so(move |answer| Reply::After(gate.clone(), answer));
    }

    fn takes_transactions_so(&self, reply: impl Fn(Answer) -> Reply + Send + Sync + 'static) {
        let kept = self.transactions.clone();
        self.expect(Ask::Send, move |call| {
            let body = call.json();
            let pdus: Vec<_> = list(&body, "pdus")
                .into_iter()
                .filter_map(|pdu| {
                    let json = canonical(pdu).ok()?;
                    // The redaction rules, and so the ids, are the same in versions 11 and 12.
                    let id = event_id(&json, &RoomVersionRules::V12).ok()?;
                    Some(Sealed { id, json })
                })
                .collect();
            let taken: BTreeMap<_, _> =
                pdus.iter().map(|pdu| (pdu.id.clone(), json!({}))).collect();
            let path = call.path.split('?').next().unwrap_or_default();
            lock(&kept).push(Transaction {
                id: path.rsplit('/').next().unwrap_or_default().to_owned(),
                pdus,
                edus: list(&body, "edus"),
            });
            reply(Answer::json(200, &json!({ "pdus": taken })))
        });
    }

    /// The transactions that it took, in their order.
    pub fn transactions(&self) -> Vec<Transaction> {
        let kept = lock(&self.transactions).clone();
        match self.mutant {
            Some(mutant) => mutant.misremembers(kept),
            None => kept,
        }
    }

    /// The ids of all events that it was sent, in their order, each as often as it came.
    pub fn received(&self) -> Vec<OwnedEventId> {
        let transactions = self.transactions().into_iter();
        let pdus = transactions.flat_map(|transaction| transaction.pdus);
        pdus.map(|pdu| pdu.id).collect()
    }

    /// Waits for all of these events.
    pub async fn receives(&self, events: &[OwnedEventId], limit: Duration) -> Result<()> {
        let what = format!("{} has received {} events", self.name, events.len());
        Ok(probe::until(&what, limit, async || {
            let received = self.received();
            let missing = events.iter().filter(|id| !received.contains(id)).count();
            if missing == 0 {
                ProbeState::Ready(())
            } else {
                ProbeState::NotYet(format!(
                    "{missing} of {} are missing; it was sent {} events in {} transactions",
                    events.len(),
                    received.len(),
                    self.transactions().len()
                ))
            }
        })
        .await?)
    }

    /// Signs a request to the home.
    pub fn sign(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Signed> {
        self.sign_as(
            &self.signing(),
            &self.name,
            self.home.name.as_str(),
            method,
            path,
            body,
        )
    }

    /// Signs a request with any key, in any server's name, for any destination.
    pub fn sign_as(
        &self,
        signing: &Signing,
        origin: &str,
        destination: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Signed> {
        let what = || format!("sign `{method} {path}`");
        let bytes = body
            .map(|body| Bytes::from(body.to_string()))
            .unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .body(bytes.clone())
            .or_harness(what)?;
        let server = |name: &str| ServerName::parse(name).or_harness(what);
        let (origin, destination) = (server(origin)?, server(destination)?);
        let object = XMatrix::request_object(&request, &origin, &destination).or_harness(what)?;
        let text = serde_json::to_string(&object).or_harness(what)?;
        let signature = signing.pair().sign(text.as_bytes());
        let authorization = format!(
            "X-Matrix origin=\"{origin}\",destination=\"{destination}\",key=\"{}\",sig=\"{}\"",
            signature.id(),
            signature.base64()
        );
        Ok(Signed {
            method: method.to_owned(),
            path: path.to_owned(),
            body: bytes,
            authorization: Some(authorization),
        })
    }

    /// Sends a request exactly as it stands, through the home's proxy.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, signed: &Signed) -> Result<Replied> {
        let Some(mutant) = self.mutant else {
            return self.send_as_it_stands(signed).await;
        };
        let request = format!("{} {}", signed.method, signed.path);
        let repeated = !lock(&self.asked).insert(request);
        let changed = mutant.changes(self, signed)?;
        let replied = self.send_as_it_stands(&changed).await?;
        Ok(mutant.answers(replied, repeated))
    }

    /// Hashes and signs an event again.
    pub(crate) fn sealed_again(&self, mut event: CanonicalJsonObject) -> Result<Value> {
        // The redaction rules are the same in versions 11 and 12.
        let redaction = &RoomVersionRules::V12.redaction;
        let signing = self.signing();
        hash_and_sign_event(&self.name, signing.pair(), &mut event, redaction)
            .or_harness(|| "seal an event again".to_owned())?;
        Ok(value(&event))
    }

    async fn send_as_it_stands(&self, signed: &Signed) -> Result<Replied> {
        let request = format!("{} {}", signed.method, signed.path);
        let what = || format!("ask the home `{request}` as {}", self.name);
        let method = http::Method::from_bytes(signed.method.as_bytes()).or_harness(what)?;
        let mut builder = self
            .home
            .http
            .request(method, format!("{}{}", self.home.base, signed.path))
            .timeout(PATIENCE);
        if let Some(authorization) = &signed.authorization {
            builder = builder.header("authorization", authorization);
        }
        if !signed.body.is_empty() {
            builder = builder
                .header("content-type", "application/json")
                .body(signed.body.clone());
        }
        let answer = builder
            .send()
            .await
            .or_blame(harness::Blame::Product, what)?;
        let status = answer.status().as_u16();
        let body = answer
            .bytes()
            .await
            .or_blame(harness::Blame::Product, what)?;
        Ok(Replied {
            request: request.clone(),
            status,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        })
    }

    /// Asks the home, signed as it should be.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Replied> {
        self.send(&self.sign(method, path, body)?).await
    }

    async fn bare(&self, method: &str, path: &str) -> Result<Replied> {
        self.send(&Signed {
            method: method.to_owned(),
            path: path.to_owned(),
            body: Bytes::new(),
            authorization: None,
        })
        .await
    }

    /// A transaction, signed and not sent.
    pub fn transaction(&self, id: &str, pdus: &[&Sealed], edus: &[Value]) -> Result<Signed> {
        let pdus: Vec<_> = pdus.iter().map(|pdu| value(&pdu.json)).collect();
        self.transaction_of(id, &pdus, edus)
    }

    fn transaction_of(&self, id: &str, pdus: &[Value], edus: &[Value]) -> Result<Signed> {
        let body = json!({
            "origin": self.name,
            "origin_server_ts": now(),
            "pdus": pdus,
            "edus": edus,
        });
        let path = format!("/_matrix/federation/v1/send/{id}");
        self.sign("PUT", &path, Some(&body))
    }

    /// Sends events in a transaction of their own.
    pub async fn deliver(&self, pdus: &[&Sealed], edus: &[Value]) -> Result<Replied> {
        let pdus: Vec<_> = pdus.iter().map(|pdu| value(&pdu.json)).collect();
        self.deliver_raw(&pdus, edus).await
    }

    /// Sends whatever it may be in place of events.
    pub async fn deliver_raw(&self, pdus: &[Value], edus: &[Value]) -> Result<Replied> {
        let id = format!("{}-{:x}", now(), draw());
        self.send(&self.transaction_of(&id, pdus, edus)?).await
    }

    /// Joins a room of the home: `make_join`, then `send_join`. Server-Server API, "Joining rooms". Must succeed.
    pub async fn join(&self, room: &RoomId, user: &str) -> Result<Room> {
        let (mut known, join) = self.join_event(room, user).await?;
        let path = format!("/_matrix/federation/v2/send_join/{room}/{}", join.id);
        let joined = self
            .ask("PUT", &path, Some(&value(&join.json)))
            .await?
            .must()?;
        for key in ["auth_chain", "state"] {
            for event in list(&joined, key) {
                known.learn(canonical(event)?)?;
            }
        }
        known.add(&join);
        Ok(known)
    }

    /// Asks for a join's template and seals it, without handing it in.
    pub async fn join_event(&self, room: &RoomId, user: &str) -> Result<(Room, Sealed)> {
        let versions = "ver=10&ver=11&ver=12";
        let path = format!("/_matrix/federation/v1/make_join/{room}/{user}?{versions}");
        let template = self.ask("GET", &path, None).await?.must()?;
        let version = template["room_version"].as_str().unwrap_or_default();
        let version = RoomVersionId::try_from(version)
            .or_harness(|| format!("know the room version `{version}`"))?;
        let known = Room::unknown(room, version)?;
        let join = self.seal_template(&known, &template["event"])?;
        Ok((known, join))
    }

    /// Seals a template that the home gave.
    pub fn seal_template(&self, room: &Room, template: &Value) -> Result<Sealed> {
        let mut event = canonical(template.clone())?;
        for key in ["signatures", "hashes", "event_id", "unsigned"] {
            event.remove(key);
        }
        event.insert(
            "origin".to_owned(),
            CanonicalJsonValue::String(self.name.clone()),
        );
        room.seal(&self.name, &self.signing(), event)
    }

    /// Founds a public room of its own, with this creator.
    pub fn found(&self, creator: &str, version: &RoomVersionId, name: &str) -> Result<Room> {
        Room::found(&self.name, &self.signing(), creator, version.clone(), name)
    }

    /// An event of a user of its, sealed and not sent.
    pub fn event(
        &self,
        room: &Room,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> Result<Sealed> {
        let draft = room.draft(&self.name, sender, kind, state_key, content)?;
        room.seal(&self.name, &self.signing(), draft)
    }

    /// A text message, sealed and not sent.
    pub fn message(&self, room: &Room, sender: &str, text: &str) -> Result<Sealed> {
        let content = crate::forge::message(text);
        self.event(room, sender, "m.room.message", None, &content)
    }

    /// Says something in a room, and waits until the home has taken it. Must succeed.
    pub async fn say(&self, room: &mut Room, sender: &str, text: &str) -> Result<Sealed> {
        let event = self.message(room, sender, text)?;
        let answer = self.deliver(&[&event], &[]).await?.must()?;
        taken(&answer, &event.id)?;
        room.add(&event);
        Ok(event)
    }
}

/// Whether the answer to a transaction says that an event was taken.
pub(crate) fn taken(answer: &Value, event: &EventId) -> Result<()> {
    let said = &answer["pdus"][event.as_str()];
    if said.is_object() && said["error"].is_null() {
        return Ok(());
    }
    Err(Failure::product(format!("take the peer's event `{event}`")).last_seen(answer.to_string()))
}

/// Reads a key document that must be signed by every key in it. Server-Server API, "Publishing keys".
pub(crate) fn read_keys(server: &str, document: &Value) -> Result<PublicKeyMap> {
    let what = || format!("read the keys of `{server}`");
    let mut set = PublicKeySet::new();
    for (id, key) in document["verify_keys"].as_object().into_iter().flatten() {
        let key = key["key"].as_str().unwrap_or_default();
        set.insert(
            id.clone(),
            Base64::parse(key).or_blame(harness::Blame::Product, what)?,
        );
    }
    let keys = PublicKeyMap::from([(server.to_owned(), set)]);
    let object: CanonicalJsonObject = canonical(document.clone())?;
    verify_json(&keys, &object).or_blame(harness::Blame::Product, what)?;
    Ok(keys)
}

/// Whether a request carries the home's signature. Server-Server API, "Request authentication".
fn verify(
    call: &Call,
    home: &ServerName,
    own: &ServerName,
    keys: &PublicKeyMap,
) -> std::result::Result<(), String> {
    let header = call
        .authorization
        .as_deref()
        .ok_or("it has no `Authorization` header")?;
    let given = XMatrix::parse(header).map_err(|error| format!("its `Authorization`: {error}"))?;
    if given.origin != home {
        return Err(format!("it says that it comes from `{}`", given.origin));
    }
    let request = http::Request::builder()
        .method(&*call.method)
        .uri(&*call.path)
        .body(call.body.clone())
        .map_err(|error| error.to_string())?;
    given
        .verify_request(&request, own, keys)
        .map_err(|error| format!("its signature: {error}"))
}

/// The zone of a server that is played: its address, and records as they are written in a zone file, relative to it.
pub fn zone(name: &str, address: &str, records: &[String]) -> String {
    format!(
        "$ORIGIN {name}.\n$TTL 60\n@ IN SOA {name}. hostmaster.{name}. 1 3600 600 86400 1\n@ IN NS {name}.\n\
         @ IN A {address}\n{}\n",
        records.join("\n")
    )
}

pub(crate) fn list(body: &Value, key: &str) -> Vec<Value> {
    body[key].as_array().cloned().unwrap_or_default()
}

/// The values of a parameter of the query, without percent-encoding.
pub(crate) fn parameters<'a>(path: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| decoded(value))
}

/// The n-th part of a path, without percent-encoding.
pub(crate) fn segment(path: &str, index: usize) -> String {
    let path = path.split('?').next().unwrap_or_default();
    decoded(path.split('/').nth(index).unwrap_or_default())
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| char::from(byte?).to_digit(16);
        if byte == b'%'
            && let (Some(high), Some(low)) = (hex(rest.next()), hex(rest.next()))
        {
            bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Numbers what must not repeat itself within a process.
fn draw() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_segment_by_segment_without_its_encoding() {
        let path = "/_matrix/federation/v1/make_join/!a%3Ab.test/%40alice%3Ac.test?ver=11";
        assert_eq!(segment(path, 5), "!a:b.test");
        assert_eq!(segment(path, 6), "@alice:c.test");
        let path = "/_matrix/federation/v1/backfill/!a?v=%24one&limit=3&v=$two";
        assert_eq!(parameters(path, "v").collect::<Vec<_>>(), ["$one", "$two"]);
    }

    #[test]
    fn a_key_document_is_read_only_if_its_own_keys_signed_it() {
        let (own, other) = (Arc::new(Signing::new("a")), Arc::new(Signing::new("a")));
        let honest = KeyDocument::honest("moor.test", &own);
        read_keys("moor.test", &honest.json().unwrap()).unwrap();
        let forged = KeyDocument {
            signers: vec![other],
            ..honest
        };
        assert!(read_keys("moor.test", &forged.json().unwrap()).is_err());
    }

    #[test]
    fn a_room_that_is_founded_is_signed_throughout() {
        let signing = Signing::new("a");
        let keys = PublicKeyMap::from([(
            "moor.test".to_owned(),
            PublicKeySet::from([(signing.id(), Base64::parse(signing.public()).unwrap())]),
        )]);
        for version in [RoomVersionId::V11, RoomVersionId::V12] {
            let room =
                Room::found("moor.test", &signing, "@delia:moor.test", version, "moor").unwrap();
            let state = room.state();
            assert_eq!(state.len(), 6);
            for event in state {
                let event = canonical(event).unwrap();
                let verified = ruma::signatures::verify_event(&keys, &event, room.rules());
                assert!(
                    matches!(verified, Ok(ruma::signatures::Verified::All)),
                    "{verified:?}"
                );
            }
        }
    }
}
