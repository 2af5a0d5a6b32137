//! The faults that can be asked for, and where they are asked for.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::parent_of;

/// What each knob does, as `--standin-help` prints it.
pub const HELP: &str = "\
Knobs, one a line or separated by `;`, `#` begins a comment:
  exit-at-start=CODE    exit with CODE before anything is touched
  exit-after-open=CODE  exit with CODE after the database was opened (and migrated)
  start-late=SECONDS    open the database, then listen only after SECONDS
  db-version=N          migrate the database to version N; refuse (101) a newer one (default 18)
  lose-identity         make a new signing key at each start
  version=X             print `conduit X` for --version
  bad-version=TEXT      print TEXT for --version
  rotate-every=N        start a new .log, and turn the old one into an .sst, after N records (default 8)
Read again for each request and signal:
  answer-500            answer everything with 500
  hang                  take requests and never answer
  ignore-sigterm        do not stop on SIGTERM and SIGINT
  stop-late=SECONDS     stop only after SECONDS
Read from, later ones winning: the end of the executable (--standin-bake), `standin.knobs` beside the
executable, `standin.knobs` beside the configuration file, the environment variable STANDIN_KNOBS.
A switch can be taken back with `=false`.
";

/// Name of a knob file.
const FILE_NAME: &str = "standin.knobs";
/// Environment variable with knobs.
const VARIABLE: &str = "STANDIN_KNOBS";
/// Around knobs at the end of an executable. An ELF loader ignores what follows the last section.
const BAKED_BEGIN: &str = "\n#standin.knobs begin\n";
const BAKED_END: &str = "\n#standin.knobs end\n";
/// How much of the executable's end is looked at, bytes. Far more than any knob text needs.
const BAKED_MOST: u64 = 4096;

/// How this process is to misbehave. [`HELP`] says what each does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Knobs {
    pub exit_at_start: Option<i32>,
    pub exit_after_open: Option<i32>,
    pub start_late: Duration,
    pub stop_late: Duration,
    pub db_version: Option<u64>,
    pub rotate_every: Option<u64>,
    pub lose_identity: bool,
    pub answer_500: bool,
    pub hang: bool,
    pub ignore_sigterm: bool,
    version: Option<String>,
    bad_version: Option<String>,
    /// The entries as they were given, for the journal.
    given: Vec<String>,
}

impl Knobs {
    /// Adds the knobs in `text`, which came from `origin`.
    ///
    /// # Errors
    ///
    /// An unknown knob or a value that does not fit: a typing error must not turn a fault test into a test of nothing.
    pub fn apply(&mut self, text: &str, origin: &str) -> Result<(), String> {
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default());
        for entry in lines
            .flat_map(|line| line.split(';'))
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
        {
            let (name, value) = entry
                .split_once('=')
                .map_or((entry, None), |(name, value)| (name, Some(value)));
            let wrong = || format!("knob `{entry}` from {origin} has no usable value");
            match name.trim() {
                "exit-at-start" => self.exit_at_start = Some(number(value).ok_or_else(wrong)?),
                "exit-after-open" => self.exit_after_open = Some(number(value).ok_or_else(wrong)?),
                "start-late" => self.start_late = seconds(value).ok_or_else(wrong)?,
                "stop-late" => self.stop_late = seconds(value).ok_or_else(wrong)?,
                "db-version" => self.db_version = Some(number(value).ok_or_else(wrong)?),
                "rotate-every" => {
                    let every = number(value).filter(|every| *every > 0);
                    self.rotate_every = Some(every.ok_or_else(wrong)?);
                }
                "version" => self.version = Some(value.ok_or_else(wrong)?.trim().to_owned()),
                "bad-version" => {
                    self.bad_version = Some(value.ok_or_else(wrong)?.trim().to_owned())
                }
                "lose-identity" => self.lose_identity = switch(value).ok_or_else(wrong)?,
                "answer-500" => self.answer_500 = switch(value).ok_or_else(wrong)?,
                "hang" => self.hang = switch(value).ok_or_else(wrong)?,
                "ignore-sigterm" => self.ignore_sigterm = switch(value).ok_or_else(wrong)?,
                unknown => return Err(format!("unknown knob `{unknown}` from {origin}")),
            }
            self.given.push(entry.to_owned());
        }
        Ok(())
    }

    /// What `--version` prints.
    pub fn version_line(&self, pinned: &str) -> String {
        self.bad_version
            .clone()
            .unwrap_or_else(|| format!("conduit {}", self.version_number(pinned)))
    }

    /// The version that the server reports about itself.
    pub fn version_number(&self, pinned: &str) -> String {
        self.version.clone().unwrap_or_else(|| pinned.to_owned())
    }
}

impl fmt::Display for Knobs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.given.is_empty() {
            return formatter.write_str("none");
        }
        formatter.write_str(&self.given.join("; "))
    }
}

fn number<N: std::str::FromStr>(value: Option<&str>) -> Option<N> {
    value?.trim().parse().ok()
}

fn seconds(value: Option<&str>) -> Option<Duration> {
    Duration::try_from_secs_f64(number(value)?).ok()
}

fn switch(value: Option<&str>) -> Option<bool> {
    value.map_or(Some(true), |value| value.trim().parse().ok())
}

/// Where the knobs of this process come from.
#[derive(Debug)]
pub struct Sources {
    baked: String,
    files: Vec<PathBuf>,
    environment: String,
}

impl Sources {
    /// Finds the sources of this process; `config_path` is the value of `CONDUIT_CONFIG`.
    ///
    /// # Errors
    ///
    /// The executable cannot be found or read.
    pub fn find(config_path: Option<&str>) -> Result<Self, String> {
        let executable = std::env::current_exe()
            .map_err(|error| format!("cannot find the executable: {error}"))?;
        let baked = read_baked(&executable)
            .map_err(|error| format!("cannot read the end of `{}`: {error}", executable.display()))?
            .unwrap_or_default();
        let mut files = vec![parent_of(&executable).join(FILE_NAME)];
        if let Some(config) = config_path.filter(|path| !path.is_empty()) {
            files.push(parent_of(Path::new(config)).join(FILE_NAME));
        }
        let environment = std::env::var(VARIABLE).unwrap_or_default();
        Ok(Self {
            baked,
            files,
            environment,
        })
    }

    /// Reads all of them as they are now.
    ///
    /// # Errors
    ///
    /// A knob file that exists but cannot be read or understood.
    pub fn load(&self) -> Result<Knobs, String> {
        let mut knobs = Knobs::default();
        knobs.apply(&self.baked, "the executable")?;
        for file in &self.files {
            match fs::read_to_string(file) {
                Ok(text) => knobs.apply(&text, &format!("`{}`", file.display()))?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(format!("cannot read `{}`: {error}", file.display())),
            }
        }
        knobs.apply(&self.environment, &format!("`{VARIABLE}`"))?;
        Ok(knobs)
    }
}

/// Writes a copy of this executable, without the knobs that it has built in, to `out`, with `text` built in.
///
/// # Errors
///
/// What the file system answers.
pub fn bake(out: &Path, text: &str) -> io::Result<()> {
    let executable = std::env::current_exe()?;
    let mut bytes = fs::read(&executable)?;
    if let Some(old) = read_baked(&executable)? {
        bytes.truncate(bytes.len() - BAKED_BEGIN.len() - old.len() - BAKED_END.len());
    }
    bytes.extend_from_slice(BAKED_BEGIN.as_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(BAKED_END.as_bytes());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(out)?;
    file.write_all(&bytes)
}

/// The knobs at the end of `executable`, if it has any.
fn read_baked(executable: &Path) -> io::Result<Option<String>> {
    let mut file = fs::File::open(executable)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BAKED_MOST)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    // The markers are text, so cutting a multi-byte character of the binary part at the front does no harm.
    let tail = String::from_utf8_lossy(&tail);
    let Some(body) = tail.strip_suffix(BAKED_END) else {
        return Ok(None);
    };
    Ok(body
        .rfind(BAKED_BEGIN)
        .map(|at| body[at + BAKED_BEGIN.len()..].to_owned()))
}
