//! The bootstrap window runs Conduit in the same sandbox as the service does.

use std::{collections::BTreeSet, fs, path::Path};

/// The `[Service]` directives of a unit that neither say what runs nor where it listens.
fn sandbox(unit: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../conduit")
        .join(unit);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let own = [
        "Exec",
        "Environment",
        "Restart",
        "Timeout",
        "RuntimeMax",
        "SyslogIdentifier",
    ];
    text.lines()
        .skip_while(|line| *line != "[Service]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| line.contains('=') && !line.starts_with(['#', ';']))
        .filter(|line| !own.iter().any(|directive| line.starts_with(directive)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_bootstrap_window_has_the_sandbox_of_the_service() {
    let service = sandbox("conduit.service");
    assert!(
        service.contains("User=conduit") && service.len() > 30,
        "{service:?}"
    );
    assert_eq!(sandbox("conduit-bootstrap.service"), service);
}
