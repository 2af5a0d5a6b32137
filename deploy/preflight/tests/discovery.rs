//! Server discovery, every step and every way off it, on names and pages that exist only here.

use fleet_preflight::certificate::Presented;
use fleet_preflight::discovery::{Discovery, Lost, ServerName, WellKnown, discover};
use fleet_preflight::dns::{Answer, Data, Kind, Names, NoAnswer};
use fleet_preflight::web::{NoPage, Page, Request, Web};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// A world of names and pages.
#[derive(Default)]
struct Place {
    names: HashMap<(String, Kind), Result<Vec<Data>, NoAnswer>>,
    pages: HashMap<String, Result<Page, NoPage>>,
    asked: Mutex<Vec<String>>,
}

impl Names for Place {
    fn ask(&self, name: &str, kind: Kind) -> Result<Answer, NoAnswer> {
        match self.names.get(&(name.to_owned(), kind)) {
            Some(Ok(records)) => Ok(Answer {
                records: records.clone(),
                ..Answer::default()
            }),
            Some(Err(error)) => Err(error.clone()),
            None => Err(NoAnswer::NoName { alias: None }),
        }
    }
}

impl Web for Place {
    fn get(&self, request: &Request) -> Result<Page, NoPage> {
        let url = format!("https://{}{}", request.host, request.path);
        self.asked.lock().expect("nobody panicked").push(format!(
            "{url} at {} for {}",
            request.address, request.certificate_name
        ));
        self.pages
            .get(&url)
            .cloned()
            .unwrap_or(Err(NoPage::Refused(request.address)))
    }
}

fn page(status: u16, headers: &[(&str, &str)], body: &str) -> Page {
    Page {
        status,
        headers: headers
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: body.as_bytes().to_vec(),
        certificate: Presented {
            name: String::new(),
            chain: vec![vec![0]],
            refusal: None,
        },
        arrived: SystemTime::now(),
    }
}

const WELL_KNOWN: &str = "https://vale.test/.well-known/matrix/server";

impl Place {
    fn new() -> Self {
        Self::default()
            .address("vale.test", "198.18.0.7")
            .address("matrix.vale.test", "198.18.0.8")
    }

    fn name(mut self, name: &str, kind: Kind, answer: Result<Vec<Data>, NoAnswer>) -> Self {
        self.names.insert((name.to_owned(), kind), answer);
        self
    }

    fn address(self, name: &str, address: &str) -> Self {
        let address = address.parse().expect("an address");
        let kind = if matches!(address, std::net::IpAddr::V4(_)) {
            Kind::A
        } else {
            Kind::Aaaa
        };
        self.name(name, kind, Ok(vec![Data::Address(address)]))
    }

    fn service(self, name: &str, targets: &[(u16, u16, u16, &str)]) -> Self {
        let records = targets
            .iter()
            .map(|&(priority, weight, port, target)| Data::Srv {
                priority,
                weight,
                port,
                target: target.to_owned(),
            })
            .collect();
        self.name(name, Kind::Srv, Ok(records))
    }

    fn page(mut self, url: &str, page: Page) -> Self {
        self.pages.insert(url.to_owned(), Ok(page));
        self
    }

    fn delegates(self, to: &str) -> Self {
        let body = serde_json::json!({"m.server": to}).to_string();
        self.page(WELL_KNOWN, page(200, &[], &body))
    }

    fn discover(&self, name: &str) -> Discovery {
        let name: ServerName = name.parse().expect("a server name");
        discover(&name, self, self)
    }

    /// `STEP HOST CERTIFICATE SOCKETS`, or why there is no route.
    fn route(&self, name: &str) -> String {
        match self.discover(name).route {
            Ok(route) => {
                let sockets: Vec<_> = route.sockets().iter().map(ToString::to_string).collect();
                format!(
                    "{} {} {} {}",
                    route.step,
                    route.host,
                    route.certificate_name,
                    sockets.join(",")
                )
            }
            Err(Lost::Nowhere(why)) => format!("nowhere: {why}"),
            Err(Lost::Undecided(why)) => format!("undecided: {why}"),
        }
    }
}

#[test]
fn each_step_has_its_address_its_host_header_and_its_certificate() {
    let fed = [(10, 0, 9448, "matrix.vale.test")];
    let cases: &[(&str, Place, &str, &str)] = &[
        (
            "1",
            Place::new(),
            "198.18.0.9",
            "1 198.18.0.9 198.18.0.9 198.18.0.9:8448",
        ),
        (
            "1 with port",
            Place::new(),
            "198.18.0.9:9448",
            "1 198.18.0.9:9448 198.18.0.9 198.18.0.9:9448",
        ),
        (
            "1 in IPv6",
            Place::new(),
            "[2001:db8::1]",
            "1 [2001:db8::1] 2001:db8::1 [2001:db8::1]:8448",
        ),
        (
            "1 in IPv6 with port",
            Place::new(),
            "[2001:db8::1]:9448",
            "1 [2001:db8::1]:9448 2001:db8::1 [2001:db8::1]:9448",
        ),
        (
            "2",
            Place::new().delegates("never.test"),
            "vale.test:9448",
            "2 vale.test:9448 vale.test 198.18.0.7:9448",
        ),
        (
            "3.1",
            Place::new().delegates("198.18.0.9"),
            "vale.test",
            "3.1 198.18.0.9 198.18.0.9 198.18.0.9:8448",
        ),
        (
            "3.1 with port",
            Place::new().delegates("198.18.0.9:9448"),
            "vale.test",
            "3.1 198.18.0.9:9448 198.18.0.9 198.18.0.9:9448",
        ),
        (
            "3.2",
            Place::new().delegates("matrix.vale.test:443"),
            "vale.test",
            "3.2 matrix.vale.test:443 matrix.vale.test 198.18.0.8:443",
        ),
        (
            "3.3",
            Place::new()
                .delegates("fed.vale.test")
                .service("_matrix-fed._tcp.fed.vale.test", &fed),
            "vale.test",
            "3.3 fed.vale.test fed.vale.test 198.18.0.8:9448",
        ),
        (
            "3.4",
            Place::new()
                .delegates("fed.vale.test")
                .service("_matrix._tcp.fed.vale.test", &fed),
            "vale.test",
            "3.4 fed.vale.test fed.vale.test 198.18.0.8:9448",
        ),
        (
            "3.5",
            Place::new().delegates("matrix.vale.test"),
            "vale.test",
            "3.5 matrix.vale.test matrix.vale.test 198.18.0.8:8448",
        ),
        (
            "4",
            Place::new().service("_matrix-fed._tcp.vale.test", &fed),
            "vale.test",
            "4 vale.test vale.test 198.18.0.8:9448",
        ),
        (
            "5",
            Place::new().service("_matrix._tcp.vale.test", &fed),
            "vale.test",
            "5 vale.test vale.test 198.18.0.8:9448",
        ),
        (
            "6",
            Place::new(),
            "vale.test",
            "6 vale.test vale.test 198.18.0.7:8448",
        ),
    ];
    for (what, place, name, expected) in cases {
        assert_eq!(place.route(name), *expected, "step {what}");
    }
}

#[test]
fn the_present_srv_record_goes_before_the_deprecated_one() {
    let place = Place::new()
        .service(
            "_matrix-fed._tcp.vale.test",
            &[(10, 0, 1, "matrix.vale.test")],
        )
        .service("_matrix._tcp.vale.test", &[(0, 0, 2, "matrix.vale.test")]);
    assert_eq!(
        place.route("vale.test"),
        "4 vale.test vale.test 198.18.0.8:1"
    );
}

#[test]
fn a_delegation_goes_before_every_srv_record() {
    let place = Place::new()
        .delegates("matrix.vale.test:443")
        .service("_matrix-fed._tcp.vale.test", &[(10, 0, 1, "vale.test")])
        .service(
            "_matrix-fed._tcp.matrix.vale.test",
            &[(10, 0, 2, "vale.test")],
        );
    assert!(place.route("vale.test").starts_with("3.2 "));
}

#[test]
fn targets_are_tried_by_priority_and_then_by_weight_and_ipv6_first() {
    let place = Place::new()
        .address("matrix.vale.test", "2001:db8::8")
        .service(
            "_matrix-fed._tcp.vale.test",
            &[
                (20, 0, 3, "vale.test"),
                (10, 1, 2, "vale.test"),
                (10, 9, 1, "matrix.vale.test"),
                (30, 0, 4, "gone.vale.test"),
            ],
        );
    assert_eq!(
        place.route("vale.test"),
        "4 vale.test vale.test [2001:db8::8]:1,198.18.0.8:1,198.18.0.7:2,198.18.0.7:3"
    );
}

#[test]
fn a_delegation_that_is_as_good_as_none_falls_through_to_the_fourth_step() {
    let large = format!(
        "{{\"m.server\":\"a.test\",\"x\":\"{}\"}}",
        "x".repeat(60_000)
    );
    let cases: &[(&str, Result<Page, NoPage>, &str)] = &[
        ("no JSON", Ok(page(200, &[], "<html>")), "no JSON"),
        ("an empty page", Ok(page(200, &[], "")), "no JSON"),
        ("no m.server", Ok(page(200, &[], "{}")), "no `m.server`"),
        (
            "a number",
            Ok(page(200, &[], r#"{"m.server":1}"#)),
            "no `m.server`",
        ),
        (
            "a URL",
            Ok(page(200, &[], r#"{"m.server":"https://a.test"}"#)),
            "no server name",
        ),
        (
            "a bad port",
            Ok(page(200, &[], r#"{"m.server":"a.test:99999"}"#)),
            "port",
        ),
        (
            "an error",
            Ok(page(500, &[], r#"{"m.server":"a.test"}"#)),
            "status 500",
        ),
        ("too large", Err(NoPage::TooLarge(51_200)), "larger than"),
        ("no TLS", Err(NoPage::Tls("alert".to_owned())), "TLS failed"),
        (
            "a downgrade",
            Ok(page(302, &[("location", "http://vale.test/")], "")),
            "no HTTPS",
        ),
        ("no location", Ok(page(302, &[], "")), "no HTTPS"),
        (
            "a circle",
            Ok(page(302, &[("location", WELL_KNOWN)], "")),
            "circle",
        ),
    ];
    assert!(large.len() > 51_200);
    for (what, answer, why) in cases {
        let mut place = Place::new();
        place.pages.insert(WELL_KNOWN.to_owned(), answer.clone());
        let found = place.discover("vale.test");
        match &found.well_known {
            WellKnown::Broken { why: said, .. } => assert!(said.contains(why), "{what}: {said}"),
            other => panic!("{what}: {other:?}"),
        }
        assert!(place.route("vale.test").starts_with("6 "), "{what}");
        let mut steps: Vec<_> = found.steps.iter().map(|step| step.number).collect();
        steps.dedup();
        assert!(
            steps.starts_with(&["3", "4", "5", "6"]),
            "{what}: {steps:?}"
        );
    }
}

#[test]
fn a_certificate_that_does_not_hold_makes_the_delegation_as_good_as_none() {
    let mut bad = page(200, &[], r#"{"m.server":"matrix.vale.test:443"}"#);
    bad.certificate.refusal = Some(rustls::Error::InvalidCertificate(
        rustls::CertificateError::Expired,
    ));
    let place = Place::new().page(WELL_KNOWN, bad);
    assert!(place.route("vale.test").starts_with("6 "));
}

#[test]
fn no_delegation_is_told_from_a_broken_one() {
    for answer in [Ok(page(404, &[], "")), Err(NoPage::Refused(socket()))] {
        let mut place = Place::new();
        place.pages.insert(WELL_KNOWN.to_owned(), answer);
        let found = place.discover("vale.test").well_known;
        assert!(matches!(found, WellKnown::Absent(_)), "{found:?}");
    }
    for answer in [Err(NoPage::Timeout(socket())), Err(NoPage::Down(socket()))] {
        let mut place = Place::new();
        place.pages.insert(WELL_KNOWN.to_owned(), answer);
        let found = place.discover("vale.test").well_known;
        assert!(matches!(found, WellKnown::Broken { .. }), "{found:?}");
    }
}

fn socket() -> std::net::SocketAddr {
    "198.18.0.7:443".parse().expect("an address")
}

#[test]
fn redirects_are_followed_and_the_last_host_must_have_the_certificate() {
    let place = Place::new()
        .address("www.vale.test", "198.18.0.10")
        .page(WELL_KNOWN, page(301, &[("location", "/moved")], ""))
        .page(
            "https://vale.test/moved",
            page(307, &[("location", "https://www.vale.test:8443/a?b=c")], ""),
        )
        .page(
            "https://www.vale.test:8443/a?b=c",
            page(200, &[], r#"{"m.server":"matrix.vale.test:443"}"#),
        );
    assert!(place.route("vale.test").starts_with("3.2 "));
    let asked = place.asked.lock().expect("nobody panicked");
    assert_eq!(
        asked[2],
        "https://www.vale.test:8443/a?b=c at 198.18.0.10:8443 for www.vale.test"
    );
}

#[test]
fn more_redirects_than_ten_are_not_followed() {
    let mut place = Place::new().page(WELL_KNOWN, page(302, &[("location", "/0")], ""));
    for hop in 0..20 {
        let to = format!("/{}", hop + 1);
        place = place.page(
            &format!("https://vale.test/{hop}"),
            page(302, &[("location", &to)], ""),
        );
    }
    match place.discover("vale.test").well_known {
        WellKnown::Broken { why, .. } => assert!(why.contains("more than 10"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_delegation_is_kept_as_long_as_its_headers_say_and_at_most_two_days() {
    let hour = Duration::from_secs(3600);
    let soon = httpdate::fmt_http_date(SystemTime::now() + 2 * hour + Duration::from_secs(30));
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(Headers<'_>, u64, u64)] = &[
        (&[], 24, 24),
        (&[("cache-control", "public, max-age=3600")], 1, 1),
        (&[("cache-control", "max-age=31536000")], 48, 48),
        (&[("cache-control", "no-store")], 0, 0),
        (&[("cache-control", "public")], 24, 24),
        (&[("expires", &soon)], 2, 3),
        (&[("expires", "0")], 0, 0),
        (&[("expires", "0"), ("cache-control", "max-age=7200")], 2, 2),
    ];
    for (headers, least, most) in cases {
        let answer = page(200, headers, r#"{"m.server":"matrix.vale.test:443"}"#);
        match Place::new()
            .page(WELL_KNOWN, answer)
            .discover("vale.test")
            .well_known
        {
            WellKnown::Delegates { lifetime, .. } => {
                let hours = u32::try_from(*least).expect("few");
                assert!(lifetime >= hour * hours, "{headers:?}: {lifetime:?}");
                let hours = u32::try_from(*most).expect("few");
                assert!(lifetime <= hour * hours, "{headers:?}: {lifetime:?}");
            }
            other => panic!("{headers:?}: {other:?}"),
        }
    }
}

#[test]
fn an_srv_record_to_nothing_says_that_there_is_no_server() {
    let place = Place::new().service("_matrix-fed._tcp.vale.test", &[(0, 0, 0, "")]);
    let route = place.route("vale.test");
    assert!(
        route.starts_with("nowhere: ") && route.contains("no such service"),
        "{route}"
    );
}

#[test]
fn what_a_name_server_did_not_say_is_not_taken_for_absence() {
    for error in [
        NoAnswer::ServFail,
        NoAnswer::Refused,
        NoAnswer::Timeout,
        NoAnswer::Forged(1),
    ] {
        let place = Place::new().name("_matrix-fed._tcp.vale.test", Kind::Srv, Err(error.clone()));
        let route = place.route("vale.test");
        assert!(route.starts_with("undecided: "), "{error:?}: {route}");
        let place = Place::new().delegates("gone.test:443").name(
            "gone.test",
            Kind::Aaaa,
            Err(error.clone()),
        );
        let route = place.route("vale.test");
        assert!(route.starts_with("undecided: "), "{error:?}: {route}");
    }
    let route = Place::new().delegates("gone.test:443").route("vale.test");
    assert!(route.starts_with("nowhere: "), "{route}");
    let nodata = NoAnswer::NoData { alias: None };
    let place = Place::new().name("_matrix-fed._tcp.vale.test", Kind::Srv, Err(nodata));
    assert!(place.route("vale.test").starts_with("6 "));
}

#[test]
fn server_names_are_those_of_the_grammar() {
    for good in [
        "vale.test",
        "vale.test:8448",
        "1.2.3.4",
        "1.2.3.4:80",
        "[::1]",
        "[::1]:8448",
        "localhost",
        "a-b.test",
        "VALE.test",
    ] {
        assert!(good.parse::<ServerName>().is_ok(), "{good}");
    }
    for bad in [
        "",
        ":8448",
        "vale.test:",
        "vale.test:0",
        "vale.test:65536",
        "vale.test:1234567",
        "vale.test:80a",
        "[::1",
        "[1.2.3.4]",
        "::1",
        "https://vale.test",
        "vale.test/",
        "va le.test",
        "vale..test",
        "vale.test:+80",
        "@a:vale.test",
    ] {
        assert!(bad.parse::<ServerName>().is_err(), "{bad}");
    }
}
