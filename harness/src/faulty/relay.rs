//! Faults in the bytes themselves. A library for HTTP would tidy a strange request on its way; what is to reach the
//! server as it was sent is carried here by hand, in clear text, to the server's own port.

use super::Mutant;
use crate::failure::{Failure, Result};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// The connection that everybody shares, once there is one.
type Shared = Arc<Mutex<Option<Buffered>>>;

/// Carries connections to `target`, a base URL in clear text, until it is dropped.
///
/// # Errors
/// When the target is not in clear text.
pub(super) fn carry(
    mutant: Mutant,
    listener: TcpListener,
    target: &str,
) -> Result<impl Future<Output = ()> + use<>> {
    let target = target
        .strip_prefix("http://")
        .ok_or_else(|| {
            Failure::harness(format!(
                "carry bytes to `{target}`: it is not in clear text"
            ))
        })?
        .trim_end_matches('/')
        .to_owned();
    Ok(async move {
        let shared = Shared::default();
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (target, shared) = (target.clone(), shared.clone());
            connections.spawn(async move {
                // Whichever end goes away: its other end sees that, and no more is to be done.
                let _ = match mutant {
                    Mutant::SharesOneConnection => take_turns(stream, &target, &shared).await,
                    _ => pass(mutant, stream, &target).await,
                };
            });
        }
    })
}

/// One connection to the server for each of a client's. The first request of it may be tidied.
async fn pass(mutant: Mutant, stream: TcpStream, target: &str) -> std::io::Result<()> {
    let mut client = Buffered::new(stream);
    let mut server = TcpStream::connect(target).await?;
    if mutant == Mutant::TidiesPaths {
        let head = client.head().await?;
        server.write_all(tidied(&head).as_bytes()).await?;
    }
    server.write_all(&client.read).await?;
    copy_bidirectional(&mut client.stream, &mut server).await?;
    Ok(())
}

/// The head with a path as a web server would look it up among its files.
fn tidied(head: &str) -> String {
    let mut words = head.splitn(3, ' ');
    let (Some(method), Some(path), Some(rest)) = (words.next(), words.next(), words.next()) else {
        return head.to_owned();
    };
    let mut kept = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    format!("{method} /{} {rest}", kept.join("/"))
}

/// What a proxy does that keeps one connection to its server and believes the first length that a request announces:
/// everybody waits while somebody's body is awaited, and what follows a body that was shorter than announced, or longer,
/// becomes the beginning of the next one's request.
async fn take_turns(stream: TcpStream, target: &str, shared: &Shared) -> std::io::Result<()> {
    let mut client = Buffered::new(stream);
    loop {
        let head = client.head().await?;
        let mut turn = shared.lock().await;
        let body = client.take(length(&head).unwrap_or_default()).await?;
        let server = match turn.as_mut() {
            Some(server) => server,
            None => turn.insert(Buffered::new(TcpStream::connect(target).await?)),
        };
        let answer = answer(server, &head, &body).await;
        if answer.is_err() {
            *turn = None;
        }
        client.stream.write_all(&answer?).await?;
        if head.to_lowercase().contains("\r\nconnection: close") {
            return Ok(());
        }
    }
}

async fn answer(server: &mut Buffered, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    server.stream.write_all(head.as_bytes()).await?;
    server.stream.write_all(body).await?;
    let head = server.head().await?;
    let mut answer = head.clone().into_bytes();
    if let Some(length) = length(&head) {
        answer.extend(server.take(length).await?);
        return Ok(answer);
    }
    while head.to_lowercase().contains("transfer-encoding: chunked") {
        let line = server.until(b"\r\n").await?;
        let size = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
        answer.extend(line);
        answer.extend(server.take(size + 2).await?);
        if size == 0 {
            break;
        }
    }
    Ok(answer)
}

/// The first length that a head announces.
fn length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    })
}

/// A connection, and what was read of it without being used yet.
struct Buffered {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Buffered {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    async fn more(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn take(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        while self.read.len() < count {
            self.more().await?;
        }
        Ok(self.read.drain(..count).collect())
    }

    async fn until(&mut self, end: &[u8]) -> std::io::Result<Vec<u8>> {
        loop {
            let found = self.read.windows(end.len()).position(|part| part == end);
            match found {
                Some(at) => return self.take(at + end.len()).await,
                None => self.more().await?,
            }
        }
    }

    /// The lines before a body.
    async fn head(&mut self) -> std::io::Result<String> {
        let head = self.until(b"\r\n\r\n").await?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    }
}
