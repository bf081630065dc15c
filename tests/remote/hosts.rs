//! The behaviours against real hosts with systemd, sudo and journald, where `scripts/test-hosts` has booted some.

use std::path::PathBuf;

use gorgo::remote::ssh::{SshRemote, SshSettings, SshTarget};
use gorgo::remote::{Remote, RemoteCommand, Source, Upload};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::conformance::{self, Place};
use super::support::{command, skipped, sockets, stdout};

#[derive(Deserialize)]
struct Inventory {
    hosts: Vec<Host>,
}

#[derive(Deserialize)]
struct Host {
    name: String,
    address: String,
    user: String,
    key: PathBuf,
}

/// The hosts that run, each with a folder for sockets and host keys; none, with a line that says so, without them.
fn hosts() -> Vec<(Host, TempDir)> {
    let Some(path) = std::env::var_os("GORGO_TEST_HOSTS") else {
        skipped("GORGO_TEST_HOSTS is not set; `scripts/test-hosts` boots hosts and sets it");
        return Vec::new();
    };
    let text = std::fs::read(&path).expect("the inventory of the test hosts can be read");
    let inventory: Inventory = serde_json::from_slice(&text).expect("an inventory of test hosts");
    inventory.hosts.into_iter().map(|host| (host, sockets())).collect()
}

fn remote(host: &Host, folder: &TempDir) -> SshRemote {
    let target = SshTarget {
        node: host.name.clone(),
        address: host.address.clone(),
        port: None,
        user: Some(host.user.clone()),
        key: Some(host.key.clone()),
        host_key_alias: host.name.clone(),
        host_key: None,
    };
    SshRemote::new(target, SshSettings::new(folder.path().join("known_hosts"), folder.path().to_owned()))
}

/// One test per behaviour, over all hosts.
macro_rules! on_real_hosts {
    ($($behaviour:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $behaviour() {
            for (host, folder) in hosts() {
                let remote = remote(&host, &folder);
                let scratch = stdout(&remote, &["mktemp", "-d"]).await.trim().to_owned();
                conformance::$behaviour(&Place { remote: &remote, folder: scratch.clone() }).await;
                stdout(&remote, &["rm", "-r", &scratch]).await;
            }
        }
    )+};
}

on_real_hosts!(commands, streams, limits, crowd, uploads, large_upload, replacement, full_disk, services, logs);

#[tokio::test]
async fn a_tunnel_reaches_the_hosts_own_loopback() {
    for (host, folder) in hosts() {
        let tunnel = remote(&host, &folder).forward(22).await.expect("a tunnel");
        let mut stream = TcpStream::connect(tunnel.address).await.expect("connects");
        let mut banner = [0; 8];
        stream.read_exact(&mut banner).await.expect("sshd speaks first");
        assert_eq!(&banner, b"SSH-2.0-", "{}", host.name);
    }
}

#[tokio::test]
async fn files_of_root_are_written_and_read_through_sudo() {
    for (host, folder) in hosts() {
        let remote = remote(&host, &folder);
        let path = format!("/etc/gorgo-test-{}/secret", std::process::id());
        let upload = Upload { source: Source::Bytes(b"s"), path: &path, mode: 0o600, root: true, keep_old: false };
        remote.put(&upload).await.expect("puts");
        assert_eq!(remote.get(&path).await.expect("reads as root"), b"s");
        let owner = RemoteCommand { sudo: true, ..command(&["stat", "-c", "%U %a", &path]) };
        assert_eq!(remote.run(&owner).await.expect("runs").stdout, b"root 600\n");
        let remove = RemoteCommand { sudo: true, ..command(&["rm", "-r", path.trim_end_matches("/secret")]) };
        assert!(remote.run(&remove).await.expect("runs").ok());
    }
}
