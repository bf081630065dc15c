//! One strategy's own world: emulated engines, a WAN relay before each, and a gateway that knows only the relays.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::DemoConfig;
use crate::emulator::engine::{self, EngineHandle, EngineOptions};
use crate::emulator::wan::{self, WanHandle, WanOptions};
use crate::gateway::{Gateway, GatewayConfig, GatewayHandle, ReplicaConfig};
use crate::routing::{Rates, Settings};
use crate::sim::engine::EngineSpec;

/// Any free port of this machine.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Prompt length at which a replica's rates are taken, tokens: about the mean of the bundled trace.
const PROBE_TOKENS: u32 = 4096;
/// Longest wait until the router has found all its engines healthy.
const READY: Duration = Duration::from_secs(20);
/// Pause between two looks at the router's replicas.
const LOOK: Duration = Duration::from_millis(20);
/// Engines have nothing left to finish when a lane ends.
const GRACE: Duration = Duration::from_millis(200);

/// A running fleet under one strategy.
pub(super) struct Lane {
    gateway: GatewayHandle,
    relays: Vec<WanHandle>,
    engines: Vec<EngineHandle>,
}

impl Lane {
    /// Starts engines, relays and the gateway on free ports; they serve when this returns.
    ///
    /// # Errors
    /// Ports or strategies that cannot be had.
    pub(super) async fn start(config: &DemoConfig, specs: &[EngineSpec], strategy: &Settings) -> Result<Self> {
        let fleet = &config.fleet;
        let home = &fleet.routers.first().context("a fleet has a router")?.region;
        let (mut engines, mut relays, mut replicas) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (replica, spec)) in fleet.replicas.iter().zip(specs).enumerate() {
            let options = EngineOptions {
                listen: ANY,
                spec: spec.clone(),
                model: replica.model.clone(),
                region: replica.region.clone(),
                seed: config.seed,
            };
            let engine =
                engine::start(options).await.with_context(|| format!("failed to start engine `{}`", replica.name))?;
            let rtt_ms = fleet.rtt.rtt_ms(home, &replica.region).context("a checked fleet knows every pair")?;
            // The same seed for the same replica under every strategy: all lanes see one network.
            let seed = config.seed.wrapping_add(index as u64);
            let options = WanOptions { listen: ANY, to: engine.address(), rtt_ms, jitter: fleet.jitter, seed };
            let relay = wan::start(options)
                .await
                .with_context(|| format!("failed to start the relay to `{}`", replica.name))?;
            let url = format!("http://{}", relay.address());
            let rates = rates(spec);
            replicas.push(ReplicaConfig { rates, ..ReplicaConfig::new(&replica.name, &url, replica.region.as_str()) });
            engines.push(engine);
            relays.push(relay);
        }
        let settings = Settings { seed: config.seed, ..strategy.clone() };
        let strategy = &strategy.strategy;
        let gateway = GatewayConfig { listen: ANY, admin: ANY, ..GatewayConfig::new(settings, replicas) };
        let gateway =
            Gateway::start(gateway).await.with_context(|| format!("failed to start the proxy of `{strategy}`"))?;
        let lane = Self { gateway, relays, engines };
        lane.all_healthy().await.with_context(|| format!("the proxy of `{strategy}` did not find its engines"))?;
        Ok(lane)
    }

    /// Waits until the router has found every engine: a strategy that starts with fewer would be judged on them.
    async fn all_healthy(&self) -> Result<()> {
        let found = async {
            while self.gateway.healthy() < self.engines.len() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let missing =
            || format!("{} of {} are healthy after {} s", self.gateway.healthy(), self.engines.len(), READY.as_secs());
        tokio::time::timeout(READY, found).await.with_context(missing)
    }

    /// Where requests go.
    #[must_use]
    pub(super) fn url(&self) -> String {
        self.gateway.url()
    }

    /// The running gateway.
    #[must_use]
    pub(super) fn gateway(&self) -> &GatewayHandle {
        &self.gateway
    }

    /// How late first tokens left the engines, ms.
    #[must_use]
    pub(super) fn timing_error_ms(&self) -> Vec<f64> {
        self.engines.iter().flat_map(EngineHandle::timing_error_ms).collect()
    }

    /// How late bytes left the relays, ms.
    #[must_use]
    pub(super) fn wan_error_ms(&self) -> Vec<f64> {
        self.relays.iter().flat_map(WanHandle::timing_error_ms).collect()
    }

    /// Ends everything.
    pub(super) async fn stop(self) {
        self.gateway.stop();
        drop(self.relays);
        for engine in self.engines {
            engine.shutdown(GRACE).await;
        }
    }
}

/// What an operator who knows the GPUs would configure: the prefill time per token of a cold prompt of [`PROBE_TOKENS`], for prefill
/// and queue alike. Only the `gorgo` strategies read it.
fn rates(spec: &EngineSpec) -> Rates {
    let ms_per_token = Some(spec.lone_prefill_ms(0, PROBE_TOKENS) / f64::from(PROBE_TOKENS));
    Rates { prefill_ms_per_token: ms_per_token, queue_ms_per_token: ms_per_token }
}
