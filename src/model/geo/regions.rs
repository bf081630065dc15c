//! Places of the regions that are known without being told.

use super::Coordinates;

/// Name, degrees north, degrees east. The places are those by which Lambda's console calls its regions (a state stands for its largest
/// centre of data centres, `us-west-1` for Silicon Valley); the figures are those of GeoNames for the city, to a tenth of a degree (11 km).
/// `europe-south-1` is in SkyPilot's catalogue of Lambda without a place: that of AWS's region of the name, Milan. `kr-seoul` is none of
/// Lambda's; the built-in table of round trips has it.
const REGIONS: [(&str, f64, f64); 20] = [
    // Virginia: Ashburn; Washington DC.
    ("us-east-1", 39.0, -77.5),
    ("us-east-2", 38.9, -77.0),
    ("us-east-3", 38.9, -77.0),
    // Georgia: Atlanta.
    ("us-southeast-1", 33.7, -84.4),
    // Illinois: Chicago; Ohio: Columbus.
    ("us-midwest-1", 41.9, -87.6),
    ("us-midwest-2", 40.0, -83.0),
    // Texas and North Texas: Dallas; Central Texas: Austin.
    ("us-south-1", 32.8, -96.8),
    ("us-south-2", 32.8, -96.8),
    ("us-south-3", 30.3, -97.7),
    // California: Santa Clara; Arizona: Phoenix; Utah: Salt Lake City.
    ("us-west-1", 37.4, -122.0),
    ("us-west-2", 33.4, -112.1),
    ("us-west-3", 40.8, -111.9),
    // Germany: Frankfurt.
    ("europe-central-1", 50.1, 8.7),
    ("europe-south-1", 45.5, 9.2),
    // Israel: Tel Aviv.
    ("me-west-1", 32.1, 34.8),
    // India: Mumbai.
    ("asia-south-1", 19.1, 72.9),
    // Osaka; Tokyo.
    ("asia-northeast-1", 34.7, 135.5),
    ("asia-northeast-2", 35.7, 139.7),
    // Sydney.
    ("australia-east-1", -33.9, 151.2),
    ("kr-seoul", 37.6, 127.0),
];

/// Where a region is, if that is known.
pub(super) fn place(name: &str) -> Option<Coordinates> {
    let (_, north, east) = REGIONS.iter().find(|(known, ..)| *known == name)?;
    Coordinates::new(*north, *east)
}

#[cfg(test)]
mod tests {
    use super::{REGIONS, place};

    #[test]
    fn every_place_is_on_the_globe_and_named_once() {
        for (i, (name, ..)) in REGIONS.iter().enumerate() {
            assert!(place(name).is_some(), "{name}");
            assert!(REGIONS[..i].iter().all(|(other, ..)| other != name), "{name}");
        }
        assert_eq!(place("atlantis-1"), None);
    }
}
