//! The folder that stands for a node's file system, and what lies where in it.

use std::path::{Path, PathBuf};

use super::super::error::{RemoteError, RemoteErrorKind};

/// The node's own folders. Wherever one of them occurs in an argument or a value, its counterpart in the node's folder is meant, so that
/// one plan serves both kinds of node and nothing on this machine is touched outside of the folder.
const NODE_FOLDERS: [&str; 4] = ["/opt/gorgo", "/etc/gorgo", "/var/lib/gorgo", "/run/gorgo"];

/// The folder of one node, e.g. `GORGO_STATE_DIR/local/east`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Refuses a path that would need quoting in a shell: it is put into scripts as it is.
    pub(super) fn new(node: &str, path: &Path) -> Result<Self, RemoteError> {
        let text = path.to_str().unwrap_or("");
        let tame = text.starts_with('/') && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+@=,".contains(c));
        if tame {
            return Ok(Self(path.to_owned()));
        }
        let what = format_args!(
            "{} cannot be the folder of a local node: it has to be absolute, without blanks or shell characters",
            path.display()
        );
        Err(RemoteError::new(RemoteErrorKind::Unsuitable, node, what).with_hint("set GORGO_STATE_DIR to a plain path"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Where a path of the node lies on this machine. Paths that are in the folder already stay.
    pub(super) fn map_path(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        if path.starts_with(&self.0) {
            return path.to_owned();
        }
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text with the node's own folders replaced by their counterparts.
    pub(super) fn map_text(&self, text: &str) -> String {
        let mut mapped = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((at, name)) = next_folder(rest) {
            let before = rest[..at].chars().next_back().or_else(|| mapped.chars().next_back());
            mapped.push_str(&rest[..at]);
            rest = &rest[at + name.len()..];
            let begins = before.is_none_or(|c| !is_name(c) && c != '/');
            if begins && rest.chars().next().is_none_or(|c| !is_name(c)) {
                mapped.push_str(&self.0.to_string_lossy());
            }
            mapped.push_str(name);
        }
        mapped + rest
    }

    /// Files of the supervisor.
    pub(super) fn control(&self) -> PathBuf {
        self.0.join(".supervisor")
    }

    /// Held by the running supervisor.
    pub(super) fn lock(&self) -> PathBuf {
        self.control().join("lock")
    }

    /// Where the supervisor listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.control().join("socket")
    }

    /// The supervisor's own talk.
    pub(super) fn supervisor_log(&self) -> PathBuf {
        self.control().join("log")
    }

    /// One file per installed unit.
    pub(super) fn units(&self) -> PathBuf {
        self.control().join("units")
    }

    /// The definition of a unit.
    pub(super) fn unit(&self, unit: &str) -> PathBuf {
        self.units().join(format!("{unit}.json"))
    }

    /// The process of a unit.
    pub(super) fn process(&self, unit: &str) -> PathBuf {
        self.control().join("processes").join(format!("{unit}.json"))
    }

    /// What a unit printed.
    pub(super) fn log(&self, unit: &str) -> PathBuf {
        self.control().join("logs").join(unit)
    }
}

/// The first of the node's folders in the text.
fn next_folder(text: &str) -> Option<(usize, &'static str)> {
    NODE_FOLDERS.iter().filter_map(|name| text.find(name).map(|at| (at, *name))).min()
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || "-_.".contains(c)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Folder;

    #[test]
    fn the_nodes_folders_are_mapped_wherever_they_occur() {
        let folder = Folder::new("n", Path::new("/s/n")).expect("plain");
        for (text, wanted) in [
            ("/opt/gorgo/bin/gorgo", "/s/n/opt/gorgo/bin/gorgo"),
            ("--config=/etc/gorgo/agent.toml", "--config=/s/n/etc/gorgo/agent.toml"),
            ("mkdir -p /etc/gorgo '/var/lib/gorgo/x'", "mkdir -p /s/n/etc/gorgo '/s/n/var/lib/gorgo/x'"),
            ("/s/n/etc/gorgo/x", "/s/n/etc/gorgo/x"),
            ("/etc/gorgonzola /srv/etc/gorgo /etc/gorgo.d", "/etc/gorgonzola /srv/etc/gorgo /etc/gorgo.d"),
            ("/etc/gorgo/etc/gorgo", "/s/n/etc/gorgo/etc/gorgo"),
            ("/etc/passwd", "/etc/passwd"),
            ("", ""),
        ] {
            assert_eq!(folder.map_text(text), wanted);
        }
    }

    #[test]
    fn paths_are_mapped_once() {
        let folder = Folder::new("n", Path::new("/s/n")).expect("plain");
        assert_eq!(folder.map_path("/etc/systemd/x"), Path::new("/s/n/etc/systemd/x"));
        assert_eq!(folder.map_path("/s/n/etc/x"), Path::new("/s/n/etc/x"));
        Folder::new("n", Path::new("/with blank/n")).expect_err("a blank");
        Folder::new("n", Path::new("relative")).expect_err("relative");
    }
}
