//! Runs exactly the steps of the plans: nodes side by side, the steps of a node one after another, each in the journal when it is done.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::check::{Refusal, gigabytes};
use super::crash::CrashHook;
use super::event::{Event, EventKind, Events};
use super::http;
use super::inventory::FinishedStep;
use super::plan::Plan;
use super::script;
use super::step::{Action, Content, Probe, Step};
use crate::remote::{Remote, RemoteCommand, RemoteError, RemoteErrorKind, ServiceAction, Source, Upload};

/// Nodes that are worked on at the same time.
pub const PARALLEL: usize = 8;
/// Between two questions to a service that is starting.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at a growing download.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// Longest answer of a service, s.
const ANSWER_LIMIT_S: u32 = 30;
/// A service that its supervisor has restarted this often while it was waited for does not come up.
const MOST_RESTARTS: u32 = 5;

/// Where finished steps are kept.
pub trait StepJournal: Send {
    /// Notes a step. It survives a crash once this has returned.
    ///
    /// # Errors
    /// It could not be saved; the work on the node stops.
    fn finished(&mut self, node: &str, step: FinishedStep) -> anyhow::Result<()>;
}

/// A plan and the node it is for.
#[derive(Clone)]
pub struct Job<'a> {
    /// What to do.
    pub plan: Plan,
    /// Where.
    pub remote: &'a dyn Remote,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub what: String,
    /// What to try.
    pub hint: Option<String>,
}

impl Fault {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: Some(hint.into()) }
    }
}

impl From<RemoteError> for Fault {
    fn from(error: RemoteError) -> Self {
        Self { what: error.message, hint: error.hint }
    }
}

/// How the work on a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done; how many there were.
    Done(usize),
    /// The plan had none, because something stands in the way.
    Refused(Vec<Refusal>),
    /// A step failed.
    Failed {
        /// Its text.
        step: String,
        /// Why.
        fault: Fault,
    },
    /// Stopped by the user before this many steps.
    Interrupted(usize),
}

/// All nodes, in the order of the plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyReport {
    /// Node and end.
    pub nodes: Vec<(String, Outcome)>,
}

impl ApplyReport {
    /// Names of the nodes where it did not end well.
    #[must_use]
    pub fn failed(&self) -> Vec<&str> {
        let bad = |outcome: &Outcome| matches!(outcome, Outcome::Refused(_) | Outcome::Failed { .. });
        self.nodes.iter().filter(|(_, outcome)| bad(outcome)).map(|(node, _)| node.as_str()).collect()
    }

    /// The user stopped it.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.nodes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Interrupted(_)))
    }
}

impl ApplyReport {
    /// Of each node that is not done, what stands in the way, with its hint.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (node, outcome) in &self.nodes {
            match outcome {
                Outcome::Done(_) => {}
                Outcome::Refused(refusals) => {
                    lines.extend(refusals.iter().map(|it| format!("{node}: {it}\n  hint: {}", it.hint)));
                }
                Outcome::Failed { step, fault } => {
                    let hint = fault.hint.as_ref().map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
                    lines.push(format!("{node}: failed to {step}: {}{hint}", fault.what));
                }
                Outcome::Interrupted(left) => lines.push(format!("{node}: interrupted with {left} steps to go")),
            }
        }
        lines
    }
}

/// All complaints.
impl fmt::Display for ApplyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.complaints().join("\n"))
    }
}

/// Runs the plans. Never fails as a whole: the report says how each node ended.
pub async fn apply(
    jobs: &[Job<'_>],
    journal: &mut dyn StepJournal,
    crash: &CrashHook,
    stop: &CancellationToken,
    events: Events<'_>,
) -> ApplyReport {
    let journal = Mutex::new(journal);
    let runs = jobs.iter().enumerate().map(|(at, job)| {
        let run = NodeRun { job, journal: &journal, crash, stop, events };
        async move { (at, run.steps().await) }
    });
    let mut ends: Vec<(usize, Outcome)> = stream::iter(runs).buffer_unordered(PARALLEL).collect().await;
    ends.sort_by_key(|(at, _)| *at);
    ApplyReport { nodes: ends.into_iter().map(|(at, end)| (jobs[at].plan.node.clone(), end)).collect() }
}

struct NodeRun<'a, 'j> {
    job: &'a Job<'a>,
    journal: &'a Mutex<&'j mut dyn StepJournal>,
    crash: &'a CrashHook,
    stop: &'a CancellationToken,
    events: Events<'a>,
}

impl NodeRun<'_, '_> {
    async fn steps(&self) -> Outcome {
        let plan = &self.job.plan;
        if !plan.refusals.is_empty() {
            return Outcome::Refused(plan.refusals.clone());
        }
        for (at, step) in plan.steps.iter().enumerate() {
            if self.stop.is_cancelled() {
                return Outcome::Interrupted(plan.steps.len() - at);
            }
            let teller = Teller { run: self, step, at, began: now() };
            self.crash.boundary();
            teller.tell(EventKind::Started);
            let done = tokio::select! {
                done = self.step(step, &teller) => done,
                () = self.stop.cancelled(), if step.can_be_left() => return Outcome::Interrupted(plan.steps.len() - at),
            };
            self.crash.boundary();
            if let Err(fault) = done.and_then(|()| self.note(step)) {
                teller.tell(EventKind::Failed(fault.what.clone()));
                return Outcome::Failed { step: step.text.clone(), fault };
            }
            teller.tell(EventKind::Done);
        }
        Outcome::Done(plan.steps.len())
    }

    fn note(&self, step: &Step) -> Result<(), Fault> {
        let finished = FinishedStep { step: step.name.clone(), at: seconds() };
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.finished(&self.job.plan.node, finished).map_err(|error| {
            Fault::new(format!("cannot note it: {error:#}"), "the step itself is done; run the command again")
        })
    }

    /// One step within its limit.
    async fn step(&self, step: &Step, teller: &Teller<'_, '_, '_>) -> Result<(), Fault> {
        if let Action::Wait(probe) = &step.action {
            return self.wait(probe, step.limit_s, teller).await;
        }
        let work = async {
            match &step.action {
                Action::Run(command) => self.run(command, step.fills, teller).await,
                Action::Put { content, path, mode, keep_old } => self.put(content, path, *mode, *keep_old).await,
                Action::Service(role, action) => Ok(self.act(role.unit(), action).await?),
                Action::Wait(_) => Ok(()),
            }
        };
        let limit = Duration::from_secs(step.limit_s.into());
        let over = || {
            Fault::new(
                format!("no end after {} s", step.limit_s),
                "run the command again; see the node's load with `gorgo ssh`",
            )
        };
        timeout(limit, work).await.unwrap_or_else(|_| Err(over()))
    }

    async fn run(
        &self,
        command: &RemoteCommand,
        fills: Option<&str>,
        teller: &Teller<'_, '_, '_>,
    ) -> Result<(), Fault> {
        let work = self.job.remote.run(command);
        let output = match fills {
            None => work.await?,
            Some(folder) => tokio::select! {
                output = work => output?,
                never = self.report_growth(folder, teller) => match never {},
            },
        };
        if output.ok() {
            return Ok(());
        }
        let said = output.complaint();
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        let status = output.status.map_or_else(|| "killed by a signal".to_owned(), |status| format!("status {status}"));
        Err(Fault { what: format!("`{}` ended with {status}: {last}", command.argv[0]), hint: None })
    }

    /// Tells how much a disk has filled up, for as long as it is polled.
    async fn report_growth(&self, folder: &str, teller: &Teller<'_, '_, '_>) -> std::convert::Infallible {
        let first = self.disk_used(folder).await;
        loop {
            sleep(LOOK_AGAIN).await;
            if let (Some(first), Some(used)) = (first, self.disk_used(folder).await) {
                teller.tell(EventKind::Progress(format!("{} so far", gigabytes(used.saturating_sub(first)))));
            }
        }
    }

    async fn disk_used(&self, folder: &str) -> Option<u64> {
        let output = self.job.remote.run(&script::disk_used(folder)).await.ok()?;
        String::from_utf8_lossy(&output.stdout).lines().last()?.trim().parse().ok()
    }

    async fn put(&self, content: &Content, path: &str, mode: u32, keep_old: bool) -> Result<(), Fault> {
        let source = match content {
            Content::File(file) => Source::File(file),
            Content::Text(text) => Source::Bytes(text.as_bytes()),
            Content::Secret(secret) => Source::Bytes(secret.reveal().as_bytes()),
            Content::Certificate(request) => {
                let what = format!("nobody has made the certificate of {}", request.identity);
                return Err(Fault { what, hint: None });
            }
        };
        Ok(self.job.remote.put(&Upload { source, path, mode, root: true, keep_old }).await?)
    }

    async fn act(&self, unit: &str, action: &ServiceAction) -> Result<(), RemoteError> {
        self.job.remote.service(unit, action).await.map(|_| ())
    }

    async fn wait(&self, probe: &Probe, limit_s: u32, teller: &Teller<'_, '_, '_>) -> Result<(), Fault> {
        let hint = format!("`gorgo cluster logs {} --service {}` may tell why", self.job.plan.node, probe.role);
        let mut last = "no answer".to_owned();
        let asking = async {
            loop {
                match self.ask(probe).await? {
                    Ok(()) => return Ok(()),
                    Err(why) => last = why,
                }
                teller.tell(EventKind::Progress(last.clone()));
                self.check_restarts(probe, &last, &hint).await?;
                sleep(ASK_AGAIN).await;
            }
        };
        let end = timeout(Duration::from_secs(limit_s.into()), asking).await;
        end.unwrap_or_else(|_| Err(Fault::new(format!("not after {limit_s} s: {last}"), hint.clone())))
    }

    /// One question. An answer that is not good yet, or a connection that broke, may be better next time.
    async fn ask(&self, probe: &Probe) -> Result<Result<(), String>, Fault> {
        match self.job.remote.run(&probe.request.command(probe.port, ANSWER_LIMIT_S)).await {
            Ok(output) => Ok(http::answer(&output).and_then(|answer| probe.judge(&answer))),
            Err(error) if matches!(error.kind, RemoteErrorKind::Unreachable | RemoteErrorKind::Timeout) => {
                Ok(Err(error.message))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn check_restarts(&self, probe: &Probe, last: &str, hint: &str) -> Result<(), Fault> {
        let state = self.job.remote.service(probe.role.unit(), &ServiceAction::Status).await;
        match state {
            Ok(state) if state.restarts >= MOST_RESTARTS => {
                let what = format!("it ended and was restarted {} times: {last}", state.restarts);
                Err(Fault::new(what, hint))
            }
            _ => Ok(()),
        }
    }
}

/// Tells what happens to one step.
struct Teller<'t, 'a, 'j> {
    run: &'t NodeRun<'a, 'j>,
    step: &'t Step,
    at: usize,
    began: Instant,
}

impl Teller<'_, '_, '_> {
    fn tell(&self, kind: EventKind) {
        let plan = &self.run.job.plan;
        (self.run.events)(Event {
            node: plan.node.clone(),
            step: self.step.text.clone(),
            place: Some((self.at + 1, plan.steps.len())),
            kind,
            elapsed: now().duration_since(self.began),
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: how long a step takes is shown to people")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "an edge: the journal says when a step was done")]
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
