//! Where each document of ours lives, on the admin listener unless it says otherwise. `GET` reads and never changes anything; `POST` takes the body named here.

/// `GET` → [`super::Status`].
pub const STATUS: &str = "/admin/v1/status";
/// `GET` → [`super::Replicas`]; `POST` [`super::ReplicaChange`] → [`super::Replicas`] after the change.
pub const REPLICAS: &str = "/admin/v1/replicas";
/// `GET` → [`super::Policy`]; `POST` [`super::SetPolicy`] → [`super::Policy`] after the change.
pub const POLICY: &str = "/admin/v1/policy";
/// `GET` → [`super::Tune`]; `POST` [`super::SetTune`] → [`super::Tune`] after the change.
pub const TUNE: &str = "/admin/v1/tune";
/// `GET` → [`super::Cache`]; `POST` [`super::ClearCache`] → [`super::Cleared`].
pub const CACHE: &str = "/admin/v1/cache";
/// `GET` → [`super::Latency`].
pub const LATENCY: &str = "/admin/v1/latency";
/// `GET` → [`super::Decisions`], newest first, at most `?limit=N` (default 50).
pub const DECISIONS: &str = "/admin/v1/decisions";
/// `GET` → [`super::Drain`]; `POST` [`super::SetDrain`] → [`super::Drain`] after the change.
pub const DRAIN: &str = "/admin/v1/drain";
/// `POST` [`super::span::StartTrace`] → [`super::span::TraceStarted`]; 409 while one runs.
pub const TRACE_START: &str = "/admin/v1/trace/start";
/// `POST` [`super::span::StopTrace`] → JSON lines ([`super::span::Line`]), the same again until the next start; 409 before the first.
pub const TRACE_STOP: &str = "/admin/v1/trace/stop";
/// `GET` → Prometheus text.
pub const METRICS: &str = "/metrics";
/// `GET` → 200 while the process runs.
pub const HEALTHZ: &str = "/healthz";
/// `GET` → 200 while requests are taken: at least one replica can serve and the router does not drain.
pub const READYZ: &str = "/readyz";
/// `GET` → [`super::PeerState`], on the port for requests of an agent, to its peers; 404 to anybody else.
pub const PEER: &str = "/gorgo/v1/peer";
/// `GET` → an endless stream of [`super::peer::Frame`]s, where [`PEER`] is, to a peer that names itself in `x-gorgo-peer`; 404 to anybody else.
pub const PEER_STREAM: &str = "/gorgo/v1/peer/stream";

/// `GET` → [`super::Explanation`] of one request (`x-gorgo-request-id`), 404 once it has left the ring.
#[must_use]
pub fn decision(request: &str) -> String {
    format!("{DECISIONS}/{request}")
}
