//! Questions and answers on loopback, for what no name server of the lab does by itself.

use fleet_preflight::dns::{Data, Kind, Names, NoAnswer, Resolver, read_resolv_conf};
use fleet_preflight::guard::Guard;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// A name server that answers as this function says; told whether it was asked over TCP.
fn serve(answer: impl Fn(&Message, bool) -> Message + Send + Sync + Clone + 'static) -> Resolver {
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = datagrams.local_addr().expect("an address");
    let streams = TcpListener::bind(address).expect("the same port");
    let over_udp = answer.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = datagrams.recv_from(&mut buffer) {
            let question = Message::from_vec(&buffer[..length]).expect("a question");
            let reply = over_udp(&question, false).to_vec().expect("an answer");
            datagrams.send_to(&reply, peer).expect("it is sent");
        }
    });
    std::thread::spawn(move || {
        for stream in streams.incoming() {
            let mut stream = stream.expect("a connection");
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a length");
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).expect("a question");
            let question = Message::from_vec(&question).expect("a question");
            let reply = answer(&question, true).to_vec().expect("an answer");
            let length = u16::try_from(reply.len()).expect("short");
            stream
                .write_all(&[&length.to_be_bytes()[..], &reply].concat())
                .expect("it is sent");
        }
    });
    Resolver::new(&[address], Guard::new(false, &[]))
}

fn reply(question: &Message, code: ResponseCode, records: Vec<Record>) -> Message {
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.response_code = code;
    reply.add_queries(question.queries.clone());
    reply.add_answers(records);
    reply
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn address(owner: &str, last: u8) -> Record {
    Record::from_rdata(
        name(owner),
        60,
        RData::A(A(Ipv4Addr::new(198, 18, 0, last))),
    )
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

#[test]
fn an_answer_that_does_not_fit_is_asked_for_again_over_tcp() {
    let resolver = serve(|question, stream| {
        let mut reply = reply(
            question,
            ResponseCode::NoError,
            if stream {
                vec![address("vale.test.", 7)]
            } else {
                Vec::new()
            },
        );
        reply.metadata.truncation = !stream;
        reply
    });
    let answer = resolver.ask("vale.test", Kind::A).expect("an address");
    assert_eq!(
        answer.addresses(),
        ["198.18.0.7"
            .parse::<std::net::IpAddr>()
            .expect("an address")]
    );
}

#[test]
fn an_alias_that_the_server_does_not_follow_is_followed() {
    let resolver = serve(|question, _| {
        let asked = question.queries[0].name().to_ascii();
        let records = match asked.as_str() {
            "matrix.vale.test." => vec![alias("matrix.vale.test.", "host.elsewhere.test.")],
            "host.elsewhere.test." => vec![address("host.elsewhere.test.", 9)],
            _ => Vec::new(),
        };
        reply(question, ResponseCode::NoError, records)
    });
    let answer = resolver
        .ask("matrix.vale.test", Kind::A)
        .expect("an address");
    assert_eq!(answer.aliases, ["host.elsewhere.test"]);
    assert_eq!(answer.records.len(), 1);
}

#[test]
fn aliases_that_go_round_in_a_circle_come_to_an_end() {
    let resolver = serve(|question, _| {
        let asked = question.queries[0].name().to_ascii();
        let other = if asked == "a.vale.test." {
            "b.vale.test."
        } else {
            "a.vale.test."
        };
        reply(question, ResponseCode::NoError, vec![alias(&asked, other)])
    });
    let error = resolver
        .ask("a.vale.test", Kind::A)
        .expect_err("it leads nowhere");
    assert!(matches!(error, NoAnswer::Malformed(_)), "{error}");
}

#[test]
fn records_of_other_names_in_an_answer_do_not_count() {
    let resolver = serve(|question, _| {
        reply(
            question,
            ResponseCode::NoError,
            vec![address("other.test.", 66)],
        )
    });
    let error = resolver.ask("vale.test", Kind::A).expect_err("it has none");
    assert_eq!(error, NoAnswer::NoData { alias: None });
}

#[test]
fn an_alias_that_leads_nowhere_is_named() {
    let resolver = serve(|question, _| {
        reply(
            question,
            ResponseCode::NXDomain,
            vec![alias("vale.test.", "gone.test.")],
        )
    });
    let error = resolver.ask("vale.test", Kind::A).expect_err("it has none");
    assert_eq!(
        error,
        NoAnswer::NoName {
            alias: Some("gone.test".to_owned())
        }
    );
}

#[test]
fn every_response_code_has_its_own_meaning() {
    for (code, expected) in [
        (ResponseCode::NoError, NoAnswer::NoData { alias: None }),
        (ResponseCode::NXDomain, NoAnswer::NoName { alias: None }),
        (ResponseCode::ServFail, NoAnswer::ServFail),
        (ResponseCode::Refused, NoAnswer::Refused),
        (
            ResponseCode::NotImp,
            NoAnswer::Code(ResponseCode::NotImp.to_string()),
        ),
    ] {
        let resolver = serve(move |question, _| reply(question, code, Vec::new()));
        assert_eq!(
            resolver.ask("vale.test", Kind::A).expect_err("no record"),
            expected
        );
    }
}

#[test]
fn another_server_is_asked_where_one_fails_but_not_where_it_knows() {
    let failing = serve(|question, _| reply(question, ResponseCode::ServFail, Vec::new()));
    let knowing = serve(|question, _| {
        reply(
            question,
            ResponseCode::NoError,
            vec![address("vale.test.", 7)],
        )
    });
    let denying = serve(|question, _| reply(question, ResponseCode::NXDomain, Vec::new()));
    let both = |first: &Resolver, second: &Resolver| {
        let servers: Vec<SocketAddr> = [first.servers(), second.servers()].concat();
        Resolver::new(&servers, Guard::new(false, &[])).ask("vale.test", Kind::A)
    };
    assert!(both(&failing, &knowing).is_ok());
    assert!(both(&denying, &knowing).is_err());
}

#[test]
fn the_address_of_production_is_not_asked_for() {
    let resolver = serve(|question, _| {
        reply(
            question,
            ResponseCode::NoError,
            vec![address("matrix.timmy.foundation.", 7)],
        )
    });
    let error = resolver
        .ask("matrix.timmy.foundation", Kind::A)
        .expect_err("it is refused");
    assert!(matches!(error, NoAnswer::Forbidden(_)), "{error}");
}

#[test]
fn name_servers_are_read_as_the_c_library_reads_them() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(
        file.path(),
        "# nameserver 9.9.9.9\nsearch vale.test\nnameserver 198.18.0.2\nnameserver\t::1 # here\nnameserver nonsense\n",
    )
    .expect("write it");
    let servers = read_resolv_conf(file.path()).expect("two");
    assert_eq!(
        servers,
        [
            "198.18.0.2:53".parse().expect("one"),
            "[::1]:53".parse::<SocketAddr>().expect("two")
        ]
    );
    std::fs::write(file.path(), "search vale.test\n").expect("write it");
    assert!(
        read_resolv_conf(file.path())
            .expect_err("none")
            .contains("no name server")
    );
}

#[test]
fn an_answer_of_a_family_is_enough_and_what_is_unknown_goes_before_what_is_absent() {
    struct Families(Result<(), NoAnswer>, Result<(), NoAnswer>);
    impl Names for Families {
        fn ask(&self, _: &str, kind: Kind) -> Result<fleet_preflight::dns::Answer, NoAnswer> {
            let (answer, address) = if kind == Kind::A {
                (&self.0, "198.18.0.7")
            } else {
                (&self.1, "2001:db8::7")
            };
            answer.clone().map(|()| fleet_preflight::dns::Answer {
                records: vec![Data::Address(address.parse().expect("an address"))],
                ..Default::default()
            })
        }
    }
    let none = || Err(NoAnswer::NoData { alias: None });
    assert_eq!(
        Families(Ok(()), none()).addresses("a").map(|all| all.len()),
        Ok(1)
    );
    assert_eq!(
        Families(Ok(()), Ok(())).addresses("a").map(|all| all.len()),
        Ok(2)
    );
    assert_eq!(
        Families(Ok(()), Err(NoAnswer::Timeout))
            .addresses("a")
            .map(|all| all.len()),
        Ok(1)
    );
    assert_eq!(
        Families(none(), Err(NoAnswer::Timeout)).addresses("a"),
        Err(NoAnswer::Timeout)
    );
    assert_eq!(
        Families(none(), none()).addresses("a"),
        Err(NoAnswer::NoData { alias: None })
    );
}
