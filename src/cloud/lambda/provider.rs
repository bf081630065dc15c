//! Lambda as an [`Inventory`] and a [`Cloud`]: its machines and types in the terms that all providers share.

use std::collections::BTreeMap;

use async_trait::async_trait;
use reqwest::Method;
use tokio_util::sync::CancellationToken;

use super::client::{Call, Client, LambdaSettings};
use super::wire::{
    ImageChoice, InstanceIds, InstanceTypes, LaunchRequest as WireLaunch, LaunchedInstances, Offer, RestartedInstances,
    RulesetRef, Tag, TerminatedInstances,
};
use super::{fault, gpu, regions, wire};
use crate::cloud::{Cloud, CloudError, CloudErrorKind, Instance, InstanceId, InstanceType, Inventory, LaunchRequest};
use crate::model::Region;

/// Longest name of a machine, characters (lambda-api-1.8.3, `InstanceLaunchRequest`).
const LONGEST_NAME: usize = 64;
/// Longest key of a tag, characters (`RequestedTagEntry`).
const LONGEST_TAG_KEY: usize = 55;
/// Longest value of a tag, characters (`RequestedTagEntry`).
const LONGEST_TAG_VALUE: usize = 128;
/// Longest cloud-init text, bytes (`InstanceLaunchRequest`, in its prose).
const LONGEST_USER_DATA: usize = 1_000_000;

/// The account behind one API key.
#[derive(Debug)]
pub struct LambdaCloud {
    client: Client,
}

impl LambdaCloud {
    /// Gets ready to call; nothing is sent yet.
    ///
    /// # Errors
    /// This machine has no CA certificates to check the service's identity with.
    pub fn new(settings: LambdaSettings) -> Result<Self, CloudError> {
        Ok(Self { client: Client::new(settings)? })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Ends these machines and returns those that the answer does not mention.
    async fn terminate_together(&self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CloudError> {
        let call = Call::send(Method::POST, "/instance-operations/terminate", &wire_ids(ids));
        let answer: TerminatedInstances = self.client.call(&call).await?;
        let unmentioned = |id: &&InstanceId| !answer.terminated_instances.iter().any(|instance| instance.id == id.0);
        Ok(ids.iter().filter(unmentioned).cloned().collect())
    }

    /// Ends one machine; gone already is success.
    async fn terminate_alone(&self, id: &InstanceId) -> Result<(), CloudError> {
        match self.terminate_together(std::slice::from_ref(id)).await {
            Ok(left) if left.is_empty() => Ok(()),
            Ok(_) => Err(fault::unknown_outcome("terminate", &format!("the answer does not mention {id}"))),
            Err(error) if error.kind == CloudErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Inventory for LambdaCloud {
    /// In the order of name, then id: the service promises none.
    async fn list(&self) -> Result<Vec<Instance>, CloudError> {
        let mut instances: Vec<Instance> = self.instances().await?.into_iter().map(instance).collect();
        instances.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(instances)
    }
}

#[async_trait]
impl Cloud for LambdaCloud {
    async fn types(&self) -> Result<Vec<InstanceType>, CloudError> {
        let types: InstanceTypes = self.client.call(&Call::get("/instance-types")).await?;
        Ok(types.into_values().map(instance_type).collect())
    }

    async fn launch(&self, request: &LaunchRequest, stop: &CancellationToken) -> Result<InstanceId, CloudError> {
        let body = launch_body(request)?;
        let call = Call::send(Method::POST, "/instance-operations/launch", &body).launch();
        let result: Result<LaunchedInstances, CloudError> = self.client.call_until(&call, stop).await;
        let answer = result.map_err(|error| regions::explain(error, &request.region))?;
        match answer.instance_ids.as_slice() {
            [id] => Ok(InstanceId(id.clone())),
            others => {
                let why = format!("the answer names {} machines instead of one ({})", others.len(), others.join(", "));
                Err(fault::unknown_outcome("the launch", &why))
            }
        }
    }

    /// All at once; if one of them is not there, or the answer leaves some out, one by one. Every machine is tried, the first error returned.
    async fn terminate(&self, ids: &[InstanceId]) -> Result<(), CloudError> {
        if ids.is_empty() {
            return Ok(());
        }
        let left = match self.terminate_together(ids).await {
            Ok(left) => left,
            Err(error) if error.kind == CloudErrorKind::NotFound => ids.to_vec(),
            Err(error) => return Err(error),
        };
        let mut first_error = Ok(());
        for id in &left {
            let ended = self.terminate_alone(id).await;
            first_error = first_error.and(ended);
        }
        first_error
    }

    async fn restart(&self, ids: &[InstanceId]) -> Result<(), CloudError> {
        if ids.is_empty() {
            return Ok(());
        }
        let call = Call::send(Method::POST, "/instance-operations/restart", &wire_ids(ids)).once();
        self.client.call::<RestartedInstances>(&call).await.map(|_| ())
    }
}

fn wire_ids(ids: &[InstanceId]) -> InstanceIds {
    InstanceIds { instance_ids: ids.iter().map(|id| id.0.clone()).collect() }
}

fn instance(from: wire::Instance) -> Instance {
    Instance {
        id: InstanceId(from.id),
        name: from.name.filter(|name| !name.is_empty()),
        status: from.status,
        address: from.ip.and_then(|ip| ip.parse().ok()),
        private_address: from.private_ip.and_then(|ip| ip.parse().ok()),
        region: from.region.name,
        price_cents_per_hour: Some(from.instance_type.price_cents_per_hour),
        instance_type: from.instance_type.name,
        tags: from.tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)).collect(),
    }
}

fn instance_type(from: Offer) -> InstanceType {
    let specs = from.instance_type.specs;
    let mut capacity: Vec<Region> =
        from.regions_with_capacity_available.into_iter().map(|region| region.name).collect();
    capacity.sort();
    capacity.dedup();
    let described = [&from.instance_type.gpu_description, &from.instance_type.description];
    let vram_gib = described.into_iter().find_map(|text| gpu::parse(text).vram_gib);
    let has_gpu = specs.gpus > 0;
    InstanceType {
        name: from.instance_type.name,
        gpu: if has_gpu { from.instance_type.gpu_description.trim().to_owned() } else { String::new() },
        vram_gib: vram_gib.filter(|_| has_gpu),
        description: from.instance_type.description,
        gpus: specs.gpus,
        vcpus: specs.vcpus,
        memory_gib: specs.memory_gib,
        storage_gib: specs.storage_gib,
        price_cents_per_hour: from.instance_type.price_cents_per_hour,
        capacity,
    }
}

/// The body of a launch, after the checks that spare a call and 12 s of waiting.
fn launch_body(request: &LaunchRequest) -> Result<WireLaunch, CloudError> {
    let Some(key) = &request.ssh_key else {
        let hint = "`gorgo ssh-keys list` shows the account's keys, `gorgo ssh-keys add` stores yours";
        return Err(invalid(format!("launching `{}` at Lambda needs the name of one SSH key", request.name), hint));
    };
    if request.name.chars().count() > LONGEST_NAME {
        return Err(invalid(
            format!("the name `{}` has more than {LONGEST_NAME} characters", request.name),
            "choose a shorter one",
        ));
    }
    if request.user_data.as_ref().is_some_and(|text| text.reveal().len() > LONGEST_USER_DATA) {
        return Err(invalid(format!("the cloud-init text has more than {LONGEST_USER_DATA} bytes"), "shorten it"));
    }
    check_tags(&request.tags)?;
    let tags = request.tags.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect();
    let rulesets = request.firewall_rulesets.iter().map(|id| RulesetRef { id: id.clone() }).collect();
    Ok(WireLaunch {
        region_name: request.region.clone(),
        instance_type_name: request.instance_type.clone(),
        ssh_key_names: vec![key.clone()],
        file_system_names: if_any(request.file_systems.clone()),
        file_system_mounts: None,
        hostname: None,
        name: Some(request.name.clone()),
        image: request.image_family.clone().map(|family| ImageChoice::Family { family }),
        user_data: request.user_data.clone(),
        tags: if_any(tags),
        firewall_rulesets: if_any(rulesets),
    })
}

fn if_any<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// The service's pattern for keys, `^[a-z][a-z0-9-:]+$`: no underscore, no capitals.
fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), CloudError> {
    for (key, value) in tags {
        let well_formed = key.len() >= 2
            && key.len() <= LONGEST_TAG_KEY
            && key.starts_with(|c: char| c.is_ascii_lowercase())
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-:".contains(&byte));
        if !well_formed {
            let hint = "2–55 characters: a lower-case letter, then lower-case letters, digits, `-` and `:`";
            return Err(invalid(format!("`{key}` cannot be the key of a tag"), hint));
        }
        if value.chars().count() > LONGEST_TAG_VALUE {
            return Err(invalid(
                format!("the value of tag `{key}` has more than {LONGEST_TAG_VALUE} characters"),
                "shorten it",
            ));
        }
    }
    Ok(())
}

fn invalid(message: String, hint: &str) -> CloudError {
    CloudError { kind: CloudErrorKind::Invalid, code: None, message, hint: Some(hint.to_owned()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{instance, instance_type, launch_body};
    use crate::cloud::{LaunchRequest, Status};
    use crate::model::{Region, Secret};

    fn request() -> LaunchRequest {
        LaunchRequest {
            name: "east".into(),
            instance_type: "gpu_1x_a100".into(),
            region: Region::new("us-east-1"),
            ssh_key: Some("me".into()),
            user_data: None,
            tags: [("gorgo:run".to_owned(), "0123".to_owned())].into(),
            firewall_rulesets: Vec::new(),
            file_systems: Vec::new(),
            image_family: None,
        }
    }

    #[test]
    fn a_launch_says_what_is_wanted_and_no_more() {
        let small = serde_json::to_value(launch_body(&request()).unwrap()).unwrap();
        let expected = json!({
            "region_name": "us-east-1", "instance_type_name": "gpu_1x_a100", "ssh_key_names": ["me"], "name": "east",
            "tags": [{"key": "gorgo:run", "value": "0123"}]
        });
        assert_eq!(small, expected);
        let full = LaunchRequest {
            user_data: Some(Secret::new("#cloud-config".into())),
            firewall_rulesets: vec!["r1".into()],
            file_systems: vec!["fs".into()],
            image_family: Some("lambda-stack-24-04".into()),
            tags: [].into(),
            ..request()
        };
        let full = serde_json::to_value(launch_body(&full).unwrap()).unwrap();
        let expected = json!({
            "region_name": "us-east-1", "instance_type_name": "gpu_1x_a100", "ssh_key_names": ["me"], "name": "east",
            "file_system_names": ["fs"], "image": {"family": "lambda-stack-24-04"}, "user_data": "#cloud-config",
            "firewall_rulesets": [{"id": "r1"}]
        });
        assert_eq!(full, expected);
    }

    #[test]
    fn launches_that_would_be_refused_are_refused_here() {
        let tag = |key: &str, value: &str| LaunchRequest { tags: [(key.into(), value.into())].into(), ..request() };
        let cases = [
            (LaunchRequest { ssh_key: None, ..request() }, "needs the name of one SSH key"),
            (LaunchRequest { name: "n".repeat(65), ..request() }, "more than 64 characters"),
            (
                LaunchRequest { user_data: Some(Secret::new("x".repeat(1_000_001))), ..request() },
                "more than 1000000 bytes",
            ),
            (tag("gorgo_run", "x"), "`gorgo_run` cannot be the key of a tag"),
            (tag("Gorgo", "x"), "`Gorgo` cannot be the key of a tag"),
            (tag("g", "x"), "`g` cannot be the key of a tag"),
            (tag(&"g".repeat(56), "x"), "cannot be the key of a tag"),
            (tag("gorgo", &"x".repeat(129)), "more than 128 characters"),
        ];
        for (request, reason) in cases {
            let error = launch_body(&request).unwrap_err();
            assert!(error.message.contains(reason) && error.hint.is_some(), "{error}");
        }
    }

    #[test]
    fn machines_and_types_come_in_shared_terms() {
        let kind = json!({
            "name": "gpu_8x_a100", "description": "8x A100 (40 GB SXM4)", "gpu_description": "A100 (40 GB SXM4)", "price_cents_per_hour": 1592,
            "specs": {"vcpus": 124, "memory_gib": 1800, "storage_gib": 6144, "gpus": 8}
        });
        let region = |name: &str| json!({"name": name, "description": ""});
        let offer = json!({"instance_type": kind, "regions_with_capacity_available": [region("us-west-1"), region("asia-south-1")]});
        let found = instance_type(serde_json::from_value(offer).unwrap());
        assert_eq!((found.gpu.as_str(), found.gpus, found.vram_gib), ("A100 (40 GB SXM4)", 8, Some(40)));
        assert_eq!(found.capacity, [Region::new("asia-south-1"), Region::new("us-west-1")]);

        let machine = json!({
            "id": "1", "name": "", "ip": "198.51.100.2", "status": "rebooting", "region": region("us-west-1"), "instance_type": kind,
            "tags": [{"key": "gorgo:run", "value": "x"}]
        });
        let found = instance(serde_json::from_value(machine).unwrap());
        assert_eq!((found.name, found.status), (None, Status::Other("rebooting".into())));
        assert_eq!(found.address, Some("198.51.100.2".parse().unwrap()));
        assert_eq!(found.price_cents_per_hour, Some(1592));
        assert_eq!(found.tags["gorgo:run"], "x");
    }

    #[test]
    fn a_type_without_gpu_has_no_gpu_words() {
        let offer = json!({"instance_type": {
            "name": "cpu_4x_general", "description": "4x CPU General (16 GiB)", "gpu_description": "N/A", "price_cents_per_hour": 20,
            "specs": {"vcpus": 4, "memory_gib": 16, "storage_gib": 102, "gpus": 0}
        }});
        let found = instance_type(serde_json::from_value(offer).unwrap());
        assert_eq!((found.gpu.as_str(), found.gpus, found.vram_gib), ("", 0, None));
    }
}
