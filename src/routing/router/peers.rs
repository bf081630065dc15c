//! What a router tells its peers, and what it takes from what they tell.

use super::sharing::shared;
use super::{Effect, Router};
use crate::model::{Region, ReplicaId, Time};
use crate::routing::filter::GATE_GAUGE_AGE_MS;
use crate::routing::fleet::{Fleet, Gauges, Replica, ReplicaKind};
use crate::routing::health::Health;
use crate::routing::index::{Audience, DigestPart, Teller};
use crate::routing::ledger::Ledger;
use crate::routing::peer::{Report, Speed, Totals};

/// Telling.
impl Router {
    /// Keeps account, from now on, of what the own engines hold, so that peers can be told. Costs memory and time in proportion to what
    /// they hold; a router without peers does without.
    pub fn publish(&mut self) {
        self.publishes = true;
        let replicas: Vec<ReplicaId> = self.fleet.iter().map(|replica| replica.id).collect();
        replicas.into_iter().for_each(|replica| self.publish_replica(replica));
    }

    pub(super) fn publish_replica(&mut self, replica: ReplicaId) {
        let own = self.fleet.get(replica).is_some_and(|known| known.spec.kind == ReplicaKind::Engine);
        self.index.publish(replica, self.publishes && own);
    }

    /// How this node is doing, for the peer of this name: what that peer has sent here is left out of [`Report::others`].
    #[must_use]
    pub fn report(&self, now: Time, listener: &str) -> Report {
        let own: Vec<&Replica> = self.fleet.iter().filter(|replica| replica.spec.kind == ReplicaKind::Engine).collect();
        let figure = |of: fn(&Gauges) -> Option<f64>| {
            let told = own.iter().filter_map(|engine| of(&engine.fresh_gauges(now, GATE_GAUGE_AGE_MS)?));
            told.reduce(f64::max)
        };
        Report {
            serving: own.iter().any(|engine| engine.health() == Health::Healthy && !engine.draining),
            draining: false,
            running: own.iter().map(|engine| self.ledger.load(engine.id).in_flight() as f64).sum(),
            queued: self.queue.len() as f64,
            others: self.others_beside(listener, &own),
            pending_ms: self.pending_ms_beside(listener, &own),
            kv_usage: figure(|gauges| gauges.kv_usage),
            kv_used_tokens: figure(|gauges| gauges.used_tokens),
            kv_tokens: figure(|gauges| gauges.kv_tokens),
            cache_generation: self.index.catalogue().generation(),
            speed: own.first().and_then(|engine| self.strategy.policy.speed(engine.id)),
        }
    }

    /// What the own engines and the queue have, but for what this peer sent. KV tokens that requests share are counted for each by the
    /// ledger; where the strategy counts them once, the sum is told in that proportion.
    fn others_beside(&self, listener: &str, own: &[&Replica]) -> Totals {
        let engines = own.iter().map(|engine| self.totals_beside(listener, engine.id));
        let totals = engines.fold(Totals::NONE, Totals::plus);
        let each: f64 = own.iter().map(|engine| self.ledger.load(engine.id).held_tokens as f64).sum();
        let once: Option<f64> = own.iter().map(|engine| self.strategy.policy.kv_tokens(engine.id)).sum();
        let share = once.filter(|_| each > 0.0).map_or(1.0, |once| (once / each).min(1.0));
        let held_tokens = totals.held_tokens * share;
        Totals { held_tokens, ..totals }.plus(self.queue.totals_beside(listener))
    }

    /// Predicted service of that which has no first token, ms.
    fn pending_ms_beside(&self, listener: &str, own: &[&Replica]) -> Option<f64> {
        let speed = |engine: &Replica| self.strategy.policy.speed(engine.id);
        let service_ms =
            |speed: Speed, of: Totals| speed.service_ms * of.pending + speed.ms_per_token * of.uncached_tokens;
        let at = |engine: &&Replica| Some(service_ms(speed(engine)?, self.totals_beside(listener, engine.id)));
        let at_engines: Option<f64> = own.iter().map(at).sum();
        let queued = service_ms(speed(own.first()?)?, self.queue.totals_beside(listener));
        at_engines.map(|ms| ms + queued)
    }

    /// What one of the own engines has, but for what this peer sent.
    fn totals_beside(&self, listener: &str, engine: ReplicaId) -> Totals {
        self.ledger.totals(|request, replica| {
            let origin = || self.attempts.get(&request).and_then(|attempt| attempt.ticket.features.origin.as_deref());
            replica == engine && origin() != Some(listener)
        })
    }

    /// A teller of what the own engines hold, for a listener in this region: it is told what its region's residency allows.
    #[must_use]
    pub fn teller(&self, region: &Region) -> Teller {
        Teller::new(Audience::of_listener(&self.settings.residency, region))
    }

    /// What a teller has to tell now.
    pub fn tell(&self, now: Time, teller: &mut Teller) -> DigestPart {
        teller.part(now, self.index.catalogue())
    }
}

/// Listening. Of a replica that is not a known peer nothing is taken.
impl Router {
    /// A peer introduces itself with a number that is another one after each of its starts. After another start nothing is believed any
    /// more of what it held and did.
    pub fn greet(&mut self, replica: ReplicaId, epoch: u64) {
        if self.peer(replica).is_some_and(|peer| peer.peer.greet(epoch)) {
            self.index.forget(replica);
        }
    }

    /// A peer's report came, sent at `sent` by the peer's own clock. Its health is not touched: see [`Self::health`].
    pub fn hear(&mut self, now: Time, replica: ReplicaId, sent: Time, report: Report) -> Vec<Effect> {
        let assumed_rtt_ms = self.fleet.assumed_rtt_ms();
        let Some(peer) = self.peer(replica) else { return Vec::new() };
        let rtt_ms = peer.rtt.value().unwrap_or(assumed_rtt_ms);
        let lost = peer.peer.hear(now, sent, rtt_ms, report);
        if lost {
            self.index.forget(replica);
        }
        let gauges = Gauges {
            running: Some(report.running),
            waiting: Some(report.queued),
            kv_usage: report.kv_usage,
            used_tokens: report.kv_used_tokens,
            kv_tokens: report.kv_tokens,
        };
        self.gauges(now, replica, gauges)
    }

    /// Nothing has been heard of a peer for so long that no request should wait for it. Two successes bring it back, as always.
    pub fn unreachable(&mut self, now: Time, replica: ReplicaId) -> Vec<Effect> {
        let changed = self.peer(replica).is_some_and(Replica::condemn);
        if changed { self.release(now) } else { Vec::new() }
    }

    /// News of what a peer holds came.
    pub fn learn_digest(&mut self, replica: ReplicaId, part: &DigestPart) {
        if let Some(peer) = self.peer(replica) {
            peer.peer.learn(part);
        }
    }

    fn peer(&mut self, replica: ReplicaId) -> Option<&mut Replica> {
        self.fleet.get_mut(replica).filter(|known| known.spec.kind == ReplicaKind::Peer)
    }
}

/// What others have at each replica, as a decision sees it.
pub(super) struct Others<'a> {
    ledger: &'a Ledger,
    now: Time,
    /// The largest load of any replica that something is known of, figure by figure.
    most: Totals,
}

impl<'a> Others<'a> {
    pub(super) fn new(fleet: &Fleet, ledger: &'a Ledger, now: Time) -> Self {
        let silent = |replica: &Replica| replica.spec.kind == ReplicaKind::Peer && replica.peer.others(now).is_none();
        let known = |replica: &Replica| {
            let own = Totals::of(ledger.load(replica.id));
            match replica.spec.kind {
                ReplicaKind::Engine => Some(own),
                ReplicaKind::Peer => replica.peer.others(now).map(|others| own.plus(others)),
            }
        };
        // Mostly nobody is silent, and nothing has to be assumed.
        let most = if fleet.iter().any(silent) {
            fleet.iter().filter_map(known).fold(Totals::NONE, Totals::max)
        } else {
            Totals::NONE
        };
        Self { ledger, now, most }
    }

    /// What others have there. A peer that has fallen silent is taken for as busy as the busiest replica that is known, and for as busy as
    /// it used to be, so that it never wins for being silent. Of one that never tells, this router's own requests are all that is known.
    pub(super) fn at(&self, replica: &Replica) -> Totals {
        if replica.spec.kind == ReplicaKind::Engine {
            return shared(replica, self.now);
        }
        if replica.peer.report().is_none() {
            return Totals::NONE;
        }
        replica.peer.others(self.now).unwrap_or_else(|| {
            let own = Totals::of(self.ledger.load(replica.id));
            let missing = self.most.zip(own, |most, own| (most - own).max(0.0));
            missing.max(replica.peer.mean().unwrap_or(Totals::NONE))
        })
    }
}
