//! A decision in words: every candidate with every term, who was left out and why, and the verdict.

use std::fmt::Write;

use super::decision::{Candidate, Decision, Refusal, Verdict};

impl Decision {
    /// The whole decision as text of several lines. Only prints: nothing is computed anew.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = String::new();
        self.write_explanation(&mut text).expect("writing to a string does not fail");
        text
    }

    fn write_explanation(&self, out: &mut String) -> std::fmt::Result {
        let unit = self.unit;
        writeln!(
            out,
            "request {}, attempt {}, strategy {} (scores in {unit}, smallest wins)",
            self.request, self.attempt, self.strategy
        )?;
        writeln!(
            out,
            "  prompt {} tokens, decided at {}, held {:.1} ms before",
            self.prompt_tokens, self.at, self.held_ms
        )?;
        let names = self
            .candidates
            .iter()
            .map(|candidate| &candidate.name)
            .chain(self.excluded.iter().map(|(_, name, _)| name));
        let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
        let chosen = self.chosen().map(|candidate| candidate.replica);
        for candidate in &self.candidates {
            let mark = if chosen == Some(candidate.replica) { "*" } else { " " };
            write_candidate(out, candidate, mark, width)?;
        }
        for (_, name, reason) in &self.excluded {
            writeln!(out, "  {name:<width$}  excluded: {}", reason.explained())?;
        }
        self.write_verdict(out)
    }

    fn write_verdict(&self, out: &mut String) -> std::fmt::Result {
        match self.verdict {
            Verdict::Dispatch(target) => match self.chosen() {
                Some(chosen) => write!(out, "verdict: dispatch to {}", chosen.name),
                None => write!(out, "verdict: dispatch to replica {}", target.0),
            },
            Verdict::Hold => write!(out, "verdict: hold in the router's queue until a replica has room"),
            Verdict::Reject { reason, retry_after_ms } => write_refusal(out, reason, retry_after_ms),
        }
    }
}

fn write_candidate(out: &mut String, candidate: &Candidate, mark: &str, width: usize) -> std::fmt::Result {
    write!(out, "{mark} {:<width$}  {:>12.3} = ", candidate.name, candidate.score)?;
    for (i, term) in candidate.terms.iter().enumerate() {
        let plus = if i > 0 { " + " } else { "" };
        write!(out, "{plus}{} {:.3}", term.name, term.value)?;
    }
    writeln!(out, "   ({} tokens cached, {} to compute)", candidate.cached_tokens, candidate.uncached_tokens)
}

fn write_refusal(out: &mut String, reason: Refusal, retry_after_ms: Option<f64>) -> std::fmt::Result {
    write!(out, "verdict: refuse, {} ({})", reason.explained(), reason.as_str())?;
    match retry_after_ms {
        Some(ms) => write!(out, "; try again in {ms:.0} ms"),
        None => Ok(()),
    }
}
