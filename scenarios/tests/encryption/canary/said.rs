//! What alice and bob do in a room, with a word of its own for everything that they write.

use crate::{Cast, demand};
use fleet_device::matrix_sdk::attachment::AttachmentConfig;
use fleet_device::matrix_sdk::media::{MediaFormat, MediaRequestParameters};
use fleet_device::matrix_sdk::ruma::api::client::receipt::create_receipt::v3::ReceiptType as Sent;
use fleet_device::matrix_sdk::ruma::api::client::room::create_room;
use fleet_device::matrix_sdk::ruma::events::receipt::{ReceiptThread, ReceiptType};
use fleet_device::matrix_sdk::ruma::events::room::MediaSource;
use fleet_device::matrix_sdk::ruma::{OwnedEventId, OwnedRoomId, RoomId};
use fleet_device::{Device, EncryptedRoom, Shown, sdk};
use harness::probe::ProbeState;
use harness::scan::Wanted;
use harness::{OrBlame, Result};
use scenarios::encoded;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What encryption hides.
pub const HIDDEN: [&str; 5] = [
    "text of a message",
    "text of an answer",
    "content of a file",
    "name of a file",
    "type of a file",
];

/// What people write in an encrypted room and encryption does not hide.
pub const OPEN: [&str; 4] = [
    "name of a room",
    "topic of a room",
    "reaction to a message",
    "reason of a redaction",
];

/// An odd size, which nothing else has.
pub const SIZE: usize = 70_003;

/// Whether a room is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It is.
    Encrypted,
    /// Everything in it can be read by the servers.
    Clear,
}

impl Room {
    /// Under which name what is written there is looked for.
    pub fn item(self, item: &str) -> String {
        match self {
            Self::Encrypted => item.to_owned(),
            Self::Clear => format!("{item}, not encrypted"),
        }
    }
}

/// What was done in a room, for who wants to look for its traces.
pub struct Done {
    /// Where.
    pub room: OwnedRoomId,
    /// The first message, as the server has it.
    pub text: Value,
    /// Its id.
    pub text_id: OwnedEventId,
}

/// alice makes a room and bob follows; each writes, alice shows a file, bob opens it, reacts and reads, and she takes
/// something back. Returns once each has seen what the other did.
pub async fn live(
    cast: &Cast,
    alice: &Device,
    bob: &Device,
    how: Room,
    wanted: &mut Wanted,
) -> Result<Done> {
    let items = HIDDEN.iter().chain(&OPEN);
    let words: BTreeMap<_, _> = items
        .map(|item| (*item, wanted.canary(&how.item(item))))
        .collect();
    let room = meet(cast, alice, bob, how, &words).await?;
    let text_id = say(
        alice,
        &room,
        how,
        json!({"body": words["text of a message"]}),
    )
    .await?;
    sees(bob, &room, &text_id, &words["text of a message"]).await?;
    let answer = json!({
        "body": words["text of an answer"],
        "m.relates_to": {"m.in_reply_to": {"event_id": text_id}},
    });
    let answer = say(bob, &room, how, answer).await?;
    sees(alice, &room, &answer, &words["text of an answer"]).await?;
    show_a_file(alice, bob, &room, how, &words).await?;
    let reaction = json!({"m.relates_to": {
        "rel_type": "m.annotation", "event_id": text_id, "key": words["reaction to a message"],
    }});
    let reacted = bob.room(&room)?.send_raw("m.reaction", reaction).await;
    let reacted = sdk(reacted, || format!("{bob} reacts"))?.response.event_id;
    shown(alice, &room, &reacted).await?;
    let read = bob.room(&room)?;
    let read = read.send_single_receipt(Sent::Read, ReceiptThread::Unthreaded, text_id.clone());
    sdk(read.await, || format!("{bob} says what he has read"))?;
    alice
        .until(format!("{alice} knows what {bob} has read"), async || {
            let Ok(there) = alice.room(&room) else {
                return ProbeState::NotYet("it does not know the room".to_owned());
            };
            let kind = (ReceiptType::Read, ReceiptThread::Unthreaded);
            match there.load_user_receipt(kind.0, kind.1, bob.user_id()).await {
                Ok(Some(_)) => ProbeState::Ready(()),
                Ok(None) => ProbeState::NotYet("it knows of no receipt".to_owned()),
                Err(error) => ProbeState::NotYet(error.to_string()),
            }
        })
        .await?;
    let slip = say(alice, &room, how, json!({"body": "a slip of the tongue"})).await?;
    let reason = &words["reason of a redaction"];
    let taken = alice.room(&room)?.redact(&slip, Some(reason), None).await;
    let taken = sdk(taken, || format!("{alice} takes something back"))?;
    shown(bob, &room, &taken.event_id).await?;
    let path = format!(
        "/_matrix/client/v3/rooms/{}/event/{}",
        encoded(room.as_str()),
        encoded(text_id.as_str())
    );
    let text = alice.asks(&path).await?;
    Ok(Done {
        room,
        text,
        text_id,
    })
}

async fn meet(
    cast: &Cast,
    alice: &Device,
    bob: &Device,
    how: Room,
    words: &BTreeMap<&str, String>,
) -> Result<OwnedRoomId> {
    let invited = vec![bob.user_id().to_owned()];
    let (name, topic) = (
        words["name of a room"].clone(),
        Some(words["topic of a room"].clone()),
    );
    if how == Room::Encrypted {
        let room = alice
            .make_room(&EncryptedRoom {
                invited,
                topic,
                ..EncryptedRoom::default()
            })
            .await?;
        let named = alice.room(&room)?.set_name(name).await;
        sdk(named, || format!("{alice} names a room"))?;
        cast.follows(alice, bob, &room).await?;
        return Ok(room);
    }
    let mut request = create_room::v3::Request::new();
    request.preset = Some(create_room::v3::RoomPreset::PrivateChat);
    request.invite = invited;
    request.name = Some(name);
    request.topic = topic;
    let made = alice.sdk().create_room(request).await;
    let made = sdk(made, || format!("{alice} makes a room"))?;
    let room = made.room_id().to_owned();
    let via = [cast.home.name()?.to_owned()];
    let joined = bob.sdk().join_room_by_id_or_alias((&*room).into(), &via);
    sdk(joined.await, || format!("{bob} joins `{room}`"))?;
    alice.knows_member(&room, bob.user_id()).await?;
    Ok(room)
}

/// Says something, and sees to it that it goes out as it should.
async fn say(
    device: &Device,
    room: &RoomId,
    how: Room,
    mut content: Value,
) -> Result<OwnedEventId> {
    content["msgtype"] = "m.text".into();
    let sent = device.room(room)?.send_raw("m.room.message", content).await;
    let sent = sdk(sent, || format!("{device} says something"))?;
    demand(
        sent.encryption_info.is_some() == (how == Room::Encrypted),
        "encrypt what is said in an encrypted room, and nothing else",
        format!("in a room that is {how:?}: {:?}", sent.encryption_info),
    )?;
    Ok(sent.response.event_id)
}

/// Waits until a device has this event, decrypted where it was encrypted.
async fn shown(device: &Device, room: &RoomId, event: &OwnedEventId) -> Result<Value> {
    device
        .until(format!("{device} sees `{event}`"), async || {
            match device.shown(room, event).await {
                Ok(Shown::Plain { event } | Shown::Read { event, .. }) => ProbeState::Ready(event),
                Ok(other) => ProbeState::NotYet(format!("it is shown {other}")),
                Err(failure) => ProbeState::NotYet(failure.to_string()),
            }
        })
        .await
}

async fn sees(device: &Device, room: &RoomId, event: &OwnedEventId, text: &str) -> Result<()> {
    let seen = shown(device, room, event).await?;
    demand(
        seen["content"]["body"] == text,
        "bring what was said",
        seen.to_string(),
    )
}

async fn show_a_file(
    alice: &Device,
    bob: &Device,
    room: &RoomId,
    how: Room,
    words: &BTreeMap<&str, String>,
) -> Result<()> {
    let line = format!("{}\n", words["content of a file"]);
    let size = if how == Room::Encrypted {
        SIZE
    } else {
        SIZE / 2
    };
    let content: Vec<u8> = line.bytes().cycle().take(size).collect();
    let kind = format!("application/{}", words["type of a file"]);
    let kind = kind
        .parse()
        .or_harness(|| format!("name the type `{kind}`"))?;
    let name = words["name of a file"].clone();
    let sent = alice
        .room(room)?
        .send_attachment(name, &kind, content.clone(), AttachmentConfig::new())
        .await;
    let sent = sdk(sent, || format!("{alice} shows a file"))?;
    let event = shown(bob, room, &sent.event_id).await?;
    let source = serde_json::from_value::<MediaSource>(event["content"].clone());
    let source = source.or_harness(|| format!("read what file is meant by `{event}`"))?;
    let request = MediaRequestParameters {
        source,
        format: MediaFormat::File,
    };
    let opened = bob.sdk().media().get_media_content(&request, false).await;
    let opened = sdk(opened, || format!("{bob} opens a file"))?;
    demand(
        opened == content,
        "bring the file that was sent",
        format!("{} bytes", opened.len()),
    )
}
