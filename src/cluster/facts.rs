//! What is known about a node, and the reader of the looking script's output. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::layout::Role;
use crate::remote::ServiceState;

/// A graphics card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Driver version, e.g. `570.148.08`.
    pub driver: String,
    /// Name, e.g. `NVIDIA A100-SXM4-40GB`.
    pub name: String,
    /// Its memory.
    pub memory_mib: u64,
    /// Memory in use; `None` = the driver does not tell, e.g. of a card in MIG mode.
    pub memory_used_mib: Option<u64>,
    /// Share of the last second or less in which something ran on it (`nvidia-smi`'s `utilization.gpu`), %; `None` = the driver does not
    /// tell.
    pub busy_percent: Option<u8>,
}

/// What a service answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body, without line breaks; at most 64 KiB.
    pub body: String,
}

/// All that a plan is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// `uname -m`.
    pub arch: String,
    /// glibc version; `None` = another libc.
    pub glibc: Option<(u32, u32)>,
    /// Name of the distribution.
    pub os: String,
    /// Version of systemd, if it is there.
    pub systemd: Option<u32>,
    /// Somebody supervises services there: systemd as its init, or our own supervisor.
    pub supervised: bool,
    /// Becoming root needs no password.
    pub sudo: bool,
    /// Free bytes where state is kept.
    pub disk_free: u64,
    /// How far its clock is ahead of ours, ms; what the time of the answer leaves open counts as none.
    pub clock_ahead_ms: i64,
    /// Its graphics cards.
    pub gpus: Vec<Gpu>,
    /// Version of Docker's server; empty = installed, but does not answer.
    pub docker: Option<String>,
    /// Container images there.
    pub images: BTreeSet<String>,
    /// Checksum of the program.
    pub binary_sha256: Option<String>,
    /// What the program says of itself, e.g. `gorgo 0.1.0`; empty = it does not start.
    pub binary_version: Option<String>,
    /// Checksum of the program before.
    pub binary_old_sha256: Option<String>,
    /// Checksums of configuration (`gorgo/NAME`) and records (`done/NAME`).
    pub files: BTreeMap<String, String>,
    /// Its services.
    pub services: BTreeMap<Role, ServiceState>,
    /// What they answered: the engine to a completion, the others to a question for their status.
    pub answers: BTreeMap<Role, Answer>,
}

impl Facts {
    /// The engine has answered a real completion.
    #[must_use]
    pub fn engine_serves(&self) -> bool {
        self.answers.get(&Role::Engine).is_some_and(|answer| is_completion(answer.status, &answer.body))
    }

    /// How a service is; one that nobody looked at is not installed.
    #[must_use]
    pub fn service(&self, role: Role) -> ServiceState {
        self.services.get(&role).cloned().unwrap_or_default()
    }

    /// The status document of an agent or proxy that answers.
    #[must_use]
    pub fn status(&self, role: Role) -> Option<crate::wire::Status> {
        let answer = self.answers.get(&role).filter(|answer| answer.status == 200)?;
        serde_json::from_str(&answer.body).ok()
    }

    /// There is a record of that path, whatever it holds.
    #[must_use]
    pub fn has_record(&self, path: &str) -> bool {
        self.file(path).is_some()
    }

    /// Checksum of a file of the configuration, or of a record, by its path on the node.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&str> {
        let (folder, name) = path.rsplit_once('/')?;
        let folder = folder.rsplit('/').next()?;
        self.files.get(&format!("{folder}/{name}")).map(String::as_str)
    }

    /// Major version of the driver: the oldest among the cards.
    #[must_use]
    pub fn driver_major(&self) -> Option<u32> {
        self.gpus.iter().filter_map(|gpu| gpu.driver.split('.').next()?.parse().ok()).min()
    }
}

/// A completion with at least one choice.
#[must_use]
pub fn is_completion(status: u16, body: &str) -> bool {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    status == 200 && body["choices"].as_array().is_some_and(|choices| !choices.is_empty())
}

/// When the question was sent and when the answer had come, ms since 1970 on our clock.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Sent.
    pub from_ms: i64,
    /// Answered.
    pub to_ms: i64,
}

/// Reads the script's output. Unknown lines are passed over; `services`, `supervised` and `sudo` are not in it.
///
/// # Errors
/// The output is cut off, or not that of the script.
pub fn parse(text: &str, asked: Asked) -> Result<Facts, String> {
    let mut facts = Facts::default();
    let mut ended = false;
    for line in text.lines() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.trim();
        match key {
            "clock_ms" => facts.clock_ahead_ms = ahead(number(key, value)?, asked),
            "arch" => facts.arch = value.to_owned(),
            "libc" => facts.glibc = glibc(value),
            "os" => facts.os = value.to_owned(),
            "systemd" => facts.systemd = value.parse().ok(),
            "disk_free" => facts.disk_free = u64::try_from(number(key, value)?).unwrap_or(0),
            "gpu" => facts.gpus.extend(gpu(value)),
            "docker" => facts.docker = Some(value.to_owned()),
            "image" => _ = facts.images.insert(value.to_owned()),
            "binary_sha256" => facts.binary_sha256 = Some(value.to_owned()),
            "binary_version" => facts.binary_version = Some(value.to_owned()),
            "binary_old_sha256" => facts.binary_old_sha256 = Some(value.to_owned()),
            "file" => facts.files.extend(value.split_once(' ').map(|(sum, name)| (name.to_owned(), sum.to_owned()))),
            "answer" => facts.answers.extend(answer(value)),
            "end" => ended = true,
            _ => {}
        }
    }
    if ended && !facts.arch.is_empty() {
        return Ok(facts);
    }
    let last = text.lines().last().unwrap_or("nothing");
    Err(format!("the description of the node is cut off; it ends with {last:?}"))
}

fn number(key: &str, value: &str) -> Result<i64, String> {
    value.parse().map_err(|_| format!("the node gave {value:?} as {key}, wanted a number"))
}

/// The smallest difference that fits: at the moment of reading our clock stood somewhere between the two ends.
fn ahead(theirs: i64, asked: Asked) -> i64 {
    match (theirs - asked.from_ms, theirs - asked.to_ms) {
        (most, _) if most < 0 => most,
        (_, least) if least > 0 => least,
        _ => 0,
    }
}

/// `glibc 2.31` → (2, 31).
fn glibc(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

/// `570.148.08, NVIDIA A100-SXM4-40GB, 40960, 36211, 97`; `[N/A]` stands for what the driver does not tell.
fn gpu(text: &str) -> Option<Gpu> {
    let (driver, rest) = text.split_once(", ")?;
    let mut figures = rest.rsplitn(4, ", ");
    let (busy, used, memory, name) = (figures.next()?, figures.next()?, figures.next()?, figures.next()?);
    Some(Gpu {
        driver: driver.to_owned(),
        name: name.to_owned(),
        memory_mib: memory.parse().unwrap_or(0),
        memory_used_mib: used.parse().ok(),
        busy_percent: busy.parse().ok(),
    })
}

/// `engine 200 {…}`.
fn answer(text: &str) -> Option<(Role, Answer)> {
    let (name, rest) = text.split_once(' ')?;
    let (status, body) = rest.split_once(' ').unwrap_or((rest, ""));
    let role = Role::ALL.into_iter().find(|role| role.name() == name)?;
    Some((role, Answer { status: status.parse().ok()?, body: body.trim().to_owned() }))
}

#[cfg(test)]
mod tests {
    use proptest::proptest;

    use super::{Asked, Facts, Gpu, Role, parse};

    const ASKED: Asked = Asked { from_ms: 1_000_000, to_ms: 1_000_300 };

    const A100: &str = "\
clock_ms 1000100
arch x86_64
libc glibc 2.35
os Ubuntu 22.04.4 LTS
systemd 249
disk_free  502511173632
gpu 570.148.08, NVIDIA A100-SXM4-40GB, 40960, 36211, 97
gpu 570.148.08, NVIDIA H100, MIG, 81559, [N/A], [N/A]
docker 24.0.7
image lmsysorg/sglang:v0.5.19-cu129
binary_sha256 aa
binary_version gorgo 0.1.0
file bb gorgo/agent.env
file cc done/engine
answer engine 200 {\"choices\": [{\"text\": \"a\"}]}
answer agent 503
something new of a later version
end
";

    #[test]
    fn reads_a_node() {
        let facts = parse(A100, ASKED).unwrap();
        assert_eq!((facts.arch.as_str(), facts.glibc, facts.systemd), ("x86_64", Some((2, 35)), Some(249)));
        assert_eq!((facts.disk_free, facts.clock_ahead_ms), (502_511_173_632, 0));
        let gpu = |name: &str, memory_mib, memory_used_mib, busy_percent| {
            let driver = "570.148.08".to_owned();
            Gpu { driver, name: name.to_owned(), memory_mib, memory_used_mib, busy_percent }
        };
        let gpus =
            [gpu("NVIDIA A100-SXM4-40GB", 40960, Some(36211), Some(97)), gpu("NVIDIA H100, MIG", 81559, None, None)];
        assert_eq!((facts.gpus.as_slice(), facts.driver_major()), (gpus.as_slice(), Some(570)));
        assert_eq!(facts.docker.as_deref(), Some("24.0.7"));
        assert!(facts.images.contains("lmsysorg/sglang:v0.5.19-cu129"));
        assert_eq!((facts.files["gorgo/agent.env"].as_str(), facts.files["done/engine"].as_str()), ("bb", "cc"));
        assert!(facts.engine_serves());
        assert_eq!(facts.answers[&Role::Agent].status, 503);
        assert_eq!(facts.status(Role::Agent), None);
    }

    #[test]
    fn a_description_that_is_cut_off_is_no_description() {
        let cut = A100.strip_suffix("end\n").unwrap();
        for text in [cut, "", "end\n", "bash: syntax error\n"] {
            assert!(parse(text, ASKED).unwrap_err().starts_with("the description of the node is cut off"), "{text}");
        }
        let odd = A100.replace("502511173632", "much");
        assert_eq!(parse(&odd, ASKED).unwrap_err(), "the node gave \"much\" as disk_free, wanted a number");
    }

    #[test]
    fn a_clock_is_ahead_by_no_more_than_is_certain() {
        for (theirs, expected) in [(1_000_000, 0), (1_000_300, 0), (1_000_301, 1), (999_900, -100), (1_060_300, 60_000)]
        {
            let text = A100.replace("clock_ms 1000100", &format!("clock_ms {theirs}"));
            assert_eq!(parse(&text, ASKED).unwrap().clock_ahead_ms, expected, "{theirs}");
        }
    }

    #[test]
    fn an_engine_serves_when_it_has_completed_something() {
        let serves = |answer: &str| parse(&format!("{A100}{answer}\n"), ASKED).unwrap().engine_serves();
        let cases = [
            ("answer engine 200 {\"choices\": []}", false),
            ("answer engine 200 unhealthy", false),
            ("answer engine 200", false),
            ("answer engine 503 {\"choices\": [1]}", false),
            ("answer engine 200 {\"choices\": [{}]}", true),
        ];
        for (answer, expected) in cases {
            assert_eq!(serves(answer), expected, "{answer}");
        }
    }

    #[test]
    fn other_libcs_have_no_glibc_version() {
        for (text, expected) in [("unknown", None), ("glibc 2.31", Some((2, 31))), ("musl", None), ("glibc x", None)] {
            assert_eq!(super::glibc(text), expected);
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "(arch|gpu|file|answer|libc|image| |\n|[a-z,. 0-9]){0,40}") {
            let _: Result<Facts, String> = parse(&text, ASKED);
        }
    }
}
