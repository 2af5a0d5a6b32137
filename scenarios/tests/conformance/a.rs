//! A: the basics of the client API.

use harness::commons::claim;
use harness::faulty::Mutant;
use harness::known;
use harness::probe::ProbeState;
use harness::scenario::Outcome;
use harness::{Failure, OrBlame};
use reqwest::Method;
use scenarios::{encoded, product};
use serde_json::json;

/// A1. A client finds out what the server speaks, a web client from any origin included: each answer carries
/// `Access-Control-Allow-Origin: *`, and a preflight allows the header that the token travels in.
/// Client-Server API, "API Versions", "Capabilities negotiation", "Web Browser Clients".
#[test]
fn a_web_client_of_any_origin_learns_versions_and_capabilities() -> Outcome {
    claim().notices(&[Mutant::StripsCors]).holds(async |scene| {
        let alice = scene.cast("alice").await?;
        let versions = scene
            .ask(Method::GET, "/_matrix/client/versions")
            .header("origin", "https://app.vale.test")
            .reply()
            .await?;
        let spoken = versions.json()["versions"].to_string();
        product(
            versions.status == 200 && spoken.contains("\"v1.11\""),
            "speak v1.11, which has authenticated media",
            versions.told(),
        )?;
        let path = "/_matrix/client/v3/capabilities";
        let capabilities = scene
            .ask(Method::GET, path)
            .bearer("alice", &alice.session().access_token)
            .header("origin", "https://app.vale.test")
            .reply()
            .await?;
        let rooms = &capabilities.json()["capabilities"]["m.room_versions"];
        let default = rooms["default"].as_str().unwrap_or_default();
        product(
            rooms["available"][default] == "stable",
            "make new rooms of a stable version",
            capabilities.told(),
        )?;
        let preflight = scene
            .ask(Method::OPTIONS, path)
            .header("origin", "https://app.vale.test")
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
            .reply()
            .await?;
        let allowed = preflight
            .header("access-control-allow-headers")
            .to_lowercase();
        product(
            preflight.status.is_success() && allowed.contains("authorization"),
            "allow `Authorization` to a web client",
            format!("{} `{allowed}`", preflight.status),
        )?;
        for reply in [versions, capabilities, preflight] {
            let origin = reply.header("access-control-allow-origin").to_owned();
            product(
                origin == "*",
                "answer web clients of any origin",
                format!("{}: `{origin}`", reply.asked),
            )?;
        }
        Ok(())
    })
}

/// A1. Whoever knows only the server name finds the client API by the `.well-known` of the apex, in a web client too.
/// Client-Server API, "Well-known URI".
#[test]
fn a_client_finds_the_site_by_its_server_name_alone() -> Outcome {
    claim().holds(async |scene| {
        let url = format!("https://{}/.well-known/matrix/client", scene.server_name());
        let what = || format!("answer `{url}`");
        let answer = scene
            .site()
            .http()
            .get(&url)
            .send()
            .await
            .or_blame(harness::Blame::Deployment, what)?;
        let header = |name: &str| {
            answer
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let (origin, kind) = (
            header("access-control-allow-origin"),
            header("content-type"),
        );
        let found: serde_json::Value = answer
            .json()
            .await
            .or_blame(harness::Blame::Deployment, what)?;
        let base = found["m.homeserver"]["base_url"]
            .as_str()
            .unwrap_or_default()
            .trim_end_matches('/')
            .to_owned();
        scenarios::must(
            base == scene.site().base_url() && origin == "*" && kind == "application/json",
            "lead a web client to the client API",
            format!("{found}, origin `{origin}`, type `{kind}`"),
        )
    })
}

/// A2. Two devices of alice; the token of the one that logs out is dead at once, the other one is not touched, and a
/// wrong password makes no third. Client-Server API, "Login", "Client Authentication".
#[test]
fn a_token_that_was_logged_out_is_dead_and_the_other_devices_live_on() -> Outcome {
    claim()
        .notices(&[Mutant::ForgetsLogouts, Mutant::ForgivesBadTokens])
        .holds(async |scene| {
            let account = scene.account("alice").await?;
            let (phone, desk) = (scene.login(&account).await?, scene.login(&account).await?);
            phone.whoami().await?;
            phone.logout().await?;
            phone
                .try_whoami()
                .await?
                .must_be_refused(401, "M_UNKNOWN_TOKEN")?;
            phone
                .try_logout()
                .await?
                .must_be_refused(401, "M_UNKNOWN_TOKEN")?;
            desk.whoami().await?;
            let guess = harness::client::Client::try_login(
                scene.line(),
                scene.base(),
                &account.name,
                "guessed",
                "scenario",
            )
            .await?;
            guess.must_be_refused(403, "M_FORBIDDEN")?;
            let devices = desk.devices().await?;
            product(
                devices.len() == 1 && devices[0].id == desk.device_id(),
                "have the one device left",
                format!("{devices:?}"),
            )
        })
}

/// A2. `logout/all` ends every session of the user, this one too, and nobody else's.
/// Client-Server API, "POST /_matrix/client/v3/logout/all".
#[test]
fn logging_out_everywhere_ends_every_session_of_the_user_alone() -> Outcome {
    claim().flawed(&[&known::LOGOUT_ALL]).holds(async |scene| {
        let account = scene.account("alice").await?;
        let (phone, desk) = (scene.login(&account).await?, scene.login(&account).await?);
        let bob = scene.cast("bob").await?;
        phone
            .try_raw(
                Method::POST,
                "/_matrix/client/v3/logout/all",
                Some(&json!({})),
            )
            .await?
            .must()?;
        for device in [&phone, &desk] {
            device
                .try_whoami()
                .await?
                .must_be_refused(401, "M_UNKNOWN_TOKEN")?;
        }
        bob.whoami().await?;
        let devices = scene.login(&account).await?.devices().await?;
        product(
            devices.len() == 1,
            "forget the devices that were logged out",
            format!("{devices:?}"),
        )
    })
}

/// A3. Alice names her phone and deletes it with her password; a wrong one deletes nothing. Bob, with his own good
/// password, cannot delete or rename hers. Client-Server API, "Device Management", "User-Interactive Authentication".
#[test]
fn a_device_is_named_and_deleted_by_its_owner_alone() -> Outcome {
    claim()
        .notices(&[Mutant::ForgivesBadTokens])
        .holds(async |scene| {
            let (of_alice, of_bob) = (scene.account("alice").await?, scene.account("bob").await?);
            let (phone, desk) = (scene.login(&of_alice).await?, scene.login(&of_alice).await?);
            let bob = scene.login(&of_bob).await?;
            desk.name_device(phone.device_id(), "the phone").await?;
            let names: Vec<_> = desk
                .devices()
                .await?
                .into_iter()
                .filter(|device| device.id == phone.device_id())
                .map(|device| device.name)
                .collect();
            product(
                names == [Some("the phone".to_owned())],
                "show the phone under its name",
                format!("{names:?}"),
            )?;

            let path = format!("/_matrix/client/v3/devices/{}", phone.device_id());
            bob.try_raw(Method::GET, &path, None)
                .await?
                .must_be_refused(404, "M_NOT_FOUND")?;
            let renamed = bob
                .try_raw(Method::PUT, &path, Some(&json!({"display_name": "bob's"})))
                .await?;
            product(
                !renamed.accepted(),
                "refuse to name somebody else's device",
                format!("{}", renamed.status),
            )?;
            // What the answer to a device that bob does not have should be is not said; only that nothing comes of it.
            bob.try_delete_device(phone.device_id(), &of_bob.password)
                .await?;
            phone.whoami().await?;

            let wrong = desk.try_delete_device(phone.device_id(), "guessed").await?;
            product(
                wrong.status == 401,
                "refuse a wrong password with 401",
                format!("{:?}", wrong.outcome),
            )?;
            phone.whoami().await?;
            desk.delete_device(phone.device_id(), &of_alice.password)
                .await?;
            phone
                .try_whoami()
                .await?
                .must_be_refused(401, "M_UNKNOWN_TOKEN")?;
            let left: Vec<_> = desk
                .devices()
                .await?
                .into_iter()
                .map(|device| device.id)
                .collect();
            product(
                left == [desk.device_id().to_owned()],
                "have the desk left alone",
                format!("{left:?}"),
            )
        })
}

/// A4. A client that got no answer sends again under the same transaction id: that is one event, told once, and its
/// author recognises it. From another device the same id is another event. A later message, which is seen, says that
/// nothing more is coming. Client-Server API, "Transaction identifiers".
#[test]
fn a_message_sent_again_under_its_transaction_id_is_one_event() -> Outcome {
    claim()
        .notices(&[Mutant::DuplicatesMessages, Mutant::ReordersTimelines])
        .holds(async |scene| {
            let account = scene.account("alice").await?;
            let (phone, desk) = (scene.login(&account).await?, scene.login(&account).await?);
            let garden = phone.create_room("garden").await?;
            let mut listener = phone.listen().await?;
            listener.forget();
            let txn = phone.next_txn();
            let hello = json!({"msgtype": "m.text", "body": "hello"});
            let mut sent = Vec::new();
            for _ in 0..3 {
                sent.push(
                    phone
                        .try_send_again(&garden, "m.room.message", &hello, &txn)
                        .await?
                        .must()?,
                );
            }
            product(
                sent[0] == sent[1] && sent[1] == sent[2],
                "answer a repeated send with the same event",
                format!("{sent:?}"),
            )?;
            let other = desk
                .try_send_again(&garden, "m.room.message", &hello, &txn)
                .await?
                .must()?;
            product(
                other != sent[0],
                "take the same id of another device for another event",
                other.to_string(),
            )?;
            let end = phone.say(&garden, "that is all").await?;
            listener
                .until("alice sees the last message", scene.soon(), |seen| {
                    seen.event(&garden, &end)
                })
                .await?;
            let told: Vec<_> = listener
                .seen()
                .room(&garden)
                .into_iter()
                .flat_map(|room| &room.timeline)
                .map(|event| event.event_id.clone())
                .collect();
            product(
                told == [sent[0].clone(), other, end],
                "tell each event once, in order",
                format!("{told:?}"),
            )
        })
}

/// A4. The scope of a transaction id is the device and the path: in another room it is another event, and none is
/// lost. A bot that counts its messages per room relies on it. Client-Server API, "Transaction identifiers".
#[test]
fn the_same_transaction_id_in_another_room_is_another_event() -> Outcome {
    claim()
        .flawed(&[&known::TXN_ACROSS_ROOMS])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let (garden, shed) = (
                alice.create_room("garden").await?,
                alice.create_room("shed").await?,
            );
            let txn = alice.next_txn();
            let text = |body: &str| json!({"msgtype": "m.text", "body": body});
            let first = alice
                .try_send_again(&garden, "m.room.message", &text("to the garden"), &txn)
                .await?
                .must()?;
            let second = alice
                .try_send_again(&shed, "m.room.message", &text("to the shed"), &txn)
                .await?
                .must()?;
            product(
                first != second,
                "send another event to another room under the same transaction id",
                format!("the shed was answered with the garden's event `{second}`"),
            )?;
            let said: Vec<_> = alice
                .messages(&shed)
                .await?
                .into_iter()
                .filter_map(|event| event.body().map(str::to_owned))
                .collect();
            product(
                said == ["to the shed"],
                "keep what was said in the shed",
                format!("{said:?}"),
            )
        })
}

/// A4. Nor does a message take a to-device message's place: they are different paths.
/// Client-Server API, "Transaction identifiers", "Send-to-Device messaging".
#[test]
fn a_to_device_message_under_a_used_transaction_id_arrives() -> Outcome {
    claim().flawed(&[&known::TXN_ACROSS_ENDPOINTS]).holds(async |scene| {
        let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
        let garden = alice.create_room("garden").await?;
        let mut listener = bob.listen().await?;
        let txn = alice.next_txn();
        alice.try_send_again(&garden, "m.room.message", &json!({"msgtype": "m.text", "body": "hello"}), &txn).await?.must()?;
        let to_bob = |note: &str| json!({"messages": {bob.user_id(): {bob.device_id(): {"note": note}}}});
        let path = |txn: &str| format!("/_matrix/client/v3/sendToDevice/test.note/{}", encoded(txn));
        alice.try_raw(Method::PUT, &path(txn.as_str()), Some(&to_bob("first"))).await?.must()?;
        alice.try_raw(Method::PUT, &path(alice.next_txn().as_str()), Some(&to_bob("second"))).await?.must()?;
        let notes = listener.until("bob hears the second note", scene.soon(), |seen| {
            let notes: Vec<_> = seen.to_device.iter().map(|message| message["content"]["note"].as_str().unwrap_or_default().to_owned()).collect();
            if notes.iter().any(|note| note == "second") { ProbeState::Ready(notes) } else { ProbeState::NotYet(format!("{notes:?}")) }
        }).await?;
        product(notes == ["first", "second"], "deliver a to-device message whose transaction id a room message had", format!("bob heard {notes:?}"))
    })
}

/// A5. What a client stores about itself comes back as it was stored, to its owner's other devices too, and what was
/// never stored is not found. Client-Server API, "Client Config", "Filtering".
#[test]
fn account_data_and_filters_come_back_as_they_were_stored() -> Outcome {
    claim()
        .notices(&[Mutant::ForgetsWhatIsStored])
        .holds(async |scene| {
            let account = scene.account("alice").await?;
            let (phone, desk) = (scene.login(&account).await?, scene.login(&account).await?);
            let garden = phone.create_room("garden").await?;
            phone
                .try_account_data("test.never")
                .await?
                .must_be_refused(404, "M_NOT_FOUND")?;
            let mut listener = desk.listen().await?;
            for content in [
                json!({"deep": {"list": [1, null, "ü", {"k": true}]}}),
                json!({"replaced": true}),
            ] {
                phone.set_account_data("test.stored", &content).await?;
                let read = desk.account_data("test.stored").await?;
                product(
                    read == content,
                    "read the account data back",
                    format!("{read}"),
                )?;
                listener
                    .until("the other device is told", scene.soon(), |seen| match seen
                        .account_data
                        .get("test.stored")
                    {
                        Some(told) if *told == content => ProbeState::Ready(()),
                        told => ProbeState::NotYet(format!("{told:?}")),
                    })
                    .await?;
            }
            let user = encoded(phone.user_id().as_str());
            let room = format!(
                "/_matrix/client/v3/user/{user}/rooms/{}/account_data/test.room",
                encoded(garden.as_str())
            );
            phone
                .try_raw(Method::PUT, &room, Some(&json!({"here": 1})))
                .await?
                .must()?;
            let read = desk.try_raw(Method::GET, &room, None).await?.must()?;
            product(
                read == json!({"here": 1}),
                "read the room's account data back",
                format!("{read}"),
            )?;
            desk.try_account_data("test.room")
                .await?
                .must_be_refused(404, "M_NOT_FOUND")?;
            let filter = json!({"room": {"timeline": {"limit": 3, "types": ["m.room.message"]}}});
            let path = format!("/_matrix/client/v3/user/{user}/filter");
            let stored = phone
                .try_raw(Method::POST, &path, Some(&filter))
                .await?
                .must()?;
            let id = stored["filter_id"].as_str().ok_or_else(|| {
                Failure::product("name a stored filter").last_seen(stored.to_string())
            })?;
            let read = desk
                .try_raw(Method::GET, &format!("{path}/{}", encoded(id)), None)
                .await?
                .must()?;
            let timeline = &read["room"]["timeline"];
            product(
                timeline["limit"] == 3 && timeline["types"] == json!(["m.room.message"]),
                "read the filter back",
                format!("{read}"),
            )
        })
}

/// A5. A profile is its owner's to change and everybody's to read, and rooms are told of the change.
/// Client-Server API, "Profiles".
#[test]
fn a_profile_is_changed_by_its_owner_alone_and_told_to_rooms() -> Outcome {
    claim()
        .notices(&[Mutant::ForgetsWhatIsStored])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let garden = alice
                .create_room(harness::client::NewRoom::from("garden").invite(bob.user_id()))
                .await?;
            bob.join(&garden).await?;
            let mut listener = bob.listen().await?;
            alice.set_display_name("Alice in the garden").await?;
            let seen = bob.profile(alice.user_id()).await?;
            product(
                seen.display_name.as_deref() == Some("Alice in the garden"),
                "show the new name",
                format!("{seen:?}"),
            )?;
            listener
                .until(
                    "bob is told of the name in the room",
                    scene.soon(),
                    |seen| {
                        let member = seen
                            .room(&garden)
                            .and_then(|room| room.state("m.room.member", alice.user_id().as_str()));
                        match member.map(|member| &member.content["displayname"]) {
                            Some(name) if name == "Alice in the garden" => ProbeState::Ready(()),
                            name => ProbeState::NotYet(format!("{name:?}")),
                        }
                    },
                )
                .await?;
            let path = format!(
                "/_matrix/client/v3/profile/{}/displayname",
                encoded(alice.user_id().as_str())
            );
            let taken = bob
                .try_raw(Method::PUT, &path, Some(&json!({"displayname": "Mallory"})))
                .await?;
            let name = bob.profile(alice.user_id()).await?.display_name;
            product(
                name.as_deref() == Some("Alice in the garden"),
                "leave a name to its owner",
                format!("{name:?}, answered {}", taken.status),
            )?;
            Ok(())
        })
}

/// A5. Who names another user in the path is refused, and not taken to have meant himself.
/// Client-Server API, "PUT /_matrix/client/v3/profile/{userId}/displayname".
#[test]
fn changing_another_users_name_is_refused_and_changes_nobodys() -> Outcome {
    claim()
        .flawed(&[&known::OTHERS_PROFILE])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            bob.set_display_name("Bob").await?;
            let path = format!(
                "/_matrix/client/v3/profile/{}/displayname",
                encoded(alice.user_id().as_str())
            );
            let taken = bob
                .try_raw(Method::PUT, &path, Some(&json!({"displayname": "Mallory"})))
                .await?;
            let his = bob.profile(bob.user_id()).await?.display_name;
            let seen = format!("answered {}, and bob is called {his:?}", taken.status);
            product(
                !taken.accepted() && his.as_deref() == Some("Bob"),
                "refuse to change somebody else's name",
                seen,
            )
        })
}
