use proptest::{prop_assert, proptest};

use super::{FleetFile, Form, Gpu, Jitter, OrderKind, SchedulerKind, Speed};
use crate::model::Region;
use crate::workload::network::RttMatrix;

/// A stand-in for the table of presets.
fn check(gpu: &Gpu, model: &str) -> Result<(), String> {
    match gpu {
        Gpu::Preset(id) if id != "a10" && id != "h100" => Err(format!("unknown GPU `{id}`; known are a10, h100")),
        _ if model == "huge" => Err("`huge` does not fit".into()),
        _ => Ok(()),
    }
}

fn resolve(text: &str) -> Result<super::Fleet, super::FleetError> {
    FleetFile::parse("fleet.toml", text)?.resolve(None, &check)
}

const FLEET: &str = r#"
[[router]]
region = "us-east-1"
share = 3
[[router]]
region = "home"
share = 1

[[replica]]
name = "east"
region = "us-east-1"
gpu = "a10"
model = "mistral-7b"
count = 2
kv_tokens = 40000
max_running = 8
chunk = 2048
block = 16
scheduler = "mixed"

[[replica]]
name = "far"
region = "asia-south-1"
gpu = "mine"
model = "any"

[[gpu]]
name = "mine"
linear_ms = 0.085
weights_ms = 8.5
quadratic_ms = 3.4e-6
context_ms = 8.2e-5
fixed_ms = 3
decoding_ms = 0.05
kv_tokens = 430000
usd_per_hour = 1.99

[network]
rtt_ms = { "home/us-east-1" = 20, "asia-south-1/home" = 180.5, "home/asia-south-1" = 180.5 }
jitter = "internet"
"#;

#[test]
fn a_fleet_is_read_as_it_is_written() {
    let fleet = resolve(FLEET).unwrap();
    let shares: Vec<f64> = fleet.routers.iter().map(|router| router.share).collect();
    assert_eq!(shares, [0.75, 0.25]);
    assert_eq!((fleet.jitter, fleet.form, fleet.has_agents()), (Jitter::Internet, Form::Agents, true));
    let direct = resolve(&format!("form = \"direct\"\n{FLEET}")).unwrap();
    assert_eq!((direct.form, direct.has_agents()), (Form::Direct, false));
    let error = resolve(&format!("form = \"star\"\n{FLEET}")).unwrap_err();
    assert_eq!(error.to_string(), "fleet.toml: form: found \"star\"; wanted one of agents, direct");
    let names: Vec<&str> = fleet.replicas.iter().map(|replica| replica.name.as_str()).collect();
    assert_eq!(names, ["east-1", "east-2", "far"]);
    assert_eq!(fleet.replicas[1].gpu, Gpu::Preset("a10".into()));
    assert_eq!(fleet.replicas[1].overrides.kv_tokens, Some(40_000));
    assert_eq!(fleet.replicas[1].overrides.scheduler, Some(SchedulerKind::Mixed));
    let Gpu::Own(own) = &fleet.replicas[2].gpu else { panic!("{:?}", fleet.replicas[2].gpu) };
    assert_eq!(own.usd_per_hour, Some(1.99));
    let Speed::Steps(steps) = &own.speed else { panic!("{own:?}") };
    assert_eq!((steps.fixed_ms, steps.decoding_ms, steps.request_ms, steps.kv_tokens), (3.0, 0.05, 0.0, 430_000));
    let rtt = |a, b| fleet.rtt.rtt_ms(&Region::new(a), &Region::new(b));
    assert_eq!(rtt("us-east-1", "home"), Some(20.0));
    assert_eq!(rtt("home", "asia-south-1"), Some(180.5));
    assert_eq!(rtt("us-east-1", "asia-south-1"), Some(214.0));
}

#[test]
fn engines_of_a_whole_fleet_are_changed_at_once() {
    let mut fleet = resolve(FLEET).unwrap();
    fleet.change_engines("order = \"longest-prefix\"\nmax_running = 24").unwrap();
    for replica in &fleet.replicas {
        let changed = (replica.overrides.order, replica.overrides.max_running);
        assert_eq!(changed, (Some(OrderKind::LongestPrefix), Some(24)), "{}", replica.name);
    }
    assert_eq!((fleet.replicas[0].overrides.chunk, fleet.replicas[2].overrides.chunk), (Some(2048), None));
    let error = fleet.change_engines("speed = 3\nchunk = 0").unwrap_err().to_string();
    assert!(error.contains("engine: speed: unknown key") && error.contains("engine: chunk: found 0"), "{error}");
}

#[test]
fn hardware_figures_have_defaults_for_what_engines_reach() {
    let gpu = "[[gpu]]\nname='a10'\ntflops=125\nbandwidth_gb_s=600\nmemory_gib=24\n";
    let fleet = resolve(&format!("{gpu}{}", replica("us-east-1"))).unwrap();
    let Gpu::Own(own) = &fleet.replicas[0].gpu else { panic!("an own GPU stands before the built-in one") };
    let Speed::Hardware(hardware) = &own.speed else { panic!("{own:?}") };
    assert_eq!((hardware.tflops, hardware.compute_efficiency, hardware.bandwidth_efficiency), (125.0, 0.5, 0.72));
}

/// A router in Virginia and a replica in `region`.
fn replica(region: &str) -> String {
    format!("[[router]]\nregion='us-east-1'\n[[replica]]\nname='r'\nregion='{region}'\ngpu='a10'\nmodel='m'\n")
}

#[test]
fn a_matrix_file_takes_the_place_of_the_built_in_table() {
    let text = format!("{}[network]\nmatrix='wan.csv'\n", replica("home"));
    let file = FleetFile::parse("fleet.toml", &text).unwrap();
    assert_eq!(file.matrix(), Some("wan.csv"));
    let matrix = RttMatrix::from_csv("wan.csv", "region,us-east-1\nhome,33\n").unwrap();
    let fleet = file.resolve(Some(matrix), &check).unwrap();
    assert_eq!(fleet.rtt.rtt_ms(&Region::new("home"), &Region::new("us-east-1")), Some(33.0));
    insta::assert_snapshot!(file.resolve(None, &check).unwrap_err(), @r#"
    fleet.toml: network.matrix: the file was not read
    fleet.toml: network.rtt_ms: no RTT between us-east-1 and home; add "us-east-1/home" = …
    "#);
}

#[test]
fn pairs_that_no_router_uses_may_be_missing() {
    let two = format!("{}[[replica]]\nname='s'\nregion='home'\ngpu='a10'\nmodel='m'\n", replica("work"));
    let rtts = "[network]\nrtt_ms={'us-east-1/home'=10, 'work/us-east-1'=12}\n";
    assert!(resolve(&format!("{two}{rtts}")).is_ok());
    insta::assert_snapshot!(resolve(&two).unwrap_err(), @r#"
    fleet.toml: network.rtt_ms: no RTT between us-east-1 and work; add "us-east-1/work" = …
    fleet.toml: network.rtt_ms: no RTT between us-east-1 and home; add "us-east-1/home" = …
    "#);
}

#[test]
fn all_problems_are_told_at_once() {
    let text = r#"
flet = 1
[[router]]
region = "us-east-1"
share = 1
[[router]]
region = "us-east-1"
weight = 2
[[router]]
region = 3
share = 0
[[replica]]
name = "east"
region = "us-east-1"
gpu = "a11"
model = "mistral-7b"
count = 0
[[replica]]
name = "east"
region = ""
gpu = "h100"
model = "huge"
scheduler = "fifo"
chunk = -1
kv_tokens = "many"
[[replica]]
name = "east"
region = "moon"
gpu = "broken"
model = "m"
[[replica]]
name = "east"
region = "us-east-1"
gpu = "both"
[[gpu]]
name = "broken"
linear_ms = 1
weights_ms = -1
[[gpu]]
name = "both"
linear_ms = 1
tflops = 3
[[gpu]]
name = "both"
[[gpu]]
tflops = 3
[network]
jitter = "wild"
rtt_ms = { "a" = 1, "a/b" = "x", "c/d" = -1, "e/f" = 1, "f/e" = 2 }
"#;
    insta::assert_snapshot!(resolve(text).unwrap_err(), @r#"
    fleet.toml: flet: unknown key; known are entry, form, router, replica, clients, gpu, network, places
    fleet.toml: gpu[0].weights_ms: found -1; wanted a number from 0 to 1000000
    fleet.toml: gpu[0].quadratic_ms: missing
    fleet.toml: gpu[0].context_ms: missing
    fleet.toml: gpu[0].kv_tokens: missing
    fleet.toml: gpu[1]: found keys of both forms; wanted either step constants (linear_ms, weights_ms, quadratic_ms, context_ms, kv_tokens) or figures of the hardware (tflops, bandwidth_gb_s, memory_gib)
    fleet.toml: gpu[2]: found keys of neither form; wanted either step constants (linear_ms, weights_ms, quadratic_ms, context_ms, kv_tokens) or figures of the hardware (tflops, bandwidth_gb_s, memory_gib)
    fleet.toml: gpu[3].name: missing
    fleet.toml: gpu[3].bandwidth_gb_s: missing
    fleet.toml: gpu[3].memory_gib: missing
    fleet.toml: replica[0].count: found 0; wanted a whole number from 1 to 1000
    fleet.toml: replica[0].gpu: unknown GPU `a11`; known are a10, h100
    fleet.toml: replica[1].region: found ""; wanted text that is not empty
    fleet.toml: replica[1].kv_tokens: found "many"; wanted a whole number from 1 to 1000000000
    fleet.toml: replica[1].chunk: found -1; wanted a whole number from 1 to 10000000
    fleet.toml: replica[1].scheduler: found "fifo"; wanted one of prefill-first, mixed
    fleet.toml: replica[1].gpu: `huge` does not fit
    fleet.toml: replica[2].name: the second replica called `east`
    fleet.toml: replica[3].model: missing
    fleet.toml: replica[3].name: the second replica called `east`
    fleet.toml: router[1].share: missing; either all routers have one or none has
    fleet.toml: router[1].region: the second router of this region
    fleet.toml: router[1].weight: unknown key; known are region, share
    fleet.toml: router[2].region: found 3; wanted text that is not empty
    fleet.toml: router[2].share: found 0; wanted a number from 0.000001 to 1000000
    fleet.toml: network.jitter: found "wild"; wanted one of none, backbone, internet
    fleet.toml: network.rtt_ms."a": wanted two regions, such as "us-east-1/europe-central-1"
    fleet.toml: network.rtt_ms."a/b": found "x"; wanted an RTT in ms
    fleet.toml: network.rtt_ms."c/d": found -1; wanted an RTT of 0 to 10000 ms
    fleet.toml: network.rtt_ms."f/e": differs from the other direction; an RTT has one value
    fleet.toml: network.rtt_ms: no RTT between us-east-1 and moon; add "us-east-1/moon" = …
    "#);
    insta::assert_snapshot!(resolve("network = 1\nrouter = 2\nreplica = [3]\n").unwrap_err(), @r"
    fleet.toml: replica: found array; wanted tables `[[replica]]`
    fleet.toml: replica: missing; at least one `[[replica]]` is wanted
    fleet.toml: router: found integer; wanted tables `[[router]]`
    fleet.toml: router: missing; at least one `[[router]]` is wanted
    fleet.toml: network: found 1; wanted a table
    ");
    insta::assert_snapshot!(resolve("[[router]\n").unwrap_err(), @r"
    fleet.toml: TOML parse error at line 1, column 10
      |
    1 | [[router]
      |          ^
    unclosed array table, expected `]`
    ");
}

#[test]
fn clients_stand_beside_routers_unless_told_otherwise() {
    let groups = |text: &str| -> Vec<(String, f64, usize)> {
        let fleet = resolve(text).unwrap();
        fleet.clients.iter().map(|group| (group.region.to_string(), group.share, group.router)).collect()
    };
    assert_eq!(groups(FLEET), [("us-east-1".to_owned(), 0.75, 0), ("home".to_owned(), 0.25, 1)]);
    let apart = format!(
        "{FLEET}\n[[clients]]\nregion = \"europe-central-1\"\nshare = 3\n[[clients]]\nregion = \"home\"\nshare = 1\n"
    );
    // Frankfurt knows its way to us-east-1 only.
    assert_eq!(groups(&apart), [("europe-central-1".to_owned(), 0.75, 0), ("home".to_owned(), 0.25, 1)]);
    let wrong =
        format!("{FLEET}\n[[clients]]\nregion = \"mars\"\n[[clients]]\nregion = \"mars\"\nshare = -1\nport = 1\n");
    insta::assert_snapshot!(resolve(&wrong).unwrap_err(), @r"
    fleet.toml: clients[0].share: missing
    fleet.toml: clients[0].region: no RTT to any router; add it to network.rtt_ms
    fleet.toml: clients[1].share: found -1; wanted a number from 0.000001 to 1000000
    fleet.toml: clients[1].region: no RTT to any router; add it to network.rtt_ms
    fleet.toml: clients[1].port: unknown key; known are region, share
    ");
}

proptest! {
    #[test]
    fn damaged_files_are_read_or_refused(place in 0_usize..2000, byte in 9_u8..127) {
        let mut text = FLEET.as_bytes().to_vec();
        let place = place % text.len();
        text[place] = byte;
        if let Ok(fleet) = resolve(std::str::from_utf8(&text).unwrap()) {
            prop_assert!((fleet.routers.iter().map(|router| router.share).sum::<f64>() - 1.0).abs() < 1e-9);
            for (router, replica) in fleet.routers.iter().flat_map(|r| fleet.replicas.iter().map(move |e| (r, e))) {
                prop_assert!(fleet.rtt.rtt_ms(&router.region, &replica.region).is_some());
            }
        }
    }
}
