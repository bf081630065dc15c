//! Links between agents by certificate: who is let in, who is believed, and what happens when certificates change. Real sockets, and
//! certificates as `cluster setup` makes them. Needs further loopback addresses, which Linux has.

#![cfg(target_os = "linux")]

mod lab;

use std::net::SocketAddr;
use std::time::Duration;

use gorgo::gateway::{Gateway, GatewayHandle, ReplicaConfig};
use gorgo::model::Part;
use gorgo::routing::ReplicaKind;
use gorgo::wire::Replicas;

use self::lab::{DAY_S, HERE, Knock, Lab, Visitor, member, metric, now, set};
use super::admin::get as admin_get;
use super::client::{Client, PLAIN, STREAM, chat, code, get, start, until, whole};
use super::keys::{KeyRing, with_key};
use super::mock::{Answer, Mock, REPLY, ROLE, Step, hello};

const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

fn peer_port(agent: &GatewayHandle) -> SocketAddr {
    agent.peer_listen().expect("a port for peers")
}

fn peer(name: &str, at: SocketAddr) -> ReplicaConfig {
    let url = format!("mtls://{at}");
    ReplicaConfig { kind: ReplicaKind::Peer, ..ReplicaConfig::new(name, &url, &format!("region-{name}")) }
}

/// An agent that knows `b`, which need not be there.
async fn alone(lab: &Lab) -> (Mock, GatewayHandle) {
    let engine = Mock::start(|_| hello()).await;
    let agent = member(lab, "a", &engine).await;
    let nowhere = SocketAddr::from((HERE, 1));
    agent.fleet().add(peer("b", nowhere)).unwrap();
    (engine, agent)
}

async fn health_reason(agent: &GatewayHandle, name: &str) -> String {
    for _ in 0..1000 {
        let document: Replicas = admin_get(agent, "/admin/v1/replicas").await;
        let found = document.replicas.into_iter().find(|replica| replica.name == name).expect("it is registered");
        if let Some(reason) = found.health_reason {
            return reason;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("`{name}` stays healthy");
}

#[tokio::test]
async fn agents_ask_and_forward_by_certificate_and_the_port_for_requests_tells_peers_nothing() {
    let lab = Lab::new();
    let busy = Mock::start(|_| Answer::events(&[ROLE]).then(Step::Hang)).await;
    let free = Mock::start(|_| hello()).await;
    let (a, b) = (member(&lab, "a", &busy).await, member(&lab, "b", &free).await);
    a.fleet().add(peer("b", peer_port(&b))).unwrap();
    b.fleet().add(peer("a", peer_port(&a))).unwrap();
    until("each other's", || a.healthy() == 2 && b.healthy() == 2).await;
    set(&a, "round-robin").await;
    let mut answered = Vec::new();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&a).await;
        let response = client.chat(STREAM).await;
        answered.push(response.headers()["x-gorgo-replica"].to_str().unwrap().to_owned());
        held.push((client, response));
    }
    answered.sort();
    assert_eq!(answered, ["a", "b"], "the engine and the peer");
    until("served there", || b.counts().ok == 1).await;
    assert_eq!(b.dispatched(), [("b".to_owned(), 1), ("a".to_owned(), 0)], "one hop");
    // From the address of a peer, and with its header: a client all the same.
    let mut client = Client::connect(&b).await;
    assert_eq!(code(client.send(get("/gorgo/v1/peer")).await.unwrap()).await, (404, "unknown_path".to_owned()));
    set(&b, "round-robin").await;
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let mut request = chat(STREAM);
        request.headers_mut().insert("x-gorgo-hop", "1".parse().unwrap());
        let response = Client::connect(&b).await.send(request).await.unwrap();
        replicas.push(response.headers()["x-gorgo-replica"].to_str().unwrap().to_owned());
    }
    replicas.sort();
    assert_eq!(replicas, ["a", "b"], "its header counts for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_finds_a_connection_that_is_open_already() {
    let lab = Lab::new();
    let engine = Mock::start(|_| hello()).await;
    let (a, b) = (member(&lab, "a", &engine).await, member(&lab, "b", &engine).await);
    a.fleet().add(peer("b", peer_port(&b))).unwrap();
    b.fleet().add(peer("a", peer_port(&a))).unwrap();
    until("healthy", || a.healthy() == 2).await;
    until("warm", || metric_now(&a, "gorgo_replica_idle_connections{replica=\"b\",region=\"region-b\"}") >= 4.0).await;
}

/// What the page of metrics says; the page is asked for in a thread of its own, so that a condition can be waited for.
fn metric_now(agent: &GatewayHandle, line: &str) -> f64 {
    let (address, line) = (agent.admin(), line.to_owned());
    std::thread::spawn(move || metric(address, &line)).join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_not_the_right_certificate_is_refused_and_counted() {
    let lab = Lab::new();
    let (_engine, a) = alone(&lab).await;
    let (door, other) = (peer_port(&a), Lab::new());
    let request = |node: &str| lab.request(Part::Agent, node, &[HERE]);
    let mut expired = request("b");
    (expired.not_before, expired.not_after) = (now() - 2 * DAY_S, now() - 60);
    let mut early = request("b");
    (early.not_before, early.not_after) = (now() + 60, now() + DAY_S);
    let mut foreign = request("b");
    foreign.identity = gorgo::model::Identity::new("another", Part::Agent, "b").unwrap();
    let cases = [
        ("no_certificate", Visitor::stranger(&lab)),
        ("unknown_ca", Visitor::with(&lab, other.issue(&other.request(Part::Agent, "b", &[HERE])))),
        ("expired", Visitor::with(&lab, lab.issue(&expired))),
        ("not_yet_valid", Visitor::with(&lab, lab.issue(&early))),
        ("wrong_address", Visitor::with(&lab, lab.issue(&request("b"))).from(ELSEWHERE)),
        ("wrong_address", Visitor::with(&lab, lab.issue(&lab.request(Part::Agent, "b", &[ELSEWHERE])))),
        ("unknown_peer", Visitor::with(&lab, lab.issue(&request("c")))),
        ("unknown_peer", Visitor::with(&lab, lab.issue(&request("a")))),
        ("wrong_address", Visitor::with(&lab, lab.issue(&lab.request(Part::Proxy, "b", &[ELSEWHERE])))),
        ("no_identity", Visitor::with(&lab, lab.issue(&foreign))),
        ("handshake", Visitor::with(&lab, lab.issue(&request("b"))).tls12()),
        ("handshake", Visitor::in_plain_text()),
    ];
    let mut counted: Vec<(&str, u64)> = Vec::new();
    for (cause, visitor) in cases {
        let refused = visitor.knock(door).await.map(|(_, answer)| answer.0);
        refused.expect_err(cause);
        match counted.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, count)) => *count += 1,
            None => counted.push((cause, 1)),
        }
        for (cause, count) in &counted {
            let line = format!("gorgo_peer_refusals_total{{cause=\"{cause}\"}}");
            until(&line, || metric_now(&a, &line) == *count as f64).await;
        }
    }
    let right = Visitor::with(&lab, lab.issue(&request("b")));
    let (_, (status, body)) = right.knock(door).await.expect("let in");
    assert!(status == 200 && body.contains("\"name\":\"a\""), "{status} {body}");
    let router = Visitor::with(&lab, lab.issue(&lab.request(Part::Proxy, "b", &[HERE])));
    assert_eq!(router.knock(door).await.expect("let in").1.0, 200, "a central router of the cluster");
}

#[tokio::test]
async fn a_handshake_that_stands_still_ends() {
    let lab = Lab::new();
    let (_engine, a) = alone(&lab).await;
    let silent = tokio::net::TcpStream::connect(peer_port(&a)).await.unwrap();
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(10), async {
        let mut silent = silent;
        tokio::io::AsyncReadExt::read(&mut silent, &mut byte).await
    });
    assert!(matches!(read.await.expect("closed in time"), Ok(0) | Err(_)));
}

#[tokio::test]
async fn the_agent_that_answers_has_to_be_the_one_that_is_wanted() {
    let lab = Lab::new();
    let engine = Mock::start(|_| hello()).await;
    let (a, c) = (member(&lab, "a", &engine).await, member(&lab, "c", &engine).await);
    a.fleet().add(peer("b", peer_port(&c))).unwrap();
    let reason = health_reason(&a, "b").await;
    assert!(reason.contains("it is gorgo://lab/agent/c, wanted gorgo://lab/agent/b"), "{reason}");

    let other = Lab::new();
    let impostor = member(&other, "d", &engine).await;
    a.fleet().add(peer("d", peer_port(&impostor))).unwrap();
    let reason = health_reason(&a, "d").await;
    assert!(reason.contains("invalid peer certificate"), "{reason}");
    assert_eq!(a.healthy(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_without_a_restart_and_half_a_file_is_not() {
    let lab = Lab::new();
    let (_engine, a) = alone(&lab).await;
    let visitor = Visitor::with(&lab, lab.issue(&lab.request(Part::Agent, "b", &[HERE])));
    let (mut before, _) = visitor.knock(peer_port(&a)).await.unwrap();
    let renewed = lab.issue(&lab.request(Part::Agent, "a", &[HERE]));
    let other_node = lab.issue(&lab.request(Part::Agent, "b", &[HERE]));
    let bad = [&renewed[..renewed.len() / 2], "", other_node.as_str()];
    for (tried, text) in bad.into_iter().enumerate() {
        lab.write("a", text);
        let refused = || metric_now(&a, "gorgo_certificate_renewals_total{outcome=\"refused\"}");
        let seen = refused();
        until("looked at", || refused() > seen).await;
        let (after, _) = visitor.knock(peer_port(&a)).await.unwrap();
        assert_eq!(after.shown, before.shown, "the one of before stays: {tried}");
    }
    lab.write("a", &renewed);
    until("renewed", || metric_now(&a, "gorgo_certificate_renewals_total{outcome=\"ok\"}") == 1.0).await;
    let (after, _) = visitor.knock(peer_port(&a)).await.unwrap();
    assert_ne!(after.shown, before.shown);
    assert_eq!(before.ask().await.expect("connections go on").0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_good_for_the_connections_that_it_opened_and_for_no_new_one() {
    let lab = Lab::new();
    let (_engine, a) = alone(&lab).await;
    let mut short = lab.request(Part::Agent, "b", &[HERE]);
    // Whole seconds, of which the certificate and the handshake need their part on a busy machine.
    short.not_after = now() + 5;
    let visitor = Visitor::with(&lab, lab.issue(&short));
    let (mut open, answer): (Knock, _) = visitor.knock(peer_port(&a)).await.expect("valid for some seconds");
    assert_eq!(answer.0, 200);
    until("expired", || now() > short.not_after).await;
    visitor.knock(peer_port(&a)).await.map(|_| ()).expect_err("no new one, by a ticket neither");
    let line = "gorgo_peer_refusals_total{cause=\"expired\"}";
    until(line, || metric_now(&a, line) == 1.0).await;
    assert_eq!(open.ask().await.expect("it goes on").0, 200);
}

#[tokio::test]
async fn clients_leave_peers_their_room_and_peers_that_find_none_are_told_so_soon() {
    let lab = Lab::new();
    let engine = Mock::start(|_| hello()).await;
    lab.write("a", &lab.issue(&lab.request(Part::Agent, "a", &[HERE])));
    let mut config = lab.config("a", &engine, "a");
    config.limits.max_connections = 1;
    let a = super::client::start(config).await;
    a.fleet().add(peer("b", SocketAddr::from((HERE, 1)))).unwrap();
    let visitor = Visitor::with(&lab, lab.issue(&lab.request(Part::Agent, "b", &[HERE])));
    let client = tokio::net::TcpStream::connect(a.listen()).await.unwrap();
    let next = tokio::net::TcpStream::connect(a.listen()).await.unwrap();
    let (first, answer) = visitor.knock(peer_port(&a)).await.expect("let in, whatever clients do");
    assert_eq!(answer.0, 200);
    visitor.knock(peer_port(&a)).await.map(|_| ()).expect_err("the only place is taken");
    let page = super::admin::text(&a, "/metrics").await;
    assert!(page.contains("gorgo_peer_refusals_total{cause=\"no_room\"} 1"), "{page}");
    // Who waits for a place does not hold up the end, and who has one is waited for.
    let (waiting, drained) = tokio::join!(visitor.knock(peer_port(&a)), async {
        drop((client, next));
        a.drain().await
    });
    waiting.map(|_| ()).expect_err("it ends before it gets in");
    assert!(drained, "idle connections end at once");
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_taken_off_the_list_is_out() {
    let lab = Lab::new();
    let (_engine, a) = alone(&lab).await;
    let visitor = Visitor::with(&lab, lab.issue(&lab.request(Part::Agent, "b", &[HERE])));
    let (mut open, answer) = visitor.knock(peer_port(&a)).await.unwrap();
    assert_eq!(answer.0, 200);
    a.fleet().remove("b");
    let (status, body) = open.ask().await.unwrap();
    assert!(status == 403 && body.contains("unknown_peer"), "{status} {body}");
    visitor.knock(peer_port(&a)).await.map(|_| ()).expect_err("nor does it come in again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_opens_nothing_more_and_what_it_had_opened_is_closed() {
    let lab = Lab::new();
    let (_engine, a) = alone(&lab).await;
    let thief = Visitor::with(&lab, lab.noted(Part::Agent, "b"));
    let (mut open, answer) = thief.knock(peer_port(&a)).await.expect("nobody knows yet");
    assert_eq!(answer.0, 200);
    lab.noted(Part::Agent, "b"); // renewed since: what was stolen is the one before
    lab.revoke("b");
    let b = Visitor::with(&lab, lab.noted(Part::Agent, "b"));
    let (mut of_b, _) = b.knock(peer_port(&a)).await.expect("a new one for the node itself");
    lab.write("a", &lab.noted(Part::Agent, "a"));
    let line = "gorgo_peer_refusals_total{cause=\"revoked\"}";
    until("the open connection is refused", || metric_now(&a, line) == 1.0).await;
    open.ask().await.map(|_| ()).expect_err("closed");
    thief.knock(peer_port(&a)).await.map(|_| ()).expect_err("nor does it come in again");
    until("and counted", || metric_now(&a, line) == 2.0).await;
    assert_eq!(of_b.ask().await.expect("it goes on").0, 200);
    assert_eq!(b.knock(peer_port(&a)).await.expect("let in").1.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_shows_a_revoked_certificate_gets_no_request_until_it_has_a_new_one() {
    let lab = Lab::new();
    let engine = Mock::start(|_| hello()).await;
    lab.write("b", &lab.noted(Part::Agent, "b"));
    let b = super::client::start(lab.config("b", &engine, "b")).await;
    let a = member(&lab, "a", &engine).await;
    a.fleet().add(peer("b", peer_port(&b))).unwrap();
    b.fleet().add(peer("a", peer_port(&a))).unwrap();
    until("both", || a.healthy() == 2).await;
    lab.revoke("b");
    let renewed = lab.noted(Part::Agent, "b");
    lab.write("a", &lab.noted(Part::Agent, "a"));
    let mut reason = String::new();
    for _ in 0..400 {
        reason = health_reason(&a, "b").await;
        if reason.contains("certificate has been revoked") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(reason.contains("certificate has been revoked"), "{reason}");
    lab.write("b", &renewed);
    until("both again", || a.healthy() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_another_ca_or_one_that_has_the_own_certificate_is_not_taken() {
    let (lab, other) = (Lab::new(), Lab::new());
    let (_engine, a) = alone(&lab).await;
    other.noted(Part::Agent, "b");
    other.revoke("b");
    let foreign = other.noted(Part::Agent, "a");
    let list = |text: &str| text[text.find("-----BEGIN X509 CRL").expect("a list")..].to_owned();
    let own = lab.noted(Part::Agent, "a");
    lab.revoke("a");
    let suicidal = own.clone() + &list(&lab.noted(Part::Agent, "c"));
    for (tried, text) in [own + &list(&foreign), suicidal].iter().enumerate() {
        lab.write("a", text);
        let line = "gorgo_certificate_renewals_total{outcome=\"refused\"}";
        let seen = metric_now(&a, line);
        until("looked at", || metric_now(&a, line) > seen + 1.0).await;
        assert_eq!(metric_now(&a, "gorgo_certificate_renewals_total{outcome=\"ok\"}"), 0.0, "{tried}");
    }
}

#[tokio::test]
async fn what_does_not_fit_together_is_told_at_the_start() {
    let lab = Lab::new();
    let engine = Mock::start(|_| hello()).await;
    let with = |request| {
        lab.write("odd", &lab.issue(&request));
        lab.config("a", &engine, "odd")
    };
    let cases = [
        (lab.request(Part::Agent, "b", &[HERE]), "certificate of gorgo://lab/agent/b, and this is gorgo://lab/agent/a"),
        (lab.request(Part::Proxy, "a", &[HERE]), "certificate of gorgo://lab/proxy/a, and this is gorgo://lab/agent/a"),
    ];
    for (request, wanted) in cases {
        let error = Gateway::start(with(request)).await.map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains(wanted), "{error:#}");
    }
    let mut missing = lab.config("a", &engine, "missing");
    let error = Gateway::start(missing.clone()).await.map(|_| ()).unwrap_err();
    assert!(format!("{error:#}").contains("failed to read"), "{error:#}");
    missing.mutual = None;
    let plain = start(missing).await;
    let error = plain.fleet().add(peer("b", SocketAddr::from((HERE, 1)))).unwrap_err();
    assert!(format!("{error:#}").contains("needs a certificate of the cluster"), "{error:#}");
    let a = member(&lab, "a", &engine).await;
    let by_address = ReplicaConfig { kind: ReplicaKind::Peer, ..ReplicaConfig::new("b", "http://127.0.0.1:1", "r") };
    let error = a.fleet().add(by_address).unwrap_err();
    assert!(format!("{error:#}").contains("wanted `mtls://`"), "{error:#}");
    let mut client = Client::connect(&a).await;
    assert!(whole(client.chat(STREAM).await.into_body()).await.1, "it serves its clients");
}

/// The router of the cluster that passes a request on has asked for its key already, and knows itself by its certificate alone.
#[tokio::test]
async fn a_client_shows_its_key_and_a_router_of_the_cluster_its_certificate() {
    let (lab, ring) = (Lab::new(), KeyRing::new());
    let key = ring.add("ann", &[]);
    let engine = Mock::start(|_| Answer::json(200, REPLY)).await;
    lab.write("a", &lab.issue(&lab.request(Part::Agent, "a", &[HERE])));
    let a = start(ring.guard(lab.config("a", &engine, "a"))).await;
    a.fleet().add(peer("b", SocketAddr::from((HERE, 1)))).unwrap();

    for claimed in [false, true] {
        let mut request = chat(PLAIN);
        if claimed {
            request.headers_mut().insert("x-gorgo-hop", "1".parse().unwrap());
        }
        let refused = Client::connect(&a).await.send(request).await.unwrap();
        assert_eq!(code(refused).await, (401, "missing_api_key".to_owned()), "a peer's header is no certificate");
    }
    let refused = Client::connect(&a).await.send(with_key(chat(PLAIN), "gorgo-0")).await.unwrap();
    assert_eq!(code(refused).await, (401, "invalid_api_key".to_owned()));
    assert_eq!(Client::connect(&a).await.send(with_key(chat(PLAIN), &key)).await.unwrap().status(), 200);
    assert_eq!(engine.requests().len(), 1, "nothing that was refused");

    let door = peer_port(&a);
    for part in [Part::Agent, Part::Proxy] {
        let router = Visitor::with(&lab, lab.issue(&lab.request(part, "b", &[HERE])));
        let (mut knock, _) = router.knock(door).await.expect("let in");
        let mut request = chat(PLAIN);
        request.headers_mut().insert("x-gorgo-hop", "1".parse().unwrap());
        let (status, body) = knock.send(request).await.unwrap();
        assert_eq!((status, body.as_str()), (200, REPLY), "{part:?} without a key");
    }
    let other = Lab::new();
    let strangers = [
        Visitor::stranger(&lab),
        Visitor::in_plain_text(),
        Visitor::with(&lab, other.issue(&other.request(Part::Agent, "b", &[HERE]))),
        Visitor::with(&lab, lab.issue(&lab.request(Part::Agent, "c", &[HERE]))),
    ];
    for stranger in strangers {
        stranger.knock(door).await.map(|_| ()).expect_err("no key opens this door");
    }
    assert_eq!(engine.requests().len(), 3);
}

/// The whole way: a client with a key at one agent, served by the other, which asks for keys as well.
#[tokio::test]
async fn a_forward_is_served_by_a_peer_that_does_not_know_the_clients_key() {
    let lab = Lab::new();
    let (here, there) = (KeyRing::new(), KeyRing::new());
    let key = here.add("ann", &[]);
    there.add("bob", &[]);
    let (busy, free) = (Mock::start(|_| hello()).await, Mock::start(|_| hello()).await);
    let guarded = |name: &str, engine: &Mock, ring: &KeyRing| {
        lab.write(name, &lab.issue(&lab.request(Part::Agent, name, &[HERE])));
        start(ring.guard(lab.config(name, engine, name)))
    };
    let a = guarded("a", &busy, &here).await;
    let b = guarded("b", &free, &there).await;
    a.fleet().add(peer("b", peer_port(&b))).unwrap();
    b.fleet().add(peer("a", peer_port(&a))).unwrap();
    until("each other's", || a.healthy() == 2 && b.healthy() == 2).await;
    set(&a, "round-robin").await;
    let mut answered = Vec::new();
    for _ in 0..2 {
        let response = Client::connect(&a).await.send(with_key(chat(STREAM), &key)).await.unwrap();
        assert_eq!(response.status(), 200);
        answered.push(response.headers()["x-gorgo-replica"].to_str().unwrap().to_owned());
        assert!(whole(response.into_body()).await.1);
    }
    answered.sort();
    assert_eq!(answered, ["a", "b"]);
    let directly = Client::connect(&b).await.send(with_key(chat(STREAM), &key)).await.unwrap();
    assert_eq!(code(directly).await, (401, "invalid_api_key".to_owned()), "on its port for clients that key is none");
}
