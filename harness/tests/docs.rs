//! The documents of this repository, as [`harness::docs`] judges them: what it says about each kind of mistake is
//! tested beside it.

use fixtures::bad;
use harness::{docs, operator, paths};
use std::fs;
use std::path::Path;

#[test]
fn every_document_is_sound() {
    let problems = docs::check(paths::repository())
        .unwrap_or_else(|error| panic!("{error}: {:?}", error.source));
    let list: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(
        list.is_empty(),
        "{} problems:\n\n{}\n",
        list.len(),
        list.join("\n\n")
    );
}

/// Were nothing looked at, every document would be sound.
#[test]
fn a_mistake_in_any_document_of_this_repository_would_be_found() {
    let copy = tempfile::tempdir().expect("a directory");
    let mut documents = Vec::new();
    for place in [
        ".",
        "deploy",
        "deploy/runbooks",
        "docs/matrix-fleet-comms",
        "scenarios",
    ] {
        for entry in fs::read_dir(paths::repository().join(place)).expect("the directory is there")
        {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("a UTF-8 name");
            if !name.ends_with(".md") {
                continue;
            }
            let document = Path::new(place).join(name);
            fs::create_dir_all(copy.path().join(place)).expect("make its directory");
            let mut text = fs::read_to_string(&path).expect("it can be read");
            text.push_str("\n\n[nowhere](nowhere-at-all.md)\n\n```sh\nfree -m\n```\n");
            fs::write(copy.path().join(&document), text).expect("write it");
            documents.push(document);
        }
    }
    assert!(documents.len() >= 5, "{documents:?}");
    let problems = docs::check(copy.path()).expect("they can be read");
    for document in documents {
        let document = document.strip_prefix(".").unwrap_or(&document);
        for message in ["nowhere-at-all.md", "fence `sh`"] {
            let found = problems
                .iter()
                .any(|problem| problem.file == document && problem.message.contains(message));
            assert!(found, "`{message}` was not found in {}", document.display());
        }
    }
}

#[test]
fn every_bad_runbook_is_refused_with_file_and_line_at_its_stage() {
    let nothing = std::collections::BTreeMap::new();
    for runbook in bad::RUNBOOKS {
        let read = operator::read_runbook(&Path::new(fixtures::BAD_RUNBOOKS).join(runbook.file));
        let refusal = match (runbook.stage, read) {
            (bad::Stage::Read, Err(failure)) => failure,
            (bad::Stage::Plan, Ok(read)) => {
                operator::plan_runbook(&read, &nothing).expect_err("it lacks a variable")
            }
            (bad::Stage::Follow, Ok(read)) => {
                let planned = operator::plan_runbook(&read, &nothing);
                planned.unwrap_or_else(|failure| {
                    panic!("{}: only following it finds out\n{failure}", runbook.file)
                });
                continue;
            }
            (stage, Ok(_)) => panic!("{} is not refused at stage {stage:?}", runbook.file),
            (stage, Err(failure)) => panic!(
                "{} is refused before stage {stage:?}\n{failure}",
                runbook.file
            ),
        };
        let missing = runbook.missing_from(&refusal.to_string());
        assert!(
            missing.is_empty(),
            "{}: {missing:?} are not said:\n{refusal}",
            runbook.file
        );
        assert_eq!(refusal.blame, harness::Blame::Deployment, "{refusal}");
    }
}
