//! One-time keys are given to one claimer each, in their order, and there are always some.

use crate::{Between, Cast, demand, encryption, encryption_between};
use fleet_device::{Device, Gate, HASTE, Mutant};
use futures_util::future::try_join_all;
use harness::client::{Answer, Client};
use harness::known::encryption::{
    CLAIMED_BY_ID, CLAIMED_TWICE, KEPT_WITHOUT_KEYS, NO_FALLBACK_KEY, OVERWRITTEN_KEYS,
};
use harness::scenario::Outcome;
use harness::{OrBlame, Result};
use ruma::serde::Base64;
use ruma::serde::base64::Standard;
use ruma::{DeviceId, UserId};
use scenarios::encoded;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const ALGORITHM: &str = "signed_curve25519";

/// A one-time key that looks like one; what is in it tells it apart.
fn key(owner: &Client, content: &str) -> Value {
    let device = format!("ed25519:{}", owner.device_id());
    let content = Base64::<Standard, _>::new(content.as_bytes()).encode();
    json!({
        "key": content,
        "signatures": { owner.user_id().as_str(): { device: "c2lnbmVk" } },
    })
}

/// Uploads one-time keys under these ids, each with this content.
async fn try_upload(
    owner: &Client,
    keys: impl IntoIterator<Item = (String, String)>,
) -> Result<Answer<Value>> {
    let keys: Map<String, Value> = keys
        .into_iter()
        .map(|(id, content)| (format!("{ALGORITHM}:{id}"), key(owner, &content)))
        .collect();
    let body = json!({ "one_time_keys": keys });
    let path = "/_matrix/client/v3/keys/upload";
    Ok(owner
        .try_raw(reqwest::Method::POST, path, Some(&body))
        .await?)
}

/// The same, which must be taken. Returns how many the server then counts.
async fn upload(owner: &Client, keys: impl IntoIterator<Item = (String, String)>) -> Result<u64> {
    let answer = try_upload(owner, keys).await?.must()?;
    Ok(answer["one_time_key_counts"][ALGORITHM]
        .as_u64()
        .unwrap_or_default())
}

/// What the next sync tells of how many one-time keys there are; where nothing is said there are none. Asked the same a second
/// time servers answer as before, so each goes on from the last.
async fn told(owner: &Client, since: &mut String) -> Result<u64> {
    let path = format!("/_matrix/client/v3/sync?timeout=0{since}");
    let sync = owner.try_raw(reqwest::Method::GET, &path, None).await?;
    let sync = sync.must()?;
    let next = sync["next_batch"].as_str().unwrap_or_default();
    *since = format!("&since={}", encoded(next));
    Ok(sync["device_one_time_keys_count"][ALGORITHM]
        .as_u64()
        .unwrap_or_default())
}

/// Claims one key of a device: its id and its content.
async fn claim(
    claimer: &Client,
    owner: &UserId,
    device: &DeviceId,
) -> Result<Option<(String, String)>> {
    let body = json!({
        "timeout": 20_000,
        "one_time_keys": { owner.as_str(): { device.as_str(): ALGORITHM } },
    });
    let path = "/_matrix/client/v3/keys/claim";
    let answer = claimer
        .try_raw(reqwest::Method::POST, path, Some(&body))
        .await?
        .must()?;
    let given = answer["one_time_keys"][owner.as_str()][device.as_str()].as_object();
    Ok(given.and_then(|given| {
        let (id, key) = given.iter().next()?;
        let id = id.strip_prefix(ALGORITHM)?.strip_prefix(':')?;
        let content = Base64::<Standard>::parse(key["key"].as_str()?).ok()?;
        let content = String::from_utf8_lossy(content.as_bytes()).into_owned();
        Some((id.to_owned(), content))
    }))
}

/// Ids and contents of so many keys.
fn numbered(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|number| (format!("K{number:06}"), format!("content-{number:06}")))
}

/// A device of alice's and one of bob's that only speak to the server.
async fn raw(cast: &Cast) -> Result<(Client, Client)> {
    tokio::try_join!(
        cast.home_way.bare(&cast.alice),
        cast.abroad_way.bare(&cast.bob)
    )
}

/// F2. alice's device uploads one-time keys one after the other, with ids whose order is another; bob, her neighbour or abroad,
/// claims them, and gets them in the order of their upload. "POST /_matrix/client/v3/keys/claim".
#[tokio::test(flavor = "multi_thread")]
async fn one_time_keys_are_claimed_in_the_order_of_their_upload() -> Outcome {
    encryption(&[], async |_, cast| {
        let (alice, bob) = raw(cast).await?;
        let ids = ["z", "M", "a", "0", "k"];
        for id in ids {
            upload(&alice, [(id.to_owned(), format!("content-{id}"))]).await?;
        }
        let mut claimed = Vec::new();
        for _ in ids {
            let given = claim(&bob, alice.user_id(), alice.device_id()).await?;
            claimed.extend(given.map(|(id, _)| id));
        }
        let mut sorted = ids.map(str::to_owned);
        sorted.sort();
        let mut all = claimed.clone();
        all.sort();
        demand(
            all == sorted,
            "hand out each one-time key once",
            format!("{claimed:?}"),
        )?;
        let ordered = demand(
            claimed == ids,
            "hand out one-time keys in the order of their upload",
            format!("uploaded {ids:?}, claimed {claimed:?}"),
        );
        cast.known(&cast.home, &CLAIMED_BY_ID, ordered)
    })
    .await
}

/// F2. bob claims alice's one-time keys until there are none: each is given to him once, as it was uploaded, and alice's server
/// tells her after each how many are left, when she uploads and when she syncs. "One-time and fallback keys".
#[tokio::test(flavor = "multi_thread")]
async fn one_time_keys_are_given_once_and_counted() -> Outcome {
    let noticed = [
        Mutant::GivesKeyTwice,
        Mutant::Miscounts,
        Mutant::NeverCounts,
    ];
    encryption(&noticed, async |_, cast| {
        let (alice, bob) = raw(cast).await?;
        let count = 5;
        upload(&alice, numbered(count)).await?;
        let mut left: BTreeSet<_> = numbered(count).collect();
        let mut since = String::new();
        while !left.is_empty() {
            let counted = (upload(&alice, []).await?, told(&alice, &mut since).await?);
            let there = left.len() as u64;
            demand(
                counted == (there, there),
                "count the one-time keys",
                format!("{there} are there; by upload and sync: {counted:?}"),
            )?;
            let given = claim(&bob, alice.user_id(), alice.device_id()).await?;
            let fresh = given.as_ref().is_some_and(|given| left.remove(given));
            demand(
                fresh,
                "hand out a one-time key as it was uploaded, once",
                format!("claimed {given:?}, left {left:?}"),
            )?;
        }
        let none = claim(&bob, alice.user_id(), alice.device_id()).await?;
        demand(
            none.is_none(),
            "hand out no one-time key when there is none",
            format!("{none:?}"),
        )
    })
    .await
}

/// How many claims are made at once; `FLEET_CLAIMS` says how many in all, 10,000 for the long run.
const CLAIMERS: usize = 64;

/// F3. As many devices of bob's as there are claimers claim alice's keys at once until none is left: every key comes to exactly
/// one of them. Conduit looks for a key and removes it in two steps, between which another claimer finds it too.
/// "One-time and fallback keys": a one-time key is given out once.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_given_to_two_claimers() -> Outcome {
    encryption_between(&[Between::Neighbours], &[], async |_, cast| {
        let claims: usize = match std::env::var("FLEET_CLAIMS") {
            Ok(count) => count
                .parse()
                .or_environment(|| format!("read `FLEET_CLAIMS={count}` as a number"))?,
            Err(_) => 1_024,
        };
        let claims = match cast.home.site.server.is_conduit() {
            true => claims,
            // Synapse keeps no more for one device.
            false => claims.min(500),
        };
        let (alice, bob) = raw(cast).await?;
        let all: Vec<_> = numbered(claims).collect();
        for some in all.chunks(500) {
            upload(&alice, some.iter().cloned()).await?;
        }
        let begun = AtomicUsize::new(0);
        let claimers = (0..CLAIMERS).map(|_| async {
            let mut given = Vec::new();
            while begun.fetch_add(1, Ordering::Relaxed) < claims {
                given.extend(claim(&bob, alice.user_id(), alice.device_id()).await?);
            }
            Ok::<_, harness::Failure>(given)
        });
        let given: Vec<_> = try_join_all(claimers).await?.concat();
        let distinct: BTreeSet<_> = given.iter().cloned().collect();
        demand(
            distinct.is_subset(&all.iter().cloned().collect()),
            "hand out one-time keys as they were uploaded",
            format!("{distinct:?}"),
        )?;
        let twice = given.len() - distinct.len();
        let seen = format!(
            "{claims} claims by {CLAIMERS} claimers at once: {} keys, of which {} distinct; {twice} were given to one more",
            given.len(),
            distinct.len()
        );
        let once = demand(
            twice == 0 && distinct.len() == claims,
            "hand out each one-time key to one claimer",
            seen,
        );
        cast.known(&cast.home, &CLAIMED_TWICE, once)
    })
    .await
}

/// F6. alice's device uploads its keys again, as one that lost the answer: nothing changes. Another key under an id that is
/// taken is refused, and the first one stays. "POST /_matrix/client/v3/keys/upload".
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_uploaded_again_without_harm() -> Outcome {
    encryption(&[Mutant::Miscounts], async |stage, cast| {
        let (alice, bob) = raw(cast).await?;
        for _ in 0..2 {
            let count = upload(&alice, numbered(3)).await?;
            demand(
                count == 3,
                "count a one-time key once that is uploaded twice",
                format!("3 are there, it counts {count}"),
            )?;
        }
        let first = claim(&bob, alice.user_id(), alice.device_id()).await?;
        demand(
            first.is_some_and(|first| numbered(3).any(|key| key == first)),
            "hand out a key that was uploaded twice",
            "it did not",
        )?;
        cast.known(&cast.home, &OVERWRITTEN_KEYS, refuses_another(&alice).await)?;
        // Conduit is itself so wrong; at Synapse it takes a fault to be.
        if !cast.home.site.server.is_conduit() {
            let gate = Gate::wrong(&cast.home.site, Mutant::TakesAnotherKey).await?;
            let alice = gate.way()?.bare(&cast.alice).await?;
            upload(&alice, numbered(1)).await?;
            let outcome = refuses_another(&alice).await;
            stage.must_notice(Mutant::TakesAnotherKey.word(), outcome)?;
        }
        Ok(())
    })
    .await
}

async fn refuses_another(alice: &Client) -> Result<()> {
    upload(alice, [("taken".to_owned(), "the first".to_owned())]).await?;
    let other = try_upload(alice, [("taken".to_owned(), "the second".to_owned())]).await?;
    demand(
        other.status == 400,
        "refuse another one-time key under an id that is taken",
        format!("answered {}", other.status),
    )
}

/// F5. Somebody claims all one-time keys of alice's phone between two of its syncs. It uploads new ones when it comes back,
/// and who claims meanwhile is given its fallback key, so that it can read what bob says then. Conduit keeps no fallback keys,
/// and tells a device without keys no number, which the client takes for no news. "One-time and fallback keys".
#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_keys_were_all_claimed_is_reached_again() -> Outcome {
    let between = [Between::Neighbours, Between::FromSynapse];
    encryption_between(&between, &[], async |_, cast| {
        let phone = cast.alices("phone").await?;
        let bob = cast.bobs("phone").await?;
        let room = cast.garden(&phone, &bob).await?;
        let thief = cast.abroad_way.bare(&cast.bob).await?;

        // While one is left the phone is told so, and makes up for the rest.
        let there = phone.one_time_keys().await?;
        take(&thief, &phone, there - 1).await?;
        let refilled = phone.has_one_time_keys(there).await?;

        take(&thief, &phone, refilled).await?;
        let fallback = claim(&thief, phone.user_id(), phone.device_id()).await?;
        let fallback = demand(
            fallback.is_some(),
            "hand out the fallback key when all one-time keys are claimed",
            "a claim is answered with no key",
        );
        cast.known(&cast.home, &NO_FALLBACK_KEY, fallback)?;
        let text = "is anybody there?";
        let said = bob.say(&room, text).await?;
        phone.gets(&room, &said).await?;
        let haste = Duration::from_secs(5);
        let read = HASTE.scope(haste, phone.reads(&room, &said, text)).await;
        cast.known(&cast.home, &NO_FALLBACK_KEY, unread(read.map(|_| ())))?;

        // It has synced since; so it does again when its program is started anew.
        let refills = refills(&phone).await;
        cast.known(&cast.home, &KEPT_WITHOUT_KEYS, refills)?;
        let phone = Device::reopened(phone.close()).await?;
        cast.known(&cast.home, &KEPT_WITHOUT_KEYS, self::refills(&phone).await)
    })
    .await
}

/// What could not be read was not, for want of a key.
fn unread(read: Result<()>) -> Result<()> {
    let seen = read.as_ref().err().map(ToString::to_string);
    demand(
        read.is_ok(),
        "hand out the fallback key: what is said meanwhile is to be read",
        seen.unwrap_or_default(),
    )
}

/// Claims so many of a device's keys, one after the other: a server that hands out a key twice to two at once would have some
/// left.
async fn take(thief: &Client, from: &Device, count: u64) -> Result<()> {
    for _ in 0..count {
        claim(thief, from.user_id(), from.device_id()).await?;
    }
    Ok(())
}

/// Steps a device several times: by then it has uploaded new keys, if it does.
async fn refills(device: &Device) -> Result<()> {
    for _ in 0..5 {
        device.step().await?;
        if device.one_time_keys().await? > 1 {
            return Ok(());
        }
    }
    demand(
        false,
        "let a device whose one-time keys are all claimed upload new ones",
        "there are none after five syncs",
    )
}
