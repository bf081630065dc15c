//! The central router on a node: put there, used, looked at, changed, taken away.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use insta::assert_snapshot;
use serde_json::Value;

use super::Ran;
use super::local::Ended;

/// Two nodes that serve.
fn cluster() -> Ended {
    let user = Ended::new();
    let launched = user.gorgo("launch east eu --type a100-40 --region us-east-1 europe-central-1 --yes --wait");
    assert_eq!(launched.code, Some(0), "{}", launched.err);
    let set_up = user.gorgo("cluster setup");
    assert_eq!(set_up.code, Some(0), "{}", set_up.err);
    user
}

fn good(ran: Ran) -> Ran {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}

fn json(ran: Ran) -> Value {
    serde_json::from_str(&good(ran).out).expect("JSON")
}

/// A port of a node, by its tag.
fn port(user: &Ended, node: usize, name: &str) -> String {
    let status = json(user.gorgo("status --json"));
    status["nodes"][node]["instance"]["tags"][format!("gorgo-port-{name}")].as_str().expect("a port").to_owned()
}

/// The whole answer to a streamed completion over a fresh connection.
fn stream(authority: &str) -> String {
    let body = r#"{"model":"mistral-7b","prompt":"hello","max_tokens":4,"stream":true}"#;
    let mut stream = TcpStream::connect(authority).expect("the proxy listens");
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: gorgo\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_router_is_put_on_a_node_serves_and_goes() {
    let user = cluster();
    let nothing = user.gorgo("proxy --remote eu --service proxy status");
    assert_eq!(nothing.code, Some(4), "{nothing:?}");
    assert_snapshot!(nothing.err, @"
    error: `eu` has no proxy

    hint: `gorgo proxy deploy eu` puts one there and starts it
    ");
    let planned = good(user.gorgo("proxy deploy eu --dry-run"));
    assert!(planned.out.contains("install gorgo-proxy.service"), "{planned:?}");
    assert_eq!(user.gorgo("proxy --remote eu --service proxy status").code, Some(4), "a dry run does nothing");

    let deployed = good(user.gorgo("proxy deploy eu --strategy least-request --max-concurrent 50"));
    let at = port(&user, 1, "proxy");
    assert_eq!(deployed.out, format!("requests  http://127.0.0.1:{at}\n"));
    let answer = stream(&format!("127.0.0.1:{at}"));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("data: [DONE]"), "{answer}");
    assert!(answer.to_lowercase().contains("x-gorgo-strategy: least-request"), "{answer}");

    let status = json(user.gorgo("proxy --remote eu status --json"));
    assert_eq!((status["strategy"].as_str(), status["max_concurrent"].as_u64()), (Some("least-request"), Some(50)));
    assert_eq!((status["replicas"]["healthy"].as_u64(), status["requests"]["ok"].as_u64()), (Some(2), Some(1)));
    let servers = json(user.gorgo("proxy servers --json --remote eu"));
    let kinds: Vec<_> =
        servers["replicas"].as_array().expect("a list").iter().map(|it| it["engine"].as_str()).collect();
    assert_eq!(kinds, [Some("agent"), Some("agent")]);

    let again = good(user.gorgo("proxy deploy eu --strategy least-request --max-concurrent 50"));
    assert!(again.err.contains("nothing to do"), "{again:?}");
    let set_up = good(user.gorgo("cluster setup"));
    assert!(set_up.err.contains("nothing to do"), "it belongs to the cluster: {set_up:?}");
    assert_eq!(json(user.gorgo("proxy --remote eu status --json"))["pid"], status["pid"], "nothing was restarted");

    let other = user.gorgo("proxy deploy eu --strategy random");
    assert_eq!(other.code, Some(2), "it asks before it restarts what is in use: {other:?}");
    assert!(
        other.err.contains("restart gorgo-proxy.service on eu: it finishes what it has in flight first"),
        "{other:?}"
    );
    assert_eq!(user.gorgo("proxy deploy eu --remove").code, Some(2), "it asks first");
    good(user.gorgo("proxy deploy eu --remove --yes"));
    assert!(TcpStream::connect(format!("127.0.0.1:{at}")).is_err(), "nobody listens any more");
    let gone = good(user.gorgo("cluster setup"));
    assert!(gone.err.contains("nothing to do"), "{gone:?}");
    let once_more = good(user.gorgo("proxy deploy eu --remove --yes"));
    assert!(once_more.err.contains("nothing to do"), "{once_more:?}");
}

#[test]
fn the_commands_for_a_proxy_work_on_a_node_s_proxy_and_agent() {
    let user = cluster();
    let agent = good(user.gorgo("proxy --remote east status"));
    assert!(agent.err.contains("east: agent") && agent.out.contains("predictive"), "{agent:?}");
    good(user.gorgo("proxy deploy east"));
    let proxy = good(user.gorgo("proxy --remote east status"));
    assert!(proxy.err.contains("east: proxy") && !proxy.out.contains("gorgo-v1"), "{proxy:?}");
    stream(&format!("127.0.0.1:{}", port(&user, 0, "proxy")));
    for read in ["policy", "tune", "latency", "prefix-stats", "metrics", "explain"] {
        for service in ["proxy", "agent"] {
            let read = good(user.gorgo(&format!("proxy {read} --remote east --service {service}")));
            assert!(!read.out.is_empty(), "{read:?}");
        }
    }
    good(user.gorgo("proxy --remote east policy power-of-two"));
    good(user.gorgo("proxy --remote east tune --max-concurrent 7"));
    good(user.gorgo("proxy --remote east clear-cache"));
    good(user.gorgo("proxy --remote east servers drain eu"));
    let status = json(user.gorgo("proxy --remote east status --json"));
    assert_eq!((status["strategy"].as_str(), status["max_concurrent"].as_u64()), (Some("power-of-two"), Some(7)));
    assert_eq!(status["replicas"]["draining"].as_u64(), Some(1));
    let shown = user.gorgo("proxy --remote east stop --dry-run");
    assert_eq!(shown.out, "stop gorgo-proxy.service on east\n");
    good(user.gorgo("proxy --remote east stop"));
    let stopped = user.gorgo("proxy --remote east status");
    assert_eq!(stopped.code, Some(1));
    assert_snapshot!(stopped.err, @"
    error: gorgo-proxy.service is installed on `east` and does not run

    hint: `gorgo cluster logs east --service proxy` may tell why; `gorgo proxy deploy east` puts one there and starts it
    ");
    let again = good(user.gorgo("proxy deploy east"));
    assert!(again.err.contains("start gorgo-proxy.service"), "{again:?}");
    good(user.gorgo("cluster down --yes"));
    assert_eq!(user.gorgo("proxy --remote east status").code, Some(4));
    let set_up = good(user.gorgo("cluster setup --dry-run"));
    assert!(!set_up.out.contains("gorgo-proxy"), "down forgets it: {set_up:?}");
}

#[test]
fn what_makes_no_sense_is_told() {
    let user = Ended::new();
    good(user.gorgo("launch east --type a10 --region us-east-1 --yes"));
    let agent = port(&user, 0, "agent");
    let taken = format!("proxy deploy east --listen 127.0.0.1:{agent}");
    let cases = [
        ("proxy deploy west", 4, "cluster `gorgo` has no node `west`"),
        ("proxy deploy east --strategy gorgoo", 2, "--strategy: unknown strategy `gorgoo`"),
        ("proxy deploy east --listen 127.0.0.1:0", 2, "--listen: port 0 is any free one"),
        (&taken, 2, "of `east` is that of the agent"),
        ("proxy deploy east --listen 8.8.8.8:9000", 1, "its proxy would take requests at 8.8.8.8:9000"),
        ("proxy --remote east start --replica name=a,url=http://a,region=r", 2, "`gorgo proxy deploy NAME` puts it"),
        ("proxy deploy east --remote east", 2, "name the node behind `deploy`"),
        ("proxy --service agent status", 2, "no node is named"),
        ("proxy --remote west status", 4, "has no node `west`"),
        ("proxy --remote east status", 4, "`east` has neither proxy nor agent"),
        ("proxy --remote east status --admin 127.0.0.1:1", 4, "`east` has neither proxy nor agent"),
    ];
    for (line, code, message) in cases {
        let ran = user.gorgo(line);
        assert!(ran.code == Some(code) && ran.err.contains(message), "{line}: {ran:?}");
    }
}
