//! "Did you mean": the known name nearest to one that was mistyped, for every place that takes names from people.

/// `; did you mean …?`, or nothing when no known name is near.
#[must_use]
pub fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// The known name with the fewest edits from `name`, if that is at most a third of its length (at least 1, with `_` read as `-`).
#[must_use]
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let name = plain(name);
    let best = known.map(|candidate| (edits(&name, &plain(candidate)), candidate)).min_by_key(|(edits, _)| *edits)?;
    (best.0 <= (best.1.chars().count() / 3).max(1)).then_some(best.1)
}

/// Levenshtein distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{edits, nearest};

    #[test]
    fn edit_distance() {
        for (a, b, expected) in
            [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("gorgo", "groog", 3), ("ä", "a", 1)]
        {
            assert_eq!((edits(a, b), edits(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let known = ["gorgo", "gorgo-v3", "least-load", "round-robin", "random"];
        let cases = [
            ("gorg", Some("gorgo")),
            ("Least_Load", Some("least-load")),
            ("leastload", Some("least-load")),
            ("roundrobbin", Some("round-robin")),
            ("cheapest", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name, known.into_iter()), expected, "{name}");
        }
    }
}
