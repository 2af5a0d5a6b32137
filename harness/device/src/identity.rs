//! A user's identity across devices, and how a new device gets at what the old ones knew.

use crate::{Device, sdk};
use harness::Result;
use harness::accounts::Account;
use harness::probe::ProbeState;
use matrix_sdk::encryption::identities::UserIdentity;
use matrix_sdk::ruma::api::client::uiaa;
use matrix_sdk::ruma::{DeviceId, UserId};

impl Device {
    /// Makes the user's cross-signing identity, and signs this device with it. Client-Server API, "Cross-signing"; Conduit
    /// asks for the password even the first time.
    ///
    /// # Errors
    /// When the server refuses, or there is an identity that this device cannot sign for.
    pub async fn makes_identity(&self, account: &Account) -> Result<()> {
        let what = || format!("{self} makes the cross-signing identity of its user");
        let encryption = self.sdk().encryption();
        let Err(error) = encryption.bootstrap_cross_signing(None).await else {
            return Ok(());
        };
        let Some(asked) = error.as_uiaa_response() else {
            return sdk(Err(error), what);
        };
        let name = uiaa::MatrixUserIdentifier::new(account.name.clone());
        let user = uiaa::UserIdentifier::Matrix(name);
        let mut password = uiaa::Password::new(user, account.password.clone());
        password.session.clone_from(&asked.session);
        let auth = uiaa::AuthData::Password(password);
        sdk(encryption.bootstrap_cross_signing(Some(auth)).await, what)
    }

    /// Waits until this device knows somebody's identity, and that this device of theirs is signed with it.
    ///
    /// # Errors
    /// When it does not come to know it.
    pub async fn knows_signed(&self, user: &UserId, device: &DeviceId) -> Result<UserIdentity> {
        let encryption = self.sdk().encryption();
        let what =
            format!("{self} knows the identity of {user}, and that it has signed `{device}`");
        self.until(what, async || {
            let identity = match encryption.get_user_identity(user).await {
                Ok(Some(identity)) => identity,
                Ok(None) => return ProbeState::NotYet("it knows no identity".to_owned()),
                Err(error) => return ProbeState::NotYet(error.to_string()),
            };
            match encryption.get_device(user, device).await {
                Ok(Some(there)) if there.is_cross_signed_by_owner() => ProbeState::Ready(identity),
                Ok(Some(_)) => ProbeState::NotYet("the device is not signed".to_owned()),
                Ok(None) => ProbeState::NotYet("it knows no such device".to_owned()),
                Err(error) => ProbeState::NotYet(error.to_string()),
            }
        })
        .await
    }

    /// Sets up recovery: secret storage, and a backup of the room keys on the server, of all that this device has now.
    /// Returns the recovery key: a secret. "Secrets", "Server-side key backups".
    ///
    /// # Errors
    /// When the server refuses, or there is a backup already.
    pub async fn enables_recovery(&self) -> Result<String> {
        let recovery = self.sdk().encryption().recovery();
        let key = recovery.enable().wait_for_backups_to_upload().await;
        sdk(key, || format!("{self} sets up recovery"))
    }

    /// Gets the user's secrets with the recovery key, and with them the identity and the room keys of the backup.
    ///
    /// # Errors
    /// When the key is wrong, or the server does not hand out what belongs to it.
    pub async fn recovers(&self, key: &str) -> Result<()> {
        let recovered = self.sdk().encryption().recovery().recover(key).await;
        sdk(recovered, || format!("{self} recovers"))
    }

    /// Waits until every room key that this device has is in the backup.
    ///
    /// # Errors
    /// When the server refuses one, or there is no backup.
    pub async fn has_backed_up(&self) -> Result<()> {
        let backups = self.sdk().encryption().backups();
        let steady = backups.wait_for_steady_state();
        let outcome = tokio::time::timeout(crate::soon(), steady).await;
        let outcome = outcome.map_err(|_| {
            harness::Failure::product(format!("{self} backs its room keys up"))
                .last_seen(format!("after a minute: {:?}", backups.state()))
        })?;
        sdk(outcome, || format!("{self} backs its room keys up"))
    }
}
