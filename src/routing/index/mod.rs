//! Which prefixes each replica's KV cache holds, as far as the router can know.
//!
//! # What comes from where
//!
//! | what | source |
//! |---|---|
//! | chained block hashes, one LRU per replica, prompts entered at dispatch | llm-d's approximate prefix producer |
//! | capacity 0.9 of the replica's KV cache, 200,000 tokens where it is unknown, its correction from `cached_tokens`, the restart rule | ours; the reasons stand at the constants |
//! | leaf first, nothing in use, least recently used | the default eviction of SGLang and vLLM |
//! | the tree's representation, its bound in bytes, joining what no longer branches | ours |
//! | a prediction of less than one block neither confirms nor refutes anything | ours |
//! | a capacity that is configured anew keeps what was learned | ours |
//! | telling peers: every fourth chained hash, halved; changes and snapshots in slices, by audience | ours |

mod audience;
mod capacity;
mod catalogue;
mod digest;
mod mirror;
mod node;
mod prefix_index;
mod recency;
mod table;
mod tree;

pub use audience::Audience;
pub use capacity::{Correction, UNKNOWN_KV_TOKENS, capacity_blocks};
pub use catalogue::{Catalogue, Teller};
pub use digest::{Digest, DigestPart, SAMPLE_EVERY};
pub use mirror::CacheStats;
pub use prefix_index::{IndexStats, PrefixIndex};
pub use tree::PrefixTree;
