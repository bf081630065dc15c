//! What the rule learns from the life of its requests.

use std::sync::Arc;

use super::busy::Shown;
use super::line::service_ms;
use super::site::Odd;
use super::way::ramp_ms;
use super::{Flight, OUTPUT_WEIGHT, Predictive, SLOW_STEP};
use crate::model::{RequestId, Time};
use crate::routing::features::BLOCK_BYTES;
use crate::routing::fleet::Replica;
use crate::routing::health::Health;
use crate::routing::policy::observation::Sent;
use crate::routing::router::Usage;

impl Predictive {
    /// A request goes out.
    pub(super) fn dispatched(&mut self, now: Time, replica: &Replica, sent: &Sent<'_>) {
        self.ended(sent.request, None);
        let (prompt, cached) = (f64::from(sent.prompt_tokens), f64::from(sent.cached_tokens));
        let uncached_tokens = prompt - cached;
        self.turns.learn(prompt, uncached_tokens);
        let output = self.output_of(sent.features);
        let max_running = self.max_running();
        let site = self.site_of(replica);
        let service = service_ms(site.speed(replica), uncached_tokens);
        let crowded = max_running.is_some_and(|most| site.taken.requests() as f64 >= most);
        site.tide.add(now, service);
        let blocks = &sent.features.blocks;
        let share = (blocks.len() * BLOCK_BYTES) as f64 / sent.features.prompt_bytes.max(1) as f64;
        let block_tokens = prompt * share.min(1.0);
        let loose_tokens = prompt - block_tokens + output;
        site.taken.add(sent.request, Arc::clone(blocks), block_tokens.round() as u64, loose_tokens.round() as u64);
        let (ramp_ms, shows) = (ramp_ms(sent.features.prompt_bytes, sent.rtt_ms), !sent.features.unstreamed);
        if ramp_ms > 0.0 || !shows {
            site.note(sent.request, Odd { ramp_ms, shows });
        }
        let flight = Flight {
            replica: replica.id,
            dispatched: now,
            arrival_ms: now.ms() + sent.rtt_ms / 2.0,
            rtt_ms: sent.rtt_ms,
            ramp_ms,
            uncached_tokens,
            ttft_ms: sent.ttft_ms,
            crowded,
            first_token: None,
        };
        self.flights.insert(sent.request, flight);
    }

    /// Its first token came.
    pub(super) fn first_token(&mut self, now: Time, replica: &Replica, request: RequestId) {
        let Some(flight) = self.flights.get_mut(&request) else { return };
        if flight.first_token.replace(now).is_some() {
            return;
        }
        let ttft_ms = now.since_ms(flight.dispatched);
        self.slow_ms.learn(ttft_ms, SLOW_STEP);
        if let Some(predicted_ms) = flight.ttft_ms {
            self.trust.learn(predicted_ms, ttft_ms);
        }
        let shown = Shown {
            request,
            arrival_ms: flight.arrival_ms,
            ramp_ms: flight.ramp_ms,
            token_ms: now.ms() - flight.rtt_ms / 2.0,
            uncached_tokens: flight.uncached_tokens,
        };
        let waited = flight.crowded;
        let max_running = self.max_running();
        let site = self.site_of(replica);
        // One that is out of rotation is not what it will be, and what waited for a place says nothing of speed.
        let crowded = waited || max_running.is_some_and(|most| site.taken.requests() as f64 > most);
        let learns = replica.health() == Health::Healthy && !crowded;
        site.forget(request);
        site.showed(shown, learns);
    }

    /// It was answered in full.
    pub(super) fn finished(&mut self, now: Time, request: RequestId, usage: &Usage) {
        let uncached = usage.prompt_tokens.zip(usage.cached_tokens);
        let uncached = uncached.and_then(|(prompt, cached)| prompt.checked_sub(cached)).map(f64::from);
        let Some(flight) = self.ended(request, uncached) else { return };
        let Some(tokens) = usage.completion_tokens else { return };
        self.output_tokens += OUTPUT_WEIGHT * (f64::from(tokens) - self.output_tokens);
        let Some(first_token) = flight.first_token else { return };
        let decoding_ms = now.since_ms(first_token);
        if let Ok(at) = self.position(flight.replica) {
            self.sites[at].decoded(decoding_ms);
            self.sites[at].floor.learn(tokens, decoding_ms);
        }
    }

    /// It is over, however it ended; what it computed, if the engine said.
    pub(super) fn ended(&mut self, request: RequestId, uncached_tokens: Option<f64>) -> Option<Flight> {
        let flight = self.flights.remove(&request)?;
        if let Ok(at) = self.position(flight.replica) {
            let site = &mut self.sites[at];
            site.taken.remove(request);
            site.forget(request);
            site.busy.settle(request, uncached_tokens, &mut site.line);
        }
        Some(flight)
    }
}
