//! What a site promises to the rest of the federation, put to it by a server that we play.
//!
//! On stage: a site at home with its proxy and an account of its own for alice, and delia on the [`Peer`], which declares
//! everything that it may be asked. The home is shared by all scenarios that do not break it ([`federation`]); alice, the
//! peer's name, its door and all rooms are the scenario's own, so that those who share cannot see each other. What stops
//! the home, or is about all that it knows of others, is put to one alone ([`federation_alone`]).
//!
//! Where there is no Conduit, or `FLEET_HOME=synapse` asks for it, the home is Synapse; each claim's note names the server
//! that it was put to. Sections are those of the Server-Server API unless another is named. What Conduit is known to do
//! wrong stands in `harness/src/known/federation.rs`.

mod abroad;
mod bridge;
mod devices;
mod discovery;
mod ephemeral;
mod ephemeral_forged;
mod events;
mod faults;
mod invitations;
mod joins;
mod keys;
mod media;
mod netsplit;
mod outages;
mod rejection;
mod requests;
mod robustness;
mod rooms;
mod visibility;

use fleet_peer::{Ask, Door, Mutant, Peer, Reply, Room};
use harness::accounts::{Accounts, unique};
use harness::client::{Client, NewRoom};
use harness::entrance::Entrance;
use harness::homeserver::find_conduit;
use harness::known::{Known, federation as known};
use harness::scenario::{Flaws, Outcome, Stage, requires_conduit, scenario_at, scenario_in};
use harness::shared::Shared;
use harness::site::Site;
use harness::world::{Options, World};
use harness::{Failure, OrBlame, Result};
use ruma::{OwnedRoomId, UserId};
use scenarios::table::Table;
use scenarios::{bootstrapped, login, register_abroad};
use std::sync::Arc;
use std::time::Duration;

const V1: &str = "/_matrix/federation/v1";
const V2: &str = "/_matrix/federation/v2";
/// Long enough for a request from server to server and an event to a client, in a lab on a busy machine.
fn soon() -> Duration {
    HASTE
        .try_with(|haste| *haste)
        .unwrap_or(Duration::from_secs(30))
}

tokio::task_local! {
    /// How long a claim may wait with a fault planted, where it waits in vain.
    static HASTE: Duration;
}

/// Ports on which a door listens: HTTPS, federation, and three that nobody is told of without discovery.
const PORTS: [u16; 5] = [443, 8448, 8449, 8450, 8451];

/// Who is on stage.
struct Cast {
    /// The site that the claims are about.
    site: Arc<Site>,
    /// One of its users.
    alice: Client,
    /// Where the peers are found.
    door: Door,
    /// The server that delia lives on.
    peer: Peer,
    flaws: Flaws,
}

impl Cast {
    async fn gather(stage: &Stage, home: &Home, mutant: Option<Mutant>) -> Result<Self> {
        let peer = async {
            let door = Door::open(&stage.world, 2, &PORTS).await?;
            let name = format!("{}.test", unique("moor"));
            Peer::open(&stage.world, &door, &name, &home.site).await
        };
        let (alice, peer) = tokio::try_join!(Box::pin(home.alice()), Box::pin(peer))?;
        Ok(Self {
            site: home.site.clone(),
            alice,
            door: peer.door.clone(),
            peer: peer.wrong(mutant),
            // What fails with a fault planted says nothing about the home.
            flaws: match mutant {
                None => stage.flaws.clone(),
                Some(_) => Flaws::default(),
            },
        })
    }

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

    /// Puts a claim that is known not to hold on Conduit: there it must fail in just the recorded way, and the scenario is
    /// noted as flawed; elsewhere it must hold.
    fn known(&self, known: &Known, outcome: Result<()>) -> Result<()> {
        self.flaws.known(known, &self.site.server, outcome)
    }
}

/// Where alice lives, and who makes accounts there.
struct Home {
    site: Arc<Site>,
    accounts: Accounts,
}

static HOME: Shared<Home> = Shared::new();

impl Home {
    async fn settle(world: &World) -> Result<Self> {
        let synapse = std::env::var("FLEET_HOME").is_ok_and(|home| home == "synapse");
        let site = match find_conduit(None).await? {
            Some(conduit) if !synapse => bootstrapped(world, &conduit).await?,
            None if !synapse && requires_conduit() => {
                return Err(Failure::environment(
                    "put the claim to Conduit: there is none on this machine",
                )
                .hint("give one with `CONDUIT_BIN`"));
            }
            _ => world.synapse("mere.test").await?,
        };
        Ok(Self {
            accounts: Accounts::of(&site).await?,
            site: Arc::new(site),
        })
    }

    async fn alice(&self) -> Result<Client> {
        let account = self.accounts.make(&self.site, "alice").await?;
        account.login(self.site.http(), &self.site.base_url()).await
    }

    /// Whether it still answers.
    async fn is_well(&self) -> bool {
        let version = format!("{}/_matrix/federation/v1/version", self.site.base_url());
        let asked = self.site.http().get(version);
        let answer = asked.timeout(Duration::from_secs(10)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

/// Runs a claim with everybody on stage, at a home that it shares and does not break. Whatever its peer was asked without
/// having declared it fails the claim.
async fn federation(body: impl AsyncFn(&Stage, &Cast) -> Result<()>) -> Outcome {
    federation_noticing(&[], body).await
}

/// The same, and the claim must fail with each of these faults.
async fn federation_noticing(
    noticed: &[Mutant],
    body: impl AsyncFn(&Stage, &Cast) -> Result<()>,
) -> Outcome {
    scenario_at(
        &HOME,
        Home::settle,
        Home::is_well,
        Some(Entrance::Federation),
        async |stage, home| on_stage(stage, home, noticed, body).await,
    )
    .await
}

/// The same at a home that nobody else sees.
async fn federation_alone(
    noticed: &[Mutant],
    body: impl AsyncFn(&Stage, &Cast) -> Result<()>,
) -> Outcome {
    let world = async { Ok((World::open(Options::default()).await?, ())) };
    Box::pin(scenario_in(
        world,
        Some(Entrance::Federation),
        async |stage, ()| {
            let home = Box::pin(Home::settle(&stage.world)).await?;
            on_stage(stage, &home, noticed, body).await
        },
    ))
    .await
}

async fn on_stage(
    stage: &Stage,
    home: &Home,
    noticed: &[Mutant],
    body: impl AsyncFn(&Stage, &Cast) -> Result<()>,
) -> Result<()> {
    stage.put_to(&home.site.server);
    let cast = Box::pin(Cast::gather(stage, home, None)).await?;
    let door = cast.door.clone();
    stage.witness(move || door.rubbish());
    Box::pin(body(stage, &cast)).await?;
    cast.door.nothing_unexpected()?;
    for &mutant in noticed {
        let cast = Box::pin(Cast::gather(stage, home, Some(mutant))).await?;
        let outcome = HASTE
            .scope(Duration::from_secs(5), Box::pin(body(stage, &cast)))
            .await;
        stage.must_notice(mutant.word(), outcome)?;
    }
    Ok(())
}

/// A home in the scenario's own world, and one of its users, of the fleet where there is one: for claims that are not put by
/// a peer.
async fn home(stage: &Stage) -> Result<(Arc<Site>, Client)> {
    let home = Box::pin(Home::settle(&stage.world)).await?;
    let alice = match home.site.server.is_conduit() {
        true => login(stage, &home.site, "alexander").await?,
        false => register_abroad(stage, &home.site, "alice").await?,
    };
    Ok((home.site, alice))
}

/// For a claim that the specification leaves open, or that the lab's Synapse is not set up for: where the home is no
/// Conduit, it is unknown.
async fn on_conduit(stage: &Stage, cast: &Cast) -> Result<()> {
    if cast.site.server.is_conduit() {
        return Ok(());
    }
    Err(stage.unproved("put the claim to Conduit: the home is none"))
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
                && letter.contains(&format!("SNI {}", cast.peer.name)),
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

/// Scenarios at one home cannot see each other: what another one's peer is asked without having declared it does not fail
/// this one, a name that another one has used is refused, now and later, and when the other one has gone everything of this
/// one still stands.
#[tokio::test(flavor = "multi_thread")]
async fn scenarios_that_share_a_home_cannot_see_each_other() -> Outcome {
    federation(async |stage, cast| {
        let other = stage.world.guest().await?;
        let door = Door::open(&other, 1, &PORTS).await?;
        let name = format!("{}.test", unique("fen"));
        let peer = Peer::open(&other, &door, &name, &cast.site).await?;
        let dora = user(&peer.user("dora"))?;
        cast.alice.try_profile(&dora).await?;
        demand(
            door.nothing_unexpected().is_err(),
            "come to the other scenario's peer",
            format!("{:?}", door.visits()),
        )?;
        cast.door.nothing_unexpected()?;
        let taken = async || {
            let zone = fleet_peer::zone(&name, cast.door.address(), &[]);
            let outcome = stage.world.publish([(name.clone(), zone)]).await;
            outcome.err().map(|failure| failure.to_string())
        };
        let mut refusals = vec![taken().await];
        let removed = other.close().await?;
        refusals.push(taken().await);
        let refused = |refusal: &Option<String>| {
            refusal.as_deref().is_some_and(|why| {
                why.contains("it belongs to another scenario") && why.contains("blame: harness")
            })
        };
        scenarios::must(
            refusals.iter().all(refused) && removed.containers == 1,
            "refuse another scenario's name, and remove that one's door alone",
            format!("{refusals:?}, {removed:?}"),
        )?;
        cast.peer.expect(Ask::Profile, |_| {
            Reply::json(&serde_json::json!({"displayname": "Delia"}))
        });
        let profile = cast.alice.profile(&user(&cast.delia())?).await?;
        demand(
            profile.display_name.as_deref() == Some("Delia"),
            "still reach this scenario's peer",
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
