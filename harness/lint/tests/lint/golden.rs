//! What a person reads, under snapshot: configurations that have gone wrong, and all that is to be said of them.
//! `INSTA_UPDATE=always` rewrites them; read the difference.

use super::rules::judged;
use fleet_lint::{Diagnostic, Effect, Kind, Severity, Source, lint, render};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn fixture(name: &str) -> Source {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/files")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let kind = Kind::detect(name, &text).unwrap_or_else(|| panic!("what is {name}?"));
    Source::new(name, kind, text)
}

fn said(findings: &[Diagnostic], files: usize) -> String {
    format!(
        "{}{}\n",
        render::human(findings, false),
        render::summary(findings, files)
    )
}

fn snapshot(name: &str, files: &[&str]) {
    let sources: Vec<_> = files.iter().map(|file| fixture(file)).collect();
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, said(&lint(&sources), files.len()));
    });
}

/// Of its seventeen lines, four do what they say.
#[test]
fn the_first_design_is_told_all_that_is_wrong_with_it() {
    snapshot("first-design", &["first-design.conduit.toml"]);
}

/// Every key that the first design wrote outside of `[global]` has no effect, and is told so by its own line.
#[test]
fn no_line_of_the_first_design_that_is_dropped_goes_unsaid() {
    let source = fixture("first-design.conduit.toml");
    let findings = lint(std::slice::from_ref(&source));
    let dropped: Vec<usize> = findings
        .iter()
        .filter(|finding| finding.effect == Effect::Ignored)
        .map(|finding| source.position(finding.primary.span.start).0)
        .collect();
    let first = 1 + source
        .text()
        .lines()
        .position(|line| line.contains("registration"))
        .expect("it has a table of that name");
    for (at, line) in source.text().lines().enumerate().skip(first - 1) {
        let says_something = !line.trim().is_empty() && !line.starts_with('#');
        assert!(
            !says_something || dropped.contains(&(at + 1)),
            "line {} goes unsaid: {line}",
            at + 1
        );
    }
}

/// What upstream ships as an example asks for a name, and then refuses its own empty token.
#[test]
fn the_traps_of_the_example_that_upstream_ships_are_told() {
    snapshot("shipped-example", &["shipped-example.conduit.toml"]);
}

#[test]
fn the_documented_turn_table_is_told_to_be_dropped() {
    snapshot("documented-turn", &["documented-turn.conduit.toml"]);
}

#[test]
fn the_documented_retention_is_told_to_need_a_backend_and_a_scope() {
    snapshot(
        "documented-retention",
        &["documented-retention.conduit.toml"],
    );
}

#[test]
fn the_documented_ignored_keys_are_told_to_be_of_another_type() {
    snapshot(
        "documented-ignored-keys",
        &["documented-ignored-keys.conduit.toml"],
    );
}

#[test]
fn variables_are_judged_as_conduit_parses_them() {
    snapshot("variables", &["plain.conduit.toml", "variables.env"]);
}

#[test]
fn a_unit_is_told_what_has_cost_others_their_server() {
    snapshot("unit", &["careless.service"]);
}

/// An operator reads this output without colours, in a log; with them it is the same text.
#[test]
fn colour_adds_nothing_but_colour() {
    let source = fixture("first-design.conduit.toml");
    let findings = lint(&[source]);
    let coloured = render::human(&findings, true);
    assert!(coloured.contains("\u{1b}["), "nothing is coloured");
    let mut plain = String::new();
    let mut chars = coloured.chars();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            for char in chars.by_ref() {
                if char.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(char);
        }
    }
    assert_eq!(plain, render::human(&findings, false));
}

#[test]
fn there_is_nothing_to_say_of_the_kits_own_files() {
    let mut sources = Vec::new();
    for name in [
        "conduit.toml",
        "conduit.service",
        "conduit-bootstrap.service",
        "conduit-backup.service",
        "conduit-health.service",
    ] {
        let path = root().join("deploy/conduit").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let kind = Kind::detect(name, &text).unwrap_or_else(|| panic!("what is {name}?"));
        sources.push(Source::new(name, kind, text));
    }
    let findings = lint(&sources);
    assert!(findings.is_empty(), "{}", said(&findings, sources.len()));
}

/// Were the kit's files not looked at, there would be nothing to say of them either.
#[test]
fn a_mistake_in_any_of_the_kits_own_files_is_found() {
    let read = |name: &str| {
        std::fs::read_to_string(root().join("deploy/conduit").join(name)).expect("it is there")
    };
    for (name, kind, of, instead) in [
        (
            "conduit.toml",
            Kind::Conduit,
            "allow_federation = true",
            "allow_federaton = true",
        ),
        ("conduit.toml", Kind::Conduit, "[global.media]", "[media]"),
        ("conduit.toml", Kind::Conduit, "scope = \"remote\"", ""),
        (
            "conduit.service",
            Kind::Unit,
            "Restart=on-abnormal",
            "Restart=on-failure\n#",
        ),
        (
            "conduit-bootstrap.service",
            Kind::Unit,
            "CONDUIT_PORT=6168",
            "CONDUIT_PORT=6_168",
        ),
    ] {
        let mut text = read(name);
        assert!(text.contains(of), "{name} has no `{of}`");
        if instead.starts_with("Restart") {
            text = text.replace("RestartPreventExitStatus=1", "");
        }
        let findings = judged(kind, &text.replacen(of, instead, 1));
        assert!(
            findings
                .iter()
                .any(|finding| finding.severity == Severity::Error),
            "`{instead}` in {name} is not found"
        );
    }
}
