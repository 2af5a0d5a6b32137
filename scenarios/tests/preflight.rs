//! `fleet-preflight` in the lab: a sound site passes, and each thing that is broken on purpose turns exactly the checks
//! that are about it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use fleet_preflight::keys;
use harness::host::{BUNDLE, Host, Needs};
use harness::scenario::{Outcome, Stage, scenario};
use harness::{Blame, OrBlame, Result, authority, tools};
use ring::signature::{Ed25519KeyPair, KeyPair};
use scenarios::{ABROAD, any_site, must};
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
async fn bare(stage: &Stage, disk_mib: Option<u32>) -> Result<Host> {
    let bundle = tools::bundle(&tools::standin().await?).await?;
    let needs = Needs {
        bundle: Some(bundle),
        disk_mib,
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
    stage.world.authority().await?.publish(&zones).await?;
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
    must(
        green.turned().is_empty() && green.exit == 0,
        "be green before anything is broken",
        green.report.to_string(),
    )?;
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
        let expected: Turned = row
            .turns
            .iter()
            .map(|&(name, verdict)| (name.to_owned(), verdict.to_owned()))
            .collect();
        must(
            seen.turned() == expected,
            &format!("{}: turn exactly {expected:?}", row.what),
            format!("{:?}\n{}", seen.turned(), seen.report),
        )?;
        let first = row.turns.first().map_or("", |&(name, _)| name);
        must(
            seen.says(first).contains(row.says),
            &format!("{}: say `{}`", row.what, row.says),
            seen.says(first),
        )?;
        let worst = if expected.values().any(|verdict| verdict == "failed") {
            2
        } else if expected.values().any(|verdict| verdict == "unknown") {
            3
        } else {
            1
        };
        must(
            seen.exit == worst,
            &format!("{}: exit with {worst}", row.what),
            seen.exit.to_string(),
        )?;
    }
    publish(stage, host, &zone).await?;
    let green = preflight(host, "", arguments).await?;
    must(
        green.turned().is_empty(),
        "be green again when all is healed",
        green.report.to_string(),
    )
}

/// Everything that can be looked at before anything is installed: who holds a port, room on the disk and in memory,
/// systemd, Caddy, SQLite, the authority, the way out and the clock. `/proc/meminfo` and the clock of the machine
/// belong to all containers, so a file is laid over the one and the authority tells a wrong time instead of the other.
#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_is_wrong_with_a_bare_machine_turns_exactly_its_check() -> Outcome {
    scenario(async |stage| {
        let host = bare(stage, None).await?;
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
            heal: "systemctl stop intruder; systemctl start caddy",
            turns: &[($check, $verdict)],
            says: "intruder",
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
    Red {
        what: "an old systemd",
        break_it: "mkdir /run/old; printf '#!/bin/sh\\necho \"systemd 247 (247.3)\"\\n' >/run/old/systemctl; chmod +x /run/old/systemctl",
        heal: "rm -r /run/old",
        before: "PATH=/run/old:$PATH",
        arguments: "--acme-directory https://acme.lab.test/acme/lab/directory",
        turns: &[("systemd", "failed")],
        says: "systemd 247",
        ..NONE
    },
    Red {
        what: "an old Caddy",
        break_it: "mkdir /run/old; printf '#!/bin/sh\\necho v2.5.2\\n' >/run/old/caddy; chmod +x /run/old/caddy",
        heal: "rm -r /run/old",
        before: "PATH=/run/old:$PATH",
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
        break_it: "mkdir /run/old; printf '#!/bin/sh\\necho \"3.29.0 2019-07-10\"\\n' >/run/old/sqlite3; chmod +x /run/old/sqlite3",
        heal: "rm -r /run/old /opt/conduit",
        before: "PATH=/run/old:$PATH",
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
        let host = bare(stage, None).await?;
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
        let host = bare(stage, None).await?;
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

/// What a homeserver shows of itself, each part of it wrong once: on a site that we play, so that each answer can be
/// what Caddy and Conduit would not serve.
async fn serve(stage: &Stage, host: &Host, port: u16, name: &str, routes: Value) -> Result<()> {
    let (certificate, key) = stage.world.root().issue(
        &[name],
        SystemTime::now() - DAY,
        SystemTime::now() + 90 * DAY,
    )?;
    knobs(
        host,
        port,
        &json!({"cert": certificate, "key": key, "routes": routes}),
    )
    .await?;
    host.write(
        "/run/lab/serve.py",
        "644",
        include_bytes!("preflight/serve.py"),
    )
    .await?;
    host.shell(&format!(
        "systemd-run --quiet --unit=serve-{port} python3 /run/lab/serve.py {port}; \
         n=0; until ss -Hltn sport = :{port} | grep -q .; do n=$((n+1)); [ $n -lt 250 ] || exit 1; sleep 0.02; done"
    ))
    .await
    .map(|_| ())
}

async fn knobs(host: &Host, port: u16, knobs: &Value) -> Result<()> {
    host.write(
        &format!("/run/lab/{port}.json"),
        "644",
        knobs.to_string().as_bytes(),
    )
    .await
}

const DAY: Duration = Duration::from_secs(86_400);
