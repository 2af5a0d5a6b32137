//! How findings are said: to people, to programs, to code hosts.

use crate::diagnostic::{Code, Diagnostic, Effect, Label, Severity, predicted_exit};
use crate::source::Source;
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How many findings there are of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Errors.
    pub errors: usize,
    /// Warnings.
    pub warnings: usize,
    /// Notes.
    pub notes: usize,
}

impl Count {
    /// Counts them.
    pub fn of(findings: &[Diagnostic]) -> Self {
        let mut count = Self::default();
        for finding in findings {
            *match finding.severity {
                Severity::Error => &mut count.errors,
                Severity::Warning => &mut count.warnings,
                Severity::Note => &mut count.notes,
            } += 1;
        }
        count
    }
}

/// For people: every finding with the text that it is about, as compilers show it.
pub fn human(findings: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    }
    .decor_style(DecorStyle::Ascii);
    let mut text = String::new();
    for finding in findings {
        text.push_str(&renderer.render(&groups(finding)));
        text.push_str("\n\n");
    }
    text
}

fn groups(finding: &Diagnostic) -> Vec<Group<'_>> {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut group = level
        .primary_title(finding.message.as_str())
        .id(finding.code.slug())
        .element(
            snippet(&finding.primary, AnnotationKind::Primary).annotations(
                finding
                    .related
                    .iter()
                    .filter(|related| related.source == finding.primary.source)
                    .map(|related| annotation(related, AnnotationKind::Context)),
            ),
        );
    for related in &finding.related {
        if related.source != finding.primary.source {
            group = group.element(snippet(related, AnnotationKind::Context));
        }
    }
    for note in &finding.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    let mut groups = vec![group];
    if let Some(fix) = &finding.fix {
        let title = if fix.safe {
            format!("{} (`--fix` does it)", fix.title)
        } else {
            fix.title.clone()
        };
        let mut help = Group::with_title(Level::HELP.secondary_title(title));
        if let Some(first) = fix.edits.first() {
            help = help.element(
                Snippet::source(first.source.text())
                    .path(first.source.name())
                    .patches(
                        fix.edits
                            .iter()
                            .filter(|edit| edit.source == first.source)
                            .map(|edit| Patch::new(edit.span.clone(), edit.replacement.as_str())),
                    ),
            );
        }
        groups.push(help);
    }
    groups
}

fn snippet(label: &Label, kind: AnnotationKind) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    Snippet::source(label.source.text())
        .path(label.source.name())
        .annotation(annotation(label, kind))
}

fn annotation(label: &Label, kind: AnnotationKind) -> annotate_snippets::Annotation<'_> {
    let annotation = kind.span(label.span.clone());
    if label.text.is_empty() {
        annotation
    } else {
        annotation.label(label.text.as_str())
    }
}

/// One line that says what came out.
pub fn summary(findings: &[Diagnostic], files: usize) -> String {
    let count = Count::of(findings);
    let plural =
        |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut parts = Vec::new();
    for (count, what) in [
        (count.errors, "error"),
        (count.warnings, "warning"),
        (count.notes, "note"),
    ] {
        if count > 0 {
            parts.push(plural(count, what));
        }
    }
    let files = plural(files, "file");
    if parts.is_empty() {
        return format!("{files}: nothing to say");
    }
    let mut line = format!("{files}: {}", parts.join(", "));
    if let Some(exit) = predicted_exit(findings) {
        line.push_str(&format!("; Conduit does not start (exit {exit})"));
    }
    let safe = findings
        .iter()
        .filter(|finding| finding.fix.as_ref().is_some_and(|fix| fix.safe))
        .count();
    if safe > 0 {
        line.push_str(&format!("; `--fix` mends {safe}"));
    }
    line
}

/// For programs. The schema is stable; `version` changes when it does:
///
/// ```json
/// {
///   "version": 1,
///   "files": ["deploy/conduit/conduit.toml"],
///   "summary": { "errors": 1, "warnings": 0, "notes": 0, "conduit_exit": 1 },
///   "findings": [{
///     "code": "wrong-type", "severity": "error",
///     "effect": { "kind": "fatal", "exit": 1 },
///     "message": "…", "label": "…",
///     "file": "…", "start": { "line": 3, "column": 8, "byte": 40 }, "end": { … },
///     "related": [{ "label": "…", "file": "…", "start": { … }, "end": { … } }],
///     "notes": ["…"],
///     "fix": { "title": "…", "safe": true,
///              "edits": [{ "file": "…", "start": { … }, "end": { … }, "replacement": "…" }] }
///   }]
/// }
/// ```
///
/// `effect.kind` is `fatal` (then with `exit`), `ignored`, `in-force` or `none`; `fix` and `conduit_exit` may be `null`.
/// Lines and columns count from 1, columns in characters, bytes from 0.
pub fn json(findings: &[Diagnostic], files: &[Source]) -> String {
    let count = Count::of(findings);
    let place = |source: &Source, span: &std::ops::Range<usize>| {
        let point = |byte: usize| {
            let (line, column) = source.position(byte);
            json!({ "line": line, "column": column, "byte": byte })
        };
        (source.name().to_owned(), point(span.start), point(span.end))
    };
    let labelled = |label: &Label| {
        let (file, start, end) = place(&label.source, &label.span);
        json!({ "label": label.text, "file": file, "start": start, "end": end })
    };
    let all: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let (file, start, end) = place(&finding.primary.source, &finding.primary.span);
            json!({
                "code": finding.code.slug(),
                "severity": severity(finding.severity),
                "effect": match finding.effect {
                    Effect::Fatal { exit } => json!({ "kind": "fatal", "exit": exit }),
                    Effect::Ignored => json!({ "kind": "ignored" }),
                    Effect::InForce => json!({ "kind": "in-force" }),
                    Effect::None => json!({ "kind": "none" }),
                },
                "message": finding.message,
                "label": finding.primary.text,
                "file": file,
                "start": start,
                "end": end,
                "related": finding.related.iter().map(labelled).collect::<Vec<_>>(),
                "notes": finding.notes,
                "fix": finding.fix.as_ref().map(|fix| json!({
                    "title": fix.title,
                    "safe": fix.safe,
                    "edits": fix.edits.iter().map(|edit| {
                        let (file, start, end) = place(&edit.source, &edit.span);
                        json!({ "file": file, "start": start, "end": end, "replacement": edit.replacement })
                    }).collect::<Vec<_>>(),
                })),
            })
        })
        .collect();
    pretty(&json!({
        "version": 1,
        "files": files.iter().map(Source::name).collect::<Vec<_>>(),
        "summary": {
            "errors": count.errors,
            "warnings": count.warnings,
            "notes": count.notes,
            "conduit_exit": predicted_exit(findings),
        },
        "findings": all,
    }))
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn pretty(value: &Value) -> String {
    // A `Value` has string keys only, so that nothing can go wrong.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// For code hosts: SARIF 2.1.0.
pub fn sarif(findings: &[Diagnostic]) -> String {
    let used: BTreeSet<Code> = findings.iter().map(|finding| finding.code).collect();
    let rules: Vec<Code> = used.into_iter().collect();
    let region = |source: &Source, span: &std::ops::Range<usize>| {
        let (start, end) = (source.position(span.start), source.position(span.end));
        json!({
            "startLine": start.0, "startColumn": start.1,
            "endLine": end.0, "endColumn": end.1,
        })
    };
    let location = |label: &Label| {
        json!({
            "physicalLocation": {
                "artifactLocation": { "uri": uri(label.source.name()) },
                "region": region(&label.source, &label.span),
            },
            "message": { "text": label.text },
        })
    };
    let results: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let mut text = format!("{}: {}", finding.message, finding.primary.text);
            for note in &finding.notes {
                text.push('\n');
                text.push_str(note);
            }
            let mut result = json!({
                "ruleId": finding.code.slug(),
                "ruleIndex": rules.iter().position(|code| *code == finding.code),
                "level": severity(finding.severity),
                "message": { "text": text },
                "locations": [location(&finding.primary)],
            });
            if !finding.related.is_empty() {
                result["relatedLocations"] = finding
                    .related
                    .iter()
                    .enumerate()
                    .map(|(id, label)| {
                        let mut location = location(label);
                        location["id"] = json!(id);
                        location
                    })
                    .collect();
            }
            if let Some(fix) = &finding.fix {
                let mut changes: Vec<Value> = Vec::new();
                for edit in &fix.edits {
                    changes.push(json!({
                        "artifactLocation": { "uri": uri(edit.source.name()) },
                        "replacements": [{
                            "deletedRegion": region(&edit.source, &edit.span),
                            "insertedContent": { "text": edit.replacement },
                        }],
                    }));
                }
                result["fixes"] = json!([{
                    "description": { "text": fix.title },
                    "artifactChanges": changes,
                }]);
            }
            result
        })
        .collect();
    pretty(&json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "columnKind": "unicodeCodePoints",
            "tool": { "driver": {
                "name": "fleet lint",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|code| json!({
                    "id": code.slug(),
                    "shortDescription": { "text": code.summary() },
                })).collect::<Vec<_>>(),
            } },
            "results": results,
        }],
    }))
}

/// A path as a relative or absolute URI reference.
fn uri(name: &str) -> String {
    let mut uri = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                uri.push(byte.into())
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}
