//! The whole life of a proxy as a user sees it: the real binary, real sockets, an engine that answers at once.

mod bounded;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// Longest wait for anything in these tests.
const BOUND: Duration = Duration::from_secs(30);
/// Pause between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(20);
/// Looks before giving up.
const LOOKS: u32 = 1_500;

/// An engine that answers every request at once, in the shape of an OpenAI server.
fn engine() -> SocketAddr {
    held_engine().0
}

/// The same; what has `wait` in its prompt is answered once per message sent to it.
fn held_engine() -> (SocketAddr, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (release, released) = mpsc::channel();
    let released = Arc::new(Mutex::new(released));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let released = released.clone();
            thread::spawn(move || serve(stream, &released));
        }
    });
    (address, release)
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream, released: &Mutex<mpsc::Receiver<()>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut writer = stream;
    while let Some((path, body)) = request(&mut reader) {
        if body.contains("wait") && released.lock().expect("no holder panicked").recv_timeout(BOUND).is_err() {
            return;
        }
        let answer = match path.as_str() {
            "/v1/models" => r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#,
            "/v1/chat/completions" => {
                r#"{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":100,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":60}}}"#
            }
            _ => "{}",
        };
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        if writer.write_all((head + answer).as_bytes()).is_err() {
            return;
        }
    }
}

/// Path and body of the next request, if there is one.
fn request(reader: &mut impl std::io::BufRead) -> Option<(String, String)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok()?,
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first.split(' ').nth(1)?.to_owned(), String::from_utf8_lossy(&body).into_owned()))
}

/// A proxy process with its addresses. Killed when dropped, if it still runs.
struct Proxy {
    child: Child,
    stdout: BufReader<ChildStdout>,
    requests: String,
    admin: String,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts one on free ports and waits until both are told.
    fn start(replicas: &[(&str, SocketAddr)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder without a gorgo.toml");
        let mut command = gorgo(folder.path());
        command.args(["proxy", "start", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        for (name, address) in replicas {
            command.args(["--replica", &format!("name={name},url=http://{address},region=region-{name},engine=vllm")]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut address = |label: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            line.strip_prefix(label).unwrap_or_else(|| panic!("`{line}` instead of `{label}…`")).trim().to_owned()
        };
        let (requests, admin) = (address("requests"), address("admin"));
        Self { child, stdout, requests, admin, _folder: folder }
    }

    /// Runs `gorgo proxy …` against it.
    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = gorgo(self._folder.path());
        command.arg("proxy").args(arguments).args(["--admin", &self.admin]);
        bounded::output(&mut command)
    }

    /// The JSON that a command prints.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.ask(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Sends a chat request; status line and headers come back.
    fn chat(&self, prompt: &str) -> String {
        let address = self.requests.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("the proxy listens");
        stream.set_read_timeout(Some(BOUND)).expect("a limit");
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}]}}"#);
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).expect("sent");
        let mut answer = String::new();
        // An answer that is cut off is what some tests want to see; the others look at what they got.
        let _ = stream.read_to_string(&mut answer);
        answer.split("\r\n\r\n").next().unwrap_or_default().to_owned()
    }

    /// Waits until a JSON document says what it has to say.
    fn until(&self, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..LOOKS {
            last = self.json(arguments);
            if holds(&last) {
                return last;
            }
            thread::sleep(PAUSE);
        }
        panic!("still not so: {last:#}")
    }

    /// The exit code, once it ends.
    fn ended(&mut self) -> Option<i32> {
        for _ in 0..LOOKS {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            thread::sleep(PAUSE);
        }
        panic!("the proxy does not end")
    }

    /// Sends it a signal by its number's name.
    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("`kill` runs").success());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gorgo(folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gorgo"));
    command.current_dir(folder).env("XDG_CONFIG_HOME", folder).env_remove("GORGO_CONFIG").env_remove("RUST_LOG");
    command
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no `{name}` in\n{head}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_proxy_is_started_watched_changed_and_stopped() {
    let (east, west) = (engine(), engine());
    let mut proxy = Proxy::start(&[("east", east), ("west", west)]);
    proxy.until(&["status"], |status| status["replicas"]["healthy"] == 2);

    let head = proxy.chat(&"tell me ".repeat(200));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let id = header(&head, "x-gorgo-request-id").to_owned();
    let chosen = header(&head, "x-gorgo-replica").to_owned();

    let status = proxy.until(&["status"], |status| status["requests"]["ok"] == 1);
    assert_eq!((&status["strategy"], &status["requests"]["total"]), (&"predictive".into(), &1.into()));
    let explanation = proxy.json(&["explain", &id]);
    assert_eq!(explanation["decisions"][0]["candidates"].as_array().map(Vec::len), Some(2));
    assert_eq!(explanation["decisions"][0]["verdict"]["replica"], chosen.as_str());
    assert_eq!(explanation["outcome"]["cached_tokens"], 60);
    assert_eq!(proxy.json(&["explain"])["decisions"][0]["request"], id.as_str());
    assert_eq!(proxy.ask(&["explain", "ff"]).status.code(), Some(4));

    let cached = |cache: &Value| {
        cache["replicas"].as_array().into_iter().flatten().filter_map(|it| it["blocks"].as_u64()).sum::<u64>()
    };
    assert!(cached(&proxy.json(&["prefix-stats"])) > 0);
    let cleared = proxy.json(&["clear-cache"]);
    assert_eq!(cleared["replicas"], serde_json::json!(["east", "west"]));
    assert_eq!(cached(&proxy.json(&["prefix-stats"])), 0);

    proxy.json(&["policy", "gorgo", "--set", "w_queue=0.3"]);
    let tune = proxy.json(&["tune", "--max-concurrent", "7"]);
    assert_eq!(tune["max_concurrent"], 7);
    let w_queue =
        tune["parameters"].as_array().expect("a list").iter().find(|it| it["key"] == "w_queue").expect("w_queue");
    assert_eq!(w_queue["value"], 0.3);
    let refused = proxy.ask(&["policy", "gorgoo"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("did you mean `gorgo`?"), "{}", text(&refused.stderr));

    assert_eq!(proxy.ask(&["stop"]).status.code(), Some(0));
    assert_eq!(proxy.ended(), Some(0));
}

#[test]
fn weights_are_tuned_on_live_requests_frozen_and_given_back() {
    let (east, west) = (engine(), engine());
    let proxy = Proxy::start(&[("east", east), ("west", west)]);
    proxy.until(&["status"], |status| status["replicas"]["healthy"] == 2);
    assert_eq!(proxy.ask(&["tune", "status", "--watch"]).status.code(), Some(4), "none was started");
    assert_eq!(proxy.ask(&["tune", "freeze"]).status.code(), Some(1));
    proxy.json(&["policy", "gorgo"]);
    let refused = proxy.ask(&["tune", "start", "--key", "w_queu"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("did you mean `w_queue`?"), "{}", text(&refused.stderr));

    let start = ["tune", "start", "--key", "w_queue=0.01..1", "--block", "8", "--periods", "7", "--share", "0.5"];
    let dry = proxy.ask(&[&start[..], &["--dry-run"]].concat());
    assert!(text(&dry.stdout).contains(r#"{"tuner":{"action":"start","method":"evolution""#), "{}", text(&dry.stdout));
    let tune = proxy.json(&start);
    assert_eq!((&tune["tuner"]["state"], &tune["tuner"]["share"]), (&"waiting".into(), &0.5.into()));
    // Both weights serve alike: a candidate is tried and dropped, and the weight stays.
    let tried =
        |tune: &Value| tune["tuner"]["rejected"].as_u64() > Some(0) || tune["tuner"]["rolled_back"].as_u64() > Some(0);
    let mut sent = 0;
    while !tried(&proxy.json(&["tune", "status"])) {
        (0..8).for_each(|_| drop(proxy.chat("tell me")));
        sent += 8;
        assert!(sent < 1000, "no candidate has ended yet");
    }
    let status = proxy.ask(&["tune", "status"]);
    assert!(text(&status.stdout).contains("proposed w_queue"), "{}", text(&status.stdout));
    for (command, state) in [("freeze", "frozen"), ("resume", "waiting"), ("rollback", "frozen"), ("stop", "ended")] {
        let tune = proxy.json(&["tune", command]);
        assert_eq!(tune["tuner"]["state"], state, "{command}");
        assert_eq!(tune["tuner"]["axes"][0]["value"], 0.1, "{command}");
    }
    let watched = proxy.ask(&["tune", "status", "--watch", "--json"]);
    let lines: Vec<Value> =
        text(&watched.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["what"], &lines[lines.len() - 1]["what"]), (&"started".into(), &"ended".into()));
    let page = text(&proxy.ask(&["metrics"]).stdout);
    assert!(page.contains("gorgo_tune_value{parameter=\"w_queue\"} 0.1"), "{page}");
}

#[test]
fn replicas_come_and_go_while_requests_are_served() {
    let (east, west) = (engine(), engine());
    let proxy = Proxy::start(&[("east", east)]);
    proxy.until(&["status"], |status| status["replicas"]["healthy"] == 1);
    let west = format!("name=west,url=http://{west},region=region-west,engine=vllm");
    assert_eq!(proxy.ask(&["servers", "add", &west]).status.code(), Some(0));
    proxy.until(&["status"], |status| status["replicas"]["healthy"] == 2);
    assert_eq!(proxy.ask(&["servers", "drain", "west"]).status.code(), Some(0));
    assert_eq!(header(&proxy.chat("a"), "x-gorgo-replica"), "east");
    assert_eq!(proxy.ask(&["servers", "drain", "west", "--undo"]).status.code(), Some(0));
    let partly = proxy.ask(&["servers", "remove", "east", "nobody"]);
    assert_eq!(partly.status.code(), Some(3), "{}", text(&partly.stderr));
    assert!(text(&partly.stderr).contains("1 of 2 replicas were not changed: nobody"), "{}", text(&partly.stderr));
    assert_eq!(header(&proxy.chat("b"), "x-gorgo-replica"), "west");
    let servers = proxy.ask(&["servers"]);
    assert!(text(&servers.stdout).contains("region-west") && !text(&servers.stdout).contains("region-east"));
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    let (engine, release) = held_engine();
    let mut proxy = Proxy::start(&[("east", engine)]);
    proxy.until(&["status"], |status| status["replicas"]["healthy"] == 1);
    thread::scope(|scope| {
        let answer = scope.spawn(|| proxy.chat("wait"));
        proxy.until(&["status"], |status| status["requests"]["in_flight"] == 1);
        proxy.signal("TERM");
        proxy.until(&["status"], |status| status["draining"] == true);
        release.send(()).expect("the engine waits");
        assert!(answer.join().expect("no panic").starts_with("HTTP/1.1 200"));
    });
    assert_eq!(proxy.ended(), Some(0));
    let mut rest = String::new();
    proxy.stdout.read_to_string(&mut rest).expect("the pipe closes");
    assert_eq!(rest, "", "stdout holds the addresses and nothing else");
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let (engine, _release) = held_engine();
    let mut proxy = Proxy::start(&[("east", engine)]);
    proxy.until(&["status"], |status| status["replicas"]["healthy"] == 1);
    thread::scope(|scope| {
        let answer = scope.spawn(|| proxy.chat("wait"));
        proxy.until(&["status"], |status| status["requests"]["in_flight"] == 1);
        proxy.signal("INT");
        proxy.until(&["status"], |status| status["draining"] == true);
        proxy.signal("INT");
        answer.join().expect("no panic");
    });
    assert_eq!(proxy.ended(), Some(130));
}

#[test]
fn every_metric_has_help_and_the_prefix_of_gorgo() {
    let proxy = Proxy::start(&[("east", engine())]);
    proxy.until(&["status"], |status| status["replicas"]["healthy"] == 1);
    proxy.chat("hello");
    let page = text(&proxy.ask(&["metrics"]).stdout);
    let families: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(families.len() > 10, "{page}");
    for family in families {
        assert!(family.starts_with("gorgo_"), "{family}");
        assert!(page.contains(&format!("# HELP {family} ")), "{family}");
    }
}

#[test]
fn a_port_in_use_is_named_and_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let replica = "name=a,url=http://127.0.0.1:9,region=eu";
    let start = ["proxy", "start", "--listen", &address, "--admin", "127.0.0.1:0", "--replica", replica];
    let output = bounded::output(gorgo(folder.path()).args(start));
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    let errors = text(&output.stderr);
    assert!(errors.contains(&format!("failed to listen on {address}")), "{errors}");
}

#[test]
fn what_is_no_admin_api_is_told_apart_from_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = engine().to_string();
    let output = bounded::output(gorgo(folder.path()).args(["proxy", "status", "--admin", &engine]));
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    let wanted =
        format!("error: http://{engine}/admin/v1/status answered, but not with what gorgo's admin API says there\n");
    assert!(errors.starts_with(&wanted), "{errors}");
    assert!(errors.ends_with("hint: is this the admin port (8001 by default) of a gorgo proxy?\n"), "{errors}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let proxy = Proxy::start(&[("east", engine())]);
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = gorgo(folder.path())
        .args(["proxy", "metrics", "--admin", &proxy.admin])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}
