//! Where results go: the table to stdout, JSON and HTML to files, or JSON alone to stdout.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::file::write_file;
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
        if self.html.as_deref().is_some_and(is_stdout) {
            let error = anyhow!("`--report -`: the page goes to a file; only `--json` can go to stdout");
            return Err(Failure::usage(error));
        }
        for path in self.files() {
            let folder = folder(path);
            if !folder.is_dir() || path.is_dir() {
                let error =
                    anyhow!("`{}` cannot be written: its folder does not exist, or it is a folder", path.display());
                return Err(Failure::usage(error));
            }
        }
        let places: Vec<_> = self.files().map(place).collect();
        if places.len() == 2 && places[0] == places[1] {
            let path = self.files().next().map(|path| path.display().to_string()).unwrap_or_default();
            return Err(Failure::usage(anyhow!("`--json` and `--report` both name `{path}`; give two files")));
        }
        Ok(())
    }

    /// Writes everything and says how the command ends: interrupted, failed where no request succeeded, partly done where a file
    /// could not be written. The table comes first and one file does not hold up the other, so that no result is lost.
    pub(crate) fn finish(&self, report: &Report, title: &str, context: &Context) -> Outcome {
        let measured = report.runs.iter().any(|run| run.requests.ok > 0);
        let to_stdout = self.json.as_deref().is_some_and(is_stdout);
        if report.interrupted && !measured && !to_stdout {
            let names = self.names();
            let left = if names.is_empty() { String::new() } else { format!("; {names} not written") };
            context.printer.talk(format_args!("nothing was measured{left}"));
            return Ok(Exit::Interrupted);
        }
        let shown = if to_stdout {
            context.printer.data(report.to_json()?.trim_end())
        } else {
            let width = context.printer.stdout_width();
            context.printer.data(table::render(report, width, self.html.as_deref()).trim_end())
        };
        let json = self.json_file().map(|_| report.to_json()).transpose()?;
        let html = self.html.as_ref().map(|_| html::page(report, title)).transpose()?;
        let failed = self.write_files(json, html, context);
        match (shown, failed) {
            (Err(lost), _) => Err(lost),
            (Ok(()), _) if report.interrupted => Ok(Exit::Interrupted),
            (Ok(()), _) if !measured => {
                context.printer.warn("no request that counts succeeded");
                Ok(Exit::Failed)
            }
            (Ok(()), true) => Ok(Exit::Partly),
            (Ok(()), false) => Ok(Exit::Done),
        }
    }

    /// Prints `text`, or `json` where that goes to stdout, and writes the files. `page` is there unless nothing was measured that a page
    /// could show. Returns whether a file could not be written.
    pub(crate) fn publish(
        &self,
        (text, json, page): (String, String, Option<String>),
        context: &Context,
    ) -> Result<bool, Failure> {
        let to_stdout = self.json.as_deref().is_some_and(is_stdout);
        let shown = context.printer.data(if to_stdout { json.trim_end() } else { text.trim_end() });
        let failed = self.write_files(Some(json), page, context);
        shown.map(|()| failed)
    }

    /// Where the page goes.
    pub(crate) fn page(&self) -> Option<&Path> {
        self.html.as_deref()
    }

    fn json_file(&self) -> Option<&Path> {
        self.json.as_deref().filter(|path| !is_stdout(path))
    }

    /// Writes the files, names what was written and what was not. Returns whether one failed.
    fn write_files(&self, json: Option<String>, html: Option<String>, context: &Context) -> bool {
        let mut written = Vec::new();
        let mut failed = false;
        for (path, text) in [(self.json_file(), json), (self.html.as_deref(), html)] {
            let (Some(path), Some(text)) = (path, text) else { continue };
            match write_file(path, &text) {
                Ok(()) => written.push(format!("`{}`", path.display())),
                Err(error) => {
                    context.printer.warn(format_args!("failed to write `{}`: {error}", path.display()));
                    failed = true;
                }
            }
        }
        if !written.is_empty() {
            context.printer.talk(format_args!("written: {}", written.join(", ")));
        }
        failed
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        self.json.iter().map(PathBuf::as_path).filter(|path| !is_stdout(path)).chain(self.html.as_deref())
    }

    fn names(&self) -> String {
        self.files().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where a path really leads, so that two spellings of one file are seen as one.
fn place(path: &Path) -> PathBuf {
    let whole = || Some(folder(path).canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(whole).unwrap_or_else(|| path.to_owned())
}

fn is_stdout(path: impl AsRef<Path>) -> bool {
    path.as_ref().as_os_str() == "-"
}

#[cfg(test)]
mod tests {
    use super::Output;
    use crate::cli::Context;
    use crate::cli::exit::Exit;
    use crate::cli::printer::capture::printer;
    use crate::report::{Report, example};

    #[test]
    fn json_on_stdout_is_alone_there() {
        let (printer, out, err) = printer(false);
        let context = Context { printer, config: None, provider: None, route: None };
        let exit = Output::new(Some("-".into()), None).finish(&example::report(), "t", &context).unwrap();
        assert_eq!(exit, Exit::Done);
        assert_eq!(serde_json::from_str::<Report>(&out.text()).unwrap(), example::report());
        assert_eq!(err.text(), "");
    }

    #[test]
    fn files_are_written_whole_and_the_table_goes_to_stdout() {
        let folder = tempfile::tempdir().unwrap();
        let (json, html) = (folder.path().join("r.json"), folder.path().join("r.html"));
        let (printer, out, err) = printer(false);
        let context = Context { printer, config: None, provider: None, route: None };
        let output = Output::new(Some(json.clone()), Some(html.clone()));
        output.check().unwrap();
        assert_eq!(output.finish(&example::report(), "t", &context).unwrap(), Exit::Done);
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

    #[test]
    fn one_place_for_two_files_and_a_page_on_stdout_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r");
        let same = folder.path().join(".").join("r");
        let refused = |json: &std::path::Path, html: &std::path::Path| {
            Output::new(Some(json.to_owned()), Some(html.to_owned())).check().unwrap_err().to_string()
        };
        assert!(refused(&file, &same).contains("both name"));
        assert!(refused(&file, "-".as_ref()).contains("--report -"));
    }

    #[test]
    fn a_failed_write_costs_neither_the_table_nor_the_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let html = folder.path().join("r.html");
        let (printer, out, err) = printer(false);
        let context = Context { printer, config: None, provider: None, route: None };
        let output = Output::new(Some(folder.path().join("gone/r.json")), Some(html.clone()));
        assert_eq!(output.finish(&example::report(), "t", &context).unwrap(), Exit::Partly);
        assert!(out.text().contains("session-affinity") && html.exists());
        assert!(err.text().contains("gone/r.json") && err.text().contains("written: `"), "{}", err.text());
    }

    #[test]
    fn an_interruption_before_anything_was_measured_leaves_older_files_alone() {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("r.json");
        std::fs::write(&json, "older").unwrap();
        let (printer, out, err) = printer(false);
        let context = Context { printer, config: None, provider: None, route: None };
        let mut report = example::report();
        report.interrupted = true;
        for run in &mut report.runs {
            run.requests.ok = 0;
        }
        let output = Output::new(Some(json.clone()), None);
        assert_eq!(output.finish(&report, "t", &context).unwrap(), Exit::Interrupted);
        assert_eq!(std::fs::read_to_string(&json).unwrap(), "older");
        assert_eq!(out.text(), "");
        assert!(err.text().contains("nothing was measured; `") && err.text().contains("not written"), "{}", err.text());
    }

    #[test]
    fn a_run_in_which_nothing_succeeded_fails_and_is_still_written() {
        let (printer, out, _) = printer(false);
        let context = Context { printer, config: None, provider: None, route: None };
        let mut report = example::report();
        for run in &mut report.runs {
            run.requests.ok = 0;
        }
        assert_eq!(Output::new(None, None).finish(&report, "t", &context).unwrap(), Exit::Failed);
        assert!(out.text().contains("none succeeded"));
    }
}
