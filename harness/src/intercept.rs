//! A proxy that stands between a client and its server and hands every request to somebody who decides what becomes of it:
//! it is passed on, changed, answered without the server, or its reply is lost on the way back.

use crate::failure::{OrBlame, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use std::io;
use std::sync::Arc;
use tokio::task::{AbortHandle, JoinSet};

/// A question on its way to the server.
#[derive(Clone, Debug)]
pub struct Question {
    /// How it is asked.
    pub method: Method,
    /// The path, with the query.
    pub path: String,
    /// Without `Host` and what frames the body.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// An answer on its way back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Without what frames the body.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A JSON document.
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: body.to_string().into(),
        }
    }
}

/// What comes back to the client.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer.
    Answer(Answer),
    /// Nothing: the connection is closed.
    Nothing,
}

/// Decides what becomes of requests.
pub trait Intercept: Send + Sync + 'static {
    /// Answers a question; the way leads to the server.
    ///
    /// # Errors
    /// When the server was asked and did not answer; the client is then told 502.
    fn answer(
        &self,
        question: Question,
        way: &Way,
    ) -> impl Future<Output = reqwest::Result<Reply>> + Send;
}

/// The way to the server.
pub struct Way {
    target: String,
    http: reqwest::Client,
}

impl Way {
    /// Asks the server.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn forward(&self, question: &Question) -> reqwest::Result<Answer> {
        let answer = self
            .http
            .request(
                question.method.clone(),
                format!("{}{}", self.target, question.path),
            )
            .headers(question.headers.clone())
            .body(question.body.clone())
            .send()
            .await?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);
        Ok(Answer {
            status,
            headers,
            body: answer.bytes().await?,
        })
    }
}

/// The proxy; it ends when it is dropped.
pub struct Interceptor {
    /// Where it listens, as a base URL in clear text.
    pub base: String,
    listener: AbortHandle,
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Interceptor {
    /// Listens on loopback, in front of `target`, a base URL without a slash at the end.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(
        target: &str,
        http: reqwest::Client,
        decides: impl Intercept,
    ) -> Result<Self> {
        let what = || format!("start a proxy in front of `{target}`");
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .or_environment(what)?;
        let base = format!("http://{}", listener.local_addr().or_environment(what)?);
        let way = Way {
            target: target.to_owned(),
            http,
        };
        let shared = Arc::new((way, decides));
        let task = tokio::spawn(async move {
            // Aborted with the listener, because the set is dropped with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let shared = shared.clone();
                        async move { serve(request, &shared.0, &shared.1).await }
                    });
                    let stream = hyper_util::rt::TokioIo::new(stream);
                    // A client that goes away is no concern of the proxy's, and one that is to get nothing is cut off by
                    // the error.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(stream, service)
                        .await;
                });
            }
        });
        Ok(Self {
            base,
            listener: task.abort_handle(),
        })
    }
}

async fn serve(
    request: Request<Incoming>,
    way: &Way,
    decides: &impl Intercept,
) -> io::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let mut question = Question {
        method: parts.method,
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: body.collect().await.map_err(io::Error::other)?.to_bytes(),
    };
    // Who intercepts wants to read what is answered.
    for header in [ACCEPT_ENCODING, CONTENT_LENGTH, HOST, TRANSFER_ENCODING] {
        question.headers.remove(header);
    }
    let answer = match decides.answer(question, way).await {
        Ok(Reply::Answer(answer)) => answer,
        Ok(Reply::Nothing) => return Err(io::Error::other("the reply is lost on purpose")),
        Err(error) => Answer {
            status: StatusCode::BAD_GATEWAY,
            headers: HeaderMap::new(),
            body: error.to_string().into(),
        },
    };
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}
