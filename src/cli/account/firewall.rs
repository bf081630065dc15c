//! `gorgo firewall list|replace|sync`: inbound rules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use serde_json::json;

use super::Read;
use super::rules::{difference, lets_ssh_in, rule, shown};
use super::sync::{self, Sync};
use crate::cli::Context;
use crate::cli::consent::{Consent, Go};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::provider::{Setup, cloud_failure};
use crate::cli::table::{Column, Table};
use crate::cloud::lambda::LambdaCloud;
use crate::cloud::lambda::wire::{FirewallRule, Ruleset};

/// The commands of `gorgo firewall`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the account's own rules and every ruleset
    List(Read),
    /// Replace the rules of the whole account, those of others too
    Replace(Replace),
    /// Open exactly what the cluster needs, in rulesets of its own
    Sync(Sync),
}

/// Arguments of `gorgo firewall replace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Replace {
    /// A rule from now on (repeatable): `PROTOCOL:PORTS:SOURCE`, or with `:TEXT` behind it, e.g. tcp:22:0.0.0.0/0:ssh
    #[arg(long = "rule", value_name = "RULE", value_parser = rule)]
    rules: Vec<FirewallRule>,
    /// A file with the rules from now on, as `gorgo firewall list --json` prints them under `rules`
    #[arg(long, value_name = "FILE", conflicts_with = "rules", required_unless_present = "rules")]
    file: Option<PathBuf>,
    /// Accept rules that let nobody in over SSH
    #[arg(long)]
    without_ssh: bool,
    #[command(flatten)]
    consent: Consent,
}

/// Every command and where it lives.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let provider = setup.provider()?;
    let cloud = provider.lambda("firewall")?;
    match command {
        Command::List(args) => list(&args, cloud, context).await,
        Command::Replace(args) => replace(args, cloud, context).await,
        Command::Sync(args) => sync::run(args, &setup, &provider, context).await,
    }
}

async fn list(args: &Read, cloud: &LambdaCloud, context: &Context) -> Outcome {
    let rules = cloud.firewall_rules().await.map_err(cloud_failure)?;
    let rulesets = cloud.rulesets().await.map_err(cloud_failure)?;
    if args.json {
        context.printer.json(&json!({ "rules": rules, "rulesets": rulesets }))?;
    } else if rules.is_empty() && rulesets.iter().all(|it| it.rules.is_empty()) {
        context.printer.talk("no rules: nothing gets in");
    } else {
        context.printer.data(table(&rules, &rulesets))?;
    }
    Ok(Exit::Done)
}

fn table(rules: &[FirewallRule], rulesets: &[Ruleset]) -> Table {
    let columns = ["ruleset", "region", "protocol", "ports", "source", "text"].map(Column::Text);
    let mut table = Table::new(&columns);
    let mut rows = |name: &str, region: &str, rules: &[FirewallRule]| {
        for rule in rules {
            let ports = rule.port_range.map_or_else(|| "-".to_owned(), |range| range.to_string());
            let (protocol, source) = (rule.protocol.to_string(), rule.source_network.clone());
            table.row([name.to_owned(), region.to_owned(), protocol, ports, source, rule.description.clone()]);
        }
    };
    rows("(account)", "all but us-south-1", rules);
    for ruleset in rulesets {
        rows(&ruleset.name, ruleset.region.name.as_str(), &ruleset.rules);
    }
    table
}

async fn replace(args: Replace, cloud: &LambdaCloud, context: &Context) -> Outcome {
    let then = match &args.file {
        Some(path) => read(path)?,
        None => args.rules,
    };
    if !args.without_ssh && !lets_ssh_in(&then) {
        let error = anyhow!("none of the rules lets anybody in over SSH: no machine could be reached any more");
        return Err(Failure::usage(error)
            .with_hint("add e.g. `--rule tcp:22:0.0.0.0/0:ssh`, or `--without-ssh` if that is what you want"));
    }
    let now = cloud.firewall_rules().await.map_err(cloud_failure)?;
    let lines = difference(&now, &then);
    if lines.iter().all(|line| line.starts_with("  ")) {
        context.printer.talk("these are the rules already");
        return Ok(Exit::Done);
    }
    let plan = format!("rules of the whole account, whoever made them:\n{}", lines.join("\n"));
    if args.consent.ask(&context.printer, &plan, "replace them?")? == Go::NoFurther {
        return Ok(Exit::Done);
    }
    let rules = cloud.replace_firewall_rules(then).await.map_err(cloud_failure)?;
    context.printer.talk(format_args!("{} rules from now on", rules.len()));
    Ok(Exit::Done)
}

/// Each rule of a file is checked as one of the command line is.
fn read(path: &Path) -> Result<Vec<FirewallRule>, Failure> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the rules in `{}`", path.display()));
    let rules: Vec<FirewallRule> = serde_json::from_str(&text.map_err(Failure::usage)?)
        .with_context(|| format!("`{}` is not a list of rules", path.display()))
        .map_err(|error| {
            Failure::usage(error).with_hint(
                r#"wanted e.g. [{"protocol": "tcp", "port_range": [22, 22], "source_network": "0.0.0.0/0", "description": "ssh"}]"#,
            )
        })?;
    for (i, it) in rules.iter().enumerate() {
        rule(&shown(it)).map_err(|why| Failure::usage(anyhow!("rule {} in `{}`: {why}", i + 1, path.display())))?;
    }
    Ok(rules)
}
