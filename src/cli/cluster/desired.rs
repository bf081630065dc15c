//! What the cluster is to be: configuration, environment and the machines that there are.

use std::collections::BTreeMap;
use std::env;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;

use super::front::front;
use crate::cli::exit::Failure;
use crate::cli::nodes::Node;
use crate::cli::provider::Setup;
use crate::cluster::authority::Authority;
use crate::cluster::desired::{AgentBinary, Container, DEFAULT_MODEL, Desired, EngineChoice, NodeSpec};
use crate::cluster::layout::Ports;
use crate::config::{EngineOptions, ProviderKind};
use crate::model::Secret;
use crate::routing::policy::registry;
use crate::sim::hardware::{GPUS, MODELS};

/// Token for models that ask for one.
const TOKEN_VARIABLE: &str = "HF_TOKEN";
/// GPU that an emulated engine imitates where the node's type is none of the presets.
const EMULATED_GPU: &str = "a100-40";
/// Model preset that stands for [`DEFAULT_MODEL`].
const EMULATED_MODEL: &str = "mistral-7b";

/// All nodes, chosen or not: each agent knows all others.
pub(super) fn desired(
    setup: &Setup,
    nodes: &[Node],
    binary: AgentBinary,
    allow_public_plaintext: bool,
) -> Result<Desired, Failure> {
    let strategy = setup.fleet.strategy.clone();
    registry::find(&strategy).map_err(|error| Failure::usage(anyhow!("cluster.strategy: {error}")))?;
    let specs: Result<Vec<NodeSpec>, Failure> = nodes.iter().map(|node| spec(setup, node)).collect();
    let specs = specs?;
    let proxies = nodes.iter().zip(&specs).filter_map(|(node, spec)| {
        let wish = node.record.as_ref()?.proxy.as_ref()?;
        Some(wish.on(spec, &strategy))
    });
    let proxies = proxies.collect();
    let token = env::var(TOKEN_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    Ok(Desired {
        cluster: setup.fleet.cluster.clone(),
        strategy,
        max_concurrent: setup.fleet.max_concurrent,
        weights: setup.fleet.weights.clone(),
        pinned: BTreeMap::new(),
        allow_public_plaintext,
        front: front(&setup.fleet)?,
        binary,
        others: Vec::new(),
        hf_token: token.map(|text| Secret::new(text.trim().to_owned())),
        nodes: specs,
        certificates: Authority::new(setup.cluster_folder(), &setup.fleet.cluster).look(seconds())?,
        proxies,
    })
}

pub(super) fn spec(setup: &Setup, node: &Node) -> Result<NodeSpec, Failure> {
    let name = &node.name;
    let there = node.instance.as_ref().filter(|_| node.is_there());
    let instance = there.ok_or_else(|| {
        Failure::usage(anyhow!("`{name}` has no machine")).with_hint("`gorgo status` shows what the cluster has")
    })?;
    let address: IpAddr = instance.address.ok_or_else(|| {
        Failure::usage(anyhow!("the address of `{name}` is not known")).with_hint(
            "a rented machine gets one half a minute after its launch; that of a host must be known to a name server",
        )
    })?;
    let ports = Ports::from_tags(&instance.tags);
    let (listen, mut url) = NodeSpec::reach(address, ports.agent);
    if setup.fleet.proxy.tls_certificate.is_some() {
        url = url.replacen("http://", "https://", 1);
    }
    let engine = engine(setup, &instance.instance_type)?;
    let more = setup.fleet.addresses.get(name).map_or(&[][..], Vec::as_slice);
    let addresses = addresses(address, instance.private_address, more);
    Ok(NodeSpec { name: name.clone(), region: instance.region.clone(), engine, ports, listen, url, addresses })
}

/// Where a node's connections come from, the address that it is reached by first: between machines of one region a provider may leave their
/// private addresses as they are, and what stands before a node is for `[addresses]` to say.
fn addresses(address: IpAddr, private: Option<IpAddr>, more: &[IpAddr]) -> Vec<IpAddr> {
    let mut all = vec![address];
    for further in private.iter().chain(more) {
        if !all.contains(further) {
            all.push(*further);
        }
    }
    all
}

/// Since 1970.
#[expect(clippy::disallowed_methods, reason = "an edge: certificates have a life")]
pub(super) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn engine(setup: &Setup, instance_type: &str) -> Result<EngineChoice, Failure> {
    let model = setup.fleet.model.clone().unwrap_or_else(|| DEFAULT_MODEL.to_owned());
    let options = setup.fleet.engine_options.clone();
    let EngineOptions { image, arguments, kv_events } = options;
    let container = |model| Container { model, image, arguments, kv_events };
    let kind = match (setup.fleet.engine.as_deref(), setup.fleet.provider) {
        (Some(kind), _) => kind,
        (None, ProviderKind::Local) => "emulator",
        (None, ProviderKind::Lambda | ProviderKind::Hosts) => "sglang",
    };
    match kind {
        "vllm" => Ok(EngineChoice::Vllm(container(model))),
        "sglang" => Ok(EngineChoice::Sglang(container(model))),
        _ => {
            let gpu = GPUS.iter().map(|gpu| gpu.id).find(|id| *id == instance_type).unwrap_or(EMULATED_GPU);
            Ok(EngineChoice::Emulator { gpu: gpu.to_owned(), model: preset(&model)?.to_owned() })
        }
    }
}

fn preset(model: &str) -> Result<&'static str, Failure> {
    if model == DEFAULT_MODEL {
        return Ok(EMULATED_MODEL);
    }
    MODELS.iter().map(|it| it.id).find(|id| *id == model).ok_or_else(|| {
        let known: Vec<&str> = MODELS.iter().map(|it| it.id).collect();
        Failure::usage(anyhow!("the emulator has no model `{model}`"))
            .with_hint(format!("set `cluster.model` to one of {}, or choose another engine", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::addresses;

    #[test]
    fn a_node_has_its_public_address_first_then_its_private_one_then_those_that_are_written() {
        let [public, private, nat] = [[198, 51, 100, 1], [10, 19, 0, 4], [203, 0, 113, 9]].map(IpAddr::from);
        let cases = [
            (None, vec![], vec![public]),
            (Some(private), vec![], vec![public, private]),
            (Some(private), vec![nat, private], vec![public, private, nat]),
            (Some(public), vec![nat], vec![public, nat]),
        ];
        for (known, written, expected) in cases {
            assert_eq!(addresses(public, known, &written), expected, "{known:?} {written:?}");
        }
    }
}
