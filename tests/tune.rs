//! `gorgo tune` as a user runs it: the real binary, files on disk, exit codes.

mod bounded;

use std::path::Path;
use std::process::{Command, Output};

use gorgo::report::tuning::Tuning;

const BINARY: &str = env!("CARGO_BIN_EXE_gorgo");

/// A search of seconds on the demo's fleet.
const SMALL: [&str; 6] = ["--seconds", "8", "--rate", "4", "--seeds", "3"];

fn gorgo(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env_remove("GORGO_CONFIG");
    bounded::output(&mut command)
}

fn tune(folder: &Path, arguments: &[&str]) -> Output {
    gorgo(folder, &[&["tune"], &SMALL[..], arguments].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

#[test]
fn a_search_prints_its_check_and_lines_that_the_configuration_takes() {
    let folder = tempfile::tempdir().unwrap();
    let search = ["--grid", "w_rtt=0.5,1", "--set", "gorgo.w_rtt=1000", "--baseline", "random", "--require-gain"];
    let files = ["--json", "t.json", "--html", "t.html"];
    let output = tune(folder.path(), &[&search[..], &files].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for word in ["grid of gorgo", "gorgo (tuned)", "÷ random", "held out, w_rtt = ", "95 % intervals"] {
        assert!(shown.contains(word), "{word} in\n{shown}");
    }
    let (_, lines) = shown.split_once("\n[cluster]").expect("lines for the configuration");
    let replica = "\n[[replica]]\nname = \"a\"\nurl = \"http://127.0.0.1:1\"\nregion = \"us-east-1\"\n";
    std::fs::write(folder.path().join("gorgo.toml"), format!("[cluster]{lines}{replica}")).unwrap();
    let checked = gorgo(folder.path(), &["config", "check"]);
    assert_eq!(checked.status.code(), Some(0), "{}{}", text(&checked.stdout), text(&checked.stderr));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let document: Tuning = serde_json::from_str(&read("t.json")).unwrap();
    assert_eq!((document.schema.as_str(), document.trials.len()), ("gorgo.tuning/1", 3));
    assert!(read("t.html").contains("gorgo (tuned)"));
    let json = tune(folder.path(), &[&search[..], &["--json", "-"]].concat());
    assert_eq!(text(&json.stdout), read("t.json"), "the same bytes again, alone on stdout");
}

#[test]
fn a_gain_can_be_required() {
    let folder = tempfile::tempdir().unwrap();
    // One point, which is what there is: nothing to gain.
    let same = ["--grid", "w_queue=0.1", "--require-gain"];
    let output = tune(folder.path(), &same);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("nothing was better than the weights as they were, w_queue = 0.1"));
    assert_eq!(tune(folder.path(), &same[..2]).status.code(), Some(0));
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 11] = [
        (&["--grid", "w_qeue=1"], "strategy `gorgo` has no parameter `w_qeue`"),
        (&["--grid", "w_queue=0..1"], "wanted a range that begins above 0"),
        (&["--strategy", "random"], "name what is searched of `random`, e.g. `--grid KEY=LOW..HIGH`, of: none"),
        (&["--strategy", "nearest"], "unknown strategy `nearest`"),
        (&["--baseline", "gorgo"], "`--baseline gorgo` is the strategy itself"),
        (&["--objective", "ttft"], "found `ttft`; wanted one of ttft_ms.mean, "),
        (&["--objective", "e2e_ms.p95,e2e_ms.p95"], "`--objective`: `e2e_ms.p95` is named twice"),
        (&["--search", "evolution", "--grid", "w_queue=0,1"], "an evolution steps through a range above 0"),
        (&["--budget", "3", "--grid", "w_queue=0.1..1"], "`--budget`: 6 points take 18 runs"),
        (&["--tune-window", "0..60", "--hold-out", "30..90"], "cannot be used with"),
        (&["--json", "nowhere/t.json"], "its folder does not exist"),
    ];
    for (arguments, wanted) in cases {
        let output = tune(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(wanted), "{arguments:?}: {}", text(&output.stderr));
    }
    let timed = ["tune", "--generator", "art-like", "--time-scale", "2", "--tune-window", "0..60"];
    let cases: [(&[&str], &str); 2] =
        [(&["--hold-out", "30..90"], "overlap: what chose the weights"), (&[], "--hold-out")];
    for (arguments, wanted) in cases {
        let output = gorgo(folder.path(), &[&timed[..], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(wanted), "{arguments:?}: {}", text(&output.stderr));
    }
}
