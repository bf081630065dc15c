//! Launch, look, end.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::{User, ran};

#[test]
fn a_cluster_is_launched_looked_at_and_ended() {
    let user = User::new();
    let launch = "launch east west --type gpu_1x_a100 --region us-east-1 us-west-1";
    assert_snapshot!(user.gorgo(&format!("{launch} --dry-run")).shown(&user), @"
    launch east: gpu_1x_a100 in us-east-1 at $1.29/h
    launch west: gpu_1x_a100 in us-west-1 at $1.29/h
    together $2.58/h until they are terminated
    [0]
    ");
    assert_eq!(user.account.count("POST /instance-operations/launch"), 0);
    assert_snapshot!(user.gorgo(&format!("{launch} --yes")).shown(&user), @"
    running at $2.58/h: east 00000000000000000000000000000001, west 00000000000000000000000000000002
    launch east: gpu_1x_a100 in us-east-1 at $1.29/h
    launch west: gpu_1x_a100 in us-west-1 at $1.29/h
    together $2.58/h until they are terminated
    east: asking for gpu_1x_a100 in us-east-1 at $1.29/h
    east: the provider gave 00000000000000000000000000000001
    east: launched as 00000000000000000000000000000001
    west: asking for gpu_1x_a100 in us-west-1 at $1.29/h
    west: the provider gave 00000000000000000000000000000002
    west: launched as 00000000000000000000000000000002
    [0]
    ");
    assert_snapshot!(user.gorgo("status").shown(&user), @"
    NODE  MACHINE                           STATE    ADDRESS       REGION     TYPE           PRICE
    east  00000000000000000000000000000001  booting  198.51.100.1  us-east-1  gpu_1x_a100  $1.29/h
    west  00000000000000000000000000000002  booting  198.51.100.2  us-west-1  gpu_1x_a100  $1.29/h
    2 nodes, $2.58/h
    [0]
    ");
    assert_snapshot!(user.gorgo(&format!("{launch} --yes")).shown(&user), @"
    east has a machine already
    west has a machine already
    nothing to launch
    [0]
    ");
    assert_eq!(user.account.count("POST /instance-operations/launch"), 2, "nothing is launched twice");
    assert_snapshot!(user.gorgo("terminate east").shown(&user), @"
    error: this wants a yes, and there is no terminal to ask at; it would be:
    terminate east: 00000000000000000000000000000001 (gpu_1x_a100 in us-east-1 at $1.29/h)

    hint: `--yes` does it without asking, `--dry-run` only shows it
    [2]
    ");
    assert_snapshot!(user.gorgo("terminate east --yes").shown(&user), @"
    terminate east: 00000000000000000000000000000001 (gpu_1x_a100 in us-east-1 at $1.29/h)
    terminated east; the account's other machines cost $1.29/h
    [0]
    ");
    assert_snapshot!(user.gorgo("list").shown(&user), @"
    NAME  NODE  ID                                STATUS   ADDRESS       REGION     TYPE           PRICE
    west  west  00000000000000000000000000000002  booting  198.51.100.2  us-west-1  gpu_1x_a100  $1.29/h
    1 machine, $1.29/h
    [0]
    ");
}

/// A service that takes the call and goes on charging: the node is not forgotten.
#[test]
fn a_machine_counts_as_terminated_when_it_is_gone() {
    let user = User::new();
    assert_eq!(user.gorgo("launch east --type gpu_1x_a100 --region us-east-1 --yes").code, Some(0));
    user.account.state.lock().unwrap().stubborn = true;
    assert_snapshot!(user.gorgo("terminate east --yes").shown(&user), @"
    terminate east: 00000000000000000000000000000001 (gpu_1x_a100 in us-east-1 at $1.29/h)
    error: the provider took the call, but goes on listing 00000000000000000000000000000001 as there, and costing money

    hint: terminate again, and look at the provider's console if that does not help
    [1]
    ");
    assert!(user.gorgo("status").out.contains("east"), "the inventory still names it");
    user.account.state.lock().unwrap().stubborn = false;
    assert_eq!(user.gorgo("terminate east --yes").code, Some(0));
}

#[test]
fn machines_of_others_are_named_by_id_only() {
    let user = User::new();
    assert_eq!(user.gorgo("launch east --type gpu_1x_a100 --region us-east-1 --yes").code, Some(0));
    let state = user.account.state.clone();
    let mut other = state.lock().unwrap().instances[0].clone();
    other["id"] = json!("f".repeat(32));
    other["name"] = json!("other");
    other["tags"] = json!([]);
    state.lock().unwrap().instances.push(other);
    assert_snapshot!(user.gorgo("terminate other --yes").shown(&user), @"
    error: cluster `gorgo` has no node `other`

    hint: it has: east
    [4]
    ");
    let id = "f".repeat(32);
    assert_snapshot!(user.gorgo(&format!("terminate {id} --dry-run")).shown(&user), @"
    terminate a machine called other that is not of this cluster: ffffffffffffffffffffffffffffffff (gpu_1x_a100 in us-east-1 at $1.29/h)
    [0]
    ");
    assert_eq!(user.gorgo(&format!("terminate {id} --yes")).code, Some(0));
    let left: Vec<Value> = state.lock().unwrap().instances.clone();
    assert_eq!((left.len(), &left[0]["name"]), (1, &json!("east")));
}

#[test]
fn without_capacity_another_region_is_tried_only_when_allowed() {
    let user = User::new();
    user.account.state.lock().unwrap().full = vec!["us-east-1".to_owned()];
    let launch = "launch east --type gpu_1x_a100 --region us-east-1 --yes";
    assert_snapshot!(user.gorgo(launch).shown(&user), @"
    not launched: east (no capacity)
    launch east: gpu_1x_a100 in us-east-1 at $1.29/h
    together $1.29/h until they are terminated
    east: asking for gpu_1x_a100 in us-east-1 at $1.29/h
    east: no capacity for gpu_1x_a100 in us-east-1
    error: `east` was not launched
      caused by: Lambda refused POST /instance-operations/launch: Not enough capacity (`instance-operations/launch/insufficient-capacity`)

    hint: see `gorgo available` for regions that have this type now, or let `--any-region` try them
    [4]
    ");
    assert_snapshot!(user.gorgo(&format!("{launch} --any-region")).shown(&user), @"
    running at $1.29/h: east 00000000000000000000000000000001
    launch east: gpu_1x_a100 in us-east-1 at $1.29/h, else in us-west-1
    together $1.29/h until they are terminated
    east: asking for gpu_1x_a100 in us-east-1 at $1.29/h
    east: no capacity for gpu_1x_a100 in us-east-1
    east: asking for gpu_1x_a100 in us-west-1 at $1.29/h
    east: the provider gave 00000000000000000000000000000001
    east: launched as 00000000000000000000000000000001
    [0]
    ");
}

#[test]
fn a_launch_that_is_killed_at_any_step_boundary_launches_nothing_twice() {
    for boundary in 1..=4 {
        let user = User::new();
        let launch = "launch east west --type gpu_1x_a100 --region us-east-1 --yes";
        let mut first = user.command(launch);
        first.env("GORGO_CRASH_AT", boundary.to_string());
        assert_eq!(ran(first).code, None, "it dies by a signal at boundary {boundary}");
        let second = user.gorgo(launch);
        assert_eq!(second.code, Some(0), "boundary {boundary}: {}", second.err);
        assert_eq!(user.account.state.lock().unwrap().instances.len(), 2, "boundary {boundary}");
        assert_eq!(user.account.count("POST /instance-operations/launch"), 2, "boundary {boundary}");
    }
}

#[test]
fn what_is_available_is_a_table_or_json() {
    let user = User::new();
    assert_snapshot!(user.gorgo("available").shown(&user), @"
    TYPE           PRICE  GPUS  GPU                VRAM/GPU  VCPUS   MEMORY     DISK  REGIONS WITH CAPACITY
    gpu_1x_a100  $1.29/h     1  A100 (40 GB SXM4)    40 GiB     30  200 GiB  512 GiB  us-east-1, us-west-1
    [0]
    ");
    assert_snapshot!(user.gorgo("available --region europe-central-1").shown(&user), @"
    no capacity for that now; `--all` shows types without, `--watch` waits for some
    [4]
    ");
    for line in ["available --json", "list --json", "status --json", "ssh-keys list --json", "firewall list --json"] {
        let ran = user.gorgo(line);
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.err);
        serde_json::from_str::<Value>(&ran.out).expect(line);
    }
}

#[test]
fn the_firewall_is_synced_before_a_launch_and_attached_by_it() {
    let user = User::new();
    std::fs::write(
        user.path().join("gorgo.toml"),
        "[cluster]\nname = \"lab\"\n[[node]]\nname = \"east\"\ntype = \"gpu_1x_a100\"\nregion = \"us-east-1\"\n",
    )
    .unwrap();
    assert_snapshot!(user.gorgo("firewall sync --yes --ssh-from 198.51.100.7").shown(&user), @"
    make the ruleset gorgo-lab-us-east-1, for machines launched from now on:
    + tcp:22:198.51.100.7/32:gorgo: ssh
    made gorgo-lab-us-east-1
    [0]
    ");
    assert_snapshot!(user.gorgo("firewall sync --yes --ssh-from 198.51.100.7").shown(&user), @"
    every ruleset is as the cluster needs it
    [0]
    ");
    assert_snapshot!(user.gorgo("launch --dry-run").shown(&user), @"
    launch east: gpu_1x_a100 in us-east-1 at $1.29/h, firewall ruleset r1
    together $1.29/h until they are terminated
    [0]
    ");
}
