//! What Conduit 0.10.12 is known to do wrong about encryption. Each is put at every run and must fail in just the recorded way.
//! Sections are those of the Client-Server API; the sources are those of the pinned version.

use super::Known;
use crate::entrance::Entrance;

const ANYWHERE: &[Entrance] = &[Entrance::Federation];

/// F10.
pub const FIRST_IDENTITY_ASKS: Known = Known {
    id: "first-identity-asks",
    what: "the password is asked for even when a user has no cross-signing identity yet, or uploads the same one again",
    because: "whether there is an identity is not looked at before authentication is asked for",
    spec: "\"POST /_matrix/client/v3/keys/device_signing/upload\" since v1.11: authentication is required, except where there is no \
           master key yet",
    source: "src/api/client_server/keys.rs:101-142",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["take the first identity without a password", "answered 401"],
};
