//! Media of the other server.

use crate::abroad::{Partner, between};
use crate::{Table, demand};
use fixtures::media::{self, NOISE_LENGTH, NOTE, ROSE};
use harness::client::Client;
use harness::scenario::Outcome;
use harness::{Failure, Result};

/// D3. What charlie uploads abroad comes to alice byte by byte under its type, and the other way round: a picture, a text, a
/// megabyte, and bytes that look like the boundaries of the multipart answer in which they travel. Of the picture both see a
/// thumbnail. "Content repository".
#[tokio::test(flavor = "multi_thread")]
async fn media_of_a_synapse_and_of_the_home_come_across_byte_by_byte() -> Outcome {
    between(Partner::Synapse, async |_, pair| {
        across(&pair.alice, &pair.charlie).await
    })
    .await
}

/// The same between two sites of the kit.
#[tokio::test(flavor = "multi_thread")]
async fn media_of_two_conduits_come_across_byte_by_byte() -> Outcome {
    between(Partner::Conduit, async |_, pair| {
        across(&pair.alice, &pair.charlie).await
    })
    .await
}

async fn across(alice: &Client, charlie: &Client) -> Result<()> {
    let mut table = Table::default();
    for (seed, (from, to)) in [(alice, charlie), (charlie, alice)].into_iter().enumerate() {
        let seed = u64::try_from(seed).unwrap_or_default();
        let multipart = [
            b"\r\n--\r\n--boundary--\r\n\r\nContent-Type: text/html\r\n\r\n".to_vec(),
            media::pseudo_random(seed, 60),
        ];
        let files = [
            (ROSE.content_type, ROSE.bytes.to_vec()),
            (NOTE.content_type, NOTE.bytes.to_vec()),
            (
                "application/octet-stream",
                media::pseudo_random(seed, NOISE_LENGTH),
            ),
            ("application/octet-stream", multipart.concat()),
        ];
        for (content_type, bytes) in files {
            let name = format!(
                "{} bytes of {content_type} from {}",
                bytes.len(),
                from.user_id()
            );
            table.row(&name, comes_across(from, to, content_type, &bytes).await);
        }
        let name = format!("a thumbnail from {}", from.user_id());
        table.row(&name, thumbnail(from, to).await);
    }
    table.verdict("bring media across")
}

async fn comes_across(from: &Client, to: &Client, content_type: &str, bytes: &[u8]) -> Result<()> {
    let uri = from.upload(bytes, content_type).await?;
    let other = [bytes, b"."].concat();
    demand(
        to.downloads(&uri, other).await.is_err(),
        "tell a file from one that is a byte longer",
        "it was taken for the same",
    )?;
    // Now it is kept here.
    to.downloads(&uri, bytes).await?;
    let came = to.download(&uri).await?.content_type.unwrap_or_default();
    demand(
        came == content_type,
        "hand on the type of a foreign file",
        format!("{came} instead of {content_type}"),
    )
}

/// A PNG (ISO/IEC 15948) that is no larger than what it was made from.
async fn thumbnail(from: &Client, to: &Client) -> Result<()> {
    let uri = from.upload(ROSE.bytes, ROSE.content_type).await?;
    let picture = to.try_thumbnail(&uri).await?.must()?;
    let side = |at: usize| -> Option<u32> {
        let bytes = picture.bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let (width, height) = side(16).zip(side(20)).ok_or_else(|| {
        Failure::product("make a thumbnail").last_seen(format!("{} bytes", picture.bytes.len()))
    })?;
    demand(
        picture.bytes.starts_with(b"\x89PNG\r\n\x1a\n")
            && (1..=64).contains(&width)
            && (1..=64).contains(&height),
        "show a thumbnail of a foreign picture",
        format!("{:?}, {width} by {height}", picture.content_type),
    )
}
