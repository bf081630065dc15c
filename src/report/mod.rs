//! What was measured, in figures: percentiles and shares, the result schema `gorgo.report/1`, and its faces as table, JSON and HTML.
//!
//! Pure: samples come in as values, text goes out. Every figure is defined once, in [`figures`]; table, HTML and documentation read
//! it there.

pub mod compare;
#[cfg(test)]
pub(crate) mod example;
pub mod figures;
pub mod html;
mod json;
mod loads;
pub mod notes;
pub mod percentile;
mod ratios;
pub mod sample;
pub mod schema;
pub mod seeds;
pub mod strict;
pub mod summary;
pub mod table;
pub mod tuning;

pub use sample::{Outcome, Sample};
pub use schema::{Report, Run, Slo, Window};
pub use summary::{Rules, summarise};
