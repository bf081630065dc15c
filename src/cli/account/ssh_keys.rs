//! `gorgo ssh-keys list|add|delete`: public halves that machines get at launch.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;

use super::{Delete, Read, Thing, delete, list};
use crate::cli::Context;
use crate::cli::consent::{Consent, Go};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::provider::{Setup, cloud_failure};
use crate::cli::table::{Column, Table};
use crate::cloud::lambda::LambdaCloud;
use crate::cloud::lambda::wire::{AddSshKey, SshKey};

/// Longest public key that Lambda takes, characters.
const LONGEST_KEY: usize = 4096;

/// The commands of `gorgo ssh-keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List them
    List(Read),
    /// Store the public half of a key of yours
    Add(Add),
    /// Forget keys; machines that have them keep them
    Delete(Delete),
}

/// Arguments of `gorgo ssh-keys add`.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// File with the public half, e.g. ~/.ssh/id_ed25519.pub
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// Its name in the account [default: the file's name without .pub]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

/// Every command and where it lives.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    let provider = Setup::read(context)?.provider()?;
    let cloud = provider.lambda("ssh-keys")?;
    match command {
        Command::List(args) => list(&args, &cloud.ssh_keys().await.map_err(cloud_failure)?, context),
        Command::Add(args) => add(&args, cloud, context).await,
        Command::Delete(args) => {
            let all = cloud.ssh_keys().await.map_err(cloud_failure)?;
            delete(&args, &all, async |id| cloud.delete_ssh_key(id).await, context).await
        }
    }
}

impl Thing for SshKey {
    const NOUN: &'static str = "SSH key";
    const KEY: &'static str = "ssh_keys";
    const NONE: &'static str = "no SSH keys; `gorgo ssh-keys add FILE` stores one";

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn loss(&self) -> String {
        format!("forget the SSH key `{}`: {}", self.name, short(&self.public_key))
    }

    fn table(all: &[Self]) -> Table {
        let mut table = Table::new(&["name", "id", "key"].map(Column::Text));
        for key in all {
            table.row([key.name.clone(), key.id.clone(), short(&key.public_key)]);
        }
        table
    }
}

/// Kind, the end of the key, comment: enough to tell keys apart.
fn short(public_key: &str) -> String {
    let mut words = public_key.split_whitespace();
    let (kind, body) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let end: String = body.chars().skip(body.chars().count().saturating_sub(12)).collect();
    let comment: Vec<&str> = words.collect();
    format!("{kind} …{end} {}", comment.join(" ")).trim_end().to_owned()
}

/// The parts of a public key that make two the same: kind and body.
pub(crate) fn essence(public_key: &str) -> Vec<&str> {
    public_key.split_whitespace().take(2).collect()
}

async fn add(args: &Add, cloud: &LambdaCloud, context: &Context) -> Outcome {
    let public_key = read(&args.path)?;
    let stem = args.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = args.name.clone().or(stem).unwrap_or_default();
    let stored = cloud.ssh_keys().await.map_err(cloud_failure)?;
    if let Some(same) = stored.iter().find(|key| essence(&key.public_key) == essence(&public_key)) {
        context.printer.talk(format_args!("stored already as `{}`", same.name));
        context.printer.data(&same.id)?;
        return Ok(Exit::Done);
    }
    if stored.iter().any(|key| key.name == name) {
        let error = anyhow!("the name `{name}` is taken by another key");
        return Err(Failure::usage(error).with_hint("choose one with `--name`"));
    }
    let plan = format!("store `{name}`, whose owner gets into machines launched with it: {}", short(&public_key));
    if args.consent.ask(&context.printer, &plan, "store it?")? == Go::NoFurther {
        return Ok(Exit::Done);
    }
    let added = cloud.add_ssh_key(&AddSshKey { name, public_key: Some(public_key) }).await.map_err(cloud_failure)?;
    context.printer.talk(format_args!("stored `{}`", added.key.name));
    context.printer.data(added.key.id)?;
    Ok(Exit::Done)
}

/// One line of a public key; a private one is refused before it goes anywhere.
fn read(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the public key `{shown}`"));
    public(&text.map_err(Failure::usage)?)
        .map_err(|(what, hint)| Failure::usage(anyhow!("`{shown}` {what}")).with_hint(hint))
}

fn public(text: &str) -> Result<String, (&'static str, &'static str)> {
    let text = text.trim();
    if text.contains("PRIVATE KEY") {
        return Err(("holds a private key, which belongs to nobody but you", "name the file that ends in .pub"));
    }
    let known = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|kind| text.starts_with(kind));
    if !known || text.lines().count() != 1 || text.split_whitespace().count() < 2 || text.len() > LONGEST_KEY {
        return Err((
            "is not the public half of an SSH key",
            "`ssh-keygen -t ed25519` makes a pair; name the file that ends in .pub",
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{essence, public, short};

    #[test]
    fn only_public_keys_go_out() {
        let good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIabc me@host\n";
        assert_eq!(public(good).as_deref(), Ok(good.trim()));
        let cases = [
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n",
            "",
            "hello world",
            "ssh-ed25519",
            "ssh-ed25519 AAAA a\nssh-ed25519 BBBB b",
        ];
        for text in cases {
            assert!(public(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_told_apart_by_their_end() {
        let text = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIabcdefghijkl me@host";
        assert_eq!(short(text), "ssh-ed25519 …abcdefghijkl me@host");
        assert_eq!(short("ssh-rsa AAA"), "ssh-rsa …AAA");
        assert_eq!(essence(text), essence("ssh-ed25519  AAAAC3NzaC1lZDI1NTE5AAAAIabcdefghijkl other"));
    }
}
