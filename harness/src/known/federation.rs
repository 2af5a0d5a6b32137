//! What Conduit 0.10.12 is known to do wrong towards the federation. Each is put at every run and must fail in just the
//! recorded way. Sections are those of the Server-Server API; the sources are those of the pinned version.

use super::Known;
use crate::entrance::Entrance;

const ANYWHERE: &[Entrance] = &[Entrance::Federation];

/// Steps 1, 3.3 to 3.5 and 4 to 6 of discovery.
pub const HOST_CARRIES_THE_PORT: Known = Known {
    id: "host-carries-the-port",
    what: "the `Host` header carries the port that was dialled, also where the server name has none",
    because: "the request's URL is made of the host and the port that discovery found, and the header of the URL",
    spec: "Server-Server API, Resolving server names, steps 1, 3.3 to 3.5, 4 to 6",
    source: "src/api/server_server.rs:101-106",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["the Host header carries the port that was dialled"],
};

/// Step 4 of discovery.
pub const SRV_PRIORITY: Known = Known {
    id: "srv-priority",
    what: "of several SRV records the first of the answer is taken, whatever its priority and weight",
    because: "the answer's records are not sorted",
    spec: "Server-Server API, Resolving server names, step 4; RFC 2782",
    source: "src/api/server_server.rs:607-626",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["find `priority.test` as specified"],
};

/// Step 3 of discovery.
pub const WELL_KNOWN_STATUS: Known = Known {
    id: "well-known-status",
    what: "a delegation is believed that stands in an error page",
    because: "the status of the answer is not looked at",
    spec: "Server-Server API, Resolving server names, step 3: a response other than 200 leads on to step 4",
    source: "src/api/server_server.rs:639-683",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["find `wk-error.test` as specified", "8450 as wk-error.test"],
};

/// Notary.
pub const NO_NOTARY: Known = Known {
    id: "no-notary",
    what: "it vouches for nobody's keys",
    because: "the endpoint does not exist",
    spec: "Server-Server API, Querying keys through another server",
    source: "src/main.rs: no route of `get_remote_server_keys`",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["vouch for a third server's keys", "404"],
};

/// Key documents.
pub const UNSIGNED_KEYS_ARE_BELIEVED: Known = Known {
    id: "unsigned-keys-are-believed",
    what: "a key document is believed that its keys have not signed",
    because: "the document's signatures are never looked at; only TLS vouches for it",
    spec: "Server-Server API, Publishing keys: the response is signed by its keys, and the signature must be checked",
    source: "src/service/rooms/event_handler/mod.rs:1893-1927",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["refuse the request", "answered 200"],
};

/// Key documents.
pub const KEYS_OF_ANOTHER_SERVER: Known = Known {
    id: "keys-of-another-server",
    what: "a key document is believed that names another server",
    because: "its `server_name` is not compared with whom was asked",
    spec: "Server-Server API, Publishing keys: `server_name`",
    source: "src/service/rooms/event_handler/mod.rs:1893-1927",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["refuse the request", "answered 200"],
};

/// Look-ups of keys.
pub const UNRELATED_KEY_ID_BLOCKS: Known = Known {
    id: "unrelated-key-id-blocks",
    what: "after one server's keys could not be had, every other server is refused for 30 s whose key has the same id",
    because: "failed look-ups are counted by the key ids alone, without the server",
    spec: "Server-Server API, Retrieving server keys: a key is known by its server and its id",
    source: "src/service/rooms/event_handler/mod.rs:1832-1846",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "believe a server whose key has a common id",
        "Failed to fetch signing keys",
    ],
};

/// Authentication of requests.
pub const NOT_401: Known = Known {
    id: "x-matrix-not-401",
    what: "a request whose signature is missing or wrong is refused with 403 `M_FORBIDDEN`",
    because: "the refusals are made with `ErrorKind::forbidden()`",
    spec: "Server-Server API, Request authentication: 401 Unauthorized",
    source: "src/api/ruma_wrapper/axum.rs:176-296",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["refuse with 401", "M_FORBIDDEN", "answered 403"],
};

/// Limits of a transaction.
pub const TOO_LARGE_TRANSACTION: Known = Known {
    id: "too-large-transaction",
    what: "a transaction of more than 50 events or 100 ephemeral ones is taken",
    because: "nothing counts them",
    spec: "Server-Server API, Transactions: a limited number of 50 PDUs and 100 EDUs",
    source: "src/api/server_server.rs:806-845",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["refuse an overfull transaction", " 200"],
};

/// Replay.
pub const REPLAYED_INVITATION: Known = Known {
    id: "replayed-invitation",
    what: "an invitation that was declined is there again when the request is replayed",
    because: "an invitation is stored whenever it comes, whether it came before or not",
    spec: "Server-Server API, Inviting to a room; Checks performed on receipt of a PDU",
    source: "src/api/server_server.rs, create_invite_route",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["not invite again who declined"],
};

/// The outgoing queue.
pub const NO_RETRY_TIMER: Known = Known {
    id: "no-retry-timer",
    what: "what could not be delivered is tried again only when something new is to be sent there, or at the next start",
    because: "failed transactions wait for an occasion, and there is no timer that would be one",
    spec: "Server-Server API, Transactions",
    source: "src/service/sending/mod.rs:121-233",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["has received 3 events", "3 of 3 are missing"],
};

/// Server ACLs.
pub const ACL_SPARES_EPHEMERAL_EVENTS: Known = Known {
    id: "acl-spares-ephemeral-events",
    what: "a banned server's typing notifications are shown",
    because: "the ACL is looked at for events only",
    spec: "Server-Server API, Server Access Control Lists (ACLs), since version 1.13 (MSC4163); Conduit declares 1.12",
    source: "src/api/server_server.rs:894-925",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["keep the banned server's typing out"],
};

/// Backfill.
pub const BACKFILL_FORGETS_CREATORS: Known = Known {
    id: "backfill-forgets-creators",
    what: "in a room of version 12 whose power levels name nobody, the history before a join is asked of nobody",
    because: "only the servers of users whose level is written down above the default are asked, and a creator's is not",
    spec: "Server-Server API, Backfilling and retrieving missing events; room version 12: creators stand above all",
    source: "src/service/rooms/timeline/mod.rs:1283-1297",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["it asked for history 0 times"],
};
