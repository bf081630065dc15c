//! Unit templates filled with sample values: what a node with a container, and one with the emulated engine, would get.

use std::fs;
use std::path::Path;

/// A program that exists on every machine, since `systemd-analyze verify` looks for it.
const PROGRAM: &str = "/bin/true";

/// Values by placeholder.
pub(crate) type Values = Vec<(&'static str, String)>;

/// Text of a file in `templates/`.
pub(crate) fn template(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names between `{{` and `}}`, in order of appearance.
pub(crate) fn placeholders(text: &str) -> Vec<&str> {
    text.split("{{").skip(1).map(|rest| rest.split_once("}}").expect("a closed placeholder").0).collect()
}

/// Replaces every placeholder; panics on one without a value and on a value without a placeholder.
pub(crate) fn render(text: &str, values: &Values) -> String {
    let mut rendered = text.to_owned();
    for (name, value) in values {
        let placeholder = format!("{{{{{name}}}}}");
        assert!(rendered.contains(&placeholder), "no placeholder for `{name}`");
        rendered = rendered.replace(&placeholder, value);
    }
    assert_eq!(placeholders(&rendered), Vec::<&str>::new(), "placeholders without a value");
    rendered
}

/// Every unit in every form: (a name for messages, file name, text).
pub(crate) fn samples() -> Vec<(&'static str, &'static str, String)> {
    let remove = format!("-{PROGRAM} rm --force gorgo-engine");
    let forms = [
        ("agent", "gorgo-agent.service", router("agent")),
        ("proxy", "gorgo-proxy.service", router("proxy")),
        ("engine as a program", "gorgo-engine.service", engine("gorgo-engine", "yes", "", "")),
        ("engine in a container", "gorgo-engine.service", engine("root", "no", "docker.service", &remove)),
    ];
    forms.map(|(form, file, values)| (form, file, render(&template(file), &values))).into()
}

fn common(role: &str) -> Values {
    vec![
        ("description", format!("gorgo {role} of node east")),
        ("command", format!("{PROGRAM} {role} \"an argument with a space\"")),
        ("environment_file", format!("/etc/gorgo/{role}.env")),
        ("stop_timeout_s", "90".to_owned()),
        ("backoff", String::new()),
    ]
}

fn router(role: &str) -> Values {
    let mut values = common(role);
    values.push(("owned", format!("/etc/gorgo/{role}.pem /etc/gorgo/{role}-api-keys.toml")));
    values
}

fn engine(user: &str, dynamic: &str, after: &str, remove: &str) -> Values {
    let mut values = common("engine");
    values.extend([
        ("after", after.to_owned()),
        ("user", user.to_owned()),
        ("dynamic_user", dynamic.to_owned()),
        ("before_start", remove.to_owned()),
        ("after_stop", remove.to_owned()),
    ]);
    values
}
