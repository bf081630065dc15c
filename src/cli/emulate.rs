//! `gorgo emulate engine|wan|lambda`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Subcommand, ValueEnum};

use super::Context;
use super::exit::{Exit, Failure, Outcome};
use super::signal::Stops;
use crate::emulator::engine::{self, EngineOptions};
use crate::emulator::lambda::{self, Fault, LambdaOptions};
use crate::emulator::wan::{self, Jitter, WanOptions};
use crate::model::{Region, Secret};
use crate::sim::engine::Scheduler;
use crate::sim::preset;

/// Longest wait for running requests after a request to stop.
const GRACE: Duration = Duration::from_secs(60);

/// The commands of `gorgo emulate`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// An inference engine with SGLang's HTTP face: real time, made-up tokens
    Engine(EngineArgs),
    /// A TCP relay with the delay of a wide-area network
    Wan(WanArgs),
    /// Lambda's API with an account in memory: machines that only pretend to boot, and faults on demand
    Lambda(LambdaArgs),
}

/// Arguments of `gorgo emulate engine`.
#[derive(Debug, clap::Args)]
pub(crate) struct EngineArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:30000")]
    listen: SocketAddr,
    /// GPU preset, e.g. a100-80
    #[arg(long, value_name = "ID")]
    gpu: String,
    /// Model preset, e.g. mistral-7b
    #[arg(long, value_name = "ID")]
    model: String,
    /// Region that it shows, e.g. us-east-1
    #[arg(long, value_name = "NAME", default_value = "local")]
    region: String,
    /// KV cache capacity in tokens, instead of the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    kv_tokens: Option<u64>,
    /// Most requests running at once, instead of the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_running: Option<u32>,
    /// Prefill tokens per step, instead of the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunk: Option<u32>,
    /// Tokens per KV block, instead of the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    block: Option<u32>,
    /// How steps are composed, instead of the preset's
    #[arg(long, value_name = "NAME")]
    scheduler: Option<SchedulerName>,
    /// Seed of output texts and lengths
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// `--scheduler`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SchedulerName {
    /// Prefill steps before decode steps, as SGLang
    PrefillFirst,
    /// Prefill and decode in one step, as vLLM
    Mixed,
}

/// Arguments of `gorgo emulate wan`.
#[derive(Debug, clap::Args)]
pub(crate) struct WanArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to relay to: HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Round-trip time to add, in ms
    #[arg(long, value_name = "MS", value_parser = rtt_ms)]
    rtt: f64,
    /// How the delay varies
    #[arg(long, value_name = "NAME", default_value = "backbone")]
    jitter: JitterName,
    /// Seed of all variation
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// `--jitter`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum JitterName {
    /// Not at all
    None,
    /// By a few per cent, as between data centres of one provider
    Backbone,
    /// The same with rare spikes of 50 to 400 ms, as on the public Internet
    Internet,
}

/// Arguments of `gorgo emulate lambda`.
#[derive(Debug, clap::Args)]
pub(crate) struct LambdaArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8008")]
    listen: SocketAddr,
    /// Seed of ids, made-up addresses and durations
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How many of its seconds pass in one of ours; boots take 110 to 330 of them
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// File with the only API key to accept, instead of any
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Take calls as fast as they come, instead of one per second and one launch per 12 s
    #[arg(long)]
    no_limits: bool,
    /// Address for a machine, instead of made-up ones; repeat for more. When all are in use there is no capacity
    #[arg(long, value_name = "A.B.C.D")]
    address: Vec<Ipv4Addr>,
    /// Something that goes wrong; repeat for more. `help` lists them
    #[arg(long, value_name = "NAME[=VALUE]")]
    fault: Vec<String>,
}

/// Every command and where it lives.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Engine(args) => run_engine(engine_options(args).map_err(Failure::usage)?, context).await,
        Command::Wan(args) => run_wan(wan_options(args).await?, context).await,
        Command::Lambda(args) if args.fault.iter().any(|fault| fault == "help") => {
            context.printer.data(lambda::list_faults())?;
            Ok(Exit::Done)
        }
        Command::Lambda(args) => run_lambda(lambda_options(args).map_err(Failure::usage)?, context).await,
    }
}

/// Serves until it is told to stop, then lets running requests finish; the second signal ends them.
async fn run_engine(options: EngineOptions, context: &Context) -> Outcome {
    let mut stops = Stops::listen()?;
    let listen = options.listen;
    let engine = engine::start(options).await.with_context(|| format!("cannot listen on {listen}"))?;
    context.printer.data(format_args!("http://{}", engine.address()))?;
    stops.next().await;
    context.printer.talk("finishing what is running; again to end at once");
    tokio::select! {
        () = engine.shutdown(GRACE) => Ok(Exit::Done),
        _ = stops.next() => Ok(Exit::Interrupted),
    }
}

/// Relays until it is told to stop.
async fn run_wan(options: WanOptions, context: &Context) -> Outcome {
    let mut stops = Stops::listen()?;
    let relay = wan::start(options).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    context.printer.data(relay.address())?;
    stops.next().await;
    relay.shutdown().await;
    Ok(Exit::Done)
}

/// Pretends until it is told to stop.
async fn run_lambda(options: LambdaOptions, context: &Context) -> Outcome {
    let mut stops = Stops::listen()?;
    let listen = options.listen;
    let account = lambda::start(options).await.with_context(|| format!("cannot listen on {listen}"))?;
    context.printer.data(format_args!("http://{}", account.address()))?;
    stops.next().await;
    Ok(Exit::Done)
}

/// What was typed, as it is meant: the preset with the changes to it.
fn engine_options(args: EngineArgs) -> anyhow::Result<EngineOptions> {
    let mut spec = preset::engine(&args.gpu, &args.model)?;
    spec.kv_tokens = args.kv_tokens.unwrap_or(spec.kv_tokens);
    spec.max_running = args.max_running.unwrap_or(spec.max_running);
    spec.chunk = args.chunk.unwrap_or(spec.chunk);
    spec.block = args.block.unwrap_or(spec.block);
    spec.scheduler = match args.scheduler {
        None => spec.scheduler,
        Some(SchedulerName::PrefillFirst) => Scheduler::PrefillFirst,
        Some(SchedulerName::Mixed) => Scheduler::Mixed,
    };
    if spec.kv_tokens < u64::from(spec.block) {
        return Err(anyhow!("--kv-tokens: {} tokens are less than one block of {}", spec.kv_tokens, spec.block));
    }
    let region = Region::new(&args.region);
    Ok(EngineOptions { listen: args.listen, spec, model: args.model, region, seed: args.seed })
}

async fn wan_options(args: WanArgs) -> Result<WanOptions, Failure> {
    let unknown = || format!("--to: cannot find the address of `{}`", args.to);
    let mut found = tokio::net::lookup_host(&args.to).await.with_context(unknown).map_err(Failure::usage)?;
    let to = found.next().with_context(unknown).map_err(Failure::usage)?;
    let jitter = match args.jitter {
        JitterName::None => Jitter::None,
        JitterName::Backbone => Jitter::Backbone,
        JitterName::Internet => Jitter::Internet,
    };
    Ok(WanOptions { listen: args.listen, to, rtt_ms: args.rtt, jitter, seed: args.seed })
}

fn lambda_options(args: LambdaArgs) -> anyhow::Result<LambdaOptions> {
    let faults = args.fault.iter().map(|text| text.parse::<Fault>().map_err(|why| anyhow!("--fault: {why}")));
    let faults = faults.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(LambdaOptions {
        listen: args.listen,
        seed: args.seed,
        speed: args.speed,
        key: args.key_file.map(read_key).transpose()?,
        limits: !args.no_limits,
        addresses: args.address,
        faults,
    })
}

fn read_key(path: PathBuf) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(&path).with_context(|| format!("--key-file: cannot read {}", path.display()))?;
    match text.trim() {
        "" => Err(anyhow!("--key-file: {} is empty", path.display())),
        key => Ok(Secret::new(key.to_owned())),
    }
}

/// A day of its time in less than a second of ours is as fast as it makes sense.
fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.01..=100_000.0).contains(&speed) { Ok(speed) } else { Err("wanted 0.01 to 100000".to_owned()) }
}

/// Ten seconds are more than any path on Earth takes.
fn rtt_ms(text: &str) -> Result<f64, String> {
    let ms = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=10_000.0).contains(&ms) { Ok(ms) } else { Err("wanted 0 to 10000".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Command, engine_options, lambda_options, wan_options};
    use crate::cli::exit::Exit;
    use crate::emulator::engine::EngineOptions;
    use crate::emulator::lambda::LambdaOptions;
    use crate::emulator::wan::Jitter;
    use crate::sim::engine::Scheduler;
    use crate::sim::preset;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    fn engine(line: &str) -> anyhow::Result<EngineOptions> {
        match parsed(line)? {
            Command::Engine(args) => engine_options(args),
            Command::Wan(_) | Command::Lambda(_) => anyhow::bail!("not an engine"),
        }
    }

    #[test]
    fn a_preset_is_taken_as_it_is_or_changed() {
        let plain = engine("emulate engine --gpu a100-80 --model mistral-7b").unwrap();
        assert_eq!(plain.spec, preset::engine("a100-80", "mistral-7b").unwrap());
        assert_eq!((plain.listen.port(), plain.region.as_str()), (30000, "local"));
        let line = "emulate engine --gpu a10 --model mistral-7b --region us-east-1 --kv-tokens 5000 --max-running 7 \
                    --chunk 99 --block 8 --scheduler mixed --seed 4";
        let changed = engine(line).unwrap();
        let spec = &changed.spec;
        assert_eq!((spec.kv_tokens, spec.max_running, spec.chunk, spec.block), (5000, 7, 99, 8));
        assert_eq!((spec.scheduler, changed.seed), (Scheduler::Mixed, 4));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let message = engine("emulate engine --gpu z80 --model mistral-7b").unwrap_err().to_string();
        assert!(message.contains("z80") && message.contains("a100-80"), "{message}");
        let message = engine("emulate engine --gpu a10 --model mistral-7b --kv-tokens 3").unwrap_err().to_string();
        assert_eq!(message, "--kv-tokens: 3 tokens are less than one block of 16");
        for line in [
            "emulate engine --gpu a10 --model mistral-7b --chunk 0",
            "emulate engine --gpu a10 --model mistral-7b --scheduler fair",
            "emulate wan --to 127.0.0.1:1 --rtt -5",
            "emulate wan --to 127.0.0.1:1 --rtt NaN",
            "emulate wan --to 127.0.0.1:1 --rtt 5 --jitter wild",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    fn lambda(line: &str) -> anyhow::Result<LambdaOptions> {
        match parsed(line)? {
            Command::Lambda(args) => lambda_options(args),
            Command::Engine(_) | Command::Wan(_) => anyhow::bail!("not an account"),
        }
    }

    #[test]
    fn an_account_is_as_strict_as_the_service_unless_told_otherwise() {
        let plain = lambda("emulate lambda").unwrap();
        assert_eq!((plain.limits, plain.speed, plain.key, plain.faults.len()), (true, 1.0, None, 0));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "sekrit\n").unwrap();
        let line = format!(
            "emulate lambda --no-limits --speed 60 --key-file {} --address 127.0.0.2 --address 127.0.0.3 --fault no-ip --fault quota=2",
            file.display()
        );
        let changed = lambda(&line).unwrap();
        assert_eq!((changed.limits, changed.speed, changed.addresses.len(), changed.faults.len()), (false, 60.0, 2, 2));
        assert_eq!(changed.key.as_ref().map(crate::model::Secret::reveal), Some("sekrit"));
        std::fs::write(&file, " \n").unwrap();
        let cases = [
            (line.as_str(), "is empty"),
            ("emulate lambda --key-file /nowhere", "--key-file: cannot read /nowhere"),
            ("emulate lambda --fault gremlins", "--fault: no fault is named `gremlins`"),
            ("emulate lambda --speed 0", "wanted 0.01 to 100000"),
            ("emulate lambda --address ::1", "--address"),
        ];
        for (line, expected) in cases {
            let message = lambda(line).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[tokio::test]
    async fn a_relay_needs_an_address_that_can_be_found() {
        let Ok(Command::Wan(args)) = parsed("emulate wan --to 127.0.0.1:8000 --rtt 97.5 --jitter internet") else {
            panic!("not a relay")
        };
        let options = wan_options(args).await.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!((options.to.port(), options.rtt_ms, options.jitter), (8000, 97.5, Jitter::Internet));
        let Ok(Command::Wan(args)) = parsed("emulate wan --to nowhere --rtt 1") else { panic!("not a relay") };
        let failure = wan_options(args).await.expect_err("no port");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().starts_with("error: --to: cannot find the address of `nowhere`"), "{failure}");
    }
}
