//! The admin API of the proxy or the agent on a node: which of the two, and the way to it.
//!
//! The API listens on loopback there. Over SSH a tunnel leads to it, for as long as the command runs; a local node is this machine.

use std::fmt;
use std::time::Duration;

use anyhow::anyhow;
use reqwest::Url;

use super::super::Context;
use super::super::exit::{Exit, Failure, Outcome};
use super::super::nodes::{look, no_such_node};
use super::super::provider::Setup;
use super::super::reach::{remote, remote_failure};
use super::stop;
use crate::cluster::layout::{Ports, Role};
use crate::remote::{Forward, Remote, ServiceAction};

/// Which node, and what on it.
#[derive(Debug, clap::Args)]
pub(super) struct Choice {
    /// Talk to the proxy on this node of the cluster, or to its agent where no proxy is
    #[arg(long, global = true, value_name = "NAME", help_heading = "On a node")]
    remote: Option<String>,
    /// With `--remote`: which of the two [default: the proxy, if there is one]
    #[arg(long, global = true, value_name = "SERVICE", value_parser = ["proxy", "agent"], help_heading = "On a node")]
    service: Option<String>,
}

/// The way to an admin API, open.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its end here.
    pub(crate) url: Url,
    node: String,
    role: Role,
}

/// A node with the service that is talked to.
pub(super) struct Place {
    node: String,
    role: Role,
    remote: Box<dyn Remote>,
    /// Closes the tunnel when dropped.
    _tunnel: Forward,
}

impl Choice {
    /// A node is meant, not this process's own surroundings.
    pub(super) fn is_named(&self) -> bool {
        self.remote.is_some() || self.service.is_some()
    }

    /// Finds out what runs there and opens the way to it.
    pub(super) async fn open(&self, context: &Context) -> Result<(Place, Route), Failure> {
        let Some(name) = &self.remote else {
            let error = anyhow!("`--service` says what on a node is meant, and no node is named");
            return Err(Failure::usage(error).with_hint("name it with `--remote NAME`"));
        };
        let setup = Setup::read(context)?;
        let provider = setup.provider()?;
        let nodes = look(&setup, &provider).await?;
        let found = nodes.iter().find(|node| node.name == *name);
        let names = nodes.iter().map(|node| node.name.as_str());
        let node = found.ok_or_else(|| no_such_node(&setup.fleet.cluster, name, names))?;
        let ports = node.instance.as_ref().map_or_else(Ports::default, |instance| Ports::from_tags(&instance.tags));
        let remote = remote(&setup, &provider, node)?;
        let role = self.role(name, remote.as_ref()).await?;
        context.printer.talk(format_args!("{name}: {role}"));
        let tunnel = remote.forward(ports.control(role)).await.map_err(remote_failure)?;
        let url = Url::parse(&format!("http://{}", tunnel.address))?;
        let place = Place { node: name.clone(), role, remote, _tunnel: tunnel };
        Ok((place, Route { url, node: name.clone(), role }))
    }

    /// The service that is meant: installed there, and running.
    async fn role(&self, node: &str, remote: &dyn Remote) -> Result<Role, Failure> {
        let meant = [Role::Proxy, Role::Agent].into_iter();
        let meant = meant.filter(|role| self.service.as_deref().is_none_or(|name| name == role.name()));
        for role in meant {
            let state = remote.service(role.unit(), &ServiceAction::Status).await.map_err(remote_failure)?;
            if state.running {
                return Ok(role);
            }
            if state.installed {
                let error = anyhow!("{} is installed on `{node}` and does not run", role.unit());
                let hint = format!("`gorgo cluster logs {node} --service {role}` may tell why; {}", revive(role, node));
                return Err(Failure::from(error).with_hint(hint));
            }
        }
        let what =
            self.service.as_deref().map_or_else(|| "neither proxy nor agent".to_owned(), |it| format!("no {it}"));
        let role = if self.service.as_deref() == Some(Role::Agent.name()) { Role::Agent } else { Role::Proxy };
        let hint = Some(revive(role, node));
        Err(Failure { exit: Exit::NothingSuitable, error: anyhow!("`{node}` has {what}"), hint })
    }
}

/// What brings a service to a node.
fn revive(role: Role, node: &str) -> String {
    match role {
        Role::Proxy => format!("`gorgo proxy deploy {node}` puts one there and starts it"),
        Role::Agent | Role::Engine => format!("`gorgo cluster setup {node}` installs and starts it"),
    }
}

impl Route {
    /// What to try when nobody answers.
    pub(crate) fn hint(&self) -> String {
        format!("`gorgo cluster logs {} --service {}` may tell why", self.node, self.role)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} on `{}`", self.role, self.node)
    }
}

impl Place {
    /// Stops the service: one that was only asked to end would be started again by its supervisor.
    pub(super) async fn stop(&self, args: &stop::Args, context: &Context) -> Outcome {
        let (unit, node) = (self.role.unit(), &self.node);
        if args.write.dry_run {
            context.printer.data(format_args!("stop {unit} on {node}"))?;
            return Ok(Exit::Done);
        }
        context.printer.talk(format_args!("{unit} on `{node}` finishes what is in flight and stops"));
        let stop = self.remote.service(unit, &ServiceAction::Stop);
        let Ok(state) = tokio::time::timeout(Duration::from_secs_f64(args.wait), stop).await else {
            return Err(Failure::from(anyhow!("{unit} on `{node}` still runs after {} s", args.wait))
                .with_hint("its longest request decides when it ends; wait longer with `--wait SECONDS`"));
        };
        let state = state.map_err(remote_failure)?;
        if args.write.json {
            context.printer.json(&state)?;
        }
        context.printer.talk(format_args!("stopped; {}", revive(self.role, node)));
        Ok(Exit::Done)
    }
}
