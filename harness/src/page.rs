//! The report as a page: what every claim of the list came to on every server and by every way, with the letters behind
//! the words, and the kill matrix. One file that needs nothing else, to be read on a phone, too.

use crate::docs::{self, Listed};
use crate::entrance::Entrance;
use crate::known;
use crate::report::{Claim, Report};
use crate::verdict::Verdict;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::{BTreeMap, BTreeSet};

const STYLE: &str = include_str!("page.css");

/// A server, and the way to it where one was chosen.
type Column = (String, Option<Entrance>);

/// The page of a report, in the order of the list of claims. Claims that the list does not name come last; rows for which
/// nothing was noted stay, and say so.
pub fn page(report: &Report, hitlist: &str) -> String {
    let rows: Vec<_> = docs::listed(hitlist)
        .filter_map(|(_, row)| row.ok())
        .collect();
    let mut tests = BTreeMap::<&str, Vec<&Claim>>::new();
    for claim in &report.claims {
        tests.entry(last(&claim.name)).or_default().push(claim);
    }
    let listed: BTreeSet<_> = rows
        .iter()
        .flat_map(|row| &row.tests)
        .map(|test| last(test))
        .collect();
    let columns: Vec<Column> = report
        .claims
        .iter()
        .filter_map(column)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let claims_of = |row: &Listed<'_>| -> Vec<&Claim> {
        let names = row.tests.iter().map(|test| last(test));
        names
            .filter_map(|name| tests.get(name))
            .flatten()
            .copied()
            .collect()
    };
    let others: Vec<_> = report
        .claims
        .iter()
        .filter(|claim| !listed.contains(last(&claim.name)))
        .collect();
    let mut sections = Vec::<(&str, Vec<&Listed<'_>>)>::new();
    for row in &rows {
        match sections.last_mut() {
            Some((section, rows)) if *section == row.section => rows.push(row),
            _ => sections.push((row.section, vec![row])),
        }
    }
    let body = html! {
        h1 { "Claims by server" }
        (summary(&rows, &claims_of))
        p.key {
            @for word in ["PASS", "FLAW", "FAIL", "UNKN"] {
                span class=(word) { (sign(word)) } " " (meaning(word)) " "
            }
        }
        table {
            thead {
                tr {
                    th { "claim" }
                    @for (server, entrance) in &columns {
                        th.turned { div { span { (server) @if let Some(entrance) = entrance { ", " (entrance) } } } }
                    }
                    th.turned { div { span { "seen to fail" } } }
                }
            }
            @for (section, rows) in &sections {
                tbody {
                    tr.section { th colspan=(columns.len() + 2) { (section) } }
                    @for row in rows { (line(row, &claims_of(row), &columns)) }
                }
            }
            @if !others.is_empty() {
                tbody {
                    tr.section { th colspan=(columns.len() + 2) { "Not in the list" } }
                    tr {
                        td { details { summary { (others.len()) " checks of the harness itself" } (letters(&others)) } }
                        @for column in &columns { (cell(&others, column)) }
                        td {}
                    }
                }
            }
        }
        (kill_matrix(report))
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Claims by server" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// A test's own name, without where it stands.
fn last(test: &str) -> &str {
    test.rsplit("::").next().unwrap_or(test)
}

fn column(claim: &Claim) -> Option<Column> {
    let server = claim.server.as_ref()?;
    Some((server.to_string(), claim.entrance))
}

fn summary<'a>(rows: &[Listed<'_>], claims_of: &impl Fn(&Listed<'_>) -> Vec<&'a Claim>) -> Markup {
    let mut counts = BTreeMap::<&str, usize>::new();
    for row in rows {
        *counts.entry(worst(&claims_of(row))).or_default() += 1;
    }
    html! {
        p.summary {
            (rows.len()) " claims are listed, " (rows.iter().filter(|row| row.ticked).count()) " are ticked. In this run: "
            @for (word, count) in &counts {
                span class=(word) { (count) " " @if word.is_empty() { "not put" } @else { (word) } } " "
            }
        }
    }
}

/// Of several outcomes the worst; nothing where nothing was put.
fn worst(claims: &[&Claim]) -> &'static str {
    let words: BTreeSet<_> = claims.iter().map(|claim| claim.word()).collect();
    ["FAIL", "FLAW", "UNKN", "PASS"]
        .into_iter()
        .find(|word| words.contains(word))
        .unwrap_or_default()
}

fn sign(word: &str) -> &'static str {
    match word {
        "PASS" => "●",
        "FLAW" => "◐",
        "FAIL" => "✗",
        "UNKN" => "?",
        _ => "",
    }
}

fn meaning(word: &str) -> &'static str {
    match word {
        "PASS" => "holds",
        "FLAW" => "holds but for a known failure",
        "FAIL" => "does not hold",
        _ => "unknown",
    }
}

fn line(row: &Listed<'_>, claims: &[&Claim], columns: &[Column]) -> Markup {
    let kills: BTreeSet<_> = claims.iter().flat_map(|claim| &claim.kills).collect();
    html! {
        tr {
            td {
                @if claims.is_empty() {
                    b { (row.id) } " " (row.claim) " "
                    i { @if row.tests.is_empty() { (row.test) } @else { "not put in this run" } }
                } @else {
                    details { summary { b { (row.id) } " " (row.claim) } (letters(claims)) }
                }
            }
            @for column in columns { (cell(claims, column)) }
            td.kills { @if !kills.is_empty() { (kills.len()) } }
        }
    }
}

fn cell(claims: &[&Claim], wanted: &Column) -> Markup {
    let here: Vec<_> = claims
        .iter()
        .copied()
        .filter(|claim| column(claim).as_ref() == Some(wanted))
        .collect();
    let word = worst(&here);
    html! { td.verdict class=(word) title=(meaning(word)) { (sign(word)) } }
}

/// Each test by name, with what it came to, and why where it did not simply pass.
fn letters(claims: &[&Claim]) -> Markup {
    let mut tests = BTreeMap::<&str, Vec<&Claim>>::new();
    for claim in claims {
        tests.entry(&claim.name).or_default().push(claim);
    }
    html! {
        ul {
            @for (name, claims) in &tests {
                li {
                    code { (name) }
                    ul {
                        @for claim in claims {
                            li class=(claim.word()) { (sign(claim.word())) " on " (claim.put_to()) (why(claim)) }
                        }
                    }
                }
            }
        }
    }
}

fn why(claim: &Claim) -> Markup {
    let known = claim.known.as_deref().and_then(known::by_id);
    html! {
        @if let Some(known) = known {
            ": " b { (known.id) } ", " (known.what) " (" (known.because) "; " (known.spec) "; Conduit's " code { (known.source) } ")"
        }
        @if claim.verdict != Verdict::Pass {
            @if let Some(letter) = &claim.letter { pre { (letter) } }
        }
    }
}

/// Mutant by claim: which deliberate fault which check noticed.
fn kill_matrix(report: &Report) -> Markup {
    let mut claims = BTreeMap::<&str, BTreeSet<&str>>::new();
    for claim in report.claims.iter().filter(|claim| !claim.kills.is_empty()) {
        let kills = claim.kills.iter().map(String::as_str);
        claims.entry(&claim.name).or_default().extend(kills);
    }
    let mutants: BTreeSet<_> = claims.values().flatten().copied().collect();
    html! {
        h2 { "Kill matrix" }
        @if claims.is_empty() {
            p { "No check was seen to fail in this run." }
        } @else {
            p {
                (mutants.len()) " deliberate faults, noticed " (claims.values().map(BTreeSet::len).sum::<usize>())
                " times by " (claims.len()) " checks in this run."
            }
            table {
                thead {
                    tr {
                        th { "check" }
                        @for mutant in &mutants { th.turned { div { span { (mutant) } } } }
                    }
                }
                tbody {
                    @for (claim, kills) in &claims {
                        tr {
                            td { code { (claim) } }
                            @for mutant in &mutants {
                                td.verdict title=(mutant) { @if kills.contains(mutant) { "×" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homeserver::Server;

    fn claim(name: &str, word: &str, entrance: Option<Entrance>) -> Claim {
        Claim {
            verdict: if word == "PASS" {
                Verdict::Pass
            } else {
                Verdict::Fail
            },
            server: Some(Server {
                name: "conduit".to_owned(),
                version: "0.10.12".to_owned(),
            }),
            entrance,
            known: (word == "FLAW").then(|| known::CATALOGUE[0].id.to_owned()),
            letter: (word != "PASS").then(|| "expected <this> & saw that".to_owned()),
            kills: vec!["drops-messages".to_owned()],
            ..Claim::new(name)
        }
    }

    /// Every row of the list stands on the page, put or not; a word is that of the worst of its tests; a letter is text
    /// and not markup.
    #[test]
    fn every_listed_claim_stands_on_the_page_with_its_worst_verdict() {
        let hitlist = "## A: Clients\n| [x] | A1 | It holds. | `s/a.rs::one`, `s/a.rs::two` | conduit |\n\
                       | [ ] | A2 | It is open. | open: issue 9 | - |\n| [x] | A3 | It was not put. | `s/a.rs::three` | conduit |\n";
        let report = Report {
            claims: vec![
                claim("a::one", "PASS", Some(Entrance::Direct)),
                claim("a::two", "FLAW", Some(Entrance::Direct)),
                claim("a::two", "FAIL", Some(Entrance::Http1)),
                claim("b::elsewhere", "PASS", None),
            ],
            ..Report::default()
        };
        let page = page(&report, hitlist);
        for expected in [
            "<b>A1</b> It holds.",
            "<i>open: issue 9</i>",
            "<i>not put in this run</i>",
            "title=\"holds but for a known failure\">◐",
            "title=\"does not hold\">✗",
            "expected &lt;this&gt; &amp; saw that",
            "1 checks of the harness itself",
            "1 deliberate faults, noticed 3 times by 3 checks",
            known::CATALOGUE[0].id,
        ] {
            assert!(page.contains(expected), "no {expected:?} in {page}");
        }
    }
}
