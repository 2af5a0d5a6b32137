//! The stand-in keeps the habits of Conduit that the operating scripts rely on, and each knob does what it says.
//!
//! What Conduit does is stated in the project's notes on Conduit 0.10.12 and was observed there; these tests only hold
//! the stand-in to it. Nothing about Matrix is proved here.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_conduit-standin");
/// Longest wait for anything that should happen at once, on a machine that is busy with compilers.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with a configuration and a data directory, and the binary to run on it.
struct Home {
    directory: TempDir,
    binary: PathBuf,
    extra: String,
}

impl Home {
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            binary: PathBuf::from(BINARY),
            extra: String::new(),
        }
    }

    fn with(extra: &str) -> Self {
        Self {
            extra: extra.to_owned(),
            ..Self::new()
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A command with a clean environment whose `CONDUIT_CONFIG` names a configuration for a port that the system
    /// chooses.
    fn command(&self) -> Command {
        let config = format!(
            "[global]\nserver_name = \"garden.test\"\ndatabase_backend = \"rocksdb\"\ndatabase_path = \"{}\"\nport = 0\n\
             allow_federation = true # off by default\n{}\n[registration]\nserver_name = \"ignored.test\"\n",
            self.data().display(),
            self.extra
        );
        fs::write(self.path("conduit.toml"), config).unwrap();
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("CONDUIT_CONFIG", self.path("conduit.toml"))
            .stdin(Stdio::null());
        command
    }

    fn start(&self) -> Server {
        Server::start(self.command())
    }

    /// Runs the server where it is expected to end by itself.
    fn run(&self) -> Output {
        self.command().output().unwrap()
    }
}

/// A server that answers.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Returns once the server listens.
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let address = lines.by_ref().map(Result::unwrap).find_map(|line| {
            said.push_str(&line);
            said.push('\n');
            line.strip_prefix("conduit-standin: listening on ")
                .map(|address| address.parse().unwrap())
        });
        let address = address
            .unwrap_or_else(|| panic!("the server ended before it listened; it said:\n{said}"));
        // Drained, or a talkative server would block on a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.try_ask(method, path, body, PATIENCE).unwrap()
    }

    fn try_ask(
        &self,
        method: &str,
        path: &str,
        body: &str,
        patience: Duration,
    ) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(patience))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        Ok((status, body.to_owned()))
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "")
    }

    fn write(&self, text: &str) {
        assert_eq!(self.ask("POST", "/standin/write", text).0, 200);
    }

    fn records(&self) -> Value {
        serde_json::from_str(&self.get("/standin/records").1).unwrap()
    }

    fn texts(&self) -> Vec<String> {
        let records = self.records();
        let records = records["records"].as_array().unwrap();
        records
            .iter()
            .map(|record| record["text"].as_str().unwrap().to_owned())
            .collect()
    }

    fn key(&self) -> String {
        let (status, body) = self.get("/_matrix/key/v2/server");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["verify_keys"].to_string()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the process is gone.
    fn end(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the server is still up {PATIENCE:?} after it was told to end"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn stop(self) {
        self.signal(Signal::TERM);
        assert_eq!(self.end().code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(output: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "`{words}` is not in:\n{said}");
}

/// Names in `directory` that end with `suffix`, sorted.
fn names(directory: &Path, suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.ends_with(suffix)).collect();
    names.sort();
    names
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of the binary with `knobs` built in. The binary writes it itself: a file that this many-threaded process had
/// written could still be open in a child that another test forked, and would then not execute (ETXTBSY).
fn baked(home: &Home, name: &str, knobs: &[&str]) -> PathBuf {
    let out = home.path(name);
    let status = Command::new(BINARY)
        .arg("--standin-bake")
        .arg(&out)
        .args(knobs)
        .status()
        .unwrap();
    assert!(status.success());
    out
}

#[test]
fn it_reports_the_pinned_version_and_calls_itself_a_stand_in() {
    let output = Command::new(BINARY)
        .env_clear()
        .arg("--version")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "conduit 0.10.12\n"
    );
    let home = Home::new();
    let server = home.start();
    assert_eq!(
        server.get("/_matrix/federation/v1/version"),
        (
            200,
            r#"{"server":{"name":"conduit-standin","version":"0.10.12"}}"#.to_owned()
        )
    );
}

#[test]
fn it_refuses_what_conduit_refuses_with_the_same_exit_codes() {
    let run = |arguments: &[&str], config: Option<&str>| {
        let mut command = Command::new(BINARY);
        command.env_clear().args(arguments);
        if let Some(config) = config {
            command.env("CONDUIT_CONFIG", config);
        }
        command.output().unwrap()
    };
    refused(&run(&[], None), 101, "CONDUIT_CONFIG");
    refused(
        &run(&[], Some("/does/not/exist.toml")),
        1,
        "missing field `server_name`",
    );
    refused(&run(&["--unknown"], None), 2, "--unknown");

    let home = Home::new();
    let config = home.path("wrong.toml");
    for (text, words) in [
        (
            "[registration]\nserver_name = \"a\"",
            "missing field `server_name`",
        ),
        (
            "[global]\nserver_name = \"a\"\ndatabase_path = \"b\"",
            "missing field `database_backend`",
        ),
        (
            "[global]\nserver_name = \"a\"\ndatabase_backend = \"sled\"",
            "Database backend not found",
        ),
        ("server_name = \"a\"", "outside of any table"),
    ] {
        fs::write(&config, text).unwrap();
        refused(&run(&[], config.to_str()), 1, words);
    }
}

#[test]
fn a_data_directory_in_use_is_refused_and_flock_does_not_see_the_lock() {
    let home = Home::new();
    let server = home.start();
    refused(&home.run(), 1, "While lock file");
    // RocksDB takes a record lock; a script that asks flock(1) about it is told, wrongly, that nobody holds it.
    fs::File::open(home.data().join("LOCK"))
        .unwrap()
        .try_lock()
        .unwrap();
    server.stop();
    home.start().stop();
}

#[test]
fn a_port_in_use_ends_it_with_101() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let output = Home::new()
        .command()
        .env("CONDUIT_PORT", port)
        .output()
        .unwrap();
    refused(&output, 101, "cannot listen");
}

#[test]
fn it_answers_what_the_scripts_ask() {
    let home = Home::with(
        "[global.well_known]\nclient = \"https://matrix.garden.test\"\nserver = \"matrix.garden.test:443\"",
    );
    let server = home.start();
    for (method, path, status, words) in [
        ("GET", "/", 200, "Hello from Conduit!"),
        ("GET", "/_matrix/client/versions", 200, "\"v1.12\""),
        (
            "GET",
            "/_matrix/key/v2/server",
            200,
            "\"server_name\":\"garden.test\"",
        ),
        (
            "GET",
            "/.well-known/matrix/client",
            200,
            "{\"m.homeserver\":{\"base_url\":\"https://matrix.garden.test/\"}}",
        ),
        (
            "GET",
            "/.well-known/matrix/server",
            200,
            "{\"m.server\":\"matrix.garden.test:443\"}",
        ),
        ("POST", "/_matrix/client/v3/register", 403, "M_FORBIDDEN"),
        ("PUT", "/_matrix/client/versions", 405, "M_UNRECOGNIZED"),
        ("GET", "/_matrix/client/v3/sync", 404, "M_UNRECOGNIZED"),
    ] {
        let (got, body) = server.ask(method, path, "");
        assert_eq!(got, status, "{method} {path}: {body}");
        assert!(
            body.contains(words),
            "{method} {path}: `{words}` is not in {body}"
        );
    }
}

#[test]
fn federation_is_off_unless_it_is_switched_on() {
    let home = Home::with("allow_federation = false");
    let server = home.start();
    for path in [
        "/_matrix/key/v2/server",
        "/_matrix/federation/v1/version",
        "/.well-known/matrix/server",
    ] {
        let (status, body) = server.get(path);
        assert_eq!(
            (status, body.contains("Federation is disabled.")),
            (500, true),
            "{path}: {body}"
        );
    }
}

#[test]
fn a_kept_connection_carries_chunked_bodies() {
    let home = Home::new();
    let server = home.start();
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for text in ["first", "second"] {
        write!(
            stream,
            "POST /standin/write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            &text[..2],
            text.len() - 2,
            &text[2..]
        )
        .unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        // The rest of this answer ends with the only closing brace in it.
        let mut byte = [0];
        while byte != *b"}" {
            stream.read_exact(&mut byte).unwrap();
        }
    }
    assert_eq!(server.texts(), ["first", "second"]);
}

#[test]
fn the_data_directory_has_the_shape_of_rocksdb() {
    let home = Home::new();
    let server = home.start();
    for number in 0..20 {
        server.write(&number.to_string());
    }
    let data = home.data();
    let current = fs::read_to_string(data.join("CURRENT")).unwrap();
    assert!(
        current.starts_with("MANIFEST-") && data.join(current.trim_end()).is_file(),
        "{current}"
    );
    for name in ["IDENTITY", "LOCK", "LOG"] {
        assert!(data.join(name).is_file(), "{name}");
    }
    assert_eq!(names(&data, ".log").len(), 1);
    assert!(
        names(&data, ".sst").len() >= 2,
        "{:?}",
        names(&data, ".sst")
    );
    let media = server.records()["media"][0].as_str().unwrap().to_owned();
    assert_eq!(media.len(), "media/xx/yy/".len() + 60);
    assert!(data.join(media).is_file());

    let identity = fs::read(data.join("IDENTITY")).unwrap();
    server.stop();
    home.start().stop();
    assert_eq!(fs::read(data.join("IDENTITY")).unwrap(), identity);
    assert!(
        names(&data, "")
            .iter()
            .any(|name| name.starts_with("LOG.old."))
    );
}

#[test]
fn records_and_identity_survive_a_stop_a_kill_and_a_move() {
    let home = Home::new();
    let server = home.start();
    let key = server.key();
    let texts: Vec<String> = (0..13)
        .map(|number| format!("line {number}: \"ü\"\n"))
        .collect();
    texts[..6].iter().for_each(|text| server.write(text));
    server.stop();
    let server = home.start();
    texts[6..].iter().for_each(|text| server.write(text));
    server.signal(Signal::KILL);
    assert_eq!(server.end().signal(), Some(9));

    let elsewhere = Home::new();
    copy_tree(&home.data(), &elsewhere.data());
    for home in [home, elsewhere] {
        let server = home.start();
        assert_eq!(server.texts(), texts);
        assert_eq!(server.key(), key);
    }
}

#[test]
fn without_current_a_new_homeserver_appears_and_the_old_tables_are_purged() {
    let home = Home::new();
    let server = home.start();
    let key = server.key();
    (0..20).for_each(|number| server.write(&number.to_string()));
    server.stop();
    let before = names(&home.data(), ".sst");
    fs::remove_file(home.data().join("CURRENT")).unwrap();
    let server = home.start();
    assert_ne!(server.key(), key);
    assert!(server.texts().is_empty());
    assert!(before.iter().all(|name| !home.data().join(name).exists()));
}

#[test]
fn a_torn_log_boots_with_the_torn_record_missing_and_a_lost_log_boots_with_less() {
    let home = Home::new();
    let server = home.start();
    ["kept", "torn"].iter().for_each(|text| server.write(text));
    server.stop();
    let log = home.data().join(&names(&home.data(), ".log")[0]);
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() - 2]).unwrap();
    let server = home.start();
    assert_eq!(server.texts(), ["kept"]);
    server.write("only in the log");
    server.stop();
    fs::remove_file(home.data().join(&names(&home.data(), ".log")[0])).unwrap();
    assert_eq!(home.start().texts(), ["kept"]);
}

#[test]
fn a_damaged_table_is_noticed_at_start_by_its_size_and_else_only_by_who_reads_it() {
    let home = Home::new();
    let server = home.start();
    (0..20).for_each(|_| server.write("rose"));
    server.stop();
    let sound = home.path("sound");
    copy_tree(&home.data(), &sound);
    // The last table holds records only; the first one holds the key as well.
    let last = home.data().join(names(&home.data(), ".sst").pop().unwrap());
    let mut bytes = fs::read(&last).unwrap();
    let middle = bytes.len() - 5;
    bytes[middle] ^= 1;
    fs::write(&last, &bytes).unwrap();
    let server = home.start();
    let (status, body) = server.get("/standin/records");
    assert_eq!(
        (status, body.contains("block checksum mismatch")),
        (500, true),
        "{body}"
    );
    server.stop();

    fs::write(&last, &bytes[..middle]).unwrap();
    refused(&home.run(), 1, "Sst file size mismatch");
    fs::remove_file(&last).unwrap();
    refused(&home.run(), 1, "No such file");
}

#[test]
fn a_damaged_key_is_deleted_and_the_second_start_makes_another() {
    let home = Home::new();
    let server = home.start();
    let key = server.key();
    (0..20).for_each(|_| server.write("rose"));
    server.stop();
    for name in names(&home.data(), ".sst") {
        let text = fs::read_to_string(home.data().join(&name)).unwrap();
        fs::write(
            home.data().join(&name),
            text.replace("key ed25519:", "key ed25518:"),
        )
        .unwrap();
    }
    refused(&home.run(), 1, "Keypair invalid. Deleting...");
    assert_ne!(home.start().key(), key);
}

#[test]
fn a_directory_of_another_server_name_is_refused() {
    let home = Home::new();
    home.start().stop();
    let output = home
        .command()
        .env("CONDUIT_SERVER_NAME", "vale.test")
        .output()
        .unwrap();
    refused(
        &output,
        1,
        "`vale.test` differs from that of the database, `garden.test`",
    );
}

#[test]
fn a_newer_database_is_refused_by_an_older_binary() {
    let home = Home::new();
    home.start().stop();
    Server::start({
        let mut command = home.command();
        command.env("STANDIN_KNOBS", "db-version=19");
        command
    })
    .stop();
    refused(&home.run(), 101, "left: 19\n right: 18");
}

#[test]
fn a_broken_binary_stays_broken_wherever_it_is_copied() {
    let mut home = Home::new();
    let broken = baked(&home, "broken", &["exit-at-start=3", "version=0.10.13"]);
    let copy = home.path("conduit");
    // `cp` and not this process, see `baked`.
    assert!(
        Command::new("cp")
            .arg(&broken)
            .arg(&copy)
            .status()
            .unwrap()
            .success()
    );
    assert_ne!(fs::read(&copy).unwrap(), fs::read(BINARY).unwrap());
    home.binary = copy;
    let version = Command::new(&home.binary)
        .arg("--version")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        "conduit 0.10.13\n"
    );
    refused(&home.run(), 3, "exiting with 3 at start, as told");
    assert!(!home.data().exists(), "nothing was touched");

    // Baked again without knobs it is the sound binary, byte by byte.
    let sound = home.path("sound");
    let status = Command::new(&home.binary)
        .arg("--standin-bake")
        .arg(&sound)
        .status()
        .unwrap();
    assert!(status.success());
    home.binary = sound;
    home.start().stop();
}

#[test]
fn knobs_beside_executable_and_configuration_and_in_the_environment_override_each_other_in_this_order()
 {
    let mut home = Home::new();
    fs::create_dir(home.path("release")).unwrap();
    home.binary = baked(
        &home,
        "release/conduit",
        &["bad-version=from the executable"],
    );
    // Through a link, as in the kit's tree: the knob file lies beside the binary and not beside the link.
    let link = home.path("conduit");
    std::os::unix::fs::symlink(&home.binary, &link).unwrap();
    home.binary = link;
    let version = |variable: Option<&str>| {
        let mut command = home.command();
        command.arg("--version");
        if let Some(value) = variable {
            command.env("STANDIN_KNOBS", value);
        }
        String::from_utf8(command.output().unwrap().stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    assert_eq!(version(None), "from the executable");
    fs::write(
        home.path("release/standin.knobs"),
        "bad-version=beside it # a comment\n",
    )
    .unwrap();
    assert_eq!(version(None), "beside it");
    fs::write(
        home.path("standin.knobs"),
        "bad-version=beside the configuration",
    )
    .unwrap();
    assert_eq!(version(None), "beside the configuration");
    assert_eq!(
        version(Some("bad-version=environment; hang=false")),
        "environment"
    );
}

#[test]
fn an_unknown_knob_is_a_mistake_and_not_a_fault() {
    let home = Home::new();
    for (knobs, words) in [
        ("hnag", "unknown knob `hnag`"),
        ("start-late=soon", "no usable value"),
        ("hang=perhaps", "no usable value"),
    ] {
        refused(
            &home.command().env("STANDIN_KNOBS", knobs).output().unwrap(),
            70,
            words,
        );
    }
}

#[test]
fn answers_go_bad_and_heal_while_the_server_runs() {
    let home = Home::new();
    let server = home.start();
    fs::write(home.path("standin.knobs"), "answer-500").unwrap();
    assert_eq!(server.get("/_matrix/client/versions").0, 500);
    fs::write(home.path("standin.knobs"), "hang").unwrap();
    let silence = server.try_ask(
        "GET",
        "/_matrix/client/versions",
        "",
        Duration::from_millis(200),
    );
    assert!(silence.is_err(), "{silence:?}");
    fs::remove_file(home.path("standin.knobs")).unwrap();
    assert_eq!(server.get("/_matrix/client/versions").0, 200);
    server.stop();
}

#[test]
fn a_server_that_ignores_sigterm_obeys_only_sigkill_until_it_is_healed() {
    let home = Home::new();
    fs::write(home.path("standin.knobs"), "ignore-sigterm").unwrap();
    let mut command = home.command();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (said, lines) = mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || {
        stdout
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| said.send(line))
    });
    let wait_for = |words: &str| {
        while !lines.recv_timeout(PATIENCE).unwrap().contains(words) {}
    };
    // Said after the signals are caught.
    wait_for("Created new rocksdb database");
    let deadline = Instant::now() + PATIENCE;
    let pid = Pid::from_child(&child);
    // The database is announced just before the signals are caught, so the process status is asked.
    while !catches_sigterm(pid) {
        assert!(Instant::now() < deadline, "SIGTERM is never caught");
        thread::sleep(Duration::from_millis(2));
    }
    kill_process(pid, Signal::TERM).unwrap();
    wait_for("ignoring SIGTERM, as told");
    assert!(child.try_wait().unwrap().is_none());
    fs::remove_file(home.path("standin.knobs")).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Whether the process has a handler for SIGTERM (proc(5), `SigCgt`).
fn catches_sigterm(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (Signal::TERM.as_raw() - 1)) != 0
}

#[test]
fn a_late_start_listens_late() {
    let home = Home::new();
    let mut command = home.command();
    command.env("STANDIN_KNOBS", "start-late=0.3");
    let before = Instant::now();
    let server = Server::start(command);
    assert!(before.elapsed() >= Duration::from_millis(300));
    server.stop();
}

#[test]
fn a_late_stop_takes_its_time_and_ends_with_0() {
    let home = Home::new();
    let mut command = home.command();
    command.env("STANDIN_KNOBS", "stop-late=0.3");
    let server = Server::start(command);
    let before = Instant::now();
    server.stop();
    assert!(before.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_server_that_fails_after_opening_leaves_the_migration_behind() {
    let home = Home::new();
    home.start().stop();
    let output = home
        .command()
        .env("STANDIN_KNOBS", "db-version=19; exit-after-open=4")
        .output()
        .unwrap();
    refused(&output, 4, "after the database was opened");
    refused(&home.run(), 101, "database version");
}

#[test]
fn a_server_that_loses_its_identity_keeps_everything_else() {
    let home = Home::new();
    let server = home.start();
    let key = server.key();
    server.write("rose");
    server.stop();
    let mut command = home.command();
    command.env("STANDIN_KNOBS", "lose-identity");
    let server = Server::start(command);
    assert_ne!(server.key(), key);
    assert_eq!(server.texts(), ["rose"]);
}
