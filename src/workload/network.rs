//! Round-trip times between regions: a built-in table, or one of your own.
//!
//! The built-in figures are the P95 of probes over 30 days (to 2026-07-30) from Microsoft's published table of round-trip latency
//! between Azure regions, mapped to other clouds' region names by city and made symmetric (see NOTICE). They are figures of one
//! provider's backbone: take them for a lower end of what the public Internet gives. Known faults: Ohio (`us-midwest-2`) has
//! Iowa's figures and should be closer to Illinois and Virginia; Utah (`us-west-3`) has Wyoming's; Georgia (`us-southeast-1`) is
//! missing. Osaka is `asia-northeast-1` and Tokyo `asia-northeast-2`.

use std::collections::BTreeMap;

use crate::model::Region;

/// RTT inside a region and between regions of one metropolitan area, ms.
pub const SAME_REGION_MS: f64 = 2.0;

/// RTTs above this are taken for a mistake, ms.
pub const MAX_RTT_MS: f64 = 10_000.0;

/// The metropolitan areas of the table, in the order of [`METRO_RTT_MS`].
#[derive(Clone, Copy)]
enum Metro {
    California,
    Arizona,
    Utah,
    Texas,
    Illinois,
    Ohio,
    Virginia,
    Frankfurt,
    Milan,
    Israel,
    Tokyo,
    Osaka,
    India,
    Sydney,
    Seoul,
}

/// Which region stands where. `kr-seoul` is no Lambda region.
const REGIONS: [(&str, Metro); 19] = [
    ("us-west-1", Metro::California),
    ("us-west-2", Metro::Arizona),
    ("us-west-3", Metro::Utah),
    ("us-south-1", Metro::Texas),
    ("us-south-2", Metro::Texas),
    ("us-south-3", Metro::Texas),
    ("us-midwest-1", Metro::Illinois),
    ("us-midwest-2", Metro::Ohio),
    ("us-east-1", Metro::Virginia),
    ("us-east-2", Metro::Virginia),
    ("us-east-3", Metro::Virginia),
    ("europe-central-1", Metro::Frankfurt),
    ("europe-south-1", Metro::Milan),
    ("me-west-1", Metro::Israel),
    ("asia-northeast-1", Metro::Osaka),
    ("asia-northeast-2", Metro::Tokyo),
    ("asia-south-1", Metro::India),
    ("australia-east-1", Metro::Sydney),
    ("kr-seoul", Metro::Seoul),
];

/// P95 of the RTT, ms: one row per metropolitan area, with the areas before it.
const METRO_RTT_MS: [&[u16]; 15] = [
    &[],                                                                   // California
    &[22],                                                                 // Arizona
    &[27, 38],                                                             // Utah
    &[41, 28, 30],                                                         // Texas
    &[54, 61, 33, 42],                                                     // Illinois
    &[42, 50, 20, 30, 18],                                                 // Ohio
    &[73, 68, 54, 46, 25, 35],                                             // Virginia
    &[158, 150, 140, 132, 115, 125, 97],                                   // Frankfurt
    &[166, 161, 147, 142, 121, 133, 105, 21],                              // Milan
    &[187, 180, 164, 164, 143, 150, 126, 59, 53],                          // Israel
    &[110, 121, 125, 140, 150, 141, 165, 246, 256, 250],                   // Tokyo
    &[118, 124, 133, 146, 158, 149, 173, 252, 260, 250, 14],               // Osaka
    &[224, 243, 242, 246, 232, 247, 214, 150, 144, 157, 129, 129],         // India
    &[142, 169, 164, 172, 189, 178, 207, 290, 285, 272, 105, 111, 152],    // Sydney
    &[134, 144, 150, 164, 174, 165, 191, 272, 278, 245, 35, 26, 127, 137], // Seoul
];

/// RTTs between pairs of regions, symmetric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RttMatrix {
    /// By (smaller name, larger name).
    pairs: BTreeMap<(Region, Region), f64>,
}

impl RttMatrix {
    /// A matrix without any pair.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The built-in table.
    #[must_use]
    pub fn built_in() -> Self {
        let mut matrix = Self::empty();
        for (k, (a, here)) in REGIONS.iter().enumerate() {
            for (b, there) in &REGIONS[..k] {
                matrix.set(&Region::new(a), &Region::new(b), metro_rtt_ms(*here, *there));
            }
        }
        matrix
    }

    /// Reads a table like a spreadsheet's: first row `region,NAME,NAME,…`, then per row a name and the RTTs in ms. Lines that start
    /// with `#` are comments, empty fields unknown pairs, and 0 on the diagonal stands for [`SAME_REGION_MS`]. Where the two
    /// directions of a pair differ, their mean is taken.
    ///
    /// # Errors
    /// Every problem, each with `name`, line and what was wanted.
    pub fn from_csv(name: &str, text: &str) -> Result<Self, Vec<String>> {
        let mut reader = CsvReader::default();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim_start_matches('\u{feff}').trim();
            if !line.is_empty() && !line.starts_with('#') {
                reader.line(&format!("{name}:{number}"), line);
            }
        }
        if reader.columns.is_empty() {
            reader.problems.push(format!("{name}: no table; a first row `region,NAME,NAME,…` is wanted"));
        }
        if !reader.problems.is_empty() {
            return Err(reader.problems);
        }
        let mut matrix = Self::empty();
        for ((from, to), &there) in &reader.cells {
            let back = reader.cells.get(&(to.clone(), from.clone())).copied().unwrap_or(there);
            matrix.set(from, to, f64::midpoint(there, back));
        }
        Ok(matrix)
    }

    /// Sets the RTT of a pair, in both directions.
    pub fn set(&mut self, a: &Region, b: &Region, rtt_ms: f64) {
        self.pairs.insert(key(a, b), rtt_ms);
    }

    /// RTT between two regions, ms; inside one region [`SAME_REGION_MS`] unless the table says otherwise. None if the pair is
    /// unknown.
    #[must_use]
    pub fn rtt_ms(&self, a: &Region, b: &Region) -> Option<f64> {
        self.pairs.get(&key(a, b)).copied().or_else(|| (a == b).then_some(SAME_REGION_MS))
    }

    /// All regions of the table, sorted.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        let both = self.pairs.keys().flat_map(|(a, b)| [a.clone(), b.clone()]);
        let mut regions: Vec<Region> = both.collect();
        regions.sort();
        regions.dedup();
        regions
    }
}

fn key(a: &Region, b: &Region) -> (Region, Region) {
    if a <= b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) }
}

fn metro_rtt_ms(a: Metro, b: Metro) -> f64 {
    let (low, high) = ((a as usize).min(b as usize), (a as usize).max(b as usize));
    METRO_RTT_MS[high].get(low).map_or(SAME_REGION_MS, |&ms| f64::from(ms))
}

/// An RTT as written.
///
/// # Errors
/// Anything but 0 to [`MAX_RTT_MS`].
pub(super) fn check_rtt_ms(ms: f64) -> Result<f64, String> {
    if (0.0..=MAX_RTT_MS).contains(&ms) {
        Ok(ms)
    } else {
        Err(format!("found {ms}; wanted an RTT of 0 to {MAX_RTT_MS} ms"))
    }
}

/// State of reading a CSV table.
#[derive(Default)]
struct CsvReader {
    columns: Vec<Region>,
    rows: Vec<Region>,
    cells: BTreeMap<(Region, Region), f64>,
    problems: Vec<String>,
}

impl CsvReader {
    fn line(&mut self, place: &str, line: &str) {
        let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
        let first = fields.next().unwrap_or_default();
        if self.columns.is_empty() {
            self.header(place, fields);
            return;
        }
        let row = Region::new(first);
        if first.is_empty() || self.rows.contains(&row) {
            self.problems
                .push(format!("{place}: found row `{first}`; wanted the name of a region that has no row yet"));
            return;
        }
        self.rows.push(row.clone());
        let fields: Vec<&str> = fields.collect();
        if fields.len() != self.columns.len() {
            let (found, wanted) = (fields.len(), self.columns.len());
            self.problems.push(format!("{place}: {found} values; {wanted} are wanted, one per column"));
            return;
        }
        for (field, column) in fields.iter().zip(&self.columns) {
            let parsed = field.parse::<f64>().map_err(|_| format!("found `{field}`; wanted an RTT in ms"));
            match parsed.and_then(check_rtt_ms) {
                _ if field.is_empty() => {}
                Ok(0.0) if *column == row => {}
                Ok(ms) => {
                    self.cells.insert((row.clone(), column.clone()), ms);
                }
                Err(problem) => self.problems.push(format!("{place}: {row}/{column}: {problem}")),
            }
        }
    }

    fn header<'a>(&mut self, place: &str, names: impl Iterator<Item = &'a str>) {
        for name in names {
            let region = Region::new(name);
            if name.is_empty() || self.columns.contains(&region) {
                self.problems.push(format!("{place}: found column `{name}`; wanted distinct names of regions"));
            }
            self.columns.push(region);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, proptest};

    use super::{REGIONS, RttMatrix};
    use crate::model::Region;

    fn rtt(matrix: &RttMatrix, a: &str, b: &str) -> Option<f64> {
        matrix.rtt_ms(&Region::new(a), &Region::new(b))
    }

    #[test]
    fn the_table_has_known_figures_in_both_directions() {
        let cases = [
            ("us-east-1", "europe-central-1", Some(97.0)),
            ("us-east-1", "us-west-1", Some(73.0)),
            ("us-west-1", "me-west-1", Some(187.0)),
            ("us-east-1", "asia-northeast-2", Some(165.0)), // Tokyo
            ("us-east-1", "asia-northeast-1", Some(173.0)), // Osaka
            ("asia-northeast-1", "asia-northeast-2", Some(14.0)),
            ("us-south-1", "australia-east-1", Some(172.0)),
            ("kr-seoul", "asia-northeast-2", Some(35.0)),
            ("us-east-1", "us-east-2", Some(2.0)),
            ("us-east-1", "us-east-1", Some(2.0)),
            ("home", "home", Some(2.0)),
            ("us-east-1", "us-southeast-1", None),
        ];
        let matrix = RttMatrix::built_in();
        for (a, b, wanted) in cases {
            assert_eq!(rtt(&matrix, a, b), wanted, "{a}/{b}");
            assert_eq!(rtt(&matrix, b, a), wanted, "{b}/{a}");
        }
        assert_eq!(matrix.regions().len(), REGIONS.len());
    }

    #[test]
    fn the_table_is_complete() {
        let matrix = RttMatrix::built_in();
        for a in matrix.regions() {
            for b in matrix.regions() {
                assert!(matrix.rtt_ms(&a, &b).is_some_and(|ms| (2.0..=300.0).contains(&ms)), "{a}/{b}");
            }
        }
    }

    #[test]
    fn a_table_of_ones_own_may_have_gaps_and_two_directions() {
        let csv = "# measured\nregion, a, b, c\na, 0, 10, \nb, 14, 0.5, 7\n\nc,,,0\n";
        let matrix = RttMatrix::from_csv("wan.csv", csv).unwrap();
        let found = [("a", "b"), ("b", "b"), ("b", "c"), ("a", "a"), ("a", "c")].map(|(a, b)| rtt(&matrix, a, b));
        assert_eq!(found, [Some(12.0), Some(0.5), Some(7.0), Some(2.0), None]);
    }

    #[test]
    fn all_problems_of_a_table_are_told() {
        let csv = "region,a,b,a\na,0,x,1\nb,-1,0,3\nb,1,0,1\na,1\n,1,2,3\nc,1,nan,99999\n";
        let problems = RttMatrix::from_csv("wan.csv", csv).unwrap_err();
        insta::assert_snapshot!(problems.join("\n"), @r"
        wan.csv:1: found column `a`; wanted distinct names of regions
        wan.csv:2: a/b: found `x`; wanted an RTT in ms
        wan.csv:3: b/a: found -1; wanted an RTT of 0 to 10000 ms
        wan.csv:4: found row `b`; wanted the name of a region that has no row yet
        wan.csv:5: found row `a`; wanted the name of a region that has no row yet
        wan.csv:6: found row ``; wanted the name of a region that has no row yet
        wan.csv:7: c/b: found NaN; wanted an RTT of 0 to 10000 ms
        wan.csv:7: c/a: found 99999; wanted an RTT of 0 to 10000 ms
        ");
        insta::assert_snapshot!(RttMatrix::from_csv("wan.csv", "# nothing\n").unwrap_err().join("\n"), @"wan.csv: no table; a first row `region,NAME,NAME,…` is wanted");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([a-c,#0-9.\n -]|inf|nan){0,60}") {
            if let Ok(matrix) = RttMatrix::from_csv("x", &text) {
                for a in matrix.regions() {
                    prop_assert!(matrix.regions().iter().all(|b| matrix.rtt_ms(&a, b) == matrix.rtt_ms(b, &a)));
                }
            }
        }
    }
}
