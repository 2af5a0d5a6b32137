//! What programs read.

use super::rules::{judged, with};
use fleet_lint::{Diagnostic, Kind, Source, catalogue, lint, render};
use serde_json::Value;

fn findings() -> Vec<Diagnostic> {
    judged(
        Kind::Conduit,
        &with(
            "\"ärger\" = 1 # ä\nport = \"6167\"\nallow_registration = true\nregistration_token = \"\"\n[turn]\nuris = []\nsecret = \"s\"",
        ),
    )
}

#[test]
fn json_has_the_documented_schema() {
    let findings = findings();
    let source = findings[0].primary.source.clone();
    let json: Value = serde_json::from_str(&render::json(&findings, &[source])).expect("JSON");
    assert_eq!(json["version"], 1);
    assert_eq!(json["files"][0], "a file");
    assert_eq!(json["summary"]["conduit_exit"], 1);
    let all = json["findings"].as_array().expect("an array");
    assert_eq!(all.len(), findings.len());
    let port = all
        .iter()
        .find(|finding| finding["code"] == "wrong-type")
        .expect("it is found");
    assert_eq!(port["severity"], "error");
    assert_eq!(
        port["effect"],
        serde_json::json!({ "kind": "fatal", "exit": 1 })
    );
    assert_eq!(port["start"]["line"], 8);
    assert_eq!(port["start"]["column"], 8);
    assert_eq!(port["fix"]["safe"], true);
    assert_eq!(port["fix"]["edits"][0]["replacement"], "6167");
    for finding in all {
        for key in [
            "code", "severity", "effect", "message", "label", "file", "start", "end", "related",
            "notes", "fix",
        ] {
            assert!(
                finding.get(key).is_some(),
                "`{key}` is missing in {finding}"
            );
        }
    }
}

/// The types are generated from the schema that OASIS publishes: a field that is missing or mistyped does not
/// deserialize.
#[test]
fn sarif_is_what_its_schema_asks_for() {
    let findings = findings();
    let text = render::sarif(&findings);
    let sarif: serde_sarif::sarif::Sarif = serde_json::from_str(&text).expect("SARIF 2.1.0");
    let run = &sarif.runs[0];
    let rules = run.tool.driver.rules.as_ref().expect("rules");
    let results = run.results.as_ref().expect("results");
    assert_eq!(results.len(), findings.len());
    for (result, finding) in results.iter().zip(&findings) {
        assert_eq!(result.rule_id.as_deref(), Some(finding.code.slug()));
        let index =
            usize::try_from(result.rule_index.expect("an index")).expect("it counts from 0");
        assert_eq!(rules[index].id, finding.code.slug());
        let region = result.locations.as_ref().expect("a place")[0]
            .physical_location
            .as_ref()
            .and_then(|place| place.region.as_ref())
            .expect("a region");
        assert!(region.start_line >= Some(1) && region.start_column >= Some(1));
    }
    // Nothing of it was lost on the way: no field has a name that the schema does not know.
    let again: Value = serde_json::to_value(&sarif).expect("JSON");
    let first: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(again["runs"][0]["results"], first["runs"][0]["results"]);
}

#[test]
fn the_summary_counts_and_predicts() {
    assert_eq!(render::summary(&[], 3), "3 files: nothing to say");
    let findings = judged(Kind::Conduit, &with("port = \"6167\""));
    assert_eq!(
        render::summary(&findings, 1),
        "1 file: 1 error; Conduit does not start (exit 1); `--fix` mends 1"
    );
}

/// The names that the environment reaches, by the real server's rule and by hand.
#[test]
fn the_variable_of_a_key_is_known_where_there_is_one() {
    for (path, variable) in [
        (&["port"][..], Some("CONDUIT_PORT")),
        (&["tls", "certs"], Some("CONDUIT_TLS_CERTS")),
        (&["well_known", "client"], Some("CONDUIT_WELL_KNOWN_CLIENT")),
        (
            &["media", "directory_structure", "length"],
            Some("CONDUIT_MEDIA_DIRECTORY_STRUCTURE_LENGTH"),
        ),
        (&["media", "retention"], Some("CONDUIT_MEDIA_RETENTION")),
        (&["turn", "secret"], None),
        (&["proxy", "global", "url"], None),
    ] {
        assert_eq!(
            catalogue::variable_of(path).as_deref(),
            variable,
            "{path:?}"
        );
    }
}

#[test]
fn every_key_of_the_catalogue_has_an_effect_a_place_and_a_default_that_it_takes() {
    for located in catalogue::all() {
        let (name, key) = (located.dotted(), located.key);
        assert!(
            key.effect.ends_with('.') && key.effect.starts_with(char::is_uppercase),
            "{name}: {}",
            key.effect
        );
        assert!(!key.at.is_empty(), "{name}");
        let (Some(default), [path]) = (key.default, &located.path[..]) else {
            continue;
        };
        let text = with(&format!("{path} = {default}"))
            .replacen(
                &format!(
                    "\nallow_federation = true\n{}",
                    if *path == "allow_federation" {
                        ""
                    } else {
                        "\u{0}"
                    }
                ),
                "\n",
                1,
            )
            .replacen(
                &format!(
                    "allow_check_for_updates = false\n{}",
                    if *path == "allow_check_for_updates" {
                        ""
                    } else {
                        "\u{0}"
                    }
                ),
                "",
                1,
            );
        let findings = lint(&[Source::new("x", Kind::Conduit, text.as_str())]);
        assert_eq!(
            fleet_lint::predicted_exit(&findings),
            None,
            "{text}\n{}",
            render::human(&findings, false)
        );
    }
}
