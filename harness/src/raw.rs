//! What no HTTP client would send: bytes on a connection, to see what a proxy and the server behind it make of them.

use crate::failure::{Failure, OrBlame, Result};
use crate::verdict::Blame;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Who says nothing for so long will not.
const SILENCE: Duration = Duration::from_secs(20);

/// A connection that speaks nothing by itself.
pub struct Wire(Box<dyn Stream>);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Where a wire leads to.
#[derive(Clone, Debug)]
pub struct To {
    /// The port on this machine's loopback.
    pub port: u16,
    /// The name to ask for over TLS, and the root to trust; `None` for plain TCP.
    pub tls: Option<(String, String)>,
}

impl Wire {
    /// Connects, and over TLS makes sure of the certificate. Only to loopback.
    ///
    /// # Errors
    /// When nobody listens, or the certificate is not the lab's.
    pub fn open(to: &To) -> Result<Self> {
        let what = || format!("open a connection to port {}", to.port);
        let mut stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, to.port)).or_blame(Blame::Product, what)?;
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .and_then(|()| stream.set_write_timeout(Some(Duration::from_secs(20))))
            .or_environment(what)?;
        // Short only once the handshake is over: a pause in the middle of it would end it.
        let pause = Some(Duration::from_millis(100));
        let Some((name, root)) = &to.tls else {
            stream.set_read_timeout(pause).or_environment(what)?;
            return Ok(Self(Box::new(stream)));
        };
        crate::site::use_crypto();
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(root.as_bytes()).or_harness(what)?;
        roots.add(root).or_harness(what)?;
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(name.clone()).or_harness(what)?;
        let mut connection = ClientConnection::new(Arc::new(config), name).or_harness(what)?;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut stream)
                .or_blame(Blame::Product, what)?;
        }
        stream.set_read_timeout(pause).or_environment(what)?;
        Ok(Self(Box::new(StreamOwned::new(connection, stream))))
    }

    /// Puts bytes on it. Whether the other end still listens is seen by what it says.
    pub fn send(&mut self, bytes: &[u8]) {
        // A server that refuses in the middle of a request closes; that is an answer and not our failure.
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// What comes, until `enough` says so, the other end closes, or the limit passes.
    pub fn hear(&mut self, limit: Duration, enough: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + limit;
        let mut heard = Vec::new();
        let mut buffer = [0; 16384];
        while Instant::now() < deadline && !enough(&String::from_utf8_lossy(&heard)) {
            match self.0.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// The status line's number of the first answer in what was heard.
pub fn status(heard: &str) -> Option<u16> {
    heard.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// Sends a whole request on a connection of its own and hears the answer to the end; the request must ask to close.
///
/// # Errors
/// When no connection can be made. When nothing is heard: who hangs up or stays silent has not refused, and what became of
/// the request is unknown. A claim about just that listens to a [`Wire`] itself.
pub async fn ask(to: To, request: Vec<u8>) -> Result<String> {
    let answer = tokio::task::spawn_blocking(move || {
        let mut wire = Wire::open(&to)?;
        let mut heard = String::new();
        // A server that has heard enough answers and closes, and what is sent after that would take its answer with it.
        let mut parts = request.chunks(1 << 20);
        while let Some(part) = parts.next().filter(|_| heard.is_empty()) {
            wire.send(part);
            if parts.len() > 0 {
                heard = wire.hear(Duration::from_millis(1), |_| false);
            }
        }
        let began = Instant::now();
        heard += &wire.hear(SILENCE, |_| false);
        if heard.is_empty() {
            return Err(Failure::environment("hear an answer on a bare connection")
                .because(if began.elapsed() < SILENCE {
                    "the other end closed it without a word"
                } else {
                    "the other end said nothing for 20 s"
                })
                .hint("what became of the request is not known: look whether the server and the proxy still run"));
        }
        Ok(heard)
    });
    answer
        .await
        .map_err(|error| Failure::harness("ask over a bare connection").because(error))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;
    use std::net::TcpListener;

    /// Answers one connection with these bytes, and closes it.
    fn answering(bytes: &'static [u8]) -> To {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            stream.write_all(bytes).expect("it listens");
        });
        To { port, tls: None }
    }

    #[tokio::test]
    async fn a_connection_that_closes_without_a_word_has_not_refused() {
        let failure = ask(answering(b""), b"GET / HTTP/1.1\r\n\r\n".to_vec())
            .await
            .expect_err("nothing was heard");
        assert_eq!(failure.verdict(), Verdict::Unknown, "{failure}");
        assert!(failure.to_string().contains("closed it without a word"));
        let heard = ask(
            answering(b"HTTP/1.1 404 \r\n\r\n"),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        );
        assert_eq!(status(&heard.await.expect("an answer")), Some(404));
    }
}
