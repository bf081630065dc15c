//! The process that keeps a local node's services running: `gorgo supervise --dir FOLDER`. It outlives the command that started it.
//!
//! One per node, by a lock that the kernel frees. All that matters is on disk before it is acted on, so that after a kill -9 the next
//! supervisor ends what was left running and starts anew what was wanted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, sleep, timeout};

use super::super::service::ServiceState;
use super::control::{Reply, Request, listen, receive, send};
use super::file::{read_json, remove, try_lock};
use super::folder::Folder;
use super::logs;
use super::store::Running;
use super::unit::{Order, STOP_LIMIT, Unit};

/// How often logs are bounded and the folder is looked for.
const TICK: Duration = Duration::from_secs(1);
/// How often a process that was told to end is looked at, where it is not our child.
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for a request on an open connection.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Orders that may wait for one service.
const ORDERS: usize = 16;

/// Supervises the node in this folder until it is told to end. Returns at once if somebody does already.
///
/// # Errors
/// The folder cannot be used.
pub async fn supervise(dir: &Path) -> io::Result<()> {
    let folder = Folder::new("this node", dir).map_err(io::Error::other)?;
    fs::create_dir_all(folder.control())?;
    let Some(lock) = try_lock(&folder.lock())? else { return Ok(()) };
    // Never closed: a free lock tells others that the process has ended, so the kernel has to free it, not a return from here.
    let lock = Box::leak(Box::new(lock));
    // Fails only for a group leader, e.g. when started by hand from a shell.
    let _ = rustix::process::setsid();
    end_leftovers(&folder).await?;
    let mut supervisor = Supervisor { folder: folder.clone(), lock, units: BTreeMap::new() };
    for name in folder.installed_units()? {
        supervisor.unit(&name)?;
    }
    let listener = listen(&folder)?;
    let end = supervisor.serve(&listener).await;
    supervisor.end_all().await;
    let _ = remove(&folder.socket());
    if let Some(mut stream) = end? {
        let _ = send(&mut stream, &Reply::Stopped).await;
    }
    Ok(())
}

/// Ends services whose supervisor was killed, by their recorded pid and start time.
async fn end_leftovers(folder: &Folder) -> io::Result<()> {
    let entries = match fs::read_dir(folder.control().join("processes")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            if let Some(running) = read_json::<Running>(&path)? {
                end_process(&running).await;
            }
            remove(&path)?;
        }
    }
    Ok(())
}

async fn end_process(running: &Running) {
    running.process.signal(Signal::TERM);
    let ended = timeout(STOP_LIMIT, async {
        while running.process.is_alive() {
            sleep(LOOK).await;
        }
    });
    if ended.await.is_err() {
        running.process.signal(Signal::KILL);
    }
}

struct Supervisor {
    folder: Folder,
    /// Held until the process ends.
    lock: &'static File,
    units: BTreeMap<String, mpsc::Sender<Order>>,
}

impl Supervisor {
    /// Serves requests until one asks for the end (its connection comes back, to be told when it is done), a signal comes, or the folder
    /// is gone.
    async fn serve(&mut self, listener: &UnixListener) -> io::Result<Option<UnixStream>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut tick = interval(TICK);
        let (sender, mut requests) = mpsc::channel(ORDERS);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        tokio::spawn(read_request(stream, sender.clone()));
                    }
                }
                Some((mut stream, request)) = requests.recv() => match request {
                    Request::Hello => {
                        tokio::spawn(async move { send(&mut stream, &Reply::Hello).await });
                    }
                    Request::Shutdown => return Ok(Some(stream)),
                    Request::Service { unit, action } => {
                        let (answer, answered) = oneshot::channel();
                        let orders = self.unit(&unit)?;
                        tokio::spawn(async move {
                            let _ = orders.send(Order::Act(action, answer)).await;
                            answer_request(stream, answered).await;
                        });
                    }
                },
                _ = tick.tick() => {
                    if !self.owns_folder() {
                        return Ok(None);
                    }
                    for unit in self.units.keys() {
                        if let Err(error) = logs::bound(&self.folder.log(unit)) {
                            tracing::error!(%unit, %error, "cannot bound the log");
                        }
                    }
                }
                _ = terminate.recv() => return Ok(None),
                _ = interrupt.recv() => return Ok(None),
            }
        }
    }

    /// The actor of this unit, made when first needed.
    fn unit(&mut self, name: &str) -> io::Result<mpsc::Sender<Order>> {
        if let Some(orders) = self.units.get(name) {
            return Ok(orders.clone());
        }
        let unit = Unit::load(self.folder.clone(), name.to_owned())?;
        let (sender, orders) = mpsc::channel(ORDERS);
        tokio::spawn(unit.live(orders));
        self.units.insert(name.to_owned(), sender.clone());
        Ok(sender)
    }

    /// Whether the lock in the folder is still the one that we hold: the node may have been removed under us.
    fn owns_folder(&self) -> bool {
        match (fs::metadata(self.folder.lock()), self.lock.metadata()) {
            (Ok(there), Ok(ours)) => there.ino() == ours.ino() && there.dev() == ours.dev(),
            _ => false,
        }
    }

    async fn end_all(&mut self) {
        let mut ends = Vec::new();
        for orders in self.units.values() {
            let (done, ended) = oneshot::channel();
            if orders.send(Order::End(done)).await.is_ok() {
                ends.push(ended);
            }
        }
        for ended in ends {
            let _ = ended.await;
        }
    }
}

async fn read_request(mut stream: UnixStream, to: mpsc::Sender<(UnixStream, Request)>) {
    match timeout(REQUEST_LIMIT, receive::<Request>(&mut stream)).await {
        Ok(Ok(request)) => {
            let _ = to.send((stream, request)).await;
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Ok(Err(error)) => {
            let _ = send(&mut stream, &Reply::Refused(format!("not a request: {error}"))).await;
        }
        Err(_) => {}
    }
}

async fn answer_request(mut stream: UnixStream, answered: oneshot::Receiver<Result<ServiceState, String>>) {
    let reply = match answered.await {
        Ok(Ok(state)) => Reply::State(state),
        Ok(Err(refusal)) => Reply::Refused(refusal),
        Err(_) => Reply::Refused("the supervisor is ending".to_owned()),
    };
    let _ = send(&mut stream, &reply).await;
}
