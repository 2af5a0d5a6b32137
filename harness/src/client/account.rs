//! Verbs about the account itself: devices, profile, account data, keys.

use std::collections::BTreeMap;

use ruma::{
    DeviceId, MxcUri, OwnedDeviceId, OwnedMxcUri, RoomId, UserId,
    api::client::{
        config::{get_global_account_data, get_room_account_data, set_global_account_data},
        device::{delete_device, get_devices, update_device},
        keys::get_keys,
        profile::{get_profile, set_profile_field},
        uiaa,
    },
    profile::ProfileFieldValue,
    serde::Raw,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{Answer, Client, Failure};

/// A device of the user. Client-Server API, "Device management". Where and when it was last seen is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The device id.
    pub id: OwnedDeviceId,
    /// The name that its owner gave it.
    pub name: Option<String>,
}

/// What others see of a user. Client-Server API, "Profiles".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The display name. Conduit gives new users one that ends in " ⚡️", unless `enable_lightning_bolt = false`.
    pub display_name: Option<String>,
    /// The avatar.
    pub avatar_url: Option<OwnedMxcUri>,
}

impl Client {
    /// The devices of the user, sorted by id. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn devices(&self) -> Result<Vec<Device>, Failure> {
        let answer = self
            .try_call(
                "list the devices",
                get_devices::v3::Request::new(),
                self.limits().call,
            )
            .await?;
        let devices = answer.must()?.devices.into_iter();
        let mut devices: Vec<_> = devices
            .map(|device| Device {
                id: device.device_id,
                name: device.display_name,
            })
            .collect();
        devices.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(devices)
    }

    /// Names a device. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn name_device(&self, device: &DeviceId, name: &str) -> Result<(), Failure> {
        let mut request = update_device::v3::Request::new(device.to_owned());
        request.display_name = Some(name.to_owned());
        self.try_call(
            format!("name the device `{device}`"),
            request,
            self.limits().call,
        )
        .await?
        .map(|_| ())
        .must()
    }

    /// Deletes a device of the user, authenticating with the password. Its session ends. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn delete_device(&self, device: &DeviceId, password: &str) -> Result<(), Failure> {
        self.try_delete_device(device, password).await?.must()
    }

    /// Deletes a device, and hands back the answer to the password.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_delete_device(
        &self,
        device: &DeviceId,
        password: &str,
    ) -> Result<Answer<()>, Failure> {
        let what = format!("delete the device `{device}`");
        let mut request = delete_device::v3::Request::new(device.to_owned());
        let first = self
            .try_call(&what, request.clone(), self.limits().call)
            .await?;
        // Client-Server API, "User-interactive authentication in the REST API": the first request opens the session. A server
        // that still trusts the login may accept at once.
        let Some(refusal) = first.refusal().filter(|refusal| refusal.status == 401) else {
            return Ok(first.map(|_| ()));
        };
        let Ok(info) = serde_json::from_slice::<uiaa::UiaaInfo>(&refusal.body) else {
            return Ok(first.map(|_| ()));
        };
        let me = uiaa::UserIdentifier::Matrix(uiaa::MatrixUserIdentifier::new(
            self.user_id().to_string(),
        ));
        let mut proof = uiaa::Password::new(me, password.to_owned());
        proof.session = info.session;
        request.auth = Some(uiaa::AuthData::Password(proof));
        Ok(self
            .try_call(what, request, self.limits().call)
            .await?
            .map(|_| ()))
    }

    /// The profile of a user. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn profile(&self, user: &UserId) -> Result<Profile, Failure> {
        self.try_profile(user).await?.must()
    }

    /// The profile of a user, or the refusal.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_profile(&self, user: &UserId) -> Result<Answer<Profile>, Failure> {
        let request = get_profile::v3::Request::new(user.to_owned());
        let answer = self
            .try_call(
                format!("read the profile of `{user}`"),
                request,
                self.limits().federated,
            )
            .await?;
        Ok(answer.map(|response| {
            let field = |name| {
                response
                    .get(name)
                    .and_then(Value::as_str)
                    .map(str::to_owned)
            };
            Profile {
                display_name: field("displayname"),
                avatar_url: field("avatar_url").map(Into::into),
            }
        }))
    }

    /// Sets the own display name. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn set_display_name(&self, name: &str) -> Result<(), Failure> {
        let value = ProfileFieldValue::DisplayName(name.to_owned());
        let request = set_profile_field::v3::Request::new(self.user_id().to_owned(), value);
        self.try_call("set its display name", request, self.limits().call)
            .await?
            .map(|_| ())
            .must()
    }

    /// Sets the own avatar. Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn set_avatar(&self, uri: &MxcUri) -> Result<(), Failure> {
        let value = ProfileFieldValue::AvatarUrl(uri.to_owned());
        let request = set_profile_field::v3::Request::new(self.user_id().to_owned(), value);
        self.try_call("set its avatar", request, self.limits().call)
            .await?
            .map(|_| ())
            .must()
    }

    /// Stores account data of a type. Client-Server API, "Client Config". Must succeed.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn set_account_data(&self, kind: &str, content: &Value) -> Result<(), Failure> {
        let what = format!("store the account data `{kind}`");
        let data =
            Raw::from_json(to_raw_value(content).map_err(|error| self.invalid(&what, error))?);
        let request = set_global_account_data::v3::Request::new_raw(
            self.user_id().to_owned(),
            kind.into(),
            data,
        );
        self.try_call(what, request, self.limits().call)
            .await?
            .map(|_| ())
            .must()
    }

    /// Account data of a type, or the refusal (404 where there is none).
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_account_data(&self, kind: &str) -> Result<Answer<Value>, Failure> {
        let request =
            get_global_account_data::v3::Request::new(self.user_id().to_owned(), kind.into());
        let answer = self
            .try_call(
                format!("read the account data `{kind}`"),
                request,
                self.limits().call,
            )
            .await?;
        self.read(answer, |response| {
            serde_json::from_str(response.account_data.json().get())
        })
    }

    /// Account data of a type that belongs to a room, or the refusal (404 where there is none).
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_room_account_data(
        &self,
        room: &RoomId,
        kind: &str,
    ) -> Result<Answer<Value>, Failure> {
        let request = get_room_account_data::v3::Request::new(
            self.user_id().to_owned(),
            room.to_owned(),
            kind.into(),
        );
        let what = format!("read the account data `{kind}` of `{room}`");
        let answer = self.try_call(what, request, self.limits().call).await?;
        self.read(answer, |response| {
            serde_json::from_str(response.account_data.json().get())
        })
    }

    /// Account data of a type. Client-Server API, "Client Config". Must succeed.
    ///
    /// # Errors
    /// When there is none, or the server does not answer.
    pub async fn account_data(&self, kind: &str) -> Result<Value, Failure> {
        self.try_account_data(kind).await?.must()
    }

    /// Uploads the identity keys of this device (the `device_keys` object, signed or not: servers do not check). Client-Server
    /// API, "Key management API". Must succeed. Conduit never replaces keys that a device already has.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn upload_device_keys(&self, device_keys: &Value) -> Result<(), Failure> {
        let body = json!({ "device_keys": device_keys });
        self.try_raw(
            reqwest::Method::POST,
            "/_matrix/client/v3/keys/upload",
            Some(&body),
        )
        .await?
        .map(|_| ())
        .must()
    }

    /// The end-to-end encryption keys of a user, as the server tells them to this one: `device <id>`, `master key`,
    /// `self-signing key`, `user-signing key`, each with its JSON. Client-Server API, "Key management API". Must succeed.
    ///
    /// Asks for all devices at once: Conduit 0.10.12, asked for several devices by name, returns the last one only
    /// (`src/api/client_server/keys.rs:308-324`).
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn keys_of(&self, user: &UserId) -> Result<BTreeMap<String, Value>, Failure> {
        let mut request = get_keys::v3::Request::new();
        request.device_keys.insert(user.to_owned(), Vec::new());
        let answer = self
            .try_call(
                format!("query the keys of `{user}`"),
                request,
                self.limits().federated,
            )
            .await?;
        let keys = self.read(answer, |mut response| {
            let mut keys = BTreeMap::new();
            for (device, key) in response.device_keys.remove(user).unwrap_or_default() {
                keys.insert(
                    format!("device {device}"),
                    serde_json::from_str(key.json().get())?,
                );
            }
            let cross_signing = [
                ("master key", response.master_keys.remove(user)),
                ("self-signing key", response.self_signing_keys.remove(user)),
                ("user-signing key", response.user_signing_keys.remove(user)),
            ];
            for (name, key) in cross_signing {
                if let Some(key) = key {
                    keys.insert(name.to_owned(), serde_json::from_str(key.json().get())?);
                }
            }
            Ok(keys)
        })?;
        keys.must()
    }
}
