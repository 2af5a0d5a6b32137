//! Property-based histories: what three people do in a room of two servers is drawn, done on the real servers, written down,
//! and judged by `fleet-history`; who may do what is judged by ruma's authorisation rules. A history that fails is shrunk to
//! a minimal one, and printed as a scenario. `FLEET_HISTORIES` is how many are drawn, `HARNESS_SEED` repeats them.
//!
//! On stage: alice and bob at home on Conduit, charlie abroad on Synapse, each new in each history.

mod act;
mod cast;
mod oracle;
mod printed;
mod printed_verbs;

use act::{Act, Trouble, Who};
use cast::{Cast, Judged};
use fleet_history::Verdict;
use harness::commons::{Scene, claim};
use harness::entrance::Entrance;
use harness::faulty::Mutant;
use harness::known;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use scenarios::product;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The scenarios of this program break things that they share: one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// After this no other history is begun. Less than the Commons gives to a claim.
const TIME: Duration = Duration::from_secs(75);
/// How long the last one may go on after that: a request across servers that are cut off waits for its time to run out.
const LAST: Duration = Duration::from_secs(30);
/// How many histories shrinking may try, and for how long.
const TRIES: usize = 60;
const SHRINKING: Duration = Duration::from_secs(30);

fn put(body: impl AsyncFn(&Scene<'_>) -> Result<()>) -> Outcome {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    claim().at_home_only().by(&[Entrance::Direct]).holds(body)
}

/// A scenario that was printed.
fn retold(body: impl AsyncFn(&Cast<'_>) -> Result<()>) -> Outcome {
    put(async |scene| body(&Cast::on(scene, None).await?).await)
}

fn histories(default: usize) -> usize {
    let asked = std::env::var("FLEET_HISTORIES").ok();
    asked
        .and_then(|asked| asked.parse().ok())
        .unwrap_or(default)
}

/// What came of many drawn histories.
#[derive(Default)]
struct Search {
    passed: usize,
    /// What is known to be wrong, and was met on the way.
    known: Vec<String>,
    unknown: Vec<String>,
    /// The first that failed, made as small as it could be.
    failed: Option<(Vec<Act>, Judged)>,
}

async fn plays(scene: &Scene<'_>, mutant: Option<Mutant>, acts: &[Act]) -> Result<Judged> {
    Cast::on(scene, mutant).await?.plays(acts).await
}

/// Draws histories until one fails, and shrinks that one: it must go on failing under the same name.
async fn search(
    scene: &Scene<'_>,
    mutant: Option<Mutant>,
    strategy: impl Strategy<Value = Vec<Act>>,
    count: usize,
) -> Result<Search> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&scene.world().seed().to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut search = Search::default();
    let until = Instant::now() + TIME;
    for number in 0.. {
        // Goes on while nothing is decided.
        let enough = number >= count && search.passed > 0;
        if enough || Instant::now() > until {
            break;
        }
        let tree = strategy
            .new_tree(&mut runner)
            .map_err(|reason| Failure::harness("draw a history").because(reason))?;
        let acts = tree.current();
        let Ok(judged) =
            tokio::time::timeout_at((until + LAST).into(), plays(scene, mutant, &acts)).await
        else {
            search.unknown.push(format!("{acts:?}: it was not over"));
            break;
        };
        let judged = judged?;
        search.known.extend(judged.known.iter().cloned());
        match judged.verdict() {
            Verdict::Pass => search.passed += 1,
            Verdict::Unknown => search.unknown.push(format!("{acts:?}: {}", judged.told())),
            Verdict::Fail => {
                search.failed = Some(shrunk(scene, mutant, tree, (acts, judged)).await?);
                break;
            }
        }
    }
    Ok(search)
}

async fn shrunk(
    scene: &Scene<'_>,
    mutant: Option<Mutant>,
    mut tree: impl ValueTree<Value = Vec<Act>>,
    mut smallest: (Vec<Act>, Judged),
) -> Result<(Vec<Act>, Judged)> {
    let name = smallest.1.wrong().map(str::to_owned);
    let until = Instant::now() + SHRINKING;
    let mut goes_on = tree.simplify();
    for _ in 0..TRIES {
        if !goes_on || Instant::now() > until {
            break;
        }
        let acts = tree.current();
        let Ok(judged) = tokio::time::timeout_at(until.into(), plays(scene, mutant, &acts)).await
        else {
            break;
        };
        let judged = judged?;
        goes_on = if judged.wrong() == name.as_deref() {
            smallest = (acts, judged);
            tree.simplify()
        } else {
            tree.complicate()
        };
    }
    Ok(smallest)
}

/// All drawn histories must have come out as they must, and some must have been decided.
fn verdict(search: Search, seed: u64, what: &str) -> Result<()> {
    let unknown = search.unknown.len();
    let decided = format!("{} passed, {unknown} unknown", search.passed);
    eprintln!(
        "{what}: {decided}, met what is known {} times",
        search.known.len()
    );
    for known in &search.known {
        eprintln!("{what}, known: {known}");
    }
    search
        .unknown
        .iter()
        .for_each(|told| eprintln!("{what}, unknown: {told}"));
    if let Some((acts, judged)) = search.failed {
        let why = format!(
            "Drawn with HARNESS_SEED={seed:x}: `{}`.",
            judged.wrong().unwrap_or_default()
        );
        return Err(
            Failure::product(format!("{what}: come out as {acts:?} must"))
                .last_seen(format!("{}\n{}", judged.told(), act::scenario(&why, &acts)))
                .hint("paste the scenario into scenarios/tests/histories/printed.rs"),
        );
    }
    // After a kill nobody may ever know whether a membership was taken: such a history stays open, and is told above. Where
    // none was decided nothing was observed.
    if search.passed == 0 {
        return Err(
            Failure::harness(format!("{what}: decide any of the histories: {decided}"))
                .last_seen(search.unknown.join("\n")),
        );
    }
    Ok(())
}

/// HIS2. Whatever three people do in a room, everybody is told all that happened while he was in, once and in order, nobody
/// anything else, both servers hold the same state, and only what the rules allow is accepted.
#[test]
fn whatever_people_do_in_a_room_all_are_told_it_once_and_both_servers_agree() -> Outcome {
    put(async |scene| {
        let search = search(scene, None, act::calm(), histories(12)).await?;
        let (passed, unknown) = (search.passed, search.unknown.len());
        verdict(search, scene.world().seed(), "histories")?;
        match passed > unknown {
            true => Ok(()),
            // Where nothing breaks, little may stay open.
            false => Err(Failure::harness(format!(
                "decide more than half of the histories: {passed} passed, {unknown} unknown"
            ))),
        }
    })
}

/// HIS3. The same while the servers are cut off from each other, or the home is restarted or killed with `kill -9`.
#[test]
fn whatever_people_do_while_something_breaks_all_are_told_it_once_and_both_servers_agree() -> Outcome
{
    put(async |scene| {
        let search = search(scene, None, act::troubled(), histories(5)).await?;
        verdict(search, scene.world().seed(), "troubled histories")
    })
}

/// HIS2. Who is removed from a room is told what was said before, by his next sync at the latest.
/// Client-Server API, "Syncing", `Left Room`.
#[test]
fn who_is_removed_is_told_what_was_said_before() -> Outcome {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let claim = claim().at_home_only().by(&[Entrance::Direct]);
    claim
        .flawed(&[&known::LEFT_WITHOUT_TIMELINE])
        .holds(async |scene| {
            let cast = Cast::on(scene, None).await?;
            cast.alice.say(&cast.garden, "bob hears that").await?;
            cast.alice.kick(&cast.garden, cast.bob.user_id()).await?;
            let judged = cast.comes_out().await?;
            product(
                judged.wrong().is_none(),
                "be right in all else",
                judged.told(),
            )?;
            product(
                judged.known.is_empty(),
                "tell who leaves what was said before",
                judged.known.join("\n"),
            )
        })
}

/// The search is seen to find: behind a proxy with a fault the finding has the fault's name, and the history that is left of
/// those that were drawn is as short as it can be.
fn finds(mutant: Mutant, name: &str, shortest: &[Act]) -> Outcome {
    put(async |scene| {
        let found = search(scene, Some(mutant), act::talk(), 10).await?;
        let told = |found: &Search| {
            let failed = found
                .failed
                .as_ref()
                .map(|(acts, judged)| format!("{acts:?}: {}", judged.told()));
            format!("{} passed, {:?} {failed:?}", found.passed, found.unknown)
        };
        let Some((acts, judged)) = &found.failed else {
            return Err(
                Failure::harness(format!("find a proxy that {}", mutant.word()))
                    .last_seen(told(&found)),
            );
        };
        if judged.wrong() != Some(name) || acts != shortest {
            return Err(
                Failure::harness(format!("find `{name}` in {shortest:?}")).last_seen(told(&found))
            );
        }
        let why = format!("Drawn with HARNESS_SEED=[SEED]: `{name}`.");
        let printed = act::scenario(&why, acts);
        match printed.as_str() == code(include_str!("printed.rs"))
            || acts.len() != 1
            || name != "duplicate"
        {
            true => Ok(()),
            false => Err(
                Failure::harness("print the scenario that stands in printed.rs").last_seen(printed),
            ),
        }
    })
}

/// A file without its head.
fn code(file: &str) -> &str {
    file.split_once("\n\n")
        .and_then(|(_, rest)| rest.split_once("\n\n"))
        .map_or(file, |(_, code)| code)
}

/// HIS4. What is sent once and becomes two events is found in a history of one message.
#[test]
fn a_proxy_that_duplicates_messages_is_found_by_one_message() -> Outcome {
    finds(
        Mutant::DuplicatesMessages,
        "duplicate",
        &[Act::Say(Who::Alice, 1)],
    )
}

/// HIS4. Timelines that come newest first are found in a history of one message, with the goodbye behind it.
#[test]
fn a_proxy_that_reorders_timelines_is_found_by_one_message() -> Outcome {
    finds(
        Mutant::ReordersTimelines,
        "reordered",
        &[Act::Say(Who::Alice, 1)],
    )
}

/// HIS4. Of every five messages one is lost: three and two goodbyes are enough.
#[test]
fn a_proxy_that_drops_every_fifth_message_is_found_by_three() -> Outcome {
    finds(Mutant::DropsMessages, "lost", &[Act::Say(Who::Alice, 3)])
}

/// HIS4. What is printed uses every verb as it is: the same text is compiled.
#[test]
fn a_printed_scenario_compiles_whatever_happens_in_it() {
    let (alice, bob, charlie) = (Who::Alice, Who::Bob, Who::Charlie);
    let acts = [
        Act::Say(alice, 2),
        Act::Topic(bob),
        Act::Join(charlie),
        Act::Leave(bob),
        Act::Invite(alice, bob),
        Act::Kick(alice, charlie),
        Act::Ban(alice, bob),
        Act::Unban(alice, bob),
        Act::Level(alice, charlie, 50),
        Act::During(
            Trouble::Cut,
            vec![Act::Say(charlie, 1), Act::Redact(charlie, charlie)],
        ),
    ];
    let printed = act::scenario("Every verb.", &acts).replace("#[test]", "#[expect(dead_code)]");
    assert_eq!(printed, code(include_str!("printed_verbs.rs")));
}
