//! Where clients and regions are on the globe: as exact as it takes to say which region is nearest to a client.
//!
//! Distance is along the globe. Cables take other ways, so the nearest region is not always the fastest; strategies that measure the
//! network are for that, and this is what to compare them with.

mod atlas;
mod coordinates;
mod network;
mod regions;

pub use atlas::{Atlas, NoPlace, Problems};
pub use coordinates::{Coordinates, FARTHEST_KM};
