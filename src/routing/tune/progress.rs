//! What the tuner wants done, what people may ask of it, and how far it is.

use super::log::Tally;
use super::trial::Measured;

/// What the router has to do with its strategies.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Build a rival with these values.
    Try(Vec<(&'static str, f64)>),
    /// The rival takes over; who was in force becomes its rival.
    Promote,
    /// The rival takes over; who was in force is gone.
    Demote,
    /// The rival is gone.
    Retire,
    /// Build the strategy in force anew with these values.
    Set(Vec<(&'static str, f64)>),
}

/// What people may ask of a running tuner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// No further proposals; a candidate on trial is gone, a watch goes on.
    Freeze,
    /// Proposals again.
    Resume,
    /// Back to the weights before the last acceptance, then as frozen.
    Rollback,
    /// End it; what is in force stays, but an acceptance that is still watched is taken back.
    Stop,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// `waiting`, `trial`, `watch`, `frozen` or `ended`.
    pub state: &'static str,
    /// Why it ended; empty before.
    pub why: &'static str,
    /// Values in force.
    pub incumbent: Vec<(&'static str, f64)>,
    /// Values on trial, or in a watch those before.
    pub rival: Option<Vec<(&'static str, f64)>>,
    /// What was measured of both so far.
    pub result: Measured,
    /// Step size, natural logarithm.
    pub sigma: f64,
    /// What came of the candidates so far.
    pub tally: Tally,
}
