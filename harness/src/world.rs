//! A World is everything one scenario made: network, names, certificate authority, hosts, seed. It cleans up after
//! itself, also after a panic and after Ctrl-C.

use crate::authority::{Authority, Escape, Issued, Root, Validity, zone_for};
use crate::docker::{Docker, OWNER_LABEL, RUN_LABEL, Removed, Subnet, WORLD_LABEL};
use crate::failure::{Failure, OrBlame, Result};
use crate::host::{Host, Ports};
use crate::image::Image;
use crate::record::Recorder;
use crate::verdict::Exit;
use crate::{paths, ui};
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use testcontainers::{ContainerAsync, GenericImage};
use tokio::sync::{Mutex, OnceCell};

/// The labels of one world.
#[derive(Clone, Debug)]
pub struct Labels {
    run: String,
    world: String,
}

impl Labels {
    /// As key and value, with the part that the thing plays in the world.
    pub fn pairs(&self, part: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            (RUN_LABEL.to_owned(), self.run.clone()),
            (WORLD_LABEL.to_owned(), self.world.clone()),
            (OWNER_LABEL.to_owned(), owner()),
            ("fleet.part".to_owned(), part.to_owned()),
        ])
    }
}

/// How a world is to be made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names what varies; printed with every failure. By default drawn anew.
    pub seed: Option<u64>,
    /// Leave everything standing at the end.
    pub keep: bool,
    /// The directory of the run; by default a new one under `target/fleet/`.
    pub run: Option<PathBuf>,
}

/// See the module.
pub struct World {
    inner: Arc<Inner>,
    guest: Option<Guest>,
}

/// One of several scenarios that share a world; see [`World::guest`].
struct Guest {
    number: u64,
    recorder: Recorder,
    /// How much had tried to leave the lab before it came.
    escapes: usize,
    containers: std::sync::Mutex<Vec<String>>,
}

/// What the name server serves, and for whom. What the world itself serves is nobody's.
#[derive(Default)]
struct Zones {
    text: BTreeMap<String, String>,
    of: BTreeMap<String, Option<u64>>,
}

impl Zones {
    /// Scenarios that share a world must not meet by a name: not at once, and not later either, because a server
    /// remembers where a name once led.
    fn add(&mut self, guest: Option<u64>, name: &str, text: String) -> Result<()> {
        if *self.of.entry(name.to_owned()).or_insert(guest) != guest {
            return Err(Failure::harness(format!(
                "serve the zone `{name}`: it belongs to another scenario that shares this world"
            ))
            .hint("call it otherwise, or put the claim in a world of its own"));
        }
        self.text.insert(name.to_owned(), text);
        Ok(())
    }
}

pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) docker: Docker,
    pub(crate) network: String,
    pub(crate) subnet: Subnet,
    pub(crate) root: Root,
    pub(crate) recorder: Recorder,
    pub(crate) run: PathBuf,
    /// The run's directory is this world's alone: nobody reads it after a success.
    own_run: bool,
    pub(crate) seed: u64,
    keep: AtomicBool,
    authority: OnceCell<Authority>,
    zones: Mutex<Zones>,
    /// The machines so far: server name, container id, ports.
    pub(crate) machines: std::sync::Mutex<Vec<(String, String, Ports)>>,
    /// testcontainers removes a container when its handle is dropped. Here the world removes it, so that a failed
    /// scenario's machines still stand when the evidence is collected.
    handles: std::sync::Mutex<Vec<ManuallyDrop<ContainerAsync<GenericImage>>>>,
}

impl World {
    /// Makes a closed network with its own trust. Hosts and servers come later.
    ///
    /// # Errors
    /// The environment's: no docker, no images.
    pub async fn open(options: Options) -> Result<Self> {
        let docker = Docker::connect().await?;
        Image::Host.require(&docker).await?;
        guard_against_interruption();
        sweep_leftovers_once(&docker).await?;
        let seed = options
            .seed
            .or_else(seed_from_environment)
            .unwrap_or_else(draw);
        let name = format!(
            "fleet-{:04x}-{:x}-{}",
            seed & 0xffff,
            std::process::id(),
            next()
        );
        let own_run = options.run.is_none();
        let run = match options.run {
            Some(run) => run,
            None => new_run_directory()?,
        };
        let labels = Labels {
            run: run
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            world: name.clone(),
        };
        let keep =
            options.keep || std::env::var_os("HARNESS_KEEP").is_some_and(|value| value == "1");
        if keep {
            // Before anything is made: the sweep of another process must not take it for a leftover.
            remember_kept(&name, &run.display().to_string())?;
        }
        let pairs = labels.pairs("network").into_iter().collect();
        let subnet = match docker.create_closed_network(&name, pairs).await {
            Ok(subnet) => subnet,
            Err(failure) => {
                forget_kept(&name);
                return Err(failure);
            }
        };
        Ok(Self {
            guest: None,
            inner: Arc::new(Inner {
                root: Root::generate(&name)?,
                recorder: Recorder::new(),
                // The network has the name of its world.
                network: name.clone(),
                name,
                labels,
                docker,
                subnet,
                run,
                own_run,
                seed,
                keep: AtomicBool::new(keep),
                authority: OnceCell::new(),
                zones: Mutex::default(),
                machines: std::sync::Mutex::default(),
                handles: std::sync::Mutex::default(),
            }),
        })
    }

    /// This world for one of several scenarios that share it: with steps of its own, and with zones, machines and wires
    /// of its own, which go when it is closed or dropped, and nothing else does.
    pub async fn guest(&self) -> Result<Self> {
        let escapes = self.authority().await?.escapes().await?.len();
        Ok(Self {
            inner: self.inner.clone(),
            guest: Some(Guest {
                number: next(),
                recorder: Recorder::new(),
                escapes,
                containers: std::sync::Mutex::default(),
            }),
        })
    }

    fn number(&self) -> Option<u64> {
        self.guest.as_ref().map(|guest| guest.number)
    }

    /// Notes whose container this is.
    pub(crate) fn made(&self, container: &str) {
        if let Some(guest) = &self.guest {
            lock(&guest.containers).push(container.to_owned());
        }
    }

    /// Its name: the network's and the prefix of everything in it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What varies is drawn from this.
    pub fn seed(&self) -> u64 {
        self.inner.seed
    }

    /// The directory of the run: reports and evidence.
    pub fn run(&self) -> &Path {
        &self.inner.run
    }

    /// The docker connection.
    pub fn docker(&self) -> &Docker {
        &self.inner.docker
    }

    /// What has happened so far.
    pub fn recorder(&self) -> &Recorder {
        match &self.guest {
            Some(guest) => &guest.recorder,
            None => &self.inner.recorder,
        }
    }

    /// The root certificate that everything in this world trusts, PEM.
    pub fn root_certificate(&self) -> &str {
        &self.inner.root.certificate
    }

    /// The lab's name server and certificate authority, started when first asked for.
    pub async fn authority(&self) -> Result<&Authority> {
        let inner = &self.inner;
        inner
            .authority
            .get_or_try_init(|| Authority::start(inner))
            .await
    }

    /// Boots a bare Debian machine that the zone of `server_name` points to; see [`Host`].
    pub async fn host(&self, server_name: &str) -> Result<Host> {
        self.host_with(server_name, crate::host::Needs::default())
            .await
    }

    /// Boots a machine with particular needs.
    pub async fn host_with(&self, server_name: &str, needs: crate::host::Needs) -> Result<Host> {
        if !is_server_name(server_name) {
            return Err(Failure::harness(format!(
                "boot a host for `{server_name}`: that is no domain name in lower case"
            )));
        }
        let step = self
            .recorder()
            .begin(format!("boot a bare host for {server_name}"));
        let (host, authority) = tokio::try_join!(
            Host::make(self.inner.clone(), server_name, needs),
            self.authority()
        )?;
        self.made(host.container());
        lock(&self.inner.machines).push((
            server_name.to_owned(),
            host.container().to_owned(),
            host.ports,
        ));
        let zone = [(
            server_name.to_owned(),
            zone_for(server_name, &host.address)?,
        )];
        tokio::try_join!(self.publish(zone), host.boot(&authority.address))?;
        step.done();
        Ok(host)
    }

    /// Serves more zones, name to zone file, or other content of a zone that was served before. Returns once the name
    /// server answers for all of them.
    pub async fn publish(&self, zones: impl IntoIterator<Item = (String, String)>) -> Result<()> {
        let authority = self.authority().await?;
        let mut all = self.inner.zones.lock().await;
        let mut fresh = Vec::new();
        for (name, text) in zones {
            all.add(self.number(), &name, text)?;
            fresh.push(name);
        }
        authority.publish(&all.text, &fresh).await
    }

    /// What tried to leave the lab; as a guest: since it came.
    pub async fn escapes(&self) -> Result<Vec<Escape>> {
        let all = self.authority().await?.escapes().await?;
        let before = self.guest.as_ref().map_or(0, |guest| guest.escapes);
        Ok(all.into_iter().skip(before).collect())
    }

    /// A certificate from this world's root, which every machine of it trusts. A name may be an IP address.
    pub fn certificate(&self, names: &[&str], validity: Validity) -> Result<Issued> {
        self.inner.root.issue(names, validity)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// An HTTP client that knows the names of every site in this world, and no others.
    pub fn http(&self) -> Result<reqwest::Client> {
        let machines = self.machines();
        let names: Vec<_> = machines
            .iter()
            .map(|(name, _, ports)| (name.as_str(), *ports))
            .collect();
        crate::site::client(&self.inner.root.certificate, &names)
    }

    /// Keeps what every machine of this world knows, to understand a failure.
    pub async fn collect_evidence(&self, directory: &Path) -> Result<()> {
        for (name, container) in self.hosts() {
            let (docker, directory) = (self.docker(), directory.join(name));
            if let Err(failure) =
                crate::host::collect_evidence(docker, &container, &directory).await
            {
                // A machine that is gone tells nothing more; the others do.
                let _ = std::fs::write(directory.join("not-kept.txt"), failure.to_string());
            }
        }
        let steps = directory.join("steps.txt");
        std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::write(&steps, self.recorder().tree()))
            .or_environment(|| format!("write `{}`", steps.display()))
    }

    /// Whether any machine was booted here.
    pub fn has_machines(&self) -> bool {
        !self.machines().is_empty()
    }

    /// Its machines, the oldest first: server name and container.
    pub fn hosts(&self) -> Vec<(String, String)> {
        let machines = self.machines().into_iter();
        machines
            .map(|(name, container, _)| (name, container))
            .collect()
    }

    fn machines(&self) -> Vec<(String, String, Ports)> {
        lock(&self.inner.machines).clone()
    }

    /// Leaves everything standing, until it is taken down by name; `note` says what it is.
    ///
    /// # Errors
    /// The environment's: it could not be noted, and would be taken for a leftover.
    pub fn keep(&self, note: &str) -> Result<()> {
        remember_kept(self.name(), note)?;
        self.inner.keep.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Removes everything that this world made, and the directory of its run unless that was given: success leaves
    /// nothing. As a guest only what this guest made.
    pub async fn close(self) -> Result<Removed> {
        if self.inner.keep.load(Ordering::Relaxed) {
            return Ok(Removed::default());
        }
        if let Some(guest) = &self.guest {
            let number = Some(guest.number);
            let mut zones = self.inner.zones.lock().await;
            let Zones { text, of } = &mut *zones;
            text.retain(|name, _| of.get(name) != Some(&number));
            drop(zones);
            let made = std::mem::take(&mut *lock(&guest.containers));
            lock(&self.inner.machines).retain(|(_, container, _)| !made.contains(container));
            let containers = self.inner.docker.remove_containers(&made).await?;
            return Ok(Removed {
                containers,
                ..Removed::default()
            });
        }
        let removed = self.inner.remove().await?;
        self.inner.keep.store(true, Ordering::Relaxed);
        if self.inner.own_run {
            let run = &self.inner.run;
            std::fs::remove_dir_all(run)
                .or_environment(|| format!("remove `{}`", run.display()))?;
        }
        Ok(removed)
    }
}

impl Inner {
    /// Takes a container over; see `handles`.
    pub(crate) fn hold(&self, container: ContainerAsync<GenericImage>) {
        lock(&self.handles).push(ManuallyDrop::new(container));
    }

    /// The same, for who needs its id and its address in the lab.
    pub(crate) async fn adopt(
        &self,
        container: ContainerAsync<GenericImage>,
        what: impl FnOnce() -> String,
    ) -> Result<(String, String)> {
        let address = container
            .get_bridge_ip_address()
            .await
            .or_environment(what)?
            .to_string();
        let id = container.id().to_owned();
        self.hold(container);
        Ok((id, address))
    }

    fn label(&self) -> String {
        format!("{WORLD_LABEL}={}", self.name)
    }

    async fn remove(&self) -> Result<Removed> {
        self.docker.remove_labelled(&self.label()).await
    }
}

impl Drop for World {
    /// A scenario that failed or panicked did not close its world; dropping cannot await, so another thread does it.
    fn drop(&mut self) {
        if self.inner.keep.load(Ordering::Relaxed) {
            return;
        }
        let outcome = match &self.guest {
            Some(guest) => {
                let made = std::mem::take(&mut *lock(&guest.containers));
                if made.is_empty() {
                    return;
                }
                let machines = &mut *lock(&self.inner.machines);
                machines.retain(|(_, container, _)| !made.contains(container));
                std::thread::spawn(move || {
                    blocking(async {
                        let docker = Docker::connect().await?;
                        docker.remove_containers(&made).await.map(|_| ())
                    })
                })
            }
            None => {
                let label = self.inner.label();
                std::thread::spawn(move || {
                    blocking(async { remove_all_of(&Docker::connect().await?, &label).await })
                })
            }
        }
        .join();
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => eprintln!("world `{}` was not removed: {failure}", self.inner.name),
            Err(_) => eprintln!(
                "world `{}` was not removed: hint: run `cargo fleet clean`",
                self.inner.name
            ),
        }
    }
}

/// Cleans up where nothing can be awaited.
fn blocking(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_harness(|| "start a runtime to clean up".to_owned())?;
    runtime.block_on(work)
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What is being created while we remove appears in the next round.
async fn remove_all_of(docker: &Docker, label: &str) -> Result<()> {
    for _ in 0..5 {
        if docker
            .remove_labelled(label)
            .await
            .is_ok_and(Removed::is_empty)
        {
            return Ok(());
        }
    }
    docker.remove_labelled(label).await.map(|_| ())
}

/// This process, in a way that survives the reuse of process ids.
fn owner() -> String {
    let pid = std::process::id();
    format!("{pid}.{}", start_time(pid).unwrap_or_default())
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`, proc(5)).
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

fn is_alive(owner: &str) -> bool {
    owner
        .split_once('.')
        .and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)))
        .is_some_and(|(pid, start): (u32, u64)| start_time(pid) == Some(start))
}

/// Removes what processes left behind that are no more, once in the life of this one. Worlds that were kept on
/// purpose have no owner.
async fn sweep_leftovers_once(docker: &Docker) -> Result<()> {
    static SWEPT: OnceCell<()> = OnceCell::const_new();
    SWEPT
        .get_or_try_init(|| async {
            let removed = sweep_leftovers(docker).await?;
            if !removed.is_empty() {
                ui::say(format!(
                    "removed the leftovers of dead runs: {} containers, {} networks, {} volumes",
                    removed.containers, removed.networks, removed.volumes
                ));
            }
            Ok(())
        })
        .await
        .map(|_| ())
}

/// Whether a lab can have a zone of this name: a domain name in lower case, of at least two labels, without port.
/// The installer asks for the same (deploy/conduit/install.d/preflight.sh).
pub fn is_server_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    name.len() <= 230 && name.contains('.') && name.split('.').all(label)
}

/// Removes what carries the label of a process that is no more and was not kept on purpose.
pub async fn sweep_leftovers(docker: &Docker) -> Result<Removed> {
    let kept = kept_worlds();
    let mut total = Removed::default();
    let mut dead: Vec<String> = docker
        .values_of(OWNER_LABEL)
        .await?
        .into_iter()
        .filter(|labels| {
            labels
                .get(WORLD_LABEL)
                .is_none_or(|world| !kept.contains(world))
        })
        .filter_map(|labels| labels.get(OWNER_LABEL).cloned())
        .filter(|owner| !is_alive(owner))
        .collect();
    dead.sort();
    dead.dedup();
    for owner in dead {
        let removed = docker
            .remove_labelled(&format!("{OWNER_LABEL}={owner}"))
            .await?;
        total.containers += removed.containers;
        total.networks += removed.networks;
        total.volumes += removed.volumes;
    }
    Ok(total)
}

/// The worlds that `--keep` or `fleet up` left standing, by name: a file each in the cache of
/// this user, so that the worlds of one checkout are safe from the janitor of another.
pub fn kept_worlds() -> Vec<String> {
    std::fs::read_dir(paths::cache().join("kept"))
        .map(|entries| {
            entries
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .collect()
        })
        .unwrap_or_default()
}

/// Remembers a world as kept on purpose; `note` says what it is.
fn remember_kept(world: &str, note: &str) -> Result<()> {
    let directory = paths::cache().join("kept");
    let what = || format!("note that `{world}` is kept");
    std::fs::create_dir_all(&directory).or_environment(what)?;
    std::fs::write(directory.join(world), note).or_environment(what)
}

/// Forgets a kept world.
pub fn forget_kept(world: &str) {
    // Already forgotten is forgotten.
    let _ = std::fs::remove_file(paths::cache().join("kept").join(world));
}

/// Whether somebody has taken over what happens on a signal.
static GUARDED: Once = Once::new();

/// On Ctrl-C, SIGTERM or SIGHUP everything that this process made is removed before it ends with 130.
///
/// A test runner's threads cannot be unwound from here, so that another thread removes what they made.
fn guard_against_interruption() {
    GUARDED.call_once(|| {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]);
        let Ok(mut signals) = signals else { return };
        std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                if let Ok(runtime) = runtime {
                    runtime.block_on(async {
                        let _none_begins = crate::docker::no_more_making().await;
                        remove_own().await;
                    });
                }
                std::process::exit(Exit::Interrupted.code().into());
            }
        });
    });
}

/// Does the work of a command line [unless it is interrupted](unless_interrupted), says why it failed, and has the exit code.
pub async fn exit_code(work: impl Future<Output = Result<Exit>>) -> ExitCode {
    match unless_interrupted(work).await {
        Some(Ok(exit)) => exit.into(),
        Some(Err(failure)) => {
            ui::remark(format!("error: {failure}\n"));
            Exit::from(failure.blame).into()
        }
        // At once: a thread that waits for an answer on the terminal would keep the runtime from ending.
        None => std::process::exit(Exit::Interrupted.code().into()),
    }
}

/// Does the work of a command line, unless Ctrl-C, SIGTERM or SIGHUP comes first. Then the work is dropped, so that its
/// processes, temporary directories and worlds go with it, and what docker was just making for it is removed; the
/// answer is `None`. What is kept on purpose stays.
pub async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let mut signals: Vec<_> = kinds
        .into_iter()
        .filter_map(|kind| signal(kind).ok())
        .collect();
    GUARDED.call_once(|| {});
    let mut work = Box::pin(work);
    let interruption =
        futures_util::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv())));
    tokio::select! {
        outcome = &mut work => return Some(outcome),
        _ = interruption => {}
    }
    // It goes on until nothing is in the making: what docker makes for somebody who has left is nobody's.
    let _none_begins = tokio::select! {
        biased;
        guard = crate::docker::no_more_making() => guard,
        _ = &mut work => None,
    };
    drop(work);
    remove_own().await;
    None
}

/// The directories of the runs whose worlds last until this process ends.
static LASTING: std::sync::Mutex<Vec<PathBuf>> = std::sync::Mutex::new(Vec::new());

impl World {
    /// This world is shared by whoever comes, and nobody knows who is the last: it is removed when the process ends.
    pub(crate) fn lasts(&self) {
        static HOOKED: Once = Once::new();
        HOOKED.call_once(|| {
            #[expect(
                unsafe_code,
                reason = "the test runner ends the process without telling anybody else"
            )]
            // SAFETY: the function has the type that `atexit` asks for, and does not unwind.
            let _ = unsafe { libc::atexit(remove_lasting) };
        });
        lock(&LASTING).push(self.run().to_owned());
    }
}

extern "C" fn remove_lasting() {
    // A thread of its own: what belongs to this one is gone already.
    let outcome = std::thread::Builder::new().spawn(|| blocking(async { remove_made().await }));
    match outcome.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(failure))) => eprintln!("{failure}\nhint: run `cargo fleet clean`"),
        _ => eprintln!("the shared world was not removed\nhint: run `cargo fleet clean`"),
    }
    for run in &*lock(&LASTING) {
        // Success leaves nothing, failure everything.
        if !run.join("evidence").exists() {
            let _ = std::fs::remove_dir_all(run);
        }
    }
}

/// Removes everything that this process made and was not told to keep; says what it does.
async fn remove_own() {
    eprintln!("\ninterrupted: removing everything that was made");
    let Ok(docker) = Docker::connect().await else {
        return; // Then nothing was made.
    };
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    let build = crate::image::build_container();
    // There mostly is none.
    let _ = docker.api().remove_container(&build, Some(force)).await;
    if let Err(failure) = remove_made().await {
        eprintln!("{failure}\nhint: run `cargo fleet clean`");
    }
}

async fn remove_made() -> Result<()> {
    let docker = Docker::connect().await?;
    let (owner, kept) = (owner(), kept_worlds());
    let own: BTreeSet<String> = docker
        .values_of(OWNER_LABEL)
        .await?
        .into_iter()
        .filter(|labels| labels.get(OWNER_LABEL) == Some(&owner))
        .filter_map(|labels| labels.get(WORLD_LABEL).cloned())
        .collect();
    for world in own {
        if kept.contains(&world) {
            eprintln!("kept `{world}`: remove it with `cargo fleet down {world}`");
        } else {
            remove_all_of(&docker, &format!("{WORLD_LABEL}={world}")).await?;
        }
    }
    Ok(())
}

/// Numbers what this process makes.
pub(crate) fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn seed_from_environment() -> Option<u64> {
    let text = std::env::var("HARNESS_SEED").ok()?;
    u64::from_str_radix(&text, 16).ok()
}

fn draw() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() & 0xffff_ffff
}

/// Makes a new directory for a run, named by the time and the process.
pub fn new_run_directory() -> Result<PathBuf> {
    let runs = paths::runs();
    let what = || format!("make a directory for this run under `{}`", runs.display());
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(|_| Failure::environment("read the clock: it is before 1970"))?
        .as_secs();
    let path = runs.join(format!("{seconds}-{}-{}", std::process::id(), next()));
    std::fs::create_dir_all(&path).or_environment(what)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_whoever_served_it_first() {
        let mut zones = Zones::default();
        let mut add = |guest, text: &str| zones.add(guest, "moor.test", text.to_owned());
        add(Some(1), "one").expect("it is free");
        add(Some(1), "another").expect("it is their own");
        for other in [Some(2), None] {
            let refused = add(other, "three").expect_err("it is taken");
            assert_eq!(refused.blame, crate::Blame::Harness);
        }
        assert_eq!(zones.text["moor.test"], "another");
    }

    #[test]
    fn a_process_knows_itself_and_a_dead_one_is_dead() {
        assert!(is_alive(&owner()));
        assert!(
            !is_alive(&format!("{}.1", std::process::id())),
            "another process had this id before"
        );
        assert!(!is_alive("4194305.1"), "beyond the largest process id");
        assert!(!is_alive("nonsense"));
    }
}
