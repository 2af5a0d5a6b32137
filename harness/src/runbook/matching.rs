//! Promised output against seen output: `[..]` within a line, `...` for whole lines.

use std::fmt;

use super::hints::{abbreviate, count};

/// Stands for any characters, also none, within one line.
const ANY_TEXT: &str = "[..]";
/// A line of its own; stands for any lines, also none.
const ANY_LINES: &str = "...";
/// How many lines of a long output a [`Difference`] looks at, from each of its ends.
const EXAMINED: usize = 200;
/// How many lines a [`Difference`] prints.
const SHOWN_LINES: usize = 30;
/// How wide a printed line of a [`Difference`] may be, in characters.
const SHOWN_WIDTH: usize = 160;

/// The output that a command is promised to print (the conventions of the `trycmd` crate).
///
/// `[..]` matches anything within a line, and a line `...` matches any number of lines. White space
/// at the ends of lines and empty lines at the end are not judged: editors remove the former from
/// documents, and writers put the latter between commands. Hence a promised line at the end needs a
/// line with something in it, even when it is `[..]` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    lines: Vec<String>,
}

impl Promise {
    /// The promise written as `text`; nothing when the text holds no line, because then the
    /// document promises nothing about the output.
    pub fn new(text: &str) -> Option<Self> {
        let lines: Vec<String> = judged_lines(text)
            .into_iter()
            .map(|line| line.trim_end().to_owned())
            .collect();
        (!lines.is_empty()).then_some(Self { lines })
    }

    /// The lines of the promise, with their wildcards.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Whether `output` is as promised.
    pub fn matches(&self, output: &str) -> bool {
        let seen = judged_lines(output);
        // Greedy with one point to come back to: the latest `...` is the only one that needs to
        // take more lines, since an earlier one could only hand the same rest to the later one.
        let (mut promised, mut line) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while line < seen.len() {
            match self.lines.get(promised) {
                Some(pattern) if pattern == ANY_LINES => {
                    retry = Some((promised, line));
                    promised += 1;
                }
                Some(pattern) if line_matches(pattern, seen[line]) => {
                    promised += 1;
                    line += 1;
                }
                _ => {
                    let Some((wildcard, from)) = retry else {
                        return false;
                    };
                    retry = Some((wildcard, from + 1));
                    promised = wildcard + 1;
                    line = from + 1;
                }
            }
        }
        self.lines[promised..]
            .iter()
            .all(|pattern| pattern == ANY_LINES)
    }

    /// What differs between the promise and `output`; nothing when they agree.
    pub fn difference(&self, output: &str) -> Option<Difference> {
        (!self.matches(output)).then(|| Difference::between(&self.lines, &judged_lines(output)))
    }
}

/// The lines of a text that are judged: without the empty lines at the end.
fn judged_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    while lines.last().is_some_and(|line| line.trim_end().is_empty()) {
        lines.pop();
    }
    lines
}

/// Whether one line is as promised: without the white space at its end, or with it where the
/// promise needs it (`Name: [..]` for a line that ends after `Name: `).
fn line_matches(pattern: &str, line: &str) -> bool {
    glob(pattern, line.trim_end()) || glob(pattern, line)
}

/// Whether `pattern` with its `[..]` matches all of `line`.
fn glob(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split(ANY_TEXT);
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    // The earliest place for each piece leaves the most room for those that follow.
    for piece in pieces {
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// One line of a [`Difference`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiffLine {
    /// The line was promised and seen.
    Same(String),
    /// The line was promised and is missing.
    Missing(String),
    /// The line was seen and nobody promised it.
    Unexpected(String),
    /// This many lines were taken by a `...`, or were left out because the output is long.
    Passed(usize),
}

/// How a promised and a seen output differ, line by line. `Display` prints it: two blanks before a
/// line that is as promised, `-` before a promised line that is missing, `+` before a line that
/// nobody promised; at most 30 lines of at most 160 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    lines: Vec<DiffLine>,
}

impl Difference {
    /// The lines, in the order of the output.
    pub fn lines(&self) -> &[DiffLine] {
        &self.lines
    }

    /// The alignment with the fewest missing and unexpected lines. The middle of an output of more
    /// than 400 lines is left out: the table has a cell for every pair of lines.
    fn between(promised: &[String], seen: &[&str]) -> Self {
        if seen.len() <= 2 * EXAMINED {
            return Self {
                lines: align(promised, seen),
            };
        }
        let omitted = seen.len() - 2 * EXAMINED;
        let head = align(promised, &seen[..EXAMINED]);
        // What of the promise the head did not hold is looked for in the tail.
        let found = head
            .iter()
            .rposition(|line| matches!(line, DiffLine::Same(_)));
        let mut lines = Vec::new();
        let mut rest: Vec<String> = Vec::new();
        for (index, line) in head.into_iter().enumerate() {
            match line {
                DiffLine::Missing(text) if found.is_none_or(|found| index > found) => {
                    rest.push(text);
                }
                other => lines.push(other),
            }
        }
        lines.push(DiffLine::Passed(omitted));
        lines.extend(align(&rest, &seen[seen.len() - EXAMINED..]));
        Self { lines }
    }
}

fn align(promised: &[String], seen: &[&str]) -> Vec<DiffLine> {
    // cost[i][j]: fewest differences between the promise from i on and the output from j on.
    let mut cost = vec![vec![0usize; seen.len() + 1]; promised.len() + 1];
    for i in (0..=promised.len()).rev() {
        for j in (0..=seen.len()).rev() {
            let wildcard = promised.get(i).is_some_and(|line| line == ANY_LINES);
            let mut best = usize::MAX;
            if i == promised.len() && j == seen.len() {
                best = 0;
            }
            if i < promised.len() {
                best = best.min(cost[i + 1][j] + usize::from(!wildcard));
            }
            if j < seen.len() {
                best = best.min(cost[i][j + 1] + usize::from(!wildcard));
            }
            if i < promised.len() && j < seen.len() && line_matches(&promised[i], seen[j]) {
                best = best.min(cost[i + 1][j + 1]);
            }
            cost[i][j] = best;
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    let mut passed = 0;
    while i < promised.len() || j < seen.len() {
        let wildcard = promised.get(i).is_some_and(|line| line == ANY_LINES);
        let here = cost[i][j];
        if wildcard && j < seen.len() && cost[i][j + 1] == here {
            passed += 1;
            j += 1;
            continue;
        }
        if passed > 0 {
            lines.push(DiffLine::Passed(std::mem::take(&mut passed)));
        }
        if wildcard {
            i += 1;
        } else if i < promised.len()
            && j < seen.len()
            && cost[i + 1][j + 1] == here
            && line_matches(&promised[i], seen[j])
        {
            lines.push(DiffLine::Same(seen[j].trim_end().to_owned()));
            i += 1;
            j += 1;
        } else if i < promised.len() && cost[i + 1][j] + 1 == here {
            lines.push(DiffLine::Missing(promised[i].clone()));
            i += 1;
        } else {
            lines.push(DiffLine::Unexpected(seen[j].trim_end().to_owned()));
            j += 1;
        }
    }
    if passed > 0 {
        lines.push(DiffLine::Passed(passed));
    }
    lines
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let print = |line: &DiffLine| match line {
            DiffLine::Same(text) => format!("  {}", abbreviate(text, SHOWN_WIDTH)),
            DiffLine::Missing(text) => format!("- {}", abbreviate(text, SHOWN_WIDTH)),
            DiffLine::Unexpected(text) => format!("+ {}", abbreviate(text, SHOWN_WIDTH)),
            DiffLine::Passed(lines) => format!("  ... ({})", count(*lines, "line")),
        };
        // The first line that differs must be seen, whatever stands before it.
        let first = self
            .lines
            .iter()
            .position(|line| matches!(line, DiffLine::Missing(_) | DiffLine::Unexpected(_)))
            .unwrap_or(0);
        let from = first.saturating_sub(3);
        let to = (from + SHOWN_LINES).min(self.lines.len());
        let mut shown = Vec::new();
        if from > 0 {
            shown.push(format!("  [{} as promised]", count(from, "line")));
        }
        shown.extend(self.lines[from..to].iter().map(print));
        if to < self.lines.len() {
            shown.push(format!("  [{} more]", count(self.lines.len() - to, "line")));
        }
        f.write_str(&shown.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(promise: &str, output: &str) -> bool {
        Promise::new(promise)
            .expect("the promise holds a line")
            .matches(output)
    }

    #[test]
    fn a_wildcard_in_a_line_takes_any_characters_also_none() {
        assert!(matches("in [..] s", "in 3 s"));
        assert!(matches("a[..]", "a"));
        assert!(matches("[..]b[..]b", "abab"));
        assert!(matches("a[..]a", "aa"));
        assert!(
            !matches("a[..]a", "a"),
            "one letter must not serve as both ends"
        );
        assert!(!matches("a[..]b", "a\nb"), "it stays within its line");
        assert!(matches("größe [..] ü", "größe 5 ü"));
    }

    #[test]
    fn a_line_of_dots_takes_any_lines_also_none() {
        assert!(matches("a\n...\nb", "a\nb"));
        assert!(matches("a\n...\nb", "a\n1\n2\nb"));
        assert!(matches("...\nb\n...\nd", "a\nb\nc\nb\nd"));
        assert!(!matches("a\n...\nb", "a\n1\nb\nc"));
        assert!(matches("...", ""));
    }

    #[test]
    fn ends_of_lines_and_the_end_of_the_output_are_not_judged() {
        assert!(matches("a \n\n", "a\r\n\n\n"));
        assert!(matches("a", "a"));
        assert!(!matches("a", "\na"), "an empty line before it is judged");
        assert!(matches("Name: [..]", "Name: \n"));
        assert!(
            !matches("[..]", "\n"),
            "a line is promised, and none with anything in it came"
        );
        assert_eq!(Promise::new(" \n\n"), None);
    }

    #[test]
    fn a_difference_shows_what_is_missing_beside_what_came_instead() {
        let promise = Promise::new("start\n...\nstopped in [..] s\nend").expect("a promise");
        let difference = promise
            .difference("start\nx\ny\nkilled\nend\n")
            .expect("they differ");
        assert_eq!(
            difference.to_string(),
            "  start\n  ... (3 lines)\n- stopped in [..] s\n  end"
        );
        let promise = Promise::new("one\ntwo").expect("a promise");
        let difference = promise.difference("one\n2\n").expect("they differ");
        assert_eq!(difference.to_string(), "  one\n- two\n+ 2");
        assert_eq!(promise.difference("one\ntwo"), None);
    }

    #[test]
    fn the_difference_of_a_huge_output_is_short_and_still_shows_the_first_difference() {
        let output: String = (0..100_000)
            .map(|n| format!("{n} {}\n", "y".repeat(500)))
            .collect();
        let promise = Promise::new("0 [..]\nnever\n...\n99999 [..]").expect("a promise");
        let text = promise
            .difference(&output)
            .expect("they differ")
            .to_string();
        assert!(text.contains("- never"), "{text}");
        assert!(text.len() < 8_000, "{} bytes", text.len());
    }
}
