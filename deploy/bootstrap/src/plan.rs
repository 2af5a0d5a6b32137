//! The difference between what a manifest declares and what a homeserver has. No input or output happens here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Value, json};

use crate::manifest::{self, MEGOLM, Manifest, PowerLevels, Room};

/// Key in the content of `m.room.create` that names the alias a room was made for. It is in the room's very first event,
/// so a room whose making was interrupted before it got its alias is found again instead of made twice.
pub const MARKER: &str = "foundation.timmy.fleet.alias";

/// What a homeserver has, as far as it could be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Accounts of the manifest that exist, with their display names.
    pub accounts: BTreeMap<String, Option<String>>,
    /// Whether the stored session of the administrator is valid.
    pub session: bool,
    /// Whether the stored session of the canary is valid.
    pub canary_session: bool,
    /// Whether the administrator administers this homeserver; `None` when that could not be seen.
    pub administers: Option<bool>,
    /// Accounts that an interrupted run may have left logged in.
    pub open_sessions: BTreeSet<String>,
    /// Rooms of the manifest that exist, by the localpart of their alias.
    pub rooms: BTreeMap<String, ObservedRoom>,
    /// Things worth knowing that change nothing.
    pub notes: Vec<String>,
}

/// A room on the homeserver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedRoom {
    /// Its id.
    pub room_id: String,
    /// Its state; `None` when the administrator is not in the room or not logged in.
    pub state: Option<RoomState>,
    /// For each alias localpart of the manifest: the room that it leads to.
    pub aliases: BTreeMap<String, Option<String>>,
}

/// The state of a room that a manifest can declare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomState {
    /// The alias that it was made for ([`MARKER`] in its first event).
    pub made_for: Option<String>,
    /// User id of the creator.
    pub creator: String,
    /// Further creators (room version 12).
    pub additional_creators: BTreeSet<String>,
    /// Room version.
    pub version: String,
    /// Whether other servers may take part.
    pub federate: bool,
    /// Content of `m.room.name`.
    pub name: Option<String>,
    /// Content of `m.room.topic`.
    pub topic: Option<String>,
    /// Canonical alias.
    pub canonical_alias: Option<String>,
    /// Alternative aliases of the canonical alias event.
    pub alt_aliases: BTreeSet<String>,
    /// Join rule.
    pub join_rule: Option<String>,
    /// History visibility.
    pub history_visibility: Option<String>,
    /// Guest access.
    pub guest_access: Option<String>,
    /// Encryption algorithm.
    pub encryption: Option<String>,
    /// Power levels, by user id.
    pub power_levels: PowerLevels,
    /// Membership by user id, everybody who ever had one.
    pub members: BTreeMap<String, String>,
    /// Whether the room is listed in the directory.
    pub published: bool,
}

/// One thing that `apply` does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Register an account; only possible while registration is open.
    Register {
        /// Localpart.
        account: String,
    },
    /// Log the administrator in, because no valid session is stored.
    OpenSession,
    /// Log the canary in and keep its session for `health.sh`, because none that is valid is stored.
    CanarySession {
        /// Localpart.
        account: String,
    },
    /// Log out what an interrupted run left logged in.
    CloseSession {
        /// Localpart.
        account: String,
    },
    /// Set a display name.
    DisplayName {
        /// Localpart.
        account: String,
        /// What it is.
        from: Option<String>,
        /// What it becomes.
        to: String,
    },
    /// Create a room with everything that is declared of it, and invite its members.
    CreateRoom {
        /// Alias localpart.
        room: String,
    },
    /// Bring the administrator back into a room that cannot be seen otherwise.
    Rejoin {
        /// Alias localpart.
        room: String,
    },
    /// Send one state event.
    State {
        /// Alias localpart.
        room: String,
        /// Event type.
        event_type: &'static str,
        /// Content.
        content: Value,
        /// What differs, for a person.
        changes: Vec<String>,
    },
    /// Let an alias lead to a room.
    Alias {
        /// Alias localpart of the room.
        room: String,
        /// Localpart of the alias to add.
        alias: String,
    },
    /// List a room in the directory or take it out.
    Publish {
        /// Alias localpart.
        room: String,
        /// Whether it is listed afterwards.
        published: bool,
    },
    /// Make an account a member of a room.
    Member {
        /// Alias localpart.
        room: String,
        /// Localpart.
        account: String,
        /// Membership before: `none`, `invite`, `leave`, `ban`, `knock`.
        from: String,
    },
}

/// Drift that no request can mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What cannot be as declared.
    pub message: String,
    /// What a person can do.
    pub hint: String,
}

/// Everything that `apply` would do, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The actions with their lines for a person.
    pub steps: Vec<Step>,
    /// Accounts and rooms that are as declared.
    pub unchanged: Vec<String>,
    /// What stands in the way.
    pub conflicts: Vec<Conflict>,
    /// Things worth knowing that change nothing.
    pub notes: Vec<String>,
}

/// One action, as the plan shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Whether something new comes into being (`+`) rather than something changes (`~`).
    pub adds: bool,
    /// What a person reads, one line for each difference.
    pub lines: Vec<String>,
}

impl Plan {
    /// How many steps add something and how many change something.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let adds = self.steps.iter().filter(|step| step.adds).count();
        (adds, self.steps.len() - adds)
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The plan without what cannot be done while only accounts are being made.
    #[must_use]
    pub fn accounts_only(mut self) -> Self {
        self.steps
            .retain(|step| matches!(step.action, Action::Register { .. }));
        self.conflicts.clear();
        self.unchanged.retain(|line| line.starts_with("account "));
        self
    }

    fn add(&mut self, action: Action, line: String) {
        self.steps.push(Step {
            action,
            adds: true,
            lines: vec![line],
        });
    }

    fn change(&mut self, action: Action, lines: Vec<String>) {
        self.steps.push(Step {
            action,
            adds: false,
            lines,
        });
    }

    fn conflict(&mut self, message: String, hint: String) {
        self.conflicts.push(Conflict { message, hint });
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.unchanged {
            writeln!(f, "= {line}")?;
        }
        for step in &self.steps {
            for line in &step.lines {
                writeln!(f, "{} {line}", if step.adds { '+' } else { '~' })?;
            }
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let (adds, changes) = self.counts();
        write!(f, "{adds} to add, {changes} to change")
    }
}

/// Compares.
#[must_use]
pub fn plan(manifest: &Manifest, observed: &Observed) -> Plan {
    let mut plan = Plan {
        notes: observed.notes.clone(),
        ..Plan::default()
    };
    let administrator = manifest.administrator().name.clone();

    // The administrator first: on Conduit the first account that registers is the administrator.
    let mut accounts: Vec<_> = manifest.accounts.iter().collect();
    accounts.sort_by_key(|account| account.name != administrator);
    for account in &accounts {
        let id = manifest.user_id(&account.name);
        match observed.accounts.get(&account.name) {
            None => plan.add(
                Action::Register {
                    account: account.name.clone(),
                },
                format!("account {id} ({})", account.role),
            ),
            Some(display_name)
                if account.display_name.is_none() || *display_name == account.display_name =>
            {
                plan.unchanged.push(format!("account {id}"));
            }
            Some(_) => {}
        }
    }
    if observed.accounts.contains_key(&administrator) && !observed.session {
        plan.change(
            Action::OpenSession,
            vec![format!(
                "session of {}: none that is valid -> logged in",
                manifest.user_id(&administrator)
            )],
        );
    }
    if let Some(canary) = manifest.canary()
        && observed.accounts.contains_key(&canary.name)
        && !observed.canary_session
    {
        plan.change(
            Action::CanarySession {
                account: canary.name.clone(),
            },
            vec![format!(
                "session of {} for health.sh: none that is valid -> logged in",
                manifest.user_id(&canary.name)
            )],
        );
    }
    if observed.administers == Some(false) {
        plan.conflict(
            format!(
                "`{}` is not an administrator of this homeserver",
                manifest.user_id(&administrator)
            ),
            format!(
                "another account was registered first, or Conduit was killed while it registered this one: let an administrator invite it to `{}` and accept the invitation; where there is none, start Conduit once with `emergency_password` set and invite it as `@conduit`",
                manifest.alias_id("admins")
            ),
        );
    }
    for account in &accounts {
        let Some(to) = &account.display_name else {
            continue;
        };
        let from = observed.accounts.get(&account.name).cloned().flatten();
        if from.as_ref() != Some(to) {
            plan.change(
                Action::DisplayName {
                    account: account.name.clone(),
                    from: from.clone(),
                    to: to.clone(),
                },
                vec![format!(
                    "display name of {}: {} -> {to:?}",
                    manifest.user_id(&account.name),
                    shown(from.as_deref())
                )],
            );
        }
    }
    for room in &manifest.rooms {
        let before = (plan.steps.len(), plan.conflicts.len());
        plan_room(manifest, observed, room, &mut plan);
        if before == (plan.steps.len(), plan.conflicts.len()) {
            plan.unchanged
                .push(format!("room {}", manifest.alias_id(&room.alias)));
        }
    }
    // Last, so that whoever is logged in for one of the steps above is not logged in a second time.
    for account in &observed.open_sessions {
        plan.change(
            Action::CloseSession {
                account: account.clone(),
            },
            vec![format!(
                "session of {}: left by an interrupted run -> logged out",
                manifest.user_id(account)
            )],
        );
    }
    plan
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}

fn plan_room(manifest: &Manifest, observed: &Observed, room: &Room, plan: &mut Plan) {
    let label = format!("#{}", room.alias);
    let Some(actual) = observed.rooms.get(&room.alias) else {
        plan.steps.push(Step {
            action: Action::CreateRoom {
                room: room.alias.clone(),
            },
            adds: true,
            lines: vec![format!(
                "room {} (version {}, created by {}, {}, {})",
                manifest.alias_id(&room.alias),
                room.version,
                manifest.user_id(&room.creator),
                room.join_rule.as_str(),
                if room.encrypted {
                    "encrypted"
                } else {
                    "not encrypted"
                },
            )],
        });
        for alias in &room.alt_aliases {
            plan.add(
                Action::Alias {
                    room: room.alias.clone(),
                    alias: alias.clone(),
                },
                format!("alias {} of {label}", manifest.alias_id(alias)),
            );
        }
        for member in room
            .members
            .iter()
            .filter(|member| **member != room.creator)
        {
            plan.add(
                Action::Member {
                    room: room.alias.clone(),
                    account: member.clone(),
                    from: "invite".into(),
                },
                format!("member {} of {label}", manifest.user_id(member)),
            );
        }
        return;
    };
    let Some(state) = &actual.state else {
        if observed.session {
            plan.change(
                Action::Rejoin {
                    room: room.alias.clone(),
                },
                vec![format!(
                    "{label} administrator {}: not a member -> joined (what else differs is seen then)",
                    manifest.user_id(&manifest.administrator().name)
                )],
            );
        } else {
            plan.notes.push(format!(
                "{label} exists; what differs in it is seen once the administrator is logged in"
            ));
        }
        return;
    };

    // Whoever moves an alias must not make us work on a room that nobody declared.
    let alias = manifest.alias_id(&room.alias);
    if state.made_for.as_ref() != Some(&alias) && state.canonical_alias.as_ref() != Some(&alias) {
        plan.conflict(
            format!(
                "alias `{alias}` leads to `{}`, a room that was not made for it",
                actual.room_id
            ),
            format!("if it is the right room, set its main address to `{alias}` in a client; otherwise remove the alias from it (`DELETE /_matrix/client/v3/directory/room/...`) and apply again"),
        );
        return;
    }

    // What a room is born with stays.
    let creator = manifest.user_id(&room.creator);
    let fixed = |plan: &mut Plan, what: &str, is: &str, declared: &str| {
        plan.conflict(
            format!("{label} {what} is `{is}`, declared is `{declared}`"),
            format!("this is fixed when a room is created: declare `{is}`, or give `{label}` up by removing its alias (`DELETE /_matrix/client/v3/directory/room/...`) and apply again for a new room"),
        );
    };
    if state.creator != creator {
        fixed(plan, "creator", &state.creator, &creator);
        return;
    }
    if state.version != room.version {
        fixed(plan, "room version", &state.version, &room.version);
        return;
    }
    if state.federate != room.federate {
        fixed(
            plan,
            "federation",
            &state.federate.to_string(),
            &room.federate.to_string(),
        );
    }
    if manifest::creator_is_above_all(&room.version) && !state.additional_creators.is_empty() {
        let others: Vec<_> = state
            .additional_creators
            .iter()
            .map(String::as_str)
            .collect();
        fixed(plan, "additional creators", &others.join(", "), "none");
    }
    match (&state.encryption, room.encrypted) {
        (Some(algorithm), false) => plan.conflict(
            format!("{label} is encrypted with `{algorithm}`, declared is not encrypted"),
            "encryption of a room cannot be turned off: declare `encrypted = true`, or make a new room".into(),
        ),
        (Some(algorithm), true) if algorithm != MEGOLM => plan.conflict(
            format!("{label} is encrypted with `{algorithm}`, declared is `{MEGOLM}`"),
            "encryption of a room cannot be changed: make a new room".into(),
        ),
        _ => {}
    }

    let mut state_event = |event_type: &'static str, content: Value, changes: Vec<String>| {
        if !changes.is_empty() {
            plan.change(
                Action::State {
                    room: room.alias.clone(),
                    event_type,
                    content,
                    changes: changes.clone(),
                },
                changes,
            );
        }
    };
    let text = |what: &str, is: Option<&str>, declared: &str| -> Vec<String> {
        if is == Some(declared) {
            Vec::new()
        } else {
            vec![format!("{label} {what}: {} -> {declared:?}", shown(is))]
        }
    };
    // An event that is absent is a difference even where its default is what was declared: a room that a server was killed
    // over must end up with the same state as any other.
    let word = |what: &str, is: Option<&str>, declared: &str| -> Vec<String> {
        if is == Some(declared) {
            Vec::new()
        } else {
            vec![format!(
                "{label} {what}: {} -> {declared}",
                is.unwrap_or("none")
            )]
        }
    };
    // Power first: it may be what the rest needs.
    let declared = manifest.power_levels(room);
    state_event(
        "m.room.power_levels",
        declared.to_content(),
        power_changes(&label, &state.power_levels, &declared),
    );
    state_event(
        "m.room.name",
        json!({ "name": room.name }),
        text("name", state.name.as_deref(), &room.name),
    );
    state_event(
        "m.room.topic",
        json!({ "topic": room.topic }),
        text("topic", state.topic.as_deref(), &room.topic),
    );
    state_event(
        "m.room.join_rules",
        json!({ "join_rule": room.join_rule.as_str() }),
        word(
            "join rule",
            state.join_rule.as_deref(),
            room.join_rule.as_str(),
        ),
    );
    state_event(
        "m.room.history_visibility",
        json!({ "history_visibility": room.history_visibility.as_str() }),
        word(
            "history visibility",
            state.history_visibility.as_deref(),
            room.history_visibility.as_str(),
        ),
    );
    state_event(
        "m.room.guest_access",
        json!({ "guest_access": room.guest_access.as_str() }),
        word(
            "guest access",
            state.guest_access.as_deref(),
            room.guest_access.as_str(),
        ),
    );
    if room.encrypted && state.encryption.is_none() {
        state_event(
            "m.room.encryption",
            json!({ "algorithm": MEGOLM }),
            vec![format!(
                "{label} encryption: none -> {MEGOLM} (cannot be undone)"
            )],
        );
    }

    // Aliases lead somewhere before the canonical alias event names them: servers refuse it otherwise.
    let mut aliases_in_order = true;
    for alias in std::iter::once(&room.alias).chain(&room.alt_aliases) {
        match actual.aliases.get(alias).cloned().flatten() {
            Some(leads_to) if leads_to == actual.room_id => {}
            Some(leads_to) => {
                aliases_in_order = false;
                plan.conflict(
                    format!(
                        "alias `{}` leads to `{leads_to}` and not to {label}",
                        manifest.alias_id(alias)
                    ),
                    "somebody gave it to another room: remove it there, or declare another alias"
                        .into(),
                );
            }
            None => plan.add(
                Action::Alias {
                    room: room.alias.clone(),
                    alias: alias.clone(),
                },
                format!("alias {} of {label}", manifest.alias_id(alias)),
            ),
        }
    }
    let canonical = manifest.alias_id(&room.alias);
    let alts: BTreeSet<String> = room
        .alt_aliases
        .iter()
        .map(|alias| manifest.alias_id(alias))
        .collect();
    if aliases_in_order {
        let mut changes = word(
            "canonical alias",
            state.canonical_alias.as_deref(),
            &canonical,
        );
        if state.alt_aliases != alts {
            let joined = |set: &BTreeSet<String>| {
                if set.is_empty() {
                    "none".to_owned()
                } else {
                    set.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
                }
            };
            changes.push(format!(
                "{label} alternative aliases: {} -> {}",
                joined(&state.alt_aliases),
                joined(&alts)
            ));
        }
        if !changes.is_empty() {
            plan.change(
                Action::State {
                    room: room.alias.clone(),
                    event_type: "m.room.canonical_alias",
                    content: canonical_alias(manifest, room),
                    changes: changes.clone(),
                },
                changes,
            );
        }
    }
    if state.published != room.published {
        let words = |listed: bool| if listed { "listed" } else { "not listed" };
        plan.change(
            Action::Publish {
                room: room.alias.clone(),
                published: room.published,
            },
            vec![format!(
                "{label} in the room directory: {} -> {}",
                words(state.published),
                words(room.published)
            )],
        );
    }
    for member in &room.members {
        let id = manifest.user_id(member);
        let membership = state.members.get(&id).map_or("none", String::as_str);
        if membership != "join" {
            let action = Action::Member {
                room: room.alias.clone(),
                account: member.clone(),
                from: membership.to_owned(),
            };
            if membership == "none" {
                plan.add(action, format!("member {id} of {label}"));
            } else {
                plan.change(
                    action,
                    vec![format!("{label} member {id}: {membership} -> join")],
                );
            }
        }
    }
    let guests: Vec<&str> = state
        .members
        .iter()
        .filter(|(id, membership)| {
            membership.as_str() == "join"
                && !room
                    .members
                    .iter()
                    .any(|member| manifest.user_id(member) == **id)
        })
        .map(|(id, _)| id.as_str())
        .collect();
    if !guests.is_empty() {
        plan.notes.push(format!(
            "{label} has members that are not declared, which are left alone: {}",
            guests.join(" ")
        ));
    }
}

/// The content of the canonical alias event of a room.
#[must_use]
pub fn canonical_alias(manifest: &Manifest, room: &Room) -> Value {
    let alts: Vec<String> = room
        .alt_aliases
        .iter()
        .map(|alias| manifest.alias_id(alias))
        .collect();
    if alts.is_empty() {
        json!({ "alias": manifest.alias_id(&room.alias) })
    } else {
        json!({ "alias": manifest.alias_id(&room.alias), "alt_aliases": alts })
    }
}

fn power_changes(label: &str, is: &PowerLevels, declared: &PowerLevels) -> Vec<String> {
    let mut changes = Vec::new();
    for ((_, what, old), (_, _, new)) in is.scalars().into_iter().zip(declared.scalars()) {
        if old != new {
            changes.push(format!("{label} {what}: {old} -> {new}"));
        }
    }
    if is.notify_room != declared.notify_room {
        changes.push(format!(
            "{label} power to notify everybody: {} -> {}",
            is.notify_room, declared.notify_room
        ));
    }
    let users: BTreeSet<&String> = is.users.keys().chain(declared.users.keys()).collect();
    for user in users {
        let (old, new) = (is.of(user), declared.of(user));
        if old != new {
            changes.push(format!("{label} power level of {user}: {old} -> {new}"));
        }
    }
    let types: BTreeSet<&String> = is.events.keys().chain(declared.events.keys()).collect();
    for event_type in types {
        let level = |levels: &PowerLevels| {
            levels
                .events
                .get(event_type)
                .map_or_else(|| "default".to_owned(), ToString::to_string)
        };
        let (old, new) = (level(is), level(declared));
        if old != new {
            changes.push(format!(
                "{label} power to send {event_type}: {old} -> {new}"
            ));
        }
    }
    changes
}
