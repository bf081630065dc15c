//! `gorgo proxy prefix-stats` and `gorgo proxy clear-cache`.

use super::super::Context;
use super::super::client::{Change, Read, Write};
use super::super::exit::{Exit, Outcome};
use super::super::human;
use super::super::table::{Column, Table};
use crate::wire::{Cache, ClearCache, Cleared, paths};

/// Arguments of `gorgo proxy clear-cache`.
#[derive(Debug, clap::Args)]
pub(crate) struct ClearArgs {
    #[command(flatten)]
    write: Write,
    /// Forget what this one replica holds [default: all of them]
    #[arg(long, value_name = "NAME")]
    replica: Option<String>,
}

/// Prints what the index holds.
pub(super) async fn run(args: &Read, context: &Context) -> Outcome {
    super::read(args, paths::CACHE, context, show).await
}

/// Empties the index.
pub(super) async fn run_clear(args: &ClearArgs, context: &Context) -> Outcome {
    let change = Change::new(paths::CACHE, &ClearCache { replica: args.replica.clone() })?;
    if let Some(cleared) = super::write::<Cleared>(&args.write, &change, context).await? {
        let names = cleared.replicas.join(", ");
        context.printer.talk(format_args!("forgot {} blocks of {names}", human::count(cleared.blocks)));
        if args.write.json {
            context.printer.json(&cleared)?;
        }
    }
    Ok(Exit::Done)
}

/// A line per replica; a block is `block_bytes` of canonical prompt.
fn show(cache: &Cache) -> String {
    let mut table = Table::new(&[
        Column::Text("replica"),
        Column::Number("blocks"),
        Column::Number("capacity"),
        Column::Number("nodes"),
        Column::Number("depth"),
        Column::Number("memory"),
        Column::Number("hits"),
        Column::Number("foreseen"),
        Column::Number("replies with usage"),
    ]);
    for replica in &cache.replicas {
        table.row([
            replica.name.clone(),
            human::count(replica.blocks),
            human::count(replica.capacity_blocks),
            human::count(replica.nodes),
            human::count(replica.depth),
            human::bytes(replica.bytes),
            human::or_unknown(replica.hit_ratio(), human::share),
            human::or_unknown(replica.predicted_hit_ratio(), human::share),
            human::count(replica.requests_with_usage),
        ]);
    }
    format!(
        "{table}\n\nblock: {} of prompt; hits: prompt tokens that the engine found in its cache; foreseen: what the router expected",
        human::bytes(cache.block_bytes)
    )
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::show;
    use crate::wire::{Cache, CacheReplica};

    #[test]
    fn prefix_stats_is_a_line_per_replica() {
        let east = CacheReplica {
            name: "east".into(),
            blocks: 12_000,
            capacity_blocks: 15_625,
            nodes: 431,
            depth: 96,
            bytes: 1_234_567,
            requests_with_usage: 980,
            prompt_tokens: 4_000_000,
            cached_tokens: 3_804_000,
            predicted_cached_tokens: 3_810_000,
        };
        let fresh = CacheReplica {
            name: "europe".into(),
            blocks: 0,
            capacity_blocks: 15_625,
            nodes: 1,
            depth: 0,
            bytes: 640,
            requests_with_usage: 0,
            prompt_tokens: 0,
            cached_tokens: 0,
            predicted_cached_tokens: 0,
        };
        assert_snapshot!(show(&Cache { block_bytes: 256, replicas: vec![east, fresh] }), @"
        REPLICA  BLOCKS  CAPACITY  NODES  DEPTH   MEMORY    HITS  FORESEEN  REPLIES WITH USAGE
        east     12,000    15,625    431     96  1.2 MiB  95.1 %    95.2 %                 980
        europe        0    15,625      1      0    640 B       -         -                   0

        block: 256 B of prompt; hits: prompt tokens that the engine found in its cache; foreseen: what the router expected
        ");
    }
}
