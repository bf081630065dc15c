//! Engines that answer at once from prebuilt bytes: as cheap as a socket allows, so that what is measured is not them.

use std::fmt::Write as _;

use anyhow::Context;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// KV size that the engines tell; small, so that a router's index of them is full early.
pub(super) const KV_TOKENS: usize = 200_000;
/// Content events of a stream.
const EVENTS: usize = 16;
/// Bytes of the JSON answer's body, as in the method that is followed.
const JSON_BYTES: usize = 456;

/// Serves `engines` listeners, prints their addresses, and ends with stdin.
pub(super) async fn child(engines: usize) -> anyhow::Result<()> {
    for _ in 0..engines {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("failed to bind")?;
        let address = listener.local_addr().context("failed to read an address")?;
        tokio::spawn(listen(listener));
        super::announce(address);
    }
    super::parent_gone().await
}

async fn listen(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            // A client that leaves is the only way in which this ends.
            let _ = serve(stream).await;
        });
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (json, events) = (json(), events());
    let mut buffer = Vec::with_capacity(128 << 10);
    loop {
        let head = loop {
            if let Some(end) = memmem::find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let whole = head + content_length(&buffer[..head]);
        while buffer.len() < whole {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body = &buffer[head..whole];
        if buffer.starts_with(b"GET") {
            let answer = probe(&buffer[..head]);
            stream.write_all(answer.as_bytes()).await?;
        } else if memmem::find(&body[..body.len().min(200)], b"\"stream\":true").is_some() {
            for event in &events {
                stream.write_all(event).await?;
            }
        } else {
            stream.write_all(&json).await?;
        }
        buffer.drain(..whole);
    }
}

fn content_length(head: &[u8]) -> usize {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn probe(head: &[u8]) -> String {
    let body = if head.starts_with(b"GET /metrics") {
        format!("sglang:num_running_reqs 0\nsglang:num_queue_reqs 0\nsglang:max_total_num_tokens {KV_TOKENS}\n")
    } else {
        "{}".to_owned()
    };
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn json() -> Vec<u8> {
    let text = r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":""#;
    let end = r#""}}],"usage":{"prompt_tokens":2048,"completion_tokens":64}}"#;
    let filler = "w".repeat(JSON_BYTES - text.len() - end.len());
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {JSON_BYTES}\r\n\r\n{text}{filler}{end}"
    )
    .into_bytes()
}

/// The writes of one stream: head and first event, the other events, and the end.
fn events() -> Vec<Vec<u8>> {
    let chunk = |data: &str| format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8);
    let mut writes: Vec<String> = (0..EVENTS)
        .map(|i| {
            let role = if i == 0 { "\"role\":\"assistant\"," } else { "" };
            chunk(&format!(
                "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"mock\",\"choices\":[{{\"index\":0,\"delta\":{{{role}\"content\":\"twelve bytes\"}},\"finish_reason\":null}}]}}"
            ))
        })
        .collect();
    writes[0].insert_str(0, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut end = chunk("{\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}");
    let _ = write!(end, "{}0\r\n\r\n", chunk("[DONE]"));
    writes.push(end);
    writes.into_iter().map(String::into_bytes).collect()
}
