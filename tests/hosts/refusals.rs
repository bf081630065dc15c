//! Hosts that cannot be worked on as they are: each reason is told with a hint, what can be done is done, and the next run goes on.

use std::time::Duration;

use insta::assert_snapshot;

use super::SOON;
use super::harness::{Host, Hosts, wait_until};
use super::user::User;

/// One attempt to connect (ssh's 10 s, then 10 for the login), and as much again for a busy machine.
const CONNECT_BOUND: Duration = Duration::from_secs(40);

#[test]
fn a_host_that_is_not_fit_is_refused_with_a_hint() {
    let Some(hosts) = Hosts::start(2) else { return };
    let [first, second] = [&hosts.hosts()[0], &hosts.hosts()[1]];
    let user = User::new(&hosts.hosts()[..2]);
    user.does("cluster down --yes");
    sudo_asks_for_a_password(&hosts, first);
    the_clock_is_wrong(&hosts, &user, first);
    systemd_does_not_run(&hosts, &user, first);
    nothing_was_done(&hosts, first);
    the_disk_is_full(&hosts, &user, first);
    one_of_two_is_cut_off(&hosts, &user, second);
    user.does("cluster down --yes");
}

fn nothing_was_done(hosts: &Hosts, host: &Host) {
    assert!(hosts.succeeds(host, "! test -e /opt/gorgo && ! test -e /etc/gorgo && ! ls /etc/systemd/system/gorgo-*"));
}

fn sudo_asks_for_a_password(hosts: &Hosts, host: &Host) {
    hosts.say(
        host,
        "id ana >/dev/null 2>&1 || { sudo useradd --create-home --shell /bin/bash --groups sudo ana && sudo cp -r .ssh /home/ana/ \
         && sudo chown -R ana /home/ana/.ssh; }",
    );
    let ana = User::new(&[Host { user: "ana".to_owned(), ..host.clone() }]);
    assert_snapshot!(ana.gorgo("cluster setup").shown(), @"
    node1: looking at it
    warning: node1: sudo asks for a password
      hint: let the login user become root without one (`USER ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d/gorgo), or log in as root
    [1]
    ");
}

fn the_clock_is_wrong(hosts: &Hosts, user: &User, host: &Host) {
    // All hosts have this machine's clock; a `date` that comes first in sudo's path has another one.
    let wrong = r"printf '#!/bin/bash\necho $(($(/bin/date +%%s)+3600))000\n' | sudo install -m 0755 /dev/stdin /usr/local/bin/date";
    hosts.say(host, wrong);
    let shown = user.gorgo("cluster setup node1").shown();
    hosts.say(host, "sudo rm /usr/local/bin/date");
    let (before, after) = shown.split_once("its clock is 3").unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(before, "node1: looking at it\nwarning: node1: ");
    let (seconds, after) = after.split_once(" s ").unwrap_or_else(|| panic!("{shown}"));
    assert!(seconds.starts_with("59") || seconds.starts_with("60"), "{shown}");
    assert_snapshot!(after, @"
    ahead of this machine's
      hint: set the clocks by NTP (`sudo timedatectl set-ntp true`) on the one that is wrong
    [1]
    ");
}

fn systemd_does_not_run(hosts: &Hosts, user: &User, host: &Host) {
    hosts.say(host, "mkdir -p /tmp/empty && sudo mount --bind /tmp/empty /run/systemd");
    let shown = user.gorgo("cluster setup node1").shown();
    hosts.say(host, "sudo umount /run/systemd");
    assert_snapshot!(shown, @"
    node1: looking at it
    warning: node1: the machine does not run systemd, which supervises the services
      hint: use a distribution with systemd as its init, not a container, or `--provider local` for processes on this machine
    [1]
    ");
}

/// Where state goes it is seen before anything is done; where only the program goes, when the disk fills up.
fn the_disk_is_full(hosts: &Hosts, user: &User, host: &Host) {
    hosts.say(host, "sudo mkdir -p /var/lib/gorgo && sudo mount -t tmpfs -o size=8m full /var/lib/gorgo");
    let shown = user.gorgo("cluster setup node1").shown();
    hosts.say(host, "sudo umount /var/lib/gorgo");
    assert!(shown.contains("warning: node1: 0.0 GB are free on the disk of /var/lib, 0."), "{shown}");
    assert!(shown.contains("  hint: free some space (`df -h`") && shown.ends_with("[1]"), "{shown}");
    nothing_was_done(hosts, host);

    hosts.say(host, "sudo mkdir -p /opt/gorgo && sudo mount -t tmpfs -o size=8m full /opt/gorgo");
    let shown = user.gorgo("cluster setup node1").shown();
    let left = hosts.say(host, "find /opt/gorgo -type f");
    hosts.say(host, "sudo umount /opt/gorgo");
    let (_, told) = shown.split_once("warning: node1: failed to upload gorgo (").unwrap_or_else(|| panic!("{shown}"));
    let (_, told) = told.split_once("): ").unwrap_or_else(|| panic!("{shown}"));
    assert_snapshot!(told, @"
    node1: no space left on the disk that holds /opt/gorgo/bin/gorgo
      hint: free some space on the node (`df -h` shows where), then run the command again; nothing was replaced
    [1]
    ");
    assert_eq!(left, "", "no part of it stays");
    user.does("cluster setup node1");
}

/// The other one is set up all the same, within the time of one attempt to connect.
fn one_of_two_is_cut_off(hosts: &Hosts, user: &User, host: &Host) {
    user.does("cluster down --yes");
    hosts.cut(host);
    let ran = user.gorgo("cluster setup");
    hosts.heal(host);
    assert!(ran.took < CONNECT_BOUND, "{:?}", ran.took);
    assert_eq!(ran.code, Some(3), "{}", ran.shown());
    assert!(ran.err.contains(&format!("error: node2: cannot reach {}: ", host.address)), "{}", ran.err);
    assert!(ran.err.contains("\nhint: "), "{}", ran.err);
    wait_until("the host answers again", SOON, || hosts.succeeds(host, "true"));
    let rest = user.does("cluster setup").err;
    assert!(rest.contains("node2: ") && !rest.contains("node1: 1/"), "only what is left is done: {rest}");
}
