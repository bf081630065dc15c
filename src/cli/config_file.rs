//! Finds and reads `gorgo.toml`. The only place that does.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::exit::Failure;
use crate::config::{self, Document, Problem};

/// Name of the file, here or in the user's config folder.
const NAME: &str = "gorgo.toml";

/// A configuration file, or the absence of one.
pub(crate) struct ConfigFile {
    /// Where it is; `None` = there is none, the defaults apply.
    pub(crate) path: Option<PathBuf>,
    /// What it says.
    pub(crate) document: Document,
    /// What is wrong with its spelling, types and ranges.
    pub(crate) problems: Vec<Problem>,
}

impl ConfigFile {
    /// The file that `--config` names, else `GORGO_CONFIG`, else `./gorgo.toml`, else the one in the user's config folder, else none.
    /// A file that is named must exist.
    pub(crate) fn find(flag: Option<&Path>) -> Result<Self, Failure> {
        let variable = env::var_os("GORGO_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
        match (flag, variable) {
            (Some(path), _) => Self::read(path, "`--config`"),
            (None, Some(path)) => Self::read(&path, "`GORGO_CONFIG`"),
            (None, None) => Self::search([Some(PathBuf::from(NAME)), user_folder().map(|folder| folder.join(NAME))]),
        }
    }

    /// Where it is, for messages.
    pub(crate) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "no configuration file".to_owned(), |path| path.display().to_string())
    }

    fn read(path: &Path, named_by: &str) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file `{}` ({named_by})", path.display()))
            .map_err(Failure::usage)?;
        Ok(Self::parse(path.to_owned(), &text))
    }

    fn search(places: impl IntoIterator<Item = Option<PathBuf>>) -> Result<Self, Failure> {
        for path in places.into_iter().flatten() {
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(Self::parse(path, &text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // A file that is there but cannot be read must not be mistaken for none.
                Err(error) => {
                    return Err(Failure::usage(anyhow!(error).context(format!("cannot read `{}`", path.display()))));
                }
            }
        }
        Ok(Self { path: None, document: Document::default(), problems: Vec::new() })
    }

    fn parse(path: PathBuf, text: &str) -> Self {
        let (document, problems) = config::read(text);
        Self { path: Some(path), document, problems }
    }
}

/// `$XDG_CONFIG_HOME/gorgo`, or `~/.config/gorgo`.
fn user_folder() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(base.join("gorgo"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::ConfigFile;
    use crate::cli::Exit;

    #[test]
    fn the_first_file_that_exists_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let (here, there) = (folder.path().join("a.toml"), folder.path().join("b.toml"));
        let search = || ConfigFile::search([None, Some(here.clone()), Some(there.clone())]).expect("searched");
        assert_eq!(search().path, None);
        fs::write(&there, "[routing]\nseed = 2\n").expect("written");
        assert_eq!((search().path.as_ref(), search().document.file.routing.seed), (Some(&there), Some(2)));
        fs::write(&here, "[routing]\nsed = 1\n").expect("written");
        assert_eq!((search().path.as_ref(), search().problems.len()), (Some(&here), 1));
    }

    #[test]
    fn a_file_that_is_named_must_exist_and_one_that_is_there_must_be_readable() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = ConfigFile::read(&folder.path().join("none.toml"), "`--config`").err().expect("it is not there");
        assert_eq!(missing.exit, Exit::Usage);
        let unreadable = ConfigFile::search([Some(folder.path().to_owned())]).err().expect("a folder is no file");
        assert_eq!(unreadable.exit, Exit::Usage);
    }
}
