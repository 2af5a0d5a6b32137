//! The frame of a scenario: makes its world, judges it, keeps the evidence of a failure, writes the letter, and
//! notes on which server the claim was proved.

use crate::failure::{Failure, OrBlame, Result};
use crate::homeserver::{Binary, Server, find_conduit};
use crate::report::Claim;
use crate::verdict::Verdict;
use crate::world::{Options, World};
use crate::{paths, tools};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
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
    server: Mutex<Option<Server>>,
    /// Conduit was asked for and is not here: whatever follows, nothing was observed.
    unproved: AtomicBool,
}

impl Stage {
    /// The real Conduit.
    ///
    /// # Errors
    /// Where there is none; the claim is then unknown, see [`scenario`].
    pub async fn conduit(&self) -> Result<Binary> {
        match found().await? {
            Some(conduit) => Ok(self.proved_on(conduit.clone())),
            None => {
                self.unproved.store(true, Ordering::Relaxed);
                Err(
                    Failure::environment("put the claim to Conduit: there is none on this machine")
                        .hint("give one with `CONDUIT_BIN`"),
                )
            }
        }
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
        *self
            .server
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(server.clone());
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
    let name = std::thread::current()
        .name()
        .unwrap_or("scenario")
        .to_owned();
    let began = Instant::now();
    let stage = match World::open(Options::default()).await {
        Ok(world) => Stage {
            world,
            server: Mutex::default(),
            unproved: AtomicBool::default(),
        },
        Err(failure) => {
            note(&name, None, began, Some(&failure), false);
            return Err(Letter(format!(
                "could not begin `{name}`\nerror: {failure}"
            )));
        }
    };
    let outcome = match body(&stage).await {
        Ok(()) => nothing_left(&stage.world).await,
        Err(failure) => Err(failure),
    };
    let server = stage
        .server
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone();
    let unproved = stage.unproved.load(Ordering::Relaxed);
    note(
        &name,
        server.as_ref(),
        began,
        outcome.as_ref().err(),
        unproved,
    );
    let Err(failure) = outcome else {
        return stage
            .world
            .close()
            .await
            .map(|_| ())
            .map_err(|failure| Letter(failure.to_string()));
    };
    if unproved && !requires_conduit() {
        eprintln!(
            "UNKN  {name}: there is no Conduit on this machine, the claim was put to nothing"
        );
        return Ok(());
    }
    Err(letter(&name, &stage.world, server.as_ref(), began, &failure).await)
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
    let mut escapes = world.authority().await?.escapes().await?;
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

async fn letter(
    name: &str,
    world: &World,
    server: Option<&Server>,
    began: Instant,
    failure: &Failure,
) -> Letter {
    let evidence = world.run().join("evidence").join(world.name());
    let kept = match world.collect_evidence(&evidence).await {
        Ok(()) => evidence.display().to_string(),
        Err(failure) => format!("could not be kept: {failure}"),
    };
    let server = server.map_or_else(|| "nothing yet".to_owned(), ToString::to_string);
    let test = name.rsplit("::").next().unwrap_or(name);
    let letter = format!(
        "\nFAIL  {name}  [{:.1}s]\n  world {} · on {server} · seed {:x}\n{}error: {failure}\n\nevidence: {kept}\n\
         again: HARNESS_SEED={:x} HARNESS_KEEP=1 cargo test -p scenarios {test} -- --nocapture\n",
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

/// Where the scenarios note what came of their claims, one file each, so that a report over all test binaries can be
/// made afterwards.
pub fn notes() -> PathBuf {
    paths::runs().join("scenarios")
}

/// Never fails a scenario: what could not be noted is missing in the report, which then says so.
fn note(
    name: &str,
    server: Option<&Server>,
    began: Instant,
    failure: Option<&Failure>,
    unproved: bool,
) {
    let verdict = match failure {
        _ if unproved => Verdict::Unknown,
        Some(failure) => failure.verdict(),
        None if server.is_some() => Verdict::Pass,
        None => Verdict::Unknown,
    };
    note_claim(&Claim {
        verdict,
        server: server.cloned(),
        seconds: began.elapsed().as_secs_f64(),
        blame: failure.filter(|_| !unproved).map(|failure| failure.blame),
        letter: failure.map(ToString::to_string),
        ..Claim::new(name)
    });
}

/// Never fails a scenario, either.
pub(crate) fn note_claim(claim: &Claim) {
    if let Err(failure) = write_note(&notes(), claim) {
        eprintln!("the outcome of `{}` was not noted: {failure}", claim.name);
    }
}

fn write_note(directory: &Path, claim: &Claim) -> Result<()> {
    let what = || "note a claim".to_owned();
    std::fs::create_dir_all(directory).or_environment(what)?;
    let text = serde_json::to_string(claim).or_harness(what)?;
    let mut file = claim.name.replace("::", "--");
    // One note for each way by which it was put.
    if let (Some(server), Some(entrance)) = (&claim.server, claim.entrance) {
        file += &format!("--{}--{entrance:?}", server.name);
    }
    std::fs::write(directory.join(file + ".json"), text).or_environment(what)
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
