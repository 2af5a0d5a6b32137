//! The generator is put to the test before it tests anything: with a server that is frozen, and while it is itself
//! kept from the processor.

use fleet_load::stall::{self, NullServer, Stalls};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet-load");

/// A tenth of the time the server stands still. Latency that counts from the schedule tells of it, to a tenth; a user
/// who waits for each answer hardly meets it. What must be told is computed from the stalls as they really were.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_shows_in_the_tail_of_the_open_loop_alone() {
    let stalls = Stalls {
        stall: Duration::from_millis(400),
        period: Duration::from_secs(4),
        times: 3,
        rate: 300.0,
        seed: 6,
    };
    let mut told = Vec::new();
    // Other tests may keep the processors from us meanwhile: that is seen in the slip, and tried again.
    for _ in 0..6 {
        let run = stall::test(Path::new(PROGRAM), stalls)
            .await
            .expect("the null server runs");
        let closed = run.closed[0] * 10.0 < run.open[0];
        if run.error() <= 0.1 && closed {
            return;
        }
        told.push(run.lines());
    }
    panic!(
        "the open loop does not tell of the stalls what it must:\n{}",
        told.join("\n")
    );
}

/// Half of every tenth of a second the generator gets no processor, as under a quota. It must say that its latencies
/// are not to be quoted, in its report and by its exit code.
#[tokio::test(flavor = "multi_thread")]
async fn a_generator_that_is_kept_from_the_processor_says_invalid() {
    let server = NullServer::start(Path::new(PROGRAM))
        .await
        .expect("the null server runs");
    let directory = tempfile::tempdir().expect("a directory");
    let report = directory.path().join("report.json");
    let mut probe = Command::new(PROGRAM)
        .args([
            "probe",
            "--seconds",
            "2",
            "--rate",
            "300",
            "--target",
            server.target.url.as_str(),
            "--json",
        ])
        .arg(&report)
        .stdout(Stdio::null())
        .spawn()
        .expect("the generator runs");
    let process =
        Pid::from_raw(i32::try_from(probe.id()).expect("a process id")).expect("a process id");
    let exit = loop {
        if let Some(exit) = probe.try_wait().expect("its exit") {
            break exit;
        }
        for signal in [Signal::STOP, Signal::CONT] {
            // It may have ended meanwhile.
            let _ = kill_process(process, signal);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(exit.code(), Some(3), "{exit}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&report).expect("the report")).expect("JSON");
    assert_eq!(report["valid"], false, "{report:#}");
    let against = report["validity"]["against_latency"].to_string();
    assert!(against.contains("send slip"), "{against}");
}

/// What a person meets who gives a target that cannot be loaded.
#[test]
fn a_target_that_must_not_or_cannot_be_loaded_is_refused_with_the_reason() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(PROGRAM)
            .arg("probe")
            .args(arguments)
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let production = refused(&["--target", "http://143.198.27.163", "--i-am-the-owner"]);
    assert!(
        production.contains("is production: load on it is refused"),
        "{production}"
    );
    let foreign = refused(&["--target", "http://192.0.2.7"]);
    assert!(foreign.contains("`--i-am-the-owner`"), "{foreign}");
    // A port that nobody listens on: it was ours a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("its address");
    let silent = refused(&["--target", &format!("http://{free}")]);
    assert!(
        silent.contains("does not answer: not connected: Connection refused"),
        "{silent}"
    );
    let nowhere = refused(&[
        "--target",
        "http://127.0.0.1:1",
        "--json",
        "/nowhere/report.json",
    ]);
    assert!(
        nowhere.contains("write the report `/nowhere/report.json`"),
        "{nowhere}"
    );
}
