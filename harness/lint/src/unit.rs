//! systemd units that run Conduit: the variables they give it, and the few settings that have cost somebody a server.

use crate::diagnostic::{Code, Diagnostic, Effect, Fix, Severity};
use crate::environment::Variable;
use crate::source::Source;
use crate::value::Place;
use std::ops::Range;

/// One assignment of a unit.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub section: String,
    pub key: String,
    /// The key and its value.
    pub place: Place,
    /// The value as it is written, continued lines included.
    pub value: Place,
}

/// A unit as it is written.
#[derive(Debug)]
pub(crate) struct Unit {
    pub source: Source,
    pub assignments: Vec<Assignment>,
}

impl Unit {
    /// Reads a unit. What is no assignment is passed over, as systemd does after a complaint of its own.
    pub fn read(source: &Source) -> Self {
        let text = source.text();
        let mut assignments = Vec::new();
        let mut section = String::new();
        let mut at = 0;
        while at < text.len() {
            let end = text[at..]
                .find('\n')
                .map_or(text.len(), |offset| at + offset);
            let line = text[at..end].trim_end_matches('\r');
            let start = at + (line.len() - line.trim_start().len());
            let plain = line.trim();
            at = end + 1;
            if plain.is_empty() || plain.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = plain
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                name.clone_into(&mut section);
                continue;
            }
            // A line that ends in a backslash goes on; comments between are skipped.
            let mut last = line.trim_end();
            let mut value_end = start + plain.len();
            while last.ends_with('\\') && at < text.len() {
                let end = text[at..]
                    .find('\n')
                    .map_or(text.len(), |offset| at + offset);
                last = text[at..end].trim_end();
                let comment = last.trim_start().starts_with(['#', ';']);
                if comment {
                    last = "\\";
                } else {
                    value_end = at + text[at..end].trim_end().len();
                }
                at = end + 1;
            }
            let Some(equals) = text[start..value_end]
                .find('=')
                .map(|offset| start + offset)
            else {
                continue;
            };
            let written = &text[equals + 1..value_end];
            let value_start = equals + 1 + (written.len() - written.trim_start().len());
            assignments.push(Assignment {
                section: section.clone(),
                key: text[start..equals].trim().to_owned(),
                place: Place::new(source, start..value_end),
                value: Place::new(source, value_start.min(value_end)..value_end),
            });
        }
        Self {
            source: source.clone(),
            assignments,
        }
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &Assignment> {
        self.assignments
            .iter()
            .filter(move |assignment| assignment.section == "Service" && assignment.key == key)
    }

    fn last(&self, key: &str) -> Option<&Assignment> {
        self.all(key).last()
    }

    /// Whether what it starts is Conduit.
    pub fn runs_conduit(&self) -> bool {
        self.all("ExecStart").any(|assignment| {
            let command = assignment
                .value
                .text()
                .trim_start_matches(['-', '@', ':', '+', '!']);
            let program = command.split_ascii_whitespace().next().unwrap_or("");
            let name = program.rsplit('/').next().unwrap_or("");
            ["conduit", "matrix-conduit"].contains(&name)
        })
    }

    /// The variables of its `Environment=` lines; an empty one forgets those before it.
    pub fn environment(&self) -> Vec<Variable> {
        let mut variables = Vec::new();
        for assignment in self.all("Environment") {
            if assignment.value.text().is_empty() {
                variables.clear();
            }
            for word in words(&self.source, &assignment.value.span) {
                let Some((name, value)) = word.text.split_once('=') else {
                    continue;
                };
                let raw = &self.source.text()[word.span.clone()];
                let quote = raw.len() > 1 && raw.starts_with(['"', '\'']);
                let Some(equals) = raw.find('=') else {
                    continue;
                };
                let from = word.span.start + usize::from(quote);
                let to = word.span.end - usize::from(quote && raw.ends_with(['"', '\'']));
                let equals = word.span.start + equals;
                variables.push(Variable {
                    name: name.to_owned(),
                    name_place: Place::new(&self.source, from..equals.max(from)),
                    certain: !value.replace("%%", "").contains('%'),
                    value: value.replace("%%", "%"),
                    value_place: Place::new(&self.source, (equals + 1).min(to)..to.max(equals)),
                });
            }
        }
        variables
    }

    /// The files that it takes further variables from, which go before its own.
    pub fn environment_files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for assignment in self.all("EnvironmentFile") {
            let path = assignment.value.text();
            if path.is_empty() {
                files.clear();
                continue;
            }
            // `-` only says that it may be missing.
            files.push(path.trim_start_matches('-').to_owned());
        }
        files
    }

    /// Where it is said that something is missing: its `ExecStart=`.
    pub fn start_place(&self) -> Place {
        self.last("ExecStart").map_or_else(
            || Place::new(&self.source, 0..0),
            |assignment| assignment.place.clone(),
        )
    }

    /// What is wrong with the unit itself.
    pub fn judge(&self, out: &mut Vec<Diagnostic>) {
        self.judge_type(out);
        self.judge_restart(out);
        self.judge_user(out);
        self.judge_stop(out);
    }

    fn judge_type(&self, out: &mut Vec<Diagnostic>) {
        let Some(kind) = self
            .last("Type")
            .filter(|kind| ["notify", "notify-reload"].contains(&kind.value.text()))
        else {
            return;
        };
        let families: Vec<_> = self.all("RestrictAddressFamilies").collect();
        let listed = families
            .iter()
            .rev()
            .take_while(|assignment| !assignment.value.text().is_empty())
            .copied()
            .collect::<Vec<_>>();
        let denies = listed.iter().any(|assignment| {
            let text = assignment.value.text();
            let names: Vec<_> = text
                .trim_start_matches('~')
                .split_ascii_whitespace()
                .collect();
            text.starts_with('~') && names.contains(&"AF_UNIX") || text == "none"
        });
        let allows = listed.iter().any(|assignment| {
            let text = assignment.value.text();
            !text.starts_with('~') && text.split_ascii_whitespace().any(|name| name == "AF_UNIX")
        });
        let restricted = listed
            .iter()
            .any(|assignment| !assignment.value.text().starts_with('~'));
        if denies || restricted && !allows {
            let families = listed[0];
            out.push(
                Diagnostic::new(
                    Code::UnitNotify,
                    Severity::Error,
                    Effect::None,
                    "`Type=notify` without `AF_UNIX`",
                    families.place.label("Conduit cannot report that it is ready: systemd ends it after the start timeout"),
                )
                .related(kind.place.label("systemd waits for the report"))
                .note("a report goes through a Unix socket; `Type=exec` needs none (Conduit src/main.rs:262)"),
            );
            return;
        }
        out.push(
            Diagnostic::new(
                Code::UnitNotify,
                Severity::Warning,
                Effect::None,
                "`Type=notify` with Conduit",
                kind.place.label("ready is reported before the server listens, even if the port is taken"),
            )
            .note("`Type=exec` with an `ExecStartPost=` that waits for an answer is certain (Conduit src/main.rs:262-270)"),
        );
    }

    fn judge_restart(&self, out: &mut Vec<Diagnostic>) {
        let codes = |key: &str| {
            self.all(key)
                .flat_map(|assignment| assignment.value.text().split_ascii_whitespace())
                .any(|code| code == "1" || code == "FAILURE")
        };
        let forced = self.all("RestartForceExitStatus").find(|assignment| {
            assignment
                .value
                .text()
                .split_ascii_whitespace()
                .any(|code| code == "1")
        });
        let restart = self
            .last("Restart")
            .filter(|restart| ["always", "on-failure"].contains(&restart.value.text()));
        if codes("RestartPreventExitStatus") {
            return;
        }
        let Some(assignment) = restart.or(forced) else {
            return;
        };
        let mut fix = None;
        if restart.is_some() {
            let at = assignment.place.span.end;
            fix = Some(Fix::replace(
                "add `RestartPreventExitStatus=1`",
                true,
                &Place::new(&self.source, at..at),
                "\nRestartPreventExitStatus=1",
            ));
        }
        out.push(
            Diagnostic::new(
                Code::UnitRestart,
                Severity::Error,
                Effect::None,
                format!("`{}` restarts Conduit after exit 1", assignment.place.text()),
                assignment.place.label("after a damaged signing key, the second start makes this another homeserver"),
            )
            .note("Conduit deletes a key that it cannot read, and exits 1; the next start makes a new one (src/service/globals/mod.rs:159)")
            .note("`Restart=on-abnormal`, or `RestartPreventExitStatus=1`, leaves the decision to a person")
            .fix(fix),
        );
    }

    fn judge_user(&self, out: &mut Vec<Diagnostic>) {
        let yes =
            |text: &str| ["yes", "true", "on", "1"].contains(&text.to_ascii_lowercase().as_str());
        let dynamic = self
            .last("DynamicUser")
            .filter(|assignment| yes(assignment.value.text()));
        if let Some(assignment) = dynamic {
            out.push(
                Diagnostic::new(
                    Code::UnitUser,
                    Severity::Warning,
                    Effect::None,
                    "`DynamicUser=` with a server that has data",
                    assignment.place.label("its state directory is a link into /var/lib/private, owned by a number of this host"),
                )
                .note("a plain copy of the link saves no data, and another host gives another number: a static `User=` (sysusers.d) can be backed up and moved"),
            );
            return;
        }
        let user = self.last("User");
        let name = user.map_or("", |user| user.value.text());
        if name.is_empty() || name == "root" || name == "0" {
            let place = user.map_or_else(|| self.start_place(), |user| user.place.clone());
            out.push(
                Diagnostic::new(
                    Code::UnitUser,
                    Severity::Warning,
                    Effect::None,
                    "Conduit runs as root",
                    place.label("whoever gets into the server has the machine"),
                )
                .note("give it a system user of its own: `User=conduit`"),
            );
        }
    }

    fn judge_stop(&self, out: &mut Vec<Diagnostic>) {
        let assignment = self.assignments.iter().rfind(|assignment| {
            assignment.section == "Service"
                && ["TimeoutStopSec", "TimeoutSec"].contains(&assignment.key.as_str())
        });
        let Some(assignment) = assignment else {
            // The default of systemd is 90 s, which is long enough.
            return;
        };
        let Some(seconds) = seconds(assignment.value.text()) else {
            return;
        };
        if seconds > 0 && seconds <= 30 {
            out.push(
                Diagnostic::new(
                    Code::UnitStopTimeout,
                    Severity::Warning,
                    Effect::None,
                    format!("systemd kills Conduit {seconds} s after it asked it to stop"),
                    assignment
                        .place
                        .label("Conduit gives open requests up to 30 s"),
                )
                .note("more than 30 s lets it end by itself (Conduit src/main.rs:544)"),
            );
        }
    }
}

/// A time span as systemd writes it, in seconds; `None` if it is endless or no time span.
fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(seconds),
        Err(_) => humantime::parse_duration(text)
            .ok()
            .map(|duration| duration.as_secs()),
    }
}

struct Word {
    text: String,
    span: Range<usize>,
}

/// The words of a value, with quotes and escapes resolved.
fn words(source: &Source, span: &Range<usize>) -> Vec<Word> {
    let text = &source.text()[span.clone()];
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote = None;
    let mut chars = text.char_indices().peekable();
    while let Some((offset, char)) = chars.next() {
        let at = span.start + offset;
        if char == '\\' && matches!(chars.peek(), Some((_, '\n' | '\r'))) {
            // A continued line is a space.
            chars.next();
            if quote.is_none() {
                words.extend(word.take());
            }
            continue;
        }
        if quote.is_none() && char.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let current = word.get_or_insert_with(|| Word {
            text: String::new(),
            span: at..at,
        });
        current.span.end = at + char.len_utf8();
        match (quote, char) {
            (None, '"' | '\'') => quote = Some(char),
            (Some(open), char) if char == open => quote = None,
            (_, '\\') => {
                let Some((offset, escaped)) = chars.next() else {
                    continue;
                };
                current.span.end = span.start + offset + escaped.len_utf8();
                match escaped {
                    'n' => current.text.push('\n'),
                    't' => current.text.push('\t'),
                    's' => current.text.push(' '),
                    '\\' | '"' | '\'' => current.text.push(escaped),
                    other => {
                        current.text.push('\\');
                        current.text.push(other);
                    }
                }
            }
            (_, char) => current.text.push(char),
        }
    }
    words.extend(word);
    words
}
