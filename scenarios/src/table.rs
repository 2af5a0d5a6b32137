//! A claim that is put several times, to several servers or with several inputs.

use harness::{Failure, Result};

/// One after the other, each with its own verdict; all complaints in one letter.
#[derive(Default)]
pub struct Table {
    rows: usize,
    complaints: Vec<Failure>,
}

impl Table {
    /// Whether no row was put.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Notes what came of a row.
    pub fn row(&mut self, name: &str, outcome: Result<()>) {
        self.rows += 1;
        if let Err(failure) = outcome {
            let mut named = Failure::new(failure.blame, format!("{name}: {}", failure.what));
            named.causes = failure.causes;
            named.last_seen = failure.last_seen;
            named.hint = failure.hint;
            self.complaints.push(named);
        }
    }

    /// All rows must have held, and there must have been some.
    ///
    /// # Errors
    /// The complaints of all rows.
    pub fn verdict(mut self, what: &str) -> Result<()> {
        if self.rows == 0 {
            return Err(Failure::harness(format!("{what}: no row was put")));
        }
        if self.complaints.len() < 2 {
            return self.complaints.pop().map_or(Ok(()), Err);
        }
        let blame = self.complaints[0].blame;
        let letters: Vec<_> = self.complaints.iter().map(ToString::to_string).collect();
        Err(Failure::new(
            blame,
            format!(
                "{what}: {} of {} rows do not hold",
                letters.len(),
                self.rows
            ),
        )
        .last_seen(letters.join("\n")))
    }
}
