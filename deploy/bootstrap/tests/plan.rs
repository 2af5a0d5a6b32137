//! The difference between a manifest and what a homeserver has, without a homeserver.

use std::{collections::BTreeMap, path::Path};

use fleet_bootstrap::{
    Manifest,
    manifest::{MEGOLM, PowerLevels},
    observe::read_state,
    plan::{Action, MARKER, Observed, ObservedRoom, Plan, RoomState, plan},
};
use serde_json::json;

fn manifest() -> Manifest {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/fleet.toml");
    Manifest::load(&path, Some("garden.test")).expect("a valid manifest")
}

/// A homeserver that has exactly what the manifest declares.
fn as_declared(manifest: &Manifest) -> Observed {
    let mut observed = Observed {
        session: true,
        canary_session: true,
        administers: Some(true),
        ..Observed::default()
    };
    for account in &manifest.accounts {
        observed
            .accounts
            .insert(account.name.clone(), account.display_name.clone());
    }
    for room in &manifest.rooms {
        let room_id = format!("!{}", room.alias);
        observed.rooms.insert(
            room.alias.clone(),
            ObservedRoom {
                aliases: BTreeMap::from([(room.alias.clone(), Some(room_id.clone()))]),
                room_id,
                state: Some(RoomState {
                    made_for: Some(manifest.alias_id(&room.alias)),
                    creator: manifest.user_id(&room.creator),
                    version: room.version.clone(),
                    federate: true,
                    name: Some(room.name.clone()),
                    topic: Some(room.topic.clone()),
                    canonical_alias: Some(manifest.alias_id(&room.alias)),
                    join_rule: Some(room.join_rule.as_str().into()),
                    history_visibility: Some(room.history_visibility.as_str().into()),
                    guest_access: Some(room.guest_access.as_str().into()),
                    encryption: room.encrypted.then(|| MEGOLM.into()),
                    power_levels: manifest.power_levels(room),
                    members: room
                        .members
                        .iter()
                        .map(|member| (manifest.user_id(member), "join".into()))
                        .collect(),
                    ..RoomState::default()
                }),
            },
        );
    }
    observed
}

fn state<'a>(observed: &'a mut Observed, room: &str) -> &'a mut RoomState {
    observed
        .rooms
        .get_mut(room)
        .and_then(|room| room.state.as_mut())
        .expect("a room with state")
}

/// The lines of a plan that say that something would be done.
fn lines(plan: &Plan) -> Vec<String> {
    plan.to_string()
        .lines()
        .filter(|line| line.starts_with(['+', '~']))
        .map(str::to_owned)
        .collect()
}

/// What the plan says after one thing was changed by hand.
fn drift(change: impl FnOnce(&mut Observed)) -> Vec<String> {
    let manifest = manifest();
    let mut observed = as_declared(&manifest);
    change(&mut observed);
    let plan = plan(&manifest, &observed);
    assert_eq!(plan.conflicts, []);
    lines(&plan)
}

#[test]
fn a_site_that_is_as_declared_needs_nothing() {
    let manifest = manifest();
    let plan = plan(&manifest, &as_declared(&manifest));
    assert!(plan.is_empty());
    assert_eq!(
        plan.to_string(),
        "= account @admin:garden.test\n= account @alexander:garden.test\n= account @ezra:garden.test\n\
         = account @timmy:garden.test\n= account @canary:garden.test\n= room #fleet-ops:garden.test\n= room #fleet-intel:garden.test\n\
         = room #fleet-social:garden.test\n0 to add, 0 to change"
    );
}

#[test]
fn an_empty_homeserver_gets_the_administrator_first() {
    let mut manifest = manifest();
    manifest.accounts.rotate_left(2);
    let plan = plan(&manifest, &Observed::default());
    assert_eq!(
        plan.steps[0].action,
        Action::Register {
            account: "admin".into()
        }
    );
    let registered = plan.clone().accounts_only();
    assert_eq!(registered.steps.len(), 5);
    let rooms = plan
        .steps
        .iter()
        .filter(|step| matches!(step.action, Action::CreateRoom { .. }))
        .count();
    assert_eq!(rooms, 3);
}

#[test]
fn drift_is_named_with_what_is_and_what_was_declared() {
    assert_eq!(
        drift(|o| state(o, "fleet-ops").topic = Some("pwned".into())),
        ["~ #fleet-ops topic: \"pwned\" -> \"Commands from the operator to the fleet\""]
    );
    assert_eq!(
        drift(|o| state(o, "fleet-social").name = None),
        ["~ #fleet-social name: none -> \"Fleet social\""]
    );
    assert_eq!(
        drift(|o| {
            state(o, "fleet-intel")
                .power_levels
                .users
                .remove("@ezra:garden.test");
        }),
        ["~ #fleet-intel power level of @ezra:garden.test: 0 -> 50"]
    );
    assert_eq!(
        drift(|o| {
            let levels = &mut state(o, "fleet-ops").power_levels;
            levels.users.insert("@mallory:garden.test".into(), 100);
            levels.ban = 0;
            levels.events.insert("m.room.topic".into(), 0);
        }),
        [
            "~ #fleet-ops power to ban: 0 -> 100",
            "~ #fleet-ops power level of @mallory:garden.test: 100 -> 0",
            "~ #fleet-ops power to send m.room.topic: 0 -> default",
        ]
    );
    assert_eq!(
        drift(|o| state(o, "fleet-ops").join_rule = Some("public".into())),
        ["~ #fleet-ops join rule: public -> invite"]
    );
    assert_eq!(
        drift(|o| state(o, "fleet-ops").history_visibility = Some("world_readable".into())),
        ["~ #fleet-ops history visibility: world_readable -> joined"]
    );
    assert_eq!(
        drift(|o| state(o, "fleet-ops").guest_access = Some("can_join".into())),
        ["~ #fleet-ops guest access: can_join -> forbidden"]
    );
    assert_eq!(
        drift(|o| state(o, "fleet-ops").published = true),
        ["~ #fleet-ops in the room directory: listed -> not listed"]
    );
    assert_eq!(
        drift(|o| state(o, "fleet-ops").canonical_alias = None),
        ["~ #fleet-ops canonical alias: none -> #fleet-ops:garden.test"]
    );
    assert_eq!(
        drift(|o| state(o, "fleet-ops").encryption = None),
        ["~ #fleet-ops encryption: none -> m.megolm.v1.aes-sha2 (cannot be undone)"]
    );
    assert_eq!(
        drift(|o| {
            o.accounts.insert("ezra".into(), None);
        }),
        ["~ display name of @ezra:garden.test: none -> \"Ezra (archivist)\""]
    );
    assert_eq!(
        drift(|o| o.session = false),
        ["~ session of @admin:garden.test: none that is valid -> logged in"]
    );
    assert_eq!(
        drift(|o| o.canary_session = false),
        ["~ session of @canary:garden.test for health.sh: none that is valid -> logged in"]
    );
    assert_eq!(
        drift(|o| {
            o.open_sessions.insert("ezra".into());
        }),
        ["~ session of @ezra:garden.test: left by an interrupted run -> logged out"]
    );
}

#[test]
fn a_member_is_brought_back_from_every_membership() {
    for (membership, line) in [
        (None, "+ member @timmy:garden.test of #fleet-ops"),
        (
            Some("leave"),
            "~ #fleet-ops member @timmy:garden.test: leave -> join",
        ),
        (
            Some("invite"),
            "~ #fleet-ops member @timmy:garden.test: invite -> join",
        ),
        (
            Some("ban"),
            "~ #fleet-ops member @timmy:garden.test: ban -> join",
        ),
    ] {
        let lines = drift(|o| {
            let members = &mut state(o, "fleet-ops").members;
            members.remove("@timmy:garden.test");
            if let Some(membership) = membership {
                members.insert("@timmy:garden.test".into(), membership.into());
            }
        });
        assert_eq!(lines, [line]);
    }
}

#[test]
fn members_and_rooms_that_are_not_declared_are_left_alone() {
    let manifest = manifest();
    let mut observed = as_declared(&manifest);
    state(&mut observed, "fleet-ops")
        .members
        .insert("@bob:vale.test".into(), "join".into());
    let plan = plan(&manifest, &observed);
    assert!(plan.is_empty());
    assert_eq!(
        plan.notes,
        ["#fleet-ops has members that are not declared, which are left alone: @bob:vale.test"]
    );
}

#[test]
fn what_a_room_is_born_with_cannot_be_mended() {
    let manifest = manifest();
    let conflict = |change: fn(&mut RoomState)| {
        let mut observed = as_declared(&manifest);
        change(state(&mut observed, "fleet-intel"));
        let plan = plan(&manifest, &observed);
        assert_eq!(plan.conflicts.len(), 1, "{:?}", plan.conflicts);
        plan.conflicts[0].message.clone()
    };
    assert_eq!(
        conflict(|s| s.creator = "@mallory:garden.test".into()),
        "#fleet-intel creator is `@mallory:garden.test`, declared is `@admin:garden.test`"
    );
    assert_eq!(
        conflict(|s| s.version = "11".into()),
        "#fleet-intel room version is `11`, declared is `12`"
    );
    assert_eq!(
        conflict(|s| s.federate = false),
        "#fleet-intel federation is `false`, declared is `true`"
    );
    assert_eq!(
        conflict(|s| s.encryption = Some(MEGOLM.into())),
        "#fleet-intel is encrypted with `m.megolm.v1.aes-sha2`, declared is not encrypted"
    );
    assert_eq!(
        conflict(|s| {
            s.additional_creators.insert("@mallory:garden.test".into());
        }),
        "#fleet-intel additional creators is `@mallory:garden.test`, declared is `none`"
    );
}

#[test]
fn an_alias_that_leads_elsewhere_is_a_conflict_and_a_lost_one_is_put_back() {
    let manifest = manifest();
    let mut observed = as_declared(&manifest);
    let aliases = |observed: &mut Observed, to: Option<&str>| {
        observed
            .rooms
            .get_mut("fleet-ops")
            .expect("a room")
            .aliases
            .insert("fleet-ops".into(), to.map(str::to_owned));
    };
    aliases(&mut observed, Some("!other"));
    let planned = plan(&manifest, &observed);
    assert_eq!(
        planned.conflicts[0].message,
        "alias `#fleet-ops:garden.test` leads to `!other` and not to #fleet-ops"
    );
    aliases(&mut observed, None);
    let planned = plan(&manifest, &observed);
    assert_eq!(
        lines(&planned),
        ["+ alias #fleet-ops:garden.test of #fleet-ops"]
    );
}

#[test]
fn a_room_that_was_not_made_for_its_alias_is_not_touched() {
    let manifest = manifest();
    let mut observed = as_declared(&manifest);
    let other = state(&mut observed, "fleet-ops");
    (other.made_for, other.canonical_alias) = (None, None);
    other.topic = Some("somebody else's".into());
    let planned = plan(&manifest, &observed);
    assert!(planned.is_empty());
    assert_eq!(
        planned.conflicts[0].message,
        "alias `#fleet-ops:garden.test` leads to `!fleet-ops`, a room that was not made for it"
    );
    // Made by hand under this main address: that is a declaration, too.
    state(&mut observed, "fleet-ops").canonical_alias = Some(manifest.alias_id("fleet-ops"));
    let planned = plan(&manifest, &observed);
    assert_eq!((planned.conflicts.len(), planned.steps.len()), (0, 1));
}

#[test]
fn an_administrator_without_rights_is_a_conflict() {
    let manifest = manifest();
    let mut observed = as_declared(&manifest);
    observed.administers = Some(false);
    let plan = plan(&manifest, &observed);
    assert_eq!(
        plan.conflicts[0].message,
        "`@admin:garden.test` is not an administrator of this homeserver"
    );
}

#[test]
fn power_levels_survive_the_way_through_an_event() {
    let manifest = manifest();
    for room in &manifest.rooms {
        let levels = manifest.power_levels(room);
        assert_eq!(PowerLevels::from_content(&levels.to_content()), levels);
    }
    assert_eq!(
        PowerLevels::from_content(&json!({})),
        PowerLevels::default()
    );
    assert_eq!(PowerLevels::from_content(&json!({ "ban": "75" })).ban, 75);
}

#[test]
fn the_state_of_a_room_is_read_from_its_events() {
    let events = [
        json!({"type": "m.room.create", "state_key": "", "sender": "@admin:garden.test",
               "content": {"room_version": "12", MARKER: "#fleet-ops:garden.test"}}),
        json!({"type": "m.room.name", "state_key": "decoy", "content": {"name": "decoy"}}),
        json!({"type": "m.room.topic", "state_key": "", "content": {"topic": "t"}}),
        json!({"type": "m.room.member", "state_key": "@ezra:garden.test", "content": {"membership": "invite"}}),
    ];
    let state = read_state(&events, true);
    assert_eq!(state.creator, "@admin:garden.test");
    assert_eq!(state.version, "12");
    assert_eq!((state.name, state.topic.as_deref()), (None, Some("t")));
    assert_eq!(state.members["@ezra:garden.test"], "invite");
    assert!(state.federate && state.published);
    assert_eq!(state.made_for.as_deref(), Some("#fleet-ops:garden.test"));
}
