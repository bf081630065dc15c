//! Commands that cost money or destroy something say what they would do and ask first.

use std::io::{self, BufRead, IsTerminal as _};

use anyhow::anyhow;

use super::exit::Failure;
use super::printer::Printer;

/// Options of commands that ask before they do something.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Consent {
    /// Do it without asking
    #[arg(long, short)]
    yes: bool,
    /// Print what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Go {
    /// Do it.
    Ahead,
    /// It was only to be shown.
    NoFurther,
}

impl Consent {
    /// It is only to be shown.
    pub(crate) fn is_dry_run(self) -> bool {
        self.dry_run
    }

    /// Shows `plan` and asks `question`. Without a terminal, `--yes` is needed.
    pub(crate) fn ask(self, printer: &Printer, plan: &str, question: &str) -> Result<Go, Failure> {
        let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        self.decide(printer, plan, question, terminal.then(|| io::stdin().lock()))
    }

    fn decide(
        self,
        printer: &Printer,
        plan: &str,
        question: &str,
        terminal: Option<impl BufRead>,
    ) -> Result<Go, Failure> {
        if self.dry_run {
            return printer.data(plan).map(|()| Go::NoFurther);
        }
        if self.yes {
            printer.talk(plan);
            return Ok(Go::Ahead);
        }
        let Some(mut terminal) = terminal else {
            let error = anyhow!("this wants a yes, and there is no terminal to ask at; it would be:\n{plan}");
            return Err(Failure::usage(error).with_hint("`--yes` does it without asking, `--dry-run` only shows it"));
        };
        printer.prompt(format_args!("{plan}\n{question} [y/N] "));
        let mut answer = String::new();
        terminal.read_line(&mut answer)?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => Ok(Go::Ahead),
            _ => Err(anyhow!("not confirmed; nothing was changed").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Consent, Go};
    use crate::cli::Exit;
    use crate::cli::printer::capture::printer;

    fn decide(yes: bool, dry_run: bool, answer: Option<&str>) -> (Result<Go, Exit>, String, String) {
        let (printer, out, err) = printer(false);
        let terminal = answer.map(str::as_bytes);
        let went = Consent { yes, dry_run }.decide(&printer, "terminate east ($1.99/h)", "terminate it?", terminal);
        (went.map_err(|failure| failure.exit), out.text(), err.text())
    }

    #[test]
    fn nothing_happens_without_a_yes() {
        let plan = "terminate east ($1.99/h)\n";
        let asked = "terminate east ($1.99/h)\nterminate it? [y/N] ";
        let cases = [
            ((false, true, None), (Ok(Go::NoFurther), plan, "")),
            ((true, false, None), (Ok(Go::Ahead), "", plan)),
            ((false, false, None), (Err(Exit::Usage), "", "")),
            ((false, false, Some("y\n")), (Ok(Go::Ahead), "", asked)),
            ((false, false, Some(" YES \n")), (Ok(Go::Ahead), "", asked)),
            ((false, false, Some("\n")), (Err(Exit::Failed), "", asked)),
            ((false, false, Some("yep\n")), (Err(Exit::Failed), "", asked)),
            ((false, false, Some("")), (Err(Exit::Failed), "", asked)),
        ];
        for ((yes, dry_run, answer), (went, out, err)) in cases {
            assert_eq!(
                decide(yes, dry_run, answer),
                (went, out.to_owned(), err.to_owned()),
                "{yes} {dry_run} {answer:?}"
            );
        }
    }
}
