//! The local provider with real supervisors behind its machines.

use std::collections::BTreeMap;

use gorgo::cloud::local::LocalCloud;
use gorgo::cloud::{Cloud, InstanceType, Inventory, LaunchRequest};
use gorgo::model::Region;
use gorgo::remote::local::LocalRemote;
use gorgo::remote::{Remote, ServiceAction};
use tokio_util::sync::CancellationToken;

use super::local::is_gone;
use super::support::{eventually, put, unit};

const GORGO: &str = env!("CARGO_BIN_EXE_gorgo");

#[tokio::test]
async fn machines_reboot_and_end_with_their_services() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let region = Region::new("us-east-1");
    let kind = InstanceType {
        name: "a10".into(),
        description: String::new(),
        gpu: "A10".into(),
        gpus: 1,
        vram_gib: Some(24),
        vcpus: 1,
        memory_gib: 1,
        storage_gib: 1,
        price_cents_per_hour: 0,
        capacity: Vec::new(),
    };
    let cloud = LocalCloud::new(folder.path().join("local"), vec![kind], vec![region.clone()], GORGO.into());
    assert_eq!(cloud.types().await.expect("types")[0].capacity, std::slice::from_ref(&region), "always capacity");
    let request = LaunchRequest {
        name: "east".into(),
        instance_type: "a10".into(),
        region,
        ssh_key: None,
        user_data: None,
        tags: BTreeMap::new(),
        firewall_rulesets: Vec::new(),
        file_systems: Vec::new(),
        image_family: None,
    };
    let id = cloud.launch(&request, &CancellationToken::new()).await.expect("launches");
    let remote = LocalRemote::new("east", &cloud.node_folder("east"), GORGO.as_ref()).expect("a plain folder");
    put(&remote, "/opt/gorgo/a.sh", b"while :; do sleep 0.1; done\n").await;
    remote.service("a", &ServiceAction::Install(unit("/opt/gorgo/a.sh"))).await.expect("installs");
    let before = remote.service("a", &ServiceAction::Start).await.expect("starts").pid.expect("runs");

    cloud.restart(std::slice::from_ref(&id)).await.expect("reboots");
    let after = eventually("the service's return", async || {
        remote.service("a", &ServiceAction::Status).await.expect("looks").pid
    })
    .await;
    assert_ne!(before, after);
    cloud.terminate(&[id]).await.expect("ends");
    assert!(is_gone(before) && is_gone(after), "its processes are gone");
    assert!(!cloud.node_folder("east").exists());
    assert_eq!(cloud.list().await.expect("lists"), []);
}
