//! `gorgo agent`: the load balancer of one node, in this process, until it is stopped.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Context;
use super::assignment::{Assignment, by_key};
use super::config_file::ConfigFile;
use super::exit::{Failure, Outcome};
use super::face::FaceArgs;
use super::proxy::start::{address, announce, gateway_config, log_to_stderr, promised, replica_config, serve};
use super::signal::Stops;
use crate::config::fleet::AGENTS_STRATEGY;
use crate::config::replica::{AGENT, ENGINES, check_names, in_flag};
use crate::config::resolve::Proxy;
use crate::config::slo::SloFlags;
use crate::config::{Flags, Problem, Problems, ReplicaEntry, resolve};
use crate::gateway::{AgentConfig, Gateway, GatewayConfig, MutualConfig, ReplicaConfig};
use crate::model::Region;
use crate::routing::ReplicaKind;
use crate::routing::policy::on_agent;

/// Most requests in an agent's queue, unless the file says otherwise: the paper's.
const QUEUE_LIMIT: u64 = 1_000;
/// Where peers come to, unless another port is wanted.
const PEER_PORT: u16 = 8443;

/// Arguments of `gorgo agent`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Base URL of this node's engine, e.g. `http://127.0.0.1:30000`
    #[arg(long, value_name = "URL")]
    engine: String,
    /// Another node's agent, e.g. `name=west,url=http://10.0.1.5:8000,region=us-west-1` (repeatable); `url=mtls://10.0.1.5:8443`
    /// with `--identity`.
    /// Further keys: model (repeatable), prefill-ms-per-token, queue-ms-per-token
    #[arg(long = "peer", value_name = "KEY=VALUE,…")]
    peers: Vec<String>,
    /// Name of this node, the same that its peers have for it
    #[arg(long, value_name = "NAME", default_value = "local")]
    name: String,
    /// Where this node stands, e.g. `us-east-1`
    #[arg(long, value_name = "REGION", default_value = "local")]
    region: String,
    /// File (mode 0600) with the API key that the engine wants
    #[arg(long, value_name = "FILE")]
    engine_api_key_file: Option<String>,
    /// Kind of engine: sglang, vllm, emulator [default: found out by asking it]
    #[arg(long, value_name = "KIND")]
    engine_kind: Option<String>,
    /// Address for requests, and without `--identity` for peers [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// This node's key and certificate and its cluster's CA, as `gorgo cluster setup` makes them: peers speak mutual TLS then.
    /// A new file is taken without a restart
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Address for peers, with `--identity` [default: that of `--listen` with port 8443]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address, requires = "identity")]
    peer_listen: Option<SocketAddr>,
    /// Address of the admin API; loopback, unless there is a token [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    admin: Option<SocketAddr>,
    #[command(flatten)]
    face: FaceArgs,
    /// Strategy that decides where a request goes; `gorgo` means `gorgo-v1` here, `gorgo-score` a central `gorgo` [default: predictive]
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// Hold requests while engine and peers have this many running [default: the strategy's own rule]
    #[arg(long, value_name = "N")]
    max_concurrent: Option<u32>,
    /// Weight or rate of the strategy, e.g. `q=1` (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    /// Longest time to first token and longest mean gap between tokens, in ms: who cannot have the first within it is refused at once (429,
    /// or as `[slo]` says), the second is counted only [default: nobody is late]
    #[arg(long, value_name = "NAME=MS,…", value_parser = promised)]
    slo: Option<SloFlags>,
}

/// Runs the agent until SIGTERM, Ctrl-C or `gorgo proxy stop`; each finishes what is in flight. A second signal ends it at once.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    let file = ConfigFile::find(context.config.as_deref())?;
    let (config, left_out) = meant(args, &file)?;
    for note in &left_out {
        context.printer.warn(note);
    }
    log_to_stderr(context);
    // Before anything listens: a signal from now on is a wish to finish, not to die.
    let stops = Stops::listen()?;
    let gateway = Gateway::start(config).await?;
    announce(&gateway, context)?;
    serve(&gateway, stops, context).await
}

/// What was typed, put over the file, and what of the file does not apply. All problems of both are told at once.
///
/// `[proxy]`, `[routing]` and `[residency]` of the file apply here, too; its `[[replica]]` are a central proxy's.
fn meant(args: &Args, file: &ConfigFile) -> Result<(GatewayConfig, Vec<String>), Failure> {
    let mut problems = file.problems.clone();
    let mut document = file.document.clone();
    document.file.replica.clear();
    let written = document.file.cluster.strategy.clone().unwrap_or_else(|| AGENTS_STRATEGY.to_owned());
    let strategy = on_agent(args.strategy.as_deref().unwrap_or(&written)).to_owned();
    let flags = Flags {
        listen: args.listen,
        admin: args.admin,
        strategy: Some(strategy),
        max_concurrent: args.max_concurrent,
        weights: by_key(&args.set)?,
        slo: args.slo.unwrap_or_default(),
        face: args.face.flags(Some(&args.region)),
        ..Flags::default()
    };
    let (resolved, more) = resolve(&document, &flags);
    problems.extend(more);
    let mut proxy = resolved.proxy;
    proxy.queue_limit = document.file.routing.queue_limit.unwrap_or(QUEUE_LIMIT);
    problems.extend(args.face.exposed(proxy.listen, &proxy.face));
    let (own, peers) = entries(args, &proxy, document.file.cluster.engine.as_deref(), &mut problems);
    problems.sort_by_key(|problem: &Problem| problem.line);
    Problems::or(problems, ()).map_err(Failure::usage)?;
    Ok((config(args, proxy, own, peers)?, resolved.left_out))
}

/// The node's engine and its peers as configured. Everything wrong with them is added.
fn entries(
    args: &Args,
    proxy: &Proxy,
    engine: Option<&str>,
    problems: &mut Vec<Problem>,
) -> (ReplicaEntry, Vec<ReplicaEntry>) {
    let own = ReplicaEntry {
        name: Some(args.name.clone()),
        url: Some(args.engine.clone()),
        region: Some(args.region.clone()),
        api_key_file: args.engine_api_key_file.clone(),
        engine: args.engine_kind.clone().or_else(|| engine.map(str::to_owned)),
        ..ReplicaEntry::default()
    };
    // Of all that a replica can be, a node's own engine cannot be another agent.
    ReplicaEntry { engine: None, ..own.clone() }.check(&|key| (own_flag(key).to_owned(), None), problems);
    if let Some(kind) = own.engine.as_deref().filter(|kind| !ENGINES.contains(kind)) {
        let message = format!("unknown engine `{kind}`; known: {}", ENGINES.join(", "));
        problems.push(Problem::new("--engine-kind", message));
    }
    let mut named = vec![("--name".to_owned(), None, &own)];
    let places: Vec<String> = (1..=args.peers.len()).map(|i| format!("--peer {i}")).collect();
    let texts = places.iter().zip(&args.peers);
    let peers: Vec<ReplicaEntry> = texts.map(|(place, text)| ReplicaEntry::from_flag(place, text, problems)).collect();
    for (place, peer) in places.iter().zip(&peers) {
        ReplicaEntry { engine: Some(AGENT.to_owned()), ..peer.clone() }.check(&in_flag(place), problems);
        if peer.engine.is_some() || peer.kv_tokens.is_some() || peer.api_key_file.is_some() {
            let message = "engine, kv-tokens and api-key-file are for the peer to know; wanted name, url and region";
            problems.push(Problem::new(place.clone(), message));
        }
        if peer.url.as_deref().is_some_and(|url| url.trim_end_matches('/') == format!("http://{}", proxy.listen)) {
            problems.push(Problem::new(format!("{place}: url"), "this is the agent's own address"));
        }
        if let Some(message) = peer.url.as_deref().and_then(|url| wrong_scheme(url, args.identity.is_some())) {
            problems.push(Problem::new(format!("{place}: url"), message));
        }
        named.push((place.clone(), None, peer));
    }
    check_names(named, problems);
    (own, peers)
}

/// Peers speak mutual TLS with certificates, and only with them.
fn wrong_scheme(url: &str, certificates: bool) -> Option<String> {
    match (url.starts_with("mtls://"), certificates) {
        (true, false) => {
            Some("`mtls://` needs a certificate of the cluster; name its file with `--identity`".to_owned())
        }
        (false, true) => Some(format!("`{url}` shows no certificate of the cluster; wanted e.g. mtls://10.0.1.5:8443")),
        (true, true) | (false, false) => None,
    }
}

/// The flag that sets a key of the node's own engine.
fn own_flag(key: &str) -> &'static str {
    match key {
        "name" => "--name",
        "region" => "--region",
        _ => "--engine",
    }
}

/// The gateway's own terms.
fn config(args: &Args, proxy: Proxy, own: ReplicaEntry, peers: Vec<ReplicaEntry>) -> Result<GatewayConfig, Failure> {
    let peers_at = args.peer_listen.unwrap_or_else(|| SocketAddr::new(proxy.listen.ip(), PEER_PORT));
    let mut config = gateway_config(proxy)?;
    config.mutual = args.identity.clone().map(|identity| MutualConfig::new(identity, Some(peers_at)));
    config.agent = Some(AgentConfig { name: args.name.clone(), region: Region::new(&args.region) });
    config.replicas.push(replica_config(own)?);
    for peer in peers {
        config.replicas.push(ReplicaConfig { kind: ReplicaKind::Peer, ..replica_config(peer)? });
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use insta::assert_snapshot;

    use super::{Args, ConfigFile, meant};
    use crate::cli::Exit;
    use crate::config::read;
    use crate::routing::ReplicaKind;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        let words = ["agent"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).expect("arguments").args
    }

    fn file(text: &str) -> ConfigFile {
        let (document, problems) = read(text);
        ConfigFile { path: None, document, problems }
    }

    const PAIR: &str = "--engine http://127.0.0.1:30000 --name east --region us-east-1 --listen 10.0.0.5:8000 \
                        --peer name=west,url=http://10.0.1.5:8000,region=us-west-1";

    #[test]
    fn an_agent_is_its_engine_and_its_peers() {
        let (config, left_out) = meant(&args(PAIR), &file("")).expect("nothing wrong");
        let shown: Vec<String> = config
            .replicas
            .iter()
            .map(|replica| format!("{} {} {} {:?}", replica.name, replica.url, replica.region, replica.kind))
            .collect();
        assert_eq!(shown, ["east http://127.0.0.1:30000 us-east-1 Engine", "west http://10.0.1.5:8000 us-west-1 Peer"]);
        assert_eq!(config.replicas.iter().filter(|replica| replica.kind == ReplicaKind::Peer).count(), 1);
        assert_eq!((config.routing.strategy.as_str(), config.routing.queue_limit), ("predictive", 1_000));
        assert_eq!(config.routing.queue_timeout_ms, 60_000.0);
        assert_eq!(left_out, Vec::<String>::new());
    }

    #[test]
    fn the_file_applies_but_for_its_replicas() {
        let text = "[cluster]\nstrategy = \"least-load\"\nengine = \"vllm\"\n[routing]\nqueue_limit = 7\nmax_concurrent = 3\n\
                    [[replica]]\nname = \"x\"\nurl = \"http://x\"\nregion = \"r\"\n[proxy]\nadmin = \"127.0.0.1:9\"\n";
        let (config, _) = meant(&args(PAIR), &file(text)).expect("nothing wrong");
        let routing = &config.routing;
        assert_eq!(
            (routing.strategy.as_str(), routing.queue_limit, routing.max_concurrent),
            ("least-load", 7, Some(3))
        );
        assert_eq!((config.replicas.len(), config.admin.port()), (2, 9));
        assert_eq!(config.replicas[0].engine.map(|engine| engine.name), Some("vllm"));
    }

    #[test]
    fn the_score_of_a_central_gorgo_has_a_name_here() {
        let score = args(&format!("{PAIR} --strategy gorgo-score --set w_rtt=2"));
        let (config, _) = meant(&score, &file("")).expect("nothing wrong");
        assert_eq!(config.routing.strategy, "gorgo-score");
        assert_eq!(config.routing.parameters, [("w_rtt".to_owned(), 2.0)]);
        let (config, _) = meant(&args(PAIR), &file("[cluster]\nstrategy = \"gorgo-score\"\n")).expect("nothing wrong");
        assert_eq!(config.routing.strategy, "gorgo-score");
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let cases = [
            "--engine 127.0.0.1:30000 --name a --engine-kind tgi --peer name=a,url=http://10.0.0.1:8000,region=r --set w_rtt=1",
            "--engine http://e --listen 203.0.113.9:8000",
            "--engine http://e --listen 0.0.0.0:8000 --peer url=http://p,region=r,kv-tokens=3",
            "--engine http://e --listen 10.0.0.5:8000 --peer name=p,url=http://10.0.0.5:8000/,region=r",
        ];
        let mut shown = String::new();
        for case in cases {
            let failure = meant(&args(case), &file("")).expect_err(case);
            assert_eq!(failure.exit, Exit::Usage, "{case}");
            shown += &format!("{failure}\n");
        }
        assert_snapshot!(shown, @r"
        error: 4 problems in the configuration
          --set w_rtt: strategy `predictive` has no parameter `w_rtt`; it has: gamma, kappa, phi, tail, hold_ms, max_running, guard
          --engine: `127.0.0.1:30000` does not begin with http:// or https:// and a host; wanted e.g. http://10.0.0.5:30000
          --engine-kind: unknown engine `tgi`; known: sglang, vllm, emulator
          --peer 1: the name `a` is taken by --name
        error: 1 problem in the configuration
          --listen: 203.0.113.9:8000 is a public address, and requests are not encrypted; wanted a private or loopback address, or `--allow-public-plaintext`
        error: 3 problems in the configuration
          --listen: 0.0.0.0:8000 stands for all addresses of this machine, public ones too, and requests are not encrypted; wanted a private or loopback address, or `--allow-public-plaintext`
          --peer 1: name: is missing
          --peer 1: engine, kv-tokens and api-key-file are for the peer to know; wanted name, url and region
        error: 1 problem in the configuration
          --peer 1: url: this is the agent's own address
        ");
        let allowed = args("--engine http://e --listen 203.0.113.9:8000 --allow-public-plaintext");
        assert!(meant(&allowed, &file("")).is_ok(), "asked for by name");
    }
}
