//! Signing keys: the home's own, and whose it believes.

use crate::known::{
    KEYS_OF_ANOTHER_SERVER, NO_NOTARY, UNRELATED_KEY_ID_BLOCKS, UNSIGNED_KEYS_ARE_BELIEVED,
};
use crate::{
    Cast, Table, demand, federation, federation_alone, federation_noticing, on_conduit, soon,
};
use fleet_peer::{Answer, KeyDocument, Mutant, Peer, Replied, Reply, Signing};
use harness::known::Known;
use harness::scenario::{Outcome, Stage};
use harness::{Blame, OrBlame, Result};
use ruma::canonical_json::CanonicalJsonObject;
use ruma::serde::Base64;
use ruma::signatures::{PublicKeyMap, PublicKeySet, verify_json};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR: u64 = 60 * 60 * 1000;

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or_default()
    })
}

/// E3. Whoever meets the home's signature on an event must be able to look its key up: the document names the server,
/// every key in it has signed it, and it is to be believed for at least an hour and for not more than a week, so that a
/// stolen key is not believed for ever. A document of which one letter was changed does not verify: the check is ruma's and
/// it is seen to fail. "Publishing keys".
#[tokio::test(flavor = "multi_thread")]
async fn published_keys_are_signed_by_themselves_and_valid_for_a_sane_time() -> Outcome {
    federation(async |_, cast| {
        let mut table = Table::default();
        // The second form is deprecated, and older servers still ask for it.
        for path in [
            "/_matrix/key/v2/server",
            "/_matrix/key/v2/server/ed25519:any",
        ] {
            table.row(path, sound(cast, path).await);
        }
        table.verdict("publish sound keys")
    })
    .await
}

async fn sound(cast: &Cast, path: &str) -> Result<()> {
    let document = unsigned_request(cast, "GET", path).await?.must()?;
    verifies(&cast.site.name, &document)?;
    let ids: Vec<_> = document["verify_keys"]
        .as_object()
        .map(|keys| keys.keys().cloned().collect())
        .unwrap_or_default();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_id = |id: &String| {
        id.strip_prefix("ed25519:")
            .is_some_and(|name| !name.is_empty() && name.bytes().all(word))
    };
    demand(
        document["server_name"] == *cast.site.name && !ids.is_empty() && ids.iter().all(is_id),
        "publish keys for the own name",
        document.to_string(),
    )?;
    let valid = document["valid_until_ts"].as_u64().unwrap_or_default();
    let left = valid.saturating_sub(now());
    demand(
        (HOUR..=7 * 24 * HOUR + HOUR).contains(&left),
        "let the keys be believed between an hour and a week",
        format!("for {} s", left / 1000),
    )?;
    let mut changed = document.clone();
    changed["valid_until_ts"] = json!(valid + 1);
    demand(
        verifies(&cast.site.name, &changed).is_err(),
        "not verify once it is changed",
        changed.to_string(),
    )
}

fn verifies(server: &str, document: &Value) -> Result<()> {
    let what = || "check that a key document is signed by its keys".to_owned();
    let mut set = PublicKeySet::new();
    for (id, key) in document["verify_keys"].as_object().into_iter().flatten() {
        let key = key["key"].as_str().unwrap_or_default();
        set.insert(
            id.clone(),
            Base64::parse(key).or_blame(Blame::Product, what)?,
        );
    }
    let object: CanonicalJsonObject =
        serde_json::from_value(document.clone()).or_blame(Blame::Product, what)?;
    let keys = PublicKeyMap::from([(server.to_owned(), set)]);
    verify_json(&keys, &object).or_blame(Blame::Product, what)
}

/// E3. Others ask a server for a third one's keys when that one is away. "Querying keys through another server".
#[tokio::test(flavor = "multi_thread")]
async fn a_third_servers_keys_are_vouched_for() -> Outcome {
    federation(async |stage, cast| {
        on_conduit(stage, cast).await?;
        let path = format!("/_matrix/key/v2/query/{}", cast.peer.name);
        let answer = unsigned_request(cast, "GET", &path).await?;
        let listed = answer.body["server_keys"]
            .as_array()
            .is_some_and(|keys| keys.iter().any(|key| key["server_name"] == *cast.peer.name));
        let outcome = demand(
            answer.status == 200 && listed,
            "vouch for a third server's keys",
            answer.to_string(),
        );
        cast.known(&NO_NOTARY, outcome)
    })
    .await
}

async fn unsigned_request(cast: &Cast, method: &str, path: &str) -> Result<Replied> {
    let mut request = cast.peer.sign(method, path, None)?;
    request.authorization = None;
    cast.peer.send(&request).await
}

/// What a server does with its keys, and whether its request is then believed.
struct Row {
    says: &'static str,
    believed: bool,
    known: Option<&'static Known>,
    /// Whether it was known, with its first key, before.
    met: bool,
    /// Whether that first key was declared to be an old one.
    retired: bool,
    change: fn(&Peer, &Arc<Signing>) -> Result<()>,
}

impl Row {
    const fn new(
        says: &'static str,
        believed: bool,
        met: bool,
        change: fn(&Peer, &Arc<Signing>) -> Result<()>,
    ) -> Self {
        Self {
            says,
            believed,
            known: None,
            met,
            retired: false,
            change,
        }
    }

    const fn retired(mut self) -> Self {
        self.retired = true;
        self
    }

    const fn known(mut self, known: &'static Known) -> Self {
        self.known = Some(known);
        self
    }
}

fn fresh(peer: &Peer) -> Arc<Signing> {
    Arc::new(Signing::new(&format!("{}_next", peer.signing().name())))
}

/// E18. Keys are rotated, lost with a disk, replaced under the old id, left to expire, published without a signature or in
/// another's name. Every row is a server of its own, which asks for something that only a server may ask; its request counts
/// only when it was signed by a key that is published, signed by itself, and current. Rows that must be believed stand beside
/// those that must not. "Retrieving server keys", "Request authentication".
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_believed_only_with_a_current_key_of_its_server() -> Outcome {
    let rows = [
        Row::new("the key that is published", true, false, |_, _| Ok(())),
        Row::new(
            "a new key, the old one published as old",
            true,
            true,
            |peer, old| {
                let new = fresh(peer);
                let document = KeyDocument {
                    old: vec![(old.clone(), now() - 1000)],
                    ..KeyDocument::honest(&peer.name, &new)
                };
                peer.publish_keys(Reply::json(&document.json()?));
                peer.sign_with(&new);
                Ok(())
            },
        )
        .retired(),
        Row::new("a new key, the old one lost", true, true, |peer, _| {
            let new = fresh(peer);
            let document = KeyDocument::honest(&peer.name, &new);
            peer.publish_keys(Reply::json(&document.json()?));
            peer.sign_with(&new);
            Ok(())
        }),
        Row::new(
            "another key under the id of one that is still valid",
            false,
            true,
            |peer, old| {
                let new = Arc::new(Signing::new(old.name()));
                let document = KeyDocument::honest(&peer.name, &new);
                peer.publish_keys(Reply::json(&document.json()?));
                peer.sign_with(&new);
                Ok(())
            },
        ),
        Row::new(
            "a key that is published as old",
            false,
            false,
            |peer, key| {
                let new = fresh(peer);
                let document = KeyDocument {
                    old: vec![(key.clone(), now() - 1000)],
                    ..KeyDocument::honest(&peer.name, &new)
                };
                peer.publish_keys(Reply::json(&document.json()?));
                Ok(())
            },
        ),
        Row::new(
            "a key of a document that has expired",
            false,
            false,
            |peer, key| {
                let document = KeyDocument {
                    valid_until: now() - HOUR,
                    ..KeyDocument::honest(&peer.name, key)
                };
                peer.publish_keys(Reply::json(&document.json()?));
                Ok(())
            },
        ),
        Row::new(
            "a key of a document that nobody signed",
            false,
            false,
            |peer, key| {
                let document = KeyDocument {
                    signers: Vec::new(),
                    ..KeyDocument::honest(&peer.name, key)
                };
                let mut document = document.json()?;
                document["signatures"] = json!({});
                peer.publish_keys(Reply::json(&document));
                Ok(())
            },
        )
        .known(&UNSIGNED_KEYS_ARE_BELIEVED),
        Row::new(
            "a key of a document that another key signed",
            false,
            false,
            |peer, key| {
                let document = KeyDocument {
                    signers: vec![Arc::new(Signing::new(key.name()))],
                    ..KeyDocument::honest(&peer.name, key)
                };
                peer.publish_keys(Reply::json(&document.json()?));
                Ok(())
            },
        )
        .known(&UNSIGNED_KEYS_ARE_BELIEVED),
        Row::new(
            "a key of a document in another server's name",
            false,
            false,
            |peer, key| {
                let document = KeyDocument::honest("vale.test", key);
                peer.publish_keys(Reply::json(&document.json()?));
                Ok(())
            },
        )
        .known(&KEYS_OF_ANOTHER_SERVER),
        Row::new(
            "a key that is not in the document",
            false,
            false,
            |peer, _| {
                let document = KeyDocument::honest(&peer.name, &fresh(peer));
                peer.publish_keys(Reply::json(&document.json()?));
                Ok(())
            },
        ),
        Row::new(
            "a key of a document that is garbage",
            false,
            false,
            |peer, _| {
                peer.publish_keys(Reply::garbage());
                Ok(())
            },
        ),
        Row::new(
            "a key of a server that answers 500",
            false,
            false,
            |peer, _| {
                peer.publish_keys(Reply::Now(Answer::json(500, &json!({}))));
                Ok(())
            },
        ),
    ];
    federation_noticing(&[Mutant::GrantsEverything], async |stage, cast| {
        let mut table = Table::default();
        for (number, row) in rows.iter().enumerate() {
            let outcome = believed(stage, cast, number, row).await;
            let outcome = match row.known {
                Some(known) => cast.known(known, outcome),
                None => outcome,
            };
            table.row(row.says, outcome);
        }
        table.verdict("believe a request only with a current key")
    })
    .await
}

async fn believed(stage: &Stage, cast: &Cast, number: usize, row: &Row) -> Result<()> {
    let name = format!("keys-{number}.test");
    let peer = Peer::open(&stage.world, &cast.door, &name, &cast.site).await?;
    let first = peer.signing();
    if row.met {
        let before = profile_of_alice(cast, &peer).await?;
        demand(
            before.status == 200,
            "believe a server's first key",
            before.to_string(),
        )?;
    }
    (row.change)(&peer, &first)?;
    let answer = profile_of_alice(cast, &peer).await?;
    let outcome = if row.believed {
        demand(
            answer.status == 200,
            "believe the request",
            answer.to_string(),
        )
    } else {
        demand(
            matches!(answer.status, 401 | 403),
            "refuse the request",
            answer.to_string(),
        )
    };
    // A key that was declared old signs no request any more. One that was merely lost may be believed until its document
    // expires, and by Synapse is.
    if row.retired && outcome.is_ok() {
        peer.sign_with(&first);
        let answer = profile_of_alice(cast, &peer).await?;
        return demand(
            matches!(answer.status, 401 | 403),
            "refuse a request that the replaced key signed",
            answer.to_string(),
        );
    }
    outcome
}

/// Something that only a server may ask, and any server may.
async fn profile_of_alice(cast: &Cast, peer: &Peer) -> Result<Replied> {
    let alice = cast
        .alice
        .user_id()
        .as_str()
        .replace('@', "%40")
        .replace(':', "%3A");
    let path = format!("/_matrix/federation/v1/query/profile?user_id={alice}");
    peer.ask("GET", &path, None).await
}

/// E18. Key ids belong to their server: one server whose keys cannot be had does not cost another one its voice, only because
/// its key has the same name. "Retrieving server keys".
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_keys_does_not_silence_another_with_the_same_key_id() -> Outcome {
    federation_alone(&[], async |stage, cast| {
        let open = async |name: &str| -> Result<Peer> {
            let peer = Peer::open(&stage.world, &cast.door, name, &cast.site).await?;
            let signing = Arc::new(Signing::new("auto"));
            let document = KeyDocument::honest(name, &signing);
            peer.publish_keys(Reply::json(&document.json()?));
            peer.sign_with(&signing);
            Ok(peer)
        };
        let mute = open("mute.test").await?;
        mute.publish_keys(Reply::Now(Answer::json(500, &json!({}))));
        let refused = profile_of_alice(cast, &mute).await?;
        demand(
            refused.status != 200,
            "refuse who has no keys",
            refused.to_string(),
        )?;
        let honest = open("honest.test").await?;
        let answer = profile_of_alice(cast, &honest).await?;
        let outcome = demand(
            answer.status == 200,
            "believe a server whose key has a common id",
            answer.to_string(),
        );
        cast.known(&UNRELATED_KEY_ID_BLOCKS, outcome)
    })
    .await
}

/// E18. An event outlives the key that signed it: what was signed before the key was replaced is believed afterwards; what
/// claims to have been made later is not, for then the key may have been in other hands. "Signing key validity period" (room
/// version 5 and later).
#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_believed_if_its_key_was_valid_when_it_was_made() -> Outcome {
    federation_noticing(&[Mutant::MendsEvents], async |_, cast| {
        cast.peer.takes_transactions();
        let (garden, mut room) = cast.shared_garden().await?;
        let delia = cast.delia();
        let old = cast.peer.signing();
        let before = cast.peer.message(&room, &delia, "before")?;
        let mut late = room.draft(
            &cast.peer.name,
            &delia,
            "m.room.message",
            None,
            &fleet_peer::forge::message("after"),
        )?;
        let later = i64::try_from(now() + HOUR).unwrap_or_default();
        late.insert(
            "origin_server_ts".to_owned(),
            ruma::CanonicalJsonValue::Integer(later.try_into().unwrap_or_default()),
        );
        let after = room.seal(&cast.peer.name, &old, late)?;
        let new = fresh(&cast.peer);
        let document = KeyDocument {
            old: vec![(old, now() + Duration::from_secs(60).as_millis() as u64)],
            ..KeyDocument::honest(&cast.peer.name, &new)
        };
        cast.peer.publish_keys(Reply::json(&document.json()?));
        cast.peer.sign_with(&new);
        let mut answers = Vec::new();
        for event in [&before, &after] {
            answers.push(cast.peer.deliver(&[event], &[]).await?.to_string());
        }
        let sentinel = cast.peer.say(&mut room, &delia, "good night").await?;
        cast.alice
            .sees_within(&garden, &sentinel.id, soon())
            .await?;
        cast.alice
            .sees_within(&garden, &before.id, soon())
            .await
            .map_err(|unmet| harness::Failure::from(unmet).because(answers.join("\n")))?;
        let shown = cast.alice.messages(&garden).await?;
        demand(
            shown.iter().all(|event| event.event_id != after.id),
            "drop an event that is younger than its key",
            answers.join("\n"),
        )
    })
    .await
}
