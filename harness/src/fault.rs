//! A Fault is something broken on purpose, for as long as a scope lasts: a server stopped, paused or killed, two sites cut
//! off from each other, a way that is slow.
//!
//! It is *in force* before the scope's body begins, and healed after it, also when the body fails, panics or is dropped.
//! Both are asked for, never hoped for: a fault that breaks nothing would make every claim under it hold.
//!
//! ```no_run
//! # async fn example(world: harness::world::World, home: harness::site::Site, abroad: harness::site::Site) -> harness::Result<()> {
//! use harness::fault::Fault;
//!
//! world.during(&Fault::cut(&home, &abroad), async || {
//!     // Here no packet comes from one to the other.
//!     Ok(())
//! })
//! .await
//! # }
//! ```

use crate::docker::{Docker, Output};
use crate::failure::{Failure, OrBlame, Result};
use crate::host::Host;
use crate::image::Image;
use crate::probe::{self, ProbeState};
use crate::site::Site;
use crate::world::World;
use bollard::models::DeviceMapping;
use futures_util::FutureExt as _;
use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::time::Duration;
use testcontainers::core::Mount;
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};

const SLOW: &str = include_str!("slow.py");
/// What tunnels are made with, where the machine has them.
const TUNNELS: &str = "/dev/net/tun";
/// To be broken, or whole again, takes moments; what a server needs to start is asked for by the site itself.
const MOMENTS: Duration = Duration::from_secs(15);

/// A server of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Conduit, or Synapse.
    Homeserver,
    /// Caddy.
    Proxy,
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    Stopped(Part),
    Paused(Part),
    Killed(Part),
    Restarted(Part),
    Cut(&'a Site),
    Unheard(&'a Site),
    Slow(&'a Site, Duration, u8),
}

/// See the module.
#[derive(Clone, Copy)]
pub struct Fault<'a> {
    site: &'a Site,
    kind: Kind<'a>,
}

/// What becomes of a request to a faulty site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// The caller is told at once that it cannot be answered.
    Refused,
    /// The caller is told nothing.
    Silent,
    /// It is answered.
    Served,
    /// It is refused or answered, as chance will have it.
    Either,
}

/// A kind of fault, to be a column of a table: the same claim is put under each, and written once.
pub struct Column {
    /// What is the matter with the faulty site.
    pub name: &'static str,
    /// Makes it: who is faulty, and in whose eyes.
    pub fault: for<'a> fn(&'a Site, &'a Site) -> Fault<'a>,
    /// What others who ask the faulty site meet with.
    pub meanwhile: Meanwhile,
}

const fn column(
    name: &'static str,
    meanwhile: Meanwhile,
    fault: for<'a> fn(&'a Site, &'a Site) -> Fault<'a>,
) -> Column {
    Column {
        name,
        fault,
        meanwhile,
    }
}

/// Everything that can go wrong with a partner, from a server that is away to a way that is only slow.
pub const FAULTS: &[Column] = &[
    column("homeserver stopped", Meanwhile::Refused, |at, _| {
        Fault::stopped(at, Part::Homeserver)
    }),
    column("homeserver paused", Meanwhile::Silent, |at, _| {
        Fault::paused(at, Part::Homeserver)
    }),
    column("homeserver killed", Meanwhile::Refused, |at, _| {
        Fault::killed(at, Part::Homeserver)
    }),
    column("proxy stopped", Meanwhile::Refused, |at, _| {
        Fault::stopped(at, Part::Proxy)
    }),
    column("proxy restarted", Meanwhile::Either, |at, _| {
        Fault::restarted(at, Part::Proxy)
    }),
    column("cut off", Meanwhile::Silent, |at, other| {
        Fault::cut(at, other)
    }),
    column("not to be reached", Meanwhile::Silent, |at, other| {
        Fault::unheard(other, at)
    }),
    column("unable to reach out", Meanwhile::Served, |at, other| {
        Fault::unheard(at, other)
    }),
    column("slow and lossy", Meanwhile::Served, |at, other| {
        Fault::slow(at, other, Duration::from_millis(150), 5)
    }),
];

impl<'a> Fault<'a> {
    /// A server is stopped, properly.
    pub fn stopped(site: &'a Site, part: Part) -> Self {
        let kind = Kind::Stopped(part);
        Self { site, kind }
    }

    /// A server accepts connections and answers nothing (`SIGSTOP`).
    pub fn paused(site: &'a Site, part: Part) -> Self {
        let kind = Kind::Paused(part);
        Self { site, kind }
    }

    /// A server is killed with `kill -9`, and stays down.
    pub fn killed(site: &'a Site, part: Part) -> Self {
        let kind = Kind::Killed(part);
        Self { site, kind }
    }

    /// A server is restarted when the scope begins.
    pub fn restarted(site: &'a Site, part: Part) -> Self {
        let kind = Kind::Restarted(part);
        Self { site, kind }
    }

    /// No packet comes from one of two sites to the other, and nobody is told.
    pub fn cut(one: &'a Site, other: &'a Site) -> Self {
        let (site, kind) = (one, Kind::Cut(other));
        Self { site, kind }
    }

    /// One site cannot connect to the other any more: it is never answered. The other one can connect to it.
    pub fn unheard(from: &'a Site, to: &'a Site) -> Self {
        let (site, kind) = (from, Kind::Unheard(to));
        Self { site, kind }
    }

    /// Packets between two sites take this long each way, and some, in percent, are lost.
    pub fn slow(one: &'a Site, other: &'a Site, delay: Duration, loss: u8) -> Self {
        let (site, kind) = (one, Kind::Slow(other, delay, loss));
        Self { site, kind }
    }
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let site = &self.site.name;
        let part = |part| match part {
            Part::Homeserver => &*self.site.server.name,
            Part::Proxy => "caddy",
        };
        match self.kind {
            Kind::Stopped(of) => write!(f, "{} of {site} is stopped", part(of)),
            Kind::Paused(of) => write!(f, "{} of {site} is paused", part(of)),
            Kind::Killed(of) => write!(f, "{} of {site} is killed", part(of)),
            Kind::Restarted(of) => write!(f, "{} of {site} is restarted", part(of)),
            Kind::Cut(other) => write!(f, "{site} and {} are cut off", other.name),
            Kind::Unheard(other) => write!(f, "{site} cannot connect to {}", other.name),
            Kind::Slow(other, delay, loss) => write!(
                f,
                "packets between {site} and {} take {} ms and are lost by {loss} %",
                other.name,
                delay.as_millis()
            ),
        }
    }
}

impl World {
    /// Runs the body while something is broken. The fault is in force when the body begins, and healed when this returns
    /// or unwinds.
    ///
    /// # Errors
    /// The body's. The environment's, when the fault cannot be brought about or does not heal.
    pub async fn during<T>(
        &self,
        fault: &Fault<'_>,
        body: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let breaking = self.recorder().begin(format!("begin: {fault}"));
        let (orders, healing) = (fault.breaking().await?, fault.healing().await?);
        let mut scope = Scope {
            what: fault.to_string(),
            healing,
        };
        let outcome = async {
            for order in orders {
                order.run(self.docker()).await?;
            }
            fault.is_in_force().await?;
            breaking.done();
            AssertUnwindSafe(body())
                .catch_unwind()
                .await
                .map_or_else(|panic| Ok(Err(panic)), |outcome| outcome.map(Ok))
        }
        .await;
        let step = self.recorder().begin(format!("end: {fault}"));
        let healed = async {
            for order in &scope.healing {
                order.run(self.docker()).await?;
            }
            scope.healing.clear();
            fault.is_healed().await
        }
        .await;
        if healed.is_ok() {
            step.done();
        }
        match (outcome, healed) {
            (Ok(Err(panic)), _) => resume_unwind(panic),
            (Ok(Ok(value)), healed) => healed.map(|()| value),
            (Err(failure), Ok(())) => Err(failure),
            (Err(failure), Err(unhealed)) => {
                Err(failure.because(format!("and afterwards: {unhealed}")))
            }
        }
    }
}

/// A line of shell in a container.
struct Order {
    container: String,
    script: String,
}

impl Order {
    async fn run(&self, docker: &Docker) -> Result<()> {
        docker
            .exec(&self.container, &["bash", "-c", &self.script], None)
            .await?
            .success(&format!("run `{}` for a fault", self.script))
            .map(|_| ())
    }
}

/// Heals what is still broken when it is dropped.
struct Scope {
    what: String,
    healing: Vec<Order>,
}

impl Drop for Scope {
    /// Only a scope that was dropped midway comes here with something to do; as dropping cannot await, another thread does
    /// it.
    fn drop(&mut self) {
        let orders = std::mem::take(&mut self.healing);
        if orders.is_empty() {
            return;
        }
        let heal = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .or_harness(|| "start a runtime to heal".to_owned())?
                .block_on(async {
                    let docker = Docker::connect().await?;
                    for order in orders {
                        order.run(&docker).await?;
                    }
                    Ok::<_, Failure>(())
                })
        });
        match heal.join() {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => eprintln!("{}, still: {failure}", self.what),
            Err(_) => eprintln!("{}, still", self.what),
        }
    }
}

/// The unit of a part, and a command that asks whether it answers.
fn unit(site: &Site, part: Part) -> (&'static str, &'static str) {
    match part {
        Part::Homeserver if site.server.name == "synapse" => ("synapse", HOMESERVER),
        Part::Homeserver => ("conduit", HOMESERVER),
        Part::Proxy => ("caddy", PROXY),
    }
}

const HOMESERVER: &str = "curl -so /dev/null -m 1 http://127.0.0.1:6167/_matrix/client/versions";
const PROXY: &str = "curl -sko /dev/null -m 1 https://127.0.0.1/";

/// A line of shell that connects to a site's port for HTTPS, at most a second long: 124 if nothing answers.
fn connects(to: &Site) -> String {
    format!(
        "timeout 1 bash -c '</dev/tcp/{}/443' 2>/dev/null",
        to.host.address
    )
}

impl Fault<'_> {
    async fn breaking(&self) -> Result<Vec<Order>> {
        let site = self.site;
        let on_site = |part, script: fn(&str) -> String| {
            let container = site.host.container().to_owned();
            let script = script(unit(site, part).0);
            Ok(vec![Order { container, script }])
        };
        match self.kind {
            Kind::Stopped(part) => on_site(part, |unit| format!("systemctl stop {unit}")),
            Kind::Paused(part) => {
                on_site(part, |unit| format!("systemctl kill --signal=STOP {unit}"))
            }
            Kind::Killed(part) => on_site(part, |unit| {
                format!("systemctl kill --signal=KILL {unit} && systemctl stop {unit}")
            }),
            Kind::Restarted(part) => on_site(part, |unit| {
                format!(
                    "systemctl show --property=InvocationID {unit} > /run/before-fault && \
                     systemctl restart --no-block {unit}"
                )
            }),
            // A false hardware address that is never asked for again: the frames go to nobody.
            Kind::Cut(other) => {
                Self::on_both(site, other, |there| {
                    format!(
                        "ip neigh replace {there} lladdr 02:00:00:00:00:00 dev eth0 nud permanent"
                    )
                })
                .await
            }
            // Where the connections would arrive, because a sender is told at once what its own routes forbid.
            Kind::Unheard(other) => {
                let there = &site.host.address;
                let script =
                    format!("ip rule add priority 99 to {there} ipproto 6 sport 1-32767 blackhole");
                let container = other.host.saboteur().await?;
                Ok(vec![Order { container, script }])
            }
            Kind::Slow(other, delay, loss) => {
                let millis = delay.as_millis();
                let seed = site.host.world.seed;
                Self::on_both(site, other, |there| {
                    format!(
                        "python3 /lab/slow.py {millis} {loss} {seed} {there} > /lab/slow.log 2>&1 < /dev/null & \
                         echo $! > /lab/slow.pid"
                    )
                })
                .await
            }
        }
    }

    /// Each of these does no harm where nothing was broken yet.
    async fn healing(&self) -> Result<Vec<Order>> {
        let site = self.site;
        let on_site = |part, script: fn(&str) -> String| {
            let container = site.host.container().to_owned();
            let script = script(unit(site, part).0);
            Ok(vec![Order { container, script }])
        };
        match self.kind {
            Kind::Stopped(part) | Kind::Killed(part) | Kind::Restarted(part) => {
                on_site(part, |unit| {
                    format!("systemctl reset-failed {unit} 2>/dev/null; systemctl start {unit}")
                })
            }
            Kind::Paused(part) => on_site(part, |unit| {
                format!("systemctl kill --signal=CONT {unit}")
            }),
            Kind::Cut(other) => {
                Self::on_both(site, other, |there| {
                    format!("ip neigh del {there} dev eth0 2>/dev/null; true")
                })
                .await
            }
            Kind::Unheard(other) => {
                let there = &site.host.address;
                let script = format!("ip rule del priority 99 to {there} 2>/dev/null; true");
                let container = other.host.saboteur().await?;
                Ok(vec![Order { container, script }])
            }
            Kind::Slow(other, ..) => {
                Self::on_both(site, other, |_| {
                    "[ -e /lab/slow.pid ] || exit 0; kill $(cat /lab/slow.pid) 2>/dev/null; rm /lab/slow.pid; \
                     while ip link show slow0 > /dev/null 2>&1; do sleep 0.01; done"
                        .to_owned()
                })
                .await
            }
        }
    }

    async fn on_both(
        site: &Site,
        other: &Site,
        script: impl Fn(&str) -> String,
    ) -> Result<Vec<Order>> {
        let (here, there) = tokio::try_join!(site.host.saboteur(), other.host.saboteur())?;
        Ok(vec![
            Order {
                container: here,
                script: script(&other.host.address),
            },
            Order {
                container: there,
                script: script(&site.host.address),
            },
        ])
    }

    /// Asks until it is in force.
    async fn is_in_force(&self) -> Result<()> {
        let site = self.site;
        match self.kind {
            Kind::Stopped(part) => {
                let (unit, asks) = unit(site, part);
                self.holds(
                    site,
                    &format!("! systemctl is-active {unit} && {{ {asks}; [ $? = 7 ]; }}"),
                )
                .await
            }
            Kind::Paused(part) => {
                let (unit, asks) = unit(site, part);
                let state = format!(
                    "grep ^State: /proc/$(systemctl show --property=MainPID --value {unit})/status"
                );
                self.holds(
                    site,
                    &format!("{state} | grep T && {{ {asks}; [ $? = 28 ]; }}"),
                )
                .await
            }
            Kind::Killed(part) => {
                let (unit, asks) = unit(site, part);
                let ended = format!("systemctl show --property=ExecMainStatus --value {unit}");
                self.holds(site, &format!("[ $({ended}) = 9 ] && ! systemctl is-active {unit} && {{ {asks}; [ $? = 7 ]; }}"))
                    .await
            }
            Kind::Restarted(part) => {
                let (unit, _) = unit(site, part);
                let script = format!(
                    "! systemctl show --property=InvocationID {unit} | cmp - /run/before-fault"
                );
                self.holds(site, &script).await
            }
            Kind::Cut(other) => {
                self.holds(site, &format!("{}; [ $? = 124 ]", connects(other)))
                    .await?;
                self.holds(other, &format!("{}; [ $? = 124 ]", connects(site)))
                    .await
            }
            Kind::Unheard(other) => {
                self.holds(site, &format!("{}; [ $? = 124 ]", connects(other)))
                    .await?;
                self.holds(other, &connects(site)).await
            }
            // One packet there and one back are the least that a connection costs.
            Kind::Slow(other, delay, _) => {
                self.connecting_takes(other, |took| took >= delay * 2).await
            }
        }
    }

    /// Asks until everything is as it was before.
    async fn is_healed(&self) -> Result<()> {
        let site = self.site;
        match self.kind {
            Kind::Stopped(_) | Kind::Paused(_) | Kind::Killed(_) | Kind::Restarted(_) => {
                site.ask_for_server().await.map(|_| ())
            }
            Kind::Cut(other) | Kind::Unheard(other) => {
                self.holds(site, &connects(other)).await?;
                self.holds(other, &connects(site)).await
            }
            Kind::Slow(other, delay, _) => {
                self.connecting_takes(other, |took| took < delay * 2).await
            }
        }
    }

    /// Waits until a line of shell succeeds on a site.
    async fn holds(&self, site: &Site, script: &str) -> Result<()> {
        let what = format!("{self}: `{script}` succeeds on {}", site.name);
        let unmet = probe::until(&what, MOMENTS, async || {
            match site.host.try_shell(script).await {
                Ok(Output { exit: 0, .. }) => ProbeState::Ready(()),
                Ok(output) => ProbeState::NotYet(format!(
                    "exit status {}: {}{}",
                    output.exit, output.stdout, output.stderr
                )),
                Err(failure) => ProbeState::NotYet(failure.to_string()),
            }
        })
        .await;
        unmet.or_environment(|| format!("bring about or heal a fault: {self}"))
    }

    /// Waits until a connection takes as long as it should.
    async fn connecting_takes(&self, to: &Site, so_long: impl Fn(Duration) -> bool) -> Result<()> {
        let script = format!(
            "began=$(date +%s%N); timeout 20 bash -c '</dev/tcp/{}/443' && echo $(( $(date +%s%N) - began ))",
            to.host.address
        );
        let what = format!("{self}: connecting takes accordingly long");
        let unmet = probe::until(&what, MOMENTS * 3, async || {
            let took = match self.site.host.shell(&script).await {
                Ok(nanos) => nanos.parse().map(Duration::from_nanos),
                Err(failure) => return ProbeState::NotYet(failure.to_string()),
            };
            match took {
                Ok(took) if so_long(took) => ProbeState::Ready(()),
                took => ProbeState::NotYet(format!("it took {took:?}")),
            }
        })
        .await;
        unmet.or_environment(|| format!("bring about or heal a fault: {self}"))
    }
}

impl Host {
    /// A container that shares this machine's network and may change it. The machine itself stays the VPS that it stands
    /// for, with no right that it would not have.
    async fn saboteur(&self) -> Result<String> {
        let id = self.saboteur.get_or_try_init(async || {
            let what = || format!("make a saboteur for `{}`", self.server_name);
            let image = Image::Host;
            let network = format!("container:{}", self.container());
            let making = crate::docker::making().await;
            let container = GenericImage::new(image.repository(), &image.tag())
                .with_cmd(["sleep", "infinity"])
                .with_labels(self.world.labels.pairs("saboteur"))
                .with_cap_add("NET_ADMIN")
                .with_mount(Mount::tmpfs_mount("/run"))
                .with_copy_to("/lab/slow.py", SLOW.as_bytes().to_vec())
                .with_host_config_modifier(move |config| {
                    // Not by `with_network`, which would make a network of that name first, and leave it.
                    config.network_mode = Some(network.clone());
                    config.publish_all_ports = None;
                    config.devices = Path::new(TUNNELS).exists().then(|| {
                        let tunnels = Some(TUNNELS.to_owned());
                        vec![DeviceMapping {
                            path_on_host: tunnels.clone(),
                            path_in_container: tunnels,
                            cgroup_permissions: Some("rw".to_owned()),
                        }]
                    });
                })
                .start()
                .await
                .or_environment(what)?;
            drop(making);
            let id = container.id().to_owned();
            self.world.hold(container);
            Ok::<_, Failure>(id)
        });
        Ok(id.await?.clone())
    }
}
