//! `gorgo config check|show|schema`.

use clap::Subcommand;
use serde_json::json;

use super::Context;
use super::config_file::ConfigFile;
use super::exit::{Exit, Failure, Outcome};
use super::table::{Column, Table};
use crate::config::resolve::Setting;
use crate::config::{Flags, Problem, Problems, fleet, resolve, schema};

/// The commands of `gorgo config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List everything that is wrong with the configuration
    Check(Read),
    /// Show every value that applies, and where it comes from
    Show(Read),
    /// Print the JSON schema of gorgo.toml, with the meaning of every key
    Schema,
}

/// Options of commands that read.
#[derive(Debug, clap::Args)]
pub(crate) struct Read {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Every command and where it lives.
pub(crate) fn run(command: &Command, context: &Context) -> Outcome {
    match command {
        Command::Check(args) => check(args.json, context),
        Command::Show(args) => show(args.json, context),
        Command::Schema => context.printer.json(&schema()).map(|()| Exit::Done),
    }
}

/// Exit code 2 if anything is wrong.
fn check(json: bool, context: &Context) -> Outcome {
    let file = ConfigFile::find(context.config.as_deref())?;
    let mut problems = file.problems.clone();
    problems.extend(resolve(&file.document, &Flags::default()).1);
    problems.extend(fleet(&file.document, context.provider).1);
    problems.sort_by_key(|problem| problem.line);
    if json {
        context
            .printer
            .json(&json!({ "file": file.path, "problems": problems.iter().map(entry).collect::<Vec<_>>() }))?;
        return Ok(if problems.is_empty() { Exit::Done } else { Exit::Usage });
    }
    Problems::or(problems, ()).map_err(|problems| Failure::usage(anyhow::Error::new(problems).context(file.name())))?;
    context.printer.data(format_args!("{}: no problems", file.name()))?;
    Ok(Exit::Done)
}

fn entry(problem: &Problem) -> serde_json::Value {
    json!({ "key": problem.place, "line": problem.line, "message": problem.message })
}

/// What applies without flags; problems are `check`'s.
fn show(json: bool, context: &Context) -> Outcome {
    let file = ConfigFile::find(context.config.as_deref())?;
    let (of_fleet, mut problems) = fleet(&file.document, context.provider);
    let (resolved, of_proxy) = resolve(&file.document, &Flags::default());
    problems.extend(of_proxy);
    problems.extend(file.problems.clone());
    let all = [of_fleet.settings, resolved.settings].concat();
    if json {
        context.printer.json(&json!({ "file": file.path, "settings": all }))?;
    } else {
        context.printer.talk(format_args!("file: {}", file.name()));
        context.printer.data(settings(&all))?;
    }
    if !problems.is_empty() {
        context.printer.warn(format_args!("{} problems; `gorgo config check` lists them", problems.len()));
    }
    Ok(Exit::Done)
}

/// One value per line.
pub(crate) fn settings(settings: &[Setting]) -> Table {
    let mut table = Table::new(&[Column::Text("key"), Column::Text("value"), Column::Text("from")]);
    for setting in settings {
        let value = if setting.value.is_null() { "-".to_owned() } else { setting.value.to_string() };
        table.row([setting.key.clone(), value, setting.origin.to_string()]);
    }
    table
}
