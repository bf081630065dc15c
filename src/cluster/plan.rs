//! From what is to what is to be: the ordered steps of one node. Pure; a node that is as wanted gets no step.
//!
//! Each step checks its own result by what `observe` sees, so a plan that was cut short anywhere is taken up by making a new one. What
//! cannot be seen from outside (which definition a process was started with, whether a model is complete) is vouched for by a record on
//! the node: removed before the thing changes, written when it is done.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::certificate;
use super::check::{Refusal, gigabytes, program, proxy_refusals, refusals};
use super::desired::{AgentBinary, Container, Desired, NodeSpec};
use super::facts::Facts;
use super::front;
use super::layout::{BINARY, HF_TOKEN, MODELS, Role};
use super::script;
use super::step::{Action, Content, Probe, Step, serves};
use crate::model::date;
use crate::remote::{ServiceAction, ServiceUnit};

/// Longest start of an engine in a container, s: weights from a cold disk, then CUDA graphs.
const CONTAINER_START_S: u32 = 1800;
/// Longest start of a program of ours, s.
const START_S: u32 = 60;
/// Name of the step that ends the stay of the Hugging Face token.
const TOKEN_REMOVAL: &str = "hf-token removal";

/// What to do on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The node.
    pub node: String,
    /// Why nothing may be done; then there are no steps.
    pub refusals: Vec<Refusal>,
    /// In this order.
    pub steps: Vec<Step>,
}

impl Plan {
    fn new(node: &NodeSpec, refusals: Vec<Refusal>, steps: impl FnOnce() -> Vec<Step>) -> Self {
        let steps = if refusals.is_empty() { steps() } else { Vec::new() };
        Self { node: node.name.clone(), refusals, steps }
    }

    /// Services that run and that it stops or starts anew. One without a record is being set up, and nobody relies on it yet.
    #[must_use]
    pub fn interrupts(&self, facts: &Facts) -> BTreeSet<Role> {
        let stops = |step: &Step| match &step.action {
            Action::Service(role, ServiceAction::Stop | ServiceAction::Restart | ServiceAction::Remove) => Some(*role),
            _ => None,
        };
        self.steps
            .iter()
            .filter_map(stops)
            .filter(|role| facts.service(*role).running && facts.has_record(&role.record()))
            .collect()
    }

    /// Nothing stands in the way, and there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refusals.is_empty() && self.steps.is_empty()
    }
}

/// Everything that makes the node what it is to be.
#[must_use]
pub fn setup(desired: &Desired, node: &NodeSpec, facts: &Facts) -> Plan {
    let desired = &desired.on_machine(&facts.arch);
    Plan::new(node, refusals(desired, node, facts), || {
        let mut steps = Vec::new();
        steps.extend(folders(facts));
        steps.extend(binary(desired, facts));
        let engine = script::engine_unit(node, facts);
        if let Some(container) = node.engine.container() {
            let started = is_current(Role::Engine, &engine, desired, node, facts);
            steps.extend(container_files(desired, node, container, facts, started));
        }
        // Left by a set-up that was cut short, whatever engine it was for.
        if facts.has_record(HF_TOKEN) && !steps.iter().any(|step| step.name == TOKEN_REMOVAL) {
            steps.push(forget_token());
        }
        steps.extend(service(Role::Engine, &engine, desired, node, facts));
        steps.extend(router(Role::Agent, &script::agent(desired, node, facts), desired, node, facts));
        if let Some(proxy) = desired.proxy_on(&node.name) {
            let unit = script::proxy(desired, proxy, node, facts);
            steps.extend(router(Role::Proxy, &unit, desired, node, facts));
        }
        steps
    })
}

/// The agent's definition for its next start, where what runs has been changed already without one.
#[must_use]
pub fn agent_definition(desired: &Desired, node: &NodeSpec, facts: &Facts) -> Plan {
    let role = Role::Agent;
    let unit = script::agent(desired, node, facts);
    let definition = unit.definition_sha256();
    Plan::new(node, nothing_installed(facts).into_iter().collect(), || {
        if facts.service(role).definition_sha256.as_deref() == Some(&definition) {
            return Vec::new();
        }
        // What runs is as the definition says, because it was changed live; the program is the one that it was started with.
        let program = facts.binary_sha256.as_deref();
        let text = format!("install {} for its next start", role.unit());
        let mut steps = desired.front.steps(role, facts);
        steps.extend(forget_record(role, facts));
        steps.push(Step::service(role, "install", text, ServiceAction::Install(unit)));
        if facts.has_record(&role.record()) {
            steps.push(record(role, record_text(&definition, program, role)));
        }
        steps
    })
}

/// The agent with its definition, started anew with the program that is there.
#[must_use]
pub fn agent_restart(desired: &Desired, node: &NodeSpec, facts: &Facts) -> Plan {
    let role = Role::Agent;
    let unit = script::agent(desired, node, facts);
    let definition = unit.definition_sha256();
    Plan::new(node, nothing_installed(facts).into_iter().collect(), || {
        let mut steps = desired.front.steps(role, facts);
        steps.extend(forget_record(role, facts));
        if facts.service(role).definition_sha256.as_deref() != Some(&definition) {
            let text = format!("install {}", role.unit());
            steps.push(Step::service(role, "install", text, ServiceAction::Install(unit)));
        }
        let record = record_text(&definition, facts.binary_sha256.as_deref(), role);
        steps.extend(restart(role, node, facts, record));
        steps
    })
}

/// A new program for what is installed already; definitions stay.
#[must_use]
pub fn upload(desired: &Desired, node: &NodeSpec, facts: &Facts) -> Plan {
    let desired = &desired.on_machine(&facts.arch);
    let mut reasons: Vec<Refusal> = program(&desired.binary, facts).into_iter().collect();
    reasons.extend(nothing_installed(facts));
    Plan::new(node, reasons, || {
        let mut steps: Vec<Step> = binary(desired, facts).into_iter().collect();
        if !steps.is_empty() {
            steps.extend(restart_programs(node, facts, &desired.binary.sha256, |_| true));
        }
        steps
    })
}

/// The central router that is wanted on this node, and nothing else. A program that is there stays, unless `exchange` says that it is to be
/// the wanted one: then all that runs it is restarted as with [`upload`].
#[must_use]
pub fn deploy_proxy(desired: &Desired, node: &NodeSpec, facts: &Facts, exchange: bool) -> Plan {
    let Some(proxy) = desired.proxy_on(&node.name) else { return Plan::new(node, Vec::new(), Vec::new) };
    let kept = facts.binary_sha256.clone().filter(|_| !exchange);
    let sha256 = kept.unwrap_or_else(|| desired.binary.sha256.clone());
    let desired = &Desired { binary: AgentBinary { sha256, ..desired.binary.clone() }, ..desired.clone() };
    let new = binary(desired, facts);
    Plan::new(node, proxy_refusals(desired, proxy, facts, new.is_some()), || {
        let mut steps: Vec<Step> = folders(facts).into_iter().collect();
        if let Some(new) = new {
            steps.push(new);
            steps.extend(restart_programs(node, facts, &desired.binary.sha256, |role| role != Role::Proxy));
        }
        steps.extend(router(Role::Proxy, &script::proxy(desired, proxy, node, facts), desired, node, facts));
        steps
    })
}

/// The central router gone from a node; everything else stays.
#[must_use]
pub fn remove_proxy(node: &NodeSpec, facts: &Facts) -> Plan {
    let role = Role::Proxy;
    Plan::new(node, Vec::new(), || {
        let mut steps: Vec<Step> = forget_record(role, facts).into_iter().collect();
        if facts.service(role).installed {
            let text = format!("stop and remove {}", role.unit());
            steps.push(Step::service(role, "remove", text, ServiceAction::Remove));
        }
        let certificate = certificate::file(role);
        let new = certificate.as_ref().map(|path| format!("{path}.new"));
        let files = [Some(role.environment_file()), certificate, new];
        for path in files.into_iter().flatten().filter(|path| facts.has_record(path)) {
            steps.push(front::forget(role, &path));
        }
        steps.extend(front::present(role, facts).iter().map(|path| front::forget(role, path)));
        steps
    })
}

/// The program before, back in its place. It goes back once: an upload keeps one program, and the one that is left is not kept, so that
/// a second rollback cannot go forward again.
#[must_use]
pub fn rollback(node: &NodeSpec, facts: &Facts) -> Plan {
    let before = facts.binary_old_sha256.as_deref();
    // A rollback that was cut short has its program in place, and services that still run the other one.
    let stale = |role: Role| before.is_some() || !is_noted(role, node, facts);
    let none = before.is_none() && !Role::ALL.into_iter().any(stale);
    let mut reasons: Vec<Refusal> = nothing_installed(facts).into_iter().collect();
    if none && reasons.is_empty() {
        let hint = "upload the version that you want with `gorgo cluster upload --agent-binary PATH`".to_owned();
        let what = "there is no program of before to go back to: an upload keeps one, and a rollback uses it up";
        reasons.push(Refusal { what: what.to_owned(), hint });
    }
    Plan::new(node, reasons, || {
        let restore = || Step::run("binary restore", "go back to the program before", script::restore_binary());
        let mut steps: Vec<Step> = before.map(|_| restore()).into_iter().collect();
        let program = before.or(facts.binary_sha256.as_deref()).unwrap_or_default();
        steps.extend(restart_programs(node, facts, program, stale));
        steps
    })
}

/// There is a record that it was started with its definition and the program that is there, or it runs none of ours.
fn is_noted(role: Role, node: &NodeSpec, facts: &Facts) -> bool {
    let program = facts.binary_sha256.as_deref().and_then(|sha256| own_program(role, node, sha256));
    let (Some(definition), Some(program)) = (facts.service(role).definition_sha256, program) else { return true };
    facts.file(&role.record()) == Some(&sha256(&record_text(&definition, Some(program), role)))
}

/// Services gone, files gone; models stay unless they are to go as well.
#[must_use]
pub fn down(node: &NodeSpec, facts: &Facts, models: bool) -> Plan {
    Plan::new(node, Vec::new(), || {
        let mut steps = Vec::new();
        for role in Role::ALL.into_iter().rev().filter(|role| facts.service(*role).installed) {
            let text = format!("stop and remove {}", role.unit());
            steps.push(Step::service(role, "remove", text, ServiceAction::Remove));
        }
        if facts.binary_sha256.is_some() || facts.binary_old_sha256.is_some() || !facts.files.is_empty() || models {
            let text = if models { "remove all files, models too" } else { "remove all files but the models" };
            steps.push(Step::run("remove files", text, script::remove_files(models)));
        }
        steps
    })
}

fn nothing_installed(facts: &Facts) -> Option<Refusal> {
    let none = Role::ALL.into_iter().all(|role| !facts.service(role).installed);
    none.then(|| Refusal {
        what: "nothing is installed on it".to_owned(),
        hint: "run `gorgo cluster setup` first".to_owned(),
    })
}

fn folders(facts: &Facts) -> Option<Step> {
    let fresh = facts.binary_sha256.is_none() && facts.files.is_empty();
    fresh.then(|| Step::run("folders", "make folders", script::make_folders()))
}

fn binary(desired: &Desired, facts: &Facts) -> Option<Step> {
    let wanted = &desired.binary;
    (facts.binary_sha256.as_deref() != Some(&wanted.sha256)).then(|| {
        let sum = wanted.sha256.get(..12).unwrap_or(&wanted.sha256);
        let text = format!("upload gorgo ({:.1} MB, sha256 {sum})", wanted.bytes as f64 / 1e6);
        let content = Content::File(wanted.path.clone());
        Step::put("binary", text, BINARY, content).with_mode(0o755, facts.binary_sha256.is_some())
    })
}

/// Image, model and a look at the cards.
fn container_files(
    desired: &Desired,
    node: &NodeSpec,
    container: &Container,
    facts: &Facts,
    started: bool,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let Some(image) = script::image_of(node, facts) else { return steps };
    if !facts.images.contains(&image) {
        steps.push(Step::run("image", format!("pull {image}"), script::pull(&image)).filling("/var/lib"));
    }
    if !started {
        let text = "check that a container gets a CUDA context";
        steps.push(Step::run("cuda", text, script::cuda_context(&image)));
    }
    let record = script::model_record(container);
    if !facts.has_record(&record) {
        let left = facts.has_record(HF_TOKEN);
        steps.extend(model(desired, container, &image, &record, left));
    } else if facts.has_record(HF_TOKEN) {
        steps.push(forget_token());
    }
    steps
}

/// The token is there only while files are fetched; one that an earlier run has left goes, too.
fn model(desired: &Desired, container: &Container, image: &str, record: &str, left: bool) -> Vec<Step> {
    let model = &container.model;
    let mut steps = Vec::new();
    if let Some(token) = &desired.hf_token {
        let text = "write the Hugging Face token (0600, until the model is there)";
        steps.push(Step::put("hf-token", text, HF_TOKEN, Content::Secret(token.clone())));
    }
    let size = script::weights_bytes(model).map_or_else(String::new, |bytes| format!(" (about {})", gigabytes(bytes)));
    let fetch = script::download(image, model, desired.hf_token.is_some());
    steps.push(Step::run("model", format!("download {model}{size}"), fetch).filling(MODELS));
    if desired.hf_token.is_some() || left {
        steps.push(forget_token());
    }
    steps.push(Step::put("model record", "note that the model is complete", record, Content::Text(model.clone())));
    steps
}

fn forget_token() -> Step {
    Step::run(TOKEN_REMOVAL, "remove the token", script::forget(HF_TOKEN))
}

/// Key and certificate of a service, which takes them at its start or, if it runs, within seconds. They take their place in one step,
/// when everything about them is right.
fn certificate(role: Role, desired: &Desired, node: &NodeSpec, facts: &Facts) -> Vec<Step> {
    let Some(path) = certificate::file(role) else { return Vec::new() };
    let Some((request, need)) = certificate::needed(desired, node, role, facts.file(&path)) else { return Vec::new() };
    let until = date::day(request.not_after);
    let text = format!("issue a certificate for {role} of {} (valid until {until}): {need}", node.name);
    let new = format!("{path}.new");
    let take = format!("put {path} in its place");
    vec![
        Step::put(&format!("certificate {role}"), text, &new, Content::Certificate(request)),
        Step::run(&format!("certificate {role} place"), take, script::take_certificate(role, &path)),
    ]
}

/// The environment file of a service. Secrets that a service needs would go there; none does today.
fn environment(role: Role) -> String {
    format!("# Environment of {}, read by systemd as root.\n", role.unit())
}

/// What a running service was started with.
fn record_text(definition_sha256: &str, binary_sha256: Option<&str>, role: Role) -> String {
    let environment = sha256(&environment(role));
    let binary = binary_sha256.unwrap_or("none");
    format!("definition {definition_sha256}\nenvironment {environment}\nprogram {binary}\n")
}

/// The program that a service runs, if it is ours.
fn own_program<'a>(role: Role, node: &NodeSpec, sha256: &'a str) -> Option<&'a str> {
    let contained = role == Role::Engine && node.engine.container().is_some();
    (!contained).then_some(sha256)
}

/// It runs, and with exactly this definition and program.
fn is_current(role: Role, unit: &ServiceUnit, desired: &Desired, node: &NodeSpec, facts: &Facts) -> bool {
    let definition = unit.definition_sha256();
    let state = facts.service(role);
    let program = own_program(role, node, &desired.binary.sha256);
    state.running
        && state.definition_sha256.as_deref() == Some(&definition)
        && facts.file(&role.record()) == Some(&sha256(&record_text(&definition, program, role)))
}

/// An agent or a central router with all its files; those of before go once it runs without them.
fn router(role: Role, unit: &ServiceUnit, desired: &Desired, node: &NodeSpec, facts: &Facts) -> Vec<Step> {
    let mut steps = certificate(role, desired, node, facts);
    steps.extend(desired.front.steps(role, facts));
    steps.extend(service(role, unit, desired, node, facts));
    steps.extend(desired.front.leftovers(role, facts));
    steps
}

fn service(role: Role, unit: &ServiceUnit, desired: &Desired, node: &NodeSpec, facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    let path = role.environment_file();
    let environment = environment(role);
    if facts.file(&path) != Some(&sha256(&environment)) {
        let name = format!("{role} environment");
        steps.push(Step::put(&name, format!("write {path}"), &path, Content::Text(environment)));
    }
    if is_current(role, unit, desired, node, facts) {
        if !answers(role, facts) {
            steps.push(wait(role, node));
        }
        return steps;
    }
    let definition = unit.definition_sha256();
    steps.extend(forget_record(role, facts));
    if facts.service(role).definition_sha256.as_deref() != Some(&definition) {
        let text = format!("install {}", role.unit());
        steps.push(Step::service(role, "install", text, ServiceAction::Install(unit.clone())));
    }
    let program = own_program(role, node, &desired.binary.sha256);
    steps.extend(restart(role, node, facts, record_text(&definition, program, role)));
    steps
}

/// Restarts those of the chosen services that run our program, with the definitions that are there.
fn restart_programs(node: &NodeSpec, facts: &Facts, binary_sha256: &str, chosen: impl Fn(Role) -> bool) -> Vec<Step> {
    let mut steps = Vec::new();
    for role in Role::ALL.into_iter().filter(|role| chosen(*role)) {
        let definition = facts.service(role).definition_sha256;
        let (Some(definition), Some(program)) = (definition, own_program(role, node, binary_sha256)) else { continue };
        steps.extend(forget_record(role, facts));
        steps.extend(restart(role, node, facts, record_text(&definition, Some(program), role)));
    }
    steps
}

fn forget_record(role: Role, facts: &Facts) -> Option<Step> {
    let record = role.record();
    let text = format!("forget what {role} was started with");
    facts.has_record(&record).then(|| Step::run(&format!("{role} forget"), text, script::forget(&record)))
}

fn restart(role: Role, node: &NodeSpec, facts: &Facts, record: String) -> [Step; 3] {
    let what = if facts.service(role).running { "restart" } else { "start" };
    [
        Step::service(role, "start", format!("{what} {}", role.unit()), ServiceAction::Restart),
        wait(role, node),
        self::record(role, record),
    ]
}

fn record(role: Role, text: String) -> Step {
    let name = format!("{role} record");
    Step::put(&name, format!("note what {role} was started with"), &role.record(), Content::Text(text))
}

fn wait(role: Role, node: &NodeSpec) -> Step {
    let contained = role == Role::Engine && node.engine.container().is_some();
    let limit = if contained { CONTAINER_START_S } else { START_S };
    let text = match role {
        Role::Engine => "wait until the engine has answered a completion",
        Role::Agent => "wait until the agent takes requests",
        Role::Proxy => "wait until the proxy takes requests",
    };
    Step::wait(Probe::new(role, node), text, limit)
}

fn answers(role: Role, facts: &Facts) -> bool {
    match role {
        Role::Engine => facts.engine_serves(),
        Role::Agent | Role::Proxy => facts.status(role).is_some_and(|status| serves(&status).is_ok()),
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The dry run: every step, and below it what exactly is done.
#[must_use]
pub fn dry_run(plans: &[Plan]) -> String {
    let mut text = String::new();
    for plan in plans {
        for refusal in &plan.refusals {
            text += &format!("{}: cannot be set up: {refusal}\n  hint: {}\n", plan.node, refusal.hint);
        }
        if plan.is_empty() {
            text += &format!("{}: nothing to do\n", plan.node);
        }
        for (number, step) in plan.steps.iter().enumerate() {
            text += &format!("{}: {}. {step}\n       {}\n", plan.node, number + 1, step.detail());
        }
    }
    text
}

#[cfg(test)]
mod tests;
