//! What the node in memory does when it is told something, and what it says when it is asked.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Service, State, hex, said};
use crate::cluster::desired::NodeSpec;
use crate::cluster::layout::{BINARY, Role};
use crate::remote::{Output, RemoteCommand, ServiceAction, ServiceState};

impl State {
    pub(super) fn run(&mut self, spec: &NodeSpec, command: &RemoteCommand) -> Output {
        let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
        match argv[..] {
            ["true"] => said(0, ""),
            ["bash", "-s", "--", ..] => said(0, self.describe(&argv[7..])),
            ["bash", "-c", _, "talk", port, _] => self.talk(spec, port, &command.stdin),
            ["df", ..] => said(0, "Used\n1000\n"),
            ["nvidia-smi", ..] => said(if self.gpus.is_empty() { 127 } else { 0 }, ""),
            _ => {
                self.changes.push(argv.iter().take(4).copied().collect::<Vec<_>>().join(" "));
                self.change(&argv)
            }
        }
    }

    fn change(&mut self, argv: &[&str]) -> Output {
        match argv {
            ["install", "-d", ..] => {}
            ["docker", "pull", "--quiet", image] => _ = self.images.insert((*image).to_owned()),
            ["docker", "run", .., image, "-c", code] if code.contains("torch") => {
                assert!(self.images.contains(*image), "a container of an image that is not there");
            }
            ["docker", "run", .., image, "-c", code, model] if code.contains("snapshot_download") => {
                assert!(self.images.contains(*image));
                if argv.iter().any(|word| word.contains("HF_TOKEN_PATH")) {
                    assert!(self.files.contains_key("/etc/gorgo/hf-token"), "the token is mounted");
                }
                self.models.insert((*model).to_owned());
            }
            ["sh", "-c", _, "take", path, _] => {
                let new = self.files.remove(&format!("{path}.new")).expect("it was put there");
                self.files.insert((*path).to_owned(), new);
            }
            ["rm", "-f", path] => _ = self.files.remove(*path),
            ["rm", "-rf", ..] | ["sh", "-c", _, "remove", ..] => self.files.clear(),
            ["sh", "-c", _, "restore", path] => {
                let before = self.files.remove(&format!("{path}.old")).unwrap();
                self.files.insert((*path).to_owned(), before);
            }
            other => panic!("nobody knows the command {other:?}"),
        }
        said(0, "")
    }

    /// What the looking script prints.
    fn describe(&self, questions: &[&str]) -> String {
        #[expect(clippy::disallowed_methods, reason = "the clock of a node")]
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let mut text = format!("clock_ms {clock}\narch {}\nlibc {}\nos Debian\n", self.arch, self.libc);
        text += &format!("systemd 252\ndisk_free {}\n", self.disk_free);
        self.gpus.iter().for_each(|gpu| text += &format!("gpu {gpu}\n"));
        self.docker.iter().for_each(|version| text += &format!("docker {version}\n"));
        self.images.iter().for_each(|image| text += &format!("image {image}\n"));
        for (path, content) in &self.files {
            let sum = hex(content);
            if path == BINARY {
                text += &format!("binary_sha256 {sum}\nbinary_version gorgo 0.1.0\n");
            } else if path.ends_with(".old") {
                text += &format!("binary_old_sha256 {sum}\n");
            } else {
                let mut parts = path.rsplit('/');
                let (name, folder) = (parts.next().unwrap(), parts.next().unwrap());
                text += &format!("file {sum} {folder}/{name}\n");
            }
        }
        for question in questions.chunks(4) {
            let role = Role::ALL.into_iter().find(|role| role.name() == question[0]).unwrap();
            let (method, path) = question[2].split_once(' ').unwrap();
            if let Some((status, body)) = self.reply(role, method, path, &Value::Null) {
                text += &format!("answer {role} {status} {body}\n");
            }
        }
        text + "end\n"
    }

    fn talk(&mut self, spec: &NodeSpec, port: &str, request: &[u8]) -> Output {
        let port: u16 = port.parse().unwrap();
        let role = Role::ALL.into_iter().find(|role| spec.ports.control(*role) == port).unwrap();
        let text = String::from_utf8_lossy(request);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        if method == "POST" && self.reply(role, method, path, &body).is_some() {
            self.accept(role, path, &body);
        }
        let reply = self.reply(role, method, path, &body);
        if path == "/admin/v1/drain" && method == "GET" {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        match reply {
            Some((status, body)) => said(0, format!("HTTP/1.0 {status} OK\r\n\r\n{body}")),
            None => Output { stderr: b"Connection refused".to_vec(), ..said(1, "") },
        }
    }

    fn accept(&mut self, role: Role, path: &str, body: &Value) {
        let service = self.services.get_mut(role.unit()).unwrap();
        let weights: BTreeMap<String, f64> = serde_json::from_value(body["parameters"].clone()).unwrap_or_default();
        match path {
            "/admin/v1/policy" if self.old || body["strategy"] == "unknown" => return,
            "/admin/v1/tune" if self.old => return,
            "/admin/v1/policy" => {
                service.strategy = body["strategy"].as_str().unwrap().to_owned();
                service.weights = weights;
            }
            "/admin/v1/drain" => service.draining = body["draining"].as_bool().unwrap(),
            "/admin/v1/tune" => {
                service.weights.extend(weights);
                if let Some(limit) = body["max_concurrent"].as_u64() {
                    service.max_concurrent = (limit > 0).then_some(limit as u32);
                }
            }
            _ => return,
        }
        self.changes.push(format!("POST {role} {path} {body}"));
    }

    fn reply(&self, role: Role, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let service = self.services.get(role.unit()).filter(|service| service.running)?;
        if role == Role::Engine {
            return Some(match path {
                "/flush_cache" if self.busy => (400, json!("busy")),
                _ => (200, json!({ "choices": [{ "text": "a" }] })),
            });
        }
        if self.deaf {
            return None;
        }
        let replicas =
            json!({ "total": 1, "healthy": u32::from(!self.sick), "unhealthy": 0, "unknown": 0, "draining": 0 });
        if self.old
            && ["/admin/v1/policy", "/admin/v1/tune", "/admin/v1/trace/start", "/admin/v1/trace/stop"].contains(&path)
        {
            return Some((404, json!({ "error": { "message": "no such path" } })));
        }
        let q = service.weights.get("q").copied().unwrap_or(0.0);
        let parameters = json!([{ "key": "q", "value": q, "default": 0.0, "min": 0.0, "max": null, "help": "" }]);
        Some((
            200,
            match path {
                "/admin/v1/status" => json!({
                    "version": "0.1.0", "pid": 1, "uptime_s": 1.0, "listen": "x", "strategy": service.strategy,
                    "max_concurrent": service.max_concurrent, "draining": service.draining, "replicas": replicas,
                    "queue": { "waiting": 0, "limit": 1, "timeout_ms": 1.0, "oldest_ms": null },
                    "requests": { "total": 0, "in_flight": 0, "ok": 0, "failed": 0, "refused": 0, "cancelled": 0, "retried": 0 },
                }),
                "/admin/v1/policy" if method == "POST" && body["strategy"] == "unknown" => {
                    return Some((400, json!({ "error": { "message": "unknown strategy" } })));
                }
                "/admin/v1/policy" => json!({ "strategy": service.strategy, "parameters": parameters, "known": [] }),
                "/admin/v1/tune" => {
                    json!({ "strategy": service.strategy, "parameters": parameters, "max_concurrent": service.max_concurrent })
                }
                "/admin/v1/cache" => json!({ "replicas": ["local"], "blocks": 42 }),
                "/admin/v1/drain" => {
                    json!({ "draining": service.draining, "stopping": false, "in_flight": self.in_flight })
                }
                "/admin/v1/trace/start" => {
                    json!({ "node": role.name(), "started_us": 1, "buffer_bytes": body["buffer_bytes"] })
                }
                "/admin/v1/trace/stop" => json!({
                    "kind": "node", "schema": "gorgo.trace/1", "node": role.name(), "region": null, "started_us": 1, "stopped_us": 2,
                    "now_us": 600_000_000, "buffer_bytes": 4096, "dropped": 0, "unfinished": 0, "lines": 0,
                }),
                other => panic!("nobody knows {method} {other}"),
            },
        ))
    }

    pub(super) fn service(&mut self, unit: &str, action: &ServiceAction) -> ServiceState {
        if *action != ServiceAction::Status {
            let word = format!("{action:?}");
            self.changes.push(format!("{} {unit}", word.split('(').next().unwrap().to_lowercase()));
        }
        let program = self.files.get(BINARY).map(|content| hex(content)).unwrap_or_default();
        match action {
            ServiceAction::Install(new) => {
                let old = self.services.remove(unit);
                let service = Service {
                    unit: new.clone(),
                    running: old.as_ref().is_some_and(|old| old.running),
                    started_with: old.as_ref().and_then(|old| old.started_with.clone()),
                    strategy: old.as_ref().map(|old| old.strategy.clone()).unwrap_or_default(),
                    max_concurrent: old.as_ref().and_then(|old| old.max_concurrent),
                    weights: old.as_ref().map(|old| old.weights.clone()).unwrap_or_default(),
                    draining: old.as_ref().is_some_and(|old| old.draining),
                    starts: old.map_or(0, |old| old.starts),
                };
                self.services.insert(unit.to_owned(), service);
            }
            ServiceAction::Remove => _ = self.services.remove(unit),
            ServiceAction::Status => {}
            ServiceAction::Stop => self.services.get_mut(unit).unwrap().running = false,
            ServiceAction::Start | ServiceAction::Restart => {
                let service = self.services.get_mut(unit).expect("it is installed");
                service.running = true;
                service.starts += 1;
                service.started_with = Some((program, service.unit.definition_sha256()));
                let option = |name: &str| {
                    let argv = &service.unit.argv;
                    argv.iter().position(|word| word == name).map(|at| argv[at + 1].clone())
                };
                let (strategy, limit) = (option("--strategy"), option("--max-concurrent"));
                let set = service.unit.argv.iter().filter_map(|word| word.strip_prefix("q="));
                service.weights = set.map(|value| ("q".to_owned(), value.parse().unwrap())).collect();
                service.draining = false;
                let strategy = strategy.unwrap_or_default();
                service.strategy = if strategy == "gorgo" { "gorgo-v1".to_owned() } else { strategy };
                service.max_concurrent = limit.and_then(|limit| limit.parse().ok());
            }
        }
        self.services.get(unit).map_or_else(ServiceState::default, |service| ServiceState {
            installed: true,
            running: service.running,
            pid: service.running.then_some(1),
            restarts: 0,
            definition_sha256: Some(service.unit.definition_sha256()),
        })
    }
}
