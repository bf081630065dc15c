//! Regions by name, for hints. The set is open: a name that is not here is still sent to the service.

use crate::cloud::{CloudError, CloudErrorKind};
use crate::model::Region;

/// The regions of the OpenAPI document 1.8.3 and `us-southeast-1`, which the console lists as well (July 2026), with
/// their places.
pub const KNOWN_REGIONS: [(&str, &str); 18] = [
    ("asia-northeast-1", "Osaka"),
    ("asia-northeast-2", "Tokyo"),
    ("asia-south-1", "India"),
    ("australia-east-1", "Sydney"),
    ("europe-central-1", "Germany"),
    ("me-west-1", "Israel"),
    ("us-east-1", "Virginia"),
    ("us-east-2", "Washington DC"),
    ("us-east-3", "Washington DC"),
    ("us-midwest-1", "Illinois"),
    ("us-midwest-2", "Ohio"),
    ("us-south-1", "Texas"),
    ("us-south-2", "North Texas"),
    ("us-south-3", "Central Texas"),
    ("us-southeast-1", "Georgia"),
    ("us-west-1", "California"),
    ("us-west-2", "Arizona"),
    ("us-west-3", "Utah"),
];

/// Adds the list of regions to a refusal that may well come from a mistyped one.
pub(super) fn explain(mut error: CloudError, region: &Region) -> CloudError {
    let may_be_the_region = matches!(error.kind, CloudErrorKind::Invalid | CloudErrorKind::NotFound);
    let known = KNOWN_REGIONS.iter().any(|(name, _)| *name == region.as_str());
    if may_be_the_region && !known {
        let names: Vec<&str> = KNOWN_REGIONS.iter().map(|(name, _)| *name).collect();
        error.hint = Some(format!("`{region}` may be no region; known are {}", names.join(", ")));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::{KNOWN_REGIONS, explain};
    use crate::cloud::{CloudError, CloudErrorKind};
    use crate::model::Region;

    #[test]
    fn names_are_sorted_and_stand_there_once() {
        assert!(KNOWN_REGIONS.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn only_refusals_that_a_region_can_cause_are_explained() {
        use CloudErrorKind::{Capacity, Invalid, NotFound};
        let cases = [
            (Invalid, "us-eats-1", true),
            (NotFound, "us-eats-1", true),
            (Invalid, "us-east-1", false),
            (Capacity, "us-eats-1", false),
        ];
        for (kind, region, explained) in cases {
            let error = CloudError { kind, code: None, message: "no".into(), hint: None };
            let hint = explain(error, &Region::new(region)).hint.unwrap_or_default();
            assert_eq!(
                hint.starts_with("`us-eats-1` may be no region; known are asia-northeast-1, "),
                explained,
                "{hint}"
            );
        }
    }
}
