//! The Commons: one World that the scenarios of a process share, because they do not break it. A home, which is a site
//! that followed `install.md` and `bootstrap.md` on a real Conduit, and a partner abroad on Synapse.
//!
//! A scenario is put by every [`Entrance`] of the home in turn, and abroad. Each time it is given accounts of its own
//! that nobody had before, made as on any closed server by the administrator, and it makes its own rooms: so scenarios
//! that share the Commons cannot see each other. What went over the lines is written down, and the entrances must not
//! [differ](crate::differential).

use crate::authority;
use crate::client::{Client, Exchange, Line, Listener, Log, Question, Registration};
use crate::differential;
use crate::entrance::Entrance;
use crate::failure::{Failure, OrBlame, Result};
use crate::faulty::{Faulty, Mutant};
use crate::homeserver::{Server, find_conduit};
use crate::known::Known;
use crate::probe::ProbeState;
use crate::raw::To;
use crate::report::Claim;
use crate::scenario::{Letter, Outcome, note_claim, nothing_left, requires_conduit};
use crate::site::{self, Site};
use crate::verdict::{Blame, Verdict};
use crate::world::{Options, World};
use bytes::Bytes;
use reqwest::{Method, StatusCode, header::HeaderMap};
use ruma::{OwnedRoomAliasId, OwnedRoomId};
use serde_json::Value;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OnceCell};

/// Where charlie lives.
pub const ABROAD: &str = "vale.test";
/// Scenarios in a module of this name have worlds of their own; the others share.
pub const ALONE: &str = "alone";

/// See [`Scene::soon`].
const SOON: Duration = Duration::from_secs(30);

/// The connections of the Commons outlive each single test, so its runtime must, too.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    #[expect(
        clippy::expect_used,
        reason = "without a runtime there is no test at all"
    )]
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

static COMMONS: Mutex<Option<std::result::Result<std::sync::Arc<Commons>, String>>> =
    Mutex::const_new(None);

/// How many scenarios of this process are still to come; unknown until the first one begins.
static TO_COME: OnceCell<AtomicUsize> = OnceCell::const_new();

struct Commons {
    world: World,
    home: Option<Home>,
    abroad: Site,
    failed: AtomicBool,
}

struct Home {
    site: Site,
    direct: reqwest::Client,
    http1: reqwest::Client,
    /// One at a time: the admin room answers in the order in which it is asked.
    registrar: Mutex<Registrar>,
}

/// The administrator, in the room where the server takes commands.
struct Registrar {
    admin: Client,
    room: OwnedRoomId,
    listener: Listener,
}

/// An account that nobody had before.
#[derive(Clone, Debug)]
pub struct Account {
    /// The localpart.
    pub name: String,
    /// Its password.
    pub password: String,
}

/// A claim that is about to be put; see [`claim`].
pub struct Put {
    known: &'static [&'static Known],
    differs: &'static [(&'static str, &'static str)],
    abroad: bool,
    by: &'static [Entrance],
    noticed: &'static [Mutant],
}

/// A claim that shares the Commons, named like the test that it is called from.
pub fn claim() -> Put {
    Put {
        known: &[],
        differs: &[],
        abroad: true,
        by: &Entrance::ALL,
        noticed: &[],
    }
}

impl Put {
    /// Where one of these is known, the claim must fail in just that way.
    #[must_use]
    pub fn flawed(self, known: &'static [&'static Known]) -> Self {
        Self { known, ..self }
    }

    /// Differences between the entrances that are meant, by the beginning of their names, each with its reason. Each
    /// must appear.
    #[must_use]
    pub fn differs(self, differs: &'static [(&'static str, &'static str)]) -> Self {
        Self { differs, ..self }
    }

    /// Only about the site as the kit deploys it.
    #[must_use]
    pub fn at_home_only(self) -> Self {
        Self {
            abroad: false,
            ..self
        }
    }

    /// Only by these ways at home: for what another way cannot carry or has nothing to do with.
    #[must_use]
    pub fn by(self, by: &'static [Entrance]) -> Self {
        Self { by, ..self }
    }

    /// Behind a proxy with one of these faults the check must fail: it is seen to, in every run.
    #[must_use]
    pub fn notices(self, noticed: &'static [Mutant]) -> Self {
        Self { noticed, ..self }
    }

    /// Puts the claim by every entrance of the home, and abroad.
    ///
    /// # Errors
    /// The letters of all that did not come out as they must.
    pub fn holds(self, body: impl AsyncFn(&Scene<'_>) -> Result<()>) -> Outcome {
        let name = std::thread::current()
            .name()
            .unwrap_or("scenario")
            .to_owned();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            RUNTIME.block_on(self.put(&name, &body))
        }));
        let left = RUNTIME.block_on(leave(!matches!(outcome, Ok(Ok(())))));
        match (outcome, left) {
            (Err(panic), _) => resume_unwind(panic),
            (Ok(Err(letter)), _) => Err(letter),
            (Ok(Ok(())), left) => left.map_err(|failure| {
                Letter::of(format!(
                    "\nFAIL  the shared world of {name}\nerror: {failure}"
                ))
            }),
        }
    }

    async fn put(self, name: &str, body: &impl AsyncFn(&Scene<'_>) -> Result<()>) -> Outcome {
        let commons = commons().await.map_err(|failure| {
            note_claim(&Claim {
                blame: Some(Blame::Environment),
                letter: Some(failure.clone()),
                ..Claim::new(name)
            });
            Letter::of(format!("could not begin `{name}`\nerror: {failure}"))
        })?;
        let mut letters = String::new();
        let mut first = None::<Vec<Exchange>>;
        let mut met = vec![false; self.differs.len()];
        match &commons.home {
            None => unproved(name, &mut letters),
            Some(home) => {
                for &entrance in self.by {
                    let scene = home.scene(&commons, entrance);
                    self.put_to(name, &scene, body, &mut first, &mut met, &mut letters)
                        .await;
                }
                for ((difference, _), _) in self.differs.iter().zip(&met).filter(|(_, met)| !**met)
                {
                    let _ = writeln!(
                        letters,
                        "\nFAIL  {name}\nerror: the entrances do not differ in `{difference}` any more\nhint: record it: remove it from the claim's `differs`"
                    );
                }
            }
        }
        if self.abroad {
            let scene = commons.scene_abroad();
            self.put_to(name, &scene, body, &mut None, &mut [], &mut letters)
                .await;
        }
        if letters.is_empty() {
            return Ok(());
        }
        let evidence = commons
            .world
            .run()
            .join("evidence")
            .join(name.replace("::", "--"));
        let kept = match commons.world.collect_evidence(&evidence).await {
            Ok(()) => evidence.display().to_string(),
            Err(failure) => format!("could not be kept: {failure}"),
        };
        let _ = writeln!(
            letters,
            "\nevidence: {kept}\nagain: HARNESS_SEED={:x} HARNESS_KEEP=1 cargo test -p scenarios --test {} -- --exact {name} --nocapture",
            commons.world.seed(),
            program()
        );
        let _ = std::fs::write(evidence.join("letter.txt"), &letters);
        Err(Letter::of(letters))
    }

    /// One column: the claim by one way.
    async fn put_to(
        &self,
        name: &str,
        scene: &Scene<'_>,
        body: &impl AsyncFn(&Scene<'_>) -> Result<()>,
        first: &mut Option<Vec<Exchange>>,
        met: &mut [bool],
        letters: &mut String,
    ) {
        let began = Instant::now();
        let limit = Duration::from_secs(120);
        let mut outcome = match tokio::time::timeout(limit, body(scene)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::harness(format!("come to an end within {limit:?}"))),
        };
        let known = self
            .known
            .iter()
            .find(|known| known.concerns(&scene.site.server, scene.entrance));
        let told = outcome.as_ref().err().map(ToString::to_string);
        if let Some(known) = known {
            outcome = known.must_fail(outcome);
        }
        let flawed = known.is_some() && outcome.is_ok();
        let exchanges = scene.log.exchanges();
        outcome = outcome.and_then(|()| scene.came_by_its_way(&exchanges));
        match first {
            Some(first) if outcome.is_ok() => outcome = self.differ(first, &exchanges, met),
            Some(_) => {}
            first => *first = Some(exchanges.clone()),
        }
        let mut kills = Vec::new();
        if scene.entrance == Entrance::Direct && outcome.is_ok() && !flawed {
            outcome = self.kill(scene, body, &mut kills).await;
        }
        let verdict = match &outcome {
            Ok(()) if flawed => Verdict::Fail,
            Ok(()) => Verdict::Pass,
            Err(failure) => failure.verdict(),
        };
        note_claim(&Claim {
            verdict,
            server: Some(scene.site.server.clone()),
            seconds: began.elapsed().as_secs_f64(),
            blame: outcome.as_ref().err().map(|failure| failure.blame),
            letter: outcome.as_ref().err().map(ToString::to_string).or(told),
            entrance: Some(scene.entrance),
            known: known.filter(|_| flawed).map(|known| known.id.to_owned()),
            kills,
            ..Claim::new(name)
        });
        let Err(failure) = outcome else { return };
        scene.commons.failed.store(true, Ordering::Relaxed);
        let _ = writeln!(
            letters,
            "\n{}  {name}  [{:.1}s]\n  world {} · on {}, {}\n{}error: {failure}",
            failure.verdict(),
            began.elapsed().as_secs_f64(),
            scene.commons.world.name(),
            scene.site.server,
            scene.entrance,
            last_of(&exchanges),
        );
    }

    /// Puts the claim behind a proxy without a fault, where it must hold, and with each of the faults that it should
    /// notice, where it must not.
    async fn kill(
        &self,
        scene: &Scene<'_>,
        body: &impl AsyncFn(&Scene<'_>) -> Result<()>,
        kills: &mut Vec<String>,
    ) -> Result<()> {
        if !self.noticed.is_empty() {
            behind(scene, Mutant::ChangesNothing, body)
                .await?
                .map_err(|failure| {
                    Failure::harness("hold behind a proxy that changes nothing").because(failure)
                })?;
        }
        for &mutant in self.noticed {
            match behind(scene, mutant, body).await? {
                Err(failure) if matches!(failure.blame, Blame::Product | Blame::Deployment) => {
                    kills.push(mutant.word());
                }
                Err(failure) => {
                    return Err(failure.because(format!("the proxy {} on purpose", mutant.word())));
                }
                Ok(()) => {
                    return Err(Failure::harness(format!(
                        "notice a proxy that {}: the check passed behind it",
                        mutant.word()
                    ))
                    .hint("a check that cannot fail proves nothing: let it look closer"));
                }
            }
        }
        Ok(())
    }

    fn differ(&self, first: &[Exchange], other: &[Exchange], met: &mut [bool]) -> Result<()> {
        let mut findings = Vec::new();
        for difference in differential::differences(first, other) {
            match self
                .differs
                .iter()
                .position(|(name, _)| difference.name.starts_with(name))
            {
                Some(index) => met[index] = true,
                None => findings.push(difference.to_string()),
            }
        }
        if findings.is_empty() {
            return Ok(());
        }
        Err(Failure::deployment(format!(
            "answer through the proxy as without it: {} differences (direct | proxied)",
            findings.len()
        ))
        .last_seen(findings.join("\n"))
        .hint("mend the Caddyfile, or declare in the claim's `differs` what is meant, with its reason"))
    }
}

/// The test program that this is, as cargo calls it.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.rsplit_once('-')
        .map_or(&*stem, |(name, _)| name)
        .to_owned()
}

fn unproved(name: &str, letters: &mut String) {
    let why = "there is no Conduit on this machine, the claim was put to nothing";
    note_claim(&Claim {
        letter: Some(why.to_owned()),
        ..Claim::new(name)
    });
    if requires_conduit() {
        let _ = writeln!(
            letters,
            "\nUNKN  {name}\nerror: {why}\nhint: give one with `CONDUIT_BIN`"
        );
    } else {
        eprintln!("UNKN  {name}: {why}");
    }
}

/// What the claim comes to behind a proxy that is wrong in one way.
async fn behind(
    scene: &Scene<'_>,
    mutant: Mutant,
    body: &impl AsyncFn(&Scene<'_>) -> Result<()>,
) -> Result<Result<()>> {
    let faulty = Faulty::start(mutant, &scene.base, scene.http.clone()).await?;
    let soon = if mutant == Mutant::ChangesNothing {
        SOON
    } else {
        Duration::from_secs(4)
    };
    let behind = Scene {
        commons: scene.commons,
        site: scene.site,
        entrance: scene.entrance,
        http: scene.http.clone(),
        base: faulty.base.clone(),
        log: Log::default(),
        soon,
    };
    let limit = Duration::from_secs(90);
    tokio::time::timeout(limit, body(&behind))
        .await
        .map_err(|_| {
            Failure::harness(format!(
                "come to an end within {limit:?} behind a proxy that {}",
                mutant.word()
            ))
        })
}

/// The last questions before something went wrong.
fn last_of(exchanges: &[Exchange]) -> String {
    let from = exchanges.len().saturating_sub(12);
    let mut text = String::new();
    for (index, exchange) in exchanges.iter().enumerate().skip(from) {
        let _ = writeln!(
            text,
            "  ├── {:>2} {} {} {} -> {}",
            index + 1,
            exchange.who,
            exchange.method,
            exchange.path,
            exchange.status
        );
    }
    text
}

/// One way to one server, for one scenario.
pub struct Scene<'a> {
    commons: &'a Commons,
    site: &'a Site,
    entrance: Entrance,
    http: reqwest::Client,
    base: String,
    log: Log,
    soon: Duration,
}

impl Scene<'_> {
    /// Long enough for anything that one server does on a busy machine; short behind a proxy that is wrong on purpose.
    pub fn soon(&self) -> Duration {
        self.soon
    }

    /// The server that the claim is put to.
    pub fn server(&self) -> &Server {
        &self.site.server
    }

    /// By which way.
    pub fn entrance(&self) -> Entrance {
        self.entrance
    }

    /// The server's name.
    pub fn server_name(&self) -> &str {
        &self.site.name
    }

    /// The partner abroad, for a scenario between two servers. What goes there is not compared.
    pub fn abroad(&self) -> Scene<'_> {
        self.commons.scene_abroad()
    }

    /// The world, to break something in it. Only for programs whose scenarios take turns: it is shared.
    pub fn world(&self) -> &World {
        &self.commons.world
    }

    /// The site itself; it is shared, so look but do not touch.
    pub fn site(&self) -> &Site {
        self.site
    }

    /// Where this way leads, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The line, which writes down what it carries.
    pub fn line(&self) -> Line {
        Line::recorded(self.http.clone(), self.log.clone())
    }

    /// What went over the line so far, as a history.
    pub fn history(&self) -> fleet_history::Record {
        crate::history::record(&[&self.log], &[], SOON)
    }

    /// The same way for bytes that no client would send; over TLS always HTTP/1.1.
    pub fn wire(&self) -> To {
        let ports = self.site.host.ports;
        match self.entrance {
            Entrance::Direct => To {
                port: ports.gitea,
                tls: None,
            },
            Entrance::Http1 | Entrance::Http2 => To {
                port: ports.https,
                tls: Some((
                    self.host(),
                    self.commons.world.root_certificate().to_owned(),
                )),
            },
        }
    }

    /// What a request names as its host.
    pub fn host(&self) -> String {
        format!("matrix.{}", self.site.name)
    }

    /// A word that no other scenario uses.
    pub fn unique(&self, word: &str) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        format!("{word}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Somebody new on stage, logged in by this way. Her account is called like her, with a number.
    ///
    /// # Errors
    /// When the account cannot be made, or the login is refused.
    pub async fn cast(&self, name: &str) -> Result<Client> {
        let account = self.account(name).await?;
        self.login(&account).await
    }

    /// Logs an account in by this way, as a new device.
    ///
    /// # Errors
    /// When the login is refused.
    pub async fn login(&self, account: &Account) -> Result<Client> {
        Ok(Client::login(
            self.line(),
            &self.base,
            &account.name,
            &account.password,
            "scenario",
        )
        .await?)
    }

    /// A new account: at home made by the administrator in the admin room, because registration is closed; abroad by
    /// registration. It has no device.
    ///
    /// # Errors
    /// When the server does not make it.
    pub async fn account(&self, name: &str) -> Result<Account> {
        let name = self.unique(name);
        let password = format!("{name}-keeps-a-secret");
        match self
            .commons
            .home
            .as_ref()
            .filter(|home| std::ptr::eq(&raw const home.site, self.site))
        {
            Some(home) => {
                home.registrar
                    .lock()
                    .await
                    .register(&name, &password)
                    .await?
            }
            None => {
                let (http, base) = (self.site.http(), self.site.base_url());
                let how = Registration::Open;
                Client::register(http, &base, &name, &password, "registration", how)
                    .await?
                    .logout()
                    .await?;
            }
        }
        Ok(Account { name, password })
    }

    /// Asks anything, as nobody in particular.
    pub fn ask(&self, method: Method, path: &str) -> Ask<'_> {
        Ask {
            scene: self,
            who: "nobody".to_owned(),
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Every answer came over the protocol that the entrance is named after.
    fn came_by_its_way(&self, exchanges: &[Exchange]) -> Result<()> {
        let expected = match self.entrance {
            Entrance::Direct | Entrance::Http1 => reqwest::Version::HTTP_11,
            Entrance::Http2 => reqwest::Version::HTTP_2,
        };
        match exchanges
            .iter()
            .find(|exchange| exchange.version != expected)
        {
            None => Ok(()),
            Some(other) => Err(Failure::harness(format!(
                "come by {}: the answer to `{} {}` came over {:?}",
                self.entrance, other.method, other.path, other.version
            ))),
        }
    }
}

/// A question that no verb of a client asks.
pub struct Ask<'a> {
    scene: &'a Scene<'a>,
    who: String,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The question, for messages.
    pub asked: String,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Ask<'_> {
    /// As the owner of this token, who is called so in the record.
    #[must_use]
    pub fn bearer(self, who: &str, token: &str) -> Self {
        let mut ask = self.header("authorization", &format!("Bearer {token}"));
        ask.who = who.to_owned();
        ask
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.append(name, value);
        }
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// With any body.
    #[must_use]
    pub fn body(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut ask = self.header("content-type", content_type);
        ask.body = body.into();
        ask
    }

    /// Sends it, and writes the answer down.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn reply(self) -> Result<Reply> {
        let asked = format!("{} {}", self.method, self.path);
        let what = || format!("answer `{asked}`");
        let (began, asked_with) = (Instant::now(), self.body.clone());
        let response = self
            .scene
            .http
            .request(
                self.method.clone(),
                format!("{}{}", self.scene.base, self.path),
            )
            .headers(self.headers)
            .body(self.body)
            .timeout(Duration::from_secs(60))
            .send()
            .await
            .or_blame(Blame::Product, what)?;
        let (status, version, headers) = (
            response.status(),
            response.version(),
            response.headers().clone(),
        );
        let body = response.bytes().await.or_blame(Blame::Product, what)?;
        let (path, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path.as_str(), None),
        };
        self.scene.log.push(Exchange {
            who: self.who,
            method: self.method,
            path: path.to_owned(),
            question: Question::since(began, path, query, &asked_with),
            version,
            status: status.as_u16(),
            headers: headers.clone(),
            body: body.clone(),
        });
        Ok(Reply {
            asked,
            status,
            headers,
            body,
        })
    }
}

impl Reply {
    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header, as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Whether it is a refusal with that status and code.
    pub fn is(&self, status: u16, errcode: &str) -> bool {
        self.status.as_u16() == status && self.json()["errcode"] == errcode
    }

    /// Demands that.
    ///
    /// # Errors
    /// When it is accepted, or refused otherwise.
    pub fn must_be(&self, status: u16, errcode: &str) -> Result<()> {
        if self.is(status, errcode) {
            return Ok(());
        }
        Err(
            Failure::product(format!("refuse `{}` with {status} `{errcode}`", self.asked))
                .last_seen(self.told()),
        )
    }

    /// The answer in a few words.
    pub fn told(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!(
            "{} {}",
            self.status.as_u16(),
            body.chars().take(300).collect::<String>()
        )
    }
}

impl Registrar {
    async fn register(&mut self, name: &str, password: &str) -> Result<()> {
        let server = self.admin.user_id().server_name();
        self.listener.forget();
        self.admin
            .say(
                &self.room,
                &format!("@conduit:{server}: create-user {name} {password}"),
            )
            .await?;
        let room = self.room.clone();
        let told = self
            .listener
            .until(
                format!("the server says what became of `{name}`"),
                Duration::from_secs(30),
                |seen| {
                    let said = seen.room(&room).into_iter().flat_map(|room| &room.timeline);
                    let mut said = said
                        .filter(|event| event.sender.localpart() == "conduit")
                        .filter_map(|event| event.body());
                    match said.find(|body| body.contains(name)) {
                        Some(body) => ProbeState::Ready(body.to_owned()),
                        None => ProbeState::NotYet("it says nothing".to_owned()),
                    }
                },
            )
            .await?;
        if told.starts_with("Created user") {
            return Ok(());
        }
        Err(Failure::product(format!("make the account `{name}` by `create-user`")).last_seen(told))
    }
}

impl Home {
    async fn settle(world: &World) -> Result<Option<Self>> {
        let Some(conduit) = find_conduit(None).await? else {
            return Ok(None);
        };
        let site = world.site(authority::PRODUCTION_NAME, &conduit).await?;
        site.follow("bootstrap.md", &[]).await?;
        // The kit keeps Conduit on loopback. No Gitea runs on this host, so its published port carries connections there.
        site.host
            .shell(
                "systemd-run --quiet --unit=lab-direct --socket-property=ListenStream=3000 \
                 /lib/systemd/systemd-socket-proxyd 127.0.0.1:6167",
            )
            .await?;
        let password = site
            .host
            .shell("cat /opt/conduit/secrets/admin.password")
            .await?;
        let admin = Client::login(
            site.http(),
            &site.base_url(),
            "admin",
            &password,
            "registrar",
        )
        .await?;
        let alias = format!("#admins:{}", site.name);
        let alias =
            OwnedRoomAliasId::try_from(alias.as_str()).or_harness(|| format!("name `{alias}`"))?;
        let room = admin.resolve(&alias).await?;
        let listener = admin.listen().await?;
        let what = || "make an HTTP client for the lab".to_owned();
        let names = [(site.name.as_str(), site.host.ports)];
        Ok(Some(Self {
            direct: reqwest::Client::builder()
                .no_proxy()
                .connect_timeout(Duration::from_secs(10))
                .build()
                .or_harness(what)?,
            http1: site::builder(world.root_certificate(), &names)?
                .http1_only()
                .build()
                .or_harness(what)?,
            registrar: Mutex::new(Registrar {
                admin,
                room,
                listener,
            }),
            site,
        }))
    }

    fn scene<'a>(&'a self, commons: &'a Commons, entrance: Entrance) -> Scene<'a> {
        let (http, base) = match entrance {
            Entrance::Direct => (
                &self.direct,
                format!("http://127.0.0.1:{}", self.site.host.ports.gitea),
            ),
            Entrance::Http1 => (&self.http1, self.site.base_url()),
            Entrance::Http2 => (self.site.http(), self.site.base_url()),
        };
        Scene {
            commons,
            site: &self.site,
            entrance,
            http: http.clone(),
            base,
            log: Log::default(),
            soon: SOON,
        }
    }
}

impl Commons {
    async fn settle() -> Result<Self> {
        let world = World::open(Options::default()).await?;
        let settled = async { tokio::try_join!(Home::settle(&world), world.synapse(ABROAD)) };
        let (home, abroad) = match settled.await {
            Ok(settled) => settled,
            Err(failure) => {
                let evidence = world.run().join("evidence").join("commons");
                return Err(match world.collect_evidence(&evidence).await {
                    Ok(()) => failure.because(format!("evidence: {}", evidence.display())),
                    Err(_) => failure,
                });
            }
        };
        Ok(Self {
            world,
            home,
            abroad,
            failed: AtomicBool::new(false),
        })
    }

    fn scene_abroad(&self) -> Scene<'_> {
        Scene {
            commons: self,
            site: &self.abroad,
            entrance: Entrance::Http2,
            http: self.abroad.http().clone(),
            base: self.abroad.base_url(),
            log: Log::default(),
            soon: SOON,
        }
    }
}

/// The Commons of this process, settled when first asked for. What went wrong then is wrong for all.
async fn commons() -> std::result::Result<std::sync::Arc<Commons>, String> {
    let mut commons = COMMONS.lock().await;
    if commons.is_none() {
        let settled = Commons::settle().await.map(std::sync::Arc::new);
        *commons = Some(settled.map_err(|failure| failure.to_string()));
    }
    match &*commons {
        Some(commons) => commons.clone(),
        None => Err("the shared world is closed already".to_owned()),
    }
}

/// Says that a scenario is over. Behind the last one the Commons is closed, and nothing in it may have tried to send
/// a packet out of the lab.
async fn leave(failed: bool) -> Result<()> {
    static LEFT: Lock<()> = Lock::new(());
    let to_come = TO_COME
        .get_or_init(|| async { AtomicUsize::new(scenarios_of_this_run()) })
        .await;
    let last = {
        let _one_at_a_time = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
        let before = to_come.load(Ordering::Relaxed);
        to_come.store(before.saturating_sub(1), Ordering::Relaxed);
        before == 1
    };
    let mut commons = COMMONS.lock().await;
    if failed && let Some(Ok(commons)) = &*commons {
        commons.failed.store(true, Ordering::Relaxed);
    }
    if !last {
        return Ok(());
    }
    let Some(Ok(commons)) = commons.take() else {
        return Ok(());
    };
    let kept = nothing_left(&commons.world).await;
    match std::sync::Arc::into_inner(commons) {
        // Dropped, not closed: the evidence stays.
        Some(commons) if commons.failed.load(Ordering::Relaxed) || kept.is_err() => drop(commons),
        Some(commons) => _ = commons.world.close().await?,
        None => {}
    }
    kept
}

/// How many tests of this run share the Commons: the test program itself knows what its arguments select. Where it
/// cannot be asked, the last one is never known, and the next run sweeps what this one leaves.
fn scenarios_of_this_run() -> usize {
    let mut selection = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--skip" => selection.extend([argument].into_iter().chain(arguments.next())),
            "--exact" | "--ignored" | "--include-ignored" => selection.push(argument),
            "--test-threads" | "--format" | "--color" | "--logfile" | "--shuffle-seed" | "-Z" => {
                _ = arguments.next()
            }
            skip if skip.starts_with("--skip=") => selection.push(argument),
            option if option.starts_with('-') => {}
            _ => selection.push(argument),
        }
    }
    let listed = std::env::current_exe().and_then(|program| {
        std::process::Command::new(program)
            .args(selection)
            .args(["--list", "--format", "terse"])
            .output()
    });
    listed.map_or(0, |listed| {
        String::from_utf8_lossy(&listed.stdout)
            .lines()
            .filter(|line| line.ends_with(": test") && !line.starts_with(&format!("{ALONE}::")))
            .count()
    })
}
