//! Sends the difference. Every step is written so that a run which is killed after any request, and started again,
//! ends in the same state: what must be known later is on the disk before the homeserver hears of it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::Write,
    path::Path,
};

use serde_json::{Value, json};

use crate::{
    client::{Answer, Client, escape},
    error::Error,
    manifest::{MEGOLM, Manifest, Room},
    observe::{self, must, observe},
    plan::{self, Action, MARKER, Observed, Plan},
    secrets::{Memory, Secrets, Session},
};

/// Name of the one device that this tool uses for an account: logging in again replaces it instead of adding another.
pub const DEVICE: &str = "FLEETBOOTSTRAP";

/// Name of the device whose session `health.sh` uses.
pub const CANARY_DEVICE: &str = "HEALTHCHECK";

/// How often the plan is made anew before the homeserver counts as one that does not do what it grants.
const PASSES: usize = 5;

/// What a run needs besides the manifest.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The homeserver.
    pub client: &'a Client,
    /// What should be.
    pub manifest: &'a Manifest,
    /// Passwords and sessions.
    pub secrets: &'a Secrets,
    /// The installer's `site.identity`; need not exist.
    pub identity: &'a Path,
    /// Token for the `m.login.registration_token` stage, while registration is open.
    pub registration_token: Option<&'a str>,
    /// Stop once all accounts exist.
    pub accounts_only: bool,
}

/// What an `apply` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Steps that added something.
    pub added: usize,
    /// Steps that changed something.
    pub changed: usize,
}

/// Observes and compares, with GET requests only.
///
/// # Errors
/// When the homeserver is not the manifest's or does not answer.
pub fn make_plan(setting: &Setting<'_>) -> Result<Plan, Error> {
    observe::check_server(setting.client, setting.manifest, setting.identity)?;
    let observed = observe(setting.client, setting.manifest, setting.secrets)?;
    let plan = plan::plan(setting.manifest, &observed);
    Ok(if setting.accounts_only {
        plan.accounts_only()
    } else {
        plan
    })
}

/// Brings the homeserver to what the manifest declares; prints each part of the plan to `out` before sending it.
///
/// # Errors
/// When drift cannot be mended (nothing is sent then), a request is refused, or the homeserver does not converge.
pub fn apply(setting: &Setting<'_>, out: &mut dyn Write) -> Result<Done, Error> {
    let _lock = setting.secrets.lock()?;
    observe::check_server(setting.client, setting.manifest, setting.identity)?;
    let mut done = Done::default();
    for pass in 0..PASSES {
        let observed = observe(setting.client, setting.manifest, setting.secrets)?;
        let mut plan = plan::plan(setting.manifest, &observed);
        if setting.accounts_only {
            plan = plan.accounts_only();
        }
        if let Some(error) = conflicts(&plan) {
            return Err(error);
        }
        if plan.is_empty() {
            if pass == 0 {
                show(out, &plan.to_string());
            }
            return Ok(done);
        }
        // Without the administrator's eyes a room that exists may look missing: first the accounts and the session, then
        // look again, then the rest.
        let eyes =
            |action: &Action| matches!(action, Action::Register { .. } | Action::OpenSession);
        if plan.steps.iter().any(|step| eyes(&step.action)) {
            plan.steps.retain(|step| eyes(&step.action));
        }
        for step in &plan.steps {
            for line in &step.lines {
                show(
                    out,
                    &format!("{} {line}", if step.adds { '+' } else { '~' }),
                );
            }
        }
        let (adds, changes) = plan.counts();
        Run {
            setting,
            observed: &observed,
            rooms: RefCell::new(
                observed
                    .rooms
                    .iter()
                    .map(|(alias, room)| (alias.clone(), room.room_id.clone()))
                    .collect(),
            ),
            memory: RefCell::new(setting.secrets.memory()),
            tokens: RefCell::default(),
            flow: Cell::new(None),
        }
        .execute(&plan)?;
        done.added += adds;
        done.changed += changes;
    }
    Err(Error::failed(
        format!("the homeserver still differs from the manifest after {PASSES} passes"),
        "run `fleet-bootstrap plan` and see what does not stay; somebody else may be changing it",
    ))
}

fn show(out: &mut dyn Write, line: &str) {
    // A closed pipe must not stop a half-done bootstrap.
    let _ = writeln!(out, "{line}");
}

/// The conflicts of a plan as one error.
#[must_use]
pub fn conflicts(plan: &Plan) -> Option<Error> {
    let (last, rest) = plan.conflicts.split_last()?;
    let mut message = String::new();
    for conflict in rest {
        message.push_str(&format!("{}\nhint: {}\n", conflict.message, conflict.hint));
    }
    message.push_str(&last.message);
    Some(Error::refused(message, last.hint.clone()))
}

struct Run<'a> {
    setting: &'a Setting<'a>,
    observed: &'a Observed,
    rooms: RefCell<BTreeMap<String, String>>,
    memory: RefCell<Memory>,
    tokens: RefCell<BTreeMap<String, String>>,
    flow: Cell<Option<Stage>>,
}

/// How registration is authorised (Matrix specification, "User-interactive authentication").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Token,
    Dummy,
}

impl Run<'_> {
    fn execute(&self, plan: &Plan) -> Result<(), Error> {
        let administrator = self.administrator();
        let actions = || plan.steps.iter().map(|step| &step.action);
        // Accounts and the administrator's own name come first: the name is copied into each room that is created.
        for action in actions() {
            match action {
                Action::Register { account } => self.register(account)?,
                Action::OpenSession => {
                    self.open(administrator)?;
                }
                Action::DisplayName { account, to, .. } if account == administrator => {
                    self.display_name(account, to, &self.open(administrator)?)?;
                }
                Action::Rejoin { room } => self.rejoin(room)?,
                _ => {}
            }
        }
        for action in actions() {
            match action {
                Action::CreateRoom { room } => self.create_room(self.room(room))?,
                Action::State {
                    room,
                    event_type,
                    content,
                    ..
                } => self.state(self.room(room), event_type, content)?,
                Action::Alias { room, alias } => self.alias(self.room(room), alias)?,
                Action::Publish { room, published } => self.publish(self.room(room), *published)?,
                Action::Member {
                    room,
                    account,
                    from,
                } => self.invite(self.room(room), account, from)?,
                _ => {}
            }
        }
        // Then everybody does what only they can do themselves, in one session each.
        for account in &self.setting.manifest.accounts {
            let own: Vec<&Action> = actions()
                .filter(|action| match action {
                    Action::DisplayName { account: whose, .. } => {
                        *whose == account.name && whose != administrator
                    }
                    Action::Member { account: whose, .. }
                    | Action::CloseSession { account: whose } => *whose == account.name,
                    _ => false,
                })
                .collect();
            // A creator who is not the administrator was logged in above.
            if own.is_empty() && !self.memory.borrow().open.contains(&account.name) {
                continue;
            }
            let token = self.open(&account.name)?;
            for action in own {
                match action {
                    Action::DisplayName { to, .. } => {
                        self.display_name(&account.name, to, &token)?
                    }
                    Action::Member { room, .. } => self.join(self.room(room), &token)?,
                    _ => {}
                }
            }
            self.close(&account.name, &token)?;
        }
        for action in actions() {
            if let Action::CanarySession { account } = action {
                self.canary_session(account)?;
            }
        }
        Ok(())
    }

    /// Killed between the login and the storing, the next run logs the same device in again: there is never a second.
    fn canary_session(&self, account: &str) -> Result<(), Error> {
        let answer = self.try_login(account, CANARY_DEVICE, "health.sh")?;
        let answer = self.logged_in(account, answer)?;
        self.setting
            .secrets
            .keep_canary_session(&session_of(&answer))
    }

    fn administrator(&self) -> &str {
        &self.setting.manifest.administrator().name
    }

    fn room(&self, alias: &str) -> &Room {
        self.setting
            .manifest
            .rooms
            .iter()
            .find(|room| room.alias == alias)
            .expect("the plan names rooms of the manifest")
    }

    fn room_id(&self, room: &Room) -> Result<String, Error> {
        self.rooms
            .borrow()
            .get(&room.alias)
            .cloned()
            .ok_or_else(|| {
                Error::failed(
                    format!("the room `#{}` is not known", room.alias),
                    "run this again; it looks anew",
                )
            })
    }

    fn remember(&self, change: impl FnOnce(&mut Memory)) -> Result<(), Error> {
        let mut memory = self.memory.borrow().clone();
        change(&mut memory);
        if memory != *self.memory.borrow() {
            self.setting.secrets.remember(&memory)?;
            *self.memory.borrow_mut() = memory;
        }
        Ok(())
    }

    fn change(
        &self,
        method: &'static str,
        path: &str,
        token: &str,
        body: &Value,
    ) -> Result<Answer, Error> {
        self.setting.client.change(method, path, Some(token), body)
    }

    /// Registers with a password that is on the disk already: killed before, during or after the request, the next run
    /// finds the account missing and registers it with the same password, or existing and logs in with it.
    fn register(&self, account: &str) -> Result<(), Error> {
        let password = self.setting.secrets.password_for_registration(account)?;
        let administrator = account == self.administrator();
        let id = self.setting.manifest.user_id(account);
        let mut body = json!({
            "username": account,
            "password": password,
            // Conduit makes the first account that registers an administrator, but only if it is logged in at once
            // (account.rs:235 before :273). Conversely the others can never become one by accident.
            "inhibit_login": !administrator,
        });
        if administrator {
            body["device_id"] = json!(DEVICE);
            body["initial_device_display_name"] = json!("fleet-bootstrap");
        }
        let mut answer = match self.flow.get() {
            Some(stage) => self.register_with(&body, stage, None)?,
            None => {
                self.setting
                    .client
                    .change("POST", "/_matrix/client/v3/register", None, &body)?
            }
        };
        if answer.status == 401 && answer.body.get("flows").is_some() && answer.errcode().is_empty()
        {
            let stage = self.choose(&answer)?;
            self.flow.set(Some(stage));
            let session = answer.text("session").to_owned();
            answer = self.register_with(&body, stage, Some(&session))?;
        }
        if !answer.ok() {
            let hint = match answer.status {
                403 => {
                    "registration is closed, as it should be: use `bootstrap.sh apply`, which opens it on a private port for a moment"
                }
                401 => {
                    "the registration token was not accepted: `bootstrap.sh apply` makes a new one"
                }
                _ => "run this again; it continues where it stopped",
            };
            return Err(Error::failed(
                format!(
                    "cannot register `{id}`: the homeserver answered {}",
                    answer.describe()
                ),
                hint,
            ));
        }
        if answer.text("user_id") != id {
            return Err(Error::failed(
                format!(
                    "registered `{id}`, but the homeserver calls it `{}`",
                    answer.text("user_id")
                ),
                "the manifest is for another server name",
            ));
        }
        if administrator && !answer.text("access_token").is_empty() {
            self.remember(|memory| memory.administrator = Some(session_of(&answer)))?;
        }
        Ok(())
    }

    fn register_with(
        &self,
        body: &Value,
        stage: Stage,
        session: Option<&str>,
    ) -> Result<Answer, Error> {
        let mut body = body.clone();
        body["auth"] = match stage {
            Stage::Dummy => json!({ "type": "m.login.dummy" }),
            Stage::Token => json!({
                "type": "m.login.registration_token",
                "token": self.setting.registration_token,
            }),
        };
        if let Some(session) = session {
            body["auth"]["session"] = json!(session);
        }
        self.setting
            .client
            .change("POST", "/_matrix/client/v3/register", None, &body)
    }

    fn choose(&self, answer: &Answer) -> Result<Stage, Error> {
        let flows: Vec<Vec<&str>> = answer.body["flows"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|flow| {
                flow["stages"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect()
            })
            .collect();
        let offers = |stage: &str| flows.iter().any(|flow| flow.as_slice() == [stage]);
        if offers("m.login.registration_token") && self.setting.registration_token.is_some() {
            Ok(Stage::Token)
        } else if offers("m.login.dummy") {
            Ok(Stage::Dummy)
        } else if offers("m.login.registration_token") {
            Err(Error::refused(
                "the homeserver wants a registration token and none was given",
                "name the file that holds it with `--registration-token-file`",
            ))
        } else {
            Err(Error::refused(
                format!(
                    "the homeserver wants something else than a token for registration: {flows:?}"
                ),
                "open registration with a token or without any stage, on loopback only",
            ))
        }
    }

    /// The token of an account's session. For all but the administrator the intention is on the disk before the login, so
    /// that a later run knows that somebody may still be logged in.
    fn open(&self, account: &str) -> Result<String, Error> {
        let administrator = account == self.administrator();
        if administrator
            && self.observed.session
            && let Some(session) = &self.memory.borrow().administrator
        {
            return Ok(session.access_token.clone());
        }
        if let Some(token) = self.tokens.borrow().get(account) {
            return Ok(token.clone());
        }
        // Asked for first: without it nobody is about to be logged in.
        self.password(account)?;
        if !administrator {
            self.remember(|memory| {
                memory.open.insert(account.to_owned());
            })?;
        }
        let answer = self.try_login(account, DEVICE, "fleet-bootstrap")?;
        if answer.status == 403 {
            self.remember(|memory| {
                memory.open.remove(account);
            })?;
        }
        let answer = self.logged_in(account, answer)?;
        if administrator {
            self.remember(|memory| memory.administrator = Some(session_of(&answer)))?;
        }
        let token = answer.text("access_token").to_owned();
        self.tokens
            .borrow_mut()
            .insert(account.to_owned(), token.clone());
        Ok(token)
    }

    fn password(&self, account: &str) -> Result<String, Error> {
        self.setting.secrets.password(account)?.ok_or_else(|| {
            Error::failed(
                format!(
                    "cannot log in as `{}`: `{}` does not exist",
                    self.setting.manifest.user_id(account),
                    self.setting.secrets.password_file(account).display()
                ),
                "put the account's password into that file (mode 0600), or let its owner do this step in a client",
            )
        })
    }

    fn try_login(&self, account: &str, device: &str, device_name: &str) -> Result<Answer, Error> {
        self.setting.client.change(
            "POST",
            "/_matrix/client/v3/login",
            None,
            &json!({
                "type": "m.login.password",
                "identifier": { "type": "m.id.user", "user": account },
                "password": self.password(account)?,
                "device_id": device,
                "initial_device_display_name": device_name,
            }),
        )
    }

    /// The answer of a login that was granted, or what to do about one that was not.
    fn logged_in(&self, account: &str, answer: Answer) -> Result<Answer, Error> {
        let id = self.setting.manifest.user_id(account);
        if answer.status == 403 {
            return Err(Error::failed(
                format!(
                    "cannot log in as `{id}`: the homeserver answered {}",
                    answer.describe()
                ),
                format!(
                    "`{}` no longer holds the account's password: let its owner do this step in a client (accept the invitation, set the display name), or put the password there",
                    self.setting.secrets.password_file(account).display()
                ),
            ));
        }
        must(answer, &format!("log in as `{id}`"))
    }

    fn close(&self, account: &str, token: &str) -> Result<(), Error> {
        if account == self.administrator() {
            return Ok(());
        }
        self.tokens.borrow_mut().remove(account);
        must(
            self.change("POST", "/_matrix/client/v3/logout", token, &json!({}))?,
            &format!("log out `{}`", self.setting.manifest.user_id(account)),
        )?;
        self.remember(|memory| {
            memory.open.remove(account);
        })
    }

    fn display_name(&self, account: &str, to: &str, token: &str) -> Result<(), Error> {
        let id = self.setting.manifest.user_id(account);
        must(
            self.change(
                "PUT",
                &format!("/_matrix/client/v3/profile/{}/displayname", escape(&id)),
                token,
                &json!({ "displayname": to }),
            )?,
            &format!("set the display name of `{id}`"),
        )?;
        Ok(())
    }

    /// One request makes the room with all that is declared of it. The marker in its first event lets a later run find it
    /// when it was left without its alias.
    fn create_room(&self, room: &Room) -> Result<(), Error> {
        let manifest = self.setting.manifest;
        let mut initial_state = vec![
            json!({ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": room.join_rule.as_str() } }),
            json!({ "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": room.history_visibility.as_str() } }),
            json!({ "type": "m.room.guest_access", "state_key": "", "content": { "guest_access": room.guest_access.as_str() } }),
        ];
        if room.encrypted {
            initial_state.push(json!({ "type": "m.room.encryption", "state_key": "", "content": { "algorithm": MEGOLM } }));
        }
        let mut creation = json!({ MARKER: manifest.alias_id(&room.alias) });
        if !room.federate {
            creation["m.federate"] = json!(false);
        }
        let invite: Vec<String> = room
            .members
            .iter()
            .filter(|member| **member != room.creator)
            .map(|member| manifest.user_id(member))
            .collect();
        let answer = must(
            self.change(
                "POST",
                "/_matrix/client/v3/createRoom",
                &self.creator(room)?,
                &json!({
                    "room_version": room.version,
                    "room_alias_name": room.alias,
                    "name": room.name,
                    "topic": room.topic,
                    // Not `trusted_private_chat`: in version 12 that would make every invited member a creator.
                    "preset": "private_chat",
                    "visibility": if room.published { "public" } else { "private" },
                    "creation_content": creation,
                    "initial_state": initial_state,
                    "power_level_content_override": manifest.power_levels(room).to_content(),
                    "invite": invite,
                }),
            )?,
            &format!("create the room `#{}`", room.alias),
        )?;
        self.rooms
            .borrow_mut()
            .insert(room.alias.clone(), answer.text("room_id").to_owned());
        Ok(())
    }

    fn creator(&self, room: &Room) -> Result<String, Error> {
        self.open(&room.creator)
    }

    fn in_room(
        &self,
        method: &'static str,
        room: &Room,
        rest: &str,
        body: &Value,
        what: &str,
    ) -> Result<(), Error> {
        let path = format!(
            "/_matrix/client/v3/rooms/{}/{rest}",
            escape(&self.room_id(room)?)
        );
        must(
            self.change(method, &path, &self.creator(room)?, body)?,
            &format!("{what} `#{}`", room.alias),
        )?;
        Ok(())
    }

    fn state(&self, room: &Room, event_type: &str, content: &Value) -> Result<(), Error> {
        self.in_room(
            "PUT",
            room,
            &format!("state/{}/", escape(event_type)),
            content,
            &format!("change `{event_type}` of"),
        )
    }

    fn alias(&self, room: &Room, alias: &str) -> Result<(), Error> {
        let id = self.setting.manifest.alias_id(alias);
        must(
            self.change(
                "PUT",
                &format!("/_matrix/client/v3/directory/room/{}", escape(&id)),
                &self.creator(room)?,
                &json!({ "room_id": self.room_id(room)? }),
            )?,
            &format!("let the alias `{id}` lead to the room"),
        )?;
        Ok(())
    }

    fn publish(&self, room: &Room, published: bool) -> Result<(), Error> {
        let path = format!(
            "/_matrix/client/v3/directory/list/room/{}",
            escape(&self.room_id(room)?)
        );
        must(
            self.change(
                "PUT",
                &path,
                &self.creator(room)?,
                &json!({ "visibility": if published { "public" } else { "private" } }),
            )?,
            &format!("change the directory entry of `#{}`", room.alias),
        )?;
        Ok(())
    }

    fn invite(&self, room: &Room, account: &str, from: &str) -> Result<(), Error> {
        let user = json!({ "user_id": self.setting.manifest.user_id(account) });
        if from == "ban" {
            self.in_room("POST", room, "unban", &user, "lift the ban from")?;
        }
        if from != "invite" {
            self.in_room(
                "POST",
                room,
                "invite",
                &user,
                &format!("invite `{account}` to"),
            )?;
        }
        Ok(())
    }

    fn join(&self, room: &Room, token: &str) -> Result<(), Error> {
        must(
            self.try_join(room, token)?,
            &format!("join `#{}`", room.alias),
        )?;
        Ok(())
    }

    fn try_join(&self, room: &Room, token: &str) -> Result<Answer, Error> {
        // Version 12 room ids name no server; Conduit answers 500 to this request without `via`.
        let path = format!(
            "/_matrix/client/v3/join/{}?via={}",
            escape(&self.room_id(room)?),
            escape(&self.setting.manifest.server_name)
        );
        self.change("POST", &path, token, &json!({}))
    }

    /// The administrator has left a room and must come back to see it. Joins where that is allowed; otherwise the most
    /// powerful member whose password is stored invites.
    fn rejoin(&self, alias: &str) -> Result<(), Error> {
        let room = self.room(alias);
        let manifest = self.setting.manifest;
        let own = self.open(self.administrator())?;
        let first = self.try_join(room, &own)?;
        if first.ok() {
            return Ok(());
        }
        let mut others: Vec<&String> = room
            .members
            .iter()
            .filter(|member| *member != self.administrator())
            .collect();
        others.sort_by_key(|member| (**member != room.creator, -room.power_levels.of(member)));
        let invitation = json!({ "user_id": manifest.user_id(self.administrator()) });
        let path = format!(
            "/_matrix/client/v3/rooms/{}/invite",
            escape(&self.room_id(room)?)
        );
        for member in others {
            if self.setting.secrets.password(member)?.is_none() {
                continue;
            }
            let Ok(token) = self.open(member) else {
                continue;
            };
            let invited = self.change("POST", &path, &token, &invitation);
            self.close(member, &token)?;
            if invited?.ok() {
                return self.join(room, &own);
            }
        }
        Err(Error::failed(
            format!(
                "`{}` is not in `#{alias}` and cannot join: the homeserver answered {}",
                manifest.user_id(self.administrator()),
                first.describe()
            ),
            "let a member with enough power invite it, then run this again",
        ))
    }
}

fn session_of(answer: &Answer) -> Session {
    Session {
        user_id: answer.text("user_id").to_owned(),
        device_id: answer.text("device_id").to_owned(),
        access_token: answer.text("access_token").to_owned(),
    }
}
