//! What a server can take: the [`crate::search`] for the knee with real tries, each on a copy of the same data, what stood
//! in the way there, and a model of the costs by which other machines and other mixes are told.

use crate::model::{Fit, Row};
use crate::page::{Plot, Scale, Series};
use crate::run::{Block, Cast, Interrupted, Shape};
use crate::schedule::Plan;
use crate::search::{Knee, Search, Verdict};
use crate::server::{Kind, Server, Source};
use crate::shard::Shard;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// The share of its processors below which a machine has none left.
const EXHAUSTED: f64 = 0.1;
/// The most that the generator may need beside the server when processors are exhausted, as a share of the server's.
const GENERATOR: f64 = 0.35;
/// The most that others on the machine may take, as a share of it.
const OTHERS: f64 = 0.15;
/// The share of the time in which somebody waits for a disk, from which on the disk is what limits.
const DISK: f64 = 0.4;
/// The share of its processors that a server may be planned to use.
const PLANNED: f64 = 0.8;

/// A server's data with people and a room in it, from which each try begins.
pub struct Golden {
    kind: Kind,
    data: tempfile::TempDir,
    cast: Cast,
}

impl Golden {
    /// Makes it.
    ///
    /// # Errors
    /// The server does not come up, or does not take the people.
    pub async fn make(kind: Kind, source: &Source, shape: &Shape) -> Result<Self> {
        let server = Server::start(kind, source).await?;
        let cast = Cast::make(&server.target, shape, "load", Shard::WHOLE).await?;
        let data = server.stop().await?;
        Ok(Self { kind, data, cast })
    }

    /// A server on a copy of it, and the people there.
    ///
    /// # Errors
    /// There is no room for a copy, or the server does not come up on it.
    pub async fn restore(&self, source: &Source) -> Result<(Server, Cast)> {
        let copy = tempfile::tempdir().context("make a directory for the server's data")?;
        let copied = Command::new("cp")
            .args(["--archive", "--reflink=auto"])
            .arg(self.data.path().join("."))
            .arg(copy.path())
            .output()
            .await
            .context("run `cp`")?;
        if !copied.status.success() {
            let said = String::from_utf8_lossy(&copied.stderr);
            bail!("copy the server's data: is the disk full? {}", said.trim());
        }
        let server = Server::start_on(self.kind, source, copy).await?;
        let cast = self.cast.at(&server.target)?;
        Ok((server, cast))
    }
}

/// One try.
#[derive(Clone, Debug, Serialize)]
pub struct Try {
    /// Messages per second.
    pub rate: f64,
    /// Of deliveries, in milliseconds; nothing where none came.
    pub p99_ms: Option<f64>,
    /// What came of it.
    pub verdict: Verdict,
    /// And why.
    pub why: String,
    /// From the copy of the data to the server's first answer, in seconds.
    pub restored: f64,
    /// Processor time of the server for each accepted event, in microseconds.
    pub cpu_us: Option<f64>,
    /// What the processors and disks did.
    pub use_of: Use,
}

/// Who used what of a machine, as shares of all its processors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Use {
    /// The server.
    pub server: f64,
    /// The generator.
    pub generator: f64,
    /// Nobody.
    pub idle: f64,
    /// The share of the time in which somebody waited for a disk.
    pub disk: Option<f64>,
}

impl Use {
    /// Anybody else.
    pub fn others(&self) -> f64 {
        (1.0 - self.server - self.generator - self.idle).max(0.0)
    }

    /// Whether no processor was left.
    fn exhausted(&self) -> bool {
        self.idle < EXHAUSTED
    }

    /// Why what was measured there is not the server's end; nothing if it is.
    fn against(&self) -> Option<String> {
        let percent = |share: f64| share * 100.0;
        if !self.exhausted() {
            None
        } else if self.others() > OTHERS {
            Some(format!(
                "others on this machine took {:.0} % of its processors",
                percent(self.others())
            ))
        } else if self.generator > GENERATOR * self.server {
            Some(format!(
                "the generator took {:.0} % of the processors beside the server's {:.0} %",
                percent(self.generator),
                percent(self.server)
            ))
        } else {
            None
        }
    }

    /// What stands in the way.
    pub fn limit(&self) -> String {
        let percent = |share: f64| share * 100.0;
        let shares = format!(
            "the server used {:.0} % of the processors, the generator {:.0} %, others {:.0} %; somebody waited for a disk \
             in {} of the time",
            percent(self.server),
            percent(self.generator),
            percent(self.others()),
            self.disk
                .map_or("an unknown part".to_owned(), |disk| format!(
                    "{:.0} %",
                    percent(disk)
                ))
        );
        let what = if let Some(against) = self.against() {
            return format!("not the server, but {against} ({shares})");
        } else if self.exhausted() {
            "the processors"
        } else if self.disk.is_some_and(|disk| disk > DISK) {
            "the disk"
        } else {
            "neither processors nor disk are exhausted: the server waits for itself, as for the lock of a room"
        };
        format!("{what} ({shares})")
    }
}

/// What a try comes to.
fn judge(
    block: &Block,
    overrun: bool,
    growing: bool,
    bound: f64,
    use_of: &Use,
    p99: Option<f64>,
) -> (Verdict, String) {
    let slip = block.validity.slip_ms[1];
    let complaint = if overrun {
        Some("more and more sends were under way".to_owned())
    } else if block.counts.lost + block.counts.alien + block.counts.reordered > 0 {
        Some(format!(
            "{} events were lost or out of order",
            block.counts.lost
        ))
    } else if block.validity.achieved < crate::validity::ACHIEVED {
        Some(format!(
            "{:.1} % of the sends were accepted",
            block.validity.achieved * 100.0
        ))
    } else if p99.is_none_or(|p99| p99 > bound) {
        Some("the 99th percentile is above the bound".to_owned())
    } else if growing {
        Some("deliveries took longer and longer".to_owned())
    } else {
        None
    };
    let Some(complaint) = complaint else {
        return (Verdict::Kept, "kept".to_owned());
    };
    // What the generator does late is late for everybody.
    let distorted = (slip > bound / 4.0)
        .then(|| format!("sends went out late, p99 {slip:.0} ms"))
        .or_else(|| use_of.against());
    match distorted {
        Some(distorted) => (Verdict::Distorted, format!("{complaint}, and {distorted}")),
        None => (Verdict::Beyond, complaint),
    }
}

/// A model of what one event costs the server, in microseconds of a processor, with its doubt.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// The sum.
    pub fit: Fit,
    /// Its mean error on mixes that were not fitted.
    pub error: Option<f64>,
    /// On so many.
    pub held_out: usize,
}

/// What costs are formed from.
const CAUSES: [&str; 4] = ["member", "word", "sync", "room of a sync"];

/// How much of each cause there is for one event of a run.
#[expect(clippy::cast_precision_loss, reason = "counts of a run")]
fn row(shape: &Shape, words: f64, block: &Block) -> Option<Row> {
    let events = block.counts.accepted as f64;
    let syncs = block.syncs as f64 / events;
    let asked = vec![
        f64::from(shape.members),
        words,
        syncs,
        syncs * f64::from(shape.rooms),
    ];
    let cost = block.cpu()? / events * 1e6;
    (cost > 0.0 && cost.is_finite()).then_some((asked, cost))
}

/// Mixes that differ in everything that costs, each strewn evenly over its range.
fn mixes(shape: &Shape, count: u32) -> Vec<Shape> {
    let mut random = fastrand::Rng::with_seed(shape.plan.seed);
    let mut spread = |least: u32, most: u32| {
        let mut values: Vec<u32> = (0..count)
            .map(|index| least + (most - least) * index / count.saturating_sub(1).max(1))
            .collect();
        random.shuffle(&mut values);
        values
    };
    let (members, readers, rooms, words) =
        (spread(8, 40), spread(1, 6), spread(1, 24), spread(1, 60));
    (0..count as usize)
        .map(|mix| Shape {
            plan: Plan {
                seed: shape.plan.seed ^ mix as u64,
                rate: 20.0,
                length: Duration::from_secs(8),
                senders: 2,
                words: Some(words[mix]),
                ..shape.plan.clone()
            },
            members: members[mix],
            readers: readers[mix],
            rooms: rooms[mix],
            history: 0,
            warm: Duration::from_secs(1),
        })
        .collect()
}

/// The fewest that are fitted: some more than there are coefficients.
const LEAST_MIXES: usize = 9;
/// The greatest mean error on held-out mixes with which a model says anything of other machines.
const ERROR: f64 = 0.25;
/// How long one mix takes, with its people.
const MIX: Duration = Duration::from_secs(22);

/// What is asked.
#[derive(Clone, Debug, Serialize)]
pub struct Question {
    /// Which server.
    pub kind: Kind,
    /// What it is put to; the rate is the first that is tried.
    pub shape: Shape,
    /// What p99 of deliveries must stay under, in milliseconds.
    pub bound: f64,
    /// To which part of it the knee is asked for.
    pub precision: f64,
    /// How long everything may take.
    pub budget: Duration,
    /// Mixes from which the model is fitted, a quarter of which is held out; none gives no model.
    pub mixes: u32,
}

impl Question {
    /// Whether a knee is known well enough to be told.
    fn knows(&self, knee: &Knee) -> bool {
        knee.ci_hi / knee.ci_lo <= 1.0 + 2.0 * self.precision
    }
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Capacity {
    /// What was asked.
    pub question: Question,
    /// The knee, as far as it is known.
    pub knee: Knee,
    /// Each try in its order.
    pub tries: Vec<Try>,
    /// What stood in the way.
    pub limit: String,
    /// What costs what.
    pub model: Option<Model>,
    /// Why there is none, where one was asked for.
    pub no_model: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Why it may not be quoted; empty is good.
    pub against: Vec<String>,
    /// Ended by hand.
    pub interrupted: bool,
}

/// Finds it. Each step is told as it is done.
///
/// # Errors
/// A server does not come up, or the plan cannot be kept on this machine.
pub async fn find(
    question: Question,
    source: &Source,
    mut told: impl FnMut(&str),
    stop: impl Future<Output = ()>,
) -> Result<Capacity> {
    let began = Instant::now();
    let mut stop = std::pin::pin!(stop);
    let mut search = Search::new(question.shape.plan.rate, question.precision);
    let mut tries = Vec::new();
    let mut interrupted = false;
    let mut longest = Duration::ZERO;
    let golden = tokio::select! {
        golden = Golden::make(question.kind, source, &question.shape) => golden?,
        () = &mut stop => bail!(Interrupted),
    };
    told(&format!(
        "the data are made, {:.0} s",
        began.elapsed().as_secs_f64()
    ));
    let until = question.budget.saturating_sub(MIX * question.mixes);
    let mut in_time = true;
    while let Some(rate) = search.next() {
        // So that the time is kept even if this try takes as long as the longest.
        if began.elapsed() + longest > until {
            in_time = false;
            break;
        }
        let at = Instant::now();
        let made = attempt(&question, source, &golden, rate, tries.len() as u64);
        let made = tokio::select! {
            made = made => made?,
            () = &mut stop => { interrupted = true; break }
        };
        longest = longest.max(at.elapsed());
        search.tell(rate, made.verdict);
        told(&made.line());
        tries.push(made);
    }
    let mut model = None;
    let mut no_model = None;
    if question.mixes > 0 && !interrupted {
        let rows = run_mixes(&question, source, began + question.budget, &mut told);
        tokio::select! {
            rows = rows => match Model::of(rows?) {
                Ok(fitted) => model = Some(fitted),
                Err(error) => no_model = Some(format!("{error:#}")),
            },
            () = &mut stop => interrupted = true,
        }
    }
    let knee = search.knee();
    let mut against = Vec::new();
    if knee.generator {
        against
            .push("the generator, or this machine, came to its end before the server".to_owned());
    }
    if !in_time && !question.knows(&knee) {
        against.push(format!(
            "in {:.0} s it was not narrowed enough",
            question.budget.as_secs_f64()
        ));
    }
    if interrupted {
        against.push("it was interrupted".to_owned());
    }
    // The nearest try that was too much says what stands in the way; if there was none, the highest of all.
    let beyond = tries.iter().filter(|made| made.verdict != Verdict::Kept);
    let deciding = beyond
        .min_by(|one, other| one.rate.total_cmp(&other.rate))
        .or_else(|| {
            tries
                .iter()
                .max_by(|one, other| one.rate.total_cmp(&other.rate))
        });
    let limit = deciding.map_or("nothing was tried".to_owned(), |made| made.use_of.limit());
    Ok(Capacity {
        question,
        knee,
        tries,
        limit,
        model,
        no_model,
        seconds: began.elapsed().as_secs_f64(),
        against,
        interrupted,
    })
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of a run"
)]
async fn attempt(
    question: &Question,
    source: &Source,
    golden: &Golden,
    rate: f64,
    number: u64,
) -> Result<Try> {
    let bound = question.bound;
    let at = Instant::now();
    let (server, cast) = golden.restore(source).await?;
    let restored = at.elapsed().as_secs_f64();
    let mut shape = question.shape.clone();
    (shape.plan.rate, shape.plan.seed) = (rate, shape.plan.seed ^ number << 32);
    let most = (rate * bound / 250.0) as u64 + 50;
    let measured = cast
        .perform(
            &shape,
            Some(&server.meter),
            Some(most),
            std::future::pending(),
        )
        .await?;
    let overrun = measured.overrun;
    let samples = measured.samples;
    let p99 = samples.delivered.quantile_ms(0.99);
    let third = |from: u64| {
        let third = (shape.plan.length.as_secs() / samples.over_time.width / 3).max(1);
        let mut part = crate::latency::Latencies::default();
        for latencies in samples
            .over_time
            .parts
            .range(from * third..(from + 1) * third)
        {
            part.merge(latencies.1);
        }
        part.quantile_ms(0.5)
    };
    let growing = third(0)
        .zip(third(2))
        .is_some_and(|(first, last)| last > 2.0 * first && last > bound / 4.0);
    let doubt = samples.doubt;
    let block = Block::of(samples, measured.schedule, measured.looks);
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let of_all = |seconds: f64| seconds / doubt.seconds / cores;
    let use_of = Use {
        server: of_all(block.cpu().unwrap_or_default()),
        generator: of_all(doubt.own),
        idle: doubt.idle,
        disk: doubt.disk,
    };
    let (verdict, why) = judge(&block, overrun, growing, bound, &use_of, p99);
    let events = block.counts.accepted as f64;
    Ok(Try {
        rate,
        p99_ms: p99,
        verdict,
        why,
        restored,
        cpu_us: block
            .cpu()
            .filter(|_| events > 0.0)
            .map(|cpu| cpu / events * 1e6),
        use_of,
    })
}

async fn run_mixes(
    question: &Question,
    source: &Source,
    until: Instant,
    told: &mut impl FnMut(&str),
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut longest = Duration::ZERO;
    for shape in mixes(&question.shape, question.mixes) {
        let at = Instant::now();
        if at + longest > until {
            told("there is no time for more mixes");
            break;
        }
        let server = Server::start(question.kind, source).await?;
        let block = crate::run::run(&server, &shape, std::future::pending()).await?;
        let words = f64::from(shape.plan.words.unwrap_or_default());
        if let Some(row) = row(&shape, words, &block) {
            told(&format!(
                "{} members, {} readers in {} rooms, {words} words: {:.0} us of a processor for each event",
                shape.members, shape.readers, shape.rooms, row.1
            ));
            rows.push(row);
        }
        longest = longest.max(at.elapsed());
    }
    Ok(rows)
}

impl Model {
    /// From runs whose order is by no size, so that the last quarter, which is held out, is like the rest.
    fn of(mut rows: Vec<Row>) -> Result<Self> {
        let held_out = rows.split_off(rows.len() - rows.len() / 4);
        if rows.len() < LEAST_MIXES {
            bail!(
                "{} mixes are too few to fit, and {LEAST_MIXES} would do: give more `--mixes` or `--minutes`",
                rows.len()
            );
        }
        let fit = Fit::of(&CAUSES, &rows)?;
        Ok(Self {
            error: fit.error(&held_out),
            held_out: held_out.len(),
            fit,
        })
    }
}

impl Try {
    fn line(&self) -> String {
        let p99 = self
            .p99_ms
            .map_or("-".to_owned(), |p99| format!("{p99:.0} ms"));
        format!(
            "{:8.1}/s  p99 {p99:>9}  {:?}: {} (restored in {:.1} s)",
            self.rate, self.verdict, self.why, self.restored
        )
    }
}

impl Capacity {
    /// For a person, and for a document.
    pub fn markdown(&self) -> String {
        let Knee {
            rate,
            ci_lo,
            ci_hi,
            kept,
            ..
        } = self.knee;
        let readers = f64::from(self.question.shape.readers);
        let word = if self.against.is_empty() {
            String::new()
        } else {
            format!("INVALID: {}.\n\n", self.against.join("; "))
        };
        let kept = kept.map_or("nothing was kept".to_owned(), |kept| {
            format!("{kept:.1}/s were kept")
        });
        let found = if self.question.knows(&self.knee) {
            format!(
                "{rate:.1} messages/s [{ci_lo:.1}, {ci_hi:.1}], {:.0} deliveries/s; {kept}",
                rate * readers
            )
        } else {
            format!("not found; {kept}")
        };
        let mut text = format!(
            "{word}Knee of {}, with p99 of deliveries below {} ms: {found}; {} tries in {:.0} s.\n\nWhat limits: {}.\n\n",
            self.question.kind.name(),
            self.question.bound,
            self.tries.len(),
            self.seconds,
            self.limit
        );
        text.push_str("| messages/s | p99 | | |\n|---|---|---|---|\n");
        for made in &self.tries {
            let p99 = made
                .p99_ms
                .map_or("-".to_owned(), |p99| format!("{p99:.0} ms"));
            let _ = writeln!(
                text,
                "| {:.1} | {p99} | {:?} | {} |",
                made.rate, made.verdict, made.why
            );
        }
        if let Some(why) = &self.no_model {
            let _ = writeln!(text, "\nNo model of the costs: {why}.");
        }
        if let Some(model) = &self.model {
            text.push_str(&self.told_by(model));
        }
        text
    }

    /// What the model says, and that it is a model.
    fn told_by(&self, model: &Model) -> String {
        let mut text =
            "\nModel: processor time of the server for one event, in microseconds.\n\n".to_owned();
        text.push_str("| for each | us [95 %] |\n|---|---|\n");
        for coefficient in &model.fit.coefficients {
            let _ = writeln!(
                text,
                "| {} | {:.1} [{:.1}, {:.1}] |",
                coefficient.name, coefficient.point, coefficient.ci_lo, coefficient.ci_hi
            );
        }
        let error = model.error.map_or("unknown".to_owned(), |error| {
            format!("{:.0} %", error * 100.0)
        });
        let _ = writeln!(
            text,
            "\nFitted on {} mixes; its mean error on {} that were held out: {error}.",
            model.fit.n_runs, model.held_out
        );
        let shape = &self.question.shape;
        let syncs = 2.0 * f64::from(shape.readers);
        let words = shape.plan.words.map_or(7.0, f64::from);
        let asked = [
            f64::from(shape.members),
            words,
            syncs,
            syncs * f64::from(shape.rooms),
        ];
        let cost = model.fit.predict(&asked);
        let per_core = 1e6 * PLANNED / cost;
        let trusted = model.error.is_some_and(|error| error <= ERROR) && cost > 0.0;
        let _ = if trusted {
            writeln!(
                text,
                "\nBy this model, not measured: an event of this shape costs {cost:.0} us, so that a machine of 1, 2 and 4 cores \
                 of this kind would take {per_core:.0}, {:.0} and {:.0} messages/s at {:.0} % of its processors, with nothing \
                 else on it, and if no lock comes before them.",
                per_core * 2.0,
                per_core * 4.0,
                PLANNED * 100.0
            )
        } else {
            writeln!(
                text,
                "\nIt is not good enough to tell what other machines would take: the error is to be at most {:.0} %, and the cost \
                 of an event of this shape, {cost:.0} us by it, above 0.",
                ERROR * 100.0
            )
        };
        text
    }

    /// The search as it is drawn.
    pub fn plots(&self) -> Vec<Plot> {
        let of = |verdict: Verdict, name: &str| {
            let mut points: Vec<_> = self
                .tries
                .iter()
                .filter(|made| made.verdict == verdict)
                .filter_map(|made| Some((made.rate, made.p99_ms?)))
                .collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            Series {
                name: name.to_owned(),
                points,
            }
        };
        vec![Plot {
            title: "Capacity search".to_owned(),
            x: ("messages/s".to_owned(), Scale::Log),
            y: ("p99 of deliveries, ms".to_owned(), Scale::Log),
            series: vec![
                of(Verdict::Kept, "kept"),
                of(Verdict::Beyond, "beyond"),
                of(Verdict::Distorted, "distorted"),
            ],
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_limits_is_told_from_who_used_what() {
        let used = |server, generator, idle, disk| Use {
            server,
            generator,
            idle,
            disk,
        };
        let cases = [
            (used(0.75, 0.2, 0.02, Some(0.1)), "the processors"),
            (
                used(0.6, 0.3, 0.02, None),
                "not the server, but the generator took 30 %",
            ),
            (
                used(0.5, 0.1, 0.02, None),
                "not the server, but others on this machine took 38 %",
            ),
            (used(0.3, 0.1, 0.5, Some(0.6)), "the disk"),
            (
                used(0.4, 0.1, 0.45, Some(0.05)),
                "neither processors nor disk are exhausted",
            ),
        ];
        for (use_of, limit) in cases {
            assert!(use_of.limit().starts_with(limit), "{}", use_of.limit());
        }
    }

    fn base() -> Shape {
        let plan = Plan {
            seed: 6,
            rate: 20.0,
            length: Duration::from_secs(20),
            senders: 4,
            arrivals: crate::schedule::Arrivals::Periodic,
            words: None,
        };
        Shape {
            plan,
            members: 10,
            readers: 6,
            rooms: 1,
            history: 0,
            warm: Duration::ZERO,
        }
    }

    /// What the mixes would cost by a planted law, each times something.
    fn rows(times: impl Fn(usize) -> f64) -> Vec<Row> {
        let row = |(number, mix): (usize, &Shape)| {
            assert!(mix.members >= mix.plan.senders + mix.readers);
            let syncs = 2.0 * f64::from(mix.readers);
            let words = f64::from(mix.plan.words.expect("so many"));
            let asked = vec![
                f64::from(mix.members),
                words,
                syncs,
                syncs * f64::from(mix.rooms),
            ];
            let cost =
                900.0 + 110.0 * asked[0] + 20.0 * asked[1] + 150.0 * asked[2] + 12.0 * asked[3];
            (asked, cost * times(number))
        };
        mixes(&base(), 13).iter().enumerate().map(row).collect()
    }

    #[test]
    fn mixes_differ_in_all_that_costs_so_that_it_can_be_told_apart() {
        let rows = rows(|_| 1.0);
        let fit = Fit::of(&CAUSES, &rows[..10]).expect("fitted");
        assert!((fit.coefficients[4].point - 12.0).abs() < 1e-3, "{fit:?}");
        assert!(fit.error(&rows[10..]).expect("held out") < 1e-6);
    }

    /// A planted cost is told for other machines; one that is no such sum, or known from too little, is not.
    #[test]
    fn other_machines_are_told_of_only_by_a_model_that_holds() {
        let question = Question {
            kind: Kind::Conduit,
            shape: base(),
            bound: 500.0,
            precision: 0.1,
            budget: Duration::ZERO,
            mixes: 13,
        };
        let capacity = Capacity {
            knee: Search::new(20.0, 0.1).knee(),
            question,
            tries: Vec::new(),
            limit: String::new(),
            model: None,
            no_model: None,
            seconds: 0.0,
            against: Vec::new(),
            interrupted: false,
        };
        let told = |rows| capacity.told_by(&Model::of(rows).expect("fitted"));
        // 10 members, 7 words, 12 syncs, each of 1 room: 4,084 us.
        let text = told(rows(|_| 1.0));
        assert!(
            text.contains("costs 4084 us")
                && text.contains("would take 196, 392 and 784 messages/s"),
            "{text}"
        );
        let text = told(rows(|mix| if mix % 2 == 0 { 3.0 } else { 0.5 }));
        assert!(
            text.contains("not good enough") && !text.contains("would take 1"),
            "{text}"
        );
        let few = Model::of(rows(|_| 1.0)[..10].to_vec()).expect_err("refused");
        assert!(few.to_string().contains("8 mixes are too few"), "{few}");
    }
}
