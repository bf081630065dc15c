//! Progress while something is measured: a redrawn line per run on a terminal, plain lines at intervals elsewhere.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::bench::Board;
use crate::bench::board::Shown;
use crate::cli::Context;
use crate::cli::exit::Failure;
use crate::cli::signal::Stops;

/// How often a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(250);
/// How often plain lines are written: enough to see life in a log, not enough to fill it.
const PLAIN: Duration = Duration::from_secs(10);

/// Runs a measurement and shows `board` meanwhile. The first Ctrl-C fires `stop`: the work ends early and reports what it has; at the
/// second one there is no report.
pub(crate) async fn stoppable<T>(
    context: &Context,
    board: &Board,
    stop: &CancellationToken,
    work: impl Future<Output = anyhow::Result<T>>,
) -> Result<Option<T>, Failure> {
    let mut stops = Stops::listen()?;
    let mut work = std::pin::pin!(while_shown(context, board, work));
    loop {
        tokio::select! {
            result = &mut work => return Ok(Some(result?)),
            _ = stops.next() => {
                if stop.is_cancelled() {
                    return Ok(None);
                }
                context.printer.warn("interrupted: no further requests; reporting what was measured");
                stop.cancel();
            }
        }
    }
}

/// Runs `work` and shows `board` until it ends.
async fn while_shown<T>(context: &Context, board: &Board, work: impl Future<Output = T>) -> T {
    let mut view = View::new(context);
    let mut ticks = tokio::time::interval(if context.printer.is_live() { REDRAW } else { PLAIN });
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick of an interval comes at once.
    ticks.tick().await;
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                view.draw(board);
                view.clear();
                return done;
            }
            _ = ticks.tick() => view.draw(board),
        }
    }
}

enum View<'a> {
    Live { bars: MultiProgress, head: ProgressBar, lines: Vec<ProgressBar> },
    Plain(&'a Context, Vec<String>),
}

impl<'a> View<'a> {
    fn new(context: &'a Context) -> Self {
        if !context.printer.is_live() {
            return Self::Plain(context, Vec::new());
        }
        let bars = MultiProgress::with_draw_target(context.printer.progress_target());
        let head = bars.add(line());
        Self::Live { bars, head, lines: Vec::new() }
    }

    fn draw(&mut self, board: &Board) {
        let (phase, shown) = board.show();
        let texts = texts(&shown);
        match self {
            Self::Live { bars, head, lines } => {
                head.set_message(phase);
                while lines.len() < texts.len() {
                    lines.push(bars.add(line()));
                }
                for (line, text) in lines.iter().zip(texts) {
                    line.set_message(text);
                }
            }
            Self::Plain(context, last) => {
                let now: Vec<String> = std::iter::once(phase).chain(texts).filter(|text| !text.is_empty()).collect();
                // Only what changed: finished runs of a sweep need no repetition.
                for text in now.iter().filter(|text| !last.contains(text)) {
                    context.printer.talk(text);
                }
                *last = now;
            }
        }
    }

    fn clear(&self) {
        if let Self::Live { bars, .. } = self {
            // A terminal that cannot be cleared keeps its last lines: no harm.
            let _ = bars.clear();
        }
    }
}

fn line() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new_spinner().with_style(style)
}

/// One text per line, labels padded to the longest.
fn texts(shown: &[Shown]) -> Vec<String> {
    let width = shown.iter().map(|line| line.label.chars().count()).max().unwrap_or(0);
    shown.iter().map(|line| format!("{:width$}  {}", line.label, line.text())).collect()
}

#[cfg(test)]
mod tests {
    use super::while_shown;
    use crate::bench::Board;
    use crate::cli::Context;
    use crate::cli::printer::capture::printer;

    #[tokio::test]
    async fn off_a_terminal_the_last_state_is_written_as_lines() {
        let (printer, out, err) = printer(false);
        let context = Context { printer, config: None, provider: None, route: None };
        let board = Board::default();
        let work = async {
            board.phase("measuring");
            board.line("gorgo", Some(2)).sent();
            board.line("round-robin", Some(2));
            7
        };
        assert_eq!(while_shown(&context, &board, work).await, 7);
        assert_eq!(err.text(), "measuring\ngorgo        0/2\nround-robin  0/2\n");
        assert_eq!(out.text(), "");
    }
}
