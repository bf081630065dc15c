//! How far another agent is: one small document, asked for on a warm connection. All else comes with its stream.
//!
//! An agent of an older version has no stream, and a central router asks for none. Then the document is health and load as well.

use bytes::Bytes;
use http::StatusCode;
use tokio::time::sleep;

use super::{FIRST_EVERY, FIRST_PROBES, Problem, Watcher, get};
use crate::gateway::peers::Ear;
use crate::model::Time;
use crate::routing::Gauges;
use crate::wire::PeerState;
use crate::wire::paths::PEER;

/// Probes between two look-ups of a peer that is configured by a name.
const LOOK_UP_EVERY: u32 = 30;

impl Watcher {
    /// Asks until the replica is gone.
    pub(super) async fn peer(&self, ear: Option<&Ear>) {
        let pool = self.own_pool();
        let clock = self.brain.clock();
        let mut warm = false;
        for probe in 0_u32.. {
            if probe % LOOK_UP_EVERY == 0 {
                self.look_up().await;
            }
            let started = clock.now();
            let answer = get(&pool, PEER, self.settings.timeout).await;
            // The first answer on a connection paid for connecting, too.
            if answer.is_ok() && warm {
                self.measured(clock.now().since_ms(started));
            }
            warm = answer.is_ok();
            if let Ok((StatusCode::OK, body)) = &answer {
                self.clock(body, (started, clock.now()));
            }
            if ear.is_none_or(Ear::refused) {
                self.health(answer.and_then(|(status, body)| self.heard(status, &body).map_err(Problem::new)));
            }
            let pause =
                if probe < FIRST_PROBES { FIRST_EVERY.min(self.settings.rtt_every) } else { self.settings.rtt_every };
            sleep(pause).await;
        }
    }

    /// Where its connections come from, if it is configured by a name.
    async fn look_up(&self) {
        let endpoint = self.replica.pool.endpoint();
        if endpoint.host().parse::<std::net::IpAddr>().is_ok() {
            return;
        }
        match tokio::net::lookup_host((endpoint.host(), endpoint.port())).await {
            Ok(found) => self.replica.figures().addresses = found.map(|address| address.ip().to_canonical()).collect(),
            Err(error) => tracing::warn!(peer = %self.replica.name, %error, "failed to look up a peer's address"),
        }
    }

    /// What its clock showed between asking and being answered.
    fn clock(&self, body: &Bytes, (asked, answered): (Time, Time)) {
        let told = serde_json::from_slice::<PeerState>(body).ok().and_then(|told| told.clock_us);
        if let Some(told_us) = told {
            self.replica.figures().clocks.heard(asked, answered, told_us);
        }
    }

    /// Takes what it told. An error if it can serve nothing.
    fn heard(&self, status: StatusCode, body: &Bytes) -> Result<(), String> {
        if status == StatusCode::NOT_FOUND {
            return Err(format!("`{PEER}` answers 404: it is no agent, or this node's address is none of its peers'"));
        }
        if !status.is_success() {
            return Err(format!("`{PEER}` answers {}", status.as_u16()));
        }
        let told: PeerState =
            serde_json::from_slice(body).map_err(|error| format!("`{PEER}` cannot be read: {error}"))?;
        let gauges = Gauges {
            running: Some(told.running as f64),
            waiting: Some(told.queued as f64),
            kv_usage: told.kv_usage,
            used_tokens: None,
            kv_tokens: told.kv_tokens,
        };
        let id = self.replica.id;
        self.brain.event(|state, now| ((), state.router.gauges(now, id, gauges)));
        if told.serving { Ok(()) } else { Err("its engine is not in rotation, or it drains".to_owned()) }
    }
}
