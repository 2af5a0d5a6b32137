//! What a site promises to the rest of the federation, put to it by a server that we play.
//!
//! On stage: a site at home with its proxy and one of the fleet's accounts, and delia on the [`Peer`], which declares
//! everything that it may be asked. Where there is no Conduit, or `FLEET_HOME=synapse` asks for it, the home is Synapse;
//! each claim's note names the server that it was put to. Sections are those of the Server-Server API unless another is
//! named.

mod abroad;
mod bridge;
mod devices;
mod discovery;
mod ephemeral;
mod events;
mod faults;
mod keys;
mod known;
mod media;
mod netsplit;
mod outages;
mod requests;
mod rooms;

use fleet_peer::{Ask, Door, Peer, Reply, Room};
use harness::client::{Client, NewRoom};
use harness::known::Known;
use harness::scenario::{Outcome, Stage, scenario};
use harness::site::Site;
use harness::{Failure, OrBlame, Result};
use ruma::{OwnedRoomId, UserId};
use scenarios::{fleet_site, login, register_abroad};
use std::time::Duration;

/// Where delia lives, on the server that we play.
const PLAYED: &str = "moor.test";
/// Long enough for a request from server to server and an event to a client, in a lab on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// Ports on which a door listens: HTTPS, federation, and three that nobody is told of without discovery.
const PORTS: [u16; 5] = [443, 8448, 8449, 8450, 8451];

/// Who is on stage.
struct Cast {
    /// The site that the claims are about.
    site: Site,
    /// One of its users.
    alice: Client,
    /// Where the peers are found.
    door: Door,
    /// The server that delia lives on.
    peer: Peer,
}

impl Cast {
    /// A user of the played server.
    fn delia(&self) -> String {
        self.peer.user("delia")
    }

    /// A room that anybody may join.
    async fn garden(&self) -> Result<OwnedRoomId> {
        Ok(self.alice.create_room(NewRoom::public("garden")).await?)
    }

    /// A room of alice's that delia has joined, and that alice has seen her join.
    async fn shared_garden(&self) -> Result<(OwnedRoomId, Room)> {
        let garden = self.garden().await?;
        let room = self.joins(&garden, &self.delia()).await?;
        Ok((garden, room))
    }

    /// Somebody of the played server joins.
    async fn joins(&self, garden: &ruma::RoomId, user: &str) -> Result<Room> {
        let room = self.peer.join(garden, user).await?;
        let join = room
            .state_event("m.room.member", user)
            .ok_or_else(|| Failure::harness("know the own join"))?;
        self.alice.sees(garden, &join.id).await?;
        Ok(room)
    }

    /// Puts a claim that is known not to hold on Conduit: there it must fail in just the recorded way, elsewhere it must
    /// hold.
    fn known(&self, known: &Known, outcome: Result<()>) -> Result<()> {
        if self.site.server.name == known.server {
            known.must_fail(outcome)
        } else {
            outcome
        }
    }
}

/// Runs a claim with everybody on stage. Whatever the peer was asked without having declared it fails the claim.
async fn federation(body: impl AsyncFnOnce(&Stage, &Cast) -> Result<()>) -> Outcome {
    scenario(async |stage| {
        let (site, alice) = home(stage).await?;
        let door = Door::open(&stage.world, 2, &PORTS).await?;
        let peer = Peer::open(&stage.world, &door, PLAYED, &site).await?;
        let cast = Cast {
            site,
            alice,
            door,
            peer,
        };
        body(stage, &cast).await?;
        cast.door.nothing_unexpected()
    })
    .await
}

/// The home, and one of its users.
async fn home(stage: &Stage) -> Result<(Site, Client)> {
    let synapse = std::env::var("FLEET_HOME").is_ok_and(|home| home == "synapse");
    if !synapse && (stage.has_conduit().await? || harness::scenario::requires_conduit()) {
        let site = fleet_site(stage).await?;
        let alice = login(stage, &site, "alexander").await?;
        return Ok((site, alice));
    }
    let site = stage.world.synapse("mere.test").await?;
    stage.put_to(&site.server);
    let alice = register_abroad(stage, &site, "alice").await?;
    Ok((site, alice))
}

/// For a claim that the specification leaves open, or that the lab's Synapse is not set up for: without a Conduit it is
/// unknown.
async fn on_conduit(stage: &Stage, cast: &Cast) -> Result<()> {
    if cast.site.server.is_conduit() {
        return Ok(());
    }
    stage.conduit().await.map(|_| ())
}

/// Whatever the played server is asked without having declared it is refused, and fails the scenario with the request and
/// the way by which it came; provoked here, so that the check which every scenario of this file ends with is known to be able
/// to fail. Declared, the same request passes.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_peer_did_not_declare_fails_the_scenario() -> Outcome {
    federation(async |_, cast| {
        let delia = user(&cast.delia())?;
        let undeclared = cast.alice.try_profile(&delia).await?;
        let letter = cast.door.nothing_unexpected().err();
        let letter = letter
            .map(|failure| failure.to_string())
            .unwrap_or_default();
        demand(
            !undeclared.accepted()
                && letter.contains("/_matrix/federation/v1/query/profile")
                && letter.contains("SNI moor.test"),
            "see a request that nobody declared",
            &letter,
        )?;
        cast.door.forget_the_unexpected();
        cast.peer.expect(Ask::Profile, |_| {
            Reply::json(&serde_json::json!({"displayname": "Delia"}))
        });
        let profile = cast.alice.profile(&delia).await?;
        demand(
            profile.display_name.as_deref() == Some("Delia"),
            "show the played server's answer",
            format!("{profile:?}"),
        )
    })
    .await
}

/// What a server must do.
fn demand(holds: bool, what: &str, seen: impl Into<String>) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Failure::product(what).last_seen(seen))
    }
}

fn user(id: &str) -> Result<ruma::OwnedUserId> {
    UserId::parse(id).or_harness(|| format!("name the user `{id}`"))
}

/// One after the other, each with its own verdict; all complaints in one letter.
#[derive(Default)]
struct Table {
    rows: usize,
    complaints: Vec<Failure>,
}

impl Table {
    /// Notes what came of a row.
    fn row(&mut self, name: &str, outcome: Result<()>) {
        self.rows += 1;
        if let Err(failure) = outcome {
            let mut named = Failure::new(failure.blame, format!("{name}: {}", failure.what));
            named.causes = failure.causes;
            named.last_seen = failure.last_seen;
            named.hint = failure.hint;
            self.complaints.push(named);
        }
    }

    /// All rows must have held, and there must have been some.
    fn verdict(mut self, what: &str) -> Result<()> {
        if self.rows == 0 {
            return Err(Failure::harness(format!("{what}: no row was put")));
        }
        if self.complaints.len() < 2 {
            return self.complaints.pop().map_or(Ok(()), Err);
        }
        let blame = self.complaints[0].blame;
        let letters: Vec<_> = self.complaints.iter().map(ToString::to_string).collect();
        Err(Failure::new(
            blame,
            format!(
                "{what}: {} of {} rows do not hold",
                letters.len(),
                self.rows
            ),
        )
        .last_seen(letters.join("\n")))
    }
}
