//! `gorgo images`.

use std::collections::BTreeMap;

use serde_json::json;

use super::Read;
use crate::cli::Context;
use crate::cli::exit::{Exit, Outcome};
use crate::cli::provider::{Setup, cloud_failure};
use crate::cli::table::{Column, Table};
use crate::cloud::lambda::wire::{Architecture, Image};

/// Arguments of `gorgo images`.
pub(crate) type Args = Read;

/// Every image; the same one in several regions stands there once.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let provider = Setup::read(context)?.provider()?;
    let images = provider.lambda("images")?.images().await.map_err(cloud_failure)?;
    if args.json {
        context.printer.json(&json!({ "images": images }))?;
    } else if images.is_empty() {
        context.printer.talk("no images");
    } else {
        context.printer.data(table(&images))?;
    }
    Ok(Exit::Done)
}

fn table(images: &[Image]) -> Table {
    let mut regions: BTreeMap<[&str; 4], Vec<&str>> = BTreeMap::new();
    for image in images {
        let key = [image.family.as_str(), &image.version, architecture(&image.architecture), &image.name];
        regions.entry(key).or_default().push(image.region.name.as_str());
    }
    let columns = ["family", "version", "architecture", "name", "regions"].map(Column::Text);
    let mut table = Table::new(&columns);
    for (key, mut regions) in regions {
        regions.sort_unstable();
        regions.dedup();
        let [family, version, architecture, name] = key.map(str::to_owned);
        table.row([family, version, architecture, name, regions.join(", ")]);
    }
    table
}

fn architecture(it: &Architecture) -> &str {
    match it {
        Architecture::X86 => "x86_64",
        Architecture::Arm => "arm64",
        Architecture::Other(word) => word,
    }
}
