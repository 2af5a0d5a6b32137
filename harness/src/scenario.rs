//! The frame of a scenario: makes its world, judges it, keeps the evidence of a failure, writes the letter, and
//! notes on which server the claim was proved.

use crate::entrance::Entrance;
use crate::examine::{self, Cause, Trouble};
use crate::failure::{Failure, OrBlame, Result};
use crate::homeserver::{Binary, Server, find_conduit};
use crate::known::Known;
use crate::report::Claim;
use crate::shared::{Settled, Shared, inside};
use crate::verdict::{Blame, Verdict};
use crate::world::{Options, World};
use crate::{paths, tools};
use futures_util::FutureExt as _;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};
use tokio::sync::OnceCell;

/// What a scenario hands to the test runner.
pub type Outcome = std::result::Result<(), Letter>;

/// A failure, the steps before it, where the evidence lies, and how to run it again. `Debug` prints it for the test
/// runner as a person should read it.
pub struct Letter(String);

impl Letter {
    pub(crate) fn of(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the scenario is about: a world, and the servers that it was put to.
pub struct Stage {
    /// The world.
    pub world: World,
    /// What failed in just the way that is recorded.
    pub flaws: Flaws,
    kills: Mutex<Vec<String>>,
    name: String,
    /// By which way it is put to the server, where there is more than one.
    entrance: Option<Entrance>,
    server: Mutex<Option<Server>>,
    /// Why nothing was observed.
    unproved: Mutex<Option<String>>,
    /// What is broken on purpose, and so explains no failure.
    on_purpose: Mutex<Vec<Cause>>,
    /// Who knows, besides the machines themselves, what was wrong.
    witnesses: Mutex<Vec<Witness>>,
    noted: bool,
}

type Witness = Box<dyn Fn() -> Option<Trouble> + Send>;

/// Judges what a claim came to with a fault planted that it should notice.
///
/// # Errors
/// When it passed, or failed for another reason than a wrong product or deployment.
pub(crate) fn must_notice(fault: &str, outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(failure) if matches!(failure.blame, Blame::Product | Blame::Deployment) => Ok(()),
        Err(failure) => Err(failure.because(format!("`{fault}` was planted on purpose"))),
        Ok(()) => Err(Failure::harness(format!(
            "notice `{fault}`: the check passed with it planted"
        ))
        .hint("a check that cannot fail proves nothing: let it look closer")),
    }
}

/// The parts of a claim that were seen not to hold, in just the way that is recorded; by the record's id, the letter.
#[derive(Clone, Debug, Default)]
pub struct Flaws(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Flaws {
    /// Puts a part of a claim that is known not to hold on a server: there it must fail in just the recorded way,
    /// elsewhere it must hold.
    ///
    /// # Errors
    /// When it does not.
    pub fn known(&self, known: &Known, server: &Server, outcome: Result<()>) -> Result<()> {
        if server.name != known.server {
            return outcome;
        }
        let told = outcome.as_ref().err().map(ToString::to_string);
        known.must_fail(outcome)?;
        lock(&self.0).insert(known.id, told.unwrap_or_default());
        Ok(())
    }

    /// The same of a race, which a run may or may not meet: the part holds, or fails in just the recorded way.
    ///
    /// # Errors
    /// When it fails otherwise.
    pub fn race(&self, known: &Known, server: &Server, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            failed => self.known(known, server, failed),
        }
    }
}

impl Stage {
    /// Judges what the claim came to with a fault planted that it should notice, and notes that it did.
    ///
    /// # Errors
    /// See [`must_notice`].
    pub fn must_notice(&self, fault: &str, outcome: Result<()>) -> Result<()> {
        must_notice(fault, outcome)?;
        lock(&self.kills).push(fault.to_owned());
        Ok(())
    }

    /// The real Conduit.
    ///
    /// # Errors
    /// Where there is none; the claim is then unknown, see [`scenario`].
    pub async fn conduit(&self) -> Result<Binary> {
        match found().await? {
            Some(conduit) => Ok(self.proved_on(conduit.clone())),
            None => Err(self
                .unproved("put the claim to Conduit: there is none on this machine")
                .hint("give one with `CONDUIT_BIN`")),
        }
    }

    /// The claim is about this trouble: it explains no failure.
    pub fn on_purpose(&self, cause: Cause) {
        lock(&self.on_purpose).push(cause);
    }

    /// Asks this at a failure what was wrong, as [`examine`] asks the machines.
    pub fn witness(&self, witness: impl Fn() -> Option<Trouble> + Send + 'static) {
        lock(&self.witnesses).push(Box::new(witness));
    }

    /// Says that nothing is observed: the claim is then unknown, which fails only where a Conduit is required.
    pub fn unproved(&self, why: &str) -> Failure {
        *lock(&self.unproved) = Some(why.to_owned());
        Failure::environment(why)
    }

    /// The real Conduit, or else the stand-in: for claims about the scripts alone.
    pub async fn conduit_or_standin(&self) -> Result<Binary> {
        match found().await? {
            Some(conduit) => Ok(self.proved_on(conduit.clone())),
            // Where a Conduit is required, the stand-in is no substitute.
            None if requires_conduit() => self.conduit().await,
            None => Ok(self.proved_on(tools::standin().await?)),
        }
    }

    /// Whether a real Conduit is here.
    pub async fn has_conduit(&self) -> Result<bool> {
        Ok(found().await?.is_some())
    }

    /// Notes the server that the claim is put to.
    pub fn put_to(&self, server: &Server) {
        *lock(&self.server) = Some(server.clone());
        if !self.noted {
            return;
        }
        note_begun(&self.name, Some(server), self.entrance);
        if self.entrance.is_some() {
            forget_note(&self.name);
        }
    }

    fn proved_on(&self, binary: Binary) -> Binary {
        self.put_to(&binary.server);
        binary
    }
}

async fn found() -> Result<&'static Option<Binary>> {
    static FOUND: OnceCell<Option<Binary>> = OnceCell::const_new();
    FOUND.get_or_try_init(|| find_conduit(None)).await
}

/// Runs a scenario in a world of its own. The claim's name is the test's.
///
/// Where the body asks for a Conduit and there is none, the claim is `unknown`: that is said aloud and noted, and
/// fails only where `FLEET_REQUIRE=conduit` demands it. Every scenario also fails if anything in its world tried to
/// send a packet out of the lab.
///
/// # Errors
/// The letter.
pub async fn scenario(body: impl AsyncFnOnce(&Stage) -> Result<()>) -> Outcome {
    let world = async { Ok((World::open(Options::default()).await?, ())) };
    Box::pin(scenario_in(world, None, async |stage, ()| {
        body(stage).await
    }))
    .await
}

/// The same in a world that comes from elsewhere, with what is there, and by a particular way.
///
/// # Errors
/// The letter.
pub async fn scenario_in<T>(
    world: impl Future<Output = Result<(World, T)>>,
    entrance: Option<Entrance>,
    body: impl AsyncFnOnce(&Stage, T) -> Result<()>,
) -> Outcome {
    let name = std::thread::current()
        .name()
        .unwrap_or("scenario")
        .to_owned();
    note_begun(&name, None, None);
    let (claim, outcome) = Box::pin(judge(&name, true, world, entrance, body)).await;
    note_claim(&claim);
    outcome
}

/// The same at what scenarios share, as a guest in its world. Who comes after a failure is not to suffer for what this one
/// did there: what is no longer well is abandoned.
///
/// # Errors
/// The letter.
pub async fn scenario_at<T>(
    shared: &Shared<T>,
    settle: impl AsyncFnOnce(&World) -> Result<T>,
    is_well: impl AsyncFnOnce(&T) -> bool,
    entrance: Option<Entrance>,
    body: impl AsyncFnOnce(&Stage, &T) -> Result<()>,
) -> Outcome {
    inside(async {
        let mut settled = None;
        let world = async {
            let it = shared.get(settle).await?;
            settled = Some(it.clone());
            Ok((it.world.guest().await?, it))
        };
        let outcome = Box::pin(scenario_in(
            world,
            entrance,
            async |stage, it: Arc<Settled<T>>| body(stage, &it).await,
        ))
        .await;
        if let (Err(_), Some(it)) = (&outcome, &settled)
            && !is_well(it).await
        {
            shared.abandon(it).await;
        }
        outcome
    })
    .await
}

/// Puts a claim of another name, and notes it nowhere: to see what it would come to.
pub async fn tried(name: &str, body: impl AsyncFnOnce(&Stage) -> Result<()>) -> (Claim, Outcome) {
    let world = async { Ok((World::open(Options::default()).await?, ())) };
    Box::pin(judge(name, false, world, None, async |stage, ()| {
        body(stage).await
    }))
    .await
}

async fn judge<T>(
    name: &str,
    noted: bool,
    world: impl Future<Output = Result<(World, T)>>,
    entrance: Option<Entrance>,
    body: impl AsyncFnOnce(&Stage, T) -> Result<()>,
) -> (Claim, Outcome) {
    let (began, since) = (Instant::now(), SystemTime::now());
    let (world, there) = match caught(world).await {
        Ok(world) => world,
        Err(failure) => {
            let claim = Claim {
                verdict: failure.verdict(),
                blame: Some(failure.blame),
                letter: Some(failure.to_string()),
                ..Claim::new(name)
            };
            let letter = Letter(format!("could not begin `{name}`\nerror: {failure}"));
            return (claim, Err(letter));
        }
    };
    let stage = Stage {
        world,
        flaws: Flaws::default(),
        kills: Mutex::default(),
        name: name.to_owned(),
        entrance,
        server: Mutex::default(),
        unproved: Mutex::default(),
        on_purpose: Mutex::default(),
        witnesses: Mutex::default(),
        noted,
    };
    let mut outcome = match caught(body(&stage, there)).await {
        Ok(()) => nothing_left(&stage.world).await,
        Err(failure) => Err(failure),
    };
    let unproved = lock(&stage.unproved).clone();
    if let Err(failure) = outcome {
        outcome = Err(match &unproved {
            Some(_) => failure,
            None => Box::pin(stage.explained(failure, since)).await,
        });
    }
    let claim = stage.claim(began, outcome.as_ref().err());
    let failure = match (outcome, unproved) {
        (Err(_), Some(why)) if !requires_conduit() => {
            eprintln!("UNKN  {name}: {why}");
            None
        }
        (outcome, _) => outcome.err(),
    };
    let outcome = match failure {
        Some(failure) => Err(Box::pin(stage.letter(began, &failure)).await),
        None => match stage.world.close().await {
            Ok(_) => Ok(()),
            Err(failure) => Err(Letter(failure.to_string())),
        },
    };
    (claim, outcome)
}

/// A check that crashed has observed nothing: its panic is a failure of ours. Where it happened was said on standard
/// error.
pub(crate) async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // Boxed: futures within futures are larger than a test's stack likes.
    AssertUnwindSafe(Box::pin(work))
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Failure::harness("come to an end: the check panicked")
                .because(said.unwrap_or("it did not say why")))
        })
}

/// Whether `FLEET_REQUIRE=conduit` is set.
pub fn requires_conduit() -> bool {
    std::env::var("FLEET_REQUIRE").is_ok_and(|required| required == "conduit")
}

/// Nothing in this world tried to send a packet out of the lab.
pub async fn nothing_left(world: &World) -> Result<()> {
    if !world.has_machines() {
        return Ok(());
    }
    let mut escapes = world.escapes().await?;
    if escapes.is_empty() {
        return Ok(());
    }
    escapes.sort();
    escapes.dedup();
    let list: Vec<_> = escapes
        .iter()
        .map(|escape| {
            format!(
                "{} -> {}:{} ({})",
                escape.from, escape.to, escape.port, escape.protocol
            )
        })
        .collect();
    Err(Failure::deployment(
        "keep every packet within the lab: something tried to reach the outside",
    )
    .last_seen(list.join("\n"))
    .hint("none of them left; find out which program of that host sent them"))
}

impl Stage {
    async fn letter(&self, began: Instant, failure: &Failure) -> Letter {
        let (name, world) = (&self.name, &self.world);
        let evidence = world.run().join("evidence").join(name.replace("::", "--"));
        let kept = match world.collect_evidence(&evidence).await {
            Ok(()) => evidence.display().to_string(),
            Err(failure) => format!("could not be kept: {failure}"),
        };
        let server = lock(&self.server)
            .as_ref()
            .map_or_else(|| "nothing yet".to_owned(), ToString::to_string);
        let test = name.rsplit("::").next().unwrap_or(name);
        let letter = format!(
            "\n{}  {name}  [{:.1}s]\n  world {} · on {server} · seed {:x}\n{}error: {failure}\n\nevidence: {kept}\n\
             again: HARNESS_SEED={:x} HARNESS_KEEP=1 cargo test -p scenarios {test} -- --nocapture\n",
            failure.verdict(),
            began.elapsed().as_secs_f64(),
            world.name(),
            world.seed(),
            world.recorder().tree(),
            world.seed(),
        );
        // With the evidence, too: what a test runner printed is soon scrolled away.
        let _ = std::fs::write(evidence.join("letter.txt"), &letter);
        Letter(letter)
    }

    /// What a failure comes to once the machines and the witnesses were asked.
    async fn explained(&self, failure: Failure, since: SystemTime) -> Failure {
        let mut troubles: Vec<_> = lock(&self.witnesses)
            .iter()
            .filter_map(|witness| witness())
            .collect();
        troubles.extend(examine::look(&self.world, since).await);
        let on_purpose = lock(&self.on_purpose).clone();
        examine::explain(failure, &troubles, &on_purpose)
    }

    /// What came of the claim.
    fn claim(&self, began: Instant, failure: Option<&Failure>) -> Claim {
        let server = lock(&self.server).clone();
        let flaws = lock(&self.flaws.0).clone();
        let unproved = lock(&self.unproved).is_some();
        let flawed = failure.is_none() && !flaws.is_empty();
        let verdict = match failure {
            _ if unproved => Verdict::Unknown,
            Some(failure) => failure.verdict(),
            None if flawed => Verdict::Fail,
            None if server.is_some() => Verdict::Pass,
            None => Verdict::Unknown,
        };
        let told = || flaws.values().cloned().collect::<Vec<_>>().join("\n");
        let ids = || flaws.keys().copied().collect::<Vec<_>>().join(", ");
        Claim {
            verdict,
            entrance: self.entrance.filter(|_| server.is_some()),
            server,
            seconds: began.elapsed().as_secs_f64(),
            blame: failure.filter(|_| !unproved).map(|failure| failure.blame),
            letter: failure
                .map(ToString::to_string)
                .or_else(|| flawed.then(told)),
            known: flawed.then(ids),
            kills: lock(&self.kills).clone(),
            ..Claim::new(&self.name)
        }
    }
}

/// Where the scenarios note what came of their claims, one file each, so that a report over all test binaries can be
/// made afterwards.
pub fn notes() -> PathBuf {
    paths::runs().join("scenarios")
}

/// Notes that a claim is being put. If nothing else is noted afterwards, the run was interrupted or its process died, and
/// what an earlier run found out no longer stands.
pub(crate) fn note_begun(name: &str, server: Option<&Server>, entrance: Option<Entrance>) {
    note_claim(&Claim {
        server: server.cloned(),
        entrance,
        letter: Some("it was put and did not come to its end".to_owned()),
        ..Claim::new(name)
    });
}

/// Forgets the note that names no way: the claim is noted by the ways that it is put by.
pub(crate) fn forget_note(name: &str) {
    // Mostly there is one; that there is none is well, too.
    let _ = std::fs::remove_file(notes().join(file_of(&Claim::new(name))));
}

/// Never fails a scenario: what could not be noted is missing in the report, which then says so.
pub(crate) fn note_claim(claim: &Claim) {
    if let Err(failure) = write_note(&notes(), claim) {
        eprintln!("the outcome of `{}` was not noted: {failure}", claim.name);
    }
}

fn write_note(directory: &Path, claim: &Claim) -> Result<()> {
    let what = || "note a claim".to_owned();
    std::fs::create_dir_all(directory).or_environment(what)?;
    let text = serde_json::to_string(claim).or_harness(what)?;
    std::fs::write(directory.join(file_of(claim)), text).or_environment(what)
}

/// One note for each way by which it was put.
fn file_of(claim: &Claim) -> String {
    let mut file = claim.name.replace("::", "--");
    if let (Some(server), Some(entrance)) = (&claim.server, claim.entrance) {
        file += &format!("--{}--{entrance:?}", server.name);
    }
    file + ".json"
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The claims that scenarios noted, by name.
pub fn noted() -> Result<Vec<Claim>> {
    let what = || format!("read the scenarios' notes in `{}`", notes().display());
    let mut claims = Vec::new();
    let entries = match std::fs::read_dir(notes()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(claims),
        Err(error) => return Err(error).or_environment(what),
    };
    for entry in entries {
        let text =
            std::fs::read_to_string(entry.or_environment(what)?.path()).or_environment(what)?;
        claims.push(serde_json::from_str::<Claim>(&text).or_harness(what)?);
    }
    claims.sort_by_key(|claim| {
        let server = claim.server.as_ref().map(|server| server.name.clone());
        (claim.name.clone(), server, claim.entrance)
    });
    Ok(claims)
}
