//! Real end-to-end encrypted clients, and what stands between them and their server.
//!
//! A [`Device`] is one logged-in device of one user, on `matrix-sdk`, with its store on disk. Nothing of it runs by itself:
//! each [`step`](Device::step) is one sync and whatever the client has to send because of it, so that two devices can be
//! interleaved as a scenario wants. What a device is shown of an event is a [`Shown`].
//!
//! A [`Gate`] is the way from devices to a server with somebody standing in it: it writes down what passes, loses requests
//! and replies for as long as a scope lasts, or is [wrong](Mutant) on purpose as a whole.

mod device;
mod forged;
mod gate;
mod identity;
mod mutant;
mod sentinel;
mod shown;

pub use device::{Closed, Device, EncryptedRoom, HASTE, Habits, SOON, Way, sdk, soon};
pub use forged::Forged;
pub use gate::{Gate, Meddling, Passed};
pub use mutant::Mutant;
pub use sentinel::reads_sentinel;
pub use shown::Shown;

/// The client library itself, for what has no verb here.
pub use matrix_sdk;
/// The encryption library under it.
pub use matrix_sdk_crypto;
