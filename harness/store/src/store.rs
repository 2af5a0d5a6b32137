//! The store itself.

use crate::fault::{Fault, Trouble};
use crate::files::Files;
use bytes::Bytes;
use futures_util::stream;
use harness::wire::{Arrival, Wire};
use harness::world::World;
use harness::{Failure, OrBlame, Result};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;

const PORT: u16 = 9000;

type Problem = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Problem>>;

/// See the module.
pub struct ObjectStore {
    wire: Wire,
    inner: Arc<Inner>,
}

struct Inner {
    service: S3Service,
    files: TempDir,
    fault: Mutex<Option<Fault>>,
}

impl ObjectStore {
    /// The only access key that it knows.
    pub const KEY_ID: &str = "fleet-backup";
    /// Its secret.
    pub const SECRET: &str = "a-secret-of-the-lab";

    /// Opens an empty one in this world; it ends with the world.
    ///
    /// # Errors
    /// The environment's.
    pub async fn open(world: &World) -> Result<Self> {
        let what = || "open an object store in the lab".to_owned();
        let files = tempfile::tempdir().or_environment(what)?;
        let objects = FileSystem::new(files.path())
            .map_err(|error| Failure::environment(what()).because(format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(Files(objects));
        service.set_auth(SimpleAuth::from_single(Self::KEY_ID, Self::SECRET));
        let inner = Arc::new(Inner {
            service: service.build(),
            files,
            fault: Mutex::default(),
        });
        let (wire, arrivals) = world.wire(&[PORT]).await?;
        tokio::spawn(receive(inner.clone(), arrivals));
        Ok(Self { wire, inner })
    }

    /// A bucket of it, as restic names it.
    pub fn repository(&self, bucket: &str) -> String {
        format!("s3:http://{}:{PORT}/{bucket}", self.wire.address)
    }

    /// From now on this goes wrong, and nothing else does.
    pub fn breaks(&self, fault: Fault) {
        *lock(&self.inner.fault) = Some(fault);
    }

    /// How many requests were struck so far.
    pub fn struck(&self) -> usize {
        lock(&self.inner.fault)
            .as_ref()
            .map_or(0, |fault| fault.struck)
    }

    /// All is well again. Hands back how many requests were struck.
    pub fn heals(&self) -> usize {
        lock(&self.inner.fault)
            .take()
            .map_or(0, |fault| fault.struck)
    }

    /// The directory of this machine that has the objects of a bucket.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.inner.files.path().join(name)
    }
}

async fn receive(inner: Arc<Inner>, mut arrivals: mpsc::UnboundedReceiver<Arrival>) {
    while let Some(arrival) = arrivals.recv().await {
        let inner = inner.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(inner.clone(), request));
            // Who hangs up in the middle, or is hung up on, is no concern of the store.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(arrival.stream), service)
                .await;
        });
    }
}

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Answer, Problem> {
    let path = request.uri().path().to_owned();
    let trouble = {
        let mut fault = lock(&inner.fault);
        fault
            .as_mut()
            .and_then(|fault| fault.strikes(request.method(), &path))
    };
    match trouble {
        None => done(&inner, request).await,
        Some(Trouble::Answers(status, code)) => {
            // What is left unread would break the connection before the answer is seen.
            let _ = request.into_body().collect().await?;
            let text = format!(
                "<Error><Code>{code}</Code><Message>{code}, as the scenario ordered</Message></Error>"
            );
            let body = Full::from(text).map_err(Problem::from).boxed_unsync();
            Ok(Response::builder()
                .status(status)
                .header("content-type", "application/xml")
                .body(body)?)
        }
        Some(Trouble::CutsShort) => {
            let mut body = request.into_body();
            let half = body.size_hint().exact().unwrap_or_default() / 2;
            let mut seen = 0;
            while let Some(frame) = body.frame().await {
                seen += frame?.data_ref().map_or(0, |data| data.len() as u64);
                if seen >= half {
                    break;
                }
            }
            Err("cut short".into())
        }
        Some(Trouble::KeepsHalf) => {
            let answer = done(&inner, request).await?;
            if answer.status().is_success() {
                keep_half(&inner.files.path().join(path.trim_start_matches('/')))?;
            }
            Ok(answer)
        }
        Some(Trouble::NeverAnswers) => {
            let _ = request.into_body().collect().await?;
            std::future::pending().await
        }
        Some(Trouble::Trickles) => {
            let (head, body) = done(&inner, request).await?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            let slowly = stream::unfold(bytes, async |mut rest| {
                if rest.is_empty() {
                    return None;
                }
                // The pause is the fault itself.
                tokio::time::sleep(Duration::from_secs(1)).await;
                let first = rest.split_to(1);
                Some((Ok(Frame::data(first)), rest))
            });
            Ok(Response::from_parts(
                head,
                StreamBody::new(slowly).boxed_unsync(),
            ))
        }
    }
}

async fn done(inner: &Inner, request: Request<Incoming>) -> Result<Answer, Problem> {
    let answer = inner.service.call(request.map(s3s::Body::from)).await?;
    Ok(answer.map(BodyExt::boxed_unsync))
}

fn keep_half(object: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(object)?;
    let length = file.metadata()?.len();
    file.set_len(length / 2)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
