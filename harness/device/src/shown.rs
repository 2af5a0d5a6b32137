//! What a device shows its user of an event.

use matrix_sdk::deserialized_responses::{
    TimelineEvent, TimelineEventKind, UnableToDecryptReason, VerificationState,
};
use matrix_sdk::ruma::serde::Raw;
use serde_json::Value;
use std::fmt;

/// What a device shows its user of an event.
#[derive(Clone, Debug)]
pub enum Shown {
    /// It has not come.
    Nothing,
    /// It came in clear text.
    Plain {
        /// The whole event.
        event: Value,
    },
    /// It came encrypted, and this device cannot decrypt it.
    Unreadable {
        /// Why, as the library says.
        reason: UnableToDecryptReason,
        /// The Megolm session that it was encrypted with.
        session: Option<String>,
        /// The event as it came.
        event: Value,
    },
    /// It came encrypted, and was decrypted.
    Read {
        /// The event as its sender encrypted it.
        event: Value,
        /// The Megolm session.
        session: Option<String>,
        /// The device that sent it.
        device: Option<String>,
        /// What is known of who sent it.
        trust: VerificationState,
    },
}

impl Shown {
    /// What the library made of an event.
    pub fn of(event: &TimelineEvent) -> Self {
        let json = |raw: &Raw<_>| serde_json::to_value(raw.json()).unwrap_or_default();
        match &event.kind {
            TimelineEventKind::PlainText { event } => Self::Plain { event: json(event) },
            TimelineEventKind::UnableToDecrypt { event, utd_info } => Self::Unreadable {
                reason: utd_info.reason.clone(),
                session: utd_info.session_id.clone(),
                event: json(event),
            },
            TimelineEventKind::Decrypted(decrypted) => {
                let info = &decrypted.encryption_info;
                Self::Read {
                    event: serde_json::to_value(decrypted.event.json()).unwrap_or_default(),
                    session: info.session_id().map(str::to_owned),
                    device: info.sender_device.as_ref().map(ToString::to_string),
                    trust: info.verification_state.clone(),
                }
            }
        }
    }

    /// The text of a message that was encrypted and could be read.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Read { event, .. } => event["content"]["body"].as_str(),
            _ => None,
        }
    }

    /// The event as the user is shown it; where it could not be decrypted, as it came.
    pub fn event(&self) -> Option<&Value> {
        match self {
            Self::Nothing => None,
            Self::Plain { event } | Self::Unreadable { event, .. } | Self::Read { event, .. } => {
                Some(event)
            }
        }
    }

    /// The Megolm session that it was encrypted with.
    pub fn session(&self) -> Option<&str> {
        match self {
            Self::Unreadable { session, .. } | Self::Read { session, .. } => session.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing"),
            Self::Plain { event } => write!(f, "in clear text: {}", event["content"]),
            Self::Unreadable { reason, .. } => write!(f, "cannot be decrypted: {reason:?}"),
            Self::Read { event, .. } => write!(f, "decrypted: {}", event["content"]),
        }
    }
}
