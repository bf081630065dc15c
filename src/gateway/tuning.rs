//! The tuner as the admin API shows it, and its way into the audit log and the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::serve::Shared;
use crate::model::Time;
use crate::routing::tune::{Entry, Figures, Measured, Method, Range, TuneSettings, Tuner};
use crate::wire::{self, AuditEvent, StartTuner, TuneRecord, TuneTimes};

/// Time between two looks at the tuner's log: far less than a comparison takes, of which the log has room for dozens.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Writes what the tuner does into the audit log, for as long as the gateway is there.
pub(super) async fn keep_log(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => shared.tell_tuning(),
            () = shared.stopped.cancelled() => return,
        }
    }
}

impl Shared {
    /// Writes what is new in the tuner's log into the audit log and into ours.
    pub(super) fn tell_tuning(&self) {
        let mut state = self.brain.lock();
        let told = state.tuning_told;
        let Some(tuner) = state.router.tuner() else { return };
        let new: Vec<TuneRecord> = tuner.log_since(told).map(record).collect();
        tuner.log_since(told).for_each(|entry| self.brain.metrics().tuning.noted(entry.what));
        let Some(last) = new.last() else { return };
        state.tuning_told = last.number;
        drop(state);
        for record in new {
            tracing::info!(what = record.what, why = record.why, values = ?record.values, "tuner");
            self.access.audit.log(AuditEvent::Tune(record));
        }
    }
}

/// What a start asks for, in the router's terms.
///
/// # Errors
/// A method that is not known.
pub(super) fn settings(start: StartTuner) -> Result<TuneSettings, String> {
    let usual = TuneSettings::default();
    let method = match start.method {
        None => usual.method,
        Some(name) => Method::ALL.into_iter().find(|method| method.as_str() == name).ok_or_else(|| {
            let known = Method::ALL.map(Method::as_str).join(", ");
            format!("unknown method `{name}`; known methods: {known}")
        })?,
    };
    let whole = |given: Option<u32>, usual: usize| given.map_or(usual, |given| given as usize);
    Ok(TuneSettings {
        method,
        ranges: start.keys.into_iter().map(|it| Range { key: it.key, bounds: it.range }).collect(),
        share: start.share.unwrap_or(usual.share),
        block: whole(start.block, usual.block),
        periods: whole(start.periods, usual.periods),
        factor: start.factor.unwrap_or(usual.factor),
        seed: start.seed.unwrap_or(usual.seed),
        ..usual
    })
}

/// The document of a tuner.
#[must_use]
pub(super) fn tuner(of: &Tuner, now: Time) -> wire::Tuner {
    let (progress, settings) = (of.progress(), of.settings());
    let compared: BTreeMap<&str, f64> = progress.rival.iter().flatten().copied().collect();
    let axis = |(axis, (key, value)): (&crate::routing::tune::Axis, &(&'static str, f64))| wire::TunedParameter {
        key: (*key).to_owned(),
        value: *value,
        compared: compared.get(key).copied(),
        min: axis.min,
        max: axis.max,
    };
    let tally = progress.tally;
    wire::Tuner {
        state: progress.state.to_owned(),
        why: words(progress.why),
        method: settings.method.as_str().to_owned(),
        share: settings.share,
        block: settings.block as u64,
        periods: settings.periods as u64,
        sigma: progress.sigma,
        axes: of.axes().iter().zip(&progress.incumbent).map(axis).collect(),
        measured: measured(&progress.result),
        proposed: tally.proposed,
        accepted: tally.accepted,
        rejected: tally.rejected,
        rolled_back: tally.rolled_back,
        reverted: tally.reverted,
        log: of
            .log_since(0)
            .map(|entry| wire::TuneEntry { age_ms: now.since_ms(entry.at).max(0.0), record: record(entry) })
            .collect(),
    }
}

fn record(of: &Entry) -> TuneRecord {
    TuneRecord {
        number: of.number,
        what: of.what.as_str().to_owned(),
        why: words(of.why),
        values: of.values.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect(),
        measured: measured(&of.result),
        sigma: of.sigma,
    }
}

fn measured(of: &Measured) -> wire::Measured {
    wire::Measured {
        periods: of.periods as u64,
        ratio: of.difference.map(f64::exp),
        luck: of.luck,
        in_force: of.incumbent.map(times),
        compared: of.rival.map(times),
    }
}

fn times(of: Figures) -> TuneTimes {
    TuneTimes { ttft_p50_ms: of.ttft_p50, ttft_p95_ms: of.ttft_p95, e2e_p50_ms: of.e2e_p50, e2e_p95_ms: of.e2e_p95 }
}

fn words(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
