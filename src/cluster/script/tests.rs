use std::io::Write as _;
use std::process::{Command, Stdio};

use insta::assert_snapshot;

use super::{Image, OBSERVE, choose_image, engine_unit, observe, weights_bytes};
use crate::cluster::desired::{Container, EngineChoice};
use crate::cluster::facts::{Asked, Facts, Gpu, parse};
use crate::cluster::testing::{container, emulator, node};
use crate::config::EngineOptions;
use crate::config::engine::is_reserved;

fn facts(driver: &str, name: &str, gpus: usize) -> Facts {
    let (driver, name) = (driver.to_owned(), name.to_owned());
    let gpu = Gpu { driver, name, memory_mib: 40960, memory_used_mib: None, busy_percent: None };
    Facts { gpus: vec![gpu; gpus], systemd: Some(255), ..Facts::default() }
}

#[test]
fn sglang_on_one_a100() {
    let unit = engine_unit(&node(1, "us-east-1", EngineChoice::Sglang(container())), &facts("570.148.08", "A100", 1));
    assert_snapshot!(unit.argv.join("\n"), @r#"
    /usr/bin/docker
    run
    --rm
    --name
    gorgo-engine
    --gpus
    all
    --network
    host
    --ipc
    host
    --shm-size
    32g
    --ulimit
    nofile=1048576:1048576
    --volume
    /var/lib/gorgo/models:/models
    --volume
    /run/gorgo:/run/gorgo
    --env
    HF_HOME=/models
    --env
    HF_HUB_OFFLINE=1
    lmsysorg/sglang:v0.5.19-cu129
    python3
    -m
    sglang.launch_server
    --model-path
    mistralai/Mistral-7B-Instruct-v0.3
    --host
    127.0.0.1
    --port
    30000
    --enable-metrics
    --enable-cache-report
    --page-size
    16
    --kv-events-config
    {"publisher":"zmq","endpoint":"ipc:///run/gorgo/kv-events","replay_endpoint":"ipc:///run/gorgo/kv-replay"}
    "#);
}

#[test]
fn sglang_on_a_gh200() {
    let unit = engine_unit(&node(1, "us-east-3", EngineChoice::Sglang(container())), &facts("580.105.08", "GH200", 1));
    let wanted = ["Exec", "User", "DynamicUser", "Wants", "Environment", "Restart"];
    let lines: Vec<&str> =
        unit.unit_text.lines().filter(|line| wanted.iter().any(|key| line.starts_with(key))).collect();
    assert_snapshot!(lines.join("\n"), @r#"
    Wants=network-online.target docker.service
    ExecStartPre=-/usr/bin/docker rm --force gorgo-engine
    ExecStart=/usr/bin/docker run --rm --name gorgo-engine --gpus all --network host --ipc host --shm-size 32g --ulimit nofile=1048576:1048576 --volume /var/lib/gorgo/models:/models --volume /run/gorgo:/run/gorgo --env HF_HOME=/models --env HF_HUB_OFFLINE=1 lmsysorg/sglang:v0.5.23 python3 -m sglang.launch_server --model-path mistralai/Mistral-7B-Instruct-v0.3 --host 127.0.0.1 --port 30000 --enable-metrics --enable-cache-report --page-size 16 --kv-events-config "{\"publisher\":\"zmq\",\"endpoint\":\"ipc:///run/gorgo/kv-events\",\"replay_endpoint\":\"ipc:///run/gorgo/kv-replay\"}"
    ExecStopPost=-/usr/bin/docker rm --force gorgo-engine
    EnvironmentFile=/etc/gorgo/engine.env
    Environment=GORGO_STATE_DIR=/var/lib/gorgo/engine DOCKER_CONFIG=/var/lib/gorgo/engine
    DynamicUser=no
    User=root
    Restart=always
    RestartSec=2s
    RestartSteps=6
    RestartMaxDelaySec=60s
    "#);
}

#[test]
fn vllm_on_eight_cards() {
    let own = Container {
        image: Some("registry.local/vllm:1".into()),
        arguments: vec!["--max-num-seqs".into(), "64".into()],
        ..container()
    };
    let unit = engine_unit(&node(1, "us-west-1", EngineChoice::Vllm(own)), &facts("580.1", "H100", 8));
    assert_snapshot!(unit.argv.join("\n"), @r#"
    /usr/bin/docker
    run
    --rm
    --name
    gorgo-engine
    --gpus
    all
    --network
    host
    --ipc
    host
    --shm-size
    32g
    --ulimit
    nofile=1048576:1048576
    --volume
    /var/lib/gorgo/models:/models
    --volume
    /run/gorgo:/run/gorgo
    --env
    HF_HOME=/models
    --env
    HF_HUB_OFFLINE=1
    --env
    VLLM_SERVER_DEV_MODE=1
    --entrypoint
    vllm
    registry.local/vllm:1
    serve
    mistralai/Mistral-7B-Instruct-v0.3
    --host
    127.0.0.1
    --port
    30000
    --enable-prefix-caching
    --enable-prompt-tokens-details
    --block-size
    16
    --kv-events-config
    {"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"ipc:///run/gorgo/kv-events","replay_endpoint":"ipc:///run/gorgo/kv-replay"}
    --tensor-parallel-size
    8
    --max-num-seqs
    64
    "#);
}

/// With image and arguments of the user's own; those of gorgo stay before them.
#[test]
fn sglang_as_the_file_wants_it_on_an_a100_and_a_gh200() {
    let text = "[cluster]\nengine = \"sglang\"\n[engine]\nimage = \"registry.local:5000/sglang:mine\"\n\
                arguments = [\"--max-running-requests\", \"64\", \"--schedule-policy=lpm\"]\nkv_events = false\n";
    let (document, problems) = crate::config::read(text);
    let (fleet, more) = crate::config::fleet(&document, None);
    assert_eq!((problems, more), (vec![], vec![]));
    let EngineOptions { image, arguments, kv_events } = fleet.engine_options;
    let own = Container { image, arguments, kv_events, ..container() };
    let mut lines = Vec::new();
    for (driver, card) in [("570.148.08", "A100"), ("580.105.08", "GH200")] {
        let unit = engine_unit(&node(1, "us-east-1", EngineChoice::Sglang(own.clone())), &facts(driver, card, 1));
        let line = unit.unit_text.lines().find(|line| line.starts_with("ExecStart=")).unwrap().to_owned();
        lines.push(format!("{card}: {line}"));
    }
    assert_snapshot!(lines.join("\n"), @"
    A100: ExecStart=/usr/bin/docker run --rm --name gorgo-engine --gpus all --network host --ipc host --shm-size 32g --ulimit nofile=1048576:1048576 --volume /var/lib/gorgo/models:/models --volume /run/gorgo:/run/gorgo --env HF_HOME=/models --env HF_HUB_OFFLINE=1 registry.local:5000/sglang:mine python3 -m sglang.launch_server --model-path mistralai/Mistral-7B-Instruct-v0.3 --host 127.0.0.1 --port 30000 --enable-metrics --enable-cache-report --page-size 16 --max-running-requests 64 --schedule-policy=lpm
    GH200: ExecStart=/usr/bin/docker run --rm --name gorgo-engine --gpus all --network host --ipc host --shm-size 32g --ulimit nofile=1048576:1048576 --volume /var/lib/gorgo/models:/models --volume /run/gorgo:/run/gorgo --env HF_HOME=/models --env HF_HUB_OFFLINE=1 registry.local:5000/sglang:mine python3 -m sglang.launch_server --model-path mistralai/Mistral-7B-Instruct-v0.3 --host 127.0.0.1 --port 30000 --enable-metrics --enable-cache-report --page-size 16 --max-running-requests 64 --schedule-policy=lpm
    ");
}

#[test]
fn what_gorgo_sets_is_refused_of_users_but_for_what_they_may_override() {
    let overridable = ["--page-size", "--block-size", "--tensor-parallel-size", "--enable-prefix-caching"];
    for engine in [EngineChoice::Sglang(container()), EngineChoice::Vllm(container())] {
        let argv = engine_unit(&node(1, "us-east-1", engine), &facts("580.1", "H100", 2)).argv;
        let model = argv.iter().position(|word| word == "--model-path" || word == "serve").unwrap();
        for option in argv[model..].iter().filter(|word| word.starts_with("--")) {
            assert_eq!(is_reserved(option), !overridable.contains(&option.as_str()), "{option}");
        }
    }
}

#[test]
fn the_emulator_is_a_program() {
    let unit = engine_unit(&node(1, "us-east-1", emulator()), &Facts::default());
    assert_snapshot!(unit.argv.join(" "), @"/opt/gorgo/bin/gorgo emulate engine --listen 127.0.0.1:30000 --gpu a100-80 --model mistral-7b --region us-east-1");
    assert!(unit.unit_text.contains("\nDynamicUser=yes\n") && !unit.unit_text.contains("RestartSteps"));
    assert!(!unit.unit_text.contains("{{"));
}

#[test]
fn images_follow_the_driver() {
    let cases = [
        (EngineChoice::Sglang(container()), 580, "lmsysorg/sglang:v0.5.23"),
        (EngineChoice::Sglang(container()), 591, "lmsysorg/sglang:v0.5.23"),
        (EngineChoice::Sglang(container()), 579, "lmsysorg/sglang:v0.5.19-cu129"),
        (EngineChoice::Sglang(container()), 570, "lmsysorg/sglang:v0.5.19-cu129"),
        (EngineChoice::Sglang(container()), 569, "none (driver 570 or newer)"),
        (EngineChoice::Vllm(container()), 580, "vllm/vllm-openai:v0.33.0"),
        (EngineChoice::Vllm(container()), 570, "none (driver 580 or newer)"),
    ];
    for (engine, driver, expected) in cases {
        assert_eq!(choose_image(&engine, driver).unwrap().to_string(), expected, "{driver}");
    }
    assert_eq!(choose_image(&emulator(), 1), None);
    let own = Container { image: Some("mine".into()), ..container() };
    assert_eq!(choose_image(&EngineChoice::Sglang(own), 1), Some(Image::Use("mine".into())));
}

#[test]
fn sizes_are_read_from_names() {
    let cases = [
        ("mistralai/Mistral-7B-Instruct-v0.3", Some(15_400_000_000)),
        ("meta-llama/Llama-3.3-70B-Instruct", Some(154_000_000_000)),
        ("Qwen/Qwen3-30B-A3B", Some(66_000_000_000)),
        ("Qwen/Qwen2.5-0.5B", Some(1_100_000_000)),
        ("openai/gpt", None),
        ("x/1e300B", None),
    ];
    for (model, expected) in cases {
        assert_eq!(weights_bytes(model), expected, "{model}");
    }
}

/// The script itself, in a real bash on this machine, on a node's folders that are somewhere else.
#[test]
fn bash_runs_the_looking_script() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for made in ["gorgo", "state/done"] {
        std::fs::create_dir_all(at(made)).unwrap();
    }
    std::fs::write(at("gorgo/agent.env"), "abc").unwrap();
    std::fs::write(at("state/done/engine"), "abc").unwrap();
    std::fs::write(at("program"), "not a program").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut spec = node(1, "us-east-1", emulator());
    spec.ports.engine = listener.local_addr().unwrap().port();
    // ports that nobody listens on
    (spec.ports.agent_admin, spec.ports.proxy_admin) = (1, 2);
    let server = std::thread::spawn(move || {
        use std::io::Read as _;
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = String::new();
        while !seen.ends_with("there?\"}") {
            let mut some = [0; 256];
            let count = stream.read(&mut some).unwrap();
            seen += std::str::from_utf8(&some[..count]).unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"choices\":\n[1]}").unwrap();
        seen
    });
    let mut command = observe(&spec, false);
    assert_eq!(command.stdin, OBSERVE.as_bytes());
    for (place, path) in [(3, "program"), (4, "gorgo"), (5, "state/done"), (6, "state/none/yet")] {
        command.argv[place] = at(path);
    }
    let mut child = Command::new(&command.argv[0])
        .args(&command.argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&command.stdin).unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let request = server.join().unwrap();
    assert!(request.starts_with("POST /v1/completions HTTP/1.0\r\nHost: localhost\r\n"), "{request}");
    let facts =
        parse(&output, Asked { from_ms: 0, to_ms: i64::MAX }).unwrap_or_else(|error| panic!("{error}\n{output}"));
    assert_eq!(facts.arch, std::env::consts::ARCH);
    assert!(facts.disk_free > 0 && !facts.os.is_empty(), "{output}");
    let sum = super::super::plan::sha256("abc");
    assert_eq!(
        (facts.file("/etc/gorgo/agent.env"), facts.file("/var/lib/gorgo/done/engine")),
        (Some(sum.as_str()), Some(sum.as_str()))
    );
    assert_eq!(facts.binary_version.as_deref(), Some(""), "it does not start");
    assert!(facts.engine_serves() && facts.answers.len() == 1, "{output}");
}
