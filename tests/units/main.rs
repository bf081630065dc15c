//! The systemd units in `templates/`: complete, accepted by `systemd-analyze verify`, and tightly sandboxed.
//!
//! Where systemd is not installed the checks that need it say so and pass. `tests/hosts` repeats them on systemd 247.

mod render;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::process::{Command, Output};

use render::{placeholders, samples, template};

/// Highest exposure by `systemd-analyze security` (0 = sealed, 10 = open). It is 1.4 for all but the engine in a container, whose
/// client has to be root (1.8), with systemd 252; other versions weigh a little differently.
const MOST_EXPOSED: f64 = 2.2;

/// Runs `systemd-analyze`; `None`, with a printed line, where it is not installed.
#[expect(clippy::print_stdout, reason = "says why a check is skipped")]
fn systemd_analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).env("SYSTEMD_COLORS", "0").output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: `systemd-analyze` is not installed (Debian: systemd)");
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

/// Writes the samples into a folder each, since two have the same name: (form, path).
fn written(folder: &tempfile::TempDir) -> Vec<(&'static str, String)> {
    let write = |(number, (form, file, text)): (usize, (&'static str, &str, String))| {
        let path = folder.path().join(number.to_string()).join(file);
        fs::create_dir(path.parent().expect("a folder")).expect("a fresh name");
        fs::write(&path, text).expect("space on the disk");
        (form, path.to_str().expect("UTF-8").to_owned())
    };
    samples().into_iter().enumerate().map(write).collect()
}

#[test]
fn the_readme_describes_exactly_the_placeholders_that_the_units_have() {
    let units = ["gorgo-agent.service", "gorgo-proxy.service", "gorgo-engine.service"].map(template);
    let used: BTreeSet<&str> = units.iter().flat_map(|text| placeholders(text)).collect();
    let readme = template("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let described: BTreeSet<&str> = rows.map(|(name, _)| name).collect();
    assert_eq!(described, used);
}

#[test]
fn agent_and_proxy_differ_in_names_only() {
    let directives = |file: &str, role: &str| -> Vec<String> {
        let text = template(file).replace(role, "ROLE").replace(" gorgo-engine.service", "");
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(directives("gorgo-agent.service", "agent"), directives("gorgo-proxy.service", "proxy"));
}

#[test]
fn systemd_accepts_the_units() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (form, path) in written(&folder) {
        let Some(output) = systemd_analyze(&["verify", "--man=no", &path]) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        // a key that it does not know is only a warning to it
        assert!(output.status.success() && !said.contains("gorgo-"), "{form}: {said}");
    }
}

#[test]
fn the_units_are_sandboxed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (form, path) in written(&folder) {
        let Some(output) = systemd_analyze(&["security", "--offline=true", "--no-pager", &path]) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("unrecognized option") {
            println!("skipped: this `systemd-analyze` cannot judge a file (`--offline` came with systemd 250)");
            return;
        }
        let table = String::from_utf8_lossy(&output.stdout);
        let exposure =
            table.lines().find_map(|line| line.split_once("Overall exposure level for ")?.1.split(' ').nth(1));
        let exposure: f64 =
            exposure.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{form}: {table}{said}"));
        assert!(exposure <= MOST_EXPOSED, "{form}: exposure {exposure}, wanted at most {MOST_EXPOSED}\n{table}");
    }
}
