//! What the server would really run with: the file, and on top of it the variables of its unit and its environment
//! files.

use super::rules::{BASE, UNIT, judged, with};
use fleet_lint::{Code, Diagnostic, Effect, Kind, Severity, Source, lint, predicted_exit, render};

fn together(files: &[(&str, Kind, &str)]) -> Vec<Diagnostic> {
    let sources: Vec<_> = files
        .iter()
        .map(|(name, kind, text)| Source::new(*name, *kind, *text))
        .collect();
    lint(&sources)
}

fn with_variables(toml: &str, variables: &str) -> Vec<Diagnostic> {
    together(&[
        ("conduit.toml", Kind::Conduit, toml),
        ("conduit.env", Kind::Environment, variables),
    ])
}

fn said(findings: &[Diagnostic]) -> String {
    render::human(findings, false)
}

#[track_caller]
fn has(findings: &[Diagnostic], code: Code, file: &str) {
    assert!(
        findings
            .iter()
            .any(|finding| finding.code == code && finding.primary.source.name() == file),
        "no `{}` at {file}\n{}",
        code.slug(),
        said(findings)
    );
}

#[track_caller]
fn clean(findings: &[Diagnostic]) {
    assert!(findings.is_empty(), "{}", said(findings));
}

#[test]
fn a_variable_fills_what_the_file_lacks() {
    let lacking = BASE.replace("server_name", "#server_name");
    assert_eq!(predicted_exit(&judged(Kind::Conduit, &lacking)), Some(1));
    clean(&with_variables(&lacking, "CONDUIT_SERVER_NAME=vale.test"));
}

#[test]
fn a_variable_mends_what_the_file_has_wrong_and_breaks_what_it_has_right() {
    clean(&with_variables(&with("port = true"), "CONDUIT_PORT=1"));
    let findings = with_variables(&with("port = 1"), "CONDUIT_PORT=6_167");
    has(&findings, Code::WrongType, "conduit.env");
    assert_eq!(predicted_exit(&findings), Some(1));
}

#[test]
fn a_contradiction_across_file_and_variable_is_found() {
    let findings = with_variables(BASE, "CONDUIT_ALLOW_REGISTRATION=true");
    has(&findings, Code::OpenRegistration, "conduit.env");
    let findings = with_variables(
        &with("allow_registration = true"),
        "CONDUIT_REGISTRATION_TOKEN=",
    );
    has(&findings, Code::EmptyToken, "conduit.env");
    assert_eq!(predicted_exit(&findings), Some(1));
}

#[test]
fn any_variable_of_media_makes_the_table_which_then_needs_a_backend() {
    let findings = with_variables(BASE, "CONDUIT_MEDIA_PATH=/srv/media");
    has(&findings, Code::MediaWithoutBackend, "conduit.env");
    clean(&with_variables(
        BASE,
        "CONDUIT_MEDIA_PATH=/srv/media\nCONDUIT_MEDIA_BACKEND=filesystem",
    ));
    clean(&with_variables(
        &with("[global.media]\nbackend = \"filesystem\""),
        "CONDUIT_MEDIA_PATH=/srv/media",
    ));
}

#[test]
fn names_of_variables_are_read_without_regard_to_case() {
    clean(&with_variables(
        &BASE.replace("server_name", "#"),
        "conduit_Server_NAME=vale.test",
    ));
}

/// Each as systemd hands it on and figment reads it; the numbers are those that a port takes or not.
#[test]
fn the_quoting_of_an_environment_file_is_undone_as_systemd_does() {
    for (line, starts) in [
        ("CONDUIT_PORT=6167", true),
        ("CONDUIT_PORT = 6167", true),
        ("CONDUIT_PORT='6167'", true),
        ("CONDUIT_PORT=\"6167\"", true),
        ("CONDUIT_PORT='\"6167\"'", false),
        ("CONDUIT_PORT=6167 # not a comment", false),
        ("CONDUIT_PORT=61\\\n67", true),
        ("CONDUIT_PORT=61\"67\"", false),
        ("CONDUIT_PORT='61''67'", true),
        ("# CONDUIT_PORT=x \\\nCONDUIT_PORT=x", true),
        ("CONDUIT_PORT=x\nCONDUIT_PORT=6167", true),
        ("CONDUIT_PORT=+6167", true),
        ("CONDUIT_PORT=", false),
    ] {
        let findings = with_variables(BASE, line);
        assert_eq!(
            predicted_exit(&findings).is_none(),
            starts,
            "{line}\n{}",
            said(&findings)
        );
    }
}

#[test]
fn variables_alone_are_a_whole_configuration_where_the_path_is_empty() {
    let whole = "CONDUIT_CONFIG=\nCONDUIT_SERVER_NAME=vale.test\nCONDUIT_DATABASE_BACKEND=rocksdb\n\
                 CONDUIT_DATABASE_PATH=/srv/conduit\nCONDUIT_ALLOW_FEDERATION=true\nCONDUIT_ALLOW_CHECK_FOR_UPDATES=false";
    clean(&judged(Kind::Environment, whole));
    let findings = judged(
        Kind::Environment,
        &whole.replace("CONDUIT_SERVER_NAME", "NAME"),
    );
    has(&findings, Code::MissingKey, "a file");
    assert_eq!(predicted_exit(&findings), Some(1));
}

/// Without its file nothing is known to be missing.
#[test]
fn of_variables_alone_only_what_is_certain_is_said() {
    clean(&judged(
        Kind::Environment,
        "CONDUIT_ALLOW_REGISTRATION=true\nCONDUIT_MEDIA_PATH=/m\nOTHER=thing",
    ));
}

#[test]
fn a_units_variables_lie_on_top_of_the_file_that_it_names() {
    let unit = format!("{UNIT}Environment=CONDUIT_PORT=yes CONDUIT_ADDRESS=127.0.0.1\n");
    let findings = together(&[
        ("kit/conduit.toml", Kind::Conduit, BASE),
        ("conduit.service", Kind::Unit, &unit),
    ]);
    has(&findings, Code::WrongType, "conduit.service");
    assert_eq!(findings.len(), 1, "{}", said(&findings));
    let at = &findings[0].primary;
    assert_eq!(&at.source.text()[at.span.clone()], "yes");
}

#[test]
fn an_environment_file_belongs_to_the_unit_that_names_it() {
    let unit = format!("{UNIT}EnvironmentFile=-/run/conduit/secrets.env\n");
    let judge = |variables: &str| {
        together(&[
            (
                "conduit.toml",
                Kind::Conduit,
                &with("allow_registration = true"),
            ),
            ("conduit.service", Kind::Unit, &unit),
            ("secrets.env", Kind::Environment, variables),
        ])
    };
    clean(&judge("CONDUIT_REGISTRATION_TOKEN=a-long-token\n"));
    has(&judge(""), Code::OpenRegistration, "conduit.toml");
}

/// An environment file goes before the unit's own lines, wherever it stands.
#[test]
fn an_environment_file_goes_before_the_units_lines() {
    let unit = format!(
        "[Service]\nEnvironmentFile=\n{UNIT}EnvironmentFile=/etc/a.env\nEnvironment=CONDUIT_PORT=no\n"
    );
    clean(&together(&[
        ("conduit.toml", Kind::Conduit, BASE),
        ("conduit.service", Kind::Unit, &unit),
        ("a.env", Kind::Environment, "CONDUIT_PORT=1"),
    ]));
}

#[test]
fn an_empty_environment_line_forgets_those_before_it() {
    let unit = format!("{UNIT}Environment=\n");
    has(&judged(Kind::Unit, &unit), Code::ConfigMissing, "a file");
    // What an environment file that is not at hand says is not known.
    let unit = format!("{unit}EnvironmentFile=/etc/conduit.env\n");
    clean(&judged(Kind::Unit, &unit));
}

#[test]
fn quotes_and_continued_lines_of_a_unit_are_understood() {
    for (lines, clean) in [
        (
            "Environment=\"CONDUIT_LOG=warn,conduit=info\" CONDUIT_PORT=1",
            true,
        ),
        (
            "Environment=CONDUIT_PORT=1 \\\n  CONDUIT_ADDRESS=127.0.0.1",
            true,
        ),
        (
            "Environment=CONDUIT_PORT=1 \\\n# between\n  CONDUIT_ADDRESS=nowhere",
            false,
        ),
        (
            "Environment=CONDUIT_LOG=warn\\\\\nEnvironment=CONDUIT_PORT=x",
            false,
        ),
        ("Environment='CONDUIT_PORT=x'", false),
        ("Environment=CONDUIT_PORT='1'", true),
    ] {
        let findings = judged(Kind::Unit, &format!("{UNIT}{lines}\n"));
        assert_eq!(findings.is_empty(), clean, "{lines}\n{}", said(&findings));
    }
}

#[test]
fn a_unit_that_runs_something_else_is_none_of_our_business() {
    clean(&judged(
        Kind::Unit,
        "[Service]\nType=notify\nRestart=always\nExecStart=/usr/bin/caddy run\n",
    ));
}

#[test]
fn a_path_that_names_a_directory_reads_as_an_empty_configuration() {
    let findings = judged(Kind::Unit, &UNIT.replace("/conduit.toml", "/"));
    has(&findings, Code::ConfigPath, "a file");
    assert_eq!(predicted_exit(&findings), Some(1));
}

#[test]
fn a_path_that_names_none_of_the_files_is_told() {
    let findings = together(&[
        ("conduit.toml", Kind::Conduit, BASE),
        (
            "conduit.service",
            Kind::Unit,
            &UNIT.replace("conduit.toml", "server.toml"),
        ),
    ]);
    has(&findings, Code::ConfigPath, "conduit.service");
}

/// Whoever gives it to the server expects something of it; only the kit's own scripts have variables of the same prefix.
#[test]
fn a_variable_that_conduit_does_not_read_is_a_warning_and_near_to_one_that_it_does_an_error() {
    let findings = judged(Kind::Environment, "CONDUIT_SOMETHING_ELSE=1");
    assert_eq!(findings.len(), 1, "{}", said(&findings));
    assert_eq!(findings[0].severity, Severity::Warning);
    assert_eq!(findings[0].effect, Effect::Ignored);
    let findings = judged(Kind::Environment, "CONDUIT_ALLOW_FEDERATON=true");
    assert_eq!(findings[0].severity, Severity::Error, "{}", said(&findings));
    clean(&judged(Kind::Environment, "CONDUIT_ROOT=/opt/conduit"));
}

#[test]
fn the_order_of_the_files_changes_nothing() {
    let files = [
        ("a.toml", Kind::Conduit, with("port = true\n[turn]\nx = 1")),
        (
            "b.env",
            Kind::Environment,
            "CONDUIT_ADDRESS=x\nCONDUIT_LOG__X=1".to_owned(),
        ),
        ("c.service", Kind::Unit, UNIT.replace("exec", "notify")),
    ];
    let judge = |order: [usize; 3]| {
        let sources: Vec<_> = order
            .iter()
            .map(|&at| {
                let (name, kind, text) = &files[at];
                Source::new(*name, *kind, text.as_str())
            })
            .collect();
        said(&lint(&sources))
    };
    assert_eq!(judge([0, 1, 2]), judge([2, 1, 0]));
    assert_eq!(judge([0, 1, 2]), judge([1, 2, 0]));
}

/// Whatever can be said of a key's value in the file is said of it in a variable too.
#[test]
fn an_environment_override_is_judged_as_the_same_value_in_the_file() {
    let said_of = |findings: Vec<Diagnostic>| {
        let mut said: Vec<_> = findings
            .iter()
            // The old names of the TURN settings are the only ones that a variable reaches.
            .filter(|finding| finding.code != Code::DeprecatedKey)
            .map(|finding| (finding.code, finding.severity, finding.effect))
            .collect();
        said.sort_unstable_by_key(|(code, ..)| *code);
        // The elements of a variable's array all have one place, and are said once.
        said.dedup();
        said
    };
    let mut compared = 0;
    for located in fleet_lint::catalogue::all() {
        let Some(variable) = fleet_lint::catalogue::variable_of(&located.path) else {
            continue;
        };
        for (toml, value) in [
            ("true", "true"),
            ("12", "12"),
            ("-5", "-5"),
            ("1.5", "1.5"),
            ("70000", "70000"),
            ("\"\"", ""),
            ("\"x\"", "x"),
            ("\"12\"", "'\"12\"'"),
            ("\"http://a.test\"", "http://a.test"),
            ("\"8.8.8.8\"", "8.8.8.8"),
            ("\"rocksdb\"", "rocksdb"),
            ("\"filesystem\"", "filesystem"),
            ("[]", "[]"),
            ("[\"a.test\", \"b\"]", "'[\"a.test\", b]'"),
            ("{ length = 8, depth = 9 }", "{length=8,depth=9}"),
            ("[{ accessed = \"30d\" }]", "[{accessed=30d}]"),
        ] {
            let first = located.path[0];
            let base: String = BASE
                .lines()
                .filter(|line| !line.starts_with(&format!("{first} ")))
                .map(|line| format!("{line}\n"))
                .collect();
            let in_file = judged(
                Kind::Conduit,
                &format!("{base}{} = {toml}\n", located.path.join(".")),
            );
            let on_top = with_variables(&base, &format!("{variable}={value}"));
            assert_eq!(
                said_of(in_file),
                said_of(on_top),
                "{variable}={value} against {} = {toml}",
                located.path.join(".")
            );
            compared += 1;
        }
    }
    assert!(compared > 600, "{compared}");
}

/// Its drop-ins are part of a unit, in the order of their names; alone they are none.
#[test]
fn a_drop_in_is_judged_with_its_unit() {
    let drop_in = |name: &str, text: &str| {
        Source::new(
            format!("/etc/systemd/system/{name}"),
            Kind::Unit,
            format!("[Service]\n{text}\n"),
        )
    };
    let restart = drop_in("conduit.service.d/b.conf", "Restart=always");
    let prevent = drop_in("service.d/a.conf", "RestartPreventExitStatus=1");
    let port = drop_in("conduit.service.d/c.conf", "Environment=CONDUIT_PORT=yes");
    let unit = Source::new("conduit.service", Kind::Unit, UNIT);
    let findings = lint(&[restart.clone(), unit.clone()]);
    has(&findings, Code::UnitRestart, restart.name());
    clean(&lint(&[restart.clone(), unit.clone(), prevent]));
    has(
        &lint(&[unit, port]),
        Code::WrongType,
        "/etc/systemd/system/conduit.service.d/c.conf",
    );
    clean(&lint(&[restart]));
}

/// `--env-file` names one that no unit knows of.
#[test]
fn variables_that_no_unit_names_lie_on_top_of_every_start() {
    let judge = |variables: &str| {
        together(&[
            ("conduit.toml", Kind::Conduit, BASE),
            ("conduit.service", Kind::Unit, UNIT),
            ("more", Kind::Environment, variables),
        ])
    };
    has(
        &judge("CONDUIT_ALLOW_REGISTRATION=true"),
        Code::OpenRegistration,
        "more",
    );
    has(&judge("CONDUIT_PORT=yes"), Code::WrongType, "more");
    clean(&judge("CONDUIT_PORT=1"));
}

/// `%H` is the host's name, which only systemd knows.
#[test]
fn what_a_specifier_of_a_unit_comes_to_is_not_guessed() {
    let unit = UNIT.replace(
        "/opt/conduit/conduit.toml",
        "%E/conduit.toml CONDUIT_SERVER_NAME=%H",
    );
    let lacking = BASE.replace("server_name", "#server_name");
    let judge = |toml: &str| {
        together(&[
            ("conduit.toml", Kind::Conduit, toml),
            ("conduit.service", Kind::Unit, &unit),
        ])
    };
    clean(&judge(&lacking));
    has(
        &judge(&format!("{lacking}port = true\n")),
        Code::WrongType,
        "conduit.toml",
    );
}
