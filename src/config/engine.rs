//! `[engine]`: how the engines that `gorgo cluster setup` starts in containers differ from what gorgo would choose. Pure.

use super::file::EngineSection;
use super::resolve::{Resolver, parsed};

/// Options of the engines that gorgo sets itself, or that what it sets depends on, and why another value cannot be.
///
/// SGLang and vLLM share most of them. Both take any beginning of an option that no other option shares, and vLLM takes `_` for `-`.
const RESERVED: [(&str, &str); 11] = [
    ("--model-path", MODEL),
    ("--model", MODEL),
    ("--host", "the engine listens on loopback, where the agent finds it"),
    ("--port", "the agent asks the engine at the port that gorgo gives it"),
    ("--enable-metrics", LEARNS),
    ("--enable-cache-report", LEARNS),
    ("--enable-prompt-tokens-details", LEARNS),
    ("--kv-events-config", "`engine.kv_events` turns them on or off, and gorgo says where they go"),
    ("--served-model-name", "requests and the check that the engine is up name the model as `cluster.model` does"),
    ("--api-key", SECRET),
    ("--admin-api-key", SECRET),
];
const MODEL: &str = "`cluster.model` names the model";
const LEARNS: &str = "gorgo sets it always, since the router learns from it";
const SECRET: &str = "a command line is no place for secrets, and the engine can be reached from its own machine only";
/// The shortest beginning that is looked at: `--` and two letters.
const SHORTEST: usize = 4;

/// What applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// Image instead of the one chosen by the driver, `NAME:TAG`.
    pub image: Option<String>,
    /// More arguments, after gorgo's own.
    pub arguments: Vec<String>,
    /// The engine publishes what enters and leaves its prefix cache.
    pub kv_events: bool,
}

/// The section over the defaults, with everything that is wrong with it. `engine`: the kind of engine, if the file says it.
pub(super) fn options(resolver: &mut Resolver<'_>, section: &EngineSection, engine: Option<&str>) -> EngineOptions {
    let image = resolver.pick("engine.image", None, section.image.clone());
    if let Some(message) = image.as_deref().and_then(wrong_image) {
        resolver.wrong("engine.image", "engine.image", &message);
    }
    let arguments = resolver.pick("engine.arguments", None, section.arguments.clone()).unwrap_or_default();
    for message in wrong_arguments(&arguments) {
        resolver.wrong("engine.arguments", "engine.arguments", &message);
    }
    let kv_events = resolver.pick("engine.kv_events", None, section.kv_events);
    let written = [
        ("engine.image", section.image.is_some()),
        ("engine.arguments", section.arguments.is_some()),
        ("engine.kv_events", section.kv_events.is_some()),
    ];
    for (path, _) in written.iter().filter(|(_, written)| *written && engine == Some("emulator")) {
        resolver.wrong(path, path, "is for engines in containers, and `cluster.engine` is the emulator");
    }
    EngineOptions { image, arguments, kv_events: kv_events.unwrap_or_else(|| parsed("engine.kv_events")) }
}

/// Only names with a tag can be found again among the images of a node.
fn wrong_image(image: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    let (_, last) = image.rsplit_once('/').unwrap_or(("", image));
    let tagged =
        last.split_once(':').is_some_and(|(name, tag)| !name.is_empty() && !tag.is_empty() && !tag.contains(':'));
    let good = image.starts_with(|c: char| c.is_ascii_alphanumeric()) && image.chars().all(plain) && tagged;
    (!good).then(|| format!("`{image}` is no image with a tag; wanted e.g. lmsysorg/sglang:v0.5.23"))
}

fn wrong_arguments(arguments: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(first) = arguments.first().filter(|first| !first.starts_with('-')) {
        problems
            .push(format!("`{first}` comes first and is no option; wanted e.g. [\"--max-running-requests\", \"64\"]"));
    }
    for argument in arguments {
        if argument.chars().any(char::is_control) {
            problems.push(format!("{argument:?} has characters in it that no command line of a unit can have"));
        } else if let Some((option, why)) = reserved(argument) {
            // Not its value: it may be a secret.
            let written = argument.split('=').next().unwrap_or_default();
            let option = if option == written { String::new() } else { format!(" (`{option}`)") };
            problems.push(format!("`{written}`{option} is gorgo's own: {why}"));
        }
    }
    problems
}

/// The option of gorgo's own that this argument is, or may be taken for.
fn reserved(argument: &str) -> Option<(&'static str, &'static str)> {
    let name = argument.split('=').next()?.replace('_', "-");
    let same = RESERVED.iter().find(|(option, _)| *option == name);
    let begins = || RESERVED.iter().find(|(option, _)| name.len() >= SHORTEST && option.starts_with(&name));
    same.or_else(begins).copied()
}

/// Whether gorgo keeps this option to itself.
#[must_use]
pub fn is_reserved(option: &str) -> bool {
    RESERVED.iter().any(|(own, _)| *own == option)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{EngineOptions, wrong_image};
    use crate::config::problem::Problem;
    use crate::config::{fleet, read};

    fn resolved(text: &str) -> (EngineOptions, String) {
        let (document, problems) = read(text);
        assert_eq!(problems, vec![], "the text itself is right");
        let (fleet, problems) = fleet(&document, None);
        (fleet.engine_options, problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn an_empty_file_leaves_the_choice_to_gorgo_and_has_events_on() {
        let wanted = EngineOptions { image: None, arguments: Vec::new(), kv_events: true };
        assert_eq!(resolved(""), (wanted, String::new()));
    }

    #[test]
    fn a_file_names_image_and_arguments() {
        let text = "[engine]\nimage = \"lmsysorg/sglang:v0.5.22\"\narguments = [\"--max-running-requests\", \"64\", \"--page-size=32\"]\nkv_events = false\n";
        let (options, problems) = resolved(text);
        assert_eq!(
            (options.image.as_deref(), options.kv_events, problems.as_str()),
            (Some("lmsysorg/sglang:v0.5.22"), false, "")
        );
        assert_eq!(options.arguments, ["--max-running-requests", "64", "--page-size=32"]);
    }

    #[test]
    fn what_gorgo_sets_itself_is_refused_however_it_is_written() {
        let text = "[engine]\nimage = \"-v\"\narguments = [\"0.0.0.0\", \"--host\", \"--port=1\", \"--kv_events_config={}\", \"--served-model\", \"--api-key=hush\", \"a\\nb\"]\n";
        assert_snapshot!(resolved(text).1, @r#"
        line 2: engine.image: `-v` is no image with a tag; wanted e.g. lmsysorg/sglang:v0.5.23
        line 3: engine.arguments: `0.0.0.0` comes first and is no option; wanted e.g. ["--max-running-requests", "64"]
        line 3: engine.arguments: `--host` is gorgo's own: the engine listens on loopback, where the agent finds it
        line 3: engine.arguments: `--port` is gorgo's own: the agent asks the engine at the port that gorgo gives it
        line 3: engine.arguments: `--kv_events_config` (`--kv-events-config`) is gorgo's own: `engine.kv_events` turns them on or off, and gorgo says where they go
        line 3: engine.arguments: `--served-model` (`--served-model-name`) is gorgo's own: requests and the check that the engine is up name the model as `cluster.model` does
        line 3: engine.arguments: `--api-key` is gorgo's own: a command line is no place for secrets, and the engine can be reached from its own machine only
        line 3: engine.arguments: "a\nb" has characters in it that no command line of a unit can have
        "#);
        let text = "[cluster]\nengine = \"emulator\"\n[engine]\nkv_events = true\n";
        assert_snapshot!(resolved(text).1, @"line 4: engine.kv_events: is for engines in containers, and `cluster.engine` is the emulator");
    }

    #[test]
    fn images_have_a_name_and_a_tag() {
        for good in ["a:1", "vllm/vllm-openai:v0.33.0", "registry.local:5000/team/x:1"] {
            assert_eq!(wrong_image(good), None);
        }
        for bad in ["", "a", "a:", ":1", "registry:5000/a", "a b:1", "--rm:1", "a:1:2", "a@sha256:00"] {
            assert!(wrong_image(bad).is_some(), "{bad}");
        }
    }
}
