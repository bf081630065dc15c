//! One line per node: redrawn with its elapsed time on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::printer::Printer;

/// Time between two redraws.
const TICK: Duration = Duration::from_millis(120);

/// The lines of a command that works on several nodes.
pub(crate) struct NodeLines<'a> {
    printer: &'a Printer,
    bars: BTreeMap<String, ProgressBar>,
}

impl<'a> NodeLines<'a> {
    /// A line for each node, in this order.
    pub(crate) fn new<'n>(printer: &'a Printer, nodes: impl IntoIterator<Item = &'n str> + Clone) -> Self {
        if !printer.is_live() {
            return Self { printer, bars: BTreeMap::new() };
        }
        let all = MultiProgress::with_draw_target(printer.progress_target());
        let width = nodes.clone().into_iter().map(str::len).max().unwrap_or(0);
        let style = ProgressStyle::with_template("{prefix} {elapsed:>5} {wide_msg}").expect("a template that parses");
        let bar = |node: &str| {
            let bar =
                all.add(ProgressBar::new_spinner().with_style(style.clone()).with_prefix(format!("{node:width$}")));
            bar.enable_steady_tick(TICK);
            (node.to_owned(), bar)
        };
        Self { printer, bars: nodes.into_iter().map(bar).collect() }
    }

    /// What a node does now.
    pub(crate) fn say(&self, node: &str, text: &str) {
        match self.bars.get(node) {
            Some(bar) => bar.set_message(text.to_owned()),
            None => self.printer.talk(format_args!("{node}: {text}")),
        }
    }
}

/// The lines stay as they are, so that what is printed next stands below them.
impl Drop for NodeLines<'_> {
    fn drop(&mut self) {
        for bar in self.bars.values() {
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::NodeLines;
    use crate::cli::printer::capture::printer;

    #[test]
    fn off_a_terminal_each_step_is_a_line() {
        let (printer, out, err) = printer(false);
        let lines = NodeLines::new(&printer, ["east", "w"]);
        lines.say("east", "asking");
        lines.say("w", "asking");
        lines.say("east", "launched");
        drop(lines);
        assert_eq!((out.text().as_str(), err.text().as_str()), ("", "east: asking\nw: asking\neast: launched\n"));
    }
}
