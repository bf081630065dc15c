//! `gorgo available`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::anyhow;
use serde_json::json;

use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::provider::{Provider, Setup, cloud_failure};
use crate::cli::signal::or_interrupted;
use crate::cli::table::{Column, Table};
use crate::cli::{Context, human};
use crate::cloud::lambda::KNOWN_REGIONS;
use crate::cloud::{Cloud, CloudErrorKind, InstanceType};
use crate::model::spelling::hint;

/// Time between two looks of `--watch`. Lambda allows one call per second, and others need some of those.
const WATCH_EVERY: Duration = Duration::from_secs(10);

/// Arguments of `gorgo available`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only types that can be had there
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Only types with this in the name of their GPU or their own, e.g. a100
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,
    /// Types without capacity as well
    #[arg(long)]
    all: bool,
    /// Look again every 10 s and print what has changed, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print JSON; with --watch one line per change
    #[arg(long)]
    json: bool,
}

/// Exit code 4 if nothing can be had.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let provider = Setup::read(context)?.provider()?;
    let cloud = provider.cloud("available")?;
    let known = known_regions(&provider);
    if args.watch {
        return or_interrupted(watch(&args, cloud, known, context)).await;
    }
    let types = cloud.types().await.map_err(cloud_failure)?;
    let shown = args.chosen(&types, known)?;
    if args.json {
        context.printer.json(&json!({ "types": shown }))?;
    } else if !shown.is_empty() {
        context.printer.data(table(&shown))?;
    }
    if shown.is_empty() {
        context.printer.talk("no capacity for that now; `--all` shows types without, `--watch` waits for some");
        return Ok(Exit::NothingSuitable);
    }
    Ok(Exit::Done)
}

/// Prints whatever differs from what was printed before. Failures that pass are told and outlived.
async fn watch(args: &Args, cloud: &dyn Cloud, known: &[&str], context: &Context) -> Outcome {
    let mut before = None;
    loop {
        match cloud.types().await {
            Ok(types) => {
                let shown = args.chosen(&types, known)?;
                let text = match (args.json, shown.is_empty()) {
                    (true, _) => json!({ "types": shown }).to_string(),
                    (false, true) => "no capacity".to_owned(),
                    (false, false) => format!("{}\n", table(&shown)),
                };
                if before.as_ref() != Some(&text) {
                    context.printer.data(&text)?;
                    before = Some(text);
                }
            }
            Err(error) if error.kind == CloudErrorKind::Transient => context.printer.warn(&error),
            Err(error) => return Err(cloud_failure(error)),
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// Regions that a provider is known to have, capacity or not.
pub(crate) fn known_regions(provider: &Provider) -> &'static [&'static str] {
    const LAMBDA: [&str; KNOWN_REGIONS.len()] = {
        let mut names = [""; KNOWN_REGIONS.len()];
        let mut i = 0;
        while i < names.len() {
            names[i] = KNOWN_REGIONS[i].0;
            i += 1;
        }
        names
    };
    match provider {
        Provider::Lambda(_) => &LAMBDA,
        Provider::Hosts(_) | Provider::Local(_) => &[],
    }
}

/// Refuses a region that neither the list of known ones nor the offers have, and names those that there are.
pub(crate) fn check_region(region: &str, types: &[InstanceType], known: &[&str]) -> Result<(), Failure> {
    let offered = types.iter().flat_map(|it| &it.capacity).map(crate::model::Region::as_str);
    let regions: BTreeSet<&str> = offered.chain(known.iter().copied()).collect();
    if regions.contains(region) {
        return Ok(());
    }
    let near = hint(region, regions.iter().copied());
    let error = anyhow!("unknown region `{region}`{near}");
    Err(Failure::usage(error).with_hint(format!("known regions: {}", listed(regions))))
}

/// Refuses a type that the provider does not have, and names those that there are.
pub(crate) fn check_type<'a>(name: &str, types: &'a [InstanceType]) -> Result<&'a InstanceType, Failure> {
    types.iter().find(|it| it.name == name).ok_or_else(|| {
        let names = || types.iter().map(|it| it.name.as_str());
        let error = anyhow!("unknown type `{name}`{}", hint(name, names()));
        Failure::usage(error).with_hint(format!("known types: {}", listed(names())))
    })
}

fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Args {
    /// The types to show, each with the regions to show.
    fn chosen(&self, types: &[InstanceType], known: &[&str]) -> Result<Vec<InstanceType>, Failure> {
        if let Some(region) = &self.region {
            check_region(region, types, known)?;
        }
        let named = |it: &&InstanceType| self.gpu.as_deref().is_none_or(|gpu| is_called(it, gpu));
        if let Some(gpu) = self.gpu.as_deref().filter(|_| !types.iter().any(|it| named(&it))) {
            let gpus: BTreeSet<&str> = types.iter().map(|it| it.gpu.as_str()).filter(|gpu| !gpu.is_empty()).collect();
            return Err(Failure::usage(anyhow!("no type has a GPU called `{gpu}`"))
                .with_hint(format!("known GPUs: {}", listed(gpus))));
        }
        let mut chosen: Vec<InstanceType> = types.iter().filter(named).cloned().collect();
        for it in &mut chosen {
            it.capacity.retain(|region| self.region.as_deref().is_none_or(|wanted| wanted == region.as_str()));
        }
        chosen.retain(|it| self.all || !it.capacity.is_empty());
        Ok(chosen)
    }
}

/// Spelling does not matter: `A100-80`, `a100 80` and `a100_80` are one.
fn is_called(it: &InstanceType, gpu: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "");
    let wanted = plain(gpu);
    plain(&it.gpu).contains(&wanted) || plain(&it.name).contains(&wanted)
}

fn table(types: &[InstanceType]) -> Table {
    let mut table = Table::new(&[
        Column::Text("type"),
        Column::Number("price"),
        Column::Number("gpus"),
        Column::Text("gpu"),
        Column::Number("vram/gpu"),
        Column::Number("vcpus"),
        Column::Number("memory"),
        Column::Number("disk"),
        Column::Text("regions with capacity"),
    ]);
    for it in types {
        let regions: Vec<String> = it.capacity.iter().map(ToString::to_string).collect();
        table.row([
            it.name.clone(),
            human::price(it.price_cents_per_hour.into()),
            it.gpus.to_string(),
            if it.gpu.is_empty() { human::UNKNOWN.to_owned() } else { it.gpu.clone() },
            human::or_unknown(it.vram_gib, |gib| format!("{gib} GiB")),
            known(it.vcpus, ""),
            known(it.memory_gib, " GiB"),
            known(it.storage_gib, " GiB"),
            if regions.is_empty() { "none".to_owned() } else { regions.join(", ") },
        ]);
    }
    table
}

/// Local machines have no size of their own.
fn known(amount: u32, unit: &str) -> String {
    if amount == 0 { human::UNKNOWN.to_owned() } else { format!("{amount}{unit}") }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Args, check_region, check_type, table};
    use crate::cloud::InstanceType;
    use crate::model::Region;

    fn offer(name: &str, gpu: &str, gpus: u32, cents: u32, regions: &[&str]) -> InstanceType {
        InstanceType {
            name: name.into(),
            description: String::new(),
            gpu: gpu.into(),
            gpus,
            vram_gib: (gpus > 0).then_some(80),
            vcpus: 26,
            memory_gib: 200,
            storage_gib: 1024,
            price_cents_per_hour: cents,
            capacity: regions.iter().map(|name| Region::new(name)).collect(),
        }
    }

    fn offers() -> Vec<InstanceType> {
        vec![
            offer("cpu_4x_general", "", 0, 20, &["us-east-1"]),
            offer("gpu_1x_a100_sxm4", "A100 (80 GB SXM4)", 1, 199, &["us-east-1", "us-west-1"]),
            offer("gpu_8x_h100_sxm5", "H100 (80 GB SXM5)", 8, 2_392, &[]),
        ]
    }

    fn chosen(region: Option<&str>, gpu: Option<&str>, all: bool) -> String {
        let args =
            Args { region: region.map(str::to_owned), gpu: gpu.map(str::to_owned), all, watch: false, json: false };
        match args.chosen(&offers(), &["eu-1"]) {
            Ok(types) => {
                let line = |it: &InstanceType| {
                    let regions: Vec<_> = it.capacity.iter().map(Region::as_str).collect();
                    format!("{}@{}", it.name, regions.join("+"))
                };
                types.iter().map(line).collect::<Vec<_>>().join(" ")
            }
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn types_are_chosen_by_region_gpu_and_capacity() {
        let cases = [
            (None, None, false, "cpu_4x_general@us-east-1 gpu_1x_a100_sxm4@us-east-1+us-west-1"),
            (None, None, true, "cpu_4x_general@us-east-1 gpu_1x_a100_sxm4@us-east-1+us-west-1 gpu_8x_h100_sxm5@"),
            (Some("us-west-1"), None, false, "gpu_1x_a100_sxm4@us-west-1"),
            (Some("eu-1"), None, false, ""),
            (None, Some("A100-80"), false, "gpu_1x_a100_sxm4@us-east-1+us-west-1"),
            (None, Some("h100"), false, ""),
            (Some("us-east-1"), Some("h100"), true, "gpu_8x_h100_sxm5@"),
        ];
        for (region, gpu, all, expected) in cases {
            assert_eq!(chosen(region, gpu, all), expected, "{region:?} {gpu:?} {all}");
        }
    }

    #[test]
    fn what_does_not_exist_is_told_with_what_does() {
        assert_snapshot!(chosen(Some("us-eats-1"), None, false), @r"
        error: unknown region `us-eats-1`; did you mean `us-east-1`?

        hint: known regions: eu-1, us-east-1, us-west-1
        ");
        assert_snapshot!(chosen(None, Some("mi300"), false), @r"
        error: no type has a GPU called `mi300`

        hint: known GPUs: A100 (80 GB SXM4), H100 (80 GB SXM5)
        ");
        assert_snapshot!(check_type("gpu_1x_a100", &offers()).unwrap_err(), @r"
        error: unknown type `gpu_1x_a100`; did you mean `gpu_1x_a100_sxm4`?

        hint: known types: cpu_4x_general, gpu_1x_a100_sxm4, gpu_8x_h100_sxm5
        ");
        assert_snapshot!(check_region("x", &[], &[]).unwrap_err(), @r"
        error: unknown region `x`

        hint: known regions: none
        ");
    }

    #[test]
    fn the_table_has_units() {
        assert_snapshot!(table(&offers()), @"
        TYPE                 PRICE  GPUS  GPU                VRAM/GPU  VCPUS   MEMORY      DISK  REGIONS WITH CAPACITY
        cpu_4x_general     $0.20/h     0  -                         -     26  200 GiB  1024 GiB  us-east-1
        gpu_1x_a100_sxm4   $1.99/h     1  A100 (80 GB SXM4)    80 GiB     26  200 GiB  1024 GiB  us-east-1, us-west-1
        gpu_8x_h100_sxm5  $23.92/h     8  H100 (80 GB SXM5)    80 GiB     26  200 GiB  1024 GiB  none
        ");
    }
}
