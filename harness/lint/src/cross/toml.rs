//! What `conduit.toml` with the variables on top of it comes to, and what the fleet's manifest says.

use super::fact::Fact;
use crate::catalogue;
use crate::conduit::File;
use crate::diagnostic::Label;
use crate::environment::{self, Variable};
use crate::source::Source;
use crate::value::{self, Data, Node, Place, Table};

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

impl Conduit {
    /// What a file and variables come to. A file that is not TOML says nothing here: that is the single file's own
    /// diagnostic.
    pub(crate) fn read(file: &File, variables: &[Variable]) -> Option<Self> {
        let effective = Effective {
            table: file.with(environment::layer(&certain(variables)))?,
            variables,
            // The table is where a default is best explained.
            default_at: Some(&file.header_line),
        };
        Some(Self {
            source: Some(file.source.clone()),
            ..effective.facts()
        })
    }

    /// What variables alone say: what their file says, and so a default, is not known.
    pub(crate) fn of_variables(variables: &[Variable]) -> Self {
        let effective = Effective {
            table: environment::layer(&certain(variables)),
            variables,
            default_at: None,
        };
        effective.facts()
    }
}

fn certain(variables: &[Variable]) -> Vec<Variable> {
    variables
        .iter()
        .filter(|variable| variable.certain)
        .cloned()
        .collect()
}

/// All layers together.
struct Effective<'a> {
    table: Table,
    variables: &'a [Variable],
    default_at: Option<&'a Place>,
}

impl Effective<'_> {
    fn facts(&self) -> Conduit {
        let server_name = self.text(&["server_name"]);
        let delegated = |path: [&str; 2], value: fn(&str) -> String| {
            self.text(&path).or_else(|| {
                let name = server_name.as_ref().filter(|_| self.default_at.is_some())?;
                Some(name.with(value(&name.value)))
            })
        };
        Conduit {
            source: None,
            address: self.text(&["address"]),
            port: self.number(&["port"]),
            max_request_size: self.number(&["max_request_size"]),
            well_known_server: delegated(["well_known", "server"], |name| {
                match split_host(name).1 {
                    Some(_) => name.to_owned(),
                    None => format!("{name}:443"),
                }
            }),
            well_known_client: delegated(["well_known", "client"], |name| {
                format!("https://{name}")
            }),
            database_path: self.text(&["database_path"]),
            media_path: self.text(&["media", "path"]),
            tls: self
                .node(&["tls"])
                .map(|node| Fact::at((), &node.place.first_line())),
            server_name,
        }
    }

    /// What is in force; `None` too where only systemd knows what a specifier comes to.
    fn node(&self, path: &[&str]) -> Option<Node> {
        let last = self.variables.iter().rfind(|variable| {
            catalogue::variable_path(&variable.name).is_some_and(|of| of == path)
        });
        if last.is_some_and(|variable| !variable.certain) {
            return None;
        }
        self.table.at(path).cloned().or_else(|| {
            let [key] = path else { return None };
            let default = catalogue::GLOBAL.key(key)?.default?;
            Some(value::from_variable(self.default_at?, default))
        })
    }

    fn text(&self, path: &[&str]) -> Option<Fact<String>> {
        text(&self.node(path)?)
    }

    fn number<T: TryFrom<i128> + ToString>(&self, path: &[&str]) -> Option<Fact<T>> {
        let node = self.node(path)?;
        let Data::Integer(number) = node.data else {
            return None;
        };
        let number = T::try_from(number).ok()?;
        let place = node.place.unquoted(&number.to_string());
        Some(Fact::at(number, &place))
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
pub fn manifest(source: &Source) -> Result<Option<Fact<String>>, Label> {
    let document = value::from_toml(source)?;
    Ok(document.value("server_name").and_then(text))
}

fn text(node: &Node) -> Option<Fact<String>> {
    let text = node.text()?;
    Some(Fact::at(text.to_owned(), &node.place.unquoted(text)))
}
