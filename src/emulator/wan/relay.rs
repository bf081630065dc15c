//! One relayed connection: bytes wait in a queue until their time has come.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::WanOptions;
use crate::emulator::clock::Clock;
use crate::emulator::lateness::Lateness;
use crate::model::Time;
use crate::sim::path::Path;

/// Most bytes under way in one direction; about the largest receive window of Linux (6 MB less its overhead).
pub const WINDOW_BYTES: usize = 4 << 20;

/// Most bytes taken in one read.
const READ_BYTES: usize = 32 << 10;

/// Room below which the next read gets a new buffer.
const LEAST_READ_BYTES: usize = 4 << 10;

/// State of the line that all connections share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Whether anything gets through.
    pub(super) up: bool,
    /// How often all connections were reset.
    pub(super) resets: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self { up: true, resets: 0 }
    }
}

/// What all connections of a relay share.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) options: WanOptions,
    pub(super) clock: Clock,
    pub(super) links: watch::Receiver<Link>,
    pub(super) lateness: Arc<Lateness>,
}

/// A connection to be relayed.
pub(super) struct Connection {
    line: Line,
    open_at: Time,
    upload: Path,
    download: Path,
}

impl Connection {
    /// The connection `number`, which comes in now.
    pub(super) fn new(line: Line, number: u64) -> Self {
        let options = line.options;
        let now = line.clock.now();
        let path = |direction: u64, open_at| {
            let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
            rng.set_stream(3 * number + direction);
            Path::new(options.rtt_ms, options.jitter, rng, open_at)
        };
        // SYN one way, SYN-ACK the other: the client would know only then, and could send.
        let mut handshake = path(0, now);
        let arrived = handshake.exit(now, 0);
        let open_at = handshake.exit(arrived, 0);
        Self { open_at, upload: path(1, open_at), download: path(2, now), line }
    }

    /// Relays until both directions have ended or one was reset.
    pub(super) async fn run(self, mut client: TcpStream) {
        let Self { line, open_at, upload, download } = self;
        let mut links = line.links.clone();
        if links.wait_for(|link| link.up).await.is_err() {
            return;
        }
        let resets = links.borrow().resets;
        let connected = async {
            let upstream = TcpStream::connect(line.options.to).await?;
            upstream.set_nodelay(true)?;
            client.set_nodelay(true)?;
            io::Result::Ok(upstream)
        };
        let Ok(mut upstream) = connected.await else {
            // The refusal takes as long as a connection would have.
            tokio::time::sleep_until(line.clock.instant(open_at)).await;
            reset(&client);
            return;
        };
        let broken = {
            let (client_read, client_write) = client.split();
            let (upstream_read, upstream_write) = upstream.split();
            let up = Direction::new(upload, line.clone()).carry(client_read, upstream_write);
            let down = Direction::new(download, line.clone()).carry(upstream_read, client_write);
            tokio::select! {
                broken = both(up, down) => broken,
                _ = links.wait_for(|link| link.resets != resets) => true,
            }
        };
        if broken {
            reset(&client);
            reset(&upstream);
        }
    }
}

/// Makes the kernel send a reset when the socket is dropped. If it cannot, an ordinary end is the next best.
fn reset(socket: &TcpStream) {
    let _ = socket.set_zero_linger();
}

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The end of the stream was passed on.
    Closed,
    /// Its reader was reset, and the other side is to learn that now.
    Reset,
    /// Its writer takes nothing more. The other direction reads from the same socket and learns why.
    Refused,
}

/// Runs both directions; true if the connection is to be reset.
async fn both(up: impl Future<Output = End>, down: impl Future<Output = End>) -> bool {
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (first, second) = tokio::select! {
        first = &mut up => (first, if first == End::Reset { End::Reset } else { down.await }),
        first = &mut down => (first, if first == End::Reset { End::Reset } else { up.await }),
    };
    first != End::Closed || second != End::Closed
}

/// What travels.
enum Item {
    Data(Bytes),
    End(End),
}

/// One direction of a connection.
struct Direction {
    path: Path,
    line: Line,
    /// What is under way and when it comes out.
    queue: VecDeque<(Time, Item)>,
    /// Bytes of it.
    queued: usize,
    /// Nothing more comes in.
    ended: bool,
}

impl Direction {
    fn new(path: Path, line: Line) -> Self {
        Self { path, line, queue: VecDeque::new(), queued: 0, ended: false }
    }

    async fn carry(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> End {
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        let mut buffer = BytesMut::new();
        loop {
            let up = self.line.links.borrow_and_update().up;
            let due = self.queue.front().map(|(due, _)| *due).filter(|_| up);
            if let Some(due) = due {
                sleep.as_mut().reset(self.line.clock.instant(due));
            }
            let room = !self.ended && self.queued < WINDOW_BYTES;
            // Not for every small chunk: they share one allocation until it is nearly full.
            if room && buffer.capacity() < LEAST_READ_BYTES {
                buffer.reserve(READ_BYTES);
            }
            tokio::select! {
                () = &mut sleep, if due.is_some() => {
                    if let Some(end) = self.deliver(&mut to).await {
                        return end;
                    }
                }
                read = from.read_buf(&mut buffer), if room => self.take(read, &mut buffer),
                changed = self.line.links.changed() => if changed.is_err() {
                    return End::Reset;
                },
            }
        }
    }

    fn take(&mut self, read: io::Result<usize>, buffer: &mut BytesMut) {
        let now = self.line.clock.now();
        let item = match read {
            Ok(0) => Item::End(End::Closed),
            Ok(_) => Item::Data(buffer.split().freeze()),
            Err(_) => Item::End(End::Reset),
        };
        let bytes = match &item {
            Item::Data(data) => data.len(),
            Item::End(_) => 0,
        };
        self.ended = bytes == 0;
        self.queued += bytes;
        self.queue.push_back((self.path.exit(now, bytes as u64), item));
    }

    /// Writes all that is due.
    async fn deliver(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> Option<End> {
        let now = self.line.clock.now();
        while self.queue.front().is_some_and(|(due, _)| *due <= now) {
            let Some((due, item)) = self.queue.pop_front() else { break };
            match item {
                Item::Data(data) => {
                    self.line.lateness.record(due, now);
                    if to.write_all(&data).await.is_err() {
                        return Some(End::Refused);
                    }
                    self.queued -= data.len();
                }
                Item::End(End::Closed) => {
                    let refused = to.shutdown().await.is_err();
                    return Some(if refused { End::Refused } else { End::Closed });
                }
                Item::End(end) => return Some(end),
            }
        }
        None
    }
}
