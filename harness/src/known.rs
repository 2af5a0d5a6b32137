//! Expected failures: what a server is known to do wrong, in one catalogue, with its reason. A claim that is known not
//! to hold is still put at every run. It must fail in just the recorded way; if it holds, or fails otherwise, the
//! record is wrong and the run fails until somebody has looked.

pub mod encryption;
pub mod federation;

use crate::entrance::Entrance;
use crate::failure::{Failure, Result};
use crate::homeserver::Server;
use crate::verdict::Blame;

/// One known failure.
#[derive(Debug)]
pub struct Known {
    /// What reports call it.
    pub id: &'static str,
    /// What the server does, as a sentence.
    pub what: &'static str,
    /// Why, as its source or its authors have it.
    pub because: &'static str,
    /// The section that asks for something else.
    pub spec: &'static str,
    /// Where in the server's source of the pinned version the reason can be read.
    pub source: &'static str,
    /// The server that it is known of, by [`Server::name`].
    pub server: &'static str,
    /// The entrances through which it shows.
    pub entrances: &'static [Entrance],
    /// What the failure's letter must say: every one of these, in the words of the check and of the server.
    pub shows: &'static [&'static str],
}

impl Known {
    /// Whether a claim that is put to this server by this entrance is expected to fail so.
    pub fn concerns(&self, server: &Server, entrance: Entrance) -> bool {
        self.server == server.name && self.entrances.contains(&entrance)
    }

    /// Passes only when the claim failed in just this way.
    ///
    /// # Errors
    /// When the claim held: the record is out of date. When it failed in another way, that failure: it is news.
    pub fn must_fail(&self, outcome: Result<()>) -> Result<()> {
        let Err(failure) = outcome else {
            return Err(Failure::product(format!(
                "fail as recorded under `{}`: the claim held, and the record says that {}",
                self.id, self.what
            ))
            .hint(format!(
                "record it: remove `{}` from the catalogue in harness/src/known.rs and from the claim that names it, tick the claim, \
                 and tell upstream's issue if there is one",
                self.id
            )));
        };
        let text = failure.to_string();
        let missing: Vec<_> = self
            .shows
            .iter()
            .filter(|shown| !text.contains(**shown))
            .collect();
        if failure.blame == Blame::Product && missing.is_empty() {
            return Ok(());
        }
        let because = format!(
            "it is not the known failure `{}`, whose letter would say {missing:?} and blame the product",
            self.id
        );
        Err(failure.because(because))
    }
}

const EVERYWHERE: &[Entrance] = &Entrance::ALL;

/// A4.
pub const TXN_ACROSS_ROOMS: Known = Known {
    id: "txn-across-rooms",
    what: "a message under a transaction id that was used in another room is lost, and answered with the other room's event",
    because: "transaction ids are kept by user, device and id alone, not by room",
    spec: "Client-Server API, \"Transaction identifiers\": the scope is the path of the request",
    source: "src/database/key_value/transaction_ids.rs",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["send another event to another room under the same transaction id"],
};

/// A4.
pub const TXN_ACROSS_ENDPOINTS: Known = Known {
    id: "txn-across-endpoints",
    what: "a to-device message under a transaction id that a room message had is dropped, and answered 200",
    because: "transaction ids are kept by user, device and id alone, not by endpoint",
    spec: "Client-Server API, \"Transaction identifiers\": the scope is the path of the request",
    source: "src/api/client_server/to_device.rs, src/database/key_value/transaction_ids.rs",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &[
        "deliver a to-device message whose transaction id a room message had",
        "[\"second\"]",
    ],
};

/// A2.
pub const LOGOUT_ALL: Known = Known {
    id: "logout-all",
    what: "`logout/all` is refused with 401 to everybody but appservices",
    because: "the check for an appservice's token is turned round: who has none is refused",
    spec: "Client-Server API, \"POST /_matrix/client/v3/logout/all\"",
    source: "src/api/client_server/session.rs:260-272",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &[
        "401 `M_MISSING_TOKEN`",
        "Missing appservice token",
        "logout/all",
    ],
};

/// C6.
pub const WAKES_EMPTY: Known = Known {
    id: "wakes-empty",
    what: "the answer that a new event wakes a poll with is the old, empty one; the event is in the next",
    because: "the response is made before the wait, and handed out after it as it was",
    spec: "Client-Server API, \"Syncing\"",
    source: "src/api/client_server/sync.rs:621-638",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["tell in the answer that wakes a poll what woke it"],
};

/// D4, G5.
pub const OVERSIZE_DIRECT: Known = Known {
    id: "oversize-401",
    what: "a body that is too large is answered as if its token were missing",
    because: "every error of reading the body becomes `M_MISSING_TOKEN`; mended upstream after 0.10.12 (a87f4b61)",
    spec: "Client-Server API, \"Common error codes\", `M_TOO_LARGE`",
    source: "src/api/ruma_wrapper/axum.rs:50-62",
    server: "conduit",
    // Caddy refuses what is too large before Conduit sees it.
    entrances: &[Entrance::Direct],
    shows: &["413 `M_TOO_LARGE`", "401", "M_MISSING_TOKEN"],
};

/// G1.
pub const BAD_QUERY_TOKEN: Known = Known {
    id: "bad-query-token",
    what: "an unknown token in the query crashes the request: 500 with an empty body",
    because: "such a token is taken for none, behind the check for one, and the handler expects a user",
    spec: "Client-Server API, \"Using access tokens\"",
    source: "src/api/ruma_wrapper/axum.rs:110-121",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["401 `M_UNKNOWN_TOKEN`", "last seen: 500"],
};

/// G2.
pub const OTHERS_ACCOUNT_DATA: Known = Known {
    id: "others-account-data",
    what: "a request for another user's account data is answered about the asker's own",
    because: "the user in the path is not looked at",
    spec: "Client-Server API, \"Client Config\": 403 `M_FORBIDDEN`",
    source: "src/api/client_server/config.rs",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["refuse with 403 what is another user's account data", "200"],
};

/// G6.
pub const NOT_JSON: Known = Known {
    id: "not-json",
    what: "a body that is no JSON is refused as bad JSON, and an empty one is taken for an empty object",
    because: "bodies are parsed once for authentication, where errors are dropped, and again by the endpoint, which knows one error only",
    spec: "Client-Server API, \"Common error codes\", `M_NOT_JSON`",
    source: "src/api/ruma_wrapper/axum.rs:97 and :358-362",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &[
        "`M_NOT_JSON` what is no JSON",
        "``: 200",
        "`nonsense`: 400",
        "M_BAD_JSON",
    ],
};

/// G6.
pub const BAD_NUMBERS: Known = Known {
    id: "bad-numbers",
    what: "an event with a number that canonical JSON cannot hold crashes its request: 500 with an empty body; nothing is sent",
    because: "content is made canonical where that is expected to succeed",
    spec: "Appendices, \"Canonical JSON\"; Client-Server API, `M_BAD_JSON`",
    source: "src/service/rooms/timeline/mod.rs:832",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &[
        "`M_BAD_JSON` what canonical JSON cannot hold",
        "1.5: 500",
        "\n    9007199254740992: 500",
    ],
};

/// G5.
pub const DEEP_JSON: Known = Known {
    id: "deep-json",
    what: "an event that is nested very deeply crashes its request: 500 with an empty body; nothing is sent",
    because: "content is made canonical where that is expected to succeed, and the parser gives up at a depth of 128",
    spec: "Client-Server API, \"Standard error response\"",
    source: "src/service/rooms/timeline/mod.rs:832",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["refuse deep JSON with 400 and a code", "last seen: 500"],
};

/// A5.
pub const OTHERS_PROFILE: Known = Known {
    id: "others-profile",
    what: "who changes another user's name changes his own, and is answered 200",
    because: "the user in the path is not looked at",
    spec: "Client-Server API, \"PUT /_matrix/client/v3/profile/{userId}/displayname\"",
    source: "src/api/client_server/profile.rs:22-29",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &[
        "refuse to change somebody else's name",
        "answered 200, and bob is called Some(\"Mallory\")",
    ],
};

/// B1.
pub const STRANGERS_PAGES: Known = Known {
    id: "strangers-pages",
    what: "who knows a private room's id and asks for its pages is shown its first event and its creator's membership: \
           when it was made, by whom, and under what name",
    because: "each event is judged by the state before it, and an event that has none is shown to everybody",
    spec: "Client-Server API, \"GET /_matrix/client/v3/rooms/{roomId}/messages\": 403",
    source: "src/service/rooms/state_accessor/mod.rs:176-179, src/api/client_server/message.rs:119-215",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &[
        "refuse a stranger the pages of a room with 403",
        "last seen: 200",
        "m.room.create",
        "\"membership\": String(\"join\")",
    ],
};

/// B5.
pub const HISTORY_AFTER_LEAVING: Known = Known {
    id: "history-after-leaving",
    what: "who left a room of shared history is refused what was said while he was there",
    because: "`shared` is taken to mean who is a member now, not who was one then",
    spec: "Client-Server API, \"Room History Visibility\"",
    source: "src/service/rooms/state_accessor/mod.rs:202-204",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &[
        "show what was said while bob was there",
        "You don't have permission to view this event",
    ],
};

/// B5.
pub const VISIBILITY_REMEMBERED: Known = Known {
    id: "visibility-remembered",
    what: "who asked for an event in vain while he was away is refused it after he came back, until the server is restarted",
    because: "the answer is remembered by user and state, though it depended on who is a member now",
    spec: "Client-Server API, \"Room History Visibility\"",
    source: "src/service/rooms/state_accessor/mod.rs:181-222",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &[
        "show who came back what was said meanwhile",
        "You don't have permission to view this event",
    ],
};

/// HIS2.
pub const LEFT_WITHOUT_TIMELINE: Known = Known {
    id: "left-without-timeline",
    what: "who leaves a room, or is removed from it, is not told what was said in it since his last sync",
    because: "the timeline of a room that was left is always empty, and not limited",
    spec: "Client-Server API, \"Syncing\", `Left Room`: the timeline of messages up to the point when the user left",
    source: "src/api/client_server/sync.rs:446-461",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["tell who leaves what was said before", "lost-on-leaving"],
};

/// C5.
pub const SYNC_REPEATS: Known = Known {
    id: "sync-repeats",
    what: "an event that comes while a sync is answered is told again by the next",
    because: "the token is taken before the timelines are read, and they are read up to their end and not up to the token",
    spec: "Client-Server API, \"Syncing\": `since` continues a sync from the point where the one before ended",
    source: "src/api/client_server/sync.rs:183, 1219",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["tell an event once", "twice"],
};

/// C1.
pub const LEFT_ROOMS: Known = Known {
    id: "left-rooms",
    what: "an initial sync has the rooms that were left before, whatever the filter says",
    because: "`include_leave` is not looked at",
    spec: "Client-Server API, \"Filtering\", `include_leave`",
    source: "src/api/client_server/sync.rs:292-",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["leave out the room that was left before"],
};

/// C2.
pub const TIMELINE_LIMIT: Known = Known {
    id: "timeline-limit",
    what: "a sync gives up to ten events of each room, whatever the filter asks for",
    because: "the number stands in the source",
    spec: "Client-Server API, \"Filtering\", `limit`",
    source: "src/api/client_server/sync.rs:673",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["give as many events as the filter asks for", "10 events"],
};

/// F1 to F8 rest on it.
pub const KEY_QUERY: Known = Known {
    id: "key-query-names",
    what: "a key query that names several devices is answered for the last one alone",
    because: "each device of the list replaces the answer of the one before it",
    spec: "Client-Server API, \"POST /_matrix/client/v3/keys/query\"",
    source: "src/api/client_server/keys.rs:308-324",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &[
        "answer a key query for each device that it names",
        "1 of 3 devices",
    ],
};

/// G1, of the partner.
pub const ROOM_BEFORE_TOKEN: Known = Known {
    id: "room-before-token",
    what: "who gives a room that does not exist an alias is told so without having to show a token",
    because: "the room is looked for before the token",
    spec: "Client-Server API, \"Client Authentication\"",
    source: "synapse/rest/client/directory.py, `ClientDirectoryServer.on_PUT`",
    server: "synapse",
    entrances: &[Entrance::Http2],
    shows: &[
        "answer 401 to everybody without a good token",
        "last seen: PUT /_matrix/client/v3/directory/room/",
        "with a dead token: 400 {\"errcode\":\"M_UNKNOWN\",\"error\":\"Room does not exist\"}\n  blame",
    ],
};

/// Everything that is known.
pub const CATALOGUE: &[&Known] = &[
    &TXN_ACROSS_ROOMS,
    &TXN_ACROSS_ENDPOINTS,
    &LOGOUT_ALL,
    &WAKES_EMPTY,
    &OVERSIZE_DIRECT,
    &BAD_QUERY_TOKEN,
    &OTHERS_ACCOUNT_DATA,
    &NOT_JSON,
    &BAD_NUMBERS,
    &DEEP_JSON,
    &OTHERS_PROFILE,
    &STRANGERS_PAGES,
    &HISTORY_AFTER_LEAVING,
    &VISIBILITY_REMEMBERED,
    &LEFT_WITHOUT_TIMELINE,
    &SYNC_REPEATS,
    &LEFT_ROOMS,
    &TIMELINE_LIMIT,
    &ROOM_BEFORE_TOKEN,
    &KEY_QUERY,
    &encryption::FIRST_IDENTITY_ASKS,
    &federation::HOST_CARRIES_THE_PORT,
    &federation::SRV_PRIORITY,
    &federation::WELL_KNOWN_STATUS,
    &federation::NO_NOTARY,
    &federation::UNSIGNED_KEYS_ARE_BELIEVED,
    &federation::KEYS_OF_ANOTHER_SERVER,
    &federation::UNRELATED_KEY_ID_BLOCKS,
    &federation::NOT_401,
    &federation::TOO_LARGE_TRANSACTION,
    &federation::REPLAYED_INVITATION,
    &federation::NO_RETRY_TIMER,
    &federation::ACL_SPARES_EPHEMERAL_EVENTS,
    &federation::BACKFILL_FORGETS_CREATORS,
    &federation::OTHER_ROOMS_AUTHORITY,
    &federation::CREATION_STOPS_MISSING_EVENTS,
    &federation::WITHDRAWN_INVITATION_STAYS,
    &federation::OTHER_EVENT_UNDER_AN_ID,
    &federation::FOLLOWS_WRONG_EVENTS,
    &federation::BACKFILL_BYPASSES_THE_ROOM,
    &federation::BAD_SIGNING_KEYS_STOP_A_TRANSACTION,
    &federation::RECEIPTS_OF_STRANGERS,
    &federation::JOIN_TRUSTS_THE_STATE,
    &federation::JOIN_STOPS_AT_A_BAD_EVENT,
    &federation::MOVES_ITS_OWN_USERS,
    &federation::SIGNS_FOR_ANYBODY,
    &federation::SOFT_FAILED_BY_ID,
    &federation::AUTHORITY_WITHOUT_A_STATE_KEY,
    &federation::EDUS_WAIT_FOR_AN_OCCASION,
    &federation::DEVICE_CHANGES_ARE_UNTOLD,
    &federation::DEVICE_UPDATE_IS_LOST,
    &federation::TYPING_IS_NOT_SENT,
    &federation::PRESENCE_IS_IGNORED,
    &federation::PRESENCE_IS_NOT_SENT,
    &federation::REJOINED_AS_INVITED,
    &encryption::TO_DEVICE_IS_TOLD_AGAIN,
    &encryption::TO_DEVICE_IS_LOST,
    &encryption::BACKUP_WRONG_VERSION,
    &encryption::BACKUP_OF_NOBODY,
    &encryption::BACKUP_KEEPS_THE_NEWEST,
    &encryption::BACKUP_TAKES_ANY_CHANGE,
    &encryption::BACKUP_ETAG_STAYS,
    &encryption::BACKUP_NEWEST_BY_LETTERS,
    &encryption::CLAIMED_BY_ID,
    &encryption::CLAIMED_TWICE,
    &encryption::NO_FALLBACK_KEY,
    &encryption::KEPT_WITHOUT_KEYS,
    &encryption::OVERWRITTEN_KEYS,
];

/// The known failure of this name.
pub fn by_id(id: &str) -> Option<&'static Known> {
    CATALOGUE.iter().copied().find(|known| known.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const LOST: Known = Known {
        id: "lost",
        what: "the second message is lost",
        because: "a key is too short",
        spec: "CS, Transaction identifiers",
        source: "src/database.rs:1",
        server: "conduit",
        entrances: EVERYWHERE,
        shows: &["same event"],
    };

    #[test]
    fn a_known_failure_passes_only_when_it_fails_in_just_that_way() {
        let as_recorded = Failure::product("send twice").last_seen("the same event came back");
        assert!(LOST.must_fail(Err(as_recorded)).is_ok());
    }

    #[test]
    fn an_unexpected_pass_asks_to_be_recorded() {
        let failure = LOST.must_fail(Ok(())).expect_err("it held");
        let text = failure.to_string();
        assert!(
            text.contains("record it") && text.contains("`lost`"),
            "{text}"
        );
        assert_eq!(failure.verdict(), crate::Verdict::Fail);
    }

    #[test]
    fn another_failure_and_another_blame_are_passed_through() {
        let other = LOST
            .must_fail(Err(Failure::product("answer at all")))
            .expect_err("it is another failure");
        assert!(other.to_string().starts_with("answer at all"), "{other}");
        let ours = Failure::harness("count").last_seen("the same event came back");
        let ours = LOST.must_fail(Err(ours)).expect_err("it is ours");
        assert_eq!(ours.blame, Blame::Harness);
    }

    #[test]
    fn the_catalogue_says_each_thing_once_and_completely() {
        let ids: BTreeSet<_> = CATALOGUE.iter().map(|known| known.id).collect();
        assert_eq!(ids.len(), CATALOGUE.len(), "an id stands twice");
        let declared = [
            include_str!("known.rs"),
            include_str!("known/encryption.rs"),
            include_str!("known/federation.rs"),
        ]
        .into_iter()
        .flat_map(str::lines)
        .filter(|line| line.starts_with("pub const ") && line.ends_with(": Known = Known {"));
        assert_eq!(
            declared.count(),
            CATALOGUE.len(),
            "one of them is not in the catalogue"
        );
        for known in CATALOGUE {
            assert!(
                !known.shows.is_empty() && !known.entrances.is_empty(),
                "`{}` would excuse any failure, or none",
                known.id
            );
            for text in [known.what, known.because, known.spec, known.source] {
                assert!(!text.is_empty(), "`{}` is not explained", known.id);
            }
        }
    }

    /// What is known is of use to the authors of a server only if they can see it without this harness.
    #[test]
    fn every_known_failure_of_conduit_has_steps_that_could_be_told_upstream() {
        let page = include_str!("../../scenarios/UPSTREAM.md");
        let sections: BTreeMap<_, _> = page
            .split("\n## `")
            .skip(1)
            .filter_map(|section| section.split_once('`'))
            .collect();
        for (id, section) in &sections {
            let seen = section.contains("\n- Answered: ") || section.contains("\n- Sent: ");
            assert!(
                section.contains("\n1. ") && seen && section.contains("\n- Expected: "),
                "`{id}` has no steps, or not what comes of them"
            );
            assert!(by_id(id).is_some(), "`{id}` is nothing known");
        }
        for known in CATALOGUE {
            assert!(
                sections.contains_key(known.id) || known.server != "conduit",
                "`{}` has no section",
                known.id
            );
        }
    }
}
