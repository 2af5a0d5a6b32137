//! Expected failures: what a server is known to do wrong, in one catalogue, with its reason. A claim that is known not
//! to hold is still put at every run. It must fail in just the recorded way; if it holds, or fails otherwise, the
//! record is wrong and the run fails until somebody has looked.

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
                "record it: remove `{}` from harness/src/known.rs and from the claim that names it, tick the claim, \
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

/// G5.
pub const LARGE_EVENT: Known = Known {
    id: "large-event",
    what: "an event beyond 64 KiB is not refused as too large",
    because: "to be confirmed",
    spec: "Client-Server API, \"Size limits\"",
    source: "src/service/rooms/timeline/mod.rs",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["413 `M_TOO_LARGE`"],
};

/// G6.
pub const NOT_JSON: Known = Known {
    id: "not-json",
    what: "a body that is no JSON is refused with another code",
    because: "to be confirmed",
    spec: "Client-Server API, \"Common error codes\", `M_NOT_JSON`",
    source: "src/api/ruma_wrapper/axum.rs",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["400 `M_NOT_JSON`"],
};

/// G6.
pub const BAD_NUMBERS: Known = Known {
    id: "bad-numbers",
    what: "numbers that canonical JSON cannot hold are not refused as bad JSON",
    because: "to be confirmed",
    spec: "Appendices, \"Canonical JSON\"",
    source: "src/service/rooms/timeline/mod.rs",
    server: "conduit",
    entrances: EVERYWHERE,
    shows: &["refuse with 400 `M_BAD_JSON` what canonical JSON cannot hold"],
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

/// Everything that is known, by the row of the table of behaviours that it belongs to.
pub const CATALOGUE: &[&Known] = &[
    &TXN_ACROSS_ROOMS,
    &TXN_ACROSS_ENDPOINTS,
    &LOGOUT_ALL,
    &WAKES_EMPTY,
    &OVERSIZE_DIRECT,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

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
}
