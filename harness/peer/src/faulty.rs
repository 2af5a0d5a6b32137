//! A Peer that is wrong on purpose, in one way at a time, so that a home which is right looks wrong: every check that this
//! should fool must fail. A check that no fault fails has proved nothing.

use crate::peer::{Peer, Replied, Signed, Transaction};
use crate::room::canonical;
use harness::Result;
use serde_json::{Value, json};

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Every second event that the home sends is taken, and lost.
    LosesEvents,
    /// Every event that the home sends has come twice.
    DoublesEvents,
    /// What the home sent has come newest first.
    ReordersEvents,
    /// What is forged is signed properly before the home gets it: as if the home believed forgeries.
    MendsEvents,
    /// Requests are signed properly before the home gets them: as if the home believed any signature.
    MendsRequests,
    /// Refusals of the home become empty successes.
    GrantsEverything,
    /// What was asked before is refused: as if the home did not know a repetition.
    RefusesRepetitions,
}

impl Mutant {
    /// What it is called.
    pub fn word(self) -> &'static str {
        match self {
            Self::LosesEvents => "peer-loses-events",
            Self::DoublesEvents => "peer-doubles-events",
            Self::ReordersEvents => "peer-reorders-events",
            Self::MendsEvents => "peer-mends-events",
            Self::MendsRequests => "peer-mends-requests",
            Self::GrantsEverything => "peer-grants-everything",
            Self::RefusesRepetitions => "peer-refuses-repetitions",
        }
    }

    /// What is kept of the transactions that came so far.
    pub(crate) fn misremembers(self, mut kept: Vec<Transaction>) -> Vec<Transaction> {
        let mut events = 0;
        for transaction in &mut kept {
            match self {
                Self::LosesEvents => transaction.pdus.retain(|_| {
                    events += 1;
                    events % 2 == 1
                }),
                Self::DoublesEvents => {
                    let pdus = std::mem::take(&mut transaction.pdus);
                    transaction.pdus = pdus.iter().flat_map(|pdu| [pdu, pdu]).cloned().collect();
                }
                Self::ReordersEvents => transaction.pdus.reverse(),
                _ => {}
            }
        }
        if self == Self::ReordersEvents {
            kept.reverse();
        }
        kept
    }

    /// What is sent instead.
    pub(crate) fn changes(self, peer: &Peer, signed: &Signed) -> Result<Signed> {
        let mut body: Option<Value> = serde_json::from_slice(&signed.body).ok();
        match (self, &mut body) {
            (Self::MendsEvents, Some(body)) if signed.path.contains("/send/") => {
                for pdu in body["pdus"].as_array_mut().into_iter().flatten() {
                    let mut event = canonical(pdu.take())?;
                    event.remove("signatures");
                    event.remove("hashes");
                    *pdu = peer.sealed_again(event)?;
                }
                peer.sign(&signed.method, &signed.path, Some(body))
            }
            (Self::MendsRequests, body) => peer.sign(&signed.method, &signed.path, body.as_ref()),
            _ => Ok(signed.clone()),
        }
    }

    /// What is answered instead; `repeated` says whether the same was asked before.
    pub(crate) fn answers(self, mut replied: Replied, repeated: bool) -> Replied {
        match self {
            Self::GrantsEverything if replied.status >= 400 => {
                replied.status = 200;
                replied.body = json!({});
            }
            Self::RefusesRepetitions if repeated => {
                replied.status = 400;
                replied.body = json!({"errcode": "M_UNKNOWN", "error": "again?"});
            }
            _ => {}
        }
        replied
    }
}
