//! Reports of several loads: one part per load, and what the loads are called.

use super::schema::{Load, Report, Run};

impl Report {
    /// A report per load where several loads were played, each with its runs; otherwise this one alone.
    #[must_use]
    pub fn by_load(&self) -> Vec<Self> {
        if !self.is_sweep() {
            return vec![self.clone()];
        }
        let parts = self.runs.chunk_by(|one, next| one.load == next.load);
        parts.map(|runs| Self { runs: runs.to_vec(), ..self.clone() }).collect()
    }

    /// Whether a strategy was played under several loads.
    #[must_use]
    pub fn is_sweep(&self) -> bool {
        let again = |(index, run): (usize, &Run)| {
            self.runs[..index].iter().any(|other| other.strategy == run.strategy && other.load != run.load)
        };
        self.runs.iter().enumerate().any(again)
    }
}

impl Load {
    /// What it is called: `0.7 of the capacity (time scale 1.61)`.
    #[must_use]
    pub fn label(&self) -> String {
        let pace = match (self.time_scale, self.sessions_per_s, self.concurrency) {
            (Some(scale), ..) => format!("time scale {}", digits(scale)),
            (None, Some(rate), _) => format!("{} sessions/s", digits(rate)),
            (None, None, Some(sessions)) => format!("{sessions} sessions at once"),
            (None, None, None) => self.kind.clone(),
        };
        match self.of_capacity {
            Some(share) => format!("{} of the capacity ({pace})", digits(share)),
            None => pace,
        }
    }

    /// A number that grows with the load, and what it counts.
    #[must_use]
    pub(super) fn height(&self) -> Option<(f64, &'static str)> {
        if let Some(share) = self.of_capacity {
            return Some((share, "load, share of the capacity"));
        }
        let speed = self.time_scale.map(|scale| (1.0 / scale, "load, times the speed of the trace's clock"));
        let rate = self.sessions_per_s.map(|rate| (rate, "session starts per second"));
        speed.or(rate).or(self.concurrency.map(|sessions| (f64::from(sessions), "sessions at once")))
    }
}

/// At most three decimals, none that say nothing.
fn digits(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use crate::report::example;
    use crate::report::schema::Load;

    #[test]
    fn loads_have_names_and_heights() {
        let load = |time_scale, sessions_per_s, concurrency, of_capacity| Load {
            kind: "open".into(),
            time_scale,
            sessions_per_s,
            concurrency,
            of_capacity,
        };
        let cases = [
            (load(Some(1.4), None, None, None), "time scale 1.4", Some(1.0 / 1.4)),
            (load(None, Some(2.0), None, None), "2 sessions/s", Some(2.0)),
            (load(None, None, Some(64), None), "64 sessions at once", Some(64.0)),
            (load(Some(1.6109), None, None, Some(0.7)), "0.7 of the capacity (time scale 1.611)", Some(0.7)),
            (load(None, None, None, None), "open", None),
        ];
        for (load, label, height) in cases {
            assert_eq!((load.label(), load.height().map(|(height, _)| height)), (label.to_owned(), height));
        }
    }

    #[test]
    fn a_sweep_falls_apart_into_its_loads() {
        let mut report = example::report();
        assert!(!report.is_sweep());
        assert_eq!(report.by_load(), [report.clone()]);
        let mut second = report.runs.clone();
        for run in &mut second {
            run.load.sessions_per_s = Some(6.0);
        }
        report.runs.extend(second);
        let parts = report.by_load();
        let runs: Vec<_> = parts.iter().map(|part| (part.runs.len(), part.runs[0].load.label())).collect();
        assert_eq!(runs, [(4, "3 sessions/s".to_owned()), (4, "6 sessions/s".to_owned())]);
        // The steps of a sweep of one target have names of their own and stay in one table.
        for (index, run) in report.runs.iter_mut().enumerate() {
            run.strategy = format!("step {index}");
        }
        assert!(!report.is_sweep());
    }
}
