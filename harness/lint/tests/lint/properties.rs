//! Whatever stands in a file: no panic, places inside of it, and corrections that come to an end.

use super::rules::BASE;
use fleet_lint::catalogue::{self, Type};
use fleet_lint::{Diagnostic, Kind, Source, fix, lint, read, render};
use proptest::prelude::*;

const KINDS: [Kind; 3] = [Kind::Conduit, Kind::Environment, Kind::Unit];

/// Judges and says it in every form; answers what was found.
fn put(sources: &[Source]) -> Vec<Diagnostic> {
    let findings = lint(sources);
    for finding in &findings {
        let places = std::iter::once((&finding.primary.source, &finding.primary.span))
            .chain(
                finding
                    .related
                    .iter()
                    .map(|label| (&label.source, &label.span)),
            )
            .chain(
                finding
                    .fix
                    .iter()
                    .flat_map(|fix| &fix.edits)
                    .map(|edit| (&edit.source, &edit.span)),
            );
        for (source, span) in places {
            assert!(
                source.text().get(span.clone()).is_some(),
                "{span:?} is no part of the text, of `{}`",
                finding.code.slug()
            );
        }
    }
    render::human(&findings, true);
    render::json(&findings, sources);
    render::sarif(&findings);
    findings
}

/// Mends until nothing is left to mend, then once more.
fn mend(source: &Source) {
    let mut source = source.clone();
    for _ in 0..24 {
        let findings = put(std::slice::from_ref(&source));
        let Some((text, _)) = fix::corrected(&source, &findings) else {
            return;
        };
        assert_ne!(text, source.text(), "a correction that corrects nothing");
        source = Source::new(source.name(), source.kind(), text);
    }
    panic!("mending does not end:\n{}", source.text());
}

/// Pieces that configurations are made of, right and wrong.
fn line() -> impl Strategy<Value = String> {
    let names: Vec<String> = catalogue::all()
        .iter()
        .map(|located| located.key.name.to_owned())
        .chain(
            [
                "foo",
                "max_file_size",
                "'quo.ted'",
                "a.b",
                "allow_federaton",
            ]
            .map(str::to_owned),
        )
        .collect();
    let values = prop::sample::select(vec![
        "1",
        "-1",
        "1.5",
        "true",
        "\"x\"",
        "\"true\"",
        "\"6_167\"",
        "''",
        "[]",
        "[1]",
        "[[]]",
        "{}",
        "{ a = 1 }",
        "1979-05-27",
        "\"https://ä.test\"",
        "\"rocksdb\"",
        "\"filesystem\"",
        "{ backend = \"filesystem\" }",
        "nan",
        "\"\"\"\nmany\nlines\"\"\"",
        "[\n  \"turn:x\",\n]",
        "\"l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og\"",
    ]);
    let headers = prop::sample::select(vec![
        "[global]",
        "[default]",
        "[GLOBAL]",
        "[ global . media ]",
        "[[global.media.retention]]",
        "[media]",
        "[turn]",
        "[[media.retention]]",
        "[global.tls]",
        "[gobal]",
        "[global.turn]",
        "[global.proxy]",
        "[[global]]",
        "[global.media.directory_structure]",
        "[retention]",
        "[\"turn\"]",
        "# a comment: ä",
        "",
    ]);
    prop_oneof![
        3 => (prop::sample::select(names), values).prop_map(|(name, value)| format!("{name} = {value}")),
        1 => headers.prop_map(str::to_owned),
    ]
}

fn variable() -> impl Strategy<Value = String> {
    let names: Vec<String> = catalogue::all()
        .iter()
        .map(|located| located.path.join("_").to_uppercase())
        .chain(["CONFIG", "MEDIA__PATH", "_", "", "PROXY_X", "LOG.X", "Ä"].map(str::to_owned))
        .collect();
    let values = prop::sample::select(vec![
        "",
        "1",
        "true",
        "yes",
        "[a]",
        "{a=1}",
        "'x y' z",
        "\"a\\nb\"",
        "\\",
        "a\\\nb",
        "'",
        "\"",
        "ä",
        "20_000",
        "https://a.test",
        "{uris=[a],secret=b}",
        "x # y",
    ]);
    (prop::sample::select(names), values)
        .prop_map(|(name, value)| format!("CONDUIT_{name}={value}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_judged_without_a_panic(text in "\\PC*|(?s).{0,300}", kind in prop::sample::select(&KINDS[..])) {
        put(&[Source::new("x", kind, text)]);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in prop::option::of(prop::sample::select(&KINDS[..]))) {
        match read::stdin(&bytes[..], kind) {
            Ok(Ok(source)) => {
                put(&[source]);
            }
            Ok(Err(finding)) => {
                render::human(&[finding], true);
            }
            Err(error) => drop(error.to_string()),
        }
    }

    #[test]
    fn any_toml_is_judged_without_a_panic_and_mended_to_an_end(lines in prop::collection::vec(line(), 0..14), crlf in any::<bool>()) {
        let text = lines.join(if crlf { "\r\n" } else { "\n" });
        mend(&Source::new("conduit.toml", Kind::Conduit, text));
    }

    #[test]
    fn any_variables_are_judged_without_a_panic_and_mended_to_an_end(lines in prop::collection::vec(variable(), 0..8), toml in prop::collection::vec(line(), 0..6)) {
        let variables = lines.join("\n");
        mend(&Source::new("x.env", Kind::Environment, variables.as_str()));
        put(&[
            Source::new("conduit.toml", Kind::Conduit, format!("{BASE}{}", toml.join("\n"))),
            Source::new("x.env", Kind::Environment, variables.as_str()),
        ]);
        put(&[
            Source::new("conduit.toml", Kind::Conduit, format!("{BASE}{}", toml.join("\n"))),
            Source::new("x.service", Kind::Unit, format!("[Service]\nExecStart=/conduit\nEnvironment={}\n", lines.join(" "))),
        ]);
    }

    /// A comment is an operator's; a correction never takes one away.
    #[test]
    fn no_correction_loses_a_comment(lines in prop::collection::vec(line(), 1..14)) {
        let text: String = lines.iter().enumerate().map(|(at, line)| format!("# note {at}\n{line}\n")).collect();
        let source = Source::new("conduit.toml", Kind::Conduit, text);
        let findings = put(std::slice::from_ref(&source));
        if let Some((corrected, _)) = fix::corrected(&source, &findings) {
            for at in 0..lines.len() {
                prop_assert!(corrected.contains(&format!("# note {at}\n")), "{corrected}");
            }
        }
    }

    /// Every value of the catalogue that is drawn as valid is taken, each alone on a configuration that is.
    #[test]
    fn what_the_catalogue_calls_valid_is_not_refused(at in 0..catalogue::GLOBAL.keys.len(), seed in any::<u64>()) {
        let key = &catalogue::GLOBAL.keys[at];
        if let Some(value) = valid(key.takes, seed) {
            let kept: String = BASE.lines().filter(|line| !line.starts_with(&format!("{} ", key.name))).map(|line| format!("{line}\n")).collect();
            let text = format!("{kept}{} = {value}\n", key.name);
            let findings = put(&[Source::new("conduit.toml", Kind::Conduit, text.as_str())]);
            prop_assert_eq!(fleet_lint::predicted_exit(&findings), None, "{}", text);
        }
    }
}

fn valid(takes: Type, seed: u64) -> Option<String> {
    let pick =
        |choices: &[&str]| choices[usize::try_from(seed).unwrap_or(0) % choices.len()].to_owned();
    Some(match takes {
        Type::Bool => pick(&["true", "false"]),
        Type::Integer { min, max } => {
            // TOML's integers end where those of 64 bits with a sign do.
            let max = max.min(i64::MAX.into());
            (min + i128::from(seed) % (max - min + 1)).to_string()
        }
        Type::Float => pick(&["1", "0.25", "-3.0", "1e9", "inf"]),
        Type::Text => pick(&["\"x\"", "'true'", "\"ä\""]),
        Type::IpAddress => pick(&["\"127.0.0.1\"", "\"::\"", "\"fe80::1\""]),
        Type::ServerName => pick(&["\"a.test\"", "\"a.test:8448\"", "\"[::1]:1\""]),
        Type::Url => pick(&["\"https://a.test\"", "\"http://b:1/c\""]),
        Type::RoomVersion => pick(&["\"12\"", "\"org.example-1\""]),
        Type::Duration => pick(&["\"30d\"", "\"1h 30min\"", "\"2months\""]),
        Type::ByteSize => pick(&["5", "\"2GB\"", "\"1.5 GiB\""]),
        Type::Base64 => pick(&["\"AAAA\"", "\"AA==\"", "\"AA\""]),
        Type::OneOf(choices) => format!("\"{}\"", pick(choices)),
        Type::List(of) => format!("[{}]", valid(*of, seed)?),
        Type::Table(table) => {
            let entries: Vec<_> = table
                .keys
                .iter()
                .filter(|key| key.status != catalogue::Status::Next)
                .map(|key| Some(format!("{} = {}", key.name, valid(key.takes, seed)?)))
                .collect::<Option<_>>()?;
            format!("{{ {} }}", entries.join(", "))
        }
        Type::Turn(_) => pick(&[
            "{ uris = [], secret = \"s\" }",
            "{ uris = [\"turn:x\"], username = \"u\", password = \"p\" }",
        ]),
        Type::Media(_) => pick(&[
            "{ backend = \"filesystem\" }",
            "{ backend = \"filesystem\", directory_structure = {} }",
        ]),
        Type::DirectoryStructure(_) => pick(&["{}", "{ length = 1, depth = 63 }"]),
        Type::Proxy(_) => pick(&[
            "\"none\"",
            "{ by_domain = [] }",
            "{ global = { url = \"http://a\" } }",
        ]),
    })
}
