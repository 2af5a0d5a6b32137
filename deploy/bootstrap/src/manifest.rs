//! The manifest: which accounts and rooms a site should have.
//!
//! [`Manifest::parse`] reads TOML and reports *every* fault with line and column; what it returns is consistent, so
//! that nothing after it needs to check again. Names in a manifest are local (`ezra`, `#fleet-ops`); the server name
//! stands in it once.

use std::{collections::BTreeMap, fmt, fs, ops::Range, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};
use toml::Spanned;

use crate::error::{Error, Problem, Problems};

/// Largest power level: canonical JSON has no larger integer (Matrix specification, appendices, "Canonical JSON").
pub const MAX_POWER: i64 = (1 << 53) - 1;

/// The one encryption algorithm that rooms may use (Matrix specification, "m.megolm.v1.aes-sha2").
pub const MEGOLM: &str = "m.megolm.v1.aes-sha2";

/// Room versions that this tool knows the power rules of.
pub const ROOM_VERSIONS: [&str; 3] = ["10", "11", "12"];

/// What a site should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The server name, the part after the colon in ids.
    pub server_name: String,
    /// The accounts, in the order of the file.
    pub accounts: Vec<Account>,
    /// The rooms, in the order of the file.
    pub rooms: Vec<Room>,
}

/// An account that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Localpart of the user id.
    pub name: String,
    /// What the account is for.
    pub role: Role,
    /// Display name; `None` leaves it to whoever uses the account.
    pub display_name: Option<String>,
}

/// What an account is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Administers the homeserver; exactly one account does.
    Administrator,
    /// A person.
    Operator,
    /// A program.
    Bot,
    /// The health check's: it is in no room, and its session is kept for `health.sh`. At most one account is.
    Canary,
}

/// A room that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Localpart of the canonical alias, without `#`.
    pub alias: String,
    /// Localparts of further aliases, without `#`.
    pub alt_aliases: Vec<String>,
    /// Name of the room.
    pub name: String,
    /// Topic of the room.
    pub topic: String,
    /// Room version. Permanent.
    pub version: String,
    /// Localpart of the account that creates the room. Permanent.
    pub creator: String,
    /// Localparts of the accounts that should be joined; the creator is one of them.
    pub members: Vec<String>,
    /// Who may join.
    pub join_rule: JoinRule,
    /// Who may read which part of the past.
    pub history_visibility: HistoryVisibility,
    /// Whether guests may join.
    pub guest_access: GuestAccess,
    /// Whether the room is encrypted. Cannot be turned off again.
    pub encrypted: bool,
    /// Whether other servers may take part. Permanent.
    pub federate: bool,
    /// Whether the room is listed in the public room directory.
    pub published: bool,
    /// Power levels; `users` are localparts.
    pub power_levels: PowerLevels,
}

/// Who may join a room (Matrix specification, `m.room.join_rules`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinRule {
    /// Only who was invited.
    Invite,
    /// Anybody.
    Public,
    /// Anybody may ask to be invited.
    Knock,
}

impl JoinRule {
    /// The word of the specification.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invite => "invite",
            Self::Public => "public",
            Self::Knock => "knock",
        }
    }
}

/// Who may read the past (Matrix specification, `m.room.history_visibility`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryVisibility {
    /// Members, from their invitation on.
    Invited,
    /// Members, from their joining on.
    Joined,
    /// Members, everything.
    Shared,
    /// Everybody, everything.
    WorldReadable,
}

impl HistoryVisibility {
    /// The word of the specification.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Joined => "joined",
            Self::Shared => "shared",
            Self::WorldReadable => "world_readable",
        }
    }
}

/// Whether guests may join (Matrix specification, `m.room.guest_access`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestAccess {
    /// They may.
    CanJoin,
    /// They may not.
    Forbidden,
}

impl GuestAccess {
    /// The word of the specification.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CanJoin => "can_join",
            Self::Forbidden => "forbidden",
        }
    }
}

/// Power levels of a room (Matrix specification, `m.room.power_levels`).
///
/// In a [`Manifest`] the keys of `users` are localparts; in an observed room they are user ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerLevels {
    /// To ban.
    pub ban: i64,
    /// To send an event that is not in `events`.
    pub events_default: i64,
    /// To invite.
    pub invite: i64,
    /// To kick.
    pub kick: i64,
    /// To redact what others sent.
    pub redact: i64,
    /// To send a state event that is not in `events`.
    pub state_default: i64,
    /// Of users that are not in `users`.
    pub users_default: i64,
    /// To notify the whole room (`@room`).
    pub notify_room: i64,
    /// To send events of one type.
    pub events: BTreeMap<String, i64>,
    /// Of single users.
    pub users: BTreeMap<String, i64>,
}

impl Default for PowerLevels {
    /// The values that the specification gives to keys which are absent from a power levels event.
    fn default() -> Self {
        Self {
            ban: 50,
            events_default: 0,
            invite: 0,
            kick: 50,
            redact: 50,
            state_default: 50,
            users_default: 0,
            notify_room: 50,
            events: BTreeMap::new(),
            users: BTreeMap::new(),
        }
    }
}

impl PowerLevels {
    /// The power of a user who is not a creator of a version 12 room.
    #[must_use]
    pub fn of(&self, user: &str) -> i64 {
        self.users.get(user).copied().unwrap_or(self.users_default)
    }

    /// The scalar levels with the key of the specification and the words of the plan.
    #[must_use]
    pub fn scalars(&self) -> [(&'static str, &'static str, i64); 7] {
        [
            ("ban", "power to ban", self.ban),
            (
                "events_default",
                "power to send messages",
                self.events_default,
            ),
            ("invite", "power to invite", self.invite),
            ("kick", "power to kick", self.kick),
            ("redact", "power to redact", self.redact),
            ("state_default", "power to change state", self.state_default),
            (
                "users_default",
                "power level of everybody else",
                self.users_default,
            ),
        ]
    }

    /// The content of the `m.room.power_levels` event; every key is written out, so that no default of a server decides.
    #[must_use]
    pub fn to_content(&self) -> Value {
        let mut content = json!({
            "events": self.events,
            "users": self.users,
            "notifications": { "room": self.notify_room },
        });
        for (key, _, level) in self.scalars() {
            content[key] = json!(level);
        }
        content
    }

    /// Reads the content of an `m.room.power_levels` event; absent keys take the specification's defaults.
    #[must_use]
    pub fn from_content(content: &Value) -> Self {
        let default = Self::default();
        let level = |key: &str, or: i64| content.get(key).and_then(as_level).unwrap_or(or);
        let map = |key: &str| -> BTreeMap<String, i64> {
            content
                .get(key)
                .and_then(Value::as_object)
                .map(|object| {
                    object
                        .iter()
                        .filter_map(|(name, value)| Some((name.clone(), as_level(value)?)))
                        .collect()
                })
                .unwrap_or_default()
        };
        Self {
            ban: level("ban", default.ban),
            events_default: level("events_default", default.events_default),
            invite: level("invite", default.invite),
            kick: level("kick", default.kick),
            redact: level("redact", default.redact),
            state_default: level("state_default", default.state_default),
            users_default: level("users_default", default.users_default),
            notify_room: content
                .pointer("/notifications/room")
                .and_then(as_level)
                .unwrap_or(default.notify_room),
            events: map("events"),
            users: map("users"),
        }
    }
}

/// Room versions before 10 also allowed numbers in strings; a room made by hand may carry them.
fn as_level(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
}

/// Whether the creator of a room of this version has infinite power and must not be listed in `users`
/// (Matrix specification, room version 12, "Room creators").
#[must_use]
pub fn creator_is_above_all(version: &str) -> bool {
    version == "12"
}

impl Manifest {
    /// Reads a manifest from a file. `server_name` replaces the one that stands in the file.
    ///
    /// # Errors
    /// When the file cannot be read, or with every fault that it has.
    pub fn load(path: &Path, server_name: Option<&str>) -> Result<Self, Error> {
        let file = path.display().to_string();
        let source = fs::read_to_string(path).map_err(|error| {
            Error::refused(
                format!("cannot read the manifest `{file}`: {error}"),
                "give the path of the manifest with `--manifest`, for instance `/root/fleet/fixtures/fleet.toml`",
            )
        })?;
        Ok(Self::parse(&source, &file, server_name)?)
    }

    /// Reads a manifest from text; `file` is the name that faults are reported under.
    ///
    /// # Errors
    /// With every fault that was found. A fault of syntax hides those behind it.
    pub fn parse(source: &str, file: &str, server_name: Option<&str>) -> Result<Self, Problems> {
        let mut faults = Faults {
            source,
            found: Vec::new(),
        };
        let manifest = match toml::from_str::<RawManifest>(source) {
            Ok(raw) => Some(validate(raw, server_name, &mut faults)),
            Err(error) => {
                faults.syntax(&error);
                None
            }
        };
        match manifest {
            Some(manifest) if faults.found.is_empty() => Ok(manifest),
            _ => {
                faults
                    .found
                    .sort_by_key(|problem| (problem.line, problem.column));
                Err(Problems {
                    file: file.to_owned(),
                    problems: faults.found,
                })
            }
        }
    }

    /// The account that administers the homeserver.
    ///
    /// # Panics
    /// Never for a manifest that came from [`Manifest::parse`], which demands exactly one.
    #[must_use]
    pub fn administrator(&self) -> &Account {
        self.accounts
            .iter()
            .find(|account| account.role == Role::Administrator)
            .expect("a parsed manifest has an administrator")
    }

    /// The account of the health check, where one is declared.
    #[must_use]
    pub fn canary(&self) -> Option<&Account> {
        self.accounts
            .iter()
            .find(|account| account.role == Role::Canary)
    }

    /// The user id of a localpart.
    #[must_use]
    pub fn user_id(&self, name: &str) -> String {
        format!("@{name}:{}", self.server_name)
    }

    /// The room alias of a localpart.
    #[must_use]
    pub fn alias_id(&self, alias: &str) -> String {
        format!("#{alias}:{}", self.server_name)
    }

    /// The power levels of a room with user ids instead of localparts.
    #[must_use]
    pub fn power_levels(&self, room: &Room) -> PowerLevels {
        PowerLevels {
            users: room
                .power_levels
                .users
                .iter()
                .map(|(name, level)| (self.user_id(name), *level))
                .collect(),
            ..room.power_levels.clone()
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Administrator => "administrator",
            Self::Operator => "operator",
            Self::Bot => "bot",
            Self::Canary => "canary",
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    server_name: Spanned<String>,
    accounts: Spanned<Vec<RawAccount>>,
    #[serde(default)]
    rooms: Vec<RawRoom>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccount {
    name: Spanned<String>,
    role: Spanned<Role>,
    display_name: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoom {
    alias: Spanned<String>,
    #[serde(default)]
    alt_aliases: Vec<Spanned<String>>,
    name: String,
    topic: String,
    version: Spanned<String>,
    creator: Spanned<String>,
    members: Spanned<Vec<Spanned<String>>>,
    join_rule: JoinRule,
    history_visibility: HistoryVisibility,
    guest_access: GuestAccess,
    encrypted: bool,
    #[serde(default = "yes")]
    federate: bool,
    #[serde(default)]
    published: bool,
    power_levels: RawPowerLevels,
}

fn yes() -> bool {
    true
}

type Levels = BTreeMap<Spanned<String>, Spanned<i64>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPowerLevels {
    ban: Option<Spanned<i64>>,
    events_default: Option<Spanned<i64>>,
    invite: Option<Spanned<i64>>,
    kick: Option<Spanned<i64>>,
    redact: Option<Spanned<i64>>,
    state_default: Option<Spanned<i64>>,
    users_default: Option<Spanned<i64>>,
    notify_room: Option<Spanned<i64>>,
    #[serde(default)]
    events: Levels,
    #[serde(default)]
    users: Levels,
}

struct Faults<'a> {
    source: &'a str,
    found: Vec<Problem>,
}

impl Faults<'_> {
    fn at(&mut self, span: Range<usize>, message: String, hint: Option<String>) {
        let before = &self.source[..floor_boundary(self.source, span.start)];
        self.found.push(Problem {
            line: before.matches('\n').count() + 1,
            column: before
                .rsplit('\n')
                .next()
                .map_or(0, |line| line.chars().count())
                + 1,
            message,
            hint,
        });
    }

    /// Puts serde's and the parser's words into ours, with a suggestion where a word was only misspelt.
    fn syntax(&mut self, error: &toml::de::Error) {
        let text = error.message().trim();
        let mut words = text.split('`').skip(1).step_by(2);
        let (message, hint) = if text.starts_with("unknown field") {
            let got = words.next().unwrap_or_default();
            let known: Vec<&str> = words.collect();
            (
                format!("unknown key `{got}`"),
                Some(
                    did_you_mean(got, &known)
                        .unwrap_or_else(|| format!("the keys here are {}", list(&known))),
                ),
            )
        } else if text.starts_with("unknown variant") {
            let got = words.next().unwrap_or_default();
            let known: Vec<&str> = words.collect();
            (
                format!("unknown value `{got}`"),
                Some(
                    did_you_mean(got, &known)
                        .unwrap_or_else(|| format!("the values here are {}", list(&known))),
                ),
            )
        } else if text.starts_with("missing field") {
            let key = words.next().unwrap_or_default();
            (
                format!("missing key `{key}`"),
                Some(format!("add `{key} = ...` to this table")),
            )
        } else if text == "duplicate key" {
            (
                "this key stands here a second time".into(),
                Some("remove one of the two".into()),
            )
        } else if text.starts_with("invalid type") || text.starts_with("invalid value") {
            let hint = if text.ends_with("expected i64") {
                Some("write it without quotes or fraction, such as `50`".into())
            } else {
                None
            };
            (
                text.replace('\n', ", ")
                    .replace("expected i64", "expected a whole number")
                    .replace("expected a boolean", "expected `true` or `false`"),
                hint,
            )
        } else {
            (
                text.replace('\n', ", "),
                Some("this is not TOML: see <https://toml.io/en/v1.0.0>".into()),
            )
        };
        self.at(error.span().unwrap_or(0..0), message, hint);
    }
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn list(words: &[&str]) -> String {
    words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn did_you_mean(got: &str, known: &[&str]) -> Option<String> {
    known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(got, word), *word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| format!("did you mean `{word}`?"))
}

/// Takes a local name out of what stands in the manifest; a full id is a fault, and a foreign one is named as such.
fn local(
    value: &Spanned<String>,
    sigil: char,
    server_name: &str,
    faults: &mut Faults<'_>,
) -> Option<String> {
    let text = value.get_ref().as_str();
    let bare = text.strip_prefix(sigil).unwrap_or(text);
    let Some((name, server)) = bare.split_once(':') else {
        return Some(bare.to_owned());
    };
    let short = if sigil == '#' {
        format!("#{name}")
    } else {
        name.to_owned()
    };
    if server == server_name {
        faults.at(
            value.span(),
            format!("`{text}` carries a server name"),
            Some(format!(
                "names in a manifest are local: write `{short}`; `server_name` stands once at the top"
            )),
        );
    } else {
        faults.at(
            value.span(),
            format!("`{text}` is on the server `{server}`, this manifest is for `{server_name}`"),
            Some(format!(
                "a manifest declares accounts and rooms of its own server only: write `{short}` or remove it"
            )),
        );
    }
    None
}

fn validate(raw: RawManifest, override_name: Option<&str>, faults: &mut Faults<'_>) -> Manifest {
    let declared = raw.server_name.get_ref().clone();
    for name in [Some(declared.as_str()), override_name]
        .into_iter()
        .flatten()
    {
        if ruma_identifiers_validation::server_name::validate(name).is_err() {
            faults.at(
                raw.server_name.span(),
                format!("`{name}` is not a server name"),
                Some("a server name is a host name with an optional port, such as `timmy.foundation`".into()),
            );
        }
    }
    if !faults.found.is_empty() {
        // Every id would be judged wrong with it.
        return Manifest {
            server_name: declared,
            accounts: Vec::new(),
            rooms: Vec::new(),
        };
    }
    // Ids in the file are judged by the name in the file; the override replaces it afterwards, everywhere at once.
    let accounts = validate_accounts(&raw.accounts, &declared, faults);
    let names: Vec<&str> = accounts
        .iter()
        .map(|account| account.name.as_str())
        .collect();
    let having = |role| {
        let account = accounts.iter().find(|account| account.role == role);
        account.map(|account| account.name.as_str())
    };
    let special = Special {
        administrator: having(Role::Administrator),
        canary: having(Role::Canary),
    };

    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let rooms = raw
        .rooms
        .into_iter()
        .map(|room| validate_room(room, &declared, &names, special, &mut seen, faults))
        .collect();
    Manifest {
        server_name: override_name.map_or(declared, str::to_owned),
        accounts,
        rooms,
    }
}

fn validate_accounts(
    raw: &Spanned<Vec<RawAccount>>,
    server_name: &str,
    faults: &mut Faults<'_>,
) -> Vec<Account> {
    let mut accounts: Vec<Account> = Vec::new();
    for account in raw.get_ref() {
        let Some(name) = local(&account.name, '@', server_name, faults) else {
            continue;
        };
        let id = format!("@{name}:{server_name}");
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'=' | b'-' | b'/' | b'+'))
            || ruma_identifiers_validation::user_id::validate_strict(&id).is_err()
        {
            faults.at(
                account.name.span(),
                format!("`{name}` is not a name for an account"),
                Some("use lower-case letters, digits and `.`, `_`, `=`, `-`, `/`, `+`".into()),
            );
            continue;
        }
        // The password is kept in a file of this name.
        if name.contains('/') || name.starts_with('.') {
            faults.at(
                account.name.span(),
                format!("`{name}` cannot be the name of a password file"),
                Some("choose a name without `/` that does not begin with `.`".into()),
            );
            continue;
        }
        if name == "conduit" {
            faults.at(
                account.name.span(),
                "`conduit` is the homeserver's own account".into(),
                Some("Conduit makes it at its first start; remove it from the manifest".into()),
            );
            continue;
        }
        if accounts.iter().any(|other| other.name == name) {
            faults.at(
                account.name.span(),
                format!("account `{name}` is declared twice"),
                Some("remove one of the two".into()),
            );
            continue;
        }
        if *account.role.get_ref() == Role::Administrator
            && let Some(first) = accounts
                .iter()
                .find(|other| other.role == Role::Administrator)
        {
            faults.at(
                account.role.span(),
                format!(
                    "`{name}` is a second administrator; `{}` is the first",
                    first.name
                ),
                Some("exactly one account has `role = \"administrator\"`".into()),
            );
        }
        if *account.role.get_ref() == Role::Canary
            && let Some(first) = accounts.iter().find(|other| other.role == Role::Canary)
        {
            faults.at(
                account.role.span(),
                format!("`{name}` is a second canary; `{}` is the first", first.name),
                Some("the health check uses one account: remove the other".into()),
            );
        }
        if let Some(display_name) = &account.display_name
            && (display_name.get_ref().trim().is_empty() || display_name.get_ref().len() > 255)
        {
            faults.at(
                display_name.span(),
                format!("the display name of `{name}` is empty or longer than 255 bytes"),
                Some("remove the key to leave the display name to whoever uses the account".into()),
            );
        }
        accounts.push(Account {
            name,
            role: *account.role.get_ref(),
            display_name: account
                .display_name
                .as_ref()
                .map(|name| name.get_ref().clone()),
        });
    }
    if !accounts
        .iter()
        .any(|account| account.role == Role::Administrator)
        && faults.found.is_empty()
    {
        faults.at(
            raw.span(),
            "no account is the administrator".into(),
            Some("give one account `role = \"administrator\"`; it is registered first".into()),
        );
    }
    accounts
}

fn known_account(
    value: &Spanned<String>,
    what: &str,
    server_name: &str,
    names: &[&str],
    faults: &mut Faults<'_>,
) -> Option<String> {
    let name = local(value, '@', server_name, faults)?;
    if names.contains(&name.as_str()) {
        return Some(name);
    }
    faults.at(
        value.span(),
        format!("{what} `{name}` is not a declared account"),
        Some(
            did_you_mean(&name, names)
                .unwrap_or_else(|| format!("the accounts are {}", list(names))),
        ),
    );
    None
}

/// The accounts of which there is one at most.
#[derive(Clone, Copy)]
struct Special<'a> {
    administrator: Option<&'a str>,
    canary: Option<&'a str>,
}

fn validate_room(
    raw: RawRoom,
    server_name: &str,
    names: &[&str],
    special: Special<'_>,
    seen: &mut BTreeMap<String, String>,
    faults: &mut Faults<'_>,
) -> Room {
    let alias_of = |value: &Spanned<String>, faults: &mut Faults<'_>| -> Option<String> {
        let alias = local(value, '#', server_name, faults)?;
        let id = format!("#{alias}:{server_name}");
        if alias.is_empty()
            || alias
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || c == '#')
            || ruma_identifiers_validation::room_alias_id::validate(&id).is_err()
        {
            faults.at(
                value.span(),
                format!("`{}` is not a room alias", value.get_ref()),
                Some("write it like `#fleet-ops`, without spaces".into()),
            );
            return None;
        }
        if alias == "admins" {
            faults.at(
                value.span(),
                "`#admins` is the homeserver's own room".into(),
                Some("Conduit makes it at its first start; remove it from the manifest".into()),
            );
            return None;
        }
        if let Some(owner) = seen.get(&alias) {
            faults.at(
                value.span(),
                format!("alias `#{alias}` is declared twice, first for `{owner}`"),
                Some("an alias leads to one room: remove one of the two".into()),
            );
            return None;
        }
        Some(alias)
    };
    let alias = alias_of(&raw.alias, faults).unwrap_or_default();
    let label = format!("#{alias}");
    let mut alt_aliases = Vec::new();
    for value in &raw.alt_aliases {
        if value.get_ref().trim_start_matches('#') == alias
            || alt_aliases
                .iter()
                .any(|other| other == value.get_ref().trim_start_matches('#'))
        {
            faults.at(
                value.span(),
                format!(
                    "alias `{}` is declared twice, first for `{label}`",
                    value.get_ref()
                ),
                Some("remove one of the two".into()),
            );
        } else if let Some(alt) = alias_of(value, faults) {
            alt_aliases.push(alt);
        }
    }
    for name in std::iter::once(&alias).chain(&alt_aliases) {
        seen.insert(name.clone(), label.clone());
    }

    let version = raw.version.get_ref().clone();
    if !ROOM_VERSIONS.contains(&version.as_str()) {
        faults.at(
            raw.version.span(),
            format!("room version `{version}` of `{label}` is not one that this tool knows"),
            Some(format!("the versions are {}", list(&ROOM_VERSIONS))),
        );
    }
    let version_known = ROOM_VERSIONS.contains(&version.as_str());

    let creator = known_account(&raw.creator, "creator", server_name, names, faults);
    let mut members: Vec<String> = Vec::new();
    for value in raw.members.get_ref() {
        if let Some(name) = known_account(value, "member", server_name, names, faults) {
            if special.canary == Some(&name) {
                faults.at(
                    value.span(),
                    format!("member `{name}` of `{label}` is the canary, which is in no room"),
                    Some("remove it here: each /sync of the health check would leave something behind for each of its rooms".into()),
                );
            } else if members.contains(&name) {
                faults.at(
                    value.span(),
                    format!("member `{name}` of `{label}` is declared twice"),
                    Some("remove one of the two".into()),
                );
            } else {
                members.push(name);
            }
        }
    }
    for (needed, why) in [
        (
            creator.as_deref(),
            "its creator, who is in it from the beginning",
        ),
        (
            special.administrator,
            "the administrator, without whom `plan` cannot see the room",
        ),
    ] {
        if let Some(needed) = needed
            && !members.iter().any(|member| member == needed)
            && !raw
                .members
                .get_ref()
                .iter()
                .any(|raw| raw.get_ref().contains(needed))
        {
            faults.at(
                raw.members.span(),
                format!("members of `{label}` lack `{needed}`, {why}"),
                Some(format!("add `{needed}` to `members`")),
            );
        }
    }

    let power_levels = validate_power(
        &raw.power_levels,
        &RoomFacts {
            label: &label,
            version: &version,
            version_known,
            creator: creator.as_deref(),
            members: &members,
            encrypted: raw.encrypted,
            server_name,
            names,
        },
        &raw.creator,
        faults,
    );
    Room {
        alias,
        alt_aliases,
        name: raw.name,
        topic: raw.topic,
        version,
        creator: creator.unwrap_or_default(),
        members,
        join_rule: raw.join_rule,
        history_visibility: raw.history_visibility,
        guest_access: raw.guest_access,
        encrypted: raw.encrypted,
        federate: raw.federate,
        published: raw.published,
        power_levels,
    }
}

struct RoomFacts<'a> {
    label: &'a str,
    version: &'a str,
    version_known: bool,
    creator: Option<&'a str>,
    members: &'a [String],
    encrypted: bool,
    server_name: &'a str,
    names: &'a [&'a str],
}

fn validate_power(
    raw: &RawPowerLevels,
    room: &RoomFacts<'_>,
    creator_span: &Spanned<String>,
    faults: &mut Faults<'_>,
) -> PowerLevels {
    let label = room.label;
    let mut spans: Vec<(String, Range<usize>, i64)> = Vec::new();
    let mut level = |key: &str, value: &Spanned<i64>, faults: &mut Faults<'_>| -> i64 {
        let number = *value.get_ref();
        if number < 0 {
            faults.at(
                value.span(),
                format!("power level `{number}` of `{key}` in `{label}` is negative"),
                Some("levels begin at 0; to silence everybody else raise `events_default`".into()),
            );
        } else if number > MAX_POWER {
            faults.at(
                value.span(),
                format!("power level `{number}` of `{key}` in `{label}` is above {MAX_POWER}"),
                Some(
                    "no event can carry a larger integer than 2^53 - 1; 100 is the customary top"
                        .into(),
                ),
            );
        }
        spans.push((key.to_owned(), value.span(), number));
        number
    };
    let default = PowerLevels::default();
    let mut scalar = |key: &str, value: &Option<Spanned<i64>>, or: i64, faults: &mut Faults<'_>| {
        value.as_ref().map_or(or, |value| level(key, value, faults))
    };
    let mut levels = PowerLevels {
        ban: scalar("ban", &raw.ban, default.ban, faults),
        events_default: scalar(
            "events_default",
            &raw.events_default,
            default.events_default,
            faults,
        ),
        invite: scalar("invite", &raw.invite, default.invite, faults),
        kick: scalar("kick", &raw.kick, default.kick, faults),
        redact: scalar("redact", &raw.redact, default.redact, faults),
        state_default: scalar(
            "state_default",
            &raw.state_default,
            default.state_default,
            faults,
        ),
        users_default: scalar(
            "users_default",
            &raw.users_default,
            default.users_default,
            faults,
        ),
        notify_room: scalar("notify_room", &raw.notify_room, default.notify_room, faults),
        events: BTreeMap::new(),
        users: BTreeMap::new(),
    };
    for (event_type, value) in &raw.events {
        let number = level(event_type.get_ref(), value, faults);
        levels.events.insert(event_type.get_ref().clone(), number);
        if room.encrypted
            && matches!(
                event_type.get_ref().as_str(),
                "m.room.message" | "m.sticker"
            )
        {
            faults.at(
                event_type.span(),
                format!(
                    "a level for `{}` has no effect in the encrypted room `{label}`",
                    event_type.get_ref()
                ),
                Some(
                    "the server sees only `m.room.encrypted` there: put the level on that type"
                        .into(),
                ),
            );
        }
    }
    let required = spans.clone();

    for (user, value) in &raw.users {
        let number = *value.get_ref();
        let Some(name) = known_account(
            user,
            "power level for",
            room.server_name,
            room.names,
            faults,
        ) else {
            continue;
        };
        if !(0..=MAX_POWER).contains(&number) {
            faults.at(
                value.span(),
                format!("power level `{number}` of `{name}` in `{label}` is outside 0 to {MAX_POWER}"),
                Some("no event can carry a larger integer than 2^53 - 1, and a negative level silences a member; 100 is the customary top".into()),
            );
            continue;
        }
        if room.creator == Some(name.as_str()) && creator_is_above_all(room.version) {
            faults.at(
                user.span(),
                format!("creator `{name}` of `{label}` has a power level, which room version {} forbids", room.version),
                Some("a creator has infinite power there and servers refuse the event: remove it from `users`".into()),
            );
            continue;
        }
        if !room.members.contains(&name) {
            faults.at(
                user.span(),
                format!("`{name}` has a power level in `{label}` but is not a member"),
                Some("add it to `members` or remove it from `users`".into()),
            );
            continue;
        }
        levels.users.insert(name, number);
    }

    let Some(creator) = room
        .creator
        .filter(|_| room.version_known && !creator_is_above_all(room.version))
    else {
        return levels;
    };
    // Before version 12 nobody is above the levels: a level that no member has can never be met nor lowered again.
    let own = levels.of(creator);
    if !levels.users.contains_key(creator) {
        faults.at(
            creator_span.span(),
            format!(
                "creator `{creator}` of `{label}` has no power level, which room version {} needs",
                room.version
            ),
            Some(format!(
                "add `{creator} = 100` to `users`; only version 12 gives a creator power by itself"
            )),
        );
        return levels;
    }
    for (user, value) in &raw.users {
        if user.get_ref() != creator && *value.get_ref() > own {
            faults.at(
                value.span(),
                format!("`{}` stands above the creator `{creator}` ({} > {own}) in `{label}`", user.get_ref(), value.get_ref()),
                Some("nobody may give more power than they have, so the creator could not make this room".into()),
            );
        }
    }
    let top = room
        .members
        .iter()
        .map(|member| levels.of(member))
        .max()
        .unwrap_or(own);
    for (key, span, number) in required {
        if number > top {
            faults.at(
                span,
                format!("nobody in `{label}` can meet the level {number} of `{key}`; the highest is {top}"),
                Some("lower it, or use room version 12, where the creator is above every level".into()),
            );
        }
    }
    levels
}
