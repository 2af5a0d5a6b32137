//! What Conduit 0.10.12 is known to do wrong about encryption. Each is put at every run and must fail in just the recorded way.
//! Sections are those of the Client-Server API; the sources are those of the pinned version.

use super::Known;
use crate::entrance::Entrance;

const ANYWHERE: &[Entrance] = &[Entrance::Federation];

/// F2.
pub const CLAIMED_BY_ID: Known = Known {
    id: "claimed-by-id",
    what: "one-time keys are claimed in the order of their ids' bytes, not of their upload",
    because: "the first key of a scan of the database is taken, which is sorted by id",
    spec: "\"POST /_matrix/client/v3/keys/claim\": keys are returned in the order in which they were uploaded",
    source: "src/database/key_value/users.rs:355-392",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "hand out one-time keys in the order of their upload",
        r#"claimed ["0", "M", "a", "k", "z"]"#,
    ],
};

/// F3.
pub const CLAIMED_TWICE: Known = Known {
    id: "claimed-twice",
    what: "one-time keys are given to two and more of those who claim at the same time",
    because: "a key is looked up and removed in two steps, without a lock",
    spec: "\"One-time and fallback keys\": a one-time key is given out once",
    source: "src/database/key_value/users.rs:355-392",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "hand out each one-time key to one claimer",
        "were given to one more",
    ],
};

/// F5.
pub const NO_FALLBACK_KEY: Known = Known {
    id: "no-fallback-key",
    what: "a device whose one-time keys are all claimed cannot be written to: there are no fallback keys",
    because: "`fallback_keys` of an upload are ignored",
    spec: "\"One-time and fallback keys\": if there is no one-time key left, the fallback key is returned",
    source: "src/api/client_server/keys.rs:32-76, src/api/client_server/sync.rs:617-618",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["hand out the fallback key"],
};

/// F5.
pub const KEPT_WITHOUT_KEYS: Known = Known {
    id: "kept-without-keys",
    what: "a device whose one-time keys were all claimed between two syncs never uploads new ones, not even after a restart of its program",
    because: "the count is left out of sync when there is no key; matrix-sdk-crypto 0.18 makes keys only when it is told a count, because no unused fallback key types are told either it has no other reason to",
    spec: "\"GET /_matrix/client/v3/sync\": a count that is missing is zero, which the client does not follow; `device_unused_fallback_key_types` is required",
    source: "src/database/key_value/users.rs:394-425, src/api/client_server/sync.rs:609-618",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["let a device whose one-time keys are all claimed upload new ones"],
};

/// F6.
pub const OVERWRITTEN_KEYS: Known = Known {
    id: "overwritten-keys",
    what: "another one-time key under an id that is taken replaces the first",
    because: "it is inserted without a look at what is there",
    spec: "\"POST /_matrix/client/v3/keys/upload\": 400 where a one-time key with the same id and another content exists",
    source: "src/api/client_server/keys.rs:36-44, src/database/key_value/users.rs:310-345",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "refuse another one-time key under an id that is taken",
        "answered 200",
    ],
};
