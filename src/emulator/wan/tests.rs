//! The relay on real sockets.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Jitter, WINDOW_BYTES, WanHandle, WanOptions, start};

/// Longest wait for anything; far more than any of it takes.
const BOUND: Duration = Duration::from_secs(20);

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(BOUND, work).await.expect("done in time")
}

async fn relay(to: SocketAddr, rtt_ms: f64, jitter: Jitter) -> WanHandle {
    start(WanOptions { listen: ([127, 0, 0, 1], 0).into(), to, rtt_ms, jitter, seed: 5 }).await.unwrap()
}

/// A server that deals with its first connection as told.
async fn server<F: Future<Output = ()> + Send>(
    conversation: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        conversation(stream).await;
    });
    (address, task)
}

/// Sends back each chunk as it comes, until the end.
async fn echo(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut chunk = vec![0; 1 << 16];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        if stream.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this test measures real time")]
fn now() -> Instant {
    Instant::now()
}

async fn round_trip_ms(client: &mut TcpStream, bytes: usize) -> f64 {
    let began = now();
    client.write_all(&vec![7; bytes]).await.unwrap();
    let mut back = vec![0; bytes];
    in_time(client.read_exact(&mut back)).await.unwrap();
    now().duration_since(began).as_secs_f64() * 1e3
}

#[tokio::test]
async fn round_trips_take_what_was_asked_and_little_more() {
    let (address, _server) = server(echo).await;
    let wan = relay(address, 40.0, Jitter::None).await;
    let mut client = TcpStream::connect(wan.address()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let first = round_trip_ms(&mut client, 100).await;
    assert!((80.0..1000.0).contains(&first), "with set-up: {first} ms");
    let mut rest = Vec::new();
    for _ in 0..10 {
        rest.push(round_trip_ms(&mut client, 100).await);
    }
    // All are at least as long as asked; on a machine that is not overloaded some are hardly longer.
    assert!(rest.iter().all(|rtt| *rtt >= 40.0), "{rest:?}");
    assert!(rest.iter().any(|rtt| *rtt < 60.0), "{rest:?}");
}

#[tokio::test]
async fn a_large_upload_on_a_new_connection_pays_for_slow_start() {
    let (address, _server) = server(echo).await;
    let wan = relay(address, 30.0, Jitter::None).await;
    let mut client = TcpStream::connect(wan.address()).await.unwrap();
    // Set-up, one round trip, and 3 extra ones for 134,400 bytes each way; the way back starts while the way there goes on.
    let cold = round_trip_ms(&mut client, 134_400).await;
    assert!(cold >= 30.0 * 5.0, "{cold} ms");
}

#[tokio::test]
async fn bytes_keep_their_order_through_jitter_and_spikes() {
    let (address, _server) = server(echo).await;
    let wan = relay(address, 4.0, Jitter::Internet).await;
    let (mut read, mut write) = TcpStream::connect(wan.address()).await.unwrap().into_split();
    let sent: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let to_send = sent.clone();
    let sender = tokio::spawn(async move {
        for chunk in to_send.chunks(997) {
            write.write_all(chunk).await.unwrap();
            tokio::task::yield_now().await;
        }
        write.shutdown().await.unwrap();
        write
    });
    let mut received = Vec::new();
    in_time(read.read_to_end(&mut received)).await.unwrap();
    assert!(received == sent, "{} of {} bytes came back, or in another order", received.len(), sent.len());
    sender.await.unwrap();
}

#[tokio::test]
async fn half_close_passes_in_both_directions() {
    let (address, _server) = server(async |mut stream: TcpStream| {
        let mut question = Vec::new();
        stream.read_to_end(&mut question).await.unwrap();
        question.reverse();
        stream.write_all(&question).await.unwrap();
    })
    .await;
    let wan = relay(address, 10.0, Jitter::Backbone).await;
    let mut client = TcpStream::connect(wan.address()).await.unwrap();
    client.write_all(b"abc").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    in_time(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"cba");
}

#[tokio::test]
async fn resets_pass_in_both_directions() {
    let (address, serving) = server(async |mut stream: TcpStream| {
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let wan = relay(address, 10.0, Jitter::None).await;
    let mut client = TcpStream::connect(wan.address()).await.unwrap();
    client.write_u8(1).await.unwrap();
    assert_eq!(in_time(client.read_u8()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    serving.await.unwrap();

    let (address, serving) = server(async |mut stream: TcpStream| {
        let greeting = stream.read_u8().await.unwrap();
        stream.write_u8(greeting).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    })
    .await;
    let wan = relay(address, 10.0, Jitter::None).await;
    let mut client = TcpStream::connect(wan.address()).await.unwrap();
    round_trip_ms(&mut client, 1).await;
    client.set_zero_linger().unwrap();
    drop(client);
    in_time(serving).await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_ends_quickly() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let wan = relay(free, 20.0, Jitter::None).await;
    let mut client = TcpStream::connect(wan.address()).await.unwrap();
    let ended = in_time(client.read(&mut [0; 8])).await;
    assert!(matches!(&ended, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{ended:?}");
}

#[tokio::test]
async fn who_does_not_read_holds_the_sender_up() {
    let (hold, held) = tokio::sync::oneshot::channel::<()>();
    let (address, _server) = server(async move |stream: TcpStream| {
        let _ = held.await;
        drop(stream);
    })
    .await;
    let wan = relay(address, 2.0, Jitter::None).await;
    let mut client = TcpStream::connect(wan.address()).await.unwrap();
    let chunk = vec![0; 1 << 20];
    let mut sent = 0;
    // Kernel buffers on both sides of the relay hold a few MB more.
    while let Ok(written) = timeout(Duration::from_millis(500), client.write(&chunk)).await {
        sent += written.unwrap();
        assert!(sent < WINDOW_BYTES + (64 << 20), "the relay takes all that comes");
    }
    drop(hold);
}

#[tokio::test]
async fn a_cut_line_holds_everything_until_it_is_mended() {
    let (address, _server) = server(echo).await;
    let wan = relay(address, 2.0, Jitter::None).await;
    let mut client = TcpStream::connect(wan.address()).await.unwrap();
    round_trip_ms(&mut client, 10).await;
    wan.cut();
    client.write_all(b"held").await.unwrap();
    let mut back = [0; 4];
    assert!(timeout(Duration::from_millis(100), client.read_exact(&mut back)).await.is_err(), "the line is cut");
    let mut other = TcpStream::connect(wan.address()).await.unwrap();
    assert!(timeout(Duration::from_millis(50), other.read_u8()).await.is_err(), "a new connection waits as well");
    wan.restore();
    in_time(client.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"held");
}

#[tokio::test]
async fn connections_can_be_reset_and_the_relay_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(echo(stream));
        }
    });
    let wan = relay(address, 2.0, Jitter::None).await;
    let mut client = TcpStream::connect(wan.address()).await.unwrap();
    round_trip_ms(&mut client, 10).await;
    wan.reset_connections();
    assert_eq!(in_time(client.read_u8()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut again = TcpStream::connect(wan.address()).await.unwrap();
    round_trip_ms(&mut again, 10).await;
    let address = wan.address();
    wan.shutdown().await;
    assert!(in_time(again.read_u8()).await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
    serving.abort();
}
