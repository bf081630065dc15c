//! A small account: enough of the cloud's API for the commands, with a log of what was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// The only key that is let in.
pub(crate) const KEY: &str = "sekrit-key";

/// What the account has.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) instances: Vec<Value>,
    pub(crate) rules: Vec<Value>,
    pub(crate) rulesets: Vec<Value>,
    /// Regions that refuse launches for lack of capacity.
    pub(crate) full: Vec<String>,
    /// Says that it ends machines, and does not.
    pub(crate) stubborn: bool,
    /// `METHOD /path`, in order.
    pub(crate) calls: Vec<String>,
    next: u32,
}

/// Runs until the test process ends.
pub(crate) struct Account {
    pub(crate) url: String,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Account {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { url, state }
    }

    /// Times that a call was made.
    pub(crate) fn count(&self, call: &str) -> usize {
        self.state.lock().expect("no holder panicked").calls.iter().filter(|made| *made == call).count()
    }
}

/// One call per connection: a client that is killed leaves nothing half done here.
fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut first = String::new();
    if reader.read_line(&mut first).is_err() || first.is_empty() {
        return;
    }
    let (mut length, mut authorised) = (0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() {
            return;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap_or(0),
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorised = value == format!("Bearer {KEY}");
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.trim_start_matches("/api/v1");
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (status, answer) = if authorised {
        let mut state = state.lock().expect("no holder panicked");
        state.calls.push(format!("{method} {path}"));
        state.answer(method, path, &body)
    } else {
        error(401, "global/invalid-api-key", "API key was invalid, expired, or deleted.")
    };
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    let mut stream = stream;
    // A client that died while it waited is part of some tests.
    let _ = stream.write_all((head + &answer).as_bytes());
}

fn error(status: u16, code: &str, message: &str) -> (u16, Value) {
    (status, json!({ "error": { "code": code, "message": message } }))
}

fn kind(name: &str) -> Value {
    json!({
        "name": name, "description": "1x A100 (40 GB SXM4)", "gpu_description": "A100 (40 GB SXM4)", "price_cents_per_hour": 129,
        "specs": { "vcpus": 30, "memory_gib": 200, "storage_gib": 512, "gpus": 1 }
    })
}

fn region(name: &str) -> Value {
    json!({ "name": name, "description": "" })
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let data = match (method, path) {
            ("GET", "/instance-types") => {
                let offer = |regions: &[&str]| json!({ "instance_type": kind("gpu_1x_a100"), "regions_with_capacity_available": regions.iter().map(|it| region(it)).collect::<Vec<_>>() });
                json!({ "gpu_1x_a100": offer(&["us-east-1", "us-west-1"]) })
            }
            ("GET", "/instances") => json!(self.instances),
            ("GET", "/ssh-keys") => json!([{ "id": "k1", "name": "mine", "public_key": "ssh-ed25519 AAAA me@here" }]),
            ("GET", "/firewall-rules") => json!(self.rules),
            ("PUT", "/firewall-rules") => {
                self.rules = body["data"].as_array().cloned().unwrap_or_default();
                json!(self.rules)
            }
            ("GET", "/firewall-rulesets") => json!(self.rulesets),
            ("POST", "/firewall-rulesets") => {
                let mut ruleset = body.clone();
                self.next += 1;
                ruleset["id"] = json!(format!("r{}", self.next));
                ruleset["region"] = region(body["region"].as_str().unwrap_or_default());
                self.rulesets.push(ruleset.clone());
                ruleset
            }
            ("POST", "/instance-operations/launch") => return self.launch(body),
            ("POST", "/instance-operations/terminate") => {
                let gone = |it: &Value| body["instance_ids"].as_array().is_some_and(|ids| ids.contains(&it["id"]));
                if self.stubborn {
                    let named = self.instances.iter().filter(|it| gone(it)).cloned().collect::<Vec<_>>();
                    return (200, json!({ "data": { "terminated_instances": named } }));
                }
                let (ended, kept) = self.instances.drain(..).partition::<Vec<Value>, _>(|it| gone(it));
                self.instances = kept;
                json!({ "terminated_instances": ended })
            }
            _ => return error(404, "global/object-does-not-exist", "No such thing."),
        };
        (200, json!({ "data": data }))
    }

    fn launch(&mut self, body: &Value) -> (u16, Value) {
        let place = body["region_name"].as_str().unwrap_or_default().to_owned();
        if self.full.contains(&place) {
            return error(400, "instance-operations/launch/insufficient-capacity", "Not enough capacity.");
        }
        self.next += 1;
        let id = format!("{:032x}", self.next);
        self.instances.push(json!({
            "id": id, "name": body["name"], "status": "booting", "ip": format!("198.51.100.{}", self.next), "region": region(&place),
            "instance_type": kind("gpu_1x_a100"), "tags": body["tags"], "ssh_key_names": body["ssh_key_names"],
            "jupyter_token": "never-show-this", "jupyter_url": "https://never-show-this"
        }));
        (200, json!({ "data": { "instance_ids": [id] } }))
    }
}
