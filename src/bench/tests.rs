//! The load generator against a small server that does what each session's name says.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::body::BodyFormat;
use super::client::{Client, Target};
use super::doors::{Door, Doors};
use super::play::{Played, Player};
use super::tally::Tally;
use crate::gateway::clock::Clock;
use crate::inference::{Dialect, prompt};
use crate::model::geo::Coordinates;
use crate::report::{Outcome, Sample};
use crate::workload::{Arrivals, Home, Plan, PlanOptions, Session, Step, Trace, build};

/// Pause of the server before the first token and between tokens.
const PAUSE: Duration = Duration::from_millis(20);

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What the server saw: session and prompt, in order of arrival; prompts answered, in order of their ends; where clients said they were.
#[derive(Default)]
struct Log {
    arrived: Vec<(String, String)>,
    answered: Vec<String>,
    places: Vec<Option<String>>,
}

struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let shared = log.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let log = shared.clone();
                let service = service_fn(move |request| answer(request, log.clone()));
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, log }
    }

    fn target(&self) -> Target {
        Target {
            url: format!("http://{}", self.address),
            key: None,
            timeout: Duration::from_secs(20),
            ignore_eos: true,
            warm: 1,
        }
    }
}

/// A piece of a reply: sent after a pause, or the connection breaks there.
enum Piece {
    Now(String),
    Later(String),
    Break,
    Hang,
}

async fn answer(request: Request<Incoming>, log: Arc<Mutex<Log>>) -> Result<Response<Body>, Infallible> {
    let session = request.headers()["x-session-affinity"].to_str().unwrap().to_owned();
    let place = request.headers().get("x-gorgo-client-location").map(|place| place.to_str().unwrap().to_owned());
    log.lock().unwrap().places.push(place);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let parsed = prompt::parse(Dialect::Chat, &body).unwrap();
    let text = String::from_utf8(parsed.canonical().flatten().copied().collect()).unwrap();
    log.lock().unwrap().arrived.push((session.clone(), text.clone()));
    let kind = session.split('-').next().unwrap_or_default();
    if let Ok(status) = kind.parse::<u16>() {
        let object = Bytes::from_static(br#"{"error":{"message":"no engine","code":"none_healthy"}}"#);
        let frames = (status == 503).then(|| Ok(Frame::data(object)));
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        return Ok(Response::builder().status(status).body(body).unwrap());
    }
    let pieces = pieces(kind, parsed.max_tokens.unwrap());
    let stream = futures_util::stream::iter(pieces).then(move |piece| {
        let (log, text) = (log.clone(), text.clone());
        async move {
            match piece {
                Piece::Now(data) => Ok(Frame::data(Bytes::from(data))),
                Piece::Later(data) => {
                    tokio::time::sleep(PAUSE).await;
                    if data.contains("[DONE]") {
                        log.lock().unwrap().answered.push(text);
                    }
                    Ok(Frame::data(Bytes::from(data)))
                }
                Piece::Break => Err(std::io::Error::other("broken on purpose")),
                Piece::Hang => std::future::pending().await,
            }
        }
    });
    let response = Response::builder()
        .header("content-type", "text/event-stream")
        .header("x-gorgo-replica", "r1")
        .header("x-gorgo-region", "us-east-1")
        .header("x-gorgo-strategy", "round-robin");
    Ok(response.body(StreamBody::new(stream).boxed_unsync()).unwrap())
}

fn pieces(kind: &str, tokens: u32) -> Vec<Piece> {
    let event = |json: &str| format!("data: {json}\n\n");
    let mut pieces = vec![
        Piece::Now(event(r#"{"choices":[{"delta":{"role":"assistant"}}]}"#)),
        Piece::Now(": keep-alive\n\n".to_owned()),
    ];
    let token = event(r#"{"choices":[{"delta":{"content":"x"}}]}"#);
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    match kind {
        "error" => pieces.push(Piece::Later(event(r#"{"error":{"message":"gone"}}"#))),
        "empty" => pieces.push(Piece::Later(event("[DONE]"))),
        "cut" => pieces.push(Piece::Later(token)),
        "break" => pieces.extend([Piece::Later(token), Piece::Break]),
        "hang" => pieces.extend([Piece::Later(token), Piece::Hang]),
        _ => {
            pieces.extend((0..tokens).map(|_| Piece::Later(token.clone())));
            pieces.push(Piece::Later(event(usage) + &event("[DONE]")));
        }
    }
    pieces
}

/// A session of literal prompts `id/0`, `id/1`, ….
fn session(id: &str, start_ms: f64, steps: usize, think_ms: f64) -> Session {
    let step = |place: usize| Step {
        think_ms: if place == 0 { 0.0 } else { think_ms },
        input_tokens: 9,
        output_tokens: 3,
        blocks: Arc::default(),
        text: Some(format!("{id}/{place}").into()),
    };
    Session { id: id.into(), start_ms, steps: (0..steps).map(step).collect() }
}

fn player(server: &Server, sessions: Vec<Session>, concurrency: Option<u32>) -> Player {
    let clock = Clock::start();
    let format = BodyFormat { dialect: Dialect::Chat, model: "m".into(), block_size: 16, seed: 1 };
    Player {
        doors: Doors::one(Arc::new(Client::new(&server.target(), format, clock).unwrap()), None),
        plan: Arc::new(Plan { block_size: 16, sessions, concurrency }),
        clock,
        tally: Arc::<Tally>::default(),
        from_ms: 0.0,
        to_ms: f64::INFINITY,
        drain: Duration::from_secs(30),
        stop: CancellationToken::new(),
    }
}

async fn play_one(kind: &str) -> Sample {
    let server = Server::start().await;
    let mut played = player(&server, vec![session(kind, 0.0, 1, 0.0)], None).play().await;
    assert_eq!(played.samples.len(), 1, "{kind}");
    played.samples.remove(0)
}

#[tokio::test]
async fn a_reply_is_timed_from_content_to_content() {
    let sample = play_one("ok").await;
    assert_eq!(sample.outcome, Outcome::Ok);
    // The role and the comment come at once; only the content after the pause counts.
    assert!(sample.ttft_ms().unwrap() >= 20.0, "{sample:?}");
    assert_eq!(sample.gaps_ms.len(), 2);
    // Three pauses until the last token, however late the first ones were noticed.
    assert!(sample.e2e_ms().unwrap() >= 60.0, "{sample:?}");
    let gaps: f64 = sample.gaps_ms.iter().map(|gap| f64::from(*gap)).sum();
    assert!((sample.ttft_ms().unwrap() + gaps - sample.e2e_ms().unwrap()).abs() < 0.1, "{sample:?}");
    assert_eq!((sample.prompt_tokens, sample.cached_tokens, sample.output_tokens), (9, Some(4), 3));
    assert_eq!((sample.replica.as_deref(), sample.region.as_deref()), (Some("r1"), Some("us-east-1")));
}

#[tokio::test]
async fn failures_are_told_apart() {
    let cases = [
        ("429", Outcome::Refused("status 429".into())),
        ("503", Outcome::Refused("503 none_healthy".into())),
        ("500", Outcome::Failed("status 500".into())),
        ("404", Outcome::Failed("status 404".into())),
        ("error", Outcome::Failed("error event".into())),
        ("empty", Outcome::Failed("no output".into())),
        ("cut", Outcome::Failed("cut stream".into())),
        ("break", Outcome::Failed("broken stream".into())),
    ];
    for (kind, expected) in cases {
        assert_eq!(play_one(kind).await.outcome, expected, "{kind}");
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_is_a_connect_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = Server { address, log: Arc::default() };
    let played = player(&server, vec![session("x", 0.0, 2, 0.0)], None).play().await;
    assert_eq!(played.samples.len(), 2, "a user would try the next turn");
    assert!(played.samples.iter().all(|sample| sample.outcome == Outcome::Failed("connect".into())));
}

#[tokio::test]
async fn a_silent_server_runs_into_the_timeout() {
    let server = Server::start().await;
    let mut player = player(&server, vec![session("hang", 0.0, 1, 0.0)], None);
    let format = BodyFormat { dialect: Dialect::Chat, model: "m".into(), block_size: 16, seed: 1 };
    let target = Target { timeout: Duration::from_millis(200), ..server.target() };
    player.doors = Doors::one(Arc::new(Client::new(&target, format, player.clock).unwrap()), None);
    let played = player.play().await;
    assert_eq!(played.samples[0].outcome, Outcome::Failed("timeout".into()));
}

/// Position of a session's prompts among the arrivals of the log.
fn prompts_of(log: &Log, session: &str) -> Vec<String> {
    log.arrived.iter().filter(|(id, _)| id == session).map(|(_, prompt)| prompt.clone()).collect()
}

#[tokio::test]
async fn a_turn_waits_for_the_reply_before_and_for_its_think_time() {
    let server = Server::start().await;
    let sessions = (0..8).map(|n| session(&format!("ok-{n}"), f64::from(n) * 5.0, 3, 15.0)).collect();
    let played = player(&server, sessions, None).play().await;
    assert!(played.samples.iter().all(Sample::ok), "{:?}", played.samples);
    assert_eq!(played.samples.len(), 24);
    for pair in played.samples.chunks(3).flat_map(|session| session.windows(2)) {
        let pause = pair[1].sent.since_ms(pair[0].end);
        assert!(pause >= 15.0, "next turn {pause} ms after the reply");
        assert_eq!(pair[1].intended, pair[0].end.plus_ms(15.0));
    }
    let log = server.log.lock().unwrap();
    for n in 0..8 {
        let id = format!("ok-{n}");
        assert_eq!(prompts_of(&log, &id), [format!("{id}/0"), format!("{id}/1"), format!("{id}/2")]);
    }
}

#[tokio::test]
async fn an_open_loop_does_not_wait_for_replies() {
    let server = Server::start().await;
    let starts = [0.0, 10.0, 20.0, 30.0];
    let sessions = starts.iter().enumerate().map(|(n, start)| session(&format!("ok-{n}"), *start, 1, 0.0)).collect();
    let played = player(&server, sessions, None).play().await;
    for (sample, start) in played.samples.iter().zip(starts) {
        assert_eq!(sample.intended.ms(), start);
        assert!(sample.sent >= sample.intended, "never early");
    }
    assert_eq!(played.lag_ms.len(), 4);
    // All four were sent before any of the 80 ms long replies could end, unless this machine stood still.
    let first_end = played.samples.iter().map(|sample| sample.end).min().unwrap();
    let lag = played.lag_ms.iter().copied().fold(0.0, f64::max);
    assert!(played.samples.iter().all(|sample| sample.sent < first_end) || lag > 40.0);
}

#[tokio::test]
async fn each_group_of_clients_has_its_door_and_every_sample_tells_it() {
    let servers = [Server::start().await, Server::start().await];
    let sessions = (0..6).map(|n| session(&format!("ok-{n}"), 0.0, 2, 0.0)).collect();
    let player = player(&servers[0], sessions, None);
    let format = BodyFormat { dialect: Dialect::Chat, model: "m".into(), block_size: 16, seed: 1 };
    let place = Coordinates::parse("48.9,2.4").unwrap();
    let door = |index: usize| {
        let client = Client::new(&servers[index].target(), format.clone(), player.clock).unwrap();
        let client = Arc::new(if index == 1 { client.located(place) } else { client });
        Door { client, entry: Some(format!("door {index}").into()), home: Some("us-east-1".into()) }
    };
    let homes = [0, 1, 1, 0, 1, 0].map(Home);
    let doors = Doors::by_group(vec![door(0), door(1)], homes.to_vec());
    let played = Player { doors, ..player.clone() }.play().await;
    let entries: Vec<_> = played.samples.iter().map(|sample| sample.entry.as_deref().unwrap()).collect();
    let wanted: Vec<_> =
        homes.iter().flat_map(|home| [format!("door {}", home.0), format!("door {}", home.0)]).collect();
    assert_eq!(entries, wanted);
    assert!(played.samples.iter().all(|sample| sample.ok() && sample.home.as_deref() == Some("us-east-1")));
    for (index, server) in servers.iter().enumerate() {
        let log = server.log.lock().unwrap();
        let mut seen: Vec<_> = log.arrived.iter().map(|(session, _)| session.as_str()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, if index == 0 { ["ok-0", "ok-3", "ok-5"] } else { ["ok-1", "ok-2", "ok-4"] });
        let place = (index == 1).then(|| "48.9,2.4".to_owned());
        assert!(log.places.iter().all(|found| *found == place), "{:?}", log.places);
    }
}

#[tokio::test]
async fn a_closed_loop_keeps_its_number_of_sessions() {
    let server = Server::start().await;
    let sessions = (0..9).map(|n| session(&format!("ok-{n}"), 0.0, 2, 0.0)).collect();
    let played = player(&server, sessions, Some(3)).play().await;
    assert_eq!(played.samples.len(), 18);
    for sample in &played.samples {
        let same_instant =
            played.samples.iter().filter(|other| other.sent <= sample.sent && sample.sent < other.end).count();
        assert!(same_instant <= 3, "{same_instant} under way at once");
    }
}

#[tokio::test]
async fn a_failed_turn_does_not_end_its_session() {
    let server = Server::start().await;
    let played = player(&server, vec![session("500", 0.0, 3, 0.0)], None).play().await;
    assert_eq!(played.samples.len(), 3);
}

#[tokio::test]
async fn warm_up_is_marked_by_the_start_of_the_session() {
    let server = Server::start().await;
    let sessions = vec![session("ok-a", 0.0, 3, 0.0), session("ok-b", 60.0, 1, 0.0)];
    let played = Player { from_ms: 50.0, ..player(&server, sessions, None) }.play().await;
    // The later turns of the first session are sent inside the window and still belong to the warm-up.
    assert_eq!(played.samples.iter().map(|sample| sample.measured).collect::<Vec<_>>(), [false, false, false, true]);
}

fn outcomes(played: &Played) -> Vec<&Outcome> {
    played.samples.iter().map(|sample| &sample.outcome).collect()
}

#[tokio::test]
async fn stopping_gives_up_what_is_under_way_and_keeps_what_was_measured() {
    let server = Server::start().await;
    let sessions = vec![session("ok-a", 0.0, 1, 0.0), session("hang-b", 0.0, 2, 0.0), session("ok-c", 1e9, 1, 0.0)];
    let player = player(&server, sessions, None);
    let (stop, tally) = (player.stop.clone(), player.tally.clone());
    let running = tokio::spawn(player.play());
    let ended_one = async {
        while tally.progress().ended < 1 || tally.progress().sent < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended_one).await.expect("the first reply comes");
    stop.cancel();
    let played = tokio::time::timeout(Duration::from_secs(20), running).await.expect("it ends at once").unwrap();
    assert!(played.stopped);
    assert_eq!(outcomes(&played), [&Outcome::Ok, &Outcome::Cancelled]);
    assert_eq!(played.unsent, 0, "nobody wanted the second turn of the hanging session any more");
}

#[tokio::test]
async fn the_drain_has_an_end() {
    let server = Server::start().await;
    let sessions = vec![session("hang-a", 0.0, 2, 0.0), session("ok-b", 20.0, 1, 0.0)];
    let player = Player { to_ms: 30.0, drain: Duration::from_secs(2), ..player(&server, sessions, None) };
    let played = tokio::time::timeout(Duration::from_secs(20), player.play()).await.expect("it ends");
    assert_eq!(outcomes(&played), [&Outcome::Cancelled, &Outcome::Ok]);
    assert!(!played.stopped);
    assert_eq!(played.unsent, 1, "the second turn of the hanging session");
}

#[tokio::test]
async fn a_closed_loop_counts_requests_and_sends_none_after_its_time() {
    let server = Server::start().await;
    // Two slots, each with one session that would last for a minute.
    let sessions = vec![session("ok-a", 0.0, 600, 20.0), session("ok-b", 0.0, 600, 20.0)];
    let player = Player { from_ms: 300.0, to_ms: 1500.0, ..player(&server, sessions, Some(2)) };
    let played = tokio::time::timeout(Duration::from_secs(20), player.play()).await.expect("it ends with its time");
    for sample in &played.samples {
        assert_eq!(sample.measured, sample.intended.ms() >= 300.0, "{sample:?}");
        assert!(sample.intended.ms() < 1500.0 && sample.ok(), "{sample:?}");
    }
    assert!(played.samples.iter().any(|sample| sample.measured), "sessions that outlast the warm-up are measured");
    assert!(!played.samples.iter().all(|sample| sample.measured));
    assert_eq!(played.unsent, 0);
}

#[tokio::test]
async fn no_session_starts_after_the_end() {
    let server = Server::start().await;
    let sessions = vec![session("ok-a", 0.0, 1, 0.0), session("ok-b", 40.0, 1, 0.0)];
    let played = Player { to_ms: 30.0, ..player(&server, sessions, None) }.play().await;
    assert_eq!(played.samples.len(), 1);
}

/// What the server saw of one run, session by session, and when the plan wanted each session to start.
async fn seen(seed: u64) -> (BTreeMap<String, Vec<String>>, Vec<f64>) {
    let server = Server::start().await;
    let trace = Trace::bundled().unwrap();
    let arrivals = Arrivals::Poisson { per_s: 8.0 };
    let options = PlanOptions { seconds: Some(1.0), max_output: Some(1), ..PlanOptions::new(arrivals, seed) };
    let plan = build(&trace, &options).unwrap();
    let clock = Clock::start();
    let format = BodyFormat { dialect: Dialect::Chat, model: "m".into(), block_size: plan.block_size, seed };
    let client = Arc::new(Client::new(&server.target(), format, clock).unwrap());
    let player = Player { doors: Doors::one(client, None), plan: Arc::new(plan), ..player(&server, Vec::new(), None) };
    let plan = player.plan.clone();
    let played = player.play().await;
    assert!(played.samples.iter().all(Sample::ok), "{:?}", outcomes(&played));
    let firsts = plan.sessions.iter().scan(0, |next, session| {
        let first = *next;
        *next += session.steps.len();
        Some(played.samples[first].intended.ms())
    });
    let starts = firsts.collect();
    let log = server.log.lock().unwrap();
    let prompts = plan.sessions.iter().map(|session| (session.id.to_string(), prompts_of(&log, &session.id)));
    (prompts.collect(), starts)
}

#[tokio::test]
async fn two_runs_with_one_seed_start_the_same_sessions_with_the_same_prompts_in_the_same_order() {
    let (first, second, other) = (seen(3).await, seen(3).await, seen(4).await);
    assert!(first.0.len() >= 3, "{:?}", first.1);
    assert!(first.0.values().any(|prompts| prompts.len() > 1), "some session has several turns");
    assert_eq!(first, second);
    assert_ne!(first.0, other.0);
}
