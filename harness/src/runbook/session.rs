//! One `bash` that runs the commands of a runbook, and the protocol spoken with it.
//!
//! The protocol works over any pair of byte streams ([`BashSession`]), so that a local child
//! process and the streams of a container's `exec` are driven by the same code. Every command is
//! sent as one `eval` of a quoted string, hence a command that is incomplete or reads its standard
//! input cannot swallow what follows; after it the session prints a mark with the exit code. The
//! mark carries a nonce, and its two halves are joined only when it is printed, so that neither
//! `set -x` nor `set -v` nor a listing of functions can show a mark that is none.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::hints::spoken;

/// The program and arguments whose standard streams a [`BashSession`] expects: no start-up files,
/// because a runbook must not depend on what one machine has in them.
pub const BASH: &[&str] = &["bash", "--noprofile", "--norc"];

/// Most bytes of one command's output that are kept: the first and the last half of it. A command
/// that prints without end must not take the memory of the harness.
pub const KEPT_OUTPUT: usize = 16 << 20;

/// How long a started `bash` may take to answer, also on a busy machine.
const GREETING_LIMIT: Duration = Duration::from_secs(20);
/// How long the processes of a command that timed out may take to clean up after `SIGTERM`: a
/// script that stopped a service must have time to start it again.
const GRACE: Duration = Duration::from_secs(5);
/// How long sending one signal may take.
const SIGNAL_LIMIT: Duration = Duration::from_secs(5);

/// Starts sessions at one place: this machine, a container.
#[async_trait]
pub trait Shell: Send + Sync {
    /// A new session, ready for its first command.
    ///
    /// # Errors
    ///
    /// [`SessionError::Lost`] when no `bash` could be started or it never answered.
    async fn start(&self) -> Result<Box<dyn Session>, SessionError>;
}

/// One `bash`; its variables, its functions and its working directory persist between commands.
#[async_trait]
pub trait Session: Send {
    /// Runs `command`, which may have several lines, and returns when it has ended.
    ///
    /// # Errors
    ///
    /// See [`SessionError`]; after any error but [`SessionError::Unsendable`] the session is over.
    async fn run(&mut self, command: &str, limit: Duration) -> Result<Answer, SessionError>;

    /// Ends the session and gives its `EXIT` traps up to `limit` to run. A session that is dropped
    /// without this is ended too, but nobody waits for it.
    async fn close(&mut self, limit: Duration);
}

/// What a command that ran to its end left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Exit code; 128 + N for a command killed by signal N, as `$?` says it.
    pub exit: i32,
    /// Standard output and standard error in the order in which they were written, exactly as
    /// written, but for bytes that are no UTF-8 (replaced by U+FFFD) and for the middle of an
    /// output of more than [`KEPT_OUTPUT`] bytes.
    pub output: String,
}

/// Why a command has no [`Answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionError {
    /// The command ran for longer than its limit. Its processes were terminated, and the session
    /// with them. What it did until then is not undone.
    TimedOut {
        /// The limit.
        limit: Duration,
        /// What it had printed until then.
        output: String,
    },
    /// The command ended the shell itself (`exit`, or a failure under `set -e`).
    Ended {
        /// The exit code of the shell.
        exit: i32,
        /// What it had printed until then.
        output: String,
    },
    /// The session is gone for another reason: the stream ended, the container stopped, an earlier
    /// command timed out. Whether the command took effect is not known.
    Lost {
        /// What happened.
        why: String,
        /// What the command had printed until then.
        output: String,
    },
    /// The command holds a NUL byte, which no command line can carry; it was not sent.
    Unsendable,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { limit, .. } => {
                write!(f, "the command had not ended after {}", spoken(*limit))
            }
            Self::Ended { exit, .. } => {
                write!(
                    f,
                    "the command ended the shell session with exit code {exit}"
                )
            }
            Self::Lost { why, .. } => write!(f, "the shell session was lost: {why}"),
            Self::Unsendable => f.write_str("the command holds a NUL byte"),
        }
    }
}

impl std::error::Error for SessionError {}

/// A signal that a [`Terminator`] is asked to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `SIGTERM`: scripts run their traps.
    Term,
    /// `SIGKILL`.
    Kill,
}

/// The `bash` of a session, as it is numbered where it runs: in a container these are not the
/// process ids that the machine outside knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BashProcess {
    /// Process id (`$$`).
    pub id: u32,
    /// Id of its process group, from `/proc/$$/stat`; 0 when it is unknown.
    pub group: u32,
}

impl BashProcess {
    /// The shell command that sends `signal` to the session and all that it runs; to be run where
    /// the session runs. Falls back to the `bash` alone when it does not lead its process group:
    /// the group then holds processes of others.
    pub fn kill_command(&self, signal: Signal) -> String {
        let name = match signal {
            Signal::Term => "TERM",
            Signal::Kill => "KILL",
        };
        if self.id == 0 {
            // `kill -- -0` would signal the group of whoever runs it.
            ":".to_owned()
        } else if self.group == self.id {
            format!("kill -s {name} -- -{}", self.id)
        } else {
            format!("kill -s {name} -- {}", self.id)
        }
    }
}

/// Sends signals to the processes of a session when one of its commands runs for too long.
#[async_trait]
pub trait Terminator: Send {
    /// Sends `signal`; see [`BashProcess::kill_command`]. A failure is not reported: there is
    /// nothing that the session could do about it, and it is over in any case.
    async fn send(&mut self, process: BashProcess, signal: Signal);
}

/// `text` as one word of the shell, whatever it holds.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,=@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A [`Session`] over the standard streams of a `bash` that somebody else started (see [`BASH`]):
/// `R` reads its standard output, `W` writes its standard input. Standard error of the commands is
/// merged into standard output within the session, so its own stream may be discarded.
pub struct BashSession<R, W> {
    reader: R,
    writer: W,
    terminator: Box<dyn Terminator>,
    process: BashProcess,
    nonce: [String; 2],
    sequence: u64,
    last_exit: i32,
    collected: Collected,
    /// Why no further command can run. Set while a command runs, so that a caller who abandons it
    /// (drops the future) cannot take its answer for the answer of the next one.
    over: Option<String>,
}

impl<R, W> BashSession<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    /// Prepares the `bash` at the other end and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`SessionError::Lost`] with what the other end printed, when it did not answer within 20 s
    /// or ended.
    pub async fn open(
        reader: R,
        writer: W,
        terminator: Box<dyn Terminator>,
    ) -> Result<Self, SessionError> {
        let mut session = Self {
            reader,
            writer,
            terminator,
            process: BashProcess { id: 0, group: 0 },
            nonce: [nonce(), nonce()],
            sequence: 0,
            last_exit: 0,
            collected: Collected::default(),
            over: None,
        };
        match timeout(GREETING_LIMIT, session.greet()).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(why)) => Err(SessionError::Lost {
                why,
                output: session.collected.take_text(),
            }),
            Err(_) => Err(SessionError::Lost {
                why: format!("`bash` did not answer within {}", spoken(GREETING_LIMIT)),
                output: session.collected.take_text(),
            }),
        }
    }

    /// The `bash` at the other end.
    pub fn process(&self) -> BashProcess {
        self.process
    }

    async fn greet(&mut self) -> Result<(), String> {
        // File descriptor 199 keeps the marks apart from redirections of the session; commands
        // do not inherit it. When a command exits the shell, the descriptor is closed in the trap.
        let [left, right] = &self.nonce;
        let prelude = format!(
            "exec 2>&1 199>&1\n\
             set -o pipefail\n\
             __runbook_mark() {{ \
             builtin printf '\\036%s%s %s\\n' {left} {right} \"$*\" >&199 || \
             builtin printf '\\036%s%s %s\\n' {left} {right} \"$*\"; }} 2>/dev/null\n\
             __runbook_was() {{ return \"$1\"; }}\n\
             trap '__runbook_mark ended 0 \"$?\"' EXIT\n\
             read -r _ _ _ _ __runbook_group _ 2>/dev/null </proc/$$/stat\n\
             __runbook_mark ready \"$$\" \"${{__runbook_group:-0}}\"\n\
             unset __runbook_group\n"
        );
        self.send(&prelude).await?;
        match self.next_mark().await? {
            Mark::Ready(process) => {
                self.process = process;
                self.collected = Collected::default();
                Ok(())
            }
            Mark::Done { .. } | Mark::Ended { .. } => Err("`bash` ended".to_owned()),
        }
    }

    async fn send(&mut self, script: &str) -> Result<(), String> {
        let sent = async {
            self.writer.write_all(script.as_bytes()).await?;
            self.writer.flush().await
        };
        sent.await
            .map_err(|error| format!("`bash` does not read commands any more ({error})"))
    }

    /// Sends one command and waits for its end.
    async fn exchange(&mut self, command: &str) -> Result<Mark, String> {
        self.sequence += 1;
        // `$?` is what the command before left, as it would be at a prompt. The braces keep a
        // trace (`set -x`) of the protocol out of the output. The empty line before them is for bash
        // 5.2: after an `eval` of an unclosed quotation it takes a `{` at once for a plain word.
        let script = format!(
            "\n{{ __runbook_was {}; }} 2>/dev/null; eval '{}' </dev/null 199>&-; \
             {{ __runbook_mark done {} \"$?\"; }} 2>/dev/null\n",
            self.last_exit,
            command.replace('\'', r"'\''"),
            self.sequence
        );
        self.send(&script).await?;
        loop {
            match self.next_mark().await? {
                Mark::Done { sequence, .. } if sequence != self.sequence => {}
                mark => return Ok(mark),
            }
        }
    }

    /// Reads until the next mark; what stands before it is in `collected`. Losing the future loses
    /// nothing that was read.
    async fn next_mark(&mut self) -> Result<Mark, String> {
        let prefix = [
            b"\x1e",
            self.nonce[0].as_bytes(),
            self.nonce[1].as_bytes(),
            b" ",
        ]
        .concat();
        loop {
            if let Some(line) = self.collected.take_mark(&prefix) {
                match Mark::parse(&line) {
                    Some(mark) => return Ok(mark),
                    None => return Err(format!("`bash` sent the mark `{line}`, which is unknown")),
                }
            }
            let mut chunk = [0; 16 << 10];
            match self.reader.read(&mut chunk).await {
                Ok(0) => return Err("the stream of the `bash` ended without an exit code".into()),
                Ok(length) => self.collected.push(&chunk[..length]),
                Err(error) => return Err(format!("reading from the `bash` failed ({error})")),
            }
        }
    }

    /// Ends whatever the session runs; returns when the stream has ended, or after the grace time.
    async fn terminate(&mut self) {
        for signal in [Signal::Term, Signal::Kill] {
            let _ = timeout(SIGNAL_LIMIT, self.terminator.send(self.process, signal)).await;
            if timeout(GRACE, self.drain()).await.is_ok() {
                // Killed even so: a process may have closed its output and run on.
                let kill = self.terminator.send(self.process, Signal::Kill);
                let _ = timeout(SIGNAL_LIMIT, kill).await;
                return;
            }
        }
    }

    /// Reads to the end of the stream.
    async fn drain(&mut self) {
        while self.next_mark().await.is_ok() {}
    }
}

#[async_trait]
impl<R, W> Session for BashSession<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    async fn run(&mut self, command: &str, limit: Duration) -> Result<Answer, SessionError> {
        if command.contains('\0') {
            return Err(SessionError::Unsendable);
        }
        if let Some(why) = &self.over {
            return Err(SessionError::Lost {
                why: why.clone(),
                output: String::new(),
            });
        }
        self.over = Some("an earlier command was abandoned while it ran".to_owned());
        let ended = timeout(limit, self.exchange(command)).await;
        match ended {
            Ok(Ok(Mark::Done { exit, .. })) => {
                self.over = None;
                self.last_exit = exit;
                Ok(Answer {
                    exit,
                    output: self.collected.take_text(),
                })
            }
            Ok(Ok(Mark::Ended { exit })) => {
                self.over = Some(format!("an earlier command ended it with exit code {exit}"));
                Err(SessionError::Ended {
                    exit,
                    output: self.collected.take_text(),
                })
            }
            Ok(Ok(Mark::Ready(_))) => {
                let why = "`bash` started anew in the middle of a session".to_owned();
                self.over = Some(why.clone());
                Err(SessionError::Lost {
                    why,
                    output: self.collected.take_text(),
                })
            }
            Ok(Err(why)) => {
                self.over = Some(why.clone());
                Err(SessionError::Lost {
                    why,
                    output: self.collected.take_text(),
                })
            }
            Err(_) => {
                self.over = Some("an earlier command timed out".to_owned());
                self.terminate().await;
                Err(SessionError::TimedOut {
                    limit,
                    output: self.collected.take_text(),
                })
            }
        }
    }

    async fn close(&mut self, limit: Duration) {
        if self.over.is_some() {
            return;
        }
        self.over = Some("it was closed".to_owned());
        let farewell = async {
            // Returns at the mark of the `EXIT` trap, or at the end of the stream when a command
            // has replaced that trap. Waiting for the end alone would wait for whatever the
            // runbook left running in the background.
            if self.send("exit 0\n").await.is_ok() {
                let _ = self.next_mark().await;
            }
        };
        let _ = timeout(limit, farewell).await;
    }
}

/// A line that only the session itself prints.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    Ready(BashProcess),
    Done { sequence: u64, exit: i32 },
    Ended { exit: i32 },
}

impl Mark {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (kind, first, second) = (words.next()?, words.next()?, words.next()?);
        match kind {
            "ready" => {
                let (id, group) = (first.parse().ok()?, second.parse().ok()?);
                Some(Self::Ready(BashProcess { id, group }))
            }
            "done" => Some(Self::Done {
                sequence: first.parse().ok()?,
                exit: second.parse().ok()?,
            }),
            "ended" => Some(Self::Ended {
                exit: second.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// The output of the command that runs.
#[derive(Default)]
struct Collected {
    /// The first half of a long output.
    head: Vec<u8>,
    /// Bytes left out after `head`.
    omitted: usize,
    /// The latest output, and all of it while it is short.
    tail: Vec<u8>,
    /// Up to here `tail` holds no mark.
    searched: usize,
}

impl Collected {
    const HALF: usize = KEPT_OUTPUT / 2;

    fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Cuts out the first mark and returns what follows its prefix, without the newline. Output
    /// that came after the mark stays and belongs to the next command.
    fn take_mark(&mut self, prefix: &[u8]) -> Option<String> {
        let found = find(&self.tail[self.searched..], prefix).map(|at| self.searched + at);
        let Some(start) = found else {
            self.searched = self.tail.len().saturating_sub(prefix.len() - 1);
            self.shrink();
            return None;
        };
        self.searched = start;
        let text = start + prefix.len();
        let length = find(&self.tail[text..], b"\n")?;
        let line = String::from_utf8_lossy(&self.tail[text..text + length]).into_owned();
        self.tail.drain(start..=text + length);
        Some(line)
    }

    /// Drops the middle of a long output; only bytes that were searched for marks are touched.
    fn shrink(&mut self) {
        if self.head.is_empty() && self.searched > Self::HALF {
            let rest = self.tail.split_off(Self::HALF);
            self.head = std::mem::replace(&mut self.tail, rest);
            self.searched -= Self::HALF;
        }
        // Twice the size before it is halved, so that not every chunk moves megabytes.
        if !self.head.is_empty() && self.searched > 2 * Self::HALF {
            let surplus = self.searched - Self::HALF;
            self.tail.drain(..surplus);
            self.omitted += surplus;
            self.searched -= surplus;
        }
    }

    fn take_text(&mut self) -> String {
        let Self {
            head,
            omitted,
            tail,
            ..
        } = std::mem::take(self);
        if omitted == 0 {
            return String::from_utf8_lossy(&[head, tail].concat()).into_owned();
        }
        format!(
            "{}\n[{omitted} bytes left out]\n{}",
            String::from_utf8_lossy(&head),
            String::from_utf8_lossy(&tail)
        )
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == first) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// 16 hexadecimal digits that no output holds by chance; std's hash keys are random per thread and
/// differ from call to call.
pub(crate) fn nonce() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Sessions on this machine, as the user who runs the harness: for tests, and for runbooks that are
/// followed where they are written. It inherits the environment.
#[derive(Debug, Clone, Default)]
pub struct LocalShell {
    directory: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl LocalShell {
    /// Sessions in the working directory of this process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sessions begin in `directory`.
    #[must_use]
    pub fn in_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sessions have the variable `name` in their environment.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

#[async_trait]
impl Shell for LocalShell {
    async fn start(&self) -> Result<Box<dyn Session>, SessionError> {
        let mut command = tokio::process::Command::new(BASH[0]);
        command
            .args(&BASH[1..])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let lost = |why: String| SessionError::Lost {
            why,
            output: String::new(),
        };
        let mut child = command
            .spawn()
            .map_err(|error| lost(format!("starting `bash` failed ({error})")))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(lost("`bash` was started without its pipes".to_owned()));
        };
        let bash = BashSession::open(stdout, stdin, Box::new(LocalTerminator)).await?;
        Ok(Box::new(LocalSession { bash, child }))
    }
}

struct LocalTerminator;

#[async_trait]
impl Terminator for LocalTerminator {
    async fn send(&mut self, process: BashProcess, signal: Signal) {
        let _ = tokio::process::Command::new(BASH[0])
            .args(["-c", &process.kill_command(signal)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await;
    }
}

struct LocalSession {
    bash: BashSession<ChildStdout, ChildStdin>,
    /// Held unreaped, so that its process id, and with it the id of the process group, cannot be
    /// given to anybody else before the drop below has signalled it.
    child: Child,
}

#[async_trait]
impl Session for LocalSession {
    async fn run(&mut self, command: &str, limit: Duration) -> Result<Answer, SessionError> {
        self.bash.run(command, limit).await
    }

    async fn close(&mut self, limit: Duration) {
        self.bash.close(limit).await;
    }
}

impl Drop for LocalSession {
    fn drop(&mut self) {
        if self.child.id() == Some(self.bash.process.id) {
            let _ = std::process::Command::new(BASH[0])
                .args(["-c", &self.bash.process.kill_command(Signal::Kill)])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &[u8] = b"\x1enonce ";

    #[test]
    fn a_mark_is_found_wherever_the_chunks_break() {
        let stream = b"output\x1e not a mark\x1enonce done 1 7\nlate";
        for cut in 0..stream.len() {
            let mut collected = Collected::default();
            collected.push(&stream[..cut]);
            let early = collected.take_mark(PREFIX);
            collected.push(&stream[cut..]);
            let mark = early
                .or_else(|| collected.take_mark(PREFIX))
                .expect("a mark");
            assert_eq!(mark, "done 1 7");
            assert_eq!(collected.take_text(), "output\x1e not a marklate");
        }
    }

    #[test]
    fn an_endless_output_is_kept_from_both_ends_within_its_bound() {
        let mut collected = Collected::default();
        for number in 0..40 {
            let mut chunk = vec![b'x'; 1 << 20];
            chunk[0] = b'A' + number % 26;
            collected.push(&chunk);
            assert_eq!(collected.take_mark(PREFIX), None);
            assert!(collected.head.len() + collected.tail.len() < 2 * KEPT_OUTPUT);
        }
        collected.push(b"end\x1enonce done 1 0\n");
        assert_eq!(collected.take_mark(PREFIX).as_deref(), Some("done 1 0"));
        let text = collected.take_text();
        assert!(text.starts_with('A') && text.ends_with("end"));
        assert!(text.contains("bytes left out]"));
    }

    #[test]
    fn a_group_that_is_not_its_own_is_never_signalled() {
        let own = BashProcess { id: 41, group: 41 };
        assert_eq!(own.kill_command(Signal::Kill), "kill -s KILL -- -41");
        let foreign = BashProcess { id: 41, group: 7 };
        assert_eq!(foreign.kill_command(Signal::Term), "kill -s TERM -- 41");
        let unknown = BashProcess { id: 0, group: 0 };
        assert_eq!(unknown.kill_command(Signal::Kill), ":");
    }

    #[test]
    fn quoting_keeps_plain_words_readable_and_others_whole() {
        assert_eq!(quote("timmy.foundation"), "timmy.foundation");
        assert_eq!(quote("it's $5"), r"'it'\''s $5'");
        assert_eq!(quote(""), "''");
    }
}
