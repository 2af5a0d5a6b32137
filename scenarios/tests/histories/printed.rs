//! A scenario as it is printed for a history that failed behind a faulty proxy; without that it must hold.

use crate::cast::Cast;
use crate::retold;
use harness::scenario::Outcome;

/// Drawn with HARNESS_SEED=[SEED]: `duplicate`.
#[test]
fn a_shrunk_history() -> Outcome {
    retold(async |cast| {
        let Cast { alice, garden, .. } = cast;
        _ = alice.try_say(garden, "number 1").await;
        cast.must_come_out().await
    })
}
