//! What is said about a file: where, what happens at run time, what was probably meant, and how to mend it.

use crate::source::Source;
use std::ops::Range;

/// How bad it is. The worst of a run decides its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; changes no exit code.
    Note,
    /// Works, but not as somebody who reads the file would think, or not safely.
    Warning,
    /// Does not start, or does not do what it says.
    Error,
}

/// What the server does about it, which is what the differential test holds against the real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// The server does not start, and exits with this code.
    Fatal {
        /// The exit code that the real server ends with.
        exit: u8,
    },
    /// The server starts as if it did not stand there.
    Ignored,
    /// The server starts and does it.
    InForce,
    /// Nothing that one server's start could show: two files contradict each other, or a person would be misled.
    None,
}

/// The class of a diagnostic. Its slug is stable: it stands in reports, in SARIF as the rule's id, and in tests.
///
/// Add variants freely; each has its slug in [`Code::slug`] and one sentence in [`Code::summary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The file is not TOML as Conduit's parser reads it.
    TomlSyntax,
}

impl Code {
    /// Every class, in the order of the documentation.
    pub const ALL: &'static [Self] = &[Self::TomlSyntax];

    /// Its stable name, in kebab case.
    pub fn slug(self) -> &'static str {
        match self {
            Self::TomlSyntax => "toml-syntax",
        }
    }

    /// What this class is about, as one sentence for a list of rules.
    pub fn summary(self) -> &'static str {
        match self {
            Self::TomlSyntax => "The file is not TOML as Conduit's parser reads it.",
        }
    }
}

/// A place, and what there is to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The file.
    pub source: Source,
    /// Bytes of it.
    pub span: Range<usize>,
    /// A lower-case fragment that is printed under the underlined text; may be empty.
    pub text: String,
}

/// A replacement of bytes by others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The file.
    pub source: Source,
    /// The bytes that go.
    pub span: Range<usize>,
    /// What comes instead.
    pub replacement: String,
}

/// A correction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// What it does, in the imperative.
    pub title: String,
    /// Whether it has one safe meaning, so that `--fix` may apply it without a person.
    pub safe: bool,
    /// All of them or none.
    pub edits: Vec<Edit>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its class.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What the server does about it.
    pub effect: Effect,
    /// The finding: a lower-case fragment that names the key or value in backticks.
    pub message: String,
    /// Where it is; the text says what happens at run time.
    pub primary: Label,
    /// Other places that belong to it, such as the other side of a contradiction.
    pub related: Vec<Label>,
    /// Remarks that need no place: what was probably meant, why it matters, where it is documented.
    pub notes: Vec<String>,
    /// The correction, where one can be written down.
    pub fix: Option<Fix>,
}
