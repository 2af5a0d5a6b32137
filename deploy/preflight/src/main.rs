//! Command line of `fleet-preflight`. Data goes to standard output, everything else to standard error.

use clap::Parser;
use fleet_preflight::discovery::{Host, ServerName};
use fleet_preflight::dns::{Resolver, read_resolv_conf};
use fleet_preflight::guard::{Guard, PRODUCTION_ADDRESS, PRODUCTION_NAME, is_production_host};
use fleet_preflight::web::Https;
use fleet_preflight::{Context, Settings, machine, outside, run};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Looks whether a host and its names are fit for a Matrix homeserver, and whether other servers would find it.
///
/// Changes nothing. Exit codes: 0 all is well, 1 warnings, 2 a check failed, 3 a check could not be carried out, or
/// the run was refused (as `health.sh`, after the convention of monitoring plugins; a failure counts more than what is
/// not known, and that more than a warning), 64 usage.
#[derive(Parser)]
#[command(name = "fleet-preflight", version, about, long_about)]
struct Cli {
    /// The Matrix server name [default: the installed site's, else timmy.foundation]
    #[arg(long, value_name = "NAME")]
    server_name: Option<ServerName>,
    /// This machine is the host: also look at its ports, disk, memory, clock and programs, and expect the names to
    /// point to it
    #[arg(long)]
    host: bool,
    /// Nothing is installed yet: leave out what needs a running homeserver
    #[arg(long)]
    before_install: bool,
    /// The name server to ask; may be given several times [default: those in /etc/resolv.conf]
    #[arg(long, value_name = "IP[:PORT]", value_parser = parse_resolver)]
    resolver: Vec<SocketAddr>,
    /// Trust the certificate authorities in this file (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The certificate authority [default: ACME_CA of caddy.service, else Let's Encrypt]
    #[arg(long, value_name = "URL")]
    acme_directory: Option<String>,
    /// What that authority is called in CAA records [default: as it says itself, else letsencrypt.org]
    #[arg(long, value_name = "NAME")]
    caa_issuer: Option<String>,
    /// An address that the names may have; may be given several times [default with --host: this machine's]
    #[arg(long, value_name = "IP")]
    expect_address: Vec<IpAddr>,
    /// Must be reachable from here; may be given several times [default: the certificate authority]
    #[arg(long, value_name = "HOST[:PORT]")]
    outbound: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// What has not ended after so many seconds is unknown
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    time_limit: u64,
    /// Production may be asked about and contacted; heeded on the production host alone
    #[arg(long)]
    i_am_the_operator: bool,
    /// The tree of the kit
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/opt/conduit",
        env = "CONDUIT_ROOT",
        hide_env = true
    )]
    root: PathBuf,
    /// Free space that an installation needs; an installed site a quarter
    #[arg(
        long,
        value_name = "MB",
        default_value_t = 1024,
        env = "CONDUIT_MIN_FREE_MB",
        hide_env = true
    )]
    min_free_mb: u64,
    /// Free inodes that an installation needs
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        env = "CONDUIT_MIN_FREE_INODES",
        hide_env = true
    )]
    min_free_inodes: u64,
}

/// Usage, as sysexits(3) has it: 2 means that a check failed.
const USAGE: u8 = 64;
/// Nothing was looked at.
const REFUSED: u8 = 3;

fn parse_resolver(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .or_else(|_| {
            text.trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .map(|address| SocketAddr::new(address, 53))
        })
        .map_err(|_| "expected an IP address, with a port or without".to_owned())
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            // Nobody reads: nothing to be done about it.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match look(cli) {
        Ok(code) => ExitCode::from(code),
        Err((message, hint)) => {
            eprintln!("error: {message}");
            if !hint.is_empty() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(REFUSED)
        }
    }
}

/// The server name of the site that is installed here.
fn installed(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join("site.identity")).ok()?;
    let identity: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(identity.get("server_name")?.as_str()?.to_owned())
}

type Refusal = (String, String);

fn look(cli: Cli) -> Result<u8, Refusal> {
    let plain = |message: String| (message, String::new());
    let installed = installed(&cli.root);
    let server_name = match cli.server_name {
        Some(name) => name,
        None => installed
            .as_deref()
            .unwrap_or(PRODUCTION_NAME)
            .parse()
            .map_err(plain)?,
    };
    let resolvers = if cli.resolver.is_empty() {
        read_resolv_conf(Path::new("/etc/resolv.conf"))
            .map_err(|message| (message, "name one with `--resolver`".to_owned()))?
    } else {
        cli.resolver
    };
    let is_the_host = is_production_host(installed.as_deref());
    if cli.i_am_the_operator && !is_the_host {
        eprintln!(
            "note: `--i-am-the-operator` is not heeded: no site `{PRODUCTION_NAME}` is installed here, and \
             {PRODUCTION_ADDRESS} is no address of this machine"
        );
    }
    let guard = Guard::new(cli.i_am_the_operator && is_the_host, &resolvers);
    let allowed = match &server_name.host {
        Host::Name(name) => guard.allows_name(name),
        Host::Address(address) => guard.allows_address(*address),
    };
    allowed.map_err(|message| {
        (
            message,
            "on the production host say `--i-am-the-operator`; elsewhere look at another server with `--server-name`"
                .to_owned(),
        )
    })?;
    let web = Https::new(cli.ca_file.as_deref(), guard).map_err(|message| {
        (
            message,
            "apt-get install ca-certificates, or name a file with `--ca-file`".to_owned(),
        )
    })?;
    let settings = Settings {
        server_name,
        host: cli.host,
        before_install: cli.before_install,
        acme_directory: cli
            .acme_directory
            .or_else(machine::acme_of_caddy)
            .unwrap_or_else(|| outside::LETS_ENCRYPT.to_owned()),
        caa_issuer: cli.caa_issuer,
        expect_addresses: cli.expect_address,
        outbound: cli.outbound,
        root: cli.root,
        min_free_mb: cli.min_free_mb,
        min_free_inodes: cli.min_free_inodes,
    };
    let context = Context::new(settings, Resolver::new(&resolvers, guard), web);
    let report = run::run(Arc::new(context), Duration::from_secs(cli.time_limit));
    let text = if cli.json {
        serde_json::to_string(&report).map_err(|error| plain(error.to_string()))?
    } else {
        report.to_string()
    };
    writeln!(std::io::stdout(), "{text}")
        .map_err(|error| plain(format!("cannot write the report: {error}")))?;
    Ok(report.verdict.exit_code())
}
