//! The Commons: one World that the scenarios of a process share, because they do not break it. A home, which is a site
//! that followed `install.md` and `bootstrap.md` on a real Conduit, and a partner abroad on Synapse.
//!
//! A scenario is put by every [`Entrance`] of the home in turn, and abroad. Each time it is given accounts of its own
//! that nobody had before, made as on any closed server by the administrator, and it makes its own rooms: so scenarios
//! that share the Commons cannot see each other. What went over the lines is written down, and the entrances must not
//! [differ](crate::differential).

use crate::accounts::{Account, Accounts, unique};
use crate::authority;
use crate::client::{Client, Exchange, Line, Log, Question};
use crate::differential;
use crate::entrance::Entrance;
use crate::examine;
use crate::failure::{Failure, OrBlame, Result};
use crate::faulty::{Faulty, Mutant};
use crate::homeserver::{Server, find_conduit};
use crate::known::Known;
use crate::raw::To;
use crate::report::Claim;
use crate::scenario::{
    Letter, Outcome, caught, forget_note, must_notice, note_begun, note_claim, nothing_left,
    requires_conduit,
};
use crate::shared::{RUNTIME, Settled, Shared};
use crate::site::{self, Site};
use crate::verdict::{Blame, Verdict};
use crate::world::World;
use bytes::Bytes;
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

/// Where charlie lives.
pub const ABROAD: &str = "vale.test";

/// See [`Scene::soon`].
const SOON: Duration = Duration::from_secs(30);

static COMMONS: Shared<Sites> = Shared::new();

type Commons = Settled<Sites>;

struct Sites {
    home: Option<Home>,
    abroad: Site,
}

struct Home {
    site: Site,
    direct: reqwest::Client,
    http1: reqwest::Client,
    accounts: Accounts,
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
        RUNTIME.block_on(self.put(&name, &body))
    }

    async fn put(self, name: &str, body: &impl AsyncFn(&Scene<'_>) -> Result<()>) -> Outcome {
        note_begun(name, None, None);
        let commons = COMMONS.get(settle).await.map_err(|failure| {
            note_claim(&Claim {
                verdict: failure.verdict(),
                blame: Some(failure.blame),
                letter: Some(failure.to_string()),
                ..Claim::new(name)
            });
            Letter::of(format!("could not begin `{name}`\nerror: {failure}"))
        })?;
        let mut course = Course {
            first: None,
            met: vec![false; self.differs.len()],
            to_kill: true,
            letters: String::new(),
        };
        let scenes: Vec<_> = match &commons.home {
            Some(home) => self.by.iter().map(|by| home.scene(&commons, *by)).collect(),
            None => Vec::new(),
        };
        let abroad = self.abroad.then(|| scene_abroad(&commons));
        for scene in scenes.iter().chain(&abroad) {
            note_begun(name, Some(scene.server()), Some(scene.entrance));
        }
        match &commons.home {
            None => unproved(name, &mut course.letters),
            Some(_) => {
                forget_note(name);
                for scene in &scenes {
                    self.put_to(name, scene, body, &mut course).await;
                }
                let met = self.differs.iter().zip(&course.met);
                for ((difference, _), _) in met.filter(|(_, met)| !**met) {
                    let _ = writeln!(
                        course.letters,
                        "\nFAIL  {name}\nerror: the entrances do not differ in `{difference}` any more\nhint: record it: remove it from the claim's `differs`"
                    );
                }
            }
        }
        if let Some(scene) = &abroad {
            // Another server: it is compared with nothing, and the check was seen to fail at home.
            course.first = None;
            course.to_kill = false;
            self.put_to(name, scene, body, &mut course).await;
        }
        let mut letters = course.letters;
        if let Err(failure) = nothing_left(&commons.world).await {
            let _ = writeln!(
                letters,
                "\nFAIL  the shared world of {name}\nerror: {failure}"
            );
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
        course: &mut Course,
    ) {
        let (began, since) = (Instant::now(), SystemTime::now());
        let limit = Duration::from_secs(120);
        let mut outcome = match tokio::time::timeout(limit, caught(body(scene))).await {
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
        match &course.first {
            Some(first) if outcome.is_ok() => {
                outcome = self.differ(first, &exchanges, &mut course.met)
            }
            Some(_) => {}
            None => course.first = Some(exchanges.clone()),
        }
        let mut kills = Vec::new();
        // By the first way by which it holds; the others are not to differ from it.
        if course.to_kill && outcome.is_ok() && !flawed {
            course.to_kill = false;
            outcome = self.kill(scene, body, &mut kills).await;
        }
        if let Err(failure) = outcome {
            let troubles = examine::look(&scene.commons.world, since).await;
            outcome = Err(examine::explain(failure, &troubles, &[]));
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
        let _ = writeln!(
            course.letters,
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
        let controls: BTreeSet<_> = self.noticed.iter().map(|mutant| mutant.control()).collect();
        for control in controls {
            behind(scene, control, body).await?.map_err(|failure| {
                Failure::harness("hold behind a proxy that changes nothing").because(failure)
            })?;
        }
        for &mutant in self.noticed {
            must_notice(&mutant.word(), behind(scene, mutant, body).await?)?;
            kills.push(mutant.word());
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

/// What has come of a claim on its way through the entrances.
struct Course {
    /// What went over the first one's line.
    first: Option<Vec<Exchange>>,
    /// Which of the differences that are meant have appeared.
    met: Vec<bool>,
    /// Whether it has still to be seen to fail.
    to_kill: bool,
    letters: String,
}

/// What the claim comes to behind a proxy that is wrong in one way.
async fn behind(
    scene: &Scene<'_>,
    mutant: Mutant,
    body: &impl AsyncFn(&Scene<'_>) -> Result<()>,
) -> Result<Result<()>> {
    let faulty = Faulty::start(mutant, &scene.base, scene.http.clone()).await?;
    let soon = if mutant.is_control() {
        SOON
    } else {
        Duration::from_secs(4)
    };
    let behind = Scene {
        commons: scene.commons,
        site: scene.site,
        accounts: scene.accounts,
        entrance: scene.entrance,
        http: scene.http.clone(),
        base: faulty.base.clone(),
        log: Log::default(),
        soon,
    };
    let limit = Duration::from_secs(90);
    tokio::time::timeout(limit, caught(body(&behind)))
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
    accounts: &'a Accounts,
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
        scene_abroad(self.commons)
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
        let plain = |base: &str| base.strip_prefix("http://127.0.0.1:")?.parse().ok();
        match plain(&self.base) {
            Some(port) => To { port, tls: None },
            None => To {
                port: self.site.host.ports.https,
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
        unique(word)
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
        account.login(self.line(), &self.base).await
    }

    /// A new account: at home made by the administrator in the admin room, because registration is closed; abroad by
    /// registration. It has no device.
    ///
    /// # Errors
    /// When the server does not make it.
    pub async fn account(&self, name: &str) -> Result<Account> {
        self.accounts.make(self.site, name).await
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
            Entrance::Http2 | Entrance::Federation => reqwest::Version::HTTP_2,
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
            accounts: Accounts::of(&site).await?,
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
            Entrance::Http2 | Entrance::Federation => (self.site.http(), self.site.base_url()),
        };
        Scene {
            commons,
            site: &self.site,
            accounts: &self.accounts,
            entrance,
            http: http.clone(),
            base,
            log: Log::default(),
            soon: SOON,
        }
    }
}

async fn settle(world: &World) -> Result<Sites> {
    let (home, abroad) = tokio::try_join!(Home::settle(world), world.synapse(ABROAD))?;
    Ok(Sites { home, abroad })
}

fn scene_abroad(commons: &Commons) -> Scene<'_> {
    Scene {
        commons,
        site: &commons.abroad,
        accounts: &Accounts::Open,
        entrance: Entrance::Http2,
        http: commons.abroad.http().clone(),
        base: commons.abroad.base_url(),
        log: Log::default(),
        soon: SOON,
    }
}
