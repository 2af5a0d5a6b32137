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

/// Everything that is known, by the row of the table of behaviours that it belongs to.
pub const CATALOGUE: &[&Known] = &[];

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
