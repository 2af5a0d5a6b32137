//! What is well-formed and yet dangerous, contradictory, or without effect.

use super::shape::{Judge, text_at};
use super::text::invalid_text;
use super::{FATAL, PANIC, likeness};
use crate::catalogue::{self, Status, Type};
use crate::diagnostic::{Code, Effect, Severity};
use crate::value::{Data, Entry, Node, Table};
use std::collections::BTreeSet;
use tracing_subscriber::EnvFilter;

impl Judge<'_> {
    pub(super) fn names(&mut self, table: &Table) {
        let Some((node, name)) = text_at(table, &["server_name"]) else {
            return;
        };
        if invalid_text(Type::ServerName, name).is_some() {
            return;
        }
        if name.len() > 246 {
            self.say(
                Code::LongServerName,
                Severity::Error,
                PANIC,
                format!("a server name of {} bytes", name.len()),
                node.place.label("panics after the database was made (exit 101): `@conduit:…` may have 255 bytes"),
            )
            .notes
            .push("246 bytes are the most (src/service/globals/mod.rs:200)".to_owned());
        }
        let host = name
            .rsplit_once(':')
            .filter(|(host, _)| {
                !host.ends_with(':') && (!host.starts_with('[') || host.ends_with(']'))
            })
            .map_or(name, |(host, _)| host);
        let odd = if host.is_empty() {
            Some("it has no host, so that nobody can find it")
        } else if name.chars().any(|char| char.is_ascii_uppercase()) {
            Some("capital letters make it another name than the one that DNS and other servers use")
        } else if host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
            Some("an address cannot be delegated nor moved to another machine")
        } else {
            None
        };
        if let Some(odd) = odd {
            self.warn(
                Code::ServerName,
                &node.place,
                format!("`{name}` as a server name"),
                odd,
            )
            .notes
            .push(
                "it is part of every user id and can never be changed (src/database/mod.rs:445)"
                    .to_owned(),
            );
        }
    }

    pub(super) fn database(&mut self, table: &Table) {
        let backend = text_at(table, &["database_backend"]);
        if let Some((node, "sqlite")) = backend {
            self.warn(
                Code::SqliteBackend,
                &node.place,
                "SQLite as the storage engine",
                "two servers can open this database at once, without a lock between them",
            )
            .notes
            .extend([
                "`rocksdb` is upstream's recommendation and locks its directory (docs/configuration.md)".to_owned(),
                "nothing converts one into the other later".to_owned(),
            ]);
        }
        if let Some((node, path)) = text_at(table, &["database_path"]) {
            let name = path
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or(path);
            if path.is_empty() {
                let rocksdb = matches!(backend, Some((_, "rocksdb")));
                let effect = if rocksdb { FATAL } else { Effect::InForce };
                self.say(
                    Code::DatabasePath,
                    Severity::Error,
                    effect,
                    "an empty database path",
                    node.place.label(if rocksdb {
                        "refused: RocksDB opens no nameless directory (exit 1)"
                    } else {
                        "the database lies where the server is started"
                    }),
                );
            } else if [".db", ".sqlite", ".sqlite3"]
                .iter()
                .any(|ending| name.ends_with(ending))
            {
                let shorter = path
                    .trim_end_matches('/')
                    .strip_suffix(name)
                    .unwrap_or("")
                    .trim_end_matches('/')
                    .to_owned();
                self.warn(
                    Code::DatabasePath,
                    &node.place,
                    format!("`database_path` is a directory, not a file like `{name}`"),
                    format!("a directory `{name}/` is made, with the database inside"),
                )
                .notes
                .extend([
                    format!("`{}` was probably meant, for a new server", if shorter.is_empty() { "/var/lib/matrix-conduit" } else { &shorter }),
                    format!("on an existing server do not shorten it: what is left there as `conduit.db` is taken for a SQLite database, and Conduit exits 1 (src/database/mod.rs:233); move the contents of `{name}/` up first"),
                ]);
            } else if path.starts_with('~') || path.contains('$') {
                self.warn(
                    Code::DatabasePath,
                    &node.place,
                    "a database path with a `~` or a `$`",
                    "taken literally: no shell reads it",
                );
            }
        }
        for path in [
            &["database_path"][..],
            &["media", "path"],
            &["tls", "certs"],
            &["tls", "key"],
        ] {
            if let Some((node, text)) = text_at(table, path)
                && (!text.is_empty() || path == ["media", "path"])
                && !text.starts_with(['/', '~', '$'])
            {
                let name = path.join(".");
                self.warn(
                    Code::RelativePath,
                    &node.place,
                    format!("`{name}` is a relative path"),
                    "counted from where the server is started: another directory, another server",
                );
            }
        }
    }

    pub(super) fn registration(&mut self, table: &Table) {
        let open = table
            .at(&["allow_registration"])
            .filter(|node| node.bool() == Some(true));
        let token = text_at(table, &["registration_token"]);
        match (open, token) {
            (_, Some((node, ""))) => {
                let open =
                    open.map(|node| node.place.label("without a token anybody could register"));
                let finding = self.say(
                    Code::EmptyToken,
                    Severity::Error,
                    FATAL,
                    "an empty registration token",
                    node.place.label("refused: `Registration token is empty` (exit 1), after the database was made"),
                );
                finding.related.extend(open);
                finding.notes.extend([
                    "write a long random token, or remove the line and close registration; upstream's example ships it empty (src/database/mod.rs:295)".to_owned(),
                    "what was made in the data directory stays; the next start uses it".to_owned(),
                ]);
            }
            (Some(open), None) if !self.partial => {
                self.warn(
                    Code::OpenRegistration,
                    &open.place,
                    "registration is open to anybody",
                    "no token is asked for, and guests need nothing at all",
                )
                .notes
                .extend([
                    "the first account that registers becomes the administrator (src/api/client_server/account.rs:273)".to_owned(),
                    "give a `registration_token`, or close registration".to_owned(),
                ]);
            }
            (None, Some((node, _))) if !self.partial => {
                self.say(
                    Code::TokenWithoutRegistration,
                    Severity::Warning,
                    Effect::Ignored,
                    "a registration token while registration is closed",
                    node.place.label("without effect: every registration is answered 403"),
                )
                .notes
                .push("it comes into force when an administrator says `allow-registration true` in `#admins`, until the next start".to_owned());
            }
            _ => {}
        }
    }

    pub(super) fn listener(&mut self, table: &Table) {
        let tls = table.at(&["tls"]);
        let address = text_at(table, &["address"])
            .and_then(|(node, text)| Some((node, text.parse::<std::net::IpAddr>().ok()?)));
        let loopback = address
            .as_ref()
            .is_none_or(|(_, address)| address.is_loopback());
        let port = match table.at(&["port"]).map(|node| (node, &node.data)) {
            Some((node, Data::Integer(port))) => Some((node, *port)),
            _ => None,
        };
        if let (Some((node, _)), false, None, false) = (&address, loopback, tls, self.partial) {
            let finding = self.warn(
                Code::PlainHttpExposed,
                &node.place,
                "plain HTTP on an address that others reach",
                "passwords and tokens cross the network in clear",
            );
            finding.notes.push("listen on 127.0.0.1 behind a proxy that has TLS; in a container, publish the port to loopback only".to_owned());
        }
        if let Some((node, 0)) = port {
            self.warn(
                Code::RandomPort,
                &node.place,
                "port 0",
                "another free port at each start, which nobody is told",
            );
        }
        if let (Some((node, 8448)), true, false) = (port, loopback, self.partial) {
            self.warn(
                Code::FederationPort,
                &node.place,
                "the federation port on loopback",
                "no other server reaches it, and no proxy can take 8448 on all addresses",
            )
            .notes
            .push("Conduit has one port for everything; 6167 behind a proxy that owns 443 and 8448 is customary".to_owned());
        }
        let Some(tls) = tls else { return };
        if loopback && !self.partial {
            let place = tls.place.clone();
            let finding = self.warn(
                Code::TlsOnLoopback,
                &place,
                "HTTPS on loopback",
                "a proxy must speak HTTPS to it and trust the certificate; plain HTTP is not answered",
            );
            if let Some((node, _)) = &address {
                finding
                    .related
                    .push(node.place.label("only this machine reaches it"));
            }
            finding.notes.push(
                "certificates are read once, at the start: a renewal needs a restart".to_owned(),
            );
        }
        for name in ["certs", "key"] {
            if let Some((node, "")) = text_at(table, &["tls", name]) {
                self.say(
                    Code::TlsFiles,
                    Severity::Error,
                    PANIC,
                    format!("`tls.{name}` is empty"),
                    node.place
                        .label("panics after the database was opened (exit 101)"),
                );
            }
        }
    }

    pub(super) fn federation(&mut self, table: &Table) {
        if !self.partial && table.get("allow_federation").is_none() {
            let fix = self.insertion("allow_federation = true", false);
            let place = self.header.clone();
            let finding = self.say(
                Code::ImplicitFederation,
                Severity::Warning,
                Effect::None,
                "nothing says whether the server federates",
                place.label("`allow_federation` is missing: federation is off"),
            );
            finding.notes.push("the default is `false` in the code, whatever docs/configuration.md:45 says (src/config/mod.rs:62)".to_owned());
            finding.fix = fix;
        }
        match table.get("allow_check_for_updates") {
            None if self.partial => {}
            None => {
                let fix = self.insertion("allow_check_for_updates = false", false);
                let place = self.header.clone();
                let finding = self.say(
                    Code::UpdateCheck,
                    Severity::Warning,
                    Effect::None,
                    "nothing says whether the server looks for updates",
                    place.label(
                        "`allow_check_for_updates` is missing: conduit.rs is asked every hour",
                    ),
                );
                finding.notes.push(UPDATE_CHECK.to_owned());
                finding.fix = fix;
            }
            Some(entry) if entry.value.bool() == Some(true) => {
                self.warn(
                    Code::UpdateCheck,
                    &entry.value.place,
                    "the server looks for updates",
                    "conduit.rs is asked at the start and every hour",
                )
                .notes
                .push(UPDATE_CHECK.to_owned());
            }
            Some(_) => {}
        }
    }

    pub(super) fn well_known(&mut self, table: &Table) {
        // Without the server's name nothing can be compared; `text_at` then finds none.
        let name = text_at(table, &["server_name"]).map(|(_, name)| name);
        let server = text_at(table, &["well_known", "server"]);
        let client = text_at(table, &["well_known", "client"]);
        let url = client.and_then(|(node, text)| Some((node, url::Url::parse(text).ok()?)));
        if let Some((node, url)) = &url
            && (url.scheme() != "https" || url.host_str().is_none_or(str::is_empty))
        {
            self.warn(
                Code::WellKnown,
                &node.place,
                "`well_known.client` is no address that a client can use",
                format!("clients are told `{url}`"),
            )
            .notes
            .push("it is an `https://` URL with a host".to_owned());
        }
        let host = |server: &str| {
            server
                .rsplit_once(':')
                .map_or(server, |(host, _)| host)
                .to_owned()
        };
        if let Some((node, server)) = server {
            if !server.contains(':') {
                self.say(
                    Code::WellKnown,
                    Severity::Note,
                    Effect::InForce,
                    "`well_known.server` without a port",
                    node.place
                        .label("other servers look for an SRV record, then use 8448"),
                )
                .notes
                .push("with `:443` they use the port of the client API".to_owned());
            }
            if client.is_none() && name.is_some_and(|name| host(name) != host(server)) {
                self.warn(
                    Code::WellKnown,
                    &node.place,
                    "`well_known.server` is given, `well_known.client` is not",
                    "clients are still told `https://<server_name>`, another host",
                );
            }
        }
        if let (Some((node, url)), None) = (&url, server)
            && name.is_some_and(|name| url.host_str().is_some_and(|client| client != host(name)))
        {
            self.warn(
                Code::WellKnown,
                &node.place,
                "`well_known.client` is given, `well_known.server` is not",
                "other servers are still told `<server_name>:443`, another host",
            );
        }
    }

    pub(super) fn limits(&mut self, table: &Table) {
        let integer = |name: &str| match table
            .get(name)
            .map(|entry| (&entry.value, &entry.value.data))
        {
            Some((node, Data::Integer(number))) => Some((node, *number)),
            _ => None,
        };
        if let Some((node, size)) = integer("max_request_size") {
            if (0..1024).contains(&size) {
                self.warn(
                    Code::RequestSize,
                    &node.place,
                    "a request may have less than 1 KiB",
                    "the server logs an error and starts; hardly any request fits",
                )
                .notes
                .push("the unit is bytes (src/database/mod.rs:299)".to_owned());
            } else if (1024..1024 * 1024).contains(&size) {
                self.warn(
                    Code::RequestSize,
                    &node.place,
                    "a request may have less than 1 MiB",
                    "transactions of other servers and most uploads are refused",
                )
                .notes
                .push(
                    "the unit is bytes, and it limits every request, not uploads alone".to_owned(),
                );
            }
        }
        if let Some((node, 0)) = integer("max_concurrent_requests") {
            self.say(
                Code::NothingSent,
                Severity::Error,
                Effect::InForce,
                "no request may be sent at all",
                node.place.label("federation, bridges and push stand still"),
            )
            .notes
            .push("it counts the server's own requests, not those of clients (src/service/sending/mod.rs:110)".to_owned());
        }
        if let Some((node, 0)) = integer("cleanup_second_interval") {
            self.say(
                Code::CleanupPanics,
                Severity::Error,
                Effect::InForce,
                "a clean-up interval of 0",
                node.place.label(
                    "the clean-up task panics at the start, and a SIGHUP then ends the server",
                ),
            )
            .notes
            .push("a timer needs at least one second (src/database/mod.rs:1221)".to_owned());
        }
        for name in [
            "pdu_cache_capacity",
            "db_cache_capacity_mb",
            "conduit_cache_capacity_modifier",
        ] {
            let none = match table.at(&[name]).map(|node| &node.data) {
                Some(Data::Integer(number)) => *number <= 0 && *number >= i128::from(i64::MIN),
                Some(Data::Float(number)) => *number <= 0.0 || number.is_nan(),
                _ => false,
            };
            if let (true, Some(node)) = (none, table.value(name)) {
                self.warn(
                    Code::CacheOff,
                    &node.place,
                    format!("`{name}` leaves no cache"),
                    "everything is read from disk each time",
                );
            }
        }
        if let Some((node, version)) = text_at(table, &["default_room_version"]) {
            let unstable = catalogue::UNSTABLE_ROOM_VERSIONS.contains(&version);
            let allowed = table
                .at(&["allow_unstable_room_versions"])
                .is_none_or(|node| node.bool() == Some(true));
            if unstable && allowed {
                self.warn(
                    Code::RoomVersion,
                    &node.place,
                    format!("room version {version} for new rooms"),
                    "it has known weaknesses; 12 is the default",
                );
            } else if !catalogue::STABLE_ROOM_VERSIONS.contains(&version)
                && invalid_text(Type::RoomVersion, version).is_none()
            {
                self.say(
                    Code::RoomVersion,
                    Severity::Error,
                    Effect::Ignored,
                    format!("room version `{version}` is not supported"),
                    node.place.label("replaced: the server logs an error and takes 12"),
                )
                .notes
                .push("6 to 12 are, 3 to 5 with `allow_unstable_room_versions` (src/service/globals/mod.rs:183)".to_owned());
            }
        }
    }

    pub(super) fn logs(&mut self, table: &Table) {
        let on = |name: &str| {
            table
                .get(name)
                .filter(|entry| entry.value.bool() == Some(true))
        };
        let (jaeger, flame) = (on("allow_jaeger"), on("tracing_flame"));
        if let Some(entry) = jaeger {
            self.warn(
                Code::LogsReplaced,
                &entry.value.place,
                "traces are sent instead of logs being written",
                "nothing appears in the journal any more",
            )
            .notes
            .extend([
                "the three are alternatives (src/main.rs:109-170)".to_owned(),
                "without a collector on 127.0.0.1:4317 the server may never answer: it waits for each trace to be taken \
                 (seen on 2 cores with `log = \"info\"`: 12 starts of 12)"
                    .to_owned(),
            ]);
        }
        match (jaeger, flame) {
            (Some(jaeger), Some(flame)) => {
                let winner = jaeger.value.place.label("this one is taken");
                self.say(
                    Code::Overridden,
                    Severity::Warning,
                    Effect::Ignored,
                    "`tracing_flame` beside `allow_jaeger`",
                    flame.value.place.label("ignored"),
                )
                .related
                .push(winner);
            }
            (None, Some(flame)) => {
                self.warn(
                    Code::LogsReplaced,
                    &flame.value.place,
                    "a flame graph's data are written instead of logs",
                    "nothing appears in the journal; `tracing.folded` grows where the server is started",
                )
                .notes
                .push("where that directory is read-only (`ProtectSystem=strict`), the server panics (src/main.rs:147)".to_owned());
            }
            _ => {}
        }
        let Some((node, log)) = text_at(table, &["log"]) else {
            return;
        };
        // Conduit asks the same library (src/main.rs:151), and takes `warn` for all of it where that refuses a part.
        if let Err(error) = EnvFilter::try_new(log) {
            self.say(
                Code::LogFilter,
                Severity::Error,
                Effect::Ignored,
                format!("`{log}` is no filter of log lines: {error}"),
                node.place.label("the whole filter is replaced by `warn`"),
            )
            .notes
            .push("a directive is a level, or `module=level`; off, error, warn, info, debug and trace are levels".to_owned());
            return;
        }
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let level = |text: &str| {
            LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
                || matches!(text, "0" | "1" | "2" | "3" | "4" | "5")
        };
        for directive in log.split(',').map(str::trim) {
            let near = LEVELS.iter().any(|level| {
                likeness(directive, level) >= 0.6 || directive.to_lowercase().starts_with(level)
            });
            if !directive.is_empty()
                && !directive.contains(['=', '[', '{'])
                && !level(directive)
                && near
            {
                self.warn(
                    Code::LogFilter,
                    &node.place,
                    format!("`{directive}` is no log level"),
                    "taken for the name of a module, of which everything is logged",
                )
                .notes
                .push("off, error, warn, info, debug and trace are".to_owned());
            }
        }
    }

    pub(super) fn turn_legacy(&mut self, table: &Table) {
        let given: Vec<&Entry> = table
            .entries
            .iter()
            .filter(|entry| {
                catalogue::GLOBAL
                    .key(&entry.key)
                    .is_some_and(|key| matches!(key.status, Status::Deprecated { .. }))
            })
            .collect();
        let Some(first) = given.first() else { return };
        if let Some(turn) = table.get("turn") {
            for entry in given {
                self.say(
                    Code::Overridden,
                    Severity::Warning,
                    Effect::Ignored,
                    format!("`{}` beside `[global.turn]`", entry.key),
                    entry.key_place.label("ignored"),
                )
                .related
                .push(turn.key_place.label("this table is taken as a whole"));
            }
            return;
        }
        let is_text = |name: &str| text_at(table, &[name]).is_some();
        let secret = is_text("turn_secret");
        let pair = is_text("turn_username") && is_text("turn_password");
        let uris = table.get("turn_uris").is_some();
        if self.partial {
            return;
        }
        if !uris || !(secret || pair) {
            let lacks = if !uris {
                "`turn_uris`"
            } else {
                "`turn_secret`, or both `turn_username` and `turn_password`"
            };
            let place = first.key_place.clone();
            self.say(
                Code::IncompleteTurn,
                Severity::Error,
                Effect::Ignored,
                format!("the TURN settings lack {lacks}"),
                place.label("dropped: clients are told of no TURN server (404)"),
            )
            .notes
            .push("Conduit takes all of them or none (src/config/mod.rs:197)".to_owned());
        } else if secret {
            for name in ["turn_username", "turn_password"] {
                if let Some(entry) = table.get(name) {
                    self.say(
                        Code::TurnCredentials,
                        Severity::Warning,
                        Effect::Ignored,
                        format!("`{name}` beside `turn_secret`"),
                        entry.key_place.label("ignored: the secret is taken"),
                    );
                }
            }
        }
        for entry in given
            .into_iter()
            .filter(|entry| !entry.value.from_environment())
        {
            if let Some(Status::Deprecated { instead }) =
                catalogue::GLOBAL.key(&entry.key).map(|key| key.status)
            {
                self.warn(
                    Code::DeprecatedKey,
                    &entry.key_place,
                    format!("`{}` is deprecated", entry.key),
                    "works as yet; upstream means to warn and never does",
                )
                .notes
                .push(format!("write `{instead}` (src/config/mod.rs:557)"));
            }
        }
    }

    pub(super) fn secrets(&mut self, table: &Table) {
        if let Some((node, password)) = text_at(table, &["emergency_password"]) {
            self.warn(
                Code::EmergencyPassword,
                &node.place,
                "the emergency password is set",
                "whoever knows it logs in as `@conduit`, who may do everything",
            )
            .notes
            .push("remove it once it was used, and log its sessions out: they outlive it (src/database/mod.rs:1456)".to_owned());
            self.weak(node, "emergency_password", password, 12);
        }
        if let Some((node, secret)) = text_at(table, &["jwt_secret"]) {
            self.weak(node, "jwt_secret", secret, 32);
        }
        if let Some((node, token)) = text_at(table, &["registration_token"])
            && !token.is_empty()
        {
            self.weak(node, "registration_token", token, 8);
        }
        for path in [
            &["server_name"][..],
            &["registration_token"],
            &["turn", "secret"],
            &["turn_secret"],
            &["jwt_secret"],
            &["emergency_password"],
            &["well_known", "server"],
            &["well_known", "client"],
        ] {
            if let Some((node, text)) = text_at(table, path) {
                let plain = text.to_lowercase();
                if PLACEHOLDERS
                    .iter()
                    .any(|placeholder| plain.contains(placeholder))
                {
                    let name = path.join(".");
                    self.warn(
                        Code::Placeholder,
                        &node.place,
                        format!("`{name}` still has the text of an example"),
                        "put your own in its place",
                    );
                }
            }
        }
    }

    fn weak(&mut self, node: &Node, name: &str, secret: &str, least: usize) {
        if secret.len() >= least {
            return;
        }
        let why = match name {
            "jwt_secret" => {
                "whoever guesses it logs in as any account; nothing slows the guessing down"
            }
            "registration_token" => "can be guessed: Conduit limits no attempts",
            _ => "can be guessed: Conduit limits no logins",
        };
        let severity = if secret.is_empty() {
            Severity::Error
        } else {
            Severity::Warning
        };
        self.say(
            Code::WeakSecret,
            severity,
            Effect::InForce,
            format!("`{name}` has {} bytes", secret.len()),
            node.place.label(why),
        )
        .notes
        .push(format!(
            "take {least} or more random ones: `openssl rand -base64 32`"
        ));
    }

    pub(super) fn ignored_keys(&mut self, table: &Table) {
        let Some(entry) = table.get("ignored_keys") else {
            return;
        };
        let Some(list) = entry.value.list() else {
            return;
        };
        let listed = list.iter().any(|node| {
            let key = node
                .table()
                .and_then(|table| table.value("key"))
                .or_else(|| node.list().and_then(|list| list.first()));
            key.and_then(Node::text)
                .is_some_and(|text| text.trim_end_matches('=') == COMPROMISED_KEY)
        });
        if !listed && !list.iter().any(|node| node.text().is_some()) {
            self.warn(
                Code::CompromisedKey,
                &entry.key_place,
                "the compromised key of Element Server Suite is not ignored",
                "this list replaces the default one",
            )
            .notes
            .extend([
                format!("add `{{ key = \"{COMPROMISED_KEY}\" }}` (GHSA-qwcj-h6m8-vp6q)"),
                "the default list of 0.10.12 has the letters of that key in the place of the key, and ignores nothing (src/config/mod.rs:740)".to_owned(),
            ]);
        }
    }

    pub(super) fn retention(&mut self, table: &Table) {
        let Some(list) = table.at(&["media", "retention"]).and_then(Node::list) else {
            return;
        };
        let mut seen = BTreeSet::new();
        for node in list {
            let Some(entry) = node.table() else { continue };
            let scope = entry.get("scope");
            let scope_text = match scope.map(|scope| scope.value.text()) {
                Some(None) => continue,
                Some(Some(text)) => Some(text.to_owned()),
                None => None,
            };
            if !seen.insert(scope_text.clone()) {
                let place = scope
                    .map_or(&node.place, |scope| &scope.value.place)
                    .clone();
                let named = scope_text.as_ref().map_or("no scope".to_owned(), |scope| {
                    format!("the scope `{scope}`")
                });
                self.say(
                    Code::RepeatedScope,
                    Severity::Error,
                    Effect::Ignored,
                    format!("a second retention of {named}"),
                    place.label("ignored: the first one counts"),
                )
                .notes
                .push("Conduit keeps one entry per scope (src/config/mod.rs:449)".to_owned());
                continue;
            }
            if scope_text.is_none() {
                let space = entry.get("space").is_some();
                let finding = self.say(
                    Code::RetentionWithoutScope,
                    Severity::Error,
                    Effect::InForce,
                    "a media retention without `scope`",
                    node.place.label(if space {
                        "a bound on everything: what people here uploaded is deleted too"
                    } else {
                        "deletes what people here uploaded, and nothing else"
                    }),
                );
                finding.notes.extend([
                    "remote media and thumbnails have a default of their own, so that only `local` is left for it (src/config/mod.rs:404-441)".to_owned(),
                    "write `scope = \"remote\"`, `\"thumbnail\"` or `\"local\"`; local uploads exist nowhere else".to_owned(),
                ]);
            }
            for name in ["accessed", "created"] {
                if let Some((value, text)) = entry
                    .value(name)
                    .and_then(|node| Some((node, node.text()?)))
                    && humantime::parse_duration(text).is_ok_and(|duration| duration.is_zero())
                {
                    self.warn(
                        Code::RetentionAtOnce,
                        &value.place,
                        format!("`{name}` of no time at all"),
                        "media is deleted at the next clean-up, at most a minute later",
                    );
                }
            }
        }
    }
}

const UPDATE_CHECK: &str = "it posts what it is told into `#admins`, and gives a restore drill away; there is no other call home (src/database/mod.rs:1162)";
const COMPROMISED_KEY: &str = "l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og";
const PLACEHOLDERS: [&str; 6] = [
    "your.server.name",
    "your.turn.url",
    "add secret here",
    "changeme",
    "change_me",
    "change-me",
];
