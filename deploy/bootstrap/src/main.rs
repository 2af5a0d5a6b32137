//! Command line of `fleet-bootstrap`. Data goes to standard output, everything else to standard error.

use std::{
    fs,
    io::stdout,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use fleet_bootstrap::{
    Error, Manifest,
    apply::{self, Setting},
    client::Client,
    secrets::Secrets,
};

/// Brings a homeserver's accounts and rooms to what a manifest declares.
///
/// Exit codes: 0 done, 1 failed (run it again, it continues), 2 usage, or changes pending with `--detailed-exitcode`,
/// 3 refused (nothing was changed), 75 another run is at work.
#[derive(Parser)]
#[command(version, about, long_about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the manifest; asks no homeserver.
    Check(ManifestArgs),
    /// Show what `apply` would do. Sends GET requests only.
    Plan {
        #[command(flatten)]
        manifest: ManifestArgs,
        #[command(flatten)]
        server: ServerArgs,
        /// Exit with 2 when something would be done.
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Do it.
    Apply {
        #[command(flatten)]
        manifest: ManifestArgs,
        #[command(flatten)]
        server: ServerArgs,
        /// File that holds the token with which accounts may be registered.
        #[arg(long, value_name = "FILE")]
        registration_token_file: Option<PathBuf>,
    },
}

#[derive(Args)]
struct ManifestArgs {
    /// The manifest (TOML).
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Use this server name instead of the one in the manifest, for a lab.
    #[arg(long, value_name = "NAME", env = "FLEET_BOOTSTRAP_SERVER_NAME")]
    server_name: Option<String>,
}

#[derive(Args)]
struct ServerArgs {
    /// The homeserver: plain HTTP on a loopback address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:6167")]
    homeserver: String,
    /// Directory for passwords and the administrator's session (0700).
    #[arg(long, value_name = "DIR", default_value = "/opt/conduit/secrets")]
    secrets: PathBuf,
    /// What the installer knows of the site; compared with the homeserver when it exists.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/opt/conduit/site.identity"
    )]
    identity: PathBuf,
    /// Accounts only, no rooms and no sessions.
    #[arg(long)]
    accounts_only: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn load(args: &ManifestArgs) -> Result<Manifest, Error> {
    let name = args.server_name.as_deref().filter(|name| !name.is_empty());
    Manifest::load(&args.manifest, name)
}

fn run(command: Command) -> Result<u8, Error> {
    match command {
        Command::Check(args) => {
            let manifest = load(&args)?;
            println!(
                "`{}` is valid: {} accounts, {} rooms on {}",
                args.manifest.display(),
                manifest.accounts.len(),
                manifest.rooms.len(),
                manifest.server_name
            );
            Ok(0)
        }
        Command::Plan {
            manifest,
            server,
            detailed_exitcode,
        } => {
            let manifest = load(&manifest)?;
            let client = Client::new(&server.homeserver)?;
            let plan = apply::make_plan(&setting(
                &client,
                &manifest,
                &Secrets::at(&server.secrets),
                &server,
                None,
            ))?;
            println!("{plan}");
            if let Some(error) = apply::conflicts(&plan) {
                return Err(error);
            }
            Ok(if detailed_exitcode && !plan.is_empty() {
                2
            } else {
                0
            })
        }
        Command::Apply {
            manifest,
            server,
            registration_token_file,
        } => {
            let manifest = load(&manifest)?;
            let client = Client::new(&server.homeserver)?;
            let token = registration_token_file
                .as_deref()
                .map(read_token)
                .transpose()?;
            let secrets = Secrets::at(&server.secrets);
            let outcome = apply::apply(
                &setting(&client, &manifest, &secrets, &server, token.as_deref()),
                &mut stdout(),
            );
            let (_, sent) = client.sent();
            if let Ok(done) = &outcome
                && *done != apply::Done::default()
            {
                println!("applied: {} added, {} changed", done.added, done.changed);
            }
            println!(
                "sent {sent} {} something",
                if sent == 1 {
                    "request that changes"
                } else {
                    "requests that change"
                }
            );
            outcome.map(|_| 0)
        }
    }
}

fn setting<'a>(
    client: &'a Client,
    manifest: &'a Manifest,
    secrets: &'a Secrets,
    server: &'a ServerArgs,
    registration_token: Option<&'a str>,
) -> Setting<'a> {
    Setting {
        client,
        manifest,
        secrets,
        identity: &server.identity,
        registration_token,
        accounts_only: server.accounts_only,
    }
}

fn read_token(file: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(file).map_err(|error| {
        Error::refused(
            format!(
                "cannot read the registration token `{}`: {error}",
                file.display()
            ),
            "`bootstrap.sh apply` makes it; run that",
        )
    })?;
    Ok(text.trim().to_owned())
}
