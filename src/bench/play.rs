//! Playing a plan against a target: who is sent when, in which order, and when it ends.
//!
//! Open loop: each session starts by the clock, however slow replies are. Closed loop: a fixed number of slots, each playing one
//! session after the other. In both a session's next request waits for the reply before and then for its think time, and a
//! session whose request fails goes on with the next one, as a user would.
//!
//! What counts: in an open loop the requests of sessions that start inside the window, so that every target is judged on the same
//! ones; such a session may go on during the drain. A closed loop has no common set of requests, and its sessions may outlast the
//! whole run, so there the requests that are sent inside the window count, and none is sent after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::wanted;
use super::doors::Doors;
use super::tally::Tally;
use crate::gateway::clock::Clock;
use crate::model::Time;
use crate::report::Sample;
use crate::workload::{Plan, Session};

/// How long before its time a session's task begins, so that its first body is made before it is needed.
const AHEAD_MS: f64 = 30.0;

/// Everything that one run needs.
#[derive(Clone)]
pub struct Player {
    /// Where the requests of each session go.
    pub doors: Doors,
    /// What to send.
    pub plan: Arc<Plan>,
    /// Counts from the start of the run: plan time 0 is clock time 0.
    pub clock: Clock,
    /// Live counts.
    pub tally: Arc<Tally>,
    /// Sessions that start from here on count, in a closed loop requests that are sent from here on, ms.
    pub from_ms: f64,
    /// No session starts from here on, in a closed loop no request is sent, ms.
    pub to_ms: f64,
    /// How long requests under way may go on after that.
    pub drain: Duration,
    /// Fires when somebody wants the run to end now.
    pub stop: CancellationToken,
}

/// What a run left.
#[derive(Debug, Default)]
pub struct Played {
    /// One sample per request sent, by session in the order of their starts; within a session in order.
    pub samples: Vec<Sample>,
    /// Lateness of each request sent, ms: real minus intended send time.
    pub lag_ms: Vec<f64>,
    /// It was stopped before its end.
    pub stopped: bool,
    /// Requests of sessions that count and had started that were never sent because the drain ended first: open loops that nobody
    /// stopped.
    pub unsent: u64,
}

/// One session's part.
struct SessionPlayed {
    index: usize,
    samples: Vec<Sample>,
    unsent: u64,
}

impl Player {
    /// Plays the plan to its end: all sessions, drained, or stopped.
    pub async fn play(self) -> Played {
        // Fires when the drain is over or somebody wants the end: whatever is under way is given up.
        let give_up = self.stop.child_token();
        let mut sessions = JoinSet::new();
        let drain_from_ms = match self.plan.concurrency {
            None => self.start_by_clock(&mut sessions, &give_up).await,
            Some(slots) => self.start_slots(slots, &mut sessions, &give_up),
        };
        let deadline = drain_from_ms.map(|ms| Time::from_ms(ms).plus_ms(self.drain.as_secs_f64() * 1000.0));
        let mut played = Vec::new();
        loop {
            let overtime = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep(self.clock.until(deadline)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                joined = sessions.join_next() => match joined {
                    Some(Ok(done)) => played.extend(done),
                    // A session that vanished would vanish from every count.
                    Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Some(Err(_)) => {}
                    None => break,
                },
                () = overtime, if !give_up.is_cancelled() => give_up.cancel(),
            }
        }
        collect(played, self.stop.is_cancelled())
    }

    /// Starts each session at its time. Returns when the drain begins.
    async fn start_by_clock(
        &self,
        sessions: &mut JoinSet<Vec<SessionPlayed>>,
        give_up: &CancellationToken,
    ) -> Option<f64> {
        let due = |session: &Session| session.start_ms < self.to_ms;
        for (index, session) in self.plan.sessions.iter().enumerate().take_while(|(_, session)| due(session)) {
            let spawn_at = Time::from_ms(session.start_ms - AHEAD_MS);
            tokio::select! {
                () = tokio::time::sleep(self.clock.until(spawn_at)) => {}
                () = give_up.cancelled() => return None,
            }
            let (player, give_up, start) = (self.clone(), give_up.clone(), Time::from_ms(session.start_ms));
            sessions.spawn(async move { vec![player.session(index, start, &give_up).await] });
        }
        Some(self.to_ms.min(self.plan.sessions.last().map_or(0.0, |session| session.start_ms)))
    }

    /// Starts the slots of a closed loop. Returns when the drain begins, if that is known.
    fn start_slots(
        &self,
        slots: u32,
        sessions: &mut JoinSet<Vec<SessionPlayed>>,
        give_up: &CancellationToken,
    ) -> Option<f64> {
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..slots {
            let (player, next, give_up) = (self.clone(), next.clone(), give_up.clone());
            sessions.spawn(async move {
                let mut played = Vec::new();
                while player.clock.now() < Time::from_ms(player.to_ms) && !give_up.is_cancelled() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= player.plan.sessions.len() {
                        break;
                    }
                    played.push(player.session(index, player.clock.now(), &give_up).await);
                }
                played
            });
        }
        self.to_ms.is_finite().then_some(self.to_ms)
    }

    /// One session from its first request to its last.
    async fn session(&self, index: usize, start: Time, give_up: &CancellationToken) -> SessionPlayed {
        let (session, door) = (&self.plan.sessions[index], self.doors.of(index));
        let closed = self.plan.concurrency.is_some();
        let counts = |sent: Time| if closed { sent } else { start }.ms() >= self.from_ms;
        let mut samples: Vec<Sample> = Vec::with_capacity(session.steps.len());
        let mut before = start;
        for step in &session.steps {
            let intended = before.plus_ms(step.think_ms);
            if closed && intended.max(self.clock.now()).ms() >= self.to_ms {
                break;
            }
            let Ok(prepared) = door.client.prepare(&session.id, step) else { break };
            let wait = self.clock.until(intended);
            if !wait.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = give_up.cancelled() => break,
                }
            } else if give_up.is_cancelled() {
                break;
            }
            let mut sample = wanted(counts(intended), intended, step);
            (sample.home, sample.entry) = (door.home.clone(), door.entry.clone());
            self.tally.sent();
            tokio::select! {
                () = door.client.send(&prepared, self.clock, &mut sample) => {}
                // The sample keeps what was seen; its outcome still is "cancelled".
                () = give_up.cancelled() => {}
            }
            if !sample.ok() {
                sample.end = self.clock.now();
            }
            before = sample.end;
            self.tally.ended(&sample, door.home.as_deref());
            samples.push(sample);
        }
        let lost = !closed && counts(start);
        let unsent = if lost { (session.steps.len() - samples.len()) as u64 } else { 0 };
        SessionPlayed { index, samples, unsent }
    }
}

fn collect(mut sessions: Vec<SessionPlayed>, stopped: bool) -> Played {
    sessions.sort_unstable_by_key(|session| session.index);
    // What somebody did not want sent any more was not lost.
    let unsent = if stopped { 0 } else { sessions.iter().map(|session| session.unsent).sum() };
    let samples: Vec<Sample> = sessions.into_iter().flat_map(|session| session.samples).collect();
    let lag_ms = samples.iter().map(|sample| sample.sent.since_ms(sample.intended)).collect();
    Played { samples, lag_ms, stopped, unsent }
}
