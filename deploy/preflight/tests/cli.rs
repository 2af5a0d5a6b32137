//! The command line: how it refuses, and what its exit codes say. Nothing leaves loopback.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Output};

fn preflight(arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_fleet-preflight"))
        .args(arguments)
        .env("CONDUIT_ROOT", "/nonexistent")
        .output()
        .expect("it can be started");
    (
        status.code().expect("it was not killed"),
        String::from_utf8(stdout).expect("UTF-8"),
        String::from_utf8(stderr).expect("UTF-8"),
    )
}

#[test]
fn production_is_refused_before_anything_is_asked() {
    // Were anything asked, this socket would hear of it.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    silent.set_nonblocking(true).expect("no waiting");
    let resolver = silent.local_addr().expect("an address").to_string();
    for arguments in [
        &["--resolver", &resolver][..],
        &["--resolver", &resolver, "--server-name", "timmy.foundation"],
        &[
            "--resolver",
            &resolver,
            "--server-name",
            "timmy.foundation:8448",
        ],
        &[
            "--resolver",
            &resolver,
            "--server-name",
            "Matrix.Timmy.Foundation",
        ],
        &["--resolver", &resolver, "--server-name", "143.198.27.163"],
        &[
            "--resolver",
            &resolver,
            "--server-name",
            "[::ffff:143.198.27.163]:443",
        ],
        &["--resolver", &resolver, "--i-am-the-operator"],
    ] {
        let (exit, out, err) = preflight(arguments);
        assert_eq!(exit, 3, "{arguments:?}: {out}{err}");
        assert!(
            err.contains("production") && err.contains("hint: "),
            "{err}"
        );
        assert!(out.is_empty(), "{out}");
    }
    assert!(
        silent.recv(&mut [0; 512]).is_err(),
        "a name server was asked"
    );
}

#[test]
fn usage_is_told_from_a_failed_check() {
    for arguments in [
        &["--no-such-option"][..],
        &["--server-name", "https://vale.test"],
        &["--resolver", "nobody"],
        &["--time-limit", "0"],
    ] {
        let (exit, _, err) = preflight(arguments);
        assert_eq!(exit, 64, "{arguments:?}: {err}");
    }
    let (exit, help, _) = preflight(&["--help"]);
    assert_eq!(exit, 0);
    for code in [
        "0 all is well",
        "1 warnings",
        "2 a check failed",
        "3 a check could",
        "64 usage",
    ] {
        let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(code), "{code}: {help}");
    }
}

#[test]
fn a_trust_store_that_cannot_be_read_is_a_clear_refusal() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "no certificate").expect("write it");
    for path in ["/nonexistent", "/", &file.path().display().to_string()] {
        let (exit, _, err) = preflight(&[
            "--server-name",
            "vale.test",
            "--resolver",
            "127.0.0.1:1",
            "--ca-file",
            path,
        ]);
        assert_eq!(exit, 3, "{path}: {err}");
        assert!(err.contains(path) && err.contains("hint: "), "{err}");
    }
}

#[test]
fn a_name_server_that_is_not_there_leaves_everything_unknown_but_itself() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let authority =
        rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
    std::fs::write(file.path(), authority.cert.pem()).expect("write it");
    // Bound and never answered.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let resolver = silent.local_addr().expect("an address").to_string();
    let (exit, out, err) = preflight(&[
        "--server-name",
        "vale.test",
        "--resolver",
        &resolver,
        "--ca-file",
        &file.path().display().to_string(),
        "--acme-directory",
        "https://acme.vale.test/directory",
        "--json",
    ]);
    assert_eq!(exit, 2, "{out}{err}");
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let verdict = |name: &str| {
        report["checks"]
            .as_array()
            .and_then(|checks| checks.iter().find(|check| check["name"] == name))
            .map(|check| check["verdict"].clone())
            .unwrap_or_default()
    };
    assert_eq!(verdict("resolver"), "failed", "{out}");
    for name in [
        "address",
        "caa",
        "srv",
        "discovery",
        "keys",
        "acme",
        "clock",
    ] {
        assert_eq!(verdict(name), "unknown", "{name}: {out}");
    }
}
