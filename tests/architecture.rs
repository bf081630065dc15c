//! The rules of ARCHITECTURE.md that a compiler does not check: who may import whom, what pure code may not name, how long a file
//! may be, and that every strategy is registered.

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use source::{Source, blanked, sources, without_tests};

/// Every top-level module and what it may import. `cli` may import everything and nobody imports it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &["model"]),
    ("report", &["model"]),
    ("config", &["model", "routing"]),
    ("cloud", &["model"]),
    ("remote", &["model"]),
    ("cluster", &["model", "wire", "config", "cloud", "remote", "inference"]),
    ("inference", &["model"]),
    ("routing", &["model"]),
    ("gateway", &["model", "wire", "inference", "routing"]),
    ("workload", &["model"]),
    ("sim", &["model", "routing", "workload", "report"]),
    ("emulator", &["model", "inference", "workload", "sim", "cloud"]),
    ("bench", &["model", "wire", "inference", "routing", "gateway", "workload", "sim", "report", "emulator"]),
    (
        "cli",
        &[
            "model",
            "wire",
            "report",
            "config",
            "cloud",
            "remote",
            "cluster",
            "inference",
            "routing",
            "gateway",
            "workload",
            "sim",
            "emulator",
            "bench",
        ],
    ),
];

/// Modules that take time, events, texts and seeds as arguments.
const PURE: &[&str] = &["model", "wire", "report", "config", "inference", "routing", "workload", "sim"];

/// Files of other modules that decide and leave the doing to their neighbours.
const PURE_FILES: &[&str] = &[
    "cluster/certificate.rs",
    "cluster/check.rs",
    "cluster/desired.rs",
    "cluster/facts.rs",
    "cluster/front.rs",
    "cluster/http.rs",
    "cluster/layout.rs",
    "cluster/plan.rs",
    "cluster/script/engine.rs",
    "cluster/script/mod.rs",
    "cluster/script/unit.rs",
    "cluster/step.rs",
];

/// Paths that pure code may not name, nor anything below them: clocks, network, files, threads, environment, ambient randomness.
const IMPURE: &[&str] = &[
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "tokio",
    "tokio_util",
    "hyper",
    "hyper_util",
    "reqwest",
    "rustls",
    "rand::rng",
    "rand::random",
    "rand::rngs::ThreadRng",
    "rand::rngs::OsRng",
    "getrandom",
    "std::collections::hash_map::RandomState",
    "std::hash::RandomState",
];

/// Names of types that pure code may not mention, however they were imported. Hashing with `RandomState`, which `HashMap::new`
/// takes, would make the order of iteration differ from run to run.
const IMPURE_NAMES: &[&str] =
    &["Instant", "SystemTime", "HashMap::new", "HashSet::new", "HashMap::with_capacity", "HashSet::with_capacity"];

/// Most lines of a file, tests not counted.
const MAX_LINES: usize = 600;

fn allowed(module: &str) -> Option<&'static [&'static str]> {
    MAY_IMPORT.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed)
}

/// `path: what` for every thing that breaks a rule, or nothing.
fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let modules: BTreeSet<&str> = MAY_IMPORT.iter().map(|(name, _)| *name).collect();
    let mut broken = Vec::new();
    for file in sources() {
        let module = file.module();
        if module.is_empty() {
            continue;
        }
        let Some(allowed) = allowed(module) else {
            broken.push(format!("{}: module `{module}` is not in the table", file.path));
            continue;
        };
        for import in file.imports() {
            if modules.contains(import.as_str()) && import != module && !allowed.contains(&import.as_str()) {
                broken.push(format!("{}: `{module}` may not import `{import}`", file.path));
            }
        }
    }
    assert_none("imports that ARCHITECTURE.md does not allow", &broken);
}

#[test]
fn the_table_is_the_one_in_the_document_and_has_no_cycle() {
    let document =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let written: Vec<(String, BTreeSet<String>)> = document.lines().filter_map(row).collect();
    let meant: Vec<(String, BTreeSet<String>)> = MAY_IMPORT
        .iter()
        .map(|(name, allowed)| {
            let all = *name == "cli";
            let allowed = if all { ["everything"].iter() } else { allowed.iter() };
            ((*name).to_owned(), allowed.map(|name| (*name).to_owned()).collect())
        })
        .collect();
    assert_eq!(written.iter().collect::<BTreeSet<_>>(), meant.iter().collect::<BTreeSet<_>>());
    // An order in which each module imports only earlier ones exists exactly if there is no cycle.
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    while let Some((name, _)) =
        MAY_IMPORT.iter().find(|(name, needs)| !placed.contains(name) && needs.iter().all(|need| placed.contains(need)))
    {
        placed.insert(name);
    }
    assert_eq!(placed.len(), MAY_IMPORT.len(), "a cycle beyond {placed:?}");
}

/// `| `wire` | what it holds | `model` |` → (wire, {model}); other lines are no rows of the table.
fn row(line: &str) -> Option<(String, BTreeSet<String>)> {
    let cells: Vec<&str> = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect();
    let [name, _, imports] = cells[..] else { return None };
    let name = name.strip_suffix('`')?;
    let imports = imports.split(", ").filter(|import| *import != "–");
    allowed(name).map(|_| (name.to_owned(), imports.map(|import| import.trim_matches('`').to_owned()).collect()))
}

#[test]
fn pure_modules_name_no_clock_network_file_thread_or_environment() {
    let mut broken = Vec::new();
    let files = sources();
    for pure in PURE_FILES {
        assert!(files.iter().any(|file| file.path == *pure), "{pure} is not where it is expected");
    }
    let is_pure = |file: &&Source| PURE.contains(&file.module()) || PURE_FILES.contains(&file.path.as_str());
    for file in files.iter().filter(is_pure) {
        for path in file.paths() {
            if let Some(what) = impure(&path) {
                broken.push(format!("{}: `{path}` ({what})", file.path));
            }
        }
    }
    assert_none("pure modules name what is not pure", &broken);
}

/// Why a path is not pure, if it is not.
fn impure(path: &str) -> Option<&'static str> {
    let below =
        |banned: &&&str| path == **banned || path.strip_prefix(**banned).is_some_and(|rest| rest.starts_with("::"));
    let named = |banned: &&&str| {
        let (path, banned) = (format!("::{path}::"), format!("::{banned}::"));
        path.contains(&banned)
    };
    IMPURE.iter().find(below).or_else(|| IMPURE_NAMES.iter().find(named)).copied()
}

#[test]
fn nothing_but_main_imports_the_command_line() {
    let importers =
        sources().into_iter().filter(|file| file.module() != "cli" && file.imports().iter().any(|it| it == "cli"));
    let importers: Vec<String> = importers.map(|file| file.path).collect();
    assert_eq!(importers, ["main.rs"]);
}

#[test]
fn files_are_short() {
    let long = |file: &Source| {
        let lines = file.code.trim_end().lines().count();
        (lines > MAX_LINES).then(|| format!("{}: {lines} lines", file.path))
    };
    assert_none(&format!("files over {MAX_LINES} lines"), &sources().iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn every_strategy_has_its_line_in_the_registry() {
    let files = sources();
    let registry = files.iter().find(|file| file.path == "routing/policy/registry.rs").expect("the registry");
    let registered: BTreeSet<String> = registry.paths().into_iter().filter(|path| path.ends_with("::ENTRY")).collect();
    let mut written = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.starts_with("routing/policy/")) {
        let stem = file.path.trim_start_matches("routing/policy/").trim_end_matches("/mod.rs").trim_end_matches(".rs");
        if file.code.contains("Policy for ") {
            assert!(file.code.contains("const ENTRY"), "{}: a strategy without an `ENTRY`", file.path);
            written.insert(format!("{stem}::ENTRY"));
        }
    }
    assert_eq!(written, registered);
    assert!(written.len() >= 10, "the strategies were not found where they are expected");
}

#[test]
fn the_reader_of_sources_sees_what_it_must_see() {
    let read = |path: &str, text: &str| Source { path: path.into(), code: without_tests(&blanked(text)) };
    let file = read(
        "routing/queue.rs",
        r##"//! crate::cli in a comment
        use crate::{gateway::{brain, pool}, model::Time};
        use super::super::bench::Load; /* crate::wire */
        const A: &str = "crate::sim"; const B: &str = r#"crate::sim "quoted""#; const C: char = '"';
        fn f<'a>(x: &'a str) -> std::time::Instant { gorgo::report::table(); tokio::spawn(x) }
        #[cfg(test)]
        mod tests { use crate::emulator::Face; fn g() { {} } }
        use crate::inference as engine;
        "##,
    );
    assert_eq!(file.imports(), ["gateway", "gateway", "model", "bench", "report", "inference"]);
    let found: Vec<_> = file.paths().iter().filter_map(|path| impure(path)).collect();
    assert_eq!(found, ["std::time::Instant", "tokio"]);
    let harmless =
        ["std::time::Duration", "tokio_like::x", "std::netting", "crate::model::Time", "core::net::SocketAddr"];
    assert!(harmless.iter().all(|path| impure(path).is_none()));
    assert!(impure("HashMap::new").is_some() && impure("std::collections::HashMap").is_none());
}
