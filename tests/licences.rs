//! Every dependency can be had under a licence that deny.toml allows. Works without network: `cargo metadata` reads what the build
//! has fetched, which is why it looks at this machine's platform only; `cargo deny check` looks at all.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Output of a tool that has to succeed.
fn output(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().expect("the tool that built this test runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn packages() -> Vec<Package> {
    let rustc = output(Command::new("rustc").arg("-vV"));
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments = ["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host];
    let text = output(Command::new(cargo).args(arguments));
    serde_json::from_str::<Metadata>(&text).expect("cargo's metadata").packages
}

/// Licences as deny.toml lists them.
fn allowed() -> Vec<String> {
    let text = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    toml::from_str::<Deny>(&text).expect("a table [licenses]").licenses.allow
}

/// Can an SPDX expression be satisfied with allowed licences alone? `AND` binds tighter than `OR`; `/` is cargo's old `OR`. An
/// exception (`WITH`) only adds permissions, but is taken at its word: the whole term has to be allowed.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let (result, rest) = any(&tokens, allowed);
    result && rest.is_empty()
}

fn any<'t>(tokens: &'t [&'t str], allowed: &[String]) -> (bool, &'t [&'t str]) {
    let (mut result, mut rest) = all(tokens, allowed);
    while let [first, more @ ..] = rest
        && *first == "OR"
    {
        let (next, after) = all(more, allowed);
        (result, rest) = (result | next, after);
    }
    (result, rest)
}

fn all<'t>(tokens: &'t [&'t str], allowed: &[String]) -> (bool, &'t [&'t str]) {
    let (mut result, mut rest) = one(tokens, allowed);
    while let [first, more @ ..] = rest
        && *first == "AND"
    {
        let (next, after) = one(more, allowed);
        (result, rest) = (result & next, after);
    }
    (result, rest)
}

fn one<'t>(tokens: &'t [&'t str], allowed: &[String]) -> (bool, &'t [&'t str]) {
    match tokens {
        ["(", inner @ ..] => {
            let (result, rest) = any(inner, allowed);
            (result, rest.strip_prefix(&[")"]).unwrap_or(rest))
        }
        [licence, with, exception, rest @ ..] if *with == "WITH" => {
            (allowed.contains(&format!("{licence} WITH {exception}")), rest)
        }
        [licence, rest @ ..] => (allowed.iter().any(|name| name == licence), rest),
        [] => (false, tokens),
    }
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let (packages, allowed) = (packages(), allowed());
    assert!(packages.len() > 50, "only {} packages were found", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !satisfied(package.license.as_deref().unwrap_or_default(), &allowed))
        .map(|package| {
            format!("{} {}: {}", package.name, package.version, package.license.as_deref().unwrap_or("no licence"))
        })
        .collect();
    assert!(refused.is_empty(), "licences that deny.toml does not allow:\n  {}", refused.join("\n  "));
}

#[test]
fn every_dependency_comes_from_the_public_registry() {
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    let elsewhere: Vec<String> = packages()
        .into_iter()
        .filter(|package| package.source.as_deref().is_some_and(|source| source != registry))
        .map(|package| package.name)
        .collect();
    assert_eq!(elsewhere, Vec::<String>::new());
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    let cases = [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("GPL-3.0-only AND MIT", false),
        ("MIT/Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
        ("(MIT OR Apache-2.0) AND ISC", true),
        ("MIT OR GPL-2.0-only AND ISC", true),
        ("GPL-2.0-only OR Apache-2.0 AND ISC", false),
        ("MIT WITH some-exception", false),
        ("MIT MIT", false),
        ("", false),
    ];
    for (expression, wanted) in cases {
        assert_eq!(satisfied(expression, &allowed), wanted, "`{expression}`");
    }
}
