//! HTTPS to an address that we chose, under a name that we chose, whatever certificate is presented.
//!
//! A certificate that does not hold is noted and not acted upon: its verdict is one check, and what stands behind it
//! is another. That gives nothing away, for nothing secret is ever sent. Who must not go on, asks
//! [`Page::certificate`].

use crate::certificate::Presented;
use crate::guard::Guard;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one answer may take: longer than the kit's Caddy has a request wait for Conduit (`lb_try_duration`), so that its
/// answer for a server that is down is seen.
pub const ANSWER: Duration = Duration::from_secs(15);

/// What is wanted of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where to connect.
    pub address: SocketAddr,
    /// The name that the certificate must carry: a domain name or an IP address.
    pub certificate_name: String,
    /// The `Host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// The largest body that is read.
    pub limit: u64,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Page {
    /// The status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Cut off nowhere: a body beyond the limit is an error.
    pub body: Vec<u8>,
    /// What the server showed of itself.
    pub certificate: Presented,
    /// When the answer's head arrived, by our clock.
    pub arrived: SystemTime,
}

impl Page {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Why there is no page, by how far we came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPage {
    /// We must not go there, see [`Guard`].
    Forbidden(String),
    /// Nobody listens there.
    Refused(SocketAddr),
    /// Nothing came back in time: a firewall drops, or the host is down.
    Timeout(SocketAddr),
    /// The last router, or this machine on its own link, says that the host is not there.
    Down(SocketAddr),
    /// This machine has no way there: no IPv6, no network. Nothing is known about the host.
    NoRoute(SocketAddr),
    /// The connection stands, TLS does not.
    Tls(String),
    /// TLS stands, the answer is none.
    Http(String),
    /// The body is larger than we read.
    TooLarge(u64),
}

impl fmt::Display for NoPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(why) => f.write_str(why),
            Self::Refused(address) => write!(f, "nobody listens on {address}"),
            Self::Timeout(address) => write!(f, "{address} did not answer in time"),
            Self::Down(address) => write!(f, "no host has the address of {address}"),
            Self::NoRoute(address) => write!(f, "this machine has no route to {address}"),
            Self::Tls(error) => write!(f, "TLS failed: {error}"),
            Self::Http(error) => write!(f, "no HTTP answer: {error}"),
            Self::TooLarge(limit) => write!(f, "the answer is larger than {limit} bytes"),
        }
    }
}

/// Whoever fetches pages.
pub trait Web: Send + Sync {
    /// Fetches one page; follows nothing.
    ///
    /// # Errors
    /// How far it came.
    fn get(&self, request: &Request) -> Result<Page, NoPage>;
}

/// The real one.
pub struct Https {
    roots: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    guard: Guard,
}

impl Https {
    /// Trusts the authorities in this file, else those that the system trusts.
    ///
    /// # Errors
    /// There are none.
    pub fn new(ca_file: Option<&Path>, guard: Guard) -> Result<Self, String> {
        use rustls::pki_types::pem::PemObject;
        let mut store = RootCertStore::empty();
        let from = match ca_file {
            Some(file) => {
                let what = |error: &dyn fmt::Display| {
                    format!(
                        "cannot read the authorities in `{}`: {error}",
                        file.display()
                    )
                };
                for certificate in
                    CertificateDer::pem_file_iter(file).map_err(|error| what(&error))?
                {
                    let certificate = certificate.map_err(|error| what(&error))?;
                    store.add(certificate).map_err(|error| what(&error))?;
                }
                file.display().to_string()
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                store.add_parsable_certificates(found.certs);
                "the system's certificate store".to_owned()
            }
        };
        if store.is_empty() {
            return Err(format!("no authority in {from}"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
                .build()
                .map_err(|error| format!("cannot use {from}: {error}"))?;
        Ok(Self {
            roots,
            provider,
            guard,
        })
    }

    /// Connects, no more.
    ///
    /// # Errors
    /// How far it came.
    pub fn reach(&self, address: SocketAddr) -> Result<TcpStream, NoPage> {
        self.guard
            .allows_address(address.ip())
            .map_err(NoPage::Forbidden)?;
        TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => NoPage::Refused(address),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => NoPage::Timeout(address),
            ErrorKind::HostUnreachable => NoPage::Down(address),
            ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => NoPage::NoRoute(address),
            _ => NoPage::Http(format!("{address}: {error}")),
        })
    }

    fn handshake(
        &self,
        request: &Request,
    ) -> Result<(StreamOwned<ClientConnection, TcpStream>, Presented), NoPage> {
        let tls = |error: &dyn fmt::Display| NoPage::Tls(error.to_string());
        let name = match request.certificate_name.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(request.certificate_name.clone())
                .map_err(|error| tls(&error))?,
        };
        let witness = Arc::new(Witness {
            roots: Arc::clone(&self.roots),
            seen: Mutex::default(),
        });
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut connection =
            ClientConnection::new(Arc::new(config), name).map_err(|error| tls(&error))?;
        let mut stream = self.reach(request.address)?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(|error| tls(&error))?;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut stream)
                .map_err(|error| match error.kind() {
                    ErrorKind::TimedOut | ErrorKind::WouldBlock => NoPage::Timeout(request.address),
                    _ => NoPage::Tls(format!("{} on {}", error, request.address)),
                })?;
        }
        let presented = witness
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Ok((StreamOwned::new(connection, stream), presented))
    }
}

impl Web for Https {
    fn get(&self, request: &Request) -> Result<Page, NoPage> {
        let (stream, certificate) = self.handshake(request)?;
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(ANSWER))
            .proxy(None)
            .user_agent("fleet-preflight")
            .build();
        let agent = ureq::Agent::with_parts(
            config,
            Ready(Mutex::new(Some(stream))),
            Pinned(request.address),
        );
        // The scheme says what ureq must do, and the TLS is done already.
        let answer = agent
            .get(format!("http://{}{}", request.host, request.path))
            .header("Host", &request.host)
            .header("Accept", "*/*")
            .call();
        let arrived = SystemTime::now();
        let timed_out = |error: ureq::Error| match error {
            ureq::Error::Timeout(_) => NoPage::Timeout(request.address),
            ureq::Error::BodyExceedsLimit(limit) => NoPage::TooLarge(limit),
            other => NoPage::Http(other.to_string()),
        };
        let mut answer = answer.map_err(timed_out)?;
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let body = answer
            .body_mut()
            .with_config()
            .limit(request.limit)
            .read_to_vec()
            .map_err(timed_out)?;
        Ok(Page {
            status: answer.status().as_u16(),
            headers,
            body,
            certificate,
            arrived,
        })
    }
}

/// Lets every certificate pass, and notes what is to be thought of it. Signatures of the handshake are verified: who
/// answers does hold the key of what he showed.
#[derive(Debug)]
struct Witness {
    roots: Arc<WebPkiServerVerifier>,
    seen: Mutex<Presented>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.roots.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let mut chain = vec![end_entity.as_ref().to_vec()];
        chain.extend(intermediates.iter().map(|one| one.as_ref().to_vec()));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Presented {
            name: server_name.to_str().into_owned(),
            chain,
            refusal: verified.err(),
        };
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Hands ureq the connection that stands already.
struct Ready(Mutex<Option<Stream>>);

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}

impl Connector for Ready {
    type Out = Established;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Established>, ureq::Error> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(stream.map(|stream| Established {
            stream,
            buffers: LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            ),
        }))
    }
}

struct Established {
    stream: Stream,
    buffers: LazyBuffers,
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Established")
    }
}

impl Established {
    fn timed<T>(
        &mut self,
        timeout: NextTimeout,
        act: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, ureq::Error> {
        let left = (*timeout.after).clamp(Duration::from_millis(1), ANSWER);
        self.stream.sock.set_read_timeout(Some(left))?;
        self.stream.sock.set_write_timeout(Some(left))?;
        act(self).map_err(|error| match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => ureq::Error::Timeout(timeout.reason),
            _ => ureq::Error::Io(error),
        })
    }
}

impl Transport for Established {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.timed(timeout, |this| {
            this.stream.write_all(&this.buffers.output()[..amount])?;
            this.stream.flush()
        })
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.timed(timeout, |this| {
            // A server that closes without a farewell is not uncommon; whether the body was whole, its length says.
            let amount = match this.stream.read(this.buffers.input_append_buf()) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
                other => other?,
            };
            this.buffers.input_appended(amount);
            Ok(amount > 0)
        })
    }

    fn is_open(&mut self) -> bool {
        // One connection, one request.
        false
    }
}

/// The address that was chosen.
#[derive(Debug)]
struct Pinned(SocketAddr);

impl Resolver for Pinned {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}
