//! Tables for people. Programs take `--json`.

use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment};

/// Which way a column leans: text to the left, numbers with their unit to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Text.
    Text(&'static str),
    /// Numbers.
    Number(&'static str),
}

/// Rows under a heading, two spaces between columns, no lines: readable at a terminal, greppable in a pipe. Cells are never wrapped.
pub(crate) struct Table {
    inner: comfy_table::Table,
    alignments: Vec<CellAlignment>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &[Column]) -> Self {
        let alignments = columns.iter().map(|column| column.alignment()).collect();
        let mut inner = comfy_table::Table::new();
        inner.load_style(NOTHING).force_no_tty();
        let mut table = Self { inner, alignments };
        let heading = table.cells(columns.iter().map(|column| column.heading().to_uppercase()));
        table.inner.set_header(heading);
        table
    }

    /// Adds a row of as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row = self.cells(cells);
        debug_assert_eq!(row.len(), self.alignments.len(), "a row has a cell for every column");
        self.inner.add_row(row);
    }

    fn cells(&self, texts: impl IntoIterator<Item = String>) -> Vec<Cell> {
        texts
            .into_iter()
            .zip(&self.alignments)
            .map(|(text, alignment)| Cell::new(text).set_alignment(*alignment))
            .collect()
    }
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Self::Text(heading) | Self::Number(heading) => heading,
        }
    }

    fn alignment(self) -> CellAlignment {
        match self {
            Self::Text(_) => CellAlignment::Left,
            Self::Number(_) => CellAlignment::Right,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library pads every cell by one space on both sides: the left one is a margin that nobody asked for.
        let lines = self.inner.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned());
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Column, Table};

    #[test]
    fn text_leans_left_and_numbers_lean_right() {
        let mut table = Table::new(&[Column::Text("name"), Column::Number("rtt"), Column::Text("region")]);
        table.row(["east".into(), "0.42 ms".into(), "us-east-1".into()]);
        table.row(["a-long-name".into(), "128 ms".into(), "eu".into()]);
        assert_snapshot!(table, @"
        NAME             RTT  REGION
        east         0.42 ms  us-east-1
        a-long-name   128 ms  eu
        ");
    }
}
