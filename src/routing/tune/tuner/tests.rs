use std::collections::{BTreeMap, BTreeSet};

use insta::assert_snapshot;
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Act, Command, Tuner};
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::Usage;
use crate::routing::policy::{Parameters, find};
use crate::routing::tune::trial::BRAKE;
use crate::routing::tune::{End, Entry, Method, Objective, Range, TuneError, TuneSettings, What};

/// Time between two arrivals, ms.
const GAP_MS: f64 = 10.0;

/// What a request takes with these values of `w_rtt` and `w_queue`: TTFT and whole time, ms. `None`: it never ends.
type Cost<'a> = &'a dyn Fn(&Play, [f64; 2], &mut ChaCha8Rng) -> Option<(f64, f64)>;

/// A router without a fleet: it has weights, gives requests to them and lets them take as long as the weights make them.
struct Play {
    tuner: Tuner,
    now: Time,
    /// In force, and on trial.
    incumbent: [f64; 2],
    rival: Option<[f64; 2]>,
    /// First tokens and ends to come.
    due: BTreeMap<(Time, RequestId), bool>,
    sent: u64,
    rivals: u64,
    random: ChaCha8Rng,
    /// Every incumbent so far.
    seen: Vec<[f64; 2]>,
}

fn settings() -> TuneSettings {
    TuneSettings { block: 32, periods: 8, seed: 1, ..TuneSettings::default() }
}

fn pair(values: &[(&'static str, f64)]) -> [f64; 2] {
    [values[0].1, values[1].1]
}

impl Play {
    fn new(settings: TuneSettings) -> Self {
        let entry = find("gorgo").unwrap();
        let parameters = Parameters::resolve(entry.name, entry.parameters, &[]).unwrap();
        let random = ChaCha8Rng::seed_from_u64(settings.seed);
        let tuner = Tuner::new(Time::ZERO, entry, &parameters, settings).unwrap();
        let incumbent = pair(&tuner.progress().incumbent);
        let (due, seen) = (BTreeMap::new(), vec![incumbent]);
        Self { tuner, now: Time::ZERO, incumbent, rival: None, due, sent: 0, rivals: 0, random, seen }
    }

    fn acts(&mut self) {
        while let Some(act) = self.tuner.act() {
            match act {
                Act::Try(values) => self.rival = Some(pair(&values)),
                Act::Retire => self.rival = None,
                Act::Promote => {
                    let rival = self.rival.expect("a rival to promote");
                    self.rival = Some(std::mem::replace(&mut self.incumbent, rival));
                }
                Act::Demote => self.incumbent = self.rival.take().expect("a rival to go back to"),
                Act::Set(values) => self.incumbent = pair(&values),
            }
            if self.seen.last() != Some(&self.incumbent) {
                self.seen.push(self.incumbent);
            }
        }
        assert_eq!(self.incumbent, pair(&self.tuner.progress().incumbent), "both agree on what is in force");
        assert_eq!(self.rival.is_some(), self.tuner.progress().rival.is_some());
    }

    /// One more request, and everything that happens before the next.
    fn request(&mut self, cost: Cost<'_>) {
        let request = RequestId(self.sent);
        self.sent += 1;
        self.tuner.arrive(self.now, request);
        self.acts();
        let rival = self.tuner.is_rivals(request);
        self.rivals += u64::from(rival);
        let values = if rival { self.rival.expect("who decides exists") } else { self.incumbent };
        let mut random = self.random.clone();
        let took = cost(self, values, &mut random);
        self.random = random;
        if let Some((ttft_ms, e2e_ms)) = took {
            self.due.insert((self.now.plus_ms(ttft_ms), request), false);
            self.due.insert((self.now.plus_ms(e2e_ms), request), true);
        }
        let next = self.now.plus_ms(GAP_MS);
        while let Some(((at, request), ends)) = self.due.pop_first() {
            if at > next {
                self.due.insert((at, request), ends);
                break;
            }
            if ends {
                self.tuner.end(at, request, End::Done, Usage::default());
                self.acts();
            } else {
                self.tuner.first_token(at, request);
            }
        }
        self.now = next;
    }

    /// Until it has ended, or so many requests.
    fn run(mut self, requests: u64, cost: Cost<'_>) -> Self {
        while self.sent < requests && !self.tuner.is_over() {
            self.request(cost);
        }
        self
    }

    /// Until something of this kind has happened.
    fn until(mut self, what: What, cost: Cost<'_>) -> Self {
        while self.last(what).is_none() {
            assert!(self.sent < 30_000, "{what:?} never happened:\n{}", self.log());
            self.request(cost);
        }
        self
    }

    fn last(&self, what: What) -> Option<&Entry> {
        self.tuner.log_since(0).filter(|entry| entry.what == what).last()
    }

    fn log(&self) -> String {
        let line = |entry: &Entry| {
            let values: Vec<String> = entry.values.iter().map(|(key, value)| format!("{key} {value:.3}")).collect();
            let change = entry.result.difference.map_or_else(String::new, |it| format!(" {it:+.3}"));
            let luck = entry.result.luck.map_or_else(String::new, |it| format!(" luck {it:.3}"));
            let why = if entry.why.is_empty() { String::new() } else { format!(" ({})", entry.why) };
            let periods = entry.result.periods;
            format!("{} {}{change}{luck} after {periods}{why}", entry.what.as_str(), values.join(" "))
        };
        self.tuner.log_since(0).map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Noise around one.
fn noise(random: &mut ChaCha8Rng) -> f64 {
    random.random_range(0.7..1.4_f64)
}

/// A valley: best at `w_rtt` 4, four times as slow at 1, `w_queue` does nothing.
fn valley(_: &Play, [w_rtt, _]: [f64; 2], random: &mut ChaCha8Rng) -> Option<(f64, f64)> {
    let factor = (w_rtt / 4.0).ln().abs().exp() * noise(random);
    Some((50.0 * factor, 200.0 * factor))
}

fn flat(_: &Play, _: [f64; 2], random: &mut ChaCha8Rng) -> Option<(f64, f64)> {
    let factor = noise(random);
    Some((50.0 * factor, 200.0 * factor))
}

#[test]
fn it_goes_where_it_is_better_and_ends_by_itself() {
    let found: Vec<[f64; 2]> = (0..5)
        .map(|seed| {
            let play = Play::new(TuneSettings { seed, ..settings() }).run(60_000, &valley);
            assert_eq!(play.tuner.progress().state, "ended", "{}", play.log());
            play.incumbent
        })
        .collect();
    // Noise may hide a gain; then the weights stay.
    assert!(found.iter().all(|[w_rtt, _]| *w_rtt == 1.0 || (2.5..6.5).contains(w_rtt)), "{found:?}");
    assert!(found.iter().filter(|[w_rtt, _]| *w_rtt > 1.0).count() >= 4, "{found:?}");
}

#[test]
fn where_every_weight_serves_alike_nothing_changes() {
    let play = Play::new(settings()).run(60_000, &|_, _, _| Some((50.0, 200.0)));
    assert_eq!((play.seen.as_slice(), play.tuner.progress().state), ([[1.0, 0.1]].as_slice(), "ended"));
    assert!(play.sent < 4000 && play.rivals * 5 < play.sent * 2, "{} of {}", play.rivals, play.sent);
    let lines = play.log();
    let lines: Vec<&str> = lines.lines().collect();
    assert_snapshot!(format!("{}\n…\n{}", lines[..5].join("\n"), lines[lines.len() - 2..].join("\n")), @"
    started w_rtt 1.000 w_queue 0.100 after 0
    proposed w_rtt 1.000 w_queue 0.061 after 0
    rejected w_rtt 1.000 w_queue 0.061 +0.000 luck 1.000 after 4 (no gain after half of the periods)
    proposed w_rtt 1.000 w_queue 0.152 after 0
    rejected w_rtt 1.000 w_queue 0.152 +0.000 luck 1.000 after 4 (no gain after half of the periods)
    …
    rejected w_rtt 1.000 w_queue 0.111 +0.000 luck 1.000 after 4 (no gain after half of the periods)
    ended w_rtt 1.000 w_queue 0.100 after 0 (steps have shrunk to their end)
    ");
}

/// With noise alone a candidate passes as rarely as the test promises, and a watch takes some of those back.
#[test]
fn noise_seldom_moves_the_weights() {
    let moved = (0..20).filter(|seed| {
        let play = Play::new(TuneSettings { seed: *seed, ..settings() }).run(60_000, &flat);
        play.incumbent != [1.0, 0.1]
    });
    let moved = moved.count();
    assert!(moved <= 3, "{moved} of 20");
}

#[test]
fn a_candidate_whose_requests_hang_is_gone_after_a_few_of_them() {
    let hangs = |_: &Play, values: [f64; 2], random: &mut ChaCha8Rng| {
        (values == [1.0, 0.1]).then(|| (50.0 * noise(random), 200.0 * noise(random)))
    };
    let play = Play::new(TuneSettings { block: 64, ..settings() }).until(What::RolledBack, &hangs);
    assert_eq!(play.incumbent, [1.0, 0.1]);
    // Those of the brake, and those that come until a hanging one is three times as old as the others get.
    let bound = BRAKE as u64 + (3.0 * 300.0 / GAP_MS) as u64;
    assert!(play.rivals <= bound, "{} of at most {bound}\n{}", play.rivals, play.log());
    assert_eq!(play.last(What::RolledBack).unwrap().why, "far slower within a block");
}

#[test]
fn a_candidate_that_is_half_as_fast_is_gone_after_two_periods() {
    let slower = |_: &Play, values: [f64; 2], random: &mut ChaCha8Rng| {
        let factor = if values == [1.0, 0.1] { 1.0 } else { 1.8 } * noise(random);
        Some((50.0 * factor, 200.0 * factor))
    };
    let play = Play::new(TuneSettings { block: 64, ..settings() }).until(What::RolledBack, &slower);
    let entry = play.last(What::RolledBack).unwrap();
    assert_eq!((entry.why, entry.result.periods), ("clearly worse in every period", 2));
    assert_eq!(play.incumbent, [1.0, 0.1]);
    // A lead, and three periods at the most: the third runs while the second is being answered.
    assert!(play.sent <= (2 + 6) * 64, "{}", play.sent);
}

/// Good while it has a part of the traffic, bad with all of it: a replica that overflows only then.
#[test]
fn an_acceptance_that_makes_the_fleet_slower_is_taken_back() {
    let cost = |play: &Play, values: [f64; 2], random: &mut ChaCha8Rng| {
        let factor = match (values == [1.0, 0.1], play.incumbent == [1.0, 0.1]) {
            (true, true) => 1.0,
            (false, true) => 0.6,
            (_, false) => 2.5,
        } * noise(random);
        Some((50.0 * factor, 200.0 * factor))
    };
    let play = Play::new(settings()).until(What::Reverted, &cost);
    assert_eq!(play.last(What::Reverted).unwrap().why, "the fleet got slower after it");
    assert_eq!((play.incumbent, play.rival), ([1.0, 0.1], None));
}

/// An acceptance by luck, as it were: better during its trial, worse ever after.
#[test]
fn an_acceptance_that_does_worse_than_what_was_before_is_taken_back() {
    let cost = |play: &Play, values: [f64; 2], random: &mut ChaCha8Rng| {
        let accepted = play.last(What::Accepted).is_some();
        let factor = match (values == [1.0, 0.1], accepted) {
            (true, _) => 1.0,
            (false, false) => 0.6,
            (false, true) => 1.2,
        } * noise(random);
        Some((50.0 * factor, 200.0 * factor))
    };
    let play = Play::new(TuneSettings { block: 32, ..settings() }).until(What::Reverted, &cost);
    assert_eq!(play.incumbent, [1.0, 0.1]);
}

/// TTFT that is bought with whole answers: the smaller `w_queue`, the sooner the first token and the later the last.
fn hack(_: &Play, [_, w_queue]: [f64; 2], random: &mut ChaCha8Rng) -> Option<(f64, f64)> {
    let noise = noise(random);
    let cheat = w_queue.powf(0.4);
    Some((100.0 * cheat * noise, 300.0 / cheat * noise))
}

#[test]
fn a_first_token_that_is_bought_with_the_rest_is_no_gain() {
    let with =
        |objective| Play::new(TuneSettings { objective, block: 32, ..settings() }).run(40_000, &hack).incumbent[1];
    let (first, whole) = (with(Objective::FirstToken), with(Objective::Whole));
    assert!(first < 0.01, "{first}");
    assert!(whole >= 0.05, "{whole}");
}

#[test]
fn people_can_freeze_resume_go_back_and_stop() {
    let mut play = Play::new(settings()).until(What::Confirmed, &valley);
    let found = play.incumbent;
    assert_ne!(found, [1.0, 0.1]);
    let state = |play: &mut Play, command| {
        play.tuner.command(play.now, command).unwrap();
        play.acts();
        play.tuner.progress().state
    };
    assert_eq!(state(&mut play, Command::Freeze), "frozen");
    let rivals = play.rivals;
    (0..500).for_each(|_| play.request(&valley));
    assert_eq!((play.rivals, play.rival), (rivals, None), "nobody is tried while it is frozen");
    assert_eq!(state(&mut play, Command::Resume), "waiting");
    play.request(&valley);
    assert_eq!(play.tuner.progress().state, "trial");
    assert_eq!(state(&mut play, Command::Rollback), "frozen");
    assert_eq!((play.incumbent, play.rival), (play.seen[0], None));
    // Nothing before that is known: the weights stay.
    assert_eq!(state(&mut play, Command::Rollback), "frozen");
    assert_eq!(play.incumbent, play.seen[0]);
    assert_eq!(state(&mut play, Command::Stop), "ended");
    let refused = play.tuner.command(play.now, Command::Resume);
    assert_eq!(refused, Err(TuneError::Over { why: "stopped by hand" }));
    assert_eq!(refused.unwrap_err().to_string(), "the tuner has ended (stopped by hand); start a new one");
}

#[test]
fn what_is_still_watched_does_not_outlive_a_stop() {
    for command in [Command::Stop, Command::Rollback] {
        let mut play = Play::new(settings()).until(What::Accepted, &valley);
        assert_ne!(play.incumbent, [1.0, 0.1]);
        assert_eq!(play.tuner.progress().state, "watch");
        play.tuner.command(play.now, command).unwrap();
        play.acts();
        assert_eq!((play.incumbent, play.rival), ([1.0, 0.1], None), "{command:?}");
    }
}

/// Rates of 0.2 and 0.05 ms per token, and a score that is the better the nearer its rates are to them.
#[test]
fn measured_rates_are_proposed_and_judged_like_any_candidate() {
    let calibrated = TuneSettings { method: Method::Calibrated, ..settings() };
    let run = |better: bool| {
        let mut play = Play::new(calibrated.clone());
        let mut random = ChaCha8Rng::seed_from_u64(5);
        while !play.tuner.is_over() && play.sent < 20_000 {
            let (uncached, queued) = (random.random_range(100..3000_u32), random.random_range(0..8000_u64));
            let (request, now) = (RequestId(play.sent), play.now);
            let ttft_ms = 20.0 + 0.2 * f64::from(uncached) + 0.05 * queued as f64;
            // Beside the trial's own times: what the fit sees.
            let flight = RequestId(1_000_000 + request.0);
            play.tuner.dispatched(now, flight, (ReplicaId(0), uncached, queued));
            play.tuner.first_token(now.plus_ms(ttft_ms), flight);
            play.tuner.end(now.plus_ms(ttft_ms), flight, End::Done, Usage::default());
            play.request(&|_, [prefill, queue], random| {
                let off = (prefill / 0.2).ln().abs() + (queue / 0.05).ln().abs();
                let factor = if better { off.exp() } else { 1.0 } * (0.9 + 0.2 * random.random::<f64>());
                Some((50.0 * factor, 200.0 * factor))
            });
        }
        play
    };
    let good = run(true);
    assert!(
        (good.incumbent[0] / 0.2).ln().abs() < 0.11 && (good.incumbent[1] / 0.05).ln().abs() < 0.11,
        "{}",
        good.log()
    );
    assert_eq!(good.tuner.progress().why, "the rates are those measured, as near as they may be");
    let vain = run(false);
    assert_eq!((vain.incumbent, vain.tuner.progress().why), ([0.094, 0.094], "the rates measured do not serve better"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the traffic does and people ask for.
    #[test]
    fn weights_stay_in_their_box_and_the_incumbent_keeps_its_share(
        seed in any::<u64>(),
        share in 0.05..0.95_f64,
        block in 8..40_usize,
        commands in prop::collection::vec((1..900_u64, 0..3_u8), 0..6),
        hostile in any::<bool>(),
    ) {
        let ranges = vec![
            Range { key: "w_rtt".into(), bounds: Some((0.5, 3.0)) },
            Range { key: "w_queue".into(), bounds: None },
        ];
        let staying = (share * block as f64).ceil() as usize;
        let mut play = Play::new(TuneSettings { ranges, share, block, ..TuneSettings { seed, ..settings() } });
        let cost = |play: &Play, values: [f64; 2], random: &mut ChaCha8Rng| {
            if hostile && random.random_bool(0.02) { None } else { valley(play, values, random) }
        };
        let mut commands: BTreeSet<(u64, u8)> = commands.into_iter().collect();
        while play.sent < 1200 && !play.tuner.is_over() {
            while commands.first().is_some_and(|(at, _)| *at <= play.sent) {
                let (_, which) = commands.pop_first().unwrap();
                let command = [Command::Freeze, Command::Resume, Command::Rollback][usize::from(which)];
                play.tuner.command(play.now, command).unwrap();
                play.acts();
            }
            play.request(&cost);
            for [w_rtt, w_queue] in play.rival.into_iter().chain([play.incumbent]) {
                prop_assert!((0.5..=3.0).contains(&w_rtt) && (0.001..=10.0).contains(&w_queue), "{w_rtt} {w_queue}");
            }
            for (arrived, with_rival) in play.tuner.shares() {
                prop_assert!(with_rival <= block - staying, "{with_rival} of {arrived}");
            }
        }
        prop_assert!(play.rivals as f64 <= 0.55 * (1.0 - share) * play.sent as f64 + block as f64);
    }
}
