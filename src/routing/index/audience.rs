//! Who may learn that a block is cached: a hash tells whoever can guess the text that somebody sent it.

use crate::model::Region;
use crate::routing::residency::{Classes, Residency};

/// Residency classes that fit into the bits of an audience, besides "no class". What is of a further one is told to nobody.
const CLASSES: usize = 63;

/// A set of residency classes: those of the requests that a block was seen in, or those that a listener's region may know.
///
/// A block is told to whom at least one of its classes allows: a text that came in an unrestricted request is no secret, even if it came
/// in a restricted one as well. One that came in restricted requests only stays where these may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audience(pub(super) u64);

impl Audience {
    /// Nobody.
    pub const NOBODY: Self = Self(0);

    /// Everybody: requests without a class.
    pub const EVERYBODY: Self = Self(1);

    /// What a request of these classes adds to its blocks' audience. A class that is not configured adds nothing, and neither do several:
    /// who may know them is whom all of them allow, which no set of single classes says.
    #[must_use]
    pub fn of_request(residency: &Residency, classes: &Classes) -> Self {
        let mut names = classes.iter();
        let class = match (names.next(), names.next()) {
            (None, _) => return Self::EVERYBODY,
            (Some(class), None) => class,
            (Some(_), Some(_)) => return Self::NOBODY,
        };
        residency.classes.keys().take(CLASSES).position(|known| known == class).map_or(Self::NOBODY, Self::class)
    }

    /// What a listener in this region belongs to.
    #[must_use]
    pub fn of_listener(residency: &Residency, region: &Region) -> Self {
        let classes = residency.classes.keys().take(CLASSES).enumerate();
        let allowed = classes.filter(|(_, class)| residency.class_allows(class, region));
        allowed.fold(Self::EVERYBODY, |audience, (at, _)| audience.with(Self::class(at)))
    }

    const fn class(at: usize) -> Self {
        Self(2 << at)
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// May a listener know a block?
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Audience, CLASSES};
    use crate::model::Region;
    use crate::routing::residency::{Classes, Residency};

    #[test]
    fn a_block_is_told_where_one_of_its_requests_could_have_gone() {
        let class = |name: &str, regions: &[&str]| {
            (name.to_owned(), regions.iter().map(|region| (*region).to_owned()).collect::<Vec<_>>())
        };
        let classes = [class("eu", &["eu-*"]), class("paris", &["eu-west-3"]), class("nowhere", &[])];
        let residency = Residency { classes: classes.into(), ..Residency::default() };
        // The classes of each request that a block was seen in, and who may be told: Paris, Frankfurt, Virginia.
        let cases: [(&[&str], [bool; 3]); 10] = [
            (&[], [false, false, false]),
            (&[""], [true, true, true]),
            (&["eu"], [true, true, false]),
            (&["paris"], [true, false, false]),
            (&["nowhere"], [false, false, false]),
            (&["unknown"], [false, false, false]),
            (&["paris", "eu"], [true, true, false]),
            (&["paris", ""], [true, true, true]),
            (&["paris eu"], [false, false, false]),
            (&["paris eu", "eu"], [true, true, false]),
        ];
        for (seen, expected) in cases {
            let of_request =
                |classes: &&str| Audience::of_request(&residency, &classes.split_whitespace().collect::<Classes>());
            let block = seen.iter().map(of_request).fold(Audience::NOBODY, Audience::with);
            let told = ["eu-west-3", "eu-central-1", "us-east-1"]
                .map(|region| block.meets(Audience::of_listener(&residency, &Region::new(region))));
            assert_eq!(told, expected, "{seen:?}");
        }
    }

    #[test]
    fn classes_beyond_those_that_fit_are_told_to_nobody() {
        let everywhere = |i: usize| (format!("c{i:03}"), vec!["*".to_owned()]);
        let residency = Residency { classes: (0..CLASSES + 1).map(everywhere).collect(), ..Residency::default() };
        let listener = Audience::of_listener(&residency, &Region::new("r"));
        let told = |class: &str| Audience::of_request(&residency, &[class].into_iter().collect()).meets(listener);
        assert_eq!((told("c000"), told("c062"), told("c063")), (true, true, false));
    }
}
