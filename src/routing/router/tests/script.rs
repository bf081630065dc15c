//! A line of text per event: `TIME_MS VERB ARGUMENTS`; replicas by name, requests by number.

use std::fmt::Write;
use std::sync::Arc;

use crate::model::{Region, ReplicaId, RequestId, Time};
use crate::routing::features::hash_blocks;
use crate::routing::{
    BLOCK_BYTES, Decision, Effect, EngineLimits, Features, Gauges, Limits, Outcome, Rates, ReplicaKind, ReplicaSpec,
    Router, Settings, Usage,
};

/// Plays a whole script; the log has each line and, indented, what the router answered.
pub(super) fn play(settings: Settings, lines: &str) -> String {
    let mut script = Script::new(settings);
    lines.lines().filter(|line| !line.trim().is_empty()).map(|line| script.play(line)).collect()
}

pub(super) struct Script {
    pub(super) router: Router,
}

/// `key=value` arguments of one line.
struct Arguments<'a>(Vec<&'a str>);

impl<'a> Arguments<'a> {
    fn at(&self, position: usize) -> &'a str {
        self.0.get(position).unwrap_or_else(|| panic!("argument {position} missing in {:?}", self.0))
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find_map(|argument| argument.strip_prefix(key)?.strip_prefix('='))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.text(key).map(|value| value.parse().unwrap_or_else(|_| panic!("{key}={value}")))
    }

    fn request(&self) -> RequestId {
        RequestId(self.at(2).parse().expect("request number"))
    }
}

impl Script {
    pub(super) fn new(settings: Settings) -> Self {
        Self { router: Router::new(settings).expect("settings") }
    }

    /// Plays one line and returns its part of the log.
    pub(super) fn play(&mut self, line: &str) -> String {
        let line = line.trim();
        let arguments = Arguments(line.split_whitespace().collect());
        let now = Time::from_ms(arguments.at(0).parse().expect("time"));
        let mut log = format!("{}\n", arguments.0.join(" "));
        match arguments.at(1) {
            "arrive" | "failed" | "recalled" => self.decided(now, &arguments, &mut log),
            "show" => self.show(now, &mut log),
            _ => {
                let effects = self.event(now, &arguments);
                write_effects(&mut log, &effects);
            }
        }
        log
    }

    fn decided(&mut self, now: Time, arguments: &Arguments<'_>, log: &mut String) {
        let request = arguments.request();
        let (decision, effects) = match arguments.at(1) {
            "arrive" => (self.router.arrive(now, request, Arc::new(features(arguments))), Vec::new()),
            "recalled" => self.router.recalled(now, request),
            _ => self.router.failed(now, request),
        };
        write_decision(log, "->", &decision);
        write_effects(log, &effects);
    }

    fn event(&mut self, now: Time, arguments: &Arguments<'_>) -> Vec<Effect> {
        let router = &mut self.router;
        let replica =
            router.replica_named(arguments.0.get(2).unwrap_or(&"")).map_or(ReplicaId(u32::MAX), |known| known.id);
        match arguments.at(1) {
            "add" => router.add_replica(now, spec(arguments)).1,
            "remove" => router.remove_replica(now, replica),
            "drain" => router.set_draining(now, replica, arguments.at(3) == "on"),
            "rtt" => {
                router.rtt(now, replica, arguments.at(3).parse().expect("rtt"));
                Vec::new()
            }
            "up" => router.health(now, replica, true),
            "down" => router.health(now, replica, false),
            "gauges" => router.gauges(now, replica, gauges(arguments)),
            "told" => router.limits(now, replica, limits(arguments)),
            "headers" => router.headers(now, arguments.request()),
            "first" => router.first_token(now, arguments.request()),
            "done" => router.finish(now, arguments.request(), Outcome::Done(usage(arguments))),
            "cancel" => router.finish(now, arguments.request(), Outcome::Cancelled),
            "broken" => router.finish(now, arguments.request(), Outcome::Broken),
            "withdraw" => router.withdraw(now, arguments.request()),
            "limit" => router.set_max_concurrent(now, arguments.at(2).parse().ok()),
            "strategy" => router.set_strategy(now, arguments.at(2), &[]).expect("strategy"),
            "tick" => router.tick(now),
            verb => panic!("unknown verb {verb}"),
        }
    }

    fn show(&self, now: Time, log: &mut String) {
        for replica in self.router.snapshot(now).replicas {
            let (name, health, in_flight) = (replica.name(), replica.health.as_str(), replica.in_flight);
            let (queued, uncached) = (replica.queued_prompt_tokens, replica.pending_uncached_tokens);
            let drain = if replica.draining { ", draining" } else { "" };
            writeln!(log, "   {name}: {health}{drain}, {in_flight} in flight, {queued} queued, {uncached} uncached")
                .expect("string");
        }
        let held = self.router.queue_len();
        writeln!(log, "   queue: {held} held, deadline {:?}", self.router.deadline().map(|at| at.ms()))
            .expect("string");
    }
}

fn write_effects(log: &mut String, effects: &[Effect]) {
    for effect in effects {
        match effect {
            Effect::Released(decision) => write_decision(log, "=>", decision),
            Effect::Recall(request) => writeln!(log, "   => recall {}", request.0).expect("string"),
        }
    }
}

fn write_decision(log: &mut String, arrow: &str, decision: &Decision) {
    writeln!(log, "   {arrow} {}", decision.to_string().replace("request=00000000000000", "")).expect("string");
}

fn spec(arguments: &Arguments<'_>) -> ReplicaSpec {
    ReplicaSpec {
        name: arguments.at(2).into(),
        region: Region::new(arguments.at(3)),
        kind: if arguments.text("kind") == Some("peer") { ReplicaKind::Peer } else { ReplicaKind::Engine },
        models: arguments.text("models").map_or_else(Vec::new, |models| models.split(',').map(Into::into).collect()),
        limits: Limits { kv_tokens: arguments.number("kv") },
        rates: Rates {
            prefill_ms_per_token: arguments.number("prefill"),
            queue_ms_per_token: arguments.number("queue"),
        },
    }
}

fn gauges(arguments: &Arguments<'_>) -> Gauges {
    Gauges {
        running: arguments.number("running"),
        waiting: arguments.number("waiting"),
        kv_usage: arguments.number("kv_usage"),
        used_tokens: arguments.number("used"),
        kv_tokens: arguments.number("kv"),
    }
}

fn limits(arguments: &Arguments<'_>) -> EngineLimits {
    EngineLimits {
        max_running: arguments.number("running"),
        kv_tokens: arguments.number("kv"),
        batch_tokens: arguments.number("batch"),
        in_order: arguments.text("order").map(|order| order == "fcfs"),
    }
}

fn usage(arguments: &Arguments<'_>) -> Usage {
    Usage {
        prompt_tokens: arguments.number("prompt"),
        cached_tokens: arguments.number("cached"),
        completion_tokens: arguments.number("out"),
    }
}

/// `prompt=sys*20+ann*5`: 20 blocks of one text, then 5 of another.
fn features(arguments: &Arguments<'_>) -> Features {
    let parts = arguments.text("prompt").unwrap_or("").split('+').filter(|part| !part.is_empty());
    let text: Vec<u8> = parts.flat_map(blocks_of_text).collect();
    Features {
        model: arguments.text("model").map(Into::into),
        session: arguments.number("session"),
        place: None,
        residency: arguments.text("residency").into_iter().collect(),
        class: arguments.text("class").map(Into::into),
        tenant: arguments.text("key").map(Into::into),
        priority: arguments.number("priority").unwrap_or(0),
        blocks: hash_blocks([text.as_slice()], 0).into(),
        prompt_bytes: text.len() as u64,
        prompt_tokens: arguments.number("tokens"),
        max_tokens: arguments.number("max_tokens"),
        forwarded: arguments.text("from") == Some("peer"),
        origin: arguments.text("origin").map(Into::into),
        opaque: arguments.text("body") == Some("opaque"),
        unstreamed: arguments.text("body") == Some("whole"),
    }
}

/// `ann*5` is five blocks that differ from each other and from everybody else's.
fn blocks_of_text(part: &str) -> Vec<u8> {
    let (name, count) = part.split_once('*').expect("prompt part NAME*BLOCKS");
    let count: usize = count.parse().expect("blocks");
    (0..count).flat_map(|i| format!("{:<BLOCK_BYTES$}", format!("{name} {i}")).into_bytes()).collect()
}
