//! `gorgo proxy tune start|status|freeze|resume|rollback|stop`: the tuner that tries weights on live requests.

use std::str::FromStr;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Subcommand, ValueEnum};

use super::super::Context;
use super::super::client::{Admin, Change, Client, Read, Write};
use super::super::exit::{Exit, Failure, Outcome};
use super::super::human;
use super::super::table::{Column, Table};
use crate::wire::{Measured, SetTune, StartTuner, Tune, TuneEntry, TuneKey, TuneTimes, Tuner, TunerAction, paths};

/// Time between two looks of `--watch`: an entry takes hundreds of requests.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The commands of the tuner.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Try other weights on a part of the live requests, and keep what serves better beyond noise
    Start(Box<StartArgs>),
    /// Show how far the tuner is, what it measured and what it did
    Status(StatusArgs),
    /// No further candidates; the one on trial is dropped
    Freeze(Write),
    /// Candidates again
    Resume(Write),
    /// Go back to the weights before the last acceptance, and freeze; while it runs (`--set` sets weights at any time)
    Rollback(Write),
    /// End it; the weights in force stay, but an acceptance that is still watched is taken back
    Stop(Write),
}

/// Arguments of `gorgo proxy tune start`.
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// Where candidates come from
    #[arg(long, value_enum, default_value_t = Method::Evolution)]
    method: Method,
    /// Parameter that may move, with its range if not a hundredth to a hundred times its value, e.g. `w_queue=0.01..1` (repeatable)
    /// [default: the weights of the strategy's score; for `calibrated` its rates]
    #[arg(long = "key", value_name = "KEY[=MIN..MAX]")]
    keys: Vec<Key>,
    /// Share of the requests in a candidate's blocks that stays with the weights in force, 0.05 to 0.95 [default: 0.3]
    #[arg(long, value_name = "SHARE")]
    share: Option<f64>,
    /// Requests in a block, 8 or more [default: 64]
    #[arg(long, value_name = "N")]
    block: Option<u32>,
    /// Pairs of blocks in a comparison, 7 to 12 [default: 10]
    #[arg(long, value_name = "N")]
    periods: Option<u32>,
    /// Largest factor by which a candidate differs from what is in force [default: 2]
    #[arg(long, value_name = "FACTOR")]
    factor: Option<f64>,
    /// Seed of candidates and of who gets them [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Go on printing what it does until it ends
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,
    #[command(flatten)]
    write: Write,
}

/// Arguments of `gorgo proxy tune status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    read: Read,
    /// Go on printing what it does until it ends; with `--json` one object per line
    #[arg(long)]
    watch: bool,
}

/// Where candidates come from.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    /// Bounded steps of one weight at a time, each tried the other way round if it fails
    Evolution,
    /// Rates of `gorgo` fitted to measured times to first token
    Calibrated,
}

/// A parameter that may move, as typed.
#[derive(Clone, Debug, PartialEq)]
struct Key(TuneKey);

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, range) = text.split_once('=').map_or((text, None), |(key, range)| (key, Some(range)));
        if key.is_empty() {
            return Err("the key is empty; wanted e.g. w_queue=0.01..1".to_owned());
        }
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        let ends = |range: &str| {
            let (min, max) = range.split_once("..")?;
            number(min).zip(number(max))
        };
        let range = range.map(|range| ends(range).ok_or_else(|| format!("range `{range}`; wanted e.g. 0.01..1")));
        Ok(Self(TuneKey { key: key.to_owned(), range: range.transpose()? }))
    }
}

/// Runs one of them.
pub(super) async fn run(command: &Command, context: &Context) -> Outcome {
    match command {
        Command::Start(args) => start(args, context).await,
        Command::Status(args) => status(args, context).await,
        Command::Freeze(write) => act(write, TunerAction::Freeze, context).await,
        Command::Resume(write) => act(write, TunerAction::Resume, context).await,
        Command::Rollback(write) => act(write, TunerAction::Rollback, context).await,
        Command::Stop(write) => act(write, TunerAction::Stop, context).await,
    }
}

async fn start(args: &StartArgs, context: &Context) -> Outcome {
    let method = match args.method {
        Method::Evolution => "evolution",
        Method::Calibrated => "calibrated",
    };
    let start = StartTuner {
        method: Some(method.to_owned()),
        keys: args.keys.iter().map(|key| key.0.clone()).collect(),
        share: args.share,
        block: args.block,
        periods: args.periods,
        factor: args.factor,
        seed: args.seed,
    };
    if args.watch {
        let change = change(TunerAction::Start(start))?;
        let started = super::write::<Tune>(&args.write, &change, context).await?;
        let since = started.and_then(|tune| tune.tuner).and_then(|tuner| tuner.log.last().map(|it| it.record.number));
        return watch(&args.write.admin, args.write.json, since.unwrap_or(0).saturating_sub(1), context).await;
    }
    act(&args.write, TunerAction::Start(start), context).await
}

async fn act(write: &Write, action: TunerAction, context: &Context) -> Outcome {
    if let Some(tune) = super::write::<Tune>(write, &change(action)?, context).await? {
        super::print(&tune, write.json, context, show)?;
    }
    Ok(Exit::Done)
}

fn change(action: TunerAction) -> Result<Change, Failure> {
    Change::new(paths::TUNE, &SetTune { tuner: Some(action), ..SetTune::default() })
}

async fn status(args: &StatusArgs, context: &Context) -> Outcome {
    if args.watch {
        return watch(&args.read.admin, args.read.json, 0, context).await;
    }
    super::read(&args.read, paths::TUNE, context, show).await
}

/// Prints entries after this number as they come, until the tuner ends.
async fn watch(admin: &Admin, json: bool, mut told: u64, context: &Context) -> Outcome {
    let client = Client::new(admin, context)?;
    loop {
        let tune: Tune = client.get(paths::TUNE).await?;
        let Some(tuner) = tune.tuner else {
            return Err(Failure { exit: Exit::NothingSuitable, error: anyhow!("no tuner was started"), hint: None }
                .with_hint("`gorgo proxy tune start` starts one"));
        };
        for it in tuner.log.iter().filter(|it| it.record.number > told) {
            let line = if json { serde_json::to_string(&it.record)? } else { entry(it) };
            context.printer.data(line)?;
        }
        told = tuner.log.last().map_or(told, |it| it.record.number);
        if tuner.state == "ended" {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Strategy, state, axes, measurements, log.
fn show(tune: &Tune) -> String {
    let Some(tuner) = &tune.tuner else {
        return format!("strategy  {}\ntuner     none; `gorgo proxy tune start` starts one", tune.strategy);
    };
    let why = tuner.why.as_deref().map_or_else(String::new, |why| format!(": {why}"));
    let mut text = format!("strategy  {}\ntuner     {} ({}){why}\n", tune.strategy, tuner.state, tuner.method);
    text += &format!(
        "blocks    {} requests, {} of a candidate's stay with the weights in force\n",
        human::count(tuner.block),
        human::share(tuner.share)
    );
    let Tuner { proposed, accepted, rejected, rolled_back, reverted, .. } = tuner;
    text += &format!(
        "tried     {proposed}: {accepted} accepted, {rejected} rejected, {rolled_back} rolled back, {reverted} taken back\n\n"
    );
    text += &axes(tuner).to_string();
    if tuner.measured.periods > 0 {
        text += &format!("\n\n{}", measured(&tuner.measured, tuner.periods));
    }
    text += "\n\n";
    text + &tuner.log.iter().map(entry).collect::<Vec<_>>().join("\n")
}

fn axes(tuner: &Tuner) -> Table {
    let mut table = Table::new(&[
        Column::Text("parameter"),
        Column::Number("in force"),
        Column::Number("compared"),
        Column::Text("range"),
    ]);
    for axis in &tuner.axes {
        table.row([
            axis.key.clone(),
            human::number(axis.value),
            human::or_unknown(axis.compared, human::number),
            format!("{}..{}", human::number(axis.min), human::number(axis.max)),
        ]);
    }
    table
}

fn measured(it: &Measured, of: u64) -> String {
    let times = |name: &str, times: Option<TuneTimes>| {
        let text = human::or_unknown(times, |it| {
            let [a, b, c, d] = [it.ttft_p50_ms, it.ttft_p95_ms, it.e2e_p50_ms, it.e2e_p95_ms].map(human::ms);
            format!("ttft p50 {a}, p95 {b}; e2e p50 {c}, p95 {d}")
        });
        format!("{name}  {text}\n")
    };
    format!("{}{}{}", times("in force", it.in_force), times("compared", it.compared), verdict(it, Some(of)))
}

/// `7 of 10 pairs, 0.93 times as long, chance 3.1 %`.
fn verdict(it: &Measured, of: Option<u64>) -> String {
    let of = of.map_or_else(String::new, |of| format!(" of {of}"));
    let ratio = it.ratio.map_or_else(String::new, |ratio| format!(", {ratio:.3} times as long"));
    let luck = it.luck.map_or_else(String::new, |luck| format!(", chance {}", human::share(luck)));
    format!("{}{of} pairs{ratio}{luck}", it.periods)
}

/// One line of the log.
fn entry(it: &TuneEntry) -> String {
    let record = &it.record;
    let values: Vec<String> = record
        .values
        .iter()
        .map(|(key, value)| format!("{key} {}", human::number((value * 1e4).round() / 1e4)))
        .collect();
    let found =
        if record.measured.periods > 0 { format!("; {}", verdict(&record.measured, None)) } else { String::new() };
    let why = record.why.as_deref().map_or_else(String::new, |why| format!(": {why}"));
    format!("{}  {} {}{why}{found}", human::age_ms(it.age_ms), record.what, values.join(" "))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Key, show};
    use crate::wire::{Measured, Tune, TuneEntry, TuneKey, TuneRecord, TuneTimes, TunedParameter, Tuner};

    fn record(number: u64, what: &str, why: Option<&str>, measured: Measured) -> TuneEntry {
        let values = [("w_queue".to_owned(), 0.164_872)].into();
        let (what, why) = (what.to_owned(), why.map(str::to_owned));
        TuneEntry { age_ms: 90_000.0, record: TuneRecord { number, what, why, values, measured, sigma: 0.5 } }
    }

    #[test]
    fn a_status_tells_what_is_compared_measured_and_done() {
        let times = |factor: f64| {
            let [ttft_p50_ms, ttft_p95_ms, e2e_p50_ms, e2e_p95_ms] =
                [80.0, 400.0, 1800.0, 9000.0].map(|ms| ms * factor);
            TuneTimes { ttft_p50_ms, ttft_p95_ms, e2e_p50_ms, e2e_p95_ms }
        };
        let measured = Measured {
            periods: 7,
            ratio: Some(0.93),
            luck: Some(0.03125),
            in_force: Some(times(1.0)),
            compared: Some(times(0.93)),
        };
        let axis = TunedParameter { key: "w_queue".into(), value: 0.1, compared: Some(0.164_872), min: 0.01, max: 1.0 };
        let tuner = Tuner {
            state: "trial".into(),
            why: None,
            method: "evolution".into(),
            share: 0.3,
            block: 64,
            periods: 10,
            sigma: 0.5,
            axes: vec![axis],
            proposed: 2,
            accepted: 0,
            rejected: 1,
            rolled_back: 0,
            reverted: 0,
            log: vec![
                record(1, "proposed", None, Measured::default()),
                record(
                    2,
                    "rejected",
                    Some("no gain beyond noise"),
                    Measured { in_force: None, compared: None, ..measured.clone() },
                ),
            ],
            measured,
        };
        let tune = Tune { strategy: "gorgo".into(), parameters: Vec::new(), max_concurrent: None, tuner: Some(tuner) };
        assert_snapshot!(show(&tune), @"
        strategy  gorgo
        tuner     trial (evolution)
        blocks    64 requests, 30.0 % of a candidate's stay with the weights in force
        tried     2: 0 accepted, 1 rejected, 0 rolled back, 0 taken back

        PARAMETER  IN FORCE  COMPARED  RANGE
        w_queue         0.1  0.164872  0.01..1

        in force  ttft p50 80.0 ms, p95 400 ms; e2e p50 1800 ms, p95 9000 ms
        compared  ttft p50 74.4 ms, p95 372 ms; e2e p50 1674 ms, p95 8370 ms
        7 of 10 pairs, 0.930 times as long, chance 3.1 %

        1 min 30 s ago  proposed w_queue 0.1649
        1 min 30 s ago  rejected w_queue 0.1649: no gain beyond noise; 7 pairs, 0.930 times as long, chance 3.1 %
        ");
        assert_snapshot!(show(&Tune { tuner: None, ..tune }), @"
        strategy  gorgo
        tuner     none; `gorgo proxy tune start` starts one
        ");
    }

    #[test]
    fn a_key_may_have_a_range() {
        let key = |text: &str| text.parse::<Key>().map(|key| key.0);
        let wanted = |range| Ok(TuneKey { key: "w_queue".into(), range });
        assert_eq!(key("w_queue"), wanted(None));
        assert_eq!(key("w_queue=0.01..1"), wanted(Some((0.01, 1.0))));
        for bad in ["=0.1..1", "w_queue=0.1", "w_queue=a..b", "w_queue=0..inf"] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }
}
