//! Why a node cannot be what it is to be: all reasons at once, each with a way out. Pure.

use std::fmt;

use super::desired::{AgentBinary, Desired, EngineChoice, NodeSpec, ProxySpec};
use super::facts::Facts;
use super::script::{Image, choose_image, image_of, model_record, weights_bytes};

/// Largest difference of clocks, ms. Beyond it, times in logs of different nodes cannot be put in order, and signed download addresses
/// begin to be refused.
const CLOCK_LIMIT_MS: i64 = 30_000;
/// Room for an engine's image while it is unpacked: the images take about 25 GB, their packed layers another 12 meanwhile.
const IMAGE_BYTES: u64 = 40_000_000_000;
/// Room beside a program that is uploaded: the new copy, logs.
const SPARE_BYTES: u64 = 100_000_000;

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong: a lower-case fragment without the node's name.
    pub what: String,
    /// What to try.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

fn refusal(what: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal { what: what.into(), hint: hint.into() }
}

/// Everything that stands in the way of setting this node up.
#[must_use]
pub fn refusals(desired: &Desired, node: &NodeSpec, facts: &Facts) -> Vec<Refusal> {
    let mut found = Vec::new();
    found.extend(supervisor(facts));
    found.extend(root(facts));
    found.extend(program(&desired.binary, facts));
    found.extend(clock(facts));
    found.extend(desired.proxy_on(&node.name).and_then(|proxy| proxy_address(desired, proxy)));
    if node.engine.container().is_some() {
        found.extend(cards(node, facts));
        found.extend(docker(facts));
    }
    found.extend(disk(desired, node, facts));
    found
}

/// Everything that stands in the way of putting a central router there. `uploads`: its program is not there yet.
#[must_use]
pub fn proxy_refusals(desired: &Desired, proxy: &ProxySpec, facts: &Facts, uploads: bool) -> Vec<Refusal> {
    let mut found = Vec::new();
    found.extend(supervisor(facts));
    found.extend(root(facts));
    if uploads {
        found.extend(program(&desired.binary, facts));
        found.extend(room(facts, desired.binary.bytes + SPARE_BYTES));
    }
    found.extend(proxy_address(desired, proxy));
    found
}

fn supervisor(facts: &Facts) -> Option<Refusal> {
    (!facts.supervised).then(|| {
        refusal(
            "the machine does not run systemd, which supervises the services",
            "use a distribution with systemd as its init, not a container, or `--provider local` for processes on this machine",
        )
    })
}

fn root(facts: &Facts) -> Option<Refusal> {
    (!facts.sudo).then(|| {
        refusal(
            "sudo asks for a password",
            "let the login user become root without one (`USER ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d/gorgo), or log in as root",
        )
    })
}

/// The program has to run there: looked at before anything is uploaded.
#[must_use]
pub fn program(binary: &AgentBinary, facts: &Facts) -> Option<Refusal> {
    if binary.arch != facts.arch {
        let what = format!("the machine is {}, the program to install is for {}", facts.arch, binary.arch);
        let hint = format!(
            "`scripts/release` on a machine that is {} builds one; name it with `--agent-binary PATH`, once for each kind of machine",
            facts.arch
        );
        return Some(refusal(what, hint));
    }
    let wanted = binary.glibc?;
    let hint = "`scripts/release` builds one that runs on glibc 2.28 and newer; name it with `--agent-binary PATH`";
    match facts.glibc {
        None => Some(refusal(format!("the machine has no glibc; the program needs {}", dotted(wanted)), hint)),
        Some(found) if found < wanted => {
            let (found, wanted) = (dotted(found), dotted(wanted));
            Some(refusal(format!("the machine has glibc {found}, the program needs {wanted}"), hint))
        }
        Some(_) => None,
    }
}

fn dotted((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

fn clock(facts: &Facts) -> Option<Refusal> {
    let off = facts.clock_ahead_ms;
    (off.abs() > CLOCK_LIMIT_MS).then(|| {
        let way = if off > 0 { "ahead of" } else { "behind" };
        let what = format!("its clock is {:.1} s {way} this machine's", off.unsigned_abs() as f64 / 1000.0);
        refusal(what, "set the clocks by NTP (`sudo timedatectl set-ntp true`) on the one that is wrong")
    })
}

fn proxy_address(desired: &Desired, proxy: &ProxySpec) -> Option<Refusal> {
    (!proxy.is_private() && !desired.is_open()).then(|| {
        refusal(
            format!("its proxy would take requests at {}, which the Internet can reach, in plain text", proxy.listen),
            "give it a private address or loopback with `proxy deploy --listen ADDRESS:PORT`, or accept it by name with `--allow-public-plaintext`",
        )
    })
}

fn cards(node: &NodeSpec, facts: &Facts) -> Option<Refusal> {
    let Some(major) = facts.driver_major() else {
        let hint = "install the NVIDIA driver, or choose `engine = \"emulator\"` for a machine without a GPU";
        return Some(refusal("`nvidia-smi` shows no GPU", hint));
    };
    let Some(Image::DriverTooOld(wanted)) = choose_image(&node.engine, major) else { return None };
    let found = facts.gpus.iter().map(|gpu| gpu.driver.as_str()).min().unwrap_or_default();
    let engine = node.engine.description().name;
    let what = format!("the NVIDIA driver is {found}; the images of {engine} need {wanted} or newer");
    let sglang = matches!(node.engine, EngineChoice::Vllm(_)) && choose_sglang(major);
    let other = if sglang { ", or choose `engine = \"sglang\"`, which has an image for it" } else { "" };
    Some(refusal(what, format!("launch with a newer image of the operating system{other}")))
}

fn choose_sglang(major: u32) -> bool {
    let container =
        super::desired::Container { model: String::new(), image: None, arguments: Vec::new(), kv_events: true };
    matches!(choose_image(&EngineChoice::Sglang(container), major), Some(Image::Use(_)))
}

fn docker(facts: &Facts) -> Option<Refusal> {
    match facts.docker.as_deref() {
        None => Some(refusal("Docker is not installed", "install docker and the NVIDIA container toolkit")),
        Some("") => {
            Some(refusal("Docker is installed and does not answer", "see `systemctl status docker` on the node"))
        }
        Some(_) => None,
    }
}

fn disk(desired: &Desired, node: &NodeSpec, facts: &Facts) -> Option<Refusal> {
    room(facts, disk_needed(desired, node, facts))
}

fn room(facts: &Facts, needed: u64) -> Option<Refusal> {
    (facts.disk_free < needed).then(|| {
        let (free, needed) = (gigabytes(facts.disk_free), gigabytes(needed));
        refusal(
            format!("{free} are free on the disk of /var/lib, {needed} are needed"),
            "free some space (`df -h` and `docker system df` show what takes it), or use a larger disk",
        )
    })
}

/// Bytes that setting this node up takes, as far as they are not there yet.
fn disk_needed(desired: &Desired, node: &NodeSpec, facts: &Facts) -> u64 {
    let mut needed = 0;
    if facts.binary_sha256.as_deref() != Some(&desired.binary.sha256) {
        needed += desired.binary.bytes + SPARE_BYTES;
    }
    if let Some(container) = node.engine.container() {
        let image = image_of(node, facts).is_some_and(|image| facts.images.contains(&image));
        needed += if image { 0 } else { IMAGE_BYTES };
        let model = facts.has_record(&model_record(container));
        needed += if model { 0 } else { weights_bytes(&container.model).unwrap_or(0) };
    }
    needed
}

/// `14.5 GB`.
#[must_use]
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
