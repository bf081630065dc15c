//! What becomes of a candidate, and of an acceptance, by what was found.

use super::log::What;
use super::noise::{LEVEL, LEVEL_BACK};
use super::trial::{Finding, Trial};
use crate::model::Time;

/// Least gain worth a change, natural logarithm: 1 %.
const GAIN: f64 = 0.01;
/// ln of the factor by which the fleet may get slower after an acceptance, whatever the comparison says: 1.5.
const SLOWER: f64 = 0.405;
/// What a trial says of its candidate, once it says anything.
pub(super) fn judged(trial: &Trial, now: Time) -> Option<(What, &'static str)> {
    Some(match trial.finding(now) {
        Finding::Open | Finding::Clear { better: true } => return None,
        Finding::Braked => (What::RolledBack, "far slower within a block"),
        Finding::Clear { better: false } => (What::RolledBack, "clearly worse in every period"),
        Finding::Futile => (What::Rejected, "no gain after half of the periods"),
        Finding::Over { luck } => {
            let gain = trial.result().difference.is_some_and(|difference| difference < -GAIN);
            if gain && luck <= LEVEL {
                (What::Accepted, "better beyond noise")
            } else {
                (What::Rejected, "no gain beyond noise")
            }
        }
    })
}

/// What a watch says of the acceptance before it. Its rival is the incumbent before.
pub(super) fn watched(trial: &Trial, cost_before: Option<f64>, now: Time) -> Option<(What, &'static str)> {
    let slower = trial.incumbent_cost().zip(cost_before).is_some_and(|(cost, before)| cost > before + SLOWER);
    if slower {
        return Some((What::Reverted, "the fleet got slower after it"));
    }
    Some(match trial.finding(now) {
        Finding::Open => return None,
        Finding::Braked | Finding::Clear { better: false } => (What::Confirmed, "the weights before are clearly worse"),
        Finding::Futile => (What::Confirmed, "the weights before are not better"),
        Finding::Clear { better: true } => (What::Reverted, "the weights before are clearly better"),
        Finding::Over { luck } => {
            let back = trial.result().difference.is_some_and(|difference| difference < 0.0) && luck <= LEVEL_BACK;
            if back {
                (What::Reverted, "the weights before are better")
            } else {
                (What::Confirmed, "the weights before are not better")
            }
        }
    })
}
