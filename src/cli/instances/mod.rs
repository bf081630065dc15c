//! Commands that show, get and end machines.

pub(crate) mod available;
pub(crate) mod launch;
pub(crate) mod list;
pub(crate) mod owner;
pub(crate) mod run;
pub(crate) mod ssh;
pub(crate) mod status;
pub(crate) mod terminate;

use super::human;
use super::table::{Column, Table};
use crate::cloud::{Instance, Status};
use owner::Owner;

/// A state in one word.
pub(crate) fn state(status: &Status) -> String {
    match status {
        Status::Booting => "booting",
        Status::Active => "active",
        Status::Unhealthy => "unhealthy",
        Status::Terminating => "terminating",
        Status::Terminated => "terminated",
        Status::Preempted => "preempted",
        Status::Other(word) => word,
    }
    .to_owned()
}

/// What these machines cost together, US cents per hour.
pub(crate) fn cents_per_hour<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> u64 {
    instances.into_iter().filter(|it| costs(it)).map(|it| u64::from(it.price_cents_per_hour.unwrap_or(0))).sum()
}

/// Gone machines cost nothing.
fn costs(instance: &Instance) -> bool {
    !matches!(instance.status, Status::Terminated | Status::Preempted)
}

/// One machine per line, with whose it is.
fn table(all: &[(Instance, Owner)]) -> Table {
    let mut table = Table::new(&[
        Column::Text("name"),
        Column::Text("node"),
        Column::Text("id"),
        Column::Text("status"),
        Column::Text("address"),
        Column::Text("region"),
        Column::Text("type"),
        Column::Number("price"),
    ]);
    for (instance, owner) in all {
        table.row([
            human::or_unknown(instance.name.clone(), |name| name),
            owner.to_string(),
            instance.id.to_string(),
            state(&instance.status),
            human::or_unknown(instance.address, |address| address.to_string()),
            instance.region.to_string(),
            if instance.instance_type.is_empty() { human::UNKNOWN.to_owned() } else { instance.instance_type.clone() },
            human::or_unknown(instance.price_cents_per_hour, |cents| human::price(cents.into())),
        ]);
    }
    table
}
