//! Which provider the commands of the control plane talk to, made from configuration and environment.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use super::Context;
use super::config_file::ConfigFile;
use super::exit::{Exit, Failure};
use super::state::{expanded, state_dir};
use crate::cloud::hosts::{HostSpec, Hosts};
use crate::cloud::lambda::{
    Endpoint, KEY_FILE_VARIABLE, KEY_VARIABLE, LambdaCloud, LambdaSettings, Pace, URL_VARIABLE, api_key,
};
use crate::cloud::local::LocalCloud;
use crate::cloud::{Cloud, CloudError, CloudErrorKind, InstanceType, Inventory};
use crate::config::{Fleet, HostEntry, Problems, ProviderKind, fleet};
use crate::model::Region;
use crate::sim::hardware::{GPUS, Gpu};
use crate::workload::network::RttMatrix;

/// Least time between two calls and between two launches, ms, as `CALL,LAUNCH`: for tests, and only heeded where the API is on this machine.
const PACE_VARIABLE: &str = "GORGO_LAMBDA_PACE_MS";

/// What every command of the control plane starts from.
pub(crate) struct Setup {
    /// Configuration and `--provider`.
    pub(crate) fleet: Fleet,
    /// `GORGO_STATE_DIR`.
    pub(crate) state_dir: PathBuf,
}

impl Setup {
    /// Reads configuration and environment; all problems of the configuration are told at once.
    pub(crate) fn read(context: &Context) -> Result<Self, Failure> {
        let file = ConfigFile::find(context.config.as_deref())?;
        let (fleet, problems) = fleet(&file.document, context.provider);
        let mut all = file.problems.clone();
        all.extend(problems);
        all.sort_by_key(|problem| problem.line);
        let fleet = Problems::or(all, fleet).with_context(|| file.name()).map_err(Failure::usage)?;
        Ok(Self { fleet, state_dir: state_dir()? })
    }

    /// The provider, ready to be called; nothing has been sent yet.
    pub(crate) fn provider(&self) -> Result<Provider, Failure> {
        match self.fleet.provider {
            ProviderKind::Lambda => match self.lambda() {
                Ok(cloud) => Ok(Provider::Lambda(Box::new(cloud))),
                // Who has a cluster elsewhere and no key has forgotten `--provider`, not the key.
                Err(error) => Err(self.seen_inventory().err().unwrap_or_else(|| cloud_failure(error))),
            },
            ProviderKind::Hosts => {
                let specs = self.fleet.hosts.iter().map(host).collect();
                Hosts::new(specs).map(Provider::Hosts).map_err(cloud_failure)
            }
            ProviderKind::Local => {
                let gorgo = env::current_exe().context("cannot tell where this program is")?;
                let folder = self.state_dir.join("local");
                let cloud = LocalCloud::new(folder, local_types(), RttMatrix::built_in().regions(), gorgo);
                Ok(Provider::Local(Box::new(cloud)))
            }
        }
    }

    fn lambda(&self) -> Result<LambdaCloud, CloudError> {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let file = set(KEY_FILE_VARIABLE).map(|path| expanded(&path));
        let key = api_key(set(KEY_VARIABLE).as_deref(), file.as_deref())?;
        let endpoint = set(URL_VARIABLE).map_or_else(|| Ok(Endpoint::default()), |url| Endpoint::parse(&url))?;
        let pace = pace_for_tests(&endpoint);
        let mut settings = LambdaSettings::new(endpoint, key, self.state_dir.clone(), random_bits());
        settings.pace = pace.unwrap_or_default();
        LambdaCloud::new(settings)
    }
}

fn pace_for_tests(endpoint: &Endpoint) -> Option<Pace> {
    env::var(PACE_VARIABLE).ok().filter(|_| endpoint.is_loopback()).as_deref().and_then(pace)
}

/// A provider that can be called.
pub(crate) enum Provider {
    /// Lambda Cloud.
    Lambda(Box<LambdaCloud>),
    /// Machines of the configuration.
    Hosts(Hosts),
    /// Processes on this machine.
    Local(Box<LocalCloud>),
}

impl Provider {
    /// What every provider can do.
    pub(crate) fn inventory(&self) -> &dyn Inventory {
        match self {
            Self::Lambda(cloud) => cloud.as_ref(),
            Self::Hosts(hosts) => hosts,
            Self::Local(cloud) => cloud.as_ref(),
        }
    }

    /// A machine is listed as soon as it was launched.
    pub(crate) fn lists_at_once(&self) -> bool {
        let endpoint = env::var(URL_VARIABLE).ok().and_then(|url| Endpoint::parse(&url).ok());
        matches!(self, Self::Local(_)) || endpoint.is_some_and(|endpoint| pace_for_tests(&endpoint).is_some())
    }

    /// What only providers that rent machines can do; `command` is what was to be done.
    pub(crate) fn cloud(&self, command: &str) -> Result<&dyn Cloud, Failure> {
        match self {
            Self::Lambda(cloud) => Ok(cloud.as_ref()),
            Self::Local(cloud) => Ok(cloud.as_ref()),
            Self::Hosts(_) => {
                let hint = "the machines of [[provider.hosts]] are yours already: edit gorgo.toml to add or leave out some, or use `--provider lambda`";
                Err(cannot(ProviderKind::Hosts, command).with_hint(hint))
            }
        }
    }

    /// What only Lambda has; `command` is what was to be done.
    pub(crate) fn lambda(&self, command: &str) -> Result<&LambdaCloud, Failure> {
        let kind = match self {
            Self::Lambda(cloud) => return Ok(cloud),
            Self::Hosts(_) => ProviderKind::Hosts,
            Self::Local(_) => ProviderKind::Local,
        };
        Err(cannot(kind, command).with_hint("only Lambda has accounts; use `--provider lambda`"))
    }
}

fn cannot(kind: ProviderKind, command: &str) -> Failure {
    Failure::usage(anyhow!("`gorgo {command}` does not work with provider `{kind}`"))
}

/// One type per GPU preset: the engine on it is emulated and costs nothing.
fn local_types() -> Vec<InstanceType> {
    let kind = |gpu: &Gpu| InstanceType {
        name: gpu.id.to_owned(),
        description: format!("emulated {}", gpu.id),
        gpu: gpu.id.to_owned(),
        gpus: 1,
        vram_gib: Some(gpu.memory_mib / 1024),
        vcpus: 0,
        memory_gib: 0,
        storage_gib: 0,
        price_cents_per_hour: 0,
        capacity: Vec::new(),
    };
    GPUS.iter().map(kind).collect()
}

/// `CALL,LAUNCH` in ms.
fn pace(text: &str) -> Option<Pace> {
    let (call, launch) = text.split_once(',')?;
    let ms = |text: &str| text.trim().parse().ok().map(Duration::from_millis);
    Some(Pace { call: ms(call)?, launch: ms(launch)?, ..Pace::default() })
}

/// The checks of the configuration have seen to it that the three required keys are there.
fn host(entry: &HostEntry) -> HostSpec {
    HostSpec {
        name: entry.name.clone().unwrap_or_default(),
        address: entry.address.clone().unwrap_or_default(),
        port: entry.port,
        user: entry.user.clone(),
        key: entry.key.as_deref().map(expanded),
        region: Region::new(entry.region.as_deref().unwrap_or_default()),
        instance_type: entry.instance_type.clone(),
    }
}

/// A provider's error with the exit code that it deserves.
pub(crate) fn cloud_failure(error: CloudError) -> Failure {
    let busy = error.code.as_deref().is_some_and(|code| code.ends_with("-in-use"));
    let exit = match error.kind {
        CloudErrorKind::Credentials | CloudErrorKind::Invalid if !busy => Exit::Usage,
        CloudErrorKind::Capacity | CloudErrorKind::NotFound => Exit::NothingSuitable,
        _ => Exit::Failed,
    };
    let hint = error.hint.clone();
    Failure { exit, error: error.into(), hint }
}

/// 64 bits that nobody can foresee, from the seed that the operating system gives to hash tables.
pub(crate) fn random_bits() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{cloud_failure, pace, random_bits};
    use crate::cli::Exit;
    use crate::cloud::{CloudError, CloudErrorKind};

    #[test]
    fn a_pace_is_two_numbers() {
        let read = pace("5, 10").map(|pace| (pace.call, pace.launch));
        assert_eq!(read, Some((Duration::from_millis(5), Duration::from_millis(10))));
        for text in ["", "5", "5,", "a,b", "-1,2"] {
            assert_eq!(pace(text), None, "{text}");
        }
    }

    #[test]
    fn every_kind_of_error_has_its_exit_code() {
        let cases = [
            (CloudErrorKind::Credentials, None, Exit::Usage),
            (CloudErrorKind::Invalid, None, Exit::Usage),
            (CloudErrorKind::Invalid, Some("filesystems/filesystem-in-use"), Exit::Failed),
            (CloudErrorKind::Capacity, None, Exit::NothingSuitable),
            (CloudErrorKind::NotFound, None, Exit::NothingSuitable),
            (CloudErrorKind::Quota, None, Exit::Failed),
            (CloudErrorKind::Transient, None, Exit::Failed),
            (CloudErrorKind::UnknownOutcome, None, Exit::Failed),
        ];
        for (kind, code, exit) in cases {
            let error =
                CloudError { kind, code: code.map(str::to_owned), message: "no".into(), hint: Some("try".into()) };
            let failure = cloud_failure(error);
            assert_eq!((failure.exit, failure.hint.as_deref()), (exit, Some("try")), "{kind:?}");
        }
    }

    #[test]
    fn random_bits_differ() {
        assert_ne!(random_bits(), random_bits());
    }
}
