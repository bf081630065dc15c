//! Launches that are killed, or whose answers do not come: nothing is launched twice, and every machine that costs money is named.

use serde_json::Value;

use super::lab::{Lab, Running, eventually};

const LAUNCH: &str = "launch east eu --type gpu_1x_a10 --region us-east-1 europe-central-1 --yes";

fn id(machine: &Value) -> &str {
    machine["id"].as_str().expect("an id")
}

fn tag<'a>(machine: &'a Value, key: &str) -> &'a str {
    let tags = machine["tags"].as_array().expect("tags");
    tags.iter().find(|tag| tag["key"] == key).and_then(|tag| tag["value"].as_str()).expect("every machine has its tags")
}

/// Each machine of the account stands in the inventory: by id, or as asked for by the run that its tag names.
fn all_accounted_for(lab: &Lab, when: &str) {
    let inventory = lab.inventory();
    for machine in lab.machines() {
        let document: Value = serde_json::from_str(&inventory).expect("the inventory is whole");
        let nodes = document["nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|node| node["name"] == tag(&machine, "gorgo:node")).expect("its node is known");
        assert_eq!(node["run"], tag(&machine, "gorgo:run"), "{when}");
        let known = node["launch"]["id"] == machine["id"] || node["launch"]["state"] == "asked";
        assert!(known, "{when}: {inventory}");
    }
}

/// A rerun ends well, and its last line and the inventory name both machines, which are all that there are.
fn converges(lab: &Lab, when: &str) {
    let rerun = lab.gorgo(LAUNCH);
    assert_eq!(rerun.code, Some(0), "{when}: {}", rerun.err);
    let machines = lab.machines();
    assert_eq!(machines.len(), 2, "{when}: nothing is launched twice");
    let status = lab.gorgo("status");
    for machine in &machines {
        assert!(lab.inventory().contains(id(machine)), "{when}: in the inventory");
        assert!(status.out.contains(id(machine)), "{when}: in what is shown");
    }
}

#[test]
fn killed_at_any_step_boundary_a_launch_is_taken_up() {
    let mut boundary = 0;
    loop {
        boundary += 1;
        let lab = Lab::new("").with_key();
        let mut command = lab.command(&LAUNCH.split(' ').collect::<Vec<_>>());
        command.env("GORGO_CRASH_AT", boundary.to_string());
        let when = format!("boundary {boundary}");
        let killed = super::ran(command);
        all_accounted_for(&lab, &when);
        if let Some(code) = killed.code {
            assert_eq!((code, boundary), (0, 7), "three boundaries for each machine, and then the end");
            let line = killed.out.lines().last().expect("a last line");
            assert!(lab.machines().iter().all(|machine| line.contains(id(machine))), "{line}");
            return;
        }
        // A boundary is crossed more than once on the way to the end: the rerun is killed as well.
        let mut again = lab.command(&LAUNCH.split(' ').collect::<Vec<_>>());
        again.env("GORGO_CRASH_AT", "1");
        super::ran(again);
        all_accounted_for(&lab, &when);
        converges(&lab, &when);
    }
}

#[test]
fn killed_while_the_answer_is_awaited_a_launch_is_adopted() {
    let lab = Lab::new("--fault stalled-answer=1").with_key();
    let launching = Running::start(&lab, "launching", &LAUNCH.split(' ').collect::<Vec<_>>());
    eventually("the first machine", || (lab.machines().len() == 1).then_some(()));
    // Meanwhile nobody else can launch for this cluster, and is told who does.
    let second = lab.gorgo(LAUNCH);
    assert_eq!(second.code, Some(1));
    assert!(
        second.err.starts_with("error: another gorgo works on this cluster: `gorgo launch east eu "),
        "{}",
        second.err
    );
    assert!(second.err.contains(", process ") && second.err.contains(", since "), "{}", second.err);
    launching.signal("-KILL");
    assert_eq!(launching.end().code, None);
    all_accounted_for(&lab, "after the kill");
    let shown = lab.gorgo("status");
    assert!(shown.err.contains("`gorgo launch east` takes it up"), "{shown:?}");
    converges(&lab, "after the kill");
}

#[test]
fn ctrl_c_while_the_answer_is_awaited_names_what_may_run() {
    let lab = Lab::new("--fault stalled-answer=1").with_key();
    let launching = Running::start(&lab, "launching", &LAUNCH.split(' ').collect::<Vec<_>>());
    eventually("the first machine", || (lab.machines().len() == 1).then_some(()));
    launching.signal("-INT");
    let ended = launching.end();
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    assert_eq!(
        ended.out,
        "perhaps running and not known by id: east (gpu_1x_a10 in us-east-1); not launched: eu (not asked for)\n"
    );
    converges(&lab, "after Ctrl-C");
}

#[test]
fn answers_that_are_lost_late_or_wrong_cost_nothing_but_time() {
    // (faults, the first run's exit code, words that it says)
    let cases = [
        ("--fault lost-answer=1", Some(0), "found by its tag as"),
        ("--fault lost-answer=2", Some(0), "found by its tag as"),
        ("--fault error-after-launch=1", Some(0), "found by its tag as"),
        ("--fault lost-request=1", Some(0), "looking for its tag"),
        ("--fault 429-storm=2 --fault 429-shape=html", Some(0), "launched as"),
        ("--fault 429-storm=2 --fault 429-shape=empty --fault 429-retry-after=1", Some(0), "launched as"),
        ("--fault error-503=2", Some(0), "launched as"),
        ("--fault error-502=2 --fault truncated=1", Some(0), "launched as"),
        ("--fault lost-request=2", Some(1), "may have happened and cost money"),
        ("--fault quota=1", Some(3), "not launched: eu (refused)"),
        ("--fault no-address", Some(2), "not launched: east (refused), eu (not asked for)"),
        ("--fault account-inactive", Some(2), "inactive"),
    ];
    for (faults, code, words) in cases {
        let lab = Lab::new(faults);
        // What strikes every call strikes this one; storms are outlived by it, and have to be by whatever comes first.
        let stored = lab.gorgo("ssh-keys add client.pub --name mine --yes");
        if stored.code != Some(0) {
            assert!(stored.code == code && stored.err.contains(words), "{faults}: {stored:?}");
            continue;
        }
        let launched = lab.gorgo(LAUNCH);
        assert_eq!(launched.code, code, "{faults}: {}{}", launched.out, launched.err);
        assert!((launched.out.clone() + &launched.err).contains(words), "{faults}: {}{}", launched.out, launched.err);
        all_accounted_for(&lab, faults);
        assert!(lab.machines().len() <= 2, "{faults}");
        if code == Some(0) {
            let line = launched.out.lines().last().expect("a last line");
            assert!(lab.machines().iter().all(|machine| line.contains(id(machine))), "{faults}: {line}");
            converges(&lab, faults);
        }
    }
}

/// A second of ours is twelve of the account's: it takes one launch in that time and turns the others away, as it does with calls.
#[test]
fn an_account_that_turns_calls_and_launches_away_gets_them_again() {
    let lab = Lab::strict("--speed 12").with_key();
    converges(&lab, "against the limits");
}

/// The list lags behind for longer than anybody looks: asked for again, the machine that was lost turns up later.
#[test]
fn a_machine_that_turns_up_too_late_is_told_and_ends_with_its_node() {
    let lab = Lab::new("--speed 10 --fault lost-answer=1 --fault late-list=30").with_key();
    let launched = lab.gorgo("launch east --type gpu_1x_a10 --region us-east-1 --yes");
    assert_eq!((launched.code, lab.machines().len()), (Some(0), 2), "{}", launched.err);
    let warning = "has the tag of east and costs money, $1.29/h, but the inventory does not have it; `gorgo terminate east` ends it";
    let shown = eventually("it turns up", || {
        let status = lab.gorgo("status");
        status.err.contains(warning).then_some(status.err)
    });
    assert!(!shown.contains("takes it up"), "another machine is there already: {shown}");
    assert_eq!(lab.gorgo("terminate east --yes").code, Some(0));
    assert_eq!(lab.machines().len(), 0);
}

#[test]
fn capacity_is_sought_elsewhere_or_waited_for_as_told() {
    let lab = Lab::new("--fault no-capacity-in=us-east-1").with_key();
    let launch = "launch east --type gpu_1x_a10 --region us-east-1 --yes";
    assert_eq!(lab.gorgo(launch).code, Some(4));
    let elsewhere = lab.gorgo(&format!("{launch} --any-region"));
    assert_eq!(elsewhere.code, Some(0), "{}", elsewhere.err);
    assert_eq!((lab.machines().len(), lab.machines()[0]["region"] != "us-east-1"), (1, true));

    let lab = Lab::new("--fault capacity-loss=4").with_key();
    let later = lab.gorgo(&format!("{LAUNCH} --retry-capacity 50"));
    assert_eq!(later.code, Some(0), "{}", later.err);
    assert!(later.err.contains("no capacity for east, eu; asking again in "), "{}", later.err);
    assert_eq!(lab.machines().len(), 2);

    let lab = Lab::new("--fault no-capacity-in=us-east-1").with_key();
    let never = lab.gorgo(&format!("{launch} --retry-capacity 1"));
    assert_eq!((never.code, never.out.as_str()), (Some(4), "not launched: east (no capacity)\n"));
    let waiting = Running::start(
        &lab,
        "waiting",
        &[&launch.split(' ').collect::<Vec<_>>()[..], &["--retry-capacity", "600"]].concat(),
    );
    waiting.says("asking again in ");
    waiting.signal("-INT");
    assert_eq!(waiting.end().code, Some(130));
    assert_eq!(lab.machines().len(), 0);
}
