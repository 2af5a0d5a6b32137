//! A device that nobody has: made up by a homeserver that lies about its users.

use crate::gate::Meddling;
use crate::mutant::told;
use crate::sdk;
use harness::intercept::Question;
use harness::{Failure, OrBlame, Result};
use matrix_sdk::ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use matrix_sdk_crypto::OlmMachine;
use matrix_sdk_crypto::types::requests::{AnyOutgoingRequest, OutgoingRequest};
use serde::Serialize;
use serde_json::{Value, json};

/// See the module. Its keys are sound, and signed by themselves, so that nothing but the truth speaks against it.
#[derive(Clone, Debug)]
pub struct Forged {
    user: OwnedUserId,
    device: OwnedDeviceId,
    /// What the lying server tells of the device.
    keys: Value,
    /// A one-time key under its id, for whoever wants to talk to it.
    one_time_key: Value,
    /// What it tells of the user's identity; nothing, when the lie leaves that alone.
    identity: Option<(Value, Value)>,
}

impl Forged {
    /// Makes up a device of somebody's.
    ///
    /// # Errors
    /// When the library makes no keys.
    pub async fn device(user: &UserId, device: &DeviceId) -> Result<Self> {
        let mut forged = Self::identity(user, device).await?;
        forged.identity = None;
        let own = format!("ed25519:{device}");
        if let Some(signatures) = forged.keys["signatures"][user.as_str()].as_object_mut() {
            signatures.retain(|id, _| *id == own);
        }
        Ok(forged)
    }

    /// Makes up a device of somebody's, and an identity of theirs that has signed it.
    ///
    /// # Errors
    /// When the library makes no keys.
    pub async fn identity(user: &UserId, device: &DeviceId) -> Result<Self> {
        let machine = OlmMachine::new(user, device).await;
        let made = machine.bootstrap_cross_signing(false).await;
        let made = sdk(made, || "make up an identity".to_owned())?;
        let upload = made.upload_keys_req.as_ref().map(OutgoingRequest::request);
        let Some(AnyOutgoingRequest::KeysUpload(upload)) = upload else {
            return Err(Failure::harness("make up an identity: it has no device"));
        };
        let mut keys = json(&upload.device_keys)?;
        let signed = json(&made.upload_signatures_req.signed_keys)?;
        let more = signed[user.as_str()][device.as_str()]["signatures"][user.as_str()].as_object();
        for (id, signature) in more.into_iter().flatten() {
            keys["signatures"][user.as_str()][id] = signature.clone();
        }
        let one_time_key = upload.one_time_keys.iter().next();
        let one_time_key = one_time_key.map(|(id, key)| json!({id.as_str(): key}));
        let identity = &made.upload_signing_keys_req;
        Ok(Self {
            user: user.to_owned(),
            device: device.to_owned(),
            keys,
            one_time_key: one_time_key.unwrap_or_default(),
            identity: Some((
                json(&identity.master_key)?,
                json(&identity.self_signing_key)?,
            )),
        })
    }

    /// Its key for agreeing on secrets.
    pub fn curve25519(&self) -> Option<&str> {
        let id = format!("curve25519:{}", self.device);
        self.keys["keys"][id].as_str()
    }

    /// As what to-device messages are addressed to it.
    pub fn address(&self) -> (String, String) {
        (self.user.to_string(), self.device.to_string())
    }

    /// The lie: every sync tells that the user's devices changed, who asks for their keys is told of this one, and who
    /// claims a one-time key of it gets one.
    pub fn lie(&self) -> impl Fn(&Question) -> Option<Meddling> + Send + Sync + use<> {
        let forged = self.clone();
        move |question| {
            let sync = forged.clone();
            let query = forged.clone();
            told(question, "/sync", move |body| sync.tells_change(body))
                .or_else(|| told(question, "/keys/query", move |body| query.tells_keys(body)))
                .or_else(|| forged.hands_out(question))
        }
    }

    fn tells_change(&self, sync: &mut Value) {
        match &mut sync["device_lists"]["changed"] {
            Value::Array(changed) => changed.push(self.user.as_str().into()),
            none => *none = json!([self.user]),
        }
    }

    fn tells_keys(&self, answer: &mut Value) {
        let (user, device) = (self.user.as_str(), self.device.as_str());
        if answer["device_keys"][user].is_null() {
            return;
        }
        answer["device_keys"][user][device] = self.keys.clone();
        if let Some((master, self_signing)) = &self.identity {
            answer["master_keys"][user] = master.clone();
            answer["self_signing_keys"][user] = self_signing.clone();
        }
    }

    fn hands_out(&self, question: &Question) -> Option<Meddling> {
        let (user, device) = (self.user.to_string(), self.device.to_string());
        let asked: Value = serde_json::from_slice(&question.body).ok()?;
        asked["one_time_keys"][&user].get(&device)?;
        let key = self.one_time_key.clone();
        told(question, "/keys/claim", move |answer| {
            answer["one_time_keys"][user][device] = key;
        })
    }
}

fn json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).or_harness(|| "write down a made-up key".to_owned())
}
