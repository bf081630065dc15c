//! All that is learned of one replica, and what it predicts for a request there.

use super::busy::{Busy, Shown};
use super::clock::{self, Reading, Waiting};
use super::floor::Floor;
use super::kv::Taken;
use super::line::{Line, PRIOR, clamped, service_ms};
use super::price::Pressure;
use super::tide::Tide;
use super::waits::{Occupancy, kv_wait_ms, room_wait_ms, slot_wait_ms};
use super::way::ramp_ms;
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::fleet::Replica;
use crate::routing::ledger::Pending;
use crate::routing::peer::Speed;
use crate::routing::policy::View;

/// Time from a first token to the end of its answer: before any was seen, and weight of the newest.
const DECODE_START_MS: f64 = 4000.0;
const DECODE_WEIGHT: f64 = 0.03;

/// One replica as this router has come to know it.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) id: ReplicaId,
    pub(super) line: Line,
    pub(super) busy: Busy,
    pub(super) floor: Floor,
    pub(super) tide: Tide,
    pub(super) taken: Taken,
    /// Requests without a first token that are not just there after half a round trip, by ascending id.
    odd: Vec<(RequestId, Odd)>,
    decode_ms: f64,
}

/// What is to be known of a request beside the ledger's figures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Odd {
    /// The ramp of its way, ms.
    pub(super) ramp_ms: f64,
    /// Its first token will be seen: its answer is streamed.
    pub(super) shows: bool,
}

/// What a forecast has to know of a request beside the view.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asks {
    pub(super) prompt_bytes: u64,
    /// Expected.
    pub(super) output_tokens: f64,
    /// Requests that an engine runs at most, if that is known.
    pub(super) max_running: Option<f64>,
}

/// Time to first token, in its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Forecast {
    /// Round trip, and what a long prompt takes beyond it, ms.
    pub(super) way_ms: f64,
    /// W: until the engine begins, beyond the way there, ms.
    pub(super) wait_ms: f64,
    /// S of what is uncached, ms.
    pub(super) service_ms: f64,
    /// Requests decoding there, others' requests in any state.
    pub(super) decoding: f64,
}

impl Forecast {
    /// T.
    pub(super) fn ttft_ms(&self) -> f64 {
        self.way_ms + self.wait_ms + self.service_ms
    }
}

impl Site {
    /// Nothing known but what is configured.
    pub(super) fn new(replica: &Replica) -> Self {
        Self {
            id: replica.id,
            line: Line::new(configured(replica)),
            busy: Busy::default(),
            floor: Floor::default(),
            tide: Tide::default(),
            taken: Taken::default(),
            odd: Vec::new(),
            decode_ms: DECODE_START_MS,
        }
    }

    /// What is configured may change.
    pub(super) fn refresh(&mut self, replica: &Replica) {
        self.line.expect(configured(replica));
    }

    /// How fast it is: a peer knows its own engine better than anybody who sees it from afar, others' requests in between.
    pub(super) fn speed(&self, replica: &Replica) -> Speed {
        let told = replica.peer.report().and_then(|report| report.speed);
        told.map_or(self.line.speed(), clamped)
    }

    /// An answer took so long from its first token to its end.
    pub(super) fn decoded(&mut self, ms: f64) {
        if ms.is_finite() && ms >= 0.0 {
            self.decode_ms += DECODE_WEIGHT * (ms - self.decode_ms);
        }
    }

    /// How much is sent there by all, others' requests that decode there by the way; `service_ms`: what a usual one takes.
    pub(super) fn pressure(&self, now: Time, others_decoding: f64, service_ms: f64) -> Pressure {
        self.tide.pressure(now).with_others(others_decoding, self.decode_ms, service_ms)
    }

    /// A request goes there.
    pub(super) fn note(&mut self, request: RequestId, odd: Odd) {
        match self.odd.binary_search_by_key(&request, |(known, _)| *known) {
            Ok(at) => self.odd[at].1 = odd,
            Err(at) => self.odd.insert(at, (request, odd)),
        }
    }

    /// Its first token has come, or will never come.
    pub(super) fn forget(&mut self, request: RequestId) {
        if let Ok(at) = self.odd.binary_search_by_key(&request, |(known, _)| *known) {
            self.odd.remove(at);
        }
    }

    /// A first token, received after a round trip of `rtt_ms`.
    pub(super) fn showed(&mut self, shown: Shown, learns: bool) {
        if learns {
            self.busy.show(shown, &mut self.line);
        } else {
            self.busy.skip(shown.token_ms);
        }
    }

    /// Round trip of a request of so many bytes, ms.
    pub(super) fn way_ms(&self, rtt_ms: f64, prompt_bytes: u64) -> f64 {
        rtt_ms + self.line.ramp() * ramp_ms(prompt_bytes, rtt_ms)
    }

    /// What a request would meet there.
    pub(super) fn forecast(&self, now: Time, view: &View<'_>, asks: Asks) -> Forecast {
        let speed = self.speed(view.replica);
        let (now_ms, rtt_ms) = (now.ms(), view.rtt_ms);
        let way_ms = self.way_ms(rtt_ms, asks.prompt_bytes);
        let uncached = f64::from(view.uncached_tokens);
        let reading = self.read_clock(view, speed, now_ms - rtt_ms / 2.0);
        let arrival_ms = now_ms + way_ms - rtt_ms / 2.0;
        let work = clock::wait_ms(reading.free_ms, arrival_ms) + foreign_ms(now, view, speed);
        let at = Occupancy {
            requests: view.in_flight(),
            decoding: f64::from(view.load.decoding + reading.unseen) + view.others.decoding,
            kv_tokens: self.taken.tokens() + view.others.held_tokens,
        };
        let slot = slot_wait_ms(at, asks.max_running, self.decode_ms);
        let kv = kv_wait_ms(at, uncached + asks.output_tokens, view.replica.kv_tokens(), self.decode_ms);
        Forecast {
            way_ms,
            wait_ms: work.max(room_wait_ms(slot, kv, arrival_ms - now_ms)),
            service_ms: service_ms(speed, uncached),
            decoding: f64::from(view.load.decoding + reading.unseen) + view.others.in_flight(),
        }
    }

    fn read_clock(&self, view: &View<'_>, speed: Speed, horizon_ms: f64) -> Reading {
        let plain = |pending: &Pending| Waiting {
            arrival_ms: pending.arrival.ms(),
            service_ms: service_ms(speed, f64::from(pending.uncached_tokens)),
            shows: true,
        };
        let pending = view.load.pending.values();
        if self.odd.is_empty() {
            return clock::read(self.busy.last_token_ms(), horizon_ms, pending.map(plain));
        }
        let with_its_way = |pending: &Pending| {
            let plain = plain(pending);
            let found = self.odd.binary_search_by_key(&pending.request, |(request, _)| *request);
            found.map_or(plain, |at| {
                let Odd { ramp_ms, shows } = self.odd[at].1;
                Waiting { arrival_ms: plain.arrival_ms + self.line.ramp() * ramp_ms, shows, ..plain }
            })
        };
        if pending.len() == 1 {
            return clock::read(self.busy.last_token_ms(), horizon_ms, pending.map(with_its_way));
        }
        // What is longer under way is overtaken.
        let mut waiting: Vec<Waiting> = pending.map(with_its_way).collect();
        waiting.sort_by(|a, b| a.arrival_ms.total_cmp(&b.arrival_ms));
        clock::read(self.busy.last_token_ms(), horizon_ms, waiting.into_iter())
    }
}

/// What learning starts from.
fn configured(replica: &Replica) -> Speed {
    let rate = replica.spec.rates.prefill_ms_per_token;
    Speed { ms_per_token: rate.unwrap_or(PRIOR.ms_per_token), ..PRIOR }
}

/// Service of what others have there without a first token, ms: as the peer says, or by its tokens.
fn foreign_ms(now: Time, view: &View<'_>, speed: Speed) -> f64 {
    let others = view.others;
    if others.pending <= 0.0 {
        return 0.0;
    }
    let counted = || speed.service_ms * others.pending + speed.ms_per_token * others.uncached_tokens;
    view.replica.peer.pending_ms(now).unwrap_or_else(counted)
}
