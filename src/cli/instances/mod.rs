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
use crate::cli::nodes::is_gone;
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

/// Machines that are gone or going cost nothing.
fn costs(instance: &Instance) -> bool {
    !is_gone(&instance.status)
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
            human::or_unknown(instance.price_cents_per_hour.filter(|_| costs(instance)), |cents| {
                human::price(cents.into())
            }),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Owner, cents_per_hour, table};
    use crate::cloud::{Instance, InstanceId, Status};
    use crate::model::Region;

    #[test]
    fn a_machine_that_is_going_costs_nothing_and_is_nobody_else_s() {
        let machine = |id: &str, status| Instance {
            id: InstanceId(id.into()),
            name: Some("east".into()),
            status,
            address: None,
            private_address: None,
            region: Region::new("us-east-1"),
            instance_type: "a10".into(),
            price_cents_per_hour: Some(129),
            tags: [].into(),
        };
        let was = Owner::Gone { cluster: Some("lab".into()), node: "east".into() };
        let all = [
            (machine("1", Status::Terminating), was.clone()),
            (machine("2", Status::Terminated), was),
            (machine("3", Status::Active), Owner::Node { node: "east".into() }),
            (machine("4", Status::Other("resting".into())), Owner::Nobody),
        ];
        assert_eq!(cents_per_hour(all.iter().map(|(machine, _)| machine)), 2 * 129, "an unknown state may cost");
        assert_snapshot!(table(&all).to_string(), @"
        NAME  NODE             ID  STATUS       ADDRESS  REGION     TYPE    PRICE
        east  was east of lab  1   terminating  -        us-east-1  a10         -
        east  was east of lab  2   terminated   -        us-east-1  a10         -
        east  east             3   active       -        us-east-1  a10   $1.29/h
        east  nobody here      4   resting      -        us-east-1  a10   $1.29/h
        ");
    }
}
