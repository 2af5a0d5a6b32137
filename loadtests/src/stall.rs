//! The generator's own test: a server that answers fixed bytes is frozen again and again, and what the open loop tells
//! of it is compared with what the schedule and the stalls say must be told.

use crate::guard::{Target, Word};
use crate::open::{Driven, ask, drive, since};
use crate::schedule::{Arrivals, Plan};
use crate::validity::{Clocks, Doubt, Validity};
use anyhow::{Context, Result, bail};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::convert::Infallible;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// What the null server answers to everything.
const ANSWER: &[u8] = br#"{"versions":["v1.11"]}"#;

/// Answers fixed bytes on a free port of loopback, which it prints first, until its standard input ends.
///
/// # Errors
/// Loopback cannot be listened on.
pub async fn null_server() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .context("listen on loopback")?;
    println!("{}", listener.local_addr().context("ask for the port")?);
    let mut parent = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = parent.next_line() => if !matches!(line, Ok(Some(_))) { return Ok(()) },
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accept a connection")?;
                stream.set_nodelay(true).context("set up a connection")?;
                tokio::spawn(async move {
                    let answer = service_fn(async |_| {
                        Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(ANSWER))))
                    });
                    // A client that goes away is no error.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        }
    }
}

/// A null server in a process of its own, so that it can be frozen.
pub struct NullServer {
    /// Where it answers.
    pub target: Target,
    process: Pid,
    _child: Child,
}

impl NullServer {
    /// Starts one: `program` is `fleet-load` itself.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(program: &std::path::Path) -> Result<Self> {
        let mut child = Command::new(program)
            .arg("null-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start `{} null-server`", program.display()))?;
        let stdout = child
            .stdout
            .take()
            .context("read what the null server prints")?;
        let address = BufReader::new(stdout)
            .lines()
            .next_line()
            .await?
            .context("the null server printed no address")?;
        let target = Target::admit(&format!("http://{address}/"), &Word::default()).await?;
        let process = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self {
            target,
            process: process.context("the null server has ended")?,
            _child: child,
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.process, signal).context("signal the null server")
    }

    /// Freezes it for `stall` at the end of every `period`, so many times; says when it really stood still, in
    /// nanoseconds from the start.
    ///
    /// # Errors
    /// It has ended.
    pub async fn freeze(
        &self,
        begin: Instant,
        stall: Duration,
        period: Duration,
        times: u32,
    ) -> Result<Vec<(u64, u64)>> {
        let mut stalls = Vec::new();
        for time in 1..=times {
            let end = begin + period * time;
            tokio::time::sleep_until((end - stall).into()).await;
            self.signal(Signal::STOP)?;
            let from = since(begin);
            tokio::time::sleep_until(end.into()).await;
            self.signal(Signal::CONT)?;
            stalls.push((from, since(begin)));
        }
        Ok(stalls)
    }
}

/// What the open loop told, what it had to tell, and what a closed loop told of the same stalls; in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// p99 and p99.9 of the open loop.
    pub open: [f64; 2],
    /// The same of the schedule and the stalls as they were.
    pub oracle: [f64; 2],
    /// The same of a user who waits for each answer before asking again, at the same time on the same server: goose's
    /// where this is built with it, else our own.
    pub closed: [f64; 2],
    /// Which closed loop that was.
    pub closed_by: &'static str,
    /// What the run says about itself.
    pub validity: Validity,
}

impl Told {
    /// How far p99 and p99.9 are from what they had to be, the worse of both, as a share.
    pub fn error(&self) -> f64 {
        let errors = self
            .open
            .iter()
            .zip(self.oracle)
            .map(|(told, truth)| (told - truth).abs() / truth);
        errors.fold(0.0, f64::max)
    }

    /// For a person.
    pub fn lines(&self) -> String {
        let row = |name: &str, figures: [f64; 2]| {
            format!(
                "  {name:<28} p99 {:>9.2} ms   p99.9 {:>9.2} ms\n",
                figures[0], figures[1]
            )
        };
        format!(
            "{}{}{}  the open loop is off by {:.1} %; {}\n",
            row("must be told", self.oracle),
            row("open loop", self.open),
            row(self.closed_by, self.closed),
            self.error() * 100.0,
            self.validity.lines(),
        )
    }
}

/// Stalls of a length at the end of every period, so many times, while so many requests per second arrive.
#[derive(Clone, Copy, Debug)]
pub struct Stalls {
    /// How long it stands still.
    pub stall: Duration,
    /// How often.
    pub period: Duration,
    /// How many times.
    pub times: u32,
    /// Arrivals per second.
    pub rate: f64,
    /// Of the schedule.
    pub seed: u64,
}

/// Puts the generator to the test.
///
/// # Errors
/// The null server cannot be had, or nothing is measured.
pub async fn test(program: &std::path::Path, stalls: Stalls) -> Result<Told> {
    let server = NullServer::start(program).await?;
    let length = stalls.period * stalls.times;
    let plan = Plan {
        seed: stalls.seed,
        rate: stalls.rate,
        length,
        senders: 1,
        arrivals: Arrivals::Poisson,
        words: None,
    };
    let schedule = plan.draw().map_err(anyhow::Error::msg)?;
    let (client, url) = (server.target.client()?, server.target.url.clone());
    let from = Clocks::read()?;
    let begin = Instant::now();
    let mut driven = Driven::default();
    let send = move |_| ask(client.get(url.clone()));
    let ((), frozen, closed) = tokio::join!(
        drive(schedule.arrivals.clone(), begin, send, |sent| driven
            .note(&sent)),
        server.freeze(begin, stalls.stall, stalls.period, stalls.times),
        crate::closed::figures(&server.target, length),
    );
    let (frozen, (closed, closed_by)) = (frozen?, closed?);
    let validity = Validity::judge(
        &driven,
        schedule.arrivals.len() as u64,
        &Doubt::between(&from, &Clocks::read()?),
        None,
    );
    let waits: Vec<u64> = schedule
        .arrivals
        .iter()
        .map(|arrival| wait(arrival.at, &frozen))
        .collect();
    let told = |share| driven.latency.quantile_ms(share);
    let (Some(p99), Some(p999)) = (told(0.99), told(0.999)) else {
        bail!("nothing was answered")
    };
    Ok(Told {
        open: [p99, p999],
        oracle: [quantile(&waits, 0.99), quantile(&waits, 0.999)],
        closed,
        closed_by,
        validity,
    })
}

/// How long an arrival waits for a server that needs no time but stands still now and then.
fn wait(at: u64, frozen: &[(u64, u64)]) -> u64 {
    frozen
        .iter()
        .find(|(from, to)| (*from..*to).contains(&at))
        .map_or(0, |(_, to)| to - at)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index"
)]
fn quantile(waits: &[u64], share: f64) -> f64 {
    let mut sorted = waits.to_vec();
    sorted.sort_unstable();
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(place.saturating_sub(1))
        .map_or(0.0, |wait| *wait as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exact value for evenly spread arrivals: at rank q above 1 - S/P it is S (1 - (1 - q) P / S).
    #[test]
    fn the_oracle_says_what_arithmetic_says() {
        let second = 1_000_000_000u64;
        let frozen: Vec<_> = (1..=10)
            .map(|time| ((time * 20 - 2) * second, time * 20 * second))
            .collect();
        let waits: Vec<_> = (0..200_000)
            .map(|place| wait(place * second / 1_000, &frozen))
            .collect();
        for (share, exact) in [(0.95, 1_000.0), (0.99, 1_800.0), (0.999, 1_980.0)] {
            let told = quantile(&waits, share);
            assert!((told - exact).abs() < 2.0, "{share}: {told}, not {exact}");
        }
    }
}
