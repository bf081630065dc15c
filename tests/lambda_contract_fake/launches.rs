//! gorgo's client and its launch protocol against the faults: nothing is launched twice, nothing that costs money is lost from sight.

use std::time::Duration;

use gorgo::cloud::lambda::{Endpoint, LambdaCloud, LambdaSettings, Pace, RetryPolicy, wire};
use gorgo::cloud::{Cloud as _, CloudErrorKind, InstanceId, Inventory as _, LaunchRequest, Status};
use gorgo::cluster::launch::{
    Candidate, LaunchJournal as _, LaunchOptions, LaunchOutcome, LaunchReport, LaunchState, Machine, MemoryJournal,
    RunTag, candidates, launch,
};
use gorgo::emulator::lambda::{LambdaHandle, LambdaOptions, start};
use gorgo::model::{Region, Secret};
use tempfile::{TempDir, tempdir};
use tokio_util::sync::CancellationToken;

use super::{KEY, account};

/// Longest wait for a condition.
const PATIENCE: Duration = Duration::from_secs(20);

struct Lab {
    server: LambdaHandle,
    cloud: LambdaCloud,
    _state: TempDir,
}

impl Lab {
    async fn new(speed: f64, faults: &[&str]) -> Self {
        let lab = Self::over(account(speed, &[]).await, Duration::ZERO).await;
        lab.server.suffer(faults.iter().map(|text| text.parse().unwrap()).collect());
        lab
    }

    /// A client of this stand-in, at this pace, with an SSH key in the account.
    async fn over(server: LambdaHandle, pace: Duration) -> Self {
        gorgo::cli::install_tls();
        let state = tempdir().unwrap();
        let endpoint = Endpoint::parse(&format!("http://{}", server.address())).unwrap();
        let settings = LambdaSettings::new(endpoint, Secret::new(KEY.into()), state.path().into(), 1);
        let retry = RetryPolicy {
            attempts: 8,
            first_pause: Duration::from_millis(5),
            longest_pause: Duration::from_millis(400),
            longest_asked: Duration::from_secs(2),
        };
        let pace = Pace { call: pace, launch: pace * 12, longest_wait: PATIENCE };
        let settings = LambdaSettings { retry, pace, answer_limit: Duration::from_secs(1), ..settings };
        let cloud = LambdaCloud::new(settings).unwrap();
        let key = wire::AddSshKey { name: "me".into(), public_key: Some("ssh-ed25519 AAAA me".into()) };
        cloud.add_ssh_key(&key).await.unwrap();
        Self { server, cloud, _state: state }
    }

    async fn launch(&self, journal: &mut MemoryJournal, machines: &[Machine]) -> LaunchReport {
        let looks = [0, 150, 300, 600].map(Duration::from_millis).to_vec();
        let options = LaunchOptions { look_after: looks, ..LaunchOptions::new(RunTag::from_bits(42)) };
        launch(&self.cloud, journal, machines, &options, &CancellationToken::new(), &mut |_| ()).await
    }

    /// Ids of the machines that there really are.
    fn machines(&self) -> Vec<String> {
        let machines = self.server.machines();
        machines.as_array().unwrap().iter().map(|machine| machine["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn request(node: &str, region: &str) -> LaunchRequest {
    LaunchRequest {
        name: node.into(),
        instance_type: "gpu_1x_a10".into(),
        region: Region::new(region),
        ssh_key: Some("me".into()),
        user_data: None,
        tags: [].into(),
        firewall_rulesets: Vec::new(),
        file_systems: Vec::new(),
        image_family: None,
    }
}

fn machine(node: &str, regions: &[&str]) -> Machine {
    let candidate = |region: &&str| Candidate { request: request(node, region), price_cents_per_hour: Some(129) };
    Machine { node: node.into(), candidates: regions.iter().map(candidate).collect(), host_key: None }
}

/// One machine is wanted; one there is, the journal has its id, and no second one was made on the way.
#[tokio::test]
async fn one_machine_is_launched_once_whatever_goes_wrong() {
    let cases: [&[&str]; 19] = [
        &[],
        &["lost-answer"],
        &["lost-answer", "truncated=2"],
        &["lost-answer", "no-name", "no-ip", "no-private-ip"],
        &["lost-answer", "extra-fields", "unknown-status", "unknown-region"],
        &["lost-answer", "late-list=30"],
        &["lost-request"],
        &["stalled-answer"],
        &["error-after-launch"],
        &["error-500=2"],
        &["error-502=2"],
        &["error-503=2"],
        &["429-storm=6"],
        &["429-storm=6", "429-shape=empty"],
        &["429-storm=6", "429-shape=html"],
        &["429-storm=4", "429-retry-after=0"],
        &["429-storm=2", "429-shape=html", "429-retry-after=1"],
        &["capacity-loss=1"],
        &["no-capacity-in=us-east-1"],
    ];
    for faults in cases {
        // The list lags by 30 s of the stand-in's, which are 300 ms of ours.
        let lab = Lab::new(100.0, faults).await;
        let mut journal = MemoryJournal::default();
        let report = lab.launch(&mut journal, &[machine("a", &["us-east-1", "us-west-1"])]).await;
        let there = lab.machines();
        let [id] = there.as_slice() else { panic!("{faults:?}: {there:?}, {report}") };
        let id = InstanceId(id.clone());
        assert_eq!(report.nodes[0].outcome, LaunchOutcome::Running(id.clone()), "{faults:?}");
        assert_eq!(journal.entry("a").unwrap().state, LaunchState::Launched { id }, "{faults:?}");
        assert_eq!(lab.server.counts().launches, 1, "{faults:?}");
        let moved = faults.iter().any(|fault| fault.contains("capacity"));
        assert_eq!(report.nodes[0].region.as_str(), if moved { "us-west-1" } else { "us-east-1" }, "{faults:?}");
    }
}

#[tokio::test]
async fn refusals_stop_the_launch_and_leave_nothing_behind() {
    let cases = [
        ("quota=0", CloudErrorKind::Quota),
        ("no-address", CloudErrorKind::Credentials),
        ("account-inactive", CloudErrorKind::Credentials),
    ];
    for (fault, kind) in cases {
        let lab = Lab::new(1.0, &[fault]).await;
        let mut journal = MemoryJournal::default();
        let report = lab.launch(&mut journal, &[machine("a", &["us-east-1"]), machine("b", &["us-east-1"])]).await;
        let LaunchOutcome::Failed(error) = &report.nodes[0].outcome else { panic!("{fault}: {report}") };
        assert_eq!((error.kind, &report.nodes[1].outcome), (kind, &LaunchOutcome::NotAsked), "{fault}");
        assert!(matches!(journal.entry("a").unwrap().state, LaunchState::Refused { .. }), "{fault}");
        assert_eq!(lab.server.counts().launches, 0, "{fault}");
    }
}

/// A quota of two and three wishes: what runs is kept and named.
#[tokio::test]
async fn a_launch_that_stops_halfway_names_what_runs() {
    let lab = Lab::new(1.0, &["quota=2"]).await;
    let mut journal = MemoryJournal::default();
    let wishes = ["a", "b", "c"].map(|node| machine(node, &["us-east-1"]));
    let report = lab.launch(&mut journal, &wishes).await;
    let there = lab.machines();
    assert_eq!(there.len(), 2);
    for id in &there {
        assert!(report.to_string().contains(id), "{report}");
    }
    assert_eq!((report.cents_per_hour(), report.complete()), (258, false));
}

#[tokio::test]
async fn regions_that_claim_capacity_are_tried_in_turn() {
    let lab = Lab::new(1.0, &["no-capacity-in=us-east-1"]).await;
    let offered = lab.cloud.types().await.unwrap();
    let ways = candidates(&request("a", "us-east-1"), &["gpu_1x_h100_pcie"], true, &offered);
    let mut journal = MemoryJournal::default();
    let report = lab.launch(&mut journal, &[Machine { node: "a".into(), candidates: ways, host_key: None }]).await;
    let node = &report.nodes[0];
    assert!(matches!(node.outcome, LaunchOutcome::Running(_)), "{report}");
    assert_eq!((node.region.as_str(), node.price_cents_per_hour), ("us-west-3", Some(329)));
}

/// The user stops while the answer is on its way: the journal knows, and the next command finds the machine instead of asking again.
#[tokio::test]
async fn an_interrupted_launch_is_in_the_journal_and_is_taken_up_again() {
    let lab = Lab::new(1.0, &["stalled-answer"]).await;
    let (mut journal, stop) = (MemoryJournal::default(), CancellationToken::new());
    let options = LaunchOptions { grace: Duration::from_millis(50), ..LaunchOptions::new(RunTag::from_bits(1)) };
    let wishes = [machine("a", &["us-east-1"])];
    let mut ignore = |_| ();
    let launching = launch(&lab.cloud, &mut journal, &wishes, &options, &stop, &mut ignore);
    let stopping = async {
        wait_for("the machine", || async { lab.server.counts().launches == 1 }).await;
        stop.cancel();
    };
    let (report, ()) = tokio::join!(launching, stopping);
    assert!(report.interrupted && matches!(report.nodes[0].outcome, LaunchOutcome::Unknown(_)), "{report}");
    assert_eq!(journal.entry("a").unwrap().state, LaunchState::Asked);

    let report = lab.launch(&mut journal, &wishes).await;
    let there = lab.machines();
    assert_eq!(report.nodes[0].outcome, LaunchOutcome::Running(InstanceId(there[0].clone())));
    assert_eq!((there.len(), lab.server.counts().launches), (1, 1));
}

/// A client that is slower than the limits is never turned away; one that knows none gets through in the end.
#[tokio::test]
async fn the_limits_are_kept_or_survived() {
    // At 20 times the speed the limits are one call per 50 ms and one launch per 600 ms; at 50 times, 20 and 240 ms.
    for (speed, pace_ms, nodes) in [(20.0, 150, &["a", "b"][..]), (50.0, 0, &["a", "b", "c"][..])] {
        let options = LambdaOptions { limits: true, speed, ..LambdaOptions::new(1) };
        let lab = Lab::over(start(options).await.unwrap(), Duration::from_millis(pace_ms)).await;
        let mut journal = MemoryJournal::default();
        let wishes: Vec<Machine> = nodes.iter().map(|node| machine(node, &["us-east-1"])).collect();
        let report = lab.launch(&mut journal, &wishes).await;
        assert!(report.complete(), "{report}");
        let counts = lab.server.counts();
        assert_eq!(counts.launches, nodes.len() as u64, "{counts:?}");
        assert!(pace_ms == 0 || counts.turned_away == 0, "{counts:?}");
    }
}

#[tokio::test]
async fn the_client_sees_a_whole_life() {
    let addresses = vec!["127.0.0.9".parse().unwrap()];
    let options = LambdaOptions { speed: 2_000.0, addresses, ..LambdaOptions::new(5) };
    let lab = Lab::over(start(options).await.unwrap(), Duration::ZERO).await;
    let id = lab.cloud.launch(&request("a", "us-east-1"), &CancellationToken::new()).await.unwrap();
    let second = lab.cloud.launch(&request("b", "us-east-1"), &CancellationToken::new()).await.unwrap_err();
    assert_eq!(second.kind, CloudErrorKind::Capacity, "there is one address");
    wait_for("an active machine", || async { lab.cloud.list().await.unwrap()[0].status == Status::Active }).await;
    let seen = lab.cloud.list().await.unwrap();
    assert_eq!(seen[0].address, Some("127.0.0.9".parse().unwrap()));
    let private = seen[0].private_address;
    assert!(matches!(private, Some(std::net::IpAddr::V4(v4)) if v4.is_private()), "{private:?}");
    assert!(!format!("{:?}", lab.cloud.instance(&id.0).await.unwrap()).contains("lambdaspaces"), "a credential");
    lab.cloud.restart(std::slice::from_ref(&id)).await.unwrap();
    lab.cloud.terminate(&[id.clone(), InstanceId("nobody".into())]).await.unwrap();
    wait_for("an empty list", || async { lab.cloud.list().await.unwrap().is_empty() }).await;
    lab.cloud.terminate(&[id]).await.unwrap();
}

/// Asks until it holds.
async fn wait_for<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no sign of {what}"));
}
