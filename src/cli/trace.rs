//! What is said of a trace that was collected, and its file.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::Context;
use super::exit::Failure;
use super::file::write_file;
use super::human;
use super::table::{Column, Table};
use crate::wire::span::{Dump, Merged, NodeSummary, StartTrace, Trip, Written, merge};

/// How much is kept.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Buffer {
    /// Memory for spans in each router; what is older goes when it is full [default: 16]
    #[arg(long = "buffer-mib", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=48))]
    mib: Option<u64>,
}

impl Buffer {
    /// As routers are asked for it.
    pub(crate) fn request(self) -> StartTrace {
        StartTrace { buffer_bytes: self.mib.map(|mib| mib << 20) }
    }
}

/// `--json` of the commands that end a trace.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    file: String,
    events: usize,
    flows: u64,
    nodes: &'a [NodeSummary],
    failed: &'a [Missing],
}

/// A router that gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    /// Its name.
    pub(crate) node: String,
    /// Why.
    pub(crate) why: String,
}

/// Fails before a trace is ended if its file could not be written afterwards.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() && !path.is_dir() {
        return Ok(());
    }
    let error = anyhow::anyhow!("`{}` cannot be written: its folder does not exist, or it is a folder", path.display());
    Err(Failure::usage(error))
}

/// Puts dumps into one file and says what is in it.
pub(crate) fn finish(
    path: &Path,
    dumps: &[Dump],
    trips: &[Trip],
    failed: &[Missing],
    json: bool,
    context: &Context,
) -> Result<(), Failure> {
    let Merged { written, nodes } = merge(dumps, trips);
    let Written { json: file, events, flows, reversed } = written;
    write_file(path, &file).with_context(|| format!("failed to write `{}`", path.display()))?;
    let name = path.display().to_string();
    if json {
        context.printer.json(&Summary { file: name.clone(), events, flows, nodes: &nodes, failed })?;
    } else {
        context.printer.data(table(&nodes))?;
    }
    let dropped: u64 = nodes.iter().map(|node| node.dropped).sum();
    if dropped > 0 {
        context.printer.warn(format_args!(
            "{} spans and samples did not fit and are missing, the oldest first: a larger `--buffer-mib` holds more",
            human::count(dropped)
        ));
    }
    if reversed > 0 {
        let text = "arrows are missing: the clocks cannot tell which end came first";
        context.printer.warn(format_args!("{} {text}", human::count(reversed)));
    }
    context.printer.talk(format_args!(
        "written: `{name}` ({}); https://ui.perfetto.dev shows it",
        human::bytes(file.len() as u64)
    ));
    Ok(())
}

/// A line per router.
fn table(nodes: &[NodeSummary]) -> Table {
    let mut table = Table::new(&[
        Column::Text("router"),
        Column::Text("region"),
        Column::Number("requests"),
        Column::Number("samples"),
        Column::Number("dropped"),
        Column::Number("unfinished"),
        Column::Number("clock ahead"),
        Column::Number("give or take"),
    ]);
    for node in nodes {
        table.row([
            node.node.clone(),
            node.region.clone().unwrap_or_else(|| "-".to_owned()),
            human::count(node.requests as u64),
            human::count(node.samples as u64),
            human::count(node.dropped),
            human::count(node.unfinished),
            human::or_unknown(node.clock_offset_us, ms),
            human::or_unknown(node.clock_error_us, ms),
        ]);
    }
    table
}

/// Microseconds as milliseconds with all their digits: a forward on a local network takes less than one.
fn ms(us: i64) -> String {
    format!("{:.3} ms", us as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{check, table};
    use crate::wire::span::NodeSummary;

    #[test]
    fn a_line_per_router() {
        let node = |node: &str, offset: Option<i64>| NodeSummary {
            node: node.into(),
            region: (node == "east").then(|| "us-east-1".into()),
            requests: 1_234,
            samples: 300,
            dropped: 0,
            unfinished: 2,
            clock_offset_us: offset,
            clock_error_us: offset.map(|_| 41),
        };
        assert_snapshot!(table(&[node("east", Some(0)), node("west", Some(-600_000_017)), node("far", None)]), @"
        ROUTER  REGION     REQUESTS  SAMPLES  DROPPED  UNFINISHED     CLOCK AHEAD  GIVE OR TAKE
        east    us-east-1     1,234      300        0           2        0.000 ms      0.041 ms
        west    -             1,234      300        0           2  -600000.017 ms      0.041 ms
        far     -             1,234      300        0           2               -             -
        ");
    }

    #[test]
    fn a_file_that_cannot_be_is_said_before_the_trace_ends() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check(&folder.path().join("trace.json")).is_ok());
        for bad in [folder.path().to_owned(), folder.path().join("none/trace.json")] {
            assert!(check(&bad).is_err(), "{}", bad.display());
        }
    }
}
