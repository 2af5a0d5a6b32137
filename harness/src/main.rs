//! The `fleet` command line.

use clap::{Args, Parser, Subcommand};
use harness::Exit;
use harness::drill::command::{Drill, Server, Vary, parse_seed, parse_server_name};
use harness::failure::{Failure, OrBlame, Result};
use harness::host::Needs;
use harness::report::{Report, point_latest_to};
use harness::runbook::Runbook;
use harness::sweep::Family;
use harness::world::{self, Options, World};
use harness::{
    docker::Docker, homeserver, image::Image, lint, operator, paths, rehearse, scenario, setup,
    tools, ui,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

/// Rehearses the deployment of a Matrix homeserver on real servers in containers.
///
/// Nothing leaves this machine: every host, name and certificate of a rehearsal is made for it and removed after it.
#[derive(Parser)]
#[command(name = "fleet", bin_name = "cargo fleet", version, after_help = Exit::TABLE)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Take a bare host to an installed, bootstrapped, backed-up and restored site; print a verdict per claim
    Rehearse(Rehearse),
    /// Set this machine up and run the whole test suite; plain `cargo test` works from then on
    Test(Test),
    /// Install and start what a rehearsal needs
    Setup(Agree),
    /// Look whether this machine is fit to rehearse; changes nothing
    Doctor(Server),
    /// Leave an installed and bootstrapped site standing for hands-on work
    Up(Up),
    /// Remove what `up` or `--keep` left standing
    Down {
        /// The world to remove; all of them by default
        world: Option<String>,
    },
    /// Print a runbook as the numbered plan that would be followed
    Plan(Plan),
    /// Follow a runbook on a fresh host
    Follow(Follow),
    /// Make the offline bundle that `install.sh --bundle` takes
    Bundle {
        /// The directory to make
        directory: PathBuf,
        #[command(flatten)]
        server: Server,
    },
    /// Judge configuration before anything is started: what is ignored, refused, dangerous or contradictory
    Lint(lint::Arguments),
    /// Print the report of a run again
    Report {
        /// The run's directory; the latest rehearsal by default
        directory: Option<PathBuf>,
        /// The claims that the scenarios of `cargo test` noted, instead
        #[arg(long)]
        scenarios: bool,
    },
    /// Restore the newest backup in a closed lab and look whether it is what the site was; or say how drills stand
    Drill(Drill),
    /// Measure the figures that the README names, as series with their spread
    Measure(Measure),
    /// Measure what homeservers cost and how quick they are, with the doubt beside each figure
    Load {
        /// Those of `fleet-load`; `cargo fleet load -- --help` lists them
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGUMENT"
        )]
        arguments: Vec<String>,
    },
    /// Look whether a host and its names are fit for a homeserver, and whether others would find it
    Preflight {
        /// Those of `fleet-preflight`; `cargo fleet preflight -- --help` lists them
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGUMENT"
        )]
        arguments: Vec<String>,
    },
    /// Remove what dead runs left behind, by label and nothing else
    Clean {
        /// Also what was kept on purpose and what runs right now
        #[arg(long)]
        all: bool,
    },
}

#[derive(Args)]
struct Agree {
    /// Install and start what is missing without asking
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
struct Require {
    /// Fail where a claim was not proved on this server
    #[arg(long, value_name = "SERVER", value_parser = ["conduit"])]
    require: Option<String>,
}

#[derive(Args)]
struct Rehearse {
    #[command(flatten)]
    agree: Agree,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    require: Require,
    #[command(flatten)]
    vary: Vary,
    /// Where report.json and junit.xml go; by default target/fleet/RUN
    #[arg(long, value_name = "DIR")]
    report_dir: Option<PathBuf>,
    /// Rehearse so many times in a row; stops at the first that does not hold
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
}

#[derive(Args)]
struct Test {
    #[command(flatten)]
    agree: Agree,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    require: Require,
    /// Passed on to `cargo test`
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Args)]
struct Up {
    #[command(flatten)]
    server: Server,
    /// The server name of the site
    #[arg(long, default_value = "timmy.foundation", value_parser = parse_server_name)]
    server_name: String,
}

#[derive(Args)]
struct Plan {
    /// A name under deploy/runbooks/ (install.md), or a path
    runbook: PathBuf,
    /// Give a variable of the runbook
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_variable)]
    variables: Vec<(String, String)>,
}

#[derive(Args)]
struct Follow {
    #[command(flatten)]
    plan: Plan,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    vary: Vary,
    /// Follow this one first, on the same host; may be repeated, and replaces what the runbook needs by itself
    #[arg(long, value_name = "RUNBOOK")]
    after: Vec<PathBuf>,
    /// Follow it on a bare host, without what it needs
    #[arg(long, conflicts_with = "after")]
    bare: bool,
}

#[derive(Args)]
struct Measure {
    /// `site`: from nothing to a site that answers over TLS; `backup`: how long a backup keeps clients waiting, what
    /// it stores, and how long a restore takes; `health`: whether the health check stays quiet while the fleet talks to each
    /// other; `mutations`: which corruptions of a backup are caught; `faults`: what backup and restore survive
    #[arg(value_parser = ["site", "backup", "health", "mutations", "faults"])]
    what: String,
    #[command(flatten)]
    server: Server,
    /// How many readings
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    times: u32,
    /// The least size of the larger data directory that is backed up, in mebibytes; four times as much must be free
    #[arg(long, value_name = "MIB", default_value_t = 5120, value_parser = clap::value_parser!(u32).range(101..=20_480))]
    mib: u32,
    /// How long the fleet talks while its health is checked
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,
    /// How many corruptions
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    corruptions: u32,
    /// How many faults
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    faults: u32,
    /// Faults of this kind alone, by the name that the sweep's result has for it; may be given more than once
    #[arg(long, value_name = "KIND")]
    kind: Vec<Family>,
    /// Draw the corruptions or faults from this, in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = parse_seed, default_value = "1")]
    seed: u64,
}

fn parse_variable(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not of the form NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[tokio::main]
async fn main() -> ExitCode {
    ui::enable();
    world::exit_code(run(Cli::parse().verb)).await
}

async fn run(verb: Verb) -> Result<Exit> {
    match verb {
        Verb::Rehearse(arguments) => rehearse_all(&arguments).await,
        Verb::Test(arguments) => test(&arguments).await,
        Verb::Setup(Agree { yes }) => {
            setup::setup(yes).await?;
            setup::provide_conduit(None).await?;
            ui::show("this machine is set up\n")?;
            Ok(Exit::Ok)
        }
        Verb::Doctor(server) => doctor(&server).await,
        Verb::Up(arguments) => up(&arguments).await,
        Verb::Down { world } => down(world.as_deref()).await,
        Verb::Plan(arguments) => plan(&arguments),
        Verb::Follow(arguments) => follow(&arguments).await,
        Verb::Bundle { directory, server } => bundle(&directory, &server).await,
        Verb::Lint(arguments) => lint::run(&arguments),
        Verb::Report {
            directory,
            scenarios,
        } => report(directory, scenarios),
        Verb::Drill(arguments) => drill(&arguments).await,
        Verb::Measure(arguments) => measure(&arguments).await,
        Verb::Load { arguments } => load(&arguments).await,
        Verb::Preflight { arguments } => preflight(&arguments).await,
        Verb::Clean { all } => clean(all).await,
    }
}

async fn rehearse_all(arguments: &Rehearse) -> Result<Exit> {
    // A wrong binary is said before anything is installed or made.
    let mut conduit = homeserver::find_conduit(arguments.server.conduit.as_deref()).await?;
    setup::setup(arguments.agree.yes).await?;
    if conduit.is_none() {
        conduit = homeserver::fetch_conduit().await?;
    }
    match &conduit {
        Some(conduit) => ui::say(format!("rehearsing {}", conduit.describe())),
        None => ui::say(
            "there is no Conduit: the scripts are rehearsed on the stand-in, the manifest on Synapse",
        ),
    }
    let mut exit = Exit::Ok;
    for _ in 0..arguments.times {
        exit = rehearse_once(arguments, conduit.as_ref()).await?;
        if exit != Exit::Ok {
            break;
        }
    }
    Ok(exit)
}

async fn rehearse_once(arguments: &Rehearse, conduit: Option<&homeserver::Binary>) -> Result<Exit> {
    let run = world::new_run_directory()?;
    let options = Options {
        seed: arguments.vary.seed,
        keep: arguments.vary.keep,
        run: Some(run.clone()),
    };
    let began = std::time::Instant::now();
    let mut report = rehearse::rehearse(conduit, options).await?;
    report.figure("whole rehearsal", began.elapsed().as_secs_f64(), "s");
    let exit = report.exit(arguments.require.require.is_some());
    report.exit = exit.code();
    report.write(&run)?;
    if let Some(directory) = &arguments.report_dir {
        report.write(directory)?;
    }
    point_latest_to(&run)?;
    ui::show(report.lines())?;
    ui::say(format!(
        "report: {}",
        arguments.report_dir.as_deref().unwrap_or(&run).display()
    ));
    if exit != Exit::Ok {
        ui::say(format!(
            "again: cargo fleet rehearse --seed {}",
            report.seed
        ));
    }
    Ok(exit)
}

async fn test(arguments: &Test) -> Result<Exit> {
    let conduit = homeserver::find_conduit(arguments.server.conduit.as_deref()).await?;
    setup::setup(arguments.agree.yes).await?;
    let conduit = match conduit {
        Some(conduit) => Some(conduit),
        None => homeserver::fetch_conduit().await?,
    };
    match &conduit {
        Some(conduit) => ui::say(format!("claims are put to {}", conduit.describe())),
        None => ui::say("there is no Conduit: claims about it will be unknown"),
    }
    // What earlier runs noted says nothing about this one.
    if scenario::notes().exists() {
        std::fs::remove_dir_all(scenario::notes())
            .or_environment(|| "forget the notes of earlier runs".to_owned())?;
    }
    let mut cargo =
        tokio::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(paths::repository())
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(&arguments.arguments)
        .stdin(Stdio::null());
    if let Some(conduit) = &conduit {
        cargo.env("CONDUIT_BIN", &conduit.path);
    }
    if arguments.require.require.is_some() {
        cargo.env("FLEET_REQUIRE", "conduit");
    }
    let status = cargo
        .status()
        .await
        .or_environment(|| "run `cargo test`".to_owned())?;
    let report = Report {
        claims: scenario::noted()?,
        ..Report::default()
    };
    ui::show(format!("\n{}", report.lines()))?;
    if status.success() {
        // The scenarios themselves fail where a required Conduit is missing; none at all prove nothing.
        let nothing = arguments.require.require.is_some() && report.claims.is_empty();
        return Ok(if nothing { Exit::Unknown } else { Exit::Ok });
    }
    // A failing test that noted no claim is a unit test: ours.
    let exit = report.exit(arguments.require.require.is_some());
    Ok(if exit == Exit::Ok {
        Exit::Harness
    } else {
        exit
    })
}

async fn doctor(server: &Server) -> Result<Exit> {
    let findings = setup::examine(server.conduit.as_deref()).await;
    for finding in &findings {
        ui::show(format!(
            "{}  {:<8} {}\n",
            if finding.fit { "ok  " } else { "FAIL" },
            finding.subject,
            finding.seen
        ))?;
    }
    for hint in findings.iter().filter_map(|finding| finding.hint.as_ref()) {
        ui::show(format!("hint: {hint}\n"))?;
    }
    Ok(if findings.iter().all(|finding| finding.fit) {
        Exit::Ok
    } else {
        Exit::Environment
    })
}

/// A Conduit, for what makes no sense without one.
async fn up(arguments: &Up) -> Result<Exit> {
    let conduit = arguments.server.needed("bring a site up").await?;
    // Kept only once it stands: what failed on the way, or was interrupted, is no site.
    let world = World::open(Options::default()).await?;
    let site = world.site(&arguments.server_name, &conduit).await?;
    site.follow("bootstrap.md", &[]).await?;
    let root = world.run().join("root.crt");
    std::fs::write(&root, world.root_certificate())
        .or_environment(|| format!("write `{}`", root.display()))?;
    let (name, base, port) = (&site.name, site.base_url(), site.host.ports.https);
    ui::show(format!("site       {name} on {}\n", site.server))?;
    ui::show(format!("world      {}\n", world.name()))?;
    ui::show(format!("client     {base} (on 127.0.0.1:{port})\n"))?;
    ui::show(format!("authority  {}\n", root.display()))?;
    ui::show(format!(
        "shell      docker exec -it {} bash\n",
        &site.host.container()[..12]
    ))?;
    for account in site
        .host
        .shell("cd /opt/conduit/secrets && grep -H . *.password")
        .await?
        .lines()
    {
        let (user, password) = account.split_once(".password:").unwrap_or((account, ""));
        ui::show(format!("account    @{user}:{name}  {password}\n"))?;
    }
    ui::show(format!(
        "try        curl --cacert {} --resolve matrix.{name}:443:127.0.0.1 --connect-to ::127.0.0.1:{port} \\\n",
        root.display()
    ))?;
    ui::show(format!("             {base}/_matrix/client/versions\n"))?;
    ui::show(format!("remove     cargo fleet down {}\n", world.name()))?;
    world.keep(&format!("site {name}"))?;
    Ok(Exit::Ok)
}

async fn down(world: Option<&str>) -> Result<Exit> {
    let docker = Docker::connect().await?;
    let kept = world::kept_worlds();
    let chosen: Vec<_> = match world {
        Some(world) if kept.iter().any(|kept| kept == world) => vec![world.to_owned()],
        Some(world) => {
            return Err(Failure::environment(format!(
                "remove the world `{world}`: none of that name is kept"
            ))
            .last_seen(if kept.is_empty() {
                "no world is kept".to_owned()
            } else {
                kept.join("\n")
            })
            .hint("without a name `cargo fleet down` removes all that are kept"));
        }
        None => kept,
    };
    for world in chosen {
        let removed = docker
            .remove_labelled(&format!("{}={world}", harness::docker::WORLD_LABEL))
            .await?;
        world::forget_kept(&world);
        ui::show(format!(
            "removed {world}: {} containers, {} networks, {} volumes\n",
            removed.containers, removed.networks, removed.volumes
        ))?;
    }
    Ok(Exit::Ok)
}

/// `install.md` is the one under deploy/runbooks/, `./install.md` the one here.
fn locate(runbook: &Path) -> PathBuf {
    let ours = paths::runbooks().join(runbook);
    if runbook.components().count() == 1 && !runbook.exists() && ours.exists() {
        ours
    } else {
        runbook.to_owned()
    }
}

/// Reads a runbook; where there is none of that name, says which there are.
fn read(path: &Path) -> Result<Runbook> {
    operator::read_runbook(path).map_err(|failure| {
        if path.exists() {
            return failure;
        }
        let mut ours: Vec<_> = std::fs::read_dir(paths::runbooks())
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".md"))
            .map(|name| format!("`{name}`"))
            .collect();
        ours.sort();
        failure.hint(format!("give a path, or one of {}", ours.join(", ")))
    })
}

fn plan(arguments: &Plan) -> Result<Exit> {
    let runbook = read(&locate(&arguments.runbook))?;
    let given: BTreeMap<_, _> = arguments.variables.iter().cloned().collect();
    ui::show(format!("{}\n", operator::plan_runbook(&runbook, &given)?))?;
    Ok(Exit::Ok)
}

/// What has to be followed before each of our runbooks, on a host that is bare.
fn needed_by(runbook: &Path) -> &'static [&'static str] {
    match runbook.file_name().and_then(|name| name.to_str()) {
        Some(
            "bootstrap.md" | "backup.md" | "drill.md" | "health.md" | "object-store.md"
            | "preflight.md" | "upgrade.md",
        ) => &["install.md"],
        Some("restore.md") => &["install.md", "backup.md"],
        Some("lost-device.md") => &["install.md", "bootstrap.md"],
        _ => &[],
    }
}

async fn follow(arguments: &Follow) -> Result<Exit> {
    let path = locate(&arguments.plan.runbook);
    let before: Vec<PathBuf> = if arguments.bare {
        Vec::new()
    } else if arguments.after.is_empty() {
        needed_by(&path)
            .iter()
            .map(|name| locate(Path::new(name)))
            .collect()
    } else {
        arguments.after.iter().map(|path| locate(path)).collect()
    };
    let given: BTreeMap<_, _> = arguments.plan.variables.iter().cloned().collect();
    // The documents' mistakes, and the command line's, are said before anything is made.
    judge_before_following(&path, &before, &given)?;
    let conduit = match setup::provide_conduit(arguments.server.conduit.as_deref()).await? {
        Some(conduit) => conduit,
        None => tools::standin().await?,
    };
    ui::say(format!("with {}", conduit.describe()));
    // Without docker nothing is made, not even a directory.
    Docker::connect().await?;
    let world = World::open(Options {
        seed: arguments.vary.seed,
        keep: arguments.vary.keep,
        run: Some(world::new_run_directory()?),
    })
    .await?;
    match follow_all(&world, &conduit, &path, &before, given).await {
        Ok(results) => {
            for (name, value) in results {
                ui::show(format!("{name}={value}\n"))?;
            }
        }
        Err(failure) => {
            let evidence = world.run().join("evidence");
            // What went wrong first is what matters.
            match world.collect_evidence(&evidence).await {
                Ok(()) => ui::say(format!("evidence: {}", evidence.display())),
                Err(broken) => ui::say(format!("the evidence could not be kept: {broken}")),
            }
            return Err(failure);
        }
    }
    ui::say(format!(
        "transcripts: {}",
        world.run().join("transcripts").display()
    ));
    world.close().await?;
    Ok(Exit::Ok)
}

/// Boots a host and follows the runbooks there; the answer is what the last one hands out.
async fn follow_all(
    world: &World,
    conduit: &homeserver::Binary,
    path: &Path,
    before: &[PathBuf],
    mut given: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let server_name = given
        .get("SERVER_NAME")
        .map_or(harness::authority::PRODUCTION_NAME, String::as_str);
    let needs = Needs {
        bundle: Some(tools::bundle(conduit).await?),
        ..Needs::default()
    };
    let host = world.host_with(server_name, needs).await?;
    let mut results = BTreeMap::new();
    for earlier in before {
        let known = results
            .iter()
            .chain(&given)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        results.extend(follow_one(world, &host, earlier, &known).await?);
    }
    if before.iter().any(|earlier| earlier.ends_with("backup.md")) {
        // The host that made the backup still has the data that it is a backup of.
        given
            .entry("EXISTING_DATA".to_owned())
            .or_insert_with(|| "--replace".to_owned());
    }
    results.extend(given);
    follow_one(world, &host, path, &results).await
}

/// Reads every runbook, and plans the last one with what is given and with whatever the earlier ones hand out.
fn judge_before_following(
    path: &Path,
    before: &[PathBuf],
    given: &BTreeMap<String, String>,
) -> Result<()> {
    let runbook = read(path)?;
    let declares = |name: &str| {
        runbook
            .variables()
            .iter()
            .any(|variable| variable.name == name)
    };
    // The lab names the host after it, whether or not the runbook asks for it.
    let mut known: BTreeMap<_, _> = given
        .iter()
        .filter(|(name, _)| *name != "SERVER_NAME" || declares(name))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    for earlier in before {
        for result in read(earlier)?.results() {
            if declares(&result.name) {
                known
                    .entry(result.name.clone())
                    .or_insert_with(|| format!("(from {})", earlier.display()));
            }
        }
    }
    operator::plan_runbook(&runbook, &known).map(|_| ())
}

/// Follows one with those of the given variables that it declares.
async fn follow_one(
    world: &World,
    host: &harness::host::Host,
    path: &Path,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let runbook = operator::read_runbook(path)?;
    let wanted: Vec<_> = runbook
        .variables()
        .iter()
        .filter_map(|variable| {
            given
                .get(&variable.name)
                .map(|value| (variable.name.as_str(), value.as_str()))
        })
        .collect();
    let step = world.recorder().begin(format!(
        "follow {} on {}",
        path.file_name().unwrap_or_default().display(),
        host.server_name
    ));
    let followed = host.follow_file(path, &wanted, &step).await?;
    step.done();
    ui::show(format!("{}\n", followed.transcript))?;
    Ok(followed.transcript.results().clone())
}

async fn bundle(directory: &Path, server: &Server) -> Result<Exit> {
    let conduit = server.needed("make a bundle").await?;
    let made = tools::bundle(&conduit).await?;
    let what = || format!("write the bundle to `{}`", directory.display());
    if directory.exists() {
        return Err(
            Failure::environment(format!("{}: it exists already", what()))
                .hint("name a directory that does not exist"),
        );
    }
    std::fs::create_dir_all(directory).or_environment(what)?;
    for name in [
        "conduit",
        "fleet-bootstrap",
        "fleet-preflight",
        "SHA256SUMS",
    ] {
        std::fs::copy(made.join(name), directory.join(name)).or_environment(what)?;
    }
    ui::show(format!("{}: {}\n", directory.display(), conduit.describe()))?;
    Ok(Exit::Ok)
}

fn report(directory: Option<PathBuf>, scenarios: bool) -> Result<Exit> {
    let report = if scenarios {
        let claims = scenario::noted()?;
        // Nothing observed must not read as nothing wrong.
        if claims.is_empty() {
            return Err(Failure::environment(
                "report the scenarios: no scenario has noted a claim",
            )
            .hint("`cargo fleet test --yes` runs them"));
        }
        Report {
            claims,
            ..Report::default()
        }
    } else {
        Report::read(&directory.unwrap_or_else(|| paths::runs().join("latest")))?
    };
    ui::show(report.lines())?;
    for page in [report.table(), report.kill_matrix()] {
        if !page.is_empty() {
            ui::show(format!("\n{page}"))?;
        }
    }
    if scenarios {
        let page = write_page(&report)?;
        ui::say(format!("the same as a page: {}", page.display()));
    }
    Ok(report.exit(false))
}

/// The claims of the list, as a page beside the notes.
fn write_page(report: &Report) -> Result<PathBuf> {
    let hitlist = paths::repository().join(harness::docs::HITLIST);
    let what = || format!("read `{}`", hitlist.display());
    let hitlist = std::fs::read_to_string(&hitlist).or_environment(what)?;
    let page = paths::runs().join("claims.html");
    let what = || format!("write `{}`", page.display());
    std::fs::write(&page, harness::page::page(report, &hitlist)).or_environment(what)?;
    Ok(page)
}

/// With a sentinel it is a drill of another program, which has the client's side of encryption and takes the same arguments.
async fn drill(arguments: &Drill) -> Result<Exit> {
    if arguments.sentinel().is_none() {
        return arguments.run(None).await;
    }
    let given: Vec<_> = std::env::args().skip(2).collect();
    program("fleet-device", &["--bin", "fleet-drill"], &given, &[]).await
}

async fn measure(arguments: &Measure) -> Result<Exit> {
    let conduit = arguments.server.needed("measure").await?;
    ui::say(format!("measuring {}", conduit.describe()));
    if arguments.what == "health" {
        let watch = harness::measure::health(&conduit, arguments.minutes).await?;
        ui::show(format!("{watch}\n"))?;
        watch.judge()?;
        return Ok(Exit::Ok);
    }
    if arguments.what == "mutations" {
        let count = arguments.corruptions as usize;
        let score = harness::measure::mutations(&conduit, arguments.seed, count).await?;
        ui::show(score.to_string())?;
        return Ok(Exit::Ok);
    }
    if arguments.what == "faults" {
        let count = arguments.faults as usize;
        let kinds = if arguments.kind.is_empty() {
            &Family::ALL[..]
        } else {
            &arguments.kind
        };
        let sweep = harness::measure::faults(&conduit, arguments.seed, count, kinds).await?;
        ui::show(sweep.to_string())?;
        return Ok(if sweep.broken().next().is_none() {
            Exit::Ok
        } else {
            Exit::Deployment
        });
    }
    if arguments.what == "backup" {
        let costs =
            harness::measure::backup(&conduit, arguments.mib as usize, arguments.times).await?;
        ui::show(costs.to_string())?;
        return Ok(Exit::Ok);
    }
    for series in harness::measure::site(&conduit, arguments.times).await? {
        ui::show(format!("{series}\n"))?;
    }
    Ok(Exit::Ok)
}

async fn preflight(arguments: &[String]) -> Result<Exit> {
    program("fleet-preflight", &[], arguments, &[]).await
}

/// With what this harness would choose itself: the Conduit it finds, the images it has built. Optimised, for a slow
/// generator distorts what it measures.
async fn load(arguments: &[String]) -> Result<Exit> {
    let mut chosen = vec![
        ("FLEET_HOST_IMAGE", Image::Host.reference().into()),
        ("FLEET_SYNAPSE_IMAGE", Image::Synapse.reference().into()),
    ];
    if let Some(conduit) = homeserver::find_conduit(None).await? {
        chosen.push(("CONDUIT_BIN", conduit.path.into_os_string()));
    }
    program("fleet-load", &["--release"], arguments, &chosen).await
}

/// A program is one of its own, so that what it needs is not compiled into this one. Its exit codes are its own, too.
async fn program(
    name: &str,
    options: &[&str],
    arguments: &[String],
    environment: &[(&str, OsString)],
) -> Result<Exit> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = tokio::process::Command::new(cargo)
        .args(["run", "--quiet", "--package", name])
        .args(options)
        .arg("--manifest-path")
        .arg(paths::repository().join("Cargo.toml"))
        .arg("--")
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .status()
        .await
        .or_environment(|| format!("run `{name}`"))?;
    match status.code() {
        Some(code) => std::process::exit(code),
        None => Err(Failure::harness(format!("`{name}` ended: {status}"))),
    }
}

async fn clean(all: bool) -> Result<Exit> {
    let docker = Docker::connect().await?;
    let removed = if all {
        for world in world::kept_worlds() {
            world::forget_kept(&world);
        }
        docker.remove_labelled(harness::docker::RUN_LABEL).await?
    } else {
        world::sweep_leftovers(&docker).await?
    };
    ui::show(format!(
        "removed {} containers, {} networks, {} volumes\n",
        removed.containers, removed.networks, removed.volumes
    ))?;
    Ok(Exit::Ok)
}
