//! The part of Conduit's configuration that the stand-in needs, read with the traps that Conduit's own reading has.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

/// Why the stand-in does not start: what Conduit would print on standard error, and its exit code.
#[derive(Debug)]
pub struct Refusal {
    /// 1 for what Conduit checks, 101 for what makes it panic (conduit-facts 3.3).
    pub code: i32,
    /// For standard error.
    pub message: String,
}

impl Refusal {
    /// A refusal with code 1.
    pub fn checked(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }
}

/// What the configuration says.
#[derive(Debug)]
pub struct Settings {
    pub server_name: String,
    pub database_path: PathBuf,
    pub address: IpAddr,
    pub port: u16,
    /// Off unless switched on, as in Conduit's code (src/config/mod.rs:62), not as in its documentation.
    pub allow_federation: bool,
    pub well_known_client: String,
    pub well_known_server: String,
}

impl Settings {
    /// Reads the file that `CONDUIT_CONFIG` names and the `CONDUIT_*` variables, which win.
    ///
    /// # Errors
    ///
    /// As Conduit (conduit-facts 1.1 and 3.3): an unset `CONDUIT_CONFIG` is a panic (101); a missing key, a value of
    /// the wrong kind, a bare key at the top or an unknown backend exit with 1. A file that does not exist reads as an
    /// empty one.
    pub fn read(config_path: Option<&str>) -> Result<Self, Refusal> {
        let Some(config_path) = config_path else {
            return Err(Refusal {
                code: 101,
                message: "thread 'main' panicked: The CONDUIT_CONFIG env var needs to be set. Example: /etc/conduit.toml"
                    .to_owned(),
            });
        };
        let text = fs::read_to_string(config_path).unwrap_or_default();
        let entries = scan(&text)?;
        let get = |key: &str| {
            let variable = format!("CONDUIT_{}", key.replace('.', "_").to_ascii_uppercase());
            std::env::var(variable).ok().or_else(|| {
                entries
                    .iter()
                    .rev()
                    .find(|(name, _)| name == key)
                    .map(|(_, value)| value.clone())
            })
        };
        let need = |key: &str| {
            get(key).ok_or_else(|| {
                Refusal::checked(format!(
                    "It looks like your config is invalid. The following error occurred: missing field `{key}`"
                ))
            })
        };

        let server_name = need("server_name")?;
        if need("database_backend")? != "rocksdb" {
            return Err(Refusal::checked(
                "Database backend not found. (conduit-standin knows only `rocksdb`)",
            ));
        }
        let database_path = PathBuf::from(need("database_path")?);
        Ok(Self {
            address: parsed("address", get("address"), IpAddr::V4(Ipv4Addr::LOCALHOST))?,
            port: parsed("port", get("port").map(|port| port.replace('_', "")), 8000)?,
            allow_federation: parsed("allow_federation", get("allow_federation"), false)?,
            well_known_client: get("well_known.client")
                .unwrap_or_else(|| format!("https://{server_name}")),
            well_known_server: get("well_known.server")
                .unwrap_or_else(|| format!("{server_name}:443")),
            server_name,
            database_path,
        })
    }
}

fn parsed<T: std::str::FromStr>(
    key: &str,
    value: Option<String>,
    default: T,
) -> Result<T, Refusal> {
    value.map_or(Ok(default), |value| {
        let wrong = format!("It looks like your config is invalid: invalid type: found `{value}` for key \"global.{key}\"");
        value.parse().map_err(|_| Refusal::checked(wrong))
    })
}

/// The `key = value` lines of `[global]` and `[global.well_known]`, the latter with a prefix. Every other table is
/// dropped without a word, as Conduit does (src/main.rs:67: they are figment profiles).
fn scan(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut entries = Vec::new();
    let mut table: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').filter(|_| !line.contains('=')) {
            let name = header
                .trim_start_matches('[')
                .split(']')
                .next()
                .unwrap_or_default();
            table = Some(name.trim().to_owned());
            continue;
        }
        let Some((key, rest)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let prefix = match table.as_deref() {
            None => {
                return Err(Refusal::checked(format!(
                    "It looks like your config is invalid: line {}: key `{}` stands outside of any table",
                    index + 1,
                    key.trim()
                )));
            }
            Some("global") => "",
            Some("global.well_known") => "well_known.",
            Some(_) => continue,
        };
        entries.push((format!("{prefix}{}", key.trim()), value_of(rest)));
    }
    Ok(entries)
}

/// A TOML string without its quotes, or a bare value without its comment.
fn value_of(rest: &str) -> String {
    let rest = rest.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = rest.strip_prefix(quote) {
            return inner.split(quote).next().unwrap_or_default().to_owned();
        }
    }
    rest.split('#').next().unwrap_or_default().trim().to_owned()
}
