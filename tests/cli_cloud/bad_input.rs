//! Each thing that can be wrong is told in one paragraph with a hint, and nothing is done.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use insta::assert_snapshot;
use serde_json::json;

use super::{User, ran};

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
