//! What `health.sh` sees: each thing that breaks, and nothing that does not.

use harness::Result;
use harness::examine::Cause;
use harness::host::{Host, Needs};
use harness::scenario::{Outcome, Stage, scenario};
use harness::site::Site;
use harness::{OrBlame, tools};
use scenarios::{HOME, must, unchanged};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const HEALTH: &str = "/opt/conduit/scripts/health.sh";

/// What `health.sh --json` prints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    status: String,
    site: String,
    time: u64,
    seconds: f64,
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    name: String,
    status: String,
    detail: String,
    values: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    name: String,
    value: i64,
    unit: String,
    warning: i64,
    critical: i64,
    bad: String,
}

impl Report {
    /// The checks that are not ok, as `NAME STATUS`.
    fn turned(&self) -> Vec<String> {
        let ill = |check: &&Check| check.status != "ok" && check.status != "skipped";
        let mut turned: Vec<_> = self
            .checks
            .iter()
            .filter(ill)
            .map(|check| format!("{} {}", check.name, check.status))
            .collect();
        turned.sort();
        turned
    }

    fn skipped(&self) -> Vec<&str> {
        let skipped = self.checks.iter().filter(|check| check.status == "skipped");
        skipped.map(|check| check.name.as_str()).collect()
    }

    fn describe(&self) -> String {
        let mut text = format!("{} after {} s", self.status, self.seconds);
        for check in &self.checks {
            text += &format!("\n{} {}: {}", check.name, check.status, check.detail);
        }
        text
    }
}

async fn look(host: &Host) -> Result<(i64, Report)> {
    let output = host.try_shell(&format!("{HEALTH} --json")).await?;
    let report =
        serde_json::from_str(&output.stdout).or_blame(harness::Blame::Deployment, || {
            format!(
                "read what `health.sh --json` printed: {}{}",
                output.stdout, output.stderr
            )
        })?;
    Ok((output.exit, report))
}

/// A site with a backup on a disk of its own: how full this machine's is must not matter. On Conduit it is bootstrapped, so
/// that there is a canary; on the stand-in there is none.
async fn watched_site(stage: &Stage) -> Result<(Site, bool)> {
    let binary = stage.conduit_or_standin().await?;
    let bundle = tools::bundle(&binary).await?;
    let needs = Needs {
        bundle: Some(bundle),
        disk_mib: Some(1800),
        ..Needs::default()
    };
    stage.on_purpose(Cause::Disk);
    let host = stage.world.host_with(HOME, needs).await?;
    let site = stage.world.install(host).await?;
    let canary = stage.has_conduit().await?;
    if canary {
        site.follow("bootstrap.md", &[]).await?;
    }
    site.host.shell("/opt/conduit/scripts/backup.sh").await?;
    Ok((site, canary))
}

/// One thing that goes wrong.
struct Break {
    why: &'static str,
    breaks: String,
    /// The checks that must turn, and to what; all others must stay as they are.
    turns: &'static [(&'static str, &'static str)],
    heals: String,
}

fn breaks(
    why: &'static str,
    breaks: &str,
    turns: &'static [(&'static str, &'static str)],
    heals: &str,
) -> Break {
    Break {
        why,
        breaks: breaks.to_owned(),
        turns,
        heals: heals.to_owned(),
    }
}

/// The server is there for nobody: this must be seen from everywhere.
const NO_ANSWER: &[(&str, &str)] = &[
    ("api", "critical"),
    ("proxy-443", "critical"),
    ("proxy-8448", "critical"),
    ("canary", "critical"),
    ("federation", "critical"),
    ("key", "critical"),
];
const NO_SERVER: &[(&str, &str)] = &[
    ("unit", "critical"),
    ("api", "critical"),
    ("proxy-443", "critical"),
    ("proxy-8448", "critical"),
    ("canary", "critical"),
    ("federation", "critical"),
    ("key", "critical"),
];
const NO_PROXY: &[(&str, &str)] = &[
    ("proxy-443", "critical"),
    ("proxy-8448", "critical"),
    ("federation", "critical"),
    ("certificate", "critical"),
];

/// Caddy's site, edited and loaded again; and back.
fn site_file(edit: &str) -> (String, String) {
    (
        format!(
            "set -eu; cp -p /etc/caddy/conf.d/conduit.caddy /root/conduit.caddy; {edit}; systemctl reload caddy"
        ),
        "cp -p /root/conduit.caddy /etc/caddy/conf.d/conduit.caddy; systemctl reload caddy; \
         for n in $(seq 200); do curl -sf -o /dev/null https://matrix.timmy.foundation/_matrix/client/versions && break; sleep 0.05; done"
            .to_owned(),
    )
}

/// A certificate for the site from an authority that this host trusts, valid from and to these moments.
fn certificate(from: &str, to: &str) -> String {
    format!(
        "cd /etc/caddy; cp -p /etc/ssl/certs/ca-certificates.crt /root/trusted; \
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /root/ca.key -out /root/ca.crt -days 9 -subj /CN=Brief 2>/dev/null; \
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout brief.key -out /root/brief.csr -subj /CN=brief 2>/dev/null; \
         cat /root/ca.crt >> /etc/ssl/certs/ca-certificates.crt; \
         rm -rf /root/ca; mkdir /root/ca; : > /root/ca/index; echo 01 > /root/ca/serial; \
         printf '[ca]\\ndefault_ca=a\\n[a]\\ndatabase=/root/ca/index\\nserial=/root/ca/serial\\nnew_certs_dir=/root/ca\\n\
default_md=sha256\\npolicy=p\\nx509_extensions=x\\n[p]\\n[x]\\nsubjectAltName=DNS:timmy.foundation,DNS:matrix.timmy.foundation\\n' > /root/ca/cnf; \
         openssl ca -batch -config /root/ca/cnf -cert /root/ca.crt -keyfile /root/ca.key -in /root/brief.csr -out brief.crt -notext \
         -startdate $(date -u -d '{from}' +%Y%m%d%H%M%SZ) -enddate $(date -u -d '{to}' +%Y%m%d%H%M%SZ) 2>/root/ca/log || {{ cat /root/ca/log; exit 1; }}; \
         chmod 644 brief.crt brief.key; \
         sed -i '/^\\ttls {{$/,/^\\t}}$/c\\\\ttls /etc/caddy/brief.crt /etc/caddy/brief.key' conf.d/conduit.caddy"
    )
}

/// Everything that is broken here, one after another on the same site. Where one cause necessarily shows in several checks,
/// they are all named.
fn all_breaks() -> Vec<Break> {
    let in_site = |line: &str, what: &str| {
        format!("sed -i '/^{line} {{$/a\\{what}' /etc/caddy/conf.d/conduit.caddy")
    };
    let unanswered = "handle /_matrix/client/versions {\\n\\t\\trespond 502\\n\\t}";
    let (no_443, back) = site_file(&in_site("matrix.timmy.foundation", unanswered));
    let (no_8448, _) = site_file(&in_site("matrix.timmy.foundation:8448", unanswered));
    let (elsewhere, _) = site_file(
        "sed -i 's/\"m.server\":\"matrix.timmy.foundation:443\"/\"m.server\":\"matrix.timmy.foundation:8449\"/' /etc/caddy/conf.d/conduit.caddy",
    );
    let (ends, _) = site_file(&certificate("11 hours ago", "1 hour"));
    let (ended, _) = site_file(&certificate("11 hours ago", "1 minute ago"));
    let trusted = format!("cp /root/trusted /etc/ssl/certs/ca-certificates.crt; {back}");
    let clock = |seconds: &str| {
        let edit = in_site(
            "timmy.foundation",
            &format!(
                "handle /clock {{\\n\\t\\theader Date \"'\"$(TZ=UTC date -d '{seconds}' '+%a, %d %b %Y %T GMT')\"'\"\\n\\t\\trespond 200\\n\\t}}"
            ),
        );
        let (edited, _) = site_file(&edit);
        format!(
            "{edited}; echo CLOCK_REFERENCE=https://timmy.foundation/clock > /opt/conduit/health.env"
        )
    };
    let right_clock = format!("rm /opt/conduit/health.env; {back}");
    let start = "systemctl start conduit";
    let by_hand = "systemctl stop conduit; systemd-run --quiet --unit=by-hand -p User=conduit -p WorkingDirectory=/opt/conduit -E NO_COLOR=1 \
                   -E CONDUIT_CONFIG=/opt/conduit/conduit.toml /opt/conduit/conduit; \
                   for n in $(seq 400); do curl -sf -o /dev/null http://127.0.0.1:6167/_matrix/client/versions && exit 0; sleep 0.05; done; exit 1";
    let installed =
        |ago: &str| format!("touch -d '{ago} ago' /opt/conduit/secrets/restic-password");
    let no_backup = |ago: &str| {
        format!(
            "{}; mv /opt/conduit/backups/catalog.jsonl /root/catalog",
            installed(ago)
        )
    };
    let a_backup = "mv /root/catalog /opt/conduit/backups/catalog.jsonl; touch /opt/conduit/secrets/restic-password";
    let drill = |ago: &str, verdict: &str| {
        format!(
            "jq -cn '{{time: (now - {ago}), verdict: \"{verdict}\"}}' >> /opt/conduit/backups/drills.jsonl"
        )
    };
    let no_drills = "rm /opt/conduit/backups/drills.jsonl";
    let errors = |count: u32| {
        format!(
            "mkdir -p /run/systemd/system/conduit.service.d; printf '[Service]\\nExecStartPost=/bin/sh -c \"for n in $(seq {count}); do \
             echo 2026-11-27T06:24:28.000001Z ERROR conduit::utils::error: BadDatabase: $$n; done\"\\n' > /run/systemd/system/conduit.service.d/loud.conf; \
             sed -i 's/\\$(seq/$$(seq/' /run/systemd/system/conduit.service.d/loud.conf; systemctl daemon-reload; systemctl restart conduit; journalctl --sync"
        )
    };
    let quiet = "rm -r /run/systemd/system/conduit.service.d; systemctl daemon-reload; systemctl restart conduit; \
                 journalctl --rotate; journalctl --vacuum-time=1us 2>/dev/null";
    let memory = |percent: u32| {
        format!(
            "pid=$(systemctl show -p MainPID --value conduit); rss=$(awk '/^VmRSS/ {{ print $2 }}' /proc/$pid/status); \
             systemctl set-property --runtime conduit.service MemoryHigh=$((rss * 1024 * 100 / {percent}))"
        )
    };
    let enough = "systemctl set-property --runtime conduit.service MemoryHigh=1G";
    let fill = |percent: u32| {
        format!(
            "read -r size used < <(df --output=size,used --block-size=1M /opt/conduit/data | tail -n 1); \
             fallocate -l $((size * {percent} / 100 - used))M /opt/ballast"
        )
    };
    let empty = "rm /opt/ballast";
    let other_key = "cp -p /opt/conduit/site.identity /root/identity; jq '.public_key = \"AAAA\"' /root/identity > /opt/conduit/site.identity";
    vec![
        breaks(
            "the server is stopped",
            "systemctl stop conduit",
            NO_SERVER,
            start,
        ),
        breaks(
            "the server hangs",
            "systemctl kill --signal=STOP conduit",
            NO_ANSWER,
            "systemctl kill --signal=CONT conduit",
        ),
        breaks(
            "the server was started by hand",
            by_hand,
            &[("unit", "critical")],
            "systemctl stop by-hand; systemctl start conduit",
        ),
        breaks(
            "the proxy is stopped",
            "systemctl stop caddy",
            NO_PROXY,
            &format!(
                "systemctl start caddy; {}",
                &back[back.find("for").unwrap_or(0)..]
            ),
        ),
        breaks(
            "the proxy does not pass clients on",
            &no_443,
            &[("proxy-443", "critical")],
            &back,
        ),
        breaks(
            "the proxy does not pass servers on",
            &no_8448,
            &[("proxy-8448", "critical")],
            &back,
        ),
        breaks(
            "the apex names another server",
            &elsewhere,
            &[("federation", "critical")],
            &back,
        ),
        breaks(
            "the key is another's",
            other_key,
            &[("key", "critical"), ("federation", "critical")],
            "cp -p /root/identity /opt/conduit/site.identity",
        ),
        breaks(
            "the certificate ends soon",
            &ends,
            &[("certificate", "critical")],
            &trusted,
        ),
        breaks("the certificate has ended", &ended, NO_PROXY, &trusted),
        breaks(
            "the disk is nearly full",
            &fill(90),
            &[("disk", "warning")],
            empty,
        ),
        breaks(
            "the disk is full",
            &fill(98),
            &[("disk", "critical")],
            empty,
        ),
        breaks(
            "memory is nearly used up",
            &memory(90),
            &[("memory", "warning")],
            enough,
        ),
        breaks(
            "memory is used up",
            &memory(98),
            &[("memory", "critical")],
            enough,
        ),
        breaks(
            "the clock is 30 seconds slow",
            &clock("30 seconds"),
            &[("clock", "warning")],
            &right_clock,
        ),
        breaks(
            "the clock is two minutes fast",
            &clock("2 minutes ago"),
            &[("clock", "critical")],
            &right_clock,
        ),
        breaks(
            "nobody tells the time",
            "echo CLOCK_REFERENCE=https://127.0.0.1:1/ > /opt/conduit/health.env",
            &[("clock", "warning")],
            "rm /opt/conduit/health.env",
        ),
        breaks(
            "there was no backup on the first day",
            &no_backup("40 hours"),
            &[("backup", "warning")],
            a_backup,
        ),
        breaks(
            "there was never a backup",
            &no_backup("80 hours"),
            &[("backup", "critical")],
            a_backup,
        ),
        breaks(
            "the last backup is old",
            "cp /opt/conduit/backups/catalog.jsonl /root/catalog; jq -c '.time -= 30 * 3600' /root/catalog > /opt/conduit/backups/catalog.jsonl",
            &[("backup", "warning")],
            "mv /root/catalog /opt/conduit/backups/catalog.jsonl",
        ),
        breaks(
            "there was no drill in the first week",
            &installed("9 days"),
            &[("drill", "warning")],
            "touch /opt/conduit/secrets/restic-password",
        ),
        breaks(
            "the last drill is old",
            &drill("16 * 86400", "pass"),
            &[("drill", "critical")],
            no_drills,
        ),
        breaks(
            "the last drill failed",
            &format!("{}; {}", drill("7200", "pass"), drill("3600", "fail")),
            &[("drill", "critical")],
            no_drills,
        ),
        breaks(
            "the server logs errors",
            &errors(10),
            &[("journal", "warning")],
            quiet,
        ),
        breaks(
            "the server logs errors by the dozen",
            &errors(60),
            &[("journal", "critical")],
            quiet,
        ),
        breaks(
            "the canary's session was ended",
            "curl -sf -X POST -H \"Authorization: Bearer $(jq -r .access_token /opt/conduit/secrets/canary-session.json)\" \
             http://127.0.0.1:6167/_matrix/client/v3/logout",
            &[("canary", "critical")],
            "/opt/conduit/scripts/bootstrap.sh apply",
        ),
        breaks(
            "the canary's session is lost",
            "rm /opt/conduit/secrets/canary-session.json",
            &[("canary", "warning")],
            "/opt/conduit/scripts/bootstrap.sh apply",
        ),
    ]
}

/// Each cause turns the checks that look at it, and no others; with the cause gone all is well again. A server that hangs
/// does not make the health check hang.
#[tokio::test(flavor = "multi_thread")]
async fn breaking_one_thing_turns_exactly_that_check() -> Outcome {
    scenario(async |stage| {
        let (site, canary) = watched_site(stage).await?;
        let (exit, well) = look(&site.host).await?;
        must(
            exit == 0 && well.turned().is_empty(),
            "be well after installation and backup",
            well.describe(),
        )?;
        let skipped: &[&str] = if canary { &[] } else { &["canary"] };
        must(
            well.skipped() == skipped,
            "ask every check",
            well.describe(),
        )?;
        for Break {
            why,
            breaks,
            turns,
            heals,
        } in all_breaks()
        {
            let mut expected: Vec<_> = turns
                .iter()
                .filter(|(check, _)| canary || *check != "canary")
                .map(|(check, status)| format!("{check} {status}"))
                .collect();
            expected.sort();
            if expected.is_empty() {
                continue; // about the canary alone
            }
            let step = stage.world.recorder().begin(why);
            site.host.shell(&breaks).await?;
            let began = Instant::now();
            let (exit, ill) = look(&site.host).await?;
            let took = began.elapsed();
            let seen = format!("expected {expected:?}, exit {exit}\n{}", ill.describe());
            must(
                ill.turned() == expected,
                &format!("turn exactly what looks at it when {why}"),
                &seen,
            )?;
            let code = if expected.iter().any(|turned| turned.ends_with("critical")) {
                2
            } else {
                1
            };
            must(exit == code, &format!("end with {code} when {why}"), &seen)?;
            must(
                took < Duration::from_secs(45),
                "end in time",
                format!("{why}: {took:?}"),
            )?;
            site.host.shell(&heals).await?;
            let (exit, well) = look(&site.host).await?;
            must(
                exit == 0 && well.turned().is_empty(),
                &format!("be well again after {why}"),
                well.describe(),
            )?;
            step.done();
        }
        site.host
            .shell("mv /opt/conduit/site.identity /root/identity")
            .await?;
        let (exit, nothing) = look(&site.host).await?;
        must(
            exit == 3 && nothing.turned() == ["site unknown"],
            "know nothing where no site is",
            nothing.describe(),
        )
    })
    .await
}

/// The line, the object and the metrics say the same, whether all is well or not; a real parser reads the metrics; and a
/// list of checks asks those and no others.
#[tokio::test(flavor = "multi_thread")]
async fn line_object_metrics_and_exit_code_agree() -> Outcome {
    scenario(async |stage| {
        let (site, _) = watched_site(stage).await?;
        for breaks in [
            "true",
            "touch -d '9 days ago' /opt/conduit/secrets/restic-password",
            "systemctl stop caddy",
        ] {
            site.host.shell(breaks).await?;
            let object = site
                .host
                .try_shell(&format!("{HEALTH} --json --textfile /tmp/object.prom"))
                .await?;
            let report: Report = serde_json::from_str(&object.stdout)
                .or_harness(|| format!("read {}", object.stdout))?;
            let metrics = metrics(&site.host.shell("cat /tmp/object.prom").await?)?;
            agree_with_metrics(&report, object.exit, &metrics)?;

            let line = site
                .host
                .try_shell(&format!("{HEALTH} --textfile /tmp/line.prom"))
                .await?;
            must(line.exit == object.exit, "end alike", format!("{line:?}"))?;
            agree_with_line(&report, &line.stdout)?;
        }
        let left = site
            .host
            .shell("ls /tmp/*.prom*; stat -c %a /tmp/line.prom")
            .await?;
        must(
            left == "/tmp/line.prom\n/tmp/object.prom\n644",
            "leave no half-written file",
            left,
        )?;
        let only = site
            .host
            .try_shell(&format!("{HEALTH} --json --only disk,clock"))
            .await?;
        let only: Report =
            serde_json::from_str(&only.stdout).or_harness(|| format!("read {only:?}"))?;
        let names: Vec<_> = only
            .checks
            .iter()
            .map(|check| check.name.as_str())
            .collect();
        must(
            names == ["disk", "clock"],
            "ask only those",
            format!("{names:?}"),
        )?;
        let listed = site
            .host
            .shell(&format!("{HEALTH} --list | cut -d' ' -f1"))
            .await?;
        let (_, all) = look(&site.host).await?;
        let names: Vec<_> = all.checks.iter().map(|check| check.name.as_str()).collect();
        unchanged("the list of checks", &names.join("\n"), &listed)?;
        for wrong in ["--only nothing", "--jason", "--textfile"] {
            let refused = site.host.try_shell(&format!("{HEALTH} {wrong}")).await?;
            must(
                refused.exit == 3 && refused.stderr.contains("hint:"),
                &format!("refuse `{wrong}`"),
                format!("{refused:?}"),
            )?;
        }
        let nowhere = site
            .host
            .try_shell(&format!("{HEALTH} --only disk --textfile /nowhere/a.prom"))
            .await?;
        must(
            nowhere.exit == 3 && nowhere.stderr.contains("/nowhere"),
            "say that the metrics are not written",
            format!("{nowhere:?}"),
        )
    })
    .await
}

/// One sample of the text format: name, labels but `site`, value.
type Metrics = BTreeMap<(String, BTreeMap<String, String>), f64>;

fn metrics(text: &str) -> Result<Metrics> {
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let scrape = prometheus_parse::Scrape::parse(lines)
        .or_blame(harness::Blame::Deployment, || "read the metrics".to_owned())?;
    let samples: Metrics = scrape
        .samples
        .iter()
        .filter_map(|sample| {
            let labels = sample.labels.iter().filter(|(name, _)| *name != "site");
            let labels = labels
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            match sample.value {
                prometheus_parse::Value::Gauge(value) => {
                    Some(((sample.metric.clone(), labels), value))
                }
                _ => None,
            }
        })
        .collect();
    // The parser passes over what it cannot read.
    let meant = text.lines().filter(|line| !line.starts_with('#')).count();
    must(
        samples.len() == meant && meant > 20,
        "write gauges that can be read, each once",
        text,
    )?;
    Ok(samples)
}

fn agree_with_metrics(report: &Report, exit: i64, metrics: &Metrics) -> Result<()> {
    let code = |status: &str| {
        ["ok", "warning", "critical", "unknown"]
            .iter()
            .position(|word| *word == status)
    };
    let mut expected = Metrics::new();
    let mut put = |name: &str, labels: &[(&str, &str)], value: f64| {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        expected.insert((format!("conduit_health_{name}"), labels), value);
    };
    #[allow(clippy::cast_precision_loss)]
    for check in &report.checks {
        if let Some(code) = code(&check.status) {
            put("status", &[("check", &check.name)], code as f64);
        }
        for value in &check.values {
            let unit = match value.unit.as_str() {
                "ms" => "milliseconds",
                "s" => "seconds",
                "%" => "percent",
                "c" => "count",
                other => other,
            };
            let labels = [
                ("check", check.name.as_str()),
                ("name", value.name.as_str()),
                ("unit", unit),
            ];
            put("value", &labels, value.value as f64);
            for (severity, threshold) in [("warning", value.warning), ("critical", value.critical)]
            {
                put(
                    "threshold",
                    &[&labels[..], &[("severity", severity)]].concat(),
                    threshold as f64,
                );
            }
        }
    }
    #[allow(clippy::cast_precision_loss)]
    put("overall", &[], exit as f64);
    #[allow(clippy::cast_precision_loss)]
    put("run_timestamp_seconds", &[], report.time as f64);
    must(
        code(&report.status).is_some_and(|code| exit == i64::try_from(code).unwrap_or(-1)),
        "end as the object says",
        report.describe(),
    )?;
    let duration = (
        "conduit_health_run_duration_seconds".to_owned(),
        BTreeMap::new(),
    );
    let mut others = metrics.clone();
    let took = others.remove(&duration).unwrap_or(-1.0);
    must(
        (took - report.seconds).abs() < 5.0,
        "agree on how long it took",
        format!("{took} {}", report.seconds),
    )?;
    let show = |metrics: &Metrics| {
        metrics
            .iter()
            .map(|(name, value)| format!("{name:?} {value}\n"))
            .collect::<String>()
    };
    unchanged("the object as metrics", &show(&expected), &show(&others))
}

/// Values may differ between two runs; what is said of them may not.
fn agree_with_line(report: &Report, line: &str) -> Result<()> {
    let seen = format!("{line}\n{}", report.describe());
    must(line.lines().count() == 1, "be one line", &seen)?;
    let (text, perfdata) = line.trim_end().split_once(" | ").unwrap_or((line, ""));
    must(
        text.starts_with(&format!("{}: {}: ", report.site, report.status)),
        "begin with site and status",
        &seen,
    )?;
    for check in &report.checks {
        let named = text.contains(&format!("{}: ", check.name))
            || text.contains(&format!("{} skipped: ", check.name));
        must(
            named == (check.status != "ok"),
            &format!("name `{}` only when it is not ok", check.name),
            &seen,
        )?;
    }
    let values: Vec<_> = report
        .checks
        .iter()
        .flat_map(|check| &check.values)
        .collect();
    let fields: Vec<_> = perfdata
        .split(' ')
        .filter(|field| !field.is_empty())
        .collect();
    must(
        fields.len() == values.len() && !fields.is_empty(),
        "carry every value",
        &seen,
    )?;
    for (field, value) in fields.iter().zip(values) {
        let colon = if value.bad == "below" { ":" } else { "" };
        let end = format!(
            "{};{}{colon};{}{colon}",
            value.unit, value.warning, value.critical
        );
        let number = field
            .strip_prefix(&format!("{}=", value.name))
            .and_then(|rest| rest.strip_suffix(&end));
        must(
            number.is_some_and(|number| number.parse::<i64>().is_ok()),
            &format!("carry `{}`", value.name),
            &seen,
        )?;
    }
    Ok(())
}

/// A backup, an upgrade or a bootstrap of the kit stops the server for a moment. Whoever asks in that moment looks again
/// once the server is back; that it is away for no such reason is critical, as above.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_for_a_backup_is_well() -> Outcome {
    scenario(async |stage| {
        let (site, _) = watched_site(stage).await?;
        let work = "flock /run/lock/conduit-backup sh -c 'systemctl stop conduit; : > /run/away; sleep 3; systemctl start conduit' & \
                    until [ -e /run/away ]; do sleep 0.02; done; $H --json; code=$?; wait; exit $code";
        let asked = site.host.try_shell(&work.replace("$H", HEALTH)).await?;
        let report: Report =
            serde_json::from_str(&asked.stdout).or_harness(|| format!("read {asked:?}"))?;
        let waited = report.seconds > 2.0;
        must(
            asked.exit == 0 && waited,
            "wait for the end of the backup and be well",
            report.describe(),
        )
    })
    .await
}

/// The timer's unit asks the same from its sandbox, keeps the node exporter's file up to date where there is one, and a
/// hundred runs leave nothing behind: no second device, no room, one value.
#[tokio::test(flavor = "multi_thread")]
async fn the_unit_sees_all_is_well_and_leaves_nothing_behind() -> Outcome {
    scenario(async |stage| {
        let (site, canary) = watched_site(stage).await?;
        site.follow("health.md", &[]).await?;
        let unit = "systemctl start conduit-health.service; echo $?; systemctl show -p Result --value conduit-health.service";
        let ran = site.host.shell(unit).await?;
        must(ran == "0\nsuccess", "succeed on a healthy site", &ran)?;
        let said = site.host.shell("journalctl -u conduit-health -o cat --no-pager | grep ' checks passed'").await?;
        let passed = if canary { "14 checks passed" } else { "13 checks passed" };
        must(said.contains(passed), "ask every check from within the sandbox", &said)?;
        site.host.shell("mkdir -p /var/lib/prometheus/node-exporter").await?;
        site.host.shell(unit).await?;
        let written = site.host.shell("cat /var/lib/prometheus/node-exporter/conduit.prom").await?;
        metrics(&written)?;
        site.host.shell("systemctl stop conduit").await?;
        let ran = site.host.shell(unit).await?;
        must(ran == "1\nexit-code", "be a failed unit when something is critical", ran)?;
        site.host.shell("systemctl start conduit; systemctl reset-failed conduit-health.service").await?;
        if !canary {
            return Ok(());
        }
        let census = "token=$(jq -r .access_token /opt/conduit/secrets/canary-session.json); \
            ask() { curl -sf -H \"Authorization: Bearer $token\" http://127.0.0.1:6167/_matrix/client/v3/$1; }; \
            ask devices | jq '.devices | length'; ask joined_rooms | jq '.joined_rooms | length'; \
            ask sync | jq '[.account_data.events[].type] | sort | length, ([.[] | select(. == \"foundation.timmy.fleet.canary\")] | length)'; \
            ask sync | jq '.to_device.events // [] | length'";
        let before = site.host.shell(census).await?;
        site.host.shell(&format!("for n in $(seq 100); do {HEALTH} --only canary >/dev/null || exit 1; done")).await?;
        unchanged("the canary's account", &before, &site.host.shell(census).await?)?;
        // What a stranger can have Conduit log as an error is not the server's illness.
        let nonsense = "for n in $(seq 60); do curl -s -o /dev/null \
            'http://127.0.0.1:6167/_matrix/client/v3/login?access_token=a&access_token=b'; done; journalctl --sync; \
            journalctl -u conduit -o cat --no-pager | grep -c ' ERROR '";
        let logged = site.host.shell(nonsense).await?;
        let asked = site
            .host
            .try_shell(&format!("{HEALTH} --only journal"))
            .await?;
        must(
            logged == "60" && asked.exit == 0,
            "see 60 errors in the journal that are none",
            format!("{logged} {asked:?}"),
        )?;
        // Two at the same time do not take each other's value for their own.
        let both = "for n in $(seq 10); do $H --only canary >/tmp/a & a=$!; $H --only canary >/tmp/b; b=$?; wait $a; echo $? $b; done | sort -u";
        let both = site.host.shell(&both.replace("$H", HEALTH)).await?;
        must(both == "0 0", "let two at the same time both be well", both)?;
        let token = site.host.shell("jq -r .access_token /opt/conduit/secrets/canary-session.json").await?;
        let leaked = site.host.shell(&format!("journalctl --no-pager | grep -c -F -- {token} || true")).await?;
        must(leaked == "0", "keep the canary's token out of the journal", leaked)
    })
    .await
}
