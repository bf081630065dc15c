//! One strategy's own world: emulated engines, a WAN relay before each, and the gateways that know only the relays.
//!
//! A fleet with one router is a central proxy with all engines behind it. Several routers are agents, each beside the engine of its
//! region, with real peer streams to all others through relays as far as the regions are apart. Clients away from their router reach
//! it through a relay, too.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::DemoConfig;
use crate::emulator::engine::{self, EngineHandle, EngineOptions};
use crate::emulator::wan::{self, WanHandle, WanOptions};
use crate::gateway::{AgentConfig, Gateway, GatewayConfig, GatewayHandle, ReplicaConfig};
use crate::model::Region;
use crate::routing::{Rates, ReplicaKind, Settings};
use crate::sim::engine::EngineSpec;

/// Any free port of this machine.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Prompt length at which a replica's rates are taken, tokens: about the mean of the bundled trace.
const PROBE_TOKENS: u32 = 4096;
/// Longest wait until every router has found all its engines and peers healthy.
const READY: Duration = Duration::from_secs(20);
/// Pause between two looks at the routers' replicas.
const LOOK: Duration = Duration::from_millis(20);
/// Engines have nothing left to finish when a lane ends.
const GRACE: Duration = Duration::from_millis(200);

/// A running fleet under one strategy.
#[derive(Default)]
pub(super) struct Lane {
    /// In the order of the fleet's routers.
    gateways: Vec<GatewayHandle>,
    relays: Vec<WanHandle>,
    /// In the order of the fleet's replicas.
    engines: Vec<EngineHandle>,
    /// Where each group of clients sends its requests.
    urls: Vec<String>,
}

impl Lane {
    /// Starts engines, relays and gateways on free ports; they serve when this returns.
    ///
    /// # Errors
    /// Ports or strategies that cannot be had.
    pub(super) async fn start(config: &DemoConfig, specs: &[EngineSpec], strategy: &Settings) -> Result<Self> {
        let mut site = Site { config, specs, strategy, lane: Self::default() };
        for index in 0..config.fleet.replicas.len() {
            site.engine(index).await?;
        }
        if config.fleet.routers.len() == 1 {
            site.central().await?;
        } else {
            site.agents().await?;
        }
        site.doors().await?;
        let lane = site.lane;
        lane.all_healthy().await.with_context(|| format!("not all is there for `{}`", strategy.strategy))?;
        Ok(lane)
    }

    /// Waits until the routers have found every engine and peer: a strategy that starts with fewer would be judged on them.
    async fn all_healthy(&self) -> Result<()> {
        // A central router knows all engines, an agent its own one and a peer for every other.
        let all = self.engines.len();
        let found = || self.gateways.iter().map(GatewayHandle::healthy).min().unwrap_or(0);
        let complete = async {
            while found() < all {
                tokio::time::sleep(LOOK).await;
            }
        };
        let missing = || format!("a router finds {} of {all} healthy after {} s", found(), READY.as_secs());
        tokio::time::timeout(READY, complete).await.with_context(missing)
    }

    /// Where the requests of a group of clients go.
    #[must_use]
    pub(super) fn url(&self, group: usize) -> &str {
        &self.urls[group]
    }

    /// The running gateways, one per router of the fleet.
    #[must_use]
    pub(super) fn gateways(&self) -> &[GatewayHandle] {
        &self.gateways
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
        for gateway in &self.gateways {
            gateway.stop();
        }
        drop(self.relays);
        for engine in self.engines {
            engine.shutdown(GRACE).await;
        }
    }
}

/// A lane while it is built.
struct Site<'a> {
    config: &'a DemoConfig,
    specs: &'a [EngineSpec],
    strategy: &'a Settings,
    lane: Lane,
}

impl Site<'_> {
    async fn engine(&mut self, index: usize) -> Result<()> {
        let replica = &self.config.fleet.replicas[index];
        let options = EngineOptions {
            listen: ANY,
            spec: self.specs[index].clone(),
            model: replica.model.clone(),
            region: replica.region.clone(),
            seed: self.config.seed,
        };
        let engine =
            engine::start(options).await.with_context(|| format!("failed to start engine `{}`", replica.name))?;
        self.lane.engines.push(engine);
        Ok(())
    }

    /// A relay that is as long as the way between two regions. The same number under every strategy: all lanes see one network.
    async fn relay(&mut self, to: SocketAddr, (a, b): (&Region, &Region), number: usize) -> Result<String> {
        let fleet = &self.config.fleet;
        let rtt_ms = fleet.rtt.rtt_ms(a, b).context("a checked fleet knows every pair")?;
        let seed = self.config.seed.wrapping_add(number as u64);
        let options = WanOptions { listen: ANY, to, rtt_ms, jitter: fleet.jitter, seed };
        let relay = wan::start(options).await.with_context(|| format!("failed to start the relay from {a} to {b}"))?;
        let url = format!("http://{}", relay.address());
        self.lane.relays.push(relay);
        Ok(url)
    }

    /// An engine as the router in `from` knows it.
    async fn replica(&mut self, index: usize, from: &Region) -> Result<ReplicaConfig> {
        let replica = &self.config.fleet.replicas[index];
        let address = self.lane.engines[index].address();
        let url = self.relay(address, (from, &replica.region), index).await?;
        let rates = rates(&self.specs[index]);
        Ok(ReplicaConfig { rates, ..ReplicaConfig::new(&replica.name, &url, replica.region.as_str()) })
    }

    async fn gateway(&mut self, router: usize, agent: Option<AgentConfig>, replicas: Vec<ReplicaConfig>) -> Result<()> {
        let seed = self.config.seed.wrapping_add(router as u64);
        let settings = Settings { seed, ..self.strategy.clone() };
        let config = GatewayConfig { listen: ANY, admin: ANY, agent, ..GatewayConfig::new(settings, replicas) };
        let started = Gateway::start(config).await;
        let gateway = started.with_context(|| format!("failed to start a router of `{}`", self.strategy.strategy))?;
        self.lane.gateways.push(gateway);
        Ok(())
    }

    /// One router with all engines behind it.
    async fn central(&mut self) -> Result<()> {
        let home = &self.config.fleet.routers[0].region;
        let mut replicas = Vec::new();
        for index in 0..self.config.fleet.replicas.len() {
            replicas.push(self.replica(index, home).await?);
        }
        self.gateway(0, None, replicas).await
    }

    /// A router beside each engine, all of them peers. They have the names of their engines, so that shares are by engine whoever sent.
    async fn agents(&mut self) -> Result<()> {
        let fleet = &self.config.fleet;
        let own = |region: &Region| fleet.replicas.iter().position(|replica| replica.region == *region);
        let engines: Vec<usize> = fleet.routers.iter().filter_map(|router| own(&router.region)).collect();
        for (router, engine) in engines.iter().copied().enumerate() {
            let region = fleet.routers[router].region.clone();
            let replica = self.replica(engine, &region).await?;
            let agent = AgentConfig { name: replica.name.clone(), region };
            self.gateway(router, Some(agent), vec![replica]).await?;
        }
        for (from, at) in fleet.routers.iter().enumerate() {
            for (to, engine) in engines.iter().copied().enumerate().filter(|(to, _)| *to != from) {
                let number = fleet.replicas.len() + from * fleet.routers.len() + to;
                let address = self.lane.gateways[to].listen();
                let url = self.relay(address, (&at.region, &fleet.routers[to].region), number).await?;
                let replica = &fleet.replicas[engine];
                let known = ReplicaConfig::new(&replica.name, &url, replica.region.as_str());
                let rates = rates(&self.specs[engine]);
                self.lane.gateways[from].fleet().add(ReplicaConfig { kind: ReplicaKind::Peer, rates, ..known })?;
            }
        }
        Ok(())
    }

    /// The ways of the clients to their routers.
    async fn doors(&mut self) -> Result<()> {
        let fleet = &self.config.fleet;
        for (group, clients) in fleet.clients.iter().enumerate() {
            let router = &fleet.routers[clients.router].region;
            let gateway = &self.lane.gateways[clients.router];
            let url = if clients.region == *router {
                gateway.url()
            } else {
                let number = fleet.replicas.len() + fleet.routers.len() * fleet.routers.len() + group;
                let address = gateway.listen();
                self.relay(address, (&clients.region, router), number).await?
            };
            self.lane.urls.push(url);
        }
        Ok(())
    }
}

/// What an operator who knows the GPUs would configure: the prefill time per token of a cold prompt of [`PROBE_TOKENS`], for prefill
/// and queue alike. Only the `gorgo` strategies read it.
fn rates(spec: &EngineSpec) -> Rates {
    let ms_per_token = Some(spec.lone_prefill_ms(0, PROBE_TOKENS) / f64::from(PROBE_TOKENS));
    Rates { prefill_ms_per_token: ms_per_token, queue_ms_per_token: ms_per_token }
}
