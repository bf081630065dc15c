//! What is run and written on a node, as values: commands, units, files. Pure; nothing here runs anything.

mod engine;
mod unit;

pub use engine::{Image, choose_image, image_of, weights_bytes};
pub use unit::{agent, agent_argv, engine as engine_unit, proxy, proxy_argv};

use super::desired::{Container, NodeSpec};
use super::http::Request;
use super::layout::{BINARY, CONFIGURATION, HF_TOKEN, MODELS, PROGRAMS, RECORDS, RUN, Role, STATE};
use crate::remote::RemoteCommand;
use crate::wire::paths;

/// The looking script.
pub const OBSERVE: &str = include_str!("../observe.sh");

/// Longest pull of an image or download of a model, s. Lambda's machines take 10 to 20 minutes for both.
const FETCH_LIMIT_S: u32 = 7200;

/// Looks at a node: one script, one round trip.
#[must_use]
pub fn observe(node: &NodeSpec, sudo: bool) -> RemoteCommand {
    let mut argv: Vec<String> = ["bash", "-s", "--", BINARY, CONFIGURATION, RECORDS, STATE].map(str::to_owned).to_vec();
    for role in Role::ALL {
        let request = match role {
            Role::Engine => Request::completion(node.engine.model()),
            Role::Agent | Role::Proxy => Request::get(paths::STATUS),
        };
        let port = node.ports.control(role).to_string();
        argv.extend([role.name().to_owned(), port, format!("{} {}", request.method, request.path), request.body]);
    }
    RemoteCommand { argv, sudo, stdin: OBSERVE.as_bytes().to_vec(), timeout_s: 90 }
}

/// Nothing, as root: whether that needs a password.
#[must_use]
pub fn nothing(sudo: bool) -> RemoteCommand {
    command(&["true"], sudo, 20)
}

/// Folders that nobody else makes.
#[must_use]
pub fn make_folders() -> RemoteCommand {
    command(&["install", "-d", "-m", "0755", PROGRAMS, STATE, RECORDS, MODELS], true, 30)
}

/// Fetches the engine's image.
#[must_use]
pub fn pull(image: &str) -> RemoteCommand {
    command(&["docker", "pull", "--quiet", image], true, FETCH_LIMIT_S)
}

/// Fetches the model's files into the cache, without the second copy of the weights that some repositories hold. The token is mounted
/// as a file; the engine itself runs without it and without asking the Internet.
#[must_use]
pub fn download(image: &str, model: &str, token: bool) -> RemoteCommand {
    const FETCH: &str = "import sys; from huggingface_hub import snapshot_download; \
        snapshot_download(sys.argv[1], ignore_patterns=['consolidated*', 'original/*', '*.gguf', '*.pth'])";
    let volume = format!("{MODELS}:/models");
    let secret = format!("{HF_TOKEN}:/run/hf-token:ro");
    let mut argv = vec!["docker", "run", "--rm", "--network", "host", "--volume", &volume, "--env", "HF_HOME=/models"];
    if token {
        argv.extend(["--volume", &secret, "--env", "HF_TOKEN_PATH=/run/hf-token"]);
    }
    argv.extend(["--entrypoint", "python3", image, "-c", FETCH, model]);
    command(&argv, true, FETCH_LIMIT_S)
}

/// Whether a container gets at the cards: a driver that answers `nvidia-smi` may still refuse a CUDA context.
#[must_use]
pub fn cuda_context(image: &str) -> RemoteCommand {
    const CHECK: &str = "import torch; torch.zeros(1, device='cuda'); print(torch.cuda.device_count())";
    command(&["docker", "run", "--rm", "--gpus", "all", "--entrypoint", "python3", image, "-c", CHECK], true, 300)
}

/// Whether the driver answers. Status 127 = there is no driver.
#[must_use]
pub fn driver() -> RemoteCommand {
    command(&["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], false, 60)
}

/// Bytes in use on the disk that holds a folder, to see a download grow.
#[must_use]
pub fn disk_used(folder: &str) -> RemoteCommand {
    command(&["df", "-B1", "--output=used", folder], false, 20)
}

/// Puts the program before back in its place, in one step.
#[must_use]
pub fn restore_binary() -> RemoteCommand {
    const RESTORE: &str = r#"set -e; mv -f "$1.old" "$1"; sync -f "$1""#;
    command(&["sh", "-c", RESTORE, "restore", BINARY], true, 60)
}

/// Puts a service's new certificate in its place, for the user that the service runs as. That is nobody before its first start, when the
/// unit sees to it.
#[must_use]
pub fn take_certificate(role: Role, path: &str) -> RemoteCommand {
    const TAKE: &str = r#"set -e; if [ -d "$2/." ]; then chown --reference="$2/." "$1.new"; fi; chmod 0400 "$1.new"; sync -f "$1.new"; mv -f "$1.new" "$1""#;
    let state = format!("{STATE}/{role}");
    command(&["sh", "-c", TAKE, "take", path, &state], true, 60)
}

/// Removes a file: a record, so that what it vouched for is done again, or what a service that is gone has left.
#[must_use]
pub fn forget(record: &str) -> RemoteCommand {
    command(&["rm", "-f", record], true, 30)
}

/// Removes all that was installed; the models stay unless they are to go as well.
#[must_use]
pub fn remove_files(models: bool) -> RemoteCommand {
    if models {
        return command(&["rm", "-rf", PROGRAMS, CONFIGURATION, STATE, RUN], true, 600);
    }
    const KEEP: &str = r#"rm -rf "$1" "$2" "$3"; cd "$4" 2>/dev/null || exit 0; for entry in *; do [ "$entry" = models ] || rm -rf "$entry"; done"#;
    command(&["sh", "-c", KEEP, "remove", PROGRAMS, CONFIGURATION, RUN, STATE], true, 600)
}

/// The record that vouches for a model's files.
#[must_use]
pub fn model_record(container: &Container) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    format!("{RECORDS}/model-{}", container.model.chars().map(plain).collect::<String>())
}

fn command(argv: &[&str], sudo: bool, timeout_s: u32) -> RemoteCommand {
    RemoteCommand { argv: argv.iter().map(|word| (*word).to_owned()).collect(), sudo, stdin: Vec::new(), timeout_s }
}

#[cfg(test)]
mod tests;
