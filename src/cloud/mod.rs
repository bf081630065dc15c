//! Machines: what there is, what can be had, and at what price. The control plane's view of providers.
//!
//! `lambda` rents them, `hosts` are yours already (an inventory that cannot launch), `local` are processes on this machine.

mod error;
pub mod hosts;
mod instance;
pub mod lambda;
pub mod local;

pub use error::{CloudError, CloudErrorKind};
pub use instance::{Capacity, Instance, InstanceId, InstanceType, LaunchRequest, Status};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

/// Knows machines.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// All machines that this provider can see, in a stable order. "The cluster" is a subset: see `cluster::inventory`.
    async fn list(&self) -> Result<Vec<Instance>, CloudError>;
}

/// Rents machines. `hosts` is an [`Inventory`] only: there is no method that an implementer must refuse.
#[async_trait]
pub trait Cloud: Inventory {
    /// Instance types with prices, specifications and the regions that claim capacity now (advice, not a promise).
    async fn types(&self) -> Result<Vec<InstanceType>, CloudError>;
    /// Asks for one machine. [`CloudErrorKind::UnknownOutcome`] means that it may exist: list and adopt by tag, never launch again blindly.
    ///
    /// `stop` ends the wait for the moment at which the provider allows it, with [`CloudErrorKind::Stopped`]; what was sent is not called back.
    async fn launch(&self, request: &LaunchRequest, stop: &CancellationToken) -> Result<InstanceId, CloudError>;
    /// Ends machines for good. Already gone is success.
    async fn terminate(&self, ids: &[InstanceId]) -> Result<(), CloudError>;
    /// Reboots machines.
    async fn restart(&self, ids: &[InstanceId]) -> Result<(), CloudError>;
}
