//! Every manifest in `fixtures/` is judged as it says of itself: a bad one ends with the message it must get (`#!`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use fleet_bootstrap::{
    Manifest,
    manifest::{JoinRule, Role},
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

#[test]
fn every_bad_manifest_gets_the_message_that_it_names() {
    let mut judged = 0;
    for entry in fs::read_dir(fixtures().join("bad/manifests")).expect("bad manifests") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let source = fs::read_to_string(&path).expect("a readable fixture");
        let expected: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("#! "))
            .collect();
        assert!(!expected.is_empty(), "{} names no message", path.display());
        let problems = Manifest::parse(&source, "F", None)
            .map(|_| ())
            .expect_err(&format!("{} was accepted", path.display()));
        let got = problems.to_string().replace("F:", "");
        assert_eq!(got, expected.join("\n"), "{}", path.display());
        judged += 1;
    }
    assert!(judged >= 40, "only {judged} bad manifests were found");
}

#[test]
fn the_fleets_manifest_declares_five_accounts_and_three_rooms() {
    let manifest = Manifest::load(&fixtures().join("fleet.toml"), None).expect("a valid manifest");
    assert_eq!(manifest.server_name, "timmy.foundation");
    let names: Vec<_> = manifest.accounts.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["admin", "alexander", "ezra", "timmy", "canary"]);
    assert_eq!(manifest.administrator().name, "admin");
    assert_eq!(manifest.accounts[1].role, Role::Operator);
    assert_eq!(
        manifest.canary().map(|account| account.name.as_str()),
        Some("canary")
    );
    let rooms: Vec<_> = manifest
        .rooms
        .iter()
        .map(|r| manifest.alias_id(&r.alias))
        .collect();
    assert_eq!(
        rooms,
        [
            "#fleet-ops:timmy.foundation",
            "#fleet-intel:timmy.foundation",
            "#fleet-social:timmy.foundation"
        ]
    );
    for room in &manifest.rooms {
        assert_eq!(
            (room.version.as_str(), room.creator.as_str()),
            ("12", "admin")
        );
        assert_eq!(room.join_rule, JoinRule::Invite);
        assert_eq!(room.encrypted, room.alias == "fleet-ops");
        assert_eq!(room.members, names[..4], "all but the canary");
    }
}

#[test]
fn another_server_name_replaces_the_declared_one_in_every_id() {
    let manifest = Manifest::load(&fixtures().join("fleet.toml"), Some("garden.test"))
        .expect("a valid manifest");
    assert_eq!(manifest.user_id("ezra"), "@ezra:garden.test");
    assert_eq!(manifest.alias_id("fleet-ops"), "#fleet-ops:garden.test");
    let levels = manifest.power_levels(&manifest.rooms[0]);
    assert!(
        levels
            .users
            .keys()
            .all(|user| user.ends_with(":garden.test"))
    );
    let problems = Manifest::load(&fixtures().join("fleet.toml"), Some("garden test"))
        .expect_err("not a server name");
    assert!(
        problems
            .to_string()
            .contains("`garden test` is not a server name")
    );
}

#[test]
fn every_fault_is_reported_and_not_only_the_first() {
    let source = fs::read_to_string(fixtures().join("fleet.toml")).expect("a fixture");
    let source = source
        .replace(
            "creator = \"admin\"\nmembers",
            "creator = \"root\"\nmembers",
        )
        .replace("ezra = 50", "esra = 50");
    let problems = Manifest::parse(&source, "F", None)
        .expect_err("faulty")
        .problems;
    assert!(problems.len() >= 2, "{problems:?}");
    assert!(problems.is_sorted_by_key(|p| (p.line, p.column)));
}
