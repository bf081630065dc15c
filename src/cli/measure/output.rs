//! Where results go: the table to stdout, JSON and HTML to files, or JSON alone to stdout.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::cli::Context;
use crate::cli::exit::Failure;
use crate::report::{Report, html, table};

/// Destinations of one report.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    json: Option<PathBuf>,
    html: Option<PathBuf>,
}

impl Output {
    /// `-` as JSON file means stdout, which then carries nothing else.
    pub(crate) fn new(json: Option<PathBuf>, html: Option<PathBuf>) -> Self {
        Self { json, html }
    }

    /// Fails before anything is measured if a file could not be written afterwards: a run of minutes must not be lost.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let files = self.json.iter().filter(|path| !is_stdout(path)).chain(&self.html);
        for path in files {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() || path.is_dir() {
                let error = anyhow::anyhow!(
                    "`{}` cannot be written: its folder does not exist, or it is a folder",
                    path.display()
                );
                return Err(Failure::usage(error));
            }
        }
        Ok(())
    }

    /// Writes everything.
    pub(crate) fn write(&self, report: &Report, title: &str, context: &Context) -> Result<(), Failure> {
        let to_stdout = self.json.as_deref().is_some_and(is_stdout);
        if let Some(path) = &self.html {
            write_file(path, &html::page(report, title)?)?;
        }
        match &self.json {
            Some(_) if to_stdout => context.printer.data(report.to_json()?.trim_end())?,
            Some(path) => write_file(path, &report.to_json()?)?,
            None => {}
        }
        if !to_stdout {
            context.printer.data(table::render(report).trim_end())?;
        }
        let files = self.json.iter().filter(|path| !is_stdout(path)).chain(&self.html);
        let names: Vec<String> = files.map(|path| format!("`{}`", path.display())).collect();
        if !names.is_empty() {
            context.printer.talk(format_args!("written: {}", names.join(", ")));
        }
        Ok(())
    }
}

fn is_stdout(path: impl AsRef<Path>) -> bool {
    path.as_ref().as_os_str() == "-"
}

/// Beside the target first, then renamed: a reader never sees half a file.
fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let written = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, path));
    written.with_context(|| format!("failed to write `{}`", path.display())).map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::Output;
    use crate::cli::Context;
    use crate::cli::printer::capture::printer;
    use crate::report::{Report, example};

    #[test]
    fn json_on_stdout_is_alone_there() {
        let (printer, out, err) = printer(false);
        let context = Context { printer, config: None, provider: None };
        Output::new(Some("-".into()), None).write(&example::report(), "t", &context).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&out.text()).unwrap(), example::report());
        assert_eq!(err.text(), "");
    }

    #[test]
    fn files_are_written_whole_and_the_table_goes_to_stdout() {
        let folder = tempfile::tempdir().unwrap();
        let (json, html) = (folder.path().join("r.json"), folder.path().join("r.html"));
        let (printer, out, err) = printer(false);
        let context = Context { printer, config: None, provider: None };
        let output = Output::new(Some(json.clone()), Some(html.clone()));
        output.check().unwrap();
        output.write(&example::report(), "t", &context).unwrap();
        assert!(out.text().contains("session-affinity"));
        assert!(err.text().starts_with("written: "));
        let read: Report = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
        assert_eq!(read, example::report());
        assert!(std::fs::read_to_string(html).unwrap().ends_with("</html>\n"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no partial file stays");
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_before_the_run() {
        let failure = Output::new(Some("/no/such/folder/r.json".into()), None).check().unwrap_err();
        assert!(failure.to_string().contains("/no/such/folder/r.json"));
    }
}
