//! What a person sees while something runs. Everything here goes to standard error; data goes to standard output.
//!
//! Off by default, so that tests stay quiet; the command line switches it on.

use crate::failure::{OrBlame, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static ON: AtomicBool = AtomicBool::new(false);

/// Shows progress from now on.
pub fn enable() {
    ON.store(true, Ordering::Relaxed);
}

/// Says one line, if progress is shown.
pub fn say(line: impl AsRef<str>) {
    if ON.load(Ordering::Relaxed) {
        remark(format!("{}\n", line.as_ref()));
    }
}

/// Says something beside the data, whether progress is shown or not. Who has closed standard error (`2>&1 | head`) does
/// not want to know, which must not end what is under way: `eprintln!` would.
pub fn remark(text: impl AsRef<str>) {
    let _ = std::io::stderr().lock().write_all(text.as_ref().as_bytes());
}

/// Hands out a text as data, on standard output. A reader who has seen enough and left (`| head`) is no failure.
///
/// # Errors
/// The environment's: it could not be written, to a full disk for instance.
pub fn show(text: impl AsRef<str>) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_ref().as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.or_environment(|| "write to standard output".to_owned()),
    }
}

/// Something that takes a while. On a terminal a spinner with the time that has passed; elsewhere one line at the
/// beginning and one at the end, so that a log shows what hangs.
pub struct Task {
    what: String,
    started: Instant,
    bar: Option<ProgressBar>,
    done: bool,
}

impl Task {
    /// Begins it. Indented by `depth` levels.
    pub fn begin(depth: usize, what: impl Into<String>) -> Self {
        let what = format!("{}{}", "  ".repeat(depth), what.into());
        let on = ON.load(Ordering::Relaxed);
        let terminal = std::io::stderr().is_terminal();
        let bar = (on && terminal).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.set_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if on && !terminal {
            eprintln!("{what} ...");
        }
        Self {
            what,
            started: Instant::now(),
            bar,
            done: false,
        }
    }

    /// Shows what it is busy with.
    pub fn note(&self, note: &str) {
        if let Some(bar) = &self.bar {
            let note: String = note.chars().filter(|c| !c.is_control()).take(90).collect();
            bar.set_message(format!("{}: {note}", self.what));
        }
    }

    /// Turns the spinner into a bar of so many parts.
    pub fn parts(&self, position: u64, total: u64) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(total) {
                if let Ok(style) =
                    ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}")
                {
                    bar.set_style(style);
                }
                bar.set_length(total);
            }
            bar.set_position(position);
        }
    }

    /// Ends it.
    pub fn end(mut self, outcome: &str) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: &str) {
        if self.done {
            return;
        }
        self.done = true;
        let line = format!(
            "{:<58} {outcome:<7} {:>6.1}s",
            self.what,
            self.started.elapsed().as_secs_f64()
        );
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        say(line);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.finish("broken");
    }
}
