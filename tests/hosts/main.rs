//! Real hosts with systemd, sshd and sudo, as `scripts/test-hosts` boots them, and clusters on them. Opt-in:
//! `GORGO_TEST_HOSTS=up cargo test --test hosts`. Every third host has an old glibc: for a cluster with that one, set
//! `GORGO_TEST_BINARY` to what `scripts/release --for-tests` prints.

#[path = "../bounded/mod.rs"]
mod bounded;
mod cluster;
mod crash;
mod failures;
mod harness;
mod load;
mod operations;
mod refusals;
#[path = "../units/render.rs"]
mod render;
mod spans;
mod traffic;
mod user;

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::Duration;

use harness::{Host, Hosts, script, wait_until};

/// Bound of what takes a second or two on an idle machine.
const SOON: Duration = Duration::from_secs(60);

/// A service that stands for any: restarted by systemd, enabled at boot.
const SERVICE: &str =
    "[Service]\\nExecStart=/bin/sleep 10000\\nRestart=always\\n[Install]\\nWantedBy=multi-user.target\\n";

#[test]
fn hosts_are_whole_and_can_be_broken() {
    let Some(hosts) = Hosts::start(3) else { return };
    let [first, second, old] = hosts.hosts() else { panic!("three hosts") };
    are_distinct_systems(&hosts);
    accept_the_units(&hosts);
    has_the_trap_of_name_services(&hosts, old);
    restarts_what_is_killed(&hosts, first);
    is_unreachable_while_cut(&hosts, second);
    comes_back_after_a_reboot(&hosts, first);
}

fn are_distinct_systems(hosts: &Hosts) {
    let mut identities = BTreeSet::new();
    for host in hosts.hosts() {
        // SSH answers before the boot is over, and `--wait` fails while D-Bus is not up yet
        let running = || hosts.succeeds(host, "systemctl is-system-running");
        wait_until(&format!("{} runs without a failed unit", host.name), SOON, running);
        assert_eq!(hosts.say(host, "hostname"), host.name);
        assert_eq!(hosts.say(host, "sudo -n id -un 2>&1"), "root");
        assert_eq!(hosts.say(host, ". /etc/os-release; echo $VERSION_CODENAME"), host.distribution);
        assert!(Path::new("/sys/class/net").join(&host.interface).exists(), "{}", host.interface);
        identities.insert(hosts.say(host, "cat /etc/machine-id"));
        identities.insert(hosts.say(host, "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub"));
    }
    assert_eq!(identities.len(), 2 * hosts.hosts().len(), "a machine id and a host key for each");
}

/// The oldest systemd among them is 247: it must know every key of the units.
fn accept_the_units(hosts: &Hosts) {
    for host in hosts.hosts() {
        for (form, file, text) in render::samples() {
            let text = text.replace('\'', "'\\''");
            let line = format!(
                "mkdir -p units && printf %s '{text}' >units/{file} && systemd-analyze verify --man=no units/{file} 2>&1"
            );
            let said = hosts.say(host, &line);
            // docker is not installed on them
            let complaint = said.lines().find(|line| line.contains("gorgo-") && !line.contains("docker.service"));
            assert_eq!(complaint, None, "{form} on {} ({})", host.name, host.distribution);
        }
    }
}

fn has_the_trap_of_name_services(hosts: &Hosts, old: &Host) {
    assert_eq!(old.distribution, "bullseye");
    assert_eq!(hosts.say(old, "grep ^hosts: /etc/nsswitch.conf"), "hosts: files myhostname dns");
    assert!(hosts.succeeds(old, "ls /usr/lib/*/libnss_myhostname.so.2"));
}

fn restarts_what_is_killed(hosts: &Hosts, host: &Host) {
    let install = format!(
        "printf '{SERVICE}' | sudo tee /etc/systemd/system/sample.service && sudo systemctl enable --now sample 2>&1"
    );
    hosts.say(host, &install);
    hosts.say(host, "sudo kill -9 $(systemctl show --property MainPID --value sample)");
    wait_until("systemd has restarted the service", SOON, || {
        hosts.say(host, "systemctl show --property NRestarts --value sample") == "1"
            && hosts.succeeds(host, "systemctl is-active sample")
    });
    assert!(hosts.say(host, "sudo journalctl --no-pager --unit sample").contains("status=9/KILL"));
}

fn is_unreachable_while_cut(hosts: &Hosts, host: &Host) {
    hosts.cut(host);
    assert_eq!(hosts.ssh(host, "true").status.code(), Some(255));
    hosts.heal(host);
    wait_until("the host answers again", SOON, || hosts.succeeds(host, "true"));
}

fn comes_back_after_a_reboot(hosts: &Hosts, host: &Host) {
    let before = hosts.say(host, "cat /etc/machine-id");
    hosts.restart(host);
    wait_until("the enabled service runs again", SOON, || hosts.succeeds(host, "systemctl is-active sample"));
    let after = hosts.say(host, "cat /etc/machine-id");
    assert_eq!(before, after, "its files stay");
}

#[test]
fn a_panic_takes_the_hosts_down() {
    let Some(hosts) = Hosts::start(1) else { return };
    let run = hosts.run().to_owned();
    if !run.starts_with("test-") {
        println!("skipped: the hosts of GORGO_TEST_HOSTS are somebody else's");
        return;
    }
    let died = panic::catch_unwind(AssertUnwindSafe(|| {
        assert!(hosts.succeeds(&hosts.hosts()[0], "true"));
        let _guard = hosts;
        panic!("on purpose");
    }));
    assert_eq!(died.expect_err("the panic").downcast_ref(), Some(&"on purpose"));
    let status = script(&run).arg("status").output().expect("scripts/test-hosts can be run");
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stderr).contains("no hosts of run"));
}
