//! The runbook engine: what a document may say, and what happens when it is followed.
//!
//! Golden files lie in `tests/runbook/`; `UPDATE_GOLDEN=1` rewrites them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::runbook::LocalShell;
use harness::runbook::{
    Command, DiffLine, Entry, Limits, Observer, Outcome, Plan, PlanProblem, Promise, Reason,
    Runbook, RunbookError, Seen, SessionError, Shell, Silent, Source, Step, Transcript, follow,
    quote,
};
use proptest::prelude::*;

const NEVER: Duration = Duration::from_secs(60);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/runbook")
        .join(name)
}

fn parse(name: &str) -> Result<Runbook, RunbookError> {
    Runbook::parse(
        name,
        &fs::read_to_string(fixture(name)).expect("the fixture is there"),
    )
}

fn matches_golden(name: &str, seen: &str) {
    let path = fixture(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, seen).expect("the golden file can be written");
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == seen,
        "`{name}` differs; run again with `UPDATE_GOLDEN=1`; seen:\n{seen}"
    );
}

fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// A runbook with the one step `Try` and these lines in its `console` fence.
fn document(console: &str) -> String {
    format!("# Try\n\n## Try it\n\n```console\n{console}\n```\n")
}

fn plan_of(text: &str) -> Plan {
    let runbook = Runbook::parse("try.md", text).unwrap_or_else(|error| panic!("{error}"));
    runbook
        .plan(&given(&[]))
        .unwrap_or_else(|error| panic!("{error}"))
}

async fn follow_text(text: &str) -> Transcript {
    follow_with(text, Limits::default()).await
}

async fn follow_with(text: &str, limits: Limits) -> Transcript {
    let mut session = LocalShell::new().start().await.expect("bash starts");
    follow(&plan_of(text), session.as_mut(), &mut Silent, limits).await
}

fn only_outcome(transcript: &Transcript) -> &Outcome {
    &transcript.failure_entry().outcome
}

trait FailureEntry {
    fn failure_entry(&self) -> &Entry;
}

impl FailureEntry for Transcript {
    fn failure_entry(&self) -> &Entry {
        self.entries()
            .iter()
            .find(|entry| entry.outcome != Outcome::Passed)
            .unwrap_or_else(|| panic!("nothing failed:\n{self}"))
    }
}

// Documents.

#[test]
fn a_runbook_is_read_as_it_is_written() {
    let runbook = parse("restore.md").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(runbook.title(), "Restore a site from a backup");
    let variables: Vec<_> = runbook
        .variables()
        .iter()
        .map(|v| (v.name.as_str(), v.default.as_deref(), v.meaning.as_str()))
        .collect();
    assert_eq!(
        variables,
        [
            ("ARCHIVE", None, "the snapshot to restore"),
            (
                "SERVER_NAME",
                Some("timmy.foundation"),
                "the server's name, never changed"
            ),
            ("PATTERN", Some("a|b"), "what to look for"),
        ]
    );
    assert_eq!(runbook.results()[0].name, "SNAPSHOT");
    let steps: Vec<_> = runbook
        .steps()
        .iter()
        .map(|s| (s.number, s.title.as_str(), s.commands.len()))
        .collect();
    assert_eq!(
        steps,
        [
            (1, "Look at what there is", 1),
            (2, "Put the data back", 2),
            (3, "When it does not come up", 0),
            (4, "See that it serves", 2),
        ]
    );
    let stop = &runbook.steps()[1].commands[0];
    assert_eq!(
        (stop.number.as_str(), stop.expected_exit, stop.line),
        ("2.1", 3, 43)
    );
    assert_eq!(stop.promise, Promise::new("inactive"));
    let restore = &runbook.steps()[1].commands[1];
    assert_eq!(
        restore.text,
        "cat <<EOF | tee /tmp/plan &&\narchive $ARCHIVE\n\nname $SERVER_NAME\nEOF\n\
         SNAPSHOT=$(restic snapshots --json \"$ARCHIVE\" |\n  jq -r '.[] | $NO | .id')"
    );
    assert_eq!(restore.promise, None, "no output promised: not judged");
    let answers = runbook.steps()[3].commands[0]
        .probe
        .as_ref()
        .expect("a probe");
    assert_eq!(
        (answers.what.as_str(), answers.at_most),
        ("it answers", Duration::from_secs(30))
    );
    let run = &runbook.steps()[3].commands[1];
    assert_eq!(
        run.probe.as_ref().map(|probe| probe.at_most),
        Some(Duration::from_secs(60))
    );
    assert!(
        run.text.ends_with("\ndone"),
        "the remark is not part of the command"
    );
}

#[test]
fn every_mistake_of_a_document_is_named_at_once_with_its_place_and_a_hint() {
    for name in ["broken", "unterminated", "tables"] {
        let error = parse(&format!("{name}.md")).expect_err("the document has mistakes");
        matches_golden(&format!("{name}.errors"), &format!("{error}\n"));
        for problem in error.problems() {
            assert!(
                !problem.hint.is_empty() && !problem.message.is_empty(),
                "{problem:?}"
            );
            let line = problem
                .source
                .chars()
                .skip(problem.column - 1)
                .collect::<String>();
            let found = problem.found.lines().next().unwrap_or_default();
            assert!(
                line.starts_with(found),
                "the column is that of the text: {problem:?}"
            );
        }
    }
}

#[test]
fn a_document_with_windows_line_ends_is_the_same_document() {
    let text = fs::read_to_string(fixture("restore.md")).expect("the fixture is there");
    let unix = Runbook::parse("x", &text).expect("it is correct");
    let windows = Runbook::parse("x", &text.replace('\n', "\r\n")).expect("it is correct");
    assert_eq!(unix.steps(), windows.steps());
    assert_eq!(unix.variables(), windows.variables());
}

#[test]
fn every_runbook_of_the_deployment_kit_is_correct() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/runbooks");
    let mut read = 0;
    for file in fs::read_dir(&folder).expect("the runbooks are there") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            if let Err(error) = Runbook::parse(path.display().to_string(), &text) {
                panic!("{error}");
            }
            read += 1;
        }
    }
    assert!(read > 0, "no runbook in {}", folder.display());
}

#[test]
fn an_empty_document_is_no_runbook() {
    let error = Runbook::parse("empty.md", "")
        .expect_err("nothing is in it")
        .to_string();
    assert!(error.contains("the runbook has no title"), "{error}");
    assert!(error.contains("the runbook runs no command"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_document_makes_the_reader_panic(
        lines in prop::collection::vec(
            prop::sample::select(vec![
                "# T", "## Variables", "## Results", "## Step", "```console", "```", "~~~", "$ a",
                "$", ">", "> b \\", "? 1", "?", "$ x=$(", "$ cat <<E", "> E", "$ echo ${", "$ 'ä",
                "| name | default | meaning |", "|---|---|---|", "| `A` | `ö` | x |", "| `A`", "",
                "  - ```console", "    $ c  # until", "$ é  # until ü, at most 3 s", "\t$ $ü\\", "ß",
                "$ ${#} ${!A[@]} $'\\", "$ <<<\\", "$ A[1]=", "$ <<-\\E", "# é # `", "\u{0}\r",
            ]),
            0..24,
        ),
    ) {
        if let Err(error) = Runbook::parse("any.md", &lines.join("\n")) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

// Plans.

#[test]
fn a_plan_can_be_read_before_it_runs() {
    let runbook = parse("restore.md").expect("it is correct");
    let plan = runbook
        .plan(&given(&[("ARCHIVE", "latest")]))
        .expect("all is given");
    assert_eq!(plan.variables()[0].source, Source::Given);
    matches_golden("restore.plan", &plan.to_string());
}

#[test]
fn a_missing_variable_and_an_unknown_one_are_both_named() {
    let runbook = parse("restore.md").expect("it is correct");
    let error = runbook
        .plan(&given(&[
            ("ARCHIV", "x"),
            ("SERVER_NAME", "a\0b"),
            ("ZEBRA", ""),
        ]))
        .expect_err("the plan is impossible");
    assert_eq!(error.problems().len(), 4);
    assert!(matches!(&error.problems()[3], PlanProblem::Missing { name, .. } if name == "ARCHIVE"));
    matches_golden("restore.refused", &format!("{error}\n"));
}

// Promises.

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_promise_made_of_the_output_with_wildcards_in_it_is_kept(
        lines in prop::collection::vec("[ -~äß€]{0,12}", 1..12),
        holes in prop::collection::vec((0usize..12, 0usize..13, 0usize..13), 0..6),
        gaps in prop::collection::vec((0usize..13, 0usize..4), 0..3),
        stranger in 0usize..200,
    ) {
        let mut lines = lines;
        if let Some(last) = lines.last_mut() {
            last.push('.'); // empty lines at the end are not judged
        }
        let output = lines.join("\n");
        let mut promise: Vec<Vec<String>> =
            lines.iter().map(|line| line.chars().map(String::from).collect()).collect();
        for (line, from, length) in holes {
            let line_count = promise.len();
            let line = &mut promise[line % line_count];
            let from = from.min(line.len());
            let to = (from + length).min(line.len());
            line.splice(from..to, ["[..]".to_owned()]);
        }
        let mut promise: Vec<String> = promise.into_iter().map(|line| line.concat()).collect();
        for (from, length) in gaps {
            let from = from.min(promise.len());
            let to = (from + length).min(promise.len());
            promise.splice(from..to, ["...".to_owned()]);
        }
        let text = promise.join("\n");
        let Some(kept) = Promise::new(&text) else { return Ok(()) };
        prop_assert!(kept.matches(&output), "{text:?} against {output:?}");
        prop_assert_eq!(kept.difference(&output), None);

        // One literal character that the output does not have breaks it.
        let places: Vec<(usize, usize)> = promise
            .iter()
            .enumerate()
            .filter(|(_, line)| *line != "..." && !line.contains("[..]"))
            .flat_map(|(index, line)| line.trim_end().char_indices().map(move |(at, _)| (index, at)))
            .collect();
        if !places.is_empty() {
            let (line, at) = places[stranger % places.len()];
            let end = at + promise[line][at..].chars().next().map_or(0, char::len_utf8);
            promise[line].replace_range(at..end, "\u{2603}");
            let broken = Promise::new(&promise.join("\n")).expect("it holds a character");
            prop_assert!(!broken.matches(&output));
            let difference = broken.difference(&output).expect("they differ");
            let named = difference.lines().iter().any(
                |line| matches!(line, DiffLine::Missing(text) if text.contains('\u{2603}')),
            );
            prop_assert!(named, "{}", difference);
        }
    }
}

// Following.

#[tokio::test]
async fn a_runbook_that_does_what_it_promises_passes() {
    let text = "# Try\n\n## Variables\n\n| name | default | meaning |\n|---|---|---|\n\
        | `NAME` | `it's \"$HOME\" & more` | awkward |\n\n## Results\n\n| name | meaning |\n\
        |---|---|\n| `SNAPSHOT` | set |\n\n## One\n\n```console\n\
        $ printf '%s\\n' \"$NAME\"; bash -c 'echo \"$NAME\"'\n\
        it's \"$HOME\" & more\nit's \"$HOME\" & more\n\
        $ cd / && there() { echo \"in $PWD\"; } && SNAPSHOT=$'two\\nlines\\n'\n```\n\n\
        ## Two\n\n```console\n$ there\nin /\n$ false | true\n? 1\n$ echo $?\n1\n\
        $ cat; echo end; echo error >&2\nend\nerror\n$ printf 'no newline'\nno newline\n\
        $ for i in 1 2; do\n>   echo $i\n> done\n1\n2\n\
        $ cat <<EOF\n> name $NAME\n>\n> 'quoted'\n> EOF\nname it's [..]\n\n'quoted'\n\
        $ (exit 3)\n? 3\n```\n";
    let transcript = follow_text(text).await;
    assert!(
        transcript.passed(),
        "{}",
        transcript.failure().expect("a failure")
    );
    assert_eq!(
        transcript.results(),
        &given(&[("SNAPSHOT", "two\nlines\n")])
    );
    let printed = transcript.entries()[6].seen.as_ref().expect("it ran");
    assert_eq!(printed.output, "no newline");
    assert!(transcript.to_markdown().contains("## 2 Two"));
    let times: Vec<_> = transcript
        .entries()
        .iter()
        .map(|entry| entry.started)
        .collect();
    assert!(times.is_sorted() && transcript.took() >= times[times.len() - 1]);
}

#[tokio::test]
async fn another_output_is_shown_beside_the_promised_one_and_nothing_runs_after_it() {
    let text = document("$ printf 'one\\n2\\nthree\\n'\none\ntwo\n[..]ree\n$ echo after");
    let transcript = follow_text(&text).await;
    assert!(!transcript.passed());
    assert_eq!(transcript.entries().len(), 1);
    let failure = transcript.failure().expect("it failed");
    assert_eq!(
        failure.summary(),
        "try.md:6: 1 Try it > 1.1: the output differs"
    );
    matches_golden("differs.letter", &format!("{failure}\n"));
    assert!(transcript.to_string().contains("skip  1.2"), "{transcript}");
    assert!(
        transcript.to_markdown().contains("Not run: 1.2."),
        "{}",
        transcript.to_markdown()
    );
}

#[tokio::test]
async fn another_exit_code_is_a_failure_that_shows_what_was_printed() {
    let transcript = follow_text(&document("$ echo why it failed >&2; (exit 7)")).await;
    matches_golden(
        "exit.letter",
        &format!("{}\n", transcript.failure().expect("it failed")),
    );
    let transcript = follow_text(&document("$ true\n? 1")).await;
    let Outcome::Failed(Reason::Differs(mismatch)) = only_outcome(&transcript) else {
        panic!("{transcript}");
    };
    assert_eq!(mismatch.exit, Some((1, 0)));
}

#[tokio::test]
async fn a_probe_is_repeated_until_it_is_answered() {
    let place = tempfile::tempdir().expect("a directory");
    let file = quote(place.path().join("ready").to_str().expect("UTF-8"));
    let text = document(&format!(
        "$ {{ sleep 0.4; echo yes > {file}; }} &\n$ cat {file}  # until it is there, at most 20 s\n\
         yes"
    ));
    let mut session = LocalShell::new().start().await.expect("bash starts");
    let mut notes = Notes::default();
    let transcript = follow(
        &plan_of(&text),
        session.as_mut(),
        &mut notes,
        Limits::default(),
    )
    .await;
    assert!(
        transcript.passed(),
        "{}",
        transcript.failure().expect("a failure")
    );
    let probe = &transcript.entries()[1];
    assert!(probe.attempts > 1, "{} attempts", probe.attempts);
    assert!(probe.took < Duration::from_secs(15));
    assert_eq!(notes.0.first().map(String::as_str), Some("step 1"));
    assert_eq!(notes.0[1..3], ["begins 1.1", "ends 1.1"]);
    assert!(
        notes.0.iter().any(|note| note == "not yet 1.2: 1"),
        "{:?}",
        notes.0
    );
    assert_eq!(
        notes
            .0
            .iter()
            .filter(|note| note.starts_with("not yet"))
            .count() as u32
            + 1,
        probe.attempts
    );
}

#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn step_begins(&mut self, step: &Step) {
        self.0.push(format!("step {}", step.number));
    }
    fn command_begins(&mut self, _: &Step, command: &Command) {
        self.0.push(format!("begins {}", command.number));
    }
    fn not_yet(&mut self, command: &Command, _: u32, seen: &Seen) {
        self.0.push(format!(
            "not yet {}: {}",
            command.number,
            seen.exit.unwrap_or(-1)
        ));
    }
    fn command_ends(&mut self, entry: &Entry) {
        self.0.push(format!("ends {}", entry.number));
    }
}

#[tokio::test]
async fn a_probe_that_is_never_answered_says_what_it_last_saw() {
    let text = document(
        "$ echo 'curl: (7) refused'; (exit 7)  # until it answers, at most 400 ms\nanswer",
    );
    let transcript = follow_text(&text).await;
    let failure = transcript.failure().expect("it failed");
    assert!(failure.entry().attempts > 2);
    assert!(failure.entry().took < Duration::from_secs(5));
    matches_golden("never.letter", &format!("{failure}\n"));
}

#[tokio::test]
async fn a_probe_whose_attempt_hangs_is_cut_off_at_its_limit() {
    let begun = Instant::now();
    let text = document("$ echo connecting; sleep 50  # until it answers, at most 300 ms");
    let transcript = follow_text(&text).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    matches_golden(
        "hangs.letter",
        &format!("{}\n", transcript.failure().expect("it failed")),
    );
}

#[tokio::test]
async fn a_command_that_times_out_is_ended_with_all_it_started() {
    let place = tempfile::tempdir().expect("a directory");
    let pid = place.path().join("pid");
    let clean = place.path().join("clean");
    let text = document(&format!(
        "$ bash -c 'trap \"echo tidy > {}; exit\" TERM; sleep 50 & echo $! > {}; echo waiting; wait'",
        clean.display(),
        pid.display()
    ));
    let limits = Limits {
        command: Duration::from_millis(1_500),
        ..Limits::default()
    };
    let begun = Instant::now();
    let transcript = follow_with(&text, limits).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(
        only_outcome(&transcript),
        &Outcome::TimedOut {
            limit: limits.command
        }
    );
    let entry = transcript.failure_entry();
    assert_eq!(
        entry.seen.as_ref().map(|seen| seen.output.as_str()),
        Some("waiting\n")
    );
    matches_golden("timeout.letter", &mask(&transcript, place.path()));
    assert_eq!(fs::read_to_string(clean).expect("its trap ran"), "tidy\n");
    let pid = fs::read_to_string(pid).expect("it was started");
    assert!(gone(pid.trim()), "`sleep` still runs as {pid}");
}

fn mask(transcript: &Transcript, place: &Path) -> String {
    let letter = transcript.failure().expect("it failed").to_string();
    letter.replace(place.to_str().expect("UTF-8"), "[PLACE]") + "\n"
}

/// Whether no process has the id, waiting for up to 10 s until it has gone.
fn gone(pid: &str) -> bool {
    let begun = Instant::now();
    loop {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return true;
        }
        if begun.elapsed() > Duration::from_secs(10) {
            return false;
        }
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn processes_that_ignore_the_request_to_end_are_killed() {
    let mut session = LocalShell::new().start().await.expect("bash starts");
    let command = "bash -c 'trap \"\" TERM; echo $$; exec sleep 50'";
    let error = session
        .run(command, Duration::from_secs(1))
        .await
        .expect_err("it hangs");
    let SessionError::TimedOut { output, .. } = error else {
        panic!("{error}")
    };
    assert!(gone(output.trim()), "`sleep` still runs as {output}");
    let error = session
        .run("echo", NEVER)
        .await
        .expect_err("the session is over");
    assert_eq!(
        error.to_string(),
        "the shell session was lost: an earlier command timed out"
    );
}

#[tokio::test]
async fn a_session_that_is_dropped_leaves_nothing_running() {
    let mut session = LocalShell::new().start().await.expect("bash starts");
    let answer = session
        .run("sleep 50 & echo $!", NEVER)
        .await
        .expect("it runs");
    let abandoned = tokio::time::timeout(Duration::from_millis(50), session.run("sleep 50", NEVER));
    assert!(abandoned.await.is_err());
    let error = session
        .run("echo", NEVER)
        .await
        .expect_err("its answer would be another's");
    assert!(matches!(error, SessionError::Lost { .. }), "{error}");
    drop(session);
    assert!(
        gone(answer.output.trim()),
        "`sleep` still runs as {}",
        answer.output
    );
}

#[tokio::test]
async fn a_command_that_exits_the_shell_is_named_as_such() {
    let transcript = follow_text(&document("$ true\n$ echo bye; exit 3\n? 3\n$ echo after")).await;
    assert_eq!(
        only_outcome(&transcript),
        &Outcome::Failed(Reason::EndedSession { exit: 3 })
    );
    matches_golden(
        "ended.letter",
        &format!("{}\n", transcript.failure().expect("it failed")),
    );
    let transcript = follow_text(&document("$ set -e\n$ (exit 4)\n? 4")).await;
    assert_eq!(
        only_outcome(&transcript),
        &Outcome::Failed(Reason::EndedSession { exit: 4 })
    );
    // Also with something in the background that holds the stream open.
    let transcript = follow_text(&document("$ sleep 50 & exit 5")).await;
    assert_eq!(
        only_outcome(&transcript),
        &Outcome::Failed(Reason::EndedSession { exit: 5 })
    );
}

#[tokio::test]
async fn a_shell_that_dies_is_a_lost_session_and_no_failure() {
    let transcript = follow_text(&document("$ echo last words; kill -9 $$")).await;
    let Outcome::SessionLost { why } = only_outcome(&transcript) else {
        panic!("{transcript}")
    };
    assert!(why.contains("ended without an exit code"), "{why}");
    let seen = transcript
        .failure_entry()
        .seen
        .as_ref()
        .map(|seen| seen.output.as_str());
    assert_eq!(seen, Some("last words\n"));
}

#[tokio::test]
async fn a_result_that_nobody_set_is_a_failure() {
    let text = "# T\n\n## Results\n\n| name | meaning |\n|---|---|\n| `R` | r |\n\n## S\n\n\
        ```console\n$ (R=1)\n```\n";
    let transcript = follow_text(text).await;
    assert!(!transcript.passed());
    assert_eq!(
        transcript.failure().expect("it failed").summary(),
        "try.md:7: results: the runbook ended without setting its result `R`"
    );
}

#[tokio::test]
async fn odd_commands_do_not_confuse_the_session() {
    let mut session = LocalShell::new().start().await.expect("bash starts");
    let mut run = async |command: &str| session.run(command, NEVER).await.expect(command);
    assert_eq!(run("echo 'a'\\''b'").await.output, "a'b\n");
    let incomplete = run("if true; then").await;
    assert!(
        incomplete.exit != 0 && incomplete.output.contains("syntax error"),
        "{incomplete:?}"
    );
    let incomplete = run("echo 'a").await;
    assert!(incomplete.exit != 0, "{incomplete:?}");
    assert_eq!(
        run("cat; read -r x; echo \"<$x>\"").await.output,
        "<>\n",
        "no standard input"
    );
    assert!(
        run("set -x; echo traced")
            .await
            .output
            .ends_with("traced\n")
    );
    assert!(
        run("set +x; set -v; echo shown")
            .await
            .output
            .ends_with("shown\n")
    );
    run("set +v; exec >/dev/null").await;
    assert_eq!(run("declare -f __runbook_mark; set").await.exit, 0);
    run("exec 1>&2").await;
    assert!(
        !run("ls /proc/self/fd").await.output.contains("199"),
        "not inherited"
    );
    assert_eq!(run("").await.exit, 0);
    let forged = run("__runbook_mark done 1 0; echo late").await;
    assert_eq!(forged.output, "late\n", "the mark of another command");
    assert_eq!(run("bash -c 'kill -TERM $$'").await.exit, 143);
    assert_eq!(run("(exit 3)").await.exit, 3);
    assert_eq!(run("echo $?").await.output, "3\n", "as at a prompt");
    assert_eq!(run("false | true").await.exit, 1, "`pipefail` is set");
    assert!(
        run("trap 'echo own' EXIT; echo ok")
            .await
            .output
            .ends_with("ok\n")
    );
    assert_eq!(
        session.run("a\0b", NEVER).await,
        Err(SessionError::Unsendable)
    );
    assert_eq!(
        session
            .run("echo alive", NEVER)
            .await
            .expect("alive")
            .output,
        "alive\n"
    );
}

#[tokio::test]
async fn a_session_that_is_closed_runs_its_exit_traps() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("trapped");
    let mut session = LocalShell::new().start().await.expect("bash starts");
    let trap = format!("trap 'echo trapped > {}' EXIT", file.display());
    session.run(&trap, NEVER).await.expect("it runs");
    session.close(NEVER).await;
    assert_eq!(fs::read_to_string(file).expect("the trap ran"), "trapped\n");
    assert!(session.run("echo", NEVER).await.is_err());
}

#[tokio::test]
async fn a_shell_is_started_where_and_with_what_it_was_told() {
    let place = tempfile::tempdir().expect("a directory");
    let shell = LocalShell::new()
        .in_directory(place.path())
        .with("GREETING", "hello world");
    let mut session = shell.start().await.expect("bash starts");
    let answer = session
        .run("pwd -P; echo \"$GREETING\"", NEVER)
        .await
        .expect("it runs");
    let real = place.path().canonicalize().expect("it exists");
    assert_eq!(answer.output, format!("{}\nhello world\n", real.display()));
    let nowhere = LocalShell::new().in_directory(place.path().join("nowhere"));
    let error = nowhere
        .start()
        .await
        .err()
        .expect("there is no such directory")
        .to_string();
    assert!(error.contains("starting `bash` failed"), "{error}");
}

#[tokio::test]
async fn binary_output_and_a_megabyte_of_it_are_taken_whole_and_shown_short() {
    let mut session = LocalShell::new().start().await.expect("bash starts");
    let binary = "printf '\\377\\000\\036\\033[1mx\\n'; head -c 100000 /dev/urandom; printf end";
    let answer = session.run(binary, NEVER).await.expect("it runs");
    assert_eq!(answer.exit, 0);
    assert!(answer.output.starts_with('\u{fffd}') && answer.output.ends_with("end"));
    let answer = session
        .run("yes 0123456 | head -c 1048576", NEVER)
        .await
        .expect("it runs");
    assert_eq!(answer.output.len(), 1 << 20);
    drop(session);

    let text =
        document("$ yes 0123456 | head -c 1048576; printf '\\377\\n'; false\n0123456\n...\nend");
    let transcript = follow_text(&text).await;
    let failure = transcript.failure().expect("it failed");
    let seen = failure.entry().seen.as_ref().expect("it ran");
    assert!(seen.output.len() > 1 << 20);
    assert!(failure.to_string().len() < 10_000, "{failure}");
    assert!(failure.to_string().contains("- end"), "{failure}");
    assert!(transcript.to_markdown().len() < 100_000);
}
