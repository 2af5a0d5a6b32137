//! The room in which a Conduit takes commands from its administrators, and answers.

use crate::client::{Client, Listener};
use crate::failure::{OrBlame, Result};
use crate::probe::ProbeState;
use ruma::{OwnedRoomAliasId, OwnedRoomId};
use std::time::Duration;

/// How long the server may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// An administrator in that room.
pub(crate) struct Admins {
    administrator: Client,
    room: OwnedRoomId,
    listener: Listener,
}

impl Admins {
    /// Enters it, as somebody who is a member.
    ///
    /// # Errors
    /// When there is no such room.
    pub(crate) async fn enter(administrator: Client) -> Result<Self> {
        let alias = format!("#admins:{}", administrator.user_id().server_name());
        let alias =
            OwnedRoomAliasId::try_from(alias.as_str()).or_harness(|| format!("name `{alias}`"))?;
        Ok(Self {
            room: administrator.resolve(&alias).await?,
            listener: administrator.listen().await?,
            administrator,
        })
    }

    /// Sends a command, and hands back the first word of the server's since then that has this in it. Reports show no more
    /// of a command than its name: what follows may be a secret.
    ///
    /// # Errors
    /// When the server says nothing of the kind.
    pub(crate) async fn ask(&mut self, command: &str, answer: &str) -> Result<String> {
        let server = self.administrator.user_id().server_name();
        self.listener.forget();
        self.administrator
            .say(&self.room, &format!("@conduit:{server}: {command}"))
            .await?;
        let room = self.room.clone();
        let name = command.split_whitespace().next().unwrap_or_default();
        let what = format!("the server answers `{name}`");
        let told = self.listener.until(what, ANSWER, |seen| {
            let said = seen.room(&room).into_iter().flat_map(|room| &room.timeline);
            let mut said = said
                .filter(|event| event.sender.localpart() == "conduit")
                .filter_map(|event| event.body());
            match said.find(|body| body.contains(answer)) {
                Some(body) => ProbeState::Ready(body.to_owned()),
                None => ProbeState::NotYet("it says nothing of that".to_owned()),
            }
        });
        Ok(told.await?)
    }
}
