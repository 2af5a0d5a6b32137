//! What a person meets whose target, machine or patience fails: one clear message each, and nothing that was measured is
//! lost.

use fleet_load::stall::NullServer;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet-load");

/// A server on loopback that does the same to every connection.
fn server(each: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || listener.incoming().flatten().for_each(each));
    address
}

/// One that answers each request with this status, and then hangs up.
fn answering(status: &'static str) -> SocketAddr {
    server(move |mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        );
    })
}

fn load(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .output()
        .expect("it runs")
}

fn told(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// In the middle of a load each answer is counted under its status with what to do; before one begins it is the reason
/// that none does.
#[test]
fn a_target_that_refuses_or_fails_is_told_with_what_to_do() {
    let cases = [
        ("429 Too Many Requests", "429", "the target limits rates"),
        (
            "500 Internal Server Error",
            "500",
            "the target fails; its log says why",
        ),
        (
            "507 Insufficient Storage",
            "507",
            "the target's disk is full",
        ),
        (
            "403 Forbidden",
            "403",
            "the target does not let everybody in",
        ),
    ];
    for (status, number, advice) in cases {
        let target = format!("http://{}", answering(status));
        let probe = load(&[
            "probe",
            "--target",
            &target,
            "--seconds",
            "1",
            "--rate",
            "30",
        ]);
        let text = told(&probe);
        assert!(text.contains(&format!("x {number}: {advice}")), "{text}");
        assert!(text.contains("INVALID"), "{text}");
        assert_eq!(probe.status.code(), Some(3), "{text}");
        let run = load(&["run", "--target", &target, "--seconds", "1"]);
        let text = told(&run);
        assert!(
            text.contains("make the people") && text.contains(advice),
            "{text}"
        );
        assert_eq!(run.status.code(), Some(1), "{text}");
    }
}

/// Nobody on this machine vouches for the certificate.
#[test]
fn a_certificate_that_is_not_trusted_is_named_with_what_to_do() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .expect("a key");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    let config = Arc::new(config);
    let address = server(move |mut stream| {
        let mut connection = rustls::ServerConnection::new(config.clone()).expect("a connection");
        // The client hangs up: that is the point.
        let _ = connection.complete_io(&mut stream);
    });
    let target = format!("https://localhost:{}", address.port());
    let text = told(&load(&["probe", "--target", &target, "--seconds", "1"]));
    assert!(
        text.contains("the target's certificate is not trusted here")
            && text.contains("add its authority"),
        "{text}"
    );
}

/// Before anybody is made on the target.
#[test]
fn a_plan_that_needs_more_descriptors_than_there_are_is_refused() {
    let asked = answering("500 Internal Server Error");
    let run = format!(
        "ulimit -n 100 && exec {PROGRAM} run --target http://{asked} --members 50 --readers 40"
    );
    let output = Command::new("sh")
        .args(["-c", &run])
        .output()
        .expect("it runs");
    let text = told(&output);
    assert!(
        text.contains(
            "the plan needs 152 descriptors and this process may open 100: raise `ulimit -n`"
        ),
        "{text}"
    );
}

/// A load that would go on for a minute is ended by hand: it says so, and the report has what was measured until then.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_measured_until_it_was_interrupted_is_kept() {
    let server = NullServer::start(Path::new(PROGRAM))
        .await
        .expect("the null server runs");
    let directory = tempfile::tempdir().expect("a directory");
    let report = directory.path().join("report.json");
    for (signal, name) in [(Signal::INT, "Ctrl-C"), (Signal::TERM, "told to end")] {
        let mut probe = Command::new(PROGRAM)
            .args([
                "probe",
                "--seconds",
                "60",
                "--rate",
                "200",
                "--target",
                server.target.url.as_str(),
                "--json",
            ])
            .arg(&report)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the generator runs");
        let mut lines = BufReader::new(probe.stdout.take().expect("its output")).lines();
        let begun = lines.next().expect("a line").expect("text");
        assert!(begun.contains("requests to"), "{begun}");
        let process =
            Pid::from_raw(i32::try_from(probe.id()).expect("a process id")).expect("a process id");
        kill_process(process, signal).expect("it still runs");
        assert_eq!(probe.wait().expect("its exit").code(), Some(130), "{name}");
        let text: String = lines.map_while(Result::ok).collect();
        assert!(text.contains("it was interrupted"), "{name}: {text}");
        let kept: Value =
            serde_json::from_str(&std::fs::read_to_string(&report).expect("the report"))
                .expect("JSON");
        assert_eq!(kept["valid"], false, "{name}: {kept:#}");
        std::fs::remove_file(&report).expect("removed");
    }
}

/// A disk that has filled up when the report is to be written: what was measured was told before, and the exit says that
/// it was not kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_finds_the_disk_full_is_told_all_the_same() {
    let server = NullServer::start(Path::new(PROGRAM))
        .await
        .expect("the null server runs");
    let output = load(&[
        "probe",
        "--seconds",
        "1",
        "--rate",
        "50",
        "--target",
        server.target.url.as_str(),
        "--json",
        "/dev/full",
    ]);
    let text = told(&output);
    assert!(text.contains("from the schedule, ms: p50"), "{text}");
    assert!(
        text.contains("is the disk full?") && text.contains("No space left"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(1), "{text}");
}
