//! G: refusals.

use harness::client::Limits;
use harness::commons::{Scene, claim};
use harness::entrance::Entrance;
use harness::faulty::Mutant;
use harness::known;
use harness::probe::ProbeState;
use harness::raw::{self, Wire};
use harness::scenario::Outcome;
use harness::{Failure, OrBlame, Result};
use reqwest::Method;
use scenarios::{encoded, must, product};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The endpoints for which Conduit 0.10.12 wants a token (`src/main.rs:312-470`, with what ruma says of their
/// authentication), as a client uses them. `{r}` is a room, `{e}` an event, `{u}` a user.
const AUTHENTICATED: &[(Method, &str)] = &[
    (Method::GET, "v3/account/whoami"),
    (Method::POST, "v3/logout"),
    (Method::POST, "v3/logout/all"),
    (Method::GET, "v3/account/3pid"),
    (Method::GET, "v3/capabilities"),
    (Method::GET, "v3/pushrules/"),
    (Method::GET, "v3/pushrules/global/content/x"),
    (Method::PUT, "v3/pushrules/global/content/x"),
    (Method::DELETE, "v3/pushrules/global/content/x"),
    (Method::GET, "v3/pushrules/global/content/x/enabled"),
    (Method::PUT, "v3/pushrules/global/content/x/enabled"),
    (Method::GET, "v3/pushrules/global/content/x/actions"),
    (Method::PUT, "v3/pushrules/global/content/x/actions"),
    (Method::GET, "v3/rooms/{r}/event/{e}"),
    (Method::GET, "v3/rooms/{r}/aliases"),
    (Method::GET, "v3/user/{u}/filter/1"),
    (Method::POST, "v3/user/{u}/filter"),
    (Method::POST, "v3/user/{u}/openid/request_token"),
    (Method::GET, "v3/user/{u}/account_data/x"),
    (Method::PUT, "v3/user/{u}/account_data/x"),
    (Method::GET, "v3/user/{u}/rooms/{r}/account_data/x"),
    (Method::PUT, "v3/user/{u}/rooms/{r}/account_data/x"),
    (Method::GET, "v3/user/{u}/rooms/{r}/tags"),
    (Method::PUT, "v3/user/{u}/rooms/{r}/tags/x"),
    (Method::DELETE, "v3/user/{u}/rooms/{r}/tags/x"),
    (Method::PUT, "v3/profile/{u}/displayname"),
    (Method::PUT, "v3/profile/{u}/avatar_url"),
    (Method::GET, "v3/presence/{u}/status"),
    (Method::PUT, "v3/presence/{u}/status"),
    (Method::POST, "v3/keys/upload"),
    (Method::POST, "v3/keys/query"),
    (Method::POST, "v3/keys/claim"),
    (Method::GET, "v3/keys/changes?from=1&to=2"),
    (Method::POST, "v3/keys/device_signing/upload"),
    (Method::POST, "v3/keys/signatures/upload"),
    (Method::POST, "v3/room_keys/version"),
    (Method::GET, "v3/room_keys/version"),
    (Method::GET, "v3/room_keys/version/1"),
    (Method::PUT, "v3/room_keys/version/1"),
    (Method::DELETE, "v3/room_keys/version/1"),
    (Method::GET, "v3/room_keys/keys?version=1"),
    (Method::PUT, "v3/room_keys/keys?version=1"),
    (Method::DELETE, "v3/room_keys/keys?version=1"),
    (Method::GET, "v3/room_keys/keys/{r}?version=1"),
    (Method::PUT, "v3/room_keys/keys/{r}?version=1"),
    (Method::DELETE, "v3/room_keys/keys/{r}?version=1"),
    (Method::GET, "v3/room_keys/keys/{r}/x?version=1"),
    (Method::PUT, "v3/room_keys/keys/{r}/x?version=1"),
    (Method::DELETE, "v3/room_keys/keys/{r}/x?version=1"),
    (Method::POST, "v3/rooms/{r}/read_markers"),
    (Method::POST, "v3/rooms/{r}/receipt/m.read/{e}"),
    (Method::PUT, "v3/rooms/{r}/typing/{u}"),
    (Method::POST, "v3/createRoom"),
    (Method::PUT, "v3/rooms/{r}/redact/{e}/1"),
    (Method::POST, "v3/rooms/{r}/report/{e}"),
    (Method::PUT, "v3/directory/room/{a}"),
    (Method::DELETE, "v3/directory/room/{a}"),
    (Method::PUT, "v3/directory/list/room/{r}"),
    (Method::POST, "v3/publicRooms"),
    (Method::POST, "v3/user_directory/search"),
    (Method::POST, "v3/rooms/{r}/join"),
    (Method::POST, "v3/join/{r}"),
    (Method::POST, "v3/knock/{r}"),
    (Method::GET, "v3/rooms/{r}/joined_members"),
    (Method::POST, "v3/rooms/{r}/leave"),
    (Method::POST, "v3/rooms/{r}/forget"),
    (Method::GET, "v3/joined_rooms"),
    (Method::POST, "v3/rooms/{r}/kick"),
    (Method::POST, "v3/rooms/{r}/ban"),
    (Method::POST, "v3/rooms/{r}/unban"),
    (Method::POST, "v3/rooms/{r}/invite"),
    (Method::GET, "v3/rooms/{r}/members"),
    (Method::GET, "v3/thirdparty/protocols"),
    (Method::PUT, "v3/rooms/{r}/send/m.room.message/1"),
    (Method::PUT, "v3/rooms/{r}/state/m.room.topic"),
    (Method::PUT, "v3/rooms/{r}/state/x/y"),
    (Method::GET, "v3/rooms/{r}/state"),
    (Method::GET, "v3/rooms/{r}/state/m.room.topic"),
    (Method::GET, "v3/rooms/{r}/state/x/y"),
    (Method::GET, "v3/sync"),
    (Method::POST, "unstable/org.matrix.simplified_msc3575/sync"),
    (Method::GET, "v3/rooms/{r}/context/{e}"),
    (Method::GET, "v3/rooms/{r}/messages?dir=b"),
    (Method::POST, "v3/search"),
    (Method::GET, "v3/voip/turnServer"),
    (Method::PUT, "v3/sendToDevice/x/1"),
    (Method::GET, "v1/media/config"),
    (Method::GET, "v1/media/download/{s}/x"),
    (Method::GET, "v1/media/download/{s}/x/y.png"),
    (Method::GET, "v1/media/thumbnail/{s}/x?width=1&height=1"),
    (Method::GET, "v3/devices"),
    (Method::GET, "v3/devices/X"),
    (Method::PUT, "v3/devices/X"),
    (Method::DELETE, "v3/devices/X"),
    (Method::POST, "v3/delete_devices"),
    (Method::GET, "v3/pushers"),
    (Method::POST, "v3/pushers/set"),
    (Method::POST, "v3/rooms/{r}/upgrade"),
    (Method::GET, "v1/rooms/{r}/threads"),
    (Method::GET, "v1/rooms/{r}/relations/{e}"),
    (Method::GET, "v1/rooms/{r}/relations/{e}/m.thread"),
    (
        Method::GET,
        "v1/rooms/{r}/relations/{e}/m.thread/m.room.message",
    ),
    (Method::GET, "v1/rooms/{r}/hierarchy"),
];

/// The whole path of an entry of the table, about things of this server that exist for nobody.
fn path_of(scene: &Scene<'_>, endpoint: &str) -> String {
    let server = scene.server_name();
    let path = endpoint
        .replace("{r}", &encoded(&format!("!nowhere:{server}")))
        .replace("{e}", &encoded("$nothing"))
        .replace("{u}", &encoded(&format!("@nobody:{server}")))
        .replace("{a}", &encoded(&format!("#nothing:{server}")))
        .replace("{s}", server);
    format!("/_matrix/client/{path}")
}

/// G1. Without a token, with one that was never given out, and with one that was logged out: every endpoint that wants
/// one says 401, with the code from which a client knows whether to log in again.
/// Client-Server API, "Client Authentication".
#[test]
fn every_authenticated_endpoint_answers_401_without_a_good_token() -> Outcome {
    claim()
        .flawed(&[&known::ROOM_BEFORE_TOKEN])
        .notices(&[Mutant::ForgivesBadTokens])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            alice.logout().await?;
            let dead = alice.session().access_token.clone();
            let mut others = Vec::new();
            for (method, endpoint) in AUTHENTICATED {
                for (token, errcode) in [
                    (None, "M_MISSING_TOKEN"),
                    (Some("garbage"), "M_UNKNOWN_TOKEN"),
                    (Some(dead.as_str()), "M_UNKNOWN_TOKEN"),
                ] {
                    let mut ask = scene.ask(method.clone(), &path_of(scene, endpoint));
                    if let Some(token) = token {
                        ask = ask.bearer("nobody", token);
                    }
                    if method != Method::GET {
                        // Synapse looks for the room before it looks for the token.
                        ask = ask.json(&json!({"room_id": "!nowhere:vale.test"}));
                    }
                    let reply = ask.reply().await?;
                    if !reply.is(401, errcode) {
                        others.push(format!(
                            "{} with {}: {}",
                            reply.asked,
                            token.map_or("no token", |token| if token == dead {
                                "a dead token"
                            } else {
                                token
                            }),
                            reply.told()
                        ));
                    }
                }
            }
            product(
                others.is_empty(),
                "answer 401 to everybody without a good token",
                others.join("\n"),
            )
        })
}

/// G1. A bad token in the query, as old clients send it, is refused as one in the header. Its place is deprecated since
/// v1.11, not its refusal. Client-Server API, "Using access tokens".
#[test]
fn a_bad_token_in_the_query_is_refused_too() -> Outcome {
    claim()
        .flawed(&[&known::BAD_QUERY_TOKEN])
        .holds(async |scene| {
            let reply = scene
                .ask(
                    Method::GET,
                    "/_matrix/client/v3/account/whoami?access_token=garbage",
                )
                .reply()
                .await?;
            reply.must_be(401, "M_UNKNOWN_TOKEN")
        })
}

/// What belongs to alice and is marked, with the ways to reach for it under her name.
struct Treasure {
    mark: String,
    reads: Vec<String>,
    writes: Vec<(Method, String, Value)>,
}

async fn treasure(scene: &Scene<'_>, alice: &harness::client::Client) -> Result<Treasure> {
    let mark = scene.unique("mark");
    let user = encoded(alice.user_id().as_str());
    let garden = alice.create_room("garden").await?;
    let room = encoded(garden.as_str());
    let base = "/_matrix/client/v3";
    alice
        .set_account_data("test.own", &json!({"mark": mark}))
        .await?;
    let of_room = format!("{base}/user/{user}/rooms/{room}");
    alice
        .try_raw(
            Method::PUT,
            &format!("{of_room}/account_data/test.own"),
            Some(&json!({"mark": mark})),
        )
        .await?
        .must()?;
    alice
        .try_raw(
            Method::PUT,
            &format!("{of_room}/tags/u.{mark}"),
            Some(&json!({"order": 0.5})),
        )
        .await?
        .must()?;
    let filter = json!({"room": {"timeline": {"types": [mark]}}});
    let filter = alice
        .try_raw(
            Method::POST,
            &format!("{base}/user/{user}/filter"),
            Some(&filter),
        )
        .await?
        .must()?;
    let filter = filter["filter_id"].as_str().unwrap_or_default().to_owned();
    let backup = json!({"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": mark, "signatures": {}}});
    let backup = alice
        .try_raw(
            Method::POST,
            &format!("{base}/room_keys/version"),
            Some(&backup),
        )
        .await?
        .must()?;
    let backup = backup["version"].as_str().unwrap_or_default().to_owned();
    let key = json!({"first_message_index": 1, "forwarded_count": 0, "is_verified": false, "session_data": {"ciphertext": mark, "ephemeral": "x", "mac": "x"}});
    alice
        .try_raw(
            Method::PUT,
            &format!("{base}/room_keys/keys/{room}/session?version={backup}"),
            Some(&key),
        )
        .await?
        .must()?;
    alice.name_device(alice.device_id(), &mark).await?;
    let device = alice.device_id().to_string();
    Ok(Treasure {
        reads: vec![
            format!("{base}/user/{user}/account_data/test.own"),
            format!("{of_room}/account_data/test.own"),
            format!("{of_room}/tags"),
            format!("{base}/user/{user}/filter/{}", encoded(&filter)),
            format!("{base}/room_keys/version/{backup}"),
            format!("{base}/room_keys/keys?version={backup}"),
            format!("{base}/room_keys/keys/{room}?version={backup}"),
            format!("{base}/room_keys/keys/{room}/session?version={backup}"),
            format!("{base}/devices/{device}"),
            format!("{base}/devices"),
        ],
        writes: vec![
            (
                Method::PUT,
                format!("{base}/user/{user}/account_data/test.own"),
                json!({"mark": "bob's"}),
            ),
            (
                Method::PUT,
                format!("{of_room}/account_data/test.own"),
                json!({"mark": "bob's"}),
            ),
            (
                Method::DELETE,
                format!("{of_room}/tags/u.{mark}"),
                json!({}),
            ),
            (
                Method::DELETE,
                format!("{base}/room_keys/version/{backup}"),
                json!({}),
            ),
            (
                Method::DELETE,
                format!("{base}/room_keys/keys?version={backup}"),
                json!({}),
            ),
            (
                Method::PUT,
                format!("{base}/devices/{device}"),
                json!({"display_name": "bob's"}),
            ),
        ],
        mark,
    })
}

/// G2. Bob asks, with his own good token, for everything of alice's by its name: not a word of it comes to him, and
/// nothing of it is changed by him. Client-Server API, "Client Config", "Filtering", "Server-side key backups",
/// "Device Management", "Send-to-Device messaging".
#[test]
fn nobody_reads_or_changes_what_belongs_to_another_user() -> Outcome {
    claim()
        .notices(&[Mutant::ServesOthersData, Mutant::DropsToDevice])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let treasure = treasure(scene, &alice).await?;
            let mark = &treasure.mark;
            for path in &treasure.reads {
                let hers = alice.try_raw(Method::GET, path, None).await?.must()?;
                product(
                    hers.to_string().contains(mark.as_str()),
                    "give alice what is hers",
                    format!("{path}: {hers}"),
                )?;
            }
            for path in &treasure.reads {
                let answer = bob.try_raw(Method::GET, path, None).await?;
                let told = match &answer.outcome {
                    Ok(body) => body.to_string(),
                    Err(refusal) => String::from_utf8_lossy(&refusal.body).into_owned(),
                };
                product(
                    !told.contains(mark.as_str()),
                    "tell bob nothing of what is alice's",
                    format!("{path}: {told}"),
                )?;
            }
            for (method, path, body) in &treasure.writes {
                bob.try_raw(method.clone(), path, Some(body)).await?;
            }
            for path in &treasure.reads {
                let hers = alice
                    .try_raw(Method::GET, path, None)
                    .await?
                    .must()?
                    .to_string();
                product(
                    hers.contains(mark.as_str()) && !hers.contains("bob's"),
                    "leave what is alice's as it was",
                    format!("{path}: {hers}"),
                )?;
            }
            // To-device: alice gets hers, bob does not.
            let mut listeners = (alice.listen().await?, bob.listen().await?);
            let send = async |to: &harness::client::Client, note: &str| {
                let body = json!({"messages": {to.user_id(): {to.device_id(): {"note": note}}}});
                let path = format!(
                    "/_matrix/client/v3/sendToDevice/test.note/{}",
                    bob.next_txn()
                );
                bob.try_raw(Method::PUT, &path, Some(&body)).await?.must()
            };
            send(&alice, mark).await?;
            send(&bob, "sentinel").await?;
            let has = |seen: &harness::client::Seen, note: &str| {
                let notes = json!(seen.to_device).to_string();
                if notes.contains(note) {
                    ProbeState::Ready(notes)
                } else {
                    ProbeState::NotYet(notes)
                }
            };
            listeners
                .0
                .until("alice hears hers", scene.soon(), |seen| has(seen, mark))
                .await?;
            let heard = listeners
                .1
                .until("bob hears his", scene.soon(), |seen| has(seen, "sentinel"))
                .await?;
            product(
                !heard.contains(mark.as_str()),
                "keep alice's to-device messages from bob",
                heard,
            )
        })
}

/// G2. And he is told that it is not his: 403, not an answer about something else.
/// Client-Server API, "Client Config": "The access token provided is not authorized to modify this user's account data".
#[test]
fn reaching_for_another_users_account_data_is_refused_with_403() -> Outcome {
    claim()
        .flawed(&[&known::OTHERS_ACCOUNT_DATA])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let path = format!(
                "/_matrix/client/v3/user/{}/account_data/test.own",
                encoded(alice.user_id().as_str())
            );
            let mut others = Vec::new();
            for (method, body) in [
                (Method::PUT, Some(json!({"by": "bob"}))),
                (Method::GET, None),
            ] {
                let answer = bob.try_raw(method, &path, body.as_ref()).await?;
                if answer.refusal().is_none_or(|refusal| refusal.status != 403) {
                    others.push(format!(
                        "{}: {} {:?}",
                        answer.asked.request,
                        answer.status,
                        answer.outcome.ok()
                    ));
                }
            }
            product(
                others.is_empty(),
                "refuse with 403 what is another user's account data",
                others.join("\n"),
            )
        })
}

/// G3. Nobody makes an account: not without a stage, not with a dummy, not with a guessed token, not as a guest, not
/// in the name of an appservice; on every version of the path. Client-Server API, "Account registration".
#[test]
fn registration_is_closed_on_every_flow() -> Outcome {
    claim()
        .notices(&[Mutant::ForgivesForbidden])
        .at_home_only()
        .holds(async |scene| {
            let name = scene.unique("mallory");
            let credentials =
                |auth: Value| json!({"username": name, "password": "let me in", "auth": auth});
            for (query, body) in [
                ("", json!({})),
                ("", json!({"username": name, "password": "let me in"})),
                ("", credentials(json!({"type": "m.login.dummy"}))),
                (
                    "",
                    credentials(json!({"type": "m.login.registration_token", "token": "guessed"})),
                ),
                (
                    "",
                    credentials(json!({"type": "m.login.registration_token", "token": ""})),
                ),
                (
                    "",
                    credentials(json!({"type": "m.login.recaptcha", "response": "x"})),
                ),
                (
                    "",
                    json!({"type": "m.login.application_service", "username": name}),
                ),
                ("?kind=guest", json!({})),
                ("?kind=user", credentials(json!({"type": "m.login.dummy"}))),
            ] {
                for version in ["r0", "v3"] {
                    for token in [None, Some("guessed")] {
                        let mut ask = scene
                            .ask(
                                Method::POST,
                                &format!("/_matrix/client/{version}/register{query}"),
                            )
                            .json(&body);
                        if let Some(token) = token {
                            ask = ask.bearer("nobody", token);
                        }
                        let reply = ask.reply().await?;
                        let status = reply.status.as_u16();
                        must(
                            matches!(status, 401 | 403)
                                && reply.json()["flows"].is_null()
                                && reply.json()["access_token"].is_null(),
                            "register nobody",
                            format!("{} with {body}: {}", reply.asked, reply.told()),
                        )?;
                    }
                }
            }
            let login = harness::client::Client::try_login(
                scene.line(),
                scene.base(),
                &name,
                "let me in",
                "scenario",
            )
            .await?;
            login.must_be_refused(403, "M_FORBIDDEN")?;
            Ok(())
        })
}

/// G4. Who is no administrator does not get into the admin room, and what looks like a command elsewhere is talk. That
/// nothing comes of it is known once the administrator's own command was carried out, which stands behind it in the
/// queue. Conduit `src/service/admin`.
#[test]
fn only_administrators_command_the_server_and_only_in_their_room() -> Outcome {
    claim()
        .notices(&[Mutant::ForgivesForbidden])
        .at_home_only()
        .holds(async |scene| {
            let bob = scene.cast("bob").await?;
            let admins = format!("#admins:{}", scene.server_name());
            let joined = bob.try_join(&admins).await?;
            must(
                !joined.accepted(),
                "keep bob out of the admin room",
                format!("{}", joined.status),
            )?;
            let conduit = format!("@conduit:{}", scene.server_name());
            let name = scene.unique("mallory");
            let command = format!("{conduit}: create-user {name} {name}");
            let room = bob
                .create_room(harness::client::NewRoom::from("admins"))
                .await?;
            bob.say(&room, &command).await?;
            let user = harness::client::NewRoom::from("to the server").invite(
                &ruma::UserId::parse(&conduit)
                    .map_err(|error| Failure::harness(format!("name {conduit}")).because(error))?,
            );
            let direct = bob.create_room(user).await?;
            bob.say(&direct, &command).await?;
            scene.account("sentinel").await?;
            let login = harness::client::Client::try_login(
                scene.line(),
                scene.base(),
                &name,
                &name,
                "scenario",
            )
            .await?;
            login.must_be_refused(403, "M_FORBIDDEN")?;
            Ok(())
        })
}

/// G4. Nothing but the Matrix API is behind the proxy: no administration of any homeserver, no metrics, not Caddy's own
/// administration, and not Conduit's greeting. Caddyfile, `handle`.
#[test]
fn the_proxy_exposes_no_path_of_administration() -> Outcome {
    claim()
        .notices(&[Mutant::FindsEverything])
        .at_home_only()
        .by(&[Entrance::Http1, Entrance::Http2])
        .holds(async |scene| {
            for path in [
                "/",
                "/_synapse/admin/v1/server_version",
                "/_synapse/client/",
                "/_conduit/",
                "/_dendrite/admin/",
                "/admin/",
                "/config/",
                "/load",
                "/metrics",
                "/health",
                "/debug/pprof/",
                "/_matrixx",
                "/matrix/client/versions",
                "/.well-known/matrix/support",
                "/.env",
                "/.git/config",
            ] {
                let reply = scene.ask(Method::GET, path).reply().await?;
                must(
                    reply.is(404, "M_NOT_FOUND"),
                    "answer 404 to what is no Matrix API",
                    format!("{}: {}", reply.asked, reply.told()),
                )?;
            }
            let bob = scene.cast("bob").await?;
            for path in [
                "/_matrix/client/v3/admin/whois/@bob:x",
                "/_matrix/client/unstable/admin/x",
            ] {
                let answer = bob.try_raw(Method::GET, path, None).await?;
                must(
                    !answer.accepted(),
                    "administer nothing for bob",
                    format!("{path}: {}", answer.status),
                )?;
            }
            Ok(())
        })
}

/// G5. An event is at most 65 536 bytes; what is larger is refused as such, cleanly, and the room goes on.
/// Client-Server API, "Size limits", `M_TOO_LARGE`.
#[test]
fn an_event_beyond_64_kib_is_too_large_and_the_room_goes_on() -> Outcome {
    claim()
        .notices(&[Mutant::TakesAnything])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let garden = alice.create_room("garden").await?;
            let below = alice.try_say(&garden, &"x".repeat(60_000)).await?;
            product(
                below.accepted(),
                "take an event of 60 000 bytes",
                format!("{:?}", below.outcome),
            )?;
            let beyond = alice.try_say(&garden, &"x".repeat(70_000)).await?;
            let outcome = beyond.must_be_refused(413, "M_TOO_LARGE");
            alice.say(&garden, "going on").await?;
            outcome?;
            Ok(())
        })
}

/// More than the kit lets through, by one byte.
const TOO_LARGE: usize = 20_000_001;

/// G5. A body beyond the limit is refused as such on an endpoint that is not for files, too, and nothing is made of its
/// beginning. Client-Server API, "Common error codes", `M_TOO_LARGE`; Caddyfile, `@announced`.
#[test]
fn a_body_that_announces_too_much_is_too_large_on_any_endpoint() -> Outcome {
    claim()
        .notices(&[Mutant::TakesAnything])
        .at_home_only()
        .flawed(&[&known::OVERSIZE_DIRECT])
        .differs(OVERSIZE_DIFFERS)
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let body = format!("{{\"name\":\"{}\"}}", "x".repeat(TOO_LARGE - 11));
            product(
                body.len() == TOO_LARGE,
                "be one byte too large",
                body.len().to_string(),
            )?;
            let reply = scene
                .ask(Method::POST, "/_matrix/client/v3/createRoom")
                .bearer("alice", &alice.session().access_token)
                .body("application/json", body)
                .reply()
                .await?;
            let rooms = alice.joined_rooms().await?;
            product(rooms.is_empty(), "make no room of it", format!("{rooms:?}"))?;
            reply.must_be(413, "M_TOO_LARGE")
        })
}

const OVERSIZE_DIFFERS: &[(&str, &str)] = &[
    (
        "status of POST /_matrix/client/v3/createRoom",
        "Conduit answers 401, Caddy 413",
    ),
    (
        "errcode of POST /_matrix/client/v3/createRoom",
        "Conduit answers `M_MISSING_TOKEN`, Caddy `M_TOO_LARGE`",
    ),
    (
        "header access-control-allow-",
        "Caddy answers web clients by itself, with all that they might ask for",
    ),
    (
        "header content-security-policy",
        "Conduit's, against what others uploaded",
    ),
    (
        "header vary",
        "Caddy's own answer is the same for every origin",
    ),
];

/// G5. Nor does a body get through that does not say how long it is: it is cut off at the limit.
/// RFC 9112, section 7.1; Caddyfile, `request_body`.
#[test]
fn a_body_that_announces_nothing_is_cut_off_at_the_limit() -> Outcome {
    claim()
        .at_home_only()
        .by(&[Entrance::Direct, Entrance::Http1])
        .flawed(&[&known::OVERSIZE_DIRECT])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let head = format!(
                "POST /_matrix/client/v3/createRoom HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
                 Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
                scene.host(),
                alice.session().access_token
            );
            let mut request = head.into_bytes();
            // One byte too many in all: what a server leaves unread when it closes would take its answer with it.
            let chunk = format!("{:x}\r\n{}\r\n", 1_999_999, "x".repeat(1_999_999));
            request.extend_from_slice(b"9\r\n{\"name\":\"\r\n");
            for _ in 0..10 {
                request.extend_from_slice(chunk.as_bytes());
            }
            request.extend_from_slice(b"2\r\n\"}\r\n0\r\n\r\n");
            let heard = raw::ask(scene.wire(), request).await?;
            let rooms = alice.joined_rooms().await?;
            product(rooms.is_empty(), "make no room of it", format!("{rooms:?}"))?;
            let clean = raw::status(&heard) == Some(413) && heard.contains("M_TOO_LARGE");
            product(clean, "cut a body off with 413 `M_TOO_LARGE`", heard)
        })
}

/// JSON that is nested ten thousand deep, as lists and as objects.
fn deep() -> [String; 2] {
    let nested = |open: &str, close: &str| {
        let (open, close) = (open.repeat(10_000), close.repeat(10_000));
        format!("{{\"msgtype\":\"m.text\",\"body\":\"deep\",\"deep\":{open}1{close}}}")
    };
    [nested("[", "]"), nested("{\"a\":", "}")]
}

/// G5. JSON that is nested ten thousand deep gets into no room and neither kills nor blocks: the next message is taken.
/// Client-Server API, "Standard error response".
#[test]
fn json_that_is_nested_very_deeply_gets_nowhere_and_the_room_goes_on() -> Outcome {
    claim()
        .notices(&[Mutant::TakesAnything])
        .holds(async |scene| {
            for body in deep() {
                let reply = sends(scene, body.into()).await?;
                product(
                    !reply.status.is_success(),
                    "take no JSON that is nested ten thousand deep",
                    reply.told(),
                )?;
            }
            Ok(())
        })
}

/// G5. It is refused as what it is, with a code that a client understands.
/// Client-Server API, "Standard error response".
#[test]
fn json_that_is_nested_very_deeply_is_refused_cleanly() -> Outcome {
    claim().flawed(&[&known::DEEP_JSON]).holds(async |scene| {
        for body in deep() {
            let reply = sends(scene, body.into()).await?;
            let clean = reply.status == 400 && reply.json()["errcode"].is_string();
            product(clean, "refuse deep JSON with 400 and a code", reply.told())?;
        }
        Ok(())
    })
}

/// G5. Fifty clients that announce a body and do not send it hold nobody up. Caddyfile, `reverse_proxy`.
#[test]
fn bodies_that_never_come_hold_nobody_up() -> Outcome {
    claim().notices(&[Mutant::SharesOneConnection]).by(&[Entrance::Direct, Entrance::Http1]).holds(async |scene| {
        let alice = scene.cast("alice").await?;
        let to = scene.wire();
        let (host, token) = (scene.host(), alice.session().access_token.clone());
        let slow = tokio::task::spawn_blocking(move || {
            let open = |_| {
                let mut wire = Wire::open(&to)?;
                wire.send(format!("POST /_matrix/client/v3/createRoom HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"na").as_bytes());
                Ok(wire)
            };
            (0..50).map(open).collect::<Result<Vec<_>>>()
        });
        let wires = slow.await.or_harness(|| "open fifty connections".to_owned())??;
        let alice = alice.with_limits(Limits { call: scene.soon(), ..Limits::default() });
        let began = Instant::now();
        for _ in 0..5 {
            alice.whoami().await?;
        }
        let took = began.elapsed();
        let still = tokio::task::spawn_blocking(move || {
            let mut wires = wires;
            wires.iter_mut().filter_map(|wire| raw::status(&wire.hear(Duration::from_millis(1), |_| false))).collect::<Vec<_>>()
        });
        let answered = still.await.or_harness(|| "listen to fifty connections".to_owned())?;
        product(took < Duration::from_secs(20), "answer others while fifty bodies are awaited", format!("5 questions took {took:?}"))?;
        product(answered.iter().all(|status| *status >= 400), "make nothing of half a body", format!("{answered:?}"))?;
        let rooms = alice.joined_rooms().await?;
        product(rooms.is_empty(), "make no room of half a request", format!("{rooms:?}"))
    })
}

/// Sends a body to a room as alice, and hands back the reply.
async fn sends(scene: &Scene<'_>, body: Vec<u8>) -> Result<harness::commons::Reply> {
    let alice = scene.cast("alice").await?;
    let garden = alice.create_room("garden").await?;
    let send = format!(
        "/_matrix/client/v3/rooms/{}/send/m.room.message/{}",
        encoded(garden.as_str()),
        alice.next_txn()
    );
    let reply = scene
        .ask(Method::PUT, &send)
        .bearer("alice", &alice.session().access_token)
        .body("application/json", body)
        .reply()
        .await?;
    alice.say(&garden, "going on").await?;
    Ok(reply)
}

/// G6. What is no JSON gets into no room. Client-Server API, "API Standards".
#[test]
fn what_is_no_json_gets_into_no_room() -> Outcome {
    claim()
        .notices(&[Mutant::TakesAnything])
        .holds(async |scene| {
            for body in [
                "{",
                "{\"body\":}",
                "nonsense",
                "{} {}",
                "[]",
                "\"text\"",
                "null",
            ] {
                let reply = sends(scene, body.into()).await?;
                product(
                    reply.status == 400,
                    &format!("refuse the body `{body}` with 400"),
                    reply.told(),
                )?;
            }
            Ok(())
        })
}

/// G6. And it is said to be none, apart from JSON of another form. Client-Server API, "Common error codes",
/// `M_NOT_JSON`, `M_BAD_JSON`.
#[test]
fn what_is_no_json_is_refused_as_such() -> Outcome {
    claim().flawed(&[&known::NOT_JSON]).holds(async |scene| {
        let mut others = Vec::new();
        for body in ["", "{", "{\"body\":}", "nonsense", "{} {}"] {
            let reply = sends(scene, body.into()).await?;
            if !reply.is(400, "M_NOT_JSON") {
                others.push(format!("`{body}`: {}", reply.told()));
            }
        }
        product(
            others.is_empty(),
            "refuse with 400 `M_NOT_JSON` what is no JSON",
            others.join("\n"),
        )
    })
}

/// G6. Nor is anything that is not UTF-8. Client-Server API, "API Standards".
#[test]
fn a_body_that_is_not_utf8_is_refused() -> Outcome {
    claim()
        .notices(&[Mutant::TakesAnything])
        .holds(async |scene| {
            let reply = sends(
                scene,
                b"{\"msgtype\":\"m.text\",\"body\":\"\xff\xfe\"}".to_vec(),
            )
            .await?;
            product(
                reply.status == 400,
                "refuse with 400 what is not UTF-8",
                reply.told(),
            )
        })
}

/// G6. No number that canonical JSON cannot hold gets into an event, where other servers would compute another hash of
/// it: neither a fraction nor an integer beyond 2^53. Appendices, "Canonical JSON"; `M_BAD_JSON`.
#[test]
fn numbers_that_canonical_json_cannot_hold_are_refused() -> Outcome {
    claim().flawed(&[&known::BAD_NUMBERS]).holds(async |scene| {
        let mut others = Vec::new();
        for number in [
            "1.5",
            "1e3",
            "9007199254740992",
            "-9007199254740992",
            "123456789012345678901234567890",
        ] {
            let reply = sends(
                scene,
                format!("{{\"msgtype\":\"m.text\",\"body\":\"x\",\"n\":{number}}}").into(),
            )
            .await?;
            if !reply.is(400, "M_BAD_JSON") {
                others.push(format!("{number}: {}", reply.told()));
            }
        }
        product(
            others.is_empty(),
            "refuse with 400 `M_BAD_JSON` what canonical JSON cannot hold",
            others.join("\n"),
        )
    })
}

/// G6. The largest integers that canonical JSON holds come back to the digit. Appendices, "Canonical JSON".
#[test]
fn the_largest_integers_come_back_to_the_digit() -> Outcome {
    claim()
        .notices(&[Mutant::RoundsIntegers])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let garden = alice.create_room("garden").await?;
            let content =
                json!({"most": 9_007_199_254_740_991_i64, "least": -9_007_199_254_740_991_i64});
            let event = alice.send(&garden, "test.numbers", &content).await?;
            let read = alice.try_event(&garden, &event).await?.must()?;
            product(
                read.content == content,
                "give the integers back",
                read.content.to_string(),
            )
        })
}

/// G6. A key that stands twice means one thing at most: the request is refused, or what everybody then reads is one of
/// the two, the same for all. Appendices, "Canonical JSON"; RFC 8259, section 4.
#[test]
fn a_key_that_stands_twice_has_one_meaning_for_everybody() -> Outcome {
    claim()
        .notices(&[Mutant::DoublesKeys])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice
                .create_room(harness::client::NewRoom::from("garden").invite(bob.user_id()))
                .await?;
            bob.join(&garden).await?;
            let send = format!(
                "/_matrix/client/v3/rooms/{}/send/m.room.message/{}",
                encoded(garden.as_str()),
                alice.next_txn()
            );
            let reply = scene
                .ask(Method::PUT, &send)
                .bearer("alice", &alice.session().access_token)
                .body(
                    "application/json",
                    r#"{"msgtype":"m.text","body":"first","body":"second"}"#,
                )
                .reply()
                .await?;
            if reply.status == 400 {
                return Ok(());
            }
            let event = reply.json()["event_id"]
                .as_str()
                .map(ruma::OwnedEventId::try_from);
            let Some(Ok(event)) = event else {
                return Err(
                    Failure::product("refuse a doubled key with 400, or take it")
                        .last_seen(reply.told()),
                );
            };
            let mut bodies = Vec::new();
            for who in [&alice, &bob] {
                // As it came over the wire: a doubled key must not have survived.
                let path = format!(
                    "/_matrix/client/v3/rooms/{}/event/{}",
                    encoded(garden.as_str()),
                    encoded(event.as_str())
                );
                let reply = scene
                    .ask(Method::GET, &path)
                    .bearer("reader", &who.session().access_token)
                    .reply()
                    .await?;
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                product(
                    text.matches("\"body\"").count() == 1,
                    "let one of the two survive",
                    &text,
                )?;
                bodies.push(reply.json()["content"]["body"].clone());
            }
            product(
                bodies[0] == bodies[1],
                "tell everybody the same",
                format!("{bodies:?}"),
            )
        })
}

/// G9. Two `Authorization` headers are refused, or the first one counts; the proxy neither merges, drops nor reorders
/// them. RFC 9110, section 11.6.2.
#[test]
fn of_two_authorization_headers_none_is_smuggled_past_the_other() -> Outcome {
    claim()
        .notices(&[Mutant::PrefersTheLastToken])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let tokens = [&alice, &bob].map(|who| who.session().access_token.clone());
            for (first, second) in [
                (&tokens[0], tokens[1].as_str()),
                (&tokens[0], "garbage"),
                (&"garbage".to_owned(), tokens[1].as_str()),
            ] {
                let reply = scene
                    .ask(Method::GET, "/_matrix/client/v3/account/whoami")
                    .bearer("both", first)
                    .header("authorization", &format!("Bearer {second}"))
                    .reply()
                    .await?;
                let user = reply.json()["user_id"].as_str().map(str::to_owned);
                let first_counts =
                    first == &tokens[0] && user.as_deref() == Some(alice.user_id().as_str());
                product(
                    reply.status.is_client_error() || first_counts,
                    "let the first header count, or none",
                    reply.told(),
                )?;
            }
            Ok(())
        })
}

/// G9. A state key may hold anything: what is escaped in the path arrives as it was meant, whatever it looks like to a
/// proxy that tidies up. Client-Server API, "Sending events to a room"; Caddyfile, no rewriting.
#[test]
fn escaped_slashes_dots_and_percent_signs_arrive_as_they_were_meant() -> Outcome {
    claim()
        .notices(&[Mutant::UnescapesSlashes])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let garden = alice.create_room("garden").await?;
            let room = format!(
                "/_matrix/client/v3/rooms/{}/state/test.key",
                encoded(garden.as_str())
            );
            for key in [
                "a/b", "a//b", "/a", "a/../b", "a/./b", "100%", "%2F", "a b+c", "ü", "?x=1", "a#b",
                "a;b", "a&b=c", "\\",
            ] {
                let path = format!("{room}/{}", encoded(key));
                let event = alice
                    .try_raw(Method::PUT, &path, Some(&json!({"key": key})))
                    .await?
                    .must()?;
                let event = event["event_id"].as_str().map(ruma::OwnedEventId::try_from);
                let Some(Ok(event)) = event else {
                    return Err(Failure::product("answer with the event"));
                };
                let seen = alice.try_event(&garden, &event).await?.must()?;
                product(
                    seen.state_key.as_deref() == Some(key),
                    &format!("take the state key {key:?}"),
                    format!("{:?}", seen.state_key),
                )?;
                let read = alice.try_raw(Method::GET, &path, None).await?.must()?;
                product(
                    read["key"] == key,
                    &format!("find the state key {key:?}"),
                    read.to_string(),
                )?;
            }
            Ok(())
        })
}

/// G9. A path with a doubled slash or with steps up is not another path: neither way makes a Matrix endpoint of it that
/// the other does not. Server-Server API, "Request Authentication": the URI is signed as it was sent.
#[test]
fn a_path_that_is_not_tidy_leads_nowhere() -> Outcome {
    claim()
        .notices(&[Mutant::TidiesPaths])
        .by(&[Entrance::Direct, Entrance::Http1])
        .at_home_only()
        .differs(UNTIDY)
        .holds(async |scene| {
            for path in [
                "//_matrix/client/versions",
                "/_matrix//client/versions",
                "/_matrix/client//versions",
                "/_matrix/client/versions/",
                "/_matrix/./client/versions",
                "/_matrix/x/../client/versions",
                "/x/../_matrix/client/versions",
                "/_matrix/client/%76ersions%2F",
            ] {
                let heard = raw::ask(
                    scene.wire(),
                    format!(
                        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                        scene.host()
                    )
                    .into(),
                )
                .await?;
                must(
                    matches!(raw::status(&heard), Some(400 | 404)),
                    "lead nowhere",
                    format!("{path}: {heard}"),
                )?;
            }
            Ok(())
        })
}

const UNTIDY: &[(&str, &str)] = &[];

/// G9. Nobody's request is put in front of another's: what announces its length in two ways is refused or read in one
/// way by proxy and server, and whoever asks meanwhile gets their own answers. RFC 9112, section 6.1.
#[test]
fn a_request_with_two_lengths_smuggles_nothing() -> Outcome {
    claim().notices(&[Mutant::SharesOneConnection]).by(&[Entrance::Direct, Entrance::Http1]).holds(async |scene| {
        let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
        let garden = bob.create_room("garden").await?;
        let bob = bob.with_limits(Limits { call: scene.soon(), ..Limits::default() });
        let host = scene.host();
        let smuggled = scene.unique("smuggled");
        let inner = format!(
            "PUT /_matrix/client/v3/rooms/{}/send/m.room.message/{smuggled} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 200\r\nX: ",
            encoded(garden.as_str())
        );
        let token = &alice.session().access_token;
        let head = |lengths: &str| format!("POST /_matrix/client/v3/createRoom HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n{lengths}\r\n");
        let chunked = format!("2\r\n{{}}\r\n0\r\n\r\n{inner}");
        let all = chunked.len();
        let requests = [
            ("CL.TE", head(&format!("Content-Length: {all}\r\nTransfer-Encoding: chunked\r\n")) + &chunked),
            ("TE.CL", head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + &format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len())),
            ("two lengths", head(&format!("Content-Length: 2\r\nContent-Length: {}\r\n", 2 + inner.len())) + "{}" + &inner),
            ("a disguised encoding", head(&format!("Content-Length: {all}\r\nTransfer-Encoding: xchunked\r\n")) + &chunked),
            ("a space before the colon", head(&format!("Content-Length: {all}\r\nTransfer-Encoding : chunked\r\n")) + &chunked),
            ("a folded encoding", head(&format!("Content-Length: {all}\r\nTransfer-Encoding:\r\n chunked\r\n")) + &chunked),
        ];
        for (name, request) in requests {
            let to = scene.wire();
            let answers = tokio::task::spawn_blocking(move || {
                let mut wire = Wire::open(&to)?;
                wire.send(request.as_bytes());
                Ok::<_, Failure>(wire.hear(Duration::from_millis(300), |_| false))
            });
            let answers = answers.await.or_harness(|| "smuggle".to_owned())??;
            // What a proxy keeps open to the server is what would be poisoned: whoever asks next would get it.
            for _ in 0..8 {
                bob.whoami().await.map_err(|failure| Failure::product(format!("give bob his own answer behind {name}")).because(failure).last_seen(&answers))?;
            }
        }
        let said: Vec<_> = bob.messages(&garden).await?.into_iter().filter(|event| event.kind == "m.room.message").collect();
        product(said.is_empty(), "say nothing in bob's name", format!("{said:?}"))
    })
}

/// G9. Where a client comes from is what the proxy sees and not what the client says: a forged `X-Forwarded-For` does
/// not become its address. Shown where the server tells addresses. Client-Server API, "Device Management",
/// `last_seen_ip`; Caddyfile, `reverse_proxy`.
#[test]
fn a_forged_forwarded_address_is_not_believed() -> Outcome {
    claim()
        .notices(&[Mutant::BelievesForwarded])
        .by(&[Entrance::Http1, Entrance::Http2])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let forged = "203.0.113.77";
            // Conduit 0.10.12 does not update the address; Synapse does, some seconds later.
            let updates = !scene.server().is_conduit();
            harness::probe::until(
                "the server tells where alice was seen",
                scene.soon(),
                async || {
                    let reply = scene
                        .ask(Method::GET, "/_matrix/client/v3/devices")
                        .bearer("alice", &alice.session().access_token)
                        .header("x-forwarded-for", forged)
                        .header("x-real-ip", forged)
                        .header("forwarded", &format!("for={forged}"))
                        .reply()
                        .await;
                    match reply {
                        Err(failure) => ProbeState::Failed(failure.to_string()),
                        Ok(reply) if reply.told().contains(forged) => ProbeState::Failed(format!(
                            "it believes the forged one: {}",
                            reply.told()
                        )),
                        Ok(reply)
                            if updates
                                && !reply.json()["devices"][0]["last_seen_ip"].is_string() =>
                        {
                            ProbeState::NotYet(reply.told())
                        }
                        Ok(_) => ProbeState::Ready(()),
                    }
                },
            )
            .await?;
            Ok(())
        })
}

/// F, A. A query that names several devices is answered for each of them. Client-Server API, "POST
/// /_matrix/client/v3/keys/query".
#[test]
fn a_key_query_that_names_several_devices_answers_them_all() -> Outcome {
    claim().flawed(&[&known::KEY_QUERY]).holds(async |scene| {
        let account = scene.account("alice").await?;
        let devices = [scene.login(&account).await?, scene.login(&account).await?, scene.login(&account).await?];
        for device in &devices {
            let (user, id) = (device.user_id(), device.device_id());
            let keys = json!({
                "user_id": user, "device_id": id, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
                "keys": {format!("curve25519:{id}"): "x", format!("ed25519:{id}"): "x"}, "signatures": {},
            });
            device.upload_device_keys(&keys).await?;
        }
        let ids: Vec<_> = devices.iter().map(|device| device.device_id().to_string()).collect();
        let query = json!({"device_keys": {devices[0].user_id(): ids}});
        let answer = devices[0].try_raw(Method::POST, "/_matrix/client/v3/keys/query", Some(&query)).await?.must()?;
        let told = answer["device_keys"][devices[0].user_id().as_str()].as_object().map_or(0, serde_json::Map::len);
        product(told == 3, "answer a key query for each device that it names", format!("{told} of 3 devices"))
    })
}
