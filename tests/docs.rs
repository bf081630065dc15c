//! What the documents say is true: commands and flags exist, examples parse, and every strategy, exit code, metric and header that
//! there is stands in README.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use gorgo::cli::Exit;
use gorgo::gateway::headers;
use gorgo::routing::policy;

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn gorgo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gorgo"));
    command.args(arguments).env_remove("GORGO_CONFIG").output().expect("the binary runs")
}

/// Lines of fenced code blocks, comments cut off.
fn code_lines(text: &str) -> Vec<String> {
    // The language of the block, if one is open. What is marked as text is output, not commands.
    let mut inside = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            inside = if inside.is_some() { None } else { Some(language) };
        } else if inside.is_some_and(|language| language != "text") {
            lines.push(line.split(" # ").next().unwrap_or_default().trim().to_owned());
        }
    }
    lines
}

/// Command lines of gorgo in a document: in code blocks, through cargo as well, and between backticks.
fn commands(text: &str) -> Vec<Vec<String>> {
    let spans = text.split('`').skip(1).step_by(2).filter(|span| !span.contains('\n')).map(str::to_owned);
    let all = code_lines(text).into_iter().chain(spans);
    let gorgo = all.filter_map(|line| {
        let rest = line.strip_prefix("gorgo ").or_else(|| line.strip_prefix("cargo run --release -- "))?;
        Some(rest.split_whitespace().map(str::to_owned).collect())
    });
    gorgo.collect()
}

/// Names after which clap accepts no more subcommands are found by asking: the longest leading words that have a help text.
fn help_of(words: &[String]) -> (usize, String) {
    let names = words.iter().take_while(|word| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-'));
    let most = names.take_while(|word| !word.starts_with('-')).count();
    for depth in (1..=most).rev() {
        let path: Vec<&str> = words[..depth].iter().map(String::as_str).chain(["--help"]).collect();
        let output = gorgo(&path);
        if output.status.success() {
            return (depth, String::from_utf8(output.stdout).expect("UTF-8"));
        }
    }
    panic!("`gorgo {}` is no command", words.join(" "));
}

#[test]
fn every_command_and_flag_in_the_documents_exists() {
    let mut seen = 0;
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/six-regions.md",
        "docs/overload.md",
        "examples/proxy.toml",
        "examples/production.toml",
        "examples/lambda.toml",
        "examples/hosts.toml",
        "examples/local.toml",
    ] {
        for words in commands(&document(name)) {
            // `gorgo config check|show|schema` stands for three.
            let alternatives: Vec<Vec<String>> = match words.iter().position(|word| word.contains('|')) {
                Some(at) => words[at]
                    .split('|')
                    .map(|word| [&words[..at], &[word.to_owned()], &words[at + 1..]].concat())
                    .collect(),
                None => vec![words],
            };
            for words in alternatives {
                let (_, help) = help_of(&words);
                for flag in words.iter().take_while(|word| *word != "--").filter(|word| word.starts_with("--")) {
                    let listed =
                        help.split(|letter: char| letter.is_whitespace() || letter == ',').any(|word| word == flag);
                    assert!(listed, "{name}: `gorgo {}`: no `{flag}` in its help", words.join(" "));
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were found in the documents");
}

#[test]
fn readme_shows_the_table_of_a_run() {
    let readme = document("README.md");
    let table =
        readme.split_once("<!-- demo table: pasted from a real run -->").and_then(|(_, rest)| rest.split_once("<!--"));
    let (table, _) = table.expect("the marked place");
    for word in ["gorgo", "round-robin", "(lower bound)", "emulator error", "cores"] {
        assert!(table.contains(word), "{word}");
    }
}

#[test]
fn readme_begins_with_the_two_commands() {
    let commands: Vec<String> =
        code_lines(&document("README.md")).into_iter().filter(|line| !line.is_empty()).take(2).collect();
    assert_eq!(commands, ["cargo run --release -- demo", "cargo test"]);
}

#[test]
fn the_changelog_begins_with_this_version() {
    let changelog = document("CHANGELOG.md");
    let head = changelog.lines().find_map(|line| line.strip_prefix("## [")).expect("a version");
    assert!(head.starts_with(&format!("{}]", env!("CARGO_PKG_VERSION"))), "{head}");
}

#[test]
fn nothing_tells_people_to_install_from_crates_io() {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        for line in document(name).lines().filter(|line| line.contains("cargo install")) {
            assert!(line.contains("--git") || line.contains("--path"), "{name}: {line}");
        }
    }
}

#[test]
fn every_example_is_a_configuration_without_problems() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut checked = 0;
    for entry in fs::read_dir(folder).expect("examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let output = gorgo(&["config", "check", "--config", path.to_str().expect("UTF-8")]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            checked += 1;
        }
    }
    assert!(checked >= 2, "only {checked} examples");
}

/// First cells of the rows below the heading `heading`, backticks removed.
fn table(heading: &str) -> BTreeSet<String> {
    let readme = document("README.md");
    let rest = readme.split(&format!("{heading}\n")).nth(1).unwrap_or_else(|| panic!("README.md has no `{heading}`"));
    let section = rest.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    rows.map(|cell| cell.replace('`', "")).collect()
}

#[test]
fn every_strategy_is_documented_and_no_other() {
    let mut documented = table("## Strategies");
    documented.remove("name");
    assert_eq!(documented, policy::names().map(str::to_owned).collect());
}

#[test]
fn every_exit_code_is_documented_and_no_other() {
    let mut documented = table("### Exit codes");
    documented.remove("code");
    assert_eq!(documented, Exit::ALL.iter().map(|exit| exit.code().to_string()).collect());
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let source = document("src/gateway/metrics.rs") + &document("src/gateway/metrics/foreseen.rs");
    let names = source.split(".register(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let registered: BTreeSet<&str> = names.collect();
    assert!(registered.len() > 20, "the metrics were not found where they are declared");
    let documented = table("### Metrics");
    let documented: BTreeSet<&str> =
        documented.iter().flat_map(|cell| cell.split(", ")).filter(|cell| *cell != "metric").collect();
    let plain: BTreeSet<&str> = documented
        .iter()
        .map(|name| name.strip_prefix("gorgo_").expect("the prefix"))
        .map(|name| name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name))
        .collect();
    assert_eq!(plain, registered);
}

#[test]
fn every_header_is_documented() {
    let readme = document("README.md");
    let names = [
        headers::REQUEST_ID,
        headers::REPLICA,
        headers::REGION,
        headers::STRATEGY,
        headers::EXPLAIN,
        headers::DECISION,
        headers::SESSION,
        headers::SESSION_AFFINITY,
        headers::PRIORITY,
        headers::RESIDENCY,
        headers::HOP,
        headers::PEER,
        headers::TRACE,
    ];
    for name in names {
        assert!(readme.contains(&format!("`{name}`")) || readme.contains(&format!("`{name}: 1`")), "`{name}`");
    }
}

#[test]
fn links_to_files_of_the_repository_lead_somewhere() {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = document(name);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !target.starts_with("https://") && !target.starts_with('#') {
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(target).exists(), "{name}: {target}");
            }
        }
    }
}
