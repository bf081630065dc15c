//! HTTP with a service on a node's loopback, spoken by bash on the node: nothing has to listen outside, and no tunnel has to be opened.
//! Pure: a request becomes a command, its output an answer.

use serde::Serialize;

use super::facts::Answer;
use crate::remote::{Output, RemoteCommand};

/// Connects, sends what comes on its input, prints what comes back. `Connection: close` in HTTP/1.0 ends it.
const TALK: &str = r#"exec 3<>"/dev/tcp/127.0.0.1/$1" && cat >&3 && timeout "$2" cat <&3"#;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// JSON; empty = none.
    pub body: String,
}

impl Request {
    /// Reads.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), body: String::new() }
    }

    /// Sends a document.
    #[must_use]
    pub fn post(path: &str, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("documents of ours have string keys only");
        Self { method: "POST", path: path.to_owned(), body }
    }

    /// The smallest real work for an engine: one token.
    #[must_use]
    pub fn completion(model: &str) -> Self {
        let body = serde_json::json!({ "model": model, "prompt": "Is anybody there?", "max_tokens": 1 });
        Self::post("/v1/completions", &body)
    }

    /// The command that asks the service on this port and waits this long for its answer.
    #[must_use]
    pub fn command(&self, port: u16, limit_s: u32) -> RemoteCommand {
        let Self { method, path, body } = self;
        let head = "Host: localhost\r\nContent-Type: application/json";
        let length = body.len();
        let text = format!("{method} {path} HTTP/1.0\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        let argv = ["bash", "-c", TALK, "talk", &port.to_string(), &limit_s.to_string()].map(str::to_owned).to_vec();
        RemoteCommand { argv, sudo: false, stdin: text.into_bytes(), timeout_s: limit_s + 10 }
    }
}

/// Reads what the command printed.
///
/// # Errors
/// No answer: nobody listens, or the answer is not HTTP.
pub fn answer(output: &Output) -> Result<Answer, String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        let said = output.complaint();
        return Err(match (text.is_empty(), output.status) {
            (true, Some(1)) if said.contains("refused") => "nothing listens on its port".to_owned(),
            (true, Some(124)) => "it took the request and did not answer in time".to_owned(),
            (true, _) if said.is_empty() => "no answer".to_owned(),
            (true, _) => said,
            (false, _) => "the answer is cut off".to_owned(),
        });
    };
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let status = status.filter(|_| head.starts_with("HTTP/1.")).ok_or("the answer is not HTTP")?;
    Ok(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::process::{Command, Stdio};
    use std::thread;

    use super::{Request, answer};
    use crate::remote::Output;

    fn output(status: i32, stdout: &str, stderr: &str) -> Output {
        Output { status: Some(status), stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn a_request_is_a_command_without_secrets_in_its_arguments() {
        let command = Request::completion("m").command(30000, 20);
        assert_eq!(
            command.argv.join(" "),
            r#"bash -c exec 3<>"/dev/tcp/127.0.0.1/$1" && cat >&3 && timeout "$2" cat <&3 talk 30000 20"#
        );
        let sent = String::from_utf8(command.stdin).unwrap();
        assert!(sent.starts_with("POST /v1/completions HTTP/1.0\r\nHost: localhost\r\n"), "{sent}");
        let (head, body) = sent.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
    }

    #[test]
    fn answers_are_told_from_silence() {
        let good = answer(&output(0, "HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"a\":\r\n1}", "")).unwrap();
        assert_eq!((good.status, good.body.as_str()), (200, "{\"a\":\r\n1}"));
        let cases = [
            (output(1, "", "bash: connect: Connection refused"), "nothing listens on its port"),
            (output(124, "", ""), "it took the request and did not answer in time"),
            (output(0, "", ""), "no answer"),
            (output(0, "HTTP/1.0 200 OK\r\nA: b", ""), "the answer is cut off"),
            (output(0, "SSH-2.0\r\n\r\n", ""), "the answer is not HTTP"),
            (output(0, "HTTP/1.1 many\r\n\r\n", ""), "the answer is not HTTP"),
        ];
        for (output, expected) in cases {
            assert_eq!(answer(&output).unwrap_err(), expected);
        }
    }

    #[test]
    fn bash_speaks_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"{\"draining\":true}") {
                let mut some = [0; 64];
                let count = stream.read(&mut some).unwrap();
                seen.extend_from_slice(&some[..count]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"in_flight\":0}").unwrap();
        });
        let request = Request::post("/admin/v1/drain", &serde_json::json!({ "draining": true }));
        let command = request.command(port, 10);
        let mut child = Command::new(&command.argv[0])
            .args(&command.argv[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&command.stdin).unwrap();
        let done = child.wait_with_output().unwrap();
        server.join().unwrap();
        let answer = answer(&Output { status: done.status.code(), stdout: done.stdout, stderr: done.stderr }).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"in_flight\":0}"));
    }
}
