//! `gorgo proxy policy` and `gorgo proxy tune`.

use super::super::Context;
use super::super::assignment::{Assignment, by_key};
use super::super::client::{Admin, Change, Client, Write};
use super::super::exit::{Exit, Outcome};
use super::super::human;
use super::super::table::{Column, Table};
use super::tuner;
use crate::wire::{Parameter, Policy, SetPolicy, SetTune, Tune, paths};

/// Arguments of `gorgo proxy policy`.
#[derive(Debug, clap::Args)]
pub(crate) struct PolicyArgs {
    /// Strategy to switch to; without it the present one and the known ones are shown
    strategy: Option<String>,
    /// Weight or rate of the new strategy, e.g. `w_queue=0.1` (repeatable)
    #[arg(long, value_name = "KEY=VALUE", requires = "strategy")]
    set: Vec<Assignment>,
    #[command(flatten)]
    write: Write,
}

/// Arguments of `gorgo proxy tune`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TuneArgs {
    #[command(subcommand)]
    tuner: Option<tuner::Command>,
    /// New value of a weight or rate, e.g. `w_queue=0.1` (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    /// Most requests running per replica before the router holds back, as it then does at 95 % of the KV cache, too; takes the
    /// place of gorgo-proxy's own 10; 0 = the strategy's own rule
    #[arg(long, value_name = "N")]
    max_concurrent: Option<u32>,
    #[command(flatten)]
    write: Write,
}

/// Shows or replaces the strategy.
pub(super) async fn run(args: &PolicyArgs, context: &Context) -> Outcome {
    let Some(strategy) = args.strategy.clone() else {
        return show_document(&args.write.admin, paths::POLICY, args.write.json, context, show).await;
    };
    let change = Change::new(paths::POLICY, &SetPolicy { strategy, parameters: by_key(&args.set)? })?;
    if let Some(policy) = super::write::<Policy>(&args.write, &change, context).await? {
        context.printer.talk(format_args!("strategy is now `{}`", policy.strategy));
        super::print(&policy, args.write.json, context, |policy| parameters(&policy.parameters))?;
    }
    Ok(Exit::Done)
}

/// Shows or changes weights and limits.
pub(super) async fn run_tune(args: &TuneArgs, context: &Context) -> Outcome {
    if let Some(command) = &args.tuner {
        return tuner::run(command, context).await;
    }
    let set = SetTune { parameters: by_key(&args.set)?, max_concurrent: args.max_concurrent, tuner: None };
    if set == SetTune::default() {
        return show_document(&args.write.admin, paths::TUNE, args.write.json, context, show_tune).await;
    }
    let change = Change::new(paths::TUNE, &set)?;
    if let Some(tune) = super::write::<Tune>(&args.write, &change, context).await? {
        super::print(&tune, args.write.json, context, show_tune)?;
    }
    Ok(Exit::Done)
}

/// Reads and prints, for commands whose options are those of a change.
async fn show_document<T>(
    admin: &Admin,
    path: &str,
    json: bool,
    context: &Context,
    show: impl FnOnce(&T) -> String,
) -> Outcome
where
    T: serde::de::DeserializeOwned + serde::Serialize,
{
    let document: T = Client::new(admin, context)?.get(path).await?;
    super::print(&document, json, context, show)?;
    Ok(Exit::Done)
}

/// The strategy in charge with its parameters, then every known one.
fn show(policy: &Policy) -> String {
    let mut known = Table::new(&[Column::Text("strategy"), Column::Text("rule")]);
    for strategy in &policy.known {
        let mark = if strategy.name == policy.strategy { "* " } else { "  " };
        known.row([format!("{mark}{}", strategy.name), strategy.summary.clone()]);
    }
    format!("{}\n\n{known}\n\n* in charge", parameters(&policy.parameters))
}

fn show_tune(tune: &Tune) -> String {
    let limit = tune.max_concurrent.map_or_else(|| "the strategy's own rule".to_owned(), |limit| limit.to_string());
    let tuner = tune.tuner.as_ref().filter(|tuner| tuner.state != "ended");
    let tuner = tuner.map_or_else(String::new, |tuner| format!("tuner           {}\n", tuner.state));
    format!("strategy        {}\nmax-concurrent  {limit}\n{tuner}\n{}", tune.strategy, parameters(&tune.parameters))
}

fn parameters(parameters: &[Parameter]) -> String {
    if parameters.is_empty() {
        return "no parameters".to_owned();
    }
    let mut table = Table::new(&[
        Column::Text("parameter"),
        Column::Number("value"),
        Column::Number("default"),
        Column::Text("range"),
        Column::Text("meaning"),
    ]);
    for parameter in parameters {
        let upper = parameter.max.map_or_else(String::new, human::number);
        table.row([
            parameter.key.clone(),
            human::number(parameter.value),
            human::number(parameter.default),
            format!("{}..{upper}", human::number(parameter.min)),
            parameter.help.clone(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{show, show_tune};
    use crate::wire::{Parameter, Policy, StrategyInfo, Tune};

    fn weights() -> Vec<Parameter> {
        let weight = |key: &str, value: f64, max: Option<f64>| Parameter {
            key: key.into(),
            value,
            default: 1.0,
            min: 0.0,
            max,
            help: format!("meaning of {key}"),
        };
        vec![weight("w_rtt", 1.0, None), weight("w_queue", 0.1, Some(10.0))]
    }

    #[test]
    fn policy_marks_the_strategy_in_charge() {
        let known = |name: &str, summary: &str| StrategyInfo { name: name.into(), summary: summary.into() };
        let policy = Policy {
            strategy: "gorgo".into(),
            parameters: weights(),
            known: vec![known("gorgo", "least predicted cost"), known("random", "any replica")],
        };
        assert_snapshot!(show(&policy), @"
        PARAMETER  VALUE  DEFAULT  RANGE  MEANING
        w_rtt          1        1  0..    meaning of w_rtt
        w_queue      0.1        1  0..10  meaning of w_queue

        STRATEGY  RULE
        * gorgo   least predicted cost
          random  any replica

        * in charge
        ");
    }

    #[test]
    fn tune_shows_limits_and_says_when_there_is_nothing_to_turn() {
        let tune = Tune { strategy: "gorgo".into(), parameters: weights(), max_concurrent: Some(10), tuner: None };
        assert_snapshot!(show_tune(&tune), @"
        strategy        gorgo
        max-concurrent  10

        PARAMETER  VALUE  DEFAULT  RANGE  MEANING
        w_rtt          1        1  0..    meaning of w_rtt
        w_queue      0.1        1  0..10  meaning of w_queue
        ");
        let random = Tune { strategy: "random".into(), parameters: Vec::new(), max_concurrent: None, tuner: None };
        assert_snapshot!(show_tune(&random), @"
        strategy        random
        max-concurrent  the strategy's own rule

        no parameters
        ");
    }
}
