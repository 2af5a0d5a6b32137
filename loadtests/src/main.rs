//! The command line of the load tests: `cargo fleet load`.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use fleet_load::capacity::{self, Question};
use fleet_load::compare::{Comparison, order};
use fleet_load::guard::{Target, Word};
use fleet_load::laws::{self, Cause};
use fleet_load::open::{Driven, advise, ask, drive};
use fleet_load::run::{Block, Cast, Interrupted, Shape, run};
use fleet_load::schedule::{Arrivals, Plan};
use fleet_load::server::{Kind, Server, Source};
use fleet_load::shard::{self, Part, Shard};
use fleet_load::stall::{self, Stalls};
use fleet_load::threshold::Threshold;
use fleet_load::validity::{Clocks, Doubt, Validity};
use fleet_load::{report, run as runs};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Load with its doubt: open-loop arrivals, a ledger of deliveries, a meter, and comparisons with intervals.
#[derive(Parser)]
#[command(name = "fleet load", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Also write everything as JSON to this file; of runs and comparisons a page with plots (`.html`) and Markdown (`.md`)
    /// beside it
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Put the generator to the test: a server that is frozen again and again, told by an open and by a closed loop
    Stalls {
        /// How long it stands still, in milliseconds
        #[arg(long, default_value_t = 2_000)]
        stall: u64,
        /// How often, in milliseconds
        #[arg(long, default_value_t = 20_000)]
        period: u64,
        /// How many times
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        times: u32,
        #[command(flatten)]
        pace: Pace,
    },
    /// Ask a target for its versions, in an open loop
    Probe {
        /// The address, such as `http://127.0.0.1:6167`
        #[arg(long, value_name = "URL")]
        target: String,
        #[command(flatten)]
        owner: Owner,
        /// How long, in seconds
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        #[command(flatten)]
        pace: Pace,
    },
    /// One run on one server, which is started for it; or on `--target`, whole or one shard of it
    Run {
        /// Which server to start
        #[arg(required_unless_present = "target", conflicts_with = "target")]
        server: Option<Kind>,
        /// A server that runs already, which lets everybody register
        #[arg(long, value_name = "URL")]
        target: Option<String>,
        #[command(flatten)]
        owner: Owner,
        /// Do only this part of the run, such as `0/4`, and keep what was measured in `--json` for `merge`
        #[arg(long, value_name = "K/N", requires_all = ["target", "name", "json"])]
        shard: Option<Shard>,
        /// What people and room are called on the target; the same for all shards of a run, and new for each run
        #[arg(long, requires = "target", value_parser = parse_name)]
        name: Option<String>,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        work: Work,
    },
    /// Put the shards of a run together, and judge the whole
    Merge {
        /// What each `run --shard` wrote
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        limits: Limits,
    },
    /// Find the highest rate that a server keeps, what stands in its way, and what costs what
    Capacity {
        /// Which server
        server: Kind,
        /// What p99 of deliveries must stay under, in milliseconds
        #[arg(long, default_value_t = 500.0)]
        bound: f64,
        /// To which part of it the knee is asked for
        #[arg(long, default_value_t = 0.1)]
        precision: f64,
        /// How long everything may take
        #[arg(long, default_value_t = 15)]
        minutes: u64,
        /// Runs from which the model of costs is made, a quarter of which is held out; 0 for none
        #[arg(long, default_value_t = 13)]
        mixes: u32,
        #[command(flatten)]
        work: Work,
    },
    /// Make the experiments behind the laws of a server's costs: what one more member, room, message or word costs
    Laws {
        /// Which server
        server: Kind,
        /// Another one beside it: the regimes where the first is not Low are named
        #[arg(long, value_name = "SERVER")]
        against: Option<Kind>,
        /// Only this cause; may be given again
        #[arg(long, value_name = "CAUSE")]
        only: Vec<Cause>,
        /// How often each cell is run
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        repeats: u32,
        #[command(flatten)]
        work: Work,
    },
    /// Start a server to be loaded as `--target`, until it is told to end
    Serve {
        /// Which server
        server: Kind,
        #[command(flatten)]
        servers: Servers,
    },
    /// Two servers under the same work, in interleaved pairs
    Compare {
        /// The one that the words are about
        a: Kind,
        /// What it is compared with
        b: Kind,
        /// Rounds of four runs: A B B A
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
        #[command(flatten)]
        work: Work,
    },
    #[command(hide = true)]
    NullServer,
}

#[derive(Args)]
struct Pace {
    /// Arrivals per second
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Draw the schedule from this, in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = parse_seed, default_value = "1")]
    seed: u64,
}

#[derive(Args)]
struct Owner {
    /// The target is mine, and I want this
    #[arg(long)]
    i_am_the_owner: bool,
    /// In which the owner of production allows load on it
    #[arg(long, value_name = "FILE")]
    owner_file: Option<PathBuf>,
}

impl Owner {
    fn word(self) -> Word {
        Word {
            owner: self.i_am_the_owner,
            file: self.owner_file,
        }
    }
}

#[derive(Args)]
struct Limits {
    /// What must hold of the whole, such as `delivered.p99<500` (milliseconds) or `lost<1`; may be given again
    #[arg(long = "threshold", value_name = "FIGURE<LIMIT")]
    thresholds: Vec<Threshold>,
}

#[derive(Args)]
struct Work {
    /// Messages per second, of all senders together
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Draw the schedule from this, in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = parse_seed, default_value = "1")]
    seed: u64,
    /// How long is measured, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How long the same traffic runs before, in seconds
    #[arg(long, default_value_t = 5)]
    warm: u64,
    /// Members of the room
    #[arg(long, default_value_t = 10)]
    members: u32,
    /// Who of them sends
    #[arg(long, default_value_t = 4)]
    senders: u32,
    /// Who of them waits in a long poll
    #[arg(long, default_value_t = 6)]
    readers: u32,
    /// How arrivals follow each other
    #[arg(long, default_value = "periodic")]
    arrivals: Arrivals,
    /// Words of each message; as people write if it is not given
    #[arg(long)]
    words: Option<u32>,
    /// Rooms that each reader is joined to, the busy one among them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rooms: u32,
    /// Messages that are in the room before
    #[arg(long, default_value_t = 0)]
    history: u32,
    #[command(flatten)]
    servers: Servers,
}

#[derive(Args)]
struct Servers {
    /// The Conduit
    #[arg(long, value_name = "PATH", env = "CONDUIT_BIN")]
    conduit: Option<PathBuf>,
    /// The lab's image of a bare Debian
    #[arg(long, value_name = "IMAGE", env = "FLEET_HOST_IMAGE", hide = true)]
    host_image: Option<String>,
    /// The lab's image with Synapse
    #[arg(long, value_name = "IMAGE", env = "FLEET_SYNAPSE_IMAGE", hide = true)]
    synapse_image: Option<String>,
}

impl Work {
    fn shape(&self) -> Shape {
        let length = Duration::from_secs(self.seconds);
        let plan = Plan {
            seed: self.seed,
            rate: self.rate,
            length,
            senders: self.senders,
            arrivals: self.arrivals,
            words: self.words,
        };
        Shape {
            plan,
            members: self.members,
            readers: self.readers,
            rooms: self.rooms,
            history: self.history,
            warm: Duration::from_secs(self.warm),
        }
    }
}

impl Servers {
    fn source(&self) -> Source {
        Source {
            conduit: self.conduit.clone(),
            host_image: self.host_image.clone(),
            synapse_image: self.synapse_image.clone(),
        }
    }
}

fn parse_seed(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16)
        .map_err(|_| "a seed is a hexadecimal number of at most 16 digits".to_owned())
}

fn parse_name(text: &str) -> Result<String, String> {
    let fits =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if (1..=40).contains(&text.len()) && text.chars().all(fits) {
        Ok(format!("{text}-"))
    } else {
        Err("a name has 1 to 40 small letters, digits and dashes".to_owned())
    }
}

/// The exit code of a run that may not be quoted, of one that did not keep a threshold, and of one that was interrupted.
const INVALID: u8 = 3;
const NOT_KEPT: u8 = 4;
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    match act(Cli::parse()).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<Interrupted>() {
                ExitCode::from(INTERRUPTED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

async fn act(cli: Cli) -> Result<u8> {
    let json = cli.json.as_deref();
    if let Some(path) = json {
        // Before anything is measured, so that nothing is lost at the end.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("write the report `{}`", path.display()))?;
    }
    match cli.verb {
        Verb::NullServer => stall::null_server().await.map(|()| 0),
        Verb::Stalls {
            stall,
            period,
            times,
            pace,
        } => {
            if stall == 0 || stall >= period {
                bail!(
                    "a stall of {stall} ms does not fit into a period of {period} ms: give a shorter `--stall`"
                );
            }
            let (stall, period) = (Duration::from_millis(stall), Duration::from_millis(period));
            let stalls = Stalls {
                stall,
                period,
                times,
                rate: pace.rate,
                seed: pace.seed,
            };
            let program = std::env::current_exe().context("find this program")?;
            let told = stall::test(&program, stalls).await?;
            print!("{}", told.lines());
            keep(
                json,
                &json!({"valid": told.validity.latencies(), "told": told}),
            )?;
            Ok(if told.validity.latencies() {
                0
            } else {
                INVALID
            })
        }
        Verb::Probe {
            target,
            owner,
            seconds,
            pace,
        } => {
            let target = Target::admit(&target, &owner.word()).await?;
            probe(&target, seconds, &pace, json).await
        }
        Verb::Run {
            server,
            target,
            owner,
            shard,
            name,
            limits,
            work,
        } => {
            let shape = work.shape();
            let block = if let Some(kind) = server {
                let source = work.servers.source();
                let started = tokio::select! {
                    started = Server::start(kind, &source) => started?,
                    () = interrupted() => return Ok(INTERRUPTED),
                };
                run(&started, &shape, interrupted()).await?
            } else {
                let target = target.context("give a server to start, or `--target`")?;
                let target = Target::admit(&target, &owner.word()).await?;
                let name = name.unwrap_or_else(|| format!("load{:08x}-", fastrand::u32(..)));
                let shard = shard.unwrap_or(Shard::WHOLE);
                let part = part(&target, &shape, &name, shard).await?;
                if shard != Shard::WHOLE {
                    return leave(json, &part);
                }
                Block::of(part.samples, part.schedule, Default::default())
            };
            tell(block, &shape, &limits, json)
        }
        Verb::Merge { files, limits } => {
            let merged = shard::merge(&files)?;
            let mut block = Block::of(merged.samples, merged.schedule, Default::default());
            block.validity.against_latency.extend(merged.doubts);
            tell(block, &merged.shape, &limits, json)
        }
        Verb::Capacity {
            server,
            bound,
            precision,
            minutes,
            mixes,
            work,
        } => {
            let question = Question {
                kind: server,
                shape: work.shape(),
                bound,
                precision,
                budget: Duration::from_secs(minutes * 60),
                mixes,
            };
            let source = work.servers.source();
            let told = |line: &str| eprintln!("{line}");
            let found = capacity::find(question, &source, told, interrupted()).await?;
            print!("{}", found.markdown());
            if let Some(path) = json {
                report::capacity(&found).keep(path)?;
            }
            Ok(if found.interrupted {
                INTERRUPTED
            } else if found.against.is_empty() {
                0
            } else {
                INVALID
            })
        }
        Verb::Laws {
            server,
            against,
            only,
            repeats,
            work,
        } => {
            let kinds: Vec<_> = std::iter::once(server).chain(against).collect();
            let causes = if only.is_empty() {
                Cause::ALL.to_vec()
            } else {
                only
            };
            let source = work.servers.source();
            let told = |line: &str| eprintln!("{line}");
            let shape = work.shape();
            let found = laws::experiment(
                &causes,
                &kinds,
                &shape,
                repeats,
                &source,
                told,
                interrupted(),
            )
            .await?;
            print!("{}", found.markdown());
            if let Some(path) = json {
                report::laws(&found).keep(path)?;
            }
            Ok(match (found.interrupted, found.valid()) {
                (true, _) => INTERRUPTED,
                (false, true) => 0,
                (false, false) => INVALID,
            })
        }
        Verb::Serve { server, servers } => {
            let source = servers.source();
            let started = tokio::select! {
                started = Server::start(server, &source) => started?,
                () = interrupted() => return Ok(INTERRUPTED),
            };
            println!("{}", started.target.url);
            interrupted().await;
            Ok(0)
        }
        Verb::Compare { a, b, rounds, work } => {
            compare([a, b], usize::from(rounds), &work, json).await
        }
    }
}

/// Runs a part of a plan on a target.
async fn part(target: &Target, shape: &Shape, name: &str, shard: Shard) -> Result<Part> {
    let made = async {
        let cast = Cast::make(target, shape, name, shard).await?;
        let clock = cast.clock().await.context("compare the clocks")?;
        anyhow::Ok((cast, clock))
    };
    let (cast, clock) = tokio::select! {
        made = made => made?,
        () = interrupted() => bail!(Interrupted),
    };
    let measured = cast.perform(shape, None, None, interrupted()).await?;
    let mut part = Part::new(shape.clone(), measured.schedule, shard, measured.samples);
    (part.name, part.target, part.began, part.clock) = (
        name.to_owned(),
        target.url.to_string(),
        measured.began,
        clock,
    );
    Ok(part)
}

/// Keeps a shard for `merge`, which judges the whole.
fn leave(json: Option<&Path>, part: &Part) -> Result<u8> {
    keep(
        json,
        &serde_json::to_value(part).context("write the shard")?,
    )?;
    let counts = part.samples.ledger.counts();
    println!(
        "shard {}: {} accepted of {}, {} delivered; `merge` judges the whole",
        part.shard, counts.accepted, part.samples.scheduled, counts.delivered
    );
    Ok(if part.samples.interrupted {
        INTERRUPTED
    } else {
        0
    })
}

/// Tells of a run that was done, judges it, and keeps it.
fn tell(block: Block, shape: &Shape, limits: &Limits, json: Option<&Path>) -> Result<u8> {
    print!("{}", block.lines());
    let judged: Vec<_> = limits
        .thresholds
        .iter()
        .map(|threshold| threshold.judge(&block))
        .collect();
    for judged in &judged {
        println!("  {judged}");
    }
    let kept = judged.iter().all(|judged| judged.kept);
    if let Some(path) = json {
        report::run(shape, &block, &judged).keep(path)?;
    }
    Ok(if block.interrupted {
        INTERRUPTED
    } else if !block.validity.costs() {
        INVALID
    } else if !kept {
        NOT_KEPT
    } else {
        0
    })
}

async fn compare(sides: [Kind; 2], rounds: usize, work: &Work, json: Option<&Path>) -> Result<u8> {
    let (shape, source) = (work.shape(), work.servers.source());
    runs::enough_descriptors(u64::from(shape.plan.senders + shape.readers))?;
    let mut blocks = Vec::new();
    let mut code = 0;
    for side in order(rounds) {
        let server = tokio::select! {
            started = Server::start(sides[side], &source) => started?,
            () = interrupted() => { code = INTERRUPTED; break }
        };
        let block = match run(&server, &shape, interrupted()).await {
            Err(error) if error.is::<Interrupted>() => {
                code = INTERRUPTED;
                break;
            }
            block => block?,
        };
        eprint!("{}/{} {}", blocks.len() + 1, rounds * 4, block.lines());
        if block.interrupted {
            code = INTERRUPTED;
            break;
        }
        blocks.push(block);
        if let Some(path) = json {
            report::comparison(&Comparison::of(sides, shape.clone(), blocks.clone())).keep(path)?;
        }
    }
    let comparison = Comparison::of(sides, shape, blocks);
    print!("{}", comparison.markdown());
    if let Some(path) = json {
        report::comparison(&comparison).keep(path)?;
    }
    let quotable = comparison.blocks.iter().all(|block| block.validity.costs());
    Ok(if code == 0 && !quotable {
        INVALID
    } else {
        code
    })
}

async fn probe(target: &Target, seconds: u64, pace: &Pace, json: Option<&Path>) -> Result<u8> {
    let length = Duration::from_secs(seconds);
    let plan = Plan {
        seed: pace.seed,
        rate: pace.rate,
        length,
        senders: 1,
        arrivals: Arrivals::Poisson,
        words: None,
    };
    let schedule = plan.draw().map_err(anyhow::Error::msg)?;
    let client = target.client()?;
    let url = target
        .url
        .join("/_matrix/client/versions")
        .context("form the address")?;
    let timeout = Duration::from_secs(30);
    if let Err(error) = client.get(url.clone()).timeout(timeout).send().await {
        bail!(
            "`{}` does not answer: {}",
            target.url,
            fleet_load::open::explain(&error)
        );
    }
    let stop = interrupted();
    println!(
        "{} requests to {url} in {seconds} s, schedule {}",
        schedule.arrivals.len(),
        &schedule.hash[..12]
    );
    let (from, mut driven) = (Clocks::read()?, Driven::default());
    let send = move |_| ask(client.get(url.clone()).timeout(timeout));
    let scheduled = schedule.arrivals.len() as u64;
    let stopped = tokio::select! {
        () = drive(schedule.arrivals, Instant::now(), send, |sent| driven.note(&sent)) => false,
        () = stop => true,
    };
    let doubt = Doubt::between(&from, &Clocks::read()?);
    let mut validity = Validity::judge(&driven, scheduled, &doubt, None);
    if stopped {
        validity.against_all.push("it was interrupted".to_owned());
    }
    let latency = driven.latency.quantiles();
    println!("{}", validity.lines());
    for trouble in advise(&driven.troubles) {
        println!("  {trouble}");
    }
    if let Some(latency) = latency {
        let tail = latency
            .p99
            .map_or("unknown".to_owned(), |p99| format!("{p99:.2}"));
        println!(
            "  from the schedule, ms: p50 {:.2} p90 {:.2} p99 {tail} max {:.2}",
            latency.p50, latency.p90, latency.max
        );
    }
    let valid = validity.latencies();
    keep(
        json,
        &json!({"valid": valid, "validity": validity, "latency": latency, "troubles": driven.troubles, "hash": schedule.hash}),
    )?;
    Ok(match (stopped, valid) {
        (true, _) => INTERRUPTED,
        (false, true) => 0,
        (false, false) => INVALID,
    })
}

fn keep(path: Option<&Path>, report: &Value) -> Result<()> {
    path.map_or(Ok(()), |path| report::keep(path, report))
}

/// Ctrl-C, or being told to end: what was measured until then is told, and servers are removed. From the first time that
/// anybody asks, no signal is missed.
fn interrupted() -> impl Future<Output = ()> {
    static STOPPED: OnceLock<watch::Sender<bool>> = OnceLock::new();
    let stopped = STOPPED.get_or_init(|| {
        let (stopped, _) = watch::channel(false);
        let tell = stopped.clone();
        let signals = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        );
        if let (Ok(mut interrupt), Ok(mut terminate)) = signals {
            tokio::spawn(async move {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                tell.send_replace(true);
            });
        }
        stopped
    });
    let mut stopped = stopped.subscribe();
    async move {
        // The sender is never dropped.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}
