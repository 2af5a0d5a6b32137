//! The documents of this repository, judged: links that lead somewhere, fences that mean something, commands that run.
//!
//! A command in a document that nothing executes is a defect: it was right once, perhaps. Three rules keep documents
//! honest, and [`check`] applies them to every Markdown file of the repository.
//!
//! 1. **Links.** A relative link names a file or directory of the repository; its `#anchor` names a heading of it.
//!    Links to other machines are not followed: a check that needs the network says nothing about a document.
//! 2. **Fences.** A fence is one of [`FENCES`]. `sh` and `bash` are not among them: a reader takes them for commands that
//!    somebody tried. Code by indentation alone is not accepted either, since it cannot say what it is.
//! 3. **Commands.** A `console` block in `deploy/runbooks/` is executed by the scenario that follows the runbook. Each
//!    command of any other `console` block must stand, literally, in [`CI`], or in the file that a comment just above
//!    the block names: `<!-- executed by: scenarios/tests/deploy.rs -->`.
//!
//! In the list of claims, [`HITLIST`], a tick must name a test that exists and a server that it was proved on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    ops::Range,
    path::{Component, Path, PathBuf},
};

use pulldown_cmark::{
    BrokenLink, CodeBlockKind, CowStr, Event, LinkType, Options, Parser, Tag, TagEnd,
};

/// The languages that a fence may have.
pub const FENCES: [&str; 6] = ["caddyfile", "console", "json", "rust", "text", "toml"];
/// The script whose commands continuous integration executes.
pub const CI: &str = ".ci/run";
/// Runbooks, whose `console` blocks are executed by following them.
pub const RUNBOOKS: &str = "deploy/runbooks";
/// Directories whose Markdown is the input of tests, and often wrong on purpose.
pub const TEST_INPUT: [&str; 2] = ["fixtures/bad", "harness/tests"];
/// The list of claims.
pub const HITLIST: &str = "scenarios/HITLIST.md";

/// Something wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The document, relative to the root of the repository.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong: a fragment that names the object.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}: {}\nhint: {}",
            self.file.display(),
            self.line,
            self.message,
            self.hint
        )
    }
}

/// The documents could not be judged.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`\nhint: every document has to be readable and UTF-8", path.display())]
pub struct Unreadable {
    /// What could not be read.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Judges every Markdown file below `root`, except in `.git`, in `target` and in [`TEST_INPUT`]. Returns all
/// problems, sorted by file and line; none means that the documents keep the rules of this module.
///
/// # Errors
///
/// A document or a directory cannot be read: nothing is known about the documents then.
pub fn check(root: &Path) -> Result<Vec<Problem>, Unreadable> {
    let mut files = BTreeSet::new();
    collect(root, Path::new(""), &mut files)?;
    let mut documents = BTreeMap::new();
    for file in files {
        let text = read(&root.join(&file))?;
        documents.insert(file.clone(), Document::parse(file, &text));
    }
    let mut problems = Vec::new();
    for document in documents.values() {
        problems.extend(document.problems.iter().cloned());
        problems.extend(
            document
                .links
                .iter()
                .filter_map(|link| judge_link(root, &documents, document, link)),
        );
        if !document.file.starts_with(RUNBOOKS) {
            for block in &document.blocks {
                judge_block(root, document, block, &mut problems)?;
            }
        }
    }
    if documents.contains_key(Path::new(HITLIST)) {
        judge_hitlist(root, &read(&root.join(HITLIST))?, &mut problems)?;
    }
    problems.sort();
    Ok(problems)
}

fn read(path: &Path) -> Result<String, Unreadable> {
    fs::read_to_string(path).map_err(|source| Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// Adds the Markdown files below `root.join(directory)`, as paths relative to `root`. Links are not followed.
fn collect(root: &Path, directory: &Path, files: &mut BTreeSet<PathBuf>) -> Result<(), Unreadable> {
    let whole = root.join(directory);
    let failed = |source| Unreadable {
        path: whole.clone(),
        source,
    };
    for entry in fs::read_dir(&whole).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = directory.join(entry.file_name());
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            let mut skipped = [".git", "target"].iter().chain(&TEST_INPUT);
            if !skipped.any(|skipped| path == Path::new(skipped)) {
                collect(root, &path, files)?;
            }
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "md") {
            files.insert(path);
        }
    }
    Ok(())
}

/// What matters of one document.
#[derive(Debug)]
struct Document {
    file: PathBuf,
    anchors: BTreeSet<String>,
    links: Vec<Link>,
    blocks: Vec<Block>,
    problems: Vec<Problem>,
}

#[derive(Debug)]
struct Link {
    target: String,
    line: usize,
}

/// A `console` block.
#[derive(Debug)]
struct Block {
    /// Line of its fence.
    line: usize,
    /// Each line of each command, without prompt and remark, and where it stands.
    commands: Vec<(usize, String)>,
    /// The file that a comment above names as its executor.
    executor: Option<String>,
}

impl Document {
    fn parse(file: PathBuf, text: &str) -> Self {
        let line_of = |at: usize| 1 + text[..at].matches('\n').count();
        let mut document = Self {
            file,
            anchors: BTreeSet::new(),
            links: Vec::new(),
            blocks: Vec::new(),
            problems: Vec::new(),
        };

        let mut broken: Vec<(Range<usize>, String)> = Vec::new();
        let remember = |link: BrokenLink<'_>| -> Option<(CowStr<'_>, CowStr<'_>)> {
            // `[x]` alone is prose, `[text][name]` without a definition of `name` is a link that leads nowhere.
            if matches!(link.link_type, LinkType::Reference | LinkType::Collapsed) {
                broken.push((link.span, link.reference.to_string()));
            }
            None
        };
        let options =
            Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_TASKLISTS;
        let mut heading: Option<String> = None;
        let mut code: Option<(usize, String)> = None;
        let mut executor: Option<String> = None;
        let parser = Parser::new_with_broken_link_callback(text, options, Some(remember));
        for (event, range) in parser.into_offset_iter() {
            let line = line_of(range.start);
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    code = document.fence(&kind, line).then(|| (line, String::new()));
                    if code.is_none() {
                        executor = None;
                    }
                }
                Event::End(TagEnd::CodeBlock) => {
                    if let Some((line, content)) = code.take() {
                        document.console(line, &content, executor.take());
                    }
                }
                Event::Html(html) => executor = executor_in(&html).or(executor),
                Event::Start(Tag::HtmlBlock) => executor = None,
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(Link {
                        target: dest_url.into_string(),
                        line,
                    });
                }
                Event::Start(Tag::Heading { .. }) => {
                    (heading, executor) = (Some(String::new()), None)
                }
                Event::Start(_) => executor = None,
                Event::End(TagEnd::Heading(_)) => {
                    if let Some(heading) = heading.take() {
                        document.anchor(&heading);
                    }
                }
                Event::Text(part) | Event::Code(part) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&part);
                    }
                    if let Some((_, content)) = &mut code {
                        content.push_str(&part);
                    }
                }
                _ => {}
            }
        }
        for (span, name) in broken {
            document.problem(
                line_of(span.start),
                format!("reference `{name}` is not defined"),
                format!("add a line `[{name}]: path`, or write the path in round brackets"),
            );
        }
        document
    }

    fn problem(&mut self, line: usize, message: String, hint: String) {
        self.problems.push(Problem {
            file: self.file.clone(),
            line,
            message,
            hint,
        });
    }

    /// Judges a fence; whether it is `console`.
    fn fence(&mut self, kind: &CodeBlockKind<'_>, line: usize) -> bool {
        let CodeBlockKind::Fenced(info) = kind else {
            let hint = format!(
                "indent it less, or put it into a fence: {}",
                FENCES.join(", ")
            );
            self.problem(line, "code block by indentation".to_owned(), hint);
            return false;
        };
        if !FENCES.contains(&info.as_ref()) {
            let message = if info.is_empty() {
                "fence without a language".to_owned()
            } else {
                format!("fence `{info}`")
            };
            let hint = match info.as_ref() {
                "sh" | "bash" | "shell" => {
                    "write `console`, `$ ` before each command, and let something execute it"
                        .to_owned()
                }
                _ => format!("use one of: {}", FENCES.join(", ")),
            };
            self.problem(line, message, hint);
        }
        info.as_ref() == "console"
    }

    fn console(&mut self, line: usize, content: &str, executor: Option<String>) {
        let mut commands = Vec::new();
        let mut continued = false;
        for (index, text) in content.lines().enumerate() {
            let command = text
                .strip_prefix("$ ")
                .or_else(|| text.strip_prefix("> ").filter(|_| continued));
            continued = command.is_some();
            if let Some(command) = command {
                // A remark stands after two spaces and never belongs to the command.
                let command = command.split("  # ").next().unwrap_or_default().trim_end();
                commands.push((
                    line + 1 + index,
                    command.trim_end_matches('\\').trim().to_owned(),
                ));
            }
        }
        if commands.is_empty() {
            let hint = "begin each command with `$ `, or use the fence `text`".to_owned();
            self.problem(line, "`console` block without a command".to_owned(), hint);
        }
        self.blocks.push(Block {
            line,
            commands,
            executor,
        });
    }

    /// Adds the anchor that a forge makes of a heading: lower case, punctuation dropped, spaces become hyphens, and a
    /// number for the second of its name.
    fn anchor(&mut self, heading: &str) {
        let slug: String = heading
            .to_lowercase()
            .chars()
            .filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'))
            .map(|character| if character == ' ' { '-' } else { character })
            .collect();
        let mut anchor = slug.clone();
        let mut number = 0;
        while !self.anchors.insert(anchor) {
            number += 1;
            anchor = format!("{slug}-{number}");
        }
    }
}

/// The path in `<!-- executed by: PATH -->`.
fn executor_in(html: &str) -> Option<String> {
    let inner = html.trim().strip_prefix("<!--")?.strip_suffix("-->")?;
    Some(inner.trim().strip_prefix("executed by:")?.trim().to_owned())
}

fn judge_link(
    root: &Path,
    documents: &BTreeMap<PathBuf, Document>,
    document: &Document,
    link: &Link,
) -> Option<Problem> {
    let target = &link.target;
    let problem = |message: String, hint: String| {
        Some(Problem {
            file: document.file.clone(),
            line: link.line,
            message,
            hint,
        })
    };
    if let Some((scheme, _)) = target
        .split_once(':')
        .filter(|(scheme, _)| !scheme.contains(['/', '#', '.']))
    {
        let known = ["http", "https", "mailto"].contains(&scheme);
        let hint = "only `http`, `https`, `mailto` and relative paths lead anywhere".to_owned();
        return if known {
            None
        } else {
            problem(format!("link to `{target}` has an unknown scheme"), hint)
        };
    }
    let (path, anchor) = target
        .split_once('#')
        .map_or((target.as_str(), None), |(path, anchor)| {
            (path, Some(anchor))
        });
    if path.starts_with('/') {
        return problem(
            format!("link to `{target}` is absolute"),
            "write it relative to the document, or it leads out of the repository".to_owned(),
        );
    }
    let directory = document.file.parent().unwrap_or(Path::new(""));
    let file = if path.is_empty() {
        Some(document.file.clone())
    } else {
        resolve(directory, &unescape(path))
    };
    let Some(file) = file else {
        return problem(
            format!("link to `{target}` leads out of the repository"),
            "count the `..`, or link to where the file is published".to_owned(),
        );
    };
    if !root.join(&file).exists() {
        return problem(
            format!("link to `{target}`, which does not exist"),
            format!("it is looked for at `{}`", file.display()),
        );
    }
    let anchor = anchor?;
    let Some(linked) = documents.get(&file) else {
        return problem(
            format!("link to `{target}`, whose anchor cannot be checked"),
            "link to the file without an anchor; only Markdown has headings".to_owned(),
        );
    };
    if linked.anchors.contains(anchor) {
        return None;
    }
    let known: Vec<String> = linked
        .anchors
        .iter()
        .map(|anchor| format!("`#{anchor}`"))
        .collect();
    problem(
        format!(
            "link to `{target}`, but `{}` has no such heading",
            file.display()
        ),
        format!("its headings are {}", known.join(", ")),
    )
}

/// `path` seen from `directory`, without `.` and `..`; `None` when it leads out.
fn resolve(directory: &Path, path: &str) -> Option<PathBuf> {
    let mut resolved = PathBuf::new();
    for component in directory.join(path).components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::CurDir => {}
            Component::ParentDir if resolved.pop() => {}
            _ => return None,
        }
    }
    Some(resolved)
}

/// `path` with its percent-encoded bytes decoded, RFC 3986 section 2.1.
fn unescape(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| path.get(at + 1..at + 3))
            .flatten();
        if let Some(byte) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn judge_block(
    root: &Path,
    document: &Document,
    block: &Block,
    problems: &mut Vec<Problem>,
) -> Result<(), Unreadable> {
    let executor = block.executor.as_deref().unwrap_or(CI);
    let mut problem = |line, message, hint| {
        problems.push(Problem {
            file: document.file.clone(),
            line,
            message,
            hint,
        });
    };
    let inside = resolve(Path::new(""), executor);
    let Some(path) = inside
        .map(|path| root.join(path))
        .filter(|path| path.is_file())
    else {
        let message = format!("`console` block is executed by `{executor}`, which does not exist");
        let hint = format!("name a file of the repository, or let `{CI}` execute the commands");
        problem(block.line, message, hint);
        return Ok(());
    };
    let script = read(&path)?;
    for (line, command) in &block.commands {
        if !executes(executor, &script, command) {
            problem(
                *line,
                format!("command `{command}` does not stand in `{executor}`"),
                "execute it there, literally; or name who does above the block: `<!-- executed by: PATH -->`; \
                     or use the fence `text` for what is no command"
                .to_owned(),
            );
        }
    }
    Ok(())
}

/// Whether `script` holds `command` as a whole: `cargo test` does not stand in `cargo test --doc`, nor in a comment.
fn executes(name: &str, script: &str, command: &str) -> bool {
    let comment = if name.ends_with(".rs") { "//" } else { "#" };
    let lines = script
        .lines()
        .map(str::trim)
        .filter(|line| name.ends_with(".md") || !line.starts_with(comment));
    lines.into_iter().any(|line| {
        line.match_indices(command).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + command.len()..].trim_start();
            before.is_none_or(|character| {
                character.is_whitespace() || "\"'`(;|&!".contains(character)
            }) && (after.is_empty()
                || after.starts_with(['"', '\'', '`', ')', ';', '|', '&', '>', '#', '\\']))
        })
    })
}

/// A row `| [x] | id | claim | test | proved on |` of the list of claims.
pub struct Listed<'a> {
    /// The heading that it stands under.
    pub section: &'a str,
    /// Whether it is proved.
    pub ticked: bool,
    /// Its name for short.
    pub id: &'a str,
    /// A sentence.
    pub claim: &'a str,
    /// Its tests, as `path::name`.
    pub tests: Vec<&'a str>,
    /// The cell of the tests as it stands: without a test it says where the claim is open.
    pub test: &'a str,
    /// The servers that it was proved on, and what is known not to hold.
    pub proved_on: &'a str,
}

/// The rows of the list of claims, by their line; for one that has not five cells, how many it has.
pub fn listed(text: &str) -> impl Iterator<Item = (usize, Result<Listed<'_>, usize>)> {
    let mut section = "";
    text.lines().enumerate().filter_map(move |(index, line)| {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim();
        }
        let cells: Vec<&str> = line
            .trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let ticked @ ("[x]" | "[ ]") = *cells.first()? else {
            return None;
        };
        let row = match cells.as_slice() {
            &[_, id, claim, test, proved_on] => Ok(Listed {
                section,
                ticked: ticked == "[x]",
                id,
                claim,
                tests: test.split('`').skip(1).step_by(2).collect(),
                test,
                proved_on,
            }),
            cells => Err(cells.len()),
        };
        Some((index + 1, row))
    })
}

/// Judges the list of claims.
fn judge_hitlist(root: &Path, text: &str, problems: &mut Vec<Problem>) -> Result<(), Unreadable> {
    let mut ids = BTreeSet::new();
    for (line, row) in listed(text) {
        let mut problem = |message: String, hint: &str| {
            let (file, hint) = (PathBuf::from(HITLIST), hint.to_owned());
            problems.push(Problem {
                file,
                line,
                message,
                hint,
            });
        };
        let row = match row {
            Ok(row) => row,
            Err(cells) => {
                problem(
                    format!("row has {cells} cells"),
                    "write `| [ ] | id | claim | test | proved on |`",
                );
                continue;
            }
        };
        let Listed {
            id,
            claim,
            tests,
            test,
            proved_on,
            ..
        } = row;
        if !ids.insert(id) {
            problem(
                format!("claim `{id}` stands here a second time"),
                "give each claim an id of its own",
            );
        }
        if claim.is_empty() || test.is_empty() {
            problem(
                format!("claim `{id}` is incomplete"),
                "write a sentence, and its test in backticks or `open: issue N`",
            );
        }
        if tests.is_empty() && !test.starts_with("open: issue ") {
            problem(
                format!("claim `{id}` has neither a test nor an issue"),
                "write `path::name` in backticks, or `open: issue N`",
            );
        }
        if !row.ticked {
            continue;
        }
        if tests.is_empty() || proved_on.is_empty() || proved_on == "-" {
            problem(
                format!("claim `{id}` is ticked without proof"),
                "name its test and the server that it was proved on, or remove the tick",
            );
        }
        for test in tests {
            let (path, name) = test.split_once("::").unwrap_or((test, ""));
            let name = name.rsplit("::").next().unwrap_or_default();
            let file = root.join(path);
            let exists =
                file.is_file() && !name.is_empty() && read(&file)?.contains(&format!("fn {name}("));
            if !exists {
                problem(
                    format!("claim `{id}` is ticked, but the test `{test}` does not exist"),
                    "write `path/to/file.rs::name_of_the_function`, or remove the tick",
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository of the given files; what [`check`] says about it, each problem on one line without its hint.
    fn judged(files: &[(&str, &str)]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let problems = check(root.path()).unwrap();
        assert!(problems.iter().all(|problem| !problem.hint.is_empty()));
        problems
            .iter()
            .map(|problem| problem.to_string().lines().next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn sound_documents_pass() {
        let readme = "# A b, `c`!\n\n[deep](docs/a%20b.md#two-1) [up](#a-b-c) [dir](docs) [web](https://example.org/#x)\n\
                      ![picture](docs/rose.png) [ref][r] `[x][y]` [ ]\n\n[r]: docs/a%20b.md\n\n\
                      ```console\n$ cargo test  # until it passes\nok\n$ cargo fleet rehearse \\\n> --yes\n```\n\n\
                      ```json\n{}\n```\n\n\
                      <!-- executed by: deploy/runbooks/a.md -->\n```console\n$ true\n```\n";
        let files = [
            ("README.md", readme),
            (
                "docs/a b.md",
                "## two\n\ntext\n\n## two\n\n[back](../README.md)\n",
            ),
            ("docs/rose.png", ""),
            (
                "deploy/runbooks/a.md",
                "# A\n\n```console\n$ true\n$ anything\n```\n",
            ),
            ("fixtures/bad/runbooks/b.md", "```sh\nfalse\n```\n"),
            ("target/c.md", "```sh\nfalse\n```\n"),
            (
                ".ci/run",
                "#!/bin/bash\ncargo test && echo good\ncargo fleet rehearse \\\n    --yes\n",
            ),
        ];
        assert_eq!(judged(&files), Vec::<String>::new());
    }

    #[test]
    fn a_link_to_nothing_is_named_with_its_place() {
        let files = [(
            "docs/a.md",
            "# A\n\nsee\n[x](b.md) and [y](../../out.md), [z](/etc/passwd), [j](javascript:1)\n",
        )];
        assert_eq!(
            judged(&files),
            [
                "docs/a.md:4: link to `../../out.md` leads out of the repository",
                "docs/a.md:4: link to `/etc/passwd` is absolute",
                "docs/a.md:4: link to `b.md`, which does not exist",
                "docs/a.md:4: link to `javascript:1` has an unknown scheme",
            ]
        );
    }

    #[test]
    fn a_missing_heading_is_named_and_the_headings_are_listed() {
        let files = [
            ("a.md", "# One\n\n[x](#two) [y](b.md#one) [z](c.toml#l)\n"),
            ("b.md", "# Two\n"),
            ("c.toml", ""),
        ];
        assert_eq!(
            judged(&files),
            [
                "a.md:3: link to `#two`, but `a.md` has no such heading",
                "a.md:3: link to `b.md#one`, but `b.md` has no such heading",
                "a.md:3: link to `c.toml#l`, whose anchor cannot be checked",
            ]
        );
        let document = Document::parse(PathBuf::from("a.md"), files[0].1);
        let documents = BTreeMap::from([(document.file.clone(), document)]);
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.md"), "").unwrap();
        let document = &documents[Path::new("a.md")];
        let problem = judge_link(root.path(), &documents, document, &document.links[0]).unwrap();
        assert_eq!(problem.hint, "its headings are `#one`");
    }

    #[test]
    fn an_undefined_reference_is_named() {
        assert_eq!(
            judged(&[("a.md", "# A\n\n[text][nowhere] and [prose]\n")]),
            ["a.md:3: reference `nowhere` is not defined"]
        );
    }

    #[test]
    fn only_fences_that_mean_something_are_accepted() {
        let files = [(
            "a.md",
            "```sh\nls\n```\n\n```\nx\n```\n\ntext\n\n    ls\n\n- item\n  ```bash\n  ls\n  ```\n",
        )];
        assert_eq!(
            judged(&files),
            [
                "a.md:1: fence `sh`",
                "a.md:5: fence without a language",
                "a.md:11: code block by indentation",
                "a.md:14: fence `bash`",
            ]
        );
    }

    #[test]
    fn a_command_that_nothing_executes_is_named() {
        let readme = "# A\n\n```console\n$ cargo test\n$ cargo fleet up\n> --keep\noutput\n$ cargo doc\n```\n";
        let ci = "cargo test --doc\n# cargo fleet up\nmycargo doc\nrun --keep\n";
        assert_eq!(
            judged(&[("README.md", readme), (CI, ci)]),
            [
                "README.md:4: command `cargo test` does not stand in `.ci/run`",
                "README.md:5: command `cargo fleet up` does not stand in `.ci/run`",
                "README.md:8: command `cargo doc` does not stand in `.ci/run`",
            ]
        );
        assert_eq!(
            judged(&[("README.md", readme)]),
            ["README.md:3: `console` block is executed by `.ci/run`, which does not exist"]
        );
    }

    #[test]
    fn an_executor_counts_for_the_next_block_only() {
        let text = "<!-- executed by: t.rs -->\n```console\n$ true\n```\n\n```console\n$ true\n```\n\n\
                    <!-- executed by: gone.rs -->\n```console\n$ true\n```\n\n\
                    <!-- executed by: t.rs -->\nprose\n\n```console\n$ true\n```\n";
        assert_eq!(
            judged(&[
                ("a.md", text),
                ("t.rs", "// true\nrun(\"true\");\n"),
                (CI, "")
            ]),
            [
                "a.md:7: command `true` does not stand in `.ci/run`",
                "a.md:11: `console` block is executed by `gone.rs`, which does not exist",
                "a.md:19: command `true` does not stand in `.ci/run`",
            ]
        );
    }

    #[test]
    fn a_console_block_without_a_command_is_named() {
        assert_eq!(
            judged(&[("a.md", "```console\nls\n```\n"), (CI, "")]),
            ["a.md:1: `console` block without a command"]
        );
    }

    #[test]
    fn a_tick_needs_a_test_and_a_server() {
        let list = "| | id | claim | test | proved on |\n|---|---|---|---|---|\n\
                    | [x] | A1 | It is so. | `t.rs::it_is_so` | conduit 0.10.12 |\n\
                    | [ ] | A2 | It will be. | `t.rs::not_yet` | - |\n\
                    | [ ] | A3 | Some day. | open: issue 4 | - |\n\
                    | [x] | A4 | Claimed. | open: issue 4 | - |\n\
                    | [x] | A5 | Renamed. | `t.rs::it_was_so` | conduit 0.10.12 |\n\
                    | [ ] | A1 | Again. | someday | - |\n\
                    | [ ] | A6 | | `t.rs::x` | - |\n\
                    | [ ] | A7 | short |\n";
        assert_eq!(
            judged(&[(HITLIST, list), ("t.rs", "fn it_is_so() {}")]),
            [
                "scenarios/HITLIST.md:6: claim `A4` is ticked without proof",
                "scenarios/HITLIST.md:7: claim `A5` is ticked, but the test `t.rs::it_was_so` does not exist",
                "scenarios/HITLIST.md:8: claim `A1` has neither a test nor an issue",
                "scenarios/HITLIST.md:8: claim `A1` stands here a second time",
                "scenarios/HITLIST.md:9: claim `A6` is incomplete",
                "scenarios/HITLIST.md:10: row has 3 cells",
            ]
        );
    }

    #[test]
    fn a_document_that_is_not_utf8_is_an_error_and_not_a_pass() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.md"), b"\xff").unwrap();
        assert!(check(root.path()).unwrap_err().to_string().contains("a.md"));
    }
}
