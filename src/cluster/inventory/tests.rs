use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::tempdir;

use super::{ClusterInventory, FinishedStep, InventoryError, Owner};
use crate::cloud::InstanceId;
use crate::cluster::apply::StepJournal as _;
use crate::cluster::balance::BalanceJournal as _;
use crate::cluster::desired::{Balance, Container, EngineChoice};
use crate::cluster::launch::{LaunchEntry, LaunchJournal as _, LaunchState, RunTag};
use crate::cluster::layout::Ports;
use crate::model::Region;

fn me() -> Owner {
    Owner::this_process("gorgo cluster setup", 1_700_000_000)
}

fn open(folder: &Path) -> Result<ClusterInventory, InventoryError> {
    ClusterInventory::open(folder, "lab", "lambda", &me())
}

fn asked(node: &str, state: LaunchState) -> LaunchEntry {
    LaunchEntry {
        node: node.into(),
        run: RunTag::from_bits(7),
        instance_type: "gpu_1x_a100".into(),
        region: Region::new("us-east-1"),
        host_key: None,
        price_cents_per_hour: Some(199),
        state,
        also: vec![],
    }
}

fn launched(id: &str) -> LaunchState {
    LaunchState::Launched { id: InstanceId(id.into()) }
}

#[test]
fn what_was_saved_is_there_after_a_crash_with_all_of_a_node() {
    let folder = tempdir().unwrap();
    let mut inventory = open(folder.path()).unwrap();
    inventory.save(&asked("east", LaunchState::Asked)).unwrap();
    inventory.save(&asked("east", launched("i-1"))).unwrap();
    inventory.finished("east", FinishedStep { step: "folders".into(), at: 5 }).unwrap();
    let engine = EngineChoice::Sglang(Container { model: "m".into(), image: None, arguments: vec![], kv_events: true });
    inventory
        .change("east", |node| {
            node.address = Some("129.146.1.2".into());
            node.host_key_alias = Some("i-1".into());
            node.ports = Some(Ports::default());
            node.engine = Some(engine.clone());
        })
        .unwrap();
    // as a crash leaves it: nothing is closed, half of a next version lies beside it
    fs::write(folder.path().join("inventory.json.new"), "{\"schema\": \"gor").unwrap();
    let mode = fs::metadata(folder.path().join("inventory.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(inventory);
    let mut again = open(folder.path()).unwrap();
    assert_eq!((again.cluster(), again.provider()), ("lab", "lambda"));
    assert_eq!(again.entry("east"), Some(asked("east", launched("i-1"))));
    let node = again.node("east").unwrap();
    assert_eq!(node.id(), Some(&InstanceId("i-1".into())));
    assert_eq!((node.steps.len(), node.engine.clone()), (1, Some(engine)));
    again.change("west", |_| {}).unwrap();
    again.remove("east").unwrap();
    assert_eq!(again.nodes().iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["west"]);
}

#[test]
fn a_new_machine_inherits_nothing() {
    let folder = tempdir().unwrap();
    let mut inventory = open(folder.path()).unwrap();
    inventory.save(&asked("east", launched("i-1"))).unwrap();
    inventory.change("east", |node| node.address = Some("1.2.3.4".into())).unwrap();
    inventory.finished("east", FinishedStep { step: "folders".into(), at: 5 }).unwrap();
    inventory.save(&LaunchEntry { run: RunTag::from_bits(8), ..asked("east", LaunchState::Asked) }).unwrap();
    let node = inventory.node("east").unwrap();
    assert_eq!((node.address.as_deref(), node.steps.len(), node.id()), (None, 0, None));
}

#[test]
fn the_journal_of_steps_is_bounded() {
    let folder = tempdir().unwrap();
    let mut inventory = open(folder.path()).unwrap();
    inventory.change("a", |node| node.steps = vec![FinishedStep { step: "s".into(), at: 0 }; 200]).unwrap();
    inventory.finished("a", FinishedStep { step: "last".into(), at: 1 }).unwrap();
    let steps = &inventory.node("a").unwrap().steps;
    assert_eq!((steps.len(), steps.last().unwrap().step.as_str()), (200, "last"));
}

#[test]
fn nonsense_is_named_by_place_and_left_alone() {
    let head = r#""schema":"gorgo.cluster/1","cluster":"lab","provider":"lambda""#;
    let cases: [(String, &[&str]); 9] = [
        ("{".into(), &["not JSON: EOF while parsing an object at line 1 column 1"]),
        ("[]".into(), &["found a list, wanted an object"]),
        (
            r#"{"schema":"gorgo.cluster/2"}"#.into(),
            &["schema: found \"gorgo.cluster/2\", wanted \"gorgo.cluster/1\": another version of gorgo wrote it"],
        ),
        (
            r#"{"cluster":1,"provider":"aws","node":[]}"#.into(),
            &[
                "node: no such key",
                "schema: found nothing, wanted a text",
                "cluster: found 1, wanted a text",
                "provider: found \"aws\", wanted one of lambda, hosts, local",
                "nodes: found nothing, wanted a list",
            ],
        ),
        (
            format!(r#"{{{head},"nodes":[{{"region":5,"addres":"x","price_cents_per_hour":-1}}, 3]}}"#),
            &[
                "nodes[0].name: found nothing, wanted a text",
                "nodes[0].addres: no such key",
                "nodes[0].price_cents_per_hour: invalid value: integer `-1`, expected u32",
                "nodes[0].region: invalid type: integer `5`, expected a string",
                "nodes[1]: found 3, wanted an object",
            ],
        ),
        (
            format!(r#"{{{head},"nodes":[{{"name":"a","launch":{{"state":"flying"}},"run":"x"}}]}}"#),
            &["nodes[0].launch: unknown variant `flying`, expected one of `asked`, `launched`, `refused`"],
        ),
        (
            format!(r#"{{{head},"nodes":[{{"name":"a"}},{{"name":"a"}},{{"name":"../x"}}]}}"#),
            &[
                "nodes[1].name: `a` stands there twice",
                "nodes[2].name: \"../x\" is no name: letters, digits, `-`, `_` and `.`, at most 64",
            ],
        ),
        (
            format!(r#"{{{head},"nodes":[{{"name":"a","launch":{{"state":"asked"}}}}]}}"#),
            &["nodes[0].launch: `launch` and `run` stand there together or not at all"],
        ),
        (
            format!(
                r#"{{{head},"nodes":[{{"name":"a","run":"1","launch":{{"state":"launched","id":"i"}}}},{{"name":"b","run":"1","launch":{{"state":"launched","id":"i"}}}}]}}"#
            ),
            &["nodes[1].launch.id: machine i belongs to two nodes"],
        ),
    ];
    for (text, expected) in cases {
        let folder = tempdir().unwrap();
        let path = folder.path().join("inventory.json");
        fs::write(&path, &text).unwrap();
        let error = open(folder.path()).unwrap_err();
        let InventoryError::Broken { problems, .. } = &error else { panic!("{error}") };
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
        assert!(error.to_string().contains("nothing was changed") && error.to_string().contains("hint: "), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_change_that_would_break_it_is_refused() {
    let folder = tempdir().unwrap();
    let mut inventory = open(folder.path()).unwrap();
    inventory.change("a", |_| {}).unwrap();
    let error = inventory.change("b", |node| node.name = "a".into()).unwrap_err();
    assert_eq!(error.to_string(), "the inventory would be broken: nodes[1].name: `a` stands there twice");
    assert_eq!(inventory.nodes().len(), 1);
    let mut seen = ClusterInventory::look(folder.path()).unwrap().unwrap();
    assert!(seen.change("c", |_| {}).unwrap_err().to_string().contains("for reading only"));
    assert!(ClusterInventory::look(&folder.path().join("none")).unwrap().is_none());
}

#[test]
fn a_second_gorgo_is_told_who_has_the_cluster() {
    let folder = tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    let path = folder.path().to_owned();
    let error = thread::spawn(move || open(&path).unwrap_err()).join().unwrap();
    let InventoryError::Busy(busy) = &error else { panic!("{error}") };
    assert_eq!(busy.owner.as_ref(), Some(&me()));
    let text = error.to_string();
    let named =
        ["`gorgo cluster setup`", &format!("process {}", me().pid), &me().host, "Tue, 14 Nov 2023 22:13:20 GMT"];
    assert!(named.iter().all(|word| text.contains(word)) && !text.contains('\n'), "{text}");
    assert!(ClusterInventory::look(folder.path()).unwrap().is_none(), "looking needs no lock");
    drop(first);
    open(folder.path()).unwrap();
}

#[test]
fn a_lock_of_the_dead_is_no_lock() {
    let folder = tempdir().unwrap();
    let leave = |owner: &Owner| fs::write(folder.path().join("lock"), serde_json::to_vec(owner).unwrap()).unwrap();
    let gone = Owner { pid: u32::MAX - 1, ..me() };
    leave(&gone);
    drop(open(folder.path()).unwrap());
    // the pid lives, but it is another process: this one began at another time
    leave(&Owner { started: Some(1), ..me() });
    drop(open(folder.path()).unwrap());
    fs::write(folder.path().join("lock"), "half a li").unwrap();
    drop(open(folder.path()).unwrap());
    // where the file system does not lock, the content alone has to do
    let hint = || match open(folder.path()) {
        Err(InventoryError::Busy(busy)) => busy.to_string().contains("empty the lock file"),
        other => panic!("{other:?}"),
    };
    leave(&me());
    assert!(!hint(), "it lives");
    leave(&Owner { host: "elsewhere".into(), ..gone });
    assert!(hint(), "the note of a machine that has another name now blocks for good, and nobody can tell but people");
    // As the hint says.
    fs::write(folder.path().join("lock"), "").unwrap();
    drop(open(folder.path()).unwrap());
}

/// Not a test by itself: the process that the next one kills.
#[test]
fn writer() {
    let Some(folder) = std::env::var_os("GORGO_TEST_WRITER") else { return };
    let mut inventory = open(Path::new(&folder)).unwrap();
    for number in 0..u64::MAX {
        let name = format!("node{}", number % 20);
        inventory.finished(&name, FinishedStep { step: "x".repeat((number % 900) as usize), at: number }).unwrap();
    }
}

#[test]
fn a_process_killed_while_it_writes_leaves_a_whole_file_and_no_lock() {
    let folder = tempdir().unwrap();
    let mut seen = 0;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cluster::inventory::tests::writer", "--test-threads=1"])
            .env("GORGO_TEST_WRITER", folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let steps = || {
            let inventory = ClusterInventory::look(folder.path()).unwrap();
            inventory.map_or(0, |it| it.nodes().iter().map(|node| node.steps.len()).sum::<usize>())
        };
        let before = steps();
        // 30 s is a bound for a machine that is busy with other things
        let wrote = (0..3000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            steps() > before + 5 + round
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(wrote, "the writer writes");
        let inventory = open(folder.path()).unwrap();
        let now: usize = inventory.nodes().iter().map(|node| node.steps.len()).sum();
        assert!(now >= seen, "nothing that was saved is lost");
        seen = now;
    }
}

fn balance(strategy: &str) -> Balance {
    Balance { strategy: strategy.into(), max_concurrent: Some(3), weights: [("q".to_owned(), 0.5)].into() }
}

#[test]
fn how_agents_were_told_to_balance_is_kept_by_name_and_for_all() {
    let folder = tempdir().unwrap();
    let (configured, own, common) = (balance("gorgo"), balance("random"), balance("least-load"));
    let mut inventory = open(folder.path()).unwrap();
    inventory.note_balance("east", &own, &configured).unwrap();
    inventory.note_balance("west", &configured, &configured).unwrap();
    let told = |inventory: &ClusterInventory, node: &str| inventory.balance(node).cloned();
    assert_eq!((told(&inventory, "east"), told(&inventory, "west")), (Some(own.clone()), None));
    inventory.balance_all(Some(common.clone())).unwrap();
    assert_eq!((told(&inventory, "east"), told(&inventory, "new")), (Some(common.clone()), Some(common)));
    inventory.note_balance("east", &configured, &configured).unwrap();
    inventory.allow_public_plaintext().unwrap();
    drop(inventory);
    let again = ClusterInventory::look(folder.path()).unwrap().expect("it was written");
    assert_eq!(told(&again, "east"), Some(configured), "what is configured, though all others were told otherwise");
    assert!(again.allows_public_plaintext());
    let mut inventory = open(folder.path()).unwrap();
    inventory.balance_all(None).unwrap();
    assert_eq!(told(&inventory, "east"), None);
}

#[test]
fn what_is_kept_of_balancing_is_checked_like_all_else() {
    let folder = tempdir().unwrap();
    let text = r#"{"schema":"gorgo.cluster/1","cluster":"lab","provider":"local","balance":{"strategy":1},
        "allow_public_plaintext":"yes","nodes":[{"name":"a","balance":{"strategy":"random","limit":3}}]}"#;
    fs::write(folder.path().join("inventory.json"), text).unwrap();
    let Err(InventoryError::Broken { problems, .. }) = ClusterInventory::look(folder.path()) else {
        panic!("it is broken")
    };
    let places: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(places, ["balance", "allow_public_plaintext", "nodes[0].balance"]);
}
