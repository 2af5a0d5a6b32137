//! What the lab promises about itself: it removes what it made and nothing else, it keeps what helps to understand a
//! failure, and its machines are machines without being privileged.

use fixtures::bad::{self, Stage as Refused};
use harness::client::Client;
use harness::docker::{Docker, OWNER_LABEL, RUN_LABEL, WORLD_LABEL};
use harness::homeserver::Server;
use harness::host::{CgroupMode, cgroup_mode};
use harness::image::Image;
use harness::probe::{self, ProbeState, Watch};
use harness::rehearse::{BOOTSTRAPPED, BOOTSTRAPPED_ONCE, CLAIMS, CLOSED};
use harness::report::Report;
use harness::scenario::{Outcome, Stage, nothing_left, scenario};
use harness::world::{self, Options, World};
use harness::{Blame, Exit, Failure, OrBlame, Result, Verdict, paths, tools};
use scenarios::{ABROAD, HOME, must};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

/// No runbook takes this long on a machine that is not broken.
const LONG: Duration = Duration::from_secs(120);

/// A person stops a run at some moment, early or late; by any of the signals that end a program. It says so, ends with
/// 130, and of what it made nothing is left, nor does anything that was just being made come later.
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_removes_everything_that_was_made() -> Outcome {
    scenario(async |stage| {
        let docker = to_the_lab(stage).await?;
        let mut fleet = Fleet::begin(&["follow", "install.md"]).await?;
        fleet.says("with conduit").await?;
        fleet
            .interrupted_leaves_nothing(&docker, "INT", "before anything was made")
            .await?;
        // While the network is made, the name server, the host, the boot.
        for milliseconds in [0, 40, 80, 160, 320, 640, 1280] {
            let mut fleet = Fleet::begin(&["follow", "install.md"]).await?;
            fleet.has_made(&docker, 1).await?;
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            let when = format!("{milliseconds} ms after its network was made");
            fleet
                .interrupted_leaves_nothing(&docker, "INT", &when)
                .await?;
        }
        for signal in ["INT", "TERM", "HUP"] {
            let mut fleet = Fleet::begin(&["follow", "install.md"]).await?;
            fleet.says("follow install.md on").await?;
            fleet
                .interrupted_leaves_nothing(&docker, signal, "while the runbook is followed")
                .await?;
        }
        Ok(())
    })
    .await
}

/// Nothing can be done by a program that is killed; the next one that comes along removes what it left.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_left_behind_is_removed_by_the_next() -> Outcome {
    scenario(async |stage| {
        let docker = to_the_lab(stage).await?;
        let mut fleet = Fleet::begin(&["follow", "install.md"]).await?;
        fleet.says("follow install.md on").await?;
        let made = fleet.left(&docker).await?;
        must(
            made.len() >= 4,
            "make a network, a volume and two containers",
            format!("{made:?}"),
        )?;
        fleet.signal("KILL").await?;
        let ended = fleet.ended().await?;
        must(!ended.success(), "be killed", ended.to_string())?;
        let mut next = Fleet::begin(&["clean"]).await?;
        let ended = next.ended().await?;
        must(ended.success(), "clean", next.said())?;
        let left = fleet.left(&docker).await?;
        must(
            left.is_empty(),
            "remove what a killed run left behind",
            format!("{left:?}\n{}", next.said()),
        )
    })
    .await
}

/// What is kept on purpose outlives its process, an interruption and the sweeps of others, until somebody takes it
/// down by name.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_on_purpose_stays_until_it_is_taken_down() -> Outcome {
    scenario(async |stage| {
        let docker = to_the_lab(stage).await?;
        for (arguments, environment) in [
            (&["follow", "install.md", "--keep"][..], &[][..]),
            (&["follow", "install.md"], &[("HARNESS_KEEP", "1")]),
        ] {
            let mut fleet = Fleet::begin_with(arguments, environment).await?;
            fleet.says("follow install.md on").await?;
            let made = fleet.left(&docker).await?;
            fleet.signal("INT").await?;
            let ended = fleet.ended().await?;
            must(
                ended.code() == Some(130),
                "end with 130",
                format!("{ended}\n{}", fleet.said()),
            )?;
            // Also by those of another checkout, which has another build directory.
            let elsewhere = tempfile::tempdir().or_environment(|| "make a directory".to_owned())?;
            let directory = elsewhere.path().to_string_lossy();
            let mut sweep =
                Fleet::begin_with(&["clean"], &[("CARGO_TARGET_DIR", &directory)]).await?;
            let ended = sweep.ended().await?;
            must(ended.success(), "sweep", sweep.said())?;
            let left = fleet.left(&docker).await?;
            must(
                left.len() == made.len(),
                "leave what is kept",
                format!("made {made:?}\nleft {left:?}"),
            )?;
            let kept = left
                .iter()
                .find_map(|labels| labels.get(WORLD_LABEL))
                .cloned()
                .unwrap_or_default();
            let mut down = Fleet::begin(&["down", &kept]).await?;
            let ended = down.ended().await?;
            must(ended.success(), "take a kept world down", down.said())?;
            let left = fleet.left(&docker).await?;
            must(
                left.is_empty(),
                "leave nothing of a world that is taken down",
                format!("{left:?}"),
            )?;
            let again = world::kept_worlds().contains(&kept);
            must(!again, "forget a world that is taken down", kept)?;
        }
        Ok(())
    })
    .await
}

/// A panic unwinds past the line that closes the world.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_scenario_removes_its_world() -> Outcome {
    scenario(async |stage| {
        let docker = to_the_lab(stage).await?;
        let (send, receive) = std::sync::mpsc::channel();
        let panicking = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let world = World::open(Options::default()).await.expect("a world");
                let _host = world.host(ABROAD).await.expect("a host");
                let made = of_world(world.docker(), world.name())
                    .await
                    .expect("what was made");
                send.send((world.name().to_owned(), made.len()))
                    .expect("somebody listens");
                panic!("on purpose");
            })
        });
        let outcome = tokio::task::spawn_blocking(move || panicking.join())
            .await
            .or_harness(|| "join a thread".to_owned())?;
        let (name, made) = receive.recv().or_harness(|| "hear of a world".to_owned())?;
        must(
            outcome.is_err() && made >= 4,
            "make a world and panic",
            format!("{name}: {made} things"),
        )?;
        let left = of_world(&docker, &name).await?;
        must(
            left.is_empty(),
            "remove the world of a scenario that panicked",
            format!("{left:?}"),
        )
    })
    .await
}

/// The machine answers otherwise than the document promises: the failure says at which line, what was promised and
/// what was seen, blames the document, and nothing after it is executed.
#[tokio::test(flavor = "multi_thread")]
async fn a_followed_runbook_whose_output_differs_is_a_letter() -> Outcome {
    scenario(async |stage| {
        to_the_lab(stage).await?;
        let host = stage.world.host(HOME).await?;
        for runbook in bad::RUNBOOKS
            .iter()
            .filter(|runbook| runbook.stage == Refused::Follow)
        {
            let step = stage
                .world
                .recorder()
                .begin(format!("follow {}", runbook.file));
            let path = Path::new(fixtures::BAD_RUNBOOKS).join(runbook.file);
            let transcript = host.try_follow(&path, &[], &step).await?;
            must(
                transcript.failure().is_some(),
                "fail where a promise is not kept",
                transcript.to_string(),
            )?;
            let Err(failure) = host.follow_file(&path, &[], &step).await else {
                return Err(Failure::deployment(format!(
                    "refuse `{}`: it was followed to its end",
                    runbook.file
                )));
            };
            let missing = runbook.missing_from(&failure.to_string());
            must(
                missing.is_empty(),
                "say where and what",
                format!("{missing:?} are not said:\n{failure}"),
            )?;
            must(
                failure.blame == Blame::Deployment,
                "blame the document",
                failure.to_string(),
            )?;
            step.done();
        }
        let later = host.try_shell("test -e \"$HOME/must-not-exist\"").await?;
        must(
            later.exit != 0,
            "execute nothing after a command that failed",
            format!("{later:?}"),
        )
    })
    .await
}

/// The whole way: the program follows a document that breaks its promise, says so, ends with the deployment's code,
/// keeps the evidence and removes the machines.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_keeps_its_evidence() -> Outcome {
    scenario(async |stage| {
        let docker = to_the_lab(stage).await?;
        let runbook = bad::RUNBOOKS
            .iter()
            .find(|runbook| runbook.file == "output-differs.md")
            .ok_or_else(|| Failure::harness("find the bad runbook `output-differs.md`"))?;
        let path = format!("{}/{}", fixtures::BAD_RUNBOOKS, runbook.file);
        for arguments in [
            &["follow", path.as_str(), "--bare"][..],
            &["follow", "backup.md", "--after", path.as_str()],
        ] {
            let mut fleet = Fleet::begin(arguments).await?;
            let ended = fleet.ended().await?;
            let said = fleet.said();
            must(
                ended.code() == Some(11),
                "end with the deployment's code",
                format!("{ended}\n{said}"),
            )?;
            must(
                runbook.missing_from(&said).is_empty(),
                "say where and what",
                &said,
            )?;
            let kept = said
                .lines()
                .find_map(|line| line.strip_prefix("evidence: "))
                .map(PathBuf::from);
            let kept = kept
                .ok_or_else(|| Failure::harness("say where the evidence lies").last_seen(&said))?;
            for (file, word) in [
                (format!("{HOME}/journal.log"), "systemd"),
                (format!("{HOME}/caddy.log"), "caddy"),
                (format!("{HOME}/conduit.log"), ""),
                (format!("{HOME}/units.txt"), "caddy.service"),
                (format!("{HOME}/listeners.txt"), ":80"),
                (format!("{HOME}/tree.txt"), "Caddyfile"),
                ("steps.txt".to_owned(), "<-- broke off here"),
            ] {
                let text = std::fs::read_to_string(kept.join(&file))
                    .or_harness(|| format!("keep the evidence `{file}`"))?;
                must(
                    text.contains(word),
                    &format!("keep `{word}` in `{file}`"),
                    text.chars().take(2000).collect::<String>(),
                )?;
            }
            let left = fleet.left(&docker).await?;
            must(
                left.is_empty(),
                "leave no machine of a run that failed",
                format!("{left:?}"),
            )?;
        }
        Ok(())
    })
    .await
}

/// A rehearsal where no Conduit can be had (none on `PATH`, none in the cache, nothing downloads): the scripts are proved
/// on the stand-in, the manifest on Synapse, nothing about Matrix on the stand-in, and nothing at all on Conduit. That is
/// no failure, unless a Conduit is required.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_never_run_on_conduit_is_unknown_for_conduit() -> Outcome {
    scenario(async |stage| {
        to_the_lab(stage).await?;
        let empty = tempfile::tempdir().or_harness(|| "make an empty directory".to_owned())?;
        let bare = without_conduit(&empty.path().join("bin"))?;
        let nowhere = "http://127.0.0.1:9";
        let report = empty.path().join("report");
        let mut fleet = Fleet::begin_with(
            &[
                "rehearse",
                "--require",
                "conduit",
                "--report-dir",
                &report.to_string_lossy(),
            ],
            &[
                ("PATH", bare.as_str()),
                ("XDG_CACHE_HOME", &empty.path().to_string_lossy()),
                ("HTTPS_PROXY", nowhere),
                ("ALL_PROXY", nowhere),
                ("CONDUIT_BIN", ""),
            ],
        )
        .await?;
        let ended = fleet.ended().await?;
        let said = fleet.said();
        must(
            ended.code() == Some(i32::from(Exit::Unknown.code())),
            "end with the code of an unknown claim that is required",
            format!("{ended}\n{said}"),
        )?;
        let what = || "read the report".to_owned();
        let text = std::fs::read_to_string(report.join("report.json")).or_harness(what)?;
        let report: Report = serde_json::from_str(&text).or_harness(what)?;
        must(
            report.claims.len() == CLAIMS.len(),
            "judge every claim",
            &said,
        )?;
        for claim in &report.claims {
            let server = claim.server.as_ref().map(|server| server.name.as_str());
            let expected = match claim.name.as_str() {
                CLOSED => (Verdict::Unknown, None),
                BOOTSTRAPPED | BOOTSTRAPPED_ONCE => (Verdict::Pass, Some("synapse")),
                _ => (Verdict::Pass, Some("conduit-standin")),
            };
            must(
                (claim.verdict, server) == expected,
                &format!("prove `{}` on {expected:?}", claim.name),
                &said,
            )?;
        }
        must(
            said.contains("not proved on Conduit: 8 of 8 claims"),
            "say that nothing was proved on Conduit",
            &said,
        )?;
        must(
            report.exit(false) == Exit::Ok && report.exit(true) == Exit::Unknown,
            "fail only where a Conduit is required",
            text,
        )
    })
    .await
}

/// Each kind of failure, made on purpose, is put at the right door: a server that answers 500 behind a proxy that works
/// is the product's, a document that breaks its promise the deployment's, a docker that does not answer the
/// environment's, and a name that no lab can make is ours. Each door has its exit code.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_blamed_on_who_has_to_act() -> Outcome {
    scenario(async |stage| {
        to_the_lab(stage).await?;
        let site = stage.world.site(HOME, &tools::standin().await?).await?;
        let mut blamed = Vec::new();
        site.host
            .write("/opt/conduit/standin.knobs", "0644", b"answer-500\n")
            .await?;
        blamed.push((
            Blame::Product,
            10,
            Client::login(site.http(), &site.base_url(), "alice", "secret", "scenario")
                .await
                .map(|_| ())
                .map_err(Failure::from),
        ));
        let runbook = Path::new(fixtures::BAD_RUNBOOKS).join("output-differs.md");
        let step = stage
            .world
            .recorder()
            .begin("follow a runbook that breaks its promise");
        blamed.push((
            Blame::Deployment,
            11,
            site.host
                .follow_file(&runbook, &[], &step)
                .await
                .map(|_| ()),
        ));
        step.done();
        let mut fleet = Fleet::begin_with(
            &["rehearse"],
            &[("DOCKER_HOST", "unix:///nonexistent/docker.sock")],
        )
        .await?;
        let ended = fleet.ended().await?;
        must(
            ended.code() == Some(12) && fleet.said().contains("blame: environment"),
            "blame the environment where docker does not answer",
            format!("{ended}\n{}", fleet.said()),
        )?;
        blamed.push((
            Blame::Harness,
            13,
            stage.world.host("a name with spaces").await.map(|_| ()),
        ));
        for (blame, code, outcome) in blamed {
            let failure = outcome.err().map(|failure| {
                (
                    failure.blame,
                    Exit::from(failure.blame).code(),
                    failure.to_string(),
                )
            });
            must(
                failure.as_ref().is_some_and(|(seen, exit, letter)| {
                    *seen == blame && *exit == code && letter.contains(&format!("blame: {blame}"))
                }),
                &format!("blame {blame} and end with {code}"),
                format!("{failure:?}"),
            )?;
        }
        Ok(())
    })
    .await
}

/// A machine with an empty docker and no network: the run names the image that it cannot have, says how it can be
/// brought, and leaves nothing. Where the images are, a rehearsal needs no network: every scenario here runs without.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_the_image_that_cannot_be_had_is_named() -> Outcome {
    scenario(async |stage| {
        to_the_lab(stage).await?;
        let empty = EmptyDocker::start().await?;
        let nowhere = "http://127.0.0.1:9";
        let mut fleet = Fleet::begin_with(
            &["setup", "--yes"],
            &[
                ("DOCKER_HOST", empty.host().as_str()),
                ("http_proxy", nowhere),
                ("https_proxy", nowhere),
                ("HTTP_PROXY", nowhere),
                ("HTTPS_PROXY", nowhere),
            ],
        )
        .await?;
        let ended = fleet.ended().await?;
        let said = fleet.said();
        let image = Image::Host.reference();
        must(
            ended.code() == Some(12)
                && said.contains(&format!("error: have the image `{image}`"))
                && said.contains(&format!("docker save {image}"))
                && said.contains("blame: environment"),
            "name the image that cannot be had, and what to do",
            format!("{ended}\n{said}"),
        )?;
        let left = output(Command::new("docker").args([
            "--host",
            &empty.host(),
            "ps",
            "--all",
            "--quiet",
        ]))
        .await?;
        must(
            left.is_empty(),
            "leave nothing of an image that was not built",
            left,
        )
    })
    .await
}

/// Whoever uses docker for something else on this machine does not notice that the lab was there: what carries no
/// label of ours, other labels, or those of a program that still runs, is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_lab_never_touches_the_containers_of_others() -> Outcome {
    scenario(async |stage| {
        let docker = to_the_lab(stage).await?;
        let alive = format!("1.{}", start_time(1)?);
        let own = |label: &str, value: &str| format!("{label}={value}");
        let mut strangers = Strangers::default();
        strangers.add(&[]).await?;
        strangers
            .add(&[
                "owner=somebody".to_owned(),
                "fleet=of ships".to_owned(),
                "fleet.runner=7".to_owned(),
            ])
            .await?;
        let theirs = [
            own(OWNER_LABEL, &alive),
            own(RUN_LABEL, "theirs"),
            own(WORLD_LABEL, "theirs"),
        ];
        strangers.add(&theirs).await?;
        let other = World::open(Options::default()).await?;
        other.host(ABROAD).await?;
        let removed = other.close().await?;
        must(
            removed.containers == 2 && removed.networks == 1,
            "remove what the world made",
            format!("{removed:?}"),
        )?;
        world::sweep_leftovers(&docker).await?;
        for stranger in &strangers.0 {
            let seen = output(Command::new("docker").args([
                "inspect",
                "--format",
                "{{.State.Running}}",
                stranger,
            ]))
            .await;
            let runs = seen.as_ref().is_ok_and(|seen| seen == "true");
            must(
                runs,
                "leave the container of somebody else alone",
                format!("{seen:?}"),
            )?;
        }
        Ok(())
    })
    .await
}

/// Two at once, for the same server name: each has its own network and machines, neither reaches the other, and when
/// one ends the other goes on.
#[tokio::test(flavor = "multi_thread")]
async fn two_worlds_at_once_do_not_disturb_each_other() -> Outcome {
    scenario(async |stage| {
        let docker = to_the_lab(stage).await?;
        let (garden, meadow) = tokio::try_join!(
            World::open(Options::default()),
            World::open(Options::default())
        )?;
        let (here, there) = tokio::try_join!(garden.host(HOME), meadow.host(HOME))?;
        let ask = |address: &str| format!("curl --max-time 2 -s -o /dev/null http://{address}/");
        let itself = here.try_shell(&ask(&here.address)).await?;
        must(
            itself.exit == 0,
            "reach its own proxy",
            format!("{itself:?}"),
        )?;
        let reached = here.try_shell(&ask(&there.address)).await?;
        must(
            reached.exit != 0,
            "reach nothing of another world",
            format!("{reached:?}"),
        )?;
        // That attempt was one to leave its world, and is known there alone.
        let escaped = nothing_left(&garden)
            .await
            .err()
            .map(|failure| failure.to_string())
            .unwrap_or_default();
        must(
            escaped.contains(&there.address),
            "note an attempt to reach another world",
            escaped,
        )?;
        nothing_left(&meadow).await?;
        let name = meadow.name().to_owned();
        meadow.close().await?;
        let left = of_world(&docker, &name).await?;
        must(
            left.is_empty(),
            "remove a world that is closed",
            format!("{left:?}"),
        )?;
        let state = here
            .shell(&format!(
                "systemctl is-system-running; getent ahostsv4 matrix.{HOME}"
            ))
            .await?;
        must(
            state.contains("running") && state.contains(&here.address),
            "go on when another world ends",
            state,
        )
    })
    .await
}

/// systemd is process 1 and content, with no more of the machine in its hands than docker's default and `SYS_ADMIN`:
/// no privileged mode, no device, no name space of the machine's, no port beyond loopback.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_boots_systemd_without_being_privileged() -> Outcome {
    scenario(async |stage| {
        to_the_lab(stage).await?;
        let host = stage.world.host(HOME).await?;
        println!("cgroups of this machine: {:?}", cgroup_mode());
        let format = "{{.HostConfig.Privileged}} {{json .HostConfig.CapAdd}} {{len .HostConfig.Devices}} \
                      pid={{.HostConfig.PidMode}} ipc={{.HostConfig.IpcMode}} uts={{.HostConfig.UTSMode}}";
        let inspected = output(Command::new("docker").args(["inspect", "--format", format, host.container()])).await?;
        let expected = ["false [\"SYS_ADMIN\"] 0 pid= ipc=private uts=", "false [\"CAP_SYS_ADMIN\"] 0 pid= ipc=private uts="];
        must(expected.contains(&inspected.as_str()), "be a container like any other", &inspected)?;
        let state = host.shell("cat /proc/1/comm; systemctl is-system-running; systemctl --failed --no-legend").await?;
        must(state == "systemd\nrunning", "boot systemd as process 1", &state)?;
        let hierarchy = host.shell("stat --file-system --format=%T /sys/fs/cgroup; ls -d /sys/fs/cgroup/unified || true").await?;
        let seen = match hierarchy.lines().collect::<Vec<_>>()[..] {
            ["cgroup2fs", ..] => CgroupMode::V2,
            ["tmpfs", "/sys/fs/cgroup/unified"] => CgroupMode::Hybrid,
            _ => CgroupMode::V1,
        };
        must(seen == cgroup_mode(), "see the cgroups of this machine", format!("{seen:?}: {hierarchy}"))?;
        let bounds = host.shell("awk '/^Cap(Bnd|Eff|Prm)/ {print $2}' /proc/1/status").await?;
        for bound in bounds.lines() {
            let held = u64::from_str_radix(bound, 16).or_harness(|| format!("read the capabilities `{bound}`"))?;
            let more = held & !(DEFAULT_CAPABILITIES | SYS_ADMIN);
            must(more == 0 && held & SYS_ADMIN != 0, "hold no more capabilities", format!("{held:x}, {more:x} too much"))?;
        }
        let ports = output(Command::new("docker").args(["port", host.container()])).await?;
        let loopback = ports.lines().count() >= 4 && ports.lines().all(|line| line.contains(" -> 127.0.0.1:"));
        must(loopback, "publish ports on loopback only", ports)
    })
    .await
}

/// The capabilities of a container by default: `CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP
/// NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP` (moby `oci/caps/defaults.go`, numbers from
/// capability.h).
const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;
/// Bit 21.
const SYS_ADMIN: u64 = 1 << 21;

/// Notes that the claim is about the lab itself.
async fn to_the_lab(stage: &Stage) -> Result<Docker> {
    let docker = stage.world.docker().clone();
    stage.put_to(&Server {
        name: "lab".to_owned(),
        version: format!("docker {}", docker.version().await?),
    });
    Ok(docker)
}

/// The labels of everything that a world made and that is still there.
async fn of_world(docker: &Docker, world: &str) -> Result<Vec<BTreeMap<String, String>>> {
    labelled(docker, WORLD_LABEL, world).await
}

async fn labelled(
    docker: &Docker,
    label: &str,
    value: &str,
) -> Result<Vec<BTreeMap<String, String>>> {
    let all = docker.values_of(label).await?;
    Ok(all
        .into_iter()
        .filter(|labels| labels.get(label).is_some_and(|seen| seen == value))
        .map(|labels| labels.into_iter().collect())
        .collect())
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`, proc(5)).
fn start_time(pid: u32) -> Result<u64> {
    let what = || format!("read when process {pid} started");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).or_harness(what)?;
    let field = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_whitespace().nth(19))
        .unwrap_or_default();
    field.parse().or_harness(what)
}

/// What a command prints, if it succeeds.
async fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .or_environment(|| format!("run {command:?}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::environment(format!("run {command:?}: {}", output.status)).last_seen(said.trim()))
}

/// The `fleet` command line, as a process of its own.
struct Fleet {
    child: Child,
    owner: String,
    said: Arc<Mutex<String>>,
    listeners: JoinSet<()>,
}

impl Fleet {
    async fn begin(arguments: &[&str]) -> Result<Self> {
        Self::begin_with(arguments, &[]).await
    }

    /// With the stand-in, which is small: what is installed does not matter here.
    async fn begin_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let what = || "begin `fleet`".to_owned();
        let mut child = Command::new(program().await?)
            .args(arguments)
            .env("CONDUIT_BIN", &tools::ensure().await?.standin)
            .env_remove("HARNESS_KEEP")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .or_harness(what)?;
        let pid = child.id().ok_or_else(|| Failure::harness(what()))?;
        let owner = format!("{pid}.{}", start_time(pid)?);
        let said = Arc::new(Mutex::new(String::new()));
        let mut listeners = JoinSet::new();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            listeners.spawn(listen(stdout, said.clone()));
            listeners.spawn(listen(stderr, said.clone()));
        }
        Ok(Self {
            child,
            owner,
            said,
            listeners,
        })
    }

    /// What it said so far, on either stream.
    fn said(&self) -> String {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What is left of everything that it made.
    async fn left(&self, docker: &Docker) -> Result<Vec<BTreeMap<String, String>>> {
        labelled(docker, OWNER_LABEL, &self.owner).await
    }

    /// Returns as soon as it has made so many things. Asks without a pause: the moment matters.
    async fn has_made(&mut self, docker: &Docker, count: usize) -> Result<()> {
        let mut watch = Watch::start("`fleet` makes its world", LONG);
        while let Some(left) = watch.ask(self.left(docker)).await {
            if left?.len() >= count {
                return Ok(());
            }
            if let Some(ended) = self
                .child
                .try_wait()
                .or_harness(|| "look after `fleet`".to_owned())?
            {
                return Err(
                    Failure::harness(format!("run `fleet`: {ended}")).last_seen(self.said())
                );
            }
        }
        Err(watch.timed_out().into())
    }

    async fn says(&mut self, words: &str) -> Result<()> {
        let said = self.said.clone();
        let child = &mut self.child;
        probe::until(&format!("`fleet` says `{words}`"), LONG, async || {
            let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match child.try_wait() {
                _ if said.contains(words) => ProbeState::Ready(()),
                Ok(None) => ProbeState::NotYet(said),
                ended => ProbeState::Failed(format!("it ended with {ended:?}\n{said}")),
            }
        })
        .await
        .map_err(Failure::from)
    }

    async fn signal(&mut self, signal: &str) -> Result<()> {
        let pid = self.child.id().ok_or_else(|| {
            Failure::harness("signal `fleet`: it has ended").last_seen(self.said())
        })?;
        output(Command::new("kill").args(["-s", signal, &pid.to_string()]))
            .await
            .map(|_| ())
    }

    /// Returns once it has ended and everything that it said is heard.
    async fn ended(&mut self) -> Result<ExitStatus> {
        let end = async {
            let status = self.child.wait().await;
            while self.listeners.join_next().await.is_some() {}
            status
        };
        tokio::time::timeout(LONG, end)
            .await
            .map_err(|_| Failure::deployment("end: `fleet` still runs").last_seen(self.said()))?
            .or_harness(|| "wait for `fleet`".to_owned())
    }

    async fn interrupted_leaves_nothing(
        &mut self,
        docker: &Docker,
        signal: &str,
        when: &str,
    ) -> Result<()> {
        self.signal(signal).await?;
        let ended = self.ended().await?;
        let said = self.said();
        must(
            ended.code() == Some(130)
                && said.contains("interrupted: removing everything that was made"),
            &format!("end with 130 at SIG{signal} {when}"),
            format!("{ended}\n{said}"),
        )?;
        must(
            !said.contains("error: "),
            &format!("blame nothing at SIG{signal} {when}"),
            said,
        )?;
        // What docker was still making when its client went away would come now.
        let watching = tokio::time::Instant::now();
        while watching.elapsed() < Duration::from_secs(2) {
            let left = self.left(docker).await?;
            must(
                left.is_empty(),
                &format!("leave nothing at SIG{signal} {when}"),
                format!("{left:?}"),
            )?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

async fn listen(stream: impl tokio::io::AsyncRead + Unpin, said: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_str(&line);
        said.push('\n');
    }
}

/// The program as it is now; built as the alias `cargo fleet` does.
async fn program() -> Result<&'static Path> {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    let program = PROGRAM.get_or_try_init(async || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(paths::repository()).args([
            "build",
            "--quiet",
            "--package",
            "harness",
            "--bin",
            "fleet",
        ]);
        output(&mut build).await?;
        Ok::<_, Failure>(paths::target().join("debug/fleet"))
    });
    program.await.map(PathBuf::as_path)
}

/// A directory with every program of `PATH` but `conduit`, and a docker that pulls nothing, as a `PATH`.
fn without_conduit(directory: &Path) -> Result<String> {
    let what = || "make a `PATH` without a Conduit".to_owned();
    std::fs::create_dir_all(directory).or_harness(what)?;
    for entry in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .filter_map(|entry| std::fs::read_dir(entry).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name() != "conduit")
    {
        let here = directory.join(entry.file_name());
        if entry.file_name() == "docker" && !here.exists() {
            let refuse = format!(
                "#!/bin/sh\n[ \"$1\" = pull ] && {{ echo no registry >&2; exit 1; }}\nexec {} \"$@\"\n",
                entry.path().display()
            );
            std::fs::write(&here, refuse).or_harness(what)?;
            std::fs::set_permissions(&here, std::fs::Permissions::from_mode(0o755))
                .or_harness(what)?;
        }
        // The first of a name wins, as on a `PATH`.
        let _ = std::os::unix::fs::symlink(entry.path(), here);
    }
    Ok(directory.to_string_lossy().into_owned())
}

/// A second docker daemon, without images and without a bridge; it ends with its value.
struct EmptyDocker {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl EmptyDocker {
    /// Returns once it answers.
    async fn start() -> Result<Self> {
        let what = || "start a second docker daemon".to_owned();
        if !harness::image::is_root() {
            return Err(Failure::environment(what()).hint("only root can"));
        }
        let directory = tempfile::tempdir().or_environment(what)?;
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let log = std::fs::File::create(at("log")).or_environment(what)?;
        let daemon = Command::new("dockerd")
            .args([
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "--pidfile",
                &at("pid"),
            ])
            .args(["--host", &format!("unix://{}", at("docker.sock"))])
            .args(["--bridge", "none", "--iptables=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .or_environment(what)?;
        let mut empty = Self { directory, daemon };
        let host = empty.host();
        let log = empty.directory.path().join("log");
        let daemon = &mut empty.daemon;
        probe::until(
            "the second docker answers",
            Duration::from_secs(60),
            async || {
                let asked = output(Command::new("docker").args(["--host", &host, "version"])).await;
                match (asked, daemon.try_wait()) {
                    (Ok(_), _) => ProbeState::Ready(()),
                    (Err(failure), Ok(None)) => ProbeState::NotYet(failure.to_string()),
                    (_, ended) => ProbeState::Failed(format!(
                        "{ended:?}: {}",
                        std::fs::read_to_string(&log).unwrap_or_default()
                    )),
                }
            },
        )
        .await
        .map_err(|unmet| Failure::environment(what()).because(unmet))?;
        Ok(empty)
    }

    /// Where it listens.
    fn host(&self) -> String {
        format!(
            "unix://{}",
            self.directory.path().join("docker.sock").display()
        )
    }
}

impl Drop for EmptyDocker {
    /// By SIGTERM, so that it stops its containerd, too.
    fn drop(&mut self) {
        if let Some(pid) = self.daemon.id() {
            let _ = std::process::Command::new("kill")
                .arg(pid.to_string())
                .output();
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while matches!(self.daemon.try_wait(), Ok(None)) && std::time::Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Containers that are not the lab's; removed by their ids.
#[derive(Default)]
struct Strangers(Vec<String>);

impl Strangers {
    async fn add(&mut self, labels: &[String]) -> Result<()> {
        let mut run = Command::new("docker");
        run.args(["run", "--detach", "--network", "none"]);
        for label in labels {
            run.args(["--label", label]);
        }
        let id = output(run.args([Image::Host.reference().as_str(), "sleep", "infinity"])).await?;
        self.0.push(id);
        Ok(())
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker")
            .args(["rm", "--force"])
            .args(&self.0)
            .output();
    }
}
