//! A Wire leads the TCP ports of a small lab container to this process: whoever in the lab connects to its address
//! speaks with a scenario.
//!
//! The lab's network has no way out, and this machine need not have a way in: the connections travel over the standard
//! input and output of a program in the container (`wire.py`), which docker attaches. So a server that a scenario plays
//! has an address, ports and names like any other machine of the lab, needs no right on this machine, and ends with it.

use crate::failure::{Failure, OrBlame, Result};
use crate::image::Image;
use crate::world::World;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use testcontainers::core::Mount;
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};

const PROGRAM: &str = include_str!("wire.py");
/// A command to the program is a matter of milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// What one connection may have in flight.
const BUFFER: usize = 64 * 1024;

/// The kinds of frames, as `wire.py` numbers them.
mod kind {
    pub const OPENED: u8 = 0;
    pub const DATA: u8 = 1;
    pub const CLOSED: u8 = 2;
    pub const LISTEN: u8 = 3;
    pub const DEAF: u8 = 4;
    pub const DONE: u8 = 5;
}

/// A connection that somebody in the lab made.
pub struct Arrival {
    /// The port that was dialled.
    pub port: u16,
    /// The two ends of it.
    pub stream: DuplexStream,
}

/// See the module.
pub struct Wire {
    /// Its address in the lab.
    pub address: String,
    ports: Vec<u16>,
    frames: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
}

impl World {
    /// Makes a container whose ports are led to this process; it listens from now on. Connections arrive in their order.
    pub async fn wire(&self, ports: &[u16]) -> Result<(Wire, mpsc::UnboundedReceiver<Arrival>)> {
        let (wire, arrivals) = Wire::make(self, ports).await?;
        wire.listen().await?;
        Ok((wire, arrivals))
    }
}

impl Wire {
    async fn make(of: &World, ports: &[u16]) -> Result<(Self, mpsc::UnboundedReceiver<Arrival>)> {
        let world = of.inner();
        let what = || "lead a lab container's ports to the scenario".to_owned();
        let image = Image::Host;
        let making = crate::docker::making().await;
        let container = GenericImage::new(image.repository(), &image.tag())
            .with_cmd(["sleep", "infinity"])
            .with_network(&world.network)
            .with_labels(world.labels.pairs("wire"))
            .with_mount(Mount::tmpfs_mount("/run"))
            .with_copy_to("/lab/wire.py", PROGRAM.as_bytes().to_vec())
            .start()
            .await
            .or_environment(what)?;
        drop(making);
        let (id, address) = world.adopt(container, what).await?;
        of.made(&id);
        // Standard error is read with standard output: it must not get between the frames.
        let command = ["sh", "-c", "exec python3 /lab/wire.py 2> /lab/wire.log"];
        let attached = world.docker.attach(&id, &command).await?;
        let (frames, outgoing) = mpsc::unbounded_channel();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let waiting = Arc::<Mutex<Vec<_>>>::default();
        tokio::spawn(write(attached.input, outgoing));
        tokio::spawn(read(
            attached.output,
            frames.clone(),
            arrived,
            waiting.clone(),
        ));
        let wire = Self {
            address,
            ports: ports.to_vec(),
            frames,
            waiting,
        };
        Ok((wire, arrivals))
    }

    /// Answers connections again.
    pub async fn listen(&self) -> Result<()> {
        let ports: Vec<u8> = self.ports.iter().flat_map(|p| p.to_be_bytes()).collect();
        self.command(kind::LISTEN, &ports).await
    }

    /// Breaks every connection off and refuses new ones, as a machine does on which nothing runs.
    pub async fn refuse(&self) -> Result<()> {
        self.command(kind::DEAF, &[]).await
    }

    async fn command(&self, kind: u8, payload: &[u8]) -> Result<()> {
        let what = || format!("command the wire at {}", self.address);
        let (done, end) = oneshot::channel();
        lock(&self.waiting).push(done);
        self.frames
            .send(frame(0, kind, payload))
            .or_environment(what)?;
        tokio::time::timeout(PATIENCE, end)
            .await
            .or_environment(what)?
            .map_err(|_| {
                Failure::environment(what())
                    .because("its program ended")
                    .hint("see `/lab/wire.log` in the container, kept with `HARNESS_KEEP=1`")
            })
    }
}

fn frame(number: u32, kind: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(9 + payload.len());
    frame.put_u32(number);
    frame.put_u8(kind);
    frame.put_u32(payload.len().try_into().unwrap_or(u32::MAX));
    frame.put_slice(payload);
    frame.freeze()
}

async fn write(
    mut input: Pin<Box<dyn AsyncWrite + Send>>,
    mut frames: mpsc::UnboundedReceiver<Bytes>,
) {
    while let Some(frame) = frames.recv().await {
        if input.write_all(&frame).await.is_err() || input.flush().await.is_err() {
            return;
        }
    }
}

/// Until the program ends: then every connection ends, and whoever waits for a command is told.
async fn read(
    mut output: Pin<Box<dyn AsyncRead + Send>>,
    frames: mpsc::UnboundedSender<Bytes>,
    arrived: mpsc::UnboundedSender<Arrival>,
    waiting: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
) {
    let mut connections = HashMap::<u32, mpsc::UnboundedSender<Bytes>>::new();
    while let Ok((number, kind, payload)) = next(&mut output).await {
        match kind {
            kind::OPENED if payload.len() == 2 => {
                let (ours, theirs) = tokio::io::duplex(BUFFER);
                let (heard, hearing) = mpsc::unbounded_channel();
                connections.insert(number, heard);
                tokio::spawn(carry(number, ours, hearing, frames.clone()));
                let port = u16::from_be_bytes([payload[0], payload[1]]);
                let stream = theirs;
                if arrived.send(Arrival { port, stream }).is_err() {
                    break;
                }
            }
            kind::DATA => {
                if let Some(connection) = connections.get(&number) {
                    // Who no longer listens has hung up.
                    let _ = connection.send(payload);
                }
            }
            kind::CLOSED => {
                connections.remove(&number);
            }
            kind::DONE => {
                let mut waiting = lock(&waiting);
                if !waiting.is_empty() {
                    let _ = waiting.remove(0).send(());
                }
            }
            _ => break,
        }
    }
    lock(&waiting).clear();
}

async fn next(output: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u32, u8, Bytes)> {
    let number = output.read_u32().await?;
    let kind = output.read_u8().await?;
    let length = output.read_u32().await?;
    let mut payload = vec![0; usize::try_from(length).unwrap_or_default()];
    output.read_exact(&mut payload).await?;
    Ok((number, kind, payload.into()))
}

/// Carries one connection: what the lab says to the scenario, and what the scenario says to the lab.
async fn carry(
    number: u32,
    stream: DuplexStream,
    mut heard: mpsc::UnboundedReceiver<Bytes>,
    frames: mpsc::UnboundedSender<Bytes>,
) {
    let (mut said, mut hear) = tokio::io::split(stream);
    let inwards = async {
        while let Some(bytes) = heard.recv().await {
            if hear.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = hear.shutdown().await;
    };
    let outwards = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = said.read(&mut buffer).await {
            let _ = frames.send(frame(number, kind::DATA, &buffer[..length]));
        }
        let _ = frames.send(frame(number, kind::CLOSED, &[]));
    };
    tokio::join!(inwards, outwards);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
