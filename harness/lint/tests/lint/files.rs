//! Files that are no files, no text, or not there; and what is written back.

use super::rules::{BASE, with};
use fleet_lint::read::{self, LIMIT, ReadError};
use fleet_lint::{Code, Kind, Source, fix, lint};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn refused(path: &Path) -> String {
    let error = read::file(path, None).expect_err("it is no configuration");
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        said.push_str(&format!(": {error}"));
        cause = error.source();
    }
    said
}

#[test]
fn what_is_no_file_is_told_as_what_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    assert!(refused(directory.path()).contains("it is a directory"));
    assert!(refused(&at("absent")).contains("No such file"));
    symlink(at("b"), at("a")).expect("link");
    symlink(at("a"), at("b")).expect("link");
    assert!(
        refused(&at("a")).contains("symbolic links"),
        "{}",
        refused(&at("a"))
    );
    assert!(refused(Path::new("/dev/null")).contains("a device"));
}

#[test]
fn a_file_of_100_megabytes_is_refused_before_it_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("conduit.toml");
    fs::File::create(&path)
        .and_then(|file| file.set_len(100 * 1024 * 1024))
        .expect("make it");
    assert!(
        refused(&path).contains("larger than 4 MiB"),
        "{}",
        refused(&path)
    );
    let endless = std::io::repeat(b'#');
    assert!(matches!(
        read::stdin(endless, Some(Kind::Conduit)),
        Err(ReadError::TooLarge { .. })
    ));
    let just = std::io::repeat(b'#').take(LIMIT);
    assert!(matches!(read::stdin(just, Some(Kind::Conduit)), Ok(Ok(_))));
}

/// Whatever calls itself for each bracket would exhaust its stack, which no panic handler catches; whatever looks at every
/// finding for each finding would not end.
#[test]
fn text_that_is_deep_or_full_of_mistakes_is_judged_to_an_end() {
    let deep = 200_000;
    for (_, kind) in Kind::ALL {
        // Caddy is not asked here.
        if *kind == Kind::Caddyfile {
            continue;
        }
        for (before, again) in [
            ("", "["),
            ("", "{"),
            ("", "("),
            ("[global]\nx = ", "["),
            ("[global]\nx = ", "{ a = "),
            ("CONDUIT_PORT=", "["),
            ("CONDUIT_PORT=", "{a="),
            ("{\"m.server\":", "["),
        ] {
            let text = format!("{before}{}", again.repeat(deep));
            lint(&[Source::new("deep", *kind, text)]);
        }
    }
    let many = lint(&[Source::new("many", Kind::Environment, "a\n".repeat(50_000))]);
    assert_eq!(many.len(), 50_000);
}

#[test]
fn a_file_that_vanishes_while_it_is_read_is_told() {
    struct Vanishing(usize);
    impl Read for Vanishing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0 {
                0 => Err(std::io::Error::from_raw_os_error(116)),
                _ => {
                    self.0 -= 1;
                    buffer[0] = b'#';
                    Ok(1)
                }
            }
        }
    }
    assert!(matches!(
        read::stdin(Vanishing(3), Some(Kind::Conduit)),
        Err(ReadError::Io { .. })
    ));
}

#[test]
fn what_is_no_text_is_told_with_the_place_of_the_first_broken_byte() {
    let bytes = b"[global]\nlog = \"\xff\xfe\"\n";
    let finding = read::stdin(&bytes[..], Some(Kind::Conduit))
        .expect("it can be read")
        .expect_err("it is no text");
    assert_eq!(finding.code, Code::Unreadable);
    let source = &finding.primary.source;
    assert_eq!(source.position(finding.primary.span.start), (2, 8));
    assert_eq!(fleet_lint::predicted_exit([&finding]), Some(1));
    // It can be shown.
    assert!(fleet_lint::render::human(&[finding], false).contains("not UTF-8, from byte 16 on"));
}

#[test]
fn an_empty_file_lacks_everything() {
    let read = |kind| read::stdin(&b""[..], kind);
    assert!(matches!(read(None), Err(ReadError::UnknownKind { .. })));
    let source = read(Some(Kind::Conduit)).expect("read").expect("text");
    let missing: Vec<_> = lint(&[source])
        .into_iter()
        .filter(|finding| finding.code == Code::MissingKey)
        .collect();
    assert_eq!(missing.len(), 3);
    for kind in [Kind::Environment, Kind::Unit] {
        let source = read(Some(kind)).expect("read").expect("text");
        assert!(lint(&[source]).is_empty());
    }
}

#[test]
fn a_file_is_known_by_its_name_and_otherwise_by_its_text() {
    for (name, text, kind) in [
        ("deploy/conduit/conduit.toml", "", Some(Kind::Conduit)),
        ("conduit.toml.new", "", Some(Kind::Conduit)),
        ("x/conduit.service", "", Some(Kind::Unit)),
        ("Caddyfile", "", Some(Kind::Caddyfile)),
        ("timmy.foundation.zone", "", Some(Kind::Zone)),
        (".well-known/matrix/server", "", Some(Kind::WellKnownServer)),
        ("matrix/client", "", Some(Kind::WellKnownClient)),
        ("fixtures/fleet.toml", "", Some(Kind::Manifest)),
        ("/run/conduit-bootstrap/env", "", Some(Kind::Environment)),
        ("-", BASE, Some(Kind::Conduit)),
        ("-", "[ federation]\n[global]\n", Some(Kind::Conduit)),
        ("-", "# a\n[Unit]\n", Some(Kind::Unit)),
        ("-", "CONDUIT_PORT=1\n# b\n", Some(Kind::Environment)),
        (
            "-",
            "{\"m.server\": \"a:443\"}",
            Some(Kind::WellKnownServer),
        ),
        ("-", "{\"m.homeserver\": {}}", Some(Kind::WellKnownClient)),
        ("-", "$ORIGIN a.\n", Some(Kind::Zone)),
        (
            "-",
            "a.test {\n  reverse_proxy b:1\n}\n",
            Some(Kind::Caddyfile),
        ),
        ("-", "Dear diary,\n", None),
        ("Cargo.toml", "[package]\nname = \"x\"\n", None),
    ] {
        assert_eq!(Kind::detect(name, text), kind, "{name}\n{text}");
    }
}

/// The text after all that has one safe meaning was written down.
fn mended(kind: Kind, text: &str) -> String {
    let mut source = Source::new("a file", kind, text);
    for _ in 0..16 {
        let findings = lint(std::slice::from_ref(&source));
        match fix::corrected(&source, &findings) {
            Some((text, _)) => source = Source::new("a file", kind, text),
            None => return source.text().to_owned(),
        }
    }
    panic!("mending does not end:\n{}", source.text());
}

#[test]
fn what_has_one_safe_meaning_is_mended_and_comments_stay() {
    let broken = "# first\nport = \"6_167\" # of the proxy\nallow_registration = \"false\"\n";
    assert_eq!(
        mended(Kind::Conduit, broken)
            .lines()
            .take(4)
            .collect::<Vec<_>>(),
        [
            "# first",
            "[global]",
            "port = 6167 # of the proxy",
            "allow_registration = false"
        ]
    );
    let broken = with("# calls\n[turn] # here\nuris = [\"turn:x\"] # one\nsecret = \"s\"");
    let whole = mended(Kind::Conduit, &broken);
    assert_eq!(whole, broken.replace("[turn]", "[global.turn]"));
    assert!(lint(&[Source::new("a", Kind::Conduit, whole)]).is_empty());
    let broken = with("[media]\nbackend = \"filesystem\"\n[[media.retention]]\nscope = \"local\"");
    assert_eq!(
        mended(Kind::Conduit, &broken),
        broken
            .replace("[media]", "[global.media]")
            .replace("[[media.", "[[global.media.")
    );
    assert_eq!(
        mended(
            Kind::Conduit,
            &with("[[global.media.retention]] # r\nscope = \"local\"")
        ),
        with(
            "[global.media]\nbackend = \"filesystem\"\n\n[[global.media.retention]] # r\nscope = \"local\""
        )
    );
    assert_eq!(
        mended(
            Kind::Environment,
            "# t\nCONDUIT_REGISTRATION_TOKEN=12345678\nexport CONDUIT_PORT=6_167\nCONDUIT_WELL_KNOWN__CLIENT=https://a\n"
        ),
        "# t\nCONDUIT_REGISTRATION_TOKEN='\"12345678\"'\nCONDUIT_PORT=6167\nCONDUIT_WELL_KNOWN_CLIENT=https://a\n"
    );
}

/// What could mean two things is left to a person.
#[test]
fn what_changes_who_gets_in_is_not_mended() {
    for text in [
        with("allow_registration = true\nregistration_token = \"\""),
        with("[federation]\nenabled = true"),
        with("[media]\nmax_file_size = 5"),
        with(
            "[global.media]\nbackend = \"filesystem\"\n[[global.media.retention]]\naccessed = \"1d\"",
        ),
        with("allow_federaton = true\nallow_federation_ = false"),
    ] {
        assert_eq!(mended(Kind::Conduit, &text), text);
    }
}

#[test]
fn a_file_is_replaced_at_once_and_keeps_its_mode_its_owner_and_its_link() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("conduit.toml");
    let link = directory.path().join("link.toml");
    fs::write(&path, "old").expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("mode");
    symlink(&path, &link).expect("link");
    let before = fs::metadata(&path).expect("it is there");
    let mut reader = fs::File::open(&path).expect("open");
    fix::write(&link, "new").expect("replace");
    let after = fs::metadata(&path).expect("it is there");
    assert_eq!(fs::read_to_string(&path).expect("read"), "new");
    assert_eq!(
        (after.mode(), after.uid(), after.gid()),
        (before.mode(), before.uid(), before.gid())
    );
    assert!(fs::symlink_metadata(&link).expect("link").is_symlink());
    // Who had it open reads the old text to its end.
    let mut old = String::new();
    reader.read_to_string(&mut old).expect("read");
    assert_eq!(old, "old");
    let left: Vec<_> = fs::read_dir(directory.path()).expect("list").collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
