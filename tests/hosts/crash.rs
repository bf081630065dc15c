//! gorgo dies in the middle of a set-up: the next one takes it up, and nothing half-written is used.

use std::process::Stdio;

use super::SOON;
use super::harness::{Host, Hosts, wait_until};
use super::load::complete;
use super::user::{User, ran};

/// Boundaries of steps, from 1: before and after each. In the folders, the upload, the engine's unit, its start, the record of it, the
/// agent's unit, its start, and the last record.
const BOUNDARIES: [u32; 9] = [2, 3, 4, 8, 10, 13, 17, 20, 24];

#[test]
fn a_set_up_that_dies_anywhere_is_taken_up() {
    let Some(hosts) = Hosts::start(1) else { return };
    let host = &hosts.hosts()[0];
    let user = User::new(&hosts.hosts()[..1]);
    for boundary in BOUNDARIES {
        user.does("cluster down --yes");
        let mut command = user.command("cluster setup");
        command.env("GORGO_CRASH_AT", boundary.to_string());
        assert_eq!(ran(command).code, None, "it dies by a signal at boundary {boundary}");
        nothing_is_half_written(&hosts, host);
        converges(&user, host);
    }
    user.does("cluster down --yes");
    dies_in_the_upload(&user, &hosts, host);
    nothing_is_half_written(&hosts, host);
    converges(&user, host);
    user.does("cluster down --yes");
}

fn dies_in_the_upload(user: &User, hosts: &Hosts, host: &Host) {
    // Slow enough to be met: the reader of the upload is stopped as soon as it is there.
    let mut gorgo = user.command("cluster setup").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    wait_until("the upload has begun", SOON, || {
        hosts.succeeds(host, "ls /opt/gorgo/bin/.gorgo-put.* && sudo pkill -STOP -u root -x cat")
    });
    gorgo.kill().expect("kill -9");
    gorgo.wait().expect("a child of ours");
    hosts.say(host, "sudo pkill -CONT -u root -x cat; true");
    wait_until("the node has given up the upload", SOON, || hosts.succeeds(host, "! ls /opt/gorgo/bin/.gorgo-put.*"));
    assert!(hosts.succeeds(host, "! test -e /opt/gorgo/bin/gorgo"), "a part of the program has no name");
}

/// The program is there as a whole or not at all, and what runs is it.
fn nothing_is_half_written(hosts: &Hosts, host: &Host) {
    let program = hosts.say(host, "if test -e /opt/gorgo/bin/gorgo; then /opt/gorgo/bin/gorgo version; fi");
    assert!(program.is_empty() || program.starts_with("gorgo "), "{program}");
    assert!(hosts.succeeds(
        host,
        "! ls /opt/gorgo/bin/.gorgo-put.* /etc/gorgo/.gorgo-put.* /etc/systemd/system/.gorgo-put.* 2>/dev/null"
    ));
    assert_eq!(hosts.say(host, "systemctl list-units --failed --no-legend 'gorgo-*'"), "");
}

fn converges(user: &User, host: &Host) {
    user.does("cluster setup");
    complete(&host.address, "hello", 4, false).expect("it serves");
    let again = user.does("cluster setup");
    assert!(again.err.contains("nothing to do"), "{}", again.err);
}
