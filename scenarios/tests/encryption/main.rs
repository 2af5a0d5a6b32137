//! End-to-end encryption, with real clients: what the fleet's people say to each other is read by whom it is for, and by
//! nobody else.
//!
//! On stage: alice and bob, each with as many devices as a claim needs (`fleet-device`, on `matrix-sdk`, with stores on disk
//! and stepped sync by sync). A claim is put [between](Between) two users of one Conduit, of two Conduits, and of a Conduit
//! and a Synapse in both positions, all at once, at sites that the scenarios share; accounts, devices and rooms are the
//! claim's own. What stops a server, or turns it back, is put to one [alone](encryption_alone).
//!
//! Where there is no Conduit, two Synapses take their places, and the note says so. Sections are those of the Client-Server
//! API unless another is named.

mod attachments;
mod backup;
mod canary;
mod devices;
mod fleet;
mod keys;
mod lost;
mod lost_replies;
mod messages;
mod restored;
mod rotation;
mod stores;
mod to_device;
mod verification;

use fleet_device::{Device, EncryptedRoom, Gate, HASTE, Mutant, Way};
use futures_util::future::join_all;
use harness::accounts::{Account, Accounts};
use harness::entrance::Entrance;
use harness::homeserver::find_conduit;
use harness::known::Known;
use harness::known::federation::REJOINED_AS_INVITED;
use harness::scenario::{Flaws, Outcome, Stage, requires_conduit, scenario_at, scenario_in};
use harness::shared::Shared;
use harness::site::Site;
use harness::world::{Options, World};
use harness::{Failure, OrBlame, Result};
use ruma::ServerName;
use scenarios::table::Table;
use scenarios::{ABROAD, HOME, bootstrapped, encoded};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Between whom a claim is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// alice and bob live at one site.
    Neighbours,
    /// They live at two sites of the kit.
    Conduits,
    /// alice lives at a site of the kit, bob on Synapse.
    ToSynapse,
    /// alice lives on Synapse, bob at a site of the kit.
    FromSynapse,
}

impl Between {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Neighbours,
        Self::Conduits,
        Self::ToSynapse,
        Self::FromSynapse,
    ];
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Neighbours => "between neighbours",
            Self::Conduits => "between two sites of the kit",
            Self::ToSynapse => "from the kit to Synapse",
            Self::FromSynapse => "from Synapse to the kit",
        })
    }
}

/// A site, and who makes accounts there.
pub struct Place {
    /// The site.
    pub site: Site,
    accounts: Accounts,
}

impl Place {
    async fn of(site: Site) -> Result<Arc<Self>> {
        let accounts = Accounts::of(&site).await?;
        Ok(Arc::new(Self { site, accounts }))
    }

    /// An account that nobody had before, called like this and a number.
    pub async fn account(&self, name: &str) -> Result<Account> {
        self.accounts.make(&self.site, name).await
    }

    /// What servers call it.
    pub fn name(&self) -> Result<&ServerName> {
        let name = &self.site.name;
        <&ServerName>::try_from(name.as_str()).or_harness(|| format!("name the server `{name}`"))
    }

    async fn is_well(&self) -> bool {
        let versions = format!("{}/_matrix/client/versions", self.site.base_url());
        let asked = self.site.http().get(versions);
        let answer = asked.timeout(Duration::from_secs(10)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

/// The sites that are there: the kit's, a second one of it, and a Synapse, as far as they were asked for.
#[derive(Default)]
struct Places {
    home: Option<Arc<Place>>,
    second: Option<Arc<Place>>,
    synapse: Option<Arc<Place>>,
}

const SYNAPSE: &str = "mere.test";

impl Places {
    /// What these claims need. Without a Conduit Synapse stands for it, and what only adds a Conduit is left out.
    async fn settle(world: &World, between: &[Between]) -> Result<Self> {
        let needs = |some: &[Between]| between.iter().any(|between| some.contains(between));
        let conduit = find_conduit(None).await?;
        if conduit.is_none() && requires_conduit() {
            return Err(Failure::environment(
                "put the claim to Conduit: there is none on this machine",
            )
            .hint("give one with `CONDUIT_BIN`"));
        }
        let conduit = conduit.as_ref();
        let kit = async |name, needed: bool| match conduit {
            Some(conduit) if needed && name == HOME => {
                Place::of(bootstrapped(world, conduit).await?)
                    .await
                    .map(Some)
            }
            Some(conduit) if needed => {
                let site = world.site(name, conduit).await?;
                site.follow("bootstrap.md", &[]).await?;
                Place::of(site).await.map(Some)
            }
            None if needed && name == HOME => {
                Place::of(world.synapse("fen.test").await?).await.map(Some)
            }
            _ => Ok(None),
        };
        let synapse = async |needed| match needed {
            true => Place::of(world.synapse(SYNAPSE).await?).await.map(Some),
            false => Ok(None),
        };
        let (home, second, synapse) = tokio::try_join!(
            Box::pin(kit(HOME, true)),
            Box::pin(kit(ABROAD, needs(&[Between::Conduits]))),
            Box::pin(synapse(needs(&[Between::ToSynapse, Between::FromSynapse]))),
        )?;
        Ok(Self {
            home,
            second,
            synapse,
        })
    }

    /// Where alice lives, and where bob does; nothing, when such a site is not there.
    fn of(&self, between: Between) -> Option<(Arc<Place>, Arc<Place>)> {
        let home = self.home.clone()?;
        Some(match between {
            Between::Neighbours => (home.clone(), home),
            Between::Conduits => (home, self.second.clone()?),
            Between::ToSynapse => (home, self.synapse.clone()?),
            Between::FromSynapse => (self.synapse.clone()?, home),
        })
    }

    async fn are_well(&self) -> bool {
        let all = [&self.home, &self.second, &self.synapse];
        let answers = all.into_iter().flatten().map(|place| place.is_well());
        join_all(answers).await.into_iter().all(|well| well)
    }
}

static PLACES: Shared<Places> = Shared::new();

/// Who is on stage.
pub struct Cast {
    /// Between whom the claim is put.
    pub between: Between,
    /// Where alice lives.
    pub home: Arc<Place>,
    /// Where bob lives.
    pub abroad: Arc<Place>,
    /// An account of alice's, without a device.
    pub alice: Account,
    /// An account of bob's, without a device.
    pub bob: Account,
    /// How alice's devices reach her server.
    pub home_way: Way,
    /// How bob's devices reach his.
    pub abroad_way: Way,
    /// The fault that is planted.
    mutant: Option<Mutant>,
    /// What stands in the way, with a fault planted.
    _gates: Vec<Gate>,
    flaws: Flaws,
}

impl Cast {
    async fn gather(
        stage: &Stage,
        between: Between,
        (home, abroad): (Arc<Place>, Arc<Place>),
        mutant: Option<Mutant>,
    ) -> Result<Self> {
        let (alice, bob) = tokio::try_join!(home.account("alice"), abroad.account("bob"))?;
        let mut cast = Self {
            between,
            home_way: Way::to(&home.site),
            abroad_way: Way::to(&abroad.site),
            home,
            abroad,
            alice,
            bob,
            mutant,
            _gates: Vec::new(),
            // What fails with a fault planted says nothing about the server.
            flaws: match mutant {
                None => stage.flaws.clone(),
                Some(_) => Flaws::default(),
            },
        };
        if let Some(mutant) = mutant {
            let home = Gate::wrong(&cast.home.site, mutant).await?;
            cast.home_way = home.way()?;
            cast.abroad_way = home.way()?;
            cast._gates.push(home);
            if cast.between != Between::Neighbours {
                let abroad = Gate::wrong(&cast.abroad.site, mutant).await?;
                cast.abroad_way = abroad.way()?;
                cast._gates.push(abroad);
            }
        }
        Ok(cast)
    }

    /// Opens a gate of the claim's own in front of a place; with the fault in it that is planted.
    pub async fn gate(&self, place: &Place) -> Result<Gate> {
        match self.mutant {
            None => Gate::before(&place.site).await,
            Some(mutant) => Gate::wrong(&place.site, mutant).await,
        }
    }

    /// Whether a fault is planted: then it is to blame, and not the server.
    pub fn is_wrong(&self) -> bool {
        self.mutant.is_some()
    }

    /// A new device of alice's.
    pub async fn alices(&self, name: &str) -> Result<Device> {
        Device::login(&self.home_way, &self.alice, name).await
    }

    /// A new device of bob's.
    pub async fn bobs(&self, name: &str) -> Result<Device> {
        Device::login(&self.abroad_way, &self.bob, name).await
    }

    /// A phone of each.
    pub async fn phones(&self) -> Result<(Device, Device)> {
        tokio::try_join!(self.alices("phone"), self.bobs("phone"))
    }

    /// bob follows alice's invitation into a room. Returns once both devices know that he is there.
    pub async fn follows(&self, alice: &Device, bob: &Device, room: &ruma::RoomId) -> Result<()> {
        let via = [self.home.name()?];
        let came = bob.join(room, &via).await;
        let taken_for_invited = came.is_err();
        self.race(&self.abroad, &REJOINED_AS_INVITED, came)?;
        if taken_for_invited {
            bob.join(room, &via).await?;
        }
        alice.knows_member(room, bob.user_id()).await
    }

    /// alice makes an encrypted room, and bob follows her into it. Returns once both devices know that he is there.
    pub async fn garden(&self, alice: &Device, bob: &Device) -> Result<ruma::OwnedRoomId> {
        self.garden_with(alice, bob, EncryptedRoom::default()).await
    }

    /// The same, encrypted as said.
    pub async fn garden_with(
        &self,
        alice: &Device,
        bob: &Device,
        mut how: EncryptedRoom,
    ) -> Result<ruma::OwnedRoomId> {
        how.invited = vec![bob.user_id().to_owned()];
        let room = alice.make_room(&how).await?;
        self.follows(alice, bob, &room).await?;
        Ok(room)
    }

    /// Puts a claim that a race on the server of one of the two places breaks in some runs.
    pub fn race(&self, at: &Place, known: &Known, outcome: Result<()>) -> Result<()> {
        self.flaws.race(known, &at.site.server, outcome)
    }

    /// Puts a claim that is known not to hold on the server of one of the two places: there it must fail in just the
    /// recorded way, elsewhere it must hold.
    pub fn known(&self, at: &Place, known: &Known, outcome: Result<()>) -> Result<()> {
        self.flaws.known(known, &at.site.server, outcome)
    }
}

/// Runs a claim between everybody, at sites that it shares and does not break; and it must fail with each of these faults
/// between neighbours.
async fn encryption(
    noticed: &[Mutant],
    body: impl AsyncFn(&Stage, &Cast) -> Result<()>,
) -> Outcome {
    encryption_between(Between::ALL, noticed, body).await
}

/// The same between some.
async fn encryption_between(
    between: &[Between],
    noticed: &[Mutant],
    body: impl AsyncFn(&Stage, &Cast) -> Result<()>,
) -> Outcome {
    scenario_at(
        &PLACES,
        async |world| Places::settle(world, Between::ALL).await,
        Places::are_well,
        Some(Entrance::Federation),
        async |stage, places| on_stage(stage, places, between, noticed, body).await,
    )
    .await
}

/// The same at sites that nobody else sees: only those that it needs are there.
async fn encryption_alone(
    between: &[Between],
    noticed: &[Mutant],
    body: impl AsyncFn(&Stage, &Cast) -> Result<()>,
) -> Outcome {
    let world = async { Ok((World::open(Options::default()).await?, ())) };
    Box::pin(scenario_in(
        world,
        Some(Entrance::Federation),
        async |stage, ()| {
            let places = Box::pin(Places::settle(&stage.world, between)).await?;
            on_stage(stage, &places, between, noticed, body).await
        },
    ))
    .await
}

async fn on_stage(
    stage: &Stage,
    places: &Places,
    between: &[Between],
    noticed: &[Mutant],
    body: impl AsyncFn(&Stage, &Cast) -> Result<()>,
) -> Result<()> {
    if let Some(home) = &places.home {
        stage.put_to(&home.site.server);
    }
    let rows = between.iter().filter_map(|&between| {
        let there = places.of(between)?;
        let body = &body;
        Some(async move {
            let outcome = async {
                let cast = Box::pin(Cast::gather(stage, between, there, None)).await?;
                Box::pin(body(stage, &cast)).await
            };
            (between, outcome.await)
        })
    });
    let mut table = Table::default();
    for (between, outcome) in join_all(rows).await {
        table.row(&between.to_string(), outcome);
    }
    if table.is_empty() {
        return Err(stage.unproved("put the claim to two sites of the kit: there is no Conduit"));
    }
    table.verdict("hold between everybody")?;
    let there = || {
        let there = places.of(Between::Neighbours);
        there.ok_or_else(|| Failure::harness("plant a fault: there is no site"))
    };
    // At once, because a claim that a fault fools waits in vain.
    let planted = noticed.iter().map(async |&mutant| {
        let cast = Cast::gather(stage, Between::Neighbours, there()?, Some(mutant));
        let cast = Box::pin(cast).await?;
        let haste = Duration::from_secs(10);
        let outcome = HASTE.scope(haste, Box::pin(body(stage, &cast))).await;
        stage.must_notice(mutant.word(), outcome)
    });
    join_all(planted).await.into_iter().collect()
}

/// An event as the server of a device has it.
async fn carried(
    device: &Device,
    room: &ruma::RoomId,
    event: &ruma::EventId,
) -> Result<serde_json::Value> {
    let (room, event) = (encoded(room.as_str()), encoded(event.as_str()));
    let path = format!("/_matrix/client/v3/rooms/{room}/event/{event}");
    device.asks(&path).await
}

/// What a server or a client must do.
fn demand(holds: bool, what: &str, seen: impl Into<String>) -> Result<()> {
    scenarios::product(holds, what, seen)
}
