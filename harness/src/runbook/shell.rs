//! As much of the shell's grammar as a check of a document needs: which variables a command uses
//! and sets, where its comments are, and whether it is complete. Nothing is executed.
//!
//! Where the grammar is too rich for this reader it is lenient: a mistake that it misses is found
//! when the runbook is followed, but a correct runbook must never be refused.

use std::collections::BTreeSet;

/// Variables that a runbook may use without declaring them: those that `bash` itself sets in every
/// session, and `HOME`. `USER`, `LANG` and the like are missing on purpose: a login sets them, a
/// session of the harness does not, and a runbook must not depend on the difference.
pub const KNOWN_VARIABLES: &[&str] = &[
    "BASH",
    "BASHPID",
    "BASH_REMATCH",
    "BASH_VERSION",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "HOME",
    "HOSTNAME",
    "HOSTTYPE",
    "IFS",
    "LINENO",
    "MACHTYPE",
    "OLDPWD",
    "OSTYPE",
    "PATH",
    "PIPESTATUS",
    "PPID",
    "PWD",
    "RANDOM",
    "REPLY",
    "SECONDS",
    "SHELL",
    "SHLVL",
    "UID",
];

/// Whether `name` can be the name of a shell variable.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name_length(name.as_bytes(), 0) == name.len()
}

/// A comment within a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Comment {
    /// Byte offset of the `#`.
    pub(super) start: usize,
    /// Byte offset of the end of its line.
    pub(super) end: usize,
    /// Blanks directly before the `#`.
    pub(super) blanks: usize,
    /// Nothing but blanks stands before it on its line.
    pub(super) alone: bool,
}

/// What [`scan`] found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Used variables with the byte offset of their `$`, in order.
    pub(super) uses: Vec<(String, usize)>,
    /// Variables that the command sets, anywhere in it.
    pub(super) sets: BTreeSet<String>,
    pub(super) comments: Vec<Comment>,
    /// What is opened and never closed, with the byte offset of its start.
    pub(super) open: Option<(usize, &'static str)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    /// `( … )` or `$( … )`.
    Paren {
        substitution: bool,
        arithmetic: bool,
    },
    /// `" … "`.
    Double,
    /// `${ … }`.
    Brace,
    /// A substitution in backticks.
    Backtick,
    /// The body of a here-document whose delimiter is not quoted.
    Document,
}

/// Words that are followed by the names of variables that they set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    Nothing,
    /// `for NAME`, `select NAME`, `printf -v NAME`.
    One,
    /// `read NAME NAME`, `mapfile NAME`.
    Many,
}

struct HereDocument {
    start: usize,
    delimiter: String,
    strips_tabs: bool,
    quoted: bool,
}

/// Reads a command, which may have several lines.
pub(super) fn scan(text: &str) -> Scan {
    let mut scanner = Scanner {
        text,
        bytes: text.as_bytes(),
        at: 0,
        stack: Vec::new(),
        documents: Vec::new(),
        naming: Naming::Nothing,
        found: Scan::default(),
    };
    scanner.run();
    scanner.found
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    stack: Vec<(Context, usize)>,
    documents: Vec<HereDocument>,
    naming: Naming,
    found: Scan,
}

impl Scanner<'_> {
    fn run(&mut self) {
        while self.at < self.bytes.len() {
            match self.context() {
                Some(Context::Double | Context::Document) => self.quoted(),
                _ => self.code(),
            }
        }
        if let Some(document) = self.documents.first() {
            self.leave_open(document.start, "here-document");
        }
        for (context, start) in std::mem::take(&mut self.stack) {
            match context {
                Context::Double => self.leave_open(start, "quotation mark"),
                Context::Paren {
                    substitution: true, ..
                } => {
                    self.leave_open(start, "command substitution");
                }
                Context::Brace => self.leave_open(start, "brace"),
                Context::Backtick => self.leave_open(start, "backtick"),
                // A lone `(` may stand in a pattern: not certain enough for an error.
                Context::Paren { .. } | Context::Document => {}
            }
        }
    }

    fn leave_open(&mut self, start: usize, what: &'static str) {
        if self.found.open.is_none() {
            self.found.open = Some((start, what));
        }
    }

    fn context(&self) -> Option<Context> {
        self.stack.last().map(|(context, _)| *context)
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// One character within double quotes or a here-document.
    fn quoted(&mut self) {
        match self.byte(self.at) {
            b'\\' => self.at += 2,
            b'"' if self.context() == Some(Context::Double) => {
                self.stack.pop();
                self.at += 1;
            }
            b'$' => self.dollar(),
            b'`' => self.backtick(),
            _ => self.at += 1,
        }
    }

    /// One character or word outside of quotes.
    fn code(&mut self) {
        let in_brace = self.context() == Some(Context::Brace);
        let in_arithmetic = matches!(
            self.context(),
            Some(Context::Paren {
                arithmetic: true,
                ..
            })
        );
        if !in_brace && !in_arithmetic && self.at_word_start() {
            self.word_start();
        }
        match self.byte(self.at) {
            b'\\' => self.at += 2,
            b'\'' if in_brace && self.stack.iter().any(|(c, _)| *c == Context::Double) => {
                self.at += 1;
            }
            b'\'' => self.single_quotes(),
            b'"' => {
                self.stack.push((Context::Double, self.at));
                self.at += 1;
            }
            b'$' => self.dollar(),
            b'`' => self.backtick(),
            b'(' => {
                let context = Context::Paren {
                    substitution: false,
                    arithmetic: in_arithmetic,
                };
                self.stack.push((context, self.at));
                self.at += 1;
            }
            b')' => {
                self.naming = Naming::Nothing;
                if matches!(self.context(), Some(Context::Paren { .. })) {
                    self.stack.pop();
                }
                self.at += 1;
            }
            b'}' if in_brace => {
                self.stack.pop();
                self.at += 1;
            }
            b'#' if !in_brace && !in_arithmetic && self.at_word_start() => self.comment(),
            b'<' if self.byte(self.at + 1) == b'<' && !in_brace && !in_arithmetic => {
                self.here_document();
            }
            b'<' | b';' | b'|' | b'&' => {
                self.naming = Naming::Nothing;
                self.at += 1;
            }
            b'\n' => {
                self.naming = Naming::Nothing;
                self.at += 1;
                self.document_bodies();
            }
            _ => self.at += 1,
        }
    }

    fn at_word_start(&self) -> bool {
        self.at == 0
            || matches!(
                self.byte(self.at - 1),
                b' ' | b'\t' | b'\n' | b';' | b'(' | b'|' | b'&' | b'`'
            )
    }

    /// Notes what the word that starts here says about variables; moves nothing but over the name.
    fn word_start(&mut self) {
        let length = name_length(self.bytes, self.at);
        let end = self.at + length;
        if length == 0 {
            if self.bytes[self.at..].starts_with(b"-v ") {
                self.naming = Naming::One;
            }
            return;
        }
        let word = &self.text[self.at..end];
        let next = self.byte(end);
        if next == b'=' || (next == b'+' && self.byte(end + 1) == b'=') || self.sets_element(end) {
            self.found.sets.insert(word.to_owned());
            return;
        }
        let ends = matches!(
            next,
            0 | b' ' | b'\t' | b'\n' | b';' | b'|' | b'&' | b')' | b'<'
        );
        if !ends {
            return;
        }
        match word {
            "for" | "select" => self.naming = Naming::One,
            "read" | "mapfile" | "readarray" => self.naming = Naming::Many,
            _ => match self.naming {
                Naming::Nothing => {}
                Naming::One => {
                    self.found.sets.insert(word.to_owned());
                    self.naming = Naming::Nothing;
                }
                Naming::Many => {
                    self.found.sets.insert(word.to_owned());
                }
            },
        }
        // The first character of the word itself is never special: a name has letters only.
    }

    /// Whether `[index]=` stands at `at`.
    fn sets_element(&self, at: usize) -> bool {
        self.byte(at) == b'['
            && self.bytes[at..]
                .iter()
                .take_while(|byte| **byte != b'\n' && **byte != b' ')
                .position(|byte| *byte == b']')
                .is_some_and(|close| self.byte(at + close + 1) == b'=')
    }

    fn single_quotes(&mut self) {
        let start = self.at;
        match self.bytes[start + 1..]
            .iter()
            .position(|byte| *byte == b'\'')
        {
            Some(length) => self.at = start + length + 2,
            None => {
                self.leave_open(start, "quotation mark");
                self.at = self.bytes.len();
            }
        }
    }

    fn backtick(&mut self) {
        if self.context() == Some(Context::Backtick) {
            self.stack.pop();
        } else {
            self.stack.push((Context::Backtick, self.at));
        }
        self.at += 1;
    }

    fn dollar(&mut self) {
        let start = self.at;
        let outside_quotes = !matches!(self.context(), Some(Context::Double | Context::Document));
        match self.byte(start + 1) {
            b'(' => {
                let arithmetic = self.byte(start + 2) == b'(';
                self.stack.push((
                    Context::Paren {
                        substitution: true,
                        arithmetic,
                    },
                    start,
                ));
                self.at += 2;
            }
            b'{' => self.brace(),
            b'\'' if outside_quotes => {
                // `$'…'` knows escapes, `'…'` does not.
                self.at += 2;
                while self.at < self.bytes.len() && self.byte(self.at) != b'\'' {
                    self.at += 1 + usize::from(self.byte(self.at) == b'\\');
                }
                if self.at >= self.bytes.len() {
                    self.leave_open(start, "quotation mark");
                }
                self.at += 1;
            }
            _ => {
                let length = name_length(self.bytes, start + 1);
                if length > 0 {
                    self.uses(start + 1, length, start);
                    self.at += 1 + length;
                } else if b"?$!#@*-0123456789".contains(&self.byte(start + 1)) {
                    self.at += 2;
                } else {
                    self.at += 1;
                }
            }
        }
    }

    /// `${NAME…}`; a use with a default (`${NAME:-…}`) is no use that needs a declaration.
    fn brace(&mut self) {
        let start = self.at;
        self.stack.push((Context::Brace, start));
        self.at += 2;
        if matches!(self.byte(self.at), b'#' | b'!') && name_length(self.bytes, self.at + 1) > 0 {
            self.at += 1;
        }
        let length = name_length(self.bytes, self.at);
        if length == 0 {
            // `${#}`, `${?}`, `${1}`: special parameters.
            if self.byte(self.at) != b'}' {
                self.at += 1;
            }
            return;
        }
        let end = self.at + length;
        let operator = self.byte(end + usize::from(self.byte(end) == b':'));
        match operator {
            b'-' | b'+' => {}
            b'=' => {
                self.found.sets.insert(self.text[self.at..end].to_owned());
            }
            _ => self.uses(self.at, length, start),
        }
        self.at = end;
    }

    fn uses(&mut self, name: usize, length: usize, at: usize) {
        self.found
            .uses
            .push((self.text[name..name + length].to_owned(), at));
    }

    fn comment(&mut self) {
        let start = self.at;
        let end = self.bytes[start..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(self.bytes.len(), |length| start + length);
        let before = &self.text[self.text[..start].rfind('\n').map_or(0, |at| at + 1)..start];
        let code = before.trim_end_matches([' ', '\t']);
        self.found.comments.push(Comment {
            start,
            end,
            blanks: before.len() - code.len(),
            alone: code.is_empty(),
        });
        self.at = end;
    }

    /// `<<WORD`, `<<-WORD`, `<<'WORD'`; the body is read when the line ends.
    fn here_document(&mut self) {
        let start = self.at;
        self.naming = Naming::Nothing;
        self.at += 2;
        if self.byte(self.at) == b'<' {
            self.at += 1; // a here-string: its word is read as any other
            return;
        }
        let strips_tabs = self.byte(self.at) == b'-';
        self.at += usize::from(strips_tabs);
        while matches!(self.byte(self.at), b' ' | b'\t') {
            self.at += 1;
        }
        let word = self.text[self.at..]
            .split([' ', '\t', '\n', ';', '|', '&', '<', '>', ')'])
            .next()
            .unwrap_or_default();
        let delimiter: String = word
            .chars()
            .filter(|c| !matches!(c, '\'' | '"' | '\\'))
            .collect();
        self.at += word.len();
        if !delimiter.is_empty() {
            let quoted = delimiter.len() != word.len();
            self.documents.push(HereDocument {
                start,
                delimiter,
                strips_tabs,
                quoted,
            });
        }
    }

    /// The bodies of the here-documents that the line before opened.
    fn document_bodies(&mut self) {
        for document in std::mem::take(&mut self.documents) {
            let body = self.at;
            let mut line_start = body;
            let end = loop {
                if line_start >= self.text.len() {
                    self.leave_open(document.start, "here-document");
                    break self.text.len();
                }
                let line = self.text[line_start..]
                    .split('\n')
                    .next()
                    .unwrap_or_default();
                let judged = if document.strips_tabs {
                    line.trim_start_matches('\t')
                } else {
                    line
                };
                if judged == document.delimiter {
                    self.at = line_start + line.len();
                    break line_start;
                }
                line_start += line.len() + 1;
                self.at = line_start.min(self.text.len());
            };
            if !document.quoted {
                let mut inner = Scanner {
                    text: &self.text[..end],
                    bytes: &self.bytes[..end],
                    at: body,
                    stack: vec![(Context::Document, body)],
                    documents: Vec::new(),
                    naming: Naming::Nothing,
                    found: Scan::default(),
                };
                inner.run();
                self.found.uses.append(&mut inner.found.uses);
                self.found.sets.append(&mut inner.found.sets);
            }
        }
    }
}

/// Length in bytes of the name that starts at `at`; 0 when none does.
fn name_length(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    if !rest
        .first()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
    {
        return 0;
    }
    rest.iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(text: &str) -> Vec<String> {
        scan(text).uses.into_iter().map(|(name, _)| name).collect()
    }

    fn sets(text: &str) -> Vec<String> {
        scan(text).sets.into_iter().collect()
    }

    #[test]
    fn variables_are_found_where_the_shell_would_expand_them() {
        assert_eq!(
            uses(r#"echo $A "${B}" "x$(cat "$C" '$no')" ${D%.tar} ${#E} ${F[@]}"#),
            ["A", "B", "C", "D", "E", "F"]
        );
        assert_eq!(
            uses(r"awk '{print $NF}' \$no $? $$ $1 ${1} ${#} $'it\'s $no'"),
            [""; 0]
        );
        assert_eq!(uses("echo ${A:-x} ${B-$C} ${D:+y}"), ["C"]);
        assert_eq!(uses("echo `cat $A` $((16#ff + $B)) # $no"), ["A", "B"]);
        assert_eq!(
            uses("cat <<EOF\n\"$A\" 'it's $B\nEOF\necho $C"),
            ["A", "B", "C"]
        );
        assert_eq!(uses("cat <<'EOF'\n$no\nEOF\necho $C"), ["C"]);
        assert_eq!(uses("cat <<-EOF | tee $A\n\t$B\n\tEOF"), ["A", "B"]);
        assert_eq!(uses("grep -c $A <<<\"$B\""), ["A", "B"]);
    }

    #[test]
    fn variables_are_set_by_assignment_and_by_the_words_that_name_them() {
        assert_eq!(sets("A=1; export B=$(date) && C+=x"), ["A", "B", "C"]);
        assert_eq!(
            sets("for i in 1 2; do read -r x y < f; done"),
            ["i", "x", "y"]
        );
        assert_eq!(
            sets("printf -v T '%s' x; L[0]=1; : ${D:=4}"),
            ["D", "L", "T"]
        );
        assert_eq!(
            sets("echo a=1 --b=2 'c=3' \"d=4\""),
            ["a"],
            "lenient: a word that assigns"
        );
    }

    #[test]
    fn comments_begin_at_the_start_of_a_word_outside_of_quotes() {
        let text = "echo '# no' \"# no\" a#no ${x#no}  # until it answers";
        let found = scan(text);
        assert_eq!(found.comments.len(), 1);
        assert_eq!(&text[found.comments[0].start..], "# until it answers");
        assert_eq!(found.comments[0].blanks, 2);
        assert!(scan("cat <<E\n# no\nE").comments.is_empty());
        assert!(scan("for x in 1\n  # why\ndo :; done").comments[0].alone);
    }

    #[test]
    fn what_is_never_closed_is_noticed_and_what_is_complete_is_not() {
        let open = |text| scan(text).open.map(|(_, what)| what);
        assert_eq!(open("echo \"a"), Some("quotation mark"));
        assert_eq!(open("echo 'a"), Some("quotation mark"));
        assert_eq!(open("echo $(date"), Some("command substitution"));
        assert_eq!(open("cat <<EOF\nx"), Some("here-document"));
        assert_eq!(open("cat <<EOF"), Some("here-document"));
        assert_eq!(open("cat <<EOF\nx\nEOF"), None);
        assert_eq!(open("case $x in a) echo 1;; (b) echo 2;; esac"), None);
        assert_eq!(
            open("x=$(case y in a) echo;; esac); echo $((1 << 2)) \"it's\""),
            None
        );
        assert_eq!(open("echo \\\" \\'"), None);
    }
}
