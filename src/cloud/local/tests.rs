use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::{LocalCloud, PORT_TAGS};
use crate::cloud::{Cloud, CloudErrorKind, InstanceId, InstanceType, Inventory, LaunchRequest, Status};
use crate::model::Region;

fn cloud(folder: &Path) -> LocalCloud {
    let a100 = InstanceType {
        name: "a100-80".into(),
        description: "1x A100".into(),
        gpu: "A100".into(),
        gpus: 1,
        vram_gib: Some(80),
        vcpus: 30,
        memory_gib: 200,
        storage_gib: 512,
        price_cents_per_hour: 179,
        capacity: Vec::new(),
    };
    let regions = ["us-west-1", "us-east-1", "us-west-1"].map(Region::new).to_vec();
    // `true` stands in for a supervisor that stops at once; tests/remote has the real one.
    LocalCloud::new(folder.to_owned(), vec![a100], regions, "true".into())
}

fn request(name: &str) -> LaunchRequest {
    LaunchRequest {
        name: name.into(),
        instance_type: "a100-80".into(),
        region: Region::new("us-east-1"),
        ssh_key: None,
        user_data: None,
        tags: BTreeMap::from([("gorgo-run".into(), "r1".into())]),
        firewall_rulesets: Vec::new(),
        file_systems: Vec::new(),
        image_family: None,
    }
}

#[tokio::test]
async fn machines_come_and_go() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let cloud = cloud(folder.path());
    assert_eq!(cloud.list().await.expect("lists"), []);
    let (east, west) = (
        cloud.launch(&request("east"), &CancellationToken::new()).await.expect("a"),
        cloud.launch(&request("west"), &CancellationToken::new()).await.expect("b"),
    );
    assert_eq!((east.0.as_str(), west.0.as_str()), ("local-1-east", "local-2-west"));
    let listed = cloud.list().await.expect("lists");
    assert!(listed.iter().all(|machine| machine.status == Status::Active && machine.tags["gorgo-run"] == "r1"));
    assert_eq!(listed[0].price_cents_per_hour, Some(179));
    let ports: BTreeSet<&str> =
        listed.iter().flat_map(|machine| PORT_TAGS.iter().map(|tag| machine.tags[*tag].as_str())).collect();
    assert_eq!(ports.len(), 2 * PORT_TAGS.len(), "every port is there and they differ");

    fs::write(cloud.node_folder("east").join("file"), "x").expect("writes");
    cloud.terminate(std::slice::from_ref(&east)).await.expect("ends");
    cloud.terminate(&[east, InstanceId("local-99-no".into())]).await.expect("already gone is success");
    assert!(!cloud.node_folder("east").exists());
    assert_eq!(cloud.list().await.expect("lists").len(), 1);
    let again = cloud.launch(&request("east"), &CancellationToken::new()).await.expect("the name is free again");
    assert_eq!(again.0, "local-3-east", "numbers are never used again");
}

#[tokio::test]
async fn bad_requests_change_nothing_and_say_what_is_known() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let cloud = cloud(folder.path());
    cloud.launch(&request("east"), &CancellationToken::new()).await.expect("launches");
    let cases = [
        (request("east"), "exists", "another name"),
        (request("../x"), "name", "letters"),
        (request(".gone-x"), "name", "letters"),
        (request(""), "name", "letters"),
        (LaunchRequest { instance_type: "b900".into(), ..request("b") }, "unknown type", "a100-80"),
        (LaunchRequest { region: Region::new("mars"), ..request("b") }, "unknown region", "us-east-1, us-west-1"),
    ];
    for (request, message, hint) in cases {
        let error = cloud.launch(&request, &CancellationToken::new()).await.expect_err(message);
        assert_eq!(error.kind, CloudErrorKind::Invalid);
        assert!(error.message.contains(message) && error.hint.as_deref().unwrap_or("").contains(hint), "{error:?}");
    }
    let error = cloud.restart(&[InstanceId("nobody".into())]).await.expect_err("unknown");
    assert_eq!(error.kind, CloudErrorKind::NotFound);
    assert_eq!(cloud.list().await.expect("lists").len(), 1);
}

#[tokio::test]
async fn what_happened_behind_its_back_is_told() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let cloud = cloud(folder.path());
    let id = cloud.launch(&request("east"), &CancellationToken::new()).await.expect("launches");
    fs::remove_dir_all(cloud.node_folder("east")).expect("removes");
    assert_eq!(cloud.list().await.expect("lists")[0].status, Status::Unhealthy);
    cloud.terminate(&[id]).await.expect("a machine without folder can be ended");
    assert_eq!(cloud.list().await.expect("lists"), []);
    for nonsense in ["{", "{\"schema\":\"gorgo.local/9\",\"next\":1,\"machines\":[]}"] {
        fs::write(folder.path().join("instances.json"), nonsense).expect("writes");
        let error = cloud.launch(&request("west"), &CancellationToken::new()).await.expect_err("nonsense");
        assert!(error.message.contains("instances.json") && error.hint.is_some(), "{error:?}");
    }
}

#[test]
fn launches_at_the_same_time_get_different_ports_and_ids() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let names: Vec<String> = (0..8).map(|i| format!("n{i}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
                runtime
                    .block_on(cloud(folder.path()).launch(&request(name), &CancellationToken::new()))
                    .expect("launches");
            });
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let listed = runtime.block_on(cloud(folder.path()).list()).expect("lists");
    let ids: BTreeSet<_> = listed.iter().map(|machine| &machine.id).collect();
    let ports: BTreeSet<_> =
        listed.iter().flat_map(|machine| PORT_TAGS.iter().map(|tag| &machine.tags[*tag])).collect();
    assert_eq!((ids.len(), ports.len()), (8, 8 * PORT_TAGS.len()));
}
