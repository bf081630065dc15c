//! Several routers: hops, news, clients away from their router, partitions.

use std::sync::Arc;

use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::{Case, conversations, fleet, mean, plan, session, step, ttft_ms};
use crate::model::geo::Atlas;
use crate::sim::world::{Edge, News, Played};
use crate::workload::Fleet;
use crate::workload::fleet::Clients;

/// Puts all clients in `a`.
pub(super) fn all_in_a(mut fleet: Fleet) -> Fleet {
    let router = fleet.routers.iter().position(|router| router.region.as_str() == "a").unwrap();
    fleet.clients = vec![Clients { region: fleet.routers[router].region.clone(), share: 1.0, router }];
    fleet
}

fn served_in(played: &Played, region: &str) -> usize {
    played.samples.iter().filter(|sample| sample.region.as_deref() == Some(region)).count()
}

fn strategies() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("gorgo"), Just("gorgo-v1"), Just("least-load"), Just("random"), Just("round-robin")]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_request_makes_one_hop_at_most_and_every_hop_is_counted(
        strategy in strategies(), count in 5_u64..60, gap_ms in 1.0..60.0_f64, oracle: bool, seed in 0_u64..1000,
    ) {
        // A second hop would trip an assertion of the world itself.
        let agents = fleet("abc", "abc", "");
        let plan = conversations(count, gap_ms);
        let news = if oracle { News::Oracle } else { News::Told };
        let case = Case { seed, edge: Edge { news, ..Edge::default() }, ..Case::new(&agents, &plan, strategy) };
        let played = case.play();
        prop_assert_eq!(played.samples.len(), plan.requests());
        prop_assert!(played.samples.iter().all(crate::report::Sample::ok));
        let abroad = played.samples.iter().filter(|sample| sample.home != sample.region).count() as u64;
        prop_assert_eq!((abroad, played.queued), (played.forwarded, 0));
    }
}

#[test]
fn clients_near_an_agent_are_spared_the_way_to_a_central_router() {
    let plan = conversations(200, 60.0);
    let agents = fleet("abc", "abc", "");
    // The same clients, but one router in `a` for all of them.
    let mut central = fleet("abc", "a", "");
    central.clients = agents.clients.iter().map(|clients| Clients { router: 0, ..clients.clone() }).collect();
    let near = Case::new(&agents, &plan, "gorgo").play();
    let far = Case::new(&central, &plan, "gorgo").play();
    assert!(far.samples.iter().chain(&near.samples).all(crate::report::Sample::ok));
    assert_eq!(near.samples.len(), far.samples.len());
    // Two thirds of the clients have 100 ms to the central router.
    let (near, far) = (mean(&ttft_ms(&near)), mean(&ttft_ms(&far)));
    assert!(far - near > 50.0, "{near:.0} ms beside agents, {far:.0} ms by way of one router");
}

#[test]
fn the_papers_agent_sends_on_only_what_its_own_engine_has_no_room_for() {
    let agents = all_in_a(fleet("abc", "abc", ""));
    let idle = Case::new(&agents, &conversations(30, 400.0), "gorgo-v1").play();
    assert_eq!((idle.forwarded, served_in(&idle, "a")), (0, 90));
    // Forty cold prompts of 2.01 s at once, five of which are room for.
    let burst: Vec<_> = (0..40).map(|id| session(id, 1000.0, vec![step(10 + id, 20_000, 1, 0.0)])).collect();
    let busy = Case::new(&agents, &plan(burst), "gorgo-v1").play();
    assert!(busy.forwarded > 10, "{}", busy.forwarded);
    assert!(served_in(&busy, "b") > 0 && served_in(&busy, "c") > 0);
    assert!(busy.samples.iter().all(|sample| sample.ok() && sample.home.as_deref() == Some("a")));
}

#[test]
fn an_agent_that_hears_of_its_peers_does_not_send_to_those_that_are_full() {
    // More than both can take, for everybody: a peer with ten requests running and waiting takes part no more (`gorgo-v1`).
    let agents = fleet("ab", "ab", "");
    let sessions = (0..200).map(|id| session(id, 10.0 * id as f64, vec![step(10 + id, 2000, 1, 0.0)]));
    let plan = plan(sessions.collect());
    let forwarded = |peers_every_ms, news| {
        let edge = Edge { peers_every_ms, news, ..Edge::default() };
        let played = Case { edge, ..Case::new(&agents, &plan, "gorgo-v1") }.play();
        assert!(played.samples.iter().all(crate::report::Sample::ok));
        played.forwarded
    };
    let (oracle, fresh) = (forwarded(1.0, News::Oracle), forwarded(100.0, News::Told));
    let silent = forwarded(3_600_000.0, News::Told);
    assert!(oracle < silent && fresh < silent, "oracle {oracle}, fresh {fresh}, silent {silent}");
}

#[test]
fn a_partition_keeps_everybody_at_home_and_heals() {
    let agents = all_in_a(fleet("ab", "ab", ""));
    // Two prompts of 310 ms at once, every half second, for two minutes: one each, if both can be reached.
    let pairs = (0..480).map(|id| session(id, 500.0 * (id / 2) as f64, vec![step(10 + id, 3000, 1, 0.0)]));
    let plan = plan(pairs.collect());
    let case = Case { faults: &["cut:b@30..60"], ..Case::new(&agents, &plan, "least-request") };
    let played = case.play();
    assert!(played.samples.iter().all(crate::report::Sample::ok));
    // What waits at `b` when the line is cut is tried again at home once `b` has been silent for 3 s, instead of waiting for 30 s.
    let worst = ttft_ms(&played).into_iter().fold(0.0, f64::max);
    assert!(played.retried > 0 && worst < 20_000.0, "{} retried, {worst:.0} ms", played.retried);
    let abroad = |from: f64, to: f64| {
        let sent = played.samples.iter().filter(|sample| (from..to).contains(&sample.sent.ms()));
        sent.filter(|sample| sample.region.as_deref() == Some("b")).count()
    };
    assert!(abroad(0.0, 30_000.0) > 40, "{}", abroad(0.0, 30_000.0));
    assert_eq!(abroad(34_000.0, 60_000.0), 0, "whoever is silent is sent nothing");
    assert!(abroad(70_000.0, 120_000.0) > 60, "{}", abroad(70_000.0, 120_000.0));
}

#[test]
fn geo_serves_everybody_in_the_region_nearest_to_them() {
    let plan = conversations(60, 60.0);
    // Clients in `c` are nearer to `b` than to `a`, and nobody serves in `c`.
    let places = Arc::new(Atlas::parse("[places]\na = \"0,0\"\nb = \"0,20\"\nc = \"0,30\"").unwrap());
    let at = |regions: &str, routers: &str| Fleet { places: Arc::clone(&places), ..fleet(regions, routers, "") };
    let everywhere = at("abc", "abc");
    let clients: Vec<Clients> =
        everywhere.clients.iter().map(|clients| Clients { router: 0, ..clients.clone() }).collect();
    let mut central = Fleet { clients, ..at("abc", "a") };
    central.replicas.retain(|replica| replica.region.as_str() != "c");
    let homes = crate::workload::homes(&central.clients, &plan, 1, 0.0);
    let requests_of = |group: usize| {
        let sessions = plan.sessions.iter().zip(&homes).filter(|(_, home)| home.0 == group);
        sessions.map(|(session, _)| session.steps.len()).sum::<usize>()
    };
    let played = Case::new(&central, &plan, "geo").play();
    assert!(requests_of(0) > 0 && requests_of(2) > 0, "there are clients in both");
    assert_eq!(served_in(&played, "a"), requests_of(0));
    assert_eq!(served_in(&played, "b"), requests_of(1) + requests_of(2));
    // Beside its agent nobody has to go anywhere.
    assert_eq!(Case::new(&everywhere, &plan, "geo").play().forwarded, 0);
}
