//! `gorgo proxy keys …`: who may send requests. Works on the file; routers that use it follow within a second.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;

use super::super::Context;
use super::super::config_file::ConfigFile;
use super::super::exit::{Exit, Failure, Outcome};
use super::super::table::{Column, Table};
use crate::gateway::keys::file::{Grant, KeyEntry, KeyFile, change, read};
use crate::gateway::keys::token::Token;
use crate::model::date::iso;

/// The commands of `gorgo proxy keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a key and print it, this once; the file keeps its hash
    Add(AddArgs),
    /// List the keys, revoked ones included
    List(ListArgs),
    /// Take a key no more; requests that are on their way finish
    Revoke(RevokeArgs),
}

/// Which file.
#[derive(Debug, clap::Args)]
struct Place {
    /// File of the keys [default: `proxy.api_keys` of gorgo.toml]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Arguments of `gorgo proxy keys add`.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// Who gets it: letters, digits, `-`, `_`, `.` and `@`
    #[arg(value_name = "NAME")]
    name: String,
    /// Residency class of all requests with this key (repeatable; every class narrows)
    #[arg(long = "residency", value_name = "CLASS")]
    residency: Vec<String>,
    /// Class of service of all requests with this key, whatever they name themselves
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Check everything, make nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `gorgo proxy keys list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `gorgo proxy keys revoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// Whose
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    place: Place,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What people and programs are told of a key.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    name: &'a str,
    id: &'a str,
    residency: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    created: &'a str,
    revoked: Option<&'a str>,
    /// The key itself, right after it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn new(entry: &'a KeyEntry) -> Self {
        let KeyEntry { name, id, residency, class, created, revoked, .. } = entry;
        Self { name, id, residency, class: class.as_deref(), created, revoked: revoked.as_deref(), key: None }
    }
}

/// Every command.
pub(super) fn run(command: &Command, context: &Context) -> Outcome {
    match command {
        Command::Add(args) => add(args, context),
        Command::List(args) => list(args, context),
        Command::Revoke(args) => revoke(args, context),
    }
}

fn add(args: &AddArgs, context: &Context) -> Outcome {
    let path = args.place.path(context)?;
    known_classes(args, context)?;
    let grant = Grant { residency: args.residency.clone(), class: args.class.clone() };
    let token = Token::generate()?;
    let now = now();
    if args.dry_run {
        let mut file = if path.exists() { read(&path)? } else { KeyFile::default() };
        file.add(&args.name, &grant, &token, &now).map_err(Failure::usage)?;
        context.printer.data(format_args!("would add key `{}` to {}", args.name, path.display()))?;
        return Ok(Exit::Done);
    }
    let made = change(&path, |file| file.add(&args.name, &grant, &token, &now).cloned());
    let entry = made.map_err(Failure::usage)?;
    if args.json {
        context.printer.json(&Shown { key: Some(token.text().reveal()), ..Shown::new(&entry) })?;
    } else {
        context.printer.data(token.text().reveal())?;
    }
    context.printer.talk(format_args!(
        "key `{}` is in {}; it is shown here and never again",
        entry.name,
        path.display()
    ));
    Ok(Exit::Done)
}

fn list(args: &ListArgs, context: &Context) -> Outcome {
    let file = read(&args.place.path(context)?)?;
    let shown: Vec<Shown<'_>> = file.keys.iter().map(Shown::new).collect();
    if args.json {
        context.printer.json(&shown)?;
    } else {
        context.printer.data(rows(&shown))?;
    }
    Ok(Exit::Done)
}

fn rows(keys: &[Shown<'_>]) -> String {
    // Who has no classes need not read of any.
    let classes = keys.iter().any(|key| key.class.is_some());
    let columns = ["name", "id", "residency", "class", "created", "revoked"];
    let columns: Vec<Column> =
        columns.into_iter().filter(|name| classes || *name != "class").map(Column::Text).collect();
    let mut table = Table::new(&columns);
    for key in keys {
        let day = |date: &str| date.split_once('.').map_or(date, |(date, _)| date).to_owned();
        let residency = if key.residency.is_empty() { "-".to_owned() } else { key.residency.join(", ") };
        let revoked = key.revoked.map_or_else(|| "-".to_owned(), day);
        let class = classes.then(|| key.class.unwrap_or("-").to_owned());
        let first = [key.name.to_owned(), key.id.to_owned(), residency];
        table.row(first.into_iter().chain(class).chain([day(key.created), revoked]));
    }
    table.to_string()
}

fn revoke(args: &RevokeArgs, context: &Context) -> Outcome {
    let path = args.place.path(context)?;
    let mut file = read(&path)?;
    // Tried on a copy first: what is wrong with the name is told before anything is locked, and there is no file made by mistake.
    let nothing = |error| Failure { exit: Exit::NothingSuitable, error, hint: None };
    let entry = file.revoke(&args.name, &now()).map_err(nothing)?.clone();
    if args.dry_run {
        context.printer.data(format_args!("would revoke key `{}` in {}", args.name, path.display()))?;
        return Ok(Exit::Done);
    }
    let entry = change(&path, |file| file.revoke(&args.name, entry.revoked.as_deref().unwrap_or_default()).cloned())?;
    if args.json {
        context.printer.json(&Shown::new(&entry))?;
    }
    context.printer.talk(format_args!(
        "key `{}` is revoked; routers that use {} take it no more within a second",
        entry.name,
        path.display()
    ));
    Ok(Exit::Done)
}

impl Place {
    fn path(&self, context: &Context) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.file {
            return Ok(path.clone());
        }
        let file = ConfigFile::find(context.config.as_deref())?;
        let configured = file.document.file.proxy.api_keys.map(PathBuf::from);
        configured.ok_or_else(|| {
            let error = anyhow!("no file of API keys is named");
            Failure::usage(error).with_hint("add `api_keys = \"keys.toml\"` to [proxy] of gorgo.toml, or `--file FILE`")
        })
    }
}

/// Where there is a configuration, a class that it does not have would only make a key that nobody can use.
fn known_classes(args: &AddArgs, context: &Context) -> Result<(), Failure> {
    let file = ConfigFile::find(context.config.as_deref())?;
    if file.path.is_none() {
        return Ok(());
    }
    let check = |class: &String, table: &str, known: Vec<&str>| {
        if known.contains(&class.as_str()) {
            return Ok(());
        }
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(Failure::usage(anyhow!("no class `{class}` in {table} of {}; known classes: {known}", file.name())))
    };
    let (residency, slo) = (&file.document.file.residency, &file.document.file.slo.class);
    let residency = |class| check(class, "[residency]", residency.keys().map(String::as_str).collect());
    args.residency.iter().try_for_each(residency)?;
    args.class.iter().try_for_each(|class| check(class, "[slo.class]", slo.keys().map(String::as_str).collect()))
}

/// UTC.
#[expect(clippy::disallowed_methods, reason = "a key says when it was made; nothing is decided by it")]
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    iso(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Shown, rows};

    #[test]
    fn keys_are_listed_without_their_hashes() {
        let classes = ["eu".to_owned(), "medical".to_owned()];
        let keys = [
            Shown {
                name: "ann",
                id: "0123456789abcdef",
                residency: &classes,
                class: None,
                created: "2026-11-20T12:00:00.000000Z",
                revoked: None,
                key: None,
            },
            Shown {
                name: "bob",
                id: "1123456789abcdef",
                residency: &[],
                class: None,
                created: "2026-11-20T12:00:00.000000Z",
                revoked: Some("2026-11-21T12:00:00.000000Z"),
                key: None,
            },
        ];
        assert_snapshot!(rows(&keys), @r"
        NAME  ID                RESIDENCY    CREATED              REVOKED
        ann   0123456789abcdef  eu, medical  2026-11-20T12:00:00  -
        bob   1123456789abcdef  -            2026-11-20T12:00:00  2026-11-21T12:00:00
        ");
    }
}
