//! `cargo fleet drill --sentinel`: a drill that also reads what was said in an encrypted room.

use clap::Parser;
use fleet_device::reads_sentinel;
use harness::drill::command::Drill;
use harness::drill::{Sentinel, Watch};
use harness::{Exit, Result, ui, world};
use std::process::ExitCode;

/// Restore the newest backup in a closed lab and look whether it is what the site was, encrypted messages too.
#[derive(Parser)]
#[command(name = "fleet-drill", bin_name = "cargo fleet drill", version, after_help = Exit::TABLE)]
struct Cli {
    #[command(flatten)]
    drill: Drill,
}

async fn drilled(drill: &Drill) -> Result<Exit> {
    let watch = match drill.sentinel() {
        Some((file, key)) => Some(Watch {
            sentinel: Sentinel::open(file, key)?,
            read: reads_sentinel,
        }),
        None => None,
    };
    drill.run(watch).await
}

#[tokio::main]
async fn main() -> ExitCode {
    ui::enable();
    let cli = Cli::parse();
    world::exit_code(drilled(&cli.drill)).await
}
