//! From a launch to commands on the machines, against real sshd processes that have the host keys which the launch gave them.

use serde_json::Value;

use super::lab::{Lab, Running, eventually, given_host_key, other_host_key};

const ADDRESSES: [&str; 2] = ["127.0.0.2", "127.0.0.3"];
const EMULATOR: &str = "--speed 2000 --address 127.0.0.2 --address 127.0.0.3";
const LAUNCH: &str = "launch east eu --type gpu_1x_a10 --region us-east-1 europe-central-1 --yes";

/// Both machines run, each with the host key that it was given.
fn launched() -> Option<(Lab, Vec<Value>, u16)> {
    let mut lab = Lab::new(EMULATOR).with_key();
    let port = lab.prepare_sshd(&ADDRESSES)?;
    let done = lab.gorgo(LAUNCH);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let machines = lab.machines();
    for machine in &machines {
        lab.boot(machine["ip"].as_str().expect("an address"), port, &given_host_key(machine));
    }
    eventually("both are active", || lab.machines().iter().all(|it| it["status"] == "active").then_some(()));
    Some((lab, machines, port))
}

#[test]
fn a_launch_waits_for_address_login_and_gpu_each_by_itself() {
    let mut lab = Lab::new(EMULATOR).with_key();
    let Some(port) = lab.prepare_sshd(&ADDRESSES) else { return };
    let words: Vec<&str> = LAUNCH.split(' ').chain(["--wait"]).collect();
    let waiting = Running::start(&lab, "waiting", &words);
    waiting.says("east: 2 of 3, login: ");
    waiting.says("eu: 2 of 3, login: ");
    for machine in lab.machines() {
        lab.boot(machine["ip"].as_str().expect("an address"), port, &given_host_key(&machine));
    }
    waiting.says("east: 3 of 3, GPU: CUDA error 802");
    waiting.says("eu: 3 of 3, GPU: CUDA error 802");
    std::fs::write(lab.path("cuda"), "").expect("writes");
    let ended = waiting.end();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    for node in ["east", "eu"] {
        let ready = ended.err.find(&format!("{node}: ready")).expect("it is ready at last");
        assert!(ended.err.find(&format!("{node}: 3 of 3")).expect("its third gate") < ready);
    }
    let secret = ["PRIVATE KEY", "b3BlbnNzaC1rZXk"];
    let kept = lab.state() + &ended.out + &ended.err;
    assert!(!secret.iter().any(|word| kept.contains(word)), "private halves of host keys are kept nowhere");
}

#[test]
fn commands_run_on_machines_as_they_are_typed() {
    let Some((lab, machines, _)) = launched() else { return };
    let ids: Vec<&str> = machines.iter().map(|it| it["id"].as_str().expect("an id")).collect();
    assert_eq!(lab.words(&["ssh", "east", "--", "true"]).code, Some(0));
    assert_eq!(lab.words(&["ssh", "east", "--", "sh", "-c", "exit 7"]).code, Some(7));
    let odd = ["printf", "%s|", "a b", "it's", "$HOME", "\"x\"", "", "*", ";reboot"];
    let expected = "a b|it's|$HOME|\"x\"||*|;reboot|";
    let by_ssh = lab.words(&[&["ssh", "east", "--"], &odd[..]].concat());
    assert_eq!((by_ssh.code, by_ssh.out.as_str()), (Some(0), expected), "{}", by_ssh.err);
    let by_run = lab.words(&[&["run", "east", "--"], &odd[..]].concat());
    assert_eq!((by_run.code, by_run.out.trim_end()), (Some(0), expected), "{}", by_run.err);

    let here = std::process::Command::new("uname").arg("-m").output().expect("uname runs").stdout;
    let here = String::from_utf8(here).expect("text");
    assert_eq!(lab.words(&["run", "east", "--", "uname", "-m"]).out, here);
    let everywhere = lab.words(&["run", "--", "uname", "-m"]);
    assert_eq!((everywhere.code, everywhere.out), (Some(0), format!("east: {here}eu: {here}")));
    let failing = lab.words(&["run", "eu", "--", "sh", "-c", "echo no >&2; exit 9"]);
    assert_eq!((failing.code, failing.err.as_str()), (Some(9), "no\nwarning: ended with status 9\n"));
    let partly = lab.words(&["run", "--", "sh", "-c", "case $SSH_CONNECTION in *127.0.0.2*) exit 5; esac"]);
    assert_eq!((partly.code, partly.err.as_str()), (Some(3), "warning: east: ended with status 5\n"));
    let json = lab.words(&["run", "--json", "--", "echo", "hi"]);
    let json: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!((json[0]["node"].as_str(), json[1]["stdout"].as_str()), (Some("east"), Some("hi\n")));
    let dry = lab.words(&["run", "--dry-run", "east", "--", "rm", "a b"]);
    assert_eq!((dry.code, dry.out.as_str()), (Some(0), "east: rm 'a b'\n"));
    let known: Vec<String> = lab.known_hosts().lines().map(str::to_owned).collect();
    assert_eq!(known.len(), 2);
    assert!(ids.iter().all(|id| known.iter().any(|line| line.starts_with(&format!("{id} ssh-ed25519 ")))), "{known:?}");

    assert_eq!(lab.gorgo("restart east --yes").code, Some(0));
    assert_eq!(lab.known_hosts().lines().count(), 2, "a restart keeps the host key");
    assert_eq!(lab.gorgo("terminate east --yes").code, Some(0));
    let left = lab.known_hosts();
    assert!(left.starts_with(ids[1]) && left.lines().count() == 1, "{left}");

    let mut behind_our_back = lab.command(&["terminate", ids[1], "--yes"]);
    behind_our_back.env("GORGO_STATE_DIR", lab.path("another-computer"));
    assert_eq!(super::ran(behind_our_back).code, Some(0));
    let gone = lab.gorgo("launch eu --type gpu_1x_a10 --region europe-central-1 --yes");
    assert!(gone.code == Some(2) && gone.err.contains("is gone, but the inventory still names it"), "{}", gone.err);
    assert_eq!(lab.gorgo("terminate eu --yes").code, Some(0));
    assert_eq!((lab.known_hosts().as_str(), lab.inventory().contains("eu")), ("", false));
}

#[test]
fn other_programs_get_to_a_machine_by_the_printed_entry() {
    let Some((lab, _, _)) = launched() else { return };
    let entry = lab.gorgo("ssh eu --print-config");
    assert!(entry.code == Some(0) && entry.out.starts_with("Host eu\n  HostName 127.0.0."), "{entry:?}");
    std::fs::write(lab.path("ssh_config"), &entry.out).expect("writes");
    let config = lab.path("ssh_config");
    let by_ssh = std::process::Command::new("ssh")
        .args(["-o", "BatchMode=yes", "-F"])
        .arg(config)
        .args(["eu", "echo", "there"])
        .output()
        .expect("ssh runs");
    assert_eq!(String::from_utf8_lossy(&by_ssh.stdout), "there\n", "{by_ssh:?}");
}

#[test]
fn another_host_key_than_the_given_one_ends_the_wait_at_once() {
    // One address only: the second launch has to get the one whose sshd runs, or none yet.
    let mut lab = Lab::new("--speed 2000 --address 127.0.0.2").with_key();
    let Some(port) = lab.prepare_sshd(&ADDRESSES) else { return };
    std::fs::write(lab.path("cuda"), "").expect("writes");
    lab.boot(ADDRESSES[0], port, &other_host_key(&lab));
    let launch = "launch east --type gpu_1x_a10 --region us-east-1 --yes --wait";
    let refused = lab.gorgo(launch);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("the host key of 127.0.0.2 is not the one that is known for"), "{}", refused.err);
    assert!(refused.err.contains("`--trust-first-key`"), "{}", refused.err);
    for command in ["ssh east -- true", "run east -- true"] {
        let ran = lab.gorgo(command);
        assert!(ran.code != Some(0) && ran.out.is_empty(), "{command}: {ran:?}");
    }
    assert_eq!(lab.gorgo("terminate east --yes").code, Some(0));
    assert_eq!(lab.known_hosts(), "");
    eventually("the address is free again", || {
        (lab.gorgo(&format!("{launch} --trust-first-key")).code == Some(0)).then_some(())
    });
    assert!(!lab.inventory().contains("host_key\""), "none was given");
    assert_eq!(lab.known_hosts().lines().count(), 1, "the first one is trusted from now on");
}

#[test]
fn machines_that_cannot_be_reached_say_why() {
    let Some((lab, _, _)) = launched() else { return };
    use std::os::unix::fs::PermissionsExt as _;
    let mode =
        |mode| std::fs::set_permissions(lab.path("client"), std::fs::Permissions::from_mode(mode)).expect("sets");
    mode(0o644);
    let open = lab.gorgo("run east -- true");
    assert_eq!(open.code, Some(1));
    let (error, hint) = open.err.split_once("\n\n").expect("an error and a hint");
    assert!(error.starts_with("error: east: the private key may be read by others, so ssh ignores it"), "{error}");
    assert_eq!(hint, format!("hint: `chmod 600 {}`\n", lab.path("client").display()));
    mode(0o600);
    let config = std::fs::read_to_string(lab.path("gorgo.toml")).expect("reads");
    let elsewhere =
        std::net::TcpListener::bind((ADDRESSES[0], 0)).and_then(|it| it.local_addr()).expect("a port").port();
    let wrong: Vec<String> = config
        .lines()
        .map(|line| if line.starts_with("port") { format!("port = {elsewhere}") } else { line.to_owned() })
        .collect();
    std::fs::write(lab.path("gorgo.toml"), wrong.join("\n")).expect("writes");
    let refused = lab.gorgo("run east -- true");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.starts_with("error: east: cannot reach 127.0.0.2"), "{}", refused.err);
    assert!(
        refused.err.ends_with("hint: is the machine still booting, and is this the right port?\n"),
        "{}",
        refused.err
    );
}

#[test]
fn an_interrupted_command_ends_at_once_and_says_what_goes_on() {
    let Some((lab, _, _)) = launched() else { return };
    let file = lab.path("began");
    let script = format!("echo > {}; exec sleep 50", file.display());
    let running = Running::start(&lab, "running", &["run", "--timeout", "60", "--", "sh", "-c", &script]);
    eventually("the command runs", || file.exists().then_some(()));
    running.signal("-INT");
    let ended = running.end();
    assert_eq!(ended.code, Some(130));
    assert!(ended.err.contains("what runs on a node already may go on there, at most 60 s"), "{}", ended.err);

    let waiting = Running::start(&lab, "waiting", &[&LAUNCH.split(' ').collect::<Vec<_>>()[..], &["--wait"]].concat());
    waiting.says("east: 3 of 3, GPU: CUDA error 802");
    waiting.signal("-INT");
    let ended = waiting.end();
    assert_eq!(ended.code, Some(130));
    assert!(ended.err.ends_with("the machines go on costing money: east, eu\n"), "{}", ended.err);
}
