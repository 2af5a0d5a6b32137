//! A run in shards on a real Conduit: processes that know nothing of each other but the server meet in its room, and what
//! they measured is one run.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet-load");
const KIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/conduit/conduit.toml"
);

/// A Conduit as the kit configures it, but open; it goes with this.
struct Conduit {
    child: Child,
    target: String,
    _data: tempfile::TempDir,
}

impl Drop for Conduit {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Conduit {
    fn start() -> Self {
        let program =
            std::env::var_os("CONDUIT_BIN").map_or_else(|| PathBuf::from("conduit"), PathBuf::from);
        let data = tempfile::tempdir().expect("a directory");
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let log = std::fs::File::create(data.path().join("log")).expect("a log");
        let mut child = Command::new(&program)
            .env("CONDUIT_CONFIG", KIT)
            .env("CONDUIT_SERVER_NAME", "load.test")
            .env("CONDUIT_DATABASE_PATH", data.path())
            .env("CONDUIT_PORT", port.to_string())
            .env("CONDUIT_ALLOW_REGISTRATION", "true")
            .env("CONDUIT_ALLOW_FEDERATION", "false")
            .env("CONDUIT_TRUSTED_SERVERS", "[]")
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "start `{}`: {error}: give a Conduit with `CONDUIT_BIN`",
                    program.display()
                )
            });
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = child.try_wait().expect("its state");
            let log = std::fs::read_to_string(data.path().join("log")).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "Conduit does not come up ({ended:?}):\n{log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            child,
            target: format!("http://127.0.0.1:{port}"),
            _data: data,
        }
    }
}

fn shard(target: &str, shard: &str, file: &Path) -> Child {
    let plan = [
        "--seed",
        "6",
        "--rate",
        "20",
        "--seconds",
        "3",
        "--warm",
        "1",
    ];
    let people = ["--members", "7", "--senders", "2", "--readers", "4"];
    Command::new(PROGRAM)
        .args([
            "run", "--target", target, "--name", "garden", "--shard", shard, "--json",
        ])
        .arg(file)
        .args(plan)
        .args(people)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs")
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// What one shard sends, the readers of both see, once the merge knows of it; a part alone is no run, and a threshold that
/// the whole does not keep is an exit code.
#[test]
fn shards_on_one_conduit_are_one_run() {
    let conduit = Conduit::start();
    let directory = tempfile::tempdir().expect("a directory");
    let files = [0, 1].map(|number| directory.path().join(format!("{number}.json")));
    let shards = [("0/2", &files[0]), ("1/2", &files[1])]
        .map(|(number, file)| shard(&conduit.target, number, file));
    for shard in shards {
        let output = shard.wait_with_output().expect("its exit");
        assert!(output.status.success(), "{}", said(&output));
    }
    let whole = directory.path().join("whole.json");
    let merge = |files: &[PathBuf], threshold: &str| {
        Command::new(PROGRAM)
            .arg("merge")
            .args(files)
            .args(["--threshold", threshold, "--json"])
            .arg(&whole)
            .output()
            .expect("it runs")
    };
    let output = merge(&files, "lost<1");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report: Value =
        serde_json::from_str(&std::fs::read_to_string(&whole).expect("the report")).expect("JSON");
    let counts = &report["block"]["counts"];
    let count = |name: &str| counts[name].as_u64().expect("a count");
    assert!(count("accepted") > 40, "{counts}");
    assert_eq!(count("delivered"), count("accepted") * 4, "{counts}");
    assert_eq!(
        (count("lost"), count("alien"), count("reordered")),
        (0, 0, 0),
        "{counts}"
    );
    let page = std::fs::read_to_string(whole.with_extension("html")).expect("the page");
    assert!(page.contains("Latency over time"));

    assert_eq!(merge(&files, "delivered.p50<0.001").status.code(), Some(4));
    let part = merge(&files[..1], "lost<1");
    assert!(
        said(&part).contains("shard 1/2 is missing"),
        "{}",
        said(&part)
    );
    let again = shard(&conduit.target, "0/2", &files[0])
        .wait_with_output()
        .expect("its exit");
    assert!(
        said(&again).contains("`--name garden` was used on this target before"),
        "{}",
        said(&again)
    );
}
