//! Whole launches against a scripted provider: what is saved when, what is asked for how often, what the last line says.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{
    Candidate, LaunchEntry, LaunchEvent, LaunchJournal as _, LaunchOptions, LaunchOutcome, LaunchReport, LaunchState,
    Machine, MemoryJournal, RunTag, candidates, launch,
};
use crate::cloud::{
    Cloud, CloudError, CloudErrorKind, Instance, InstanceId, InstanceType, Inventory, LaunchRequest, Status,
};
use crate::model::Region;

/// What the provider does with a launch.
#[derive(Clone, Copy, Debug)]
enum Reply {
    Gives,
    /// Makes the machine and loses the answer.
    MakesAndLoses,
    /// Loses the answer and makes nothing.
    Loses,
    /// Makes a machine that lists show only after this many more lists, and loses the answer.
    MakesLate(u32),
    Refuses(CloudErrorKind),
    /// Never answers; the machine exists.
    Hangs,
    /// Waits for its turn, which does not come.
    Waits,
}

#[derive(Default)]
struct Account {
    replies: VecDeque<Reply>,
    /// Machines with the number of lists before they show.
    machines: Vec<(u32, Instance)>,
    asked: Vec<String>,
    lists: u32,
    lists_fail: bool,
}

#[derive(Default)]
struct Scripted(Mutex<Account>);

impl Scripted {
    fn new(replies: &[Reply]) -> Self {
        Self(Mutex::new(Account { replies: replies.iter().copied().collect(), ..Account::default() }))
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }
}

fn fault(kind: CloudErrorKind) -> CloudError {
    CloudError { kind, code: None, message: format!("{kind:?}").to_lowercase(), hint: None }
}

impl Account {
    fn make(&mut self, request: &LaunchRequest, hidden: u32) -> InstanceId {
        let id = InstanceId(format!("i-{}", self.machines.len() + 1));
        let machine = Instance {
            id: id.clone(),
            name: Some(request.name.clone()),
            status: Status::Booting,
            address: None,
            private_address: None,
            region: request.region.clone(),
            instance_type: request.instance_type.clone(),
            price_cents_per_hour: Some(199),
            tags: request.tags.clone(),
        };
        self.machines.push((hidden, machine));
        id
    }
}

#[async_trait]
impl Inventory for Scripted {
    async fn list(&self) -> Result<Vec<Instance>, CloudError> {
        let mut account = self.0.lock().unwrap();
        account.lists += 1;
        if account.lists_fail {
            return Err(fault(CloudErrorKind::Transient));
        }
        let seen =
            account.machines.iter().filter(|(hidden, _)| *hidden == 0).map(|(_, machine)| machine.clone()).collect();
        for (hidden, _) in &mut account.machines {
            *hidden = hidden.saturating_sub(1);
        }
        Ok(seen)
    }
}

#[async_trait]
impl Cloud for Scripted {
    async fn types(&self) -> Result<Vec<InstanceType>, CloudError> {
        Ok(Vec::new())
    }

    async fn launch(&self, request: &LaunchRequest, stop: &CancellationToken) -> Result<InstanceId, CloudError> {
        let reply = {
            let mut account = self.0.lock().unwrap();
            account.asked.push(format!("{} {} {}", request.name, request.instance_type, request.region));
            account.replies.pop_front().expect("a reply for every launch of the script")
        };
        let make = |hidden| self.0.lock().unwrap().make(request, hidden);
        match reply {
            Reply::Gives => Ok(make(0)),
            Reply::MakesAndLoses => Err(make(0)).map_err(|_| fault(CloudErrorKind::UnknownOutcome)),
            Reply::MakesLate(lists) => Err(make(lists)).map_err(|_| fault(CloudErrorKind::UnknownOutcome)),
            Reply::Loses => Err(fault(CloudErrorKind::UnknownOutcome)),
            Reply::Refuses(kind) => Err(fault(kind)),
            Reply::Hangs => {
                make(0);
                std::future::pending().await
            }
            Reply::Waits => {
                stop.cancelled().await;
                Err(fault(CloudErrorKind::Stopped))
            }
        }
    }

    async fn terminate(&self, _ids: &[InstanceId]) -> Result<(), CloudError> {
        panic!("a launch terminates nothing")
    }

    async fn restart(&self, _ids: &[InstanceId]) -> Result<(), CloudError> {
        panic!("a launch restarts nothing")
    }
}

fn wish(name: &str, region: &str) -> LaunchRequest {
    LaunchRequest {
        name: name.into(),
        instance_type: "a100".into(),
        region: Region::new(region),
        ssh_key: Some("k".into()),
        user_data: None,
        tags: BTreeMap::new(),
        firewall_rulesets: Vec::new(),
        file_systems: Vec::new(),
        image_family: None,
    }
}

fn machine(name: &str, regions: &[&str]) -> Machine {
    let candidate = |region: &&str| Candidate { request: wish(name, region), price_cents_per_hour: Some(199) };
    Machine { node: name.into(), candidates: regions.iter().map(candidate).collect(), host_key: None }
}

fn options() -> LaunchOptions {
    LaunchOptions { run: RunTag::from_bits(7), look_after: vec![Duration::ZERO; 2], grace: Duration::from_millis(20) }
}

async fn play(cloud: &Scripted, journal: &mut MemoryJournal, machines: &[Machine]) -> (LaunchReport, String) {
    let mut lines = Vec::new();
    let mut events = |event: LaunchEvent| lines.push(event.to_string());
    let report = launch(cloud, journal, machines, &options(), &CancellationToken::new(), &mut events).await;
    (report, lines.join("\n"))
}

#[tokio::test]
async fn three_machines_come_up_one_after_another() {
    let cloud = Scripted::new(&[Reply::Gives, Reply::Refuses(CloudErrorKind::Capacity), Reply::Gives, Reply::Gives]);
    let mut journal = MemoryJournal::default();
    let machines = [
        machine("east", &["us-east-1"]),
        machine("west", &["us-west-1", "us-west-2"]),
        machine("eu", &["europe-central-1"]),
    ];
    let (report, lines) = play(&cloud, &mut journal, &machines).await;
    insta::assert_snapshot!(lines, @r"
    east: asking for a100 in us-east-1 at $1.99/h
    east: the provider gave i-1
    east: launched as i-1
    west: asking for a100 in us-west-1 at $1.99/h
    west: no capacity for a100 in us-west-1
    west: asking for a100 in us-west-2 at $1.99/h
    west: the provider gave i-2
    west: launched as i-2
    eu: asking for a100 in europe-central-1 at $1.99/h
    eu: the provider gave i-3
    eu: launched as i-3
    ");
    insta::assert_snapshot!(report, @"running at $5.97/h: east i-1, west i-2, eu i-3");
    assert!(report.complete() && !report.interrupted);
    let states: Vec<_> =
        journal.history.iter().map(|entry| format!("{} {} {:?}", entry.node, entry.region, entry.state)).collect();
    insta::assert_snapshot!(states.join("\n"), @r#"
    east us-east-1 Asked
    east us-east-1 Launched { id: InstanceId("i-1") }
    west us-west-1 Asked
    west us-west-1 Refused { why: "capacity" }
    west us-west-2 Asked
    west us-west-2 Launched { id: InstanceId("i-2") }
    eu europe-central-1 Asked
    eu europe-central-1 Launched { id: InstanceId("i-3") }
    "#);
    let tags = &cloud.0.lock().unwrap().machines[0].1.tags;
    assert_eq!(format!("{tags:?}"), r#"{"gorgo:node": "east", "gorgo:run": "0000000000000007"}"#);
}

/// Scripts for one machine with two regions: replies, how often it was asked for, how many exist, the last line.
#[tokio::test]
async fn no_script_launches_twice_blindly_or_hides_a_machine() {
    use CloudErrorKind::{Capacity, Credentials, Quota, Transient};
    use Reply::{Gives, Loses, MakesAndLoses, MakesLate, Refuses};
    let cases: [(&[Reply], usize, usize, &str); 11] = [
        (&[MakesAndLoses], 1, 1, "running at $1.99/h: east i-1"),
        (&[MakesLate(1)], 1, 1, "running at $1.99/h: east i-1"),
        (&[Loses, Gives], 2, 1, "running at $1.99/h: east i-1"),
        (&[MakesLate(2), Gives], 2, 2, "running at $3.98/h: east i-2; running but not wanted: i-1 (same tag as east)"),
        (&[Loses, Loses], 2, 0, "perhaps running and not known by id: east (a100 in us-east-1)"),
        // What is refused after a lost answer says nothing of the machine that was lost.
        (&[MakesLate(3), Refuses(Quota)], 2, 1, "perhaps running and not known by id: east (a100 in us-east-1)"),
        (
            &[Refuses(Capacity), MakesLate(3), Refuses(Capacity)],
            3,
            1,
            "perhaps running and not known by id: east (a100 in us-east-2)",
        ),
        (&[Refuses(Capacity), Refuses(Capacity)], 2, 0, "not launched: east (no capacity)"),
        (&[Refuses(Quota)], 1, 0, "not launched: east (refused)"),
        (&[Refuses(Credentials)], 1, 0, "not launched: east (refused)"),
        (&[Refuses(Transient)], 1, 0, "not launched: east (refused)"),
    ];
    for (replies, asked, machines, line) in cases {
        let cloud = Scripted::new(replies);
        let (report, lines) =
            play(&cloud, &mut MemoryJournal::default(), &[machine("east", &["us-east-1", "us-east-2"])]).await;
        assert_eq!(report.to_string(), line, "{replies:?}\n{lines}");
        assert_eq!(
            (cloud.asked().len(), cloud.0.lock().unwrap().machines.len()),
            (asked, machines),
            "{replies:?}\n{lines}"
        );
    }
}

#[tokio::test]
async fn other_failures_stop_the_launch_but_lack_of_capacity_does_not() {
    let names = [machine("a", &["r"]), machine("b", &["r"]), machine("c", &["r"])];
    let cases: [(&[Reply], &str); 3] = [
        (
            &[Reply::Gives, Reply::Refuses(CloudErrorKind::Capacity), Reply::Gives],
            "running at $3.98/h: a i-1, c i-2; not launched: b (no capacity)",
        ),
        (
            &[Reply::Gives, Reply::Refuses(CloudErrorKind::Quota)],
            "running at $1.99/h: a i-1; not launched: b (refused), c (not asked for)",
        ),
        (
            &[Reply::Gives, Reply::Loses, Reply::Loses],
            "running at $1.99/h: a i-1; perhaps running and not known by id: b (a100 in r); not launched: c (not asked for)",
        ),
    ];
    for (replies, line) in cases {
        let (report, _) = play(&Scripted::new(replies), &mut MemoryJournal::default(), &names).await;
        assert_eq!(report.to_string(), line);
        assert!(!report.complete());
    }
}

#[tokio::test]
async fn a_list_that_fails_leads_to_no_second_launch() {
    let cloud = Scripted::new(&[Reply::MakesAndLoses]);
    cloud.0.lock().unwrap().lists_fail = true;
    let mut journal = MemoryJournal::default();
    let (report, _) = play(&cloud, &mut journal, &[machine("east", &["r"])]).await;
    insta::assert_snapshot!(report, @"perhaps running and not known by id: east (a100 in r)");
    assert!(matches!(&report.nodes[0].outcome, LaunchOutcome::Unknown(error) if error.hint.is_some()));
    assert_eq!(journal.entry("east").unwrap().state, LaunchState::Asked);

    cloud.0.lock().unwrap().lists_fail = false;
    let (report, lines) = play(&cloud, &mut journal, &[machine("east", &["r"])]).await;
    insta::assert_snapshot!(report, @"running at $1.99/h: east i-1");
    insta::assert_snapshot!(lines, @r"
    east: looking for its tag among the account's machines
    east: found by its tag as i-1
    ");
    assert_eq!(cloud.asked().len(), 1);
}

/// A crash at any event, then a second run with another run tag: exactly one machine, and the journal knows it.
#[test]
fn a_crash_at_any_step_is_healed_by_the_next_run() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for reply in [Reply::Gives, Reply::MakesAndLoses] {
        for crash_at in 0..4 {
            let cloud = Scripted::new(&[reply, Reply::Gives]);
            let mut journal = MemoryJournal::default();
            let machines = [machine("east", &["r"])];
            let mut seen = 0;
            let mut events = |_: LaunchEvent| {
                seen += 1;
                assert!(seen <= crash_at, "crash");
            };
            let (options, stop) = (options(), CancellationToken::new());
            let first = launch(&cloud, &mut journal, &machines, &options, &stop, &mut events);
            let crashed = catch_unwind(AssertUnwindSafe(|| runtime.block_on(first))).is_err();
            assert_eq!(
                crashed,
                crash_at < if matches!(reply, Reply::Gives) { 3 } else { 4 },
                "events of the first run"
            );

            let (report, lines) = runtime.block_on(play(&cloud, &mut journal, &machines));
            let existing = cloud.0.lock().unwrap().machines.len();
            let found = (report.to_string(), existing);
            assert_eq!(found, ("running at $1.99/h: east i-1".into(), 1), "{reply:?} {crash_at}\n{lines}");
            assert_eq!(journal.entry("east").unwrap().state, LaunchState::Launched { id: InstanceId("i-1".into()) });
        }
    }
}

#[tokio::test]
async fn what_cannot_be_saved_is_not_asked_for() {
    let cloud = Scripted::new(&[Reply::Gives]);
    let mut journal = MemoryJournal::full_after(0);
    let (report, _) = play(&cloud, &mut journal, &[machine("east", &["r"])]).await;
    assert!(cloud.asked().is_empty());
    let LaunchOutcome::Failed(error) = &report.nodes[0].outcome else { panic!("{report}") };
    insta::assert_snapshot!(error, @"`east` was not asked for, because the inventory cannot be saved: no space left");
}

#[tokio::test]
async fn a_machine_that_cannot_be_saved_afterwards_is_in_the_last_line() {
    let cloud = Scripted::new(&[Reply::Gives]);
    let mut journal = MemoryJournal::full_after(1);
    let (report, _) = play(&cloud, &mut journal, &[machine("east", &["r"])]).await;
    insta::assert_snapshot!(report, @"running at $1.99/h: east i-1 (not in the inventory: no space left)");
}

#[tokio::test]
async fn an_interrupted_launch_names_what_may_exist() {
    let cloud = Scripted::new(&[Reply::Gives, Reply::Hangs]);
    let mut journal = MemoryJournal::default();
    let stop = CancellationToken::new();
    let mut lines = Vec::new();
    let machines = [machine("a", &["r"]), machine("b", &["r"]), machine("c", &["r"])];
    let mut events = |event: LaunchEvent| {
        lines.push(event.to_string());
        if event.to_string() == "b: asking for a100 in r at $1.99/h" {
            stop.cancel();
        }
    };
    let report = launch(&cloud, &mut journal, &machines, &options(), &stop, &mut events).await;
    assert!(report.interrupted);
    insta::assert_snapshot!(report, @"running at $1.99/h: a i-1; perhaps running and not known by id: b (a100 in r); not launched: c (not asked for)");
    assert_eq!(journal.entry("b").unwrap().state, LaunchState::Asked);

    let (report, _) = play(&Scripted(cloud.0), &mut journal, &machines[..2]).await;
    insta::assert_snapshot!(report, @"running at $3.98/h: a i-1, b i-2");
}

#[tokio::test]
async fn what_was_not_sent_when_the_user_had_enough_is_not_sent_after_it() {
    let cloud = Scripted::new(&[Reply::Gives, Reply::Waits]);
    let mut journal = MemoryJournal::default();
    let stop = CancellationToken::new();
    let machines = [machine("a", &["r"]), machine("b", &["r", "s"]), machine("c", &["r"])];
    let mut events = |event: LaunchEvent| {
        if event.to_string() == "b: asking for a100 in r at $1.99/h" {
            stop.cancel();
        }
    };
    let report = launch(&cloud, &mut journal, &machines, &options(), &stop, &mut events).await;
    insta::assert_snapshot!(report, @"running at $1.99/h: a i-1; not launched: b (not asked for), c (not asked for)");
    assert!(report.interrupted);
    assert!(matches!(journal.entry("b").unwrap().state, LaunchState::Refused { .. }), "nobody has to look for it");
}

#[tokio::test]
async fn machines_on_their_way_out_are_not_adopted() {
    let cloud = Scripted::new(&[Reply::MakesAndLoses, Reply::Gives]);
    let leaving = {
        let mut account = cloud.0.lock().unwrap();
        let mut request = wish("east", "r");
        request.tags =
            [("gorgo:run".to_owned(), RunTag::from_bits(7).to_string()), ("gorgo:node".to_owned(), "east".to_owned())]
                .into();
        let id = account.make(&request, 0);
        account.machines[0].1.status = Status::Terminating;
        id
    };
    let (report, _) = play(&cloud, &mut MemoryJournal::default(), &[machine("east", &["r"])]).await;
    assert_eq!(leaving.0, "i-1");
    insta::assert_snapshot!(report, @"running at $1.99/h: east i-2");
}

#[test]
fn candidates_go_by_region_then_type() {
    let offer = |name: &str, cents, regions: &[&str]| InstanceType {
        name: name.into(),
        description: String::new(),
        gpu: String::new(),
        gpus: 1,
        vram_gib: None,
        vcpus: 1,
        memory_gib: 1,
        storage_gib: 1,
        price_cents_per_hour: cents,
        capacity: regions.iter().map(|name| Region::new(name)).collect(),
    };
    let offered =
        [offer("a100", 199, &["east", "west"]), offer("h100", 329, &["asia", "west"]), offer("a10", 129, &["moon"])];
    let bound = LaunchRequest { file_systems: vec!["fs".into()], ..wish("n", "home") };
    let cases: [(&LaunchRequest, &[&str], bool, &str); 5] = [
        (&wish("n", "home"), &["a100"], false, "a100@home 199"),
        (&wish("n", "home"), &["a100", "h100"], false, "a100@home 199, h100@home 329"),
        (
            &wish("n", "home"),
            &["h100", "a100"],
            true,
            "h100@home 329, a100@home 199, h100@asia 329, a100@east 199, h100@west 329, a100@west 199",
        ),
        (&bound, &["a100"], true, "a100@home 199"),
        (&wish("n", "west"), &["unlisted"], true, "unlisted@west -"),
    ];
    for (wish, types, any_region, expected) in cases {
        let found: Vec<String> = candidates(wish, types, any_region, &offered)
            .iter()
            .map(|way| {
                let price = way.price_cents_per_hour.map_or_else(|| "-".to_owned(), |cents| cents.to_string());
                format!("{}@{} {price}", way.request.instance_type, way.request.region)
            })
            .collect();
        assert_eq!(found.join(", "), expected);
    }
}

#[test]
fn entries_survive_the_way_to_disk() {
    let entry = LaunchEntry {
        node: "east".into(),
        run: RunTag::from_bits(1),
        instance_type: "a100".into(),
        region: Region::new("r"),
        host_key: None,
        price_cents_per_hour: Some(199),
        state: LaunchState::Launched { id: InstanceId("i-1".into()) },
        also: vec![InstanceId("i-2".into())],
    };
    let text = serde_json::to_string(&entry).unwrap();
    assert_eq!(serde_json::from_str::<LaunchEntry>(&text).unwrap(), entry);
    insta::assert_snapshot!(text, @r#"{"node":"east","run":"0000000000000001","instance_type":"a100","region":"r","price_cents_per_hour":199,"state":"launched","id":"i-1","also":["i-2"]}"#);
    let asked = LaunchEntry { state: LaunchState::Asked, also: Vec::new(), ..entry };
    assert_eq!(serde_json::from_str::<LaunchEntry>(&serde_json::to_string(&asked).unwrap()).unwrap(), asked);
}
