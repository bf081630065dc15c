//! "Did you mean …?"

/// The one of `known` that `typed` most resembles, if it resembles any: at most a third of its letters wrong, at least one allowed.
pub(crate) fn closest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (typed.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(typed, name), name))
        .filter(|(wrong, _)| *wrong <= allowed)
        .min_by_key(|(wrong, _)| *wrong)
        .map(|(_, name)| name)
}

/// Letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                let swapped: usize = before[j - 1];
                best = best.min(swapped + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::{closest, distance};

    #[test]
    fn distance_counts_slips_of_the_finger() {
        for (from, to, wrong) in
            [("", "abc", 3), ("queue", "queue", 0), ("qeuue", "queue", 1), ("que", "queue", 2), ("ab", "ba", 1)]
        {
            assert_eq!((distance(from, to), distance(to, from)), (wrong, wrong), "{from} {to}");
        }
    }

    #[test]
    fn only_what_resembles_is_suggested() {
        let known = ["strategy", "engine", "model", "url"];
        let cases = [
            ("stratgy", Some("strategy")),
            ("Engine", Some("engine")),
            ("modle", Some("model")),
            ("uri", Some("url")),
            ("colour", None),
            ("", None),
        ];
        for (typed, wanted) in cases {
            assert_eq!(closest(typed, known), wanted, "{typed}");
        }
    }
}
