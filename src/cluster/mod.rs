//! From machines to a serving cluster: observe (IO) ▸ plan (pure) ▸ apply (IO). The plan's text is the dry run.

pub mod launch;
