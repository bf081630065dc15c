//! Commands for the rest of a Lambda account: SSH keys, firewall, file systems, images. Other providers have none of these.

pub(crate) mod filesystems;
pub(crate) mod firewall;
pub(crate) mod images;
mod rules;
pub(crate) mod ssh_keys;
pub(crate) mod sync;

use anyhow::anyhow;
use serde::Serialize;
use serde_json::json;

use super::Context;
use super::consent::{Consent, Go};
use super::exit::{Exit, Failure, Outcome};
use super::provider::cloud_failure;
use super::table::Table;
use crate::cloud::CloudError;

/// Options of commands that only read.
#[derive(Debug, clap::Args)]
pub(crate) struct Read {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of commands that delete things of the account.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

/// A kind of thing that an account has many of, each with an id and a name.
trait Thing: Serialize {
    /// What one is called in messages.
    const NOUN: &'static str;
    /// What all are called in JSON.
    const KEY: &'static str;
    /// What to say when there are none.
    const NONE: &'static str;

    fn id(&self) -> &str;
    fn name(&self) -> &str;
    /// What would be lost with it, on a line.
    fn loss(&self) -> String;
    fn table(all: &[Self]) -> Table
    where
        Self: Sized;
}

/// Shows all of them.
fn list<T: Thing>(args: &Read, all: &[T], context: &Context) -> Outcome {
    if args.json {
        context.printer.json(&json!({ T::KEY: all }))?;
    } else if all.is_empty() {
        context.printer.talk(T::NONE);
    } else {
        context.printer.data(T::table(all))?;
    }
    Ok(Exit::Done)
}

/// Deletes those that are named, after a yes; every one is tried. Exit code 3 if some could not be, 1 or 2 if none could.
async fn delete<T: Thing>(
    args: &Delete,
    all: &[T],
    end: impl AsyncFn(&str) -> Result<(), CloudError>,
    context: &Context,
) -> Outcome {
    let doomed = named(T::NOUN, &args.names, all, |it| (it.id(), it.name()))?;
    let lines: Vec<String> = doomed.iter().map(|it| it.loss()).collect();
    if args.consent.ask(&context.printer, &lines.join("\n"), "delete all that?")? == Go::NoFurther {
        return Ok(Exit::Done);
    }
    let mut left = Vec::new();
    for it in &doomed {
        match end(it.id()).await {
            Ok(()) => context.printer.talk(format_args!("deleted {}", it.name())),
            Err(error) => left.push(cloud_failure(error)),
        }
    }
    let some_are_gone = left.len() < doomed.len();
    let Some(last) = left.pop() else { return Ok(Exit::Done) };
    left.iter().for_each(|failure| context.printer.failure(failure));
    if some_are_gone {
        context.printer.failure(&last);
        return Ok(Exit::Partly);
    }
    Err(last)
}

/// The things that `wanted` name, by id or by name. A name that several have, or none, is refused.
fn named<'a, T>(
    what: &str,
    wanted: &[String],
    all: &'a [T],
    id_and_name: impl Fn(&'a T) -> (&'a str, &'a str),
) -> Result<Vec<&'a T>, Failure> {
    let mut found: Vec<&T> = Vec::new();
    for text in wanted {
        let by_id = all.iter().find(|it| id_and_name(it).0 == text);
        let by_name: Vec<&T> = all.iter().filter(|it| id_and_name(it).1 == text).collect();
        let one = match (by_id, by_name.as_slice()) {
            (Some(one), _) => one,
            (None, [one]) => one,
            (None, []) => return Err(missing(what, text, all.iter().map(|it| id_and_name(it).1))),
            (None, several) => {
                let ids: Vec<&str> = several.iter().map(|it| id_and_name(it).0).collect();
                let error = anyhow!("{} {what}s are called `{text}`", several.len());
                return Err(Failure::usage(error).with_hint(format!("name one by its id: {}", ids.join(", "))));
            }
        };
        if !found.iter().any(|it| id_and_name(it).0 == id_and_name(one).0) {
            found.push(one);
        }
    }
    Ok(found)
}

fn missing<'a>(what: &str, text: &str, names: impl Iterator<Item = &'a str>) -> Failure {
    let names: Vec<&str> = names.collect();
    let known = if names.is_empty() { "there are none".to_owned() } else { format!("there are: {}", names.join(", ")) };
    Failure { exit: Exit::NothingSuitable, error: anyhow!("no {what} called `{text}`"), hint: Some(known) }
}

#[cfg(test)]
mod tests {
    use super::named;
    use crate::cli::Exit;

    #[test]
    fn things_are_named_by_id_or_by_a_name_that_only_one_has() {
        let all = [("1", "a"), ("2", "b"), ("3", "b"), ("a", "c")];
        let find = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|it| (*it).to_owned()).collect();
            let found = named("key", &wanted, &all, |it| (it.0, it.1));
            found
                .map(|found| found.iter().map(|it| it.0).collect::<Vec<_>>().join(" "))
                .map_err(|it| (it.exit, it.to_string()))
        };
        assert_eq!(find(&["1", "3", "c", "1"]), Ok("1 3 a".to_owned()));
        assert_eq!(find(&["a"]), Ok("a".to_owned()), "an id comes before a name");
        let twice = "error: 2 keys are called `b`\n\nhint: name one by its id: 2, 3".to_owned();
        assert_eq!(find(&["b"]), Err((Exit::Usage, twice)));
        let none = "error: no key called `x`\n\nhint: there are: a, b, b, c".to_owned();
        assert_eq!(find(&["1", "x"]), Err((Exit::NothingSuitable, none)));
    }
}
