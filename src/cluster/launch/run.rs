//! Carries out the protocol: one machine after another, the journal before each call, events at each step boundary.

use std::pin::pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::candidates::{Candidate, Machine};
use super::event::{LaunchEvent, LaunchProgress};
use super::journal::{LaunchEntry, LaunchJournal, LaunchState};
use super::protocol::{Protocol, Step};
use super::report::{LaunchOutcome, LaunchReport, NodeLaunch};
use super::tag::{NODE_TAG, RUN_TAG, RunTag};
use crate::cloud::{Cloud, CloudError, CloudErrorKind, InstanceId, LaunchRequest};

/// Pauses before each look for a lost machine: over a minute in all, because how far Lambda's list lags behind is not documented.
const LOOK_AFTER: [Duration; 5] =
    [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(20), Duration::from_secs(30)];

/// How a launch is carried out.
#[derive(Clone, Debug)]
pub struct LaunchOptions {
    /// Mark of this run; new for every command.
    pub run: RunTag,
    /// Pauses before each look for a machine whose answer was lost; not empty. One look without a pause is enough where lists do not lag.
    pub look_after: Vec<Duration>,
    /// How long an interrupted command still waits for the answer to a launch that is under way.
    pub grace: Duration,
}

impl LaunchOptions {
    /// The options for a provider whose list may lag.
    #[must_use]
    pub fn new(run: RunTag) -> Self {
        Self { run, look_after: LOOK_AFTER.to_vec(), grace: Duration::from_secs(10) }
    }
}

/// Launches the machines in order. Lack of capacity goes on to the next machine, any other failure stops the launch, as does `stop`.
///
/// Never fails as a whole: the report says how each ended, and names all that may cost money. `events` is called at every step boundary.
pub async fn launch(
    cloud: &dyn Cloud,
    journal: &mut dyn LaunchJournal,
    machines: &[Machine],
    options: &LaunchOptions,
    stop: &CancellationToken,
    events: &mut (dyn FnMut(LaunchEvent) + Send),
) -> LaunchReport {
    let mut report = LaunchReport::default();
    let mut stopped = false;
    for machine in machines {
        let mut one = One::new(cloud, &mut *journal, machine, options, stop, &mut *events);
        if stopped || stop.is_cancelled() {
            report.nodes.push(one.untouched());
            continue;
        }
        let outcome = one.run().await;
        stopped = matches!(outcome, LaunchOutcome::Failed(_) | LaunchOutcome::Unknown(_));
        report.nodes.push(one.node(outcome));
    }
    report.interrupted = stop.is_cancelled();
    report
}

/// One machine's launch under way.
struct One<'a> {
    cloud: &'a dyn Cloud,
    journal: &'a mut dyn LaunchJournal,
    machine: &'a Machine,
    options: &'a LaunchOptions,
    stop: &'a CancellationToken,
    events: &'a mut (dyn FnMut(LaunchEvent) + Send),
    entry: LaunchEntry,
    /// An earlier run left an entry.
    earlier: bool,
    unsaved: Option<String>,
    /// An answer was lost, no machine was seen since, and asking again was refused: that says nothing of the lost one.
    uncertain: bool,
}

impl<'a> One<'a> {
    fn new(
        cloud: &'a dyn Cloud,
        journal: &'a mut dyn LaunchJournal,
        machine: &'a Machine,
        options: &'a LaunchOptions,
        stop: &'a CancellationToken,
        events: &'a mut (dyn FnMut(LaunchEvent) + Send),
    ) -> Self {
        let kept = journal.entry(&machine.node).filter(|entry| !matches!(entry.state, LaunchState::Refused { .. }));
        let earlier = kept.is_some();
        let entry = kept.unwrap_or_else(|| first_entry(machine, &options.run));
        Self { cloud, journal, machine, options, stop, events, entry, earlier, unsaved: None, uncertain: false }
    }

    async fn run(&mut self) -> LaunchOutcome {
        if let LaunchState::Launched { id } = &self.entry.state {
            let id = id.clone();
            self.emit(LaunchProgress::Already(id.clone()));
            return LaunchOutcome::Running(id);
        }
        let (machine, options) = (self.machine, self.options);
        let mut protocol = Protocol::new(machine.candidates.len(), &options.look_after);
        let mut step = protocol.begin(self.earlier);
        let mut error = if self.earlier { not_looked(&machine.node) } else { nothing_to_ask(&machine.node) };
        loop {
            step = match step {
                Step::Ask(index) => match self.ask(&machine.candidates[index], protocol.uncertain()).await {
                    Ok(id) => return self.got(id, protocol.uncertain()).await,
                    Err(why) if why.kind == CloudErrorKind::Stopped && !protocol.uncertain() => {
                        return LaunchOutcome::NotAsked;
                    }
                    Err(why) => {
                        let next = protocol.asked(Err(why.kind));
                        error = why;
                        if self.stop.is_cancelled() { without_more(next) } else { next }
                    }
                },
                Step::Look(pause) => match self.look(pause).await {
                    Ok(found) if !found.is_empty() => return self.adopt(found),
                    _ if self.stop.is_cancelled() => Step::Unknown,
                    Ok(_) => protocol.looked(Ok(false)),
                    Err(why) => {
                        error = lost_sight(&machine.node, &why);
                        protocol.looked(Err(()))
                    }
                },
                Step::Done | Step::Unknown => return self.unknown(error),
                Step::NoCapacity => {
                    self.uncertain = protocol.uncertain();
                    return LaunchOutcome::NoCapacity(error);
                }
                Step::Failed => {
                    self.uncertain = protocol.uncertain();
                    return self.failed(error);
                }
            }
        }
    }

    /// Saves, then calls. A save that fails means that nothing was asked for.
    async fn ask(&mut self, candidate: &Candidate, uncertain: bool) -> Result<InstanceId, CloudError> {
        let request = tagged(&candidate.request, &self.machine.node, &self.entry.run);
        self.entry.instance_type.clone_from(&request.instance_type);
        self.entry.region = request.region.clone();
        self.entry.price_cents_per_hour = candidate.price_cents_per_hour;
        self.entry.host_key.clone_from(&self.machine.host_key);
        let before = std::mem::replace(&mut self.entry.state, LaunchState::Asked);
        if let Err(error) = self.journal.save(&self.entry) {
            self.entry.state = before;
            return Err(unsaved_before(&self.machine.node, &error));
        }
        self.emit(LaunchProgress::Asking {
            instance_type: request.instance_type.clone(),
            region: request.region.clone(),
            price_cents_per_hour: candidate.price_cents_per_hour,
        });
        let result = self.call(&request).await;
        match &result {
            Ok(id) => self.emit(LaunchProgress::Answered(id.clone())),
            Err(error) if error.kind == CloudErrorKind::UnknownOutcome => {
                self.emit(LaunchProgress::Lost(error.message.clone()));
            }
            Err(error) => self.refused(error, uncertain),
        }
        result
    }

    /// The call itself. When the user interrupts, it is not sent any more; the answer to what was sent still gets some time: it is
    /// better to know.
    async fn call(&self, request: &LaunchRequest) -> Result<InstanceId, CloudError> {
        let mut call = pin!(self.cloud.launch(request, self.stop));
        tokio::select! {
            result = &mut call => result,
            () = self.stop.cancelled() => match tokio::time::timeout(self.options.grace, call).await {
                Ok(result) => result,
                Err(_) => Err(interrupted(&self.machine.node)),
            },
        }
    }

    /// After a lost answer the entry stays as it is: this call did nothing, but the lost one may yet turn out to have.
    fn refused(&mut self, error: &CloudError, uncertain: bool) {
        if !uncertain {
            self.entry.state = LaunchState::Refused { why: error.message.clone() };
            self.save();
        }
        if error.kind == CloudErrorKind::Capacity {
            let (instance_type, region) = (self.entry.instance_type.clone(), self.entry.region.clone());
            self.emit(LaunchProgress::NoCapacity { instance_type, region });
        }
    }

    async fn got(&mut self, id: InstanceId, uncertain: bool) -> LaunchOutcome {
        self.entry.state = LaunchState::Launched { id: id.clone() };
        self.save();
        self.emit(LaunchProgress::Launched(id.clone()));
        // An earlier answer was lost and its machine not seen: if it has turned up by now, somebody has to know.
        if uncertain && let Ok(found) = self.look(Duration::ZERO).await {
            self.surplus(found.into_iter().filter(|other| *other != id).collect());
        }
        LaunchOutcome::Running(id)
    }

    fn adopt(&mut self, mut found: Vec<InstanceId>) -> LaunchOutcome {
        let id = found.remove(0);
        self.entry.state = LaunchState::Launched { id: id.clone() };
        self.save();
        self.emit(LaunchProgress::Adopted(id.clone()));
        self.surplus(found);
        LaunchOutcome::Running(id)
    }

    fn surplus(&mut self, ids: Vec<InstanceId>) {
        if !ids.is_empty() {
            self.entry.also.clone_from(&ids);
            self.save();
            self.emit(LaunchProgress::Surplus(ids));
        }
    }

    /// Machines with this run's and this node's tag, in a stable order.
    async fn look(&mut self, pause: Duration) -> Result<Vec<InstanceId>, CloudError> {
        self.emit(LaunchProgress::Looking);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
        let instances = self.cloud.list().await?;
        let ours = instances.into_iter().filter(|instance| self.entry.run.marks(&self.machine.node, instance));
        let mut found: Vec<_> = ours.map(|instance| instance.id).collect();
        found.sort();
        Ok(found)
    }

    fn failed(&mut self, error: CloudError) -> LaunchOutcome {
        self.emit(LaunchProgress::Failed(error.message.clone()));
        LaunchOutcome::Failed(error)
    }

    fn unknown(&mut self, error: CloudError) -> LaunchOutcome {
        self.emit(LaunchProgress::Unknown(error.message.clone()));
        LaunchOutcome::Unknown(error)
    }

    /// Saving after the call: a failure cannot undo the machine, so it goes into the report.
    fn save(&mut self) {
        self.unsaved = self.journal.save(&self.entry).err().map(|error| format!("{error:#}"));
    }

    fn emit(&mut self, progress: LaunchProgress) {
        (self.events)(LaunchEvent { node: self.machine.node.clone(), progress });
    }

    /// A machine whose turn did not come; what an earlier run left behind is still told.
    fn untouched(self) -> NodeLaunch {
        let outcome = match &self.entry.state {
            LaunchState::Launched { id } => LaunchOutcome::Running(id.clone()),
            LaunchState::Asked if self.earlier => LaunchOutcome::Unknown(not_looked(&self.machine.node)),
            LaunchState::Asked | LaunchState::Refused { .. } => LaunchOutcome::NotAsked,
        };
        self.node(outcome)
    }

    fn node(self, outcome: LaunchOutcome) -> NodeLaunch {
        NodeLaunch {
            node: self.entry.node,
            instance_type: self.entry.instance_type,
            region: self.entry.region,
            price_cents_per_hour: self.entry.price_cents_per_hour,
            outcome,
            also: self.entry.also,
            unsaved: self.unsaved,
            uncertain: self.uncertain,
        }
    }
}

/// After an interruption nothing new is begun; what is uncertain stays so. A call that would have been followed by another was refused.
fn without_more(next: Step) -> Step {
    match next {
        Step::Look(_) => Step::Unknown,
        Step::Ask(_) => Step::Failed,
        other => other,
    }
}

fn first_entry(machine: &Machine, run: &RunTag) -> LaunchEntry {
    let first = machine.candidates.first();
    let region = first.map_or_else(|| crate::model::Region::new(""), |candidate| candidate.request.region.clone());
    LaunchEntry {
        node: machine.node.clone(),
        run: run.clone(),
        instance_type: first.map(|candidate| candidate.request.instance_type.clone()).unwrap_or_default(),
        region,
        price_cents_per_hour: first.and_then(|candidate| candidate.price_cents_per_hour),
        host_key: machine.host_key.clone(),
        state: LaunchState::Asked,
        also: Vec::new(),
    }
}

fn tagged(request: &LaunchRequest, node: &str, run: &RunTag) -> LaunchRequest {
    let mut request = request.clone();
    request.tags.insert(RUN_TAG.to_owned(), run.to_string());
    request.tags.insert(NODE_TAG.to_owned(), node.to_owned());
    request
}

fn error(kind: CloudErrorKind, message: String, hint: &str) -> CloudError {
    CloudError { kind, code: None, message, hint: Some(hint.to_owned()) }
}

fn nothing_to_ask(node: &str) -> CloudError {
    error(CloudErrorKind::Capacity, format!("no type and region to launch `{node}` with"), "see `gorgo available`")
}

fn unsaved_before(node: &str, cause: &anyhow::Error) -> CloudError {
    let message = format!("`{node}` was not asked for, because the inventory cannot be saved: {cause:#}");
    error(CloudErrorKind::Invalid, message, "make the folder in `GORGO_STATE_DIR` writable, then launch again")
}

fn interrupted(node: &str) -> CloudError {
    let message = format!("interrupted while `{node}` was being launched: it may exist and cost money");
    error(CloudErrorKind::UnknownOutcome, message, "launch again with the same names: gorgo looks for its tag first")
}

fn lost_sight(node: &str, cause: &CloudError) -> CloudError {
    let message = format!("`{node}` may exist and cost money, and looking for it failed: {cause}");
    error(CloudErrorKind::UnknownOutcome, message, "launch again with the same names: gorgo looks for its tag first")
}

fn not_looked(node: &str) -> CloudError {
    let message = format!("an earlier launch of `{node}` never saw its answer: it may exist and cost money");
    error(CloudErrorKind::UnknownOutcome, message, "launch again with the same names: gorgo looks for its tag first")
}
