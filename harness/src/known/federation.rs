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

/// Questions about a room.
pub const OTHER_ROOMS_AUTHORITY: Known = Known {
    id: "other-rooms-authority",
    what: "a server that is in any room with the home is told who authorises an event of every other room, if it knows the \
           event's id: creator, levels, rules, members",
    because: "whether it may ask is judged by the room in the path, and the answer is that of the event's room",
    spec: "Server-Server API, Retrieving event authorization information; Server Access Control Lists (ACLs)",
    source: "src/api/server_server.rs:1317-1370",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "tell nothing of a room to a server that is not in it",
        "/event_auth/",
        "answered 200",
        "m.room.power_levels",
    ],
};

/// Missing events.
pub const CREATION_STOPS_MISSING_EVENTS: Known = Known {
    id: "creation-stops-missing-events",
    what: "in a room of version 12 nothing is told of what lies between as soon as that reaches back to the room's creation, \
           and the creation itself is not told",
    because: "the room of an event is read from the event, and a creation of version 12 does not name it",
    spec: "Server-Server API, Backfilling and retrieving missing events; room version 12",
    source: "src/api/server_server.rs:1118-1121 and :1261-1264",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "tell of a room's creation",
        "what lies between answered 500, the creation itself 500",
    ],
};

/// Invitations.
pub const WITHDRAWN_INVITATION_STAYS: Known = Known {
    id: "withdrawn-invitation-stays",
    what: "an invitation that another server has withdrawn stays",
    because: "events of a room in which the home is not are dropped, also those that concern its invited users",
    spec: "Server-Server API, Inviting to a room; Client-Server API, Room membership",
    source: "src/api/server_server.rs:850-857",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["the withdrawn invitation is gone", "as Invited"],
};

/// What a partner answers.
pub const OTHER_EVENT_UNDER_AN_ID: Known = Known {
    id: "other-event-under-an-id",
    what: "a partner that is asked for an event may answer another one: that is kept, and shown, under the id of the one that \
           was asked for, which is lost",
    because: "that the answer's id is not the one that was asked for is only logged",
    spec: "Server-Server API, Checks performed on receipt of a PDU; room version 4: an event's id is its reference hash",
    source: "src/service/rooms/event_handler/mod.rs:1221-1224",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "show nothing under the id of what it never had",
        "status: 200",
    ],
};

/// What a partner answers.
pub const FOLLOWS_WRONG_EVENTS: Known = Known {
    id: "follows-wrong-events",
    what: "a partner that answers each question with an event which names others can keep it asking without end",
    because: "the answer's id is not compared with the one that was asked for, and nothing counts the events that authorise others",
    spec: "Server-Server API, Checks performed on receipt of a PDU; room version 4: an event's id is its reference hash",
    source: "src/service/rooms/event_handler/mod.rs:1165-1252",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["ask a bounded number of times"],
};

/// Backfill.
pub const BACKFILL_BYPASSES_THE_ROOM: Known = Known {
    id: "backfill-bypasses-the-room",
    what: "what a server answers as the history of one room is put into the history of another, though it is banned there",
    because: "an event of a history is put into the room that it names, and is judged by its own authorities alone",
    spec: "Server-Server API, Backfilling and retrieving missing events; Checks performed on receipt of a PDU",
    source: "src/service/rooms/timeline/mod.rs:1340-1399",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["show nothing that was made up"],
};

/// Transactions.
pub const BAD_SIGNING_KEYS_STOP_A_TRANSACTION: Known = Known {
    id: "bad-signing-keys-stop-a-transaction",
    what: "cross-signing keys that are none have their whole transaction refused, and what stands behind them is not taken",
    because: "an error of one ephemeral event ends the handling of all",
    spec: "Server-Server API, Transactions",
    source: "src/api/server_server.rs:1068-1084",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["take the good event behind a bad one", "answered 400"],
};

/// Receipts.
pub const RECEIPTS_OF_STRANGERS: Known = Known {
    id: "receipts-of-strangers",
    what: "a server puts receipts of its users into rooms in which they are not, also into those in which it is not itself",
    because: "only the user's server is looked at, not who is in the room",
    spec: "Server-Server API, Receipts",
    source: "src/api/server_server.rs:936-981",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["drop what was sent in another's name"],
};

/// Joins.
pub const JOIN_TRUSTS_THE_STATE: Known = Known {
    id: "join-trusts-the-state",
    what: "the state that comes with a join is taken also where its hash is wrong, nobody was allowed to send it, or it is \
           another room's",
    because: "of an event of that state only the signatures are checked",
    spec: "Server-Server API, Joining rooms; Checks performed on receipt of a PDU",
    source: "src/service/rooms/helpers/mod.rs:206-233 and :733-737",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["leave out what was not verified"],
};

/// Joins.
pub const JOIN_STOPS_AT_A_BAD_EVENT: Known = Known {
    id: "join-stops-at-a-bad-event",
    what: "one event of the room's state that follows on what is no event's id stops the join",
    because: "such an event is not left out, but ends the join with an error",
    spec: "Server-Server API, Joining rooms",
    source: "src/service/rooms/helpers/mod.rs:217-220",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["could not join", "Invalid PDU in send_join response"],
};

/// Joining and leaving.
pub const MOVES_ITS_OWN_USERS: Known = Known {
    id: "moves-its-own-users",
    what: "any server that the room's ACL does not ban can make every user of the home leave a room, or join one that is open: \
           it asks for the membership, gets it signed by the home, and sends it back",
    because: "whose user it is is not compared with who asks, and a template is signed like an event that is sent",
    spec: "Server-Server API, Joining rooms, Leaving rooms: a template is for a user of the server that asks, which signs it",
    source: "src/api/server_server.rs:1530-1656; src/service/rooms/timeline/mod.rs:843-848",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "leave everybody's membership to his own server",
        "answered 200",
    ],
};

/// Joining.
pub const SIGNS_FOR_ANYBODY: Known = Known {
    id: "signs-for-anybody",
    what: "any server is given joins of other servers' users and of the home's own, with the home's signature",
    because: "whose user it is is not compared with who asks, and a template is signed like an event that is sent",
    spec: "Server-Server API, Joining rooms: a template is for a user of the server that asks, which signs it",
    source: "src/api/server_server.rs:1552-1656; src/service/rooms/timeline/mod.rs:843-848",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["sign no membership for another server", "answered 200"],
};

/// Soft failure.
pub const SOFT_FAILED_BY_ID: Known = Known {
    id: "soft-failed-by-id",
    what: "a soft-failed event is shown to who asks for it by its id",
    because: "it is kept with its state, and only having a state is looked at",
    spec: "Server-Server API, Soft failure: the event is not relayed to clients",
    source: "src/service/rooms/timeline/mod.rs:1165-1190; src/api/client_server/room.rs, get_room_event_route",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "keep a forged event from clients",
        "it was asked for by its id",
    ],
};

/// Authority.
pub const AUTHORITY_WITHOUT_A_STATE_KEY: Known = Known {
    id: "authority-without-a-state-key",
    what: "an event that names a message as its authority crashes the request: 500 with an empty body, and what stands behind it \
           in the transaction is not taken",
    because: "what authorises an event is expected to have a state key, before that is looked at",
    spec: "Server-Server API, Transactions: 200; Authorization rules: such an event is rejected",
    source: "src/service/rooms/event_handler/mod.rs:446-456",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &[
        "answer a transaction whatever is in it",
        "answered 500: null",
    ],
};

/// Device lists and receipts.
pub const EDUS_WAIT_FOR_AN_OCCASION: Known = Known {
    id: "edus-wait-for-an-occasion",
    what: "receipts and changes of devices are told only when an event or a to-device message is to be sent there",
    because: "they are gathered when a transaction is made, and only those two make one",
    spec: "Server-Server API, Device management; Receipts: sent when it happens",
    source: "src/service/sending/mod.rs:214-268",
    server: "conduit",
    entrances: ANYWHERE,
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
    entrances: ANYWHERE,
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
    entrances: ANYWHERE,
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
    entrances: ANYWHERE,
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
    entrances: ANYWHERE,
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
    entrances: ANYWHERE,
    shows: &["show another server's presence"],
};

/// Joins.
pub const REJOINED_AS_INVITED: Known = Known {
    id: "rejoined-as-invited",
    what: "who comes back to a room by an invitation is taken for merely invited, when the room's server tells of the join before it answers it",
    because: "the invitation comes with that as an event before the join: it is judged before the room is locked for the join, and \
              put down when the join is done, as if it were the newer one; no sync tells of the room any more",
    spec: "Server-Server API, Checks performed on receipt of a PDU: an event that the current state does not allow is soft failed",
    source: "src/service/rooms/event_handler/mod.rs:833-889; src/service/rooms/helpers/mod.rs:59-335",
    server: "conduit",
    entrances: ANYWHERE,
    shows: &["be in a room after a join that was granted", "Invited"],
};
