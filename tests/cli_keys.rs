//! Keys and tokens as a user meets them: the real binary, real files, a router that follows them.

mod bounded;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Pause between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(20);
/// Looks before giving up.
const LOOKS: u32 = 1_500;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The binary in a folder of its own, with nothing of the environment that it reads.
fn gorgo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gorgo"));
    command.current_dir(folder).env_clear().env("HOME", folder).env("RUST_LOG", "trace");
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    bounded::output(gorgo(folder).args(arguments))
}

/// What a command that succeeds prints.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

/// Exit code and the error of a command that fails.
fn failed(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(folder, arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
}

/// A router without engines that can be reached: who is let in gets 502 or 503.
struct Proxy {
    child: Child,
    requests: String,
    admin: String,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    fn start(folder: &Path) -> Self {
        let replica = "name=a,url=http://127.0.0.1:9,region=r,engine=vllm";
        let mut command = gorgo(folder);
        command.args(["proxy", "start", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--replica", replica]);
        let log = std::fs::File::create(folder.join("log")).expect("a file");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("the binary runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut address = |label: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            let address = line.strip_prefix(label).unwrap_or_else(|| panic!("`{line}` instead of `{label}…`")).trim();
            address.trim_start_matches("http://").to_owned()
        };
        let (requests, admin) = (address("requests"), address("admin"));
        Self { child, requests, admin }
    }

    /// Status of a request with this key.
    fn status(&self, key: &str) -> u16 {
        let mut stream = TcpStream::connect(&self.requests).expect("the proxy listens");
        let head =
            format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    fn becomes(&self, key: &str, status: u16) {
        let so = (0..LOOKS).any(|_| {
            let so = self.status(key) == status;
            if !so {
                std::thread::sleep(PAUSE);
            }
            so
        });
        assert!(so, "not {status} in time");
    }
}

fn secret(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("private");
}

#[test]
fn a_key_is_made_used_listed_and_revoked_while_the_router_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let config = "[residency]\neu-only = [\"europe-*\"]\n[proxy]\napi_keys = \"keys.toml\"\n";
    std::fs::write(folder.join("gorgo.toml"), config).expect("written");
    assert_eq!(printed(folder, &["proxy", "keys", "add", "ann", "--dry-run"]), "would add key `ann` to keys.toml");
    assert!(!folder.join("keys.toml").exists());
    let ann = printed(folder, &["proxy", "keys", "add", "ann", "--residency", "eu-only"]);
    assert!(ann.starts_with("gorgo-") && ann.len() == 87, "{ann}");
    let proxy = Proxy::start(folder);
    assert_eq!((proxy.status("gorgo-x"), proxy.status(&ann)), (401, 200));

    let made: Value = serde_json::from_str(&printed(folder, &["proxy", "keys", "add", "bob", "--json"])).expect("JSON");
    let bob = made["key"].as_str().expect("the key").to_owned();
    proxy.becomes(&bob, 200);
    let listed: Value = serde_json::from_str(&printed(folder, &["proxy", "keys", "list", "--json"])).expect("JSON");
    assert_eq!((&listed[0]["name"], &listed[0]["residency"][0]), (&"ann".into(), &"eu-only".into()));
    assert!(listed[0].get("key").is_none() && listed[1]["revoked"].is_null());

    assert_eq!(
        printed(folder, &["proxy", "keys", "revoke", "ann", "--dry-run"]),
        "would revoke key `ann` in keys.toml"
    );
    printed(folder, &["proxy", "keys", "revoke", "ann"]);
    proxy.becomes(&ann, 401);
    assert_eq!(proxy.status(&bob), 200);
    let table = printed(folder, &["proxy", "keys", "list"]);
    assert_eq!(
        table.lines().map(|line| line.split_whitespace().next()).collect::<Vec<_>>(),
        [Some("NAME"), Some("ann"), Some("bob")]
    );

    assert_eq!(failed(folder, &["proxy", "keys", "revoke", "ann"]).0, Some(4));
    let (code, said) = failed(folder, &["proxy", "keys", "add", "cleo", "--residency", "moon"]);
    assert!(code == Some(2) && said.contains("known classes: eu-only"), "{said}");
    assert_eq!(failed(folder, &["proxy", "keys", "add", "bob"]).0, Some(2));
    drop(proxy);
    let log = std::fs::read_to_string(folder.join("log")).expect("a log");
    let leaked = [&ann, &bob].into_iter().any(|key| log.contains(key.rsplit('-').next().expect("a secret")));
    assert!(!leaked && log.contains("API keys read"), "not even at the level `trace`");
}

#[test]
fn without_a_place_for_keys_the_command_says_what_to_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, said) = failed(folder.path(), &["proxy", "keys", "list"]);
    assert!(code == Some(2) && said.contains("--file FILE"), "{said}");
}

#[test]
fn the_admin_token_comes_from_a_file_or_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    secret(folder, "token", TOKEN);
    secret(folder, "wrong", &TOKEN.replace('0', "1"));
    std::fs::write(folder.join("gorgo.toml"), "[proxy]\nadmin_token_file = \"token\"\n").expect("written");
    let proxy = Proxy::start(folder);
    let ask = ["proxy", "status", "--admin", &proxy.admin, "--json"];
    let (code, said) = failed(folder, &ask);
    assert!(code == Some(1) && said.contains("admin token is wanted"), "the file is for the API of the file: {said}");
    printed(folder, &[&ask[..], &["--admin-token-file", "token"]].concat());
    assert_eq!(failed(folder, &[&ask[..], &["--admin-token-file", "wrong"]].concat()).0, Some(1));
    let by_environment = bounded::output(gorgo(folder).args(ask).env("GORGO_ADMIN_TOKEN", TOKEN));
    assert_eq!(by_environment.status.code(), Some(0));
    let (code, said) =
        failed(folder, &["proxy", "status", "--admin", "http://203.0.113.9:1", "--admin-token-file", "token"]);
    assert!(code == Some(2) && said.contains("strangers could read the token"), "{said}");
    std::fs::set_permissions(folder.join("wrong"), std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let (code, said) = failed(folder, &[&ask[..], &["--admin-token-file", "wrong"]].concat());
    assert!(code == Some(2) && said.contains("chmod 600"), "{said}");
    let log = std::fs::read_to_string(folder.join("log")).expect("a log");
    assert!(!log.contains(TOKEN));
}
