//! What `conduit.toml` and the fleet's manifest say.

use super::fact::{Fact, first_line};
use crate::source::Source;
use std::ops::Range;
use toml_edit::{ImDocument, Item, TableLike};

/// What Conduit is configured to do, as far as other files speak of it too.
#[derive(Clone, Debug, Default)]
pub struct Conduit {
    /// The file.
    pub source: Option<Source>,
    /// The name of the site.
    pub server_name: Option<Fact<String>>,
    /// Where it listens; the place may be that of a default.
    pub address: Option<Fact<String>>,
    /// Where it listens; the place may be that of a default.
    pub port: Option<Fact<u16>>,
    /// Bytes of a request body.
    pub max_request_size: Option<Fact<u64>>,
    /// What it answers under `/.well-known/matrix/server`.
    pub well_known_server: Option<Fact<String>>,
    /// What it answers under `/.well-known/matrix/client`.
    pub well_known_client: Option<Fact<String>>,
    /// The directory of its database.
    pub database_path: Option<Fact<String>>,
    /// The directory of its media, where it is not below the database.
    pub media_path: Option<Fact<String>>,
    /// Whether it speaks TLS itself.
    pub tls: Option<Fact<()>>,
}

/// Conduit's defaults (v0.10.12, src/config/mod.rs).
const ADDRESS: &str = "127.0.0.1";
const PORT: u16 = 8000;
const MAX_REQUEST_SIZE: u64 = 20 * 1024 * 1024;

impl Conduit {
    /// Reads a configuration. One that is not TOML says nothing here: that is the single file's own diagnostic.
    pub fn read(source: &Source) -> Option<Self> {
        let document = ImDocument::parse(source.text()).ok()?;
        let reader = Reader {
            source,
            document: &document,
        };
        // The table is where a default is best explained; without it the server does not start, which is said elsewhere.
        let table = document
            .get("global")
            .or_else(|| document.get("default"))
            .and_then(Item::span)
            .map_or_else(|| first_line(source), |span| header(source, span));
        let here = Fact::new((), source, table);
        let server_name = reader.text(&["server_name"]);
        let named = |fact: &Fact<String>, value: String| fact.with(value);
        Some(Self {
            source: Some(source.clone()),
            address: reader
                .text(&["address"])
                .or_else(|| Some(here.with(ADDRESS.to_owned()))),
            port: reader.number(&["port"]).or_else(|| Some(here.with(PORT))),
            max_request_size: reader
                .number(&["max_request_size"])
                .or_else(|| Some(here.with(MAX_REQUEST_SIZE))),
            well_known_server: reader.text(&["well_known", "server"]).or_else(|| {
                let name = server_name.as_ref()?;
                let value = match split_host(&name.value).1 {
                    Some(_) => name.value.clone(),
                    None => format!("{}:443", name.value),
                };
                Some(named(name, value))
            }),
            well_known_client: reader.text(&["well_known", "client"]).or_else(|| {
                let name = server_name.as_ref()?;
                Some(named(name, format!("https://{}", name.value)))
            }),
            database_path: reader.text(&["database_path"]),
            media_path: reader.text(&["media", "path"]),
            tls: reader.place(&["tls"]),
            server_name,
        })
    }

    /// Applies a `CONDUIT_*` variable, which beats the file. `name` is without the prefix.
    pub fn override_with(&mut self, name: &str, value: &Fact<String>) {
        let number = || value.value.trim().parse::<u64>().ok();
        let text = || Some(value.with(value.value.trim_matches('"').to_owned()));
        match name.to_ascii_lowercase().as_str() {
            "server_name" => self.server_name = text(),
            "address" => self.address = text(),
            "port" => {
                if let Some(port) = number().and_then(|port| u16::try_from(port).ok()) {
                    self.port = Some(value.with(port));
                }
            }
            "max_request_size" => {
                if let Some(size) = number() {
                    self.max_request_size = Some(value.with(size));
                }
            }
            "well_known_server" => self.well_known_server = text(),
            "well_known_client" => self.well_known_client = text(),
            "database_path" => self.database_path = text(),
            "media_path" => self.media_path = text(),
            "tls_certs" | "tls_key" => self.tls = Some(value.with(())),
            _ => {}
        }
    }
}

/// `host:port`, with or without a port; an IPv6 literal keeps its brackets.
pub fn split_host(name: &str) -> (&str, Option<u16>) {
    match name.rsplit_once(':') {
        Some((host, port))
            if !port.contains(']') && (!host.contains(':') || host.ends_with(']')) =>
        {
            match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => (name, None),
            }
        }
        _ => (name, None),
    }
}

/// The server name of the fleet's manifest.
///
/// # Errors
/// Where it is not TOML, and why.
pub fn manifest(source: &Source) -> Result<Option<Fact<String>>, (Range<usize>, String)> {
    let document = ImDocument::parse(source.text()).map_err(|error| {
        (
            error.span().unwrap_or_else(|| first_line(source)),
            error.message().trim().replace('\n', ", "),
        )
    })?;
    Ok(document
        .get("server_name")
        .and_then(|item| text(source, item)))
}

struct Reader<'a> {
    source: &'a Source,
    document: &'a ImDocument<&'a str>,
}

impl Reader<'_> {
    /// Looks a key up as figment does: the profile `global` beats `default`, table by table.
    fn find(&self, path: &[&str]) -> Option<&Item> {
        ["global", "default"].into_iter().find_map(|profile| {
            let mut item = self.document.get(profile)?;
            for key in path {
                item = item.as_table_like().and_then(|table| table.get(key))?;
            }
            Some(item)
        })
    }

    fn text(&self, path: &[&str]) -> Option<Fact<String>> {
        text(self.source, self.find(path)?)
    }

    fn number<T: TryFrom<i64>>(&self, path: &[&str]) -> Option<Fact<T>> {
        let item = self.find(path)?;
        let value = T::try_from(item.as_integer()?).ok()?;
        Some(Fact::new(value, self.source, item.span()?))
    }

    fn place(&self, path: &[&str]) -> Option<Fact<()>> {
        let item = self.find(path)?;
        let inner = item
            .as_table_like()
            .and_then(|table: &dyn TableLike| table.iter().find_map(|(_, value)| value.span()));
        let span = item.span().or(inner)?;
        Some(Fact::new((), self.source, header(self.source, span)))
    }
}

fn text(source: &Source, item: &Item) -> Option<Fact<String>> {
    let value = item.as_str()?;
    let span = item.span()?;
    Some(Fact::new(
        value.to_owned(),
        source,
        unquoted(source, span, value),
    ))
}

/// Of a table the line that it begins with.
fn header(source: &Source, span: Range<usize>) -> Range<usize> {
    let text = source.text().get(span.clone()).unwrap_or("");
    span.start..span.start + text.find('\n').unwrap_or(text.len())
}

/// The span without the quotes, where what stands between them is the value itself.
fn unquoted(source: &Source, span: Range<usize>, value: &str) -> Range<usize> {
    let inner = span.start + 1..span.end.saturating_sub(1);
    if source.text().get(inner.clone()) == Some(value) {
        inner
    } else {
        span
    }
}
