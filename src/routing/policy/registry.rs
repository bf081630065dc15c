//! All strategies by name.

use super::parameters::{Parameter, Parameters};
use super::{
    Policy, aibrix_prefix, consistent_hash, dynamo, geo, gorgo, gorgo_online, gorgo_proxy, gorgo_v1, gorgo_v3,
    least_load, least_request, llm_d, power_of_two, preble, predictive, prefix_tree, random, round_robin,
    session_affinity, sglang_cache_aware, skywalker,
};
use crate::model::spelling;
use crate::routing::decision::Unit;

/// One strategy: what a person needs to choose it and what the router needs to build it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// One line: the rule.
    pub help: &'static str,
    /// Unit of its scores.
    pub unit: Unit,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// Builds the rule from its parameters and a seed.
    pub build: fn(&Parameters, u64) -> Box<dyn Policy>,
}

const REGISTRY: &[Entry] = &[
    predictive::ENTRY,
    gorgo::ENTRY,
    gorgo::SCORE,
    gorgo_v1::ENTRY,
    gorgo_v3::ENTRY,
    gorgo_online::ENTRY,
    gorgo_proxy::ENTRY,
    prefix_tree::ENTRY,
    least_load::ENTRY,
    least_request::ENTRY,
    session_affinity::ENTRY,
    consistent_hash::ENTRY,
    geo::ENTRY,
    power_of_two::ENTRY,
    round_robin::ENTRY,
    random::ENTRY,
    sglang_cache_aware::ENTRY,
    dynamo::ENTRY,
    aibrix_prefix::ENTRY,
    preble::ENTRY,
    skywalker::ENTRY,
    llm_d::ENTRY,
];

/// All strategies, in the order in which they are listed to people.
#[must_use]
pub fn strategies() -> &'static [Entry] {
    REGISTRY
}

/// The names of all strategies, in the same order.
pub fn names() -> impl Iterator<Item = &'static str> {
    REGISTRY.iter().map(|entry| entry.name)
}

/// A strategy by its name.
pub fn find(name: &str) -> Result<&'static Entry, UnknownStrategy> {
    REGISTRY.iter().find(|entry| entry.name == name).ok_or_else(|| UnknownStrategy {
        name: name.to_owned(),
        hint: spelling::hint(name, names()),
        known: names().collect::<Vec<_>>().join(", "),
    })
}

/// The strategy that a name means on an agent: `gorgo` is the paper's rule for agents there, all other names are themselves. What
/// `gorgo` is elsewhere is `gorgo-score` there and everywhere.
#[must_use]
pub fn on_agent(name: &str) -> &str {
    if name == "gorgo" { gorgo_v1::ENTRY.name } else { name }
}

/// An unknown strategy name; the message lists the known ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown strategy `{name}`; known strategies: {known}{hint}")]
pub struct UnknownStrategy {
    /// As asked for.
    pub name: String,
    /// `; did you mean …?`, or nothing.
    pub hint: String,
    /// The known ones, separated by commas.
    pub known: String,
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Parameters, find, names, on_agent, strategies};
    use crate::routing::{Settings, SettingsError};

    #[test]
    fn every_strategy_and_its_parameters_are_documented_and_can_be_built() {
        let mut text = String::new();
        for entry in strategies() {
            text.push_str(&format!("{} ({}): {}\n", entry.name, entry.unit, entry.help));
            for p in entry.parameters {
                assert!((p.min..=p.max).contains(&p.default), "{} {}", entry.name, p.key);
                text.push_str(&format!("  {} = {} ({} to {}): {}\n", p.key, p.default, p.min, p.max, p.help));
            }
            let defaults = Parameters::resolve(entry.name, entry.parameters, &[]).unwrap();
            (entry.build)(&defaults, 0);
        }
        assert_snapshot!(text, @r"
        predictive (ms): least predicted cost in ms by rates learned online, the delay that it causes others included
          gamma = 0.125 (0 to 10): ms of TTFT that one ms of decoding is worth; 0 leans to TTFT, 0.3 to whole answers
          kappa = 0.5 (0 to 10): weight of the delay of later arrivals; 1 is the textbook value of an M/G/1 queue
          phi = 0.7 (0 to 10): discount of a conversation's expected next turns
          tail = 0.7 (0 to 10): extra price per ms of TTFT beyond that of nine in ten recent requests
          hold_ms = 500 (50 to 86400000): without peers, keep a request in the router while its best replica makes it wait longer than this, ms
          max_running = 0 (0 to 1000000): requests that each engine runs at most, so that a wait for a place is foreseen; 0 = it is not, which served better where places ran out in simulations
          guard = 1 (0 to 1): 1 = a late request that its engine has certainly not begun is called back and sent elsewhere; 0 = never
        gorgo (ms): least predicted cost in ms: round trip, prefill of uncached tokens, queue
          w_rtt = 1 (0 to 1000): weight of the round trip
          prefill_ms_per_token = 0.094 (0 to 1000): prefill time per uncached token, ms; a replica's own rate overrides it
          queue_ms_per_token = 0.094 (0 to 1000): queueing time per queued token, ms; a replica's own rate overrides it
          w_queue = 0.1 (0 to 100): weight of the queue
        gorgo-score (ms): the rule of `gorgo`, on agents too: scores the own engine and peers alike
          w_rtt = 1 (0 to 1000): weight of the round trip
          prefill_ms_per_token = 0.094 (0 to 1000): prefill time per uncached token, ms; a replica's own rate overrides it
          queue_ms_per_token = 0.094 (0 to 1000): queueing time per queued token, ms; a replica's own rate overrides it
          w_queue = 0.1 (0 to 100): weight of the queue
        gorgo-v1 (ms): the paper's agent: the own engine while it has room, else a strictly cheaper peer, else wait
          prefill_ms_per_token = 0.094 (0 to 1000): prefill time per token, ms; a replica's own rate overrides it
          q = 0.5 (0 to 100): what a running prompt token counts (the authors' program: 1)
          running_threshold = 5 (0 to 1000000): requests running in an engine at which it is full; 0 = `max_running` decides
          max_running = 10 (1 to 1000000): requests running and waiting at which an engine or a peer is full
          max_kv_usage = 0.95 (0 to 1): KV use at which an engine or a peer is full
        gorgo-v3 (tokens): the paper's published score in uncached tokens, weights frozen
          w_rtt = 0.276 (0 to 1000): tokens per ms of round trip
          prefill_rate = 1 (0 to 1000): weight of an uncached token
          queue_rate = 1 (0 to 1000): weight of a queued token before w_queue
          w_queue = 0.5 (0 to 100): weight of the queue
          reference_ms_per_token = 0.094 (0.000001 to 1000): rate in ms per token of a replica that counts as 1, for replicas with rates of their own
        gorgo-online (tokens): the paper's score, its weights moved by the paper's tuner on live requests
          w_rtt = 0.5 (0.000001 to 1000): tokens per ms of round trip at the start
          w_rtt_min = 0.05 (0.000001 to 1000): smallest that the tuner may set
          w_rtt_max = 2 (0.000001 to 1000): largest that the tuner may set
          w_queue = 0.1 (0.000001 to 100): weight of the queue at the start
          w_queue_min = 0.05 (0.000001 to 100): smallest that the tuner may set
          w_queue_max = 0.5 (0.000001 to 100): largest that the tuner may set
          window = 128 (1 to 100000): answered requests in a score
          hop = 32 (1 to 100000): answered requests between two scores
          sigma = 0.5 (0.0001 to 10): first step size, natural logarithm
          stop = 0.05 (0.0001 to 10): step size below which the weights stay
          slip = 0 (0 to 1): share by which a score may be worse and is accepted (the authors' program: 0.005)
          prefill_rate = 1 (0 to 1000): weight of an uncached token
          queue_rate = 1 (0 to 1000): weight of a queued token before w_queue
          reference_ms_per_token = 0.094 (0.000001 to 1000): rate in ms per token of a replica that counts as 1, for replicas with rates of their own
        gorgo-proxy (ms): the paper's central proxy: round trip, running and uncached tokens in ms; holds requests at 10 running
          prefill_ms_per_token = 0.094 (0 to 1000): prefill time per token, ms; a replica's own rate overrides it
          q = 0.5 (0 to 100): what a running token counts (the authors' program: 1)
          gate_running = 10 (0 to 1000000): requests in flight at which a replica is full; 0 = no such limit, the engine's queue is priced instead
          gauge_max_age_ms = 60000 (0 to 3600000): gauges older than this are not used, ms
        prefix-tree (tokens): longest cached prefix, else least load; collapses where all prompts open alike
          gauge_max_age_ms = 60000 (0 to 3600000): gauges older than this are not used, ms
        least-load (tokens): fewest running, waiting, KV tokens and own prompt tokens in flight
          gauge_max_age_ms = 60000 (0 to 3600000): gauges older than this are not used, ms
        least-request (requests): fewest requests running, by gauge or own count
          gauge_max_age_ms = 60000 (0 to 3600000): gauges older than this are not used, ms
        session-affinity (rank): each session on one replica by rendezvous hashing
        consistent-hash (rank): each session at its place on a hash ring; none above 1.25 times the mean load
          load_factor = 1.25 (1 to 1000000): most requests in flight as a multiple of the mean; large = no bound
          points = 160 (1 to 10000): points per replica on the ring
        geo (km): the region nearest to the client, by `x-gorgo-client-location` or `--places`; there the fewest requests in flight
        power-of-two (requests): fewer requests in flight of two drawn at random
        round-robin (rank): each replica in turn
        random (rank): any replica, uniformly
        sglang-cache-aware (rank): SGLang's router: longest match above half of the prompt, else smallest tree; fewest requests when 32 apart
          cache_threshold = 0.5 (0 to 1): share of the prompt above which a match decides
          balance_abs = 32 (0 to 1000000): difference in requests above which replicas may be out of balance
          balance_rel = 1.0001 (0 to 1000): ratio of the most to the fewest requests above which they are
          max_tree_size = 4194304 (0 to 1000000000000): size at which a tree is no longer counted on, tokens
        dynamo (blocks): Dynamo's KV router: fewest blocks to compute and blocks held
          overlap_score_credit = 1 (0 to 1): what a cached token takes off the tokens to compute
          overlap_score_credit_decay = 0 (0 to 1000): how fast the credit falls with the tokens to compute beyond those of the least loaded
          prefill_load_scale = 1 (0 to 1000): weight of a block to compute
          decode_active_request_weight = 0 (0 to 1000000): blocks that a request in flight counts beside its own
          temperature = 0 (0 to 1000): 0 = the smallest score; above, drawn by a softmax over the scores
          block_size = 16 (1 to 65536): tokens per KV block
        aibrix-prefix (rank): AIBrix's prefix-cache: longest match below mean + 1 σ requests; fewest requests when 8 apart
          imbalance = 8 (0 to 1000000): difference in requests above which only the least busy replicas are considered
          deviations = 1 (0 to 1000): standard deviations above the mean of requests up to which a match counts
        preble (rank): Preble: where more than half of the prompt is cached, else the least load of three minutes
          window_s = 180 (1 to 3600): requests that count as load, s
          first_tpot_ms = 150 (0 to 10000): time per output token that stands before the measured ones, ms
          rebalance = 1.5 (1 to 1000000): ratio of the largest to the smallest load above which the former's matches go to the latter
          rebalance_after = 50 (0 to 1000000): requests per replica before that
        skywalker (requests): SkyWalker: only where nobody waits, near before far, there by cached prefix; else it waits here
          match_threshold = 0.5 (0 to 1): share of the prompt above which a match decides
          max_pending = 3 (0 to 1000000): requests without a first token up to which a replica is available
          max_peer_queue = 10 (0 to 1000000): requests in a peer's queue up to which it is available
          balance_abs = 32 (0 to 1000000): difference in requests above which replicas may be out of balance
          balance_rel = 1.0001 (0 to 1000): ratio of the most to the fewest requests above which they are
        llm-d (rank): llm-d's default scorers: short engine queue, free KV cache, share of the prompt cached
          w_queue = 2 (0 to 1000): weight of a short engine queue
          w_kv = 2 (0 to 1000): weight of a free KV cache
          w_prefix = 3 (0 to 1000): weight of a cached prompt
          gauge_max_age_ms = 60000 (0 to 3600000): gauges older than this are not used, ms
        ");
    }

    #[test]
    fn on_agents_only_gorgo_is_another_rule_and_its_own_has_a_second_name() {
        let moved: Vec<_> = names().filter(|name| on_agent(name) != *name).collect();
        assert_eq!((moved, on_agent("gorgo")), (vec!["gorgo"], "gorgo-v1"));
        let (gorgo, score) = (find("gorgo").unwrap(), find("gorgo-score").unwrap());
        assert_eq!((gorgo.unit, gorgo.parameters), (score.unit, score.parameters));
        assert!(std::ptr::fn_addr_eq(gorgo.build, score.build));
    }

    #[test]
    fn names_are_unique() {
        for entry in strategies() {
            assert_eq!(strategies().iter().filter(|other| other.name == entry.name).count(), 1, "{}", entry.name);
            assert_eq!(find(entry.name).map(|found| found.name), Ok(entry.name));
        }
    }

    fn error(strategy: &str, parameters: &[(&str, f64)]) -> String {
        let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        let settings = Settings { strategy: strategy.into(), parameters, ..Settings::default() };
        let error: SettingsError = crate::routing::Router::new(settings).err().expect("an error");
        error.to_string()
    }

    #[test]
    fn errors_say_what_was_found_and_what_was_wanted() {
        let errors = [
            error("gorgo-v2", &[]),
            error("best", &[]),
            error("gorgo", &[("w_rrt", 1.0)]),
            error("random", &[("weight", 1.0)]),
            error("gorgo", &[("w_rtt", -1.0)]),
            error("gorgo", &[("w_queue", f64::NAN)]),
            error("gorgo-v3", &[("reference_ms_per_token", 0.0)]),
        ];
        assert_snapshot!(errors.join("\n"), @"
        unknown strategy `gorgo-v2`; known strategies: predictive, gorgo, gorgo-score, gorgo-v1, gorgo-v3, gorgo-online, gorgo-proxy, prefix-tree, least-load, least-request, session-affinity, consistent-hash, geo, power-of-two, round-robin, random, sglang-cache-aware, dynamo, aibrix-prefix, preble, skywalker, llm-d; did you mean `gorgo-v1`?
        unknown strategy `best`; known strategies: predictive, gorgo, gorgo-score, gorgo-v1, gorgo-v3, gorgo-online, gorgo-proxy, prefix-tree, least-load, least-request, session-affinity, consistent-hash, geo, power-of-two, round-robin, random, sglang-cache-aware, dynamo, aibrix-prefix, preble, skywalker, llm-d
        strategy `gorgo` has no parameter `w_rrt`; it has: w_rtt, prefill_ms_per_token, queue_ms_per_token, w_queue; did you mean `w_rtt`?
        strategy `random` has no parameter `weight`; it has: none
        `w_rtt` is -1, wanted 0 to 1000
        `w_queue` is NaN, wanted 0 to 100
        `reference_ms_per_token` is 0, wanted 0.000001 to 1000
        ");
    }
}
