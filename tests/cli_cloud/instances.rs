//! What there is.

use insta::assert_snapshot;
use serde_json::Value;

use super::User;

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
    for line in ["available --json", "list --json", "ssh-keys list --json", "firewall list --json"] {
        let ran = user.gorgo(line);
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.err);
        serde_json::from_str::<Value>(&ran.out).expect(line);
    }
}
