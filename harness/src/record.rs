//! Every verb of an actor records a numbered step, so that a failure points into what was done before it.

use crate::ui;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The steps of one world, in the order in which they began.
#[derive(Clone)]
pub struct Recorder {
    began: Instant,
    steps: Arc<Mutex<Vec<Step>>>,
}

#[derive(Clone, Debug)]
struct Step {
    what: String,
    began: Duration,
    took: Option<Duration>,
}

impl Recorder {
    /// Nothing happened yet.
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            steps: Arc::default(),
        }
    }

    /// Begins a step; it counts as broken off unless it is declared done.
    pub fn begin(&self, what: impl Into<String>) -> Open {
        let what = what.into();
        let mut steps = self.lock();
        steps.push(Step {
            what: what.clone(),
            began: self.began.elapsed(),
            took: None,
        });
        let index = steps.len() - 1;
        drop(steps);
        Open {
            recorder: self.clone(),
            index,
            task: Some(ui::Task::begin(1, what)),
        }
    }

    /// What happened, as the tree that a failure prints. The step that broke off is pointed out.
    pub fn tree(&self) -> String {
        let steps = self.lock();
        let mut text = String::new();
        for (index, step) in steps.iter().enumerate() {
            let (took, mark) = match step.took {
                Some(took) => (took, ""),
                None => (
                    self.began.elapsed().saturating_sub(step.began),
                    "  <-- broke off here",
                ),
            };
            let _ = writeln!(
                text,
                "  ├── {:>2} {:<60} {:>6.1}s{mark}",
                index + 1,
                step.what,
                took.as_secs_f64()
            );
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Step>> {
        self.steps
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

/// A step that has begun.
pub struct Open {
    recorder: Recorder,
    index: usize,
    task: Option<ui::Task>,
}

impl Open {
    /// It is done.
    pub fn done(mut self) {
        let mut steps = self.recorder.lock();
        let now = self.recorder.began.elapsed();
        if let Some(step) = steps.get_mut(self.index) {
            step.took = Some(now.saturating_sub(step.began));
        }
        drop(steps);
        if let Some(task) = self.task.take() {
            task.end("done");
        }
    }

    /// Shows what it is busy with.
    pub fn note(&self, note: &str) {
        if let Some(task) = &self.task {
            task.note(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_points_at_the_step_that_broke_off() {
        let recorder = Recorder::new();
        recorder.begin("boot a host").done();
        drop(recorder.begin("follow install.md"));
        let tree = recorder.tree();
        let lines: Vec<_> = tree.lines().collect();
        assert!(
            lines[0].contains(" 1 boot a host") && !lines[0].contains("<--"),
            "{tree}"
        );
        assert!(
            lines[1].contains(" 2 follow install.md") && lines[1].contains("<-- broke off here"),
            "{tree}"
        );
    }
}
