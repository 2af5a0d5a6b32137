//! HTTPS on loopback, against servers that do what Caddy never would.

use fleet_preflight::guard::Guard;
use fleet_preflight::web::{ANSWER, Https, NoPage, Request, Web};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedKey, IsCa, Issuer, KeyPair,
    generate_simple_self_signed,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A program that trusts this server's certificate, and where the server is.
struct Pair {
    https: Https,
    address: SocketAddr,
}

/// Serves one name with a certificate of its own.
fn serve(act: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Send + 'static) -> Pair {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["vale.test".to_owned()]).expect("a certificate");
    serve_with(&cert.pem(), vec![cert.der().clone()], &signing_key, act)
}

/// Serves this chain of certificates to a program that trusts this authority.
fn serve_with(
    trusted: &str,
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    act: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Send + 'static,
) -> Pair {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), trusted).expect("write it");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            chain,
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a configuration");
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            act(StreamOwned::new(connection, stream.expect("a stream")));
        }
    });
    Pair {
        https: Https::new(Some(file.path()), Guard::new(false, &[])).expect("a trust store"),
        address,
    }
}

fn request(address: SocketAddr, name: &str) -> Request {
    Request {
        address,
        certificate_name: name.to_owned(),
        host: "another.test:8448".to_owned(),
        path: "/path?query".to_owned(),
        limit: 1000,
    }
}

#[test]
fn host_and_path_are_sent_as_they_were_chosen_and_the_certificate_is_judged_for_its_own_name() {
    let pair = serve(|mut stream| {
        let mut seen = Vec::new();
        let mut byte = [0; 1];
        while !seen.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            seen.push(byte[0]);
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nX-Seen: yes\r\nContent-Length: {}\r\n\r\n",
            seen.len()
        );
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(&seen));
    });
    let page = pair
        .https
        .get(&request(pair.address, "vale.test"))
        .expect("a page");
    let seen = String::from_utf8(page.body.clone()).expect("UTF-8");
    assert!(seen.starts_with("GET /path?query HTTP/1.1\r\n"), "{seen}");
    let hosts: Vec<_> = seen
        .lines()
        .filter(|line| line.to_lowercase().starts_with("host:"))
        .collect();
    assert_eq!(hosts, ["host: another.test:8448"], "{seen}");
    assert_eq!(page.header("x-seen"), Some("yes"));
    assert!(
        page.certificate.is_valid(),
        "{:?}",
        page.certificate.refusal
    );
    // The page comes all the same, and the certificate is known not to hold.
    let page = pair
        .https
        .get(&request(pair.address, "another.test"))
        .expect("a page");
    assert!(!page.certificate.is_valid());
    assert_eq!(
        page.certificate.facts().expect("a certificate").names,
        ["vale.test"]
    );
}

#[test]
fn a_body_that_comes_drop_by_drop_does_not_hold_us_up() {
    let pair = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        while stream.write_all(b"x").and_then(|()| stream.flush()).is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let began = Instant::now();
    let error = pair
        .https
        .get(&request(pair.address, "vale.test"))
        .expect_err("never whole");
    assert!(matches!(error, NoPage::Timeout(_)), "{error}");
    assert!(began.elapsed() < ANSWER * 3, "{:?}", began.elapsed());
}

#[test]
fn a_body_beyond_the_limit_is_not_read() {
    let pair = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let error = pair
        .https
        .get(&request(pair.address, "vale.test"))
        .expect_err("too large");
    assert_eq!(error, NoPage::TooLarge(1000));
}

#[test]
fn each_way_of_not_answering_is_told_from_the_others() {
    let pair = serve(|mut stream| {
        let _ = stream.write_all(b"this is no HTTP\r\n\r\n");
    });
    let error = pair
        .https
        .get(&request(pair.address, "vale.test"))
        .expect_err("no answer");
    assert!(matches!(error, NoPage::Http(_)), "{error}");

    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = plain.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in plain.incoming().flatten() {
            let _ = (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let error = pair
        .https
        .get(&request(address, "vale.test"))
        .expect_err("no TLS");
    assert!(matches!(error, NoPage::Tls(_)), "{error}");

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = silent.local_addr().expect("an address");
    let error = pair
        .https
        .get(&request(address, "vale.test"))
        .expect_err("silence");
    assert_eq!(error, NoPage::Timeout(address));

    drop(silent);
    let error = pair
        .https
        .get(&request(address, "vale.test"))
        .expect_err("nobody");
    assert_eq!(error, NoPage::Refused(address));

    let production: SocketAddr = "143.198.27.163:443".parse().expect("an address");
    let error = pair
        .https
        .get(&request(production, "vale.test"))
        .expect_err("refused");
    assert!(matches!(error, NoPage::Forbidden(_)), "{error}");
}

/// With the intermediate certificate the chain holds, without it there is a hole in it.
#[test]
fn a_chain_with_a_hole_is_told_as_such() {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = rcgen::DnType::CommonName;
        params.distinguished_name.push(name, "an authority");
        (params, KeyPair::generate().expect("a key"))
    };
    let (root, root_key) = authority("root.test");
    let (mut middle, middle_key) = authority("middle.test");
    middle
        .distinguished_name
        .push(rcgen::DnType::CommonName, "the one between");
    let root_issuer = Issuer::from_params(&root, &root_key);
    let between = middle
        .signed_by(&middle_key, &root_issuer)
        .expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["vale.test".to_owned()])
        .expect("a name")
        .signed_by(&key, &Issuer::from_params(&middle, &middle_key))
        .expect("a certificate");
    let trusted = root.self_signed(&root_key).expect("a certificate").pem();
    for (chain, whole) in [
        (vec![own.der().clone(), between.der().clone()], true),
        (vec![own.der().clone()], false),
    ] {
        let pair = serve_with(&trusted, chain, &key, |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        });
        let page = pair
            .https
            .get(&request(pair.address, "vale.test"))
            .expect("a page");
        assert_eq!(page.certificate.is_valid(), whole);
        if !whole {
            let finding = page.certificate.judge(std::time::SystemTime::now());
            assert_eq!(finding.verdict, fleet_preflight::Verdict::Failed);
            assert!(
                finding.seen.contains("one certificate presented")
                    && finding.seen.contains("the one between")
                    && finding.hint.contains("intermediate"),
                "{finding:?}"
            );
        }
    }
}
