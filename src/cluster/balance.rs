//! Changes strategy and limits of the agents without losing a request: live through their admin API, otherwise drained and restarted; one
//! node after another, checked by what the agent then says of itself, all taken back when one does not come up right.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::apply::{ApplyReport, Fault, Job, Outcome, StepJournal, apply};
use super::crash::CrashHook;
use super::desired::Desired;
use super::event::Events;
use super::http::Request;
use super::layout::Role;
use super::observe::observe;
use super::operations::{Member, ask};
use super::plan::{Plan, agent_definition, setup};
use super::step::serves;
use crate::wire::{Drain, Policy, SetDrain, SetPolicy, SetTune, Status, paths};

/// Longest drain before a restart, s. SIGTERM drains again, so nothing is lost after it either.
const DRAIN_LIMIT_S: u32 = 120;
/// Longest wait for the state that was asked for.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How the change came about on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// While it served.
    Live,
    /// Drained and restarted.
    Restarted,
}

/// How the change ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Nodes that have it, in order.
    pub changed: Vec<(String, Way)>,
    /// Where it failed, and why; then nothing more was changed.
    pub failed: Option<(String, Fault)>,
    /// Nodes that went back to what they had.
    pub taken_back: Vec<String>,
    /// Nodes that could neither be changed nor taken back: they need a look.
    pub astray: Vec<String>,
    /// Stopped by the user.
    pub interrupted: bool,
}

/// What all changes need.
pub struct Means<'a> {
    /// For steps that are done.
    pub journal: &'a mut dyn StepJournal,
    /// For tests.
    pub crash: &'a CrashHook,
    /// Ctrl-C.
    pub stop: &'a CancellationToken,
    /// Progress.
    pub events: Events<'a>,
    /// Longest wait until an agent is as wanted, normally [`PATIENCE`].
    pub patience: Duration,
}

/// Makes `after` of a cluster that is as `before`; they differ in strategy and limits only.
pub async fn restart_lb(members: &[Member], before: &Desired, after: &Desired, means: &mut Means<'_>) -> Change {
    let mut change =
        Change { changed: Vec::new(), failed: None, taken_back: Vec::new(), astray: Vec::new(), interrupted: false };
    for member in members {
        if means.stop.is_cancelled() {
            change.interrupted = true;
            return change;
        }
        match one(member, after, means).await {
            Ok(way) => change.changed.push((member.spec.name.clone(), way)),
            Err(fault) => {
                change.failed = Some((member.spec.name.clone(), fault));
                break;
            }
        }
    }
    if change.failed.is_some() {
        let tried = &members[..=change.changed.len()];
        for member in tried.iter().rev() {
            let name = member.spec.name.clone();
            match one(member, before, means).await {
                Ok(_) => change.taken_back.push(name),
                Err(_) => change.astray.push(name),
            }
        }
        change.changed.clear();
    }
    change
}

async fn one(member: &Member, wanted: &Desired, means: &mut Means<'_>) -> Result<Way, Fault> {
    let way = match live(member, wanted).await {
        Ok(()) => Way::Live,
        // An answer that refuses would be the same after a restart: the unit would not come up.
        Err(Live::Refused(fault)) => return Err(fault),
        Err(Live::Impossible) => {
            drain(member).await;
            Way::Restarted
        }
    };
    settle(member, wanted, way, means).await?;
    check(member, wanted, means.patience).await?;
    Ok(way)
}

enum Live {
    Impossible,
    Refused(Fault),
}

async fn live(member: &Member, wanted: &Desired) -> Result<(), Live> {
    let policy = SetPolicy { strategy: on_agent(&wanted.strategy).to_owned(), parameters: BTreeMap::new() };
    let tune = SetTune { parameters: BTreeMap::new(), max_concurrent: Some(wanted.max_concurrent.unwrap_or(0)) };
    let asked = ask(member, Role::Agent, &Request::get(paths::POLICY)).await.map_err(|_| Live::Impossible)?;
    let now: Policy = serde_json::from_str(&asked.body).map_err(|_| Live::Impossible)?;
    // The same strategy is not set again: its parameters and what it has learned would be lost.
    if now.strategy != policy.strategy {
        post(member, &Request::post(paths::POLICY, &policy)).await?;
    }
    post(member, &Request::post(paths::TUNE, &tune)).await
}

async fn post(member: &Member, request: &Request) -> Result<(), Live> {
    let answer = ask(member, Role::Agent, request).await.map_err(|_| Live::Impossible)?;
    match answer.status {
        200..=299 => Ok(()),
        404 | 405 | 501 => Err(Live::Impossible),
        status => {
            let what = format!("{}: the agent refuses ({status}): {}", member.spec.name, message(&answer.body));
            Err(Live::Refused(Fault { what, hint: Some("`gorgo proxy policy` lists the strategies".to_owned()) }))
        }
    }
}

/// The message of an error object, or the text as it is.
fn message(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    value["error"]["message"].as_str().map_or_else(|| body.chars().take(200).collect(), str::to_owned)
}

/// Lets requests finish. An agent that cannot be asked is restarted all the same: SIGTERM lets them finish, too.
async fn drain(member: &Member) {
    let request = Request::post(paths::DRAIN, &SetDrain { draining: true, stop: false });
    if ask(member, Role::Agent, &request).await.is_err() {
        return;
    }
    for _ in 0..DRAIN_LIMIT_S * 2 {
        let answer = ask(member, Role::Agent, &Request::get(paths::DRAIN)).await;
        let left = answer.ok().and_then(|answer| serde_json::from_str::<Drain>(&answer.body).ok());
        if left.is_none_or(|drain| drain.in_flight == 0) {
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Puts it into the unit, so that it holds after the next start; restarts where it did not go live.
async fn settle(member: &Member, wanted: &Desired, way: Way, means: &mut Means<'_>) -> Result<(), Fault> {
    let facts = observe(&member.spec, member.remote.as_ref()).await?;
    let plan = match way {
        Way::Live => agent_definition(wanted, &member.spec, &facts),
        Way::Restarted => {
            let whole = setup(wanted, &member.spec, &facts);
            Plan { steps: whole.steps.into_iter().filter(|step| step.name.starts_with("agent ")).collect(), ..whole }
        }
    };
    let jobs = [Job { plan, remote: member.remote.as_ref() }];
    // Half a change is worse than a late end: Ctrl-C counts between nodes.
    let whole = CancellationToken::new();
    let report: ApplyReport = apply(&jobs, means.journal, means.crash, &whole, means.events).await;
    match report.nodes.into_iter().next() {
        Some((_, Outcome::Done(_))) | None => Ok(()),
        Some((_, Outcome::Failed { fault, .. })) => Err(fault),
        Some((_, Outcome::Refused(refusals))) => {
            let what = refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            Err(Fault { what, hint: refusals.first().map(|refusal| refusal.hint.clone()) })
        }
        Some((_, Outcome::Interrupted(_))) => Err(Fault { what: "interrupted".to_owned(), hint: None }),
    }
}

/// What the agent says of itself, value by value.
async fn check(member: &Member, wanted: &Desired, patience: Duration) -> Result<(), Fault> {
    let mut last = String::new();
    for _ in 0..=patience.as_millis() / LOOK_AGAIN.as_millis() {
        let answer = ask(member, Role::Agent, &Request::get(paths::STATUS)).await;
        let said = answer.map_err(|fault| fault.what).and_then(|answer| {
            let status: Status =
                serde_json::from_str(&answer.body).map_err(|_| format!("it answers {}", answer.status))?;
            is_as_wanted(&status, wanted)
        });
        match said {
            Ok(()) => return Ok(()),
            Err(why) => last = why,
        }
        sleep(LOOK_AGAIN).await;
    }
    let what = format!("{}: the agent is not as wanted after {} s: {last}", member.spec.name, patience.as_secs());
    Err(Fault { what, hint: Some(format!("`gorgo cluster logs {} --service agent` may tell why", member.spec.name)) })
}

fn is_as_wanted(status: &Status, wanted: &Desired) -> Result<(), String> {
    let strategy = on_agent(&wanted.strategy);
    if status.strategy != strategy {
        return Err(format!("its strategy is {}, wanted {strategy}", status.strategy));
    }
    if status.max_concurrent != wanted.max_concurrent {
        return Err(format!("its limit is {:?}, wanted {:?}", status.max_concurrent, wanted.max_concurrent));
    }
    serves(status)
}

/// What a strategy's name means to an agent: `gorgo` is the paper's first rule there.
fn on_agent(strategy: &str) -> &str {
    if strategy == "gorgo" { "gorgo-v1" } else { strategy }
}
