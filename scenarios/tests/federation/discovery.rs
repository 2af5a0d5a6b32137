//! How the home finds other servers, and how others find it.

use crate::known::{HOST_CARRIES_THE_PORT, SRV_PRIORITY, WELL_KNOWN_STATUS};
use crate::{Cast, Table, demand, federation, federation_alone, soon, user};
use fleet_peer::{Answer, Ask, Reply, Visit, zone};
use harness::authority::{Issued, Root, Validity};
use harness::known::Known;
use harness::probe::ProbeState;
use harness::scenario::{Outcome, Stage};
use harness::{Failure, OrBlame, Result};
use serde_json::{Value, json};
use std::fmt;

/// Where a step of the way led.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// What was asked; `None` where the handshake did not end well.
    ask: Option<Ask>,
    address: String,
    port: u16,
    /// The name that the caller demanded a certificate for; none for an address.
    sni: Option<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ask {
            Some(ask) => write!(f, "{ask:?}")?,
            None => f.write_str("broken off")?,
        }
        let sni = self.sni.as_deref().unwrap_or("nobody");
        write!(f, " at {}:{} as {sni}", self.address, self.port)
    }
}

/// Who answers, and with what.
enum Certificate {
    Right,
    Wrong(&'static str),
    When(Validity),
    Foreign,
}

/// One way to a server.
struct Row {
    /// The server name, as it stands in a user's id.
    server: String,
    says: &'static str,
    /// Zones: name, address, further records.
    zones: Vec<(String, String, Vec<String>)>,
    /// What is shown to whom.
    certificates: Vec<(String, Certificate)>,
    /// What stands under `/.well-known/matrix/server` of which name.
    well_known: Vec<(String, Answer)>,
    /// How often the home is asked to go there.
    times: usize,
    way: Vec<Step>,
    /// The `Host` header of the request itself; `None` if none may arrive.
    host: Option<String>,
    /// Where Conduit goes another way.
    known: Option<&'static Known>,
}

impl Row {
    /// A server whose own name points to `address`, with a right certificate, and of which nothing else is known.
    fn new(server: &str, address: &str, says: &'static str) -> Self {
        let name = server.split(':').next().unwrap_or(server).to_owned();
        Self {
            server: server.to_owned(),
            says,
            zones: vec![(name.clone(), address.to_owned(), Vec::new())],
            certificates: vec![(name, Certificate::Right)],
            well_known: Vec::new(),
            times: 1,
            way: Vec::new(),
            host: None,
            known: None,
        }
    }

    fn name(&self) -> &str {
        self.server.split(':').next().unwrap_or(&self.server)
    }

    /// Another machine of theirs.
    fn also(mut self, name: &str, address: &str) -> Self {
        self.zones
            .push((name.to_owned(), address.to_owned(), Vec::new()));
        self.certificates
            .push((name.to_owned(), Certificate::Right));
        self
    }

    /// A record in the zone that was named last.
    fn record(mut self, record: String) -> Self {
        if let Some((_, _, records)) = self.zones.last_mut() {
            records.push(record);
        }
        self
    }

    /// Shows `called` another certificate.
    fn shows(mut self, called: &str, certificate: Certificate) -> Self {
        self.certificates.push((called.to_owned(), certificate));
        self
    }

    fn says_well_known(self, answer: Answer) -> Self {
        let name = self.name().to_owned();
        self.well_known_of(&name, answer)
    }

    fn well_known_of(mut self, name: &str, answer: Answer) -> Self {
        self.well_known.push((name.to_owned(), answer));
        self
    }

    fn delegates_to(self, to: &str) -> Self {
        self.says_well_known(delegation(to))
    }

    fn twice(mut self) -> Self {
        self.times = 2;
        self
    }

    fn step(mut self, ask: Option<Ask>, address: &str, port: u16, sni: Option<&str>) -> Self {
        self.way.push(Step {
            ask,
            address: address.to_owned(),
            port,
            sni: sni.map(str::to_owned),
        });
        self
    }

    /// Looks for a `.well-known` at the own name.
    fn looks(self, address: &str) -> Self {
        let name = self.name().to_owned();
        self.step(Some(Ask::WellKnown), address, 443, Some(&name))
    }

    /// Ends there, with this `Host` header.
    fn ends(mut self, address: &str, port: u16, sni: Option<&str>, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self.step(Some(Ask::Profile), address, port, sni)
    }

    fn breaks_off(self, address: &str, port: u16, sni: Option<&str>) -> Self {
        self.step(None, address, port, sni)
    }

    fn known(mut self, known: &'static Known) -> Self {
        self.known = Some(known);
        self
    }

    /// Of everything that came, what concerns the names of this row is its way and no more.
    fn came_alone(&self, all: &[Visit]) -> Result<()> {
        let own = |step: &Step| {
            let named = |sni: &String| self.zones.iter().any(|(name, ..)| name == sni);
            step.sni.as_ref().is_some_and(named)
        };
        let came = went(
            all.iter()
                .filter(|visit| step(visit).is_some_and(|step| own(&step))),
        );
        let way: Vec<_> = self.way.iter().filter(|step| own(step)).cloned().collect();
        demand(
            came == way,
            &format!("come to `{}` only on the way there", self.server),
            tell("came", &came, "should have come", &way),
        )
    }
}

fn delegation(to: &str) -> Answer {
    Answer::json(200, &json!({ "m.server": to }))
}

fn srv(service: &str, priority: u16, port: u16, target: &str) -> String {
    format!("_{service}._tcp IN SRV {priority} 10 {port} {target}.")
}

/// Every step of "Resolving server names", each with a name of its own. `here` is where a name points by itself, `there`
/// where it leads only by delegation.
fn ways(here: &str, there: &str) -> Vec<Row> {
    let there_port = format!("{there}:8449");
    let mut rows = vec![
        Row::new(there, there, "step 1: an address, port 8448").ends(there, 8448, None, there),
        Row::new(&there_port, there, "step 1: an address and a port").ends(
            there,
            8449,
            None,
            &there_port,
        ),
        Row::new(
            "port.test:8449",
            here,
            "step 2: a port in the name: nobody is asked for more",
        )
        .record(srv("matrix-fed", 10, 8450, "port.test"))
        .ends(here, 8449, Some("port.test"), "port.test:8449"),
        Row::new("wk-address.test", here, "step 3.1: delegated to an address")
            .delegates_to(there)
            .looks(here)
            .ends(there, 8448, None, there),
        Row::new(
            "wk-address-port.test",
            here,
            "step 3.1: delegated to an address and a port",
        )
        .delegates_to(&there_port)
        .looks(here)
        .ends(there, 8449, None, &there_port),
        Row::new(
            "wk-port.test",
            here,
            "step 3.2: delegated to a name and a port, before any SRV record",
        )
        .record(srv("matrix-fed", 10, 8451, "wk-port.test"))
        .also("d-port.test", there)
        .delegates_to("d-port.test:8450")
        .looks(here)
        .ends(there, 8450, Some("d-port.test"), "d-port.test:8450"),
        Row::new(
            "wk-srv.test",
            here,
            "step 3.3: delegated to a name that has an SRV record",
        )
        .also("t-srv.test", there)
        .also("d-srv.test", here)
        .record(srv("matrix-fed", 10, 8451, "t-srv.test"))
        .delegates_to("d-srv.test")
        .looks(here)
        .ends(there, 8451, Some("d-srv.test"), "d-srv.test"),
        Row::new(
            "wk-old-srv.test",
            here,
            "step 3.4: delegated to a name that has a deprecated SRV record",
        )
        .also("t-old-srv.test", there)
        .also("d-old-srv.test", here)
        .record(srv("matrix", 10, 8451, "t-old-srv.test"))
        .delegates_to("d-old-srv.test")
        .looks(here)
        .ends(there, 8451, Some("d-old-srv.test"), "d-old-srv.test"),
        Row::new(
            "wk-name.test",
            here,
            "step 3.5: delegated to a name alone: port 8448",
        )
        .also("d-name.test", there)
        .delegates_to("d-name.test")
        .looks(here)
        .ends(there, 8448, Some("d-name.test"), "d-name.test"),
        Row::new("wk-redirected.test", here, "step 3: redirects are followed")
            .also("d-redirected.test", there)
            .says_well_known(Answer::json(302, &Value::Null).header(
                "location",
                "https://d-redirected.test/.well-known/matrix/server",
            ))
            .well_known_of("d-redirected.test", delegation("d-redirected.test:8450"))
            .looks(here)
            .step(Some(Ask::WellKnown), there, 443, Some("d-redirected.test"))
            .ends(
                there,
                8450,
                Some("d-redirected.test"),
                "d-redirected.test:8450",
            ),
        Row::new(
            "wk-loop.test",
            here,
            "step 3: a redirect that leads to itself is given up",
        )
        .says_well_known(
            Answer::json(302, &Value::Null)
                .header("location", "https://wk-loop.test/.well-known/matrix/server"),
        )
        .looks(here)
        .ends(here, 8448, Some("wk-loop.test"), "wk-loop.test"),
        Row::new(
            "srv.test",
            here,
            "step 4: an SRV record; the certificate is the name's",
        )
        .record(srv("matrix-fed", 10, 8451, "t.test"))
        .also("t.test", there)
        .looks(here)
        .ends(there, 8451, Some("srv.test"), "srv.test"),
        Row::new("old-srv.test", here, "step 5: a deprecated SRV record")
            .record(srv("matrix", 10, 8451, "t.test"))
            .looks(here)
            .ends(there, 8451, Some("old-srv.test"), "old-srv.test"),
        Row::new("both-srv.test", here, "step 4 goes before step 5")
            .record(srv("matrix", 10, 8450, "both-srv.test"))
            .record(srv("matrix-fed", 20, 8451, "t.test"))
            .looks(here)
            .ends(there, 8451, Some("both-srv.test"), "both-srv.test"),
        Row::new(
            "priority.test",
            here,
            "step 4: the SRV record of the lowest priority goes first (RFC 2782)",
        )
        .record(srv("matrix-fed", 20, 8450, "t.test"))
        .record(srv("matrix-fed", 10, 8451, "t.test"))
        .record(srv("matrix-fed", 30, 8449, "t.test"))
        .looks(here)
        .ends(there, 8451, Some("priority.test"), "priority.test")
        .known(&SRV_PRIORITY),
        Row::new("name.test", here, "step 6: the name alone: port 8448")
            .looks(here)
            .ends(here, 8448, Some("name.test"), "name.test"),
        // What is remembered.
        Row::new(
            "wk-remembered.test",
            here,
            "step 3: a delegation is remembered as long as it says",
        )
        .says_well_known(
            delegation("wk-remembered.test:8450").header("cache-control", "max-age=3600"),
        )
        .twice()
        .looks(here)
        .ends(
            here,
            8450,
            Some("wk-remembered.test"),
            "wk-remembered.test:8450",
        )
        .ends(
            here,
            8450,
            Some("wk-remembered.test"),
            "wk-remembered.test:8450",
        ),
        Row::new(
            "wk-by-default.test",
            here,
            "step 3: a delegation that does not say how long is remembered",
        )
        .delegates_to("wk-by-default.test:8450")
        .twice()
        .looks(here)
        .ends(
            here,
            8450,
            Some("wk-by-default.test"),
            "wk-by-default.test:8450",
        )
        .ends(
            here,
            8450,
            Some("wk-by-default.test"),
            "wk-by-default.test:8450",
        ),
        Row::new(
            "wk-missing-remembered.test",
            here,
            "step 3: that there is no delegation is remembered",
        )
        .twice()
        .looks(here)
        .ends(
            here,
            8448,
            Some("wk-missing-remembered.test"),
            "wk-missing-remembered.test",
        )
        .ends(
            here,
            8448,
            Some("wk-missing-remembered.test"),
            "wk-missing-remembered.test",
        ),
        // The section does not say whether this is an invalid document; Conduit and Synapse both end here.
        Row::new(
            "wk-nonsense.test",
            here,
            "step 3: an `m.server` that is no server name leads nowhere",
        )
        .delegates_to("not a server/name")
        .looks(here),
        // Certificates.
        Row::new(
            "wrong-name.test",
            here,
            "a certificate for another name is refused",
        )
        .shows("wrong-name.test", Certificate::Wrong("another.test"))
        .breaks_off(here, 443, Some("wrong-name.test"))
        .breaks_off(here, 8448, Some("wrong-name.test")),
        Row::new("expired.test", here, "an expired certificate is refused")
            .shows("expired.test", Certificate::When(Validity::Expired))
            .breaks_off(here, 443, Some("expired.test"))
            .breaks_off(here, 8448, Some("expired.test")),
        Row::new(
            "not-yet.test",
            here,
            "a certificate that is not valid yet is refused",
        )
        .shows("not-yet.test", Certificate::When(Validity::NotYet))
        .breaks_off(here, 443, Some("not-yet.test"))
        .breaks_off(here, 8448, Some("not-yet.test")),
        Row::new(
            "foreign.test",
            here,
            "a certificate of an unknown authority is refused",
        )
        .shows("foreign.test", Certificate::Foreign)
        .breaks_off(here, 443, Some("foreign.test"))
        .breaks_off(here, 8448, Some("foreign.test")),
        Row::new(
            here,
            here,
            "an address whose certificate does not name it is refused",
        )
        .shows(here, Certificate::Wrong("another.test"))
        .breaks_off(here, 8448, None),
        Row::new(
            "wk-wrong.test",
            here,
            "a delegated name needs a certificate of its own",
        )
        .also("d-wrong.test", there)
        .shows("d-wrong.test", Certificate::Wrong("wk-wrong.test"))
        .delegates_to("d-wrong.test:8450")
        .looks(here)
        .breaks_off(there, 8450, Some("d-wrong.test")),
        Row::new(
            "srv-wrong.test",
            here,
            "a certificate for the SRV record's target alone is refused",
        )
        .shows("srv-wrong.test:8451", Certificate::Wrong("t.test"))
        .record(srv("matrix-fed", 10, 8451, "t.test"))
        .looks(here)
        .breaks_off(there, 8451, Some("srv-wrong.test")),
        Row::new(
            "wk-distrusted.test",
            here,
            "a `.well-known` behind a foreign certificate is not believed",
        )
        .shows("wk-distrusted.test:443", Certificate::Foreign)
        .delegates_to("wk-distrusted.test:8450")
        .breaks_off(here, 443, Some("wk-distrusted.test"))
        .ends(here, 8448, Some("wk-distrusted.test"), "wk-distrusted.test"),
    ];
    // What is no delegation leads on to the next step.
    for (name, says, answer, known) in [
        (
            "wk-missing.test",
            "step 3: without a `.well-known` on to the next step",
            Answer::json(404, &json!({})),
            None,
        ),
        (
            "wk-no-json.test",
            "step 3: invalid JSON leads on to the next step",
            Answer {
                status: 200,
                headers: Vec::new(),
                body: "m.server: d.test".into(),
            },
            None,
        ),
        (
            "wk-empty.test",
            "step 3: a document without `m.server` leads on to the next step",
            Answer::json(200, &json!({})),
            None,
        ),
        (
            "wk-number.test",
            "step 3: an `m.server` that is no text leads on to the next step",
            Answer::json(200, &json!({"m.server": 8448})),
            None,
        ),
        (
            "wk-error.test",
            "step 3: whatever stands in an error page leads on to the next step",
            Answer::json(404, &json!({"m.server": "wk-error.test:8450"})),
            Some(&WELL_KNOWN_STATUS),
        ),
    ] {
        let mut row = Row::new(name, here, says)
            .says_well_known(answer)
            .looks(here)
            .ends(here, 8448, Some(name), name);
        row.known = known;
        rows.push(row);
    }
    rows
}

/// E1, E2. One name per step of server discovery and per way in which it can mislead, each with the zone, the `.well-known`,
/// the port and the certificate of that step alone. A client asks for the profile of a user there; what counts is where the
/// home then went, whom it took the answerer for, and with what `Host`. A certificate that is wrong, expired or of an
/// unknown authority must end the way before a word is said; the same way with the right certificate is another row.
/// "Resolving server names", "TLS".
#[tokio::test(flavor = "multi_thread")]
async fn server_discovery_follows_every_step_and_refuses_every_wrong_certificate() -> Outcome {
    federation_alone(&[], async |stage, cast| {
        let addresses = cast.door.addresses();
        let (here, there) = (addresses[0], addresses[1]);
        let rows = ways(here, there);
        prepare(stage, cast, &rows).await?;
        let mut table = Table::default();
        let mut hosts = Table::default();
        for row in &rows {
            let mark = cast.door.mark();
            let mut outcome = Ok(());
            for _ in 0..row.times {
                outcome = outcome.and(arrives(cast, row).await);
            }
            // A handshake that the home broke off is noted a moment after the client was answered. What then is still not
            // there is judged below.
            if row.host.is_none() {
                let what = format!("the way to `{}` has ended", row.server);
                let _ = cast
                    .door
                    .until(&what, soon(), mark, |visits| {
                        let went = went(visits);
                        if went == row.way {
                            ProbeState::Ready(())
                        } else {
                            ProbeState::NotYet(format!("{} steps", went.len()))
                        }
                    })
                    .await;
            }
            let visits = cast.door.since(mark);
            let went = went(&visits);
            let way = outcome.and(demand(
                went == row.way,
                &format!("find `{}` as specified", row.server),
                tell("went", &went, "should have gone", &row.way),
            ));
            let way = match row.known {
                Some(known) => cast.known(known, way),
                None => way,
            };
            table.row(row.says, way);
            if went == row.way && row.host.is_some() {
                hosts.row(row.says, right_host(cast, row, &visits));
            }
        }
        // Nor did anybody come later.
        let all = cast.door.visits();
        for row in rows.iter().filter(|row| row.known.is_none()) {
            table.row(row.says, row.came_alone(&all));
        }
        table.verdict("find servers as specified")?;
        hosts.verdict("name in `Host` whom it looked for")
    })
    .await
}

/// The row's names, certificates and documents.
async fn prepare(stage: &Stage, cast: &Cast, rows: &[Row]) -> Result<()> {
    let is_name = |name: &str| name.parse::<std::net::IpAddr>().is_err();
    let zones = rows.iter().flat_map(|row| &row.zones);
    let zones: Vec<_> = zones
        .filter(|(name, ..)| is_name(name))
        .map(|(name, address, records)| (name.clone(), zone(name, address, records)))
        .collect();
    stage.world.publish(zones).await?;
    let foreign = Root::generate("another world")?;
    for row in rows {
        for (called, certificate) in &row.certificates {
            let name = called.split(':').next().unwrap_or(called);
            let issued: Issued = match certificate {
                Certificate::Right => stage.world.certificate(&[name], Validity::Current)?,
                Certificate::Wrong(other) => {
                    stage.world.certificate(&[other], Validity::Current)?
                }
                Certificate::When(validity) => stage.world.certificate(&[name], *validity)?,
                Certificate::Foreign => foreign.issue(&[name], Validity::Current)?,
            };
            cast.door.show(called, &issued)?;
        }
        // Whoever shows a certificate answers; the way shows whether it was the right one.
        for (name, ..) in &row.zones {
            let server = row.server.clone();
            cast.door
                .expect(name, Ask::WellKnown, |_| Reply::refuse(404, "M_NOT_FOUND"));
            cast.door.expect(name, Ask::Profile, move |_| {
                Reply::json(&json!({ "displayname": server }))
            });
        }
        for (name, answer) in &row.well_known {
            let answer = answer.clone();
            cast.door
                .expect(name, Ask::WellKnown, move |_| Reply::Now(answer.clone()));
        }
    }
    // Addresses answer for whichever row leads to them.
    for address in cast.door.addresses() {
        cast.door.expect(address, Ask::Profile, |call| {
            let asked = call.path.split("user_id=").nth(1).unwrap_or_default();
            let server = asked
                .replace("%3A", ":")
                .split_once(':')
                .map(|(_, server)| server.to_owned());
            Reply::json(&json!({ "displayname": server }))
        });
    }
    Ok(())
}

/// A client learns who lives there, or that nobody can be asked.
async fn arrives(cast: &Cast, row: &Row) -> Result<()> {
    let who = user(&format!("@somebody:{}", row.server))?;
    let answer = cast.alice.try_profile(&who).await?;
    let shown = answer.outcome.map(|profile| profile.display_name);
    match (&row.host, shown) {
        (Some(_), Ok(Some(name))) if name == row.server => Ok(()),
        (None, Err(_)) => Ok(()),
        (_, shown) => Err(Failure::product(format!("ask `{}`", row.server))
            .last_seen(format!("the client was answered {shown:?}"))),
    }
}

/// What a visit says about the way.
fn step(visit: &Visit) -> Option<Step> {
    match visit {
        Visit::Expected(call) | Visit::Unexpected(call, _) => Some(Step {
            ask: Some(call.ask),
            address: call.address.clone(),
            port: call.port,
            sni: call.sni.clone(),
        }),
        Visit::Refused {
            address, port, sni, ..
        } => Some(Step {
            ask: None,
            address: address.clone(),
            port: *port,
            sni: sni.clone(),
        }),
        Visit::Slammed { .. } => None,
    }
}

/// Where the home went; the same step twice in a row only once, unless it is the request itself.
fn went<'a>(visits: impl IntoIterator<Item = &'a Visit>) -> Vec<Step> {
    let mut way: Vec<Step> = Vec::new();
    for step in visits.into_iter().filter_map(step) {
        if step.ask == Some(Ask::Profile) || way.last() != Some(&step) {
            way.push(step);
        }
    }
    way
}

fn tell(went: &str, way: &[Step], should: &str, expected: &[Step]) -> String {
    let list = |steps: &[Step]| {
        let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
        if steps.is_empty() {
            "nowhere".to_owned()
        } else {
            steps.join(", ")
        }
    };
    format!("{went}: {}\n{should}: {}", list(way), list(expected))
}

/// The `Host` header of the request itself. Conduit puts the port into it that it dialled, also where the name has none:
/// there it must fail in just that way.
fn right_host(cast: &Cast, row: &Row, visits: &[Visit]) -> Result<()> {
    let expected = row.host.as_deref().unwrap_or_default();
    let calls = visits.iter().filter_map(|visit| match visit {
        Visit::Expected(call) if call.ask == Ask::Profile => Some(call),
        _ => None,
    });
    for call in calls {
        let host = call.host.as_deref().unwrap_or_default();
        let with_port = host == format!("{expected}:{}", call.port);
        let outcome = demand(
            host == expected,
            &format!("say `{expected}` in the Host header"),
            if with_port {
                "the Host header carries the port that was dialled".to_owned()
            } else {
                format!("the Host header was `{host}`")
            },
        );
        // A port that the name itself has belongs there.
        if expected.contains(':') {
            outcome?;
        } else {
            cast.known(&HOST_CARRIES_THE_PORT, outcome)?;
        }
    }
    Ok(())
}

/// E1, inbound. What others find of the home: its name leads to a document that delegates to a host and a port, with the
/// type and the lifetime that others insist on; who is there shows a certificate for the delegated name, and answers for the
/// server's name. Those who come without the document find the same at port 8448. "Resolving server names".
#[tokio::test(flavor = "multi_thread")]
async fn others_find_the_site_by_its_own_well_known() -> Outcome {
    federation(async |_, cast| {
        let name = &cast.site.name;
        let url = format!("https://{name}/.well-known/matrix/server");
        let what = || format!("read `{url}`");
        let answer = cast
            .site
            .http()
            .get(&url)
            .send()
            .await
            .or_blame(harness::Blame::Deployment, what)?;
        let status = answer.status().as_u16();
        let header = |name: &str| {
            let value = answer.headers().get(name);
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let (kind, cache) = (header("content-type"), header("cache-control"));
        let document: Value = answer
            .json()
            .await
            .or_blame(harness::Blame::Deployment, what)?;
        let delegated = format!("matrix.{name}:443");
        scenarios::must(
            status == 200
                && kind.starts_with("application/json")
                && cache.contains("max-age=")
                && document == json!({ "m.server": delegated }),
            "delegate to the Matrix host",
            format!("{status}, `{kind}`, `{cache}`: {document}"),
        )?;
        // As another machine of the lab would: by its resolver and its trust.
        for place in [format!("matrix.{name}:443"), format!("matrix.{name}:8448")] {
            let said = cast
                .site
                .host
                .shell(&format!(
                    "curl --silent --show-error --fail https://{place}/_matrix/key/v2/server"
                ))
                .await?;
            let keys: Value = serde_json::from_str(&said)
                .or_blame(harness::Blame::Product, || {
                    format!("read the keys at {place}")
                })?;
            demand(
                keys["server_name"] == **name,
                &format!("answer for `{name}` at {place}"),
                keys.to_string(),
            )?;
        }
        Ok(())
    })
    .await
}
