//! What `bench`, `demo` and `simulate` share: reading workloads and fleets, objectives, progress, and where results go.

mod entries;
mod fleet;
mod live;
mod output;
mod strategies;
mod workload;

pub(super) use entries::EntryArgs;
pub(super) use fleet::{describe_fleet, read_fleet, read_matrix, read_places};
pub(super) use live::stoppable;
pub(super) use output::Output;
pub(super) use strategies::{meant_there, strategies};
pub(super) use workload::{TraceArgs, json_values, read_file};

use crate::report::Slo;

/// `ttft=2000,itl=50`: objectives in ms, any of `ttft`, `itl`, `e2e`.
pub(super) fn slo(text: &str) -> Result<Slo, String> {
    let mut slo = Slo::default();
    for part in text.split(',') {
        let wanted = || format!("found `{part}`; wanted objectives in ms such as `ttft=2000,itl=50` (ttft, itl, e2e)");
        let (name, value) = part.split_once('=').ok_or_else(wanted)?;
        let ms = value.trim().parse::<f64>().ok().filter(|ms| *ms > 0.0 && ms.is_finite()).ok_or_else(wanted)?;
        let objective = match name.trim() {
            "ttft" => &mut slo.ttft_ms,
            "itl" => &mut slo.itl_ms,
            "e2e" => &mut slo.e2e_ms,
            _ => return Err(wanted()),
        };
        if objective.replace(ms).is_some() {
            return Err(format!("`{}` is given twice", name.trim()));
        }
    }
    Ok(slo)
}

/// A positive, finite number.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|value| *value > 0.0 && value.is_finite())
        .ok_or_else(|| "wanted a positive number".to_owned())
}

/// A number of seconds, 0 or more, at most a week.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    const WEEK_S: f64 = 604_800.0;
    text.parse::<f64>()
        .ok()
        .filter(|value| (0.0..=WEEK_S).contains(value))
        .ok_or_else(|| "wanted seconds, from 0 to 604800 (a week)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{positive, seconds, slo};
    use crate::report::Slo;

    #[test]
    fn objectives_are_read_and_mistakes_are_shown() {
        let both = Slo { ttft_ms: Some(2000.0), itl_ms: Some(50.0), e2e_ms: None };
        assert_eq!(slo("ttft=2000,itl=50"), Ok(both));
        assert_eq!(slo("e2e = 9.5").unwrap().e2e_ms, Some(9.5));
        for bad in ["", "ttft", "ttft=", "ttft=-1", "tpot=5", "ttft=1,ttft=2", "ttft=nan"] {
            assert!(slo(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_have_their_ranges() {
        assert_eq!(positive("0.5"), Ok(0.5));
        assert_eq!(seconds("0"), Ok(0.0));
        for bad in ["-1", "inf", "x"] {
            assert!(positive(bad).is_err() && seconds(bad).is_err(), "{bad}");
        }
        assert!(positive("0").is_err());
    }
}
