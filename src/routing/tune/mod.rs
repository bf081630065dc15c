//! Weights that move while requests are served: the paper's tuner, as a baseline ([`Evolution`]), and one that cannot hurt ([`Tuner`]).

mod axes;
mod block;
mod evolution;
mod fit;
mod log;
mod noise;
mod objective;
mod progress;
mod proposal;
mod settings;
mod trial;
mod tuner;
mod verdict;

pub use axes::{Axis, TuneError, usual};
pub use evolution::{Evolution, EvolutionSettings, Scored, Weight};
pub use log::{Entry, Tally, What};
pub use noise::{LEVEL, LEVEL_BACK, luck};
pub use objective::{Figures, Objective, Sample};
pub use progress::{Act, Command, Progress};
pub use settings::{Method, Range, TuneSettings};
pub use trial::{End, Measured};
pub use tuner::Tuner;
