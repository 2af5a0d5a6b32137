//! What each reader was told: syncs that go on from one another, and the pages of history.

use crate::book::{Book, Standing};
use crate::check::{Anomaly, Finding};
use crate::record::{Deed, Outcome, RoomTold, Told};
use std::collections::{BTreeMap, HashMap};

/// An event, and the operation that told it.
pub(crate) type Line<'a> = (&'a Told, usize);

/// Syncs of which each goes on from the one before it.
#[derive(Debug, Default)]
pub(crate) struct Chain<'a> {
    /// What was accepted from then on is to be told.
    pub opens: u64,
    pub filtered: bool,
    pub syncs: Vec<usize>,
    last: &'a str,
    issued: HashMap<&'a str, u64>,
    pub rooms: HashMap<&'a str, View<'a>>,
}

/// What one chain told of one room.
#[derive(Debug, Default)]
pub(crate) struct View<'a> {
    /// In order; a new part begins where the reader came back, because then what he knew may be told again.
    pub parts: Vec<Vec<Line<'a>>>,
    pub seen: HashMap<&'a str, usize>,
    /// Syncs before whose timeline something is missing that nobody looked for.
    pub gaps: Vec<usize>,
    told_last: usize,
}

/// Pages that go on from one another, newest first.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub room: &'a str,
    pub began: u64,
    pub ended: u64,
    pub events: HashMap<&'a str, usize>,
    pub lines: Vec<Line<'a>>,
    /// It leads from the newest event to the beginning of the room.
    pub whole: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Reader<'a> {
    pub chains: Vec<Chain<'a>>,
    pub runs: Vec<Run<'a>>,
    /// Every event that any page showed.
    pub paged: HashMap<&'a str, usize>,
    pages: HashMap<(&'a str, Option<&'a str>), Vec<usize>>,
}

pub(crate) fn readers<'a>(
    book: &Book<'a>,
    findings: &mut Vec<Finding>,
) -> BTreeMap<&'a str, Reader<'a>> {
    let mut readers: BTreeMap<&str, Reader<'_>> = BTreeMap::new();
    let answered = |&(_, operation): &(usize, &crate::Operation)| operation.outcome == Outcome::Ok;
    for (number, operation) in book.all().filter(answered) {
        if let Deed::Page {
            room, from, events, ..
        } = &operation.deed
        {
            let reader = readers.entry(&operation.who).or_default();
            reader
                .pages
                .entry((room, from.as_deref()))
                .or_default()
                .push(number);
            reader
                .paged
                .extend(events.iter().map(|told| (told.id.as_str(), number)));
        }
    }
    for (number, operation) in book.all().filter(answered) {
        let who = operation.who.as_str();
        match &operation.deed {
            Deed::Page {
                room, from: None, ..
            } => {
                let reader = readers.entry(who).or_default();
                let run = reader.run(book, room, number, |_| false);
                if let Some((told, first)) = twice(&run.lines) {
                    findings.push(Finding::new(
                        Anomaly::Duplicate,
                        [first, told.1],
                        format!("the pages show {who} `{}` twice", told.0.id),
                    ));
                }
                reader.runs.push(run);
            }
            Deed::Sync {
                since,
                next,
                filtered,
                rooms,
            } => {
                let reader = readers.entry(who).or_default();
                let number_of_chain =
                    reader.chain(book, number, since.as_deref(), next.as_deref(), findings);
                // Taken out, because the gaps are looked up in the reader's pages.
                let mut chain = std::mem::take(&mut reader.chains[number_of_chain]);
                chain.filtered |= *filtered;
                for told in rooms {
                    chain.takes(book, reader, who, number, told, findings);
                }
                reader.chains[number_of_chain] = chain;
            }
            _ => {}
        }
    }
    readers
}

/// The first line whose event stands in another line before it, with that one's operation.
fn twice<'a>(lines: &[Line<'a>]) -> Option<(Line<'a>, usize)> {
    let mut seen = HashMap::new();
    lines.iter().find_map(|line| {
        seen.insert(line.0.id.as_str(), line.1)
            .map(|first| (*line, first))
    })
}

impl<'a> Reader<'a> {
    /// Goes back from a page, to an event that is known or the beginning of the room.
    fn run(
        &self,
        book: &Book<'a>,
        room: &'a str,
        first: usize,
        known: impl Fn(&str) -> bool,
    ) -> Run<'a> {
        let began = book.operation(first).began;
        let mut run = Run {
            room,
            began,
            ended: began,
            events: HashMap::new(),
            lines: Vec::new(),
            whole: false,
        };
        let mut next = Some(first);
        while let Some(number) = next {
            let operation = book.operation(number);
            let Deed::Page { end, events, .. } = &operation.deed else {
                break;
            };
            run.ended = operation.ended;
            for told in events {
                if known(&told.id) {
                    run.whole = true;
                    return run;
                }
                run.events.insert(&told.id, number);
                run.lines.push((told, number));
            }
            if events.is_empty() || end.is_none() {
                run.whole = true;
                break;
            }
            next = self.page(room, end.as_deref(), number);
        }
        run
    }

    /// The first page from a token after an operation.
    fn page(&self, room: &str, from: Option<&str>, after: usize) -> Option<usize> {
        let pages = self.pages.get(&(room, from))?;
        pages
            .get(pages.partition_point(|page| *page <= after))
            .copied()
    }

    /// The chain that a sync belongs to; its token must not go back.
    fn chain(
        &mut self,
        book: &Book<'a>,
        number: usize,
        since: Option<&'a str>,
        next: Option<&'a str>,
        findings: &mut Vec<Finding>,
    ) -> usize {
        let operation = book.operation(number);
        let goes_on = |chain: &Chain<'_>| since == Some(chain.last);
        let index = match self.chains.iter().rposition(goes_on) {
            Some(index) => index,
            None => {
                // From an earlier token everything is told again from there on.
                let issued = since.and_then(|since| {
                    self.chains
                        .iter()
                        .rev()
                        .find_map(|chain| chain.issued.get(since))
                });
                self.chains.push(Chain {
                    opens: issued.copied().unwrap_or(operation.ended),
                    ..Chain::default()
                });
                self.chains.len() - 1
            }
        };
        let chain = &mut self.chains[index];
        if let Some(next) = next {
            let returns = chain.issued.contains_key(next) && Some(next) != since;
            if returns || since.is_some_and(|since| is_behind(next, since)) {
                let before = chain.syncs.last().copied().unwrap_or(number);
                findings.push(Finding::new(
                    Anomaly::TokenBack,
                    [before, number],
                    format!(
                        "a sync of {} leads from `{}` back to `{next}`",
                        operation.who,
                        since.unwrap_or_default()
                    ),
                ));
            }
            chain.issued.insert(next, operation.ended);
            chain.last = next;
        }
        chain.syncs.push(number);
        index
    }
}

/// Tokens mean nothing to a client; but where both are lists of numbers, as everywhere in practice, none may become less.
fn is_behind(next: &str, since: &str) -> bool {
    let numbers = |token: &str| -> Option<Vec<u64>> {
        let token = token.strip_prefix('s').unwrap_or(token);
        token.split('_').map(|number| number.parse().ok()).collect()
    };
    match (numbers(next), numbers(since)) {
        (Some(next), Some(since)) if next.len() == since.len() => {
            next.iter().zip(&since).any(|(next, since)| next < since)
        }
        _ => false,
    }
}

impl<'a> Chain<'a> {
    fn takes(
        &mut self,
        book: &Book<'a>,
        reader: &Reader<'a>,
        who: &'a str,
        number: usize,
        told: &'a RoomTold,
        findings: &mut Vec<Finding>,
    ) {
        let initial = self.syncs.first() == Some(&number);
        let view = self.rooms.entry(&told.room).or_default();
        let fresh = view.parts.is_empty();
        let (before, now) = (book.operation(view.told_last), book.operation(number));
        let stayed = || {
            let server = now.server.as_str();
            book.standing(&told.room, who, server, before.began, now.ended) == Standing::In
        };
        let back = !fresh && book.rooms.contains_key(&*told.room) && !stayed();
        if fresh || back {
            view.parts.push(Vec::new());
        }
        view.told_last = number;
        let Some(part) = view.parts.last_mut() else {
            return;
        };
        if told.limited && !initial {
            let first = reader.page(&told.room, told.prev_batch.as_deref(), number);
            let first = first.filter(|_| told.prev_batch.is_some());
            let seen = &view.seen;
            let gap =
                first.map(|page| reader.run(book, &told.room, page, |id| seen.contains_key(id)));
            match gap {
                Some(gap) if gap.whole => {
                    // The way back from a join, to what happened before it, may begin with the join itself.
                    let new = |id: &str| told.timeline.iter().all(|event| event.id != id);
                    let lines = gap.lines.into_iter().rev();
                    for line in lines.filter(|line| !(fresh || back) || new(&line.0.id)) {
                        view.seen.insert(&line.0.id, line.1);
                        part.push(line);
                    }
                }
                _ => view.gaps.push(number),
            }
        }
        for event in &told.timeline {
            if let Some(first) = view.seen.insert(&event.id, number)
                && !back
                && part.iter().any(|line| line.0.id == event.id)
            {
                findings.push(Finding::new(
                    Anomaly::Repeated,
                    [first, number],
                    format!("the syncs tell {who} `{}` twice", event.id),
                ));
            }
            part.push((event, number));
        }
    }
}
