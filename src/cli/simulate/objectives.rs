//! `--slo`: what counts as good, and whether routers go by it.

use crate::cli::measure::slo;
use crate::report::Slo;

/// Objectives when none are given: those of the paper's authors (TTFT under 2 s, 50 ms between tokens).
const DEFAULT_SLO: Slo = Slo { ttft_ms: Some(2000.0), itl_ms: Some(50.0), e2e_ms: None };

/// Objectives for goodput.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli) struct Objectives {
    pub(in crate::cli) of: Slo,
    /// Routers refuse who will miss the one for TTFT.
    pub(in crate::cli) admit: bool,
}

impl Default for Objectives {
    fn default() -> Self {
        Self { of: DEFAULT_SLO, admit: false }
    }
}

/// `ttft=10000,itl=50,admit`.
pub(super) fn objectives(text: &str) -> Result<Objectives, String> {
    let (admit, named): (Vec<&str>, Vec<&str>) = text.split(',').partition(|part| part.trim() == "admit");
    if named.is_empty() {
        return Err("`admit` needs an objective for the first token; wanted e.g. `ttft=10000,admit`".to_owned());
    }
    let of = slo(&named.join(","))?;
    if !admit.is_empty() && of.ttft_ms.is_none() {
        return Err("`admit` goes by `ttft`, which is not given; wanted e.g. `ttft=10000,admit`".to_owned());
    }
    Ok(Objectives { of, admit: !admit.is_empty() })
}
