//! Every class of findings, seen to fire and seen to be silent.
//!
//! The effect is the real server's; what is held here against the expectation is also what the differential scenarios
//! hold against Conduit itself.

pub use fleet_lint::example::{BASE, UNIT, with};
use fleet_lint::example::{all as rules, instead};
use fleet_lint::{Code, Diagnostic, Effect, Kind, Source, lint};

/// Where the classes of what two files say are seen to fire and to be silent.
const BETWEEN_FILES: &str = include_str!("../cross.rs");

/// Classes that are seen to fire and to be silent in other tests.
const ELSEWHERE: &[Code] = &[
    Code::Unreadable,     // files
    Code::LongServerName, // below
];

pub fn judged(kind: Kind, text: &str) -> Vec<Diagnostic> {
    lint(&[Source::new("a file", kind, text)])
}

fn said(findings: &[Diagnostic]) -> String {
    fleet_lint::render::human(findings, false)
}

#[test]
fn every_rule_fires_where_it_must_and_names_the_place_and_the_effect() {
    for rule in rules() {
        let (text, at) = &rule.fires;
        let findings = judged(rule.kind, text);
        let found = findings.iter().any(|finding| {
            let span = finding.primary.span.clone();
            finding.code == rule.code
                && finding.effect == rule.effect
                && (at.is_empty() || finding.primary.source.text()[span] == **at)
        });
        assert!(
            found,
            "`{}` with {:?} at `{at}` is not said of\n{text}\n{}",
            rule.code.slug(),
            rule.effect,
            said(&findings)
        );
        let shown = rule.finding().map(|finding| finding.code);
        assert_eq!(shown, Some(rule.code), "what `--explain` shows");
    }
}

#[test]
fn every_rule_is_silent_where_it_must_be() {
    for rule in rules() {
        let findings = judged(rule.kind, &rule.silent);
        let found = findings.iter().any(|finding| finding.code == rule.code);
        assert!(
            !found,
            "`{}` is said of\n{}\n{}",
            rule.code.slug(),
            rule.silent,
            said(&findings)
        );
    }
}

#[test]
fn every_class_has_such_a_rule() {
    let rules = rules();
    for code in Code::ALL {
        assert!(
            ELSEWHERE.contains(code)
                || rules.iter().any(|rule| rule.code == *code)
                || BETWEEN_FILES.contains(&format!("Code::{code:?}")),
            "`{}` is never seen to fire",
            code.slug()
        );
    }
}

#[test]
fn the_names_of_the_classes_are_distinct_and_in_kebab_case() {
    let mut seen = std::collections::BTreeSet::new();
    for code in Code::ALL {
        let slug = code.slug();
        assert!(seen.insert(slug), "`{slug}` stands for two classes");
        assert!(
            slug.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "{slug}"
        );
        assert_eq!(Code::from_slug(slug), Some(*code));
        assert!(code.summary().ends_with('.'), "{slug}");
    }
}

#[test]
fn there_is_nothing_to_say_of_the_base() {
    assert_eq!(said(&judged(Kind::Conduit, BASE)), "");
    assert_eq!(said(&judged(Kind::Unit, UNIT)), "");
}

/// `@conduit:` and a name of 246 bytes are 255, the most that an account's name may have.
#[test]
fn a_server_name_of_247_bytes_panics_and_one_of_246_does_not() {
    let named = |length| {
        let name = "a".repeat(length);
        judged(
            Kind::Conduit,
            &instead("server_name", &format!("server_name = \"{name}\"")),
        )
    };
    assert_eq!(said(&named(246)), "");
    let findings = named(247);
    assert_eq!(findings.len(), 1, "{}", said(&findings));
    assert_eq!(findings[0].code, Code::LongServerName);
    assert_eq!(findings[0].effect, Effect::Fatal { exit: 101 });
}

/// The server stops at the first step that fails, whatever else is wrong.
#[test]
fn of_several_fatal_findings_the_earliest_step_decides_the_exit_code() {
    let exit = |text: &str| fleet_lint::predicted_exit(&judged(Kind::Conduit, text));
    let panics = "tls = { certs = \"\", key = \"\" }";
    assert_eq!(exit(BASE), None);
    assert_eq!(exit(&with(panics)), Some(101));
    assert_eq!(exit(&with(&format!("{panics}\nport = true"))), Some(1));
    assert_eq!(
        exit(&with(&format!("{panics}\nregistration_token = \"\""))),
        Some(1)
    );
}

#[test]
fn a_value_of_default_that_global_replaces_is_not_judged() {
    let text = with("port = 6167\n[default]\nport = \"nonsense\"");
    assert_eq!(
        fleet_lint::predicted_exit(&judged(Kind::Conduit, &text)),
        None
    );
}

#[test]
fn tables_of_default_and_global_are_one_table() {
    let text = with("[global.media]\npath = \"/m\"\n[default.media]\nbackend = \"filesystem\"");
    assert_eq!(said(&judged(Kind::Conduit, &text)), "");
}
