//! A data directory with the shape, the habits and the weaknesses of RocksDB's.
//!
//! What the scripts rely on and may be wrong about is kept (judged-design F6-F8, conduit-facts 2.2-2.12):
//!
//! - `CURRENT` names the live `MANIFEST-NNNNNN`, which names the live `NNNNNN.sst` and the first live `NNNNNN.log`;
//!   `IDENTITY`, `OPTIONS-NNNNNN`, `LOG`, `LOG.old.*` and `LOCK` lie beside them, and `media/xx/yy/<60 hex>`.
//! - An `.sst` never changes once the manifest names it; `.log` and `MANIFEST` are appended in place. After a clean stop
//!   the newest records lie in a `.log` alone.
//! - The lock is a POSIX record lock, `fcntl(F_SETLK)`, as RocksDB's. `flock(1)` does **not** see it.
//! - A torn record at the end of a `.log` is dropped without a word; a missing or shortened `.sst` stops the start; a
//!   changed byte in an `.sst` is noticed only by who reads it.
//! - Without `CURRENT` a new database is made **and the files of the old one are purged**.
//! - A signing key that cannot be read is deleted and the start fails with 1; the next start makes a new key.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::fs::{FlockOperation, fcntl_lock};
use sha2::{Digest as _, Sha256};

use crate::{
    knobs::Knobs,
    settings::{Refusal, Settings},
};

/// Version of Conduit 0.10.12's database (src/database/mod.rs:462).
const DB_VERSION: u64 = 18;
/// Records in a `.log` before it becomes an `.sst`. Small, so that a short test sees both kinds of files move.
const ROTATE_EVERY: u64 = 8;

/// A key in the shape of an ed25519 signing key's public half. Random bytes: nothing is ever signed with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `ed25519:` and eight letters or digits.
    pub id: String,
    /// 32 bytes as unpadded base64.
    pub public: String,
}

impl Key {
    fn random() -> io::Result<Self> {
        let bytes = random::<40>()?;
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789ab";
        let version: String = bytes[32..]
            .iter()
            .map(|byte| char::from(LETTERS[usize::from(byte % 64)]))
            .collect();
        Ok(Self {
            id: format!("ed25519:{version}"),
            public: base64(&bytes[..32]),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (id, public) = text.split_once(' ')?;
        let whole = id
            .strip_prefix("ed25519:")
            .is_some_and(|version| version.len() == 8)
            && public.len() == 43;
        whole.then(|| Self {
            id: id.to_owned(),
            public: public.to_owned(),
        })
    }
}

/// Everything that the files of a data directory say.
#[derive(Debug, Default)]
pub struct Image {
    /// Name that the database was made for.
    pub server_name: Option<String>,
    /// Version of the database.
    pub version: u64,
    /// The signing key, `None` when it was deleted or never made.
    pub key: Option<Key>,
    /// Whether the key was deleted on purpose, after which a new one is made.
    key_deleted: bool,
    /// What `POST /standin/write` stored: sequence number and text.
    pub records: Vec<(u64, String)>,
    /// SHA-256, in hex, of every media file that the database knows.
    pub media: Vec<String>,
    /// What could not be read, for a person.
    pub corruptions: Vec<String>,
}

impl Image {
    fn apply(&mut self, payload: &str) -> bool {
        let (kind, data) = payload.split_once(' ').unwrap_or((payload, ""));
        match kind {
            "version" => data.parse().map(|version| self.version = version).is_ok(),
            "name" => {
                self.server_name = Some(data.to_owned());
                true
            }
            "key" => {
                self.key = Key::parse(data);
                self.key_deleted = false;
                self.key.is_some()
            }
            "nokey" => {
                self.key = None;
                self.key_deleted = true;
                true
            }
            "media" => {
                self.media.push(data.to_owned());
                data.len() == 64
            }
            "record" => data
                .split_once(' ')
                .and_then(|(sequence, hex)| Some((sequence.parse().ok()?, unhex(hex)?)))
                .is_some_and(|record| {
                    self.records.push(record);
                    true
                }),
            _ => false,
        }
    }
}

/// What the manifest says is alive.
#[derive(Debug, Default)]
struct Live {
    /// Number and size in bytes of each `.sst`.
    tables: Vec<(u64, u64)>,
    /// Number of the first `.log` that counts.
    first_log: u64,
}

/// An open data directory, held by its lock.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    _lock: File,
    manifest: File,
    log: File,
    log_number: u64,
    /// Lines of the current `.log`, which become the next `.sst`.
    pending: String,
    pending_count: u64,
    next_number: u64,
    next_sequence: u64,
    rotate_every: u64,
    key: Key,
}

impl Store {
    /// Opens the data directory, making it when `CURRENT` is missing, and migrates it.
    ///
    /// # Errors
    ///
    /// As Conduit: locked by another process, corrupted, made for another server name: 1. Newer than this binary: 101.
    pub fn open(settings: &Settings, knobs: &Knobs) -> Result<Self, Refusal> {
        let directory = settings.database_path.clone();
        let failed = |operation: &str| {
            let operation = format!("IO error: While {operation} in {}", directory.display());
            move |error: io::Error| Refusal::checked(format!("{operation}: {error}"))
        };
        fs::create_dir_all(&directory).map_err(failed("creating the directory"))?;
        let lock = lock(&directory)?;
        begin_log_file(&directory).map_err(failed("writing LOG"))?;

        let fresh = !directory.join("CURRENT").exists();
        let mut next_number = 1 + highest_number(&directory).map_err(failed("listing files"))?;
        let (image, live, recovered) = if fresh {
            // RocksDB deletes, when it opens, each numbered file that the manifest does not name; in a new database
            // that is every one that an incomplete restore left.
            purge(&directory, |_| true).map_err(failed("deleting obsolete files"))?;
            (Image::default(), Live::default(), String::new())
        } else {
            read(&directory)
                .map_err(|message| Refusal::checked(format!("Corruption: {message}")))?
        };

        let newest = knobs.db_version.unwrap_or(DB_VERSION);
        if image.version > newest {
            return Err(Refusal {
                code: 101,
                message: format!(
                    "thread 'main' panicked: assertion `left == right` failed: database version\n  left: {}\n right: {newest}",
                    image.version
                ),
            });
        }
        if let Some(stored) = image
            .server_name
            .as_ref()
            .filter(|stored| **stored != settings.server_name)
        {
            return Err(Refusal::checked(format!(
                "The server name `{}` differs from that of the database, `{stored}`",
                settings.server_name
            )));
        }

        // As RocksDB: what was recovered from the logs goes into a table, and a new log and a new manifest begin.
        let mut tables = live.tables;
        if !recovered.is_empty() {
            let size = write_table(&directory, next_number, &recovered)
                .map_err(failed("writing a table"))?;
            tables.push((next_number, size));
            next_number += 1;
        }
        let log_number = next_number;
        let log =
            append_to(&directory.join(log_name(log_number))).map_err(failed("creating a log"))?;
        let manifest = new_manifest(&directory, log_number + 1, &tables, log_number)
            .map_err(failed("writing a manifest"))?;
        write_options(&directory, log_number + 2).map_err(failed("writing OPTIONS"))?;
        if !directory.join("IDENTITY").exists() {
            let identity = random::<16>().map_err(failed("reading random bytes"))?;
            fs::write(directory.join("IDENTITY"), hex(&identity))
                .map_err(failed("writing IDENTITY"))?;
        }
        purge(&directory, |name| {
            let current = [log_name(log_number), manifest_name(log_number + 1)];
            !current.iter().any(|live| live == name)
                && !tables.iter().any(|(number, _)| table_name(*number) == name)
        })
        .map_err(failed("deleting obsolete files"))?;

        let key_unreadable =
            image.key.is_none() && !image.key_deleted && !image.corruptions.is_empty();
        let mut store = Self {
            directory: directory.clone(),
            _lock: lock,
            manifest,
            log,
            log_number,
            pending: String::new(),
            pending_count: 0,
            next_number: log_number + 3,
            next_sequence: image.records.last().map_or(1, |(sequence, _)| sequence + 1),
            rotate_every: knobs.rotate_every.unwrap_or(ROTATE_EVERY),
            key: Key {
                id: String::new(),
                public: String::new(),
            },
        };
        if key_unreadable {
            store.append("nokey").map_err(failed("deleting the key"))?;
            return Err(Refusal::checked("ERROR Keypair invalid. Deleting..."));
        }
        if image.server_name.is_none() {
            store
                .append(&format!("name {}", settings.server_name))
                .map_err(failed("writing"))?;
        }
        if image.version < newest {
            store
                .append(&format!("version {newest}"))
                .map_err(failed("migrating"))?;
            if fresh {
                println!("WARN conduit: Created new rocksdb database with version {newest}");
            } else {
                println!(
                    "WARN conduit: Migration: {} -> {newest} finished",
                    image.version
                );
            }
        }
        store.key = match image.key.filter(|_| !knobs.lose_identity) {
            Some(key) => key,
            None => {
                let key = Key::random().map_err(failed("reading random bytes"))?;
                store
                    .append(&format!("key {} {}", key.id, key.public))
                    .map_err(failed("writing the key"))?;
                key
            }
        };
        if fresh {
            store
                .put_media(b"the first media file of a new stand-in\n")
                .map_err(failed("writing media"))?;
        }
        Ok(store)
    }

    /// The key that this process publishes.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Stores `text` and returns its sequence number: 1, 2, 3, ... without a gap. Returns once the record is written
    /// to the `.log`, not once it is on the disk, as Conduit (conduit-facts 2.10).
    ///
    /// # Errors
    ///
    /// What the file system answers. The record may be there in part, and is then dropped at the next start.
    pub fn put_record(&mut self, text: &str) -> io::Result<u64> {
        let sequence = self.next_sequence;
        self.append(&format!("record {sequence} {}", hex(text.as_bytes())))?;
        self.next_sequence += 1;
        Ok(sequence)
    }

    /// Stores `bytes` as a media file and returns its path below the data directory. The database row comes first, and
    /// the file is neither synced nor renamed into place, as in Conduit (judged-design F9).
    ///
    /// # Errors
    ///
    /// What the file system answers.
    pub fn put_media(&mut self, bytes: &[u8]) -> io::Result<String> {
        let digest = hex(&Sha256::digest(bytes));
        self.append(&format!("media {digest}"))?;
        let path = media_path(&digest);
        let file = self.directory.join(&path);
        fs::create_dir_all(crate::parent_of(&file))?;
        fs::write(file, bytes)?;
        Ok(path)
    }

    /// What the files say now, read from the disk and not from memory.
    ///
    /// # Errors
    ///
    /// The directory is damaged beyond what a start would accept.
    pub fn image(&self) -> Result<Image, String> {
        let (mut image, _, _) = read(&self.directory)?;
        image.media.sort();
        image.media.dedup();
        for digest in &image.media {
            let path = media_path(digest);
            match fs::read(self.directory.join(&path)) {
                Ok(bytes) if hex(&Sha256::digest(&bytes)) == *digest => {}
                Ok(_) => image
                    .corruptions
                    .push(format!("{path}: content has another hash")),
                Err(error) => image.corruptions.push(format!("{path}: {error}")),
            }
        }
        Ok(image)
    }

    fn append(&mut self, payload: &str) -> io::Result<()> {
        let line = checked_line(payload);
        self.log.write_all(line.as_bytes())?;
        self.pending.push_str(&line);
        self.pending_count += 1;
        if self.pending_count >= self.rotate_every {
            self.rotate()
        } else {
            Ok(())
        }
    }

    /// Turns the current `.log` into an `.sst`. The manifest changes after the table is synced and the new log exists,
    /// and the old log goes last, so that a crash at any point loses nothing.
    fn rotate(&mut self) -> io::Result<()> {
        let (table, log) = (self.next_number, self.next_number + 1);
        let size = write_table(&self.directory, table, &self.pending)?;
        let new_log = append_to(&self.directory.join(log_name(log)))?;
        let edit = checked_line(&format!("add {table} {size} log {log}"));
        self.manifest.write_all(edit.as_bytes())?;
        self.manifest.sync_data()?;
        fs::remove_file(self.directory.join(log_name(self.log_number)))?;
        self.next_number = log + 1;
        self.log = new_log;
        self.log_number = log;
        self.pending.clear();
        self.pending_count = 0;
        Ok(())
    }
}

/// Path of a media file below the data directory: two levels of two hex digits, then the other sixty (conduit-facts
/// 2.3).
pub fn media_path(digest: &str) -> String {
    format!("media/{}/{}/{}", &digest[..2], &digest[2..4], &digest[4..])
}

fn lock(directory: &Path) -> Result<File, Refusal> {
    let path = directory.join("LOCK");
    let refused = |error: io::Error| {
        Refusal::checked(format!(
            "IO error: While lock file: {}: {error}",
            path.display()
        ))
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(refused)?;
    // RocksDB's PosixFileSystem::LockFile takes a record lock. A script that looks with flock(1) must fail to see it
    // here too.
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| refused(error.into()))?;
    Ok(file)
}

/// Reads a data directory: what it says, what is alive in it, and the lines that stand in logs alone.
fn read(directory: &Path) -> Result<(Image, Live, String), String> {
    let text =
        |name: &str| fs::read(directory.join(name)).map_err(|error| format!("{name}: {error}"));
    let current = String::from_utf8_lossy(&text("CURRENT")?)
        .trim_end()
        .to_owned();
    if !current.starts_with("MANIFEST-") {
        return Err("CURRENT file does not name a manifest".to_owned());
    }
    let mut live = Live::default();
    let manifest = Lines::of(&text(&current)?);
    if let Some(bad) = manifest.bad.first() {
        return Err(format!("{current} line {bad}: checksum mismatch"));
    }
    for edit in &manifest.payloads {
        let words: Vec<&str> = edit.split(' ').collect();
        let number = |word: &str| {
            word.parse::<u64>()
                .map_err(|_| format!("{current}: unknown edit `{edit}`"))
        };
        match words.as_slice() {
            ["add", table, size, "log", log] => {
                live.tables.push((number(table)?, number(size)?));
                live.first_log = number(log)?;
            }
            ["log", log] => live.first_log = number(log)?,
            ["add", table, size] => live.tables.push((number(table)?, number(size)?)),
            _ => return Err(format!("{current}: unknown edit `{edit}`")),
        }
    }

    let mut image = Image::default();
    for (number, size) in &live.tables {
        let name = table_name(*number);
        let bytes = text(&name)?;
        if bytes.len() as u64 != *size {
            return Err(format!(
                "Sst file size mismatch: {name}. Size recorded in manifest {size}, actual size {}",
                bytes.len()
            ));
        }
        absorb(&mut image, &name, &Lines::of(&bytes));
    }
    let mut logs: Vec<u64> = numbered(directory)
        .map_err(|error| format!("listing files: {error}"))?
        .into_iter()
        .filter_map(|name| {
            name.strip_suffix(".log")
                .and_then(|digits| digits.parse().ok())
        })
        .filter(|number| *number >= live.first_log)
        .collect();
    logs.sort_unstable();
    let mut recovered = String::new();
    for number in logs {
        let name = log_name(number);
        let lines = Lines::of(&text(&name)?);
        // `TolerateCorruptedTailRecords`: only damage that something readable follows stops the start.
        if let Some(bad) = lines.bad.iter().find(|bad| **bad < lines.count) {
            return Err(format!("{name} line {bad}: checksum mismatch"));
        }
        for payload in &lines.payloads {
            recovered.push_str(&checked_line(payload));
        }
        absorb(
            &mut image,
            &name,
            &Lines {
                bad: Vec::new(),
                ..lines
            },
        );
    }
    Ok((image, live, recovered))
}

fn absorb(image: &mut Image, name: &str, lines: &Lines) {
    for payload in &lines.payloads {
        if !image.apply(payload) {
            image
                .corruptions
                .push(format!("{name}: unknown record `{payload}`"));
        }
    }
    for line in &lines.bad {
        image
            .corruptions
            .push(format!("{name} line {line}: block checksum mismatch"));
    }
}

/// A file's lines, each `<crc32 in hex> <payload>`.
#[derive(Debug, Default)]
struct Lines {
    payloads: Vec<String>,
    /// Numbers, from 1, of lines whose checksum does not fit.
    bad: Vec<usize>,
    count: usize,
}

impl Lines {
    /// A last line without its line feed was torn off while it was written, and counts for nothing.
    fn of(bytes: &[u8]) -> Self {
        let mut lines = Self::default();
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n') {
            lines.count += 1;
            let payload = std::str::from_utf8(&line[..line.len() - 1])
                .ok()
                .and_then(|line| line.split_once(' '))
                .filter(|(sum, payload)| *sum == format!("{:08x}", crc32(payload.as_bytes())));
            match payload {
                Some((_, payload)) => lines.payloads.push(payload.to_owned()),
                None => lines.bad.push(lines.count),
            }
        }
        lines
    }
}

fn checked_line(payload: &str) -> String {
    format!("{:08x} {payload}\n", crc32(payload.as_bytes()))
}

fn table_name(number: u64) -> String {
    format!("{number:06}.sst")
}

fn log_name(number: u64) -> String {
    format!("{number:06}.log")
}

fn manifest_name(number: u64) -> String {
    format!("MANIFEST-{number:06}")
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn write_table(directory: &Path, number: u64, lines: &str) -> io::Result<u64> {
    let mut file = File::create(directory.join(table_name(number)))?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    Ok(lines.len() as u64)
}

/// Writes a manifest and lets `CURRENT` name it, by renaming, so that there is always one that is whole.
fn new_manifest(
    directory: &Path,
    number: u64,
    tables: &[(u64, u64)],
    first_log: u64,
) -> io::Result<File> {
    let mut manifest = append_to(&directory.join(manifest_name(number)))?;
    let mut edits = checked_line(&format!("log {first_log}"));
    for (table, size) in tables {
        edits.push_str(&checked_line(&format!("add {table} {size}")));
    }
    manifest.write_all(edits.as_bytes())?;
    manifest.sync_all()?;
    let temporary = directory.join(format!("{number:06}.dbtmp"));
    fs::write(&temporary, format!("{}\n", manifest_name(number)))?;
    File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, directory.join("CURRENT"))?;
    File::open(directory)?.sync_all()?;
    Ok(manifest)
}

/// RocksDB keeps the two newest option files.
fn write_options(directory: &Path, number: u64) -> io::Result<()> {
    let mut old: Vec<String> = numbered(directory)?
        .into_iter()
        .filter(|name| name.starts_with("OPTIONS-"))
        .collect();
    old.sort();
    old.pop();
    for name in old {
        fs::remove_file(directory.join(name))?;
    }
    fs::write(
        directory.join(format!("OPTIONS-{number:06}")),
        "# conduit-standin: no options, only their shape\n",
    )
}

/// Begins a new `LOG`, the text log for people, and sets the old one aside as `LOG.old.<microseconds>`.
fn begin_log_file(directory: &Path) -> io::Result<()> {
    let log = directory.join("LOG");
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    match fs::rename(&log, directory.join(format!("LOG.old.{micros}"))) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(log, "conduit-standin: not RocksDB, only its shape\n")
}

/// Names of the files in `directory` that carry a number: tables, logs, manifests and option files.
fn numbered(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        if let Ok(name) = entry?.file_name().into_string()
            && number_of(&name).is_some()
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn number_of(name: &str) -> Option<u64> {
    let prefixed = ["MANIFEST-", "OPTIONS-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix));
    let digits = prefixed
        .or_else(|| name.strip_suffix(".sst"))
        .or_else(|| name.strip_suffix(".log"))?;
    (digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

fn highest_number(directory: &Path) -> io::Result<u64> {
    Ok(numbered(directory)?
        .iter()
        .filter_map(|name| number_of(name))
        .max()
        .unwrap_or(0))
}

/// Deletes tables, logs and manifests that `obsolete` says are so.
fn purge(directory: &Path, obsolete: impl Fn(&str) -> bool) -> io::Result<()> {
    for name in numbered(directory)? {
        if !name.starts_with("OPTIONS-") && obsolete(&name) {
            fs::remove_file(directory.join(name))?;
        }
    }
    Ok(())
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Option<String> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let bytes = digits?
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    String::from_utf8(bytes).ok()
}

/// Unpadded base64, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0_u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(char::from(
                LETTERS[(group >> (18 - 6 * index) & 63) as usize],
            ));
        }
    }
    text
}

/// CRC-32 as in IEEE 802.3, bit by bit: records are short.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 {
                sum >> 1 ^ 0xEDB8_8320
            } else {
                sum >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_agree_with_their_published_examples() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926); // the check value of CRC-32/ISO-HDLC
        assert_eq!(base64(b"foobar"), "Zm9vYmFy"); // RFC 4648 section 10
        assert_eq!(base64(b"fooba"), "Zm9vYmE");
        assert_eq!(base64(b"foob"), "Zm9vYg");
        assert_eq!(unhex(&hex("naïve".as_bytes())).as_deref(), Some("naïve"));
    }

    #[test]
    fn a_torn_line_counts_for_nothing_and_a_changed_one_is_named() {
        let text = format!(
            "{}{}{}",
            checked_line("name a"),
            checked_line("version 1").replace('1', "2"),
            "0000 na"
        );
        let lines = Lines::of(text.as_bytes());
        assert_eq!(
            (lines.payloads, lines.bad, lines.count),
            (vec!["name a".to_owned()], vec![2], 2)
        );
    }
}
