//! `gorgo-v1`: the paper's first policy, one agent per node. `gorgo` means this rule on an agent.
//!
//! 1. While the node's own engine has room the request stays there, and nothing is compared.
//! 2. Otherwise it goes to the cheapest peer, but only one that is strictly cheaper than waiting here:
//!
//! ```text
//! local = t_p · ( q · running  +  queued  +  uncached )        ms
//! peer  = rtt_ms  +  t_p · uncached there                      ms
//! ```
//!
//! 3. Otherwise it waits in the agent's queue (1,000 requests, 60 s), and 1 and 2 are tried again whenever a request ends or a probe has
//!    news (the authors look every 20 ms).
//!
//! t_p: prefill time per token, 0.094 ms (the authors' cold prefill of Mistral-7B), or the replica's own. running: prompt tokens, cached
//! ones too, of this agent's requests at its own engine until they finish. q: what such a token counts, 0.5 in the paper; the authors'
//! program uses 1 unless the flag is given. queued: prompt tokens of the other requests in the agent's queue.
//!
//! Room, in this order: an engine never checked has it; an unhealthy one does not; nor does one whose KV use is at `max_kv_usage`; with a
//! `running_threshold`, fewer than that many must run, and that is final; without (0), fewer than `max_running` must run or wait.
//! `--max-concurrent` takes the place of both numbers. A peer takes part while it is healthy, below the same KV use, and has fewer than
//! `max_running` requests running and waiting. If some of these hold a prefix of the prompt, only they are compared. What a peer sent
//! is never sent on (the filters see to that).
//!
//! A weakness of the definition, kept: a peer's load is not in its cost, so a busy one looks as cheap as an idle one up to its limit.
//!
//! Different from the authors' code, on purpose: the round trip is a smoothed probe of the network instead of the time to fetch a metrics
//! page; a prompt that is wholly cached counts as such; the index keys are prompts, and a shared prefix keeps its owners when paths split;
//! requests in the engine are this agent's own count, which is exact, instead of gauges of which one was never emitted; requests
//! in the queue do not wait for each other's end; a forward has the usual time limits. What a peer holds is known from its own word as well,
//! not from forwards alone. An engine that is out of rotation is not
//! compared either: its requests go to the cheapest peer.

use super::gorgo::PAPER_MS_PER_TOKEN;
use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Choice, Policy, Query, View, terms};
use crate::routing::Health;
use crate::routing::decision::{Candidate, Terms, Unit};
use crate::routing::filter::{GATE_GAUGE_AGE_MS, Gate, KV_USAGE_LIMIT};
use crate::routing::fleet::{Gauges, ReplicaKind};
use crate::routing::score::smallest;

pub(super) const ENTRY: Entry = Entry {
    name: "gorgo-v1",
    help: "the paper's agent: the own engine while it has room, else a strictly cheaper peer, else wait",
    unit: Unit::Ms,
    parameters: &[
        Parameter {
            key: "prefill_ms_per_token",
            default: PAPER_MS_PER_TOKEN,
            min: 0.0,
            max: 1000.0,
            help: "prefill time per token, ms; a replica's own rate overrides it",
        },
        Parameter {
            key: "q",
            default: 0.5,
            min: 0.0,
            max: 100.0,
            help: "what a running prompt token counts (the authors' program: 1)",
        },
        Parameter {
            key: "running_threshold",
            default: 5.0,
            min: 0.0,
            max: 1_000_000.0,
            help: "requests running in an engine at which it is full; 0 = `max_running` decides",
        },
        Parameter {
            key: "max_running",
            default: 10.0,
            min: 1.0,
            max: 1_000_000.0,
            help: "requests running and waiting at which an engine or a peer is full",
        },
        Parameter {
            key: "max_kv_usage",
            default: KV_USAGE_LIMIT,
            min: 0.0,
            max: 1.0,
            help: "KV use at which an engine or a peer is full",
        },
    ],
    build: |parameters, _| Box::new(GorgoV1::new(parameters)),
};

struct GorgoV1 {
    prefill_ms_per_token: f64,
    q: f64,
    running_threshold: u32,
    max_running: u32,
    max_kv_usage: f64,
}

impl GorgoV1 {
    fn new(parameters: &Parameters) -> Self {
        Self {
            prefill_ms_per_token: parameters.get("prefill_ms_per_token"),
            q: parameters.get("q"),
            running_threshold: parameters.get("running_threshold") as u32,
            max_running: parameters.get("max_running") as u32,
            max_kv_usage: parameters.get("max_kv_usage"),
        }
    }

    /// Has an engine of our own room for one more?
    fn has_room(&self, query: &Query<'_>, view: &View<'_>) -> bool {
        match view.replica.health() {
            Health::Unknown => return true,
            Health::Unhealthy => return false,
            Health::Healthy => {}
        }
        let gauges = view.replica.fresh_gauges(query.now, GATE_GAUGE_AGE_MS).unwrap_or_default();
        if self.kv_full(gauges) {
            return false;
        }
        let in_flight = view.load.in_flight() as f64;
        if let Some(limit) = query.max_concurrent {
            return in_flight < f64::from(limit);
        }
        if self.running_threshold > 0 {
            let running = in_flight - gauges.waiting.unwrap_or(0.0);
            return running < f64::from(self.running_threshold);
        }
        in_flight < f64::from(self.max_running)
    }

    /// May a peer be compared at all? Its own word is up to a poll old: what we have sent it counts at once.
    fn takes_part(&self, query: &Query<'_>, view: &View<'_>) -> bool {
        let gauges = view.replica.fresh_gauges(query.now, GATE_GAUGE_AGE_MS).unwrap_or_default();
        let told = gauges.running.unwrap_or(0.0) + gauges.waiting.unwrap_or(0.0);
        let busy = told.max(view.load.in_flight() as f64);
        let limit = query.max_concurrent.unwrap_or(self.max_running);
        view.replica.health() == Health::Healthy && !self.kv_full(gauges) && busy < f64::from(limit)
    }

    fn kv_full(&self, gauges: Gauges) -> bool {
        gauges.kv_usage.is_some_and(|usage| usage >= self.max_kv_usage)
    }
}

impl Policy for GorgoV1 {
    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let t_p = candidate.replica.spec.rates.prefill_ms_per_token.unwrap_or(self.prefill_ms_per_token);
        let uncached = f64::from(candidate.uncached_tokens);
        if candidate.replica.spec.kind == ReplicaKind::Peer {
            return terms([("network", candidate.rtt_ms), ("prefill", t_p * uncached)]);
        }
        let running = candidate.load.prompt_tokens as f64;
        terms([
            ("running", t_p * self.q * running),
            ("queue", t_p * query.queued_tokens as f64),
            ("prefill", t_p * uncached),
        ])
    }

    /// What people are shown as its limit; the rule looks for itself.
    fn gate(&self) -> Option<Gate> {
        let max_running = if self.running_threshold > 0 { self.running_threshold } else { self.max_running };
        Some(Gate { max_running, max_kv_usage: self.max_kv_usage })
    }

    fn keeps_local(&self) -> bool {
        true
    }

    fn choose(&self, query: &Query<'_>, views: &[View<'_>], candidates: &[Candidate], _best: usize) -> Choice {
        let of_kind = |kind| (0..views.len()).filter(move |&i| views[i].replica.spec.kind == kind);
        let open = of_kind(ReplicaKind::Engine).filter(|&i| self.has_room(query, &views[i]));
        if let Some(kept) = smallest(candidates, views, open) {
            return Choice::Local(kept);
        }
        let peers: Vec<usize> = of_kind(ReplicaKind::Peer).filter(|&i| self.takes_part(query, &views[i])).collect();
        let matching = peers.iter().copied().filter(|&i| views[i].cached_tokens > 0);
        let peer = smallest(candidates, views, matching).or_else(|| smallest(candidates, views, peers.iter().copied()));
        let local = smallest(candidates, views, of_kind(ReplicaKind::Engine));
        match (peer, local) {
            (Some(peer), None) => Choice::Best(peer),
            (Some(peer), Some(local)) if candidates[peer].score < candidates[local].score => Choice::Best(peer),
            _ => Choice::Hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;

    #[test]
    fn local_while_there_is_room() {
        let log = scores(
            "gorgo-v1",
            "",
            "
            # room: nothing is compared
            prompt=1000
            own up=1 decoding=4000,4000,4000,4000
            east peer=1 up=1 rtt=10 cached=900

            # never checked: room, whatever is there
            prompt=1000
            own decoding=100,100,100,100,100,100
            east peer=1 up=1 rtt=10

            # five running: full
            prompt=1000
            own up=1 decoding=100,100,100,100 sent=100
            east peer=1 up=1 rtt=10

            # of five in the engine one waits there
            prompt=1000
            own up=1 decoding=100,100,100,100 sent=100 waiting=1
            east peer=1 up=1 rtt=10

            # its KV cache is full
            prompt=1000
            own up=1 usage=0.95
            east peer=1 up=1 rtt=10 cached=1000

            # but that was long ago
            prompt=1000
            own up=1 usage=0.95 age=5001
            east peer=1 up=1 rtt=10 cached=1000
            ",
        );
        assert_snapshot!(log, @r"
        # room: nothing is compared
        own      846.000 = running 752.000 + queue 0.000 + prefill 94.000  <- kept
        east      19.400 = network 10.000 + prefill 9.400

        # never checked: room, whatever is there
        own      122.200 = running 28.200 + queue 0.000 + prefill 94.000  <- kept
        east     104.000 = network 10.000 + prefill 94.000

        # five running: full
        own      117.500 = running 23.500 + queue 0.000 + prefill 94.000
        east     104.000 = network 10.000 + prefill 94.000  <-

        # of five in the engine one waits there
        own      117.500 = running 23.500 + queue 0.000 + prefill 94.000  <- kept
        east     104.000 = network 10.000 + prefill 94.000

        # its KV cache is full
        own       94.000 = running 0.000 + queue 0.000 + prefill 94.000
        east      10.000 = network 10.000 + prefill 0.000  <-

        # but that was long ago
        own       94.000 = running 0.000 + queue 0.000 + prefill 94.000  <- kept
        east      10.000 = network 10.000 + prefill 0.000
        ");
    }

    #[test]
    fn limits() {
        let cases = "
            # with a limit: what runs and waits
            prompt=1000 limit=2
            own up=1 decoding=100 sent=100 waiting=1
            east peer=1 up=1 rtt=1

            # one below it
            prompt=1000 limit=3
            own up=1 decoding=100 sent=100 waiting=1
            east peer=1 up=1 rtt=1
            ";
        let both = "
        # with a limit: what runs and waits
        own      103.400 = running 9.400 + queue 0.000 + prefill 94.000
        east      95.000 = network 1.000 + prefill 94.000  <-

        # one below it
        own      103.400 = running 9.400 + queue 0.000 + prefill 94.000  <- kept
        east      95.000 = network 1.000 + prefill 94.000
        ";
        let lines = |text: &str| text.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n");
        assert_eq!(lines(&scores("gorgo-v1", "", cases)), lines(both), "`--max-concurrent` stands above the threshold");
        let unlimited = cases.replace("limit=2", "").replace("limit=3", "");
        let two = scores("gorgo-v1", "running_threshold=0 max_running=2", &unlimited);
        assert!(!two.contains("kept") && two.matches("<-").count() == 2, "{two}");
        let three = scores("gorgo-v1", "running_threshold=0 max_running=3", &unlimited);
        assert_eq!(three.matches("kept").count(), 2, "{three}");
    }

    /// The own engine of every case is full: its KV cache is.
    #[test]
    fn a_peer_only_if_it_is_strictly_cheaper() {
        let log = scores(
            "gorgo-v1",
            "prefill_ms_per_token=0.125",
            "
            # a tie stays
            prompt=800
            own up=1 usage=1 cached=400
            east peer=1 up=1 rtt=50 cached=400 prefill=0

            # what waits here makes the way worth it
            prompt=800 queued=8
            own up=1 usage=1 cached=400
            east peer=1 up=1 rtt=50 cached=400 prefill=0

            # a peer with a matching prefix goes before a nearer one without
            prompt=800 queued=4000
            own up=1 usage=1
            near peer=1 up=1 rtt=1
            far peer=1 up=1 rtt=400 cached=8

            # unless it is at its limit, by its own word
            prompt=800 queued=4000
            own up=1 usage=1
            near peer=1 up=1 rtt=1
            far peer=1 up=1 rtt=400 cached=8 running=8 waiting=2

            # or by what was sent there since
            prompt=800 queued=4000
            own up=1 usage=1
            near peer=1 up=1 rtt=1 sent=1,1,1,1,1,1,1,1,1,1
            far peer=1 up=1 rtt=400

            # nobody takes part: full, never checked
            prompt=800 queued=4000
            own up=1 usage=1
            near peer=1 up=1 rtt=1 usage=0.95
            far peer=1 rtt=4

            # no engine of our own in rotation: the cheapest peer
            prompt=800
            near peer=1 up=1 rtt=1
            far peer=1 up=1 rtt=4
            ",
        );
        assert_snapshot!(log, @r"
        # a tie stays
        own       50.000 = running 0.000 + queue 0.000 + prefill 50.000
        east      50.000 = network 50.000 + prefill 0.000
        hold

        # what waits here makes the way worth it
        own       51.000 = running 0.000 + queue 1.000 + prefill 50.000
        east      50.000 = network 50.000 + prefill 0.000  <-

        # a peer with a matching prefix goes before a nearer one without
        own      600.000 = running 0.000 + queue 500.000 + prefill 100.000
        near     101.000 = network 1.000 + prefill 100.000
        far      499.000 = network 400.000 + prefill 99.000  <-

        # unless it is at its limit, by its own word
        own      600.000 = running 0.000 + queue 500.000 + prefill 100.000
        near     101.000 = network 1.000 + prefill 100.000  <-
        far      499.000 = network 400.000 + prefill 99.000

        # or by what was sent there since
        own      600.000 = running 0.000 + queue 500.000 + prefill 100.000
        near     101.000 = network 1.000 + prefill 100.000
        far      500.000 = network 400.000 + prefill 100.000  <-

        # nobody takes part: full, never checked
        own      600.000 = running 0.000 + queue 500.000 + prefill 100.000
        near     101.000 = network 1.000 + prefill 100.000
        far      104.000 = network 4.000 + prefill 100.000
        hold

        # no engine of our own in rotation: the cheapest peer
        near     101.000 = network 1.000 + prefill 100.000  <-
        far      104.000 = network 4.000 + prefill 100.000
        ");
    }
}
