//! Takes files in. A file that is no regular file, that is too large, that vanishes or that is no text is told as what
//! it is; none of it stops the others from being judged.

use crate::diagnostic::{Code, Diagnostic, Effect, Severity};
use crate::source::{Kind, Source};
use crate::value::Place;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// No configuration is larger; what is, is a mistake in the command, such as a database.
pub const LIMIT: u64 = 4 * 1024 * 1024;

/// Why a file was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be opened or read to its end.
    #[error("read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory, a device, a pipe or a socket.
    #[error("read `{}`: it is {what}, not a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// It is larger than [`LIMIT`].
    #[error("read `{}`: it is larger than {} MiB, which no configuration is", path.display(), LIMIT / 1024 / 1024)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Neither its name nor its text say what it is.
    #[error("`{}` is none of the files that are known, by its name and its text", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
}

/// The name that standard input has in messages.
pub const STDIN: &str = "<stdin>";

/// Reads a file; `kind` overrides what its name and text say. An `Err` of the inner result is a finding about the file
/// itself, with which it cannot be judged any further.
pub fn file(path: &Path, kind: Option<Kind>) -> Result<Result<Source, Diagnostic>, ReadError> {
    let failed = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    // Before it is opened: opening a pipe would wait for somebody who writes into it.
    let what = std::fs::metadata(path).map_err(failed)?.file_type();
    if !what.is_file() {
        return Err(ReadError::NotAFile {
            path: path.to_owned(),
            what: if what.is_dir() {
                "a directory"
            } else {
                "a device, a pipe or a socket"
            },
        });
    }
    let bytes = bounded(File::open(path).map_err(failed)?, path)?;
    text(&path.display().to_string(), path, bytes, kind)
}

/// Reads standard input, or whatever stands for it.
pub fn stdin(
    input: impl Read,
    kind: Option<Kind>,
) -> Result<Result<Source, Diagnostic>, ReadError> {
    let path = Path::new(STDIN);
    let bytes = bounded(input, path)?;
    text(STDIN, path, bytes, kind)
}

fn bounded(input: impl Read, path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    input
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Io {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > LIMIT {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

fn text(
    name: &str,
    path: &Path,
    bytes: Vec<u8>,
    kind: Option<Kind>,
) -> Result<Result<Source, Diagnostic>, ReadError> {
    let (text, broken_at) = match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            (
                String::from_utf8_lossy(error.as_bytes()).into_owned(),
                Some(at),
            )
        }
    };
    let kind =
        kind.or_else(|| Kind::detect(name, &text))
            .ok_or_else(|| ReadError::UnknownKind {
                path: path.to_owned(),
            })?;
    let source = Source::new(name, kind, text);
    let Some(at) = broken_at else {
        return Ok(Ok(source));
    };
    let (effect, label) = match kind {
        Kind::Conduit => (
            Effect::Fatal { exit: 1 },
            "refused: the server does not start (exit 1)",
        ),
        _ => (Effect::None, "read as something else, or not at all"),
    };
    // The first of the replacement characters stands where the first broken byte stood.
    let end = at + char::REPLACEMENT_CHARACTER.len_utf8();
    Ok(Err(Diagnostic::new(
        Code::Unreadable,
        Severity::Error,
        effect,
        format!("`{name}` is not UTF-8, from byte {at} on"),
        Place::new(&source, at..end).label(label),
    )))
}
