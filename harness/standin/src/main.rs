//! `conduit-standin`: looks like Conduit 0.10.12 to the operating scripts, and misbehaves on request.
//!
//! The deployment kit's scripts stop, start, copy, link, swap and judge a homeserver. Where no Conduit can be had, and
//! where a script is to be swept with hundreds of faults, this program takes its place under the name `conduit`: it
//! starts in milliseconds, keeps its data in a directory with the shape of RocksDB's, refuses what Conduit refuses with
//! the exit codes that Conduit uses, and has knobs for the ways in which a server can go wrong.
//!
//! **Nothing about Matrix is ever proved on it.** It knows no user, no room, no event and no signature. A claim that
//! holds on the stand-in is a claim about the scripts alone, and reports name it: the server calls itself
//! `conduit-standin` at `GET /_matrix/federation/v1/version`, in its journal, and with `--standin-help`.
//!
//! # Knobs
//!
//! [`knobs`] has the list. They are read from four places, later ones winning:
//!
//! 1. the end of the executable itself (`conduit-standin --standin-bake OUT 'exit-at-start=3'` writes such a copy).
//!    It is the way to hand an installer a binary *file* that is broken: the copy has a digest of its own and stays
//!    broken wherever it is installed;
//! 2. `standin.knobs` in the directory of the executable (links resolved);
//! 3. `standin.knobs` in the directory of the configuration file;
//! 4. the environment variable `STANDIN_KNOBS`.
//!
//! Knobs that concern answers and signals are read again for each request and each signal, so that a fault can be
//! switched on and healed while the server runs.
//!
//! # Building
//!
//! A Host has its own libc, so the binary is linked statically: `RUSTFLAGS='-C target-feature=+crt-static'`, and a
//! `--target`, without which cargo would apply the flag to build scripts as well.
//!
//! # What it leaves out
//!
//! One deliberate difference that a script could notice: the files hold lines of text with a checksum each, not
//! RocksDB's formats, so no RocksDB tool opens them.

mod http;
mod knobs;
mod routes;
mod settings;
mod store;

use std::{
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::exit,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    knobs::{Knobs, Sources},
    routes::Site,
    settings::{Refusal, Settings},
    store::Store,
};

/// Somebody misused the stand-in itself (an unknown knob, an unreadable knob file). Not a code that Conduit uses, so
/// that such a mistake can never pass for a behaviour of the server (sysexits.h: `EX_SOFTWARE`).
const MISUSED: i32 = 70;

/// The version that the kit pins, as `conduit --version` of the tag v0.10.12 prints it.
const PINNED_VERSION: &str = "0.10.12";

const HELP: &str = "\
A stand-in for Conduit, made to misbehave on purpose. Nothing about Matrix is proved on it.

Usage: conduit [-V | --version] [-h | --help]
       conduit --standin-bake OUT KNOB...   write a copy of this binary with the knobs built in
       conduit --standin-help               explain the knobs

Reads its configuration from the file that CONDUIT_CONFIG names.
";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--standin-bake", out, knobs @ ..] => return bake(Path::new(out), knobs),
        ["--standin-help"] => {
            print!("{HELP}\n{}", knobs::HELP);
            return;
        }
        ["-h" | "--help"] => {
            print!("{HELP}");
            return;
        }
        _ => {}
    }

    let config_path = std::env::var("CONDUIT_CONFIG").ok();
    let sources = Sources::find(config_path.as_deref()).unwrap_or_else(|error| misused(&error));
    let knobs = sources.load().unwrap_or_else(|error| misused(&error));

    match words.as_slice() {
        [] => {}
        ["-V" | "--version"] => return println!("{}", knobs.version_line(PINNED_VERSION)),
        [first, ..] => {
            eprintln!("error: unexpected argument '{first}' found\n\nUsage: conduit");
            exit(2);
        }
    }
    serve(config_path.as_deref(), sources, &knobs);
}

/// Writes a copy of this executable to `out` that has `knobs` built in.
fn bake(out: &Path, knobs: &[&str]) {
    let text = knobs.join("\n");
    if let Err(error) = Knobs::default().apply(&text, "the command line") {
        misused(&error);
    }
    if let Err(error) = knobs::bake(out, &text) {
        misused(&format!("cannot write `{}`: {error}", out.display()));
    }
}

fn misused(message: &str) -> ! {
    eprintln!(
        "error: conduit-standin: {message}\nhint: `conduit-standin --standin-help` lists the knobs"
    );
    exit(MISUSED)
}

/// Ends as Conduit does when it refuses: the message on standard error, then `refusal`'s code.
fn refuse(refusal: &Refusal) -> ! {
    eprintln!("{}", refusal.message);
    exit(refusal.code)
}

fn serve(config_path: Option<&str>, sources: Sources, knobs: &Knobs) -> ! {
    // The journal of a run on the stand-in has to say so; Conduit itself prints nothing here.
    eprintln!("conduit-standin: a stand-in, not Conduit; knobs: {knobs}");
    if let Some(code) = knobs.exit_at_start {
        eprintln!("conduit-standin: exiting with {code} at start, as told");
        exit(code);
    }

    let settings = Settings::read(config_path).unwrap_or_else(|refusal| refuse(&refusal));
    let store = Store::open(&settings, knobs).unwrap_or_else(|refusal| refuse(&refusal));
    if let Some(code) = knobs.exit_after_open {
        eprintln!("conduit-standin: exiting with {code} after the database was opened, as told");
        exit(code);
    }
    let site = Arc::new(Site {
        version: knobs.version_number(PINNED_VERSION),
        settings,
        sources,
        store: Mutex::new(store),
    });
    // Before the late start: a server that is still migrating obeys SIGTERM too.
    obey_signals(Arc::clone(&site));

    // The delay is the fault. It comes after the database was opened and before the port is, where a long migration
    // of Conduit would be: the process is up, the lock is held, nothing answers.
    thread::sleep(knobs.start_late);

    let address = (site.settings.address, site.settings.port);
    let listener = TcpListener::bind(address).unwrap_or_else(|error| {
        // Conduit panics here, hence 101 (conduit-facts 3.3, observed).
        refuse(&Refusal {
            code: 101,
            message: format!(
                "thread 'main' panicked: cannot listen on {}:{}: {error}",
                site.settings.address, site.settings.port
            ),
        })
    });
    // Conduit says nothing here; a test that let the system choose the port (`port = 0`) learns it from this line.
    if let Ok(address) = listener.local_addr() {
        eprintln!("conduit-standin: listening on {address}");
    }
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                let site = Arc::clone(&site);
                thread::spawn(move || {
                    http::converse(stream, |request| routes::answer(&site, request))
                });
            }
            // Out of descriptors, most likely: give the threads a moment to return some rather than spin.
            Err(error) => {
                eprintln!("conduit-standin: cannot accept a connection: {error}");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
    exit(0)
}

/// Exits with 0 on SIGTERM and SIGINT once no write is under way, and survives SIGHUP, as Conduit does.
fn obey_signals(site: Arc<Site>) {
    let mut signals = match Signals::new([SIGTERM, SIGINT, SIGHUP]) {
        Ok(signals) => signals,
        Err(error) => misused(&format!("cannot catch signals: {error}")),
    };
    thread::spawn(move || {
        for signal in signals.forever() {
            let name = match signal {
                SIGTERM => "SIGTERM",
                SIGINT => "SIGINT",
                _ => continue,
            };
            let knobs = site.sources.load().unwrap_or_else(|error| misused(&error));
            if knobs.ignore_sigterm {
                println!("conduit-standin: ignoring {name}, as told");
                continue;
            }
            println!("WARN conduit: Received {name}, shutting down...");
            thread::sleep(knobs.stop_late);
            // Held until the process is gone: a write that was answered is in the log, one that was not never began.
            let _store = site.store.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = std::io::stdout().flush();
            exit(0);
        }
    });
}

/// The directory that holds `path`, for a bare file name the current one.
fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
