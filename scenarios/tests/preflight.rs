//! `fleet-preflight` in the lab: a sound site passes, and each thing that is broken on purpose turns exactly the checks
//! that are about it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use fleet_preflight::keys;
use harness::authority::{Issued, Validity};
use harness::homeserver::Server;
use harness::host::{BUNDLE, Host, Needs};
use harness::scenario::{Outcome, Stage, scenario};
use harness::{Blame, Failure, OrBlame, Result, authority, tools};
use ring::signature::{Ed25519KeyPair, KeyPair};
use scenarios::{ABROAD, HOME, must};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// Check to verdict, of those that are not `ok`.
type Turned = BTreeMap<String, String>;

/// What one run said.
struct Seen {
    exit: i64,
    report: Value,
}

impl Seen {
    fn turned(&self) -> Turned {
        self.checks()
            .filter(|check| check["verdict"] != "ok")
            .map(|check| (text(&check["name"]), text(&check["verdict"])))
            .collect()
    }

    fn checks(&self) -> impl Iterator<Item = &Value> {
        self.report["checks"].as_array().into_iter().flatten()
    }

    /// What a check saw, expected and advised.
    fn says(&self, name: &str) -> String {
        self.checks()
            .find(|check| check["name"] == name)
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    /// The steps of discovery, as `NUMBER what`.
    fn steps(&self) -> Vec<String> {
        let steps = self.report["discovery"].as_array();
        steps
            .into_iter()
            .flatten()
            .map(|step| format!("{} {}", text(&step["number"]), text(&step["what"])))
            .collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Runs the program that the bundle carries; `before` are assignments for its environment.
async fn preflight(host: &Host, before: &str, arguments: &str) -> Result<Seen> {
    let line = format!("{before} {BUNDLE}/fleet-preflight --json {arguments}");
    let output = host.try_shell(&line).await?;
    let report = serde_json::from_str(&output.stdout).or_blame(Blame::Deployment, || {
        format!(
            "read the report of `{line}`: exit {}\n{}{}",
            output.exit, output.stdout, output.stderr
        )
    })?;
    Ok(Seen {
        exit: output.exit,
        report,
    })
}

/// A bare host with the bundle.
async fn bare(stage: &Stage) -> Result<Host> {
    // The claims are about the program and the lab: no homeserver is asked.
    stage.put_to(&Server {
        name: "lab".to_owned(),
        version: format!("docker {}", stage.world.docker().version().await?),
    });
    let bundle = tools::bundle(&tools::standin().await?).await?;
    let needs = Needs {
        bundle: Some(bundle),
        ..Needs::default()
    };
    stage.world.host_with(ABROAD, needs).await
}

/// Publishes another text of the host's zone; returns once it is served.
async fn publish(stage: &Stage, host: &Host, zone: &str) -> Result<()> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let mark = format!("mark-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
    let zone = format!("{}\n{mark} IN A {}\n", zone.trim_end(), host.address);
    let zones = BTreeMap::from([(host.server_name.clone(), zone)]);
    let names: Vec<_> = zones.keys().cloned().collect();
    stage
        .world
        .authority()
        .await?
        .publish(&zones, &names)
        .await?;
    // The old zone answers, too, until the new one is loaded.
    host.shell(&format!(
        "n=0; until getent ahostsv4 {mark}.{}; do n=$((n+1)); [ $n -lt 500 ] || exit 1; sleep 0.02; done",
        host.server_name
    ))
    .await
    .map(|_| ())
}

/// One thing that is broken on purpose.
struct Red {
    what: &'static str,
    /// Changes the zone.
    zone: fn(&str) -> String,
    /// Breaks something on the host.
    break_it: &'static str,
    /// Heals it again.
    heal: &'static str,
    /// Assignments for the environment of the program.
    before: &'static str,
    /// Further arguments.
    arguments: &'static str,
    /// The checks that are not `ok` then: all of them, and no others.
    turns: &'static [(&'static str, &'static str)],
    /// What the first of them says.
    says: &'static str,
}

const NONE: Red = Red {
    what: "",
    zone: |zone| zone.to_owned(),
    break_it: "",
    heal: "",
    before: "",
    arguments: "",
    turns: &[],
    says: "",
};

/// Breaks one thing after the other, and heals each.
async fn turn_red(stage: &Stage, host: &Host, arguments: &str, rows: &[Red]) -> Result<()> {
    let zone = authority::zone_for(&host.server_name, &host.address)?;
    let green = preflight(host, "", arguments).await?;
    judge(&green, "nothing is broken yet", &[], "")?;
    let mut published = zone.clone();
    for row in rows {
        let wanted = (row.zone)(&zone);
        if wanted != published {
            publish(stage, host, &wanted).await?;
            published = wanted;
        }
        if !row.break_it.is_empty() {
            host.shell(row.break_it).await?;
        }
        let arguments = format!("{arguments} {}", row.arguments);
        let seen = preflight(host, row.before, &arguments).await?;
        if !row.heal.is_empty() {
            host.shell(row.heal).await?;
        }
        judge(&seen, row.what, row.turns, row.says)?;
    }
    publish(stage, host, &zone).await?;
    let green = preflight(host, "", arguments).await?;
    judge(&green, "all is healed", &[], "")
}

/// The checks that are not `ok` are these and no others, the first of them says this, and the exit code follows.
fn judge(seen: &Seen, what: &str, turns: &[(&str, &str)], says: &str) -> Result<()> {
    let expected: Turned = turns
        .iter()
        .map(|&(name, verdict)| (name.to_owned(), verdict.to_owned()))
        .collect();
    must(
        seen.turned() == expected,
        &format!("{what}: turn exactly {expected:?}"),
        format!("{:?}\n{}", seen.turned(), seen.report),
    )?;
    let first = turns.first().map_or("", |&(name, _)| name);
    must(
        seen.says(first).contains(says),
        &format!("{what}: say `{says}`"),
        seen.says(first),
    )?;
    let any = |verdict: &str| expected.values().any(|one| one == verdict);
    let exit = if any("failed") {
        2
    } else if any("unknown") {
        3
    } else {
        i64::from(any("warning"))
    };
    must(
        seen.exit == exit,
        &format!("{what}: exit with {exit}"),
        seen.exit.to_string(),
    )
}

/// Everything that can be looked at before anything is installed: who holds a port, room on the disk and in memory,
/// systemd, Caddy, SQLite, the authority, the way out and the clock. `/proc/meminfo` and the clock of the machine
/// belong to all containers, so a file is laid over the one and the authority tells a wrong time instead of the other.
#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_is_wrong_with_a_bare_machine_turns_exactly_its_check() -> Outcome {
    scenario(async |stage| {
        let host = bare(stage).await?;
        let directory = json!({
            "newNonce": "https://a.test/n", "newAccount": "https://a.test/a", "newOrder": "https://a.test/o",
        });
        let late = "Thu, 01 Jan 2026 00:00:00 GMT";
        serve(stage, &host, 9443, &format!("matrix.{ABROAD}"), json!({
            "/late": [200, {"Date": late}, directory.to_string()],
            "/html": [200, {}, "<html>"],
        }))
        .await?;
        turn_red(stage, &host, "--server-name vale.test --host --before-install", MACHINE).await
    })
    .await
}

/// Somebody who listens on this port, and his end.
macro_rules! held {
    ($port:literal, $check:literal, $verdict:literal) => {
        Red {
            what: concat!("port ", $port, " held by somebody else"),
            break_it: concat!(
                "systemctl stop caddy; systemd-run --quiet --unit=intruder python3 -c 'import socket,time; ",
                "s=socket.create_server((\"0.0.0.0\",", $port, ")); time.sleep(600)'; ",
                "n=0; until ss -Hltn sport = :", $port, " | grep -q .; do n=$((n+1)); [ $n -lt 250 ] || exit 1; sleep 0.02; done"
            ),
            heal: "systemctl stop intruder; systemctl reset-failed caddy; systemctl start caddy",
            turns: &[($check, $verdict)],
            says: "python3",
            ..NONE
        }
    };
}

const MACHINE: &[Red] = &[
    held!("22", "port-22", "warning"),
    held!("80", "port-80", "failed"),
    held!("443", "port-443", "failed"),
    held!("6167", "port-6167", "failed"),
    held!("8448", "port-8448", "failed"),
    Red {
        what: "Gitea's port held by Caddy",
        break_it: "printf 'import conf.d/*.caddy\\n' >>/etc/caddy/Caddyfile; mkdir -p /etc/caddy/conf.d; \
                   printf ':3000 {\\nrespond hi\\n}\\n' >/etc/caddy/conf.d/gitea.caddy; systemctl reload caddy; \
                   n=0; until ss -Hltn sport = :3000 | grep -q .; do n=$((n+1)); [ $n -lt 250 ] || exit 1; sleep 0.02; done",
        heal: "rm /etc/caddy/conf.d/gitea.caddy; systemctl restart caddy",
        turns: &[("port-3000", "failed")],
        says: "caddy",
        ..NONE
    },
    Red {
        what: "a small disk",
        break_it: "mkdir /opt/conduit; mount -t tmpfs -o size=100m tmpfs /opt/conduit",
        heal: "umount /opt/conduit",
        turns: &[("disk", "failed")],
        says: "1024 MB",
        ..NONE
    },
    Red {
        what: "a disk that will not do for long",
        break_it: "mount -t tmpfs -o size=1500m tmpfs /opt/conduit",
        heal: "umount /opt/conduit",
        turns: &[("disk", "warning")],
        says: "2048 MB",
        ..NONE
    },
    Red {
        what: "few inodes",
        break_it: "mount -t tmpfs -o nr_inodes=500 tmpfs /opt/conduit",
        heal: "umount /opt/conduit; rmdir /opt/conduit",
        turns: &[("inodes", "failed")],
        says: "10000",
        ..NONE
    },
    Red {
        what: "no memory left",
        break_it: "printf 'MemTotal: 4194304 kB\\nMemAvailable: 102400 kB\\n' >/run/meminfo; \
                   mount --bind /run/meminfo /proc/meminfo",
        heal: "umount /proc/meminfo",
        turns: &[("memory", "failed")],
        says: "100 of 4096 MiB",
        ..NONE
    },
    Red {
        what: "a machine of 1 GiB",
        break_it: "printf 'MemTotal: 1048576 kB\\nMemAvailable: 819200 kB\\n' >/run/meminfo; \
                   mount --bind /run/meminfo /proc/meminfo",
        heal: "umount /proc/meminfo",
        turns: &[("memory", "warning")],
        says: "800 of 1024 MiB",
        ..NONE
    },
    Red {
        what: "a failed unit",
        break_it: "systemd-run --quiet --unit=hapless --wait false || true",
        heal: "systemctl reset-failed",
        turns: &[("systemd", "warning")],
        says: "hapless",
        ..NONE
    },
    // Not below /run: nothing there may be executed.
    Red {
        what: "an old systemd",
        break_it: "mkdir /root/old; printf '#!/bin/sh\\necho \"systemd 247 (247.3)\"\\n' >/root/old/systemctl; chmod +x /root/old/systemctl",
        heal: "rm -r /root/old",
        before: "PATH=/root/old:$PATH",
        arguments: "--acme-directory https://acme.lab.test/acme/lab/directory",
        turns: &[("systemd", "failed")],
        says: "systemd 247",
        ..NONE
    },
    Red {
        what: "an old Caddy",
        break_it: "mkdir /root/old; printf '#!/bin/sh\\necho v2.5.2\\n' >/root/old/caddy; chmod +x /root/old/caddy",
        heal: "rm -r /root/old",
        before: "PATH=/root/old:$PATH",
        turns: &[("caddy", "failed")],
        says: "2.5.2",
        ..NONE
    },
    Red {
        what: "SQLite as the database",
        break_it: "mkdir /opt/conduit; printf '[global]\\ndatabase_backend = \"sqlite\"\\n' >/opt/conduit/conduit.toml",
        turns: &[("sqlite", "warning")],
        says: "no `sqlite3`",
        ..NONE
    },
    Red {
        what: "an old SQLite as the database",
        break_it: "mkdir /root/old; printf '#!/bin/sh\\necho \"3.29.0 2019-07-10\"\\n' >/root/old/sqlite3; chmod +x /root/old/sqlite3",
        heal: "rm -r /root/old /opt/conduit",
        before: "PATH=/root/old:$PATH",
        turns: &[("sqlite", "failed")],
        says: "3.29.0",
        ..NONE
    },
    Red {
        what: "an authority that is none",
        arguments: "--acme-directory https://matrix.vale.test:9443/html",
        turns: &[("acme", "failed")],
        says: "newNonce",
        ..NONE
    },
    Red {
        what: "an authority without that page",
        arguments: "--acme-directory https://acme.lab.test/nowhere",
        turns: &[("acme", "failed")],
        says: "acme.lab.test",
        ..NONE
    },
    Red {
        what: "an authority that does not exist",
        arguments: "--acme-directory https://acme.nowhere.test/directory --outbound acme.lab.test",
        turns: &[("acme", "failed"), ("clock", "unknown")],
        says: "NXDOMAIN",
        ..NONE
    },
    Red {
        what: "an authority with another time",
        arguments: "--acme-directory https://matrix.vale.test:9443/late",
        turns: &[("clock", "failed")],
        says: "ahead of",
        ..NONE
    },
    Red {
        what: "no way out",
        arguments: "--outbound matrix.vale.test:444",
        turns: &[("outbound-443", "failed")],
        says: "nobody listens",
        ..NONE
    },
];

/// The zone as the operator of another place would have it wrong.
#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_in_a_zone_turns_exactly_its_check() -> Outcome {
    scenario(async |stage| {
        let host = bare(stage).await?;
        turn_red(
            stage,
            &host,
            "--server-name vale.test --host --before-install",
            ZONE,
        )
        .await
    })
    .await
}

/// Replaces the record that begins with these words by these lines.
fn replaced(zone: &str, record: &str, by: &str) -> String {
    let lines: Vec<_> = zone
        .lines()
        .map(|line| {
            if line
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .starts_with(record)
            {
                by
            } else {
                line
            }
        })
        .collect();
    lines.join("\n") + "\n"
}

const ZONE: &[Red] = &[
    Red {
        what: "no such name as matrix",
        zone: |zone| replaced(zone, "matrix IN A", ""),
        turns: &[("address", "failed")],
        says: "NXDOMAIN",
        ..NONE
    },
    Red {
        what: "matrix without an address",
        zone: |zone| replaced(zone, "matrix IN A", "matrix IN TXT \"soon\""),
        turns: &[("address", "failed")],
        says: "the name exists",
        ..NONE
    },
    Red {
        what: "matrix elsewhere",
        zone: |zone| replaced(zone, "matrix IN A", "matrix IN A 198.18.255.9"),
        turns: &[("address", "failed")],
        says: "198.18.255.9",
        ..NONE
    },
    Red {
        what: "an alias at matrix",
        zone: |zone| replaced(zone, "matrix IN A", "matrix IN CNAME ns1"),
        turns: &[("address", "warning")],
        says: "through the alias `ns1.vale.test`",
        ..NONE
    },
    Red {
        what: "an alias that leads nowhere",
        zone: |zone| replaced(zone, "matrix IN A", "matrix IN CNAME gone"),
        turns: &[("address", "failed")],
        says: "an alias of `gone.vale.test`, which does not exist",
        ..NONE
    },
    Red {
        what: "a stale AAAA",
        zone: |zone| format!("{zone}matrix IN AAAA 2001:db8::1\n"),
        turns: &[("aaaa", "failed")],
        says: "2001:db8::1",
        ..NONE
    },
    Red {
        what: "a stale AAAA at the apex",
        zone: |zone| format!("{zone}@ IN AAAA 2001:db8::2\n"),
        turns: &[("aaaa", "failed")],
        says: "2001:db8::2",
        ..NONE
    },
    Red {
        what: "nobody may issue",
        zone: |zone| replaced(zone, "@ IN CAA 0 issue", "@ IN CAA 0 issue \";\""),
        turns: &[("caa", "failed")],
        says: "nobody may issue",
        ..NONE
    },
    Red {
        what: "another authority may issue",
        zone: |zone| {
            replaced(
                zone,
                "@ IN CAA 0 issue",
                "@ IN CAA 0 issue \"other.test; validationmethods=dns-01\"",
            )
        },
        turns: &[("caa", "failed")],
        says: "`other.test` may issue",
        ..NONE
    },
    Red {
        what: "another authority may issue for matrix alone",
        zone: |zone| format!("{zone}matrix IN CAA 0 issue \"other.test\"\n"),
        turns: &[("caa", "failed")],
        says: "CAA `matrix.vale.test`",
        ..NONE
    },
    Red {
        what: "a critical tag that nobody knows",
        zone: |zone| format!("{zone}@ IN CAA 128 tbs \"unknown\"\n"),
        turns: &[("caa", "failed")],
        says: "tbs",
        ..NONE
    },
    Red {
        what: "the deprecated SRV record",
        zone: |zone| format!("{zone}_matrix._tcp IN SRV 10 0 8448 matrix\n"),
        turns: &[("srv", "warning")],
        says: "deprecated",
        ..NONE
    },
    Red {
        what: "an SRV record to a name that does not exist",
        zone: |zone| format!("{zone}_matrix-fed._tcp IN SRV 10 0 8448 gone\n"),
        turns: &[("srv", "failed")],
        says: "NXDOMAIN",
        ..NONE
    },
    Red {
        what: "an SRV record to nothing",
        zone: |zone| format!("{zone}_matrix-fed._tcp IN SRV 0 0 0 .\n"),
        turns: &[("srv", "failed")],
        says: "points to `.`",
        ..NONE
    },
    Red {
        what: "an SRV record to an alias",
        zone: |zone| {
            format!("{zone}_matrix-fed._tcp IN SRV 10 0 8448 chat\nchat IN CNAME matrix\n")
        },
        turns: &[("srv", "failed")],
        says: "which is an alias",
        ..NONE
    },
];

/// A name server that is silent, fails, refuses, lies, is slow, deaf over TCP, or answers other questions: each is told
/// from the others, and what depends on its answers is unknown and not wrong.
#[tokio::test(flavor = "multi_thread")]
async fn each_way_in_which_a_name_server_can_fail_is_told_from_the_others() -> Outcome {
    scenario(async |stage| {
        let host = bare(stage).await?;
        let upstream = &stage.world.authority().await?.address;
        host.write("/run/lab/names.py", "644", include_bytes!("preflight/names.py")).await?;
        host.shell(&format!(
            "echo fine >/run/lab/knob; systemd-run --quiet --unit=names python3 /run/lab/names.py {upstream}; \
             n=0; until ss -Hlun sport = :5353 | grep -q .; do n=$((n+1)); [ $n -lt 250 ] || exit 1; sleep 0.02; done"
        ))
        .await?;
        turn_red(
            stage,
            &host,
            "--server-name vale.test --host --before-install --resolver 127.0.0.1:5353",
            RESOLVER,
        )
        .await
    })
    .await
}

/// Everything that a name server must be asked for.
macro_rules! dumb {
    ($what:literal, $knob:literal, $says:literal $(, $more:expr)?) => {
        Red {
            what: $what,
            break_it: concat!("echo ", $knob, " >/run/lab/knob"),
            turns: &[
                ("resolver", "failed"),
                ("resolver-nxdomain", "unknown"),
                ("address", "unknown"),
                ("address-apex", "unknown"),
                ("aaaa", "unknown"),
                ("caa", "unknown"),
                ("srv", "unknown"),
                ("acme", "unknown"),
                ("outbound-443", "unknown"),
                ("clock", "unknown"),
                $($more,)?
            ],
            says: $says,
            ..NONE
        }
    };
}

const RESOLVER: &[Red] = &[
    dumb!(
        "a silent name server",
        "silent",
        "no answer in time",
        ("resolver-tcp", "warning")
    ),
    dumb!(
        "an answer to another question",
        "wrong-id",
        "wrong id",
        ("resolver-tcp", "warning")
    ),
    dumb!(
        "an answer that is none",
        "garbage",
        "no DNS answer",
        ("resolver-tcp", "warning")
    ),
    dumb!("a name server that fails", "servfail", "SERVFAIL"),
    dumb!("a name server that refuses", "refused", "REFUSED"),
    dumb!(
        "a name server that can do nothing",
        "notimp",
        "Not Implemented"
    ),
    Red {
        what: "a forged answer before the right one",
        break_it: "echo stray >/run/lab/knob",
        turns: &[("resolver", "failed")],
        says: "wrong id came before",
        ..NONE
    },
    Red {
        what: "a slow name server",
        break_it: "echo slow >/run/lab/knob",
        turns: &[("resolver", "warning")],
        says: "within 1000 ms",
        ..NONE
    },
    Red {
        what: "a name server that lies about what does not exist",
        break_it: "echo lying >/run/lab/knob",
        turns: &[("resolver-nxdomain", "failed")],
        says: "198.18.255.1",
        ..NONE
    },
    Red {
        what: "a name server that is deaf over TCP",
        break_it: "echo datagrams-only >/run/lab/knob",
        turns: &[("resolver-tcp", "warning")],
        says: "over TCP",
        ..NONE
    },
    Red {
        what: "an apex without an address",
        break_it: "echo empty vale.test >/run/lab/knob",
        turns: &[("address-apex", "failed")],
        says: "the name exists",
        ..NONE
    },
    Red {
        what: "a zone that fails for one name",
        break_it: "echo failing matrix.vale.test >/run/lab/knob",
        turns: &[
            ("address", "unknown"),
            ("aaaa", "unknown"),
            ("caa", "unknown"),
        ],
        says: "SERVFAIL",
        heal: "echo fine >/run/lab/knob",
        ..NONE
    },
];

/// A site that followed `install.md` passes all of it, by the program that the installer put there and as `preflight.md`
/// has it, before the installation and after it.
#[tokio::test(flavor = "multi_thread")]
async fn an_installed_site_passes_every_check() -> Outcome {
    scenario(async |stage| {
        let conduit = stage.conduit().await?;
        let bundle = tools::bundle(&conduit).await?;
        let needs = Needs {
            bundle: Some(bundle),
            ..Needs::default()
        };
        let host = stage.world.host_with(HOME, needs).await?;
        let before = preflight(&host, "", "--host --before-install").await?;
        judge(&before, "nothing is installed yet", &[], "")?;
        let site = stage.world.install(host).await?;
        site.follow("preflight.md", &[]).await?;
        let seen = preflight(&site.host, "", "--host").await?;
        judge(&seen, "an installed site", &[], "")?;
        let expected = format!(
            "3.2 connect to {}:443, certificate for `matrix.{HOME}`, Host `matrix.{HOME}:443`",
            site.host.address
        );
        must(
            seen.steps().last() == Some(&expected),
            &format!("end with `{expected}`"),
            seen.steps().join("\n"),
        )?;
        // As many checks as there are: one that was left out would be no failure.
        must(
            seen.checks().count() == 31,
            "make all 31 checks",
            seen.report.to_string(),
        )
    })
    .await
}

/// The real server behind the real proxy, with one thing changed in each: what others would find, and that the reason
/// is told.
#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_on_an_installed_site_turns_exactly_its_checks() -> Outcome {
    scenario(async |stage| {
        let conduit = stage.conduit().await?;
        let site = stage.world.site(ABROAD, &conduit).await?;
        turn_red(stage, &site.host, "--host", SITE).await
    })
    .await
}

const SITE: &[Red] = &[
    Red {
        what: "federation switched off",
        // The unit's own guard would not let it start so: it cannot read the key any more.
        break_it: "cp -a /opt/conduit/conduit.toml /root/kept; \
                   sed -i 's/^allow_federation = true/allow_federation = false/' /opt/conduit/conduit.toml; \
                   mkdir /etc/systemd/system/conduit.service.d; \
                   printf '[Service]\\nExecStartPost=\\n' >/etc/systemd/system/conduit.service.d/lax.conf; \
                   systemctl daemon-reload; systemctl restart conduit; n=0; \
                   until curl -sf -o /dev/null http://127.0.0.1:6167/_matrix/client/versions; do n=$((n+1)); [ $n -lt 500 ] || exit 1; sleep 0.02; done",
        heal: "cp -a /root/kept /opt/conduit/conduit.toml; rm -r /etc/systemd/system/conduit.service.d; \
               systemctl daemon-reload; systemctl restart conduit",
        turns: &[
            ("keys", "failed"),
            ("keys-validity", "unknown"),
            ("version", "failed"),
        ],
        says: "allow_federation",
        ..NONE
    },
    Red {
        what: "Conduit open to the network",
        break_it: "sed -i 's/^address = .*/address = \"0.0.0.0\"/' /opt/conduit/conduit.toml; systemctl restart conduit",
        heal: "cp -a /root/kept /opt/conduit/conduit.toml; systemctl restart conduit",
        turns: &[("port-6167", "failed")],
        says: "0.0.0.0",
        ..NONE
    },
    Red {
        what: "Conduit stopped",
        break_it: "systemctl stop conduit",
        heal: "systemctl start conduit",
        turns: &[
            ("port-6167", "failed"),
            ("keys", "failed"),
            ("keys-validity", "unknown"),
            ("version", "failed"),
        ],
        says: "nobody listens",
        ..NONE
    },
    Red {
        what: "Caddy stopped",
        break_it: "systemctl stop caddy",
        heal: "systemctl start caddy; n=0; until curl -sf -o /dev/null https://matrix.vale.test/_matrix/client/versions; do \
               n=$((n+1)); [ $n -lt 500 ] || exit 1; sleep 0.02; done",
        turns: &[
            ("port-80", "failed"),
            ("port-443", "failed"),
            ("port-8448", "failed"),
            ("well-known", "warning"),
            ("addresses", "failed"),
            ("certificate", "unknown"),
            ("keys", "unknown"),
            ("keys-validity", "unknown"),
            ("version", "unknown"),
        ],
        says: "nobody listens",
        ..NONE
    },
    Red {
        what: "a key document that somebody changed on the way",
        break_it: "cp -a /etc/caddy/conf.d/conduit.caddy /root/site; \
                   curl -sf http://127.0.0.1:6167/_matrix/key/v2/server | jq -c '.valid_until_ts -= 1' >/root/keys; \
                   awk -v keys=\"$(cat /root/keys)\" '/handle \\/_matrix\\/\\*/ { print \"handle /_matrix/key/v2/server {\\n\\trespond `\" keys \"` 200\\n}\" } { print }' \
                   /root/site >/etc/caddy/conf.d/conduit.caddy; systemctl reload caddy",
        heal: "cp -a /root/site /etc/caddy/conf.d/conduit.caddy; systemctl reload caddy",
        turns: &[("keys", "failed")],
        says: "is wrong",
        ..NONE
    },
    Red {
        what: "the apex served from elsewhere without the delegation",
        break_it: "sed -i '/^# apex: begin/,$d' /etc/caddy/conf.d/conduit.caddy; \
                   printf 'vale.test {\\n tls {\\n ca {$ACME_CA}\\n }\\n respond \"a page\" 200\\n}\\n' >>/etc/caddy/conf.d/conduit.caddy; systemctl reload caddy",
        heal: "cp -a /root/site /etc/caddy/conf.d/conduit.caddy; systemctl reload caddy",
        turns: &[
            ("well-known", "failed"),
            ("keys", "failed"),
            ("keys-validity", "unknown"),
            ("version", "failed"),
        ],
        says: "no JSON",
        ..NONE
    },
];

/// Another implementation's signature, which nobody of ours made; and a server that signs nothing, which is found out.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_another_implementation_are_verified_and_an_unsigned_document_is_not() -> Outcome
{
    scenario(async |stage| {
        let site = stage.world.synapse(ABROAD).await?;
        stage.put_to(&site.server);
        let seen = preflight(&site.host, "", "--server-name vale.test").await?;
        judge(&seen, "Synapse behind the same proxy", &[], "")?;
        let unsigned = stage.world.site(HOME, &tools::standin().await?).await?;
        let seen = preflight(&unsigned.host, "", "--host").await?;
        judge(
            &seen,
            "a server that signs nothing",
            &[("keys", "failed")],
            "did not sign",
        )
    })
    .await
}

/// Starts a server with knobs; see `preflight/serve.py`.
async fn serve(stage: &Stage, host: &Host, port: u16, name: &str, routes: Value) -> Result<()> {
    knobs(host, port, &served(stage, name, routes)?).await?;
    host.write(
        "/run/lab/serve.py",
        "644",
        include_bytes!("preflight/serve.py"),
    )
    .await?;
    host.shell(&format!(
        "systemd-run --quiet --unit=serve-{port} python3 /run/lab/serve.py {port}; n=0; \
         until ss -Hltn sport = :{port} | grep -q .; do n=$((n+1)); [ $n -lt 500 ] || exit 1; sleep 0.02; done"
    ))
    .await
    .map(|_| ())
}

/// Sets the knobs of the server on this port, from its next connection on.
async fn knobs(host: &Host, port: u16, knobs: &Value) -> Result<()> {
    host.write(
        &format!("/run/lab/{port}.json"),
        "644",
        knobs.to_string().as_bytes(),
    )
    .await
}

const DAY: Duration = Duration::from_secs(86_400);

/// Knobs of a server that has a sound certificate for this name.
fn served(stage: &Stage, name: &str, routes: Value) -> Result<Value> {
    let now = SystemTime::now();
    let issued = stage
        .world
        .certificate(&[name], Validity::Between(now - DAY, now + 90 * DAY))?;
    Ok(json!({"cert": issued.certificate, "key": issued.key, "routes": routes}))
}

/// The same knobs with another certificate.
fn with_certificate(knobs: &Value, issued: &Issued) -> Value {
    let mut knobs = knobs.clone();
    knobs["cert"] = json!(issued.certificate);
    knobs["key"] = json!(issued.key);
    knobs
}

/// A homeserver's identity, made for one scenario.
struct Identity(Ed25519KeyPair);

impl Identity {
    fn make() -> Result<Self> {
        let random = ring::rand::SystemRandom::new();
        Ed25519KeyPair::generate_pkcs8(&random)
            .and_then(|document| {
                Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| ring::error::Unspecified)
            })
            .map(Self)
            .map_err(|error| Failure::harness("make a signing key").because(error))
    }

    fn public(&self) -> String {
        STANDARD_NO_PAD.encode(self.0.public_key().as_ref())
    }

    /// The key document of a server name, signed as it stands.
    fn document(&self, server_name: &str, valid_for: i64) -> Value {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let until = i64::try_from(now).unwrap_or_default() + valid_for * 1000;
        self.sign(
            server_name,
            json!({
                "server_name": server_name, "valid_until_ts": until,
                "verify_keys": {"ed25519:lab": {"key": self.public()}},
                "old_verify_keys": {},
            }),
        )
    }

    fn sign(&self, server_name: &str, mut document: Value) -> Value {
        let signature = document
            .as_object()
            .and_then(|object| keys::signed_part(object).ok())
            .map(|signed| STANDARD_NO_PAD.encode(self.0.sign(signed.as_bytes()).as_ref()));
        document["signatures"] = json!({server_name: {"ed25519:lab": signature}});
        document
    }
}

const KEYS: &str = "/_matrix/key/v2/server";
const VERSION: &str = "/_matrix/federation/v1/version";
const DELEGATION: &str = "/.well-known/matrix/server";

/// What a homeserver answers.
fn answers(keys: &Value) -> Value {
    json!({
        KEYS: [200, {}, keys.to_string()],
        VERSION: [200, {}, json!({"server": {"name": "lab", "version": "1"}}).to_string()],
    })
}

fn delegation(to: &str) -> Value {
    let cached = json!({"Cache-Control": "max-age=3600"});
    json!({DELEGATION: [200, cached, json!({"m.server": to}).to_string()]})
}

/// Every step of discovery leads where the specification says: the server there answers only to the Host header of
/// that step, has a certificate for the name of that step and for no other, and signs as the server name. Then the same
/// server has a certificate for another name, and that is seen.
#[tokio::test(flavor = "multi_thread")]
async fn the_federation_self_test_takes_every_step_of_server_discovery() -> Outcome {
    scenario(async |stage| {
        let host = bare(stage).await?;
        host.shell("systemctl stop caddy").await?;
        let zone = authority::zone_for(&host.server_name, &host.address)?;
        let identity = Identity::make()?;
        for port in [443, 8448, 9448] {
            serve(stage, &host, port, "nobody.test", json!({})).await?;
        }
        let address = host.address.clone();
        let fed = format!("fed IN A {address}\n");
        let literal = format!("{address}:9448");
        let srv = |name: &str| format!("{name} IN SRV 10 0 9448 matrix\n");
        // Step, server name, delegation, further records, port, Host header, name of the certificate.
        let steps = [
            ("1", address.clone(), None, String::new(), 8448, address.clone(), address.clone()),
            ("1", literal.clone(), None, String::new(), 9448, literal.clone(), address.clone()),
            ("2", "vale.test:9448".into(), None, String::new(), 9448, "vale.test:9448".into(), "vale.test".into()),
            ("3.1", ABROAD.into(), Some(literal.clone()), String::new(), 9448, literal.clone(), address.clone()),
            ("3.2", ABROAD.into(), Some("matrix.vale.test:9448".into()), String::new(), 9448, "matrix.vale.test:9448".into(), "matrix.vale.test".into()),
            ("3.3", ABROAD.into(), Some("fed.vale.test".into()), srv("_matrix-fed._tcp.fed"), 9448, "fed.vale.test".into(), "fed.vale.test".into()),
            ("3.4", ABROAD.into(), Some("fed.vale.test".into()), srv("_matrix._tcp.fed"), 9448, "fed.vale.test".into(), "fed.vale.test".into()),
            ("3.5", ABROAD.into(), Some("fed.vale.test".into()), fed, 8448, "fed.vale.test".into(), "fed.vale.test".into()),
            ("4", ABROAD.into(), None, srv("_matrix-fed._tcp"), 9448, ABROAD.into(), ABROAD.into()),
            ("5", ABROAD.into(), None, srv("_matrix._tcp"), 9448, ABROAD.into(), ABROAD.into()),
            ("6", ABROAD.into(), None, String::new(), 8448, ABROAD.into(), ABROAD.to_owned()),
        ];
        for (step, server_name, delegated, records, port, header, certificate) in steps {
            let server_name: String = server_name;
            let delegated: Option<String> = delegated;
            let what = format!("step {step} for `{server_name}`");
            publish(stage, &host, &format!("{zone}{records}")).await?;
            let apex = delegated.as_deref().map_or_else(|| json!({}), delegation);
            knobs(&host, 443, &served(stage, ABROAD, apex)?).await?;
            // The other port is somebody else's.
            for other in [8448, 9448] {
                knobs(&host, other, &served(stage, "nobody.test", json!({}))?).await?;
            }
            let mut sound = served(stage, &certificate, answers(&identity.document(&server_name, 86_400)))?;
            sound["host"] = json!(header);
            knobs(&host, port, &sound).await?;
            let arguments = format!("--server-name {server_name}");
            let seen = preflight(&host, "", &arguments).await?;
            let expected = format!(
                "{step} connect to {address}:{port}, certificate for `{certificate}`, Host `{header}`"
            );
            must(
                seen.steps().last() == Some(&expected),
                &format!("{what}: end with `{expected}`"),
                seen.steps().join("\n"),
            )?;
            for check in ["addresses", "certificate", "keys", "keys-validity", "version"] {
                must(
                    seen.says(check).contains("\"ok\""),
                    &format!("{what}: find `{check}` sound"),
                    seen.report.to_string(),
                )?;
            }
            let mut foreign = served(stage, "other.test", sound["routes"].clone())?;
            foreign["host"] = sound["host"].clone();
            knobs(&host, port, &foreign).await?;
            let seen = preflight(&host, "", &arguments).await?;
            must(
                seen.says("certificate").contains("for `other.test`")
                    && seen.says("certificate").contains("\"failed\""),
                &format!("{what}: refuse a certificate for another name"),
                seen.report.to_string(),
            )?;
        }
        Ok(())
    })
    .await
}

/// What a homeserver and its apex show of themselves, each part of it wrong once, on a site that we play: each answer
/// can then be what Caddy and Conduit would not give.
#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_in_what_a_site_serves_turns_exactly_its_check() -> Outcome {
    scenario(async |stage| {
        let host = bare(stage).await?;
        host.shell("systemctl stop caddy").await?;
        let zone = authority::zone_for(&host.server_name, &host.address)?;
        let (identity, another) = (Identity::make()?, Identity::make()?);
        let to = "matrix.vale.test:9448";
        let document = identity.document(ABROAD, 86_400);
        let apex = served(stage, ABROAD, delegation(to))?;
        let sound = served(stage, "matrix.vale.test", answers(&document))?;
        serve(stage, &host, 443, ABROAD, json!({})).await?;
        serve(stage, &host, 9448, "matrix.vale.test", json!({})).await?;
        serve(stage, &host, 8448, ABROAD, json!({})).await?;

        let now = SystemTime::now();
        let certified = |knobs: &Value, name: &str, from: SystemTime, until: SystemTime| -> Result<Value> {
            let issued = stage.world.certificate(&[name], Validity::Between(from, until))?;
            Ok(with_certificate(knobs, &issued))
        };
        let untrusted = |knobs: &Value, name: &str| -> Result<Value> {
            let validity = Validity::Between(now - DAY, now + 90 * DAY);
            let issued = authority::Root::generate("another")?.issue(&[name], validity)?;
            Ok(with_certificate(knobs, &issued))
        };
        let routed = |path: &str, answer: Value| {
            let mut knobs = sound.clone();
            knobs["routes"][path] = answer;
            knobs
        };
        let keyed = |document: &Value| routed(KEYS, json!([200, {}, document.to_string()]));
        let delegated = |answer: Value| {
            let mut knobs = apex.clone();
            knobs["routes"][DELEGATION] = answer;
            knobs
        };
        let changed = |key: &str, value: Value| {
            let mut document = document.clone();
            document[key] = value;
            document
        };
        // The delegation does not count any more: others come to the apex at 8448, where nothing is.
        let astray = &[
            ("well-known", "failed"), ("keys", "failed"), ("keys-validity", "unknown"), ("version", "failed"),
        ][..];
        let lost = [&[("certificate-well-known", "failed")][..], astray].concat();
        let fair = json!({"Cache-Control": "max-age=3600"});
        let body = json!({"m.server": to}).to_string();
        // What, the apex and the homeserver then, what turns, what is said.
        type Row<'a> = (&'a str, Value, Value, Vec<(&'a str, &'a str)>, &'a str);
        let rows: Vec<Row<'_>> = vec![
            ("an expired certificate", apex.clone(), certified(&sound, "matrix.vale.test", now - 9 * DAY, now - 2 * DAY)?,
             vec![("certificate", "failed")], "expired 2 days ago"),
            ("a certificate that is not valid yet", apex.clone(), certified(&sound, "matrix.vale.test", now + DAY, now + 9 * DAY)?,
             vec![("certificate", "failed")], "not valid yet"),
            ("a certificate that ends soon", apex.clone(), certified(&sound, "matrix.vale.test", now - 80 * DAY, now + 10 * DAY)?,
             vec![("certificate", "warning")], "renews"),
            ("a certificate that ends tomorrow", apex.clone(), certified(&sound, "matrix.vale.test", now - 80 * DAY, now + DAY)?,
             vec![("certificate", "failed")], "renews"),
            ("a certificate for the server name", apex.clone(), certified(&sound, ABROAD, now - DAY, now + 90 * DAY)?,
             vec![("certificate", "failed")], "for `vale.test`"),
            ("a certificate of nobody that is trusted", apex.clone(), untrusted(&sound, "matrix.vale.test")?,
             vec![("certificate", "failed")], "nobody that is trusted"),
            ("an apex whose certificate ends soon", certified(&apex, ABROAD, now - 80 * DAY, now + 10 * DAY)?, sound.clone(),
             vec![("certificate-well-known", "warning")], "renews"),
            ("an apex with an expired certificate", certified(&apex, ABROAD, now - 9 * DAY, now - 2 * DAY)?, sound.clone(),
             lost, "expired"),
            ("a delegation that is no JSON", delegated(json!([200, fair, "<html>"])), sound.clone(), astray.to_vec(), "no JSON"),
            ("a delegation that is too large", delegated(json!([200, fair, format!("{body}{}", " ".repeat(60_000))])), sound.clone(),
             astray.to_vec(), "larger than"),
            ("a delegation that goes round in a circle", delegated(json!([302, {"Location": DELEGATION}, ""])), sound.clone(),
             astray.to_vec(), "circle"),
            ("a delegation that fails", delegated(json!([500, {}, ""])), sound.clone(), astray.to_vec(), "status 500"),
            ("no delegation", delegated(json!([404, {}, ""])), sound.clone(),
             vec![("well-known", "warning"), ("keys", "failed"), ("keys-validity", "unknown"), ("version", "failed")], "404"),
            ("a delegation of another type", delegated(json!([200, {"Content-Type": "text/plain", "Cache-Control": "max-age=3600"}, body])),
             sound.clone(), vec![("well-known", "warning")], "text/plain"),
            ("a delegation that is not kept", delegated(json!([200, {"Cache-Control": "no-store"}, body])), sound.clone(),
             vec![("well-known", "warning")], "max-age"),
            ("a delegation to a name that does not exist", delegated(json!([200, fair, json!({"m.server": "gone.vale.test:443"}).to_string()])),
             sound.clone(),
             vec![("discovery", "failed"), ("addresses", "unknown"), ("certificate", "unknown"), ("keys", "unknown"),
                  ("keys-validity", "unknown"), ("version", "unknown")], "gone.vale.test"),
            ("a delegation to a port where nobody listens", delegated(json!([200, fair, json!({"m.server": "matrix.vale.test:9449"}).to_string()])),
             sound.clone(),
             vec![("addresses", "failed"), ("certificate", "unknown"), ("keys", "unknown"), ("keys-validity", "unknown"),
                  ("version", "unknown")], "nobody listens"),
            ("a signature by another key", apex.clone(), keyed(&{
                let mut forged = document.clone();
                forged["signatures"] = another.sign(ABROAD, document.clone())["signatures"].clone();
                forged
            }), vec![("keys", "failed")], "signature by `ed25519:lab` is wrong"),
            ("a key that did not sign", apex.clone(), keyed(&changed("verify_keys", json!({"ed25519:lab": {"key": another.public()}}))),
             vec![("keys", "failed")], "is wrong"),
            ("no signature", apex.clone(), keyed(&changed("signatures", json!({}))), vec![("keys", "failed")], "did not sign"),
            ("the keys of another server", apex.clone(), keyed(&identity.document("other.test", 86_400)),
             vec![("keys", "failed")], "those of `other.test`"),
            ("a retired key that never ended", apex.clone(), keyed(&identity.sign(ABROAD, changed("old_verify_keys",
                json!({"ed25519:old": {"key": another.public()}})))), vec![("keys", "failed")], "expired_ts"),
            ("keys that have ended", apex.clone(), keyed(&identity.document(ABROAD, -3600)),
             vec![("keys-validity", "failed")], "ended 60 min ago"),
            ("keys that never end", apex.clone(), keyed(&identity.document(ABROAD, 30 * 86_400)),
             vec![("keys-validity", "warning")], "7 days"),
            ("federation switched off", apex.clone(), routed(KEYS, json!([500, {}, "{}"])),
             vec![("keys", "failed"), ("keys-validity", "unknown")], "status 500"),
            ("no version", apex.clone(), routed(VERSION, json!([200, {}, "{}"])), vec![("version", "failed")], "without `server`"),
            ("a version that fails", apex.clone(), routed(VERSION, json!([502, {}, ""])), vec![("version", "failed")], "status 502"),
        ];
        let arguments = "--server-name vale.test";
        for (what, apex_then, sound_then, turns, says) in rows {
            knobs(&host, 443, &apex_then).await?;
            knobs(&host, 9448, &sound_then).await?;
            judge(&preflight(&host, "", arguments).await?, what, &turns, says)?;
        }
        knobs(&host, 443, &apex).await?;
        knobs(&host, 9448, &sound).await?;
        judge(&preflight(&host, "", arguments).await?, "all is healed", &[], "")?;

        // Further addresses, and a service record: the zone is what is wrong.
        let authority = stage.world.authority().await?.address.clone();
        let dead = authority.rsplit_once('.').map(|(net, _)| format!("{net}.213")).unwrap_or_default();
        for (what, records, turns, says) in [
            ("a second address where no host is", format!("matrix IN A {dead}\n"), vec![("addresses", "failed")], dead.as_str()),
            ("a second address where nobody listens", format!("matrix IN A {authority}\n"), vec![("addresses", "failed")], "nobody listens"),
            ("the address of production", "matrix IN A 143.198.27.163\n".to_owned(), vec![("addresses", "unknown")], "production host: refused"),
            ("an IPv6 address, from where there is no IPv6", "matrix IN AAAA 2001:db8::1\n".to_owned(), vec![("addresses", "unknown")], "no route"),
            ("an SRV record to a port where nobody listens", "_matrix-fed._tcp IN SRV 10 0 9449 matrix\n".to_owned(), vec![("srv", "failed")], "nobody listens"),
            ("an SRV record to a server without a certificate for the name", "_matrix-fed._tcp IN SRV 10 0 9448 matrix\n".to_owned(), vec![("srv", "failed")], "a certificate for `vale.test`"),
            ("an SRV record to a server with it", "_matrix-fed._tcp IN SRV 10 0 8448 matrix\n".to_owned(), vec![], ""),
        ] {
            publish(stage, &host, &format!("{zone}{records}")).await?;
            judge(&preflight(&host, "", arguments).await?, what, &turns, says)?;
        }
        Ok(())
    })
    .await
}
