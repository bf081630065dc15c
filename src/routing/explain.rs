//! A decision in words: every candidate with every term, who was left out and why, and the verdict.

use std::fmt::Write;

use super::admission::Deadline;
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
        if !self.weights.is_empty() {
            let weights: Vec<String> =
                self.weights.iter().map(|weight| format!("{} {:.3}", weight.name, weight.value)).collect();
            writeln!(out, "  weights in force: {}", weights.join(", "))?;
        }
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
        if self.pruned > 0 {
            writeln!(out, "  and {} more, each dearer at the least", self.pruned)?;
        }
        for (_, name, reason) in &self.excluded {
            writeln!(out, "  {name:<width$}  excluded: {}", reason.explained())?;
        }
        self.write_deadline(out)?;
        self.write_verdict(out)
    }

    fn write_deadline(&self, out: &mut String) -> std::fmt::Result {
        let Some(Deadline { class, limit_ms, waited_ms, ttft_ms }) = &self.deadline else { return Ok(()) };
        write!(out, "  first token wanted within {limit_ms:.0} ms")?;
        if let Some(class) = class {
            write!(out, " (class {class})")?;
        }
        match ttft_ms {
            Some(ttft_ms) => writeln!(out, ": waited {waited_ms:.0} ms, predicted {ttft_ms:.0} ms more"),
            None => writeln!(out, ": waited {waited_ms:.0} ms, nothing predicted"),
        }
    }

    fn write_verdict(&self, out: &mut String) -> std::fmt::Result {
        match self.verdict {
            Verdict::Dispatch(target) => match self.chosen() {
                Some(chosen) if self.kept_local => {
                    write!(out, "verdict: keep local on {}, which has room (scores not compared)", chosen.name)
                }
                Some(chosen) => write!(out, "verdict: dispatch to {}", chosen.name),
                None => write!(out, "verdict: dispatch to replica {}", target.0),
            },
            Verdict::Hold if self.deadline.as_ref().is_some_and(Deadline::is_late) => {
                write!(out, "verdict: hold in the router's queue behind those who can be in time")
            }
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

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use crate::model::{ReplicaId, RequestId, Time};
    use crate::routing::decision::Terms;
    use crate::routing::{Candidate, Decision, Excluded, Refusal, Term, Unit, Verdict};

    fn candidate(id: u32, name: &str, cached: u32, terms: [(&'static str, f64); 3]) -> Candidate {
        let terms: Terms = terms.into_iter().map(|(name, value)| Term { name, value }).collect();
        Candidate {
            replica: ReplicaId(id),
            name: name.into(),
            cached_tokens: cached,
            uncached_tokens: 6000 - cached,
            score: terms.iter().map(|term| term.value).sum(),
            ttft_ms: None,
            terms,
        }
    }

    fn decision(verdict: Verdict) -> Decision {
        Decision {
            request: RequestId(42),
            at: Time::from_ms(1234.5),
            strategy: "gorgo",
            attempt: 2,
            unit: Unit::Ms,
            prompt_tokens: 6000,
            held_ms: 17.25,
            verdict,
            kept_local: false,
            weights: Vec::new(),
            pruned: 0,
            deadline: None,
            candidates: vec![
                candidate(0, "us-east", 0, [("network", 40.0), ("prefill", 564.0), ("queue", 28.2)]),
                candidate(2, "eu", 5376, [("network", 110.0), ("prefill", 58.656), ("queue", 0.0)]),
            ],
            excluded: vec![
                (ReplicaId(1), "us-west".into(), Excluded::Tried),
                (ReplicaId(3), "ap-south".into(), Excluded::Unhealthy),
            ],
        }
    }

    #[test]
    fn dispatched() {
        let decision = decision(Verdict::Dispatch(ReplicaId(2)));
        assert_snapshot!(decision, @"request=000000000000002a attempt=2 strategy=gorgo verdict=dispatch replica=eu score=168.656 unit=ms cached=5376 prompt=6000 candidates=2 excluded=2 held_ms=17.2");
        assert_snapshot!(decision.explain(), @r"
        request 000000000000002a, attempt 2, strategy gorgo (scores in ms, smallest wins)
          prompt 6000 tokens, decided at 1234.500 ms, held 17.2 ms before
          us-east        632.200 = network 40.000 + prefill 564.000 + queue 28.200   (0 tokens cached, 6000 to compute)
        * eu             168.656 = network 110.000 + prefill 58.656 + queue 0.000   (5376 tokens cached, 624 to compute)
          us-west   excluded: already tried for this request
          ap-south  excluded: not known to be healthy
        verdict: dispatch to eu
        ");
    }

    #[test]
    fn weights_that_move_are_named() {
        let weights = vec![Term { name: "w_rtt", value: 0.276 }, Term { name: "frozen", value: 1.0 }];
        let decision = Decision { weights, ..decision(Verdict::Dispatch(ReplicaId(2))) };
        assert_snapshot!(decision.explain().lines().nth(2).unwrap(), @"  weights in force: w_rtt 0.276, frozen 1.000");
    }

    #[test]
    fn kept_local() {
        let decision = Decision { kept_local: true, ..decision(Verdict::Dispatch(ReplicaId(0))) };
        assert_snapshot!(decision, @"request=000000000000002a attempt=2 strategy=gorgo verdict=dispatch kept_local=true replica=us-east score=632.200 unit=ms cached=0 prompt=6000 candidates=2 excluded=2 held_ms=17.2");
        assert_snapshot!(decision.explain().lines().last().unwrap(), @"verdict: keep local on us-east, which has room (scores not compared)");
    }

    #[test]
    fn held_and_refused() {
        let nobody = |verdict| Decision { candidates: Vec::new(), ..decision(verdict) };
        let held = nobody(Verdict::Hold);
        assert_snapshot!(held, @"request=000000000000002a attempt=2 strategy=gorgo verdict=hold prompt=6000 candidates=0 excluded=2 held_ms=17.2");
        assert_snapshot!(held.explain(), @r"
        request 000000000000002a, attempt 2, strategy gorgo (scores in ms, smallest wins)
          prompt 6000 tokens, decided at 1234.500 ms, held 17.2 ms before
          us-west   excluded: already tried for this request
          ap-south  excluded: not known to be healthy
        verdict: hold in the router's queue until a replica has room
        ");
        let refused = nobody(Verdict::Reject { reason: Refusal::QueueFull, retry_after_ms: Some(1500.0) });
        assert_snapshot!(refused, @"request=000000000000002a attempt=2 strategy=gorgo verdict=reject reason=queue_full retry_after_ms=1500 prompt=6000 candidates=0 excluded=2 held_ms=17.2");
        assert_snapshot!(refused.explain().lines().last().unwrap(), @"verdict: refuse, the router's queue is full (queue_full); try again in 1500 ms");
        let refused = nobody(Verdict::Reject { reason: Refusal::Residency, retry_after_ms: None });
        assert_snapshot!(refused.explain().lines().last().unwrap(), @"verdict: refuse, the residency class leaves no replica (residency)");
    }
}
