//! From machines to a serving cluster: observe (IO) ▸ plan (pure) ▸ apply (IO). The plan's text is the dry run.

pub mod apply;
pub mod authority;
pub mod balance;
pub mod certificate;
pub mod check;
pub mod crash;
pub mod desired;
pub mod doctor;
pub mod event;
pub mod facts;
pub mod flush;
pub mod front;
pub mod http;
pub mod inventory;
pub mod launch;
pub mod layout;
pub mod observe;
pub mod operations;
pub mod plan;
pub mod script;
pub mod step;
#[cfg(test)]
mod testing;
pub mod trace;
