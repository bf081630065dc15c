//! Which prefixes each replica's KV cache holds, as far as the router can know.

mod node;
mod recency;
mod table;
mod tree;

pub use tree::PrefixTree;
