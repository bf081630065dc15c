//! How refusals and failures of a router look to a client: the gateway's statuses and codes.

use crate::report::Outcome;
use crate::routing::Refusal;

/// Nothing came for as long as the router waits.
pub(super) fn silent() -> Outcome {
    Outcome::Failed("504 upstream_timeout".into())
}

/// The answer broke off.
pub(super) fn cut() -> Outcome {
    Outcome::Failed("cut stream".into())
}

/// The engine could never hold the prompt.
pub(super) fn too_large() -> Outcome {
    Outcome::Failed("400".into())
}

/// The router's refusal; 429 and 503 count as refusals in a report, everything else as failures.
pub(super) fn refused(reason: Refusal) -> Outcome {
    let status = status(reason);
    let kind = format!("{status} {}", reason.as_str()).into();
    if matches!(status, 429 | 503) { Outcome::Refused(kind) } else { Outcome::Failed(kind) }
}

/// Does a router that had forwarded the request try it elsewhere after this refusal of the peer?
pub(super) fn worth_another_try(reason: Refusal) -> bool {
    matches!(status(reason), 429 | 502 | 503)
}

/// As `gateway::reject` answers.
fn status(reason: Refusal) -> u16 {
    match reason {
        Refusal::QueueFull | Refusal::Deadline => 429,
        Refusal::NoReplica | Refusal::NoneHealthy | Refusal::QueueTimeout => 503,
        Refusal::UnknownModel => 404,
        Refusal::Residency => 403,
        Refusal::AllTried => 502,
    }
}
