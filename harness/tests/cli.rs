//! The command line, as a person meets it: what it promises in `--help`, and how it refuses. Needs no docker: where one
//! would be asked, these tests name a socket that is not there.
//!
//! The help is under snapshot; `INSTA_UPDATE=always` rewrites it.

use assert_cmd::Command;
use fixtures::bad;
use harness::{Exit, operator, paths};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const SUBCOMMANDS: [&str; 16] = [
    "rehearse",
    "test",
    "setup",
    "doctor",
    "up",
    "down",
    "plan",
    "follow",
    "bundle",
    "lint",
    "report",
    "drill",
    "measure",
    "load",
    "preflight",
    "clean",
];

/// What one run of the program came to, and what it made.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
    made: Vec<PathBuf>,
}

impl Ran {
    /// Everything that it said, for a message.
    fn said(&self) -> String {
        format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            self.code, self.stdout, self.stderr
        )
    }

    /// It ended with `exit`, said each of `fragments` on standard error, and made nothing.
    #[track_caller]
    fn refused(&self, exit: Exit, fragments: &[&str]) {
        assert_eq!(self.code, i32::from(exit.code()), "{}", self.said());
        for fragment in fragments {
            assert!(
                self.stderr.contains(fragment),
                "`{fragment}` is not said\n{}",
                self.said()
            );
        }
        assert!(
            self.stdout.is_empty(),
            "a refusal is no data\n{}",
            self.said()
        );
        assert!(
            self.made.is_empty(),
            "{:?} were made\n{}",
            self.made,
            self.said()
        );
    }
}

/// The program, where no docker answers and no build directory exists yet. A stand-in for Conduit is given, since
/// without one the real one would be fetched over the network.
fn program(target: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_fleet"));
    program
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .env("CARGO_TARGET_DIR", target)
        .env("CONDUIT_BIN", input("pinned"))
        .env("COLUMNS", "100")
        // Were a refusal missing, nothing could be installed or started by these tests.
        .env("PATH", "/nonexistent")
        .env_remove("HARNESS_KEEP")
        .env_remove("HARNESS_SEED");
    program
}

fn fleet(arguments: &[&str]) -> Ran {
    let target = tempfile::tempdir().expect("a directory");
    fleet_in(target.path(), arguments)
}

/// With a build directory that may hold reports already.
fn fleet_in(target: &Path, arguments: &[&str]) -> Ran {
    let before = listed(target);
    let output = program(target)
        .args(arguments)
        .output()
        .expect("it can be started");
    Ran {
        code: output
            .status
            .code()
            .unwrap_or_else(|| panic!("{arguments:?} was killed: {}", output.status)),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        made: listed(target)
            .into_iter()
            .filter(|path| !before.contains(path))
            .collect(),
    }
}

/// What is in a directory.
fn listed(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// A file of this test's directory.
fn input(name: &str) -> String {
    format!("{}/tests/cli/{name}", env!("CARGO_MANIFEST_DIR"))
}

// Help.

#[test]
fn the_help_of_every_subcommand_is_under_snapshot() {
    let mut all = fleet(&["--help"]).stdout;
    for subcommand in SUBCOMMANDS {
        let ran = fleet(&[subcommand, "--help"]);
        assert_eq!(ran.code, 0, "{}", ran.said());
        all += &format!("\n==== {subcommand} ====\n\n{}", ran.stdout);
    }
    insta::assert_snapshot!("help", all);
}

#[test]
fn the_help_lists_every_subcommand_and_every_exit_code() {
    let help = fleet(&["--help"]).stdout;
    assert!(help.contains(Exit::TABLE), "{help}");
    let listed: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Where a sentence is long, its continuation is indented further.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(listed, [&SUBCOMMANDS[..], &["help"]].concat(), "{help}");
}

// How drills stand.

/// The codes are what a monitor has to go by; the reasons are for the person that it wakes.
#[test]
fn a_red_drill_and_a_drill_that_did_not_run_end_with_codes_of_their_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = directory.path().display().to_string();
    let status = || fleet(&["drill", "--status", "--history", &history]);
    let never = status();
    assert_eq!(
        never.code,
        i32::from(Exit::Unknown.code()),
        "{}",
        never.said()
    );
    assert!(
        never.stdout.contains("no drill has ever run"),
        "{}",
        never.said()
    );
    let note = |verdict: &str, time: u64| {
        let line = format!(
            "{{\"time\":{time},\"verdict\":\"{verdict}\",\"site\":\"vale.test\",\"snapshot\":\"1a2b3c4d\",\"created\":{time},\
             \"rpo_seconds\":60,\"rto_seconds\":12.5,\"seconds\":20.0}}\n"
        );
        fs::write(directory.path().join("drills.jsonl"), line).expect("noted");
    };
    note("fail", harness::drill::now());
    let red = status();
    assert_eq!(
        red.code,
        i32::from(Exit::Deployment.code()),
        "{}",
        red.said()
    );
    note("pass", harness::drill::now() - 9 * 86_400);
    let old = status();
    assert_eq!(old.code, i32::from(Exit::Unknown.code()), "{}", old.said());
    note("pass", harness::drill::now());
    let good = status();
    assert_eq!(good.code, 0, "{}", good.said());
    assert!(good.stdout.contains("RPO"), "{}", good.said());
}

/// What is no store, or has no password, is said before anything is made.
#[test]
fn a_drill_of_what_is_no_store_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display().to_string();
    let password = directory.path().join("password").display().to_string();
    let drill = ["drill", "--store", &path, "--password-file", &password];
    fleet(&drill).refused(Exit::Environment, &["it is no restic repository", "hint:"]);
    fs::write(directory.path().join("config"), "x").expect("written");
    fleet(&drill).refused(Exit::Environment, &["read the password in"]);
    fleet(&["drill", "--store", &path]).refused(Exit::Usage, &["--password-file"]);
    fleet(&["drill", "--snapshot", "newest"]).refused(Exit::Usage, &["hexadecimal"]);
}

/// An option that clap lists without a word is one that nobody documented.
#[test]
fn every_option_and_argument_says_what_it_is_for() {
    for subcommand in SUBCOMMANDS {
        let help = fleet(&[subcommand, "--help"]).stdout;
        let lines: Vec<_> = help.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let entry = line.trim_start();
            if !line.starts_with("  ")
                || !entry.starts_with(['-', '<', '['])
                || entry.starts_with("[default")
            {
                continue;
            }
            let beside = entry
                .split_once("  ")
                .is_some_and(|(_, words)| !words.trim().is_empty());
            let beneath = lines
                .get(index + 1)
                .is_some_and(|next| next.starts_with("          "));
            assert!(
                beside || beneath,
                "`{entry}` of `{subcommand}` says nothing:\n{help}"
            );
        }
    }
}

#[test]
fn the_version_is_printed() {
    let ran = fleet(&["--version"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, concat!("fleet ", env!("CARGO_PKG_VERSION"), "\n"))
    );
}

// Usage.

#[test]
fn a_command_line_that_means_nothing_is_a_matter_of_usage() {
    for (arguments, fragments) in [
        (&[][..], &["Usage: cargo fleet"][..]),
        (
            &["rehearsal"],
            &["unrecognized subcommand 'rehearsal'", "'rehearse'"],
        ),
        (
            &["rehearse", "--yess"],
            &["unexpected argument '--yess'", "'--yes'"],
        ),
        (
            &["rehearse", "--seed", "roses"],
            &["'roses'", "a seed is a hexadecimal number"],
        ),
        (
            &["rehearse", "--seed", "10000000000000000"],
            &["a seed is a hexadecimal number"],
        ),
        (&["rehearse", "--times", "0"], &["'0'", "1..=1000"]),
        (
            &["rehearse", "--require", "synapse"],
            &["'synapse'", "[possible values: conduit]"],
        ),
        (
            &["rehearse", "--conduit"],
            &["a value is required for '--conduit <PATH>'"],
        ),
        (&["plan"], &["<RUNBOOK>"]),
        (
            &["plan", "install.md", "--set", "APEX"],
            &["`APEX` is not of the form NAME=VALUE"],
        ),
        (
            &["follow", "install.md", "--bare", "--after", "backup.md"],
            &["--bare", "--after", "cannot be used with"],
        ),
        (&["bundle"], &["<DIRECTORY>"]),
        (
            &["up", "--server-name", "timmy foundation"],
            &["'timmy foundation'", "a domain name in lower case"],
        ),
    ] {
        fleet(arguments).refused(Exit::Usage, fragments);
    }
}

// Conduit.

#[test]
fn a_conduit_that_does_not_fit_is_refused_before_anything_is_made() {
    let hint = "hint: ";
    let ways = "give a Conduit 0.10.12 with `--conduit PATH` or `CONDUIT_BIN`";
    let directory = input("");
    let not_executable = input("not-executable");
    let change_mode = format!("`chmod +x {not_executable}`");
    let cases = [
        (
            input("missing"),
            vec!["read the Conduit binary", "No such file or directory"],
        ),
        (directory, vec!["it is not an executable file"]),
        (
            not_executable,
            vec!["it is not an executable file", change_mode.as_str()],
        ),
        (
            input("another-program"),
            vec!["it is another program", "`--version` printed `grep 3.8`"],
        ),
        (input("fails"), vec!["it is another program"]),
        (
            input("another-version"),
            vec!["it is version 0.9.0, this project pins 0.10.12"],
        ),
    ];
    for (path, mut fragments) in cases {
        fragments.extend([path.as_str(), hint, ways, "blame: environment"]);
        for verb in [
            &["rehearse", "--yes"][..],
            &["test", "--yes"],
            &["up"],
            &["follow", "install.md"],
            &["bundle", "b"],
        ] {
            fleet(&[verb, &["--conduit", &path]].concat()).refused(Exit::Environment, &fragments);
        }
    }
}

#[test]
fn a_conduit_given_by_the_environment_is_judged_like_one_given_by_option() {
    let target = tempfile::tempdir().expect("a directory");
    let output = program(target.path())
        .env("CONDUIT_BIN", input("another-version"))
        .args(["rehearse", "--yes"])
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(12), "{said}");
    assert!(said.contains("it is version 0.9.0"), "{said}");
}

// Without docker.

#[test]
fn what_needs_docker_says_so_where_none_answers() {
    let hint = "hint: start it with `cargo fleet setup --yes` as root, or add yourself to the group `docker`";
    for arguments in [
        &["up"][..],
        &["down"],
        &["clean"],
        &["clean", "--all"],
        &["follow", "install.md"],
    ] {
        let ran = fleet(arguments);
        ran.refused(
            Exit::Environment,
            &[
                "the docker daemon",
                "/nonexistent/docker.sock",
                "blame: environment",
                hint,
            ],
        );
    }
}

#[test]
fn the_doctor_says_that_docker_is_missing_and_what_to_do() {
    let ran = fleet(&["doctor"]);
    assert_eq!(ran.code, 12, "{}", ran.said());
    let line = |word: &str, subject: &str| {
        ran.stdout
            .lines()
            .any(|line| line.split_whitespace().take(2).eq([word, subject]))
    };
    assert!(
        line("FAIL", "docker") && line("ok", "conduit") && line("ok", "cgroups"),
        "{}",
        ran.said()
    );
    assert!(
        ran.stdout.contains("hint: run `cargo fleet setup --yes`"),
        "{}",
        ran.said()
    );
    assert!(
        ran.made.is_empty(),
        "a look changes nothing: {:?}",
        ran.made
    );
}

#[test]
fn the_doctor_judges_the_conduit_that_it_is_given() {
    let ran = fleet(&["doctor", "--conduit", &input("another-version")]);
    assert_eq!(ran.code, 12, "{}", ran.said());
    assert!(
        ran.stdout.contains("FAIL  conduit") && ran.stdout.contains("it is version 0.9.0"),
        "{}",
        ran.said()
    );
    assert!(
        ran.stdout.contains("hint: give a Conduit 0.10.12"),
        "{}",
        ran.said()
    );
}

/// Standard input is no terminal here, so nobody can agree: it says what it would do, and does nothing.
#[test]
fn nothing_is_installed_or_started_that_nobody_agreed_to() {
    for arguments in [&["rehearse"][..], &["test"], &["setup"]] {
        fleet(arguments).refused(
            Exit::Environment,
            &[
                "this machine needs, to rehearse:",
                "  - a running docker daemon (started and left running, as root)",
                "  - the docker image fleet-host:",
                "  - the docker image fleet-synapse:",
                "error: set this machine up: not agreed to",
                "hint: pass `--yes`, or do the above by hand",
            ],
        );
    }
}

/// Agreed to or not: the daemon of this machine would not be the one that was asked for.
#[test]
fn no_daemon_is_started_where_another_one_is_named() {
    for arguments in [&["rehearse", "--yes"][..], &["setup", "--yes"]] {
        fleet(arguments).refused(
            Exit::Environment,
            &[
                "none answers at `unix:///nonexistent/docker.sock`, which DOCKER_HOST names",
                "hint: start that one, or unset DOCKER_HOST",
            ],
        );
    }
}

// Runbooks.

fn good_runbooks() -> Vec<PathBuf> {
    let mut found: Vec<_> = listed(&paths::runbooks())
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    found.sort();
    assert!(found.len() >= 5, "{found:?}");
    found
}

#[test]
fn every_runbook_is_planned_step_by_step_and_command_by_command() {
    for path in good_runbooks() {
        let runbook = operator::read_runbook(&path).unwrap_or_else(|failure| panic!("{failure}"));
        let required: Vec<_> = runbook
            .variables()
            .iter()
            .filter(|variable| variable.default.is_none())
            .map(|variable| format!("--set={}=given-{}", variable.name, variable.name))
            .collect();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a UTF-8 name");
        let mut arguments = vec!["plan", name];
        arguments.extend(required.iter().map(String::as_str));
        let ran = fleet(&arguments);
        assert_eq!(ran.code, 0, "{}", ran.said());
        assert!(
            ran.stderr.is_empty() && ran.made.is_empty(),
            "{}",
            ran.said()
        );
        for step in runbook.steps() {
            let heading = format!("\n{} {}\n", step.number, step.title);
            assert!(
                ran.stdout.contains(&heading),
                "{heading} is not in the plan of {name}\n{}",
                ran.said()
            );
            for number in 1..=step.commands.len() {
                let place = format!("{}.{number}", step.number);
                let planned = ran
                    .stdout
                    .lines()
                    .any(|line| line.split_whitespace().take(2).eq([place.as_str(), "$"]));
                assert!(
                    planned,
                    "command {place} is not in the plan of {name}\n{}",
                    ran.said()
                );
            }
        }
        for setting in &required {
            let value = setting.split('=').nth(2).expect("it has a value");
            assert!(
                ran.stdout.contains(value),
                "`{value}` is not in the plan of {name}\n{}",
                ran.said()
            );
        }
        if arguments.len() > 2 {
            let missing = fleet(&arguments[..2]);
            missing.refused(
                Exit::Deployment,
                &["missing variable `", &format!("{name}`"), "hint: "],
            );
        }
    }
}

/// Also by `follow`, before it asks for a machine: what is wrong with a document is said before anything is made.
#[test]
fn a_bad_runbook_is_refused_with_its_place_before_anything_is_made() {
    for runbook in bad::RUNBOOKS {
        let path = format!("{}/{}", fixtures::BAD_RUNBOOKS, runbook.file);
        let planned = fleet(&["plan", &path]);
        if runbook.stage == bad::Stage::Follow {
            assert_eq!(planned.code, 0, "{}", planned.said());
            continue;
        }
        for ran in [planned, fleet(&["follow", &path])] {
            ran.refused(
                Exit::Deployment,
                &["error: ", "hint: ", "blame: deployment"],
            );
            let missing = runbook.missing_from(&ran.stderr);
            assert!(
                missing.is_empty(),
                "{missing:?} are not said\n{}",
                ran.said()
            );
        }
    }
}

#[test]
fn a_variable_that_no_runbook_declares_is_refused_before_anything_is_made() {
    for verb in ["plan", "follow"] {
        fleet(&[verb, "install.md", "--set", "ROSE=red"]).refused(
            Exit::Deployment,
            &["`ROSE`", "install.md", "hint: ", "`APEX`"],
        );
    }
}

#[test]
fn a_runbook_that_is_not_there_is_named_with_those_that_are() {
    for verb in ["plan", "follow"] {
        fleet(&[verb, "instal.md"]).refused(
            Exit::Deployment,
            &[
                "read the runbook `instal.md`",
                "No such file",
                "hint: ",
                "`install.md`",
            ],
        );
    }
}

#[test]
fn a_reader_who_leaves_early_is_no_failure() {
    let target = tempfile::tempdir().expect("a directory");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["plan", "install.md"])
        .env("CARGO_TARGET_DIR", target.path())
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .output()
        .expect("it can be started");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn data_that_cannot_be_written_is_a_failure() {
    let target = tempfile::tempdir().expect("a directory");
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("Linux has it");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["plan", "install.md"])
        .env("CARGO_TARGET_DIR", target.path())
        .stdout(full)
        .stderr(std::process::Stdio::piped())
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(12), "{said}");
    assert!(
        said.contains("write to standard output") && said.contains("No space left on device"),
        "{said}"
    );
}

// Reports.

#[test]
fn a_report_without_a_run_says_how_one_is_made() {
    fleet(&["report"]).refused(
        Exit::Environment,
        &[
            "latest/report.json",
            "No such file",
            "hint: `cargo fleet rehearse` writes one",
        ],
    );
    fleet(&["report", "/nonexistent"]).refused(
        Exit::Environment,
        &["read `/nonexistent/report.json`", "hint: "],
    );
    fleet(&["report", "--scenarios"]).refused(
        Exit::Environment,
        &[
            "no scenario has noted a claim",
            "hint: `cargo fleet test --yes`",
        ],
    );
}

#[test]
fn a_report_is_printed_again_with_the_exit_code_of_its_claims() {
    let claim = |verdict: &str, blame: &str| {
        format!(
            r#"{{"claims":[{{"name":"the sky is up","verdict":"pass","server":{{"name":"conduit","version":"1"}},
            "seconds":0.5,"blame":null}},{{"name":"the sky is blue","verdict":"{verdict}","server":null,
            "seconds":1.0,"blame":{blame},"letter":"look at the sky: it is grey"}}],"exit":0,"seed":"7f3a"}}"#
        )
    };
    let codes: BTreeMap<_, _> = [
        (("pass", "null"), 0),
        (("unknown", "null"), 0),
        (("fail", "\"product\""), 10),
        (("fail", "\"deployment\""), 11),
        (("unknown", "\"environment\""), 12),
        (("unknown", "\"harness\""), 13),
    ]
    .into();
    for ((verdict, blame), code) in codes {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("report.json"), claim(verdict, blame)).expect("write it");
        let ran = fleet(&["report", directory.path().to_str().expect("UTF-8")]);
        assert_eq!(ran.code, code, "{verdict} {blame}: {}", ran.said());
        assert!(
            ran.stdout
                .contains("PASS [   0.5s] the sky is up    on conduit 1\n"),
            "{}",
            ran.said()
        );
        assert_eq!(
            ran.stdout.contains("it is grey"),
            verdict != "pass",
            "{}",
            ran.said()
        );
    }
}

#[test]
fn a_report_that_is_not_one_is_named() {
    for text in ["", "{}", "[1, 2"] {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("report.json"), text).expect("write it");
        let ran = fleet(&["report", directory.path().to_str().expect("UTF-8")]);
        ran.refused(
            Exit::Environment,
            &["understand `", "report.json", "line 1"],
        );
    }
}

/// The last rehearsal's, wherever its run lies.
#[test]
fn without_a_directory_the_latest_report_is_printed() {
    let target = tempfile::tempdir().expect("a directory");
    let run = target.path().join("fleet/1-1-0");
    fs::create_dir_all(&run).expect("make it");
    fs::write(run.join("report.json"), r#"{"claims":[],"exit":0}"#).expect("write it");
    std::os::unix::fs::symlink("1-1-0", target.path().join("fleet/latest")).expect("point to it");
    let ran = fleet_in(target.path(), &["report"]);
    assert!(
        ran.stdout.contains("0 passed, 0 failed, 0 unknown"),
        "{}",
        ran.said()
    );
}

// Lint.

/// A directory with one file in it.
fn holding(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(name);
    fs::write(&path, text).expect("write it");
    let path = path.to_str().expect("a UTF-8 path").to_owned();
    (directory, path)
}

/// Starts, and is not the server that its author had in mind.
const DUBIOUS: &str = "[global]\nserver_name = \"vale.test\"\ndatabase_backend = \"rocksdb\"\ndatabase_path = \"/srv/conduit\"\n";

#[test]
fn the_kits_own_files_lint_clean_by_default() {
    let target = tempfile::tempdir().expect("a directory");
    let output = program(target.path())
        // The one that `cargo fleet setup` took out of the lab's image: this build directory is empty.
        .env("FLEET_CADDY", harness::tools::caddy_path())
        .args(["lint", "--deny", "warnings"])
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.ends_with("files: nothing to say\n"), "{said}");
    // Were none of them taken in, there would be nothing to say either.
    let json = fleet(&["lint", "--format", "json"]).stdout;
    for file in [
        "conduit.toml",
        "conduit.service",
        "conduit-bootstrap.service",
        "Caddyfile",
        "fleet.toml",
    ] {
        assert!(
            json.contains(&format!("{file}\"")),
            "{file} is not judged\n{json}"
        );
    }
}

#[test]
fn the_exit_code_of_lint_says_what_was_found() {
    let (_kept, dubious) = holding("conduit.toml", DUBIOUS);
    let (_kept, broken) = holding("conduit.toml", "port = 1\n");
    for (arguments, exit) in [
        (vec!["lint", dubious.as_str()], Exit::Ok),
        (
            vec!["lint", "--deny", "warnings", &dubious],
            Exit::Deployment,
        ),
        (vec!["lint", &broken], Exit::Deployment),
        (vec!["lint", &broken, "--format", "sarif"], Exit::Deployment),
        (
            vec!["lint", &broken, "/nonexistent/conduit.toml"],
            Exit::Usage,
        ),
        (vec!["lint", "/"], Exit::Usage),
        (vec!["lint", "--kind", "poem", &broken], Exit::Usage),
        (vec!["lint", "--explain", "dropped-table"], Exit::Ok),
        (vec!["lint", "--explain", "nonsense"], Exit::Usage),
        (vec!["lint", "--list"], Exit::Ok),
        (vec!["lint", "--keys"], Exit::Ok),
    ] {
        let ran = fleet(&arguments);
        assert_eq!(
            ran.code,
            i32::from(exit.code()),
            "{arguments:?}\n{}",
            ran.said()
        );
        assert!(ran.made.is_empty(), "{:?} were made", ran.made);
    }
}

#[test]
fn what_cannot_be_read_does_not_keep_the_others_from_being_judged() {
    let (_kept, broken) = holding("conduit.toml", "port = 1\n");
    let ran = fleet(&["lint", "/nonexistent/conduit.toml", &broken]);
    assert!(
        ran.stderr
            .contains("read `/nonexistent/conduit.toml`: No such file"),
        "{}",
        ran.said()
    );
    assert!(ran.stdout.contains("top-level-key"), "{}", ran.said());
}

/// Each with its exit code and what is said, and none with a panic, whose exit code is 101.
#[test]
fn what_is_no_configuration_is_told_as_what_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let write = |name: &str, bytes: &[u8]| fs::write(at(name), bytes).expect("write it");
    write("binary.conduit.toml", b"[global]\nlog = \"\xff\xfe\"\n");
    write("empty.conduit.toml", b"");
    write("broken.conduit.toml", b"[global]\nport = = 1\n");
    write("Caddyfile", b"vale.test {\n");
    fs::File::create(at("large.conduit.toml"))
        .and_then(|file| file.set_len(100 * 1024 * 1024))
        .expect("make it");
    std::os::unix::fs::symlink("loop.toml", at("loop.toml")).expect("link");
    for (name, exit, says) in [
        (
            "binary.conduit.toml",
            Exit::Deployment,
            "is not UTF-8, from byte 16 on",
        ),
        (
            "empty.conduit.toml",
            Exit::Deployment,
            "`server_name` is missing",
        ),
        ("broken.conduit.toml", Exit::Deployment, "this is not TOML"),
        // No Caddy is on this PATH.
        ("Caddyfile", Exit::Ok, "install Caddy"),
        ("large.conduit.toml", Exit::Usage, "larger than 4 MiB"),
        ("loop.toml", Exit::Usage, "symbolic links"),
        ("absent.toml", Exit::Usage, "No such file"),
        (".", Exit::Usage, "it is a directory"),
    ] {
        let ran = fleet(&["lint", at(name).to_str().expect("UTF-8")]);
        assert_eq!(ran.code, i32::from(exit.code()), "{name}\n{}", ran.said());
        assert!(ran.said().contains(says), "{name}\n{}", ran.said());
    }
}

/// `cargo fleet lint 2>&1 | head`.
#[test]
fn who_does_not_read_on_makes_no_panic() {
    let (_kept, dubious) = holding("conduit.toml", DUBIOUS);
    for (arguments, code) in [
        (vec!["lint", "-"], Exit::Deployment),
        (vec!["lint", "--fix", "-"], Exit::Deployment),
        (vec!["lint", "-", "/nonexistent/conduit.toml"], Exit::Usage),
        (vec!["lint", "-", "/"], Exit::Usage),
        (
            vec!["lint", "-", &dubious, "--format", "sarif"],
            Exit::Deployment,
        ),
    ] {
        let target = tempfile::tempdir().expect("a directory");
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_fleet"))
            .env("CARGO_TARGET_DIR", target.path())
            .args(&arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("it can be started");
        // It has nothing to say before it has read this.
        let mut stdin = child.stdin.take().expect("a pipe");
        drop(child.stdout.take());
        drop(child.stderr.take());
        std::io::Write::write_all(&mut stdin, b"server_name = 1\nport = \"6167\"\n")
            .expect("it reads");
        drop(stdin);
        let status = child.wait().expect("it ends");
        assert_eq!(
            status.code(),
            Some(i32::from(code.code())),
            "{arguments:?}: {status}"
        );
    }
}

#[test]
fn an_explanation_shows_an_example() {
    let said = fleet(&["lint", "--explain", "dropped-table"]).stdout;
    assert!(said.contains("--> conduit.toml:7:2"), "{said}");
    assert!(said.contains("dropped without a word"), "{said}");
}

#[test]
fn lint_mends_a_file_once_and_then_has_nothing_to_mend() {
    let (_kept, path) = holding(
        "conduit.toml",
        &format!("{DUBIOUS}port = \"6167\" # of the proxy\n"),
    );
    let ran = fleet(&["lint", "--fix", &path]);
    assert_eq!(ran.code, 0, "{}", ran.said());
    let mended = fs::read_to_string(&path).expect("it is there");
    assert_eq!(mended, format!("{DUBIOUS}port = 6167 # of the proxy\n"));
    fleet(&["lint", "--fix", &path]);
    assert_eq!(fs::read_to_string(&path).expect("it is there"), mended);
}

#[test]
fn lint_reads_standard_input_and_answers_its_correction() {
    let target = tempfile::tempdir().expect("a directory");
    let lint = |arguments: &[&str]| {
        let output = program(target.path())
            .args(arguments)
            .write_stdin(format!("{DUBIOUS}port = \"6167\"\n"))
            .output()
            .expect("it can be started");
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("UTF-8"),
        )
    };
    let (code, said) = lint(&["lint", "-"]);
    assert_eq!(code, Some(i32::from(Exit::Deployment.code())), "{said}");
    assert!(said.contains("--> <stdin>:5:8"), "{said}");
    let (code, said) = lint(&["lint", "--fix", "-"]);
    assert_eq!((code, said), (Some(0), format!("{DUBIOUS}port = 6167\n")));
}

#[test]
fn lint_judges_a_file_with_the_variables_that_are_put_on_top() {
    let (_kept, file) = holding("conduit.toml", DUBIOUS);
    let (_kept, variables) = holding("secrets", "CONDUIT_REGISTRATION_TOKEN=12345678\n");
    let ran = fleet(&["lint", &file, "--env-file", &variables]);
    assert_eq!(
        ran.code,
        i32::from(Exit::Deployment.code()),
        "{}",
        ran.said()
    );
    assert!(
        ran.stdout.contains("takes a string, not an integer"),
        "{}",
        ran.said()
    );
}
