//! Each thing that a fingerprint holds, changed alone, is named alone.

use serde_json::json;

use super::*;

fn user(name: &str) -> OwnedUserId {
    OwnedUserId::try_from(format!("@{name}:vale.test")).unwrap()
}

fn room_id() -> OwnedRoomId {
    OwnedRoomId::try_from("!garden:vale.test").unwrap()
}

fn event_id(name: &str) -> OwnedEventId {
    OwnedEventId::try_from(format!("${name}")).unwrap()
}

fn print(name: &str, kind: &str) -> Print {
    Print {
        event_id: event_id(name),
        kind: kind.to_owned(),
        sender: user("alice"),
        origin_server_ts: 1_700_000_000_000,
        content: format!("hash of {name}"),
    }
}

fn view() -> View {
    View {
        display_name: Some("Alice".to_owned()),
        avatar_url: Some("mxc://vale.test/face".into()),
        devices: [
            ("PHONE".into(), Some("Phone".to_owned())),
            ("DESK".into(), None),
        ]
        .into(),
        keys: [
            ("device PHONE".to_owned(), "k1".to_owned()),
            ("master key".to_owned(), "k2".to_owned()),
        ]
        .into(),
        key_backup: Some(KeyBackup {
            version: "1".to_owned(),
            count: 3,
            auth: "a".repeat(64),
            keys: "b".repeat(64),
        }),
        account_data: [("m.direct".to_owned(), "d".to_owned())].into(),
        room_account_data: [(room_id(), [("m.tag".to_owned(), "t".to_owned())].into())].into(),
        push_rules: [("override/.m.rule.master".to_owned(), "p".to_owned())].into(),
        joined: [room_id()].into(),
        invited: [OwnedRoomId::try_from("!party:vale.test").unwrap()].into(),
        answers: answered("the list of pushers", "empty"),
    }
}

fn answered(name: &str, answer: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), answer.to_owned())].into()
}

fn reached() -> Reach {
    Reach {
        answer: "found".to_owned(),
        state: Some("s1".to_owned()),
        stranger: Some("403".to_owned()),
    }
}

fn sample() -> Fingerprint {
    let account = |device: &str| Account {
        sessions: [(device.into(), Session::Valid)].into(),
        view: Some(view()),
    };
    let events = [
        ("create", "m.room.create"),
        ("topic", "m.room.topic"),
        ("hello", "m.room.message"),
        ("bye", "m.room.message"),
    ];
    let timeline: Vec<_> = events.iter().map(|(name, _)| event_id(name)).collect();
    let room = Room {
        label: "#garden:vale.test".to_owned(),
        published: false,
        aliases: [OwnedRoomAliasId::try_from("#garden:vale.test").unwrap()].into(),
        state: [
            (
                "m.room.create".to_owned(),
                [(String::new(), print("create", "m.room.create"))].into(),
            ),
            (
                "m.room.topic".to_owned(),
                [(String::new(), print("topic", "m.room.topic"))].into(),
            ),
            (
                "m.room.member".to_owned(),
                [(
                    "@alice:vale.test".to_owned(),
                    print("join", "m.room.member"),
                )]
                .into(),
            ),
        ]
        .into(),
        events: events
            .iter()
            .map(|(name, kind)| (event_id(name), print(name, kind)))
            .collect(),
        timelines: [(user("alice"), timeline.clone()), (user("bob"), timeline)].into(),
        answers: answered("member `@bob:vale.test`", "listed"),
        reached: [(event_id("hello"), reached())].into(),
    };
    let held = |hash: &str| Media::Held {
        sha256: hash.to_owned(),
        bytes: 7,
    };
    Fingerprint {
        format: FORMAT,
        server_name: "vale.test".to_owned(),
        signing_keys: [("ed25519:a".to_owned(), "AAAA".to_owned())].into(),
        accounts: [
            (user("alice"), account("PHONE")),
            (user("bob"), account("DESK")),
        ]
        .into(),
        rooms: [(room_id(), room)].into(),
        media: [
            ("mxc://vale.test/face".into(), held("f0")),
            ("mxc://vale.test/rose".into(), held("f1")),
        ]
        .into(),
        media_labels: [("mxc://vale.test/rose".into(), "a picture".to_owned())].into(),
    }
}

type Change = fn(&mut Fingerprint);

fn alice(site: &mut Fingerprint) -> &mut Account {
    site.accounts.get_mut(&user("alice")).unwrap()
}

fn alices_view(site: &mut Fingerprint) -> &mut View {
    alice(site).view.as_mut().unwrap()
}

fn garden(site: &mut Fingerprint) -> &mut Room {
    site.rooms.get_mut(&room_id()).unwrap()
}

fn hello(site: &mut Fingerprint) -> &mut Print {
    garden(site).events.get_mut(&event_id("hello")).unwrap()
}

fn hello_reached(site: &mut Fingerprint) -> &mut Reach {
    garden(site).reached.get_mut(&event_id("hello")).unwrap()
}

fn alices_timeline(site: &mut Fingerprint) -> &mut Vec<OwnedEventId> {
    garden(site).timelines.get_mut(&user("alice")).unwrap()
}

/// What is changed, and the one difference that must be named for it.
const CHANGES: &[(Change, Facet, &str)] = &[
    (
        |f| f.format = 4,
        Facet::Format,
        "site `vale.test`: fingerprints of format 3 and 4 cannot be compared",
    ),
    (
        |f| f.server_name = "hill.test".to_owned(),
        Facet::ServerName,
        "site `vale.test`: server name changed `vale.test` -> `hill.test`",
    ),
    (
        |f| f.signing_keys = [("ed25519:b".to_owned(), "BBBB".to_owned())].into(),
        Facet::SigningKey,
        "site `vale.test`: signing key changed `ed25519:a` AAAA -> `ed25519:b` BBBB",
    ),
    (
        |f| {
            _ = f
                .signing_keys
                .insert("ed25519:a".to_owned(), "CCCC".to_owned())
        },
        Facet::SigningKey,
        "site `vale.test`: signing key changed `ed25519:a` AAAA -> `ed25519:a` CCCC",
    ),
    (
        |f| {
            _ = alice(f).sessions.insert(
                "PHONE".into(),
                Session::Dead("401 `M_UNKNOWN_TOKEN`".to_owned()),
            )
        },
        Facet::Session,
        "account `@alice:vale.test`: session of device `PHONE` is not valid any more: 401 `M_UNKNOWN_TOKEN`",
    ),
    (
        // A dead session hides everything else of the account; only the session is to be named.
        |f| {
            *alice(f) = Account {
                sessions: [(
                    "PHONE".into(),
                    Session::Dead("401 `M_UNKNOWN_TOKEN`".to_owned()),
                )]
                .into(),
                view: None,
            };
            garden(f).timelines.remove(&user("alice"));
        },
        Facet::Session,
        "account `@alice:vale.test`: session of device `PHONE` is not valid any more: 401 `M_UNKNOWN_TOKEN`",
    ),
    (
        |f| alice(f).sessions.clear(),
        Facet::Session,
        "account `@alice:vale.test`: session of device `PHONE` was not tried this time",
    ),
    (
        |f| alices_view(f).display_name = None,
        Facet::Profile,
        "account `@alice:vale.test`: display name changed `Alice` -> none",
    ),
    (
        |f| alices_view(f).avatar_url = Some("mxc://vale.test/mask".into()),
        Facet::Profile,
        "account `@alice:vale.test`: avatar changed `mxc://vale.test/face` -> `mxc://vale.test/mask`",
    ),
    (
        |f| _ = alices_view(f).devices.remove(<&DeviceId>::from("PHONE")),
        Facet::Device,
        "account `@alice:vale.test`: device `PHONE` (`Phone`) is missing",
    ),
    (
        |f| _ = alices_view(f).devices.insert("NEW".into(), None),
        Facet::Device,
        "account `@alice:vale.test`: device `NEW` (none) is new",
    ),
    (
        |f| {
            _ = alices_view(f)
                .devices
                .insert("DESK".into(), Some("Desk".to_owned()))
        },
        Facet::Device,
        "account `@alice:vale.test`: device `DESK` changed its name none -> `Desk`",
    ),
    (
        |f| {
            _ = alices_view(f)
                .keys
                .insert("device PHONE".to_owned(), "other".to_owned())
        },
        Facet::Key,
        "account `@alice:vale.test`: `device PHONE` changed",
    ),
    (
        |f| _ = alices_view(f).keys.remove("master key"),
        Facet::Key,
        "account `@alice:vale.test`: `master key` is missing",
    ),
    (
        |f| alices_view(f).key_backup.as_mut().unwrap().count = 2,
        Facet::KeyBackup,
        "account `@alice:vale.test`: key backup changed version 1 with 3 keys (aaaaaaaa bbbbbbbb) -> version 1 with 2 keys (aaaaaaaa bbbbbbbb)",
    ),
    (
        |f| alices_view(f).key_backup.as_mut().unwrap().keys = "c".repeat(64),
        Facet::KeyBackup,
        "account `@alice:vale.test`: key backup changed version 1 with 3 keys (aaaaaaaa bbbbbbbb) -> version 1 with 3 keys (aaaaaaaa cccccccc)",
    ),
    (
        |f| alices_view(f).key_backup = None,
        Facet::KeyBackup,
        "account `@alice:vale.test`: key backup changed version 1 with 3 keys (aaaaaaaa bbbbbbbb) -> none",
    ),
    (
        |f| {
            _ = alices_view(f)
                .account_data
                .insert("m.direct".to_owned(), "e".to_owned())
        },
        Facet::AccountData,
        "account `@alice:vale.test`: account data `m.direct` changed",
    ),
    (
        |f| alices_view(f).room_account_data.clear(),
        Facet::AccountData,
        "account `@alice:vale.test`: account data of room `#garden:vale.test` `m.tag` is missing",
    ),
    (
        |f| {
            _ = alices_view(f)
                .push_rules
                .insert("room/!garden:vale.test".to_owned(), "q".to_owned())
        },
        Facet::PushRule,
        "account `@alice:vale.test`: push rule `room/!garden:vale.test` is new",
    ),
    (
        |f| {
            alices_view(f).joined.clear();
            garden(f).timelines.remove(&user("alice"));
        },
        Facet::Membership,
        "account `@alice:vale.test`: is no longer joined to room `#garden:vale.test`",
    ),
    (
        |f| alices_view(f).invited.clear(),
        Facet::Invitation,
        "account `@alice:vale.test`: is no longer invited to room `!party:vale.test`",
    ),
    (
        |f| f.rooms.clear(),
        Facet::Room,
        "room `#garden:vale.test`: is not there any more",
    ),
    (
        |f| garden(f).published = true,
        Facet::Published,
        "room `#garden:vale.test`: is published in the room directory now",
    ),
    (
        |f| garden(f).aliases.clear(),
        Facet::Alias,
        "room `#garden:vale.test`: alias `#garden:vale.test` is missing",
    ),
    (
        |f| _ = garden(f).state.remove("m.room.topic"),
        Facet::State,
        "room `#garden:vale.test`: state `m.room.topic` is missing (was `$topic`, set by `@alice:vale.test`)",
    ),
    (
        |f| {
            garden(f)
                .state
                .get_mut("m.room.topic")
                .unwrap()
                .get_mut("")
                .unwrap()
                .event_id = event_id("weather")
        },
        Facet::State,
        "room `#garden:vale.test`: state `m.room.topic` changed `$topic` -> `$weather` (set by `@alice:vale.test`)",
    ),
    (
        |f| {
            garden(f)
                .state
                .get_mut("m.room.member")
                .unwrap()
                .get_mut("@alice:vale.test")
                .unwrap()
                .content = "x".to_owned()
        },
        Facet::State,
        "room `#garden:vale.test`: state `m.room.member` of `@alice:vale.test`: event `$join` content changed (`m.room.member`, \
         sent by `@alice:vale.test`)",
    ),
    (
        |f| {
            let room = garden(f);
            room.events.remove(&event_id("hello"));
            room.timelines
                .values_mut()
                .for_each(|ids| ids.retain(|id| *id != event_id("hello")));
        },
        Facet::Event,
        "room `#garden:vale.test`: event `$hello` is missing (`m.room.message`, sent by `@alice:vale.test`)",
    ),
    (
        |f| {
            let room = garden(f);
            room.events
                .insert(event_id("more"), print("more", "m.room.message"));
            room.timelines
                .values_mut()
                .for_each(|ids| ids.push(event_id("more")));
        },
        Facet::Event,
        "room `#garden:vale.test`: event `$more` is new (`m.room.message`, sent by `@alice:vale.test`)",
    ),
    (
        |f| hello(f).content = "other".to_owned(),
        Facet::Event,
        "room `#garden:vale.test`: event `$hello` content changed (`m.room.message`, sent by `@alice:vale.test`)",
    ),
    (
        |f| hello(f).kind = "m.room.encrypted".to_owned(),
        Facet::Event,
        "room `#garden:vale.test`: event `$hello` type changed `m.room.message` -> `m.room.encrypted`",
    ),
    (
        |f| hello(f).sender = user("bob"),
        Facet::Event,
        "room `#garden:vale.test`: event `$hello` sender changed `@alice:vale.test` -> `@bob:vale.test`",
    ),
    (
        |f| hello(f).origin_server_ts += 1,
        Facet::Event,
        "room `#garden:vale.test`: event `$hello` time changed 1700000000000 -> 1700000000001",
    ),
    (
        |f| alices_timeline(f).retain(|id| *id != event_id("hello")),
        Facet::Visibility,
        "room `#garden:vale.test`: event `$hello` is not shown to `@alice:vale.test` any more",
    ),
    (
        |f| alices_timeline(f).swap(2, 3),
        Facet::Order,
        "room `#garden:vale.test`: order of events changed for `@alice:vale.test`, first `$hello` -> `$bye`",
    ),
    (
        |f| alices_timeline(f).push(event_id("bye")),
        Facet::Order,
        "room `#garden:vale.test`: order of events changed for `@alice:vale.test`, first the end -> `$bye`",
    ),
    (
        |f| {
            _ = f.media.insert(
                "mxc://vale.test/rose".into(),
                Media::Held {
                    sha256: "f2".to_owned(),
                    bytes: 8,
                },
            )
        },
        Facet::Media,
        "media `mxc://vale.test/rose`: bytes differ: 7 bytes with SHA-256 f1 -> 8 bytes with SHA-256 f2",
    ),
    (
        |f| {
            _ = f.media.insert(
                "mxc://vale.test/rose".into(),
                Media::Refused("404 `M_NOT_FOUND`".to_owned()),
            )
        },
        Facet::Media,
        "media `mxc://vale.test/rose`: 7 bytes with SHA-256 f1 -> refused with 404 `M_NOT_FOUND`",
    ),
    (
        |f| {
            _ = f
                .media
                .remove(<&ruma::MxcUri>::from("mxc://vale.test/rose"))
        },
        Facet::Media,
        "media `mxc://vale.test/rose`: is not mentioned any more",
    ),
    (
        |f| {
            _ = f
                .media_labels
                .insert("mxc://vale.test/rose".into(), "a text".to_owned())
        },
        Facet::Media,
        "media `mxc://vale.test/rose`: is called a text, was a picture",
    ),
    (
        |f| alices_view(f).answers = answered("the list of pushers", "full"),
        Facet::Lookup,
        "account `@alice:vale.test`: the list of pushers: empty -> full",
    ),
    (
        |f| garden(f).answers = answered("member `@bob:vale.test`", "not listed"),
        Facet::Lookup,
        "room `#garden:vale.test`: member `@bob:vale.test`: listed -> not listed",
    ),
    (
        |f| hello_reached(f).answer = "404".to_owned(),
        Facet::Lookup,
        "room `#garden:vale.test`: event `$hello` by its id: found -> 404",
    ),
    (
        |f| hello_reached(f).stranger = Some("shown".to_owned()),
        Facet::Lookup,
        "room `#garden:vale.test`: event `$hello` for an account outside the room: 403 -> shown",
    ),
    (
        |f| hello_reached(f).state = Some("s2".to_owned()),
        Facet::Lookup,
        "room `#garden:vale.test`: event `$hello` has another state of the room before it",
    ),
];

#[test]
fn each_change_alone_is_named_alone() {
    for (change, facet, text) in CHANGES {
        let (before, mut after) = (sample(), sample());
        change(&mut after);
        let named = before.differences(&after);
        let told: Vec<_> = named.iter().map(ToString::to_string).collect();
        assert_eq!(told, [*text]);
        assert_eq!(named[0].facet, *facet, "{text}");
        assert_eq!(
            after.differences(&before).len(),
            1,
            "the way back from: {text}"
        );
    }
}

#[test]
fn every_facet_has_a_change_that_shows_it() {
    let shown: BTreeSet<_> = CHANGES.iter().map(|(_, facet, _)| *facet).collect();
    // An account that was not looked at has its own test below.
    let all = serde_json::from_value::<Vec<Facet>>(json!([
        "format",
        "server_name",
        "signing_key",
        "session",
        "profile",
        "device",
        "key",
        "key_backup",
        "account_data",
        "push_rule",
        "membership",
        "invitation",
        "room",
        "published",
        "alias",
        "state",
        "event",
        "visibility",
        "order",
        "media",
        "lookup",
    ]));
    assert_eq!(shown, all.unwrap().into_iter().collect());
}

/// A record that an older drill kept holds no answers: what it holds is compared, and nothing is taken for missing or new.
#[test]
fn a_fingerprint_of_the_format_before_is_compared_in_what_it_holds() {
    let mut written = serde_json::to_value(sample()).unwrap();
    written["format"] = json!(2);
    written.as_object_mut().unwrap().remove("media_labels");
    for account in written["accounts"].as_object_mut().unwrap().values_mut() {
        account["view"].as_object_mut().unwrap().remove("answers");
    }
    for room in written["rooms"].as_object_mut().unwrap().values_mut() {
        for since in ["answers", "reached"] {
            room.as_object_mut().unwrap().remove(since);
        }
    }
    let old: Fingerprint = serde_json::from_value(written).unwrap();
    assert_eq!(old.differences(&sample()), []);
    let mut changed = sample();
    alices_view(&mut changed).display_name = None;
    assert_eq!(old.differences(&changed).len(), 1);
}

#[test]
fn the_same_site_has_no_differences() {
    assert_eq!(sample().differences(&sample()), []);
}

#[test]
fn an_account_that_was_not_looked_at_takes_its_own_view_of_rooms_along() {
    let (before, mut after) = (sample(), sample());
    after.accounts.remove(&user("bob"));
    garden(&mut after).timelines.remove(&user("bob"));
    let told: Vec<_> = before
        .differences(&after)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        ["account `@bob:vale.test`: was not looked at this time"]
    );
}

#[test]
fn what_nobody_can_look_at_any_more_is_not_named_beside_the_reason() {
    let (before, mut after) = (sample(), sample());
    after.rooms.clear();
    after.media.clear();
    for account in after.accounts.values_mut() {
        account.view = None;
        account
            .sessions
            .values_mut()
            .for_each(|session| *session = Session::Dead("401".to_owned()));
    }
    let facets: Vec<_> = before
        .differences(&after)
        .iter()
        .map(|difference| difference.facet)
        .collect();
    assert_eq!(facets, [Facet::Session, Facet::Session]);
}

#[test]
fn several_changes_are_all_named() {
    let (before, mut after) = (sample(), sample());
    hello(&mut after).content = "other".to_owned();
    alices_view(&mut after).display_name = Some("Alicia".to_owned());
    after.media.clear();
    assert_eq!(before.differences(&after).len(), 4);
}

#[test]
fn a_fingerprint_survives_being_written_and_read() {
    let written = serde_json::to_string_pretty(&sample()).unwrap();
    assert_eq!(
        serde_json::from_str::<Fingerprint>(&written).unwrap(),
        sample()
    );
    assert_eq!(
        written,
        serde_json::to_string_pretty(&serde_json::from_str::<Fingerprint>(&written).unwrap())
            .unwrap()
    );
}

#[test]
fn hashes_do_not_depend_on_the_order_of_members() {
    let one: Value =
        serde_json::from_str(r#"{"a": 1, "b": {"c": [1, 2.5], "d": "\u00e9"}}"#).unwrap();
    let other: Value = serde_json::from_str(r#"{"b": {"d": "é", "c": [1, 2.5]}, "a": 1}"#).unwrap();
    assert_eq!(hash(&one), hash(&other));
    for different in [
        json!({"a": 1}),
        json!({"a": "1"}),
        json!([1]),
        json!({"a": [1]}),
        json!(null),
    ] {
        assert_ne!(hash(&one), hash(&different));
    }
    // Canonical JSON of the specification where that is defined: `printf '{"a":1}' | sha256sum`.
    assert_eq!(
        hash(&json!({"a": 1})),
        "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    );
}

#[test]
fn media_are_found_wherever_they_stand() {
    let mut found = BTreeSet::new();
    let content = json!({
        "url": "mxc://vale.test/rose",
        "info": { "thumbnail_url": "mxc://vale.test:8448/thumb_-1" },
        "formatted_body": "<img src=\"mxc://vale.test/inline\"> and mxc://[::1]/six.",
        "file": [{ "url": "mxc://hill.test/other" }],
        "no": "mxc://vale.test", "nor": "mxc:///x", "neither": 3
    });
    find_media(&content, &mut found);
    let found: Vec<_> = found.iter().map(|uri| uri.as_str()).collect();
    assert!(
        found.contains(&"mxc://vale.test/rose") && found.contains(&"mxc://vale.test:8448/thumb_-1"),
        "{found:?}"
    );
    assert!(
        found.contains(&"mxc://vale.test/inline") && found.contains(&"mxc://hill.test/other"),
        "{found:?}"
    );
    assert!(
        !found.contains(&"mxc://vale.test") && !found.contains(&"mxc:///x"),
        "{found:?}"
    );
}
