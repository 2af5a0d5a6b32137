//! Files in encrypted rooms: the server keeps what it cannot read, and nobody is shown what it changed.

use crate::{demand, encryption};
use fleet_device::matrix_sdk;
use fleet_device::matrix_sdk::attachment::AttachmentConfig;
use fleet_device::matrix_sdk::media::{MediaFormat, MediaRequestParameters};
use fleet_device::matrix_sdk::ruma::events::room::{
    EncryptedFile, EncryptedFileHash, EncryptedFileHashes, MediaSource,
};
use fleet_device::matrix_sdk::ruma::serde::Base64;
use fleet_device::{Device, Meddling, Mutant, sdk};
use harness::intercept::{Answer, Question};
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::{Failure, OrBlame, Result};
use ruma::{EventId, RoomId};

const NAME: &str = "hedgehog-census-1887.txt";
/// Distinctive, and longer than a block of any cipher.
const TEXT: &str = "seven hedgehogs live under the roses, and the eldest is called Wilhelmina\n";

/// F14. alice sends a file to a room, and bob gets it as it was, also from another server. Nothing that her client sends gives
/// away the text, the file's name or its type, so that her server cannot store it; and what the servers hand out is not the
/// text. "Sending encrypted attachments".
#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_file_comes_back_as_it_was_and_its_server_cannot_read_it() -> Outcome {
    encryption(&[Mutant::ChangesFiles], async |_, cast| {
        let gate = cast.gate(&cast.home).await?;
        let alice = Device::login(&gate.way()?, &cast.alice, "phone").await?;
        let bob = cast.bobs("phone").await?;
        let room = cast.garden(&alice, &bob).await?;
        gate.forget();
        let event = sends(&alice, &room).await?;
        let file = is_given(&bob, &room, &event).await?;
        let opened = sdk(open(&bob, &file).await, || format!("{bob} opens `{NAME}`"))?;
        demand(
            opened == TEXT.as_bytes(),
            "hand an encrypted file back as it was",
            String::from_utf8_lossy(&opened),
        )?;
        let mut bright = gate.passed();
        bright.retain(|passed| !is_dark(&passed.question));
        demand(
            gate.count("/media/") > 0 && bright.is_empty(),
            "upload a file, and its text, name and type nowhere in clear",
            format!("{bright:?}"),
        )?;
        let kept = cast.abroad_way.bare(&cast.bob).await?;
        let kept = kept.download(&file.url).await?;
        demand(
            kept.bytes.len() == TEXT.len()
                && !String::from_utf8_lossy(&kept.bytes).contains("hedgehog")
                && kept
                    .content_type
                    .as_deref()
                    .is_none_or(|kind| kind == "application/octet-stream"),
            "keep a file encrypted",
            format!("{kept:?}"),
        )
    })
    .await
}

/// F14. A server, or who stands in between, changes a byte of the file, cuts it short, lengthens it or hands out another one,
/// or the message has the hash of another file: bob's client says so each time, and gives him nothing. The same change to a
/// file that is not encrypted goes unnoticed. "Sending encrypted attachments": "clients must verify the hash".
#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_file_that_was_changed_on_the_way_is_refused() -> Outcome {
    encryption(&[Mutant::DropsToDevice], async |_, cast| {
        let gate = cast.gate(&cast.abroad).await?;
        let alice = cast.alices("phone").await?;
        let bob = Device::login(&gate.way()?, &cast.bob, "phone").await?;
        let room = cast.garden(&alice, &bob).await?;
        let event = sends(&alice, &room).await?;
        let file = is_given(&bob, &room, &event).await?;
        for (what, change) in CHANGES {
            let outcome = gate
                .during(
                    what,
                    |question| changed(question, *change),
                    async || Ok(open(&bob, &file).await),
                )
                .await?;
            is_refused(what, outcome)?;
        }
        let mut swapped = file.clone();
        swapped
            .hashes
            .insert(EncryptedFileHash::Sha256(Base64::new([7; 32])));
        is_refused("the hash of another file", open(&bob, &swapped).await)?;
        swapped.hashes = EncryptedFileHashes::new();
        let unhashed = open(&bob, &swapped).await;
        demand(
            unhashed.is_err(),
            "refuse a file without a hash",
            format!("{unhashed:?}"),
        )?;
        // It is the change that was refused, not the file; and it is there, for without encryption it arrives.
        let opened = sdk(open(&bob, &file).await, || format!("{bob} opens `{NAME}`"))?;
        demand(opened == TEXT.as_bytes(), "open what was not changed", "")?;
        let plain = alice.bare().upload(TEXT, "text/plain").await?;
        let plain = MediaSource::Plain(plain);
        let (what, change) = CHANGES[0];
        let outcome = gate.during(
            what,
            move |question| changed(question, change),
            async || Ok(fetch(&bob, plain.clone()).await),
        );
        match outcome.await? {
            Ok(bytes) if bytes != TEXT.as_bytes() => Ok(()),
            other => {
                Err(Failure::harness("change a file on its way").last_seen(format!("{other:?}")))
            }
        }
    })
    .await
}

type Change = fn(&mut Vec<u8>);

/// What may become of a file on its way.
const CHANGES: &[(&str, Change)] = &[
    ("the first byte is changed", |bytes| {
        if let Some(byte) = bytes.first_mut() {
            *byte ^= 1;
        }
    }),
    ("the last byte is changed", |bytes| {
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 0x80;
        }
    }),
    ("the last byte is missing", |bytes| {
        bytes.pop();
    }),
    ("half of it is missing", |bytes| {
        bytes.truncate(bytes.len() / 2)
    }),
    ("all of it is missing", Vec::clear),
    ("there is a byte too many", |bytes| bytes.push(0)),
    ("it is another file", |bytes| bytes.fill(b'x')),
];

fn changed(question: &Question, change: Change) -> Option<Meddling> {
    question.path.contains("/media/download/").then(|| {
        Meddling::Tell(Box::new(move |answer: &mut Answer| {
            let mut bytes = answer.body.to_vec();
            change(&mut bytes);
            answer.body = bytes.into();
        }))
    })
}

fn is_refused(what: &str, outcome: matrix_sdk::Result<Vec<u8>>) -> Result<()> {
    let refused = matches!(&outcome, Err(error) if error.to_string().contains("Hash mismatch"));
    demand(
        refused,
        &format!("refuse a file on the way of which {what}"),
        format!("{outcome:?}"),
    )
}

/// Whether a request gives nothing away of the file.
fn is_dark(question: &Question) -> bool {
    let headers = &question.headers;
    let body = String::from_utf8_lossy(&question.body);
    let all = format!("{} {headers:?} {body}", question.path);
    !["hedgehog", "text/plain"]
        .iter()
        .any(|word| all.contains(word))
}

async fn sends(alice: &Device, room: &RoomId) -> Result<ruma::OwnedEventId> {
    let what = || format!("{alice} sends `{NAME}`");
    let kind = "text/plain".parse().or_harness(what)?;
    let config = AttachmentConfig::new();
    let there = alice.room(room)?;
    let sent = there
        .send_attachment(NAME, &kind, TEXT.into(), config)
        .await;
    Ok(sdk(sent, what)?.event_id)
}

/// Waits until a device has read the message about the file.
async fn is_given(bob: &Device, room: &RoomId, event: &EventId) -> Result<EncryptedFile> {
    let what = format!("{bob} is given `{NAME}`");
    let content = bob
        .until(what, async || match bob.shown(room, event).await {
            Ok(shown) if shown.text() == Some(NAME) => {
                let event = shown.event().cloned().unwrap_or_default();
                ProbeState::Ready(event["content"]["file"].clone())
            }
            Ok(shown) => ProbeState::NotYet(shown.to_string()),
            Err(failure) => ProbeState::NotYet(failure.to_string()),
        })
        .await?;
    serde_json::from_value(content).or_harness(|| format!("read the key of `{NAME}`"))
}

async fn open(bob: &Device, file: &EncryptedFile) -> matrix_sdk::Result<Vec<u8>> {
    fetch(bob, MediaSource::Encrypted(Box::new(file.clone()))).await
}

async fn fetch(bob: &Device, source: MediaSource) -> matrix_sdk::Result<Vec<u8>> {
    let format = MediaFormat::File;
    let request = MediaRequestParameters { source, format };
    bob.sdk().media().get_media_content(&request, false).await
}
