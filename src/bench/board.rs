//! What is under way, for whoever draws progress: the runs write, the command line reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tally::{Progress, Tally};

/// Shared list of lines and a word on the present phase. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Board {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    phase: String,
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Line {
    label: String,
    planned: Option<u64>,
    tally: Arc<Tally>,
}

/// One line as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Strategy or load.
    pub label: String,
    /// Requests that the plan holds, if it is finite.
    pub planned: Option<u64>,
    /// Figures so far.
    pub progress: Progress,
}

impl Board {
    /// Says what goes on now, e.g. `starting 15 engines`.
    pub fn phase(&self, text: impl Into<String>) {
        self.lock().phase = text.into();
    }

    /// Adds a line; its tally is the run's.
    pub fn line(&self, label: &str, planned: Option<u64>) -> Arc<Tally> {
        let tally = Arc::<Tally>::default();
        self.lock().lines.push(Line { label: label.to_owned(), planned, tally: tally.clone() });
        tally
    }

    /// The phase and all lines in order of their addition.
    #[must_use]
    pub fn show(&self) -> (String, Vec<Shown>) {
        let (phase, lines) = {
            let state = self.lock();
            (state.phase.clone(), state.lines.clone())
        };
        let shown = lines.into_iter().map(|line| Shown {
            label: line.label,
            planned: line.planned,
            progress: line.tally.progress(),
        });
        (phase, shown.collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// `412/1150  TTFT p50 183 p95 402 ms  hits 91 %  crossed 12 %`: requests done, then what is known of the latest. With a label
    /// it fits into 80 columns.
    #[must_use]
    pub fn text(&self) -> String {
        let Progress { ended, lost, ttft_p50_ms, ttft_p95_ms, hit_ratio, cross_region_share, .. } = self.progress;
        let mut text = match self.planned {
            Some(planned) => format!("{ended}/{planned}"),
            None => format!("{ended} done"),
        };
        if lost > 0 {
            text.push_str(&format!("  {lost} lost"));
        }
        if let (Some(p50), Some(p95)) = (ttft_p50_ms, ttft_p95_ms) {
            text.push_str(&format!("  TTFT p50 {p50:.0} p95 {p95:.0} ms"));
        }
        if let Some(hits) = hit_ratio {
            text.push_str(&format!("  hits {:.0} %", hits * 100.0));
        }
        match cross_region_share {
            Some(crossed) => text.push_str(&format!("  crossed {:.0} %", crossed * 100.0)),
            None if ttft_p50_ms.is_some() => text.push_str("  crossed -"),
            None => {}
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Board, Shown};
    use crate::bench::tally::Progress;

    #[test]
    fn lines_keep_their_order_and_show_what_is_known() {
        let board = Board::default();
        board.phase("warm-up");
        board.line("b", Some(3)).sent();
        board.line("a", None);
        let (phase, lines) = board.show();
        assert_eq!(phase, "warm-up");
        let labels: Vec<_> = lines.iter().map(|line| (line.label.as_str(), line.progress.sent)).collect();
        assert_eq!(labels, [("b", 1), ("a", 0)]);
        assert_eq!(lines[0].text(), "0/3");
    }

    #[test]
    fn a_line_reads_like_this() {
        let progress = Progress {
            sent: 12,
            ended: 10,
            lost: 1,
            ttft_p50_ms: Some(183.4),
            ttft_p95_ms: Some(401.6),
            hit_ratio: Some(0.914),
            cross_region_share: Some(0.125),
        };
        let unknown = Progress { cross_region_share: None, ..progress };
        let line = Shown { label: "x".into(), planned: None, progress: unknown };
        assert!(line.text().ends_with("hits 91 %  crossed -"), "{}", line.text());
        let line = Shown { progress, ..line };
        insta::assert_snapshot!(line.text(), @"10 done  1 lost  TTFT p50 183 p95 402 ms  hits 91 %  crossed 12 %");
    }
}
