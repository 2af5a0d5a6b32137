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

/// F9.
pub const TO_DEVICE_IS_TOLD_AGAIN: Known = Known {
    id: "to-device-is-told-again",
    what: "a to-device message that comes while a sync is answered is told again after it was acknowledged",
    because: "the token is taken before the messages are read, and what is read reaches further than the token",
    spec: "Client-Server API, Send-to-Device messaging, Server behaviour",
    source: "src/api/client_server/sync.rs:575-616; src/database/key_value/users.rs:788-808",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "tell a stream of to-device messages once and in order",
        "told again: [\"",
    ],
};

/// F9.
pub const TO_DEVICE_IS_LOST: Known = Known {
    id: "to-device-is-lost",
    what: "a to-device message that comes while its device syncs is never told: a room key that is lost so leaves a conversation unreadable",
    because: "a message takes its number before it is stored; a sync in between is given a token that covers the number, and with that \
              token the client acknowledges what it was not told",
    spec: "Client-Server API, Send-to-Device messaging, Server behaviour: kept until the client has acknowledged it",
    source: "src/database/key_value/users.rs:762-842; src/api/client_server/sync.rs:183, 575-578",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["tell every to-device message", "lost: [\""],
};

/// F11.
pub const BACKUP_WRONG_VERSION: Known = Known {
    id: "backup-wrong-version",
    what: "keys for an older version of a backup are refused with 400 `M_INVALID_PARAM`, so that clients do not learn that there is a newer one and try for ever",
    because: "the error has no code of its own there",
    spec: "Client-Server API, Server-side key backups, POST /_matrix/client/v3/room_keys/version; PUT /room_keys/keys: 403 `M_WRONG_ROOM_KEYS_VERSION` with `current_version`",
    source: "src/api/client_server/backup.rs:133-145",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "refuse keys for an older version with 403 `M_WRONG_ROOM_KEYS_VERSION`",
        "400",
        "M_INVALID_PARAM",
    ],
};

/// F11.
pub const BACKUP_OF_NOBODY: Known = Known {
    id: "backup-of-nobody",
    what: "keys of a version that does not exist are answered 200, as none; a version that does not exist can be deleted",
    because: "only the description of a version is looked up",
    spec: "Client-Server API, Server-side key backups, GET /room_keys/keys, DELETE /room_keys/version/{version}: 404 `M_NOT_FOUND`",
    source: "src/api/client_server/backup.rs:115-125, 275-305",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "answer 404 to whatever is asked of a version that does not exist",
        "200",
    ],
};

/// F11.
pub const BACKUP_KEEPS_THE_NEWEST: Known = Known {
    id: "backup-keeps-the-newest",
    what: "a worse copy of a key replaces a better one: a key that begins later in the conversation replaces one that reads all of it",
    because: "whatever comes is written over what is there",
    spec: "Client-Server API, Server-side key backups, PUT /room_keys/keys: is_verified, first_message_index and forwarded_count decide",
    source: "src/database/key_value/key_backups.rs:142-180",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["keep the better one of two copies of a key"],
};

/// F11.
pub const BACKUP_TAKES_ANY_CHANGE: Known = Known {
    id: "backup-takes-any-change",
    what: "a version of a backup is given another algorithm, or is changed under another version's name",
    because: "what is there is overwritten without a look",
    spec: "Client-Server API, Server-side key backups, PUT /room_keys/version/{version}: 400 `M_INVALID_PARAM`",
    source: "src/database/key_value/key_backups.rs:57-80",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "refuse to give a version another algorithm or number",
        "200",
    ],
};

/// F11.
pub const BACKUP_ETAG_STAYS: Known = Known {
    id: "backup-etag-stays",
    what: "the etag stays what it was when keys are deleted",
    because: "only new keys raise it",
    spec: "Client-Server API, Server-side key backups, DELETE /room_keys/keys: the etag is different when keys were changed",
    source: "src/database/key_value/key_backups.rs:314-350",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["change the etag when keys are deleted"],
};

/// F11.
pub const BACKUP_NEWEST_BY_LETTERS: Known = Known {
    id: "backup-newest-by-letters",
    what: "the newest of two versions is taken to be the one whose decimal number sorts last as text: 998 before 1000; keys for the true newest are refused",
    because: "versions are decimal text in an ordered table, and the last of them is taken",
    spec: "Client-Server API, Server-side key backups, GET /room_keys/version: the current version",
    source: "src/database/key_value/key_backups.rs:82-104",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["take the version made last for the current one"],
};

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
