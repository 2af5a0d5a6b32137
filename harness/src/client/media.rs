//! Verbs about media. Client-Server API, "Content repository".

use bytes::Bytes;
use ruma::{
    MxcUri, OwnedMxcUri,
    api::client::{
        authenticated_media::{get_content, get_content_thumbnail},
        media::create_content,
    },
    uint,
};
use sha2::{Digest as _, Sha256};

use super::{Answer, Cause, Client, Failure};

/// A downloaded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// The bytes.
    pub bytes: Bytes,
    /// `Content-Type` as the server gave it.
    pub content_type: Option<String>,
    /// `Content-Disposition` as the server gave it: the name of the file.
    pub disposition: Option<String>,
}

impl Media {
    /// The SHA-256 of the bytes, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        sha256(&self.bytes)
    }
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Client {
    /// Uploads a file. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn upload(
        &self,
        bytes: impl AsRef<[u8]>,
        content_type: &str,
    ) -> Result<OwnedMxcUri, Failure> {
        self.try_upload(bytes, content_type, None).await?.must()
    }

    /// Uploads a file, perhaps with a name, and hands back the answer. Conduit 0.10.12 answers 401 `M_MISSING_TOKEN` to a body
    /// above its `max_request_size`, not 413 (`src/api/ruma_wrapper/axum.rs:50-62`).
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_upload(
        &self,
        bytes: impl AsRef<[u8]>,
        content_type: &str,
        filename: Option<&str>,
    ) -> Result<Answer<OwnedMxcUri>, Failure> {
        let bytes = bytes.as_ref();
        let what = format!("upload {} bytes of `{content_type}`", bytes.len());
        let mut request = create_content::v3::Request::new(bytes.to_vec());
        request.content_type = Some(content_type.to_owned());
        request.filename = filename.map(str::to_owned);
        Ok(self
            .try_call(what, request, self.limits().media)
            .await?
            .map(|response| response.content_uri))
    }

    /// Downloads a file from the authenticated endpoint. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn download(&self, uri: &MxcUri) -> Result<Media, Failure> {
        self.try_download(uri).await?.must()
    }

    /// Downloads a file from the authenticated endpoint (`/_matrix/client/v1/media/download`), and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer, or `uri` is not a valid content URI.
    pub async fn try_download(&self, uri: &MxcUri) -> Result<Answer<Media>, Failure> {
        let what = format!("download `{uri}`");
        let request =
            get_content::v1::Request::from_uri(uri).map_err(|error| self.invalid(&what, error))?;
        let answer = self.try_call(what, request, self.limits().media).await?;
        Ok(answer.map(|response| Media {
            bytes: response.file.into(),
            content_type: response.content_type,
            disposition: response.content_disposition.map(|name| name.to_string()),
        }))
    }

    /// Asks for a picture of a file that is about 32 pixels wide and high, and hands back the answer.
    ///
    /// # Errors
    /// When there is no answer, or `uri` is not a valid content URI.
    pub async fn try_thumbnail(&self, uri: &MxcUri) -> Result<Answer<Media>, Failure> {
        let what = format!("look at a thumbnail of `{uri}`");
        let request = get_content_thumbnail::v1::Request::from_uri(uri, uint!(32), uint!(32))
            .map_err(|error| self.invalid(&what, error))?;
        let answer = self.try_call(what, request, self.limits().media).await?;
        Ok(answer.map(|response| Media {
            bytes: response.file.into(),
            content_type: response.content_type,
            disposition: response.content_disposition.map(|name| name.to_string()),
        }))
    }

    /// Downloads a file and demands that it is exactly `expected`.
    ///
    /// # Errors
    /// When the bytes differ, the server refuses, or it does not answer.
    pub async fn downloads(&self, uri: &MxcUri, expected: impl AsRef<[u8]>) -> Result<(), Failure> {
        let expected = expected.as_ref();
        let answer = self.try_download(uri).await?;
        let (asked, took) = (answer.asked.clone(), answer.took);
        let media = answer.must()?;
        if media.bytes == expected {
            return Ok(());
        }
        let reason = format!(
            "the bytes differ: expected {} bytes with SHA-256 {}, got {} bytes with SHA-256 {}",
            expected.len(),
            sha256(expected),
            media.bytes.len(),
            media.sha256()
        );
        Err(Failure::new(asked, Cause::Unexpected(reason), took))
    }
}
