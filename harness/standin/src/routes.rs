//! What the stand-in answers: the few endpoints that the operating scripts ask, and `/standin/*` for the judges.

use std::{
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    http::{Reply, Request},
    knobs::Sources,
    settings::Settings,
    store::{Image, Store, media_path},
};

/// How long published keys are said to be valid (conduit-facts 6.4).
const KEYS_VALID: Duration = Duration::from_secs(7 * 24 * 3600);

/// What `GET /_matrix/client/versions` answers, as Conduit 0.10.12 (src/api/client_server/unversioned.rs:21-41).
const VERSIONS: &str = r#"{"versions":["r0.5.0","r0.6.0","v1.1","v1.2","v1.3","v1.4","v1.5","v1.6","v1.7","v1.8","v1.9","v1.10","v1.11","v1.12"],"unstable_features":{"org.matrix.e2e_cross_signing":true,"org.matrix.msc3916.stable":true,"org.matrix.simplified_msc3575":true}}"#;

/// The running server.
#[derive(Debug)]
pub struct Site {
    /// What it says its version is.
    pub version: String,
    pub settings: Settings,
    pub sources: Sources,
    pub store: Mutex<Store>,
}

/// Answers one request, or misbehaves as the knobs say at this moment.
pub fn answer(site: &Site, request: &Request) -> Reply {
    let knobs = match site.sources.load() {
        Ok(knobs) => knobs,
        Err(error) => {
            return json(
                500,
                format!(
                    r#"{{"errcode":"STANDIN_MISUSED","error":{}}}"#,
                    quoted(&error)
                ),
            );
        }
    };
    if knobs.hang {
        return Reply::Never;
    }
    if knobs.answer_500 {
        return Reply::Answer(500, "text/plain", String::new());
    }
    route(site, request)
}

fn route(site: &Site, request: &Request) -> Reply {
    let federation = || {
        // Not 404: Conduit answers so (conduit-facts 5.8, observed).
        (!site.settings.allow_federation)
            .then(|| error(500, "M_UNKNOWN", "M_UNKNOWN: Federation is disabled."))
    };
    let store = || site.store.lock().unwrap_or_else(PoisonError::into_inner);
    let name = quoted(&site.settings.server_name);
    match (request.method.as_str(), request.path.as_str()) {
        ("GET" | "HEAD", "/") => Reply::Answer(
            200,
            "text/plain; charset=utf-8",
            "Hello from Conduit!".to_owned(),
        ),
        ("GET" | "HEAD", "/_matrix/client/versions") => json(200, VERSIONS.to_owned()),
        ("GET" | "HEAD", "/_matrix/federation/v1/version") => federation().unwrap_or_else(|| {
            json(
                200,
                format!(
                    r#"{{"server":{{"name":"conduit-standin","version":{}}}}}"#,
                    quoted(&site.version)
                ),
            )
        }),
        ("GET" | "HEAD", path) if path.trim_end_matches('/') == "/_matrix/key/v2/server" => {
            federation().unwrap_or_else(|| {
                let key = store().key().clone();
                let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + KEYS_VALID;
                // No signature: the stand-in has no private key, and who verifies must see that.
                json(
                    200,
                    format!(
                        r#"{{"server_name":{name},"verify_keys":{{{}:{{"key":{}}}}},"old_verify_keys":{{}},"signatures":{{}},"valid_until_ts":{}}}"#,
                        quoted(&key.id),
                        quoted(&key.public),
                        until.as_millis()
                    ),
                )
            })
        }
        ("GET" | "HEAD", "/.well-known/matrix/client") => {
            // Conduit's URL type adds a slash (conduit-facts 5.12, observed).
            let base = format!("{}/", site.settings.well_known_client.trim_end_matches('/'));
            json(
                200,
                format!(r#"{{"m.homeserver":{{"base_url":{}}}}}"#, quoted(&base)),
            )
        }
        ("GET" | "HEAD", "/.well-known/matrix/server") => federation().unwrap_or_else(|| {
            json(
                200,
                format!(
                    r#"{{"m.server":{}}}"#,
                    quoted(&site.settings.well_known_server)
                ),
            )
        }),
        ("POST", "/_matrix/client/v3/register" | "/_matrix/client/r0/register") => error(
            403,
            "M_FORBIDDEN",
            "M_FORBIDDEN: Registration has been disabled.",
        ),
        ("POST", "/standin/write") => match String::from_utf8(request.body.clone()) {
            Ok(text) => written(
                store()
                    .put_record(&text)
                    .map(|sequence| format!(r#"{{"sequence":{sequence}}}"#)),
            ),
            Err(_) => error(400, "M_NOT_JSON", "a record has to be UTF-8"),
        },
        ("POST", "/standin/media") => written(
            store()
                .put_media(&request.body)
                .map(|path| format!(r#"{{"path":{}}}"#, quoted(&path))),
        ),
        ("GET", "/standin/records") => {
            // The lock is kept while the files are read, so that no rotation moves them away meanwhile.
            match store().image() {
                Ok(image) => json(
                    if image.corruptions.is_empty() {
                        200
                    } else {
                        500
                    },
                    describe(&image),
                ),
                Err(message) => error(500, "M_UNKNOWN", &format!("Corruption: {message}")),
            }
        }
        (
            _,
            "/"
            | "/_matrix/client/versions"
            | "/_matrix/key/v2/server"
            | "/_matrix/client/v3/register",
        ) => error(
            405,
            "M_UNRECOGNIZED",
            "M_UNRECOGNIZED: Unrecognized request",
        ),
        _ => error(
            404,
            "M_UNRECOGNIZED",
            "M_UNRECOGNIZED: Unrecognized request",
        ),
    }
}

fn written(outcome: std::io::Result<String>) -> Reply {
    match outcome {
        Ok(body) => json(200, body),
        Err(failure) => error(500, "M_UNKNOWN", &format!("IO error: {failure}")),
    }
}

fn describe(image: &Image) -> String {
    let list = |items: Vec<String>| items.join(",");
    let key = image.key.as_ref();
    format!(
        r#"{{"server_name":{},"database_version":{},"key_id":{},"public_key":{},"records":[{}],"media":[{}],"corruptions":[{}]}}"#,
        image
            .server_name
            .as_deref()
            .map_or_else(|| "null".to_owned(), quoted),
        image.version,
        key.map_or_else(|| "null".to_owned(), |key| quoted(&key.id)),
        key.map_or_else(|| "null".to_owned(), |key| quoted(&key.public)),
        list(
            image
                .records
                .iter()
                .map(|(sequence, text)| format!(
                    r#"{{"sequence":{sequence},"text":{}}}"#,
                    quoted(text)
                ))
                .collect()
        ),
        list(
            image
                .media
                .iter()
                .map(|digest| quoted(&media_path(digest)))
                .collect()
        ),
        list(
            image
                .corruptions
                .iter()
                .map(|corruption| quoted(corruption))
                .collect()
        ),
    )
}

fn json(status: u16, body: String) -> Reply {
    Reply::Answer(status, "application/json", body)
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    json(
        status,
        format!(
            r#"{{"errcode":{},"error":{}}}"#,
            quoted(code),
            quoted(message)
        ),
    )
}

/// `text` as a JSON string, RFC 8259 section 7.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
