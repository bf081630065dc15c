//! Help texts and usage errors as people see them.

mod bounded;

use std::fs;
use std::path::Path;
use std::process::Command;

use insta::{assert_snapshot, with_settings};

/// Exit code, stdout and stderr of a command line.
fn gorgo(arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a folder without a gorgo.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gorgo"));
    command
        .args(arguments)
        .current_dir(folder.path())
        .env("COLUMNS", "120")
        .env("XDG_CONFIG_HOME", folder.path())
        .env_remove("GORGO_CONFIG");
    let output = bounded::output(&mut command);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Names stand two spaces in; wrapped descriptions stand further in.
    let named = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    // `help` is clap's own and repeats the others.
    let names = named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

/// Every command line that has a help text, the shortest first.
fn all_commands() -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut at = 0;
    while at < found.len() {
        let path: Vec<String> = found[at].clone();
        let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let (code, help, _) = gorgo(&arguments);
        assert_eq!(code, Some(0), "{arguments:?}");
        found.extend(subcommands(&help).into_iter().map(|name| [path.clone(), vec![name]].concat()));
        at += 1;
    }
    found
}

#[test]
fn every_help_text() {
    for path in all_commands() {
        let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let (_, help, talk) = gorgo(&arguments);
        assert_eq!(talk, "", "help is what was asked for, so it goes to stdout");
        let name = ["help".to_owned()].into_iter().chain(path.clone()).collect::<Vec<_>>().join("-");
        with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, { assert_snapshot!(name, help) });
    }
}

#[test]
fn only_commands_that_exist_are_offered() {
    let (_, help, _) = gorgo(&["--help"]);
    assert_eq!(
        subcommands(&help),
        [
            "demo",
            "simulate",
            "tune",
            "bench",
            "emulate",
            "available",
            "launch",
            "status",
            "restart",
            "terminate",
            "ssh",
            "run",
            "cluster",
            "list",
            "ssh-keys",
            "firewall",
            "filesystems",
            "images",
            "agent",
            "proxy",
            "config",
            "completions",
            "version"
        ]
    );
}

#[test]
fn help_as_a_command_says_the_same() {
    let (code, help, _) = gorgo(&["help", "proxy", "start"]);
    assert_eq!((code, help), (Some(0), gorgo(&["proxy", "start", "--help"]).1));
}

#[test]
fn usage_errors_say_what_was_wanted_and_end_with_2() {
    let cases: &[&[&str]] = &[
        &["prox"],
        &["proxy", "explain", "not-an-id"],
        &["proxy", "policy", "--set", "w_rtt=1"],
        &["proxy", "tune", "--set", "w_rtt=fast"],
        &["proxy", "start", "--listen", "8000"],
        &["proxy", "status", "--admin", "ftp://x"],
        &["proxy", "start"],
        &[
            "proxy",
            "start",
            "--replica",
            "name=a,url=a,regoin=eu",
            "--replica",
            "name=a",
            "--strategy",
            "gorgoo",
            "--set",
            "x=1",
        ],
        &["proxy", "start", "--replica", "name=a,url=http://a,region=eu", "--admin", "0.0.0.0:1"],
        &["config", "check", "--config", "missing.toml"],
    ];
    let mut shown = String::new();
    for arguments in cases {
        let (code, out, err) = gorgo(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        shown += &format!("$ gorgo {}\n{err}\n", arguments.join(" "));
    }
    assert_snapshot!(shown.trim_end(), @r"
    $ gorgo prox
    error: unrecognized subcommand 'prox'

      tip: a similar subcommand exists: 'proxy'

    Usage: gorgo [OPTIONS] <COMMAND>

    For more information, try '--help'.

    $ gorgo proxy explain not-an-id
    error: invalid value 'not-an-id' for '[ID]': wanted up to 16 hexadecimal digits, as in `x-gorgo-request-id`

    For more information, try '--help'.

    $ gorgo proxy policy --set w_rtt=1
    error: the following required arguments were not provided:
      <STRATEGY>

    Usage: gorgo proxy policy --set <KEY=VALUE> <STRATEGY>

    For more information, try '--help'.

    $ gorgo proxy tune --set w_rtt=fast
    error: invalid value 'w_rtt=fast' for '--set <KEY=VALUE>': `fast` is not a number

    For more information, try '--help'.

    $ gorgo proxy start --listen 8000
    error: invalid value '8000' for '--listen <ADDRESS:PORT>': wanted an IP address and a port, e.g. 127.0.0.1:8000

    For more information, try '--help'.

    $ gorgo proxy status --admin ftp://x
    error: invalid value 'ftp://x' for '--admin <URL>': scheme `ftp`; wanted http or https, e.g. http://127.0.0.1:8001

    For more information, try '--help'.

    $ gorgo proxy start
    error: no replica is named

    hint: add `--replica name=a,url=http://10.0.0.5:30000,region=us-east-1`, or a [[replica]] to gorgo.toml

    $ gorgo proxy start --replica name=a,url=a,regoin=eu --replica name=a --strategy gorgoo --set x=1
    error: 7 problems in the configuration
      --replica 1: unknown key `regoin`; did you mean `region`?
      --strategy: unknown strategy `gorgoo`; known strategies: predictive, gorgo, gorgo-score, gorgo-v1, gorgo-v3, gorgo-online, gorgo-proxy, prefix-tree, least-load, least-request, session-affinity, consistent-hash, geo, power-of-two, round-robin, random, sglang-cache-aware, dynamo, aibrix-prefix, preble, skywalker, llm-d; did you mean `gorgo`?
      --replica 1: region: is missing
      --replica 1: url: `a` does not begin with http:// or https:// and a host; wanted e.g. http://10.0.0.5:30000
      --replica 2: url: is missing
      --replica 2: region: is missing
      --replica 2: name: the name `a` is taken by --replica 1: name

    $ gorgo proxy start --replica name=a,url=http://a,region=eu --admin 0.0.0.0:1
    error: 1 problem in the configuration
      --admin: 0.0.0.0:1 can be reached from outside and no token is asked for; wanted a loopback address, e.g. 127.0.0.1:8001, or `admin_token_file`

    $ gorgo config check --config missing.toml
    error: cannot read the configuration file `missing.toml` (`--config`)
      caused by: No such file or directory (os error 2)
    ");
}

#[test]
fn a_proxy_that_is_not_there_ends_with_1_and_a_hint() {
    // A port that was free a moment ago.
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    for command in
        ["status", "servers", "policy", "tune", "prefix-stats", "latency", "metrics", "explain", "clear-cache", "stop"]
    {
        let (code, out, err) = gorgo(&["proxy", command, "--admin", &free.to_string()]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{command}");
        assert!(
            err.starts_with(&format!("error: nothing listens at http://{free}\n  caused by: ")),
            "{command}: {err}"
        );
        assert!(err.ends_with(
            "hint: start a proxy with `gorgo proxy start --replica …`, or name its admin API with `--admin URL`\n"
        ));
    }
}

#[test]
fn dry_runs_show_what_would_be_sent_and_need_no_proxy() {
    let cases: &[&[&str]] = &[
        &["proxy", "policy", "round-robin", "--dry-run"],
        &["proxy", "tune", "--set", "w_queue=0.2", "--max-concurrent", "8", "--dry-run"],
        &["proxy", "servers", "add", "name=a,url=http://a,region=eu,kv-tokens=4000", "--dry-run"],
        &["proxy", "servers", "remove", "a", "b", "--dry-run"],
        &["proxy", "servers", "drain", "a", "--undo", "--dry-run"],
        &["proxy", "clear-cache", "--replica", "a", "--dry-run"],
        &["proxy", "stop", "--dry-run"],
    ];
    let mut shown = String::new();
    for arguments in cases {
        let (code, out, err) = gorgo(arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
        shown += &format!("$ gorgo {}\n{out}\n", arguments.join(" "));
    }
    assert_snapshot!(shown.trim_end(), @r#"
    $ gorgo proxy policy round-robin --dry-run
    POST http://127.0.0.1:8001/admin/v1/policy
    {"strategy":"round-robin","parameters":{}}

    $ gorgo proxy tune --set w_queue=0.2 --max-concurrent 8 --dry-run
    POST http://127.0.0.1:8001/admin/v1/tune
    {"parameters":{"w_queue":0.2},"max_concurrent":8}

    $ gorgo proxy servers add name=a,url=http://a,region=eu,kv-tokens=4000 --dry-run
    POST http://127.0.0.1:8001/admin/v1/replicas
    {"add":{"name":"a","url":"http://a","region":"eu","engine":null,"models":[],"limits":{"kv_tokens":4000},"rates":{"prefill_ms_per_token":null,"queue_ms_per_token":null}}}

    $ gorgo proxy servers remove a b --dry-run
    POST http://127.0.0.1:8001/admin/v1/replicas
    {"remove":{"name":"a"}}
    POST http://127.0.0.1:8001/admin/v1/replicas
    {"remove":{"name":"b"}}

    $ gorgo proxy servers drain a --undo --dry-run
    POST http://127.0.0.1:8001/admin/v1/replicas
    {"drain":{"name":"a","draining":false}}

    $ gorgo proxy clear-cache --replica a --dry-run
    POST http://127.0.0.1:8001/admin/v1/cache
    {"replica":"a"}

    $ gorgo proxy stop --dry-run
    POST http://127.0.0.1:8001/admin/v1/drain
    {"draining":true,"stop":true}
    "#);
}

#[test]
fn configuration_is_shown_with_its_origins() {
    let (code, out, err) =
        gorgo(&["proxy", "start", "--dry-run", "--replica", "name=a,url=http://a,region=eu", "--max-concurrent", "4"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_snapshot!(out, @r#"
    KEY                          VALUE             FROM
    cluster.strategy             "predictive"      default
    cluster.engine               -                 default
    cluster.model                -                 default
    replica[0].name              "a"               flag
    replica[0].url               "http://a"        flag
    replica[0].region            "eu"              flag
    routing.max_concurrent       4                 flag
    routing.queue_limit          10000             default
    routing.queue_timeout_ms     60000             default
    routing.max_attempts         3                 default
    routing.seed                 0                 default
    routing.inject_usage         false             default
    slo.ttft_ms                  -                 default
    slo.itl_ms                   -                 default
    slo.late                     "refuse"          default
    proxy.listen                 "127.0.0.1:8000"  default
    proxy.admin                  "127.0.0.1:8001"  default
    proxy.admin_token_file       -                 default
    proxy.region                 -                 default
    proxy.tls_certificate        -                 default
    proxy.tls_key                -                 default
    proxy.api_keys               -                 default
    proxy.places                 -                 default
    proxy.audit                  -                 default
    proxy.max_connections        16384             default
    proxy.max_body_bytes         67108864          default
    proxy.max_bodies_bytes       1073741824        default
    proxy.max_header_bytes       65536             default
    proxy.header_timeout_ms      30000             default
    proxy.body_timeout_ms        30000             default
    proxy.body_total_timeout_ms  300000            default
    proxy.keep_alive_ms          120000            default
    proxy.write_timeout_ms       120000            default
    proxy.upstream_timeout_ms    600000            default
    proxy.stream_timeout_ms      60000             default
    proxy.drain_timeout_ms       120000            default
    proxy.rtt_every_ms           1000              default
    proxy.gauges_every_ms        500               default
    proxy.decisions_kept         1024              default
    "#);
}

#[test]
fn the_configuration_file_is_the_one_named_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let user = folder.path().join("gorgo");
    fs::create_dir(&user).expect("the user's folder");
    let seed = |arguments: &[&str], variable: Option<&Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gorgo"));
        command.args(["config", "show", "--json"]).args(arguments);
        command.current_dir(folder.path()).env("XDG_CONFIG_HOME", folder.path()).env_remove("GORGO_CONFIG");
        if let Some(path) = variable {
            command.env("GORGO_CONFIG", path);
        }
        let output = bounded::output(&mut command);
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let settings = shown["settings"].as_array().expect("a list").clone();
        settings.into_iter().find(|it| it["key"] == "routing.seed").expect("it is always shown")["value"].as_u64()
    };
    let write = |path: &Path, seed: u64| fs::write(path, format!("[routing]\nseed = {seed}\n")).expect("written");
    assert_eq!(seed(&[], None), Some(0));
    write(&user.join("gorgo.toml"), 1);
    assert_eq!(seed(&[], None), Some(1));
    write(&folder.path().join("gorgo.toml"), 2);
    assert_eq!(seed(&[], None), Some(2));
    let (variable, flag) = (folder.path().join("c.toml"), folder.path().join("d.toml"));
    write(&variable, 3);
    assert_eq!(seed(&[], Some(&variable)), Some(3));
    write(&flag, 4);
    assert_eq!(seed(&["--config", flag.to_str().expect("UTF-8")], Some(&variable)), Some(4));
}

#[test]
fn version_schema_and_completions_are_data() {
    let (code, out, err) = gorgo(&["version"]);
    assert_eq!((code, out, err), (Some(0), format!("gorgo {}\n", env!("CARGO_PKG_VERSION")), String::new()));
    for arguments in [
        &["version", "--json"][..],
        &["config", "schema"],
        &["config", "show", "--json"],
        &["config", "check", "--json"],
    ] {
        let (code, out, _) = gorgo(arguments);
        assert_eq!(code, Some(0), "{arguments:?}");
        serde_json::from_str::<serde_json::Value>(&out).expect("JSON");
    }
    let (code, script, _) = gorgo(&["completions", "bash"]);
    assert!(code == Some(0) && script.contains("prefix-stats"));
}
