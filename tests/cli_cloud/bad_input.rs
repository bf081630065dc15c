//! Each thing that can be wrong is told in one paragraph with a hint, and nothing is done.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use insta::assert_snapshot;
use serde_json::json;

use super::{User, ran};

const LAUNCH: &str = "launch east --type gpu_1x_a100 --region us-east-1 --yes";

#[test]
fn keys_that_are_missing_wrong_or_open_to_others() {
    let user = User::new();
    let mut missing = user.command("list");
    missing.env_remove("LAMBDA_API_KEY");
    assert_snapshot!(ran(missing).shown(&user), @"
    error: no API key for Lambda

    hint: make a key in the Lambda console, then `export LAMBDA_API_KEY=…`, or name a file that holds it in `LAMBDA_API_KEY_FILE`
    [2]
    ");
    let mut rejected = user.command("list");
    rejected.env("LAMBDA_API_KEY", "another");
    assert_snapshot!(ran(rejected).shown(&user), @"
    error: Lambda refused GET /instances: API key was invalid, expired, or deleted (`global/invalid-api-key`)

    hint: check `LAMBDA_API_KEY` (or the key file): the key may be mistyped or deleted; the Lambda console makes new ones
    [2]
    ");
    let path = user.path().join("key");
    fs::write(&path, super::KEY).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let mut open = user.command("list");
    open.env_remove("LAMBDA_API_KEY").env("LAMBDA_API_KEY_FILE", &path);
    assert_snapshot!(ran(open).shown(&user), @"
    error: the API key file `HOME/key` has mode 0644, so others can read or change it

    hint: run `chmod 600 HOME/key`
    [2]
    ");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let mut private = user.command("list");
    private.env_remove("LAMBDA_API_KEY").env("LAMBDA_API_KEY_FILE", &path);
    assert_eq!(ran(private).code, Some(0));
}

#[test]
fn regions_types_and_names_that_cannot_be() {
    let user = User::new();
    assert_snapshot!(user.gorgo("launch east --type gpu_1x_a100 --region us-eats-1 --yes").shown(&user), @"
    error: unknown region `us-eats-1`; did you mean `us-east-1`?

    hint: known regions: asia-northeast-1, asia-northeast-2, asia-south-1, australia-east-1, europe-central-1, me-west-1, us-east-1, us-east-2, us-east-3, us-midwest-1, us-midwest-2, us-south-1, us-south-2, us-south-3, us-southeast-1, us-west-1, us-west-2, us-west-3
    [2]
    ");
    assert_snapshot!(user.gorgo("launch east --type gpu_1x_a10 --region us-east-1 --yes").shown(&user), @"
    error: unknown type `gpu_1x_a10`; did you mean `gpu_1x_a100`?

    hint: known types: gpu_1x_a100
    [2]
    ");
    assert_snapshot!(user.gorgo("launch a b c --type gpu_1x_a100 --region us-east-1 us-west-1").shown(&user), @"
    error: 3 names and 2 regions

    hint: wanted one region for each name, in the same order, or one for all
    [2]
    ");
    assert_snapshot!(user.gorgo("launch").shown(&user), @"
    error: no node is named

    hint: name some, e.g. `gorgo launch east --type gpu_1x_a10 --region us-east-1`, or add a [[node]] for each to gorgo.toml
    [2]
    ");
    user.account.state.lock().unwrap().instances.push(json!({
        "id": "1", "name": "east", "status": "active", "region": { "name": "us-west-1" },
        "instance_type": { "name": "gpu_1x_a10", "description": "", "gpu_description": "", "price_cents_per_hour": 75,
            "specs": { "vcpus": 1, "memory_gib": 1, "storage_gib": 1, "gpus": 1 } }
    }));
    assert_snapshot!(user.gorgo(LAUNCH).shown(&user), @"
    error: the name `east` is taken by the machine 1 in us-west-1, which is not of this cluster

    hint: choose another name; `gorgo list` shows every machine of the account
    [2]
    ");
    assert_snapshot!(user.gorgo("available --gpu mi300").shown(&user), @"
    error: no type has a GPU called `mi300`

    hint: known GPUs: A100 (40 GB SXM4)
    [2]
    ");
    assert_snapshot!(user.gorgo("terminate west --yes").shown(&user), @"
    error: cluster `gorgo` has no node `west`

    hint: it has none yet: `gorgo launch` gets some
    [4]
    ");
    assert_eq!(user.account.count("POST /instance-operations/launch"), 0);
}

#[test]
fn what_costs_money_is_not_done_unasked() {
    let user = User::new();
    assert_snapshot!(user.gorgo(LAUNCH.trim_end_matches(" --yes")).shown(&user), @"
    error: this wants a yes, and there is no terminal to ask at; it would be:
    launch east: gpu_1x_a100 in us-east-1 at $1.29/h
    together $1.29/h until they are terminated

    hint: `--yes` does it without asking, `--dry-run` only shows it
    [2]
    ");
    assert_eq!(user.account.count("POST /instance-operations/launch"), 0);
}

#[test]
fn an_inventory_that_is_locked_or_nonsense() {
    let user = User::new();
    let folder = user.path().join("state/clusters/gorgo");
    fs::create_dir_all(&folder).unwrap();
    let note = r#"{"pid":4711,"started":null,"host":"elsewhere","command":"gorgo cluster setup","since":1795165200}"#;
    fs::write(folder.join("lock"), note).unwrap();
    let lock = File::open(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    assert_snapshot!(user.gorgo(LAUNCH).shown(&user), @"
    error: another gorgo works on this cluster: `gorgo cluster setup`, process 4711 on elsewhere, since Fri, 20 Nov 2026 09:00:00 GMT (lock HOME/state/clusters/gorgo/lock); wait for it, or end it, and run the command again: what it has finished is kept
    [1]
    ");
    drop(lock);
    fs::remove_file(folder.join("lock")).unwrap();
    fs::write(
        folder.join("inventory.json"),
        r#"{"schema":"gorgo.cluster/1","cluster":"gorgo","provider":"lambda","nodes":[{"name":"../x"}]}"#,
    )
    .unwrap();
    assert_snapshot!(user.gorgo(LAUNCH).shown(&user), @r#"
    error: the inventory HOME/state/clusters/gorgo/inventory.json cannot be understood; nothing was changed
      nodes[0].name: "../x" is no name: letters, digits, `-`, `_` and `.`, at most 64
      hint: correct these places, or put back a copy; if all is lost, find the machines by their tag with `gorgo list`
    [2]
    "#);
    assert_snapshot!(user.gorgo("status").shown(&user), @r#"
    error: the inventory HOME/state/clusters/gorgo/inventory.json cannot be understood; nothing was changed
      nodes[0].name: "../x" is no name: letters, digits, `-`, `_` and `.`, at most 64
      hint: correct these places, or put back a copy; if all is lost, find the machines by their tag with `gorgo list`
    [2]
    "#);
}

#[test]
fn hosts_cannot_be_launched() {
    let user = User::new();
    fs::write(
        user.path().join("gorgo.toml"),
        "[provider]\nkind = \"hosts\"\n[[provider.hosts]]\nname = \"node1\"\naddress = \"10.77.0.11\"\nregion = \"us-east-1\"\n",
    )
    .unwrap();
    assert_snapshot!(user.gorgo(LAUNCH).shown(&user), @"
    error: `gorgo launch` does not work with provider `hosts`

    hint: the machines of [[provider.hosts]] are yours already: edit gorgo.toml to add or leave out some, or use `--provider lambda`
    [2]
    ");
    assert_snapshot!(user.gorgo("terminate node1 --yes").shown(&user), @"
    error: `gorgo terminate` does not work with provider `hosts`

    hint: the machines of [[provider.hosts]] are yours already: edit gorgo.toml to add or leave out some, or use `--provider lambda`
    [2]
    ");
    assert_snapshot!(user.gorgo("status").shown(&user), @"
    NODE   MACHINE  STATE   ADDRESS     REGION     TYPE  PRICE
    node1  node1    active  10.77.0.11  us-east-1  -         -
    1 node, $0.00/h
    [0]
    ");
    assert_snapshot!(user.gorgo("status --provider lambda").shown(&user), @"
    cluster gorgo has no nodes; `gorgo launch` gets some
    [0]
    ");
    fs::write(user.path().join("gorgo.toml"), "[provider]\nkind = \"hosts\"\n").unwrap();
    assert_snapshot!(user.gorgo("status").shown(&user), @"
    error: gorgo.toml
      caused by: 1 problem in the configuration
      provider.hosts: has no machine, and provider `hosts` knows no others; wanted a [[provider.hosts]] for each
    [2]
    ");
}

#[test]
fn a_firewall_that_would_shut_everybody_out() {
    let user = User::new();
    user.account.state.lock().unwrap().rules =
        vec![json!({ "protocol": "tcp", "port_range": [22, 22], "source_network": "0.0.0.0/0", "description": "ssh" })];
    assert_snapshot!(user.gorgo("firewall replace --rule tcp:443:0.0.0.0/0 --yes").shown(&user), @"
    error: none of the rules lets anybody in over SSH: no machine could be reached any more

    hint: add e.g. `--rule tcp:22:0.0.0.0/0:ssh`, or `--without-ssh` if that is what you want
    [2]
    ");
    assert_snapshot!(user.gorgo("firewall replace --rule tcp:443:0.0.0.0/0 --rule tcp:22:198.51.100.7 --dry-run").shown(&user), @"
    rules of the whole account, whoever made them:
    - tcp:22:0.0.0.0/0:ssh
    + tcp:443:0.0.0.0/0
    + tcp:22:198.51.100.7/32
    [0]
    ");
    assert_snapshot!(user.gorgo("firewall replace --rule tcp:443").shown(&user), @"
    error: invalid value 'tcp:443' for '--rule <RULE>': wanted PROTOCOL:PORTS:SOURCE[:TEXT], e.g. tcp:22:0.0.0.0/0:ssh

    For more information, try '--help'.
    [2]
    ");
    assert_eq!(user.account.count("PUT /firewall-rules"), 0);
}
