//! `fleet lint`: which files are judged, how what is found is said, and what is written down.

use crate::failure::{Failure, OrBlame, Result};
use crate::verdict::Exit;
use crate::{paths, ui};
use clap::{Args, ValueEnum};
use fleet_lint::catalogue::{self, Status};
use fleet_lint::example::{self, Example};
use fleet_lint::render::{self, Count};
use fleet_lint::{Code, Diagnostic, Kind, Source, fix, lint, read};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The command line of `fleet lint`.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The files to judge together; `-` is standard input. By default this kit's own under deploy/ and
    /// fixtures/fleet.toml
    files: Vec<PathBuf>,
    /// What the files are, where their names do not say it
    #[arg(long, value_parser = parse_kind)]
    kind: Option<Kind>,
    /// Judge the configuration with these variables on top, in systemd's syntax; may be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// How findings are said
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Write down what has one safe meaning, then judge again; standard input is answered on standard output
    #[arg(long)]
    fix: bool,
    /// Fail on these, too
    #[arg(long, value_enum)]
    deny: Option<Deny>,
    /// Say what a class of findings is about
    #[arg(long, value_name = "CODE", value_parser = parse_code, exclusive = true)]
    explain: Option<Code>,
    /// List the classes of findings
    #[arg(long, exclusive = true)]
    list: bool,
    /// List every key of Conduit's configuration
    #[arg(long, exclusive = true)]
    keys: bool,
}

const AFTER_HELP: &str = "\
Exit codes: 0 without errors, 11 with errors (with `--deny warnings` also with warnings), 2 where a file cannot be read.";

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Human,
    Json,
    Sarif,
}

#[derive(Clone, Copy, ValueEnum)]
enum Deny {
    Warnings,
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::ALL
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, kind)| *kind)
        .ok_or_else(|| {
            let words: Vec<_> = Kind::ALL.iter().map(|(word, _)| *word).collect();
            format!("one of {}", words.join(", "))
        })
}

fn parse_code(text: &str) -> Result<Code, String> {
    Code::from_slug(text).ok_or_else(|| "`--list` prints all of them".to_owned())
}

/// Judges, says and mends what the arguments ask for.
///
/// # Errors
/// The environment's: what is found could not be written.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    if let Some(code) = arguments.explain {
        ui::show(explanation(code))?;
        return Ok(Exit::Ok);
    }
    if arguments.list {
        for code in Code::ALL {
            ui::show(format!("{:<26} {}\n", code.slug(), code.summary()))?;
        }
        return Ok(Exit::Ok);
    }
    if arguments.keys {
        ui::show(keys())?;
        return Ok(Exit::Ok);
    }
    let mut taken = Taken::default();
    for file in &arguments.files {
        taken.take(file, arguments.kind);
    }
    for file in &arguments.env_file {
        taken.take(file, Some(Kind::Environment));
    }
    if arguments.files.is_empty() {
        for file in ours()? {
            taken.take(&file, None);
        }
    }
    let mut findings = lint(&taken.sources);
    if arguments.fix {
        let mended = taken.mend(&findings)?;
        if mended.fixes > 0 {
            findings = lint(&taken.sources);
        }
        if mended.stdin {
            // Standard output is the corrected text; what is left to say goes beside it.
            ui::remark(render::human(&findings, false));
            return Ok(taken.exit(&findings, arguments));
        }
    }
    findings.splice(0..0, taken.findings.iter().cloned());
    if findings.is_empty() && taken.sources.is_empty() && taken.unread {
        return Ok(taken.exit(&findings, arguments));
    }
    let text = match arguments.format {
        Format::Human => {
            let files = taken.sources.len() + taken.findings.len();
            format!(
                "{}{}\n",
                render::human(&findings, colour()),
                render::summary(&findings, files)
            )
        }
        Format::Json => render::json(&findings, &taken.sources),
        Format::Sarif => render::sarif(&findings),
    };
    ui::show(text)?;
    Ok(taken.exit(&findings, arguments))
}

/// What could be taken in.
#[derive(Default)]
struct Taken {
    sources: Vec<Source>,
    /// Findings about files that are no text.
    findings: Vec<Diagnostic>,
    unread: bool,
}

struct Mended {
    fixes: usize,
    stdin: bool,
}

impl Taken {
    /// Takes a file in. What cannot be read is said at once, and the others are judged all the same.
    fn take(&mut self, path: &Path, kind: Option<Kind>) {
        let read = if path == Path::new("-") {
            read::stdin(std::io::stdin().lock(), kind)
        } else {
            read::file(&shown(path), kind)
        };
        match read {
            Ok(Ok(source)) => self.sources.push(source),
            Ok(Err(finding)) => self.findings.push(finding),
            Err(error) => {
                self.unread = true;
                let mut said = format!("error: {error}");
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    said.push_str(&format!(": {error}"));
                    cause = error.source();
                }
                said.push('\n');
                if matches!(error, read::ReadError::UnknownKind { .. }) {
                    let words: Vec<_> = Kind::ALL.iter().map(|(word, _)| *word).collect();
                    said.push_str(&format!(
                        "hint: say what it is with `--kind`: {}\n",
                        words.join(", ")
                    ));
                }
                ui::remark(said);
            }
        }
    }

    /// Writes safe corrections down until there are none left, for one may uncover another.
    fn mend(&mut self, findings: &[Diagnostic]) -> Result<Mended> {
        let mut mended = Mended {
            fixes: 0,
            stdin: false,
        };
        let mut findings = findings.to_vec();
        // Each round mends at least one finding of a file, so that this ends; the bound is for a defect of ours.
        for _ in 0..16 {
            let mut changed = false;
            let texts: Vec<_> = self
                .sources
                .iter()
                .map(|source| fix::corrected(source, &findings))
                .collect();
            for (source, corrected) in self.sources.iter_mut().zip(texts) {
                if let Some((text, fixes)) = corrected {
                    *source = Source::new(source.name(), source.kind(), text);
                    mended.fixes += fixes;
                    changed = true;
                    if source.name() != read::STDIN {
                        fix::write(Path::new(source.name()), source.text())
                            .or_environment(|| format!("write `{}`", source.name()))?;
                    }
                }
            }
            if !changed {
                break;
            }
            findings = lint(&self.sources);
        }
        if mended.fixes > 0 {
            ui::say(format!("mended {} findings", mended.fixes));
        }
        if let Some(stdin) = self
            .sources
            .iter()
            .find(|source| source.name() == read::STDIN)
        {
            mended.stdin = true;
            ui::show(stdin.text())?;
        }
        Ok(mended)
    }

    fn exit(&self, findings: &[Diagnostic], arguments: &Arguments) -> Exit {
        let count = Count::of(findings);
        let denied = arguments.deny.is_some() && count.warnings > 0;
        if self.unread {
            // What was not looked at must not read as found right.
            Exit::Usage
        } else if count.errors > 0 || denied {
            Exit::Deployment
        } else {
            Exit::Ok
        }
    }
}

/// A path as messages show it: relative where it lies below the working directory.
fn shown(path: &Path) -> PathBuf {
    std::env::current_dir()
        .ok()
        .and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned()))
        .unwrap_or_else(|| path.to_owned())
}

/// The kit's own files: what lies under deploy/ and has the name of something that is known, and the fleet's manifest.
///
/// # Errors
/// The environment's: the directory could not be read.
pub fn ours() -> Result<Vec<PathBuf>> {
    let root = paths::repository();
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let mut found = Vec::new();
    let mut directories = vec![root.join("deploy")];
    while let Some(directory) = directories.pop() {
        let what = || format!("read `{}`", directory.display());
        for entry in std::fs::read_dir(&directory).or_environment(what)? {
            let entry = entry.or_environment(what)?;
            let path = entry.path();
            // A link to a directory may lead around in a circle.
            if entry.file_type().or_environment(what)?.is_dir() {
                directories.push(path);
            } else if Kind::by_name(&path.to_string_lossy()).is_some() {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::environment(
            "find the kit's files: there is none under deploy/",
        ));
    }
    found.push(root.join("fixtures/fleet.toml"));
    found.sort();
    Ok(found)
}

/// What a class is about, and where one file alone can show it, what is then said.
fn explanation(code: Code) -> String {
    let mut text = format!("{}\n\n{}\n", code.slug(), code.summary());
    let findings: Vec<_> = example::all()
        .iter()
        .filter(|example| example.code == code)
        .filter_map(Example::finding)
        .collect();
    if !findings.is_empty() {
        text.push_str("\nFor example:\n\n");
        text.push_str(&render::human(&findings, colour()));
    }
    text
}

fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The catalogue as text.
fn keys() -> String {
    let mut text = String::new();
    for located in catalogue::all() {
        let key = located.key;
        let mut about = vec![key.takes.to_string()];
        if key.required {
            about.push("required".to_owned());
        }
        if let Some(default) = key.default {
            about.push(format!("default {default}"));
        }
        match key.status {
            Status::Current => {}
            Status::Deprecated { instead } => about.push(format!("deprecated, use {instead}")),
            Status::Next => about.push("not in 0.10.12".to_owned()),
        }
        if let Some(variable) = catalogue::variable_of(&located.path) {
            about.push(variable);
        }
        text.push_str(&format!(
            "{}\n    {}\n    {}\n",
            located.dotted(),
            about.join("; "),
            key.effect
        ));
    }
    text
}
