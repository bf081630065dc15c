//! `gorgo filesystems list|create|delete`.

use clap::Subcommand;

use super::{Delete, Read, Thing, delete, list};
use crate::cli::consent::{Consent, Go};
use crate::cli::exit::{Exit, Outcome};
use crate::cli::provider::{Setup, cloud_failure};
use crate::cli::table::{Column, Table};
use crate::cli::{Context, human};
use crate::cloud::lambda::LambdaCloud;
use crate::cloud::lambda::wire::{CreateFilesystem, Filesystem};
use crate::model::Region;

/// The commands of `gorgo filesystems`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List them
    List(Read),
    /// Make one; it costs money by the gigabyte until it is deleted
    Create(Create),
    /// Delete them with all their content
    Delete(Delete),
}

/// Arguments of `gorgo filesystems create`.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Its name: a letter, then letters, digits and dashes, 60 at most
    name: String,
    /// Where; only machines there can use it
    #[arg(long, value_name = "REGION")]
    region: String,
    #[command(flatten)]
    consent: Consent,
}

/// Every command and where it lives.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    let provider = Setup::read(context)?.provider()?;
    let cloud = provider.lambda("filesystems")?;
    match command {
        Command::List(args) => list(&args, &cloud.filesystems().await.map_err(cloud_failure)?, context),
        Command::Create(args) => create(args, cloud, context).await,
        Command::Delete(args) => {
            let all = cloud.filesystems().await.map_err(cloud_failure)?;
            delete(&args, &all, async |id| cloud.delete_filesystem(id).await.map(|_| ()), context).await
        }
    }
}

impl Thing for Filesystem {
    const NOUN: &'static str = "file system";
    const KEY: &'static str = "filesystems";
    const NONE: &'static str = "no file systems";

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn loss(&self) -> String {
        let used = self.bytes_used.map_or_else(|| "content of unknown size".to_owned(), human::bytes);
        format!("delete the file system `{}` in {} with {used} ({})", self.name, self.region.name, self.id)
    }

    fn table(all: &[Self]) -> Table {
        let mut table = Table::new(&[
            Column::Text("name"),
            Column::Text("id"),
            Column::Text("region"),
            Column::Number("used"),
            Column::Text("attached"),
            Column::Text("mount point"),
        ]);
        for it in all {
            table.row([
                it.name.clone(),
                it.id.clone(),
                it.region.name.to_string(),
                human::or_unknown(it.bytes_used, human::bytes),
                if it.is_in_use { "yes" } else { "no" }.to_owned(),
                it.mount_point.clone(),
            ]);
        }
        table
    }
}

async fn create(args: Create, cloud: &LambdaCloud, context: &Context) -> Outcome {
    let plan = format!(
        "create the file system `{}` in {}; it costs money by the gigabyte until it is deleted",
        args.name, args.region
    );
    if args.consent.ask(&context.printer, &plan, "create it?")? == Go::NoFurther {
        return Ok(Exit::Done);
    }
    let body = CreateFilesystem { name: args.name, region: Region::new(&args.region) };
    let made = cloud.create_filesystem(&body).await.map_err(cloud_failure)?;
    context.printer.data(made.id)?;
    Ok(Exit::Done)
}
