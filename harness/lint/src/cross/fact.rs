//! What a file says, with the place where it says so.

use crate::diagnostic::{Code, Diagnostic, Edit, Effect, Fix, Label, Severity};
use crate::source::Source;
use crate::value::Place;
use std::collections::BTreeMap;
use std::ops::Range;

/// One thing that a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<T> {
    /// What it says.
    pub value: T,
    /// The file.
    pub source: Source,
    /// The bytes that say it; without the quotes around them, so that they can be replaced.
    pub span: Range<usize>,
}

impl<T> Fact<T> {
    /// A fact at a place, by its file and bytes.
    pub fn new(value: T, source: &Source, span: Range<usize>) -> Self {
        Self {
            value,
            source: source.clone(),
            span,
        }
    }

    /// A fact at a place.
    pub(crate) fn at(value: T, place: &Place) -> Self {
        Self::new(value, &place.source, place.span.clone())
    }

    /// The same place, with another value.
    pub fn with<U>(&self, value: U) -> Fact<U> {
        Fact::new(value, &self.source, self.span.clone())
    }

    /// The place, and what there is to say of it.
    pub fn label(&self, text: impl Into<String>) -> Label {
        Label {
            source: self.source.clone(),
            span: self.span.clone(),
            text: text.into(),
        }
    }

    /// Whether both stand at the same place.
    pub fn same_place<U>(&self, other: &Fact<U>) -> bool {
        self.source == other.source && self.span == other.span
    }

    /// The bytes as they stand in the file.
    pub fn written(&self) -> &str {
        self.source.text().get(self.span.clone()).unwrap_or("")
    }
}

/// A diagnostic between files: no server would show it by its start.
pub fn finding(
    code: Code,
    severity: Severity,
    message: impl Into<String>,
    primary: Label,
) -> Diagnostic {
    Diagnostic {
        code,
        severity,
        effect: Effect::None,
        message: message.into(),
        primary,
        related: Vec::new(),
        notes: Vec::new(),
        fix: None,
    }
}

/// What one file says about something that others speak of too.
#[derive(Clone, Debug)]
pub struct Vote {
    /// What is compared; two votes agree if these are equal.
    pub key: String,
    /// The value as a person writes it.
    pub shown: String,
    /// Where it stands.
    pub place: Fact<()>,
    /// What a label under it says.
    pub says: String,
    /// Whether the bytes of the place can be replaced by another's value.
    pub replaceable: bool,
}

impl Vote {
    /// A vote whose key is what it shows.
    pub fn of<T: ToString>(fact: &Fact<T>, says: impl Into<String>) -> Self {
        let shown = fact.value.to_string();
        Self {
            key: shown.clone(),
            replaceable: fact.written() == shown,
            shown,
            place: fact.with(()),
            says: says.into(),
        }
    }

    /// The same under another key.
    pub fn under(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    fn label(&self) -> Label {
        self.place.label(self.says.clone())
    }
}

/// What the votes came to.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What most files say; of equals the first.
    pub winners: Vec<Vote>,
    /// One diagnostic for each other value.
    pub findings: Vec<Diagnostic>,
    /// Who said something else.
    pub losers: Vec<Vote>,
}

impl Verdict {
    /// The vote to name when a single place must be named.
    pub fn winner(&self) -> Option<&Vote> {
        self.winners.first()
    }
}

/// Holds together what several files say of one thing. Who is alone is the one who changed: the value that most *files*
/// say is taken for the meant one; with as many on either side it is the one that was named first, so votes come in the
/// order of authority.
pub fn agree(
    code: Code,
    severity: Severity,
    what: &str,
    notes: &[String],
    votes: Vec<Vote>,
) -> Verdict {
    let mut votes_at: Vec<Vote> = Vec::new();
    for vote in votes {
        let known = |other: &Vote| other.place.same_place(&vote.place) && other.key == vote.key;
        if !votes_at.iter().any(known) {
            votes_at.push(vote);
        }
    }
    let mut groups: Vec<(String, Vec<Vote>)> = Vec::new();
    for vote in votes_at {
        match groups.iter_mut().find(|(key, _)| *key == vote.key) {
            Some((_, group)) => group.push(vote),
            None => groups.push((vote.key.clone(), vec![vote])),
        }
    }
    if groups.is_empty() {
        return Verdict::default();
    }
    let files = |group: &[Vote]| {
        let mut names: Vec<&str> = group.iter().map(|vote| vote.place.source.name()).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    };
    // The last of the greatest is what `max_by_key` would take.
    let mut best = 0;
    for at in 1..groups.len() {
        if files(&groups[at].1) > files(&groups[best].1) {
            best = at;
        }
    }
    let (_, winners) = groups.remove(best);
    let mut verdict = Verdict {
        winners,
        ..Verdict::default()
    };
    for (_, losers) in groups {
        verdict.findings.push(dissent(
            code,
            severity,
            what,
            notes,
            &losers,
            &verdict.winners,
        ));
        verdict.losers.extend(losers);
    }
    verdict
}

fn dissent(
    code: Code,
    severity: Severity,
    what: &str,
    notes: &[String],
    losers: &[Vote],
    winners: &[Vote],
) -> Diagnostic {
    let (lost, won) = (&losers[0], &winners[0]);
    let mut found = finding(
        code,
        severity,
        format!(
            "{what} is `{}` here and `{}` elsewhere",
            lost.shown, won.shown
        ),
        lost.label(),
    );
    found
        .related
        .extend(losers[1..].iter().chain(winners).map(Vote::label));
    found.notes.extend(notes.iter().cloned());
    if losers.iter().all(|vote| vote.replaceable) {
        found.fix = Some(Fix {
            title: format!("write `{}` as in {}", won.shown, won.place.source.name()),
            // Which side is meant only a person knows.
            safe: false,
            edits: losers
                .iter()
                .map(|vote| Edit {
                    source: vote.place.source.clone(),
                    span: vote.place.span.clone(),
                    replacement: won.shown.clone(),
                })
                .collect(),
        });
    }
    found
}

/// Findings of the same class at the same place are one finding that names all the other places.
pub fn merge(findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut at: BTreeMap<(Code, String, usize, usize), usize> = BTreeMap::new();
    let mut merged: Vec<Diagnostic> = Vec::new();
    for found in findings {
        let place = &found.primary;
        let key = (
            found.code,
            place.source.name().to_owned(),
            place.span.start,
            place.span.end,
        );
        let Some(&index) = at.get(&key) else {
            at.insert(key, merged.len());
            merged.push(found);
            continue;
        };
        let first = &mut merged[index];
        for label in found.related {
            if !first.related.contains(&label) {
                first.related.push(label);
            }
        }
        for note in found.notes {
            if !first.notes.contains(&note) {
                first.notes.push(note);
            }
        }
    }
    merged
}
