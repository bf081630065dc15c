//! Where gorgo keeps what it must not forget: `GORGO_STATE_DIR`.

use std::env;
use std::path::{self, PathBuf};

use anyhow::{Context as _, anyhow};

use super::exit::Failure;

/// Variable that names the folder.
pub(crate) const VARIABLE: &str = "GORGO_STATE_DIR";

/// `GORGO_STATE_DIR`, else `gorgo` in the user's state folder. It need not exist yet.
pub(crate) fn state_dir() -> Result<PathBuf, Failure> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    let folder = set(VARIABLE).or_else(|| user().map(|folder| folder.join("gorgo")));
    let Some(folder) = folder else {
        let error = anyhow!("no folder to keep the state in: neither `{VARIABLE}` nor `HOME` is set");
        return Err(Failure::usage(error).with_hint(format!("set `{VARIABLE}` to a folder of your own")));
    };
    path::absolute(&folder).with_context(|| format!("`{}` is no folder", folder.display())).map_err(Failure::usage)
}

/// A path as written in a configuration file: a leading `~/` is the user's home.
pub(crate) fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}
