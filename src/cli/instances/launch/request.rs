//! What each machine is to be, but for its firewall and its host key. What is named has to exist, and to exist there, before anything is
//! asked for: the provider would tell only one mistake at a time, and of some machines after others are paid for.

use anyhow::anyhow;

use super::Args;
use super::key;
use super::wish::Wish;
use crate::cli::exit::Failure;
use crate::cli::provider::{Provider, Setup, cloud_failure};
use crate::cloud::LaunchRequest;
use crate::cloud::lambda::LambdaCloud;
use crate::cloud::lambda::wire::{Filesystem, Image};
use crate::cluster::launch::CLUSTER_TAG;
use crate::model::spelling::hint;

/// One request for each wish.
pub(super) async fn requests(
    args: &Args,
    wishes: &[Wish],
    setup: &Setup,
    provider: &Provider,
) -> Result<Vec<LaunchRequest>, Failure> {
    let ssh_key = match provider {
        Provider::Lambda(cloud) => Some(of_account(args, wishes, cloud).await?),
        Provider::Hosts(_) | Provider::Local(_) => {
            refuse_lambdas_own(args, provider)?;
            None
        }
    };
    let request = |wish: &Wish| LaunchRequest {
        name: wish.name.clone(),
        instance_type: wish.instance_type.clone(),
        region: wish.region.clone(),
        ssh_key: ssh_key.clone(),
        user_data: None,
        tags: [(CLUSTER_TAG.to_owned(), setup.fleet.cluster.clone())].into(),
        firewall_rulesets: Vec::new(),
        file_systems: args.filesystems.clone(),
        image_family: args.image.clone(),
    };
    Ok(wishes.iter().map(request).collect())
}

/// The name of the SSH key, once everything that is named in the account is there. Only what is named is asked for.
async fn of_account(args: &Args, wishes: &[Wish], cloud: &LambdaCloud) -> Result<String, Failure> {
    if !args.filesystems.is_empty() {
        let all = cloud.filesystems().await.map_err(cloud_failure)?;
        args.filesystems.iter().try_for_each(|name| check_filesystem(name, wishes, &all))?;
    }
    if let Some(family) = &args.image {
        check_image(family, &cloud.images().await.map_err(cloud_failure)?)?;
    }
    let stored = cloud.ssh_keys().await.map_err(cloud_failure)?;
    key::choose(args.ssh_key.as_deref(), &stored, &key::own_public_keys())
}

fn refuse_lambdas_own(args: &Args, provider: &Provider) -> Result<(), Failure> {
    let given = [
        ("--ssh-key", args.ssh_key.is_some()),
        ("--image", args.image.is_some()),
        ("--filesystem", !args.filesystems.is_empty()),
        ("--trust-first-key", args.trust_first_key),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) => provider.lambda(&format!("launch {flag}")).map(|_| ()),
        None => Ok(()),
    }
}

/// A file system is attached to machines of its own region only.
fn check_filesystem(name: &str, wishes: &[Wish], all: &[Filesystem]) -> Result<(), Failure> {
    let names = || all.iter().map(|it| it.name.as_str());
    let Some(found) = all.iter().find(|it| it.name == name) else {
        let error = anyhow!("the account has no file system `{name}`{}", hint(name, names()));
        return Err(Failure::usage(error).with_hint(format!(
            "`gorgo filesystems create {name} --region {}` makes one; there are: {}",
            wishes.first().map_or("REGION", |wish| wish.region.as_str()),
            listed(names())
        )));
    };
    let abroad = wishes.iter().find(|wish| wish.region != found.region.name);
    abroad.map_or(Ok(()), |wish| {
        let (home, name_of_wish, there) = (&found.region.name, &wish.name, &wish.region);
        let error = anyhow!("the file system `{name}` is in {home}, and `{name_of_wish}` is to be in {there}");
        Err(Failure::usage(error)
            .with_hint("only machines of its own region can have it: launch the others without it"))
    })
}

/// Families are the same everywhere; which regions have one is for the service to say.
fn check_image(family: &str, images: &[Image]) -> Result<(), Failure> {
    let mut families: Vec<&str> = images.iter().map(|image| image.family.as_str()).collect();
    families.sort_unstable();
    families.dedup();
    if families.contains(&family) {
        return Ok(());
    }
    let error = anyhow!("unknown image family `{family}`{}", hint(family, families.iter().copied()));
    Err(Failure::usage(error).with_hint(format!("known families: {}", listed(families.into_iter()))))
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
