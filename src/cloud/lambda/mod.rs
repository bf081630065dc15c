//! Lambda Cloud: machines rented by the minute over an HTTP API.

mod account;
mod client;
mod credentials;
mod endpoint;
mod fault;
mod gpu;
mod limiter;
mod provider;
mod regions;
mod retry;
pub mod wire;

pub use client::LambdaSettings;
pub use credentials::{KEY_FILE_VARIABLE, KEY_VARIABLE, api_key};
pub use endpoint::{DEFAULT_URL, Endpoint, URL_VARIABLE};
pub use gpu::{GpuDescription, parse as parse_gpu};
pub use limiter::Pace;
pub use provider::LambdaCloud;
pub use regions::KNOWN_REGIONS;
pub use retry::RetryPolicy;
