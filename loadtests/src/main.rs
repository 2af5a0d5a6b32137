//! The command line of the load tests: `cargo fleet load`.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use fleet_load::compare::{Comparison, order};
use fleet_load::guard::{Target, Word};
use fleet_load::open::{Driven, advise, ask, drive};
use fleet_load::run::{Shape, run};
use fleet_load::schedule::{Arrivals, Plan};
use fleet_load::server::{Kind, Server, Source};
use fleet_load::stall::{self, Stalls};
use fleet_load::validity::{Clocks, Validity};
use fleet_load::{report, run as runs};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Load with its doubt: open-loop arrivals, a ledger of deliveries, a meter, and comparisons with intervals.
#[derive(Parser)]
#[command(name = "fleet load", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Also write everything as JSON to this file
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
        /// The target is mine, and I want this
        #[arg(long)]
        i_am_the_owner: bool,
        /// In which the owner of production allows load on it
        #[arg(long, value_name = "FILE")]
        owner_file: Option<PathBuf>,
        /// How long, in seconds
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        #[command(flatten)]
        pace: Pace,
    },
    /// One run on one server, which is started for it
    Run {
        /// Which server
        server: Kind,
        #[command(flatten)]
        work: Work,
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
        };
        Shape {
            plan,
            members: self.members,
            readers: self.readers,
            warm: Duration::from_secs(self.warm),
        }
    }

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

/// The exit code of a run that may not be quoted, and of one that was interrupted.
const INVALID: u8 = 3;
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    match act(Cli::parse()).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn act(cli: Cli) -> Result<u8> {
    let json = cli.json.as_deref();
    if let Some(path) = json {
        // Before anything is measured, so that nothing is lost at the end.
        std::fs::File::create(path)
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
            i_am_the_owner,
            owner_file,
            seconds,
            pace,
        } => {
            let word = Word {
                owner: i_am_the_owner,
                file: owner_file,
            };
            probe(&Target::admit(&target, &word).await?, seconds, &pace, json).await
        }
        Verb::Run { server, work } => {
            let source = work.source();
            let started = tokio::select! {
                started = Server::start(server, &source) => started?,
                () = interrupted() => return Ok(INTERRUPTED),
            };
            let shape = work.shape();
            let block = run(&started, &shape, interrupted()).await?;
            print!("{}", block.lines());
            keep(
                json,
                &json!({"identity": report::identity(&shape), "valid": block.validity.costs(), "block": block}),
            )?;
            Ok(if block.interrupted {
                INTERRUPTED
            } else if block.validity.costs() {
                0
            } else {
                INVALID
            })
        }
        Verb::Compare { a, b, rounds, work } => {
            compare([a, b], usize::from(rounds), &work, json).await
        }
    }
}

async fn compare(sides: [Kind; 2], rounds: usize, work: &Work, json: Option<&Path>) -> Result<u8> {
    let (shape, source) = (work.shape(), work.source());
    runs::enough_descriptors(u64::from(shape.plan.senders + shape.readers))?;
    let mut blocks = Vec::new();
    let mut code = 0;
    for side in order(rounds) {
        let server = tokio::select! {
            started = Server::start(sides[side], &source) => started?,
            () = interrupted() => { code = INTERRUPTED; break }
        };
        let block = run(&server, &shape, interrupted()).await?;
        eprint!("{}/{} {}", blocks.len() + 1, rounds * 4, block.lines());
        if block.interrupted {
            code = INTERRUPTED;
            break;
        }
        blocks.push(block);
        keep(
            json,
            &report::comparison(&Comparison::of(sides, shape.clone(), blocks.clone())),
        )?;
    }
    let comparison = Comparison::of(sides, shape, blocks);
    print!("{}", comparison.markdown());
    keep(json, &report::comparison(&comparison))?;
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
        () = interrupted() => true,
    };
    let mut validity = Validity::judge(&driven, scheduled, &from, &Clocks::read()?, None);
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
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, format!("{report:#}\n"))
        .with_context(|| format!("write the report `{}`: is the disk full?", path.display()))
}

/// Ctrl-C, or being told to end: what was measured until then is told, and servers are removed.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
