//! What Conduit 0.10.12 is known to do wrong towards the federation. Each is put at every run and must fail in just the
//! recorded way. Sections are those of the Server-Server API; the sources are those of the pinned version.

use harness::entrance::Entrance;
use harness::known::Known;

const EVERYWHERE: &[Entrance] = &Entrance::ALL;

/// Steps 1, 3.3 to 3.5 and 4 to 6 of discovery.
pub const HOST_CARRIES_THE_PORT: Known = Known {
    id: "host-carries-the-port",
    what: "the `Host` header carries the port that was dialled, also where the server name has none",
    because: "the request's URL is made of the host and the port that discovery found, and the header of the URL",
    spec: "Server-Server API, Resolving server names, steps 1, 3.3 to 3.5, 4 to 6",
    source: "src/api/server_server.rs:101-106",
    server: "conduit",
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
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
    entrances: EVERYWHERE,
    shows: &["it asked for history 0 times"],
};

/// Device lists and receipts.
pub const EDUS_WAIT_FOR_AN_OCCASION: Known = Known {
    id: "edus-wait-for-an-occasion",
    what: "receipts and changes of devices are told only when an event or a to-device message is to be sent there",
    because: "they are gathered when a transaction is made, and only those two make one",
    spec: "Server-Server API, Device management; Receipts: sent when it happens",
    source: "src/service/sending/mod.rs:214-268",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["waited in vain until sync"],
};

/// Device lists.
pub const DEVICE_CHANGES_ARE_UNTOLD: Known = Known {
    id: "device-changes-are-untold",
    what: "nobody is told that a device was renamed or has gone",
    because: "the number of the device list is raised, but the change is not marked as one",
    spec: "Server-Server API, Device management: whenever a user's device list changes",
    source: "src/database/key_value/users.rs:229-256, 844-866",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["tell who shares a room with somebody that their devices changed"],
};

/// Device lists.
pub const DEVICE_UPDATE_IS_LOST: Known = Known {
    id: "device-update-is-lost",
    what: "a change of devices that could not be delivered is never told, if a receipt was to be delivered with it",
    because: "both count as told before the transaction is, and are not part of what is tried again; without a receipt the \
              mark stays where it was, and the change is told with every transaction",
    spec: "Server-Server API, Transactions; Device management",
    source: "src/service/sending/mod.rs:257-263, 270-371",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["tell who shares a room with somebody that their devices changed"],
};

/// Typing.
pub const TYPING_IS_NOT_SENT: Known = Known {
    id: "typing-is-not-sent",
    what: "other servers are not told who types",
    because: "typing is kept for the own users, and nothing makes an EDU of it",
    spec: "Server-Server API, Typing notifications",
    source: "src/service/rooms/edus/typing/mod.rs:17-45",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["show another server's typing"],
};

/// Presence.
pub const PRESENCE_IS_IGNORED: Known = Known {
    id: "presence-is-ignored",
    what: "the presence of other servers' users is not shown",
    because: "what comes in a transaction is thrown away",
    spec: "Server-Server API, Presence",
    source: "src/api/server_server.rs:935",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["show another server's presence"],
};

/// Presence.
pub const PRESENCE_IS_NOT_SENT: Known = Known {
    id: "presence-is-not-sent",
    what: "other servers are not told who is there",
    because: "nothing makes an EDU of it",
    spec: "Server-Server API, Presence",
    source: "src/service/sending/mod.rs:270-371",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["show another server's presence"],
};

/// Everything that is known here.
pub const CATALOGUE: &[&Known] = &[
    &HOST_CARRIES_THE_PORT,
    &SRV_PRIORITY,
    &WELL_KNOWN_STATUS,
    &NO_NOTARY,
    &UNSIGNED_KEYS_ARE_BELIEVED,
    &KEYS_OF_ANOTHER_SERVER,
    &UNRELATED_KEY_ID_BLOCKS,
    &NOT_401,
    &TOO_LARGE_TRANSACTION,
    &REPLAYED_INVITATION,
    &NO_RETRY_TIMER,
    &ACL_SPARES_EPHEMERAL_EVENTS,
    &BACKFILL_FORGETS_CREATORS,
    &EDUS_WAIT_FOR_AN_OCCASION,
    &DEVICE_CHANGES_ARE_UNTOLD,
    &DEVICE_UPDATE_IS_LOST,
    &TYPING_IS_NOT_SENT,
    &PRESENCE_IS_IGNORED,
    &PRESENCE_IS_NOT_SENT,
];

/// A record is of use only if it can be told from every other and from a failure that merely looks alike.
#[test]
fn every_known_failure_says_why_and_how_it_shows() {
    let ids: std::collections::BTreeSet<_> = CATALOGUE.iter().map(|known| known.id).collect();
    assert_eq!(ids.len(), CATALOGUE.len(), "an id stands twice");
    for known in CATALOGUE {
        let texts = [known.what, known.because, known.spec, known.source];
        assert!(texts.iter().all(|text| !text.is_empty()), "{known:?}");
        assert!(!known.shows.is_empty(), "{known:?}");
    }
}
