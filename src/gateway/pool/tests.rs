use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Clock, Outgoing, Pool, PoolError, PoolSettings};

/// A server that answers each request head with the given bytes; counts connections; closes each after `per_connection` answers.
async fn server(answer: &'static [u8], per_connection: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream, answer, per_connection));
        }
    });
    (url, opened)
}

async fn serve(mut stream: TcpStream, answer: &'static [u8], per_connection: usize) {
    let mut seen = Vec::new();
    for _ in 0..per_connection {
        while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
            if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                return;
            }
        }
        seen.clear();
        stream.write_all(answer).await.unwrap();
    }
}

fn pool(url: &str, min_idle: usize) -> Arc<Pool> {
    let settings = PoolSettings { min_idle, connect_timeout: Duration::from_secs(2), ..PoolSettings::default() };
    Pool::new(url.parse().unwrap(), settings, Clock::start()).unwrap()
}

fn get(pool: &Pool) -> Outgoing {
    let mut headers = http::HeaderMap::new();
    headers.insert(http::header::HOST, pool.endpoint().authority().clone());
    Outgoing { method: http::Method::GET, target: "/".parse().unwrap(), headers, body: bytes::Bytes::new() }
}

async fn body_of(pool: &Arc<Pool>) -> Result<bytes::Bytes, PoolError> {
    let response = pool.send(&get(pool)).await?;
    Ok(response.into_body().collect().await.expect("complete body").to_bytes())
}

const FIXED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n";
const EMPTY: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

#[tokio::test]
async fn a_connection_is_used_again_whatever_ends_the_body() {
    for (answer, body) in [(FIXED, "ok"), (CHUNKED, "abcde"), (EMPTY, "")] {
        let (url, opened) = server(answer, usize::MAX).await;
        let pool = pool(&url, 0);
        for _ in 0..5 {
            assert_eq!(body_of(&pool).await.unwrap(), body);
            assert_eq!(pool.idle(), 1, "{body}");
        }
        assert_eq!(opened.load(Ordering::SeqCst), 1, "{body}");
    }
}

#[tokio::test]
async fn frames_that_are_there_come_as_one() {
    let (url, _) = server(CHUNKED, usize::MAX).await;
    let pool = pool(&url, 0);
    let mut reply = pool.send(&get(&pool)).await.unwrap().into_body();
    let first = reply.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "abcde");
}

#[tokio::test]
async fn a_stale_connection_is_replaced_unnoticed() {
    let (url, opened) = server(FIXED, 1).await;
    let pool = pool(&url, 0);
    for _ in 0..3 {
        assert_eq!(body_of(&pool).await.unwrap(), "ok");
    }
    assert_eq!(opened.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_breaks_late_may_have_been_worked_on_and_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(AtomicUsize::new(0));
    let requests = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let requests = requests.clone();
            tokio::spawn(async move {
                let mut head = [0; 1024];
                // The first request of a connection is answered, the second one dies in its prefill.
                let _ = stream.read(&mut head).await.unwrap();
                requests.fetch_add(1, Ordering::SeqCst);
                stream.write_all(FIXED).await.unwrap();
                if stream.read(&mut head).await.unwrap_or(0) > 0 {
                    requests.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(400)).await;
                }
            });
        }
    });
    let pool = pool(&url, 0);
    assert_eq!(body_of(&pool).await.unwrap(), "ok");
    let error = body_of(&pool).await.unwrap_err();
    assert!(matches!(error, PoolError::Broken { .. }), "{error}");
    assert_eq!(seen.load(Ordering::SeqCst), 2, "once each");
}

#[tokio::test]
async fn refill_opens_connections_ahead_and_close_gives_them_up() {
    let (url, opened) = server(FIXED, usize::MAX).await;
    let pool = pool(&url, 3);
    pool.refill().await.unwrap();
    assert_eq!(pool.idle(), 3);
    assert_eq!(body_of(&pool).await.unwrap(), "ok");
    assert!(opened.load(Ordering::SeqCst) <= 4);
    pool.close();
    assert_eq!(pool.idle(), 0);
}

#[tokio::test]
async fn dropping_a_reply_half_way_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let engine = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = [0; 1024];
        let _ = stream.read(&mut seen).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await.unwrap();
        stream.read(&mut seen).await
    });
    let pool = pool(&url, 0);
    let mut reply = pool.send(&get(&pool)).await.unwrap().into_body();
    assert_eq!(reply.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
    drop(reply);
    let end = tokio::time::timeout(Duration::from_secs(5), engine).await.expect("engine notices").unwrap();
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!(pool.idle(), 0);
}

#[tokio::test]
async fn a_truncated_body_is_an_error_not_an_end() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
    ] {
        let (url, _) = server(answer, 1).await;
        let pool = pool(&url, 0);
        let reply = pool.send(&get(&pool)).await.unwrap().into_body();
        reply.collect().await.expect_err("truncated");
        assert_eq!(pool.idle(), 0);
    }
}

#[tokio::test]
async fn nobody_there_and_nonsense_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let error = body_of(&pool(&url, 0)).await.unwrap_err();
    assert!(matches!(error, PoolError::Connect { .. }), "{error}");

    let (url, _) = server(b"this is not http\r\n\r\n", 1).await;
    let error = body_of(&pool(&url, 0)).await.unwrap_err();
    assert!(matches!(error, PoolError::Broken { .. }), "{error}");
}
