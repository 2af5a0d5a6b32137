//! Caddy itself, asked what a Caddyfile means: `caddy adapt` reads no network, no live server and no state.
//!
//! A Caddyfile is put, with what it imports, into a directory of its own and adapted there in an empty environment,
//! within a time limit. What Caddy says is kept under the hash of all that it was given, so that a lint after the first
//! starts no Caddy.

use super::fact::finding;
use super::unit::normal;
use crate::diagnostic::{Code, Diagnostic, Label, Severity};
use crate::source::{Kind, Source};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use wait_timeout::ChildExt;

/// Names the Caddy to ask.
pub const VARIABLE: &str = "FLEET_CADDY";

/// How long Caddy may take; it needs some 30 ms.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than this is no configuration.
const LENGTH: u64 = 32 << 20;
/// More files than this are a circle of imports.
const FILES: usize = 256;

/// Where Caddy is and where its answers are kept.
#[derive(Clone, Debug)]
pub struct Caddy {
    program: Result<PathBuf, String>,
    cache: Option<PathBuf>,
    patience: Duration,
}

impl Caddy {
    /// Looks for Caddy: `FLEET_CADDY`, then `caddy` on `PATH`, then the copy that `cargo fleet setup` took out of the
    /// lab's image. Its answers are kept beside that copy.
    pub fn find() -> Self {
        let fleet = target().join("fleet");
        let copy = fleet.join("tools/caddy");
        let program = match std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            Some(named) => {
                let path = PathBuf::from(&named);
                if is_program(&path) {
                    Ok(path)
                } else {
                    Err(format!(
                        "`{VARIABLE}` names `{}`, which is no program",
                        path.display()
                    ))
                }
            }
            None => std::env::var_os("PATH")
                .iter()
                .flat_map(std::env::split_paths)
                .map(|directory| directory.join("caddy"))
                .chain([copy])
                .find(|path| is_program(path))
                .ok_or_else(|| {
                    "no `caddy` is on `PATH`, and none was taken out of the lab's image".to_owned()
                }),
        };
        Self {
            program,
            cache: Some(fleet.join("lint")),
            patience: PATIENCE,
        }
    }

    /// This Caddy, remembering nothing.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self {
            program: Ok(program.into()),
            cache: None,
            patience: PATIENCE,
        }
    }

    /// No Caddy, for this reason.
    pub fn missing(why: impl Into<String>) -> Self {
        Self {
            program: Err(why.into()),
            cache: None,
            patience: PATIENCE,
        }
    }

    /// The same, keeping its answers in a directory.
    pub fn remembering(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Some(directory.into());
        self
    }

    /// The same, given up after another time.
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The program, or why there is none.
    ///
    /// # Errors
    /// Why there is none.
    pub fn program(&self) -> Result<&Path, &str> {
        self.program.as_deref().map_err(String::as_str)
    }
}

/// As the harness has it: `CARGO_TARGET_DIR`, or `target/` in the repository.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")).to_owned(),
        PathBuf::from,
    )
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// A Caddyfile as Caddy understands it.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// Caddy's own configuration, JSON.
    pub json: serde_json::Value,
    /// The Caddyfile and what it imports, in that order: the literals stand in one of them.
    pub files: Vec<Source>,
}

/// What Caddy was asked and said; this is what is remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    exit: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A Caddyfile with all that it imports.
#[derive(Debug)]
pub struct Closure {
    /// The Caddyfile first.
    pub files: Vec<(PathBuf, Source)>,
    /// Names of files that could not be read, with the reason.
    unreadable: Vec<(PathBuf, String)>,
}

impl Closure {
    /// Collects what a Caddyfile imports: from the `given` sources where they have that name, else from the disk.
    pub fn of(root: &Source, given: &[&Source]) -> Self {
        let absolute = |source: &Source| {
            normal(&std::path::absolute(source.name()).unwrap_or_else(|_| source.name().into()))
        };
        let given: Vec<(PathBuf, &Source)> = given
            .iter()
            .map(|source| (absolute(source), *source))
            .collect();
        let mut closure = Self {
            files: vec![(absolute(root), root.clone())],
            unreadable: Vec::new(),
        };
        let mut at = 0;
        while at < closure.files.len() && closure.files.len() < FILES {
            let (path, source) = closure.files[at].clone();
            at += 1;
            for import in imports(source.text()) {
                let pattern = path
                    .parent()
                    .unwrap_or(Path::new("/"))
                    .join(&import.argument);
                let pattern = normal(&pattern);
                let Some(pattern) = pattern.to_str() else {
                    continue;
                };
                closure.import(pattern, &given);
            }
        }
        closure
    }

    fn import(&mut self, pattern: &str, given: &[(PathBuf, &Source)]) {
        let Ok(matcher) = glob::Pattern::new(pattern) else {
            return;
        };
        // As Go's filepath.Glob: a star does not cross a slash.
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..glob::MatchOptions::default()
        };
        let mut found: Vec<PathBuf> = given
            .iter()
            .filter(|(path, _)| matcher.matches_path_with(path, options))
            .map(|(path, _)| path.clone())
            .chain(
                glob::glob_with(pattern, options)
                    .into_iter()
                    .flatten()
                    .flatten(),
            )
            .collect();
        found.sort();
        found.dedup();
        for path in found.into_iter().take(FILES) {
            if self.files.iter().any(|(known, _)| *known == path) {
                continue;
            }
            let source = match given.iter().find(|(known, _)| *known == path) {
                Some((_, source)) => Ok((*source).clone()),
                None => std::fs::read_to_string(&path)
                    .map(|text| Source::new(path.to_string_lossy(), Kind::Caddyfile, text)),
            };
            match source {
                Ok(source) => self.files.push((path, source)),
                Err(why) => self.unreadable.push((path, why.to_string())),
            }
        }
    }

    fn sources(&self) -> Vec<Source> {
        self.files
            .iter()
            .map(|(_, source)| source.clone())
            .collect()
    }
}

/// Has Caddy adapt a Caddyfile. What Caddy warns of comes beside what it understood.
///
/// # Errors
/// One diagnostic: it was not judged, or Caddy would not load it.
pub fn adapt(
    caddy: &Caddy,
    closure: &Closure,
) -> Result<(Adapted, Vec<Diagnostic>), Box<Diagnostic>> {
    let root = &closure.files[0].1;
    let not_judged = |why: String, todo: &str| {
        let mut found = finding(
            Code::CaddyfileNotJudged,
            Severity::Warning,
            format!("`{}` was not judged: {why}", root.name()),
            Label {
                source: root.clone(),
                span: root.first_line(),
                text: "whether Caddy loads this, and what it would serve, is not known".to_owned(),
            },
        );
        found.notes.push(todo.to_owned());
        Box::new(found)
    };
    let program = caddy.program().map_err(|why| {
        not_judged(
            why.to_owned(),
            "a Caddyfile is judged by Caddy's own `caddy adapt`: install Caddy, name one in `FLEET_CADDY`, or run \
             `cargo fleet setup`, which takes it out of the lab's image",
        )
    })?;
    if let Some((path, why)) = closure.unreadable.first() {
        return Err(not_judged(
            format!(
                "it imports `{}`, which cannot be read: {why}",
                path.display()
            ),
            "run this as a user who may read what Caddy reads",
        ));
    }
    let remembered = caddy
        .cache
        .as_ref()
        .and_then(|directory| Some(directory.join(key(program, closure)?)));
    let read = remembered
        .as_deref()
        .and_then(|path| serde_json::from_slice::<Answer>(&std::fs::read(path).ok()?).ok());
    let answer = match read {
        Some(answer) => answer,
        None => {
            let answer = ask(program, closure, caddy.patience).map_err(|why| {
                not_judged(why, "see whether `caddy adapt` works by itself, or name another Caddy in `FLEET_CADDY`")
            })?;
            if let Some(path) = &remembered {
                remember(path, &answer);
            }
            answer
        }
    };
    let files = closure.sources();
    if answer.exit != Some(0) {
        return Err(Box::new(refusal(&answer, &files).unwrap_or_else(|| {
            *not_judged(
                format!("Caddy ended with {} and said nothing", ended(answer.exit)),
                "see whether `caddy adapt` works by itself, or name another Caddy in `FLEET_CADDY`",
            )
        })));
    }
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).map_err(|error| {
        not_judged(
            format!("what Caddy answered is not JSON: {error}"),
            "is this program Caddy? name another one in `FLEET_CADDY`",
        )
    })?;
    if !json.is_object() {
        return Err(not_judged(
            "what Caddy answered is no configuration".to_owned(),
            "is this program Caddy? name another one in `FLEET_CADDY`",
        ));
    }
    let warnings = warnings(&answer.stderr, &files);
    Ok((Adapted { json, files }, warnings))
}

fn ended(exit: Option<i32>) -> String {
    exit.map_or_else(
        || "a signal".to_owned(),
        |code| format!("exit status {code}"),
    )
}

/// Names of files are part of it: imports are found by them.
fn key(program: &Path, closure: &Closure) -> Option<String> {
    let data = std::fs::metadata(program).ok()?;
    let mut hasher = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    // Raised when what is asked of Caddy changes.
    part(b"1");
    part(program.as_os_str().as_encoded_bytes());
    part(&data.len().to_le_bytes());
    part(&data.mtime().to_le_bytes());
    part(&data.mtime_nsec().to_le_bytes());
    for (path, source) in &closure.files {
        part(path.as_os_str().as_encoded_bytes());
        part(source.text().as_bytes());
    }
    Some(format!("{:x}.json", hasher.finalize()))
}

/// Whole or not at all; what cannot be kept is asked again.
fn remember(path: &Path, answer: &Answer) {
    let Some(directory) = path.parent() else {
        return;
    };
    let kept = || -> std::io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let partial = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&partial, answer)?;
        partial.persist(path)?;
        Ok(())
    };
    // A read-only checkout is no reason to judge nothing.
    let _ = kept();
}

fn ask(program: &Path, closure: &Closure, patience: Duration) -> Result<Answer, String> {
    let stage =
        tempfile::tempdir().map_err(|error| format!("make a directory for Caddy: {error}"))?;
    // Before it is shown to Caddy, so that its messages carry no link's name.
    let directory = stage
        .path()
        .canonicalize()
        .map_err(|error| format!("make a directory for Caddy: {error}"))?;
    let staged = |path: &Path| directory.join(path.strip_prefix("/").unwrap_or(path));
    for (path, source) in &closure.files {
        let at = staged(path);
        let write = || -> std::io::Result<()> {
            if let Some(parent) = at.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&at, restaged(source.text(), &directory))
        };
        write().map_err(|error| format!("copy `{}` for Caddy: {error}", source.name()))?;
    }
    // Absolute, because Caddy is started elsewhere.
    let program = std::path::absolute(program).unwrap_or_else(|_| program.to_owned());
    let mut child = Command::new(&program)
        .args(["adapt", "--adapter", "caddyfile", "--config"])
        .arg(staged(&closure.files[0].0))
        .current_dir(&directory)
        .env_clear()
        .env("HOME", &directory)
        .env("XDG_CONFIG_HOME", &directory)
        .env("XDG_DATA_HOME", &directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("start `{}`: {error}", program.display()))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = match child.wait_timeout(patience) {
        Ok(Some(status)) => status,
        waited => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(match waited {
                Err(error) => format!("wait for `{}`: {error}", program.display()),
                Ok(_) => format!(
                    "`{} adapt` gave no answer within {} s",
                    program.display(),
                    patience.as_secs_f32()
                ),
            });
        }
    };
    // A child of its own may hold the other end open; what was said until now is what there is.
    let read = |from: mpsc::Receiver<Vec<u8>>| match from.recv_timeout(patience) {
        Ok(bytes) if bytes.len() as u64 >= LENGTH => Err(format!(
            "`{} adapt` wrote more than {} MiB",
            program.display(),
            LENGTH >> 20
        )),
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => Err(format!(
            "`{} adapt` ended without closing its output",
            program.display()
        )),
    };
    // Whoever reads it knows nothing of the stage.
    let prefix = directory.to_string_lossy().into_owned();
    Ok(Answer {
        exit: status.code(),
        stdout: read(stdout)?.replace(&prefix, ""),
        stderr: read(stderr)?.replace(&prefix, ""),
    })
}

/// Reads in a thread, so that neither pipe blocks the other.
fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is still what was said.
            let _ = pipe.take(LENGTH).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// The text with absolute imports pointing into the stage; no line moves.
fn restaged(text: &str, stage: &Path) -> String {
    let mut staged = String::with_capacity(text.len());
    let mut from = 0;
    for import in imports(text) {
        if Path::new(&import.argument).is_absolute() {
            staged.push_str(&text[from..import.span.start]);
            staged.push_str(&stage.to_string_lossy());
            from = import.span.start;
        }
    }
    staged.push_str(&text[from..]);
    staged
}

/// The argument of an `import`.
struct Import {
    argument: String,
    span: Range<usize>,
}

fn imports(text: &str) -> Vec<Import> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let begins_line = at == 0 || tokens[at - 1].line != token.line;
        let Some(argument) = tokens.get(at + 1).filter(|next| next.line == token.line) else {
            continue;
        };
        // A snippet of that name comes first; one that no file defines is no file either.
        let snippet = format!("({})", argument.text);
        if begins_line
            && token.text == "import"
            && !tokens.iter().any(|other| other.text == snippet)
        {
            found.push(Import {
                argument: argument.text.clone(),
                span: argument.span.clone(),
            });
        }
    }
    found
}

/// A word of a Caddyfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Without its quotes.
    pub text: String,
    /// Where it stands, without its quotes.
    pub span: Range<usize>,
    /// The line that it begins on, from 0.
    pub line: usize,
}

/// The words of a Caddyfile, to find the places of what Caddy understood: the judging is Caddy's.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut characters = text.char_indices().peekable();
    let mut line = 0;
    while let Some((at, character)) = characters.next() {
        match character {
            '\n' => line += 1,
            blank if blank.is_whitespace() => {}
            '#' => while characters.next_if(|(_, next)| *next != '\n').is_some() {},
            quote @ ('"' | '`') => {
                let began = line;
                let mut word = String::new();
                let mut end = text.len();
                while let Some((here, next)) = characters.next() {
                    if next == '\n' {
                        line += 1;
                    }
                    if next == quote {
                        end = here;
                        break;
                    }
                    if quote == '"'
                        && next == '\\'
                        && characters.peek().is_some_and(|(_, after)| *after == '"')
                    {
                        word.push('"');
                        characters.next();
                        continue;
                    }
                    word.push(next);
                }
                tokens.push(Token {
                    text: word,
                    span: at + 1..end.max(at + 1),
                    line: began,
                });
            }
            first => {
                let mut word = String::from(first);
                let mut end = at + first.len_utf8();
                while let Some((here, next)) = characters.next_if(|(_, next)| !next.is_whitespace())
                {
                    word.push(next);
                    end = here + next.len_utf8();
                }
                // A backslash at the end of a line continues it.
                if word == "\\" && characters.next_if(|(_, next)| *next == '\n').is_some() {
                    continue;
                }
                tokens.push(Token {
                    text: word,
                    span: at..end,
                    line,
                });
            }
        }
    }
    tokens
}

/// Caddy's refusal, at the line that it names; `None` if it said nothing.
fn refusal(answer: &Answer, files: &[Source]) -> Option<Diagnostic> {
    let said = answer
        .stderr
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('{'))
        .or_else(|| {
            answer
                .stderr
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
        })?;
    let said = said
        .strip_prefix("Error: ")
        .unwrap_or(said)
        .trim_start_matches("adapt: ");
    let (source, span) =
        place(said, files).unwrap_or_else(|| (files[0].clone(), files[0].first_line()));
    let mut message: String = said.chars().take(500).collect();
    for file in files {
        let absolute = std::path::absolute(file.name()).unwrap_or_default();
        message = message.replace(&*normal(&absolute).to_string_lossy(), file.name());
    }
    let mut found = finding(
        Code::CaddyfileRefused,
        Severity::Error,
        format!("Caddy does not load `{}`: {message}", files[0].name()),
        Label {
            source,
            span,
            text: "Caddy does not start with this, and a running one keeps what it had".to_owned(),
        },
    );
    found.notes.push(
        "said by `caddy adapt`; nothing in this file was compared with the others".to_owned(),
    );
    Some(found)
}

/// The line that a message names as `PATH:LINE`, without its indentation.
fn place(message: &str, files: &[Source]) -> Option<(Source, Range<usize>)> {
    files.iter().find_map(|source| {
        let absolute = normal(&std::path::absolute(source.name()).ok()?);
        let name = absolute.to_string_lossy();
        let after = &message[message.find(&format!("{name}:"))? + name.len() + 1..];
        let digits = after
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(after.len());
        let line = after[..digits].parse().ok()?;
        Some((source.clone(), line_span(source, line)))
    })
}

fn line_span(source: &Source, line: usize) -> Range<usize> {
    let text = source.text();
    let mut start = 0;
    for (at, content) in text.split_inclusive('\n').enumerate() {
        if at + 1 == line.max(1) {
            let lead = content.len() - content.trim_start().len();
            let body = content.trim();
            let from = if body.is_empty() { start } else { start + lead };
            return from..from + body.len();
        }
        start += content.len();
    }
    source.first_line()
}

/// What Caddy warns of: log lines of the adapter, in either of its forms.
fn warnings(stderr: &str, files: &[Source]) -> Vec<Diagnostic> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        logger: Option<String>,
        msg: String,
        file: Option<String>,
        line: Option<usize>,
    }
    let mut found = Vec::new();
    for line in stderr.lines() {
        let (message, place) = if let Ok(line) = serde_json::from_str::<Line>(line) {
            // Only the adapter speaks of the file.
            if line.level != "warn" || line.logger.is_none() && line.file.is_none() {
                continue;
            }
            let place = line.line.and_then(|number| {
                let name = line
                    .file
                    .as_deref()
                    .map(Path::new)
                    .and_then(Path::file_name)?;
                let source = files
                    .iter()
                    .find(|source| Path::new(source.name()).file_name() == Some(name))
                    .or_else(|| (name == OsStr::new("Caddyfile")).then(|| &files[0]))?;
                Some((source.clone(), line_span(source, number)))
            });
            (line.msg, place)
        } else if let Some(text) = line.strip_prefix("[WARNING][caddyfile] ") {
            (text.to_owned(), place(text, files))
        } else {
            continue;
        };
        let (source, span) = place.unwrap_or_else(|| (files[0].clone(), files[0].first_line()));
        let severity = if message.contains("not formatted") {
            Severity::Note
        } else {
            Severity::Warning
        };
        found.push(finding(
            Code::CaddyfileWarning,
            severity,
            format!("Caddy says: {message}"),
            Label {
                source,
                span,
                text: String::new(),
            },
        ));
    }
    found
}
