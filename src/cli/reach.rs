//! How to get onto a node: over SSH, with a host key that is known by the machine's id.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::anyhow;

use super::exit::{Exit, Failure};
use super::nodes::Node;
use super::provider::{Provider, Setup};
use super::state::expanded;
use crate::config::Login;
use crate::remote::local::LocalRemote;
use crate::remote::ssh::{SshRemote, SshSettings, SshTarget};
use crate::remote::{Remote, RemoteError};

/// Login of Lambda's images.
const LAMBDA_USER: &str = "ubuntu";

/// A node that commands can be run on.
pub(crate) fn remote(setup: &Setup, provider: &Provider, node: &Node) -> Result<Box<dyn Remote>, Failure> {
    if let Provider::Local(cloud) = provider {
        let gorgo = env::current_exe()?;
        let remote = LocalRemote::new(&node.name, &cloud.node_folder(&node.name), &gorgo).map_err(remote_failure)?;
        return Ok(Box::new(remote));
    }
    Ok(Box::new(SshRemote::new(target(setup, provider, node)?, settings(setup))))
}

/// Where a node is and who logs in there.
pub(crate) fn target(setup: &Setup, provider: &Provider, node: &Node) -> Result<SshTarget, Failure> {
    let login = &setup.fleet.login;
    match provider {
        Provider::Lambda(_) => rented(node, login),
        Provider::Local(_) => {
            let error = anyhow!("`{}` is a folder on this machine, not a machine to log in to", node.name);
            Err(Failure::usage(error).with_hint(format!("`gorgo run {} -- COMMAND` runs a command there", node.name)))
        }
        Provider::Hosts(hosts) => {
            let spec = hosts.specs().iter().find(|spec| spec.name == node.name);
            let spec = spec.ok_or_else(|| anyhow!("`{}` is not among [[provider.hosts]]", node.name))?;
            Ok(SshTarget {
                node: spec.name.clone(),
                address: spec.address.clone(),
                port: spec.port.or(login.port),
                user: spec.user.clone().or_else(|| login.user.clone()),
                key: spec.key.clone().or_else(|| key(login)),
                host_key_alias: spec.name.clone(),
                host_key: None,
            })
        }
    }
}

fn key(login: &Login) -> Option<PathBuf> {
    login.key.as_deref().map(expanded)
}

/// Addresses are used again by other machines, ids are not.
fn rented(node: &Node, login: &Login) -> Result<SshTarget, Failure> {
    let name = &node.name;
    let instance = node.instance.as_ref().filter(|_| node.is_there()).ok_or_else(|| Failure {
        exit: Exit::NothingSuitable,
        error: anyhow!("`{name}` has no machine"),
        hint: Some("`gorgo status` shows what the cluster has".to_owned()),
    })?;
    let address = instance.address.ok_or_else(|| Failure {
        exit: Exit::NothingSuitable,
        error: anyhow!("the machine of `{name}` has no address yet"),
        hint: Some("it gets one half a minute after its launch; `gorgo status` shows it".to_owned()),
    })?;
    Ok(SshTarget {
        node: name.clone(),
        address: address.to_string(),
        port: login.port,
        user: Some(login.user.clone().unwrap_or_else(|| LAMBDA_USER.to_owned())),
        key: key(login),
        host_key_alias: instance.id.to_string(),
        host_key: node.record.as_ref().and_then(|record| record.host_key.clone()),
    })
}

/// Known hosts belong to the cluster; control sockets need a short path.
pub(crate) fn settings(setup: &Setup) -> SshSettings {
    SshSettings::new(setup.cluster_folder().join("known_hosts"), control_dir(setup))
}

fn control_dir(setup: &Setup) -> PathBuf {
    if let Some(runtime) = env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        return PathBuf::from(runtime).join("gorgo");
    }
    // Whoever owns the state owns the sockets. Another user's folder of that name is refused when it is used.
    let owner = setup.state_dir.ancestors().find_map(|folder| fs::metadata(folder).ok()).map_or(0, |it| it.uid());
    env::temp_dir().join(format!("gorgo-{owner}"))
}

/// A node's error with its hint.
pub(crate) fn remote_failure(error: RemoteError) -> Failure {
    let hint = error.hint.clone();
    Failure { exit: Exit::Failed, error: error.into(), hint }
}
