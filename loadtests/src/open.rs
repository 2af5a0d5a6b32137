//! The open loop: what is scheduled is sent when it is due, whether or not earlier answers have come. Latency counts
//! from the time that was meant; how late it really went out is the slip, which is the generator's own fault.

use crate::latency::Latencies;
use crate::ledger::Outcome;
use crate::schedule::Arrival;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What one send came to: its outcome, and what was wrong with it if anything was.
#[derive(Clone, Debug)]
pub struct Came {
    /// Whether the server has taken it.
    pub outcome: Outcome,
    /// What is counted under its name: `429`, `500`, `not connected: ...`.
    pub trouble: Option<String>,
}

/// One send, in nanoseconds from the start.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What was scheduled.
    pub arrival: Arrival,
    /// When it really went out.
    pub sent: u64,
    /// When its answer came.
    pub answered: u64,
    /// What it came to.
    pub came: Came,
}

/// What the open loop has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Driven {
    /// How late sends went out.
    pub slip: Latencies,
    /// From the schedule to the answer, of what was answered.
    pub latency: Latencies,
    /// How many are answered, well or not.
    pub answered: u64,
    /// How many were accepted.
    pub accepted: u64,
    /// What went wrong, how often.
    pub troubles: BTreeMap<String, u64>,
}

impl Driven {
    /// Counts one.
    pub fn note(&mut self, sent: &Sent) {
        self.slip.record(sent.sent - sent.arrival.at);
        self.answered += 1;
        if sent.came.outcome == Outcome::Accepted {
            self.accepted += 1;
            self.latency.record(sent.answered - sent.arrival.at);
        }
        if let Some(trouble) = &sent.came.trouble {
            *self.troubles.entry(trouble.clone()).or_default() += 1;
        }
    }

    /// Adds what another generator of the same run has seen.
    pub fn merge(&mut self, other: &Self) {
        self.slip.merge(&other.slip);
        self.latency.merge(&other.latency);
        self.answered += other.answered;
        self.accepted += other.accepted;
        add(&mut self.troubles, &other.troubles);
    }
}

/// Adds counts to counts.
pub fn add(counts: &mut BTreeMap<String, u64>, others: &BTreeMap<String, u64>) {
    for (name, times) in others {
        *counts.entry(name.clone()).or_default() += times;
    }
}

/// Stops the clock when it goes.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Sends what is scheduled, and hands over each as it is answered. Ends when all are; dropped, it sends no more.
pub async fn drive<F, A>(
    arrivals: Vec<Arrival>,
    begin: Instant,
    send: F,
    mut each: impl FnMut(Sent),
) where
    F: Fn(Arrival) -> A + Send + Sync + 'static,
    A: Future<Output = Came> + Send + 'static,
{
    let (report, mut reports) = mpsc::unbounded_channel();
    let running = Running(Arc::new(AtomicBool::new(true)));
    let (on, runtime, send) = (
        running.0.clone(),
        tokio::runtime::Handle::current(),
        Arc::new(send),
    );
    // A thread of its own: the runtime's timer has a grain of a millisecond.
    std::thread::spawn(move || {
        for arrival in arrivals {
            std::thread::sleep(
                (begin + Duration::from_nanos(arrival.at))
                    .saturating_duration_since(Instant::now()),
            );
            if !on.load(Ordering::Relaxed) {
                return;
            }
            let (send, report) = (send.clone(), report.clone());
            runtime.spawn(async move {
                let sent = since(begin);
                let came = send(arrival).await;
                // Nobody listens any more once the run was interrupted.
                let _ = report.send(Sent {
                    arrival,
                    sent,
                    answered: since(begin),
                    came,
                });
            });
        }
    });
    while let Some(sent) = reports.recv().await {
        each(sent);
    }
}

/// Nanoseconds since then.
pub fn since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Sends a request, reads its answer to the end, and says what it came to.
pub async fn ask(request: reqwest::RequestBuilder) -> Came {
    let answer = request.send().await;
    let came = judge(&answer);
    if let Ok(answer) = answer {
        // What came is known; the connection is free once the rest is read.
        let _ = answer.bytes().await;
    }
    came
}

/// What an answer, or the lack of one, comes to.
fn judge(answer: &Result<reqwest::Response, reqwest::Error>) -> Came {
    match answer {
        Ok(answer) if answer.status().is_success() => Came {
            outcome: Outcome::Accepted,
            trouble: None,
        },
        Ok(answer) => Came {
            // Of a server that failed nobody knows how far it had come.
            outcome: if answer.status().is_server_error() {
                Outcome::Unanswered
            } else {
                Outcome::Refused
            },
            trouble: Some(answer.status().as_u16().to_string()),
        },
        Err(error) => Came {
            outcome: if error.is_connect() {
                Outcome::Refused
            } else {
                Outcome::Unanswered
            },
            trouble: Some(explain(error)),
        },
    }
}

/// Why there was no answer, and what to do.
pub fn explain(error: &reqwest::Error) -> String {
    let mut chain = Vec::new();
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = source {
        chain.push(error.to_string());
        source = error.source();
    }
    let cause = chain.last().map_or_else(|| error.to_string(), Clone::clone);
    let told = chain.join(": ");
    if told.contains("certificate") || told.contains("UnknownIssuer") {
        format!(
            "the target's certificate is not trusted here ({cause}): add its authority to this machine's store"
        )
    } else if told.contains("Too many open files") {
        "this process may open no more files: raise `ulimit -n`, or ask for fewer readers or a lower rate".to_owned()
    } else if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        format!("not connected: {cause}")
    } else {
        format!("the connection broke: {cause}")
    }
}

/// What to do about an answer of this status, or nothing.
pub fn advice(trouble: &str) -> &'static str {
    match trouble {
        "429" => ": the target limits rates; switch its limits off, or lower `--rate`",
        "401" | "403" => {
            ": the target does not let everybody in; allow registration on it while it is loaded"
        }
        "507" => ": the target's disk is full",
        _ if trouble.starts_with('5') => ": the target fails; its log says why",
        _ => "",
    }
}

/// What to do about troubles, one line each.
pub fn advise(troubles: &BTreeMap<String, u64>) -> Vec<String> {
    troubles
        .iter()
        .map(|(trouble, times)| format!("{times} x {trouble}{}", advice(trouble)))
        .collect()
}
