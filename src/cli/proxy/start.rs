//! `gorgo proxy start`: the central router, in this process, until it is stopped.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::super::Context;
use super::super::assignment::{Assignment, by_key};
use super::super::config::settings;
use super::super::config_file::ConfigFile;
use super::super::exit::{Exit, Failure, Outcome};
use super::super::face::{self, FaceArgs};
use super::super::measure::slo;
use super::super::signal::Stops;
use crate::config::replica::AGENT;
use crate::config::resolve::Proxy;
use crate::config::slo::SloFlags;
use crate::config::{Flags, Problem, Problems, ReplicaEntry, Resolved, resolve};
use crate::gateway::{Gateway, GatewayConfig, GatewayHandle, Limits, MutualConfig, ReplicaConfig};
use crate::inference::Engine;
use crate::model::Region;
use crate::routing::residency::Residency;
use crate::routing::{self, Rates, ReplicaKind, Settings};

/// Arguments of `gorgo proxy start`.
#[derive(Debug, clap::Args)]
#[command(after_help = strategies())]
pub(crate) struct Args {
    /// A replica, e.g. `name=a,url=http://10.0.0.5:30000,region=us-east-1` (repeatable; replaces those of the file).
    /// Further keys: engine (sglang, vllm, emulator, or agent for the agent of a node), model (repeatable), kv-tokens,
    /// prefill-ms-per-token, queue-ms-per-token, api-key-file
    #[arg(long = "replica", value_name = "KEY=VALUE,…")]
    replicas: Vec<String>,
    /// Address for requests [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Address of the admin API; loopback, unless there is a token [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    admin: Option<SocketAddr>,
    /// Where this router stands, e.g. `us-east-1`; for the audit log
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    #[command(flatten)]
    face: FaceArgs,
    /// The proxy's key and certificate and its cluster's CA, as `gorgo cluster setup` makes them, for agents at `mtls://`.
    /// A new file is taken without a restart
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Strategy that decides where a request goes [default: predictive]
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// Hold requests in the router while every replica has this many running or 95 % of its KV cache in use; takes the place of
    /// gorgo-proxy's own limit of 10 [default: the strategy's own rule]
    #[arg(long, value_name = "N")]
    max_concurrent: Option<u32>,
    /// Weight or rate of the strategy, e.g. `w_queue=0.1` (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    /// Longest time to first token and longest mean gap between tokens, in ms: who cannot have the first within it is refused at once (429,
    /// or as `[slo]` says), the second is counted only [default: nobody is late]
    #[arg(long, value_name = "NAME=MS,…", value_parser = promised)]
    slo: Option<SloFlags>,
    /// Check everything, print what would apply, and start nothing
    #[arg(long)]
    dry_run: bool,
}

/// What `--strategy` and `--set` may name.
fn strategies() -> String {
    let mut text = String::from("Strategies, and what `--set` may set of each (with its default):\n");
    for entry in routing::policy::registry::strategies() {
        text += &format!("  {:<17} {}\n", entry.name, entry.help);
        let keys: Vec<String> = entry.parameters.iter().map(|key| format!("{}={}", key.key, key.default)).collect();
        if !keys.is_empty() {
            text += &format!("  {:<17} {}\n", "", keys.join(" "));
        }
    }
    text.trim_end().to_owned()
}

/// `ttft=10000,itl=50`, as a router can keep to it.
pub(in crate::cli) fn promised(text: &str) -> Result<SloFlags, String> {
    let slo = slo(text)?;
    if slo.e2e_ms.is_some() {
        return Err("a router knows nothing of whole answers before they end; wanted ttft, itl or both".to_owned());
    }
    let whole = |ms: Option<f64>| ms.map(|ms| ms.ceil() as u64);
    Ok(SloFlags { ttft_ms: whole(slo.ttft_ms), itl_ms: whole(slo.itl_ms) })
}

/// An address as a flag takes it.
pub(in crate::cli) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "wanted an IP address and a port, e.g. 127.0.0.1:8000".to_owned())
}

/// Runs the proxy until SIGTERM, Ctrl-C or `gorgo proxy stop`; each finishes what is in flight. A second signal ends it at once.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    let file = ConfigFile::find(context.config.as_deref())?;
    let resolved = meant(args, &file)?;
    for note in &resolved.left_out {
        context.printer.warn(note);
    }
    if args.dry_run {
        context.printer.data(settings(&resolved.settings))?;
        return Ok(Exit::Done);
    }
    log_to_stderr(context);
    // Before anything listens: a signal from now on is a wish to finish, not to die.
    let stops = Stops::listen()?;
    let mut config = gateway_config(resolved.proxy)?;
    config.mutual = args.identity.clone().map(|identity| MutualConfig::new(identity, None));
    let gateway = Gateway::start(config).await?;
    announce(&gateway, context)?;
    serve(&gateway, stops, context).await
}

/// What was typed, put over the file. All problems of both are told at once.
fn meant(args: &Args, file: &ConfigFile) -> Result<Resolved, Failure> {
    let mut problems = file.problems.clone();
    let replicas = args.replicas.iter().enumerate();
    let replicas =
        replicas.map(|(i, text)| ReplicaEntry::from_flag(&format!("--replica {}", i + 1), text, &mut problems));
    let flags = Flags {
        replicas: replicas.collect(),
        listen: args.listen,
        admin: args.admin,
        strategy: args.strategy.clone(),
        max_concurrent: args.max_concurrent,
        weights: by_key(&args.set)?,
        slo: args.slo.unwrap_or_default(),
        face: args.face.flags(args.region.as_deref()),
    };
    let (resolved, more) = resolve(&file.document, &flags);
    problems.extend(more);
    problems.extend(args.face.exposed(resolved.proxy.listen, &resolved.proxy.face));
    let mutual = |replica: &&ReplicaEntry| replica.url.as_deref().is_some_and(|url| url.starts_with("mtls://"));
    if let Some(agent) = resolved.proxy.replicas.iter().find(mutual).filter(|_| args.identity.is_none()) {
        let name = agent.name.as_deref().unwrap_or_default();
        let message = format!("replica `{name}` at `mtls://` needs a certificate of the cluster; name its file");
        problems.push(Problem::new("--identity", message));
    }
    if resolved.proxy.replicas.is_empty() && problems.is_empty() {
        let hint = "add `--replica name=a,url=http://10.0.0.5:30000,region=us-east-1`, or a [[replica]] to gorgo.toml";
        return Err(Failure::usage(anyhow!("no replica is named")).with_hint(hint));
    }
    problems.sort_by_key(|problem: &Problem| problem.line);
    Problems::or(problems, resolved).map_err(|problems| match &file.path {
        Some(path) => Failure::usage(anyhow::Error::new(problems)).with_hint(format!("the file is {}", path.display())),
        None => Failure::usage(problems),
    })
}

/// The gateway's own terms for what was configured.
pub(in crate::cli) fn gateway_config(proxy: Proxy) -> Result<GatewayConfig, Failure> {
    let replicas = proxy.replicas.into_iter().map(replica_config).collect::<Result<_, _>>()?;
    let routing = Settings {
        strategy: proxy.strategy,
        parameters: proxy.weights.into_iter().collect(),
        max_concurrent: proxy.max_concurrent,
        queue_limit: whole(proxy.queue_limit),
        queue_timeout_ms: proxy.queue_timeout_ms as f64,
        max_attempts: proxy.max_attempts,
        seed: proxy.seed,
        slo: proxy.slo,
        residency: Residency { classes: proxy.residency, models: proxy.residency_by_model },
        ..Settings::default()
    };
    let mut config = GatewayConfig::new(routing, replicas);
    let limits = proxy.limits;
    face::apply(proxy.face, &mut config)?;
    config.listen = proxy.listen;
    config.admin = proxy.admin;
    config.inject_usage = proxy.inject_usage;
    config.decisions_kept = whole(limits.decisions_kept);
    config.probe.rtt_every = Duration::from_millis(limits.rtt_every_ms);
    config.probe.gauges_every = Duration::from_millis(limits.gauges_every_ms);
    config.limits = Limits {
        max_connections: whole(limits.max_connections),
        max_body_bytes: whole(limits.max_body_bytes),
        max_bodies_bytes: whole(limits.max_bodies_bytes),
        max_header_bytes: whole(limits.max_header_bytes),
        header_timeout: Duration::from_millis(limits.header_timeout_ms),
        body_timeout: Duration::from_millis(limits.body_timeout_ms),
        body_total_timeout: Duration::from_millis(limits.body_total_timeout_ms),
        keep_alive: Duration::from_millis(limits.keep_alive_ms),
        write_timeout: Duration::from_millis(limits.write_timeout_ms),
        upstream_timeout: Duration::from_millis(limits.upstream_timeout_ms),
        stream_timeout: Duration::from_millis(limits.stream_timeout_ms),
        drain_timeout: Duration::from_millis(limits.drain_timeout_ms),
    };
    Ok(config)
}

/// A replica in the gateway's terms.
pub(in crate::cli) fn replica_config(entry: ReplicaEntry) -> Result<ReplicaConfig, Failure> {
    let agent = entry.engine.as_deref() == Some(AGENT);
    let engine = entry.engine.as_deref().filter(|_| !agent).map(Engine::by_name);
    let engine = engine.transpose().map_err(Failure::usage)?;
    Ok(ReplicaConfig {
        name: entry.name.unwrap_or_default(),
        url: entry.url.unwrap_or_default(),
        region: Region::new(&entry.region.unwrap_or_default()),
        kind: if agent { ReplicaKind::Peer } else { ReplicaKind::Engine },
        engine,
        models: entry.models.unwrap_or_default(),
        limits: routing::Limits { kv_tokens: entry.kv_tokens },
        rates: Rates { prefill_ms_per_token: entry.prefill_ms_per_token, queue_ms_per_token: entry.queue_ms_per_token },
        api_key: face::engine_key(entry.api_key_file.as_deref())?,
    })
}

/// Limits are checked against ranges that fit; where a machine's words are shorter, its largest will do.
fn whole(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Both addresses on stdout, so that a script that asked for port 0 can read them.
pub(in crate::cli) fn announce(gateway: &GatewayHandle, context: &Context) -> Result<(), Failure> {
    context.printer.data(format_args!("requests  {}\nadmin     {}", gateway.url(), gateway.admin_url()))?;
    // A service has nobody who could press Ctrl-C, and what watches over it would start it again after `gorgo proxy stop`.
    let how = if std::io::stdin().is_terminal() { "Ctrl-C or `gorgo proxy stop`" } else { "SIGTERM" };
    context.printer.talk(format_args!("ready; {how} finishes what is in flight and ends"));
    Ok(())
}

/// Until it is told to stop.
pub(in crate::cli) async fn serve(gateway: &GatewayHandle, mut stops: Stops, context: &Context) -> Outcome {
    tokio::select! {
        () = gateway.stop_asked() => context.printer.talk("asked to stop; finishing what is in flight"),
        _ = stops.next() => context.printer.talk("finishing what is in flight; again to end at once"),
    }
    tokio::select! {
        all = gateway.drain() => if all { Ok(Exit::Done) } else {
            Err(anyhow!("the drain limit is over; what was still in flight was cut off").into())
        },
        _ = stops.next() => {
            gateway.stop();
            Ok(Exit::Interrupted)
        }
    }
}

/// Log lines to stderr: what `RUST_LOG` says, else `info` (`warn` with `--quiet`). A logger that is there already stays.
pub(in crate::cli) fn log_to_stderr(context: &Context) {
    let level = if context.printer.is_quiet() { LevelFilter::WARN } else { LevelFilter::INFO };
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let logger = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(context.printer.is_coloured());
    let _ = logger.with_env_filter(filter).try_init();
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Args, ConfigFile, FaceArgs, gateway_config, meant};
    use crate::cli::Exit;
    use crate::config::{Document, Flags, read, resolve};
    use crate::gateway::GatewayConfig;
    use crate::routing::Settings;

    fn file(text: &str) -> ConfigFile {
        let (document, problems) = read(text);
        ConfigFile { path: Some("gorgo.toml".into()), document, problems }
    }

    fn args(replicas: &[&str]) -> Args {
        Args {
            replicas: replicas.iter().map(|text| (*text).to_owned()).collect(),
            listen: None,
            admin: None,
            region: None,
            face: FaceArgs::default(),
            identity: None,
            strategy: None,
            max_concurrent: None,
            set: Vec::new(),
            slo: None,
            dry_run: false,
        }
    }

    #[test]
    fn the_documented_defaults_are_those_of_gateway_and_router() {
        let (resolved, problems) = resolve(&Document::default(), &Flags::default());
        assert_eq!(problems, vec![]);
        let config = gateway_config(resolved.proxy).expect("nothing to refuse");
        let wanted = GatewayConfig::new(Settings::default(), Vec::new());
        assert_eq!(format!("{config:#?}"), format!("{wanted:#?}"));
    }

    #[test]
    fn problems_of_flags_and_file_are_told_together() {
        let failure = meant(&args(&["name=a"]), &file("[routing]\nseeed = 1\n")).expect_err("both are wrong");
        assert_eq!(failure.exit, Exit::Usage);
        assert_snapshot!(failure, @"
        error: 3 problems in the configuration
          --replica 1: url: is missing
          --replica 1: region: is missing
          line 2: routing.seeed: unknown key; did you mean `seed`?

        hint: the file is gorgo.toml
        ");
    }

    #[test]
    fn a_public_address_has_to_be_asked_for() {
        let open = |allow_public_plaintext| {
            let replicas = args(&["name=a,url=http://a,region=r"]);
            let face = FaceArgs { allow_public_plaintext, ..FaceArgs::default() };
            meant(&Args { face, ..replicas }, &file("[proxy]\nlisten = \"0.0.0.0:8000\"\n"))
        };
        let failure = open(false).expect_err("anybody could read along");
        assert_eq!(failure.exit, Exit::Usage);
        assert_snapshot!(failure.to_string().lines().nth(1).unwrap_or_default(), @"  --listen: 0.0.0.0:8000 stands for all addresses of this machine, public ones too, and requests are not encrypted; wanted a private or loopback address, or `--allow-public-plaintext`");
        assert!(open(true).is_ok());
    }

    #[test]
    fn a_proxy_without_replicas_is_not_started() {
        let failure = meant(&args(&[]), &file("")).expect_err("nobody could serve");
        assert_eq!(failure.exit, Exit::Usage);
        assert_snapshot!(failure, @"
        error: no replica is named

        hint: add `--replica name=a,url=http://10.0.0.5:30000,region=us-east-1`, or a [[replica]] to gorgo.toml
        ");
    }
}
