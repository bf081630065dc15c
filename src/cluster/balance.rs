//! Changes strategy, limits and weights of the agents without losing a request: live through their admin API, otherwise drained and
//! restarted; one node after another, checked by what the agent then says of itself, all taken back when one does not come up right.
//!
//! What is asked for is noted before a node is touched: a run that is cut short is completed by `setup`, not undone by it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::apply::{ApplyReport, Fault, Job, Outcome, StepJournal, apply};
use super::crash::CrashHook;
use super::desired::{Balance, Desired};
use super::event::{Event, EventKind, Events};
use super::http::Request;
use super::layout::Role;
use super::observe::observe;
use super::operations::{Member, ask};
use super::plan::{agent_definition, agent_restart};
use super::step::serves;
use crate::config::on_agent;
use crate::wire::{Drain, Policy, SetDrain, SetPolicy, SetTune, Status, Tune, paths};

/// Longest wait for the state that was asked for.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Longest drain before a restart: requests that take longer keep the agent as it is.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How the change came about on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// There was nothing to change.
    Already,
    /// While it served.
    Live,
    /// Drained and restarted.
    Restarted,
}

/// How the change ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// Where it is kept how agents are to balance.
pub trait BalanceJournal: StepJournal {
    /// Notes how the agent of a node is to balance from now on; `configured` is how it would without a note.
    ///
    /// # Errors
    /// It could not be saved; the node is left alone.
    fn note_balance(&mut self, node: &str, balance: &Balance, configured: &Balance) -> anyhow::Result<()>;
}

/// What all changes need.
pub struct Means<'a> {
    /// For steps that are done, and for what is wanted.
    pub journal: &'a mut dyn BalanceJournal,
    /// For tests.
    pub crash: &'a CrashHook,
    /// Ctrl-C.
    pub stop: &'a CancellationToken,
    /// Progress.
    pub events: Events<'a>,
    /// Longest wait until an agent is as wanted, normally [`PATIENCE`].
    pub patience: Duration,
    /// Longest drain, normally [`DRAIN_LIMIT`].
    pub drain: Duration,
    /// Drain and restart even where the change could be made live.
    pub restart: bool,
}

impl Means<'_> {
    fn tell(&self, node: &str, step: &str) {
        let (node, step) = (node.to_owned(), step.to_owned());
        (self.events)(Event { node, step, place: None, kind: EventKind::Started, elapsed: Duration::ZERO });
    }
}

/// Makes `after` of a cluster that is as `before`; they differ in how agents balance, and in nothing else.
pub async fn restart_lb(members: &[Member], before: &Desired, after: &Desired, means: &mut Means<'_>) -> Change {
    let mut before = before.clone();
    let mut change = Change::default();
    for member in members {
        let name = &member.spec.name;
        if means.stop.is_cancelled() {
            change.interrupted = true;
            return change;
        }
        means.tell(name, "ask how it balances now");
        if let Some(found) = otherwise(member, &before).await {
            before.pinned.insert(name.clone(), found);
        }
        match one(member, after, means).await {
            Ok(way) => change.changed.push((name.clone(), way)),
            Err(fault) => {
                change.failed = Some((name.clone(), fault));
                break;
            }
        }
    }
    if change.failed.is_some() {
        // A restart that nobody needs is not repeated on the way back.
        means.restart = false;
        let tried = &members[..=change.changed.len()];
        for member in tried.iter().rev() {
            let name = member.spec.name.clone();
            means.tell(&name, "take it back");
            match one(member, &before, means).await {
                Ok(_) => change.taken_back.push(name),
                Err(_) => change.astray.push(name),
            }
        }
        change.changed.clear();
    }
    change
}

/// How the agent balances, if that is not what was believed: what it goes back to is what it had.
async fn otherwise(member: &Member, before: &Desired) -> Option<Balance> {
    let answer = ask(member, Role::Agent, &Request::get(paths::TUNE)).await.ok()?;
    let now: Tune = serde_json::from_str(&answer.body).ok()?;
    let believed = before.balance(&member.spec.name);
    differs(&now.strategy, now.max_concurrent, &believed).or_else(|| lacks(&now, &believed))?;
    let set = now.parameters.into_iter().filter(|parameter| parameter.value != parameter.default);
    Some(Balance {
        strategy: now.strategy,
        max_concurrent: now.max_concurrent,
        weights: set.map(|parameter| (parameter.key, parameter.value)).collect(),
    })
}

async fn one(member: &Member, wanted: &Desired, means: &mut Means<'_>) -> Result<Way, Fault> {
    let name = &member.spec.name;
    let (balance, configured) = (wanted.balance(name), wanted.configured());
    let noted = means.journal.note_balance(name, &balance, &configured);
    noted.map_err(|error| Fault { what: format!("{name}: cannot note it: {error:#}"), hint: None })?;
    let tried = if means.restart { Err(Live::Impossible) } else { live(member, &balance).await };
    let lived = match tried {
        Ok(changed) => Some(changed),
        // An answer that refuses would be the same after a restart: the unit would not come up.
        Err(Live::Refused(fault)) => return Err(fault),
        Err(Live::Impossible) => {
            means.tell(name, "drain: wait until its requests have ended");
            drain(member, means.drain).await?;
            None
        }
    };
    let steps = settle(member, wanted, lived.is_none(), means).await?;
    means.tell(name, "see that it is as wanted");
    check(member, &balance, means.patience).await?;
    Ok(match lived {
        None => Way::Restarted,
        Some(false) if steps == 0 => Way::Already,
        Some(_) => Way::Live,
    })
}

enum Live {
    Impossible,
    Refused(Fault),
}

/// True if there was something to change.
async fn live(member: &Member, wanted: &Balance) -> Result<bool, Live> {
    // Left behind by a drain that was cut short: nobody else would ever end it.
    let open = Request::post(paths::DRAIN, &SetDrain { draining: false, stop: false });
    if in_flight(member).await.is_some_and(|drain| drain.draining) {
        post(member, &open).await?;
    }
    let asked = ask(member, Role::Agent, &Request::get(paths::POLICY)).await.map_err(|_| Live::Impossible)?;
    let policy: Policy = serde_json::from_str(&asked.body).map_err(|_| Live::Impossible)?;
    let asked = ask(member, Role::Agent, &Request::get(paths::TUNE)).await.map_err(|_| Live::Impossible)?;
    let tune: Tune = serde_json::from_str(&asked.body).map_err(|_| Live::Impossible)?;
    let strategy = on_agent(&wanted.strategy);
    let mut change = SetTune::default();
    let mut changed = false;
    // The same strategy is not set again: what it has learned would be lost.
    if policy.strategy != strategy {
        let policy = SetPolicy { strategy: strategy.to_owned(), parameters: wanted.weights.clone() };
        post(member, &Request::post(paths::POLICY, &policy)).await?;
        changed = true;
    } else {
        change.parameters = weights_to_set(&tune, &wanted.weights);
    }
    if tune.max_concurrent != wanted.max_concurrent {
        change.max_concurrent = Some(wanted.max_concurrent.unwrap_or(0));
    }
    if change != SetTune::default() {
        post(member, &Request::post(paths::TUNE, &change)).await?;
        changed = true;
    }
    Ok(changed)
}

/// What has to be turned, back to its default where nothing is wanted. What the strategy does not have is for the agent to refuse.
fn weights_to_set(now: &Tune, wanted: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let mut set = wanted.clone();
    for parameter in &now.parameters {
        let value = wanted.get(&parameter.key).copied().unwrap_or(parameter.default);
        if value == parameter.value {
            set.remove(&parameter.key);
        } else {
            set.insert(parameter.key.clone(), value);
        }
    }
    set
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
///
/// # Errors
/// Some still run after `limit`; it takes requests again.
async fn drain(member: &Member, limit: Duration) -> Result<(), Fault> {
    let set = |draining| Request::post(paths::DRAIN, &SetDrain { draining, stop: false });
    if ask(member, Role::Agent, &set(true)).await.is_err() {
        return Ok(());
    }
    let mut left = None;
    for _ in 0..=limit.as_millis() / LOOK_AGAIN.as_millis() {
        left = in_flight(member).await;
        if left.is_none_or(|drain| drain.in_flight == 0) {
            return Ok(());
        }
        sleep(LOOK_AGAIN).await;
    }
    let name = &member.spec.name;
    let left = left.map_or(0, |drain| drain.in_flight);
    let what = format!("{name}: {left} requests still run after {} s; it was not restarted", limit.as_secs());
    let open = match ask(member, Role::Agent, &set(false)).await {
        Ok(_) => "",
        Err(_) => ", and see that it takes requests again: it could not be told to",
    };
    Err(Fault { what, hint: Some(format!("try again when shorter ones run{open}")) })
}

/// `None` = it does not say.
async fn in_flight(member: &Member) -> Option<Drain> {
    let answer = ask(member, Role::Agent, &Request::get(paths::DRAIN)).await.ok()?;
    serde_json::from_str(&answer.body).ok()
}

/// Puts it into the unit, so that it holds after the next start; restarts where it did not go live. How many steps that took.
async fn settle(member: &Member, wanted: &Desired, restart: bool, means: &mut Means<'_>) -> Result<usize, Fault> {
    let facts = observe(&member.spec, member.remote.as_ref()).await?;
    let spec = &member.spec;
    let plan = if restart { agent_restart(wanted, spec, &facts) } else { agent_definition(wanted, spec, &facts) };
    let jobs = [Job { plan, remote: member.remote.as_ref() }];
    // Half a change is worse than a late end: Ctrl-C counts between nodes.
    let whole = CancellationToken::new();
    let report: ApplyReport = apply(&jobs, means.journal, means.crash, &whole, means.events).await;
    match report.nodes.into_iter().next() {
        Some((_, Outcome::Done(steps))) => Ok(steps),
        None => Ok(0),
        Some((_, Outcome::Failed { fault, .. })) => Err(fault),
        Some((_, Outcome::Refused(refusals))) => {
            let what = refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            let what = format!("{}: {what}", member.spec.name);
            Err(Fault { what, hint: refusals.first().map(|refusal| refusal.hint.clone()) })
        }
        Some((_, Outcome::Interrupted(_))) => Err(Fault { what: "interrupted".to_owned(), hint: None }),
    }
}

/// What the agent says of itself, value by value.
async fn check(member: &Member, wanted: &Balance, patience: Duration) -> Result<(), Fault> {
    let mut last = String::new();
    for _ in 0..=patience.as_millis() / LOOK_AGAIN.as_millis() {
        match is_as_wanted(member, wanted).await {
            Ok(()) => return Ok(()),
            Err(why) => last = why,
        }
        sleep(LOOK_AGAIN).await;
    }
    let what = format!("{}: the agent is not as wanted after {} s: {last}", member.spec.name, patience.as_secs());
    Err(Fault { what, hint: Some(format!("`gorgo cluster logs {} --service agent` may tell why", member.spec.name)) })
}

async fn is_as_wanted(member: &Member, wanted: &Balance) -> Result<(), String> {
    let status = ask(member, Role::Agent, &Request::get(paths::STATUS)).await.map_err(|fault| fault.what)?;
    let status: Status = serde_json::from_str(&status.body).map_err(|_| format!("it answers {}", status.status))?;
    differs(&status.strategy, status.max_concurrent, wanted).map_or(Ok(()), Err)?;
    serves(&status)?;
    let tune = ask(member, Role::Agent, &Request::get(paths::TUNE)).await.map_err(|fault| fault.what)?;
    match serde_json::from_str::<Tune>(&tune.body) {
        Ok(tune) => lacks(&tune, wanted).map_or(Ok(()), Err),
        // An agent that has no weights to tell of has those of its unit.
        Err(_) if wanted.weights.is_empty() => Ok(()),
        Err(_) => Err(format!("it does not tell its weights, and answers {}", tune.status)),
    }
}

/// The first difference in strategy or limit between what an agent does and what is wanted.
fn differs(strategy: &str, max_concurrent: Option<u32>, wanted: &Balance) -> Option<String> {
    let named = on_agent(&wanted.strategy);
    if strategy != named {
        return Some(format!("its strategy is {strategy}, wanted {named}"));
    }
    let shown = |limit: Option<u32>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
    (max_concurrent != wanted.max_concurrent)
        .then(|| format!("its limit is {}, wanted {}", shown(max_concurrent), shown(wanted.max_concurrent)))
}

/// The first weight that is not as wanted.
fn lacks(now: &Tune, wanted: &Balance) -> Option<String> {
    let (key, value) = weights_to_set(now, &wanted.weights).into_iter().next()?;
    Some(format!("it does not have {key}={value}"))
}

#[cfg(test)]
mod tests;
