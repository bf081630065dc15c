//! A point on the globe, and how far it is to another.

use std::fmt;

/// Mean radius of the Earth, km: R1 of GRS 80 (Moritz, Geodetic Reference System 1980), rounded.
const EARTH_RADIUS_KM: f64 = 6_371.0;

/// Half way round the globe, km: nothing is farther.
pub const FARTHEST_KM: f64 = std::f64::consts::PI * EARTH_RADIUS_KM;

/// A point on the globe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coordinates {
    /// Degrees north, -90..=90.
    north: f64,
    /// Degrees east, -180..=180.
    east: f64,
}

impl Coordinates {
    /// The point of this latitude and longitude in degrees, if there is one.
    #[must_use]
    pub fn new(north: f64, east: f64) -> Option<Self> {
        let fits = (-90.0..=90.0).contains(&north) && (-180.0..=180.0).contains(&east);
        fits.then_some(Self { north, east })
    }

    /// `48.9,2.4`: degrees north, degrees east; `None` if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (north, east) = text.split_once(',')?;
        Self::new(north.trim().parse().ok()?, east.trim().parse().ok()?)
    }

    /// Distance along the globe, km, 0 to [`FARTHEST_KM`]: the haversine formula (Sinnott, "Virtues of the Haversine", Sky and Telescope
    /// 68, 1984) on a sphere; the flattening of the Earth is worth half a percent.
    #[must_use]
    pub fn distance_km(self, other: Self) -> f64 {
        let haversine = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
        let cosines = self.north.to_radians().cos() * other.north.to_radians().cos();
        let share = haversine(self.north, other.north) + cosines * haversine(self.east, other.east);
        2.0 * EARTH_RADIUS_KM * share.clamp(0.0, 1.0).sqrt().asin()
    }
}

/// As [`Coordinates::parse`] reads it.
impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.north, self.east)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

    use super::{Coordinates, FARTHEST_KM};

    fn at(north: f64, east: f64) -> Coordinates {
        Coordinates::new(north, east).unwrap()
    }

    #[test]
    fn distances_are_those_of_the_globe() {
        // Great-circle distances between city centres, as atlases have them, km.
        let (paris, london, tokyo, sydney) = (at(48.86, 2.35), at(51.51, -0.13), at(35.68, 139.69), at(-33.87, 151.21));
        let cases = [(paris, london, 344.0), (paris, tokyo, 9_712.0), (tokyo, sydney, 7_826.0), (paris, paris, 0.0)];
        for (a, b, km) in cases {
            assert!((a.distance_km(b) - km).abs() <= 0.005 * km + 1.0, "{a} {b}: {}", a.distance_km(b));
        }
        let poles = at(90.0, 0.0).distance_km(at(-90.0, 77.0));
        assert!((poles - FARTHEST_KM).abs() < 1e-3, "half around: {poles}");
        assert!(at(0.0, 179.9).distance_km(at(0.0, -179.9)) < 25.0, "across the date line");
    }

    #[test]
    fn two_numbers_in_their_ranges_are_a_point() {
        assert_eq!(Coordinates::parse(" 48.9 , -2.4"), Some(at(48.9, -2.4)));
        for text in ["", ",", "48.9", "48.9,", "91,0", "0,181", "NaN,0", "inf,0", "1,2,3", "48.9;2.4", "paris,fr"] {
            assert_eq!(Coordinates::parse(text), None, "{text}");
        }
    }

    fn anywhere() -> impl Strategy<Value = Coordinates> {
        (-90.0f64..=90.0, -180.0f64..=180.0).prop_map(|(north, east)| at(north, east))
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(a in anywhere(), b in anywhere(), c in anywhere()) {
            prop_assert!((a.distance_km(b) - b.distance_km(a)).abs() < 1e-6);
            prop_assert!(a.distance_km(c) <= a.distance_km(b) + b.distance_km(c) + 1e-6);
            prop_assert!((0.0..=FARTHEST_KM).contains(&a.distance_km(b)));
        }

        #[test]
        fn what_is_shown_is_read_as_the_same(a in anywhere()) {
            prop_assert_eq!(Coordinates::parse(&a.to_string()), Some(a));
        }
    }
}
