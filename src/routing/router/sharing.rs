//! Routers that share engines without standing before each other: each sends to every engine itself, and tells the others what it has there.

use super::Router;
use crate::model::{ReplicaId, Time};
use crate::routing::fleet::Replica;
use crate::routing::peer::{Report, Totals};

/// What a router has in flight at each of its replicas, in its order.
pub type Shares = Vec<(ReplicaId, Totals)>;

impl Router {
    /// What this router has in flight at every replica, for the other routers that use them.
    #[must_use]
    pub fn shares(&self) -> Shares {
        self.fleet.iter().map(|replica| (replica.id, Totals::of(self.ledger.load(replica.id)))).collect()
    }

    /// Another router told what it has at replicas of this one, by this one's numbers. `from` tells the routers apart, `sent` is the
    /// teller's clock, `rtt_ms` the round trip between both.
    pub fn hear_shares(&mut self, now: Time, from: u32, (sent, rtt_ms): (Time, f64), shares: &[(ReplicaId, Totals)]) {
        if !self.settings.heeds_others {
            return;
        }
        for (replica, totals) in shares {
            if let Some(known) = self.fleet.get_mut(*replica) {
                let report = Report { others: *totals, ..Report::default() };
                known.sharers.entry(from).or_default().hear(now, sent, rtt_ms, report);
            }
        }
    }
}

/// What other routers have at a replica, estimated: of one that has fallen silent, what it used to have.
pub(super) fn shared(replica: &Replica, now: Time) -> Totals {
    let known = replica.sharers.values().filter_map(|book| book.others(now).or_else(|| book.mean()));
    known.fold(Totals::NONE, Totals::plus)
}

#[cfg(test)]
mod tests {
    use super::shared;
    use crate::model::{ReplicaId, Time};
    use crate::routing::peer::Totals;
    use crate::routing::{ReplicaKind, ReplicaSpec, Router, Settings};

    fn router(heeds_others: bool) -> Router {
        let settings = Settings { strategy: "least-load".into(), heeds_others, ..Settings::default() };
        let mut router = Router::new(settings).unwrap();
        for name in ["a", "b"] {
            let spec = ReplicaSpec {
                name: name.into(),
                region: crate::model::Region::new("r"),
                kind: ReplicaKind::Engine,
                models: Vec::new(),
                limits: crate::routing::Limits::default(),
                rates: crate::routing::Rates::default(),
            };
            router.add_replica(Time::ZERO, spec);
        }
        router
    }

    fn at_a(router: &Router, ms: f64) -> f64 {
        shared(router.replicas().next().unwrap(), Time::from_ms(ms)).prompt_tokens
    }

    #[test]
    fn what_several_routers_have_at_an_engine_adds_up_and_ages() {
        let mut router = router(true);
        assert_eq!(router.shares(), [(ReplicaId(0), Totals::NONE), (ReplicaId(1), Totals::NONE)]);
        let tell = |router: &mut Router, from, ms, tokens| {
            let told = [(ReplicaId(0), Totals { prompt_tokens: tokens, ..Totals::NONE }), (ReplicaId(7), Totals::NONE)];
            router.hear_shares(Time::from_ms(ms), from, (Time::from_ms(ms), 0.0), &told);
        };
        tell(&mut router, 1, 0.0, 1000.0);
        tell(&mut router, 2, 0.0, 500.0);
        assert_eq!(at_a(&router, 0.0), 1500.0);
        tell(&mut router, 1, 100.0, 0.0);
        // Mean of the first 900, of what is told 0; 100 ms later drawn back by 1 − exp(−0.1 / 3) to it, the other one stays at its mean.
        let drawn = 900.0 * (1.0 - (-100.0_f64 / 3000.0).exp());
        assert!((at_a(&router, 200.0) - (500.0 + drawn)).abs() < 1e-6, "{}", at_a(&router, 200.0));
        assert_eq!(at_a(&router, 1e6), 1400.0, "who has fallen silent counts with its mean");
    }

    #[test]
    fn who_heeds_nobody_knows_only_its_own() {
        let mut router = router(false);
        let told = [(ReplicaId(0), Totals { prompt_tokens: 9.0, ..Totals::NONE })];
        router.hear_shares(Time::ZERO, 1, (Time::ZERO, 0.0), &told);
        assert_eq!(at_a(&router, 0.0), 0.0);
    }
}
