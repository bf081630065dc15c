//! Engines in containers: which image, which command line. Pure.

use std::fmt;

use super::super::desired::{Container, EngineChoice, NodeSpec};
use super::super::facts::Facts;
use super::super::layout::{BINARY, MODELS, RUN};

/// Oldest driver for images with CUDA 13.
const CUDA13_DRIVER: u32 = 580;
/// Oldest driver for images with CUDA 12.9 that is known to work.
const CUDA12_DRIVER: u32 = 570;
/// SGLang with CUDA 13.
const SGLANG_CUDA13: &str = "lmsysorg/sglang:v0.5.23";
/// The last release of SGLang with CUDA 12.
const SGLANG_CUDA12: &str = "lmsysorg/sglang:v0.5.19-cu129";
/// vLLM; its release images are built with CUDA 13.
const VLLM_CUDA13: &str = "vllm/vllm-openai:v0.33.0";
/// Tokens per KV block: one event per block is published, so blocks of one token would flood the listener.
const BLOCK_TOKENS: &str = "16";
/// Name of the container.
const CONTAINER: &str = "gorgo-engine";

/// Why there is no image for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// This one.
    Use(String),
    /// The driver is too old; the oldest that would do.
    DriverTooOld(u32),
}

/// The image for this driver, unless one is configured.
#[must_use]
pub fn choose_image(engine: &EngineChoice, driver_major: u32) -> Option<Image> {
    let container = engine.container()?;
    if let Some(image) = &container.image {
        return Some(Image::Use(image.clone()));
    }
    let usable = match (engine, driver_major) {
        (EngineChoice::Sglang(_), CUDA13_DRIVER..) => Ok(SGLANG_CUDA13),
        (EngineChoice::Sglang(_), CUDA12_DRIVER..) => Ok(SGLANG_CUDA12),
        (EngineChoice::Vllm(_), CUDA13_DRIVER..) => Ok(VLLM_CUDA13),
        (EngineChoice::Vllm(_), _) => Err(CUDA13_DRIVER),
        _ => Err(CUDA12_DRIVER),
    };
    Some(usable.map_or_else(Image::DriverTooOld, |image| Image::Use(image.to_owned())))
}

/// The image that this node gets; `None` for the emulator and where there is none.
#[must_use]
pub fn image_of(node: &NodeSpec, facts: &Facts) -> Option<String> {
    match choose_image(&node.engine, facts.driver_major()?)? {
        Image::Use(image) => Some(image),
        Image::DriverTooOld(_) => None,
    }
}

/// Size of a model's files, from the billions of parameters in its name at two bytes each and a tenth more; `None` = the name does not
/// tell. Quantised models are smaller: this is for a check before a download, not for planning memory.
#[must_use]
pub fn weights_bytes(model: &str) -> Option<u64> {
    let words = model.rsplit('/').next()?.split(['-', '_']);
    let billions = words.filter_map(|word| word.strip_suffix(['B', 'b'])?.parse::<f64>().ok());
    billions.filter(|billions| (0.01..10_000.0).contains(billions)).reduce(f64::max).map(|b| (b * 2.2e9) as u64)
}

/// The engine's command line.
pub(super) fn argv(node: &NodeSpec, facts: &Facts) -> Vec<String> {
    let port = node.ports.engine.to_string();
    let image = image_of(node, facts);
    match (&node.engine, image) {
        (EngineChoice::Emulator { gpu, model }, _) => {
            let listen = format!("127.0.0.1:{port}");
            let argv = [BINARY, "emulate", "engine", "--listen", &listen, "--gpu", gpu, "--model", model, "--region"];
            let mut argv = owned(&argv);
            argv.push(node.region.to_string());
            argv
        }
        (EngineChoice::Sglang(container), Some(image)) => sglang(container, &image, &port, facts.gpus.len()),
        (EngineChoice::Vllm(container), Some(image)) => vllm(container, &image, &port, facts.gpus.len()),
        // A refusal says so before any step of the plan runs.
        (EngineChoice::Sglang(_) | EngineChoice::Vllm(_), None) => Vec::new(),
    }
}

fn sglang(container: &Container, image: &str, port: &str, gpus: usize) -> Vec<String> {
    let mut argv = docker(&[]);
    argv.extend(owned(&[image, "python3", "-m", "sglang.launch_server", "--model-path", &container.model]));
    argv.extend(owned(&["--host", "127.0.0.1", "--port", port, "--enable-metrics", "--enable-cache-report"]));
    argv.extend(owned(&["--page-size", BLOCK_TOKENS]));
    if container.kv_events {
        argv.extend(owned(&["--kv-events-config", &kv_events("")]));
    }
    argv.extend(parallel(gpus));
    argv.extend(container.arguments.iter().cloned());
    argv
}

/// `VLLM_SERVER_DEV_MODE` is what makes its prefix cache flushable; like all of the engine it is open on loopback only.
fn vllm(container: &Container, image: &str, port: &str, gpus: usize) -> Vec<String> {
    let mut argv = docker(&["--env", "VLLM_SERVER_DEV_MODE=1", "--entrypoint", "vllm"]);
    argv.extend(owned(&[image, "serve", &container.model, "--host", "127.0.0.1", "--port", port]));
    argv.extend(owned(&["--enable-prefix-caching", "--enable-prompt-tokens-details", "--block-size", BLOCK_TOKENS]));
    if container.kv_events {
        argv.extend(owned(&["--kv-events-config", &kv_events(r#""enable_kv_cache_events":true,"#)]));
    }
    argv.extend(parallel(gpus));
    argv.extend(container.arguments.iter().cloned());
    argv
}

/// The container: the host's network, because loopback in a bridge network is the container's own; the model cache; nothing from the
/// Internet, because the files are there and nobody wants a start that depends on it.
fn docker(more: &[&str]) -> Vec<String> {
    let models = format!("{MODELS}:/models");
    let sockets = format!("{RUN}:{RUN}");
    let mut argv =
        owned(&["/usr/bin/docker", "run", "--rm", "--name", CONTAINER, "--gpus", "all", "--network", "host"]);
    argv.extend(owned(&["--ipc", "host", "--shm-size", "32g", "--ulimit", "nofile=1048576:1048576"]));
    argv.extend(owned(&["--volume", &models, "--volume", &sockets, "--env", "HF_HOME=/models"]));
    argv.extend(owned(&["--env", "HF_HUB_OFFLINE=1"]));
    argv.extend(owned(more));
    argv
}

/// Where KV events go: a socket file. A TCP address on loopback would make the engine connect instead of listen (all of vLLM, SGLang
/// before 0.5.22), and `tcp://*` would show prompts to the Internet.
fn kv_events(enable: &str) -> String {
    format!(
        r#"{{{enable}"publisher":"zmq","endpoint":"ipc://{RUN}/kv-events","replay_endpoint":"ipc://{RUN}/kv-replay"}}"#
    )
}

/// One model over all cards; their number is cut to a power of two, since heads are divided evenly.
fn parallel(gpus: usize) -> Vec<String> {
    match gpus {
        0 | 1 => Vec::new(),
        more => owned(&["--tensor-parallel-size", &(1_usize << more.ilog2()).to_string()]),
    }
}

/// Ends a container that a crash has left.
pub(super) fn remove_container() -> String {
    format!("-/usr/bin/docker rm --force {CONTAINER}")
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Use(image) => f.write_str(image),
            Self::DriverTooOld(wanted) => write!(f, "none (driver {wanted} or newer)"),
        }
    }
}
