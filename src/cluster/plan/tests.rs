use std::sync::Mutex;

use insta::assert_snapshot;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{Plan, deploy_proxy, down, dry_run, remove_proxy, rollback, setup, upload};
use crate::cluster::apply::{ApplyReport, Job, Outcome, StepJournal, apply};
use crate::cluster::crash::CrashHook;
use crate::cluster::desired::{AgentBinary, Desired, EngineChoice, ProxySpec};
use crate::cluster::facts::Facts;
use crate::cluster::inventory::FinishedStep;
use crate::cluster::layout::{BINARY, Role};
use crate::cluster::observe::observe;
use crate::cluster::plan::sha256;
use crate::cluster::step::Action;
use crate::cluster::testing::{
    Break, FakeNode, PROGRAM, binary, certified, container, desired, emulator, node, router_on, token,
};

const A100: &str = "570.148.08, NVIDIA A100-SXM4-40GB, 40960, 0, 0";
const GH200: &str = "580.105.08, NVIDIA GH200 480GB, 97871, 0, 0";

#[derive(Default)]
struct Memory(Vec<(String, String)>);

impl StepJournal for Memory {
    fn finished(&mut self, node: &str, step: FinishedStep) -> anyhow::Result<()> {
        self.0.push((node.to_owned(), step.step));
        Ok(())
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// A fake answers at once: a question that fails once fails for good.
fn impatient(plan: Plan) -> Plan {
    let mut plan = certified(plan);
    for step in plan.steps.iter_mut().filter(|step| matches!(step.action, Action::Wait(_))) {
        step.limit_s = 0;
    }
    plan
}

async fn run(plan: Plan, fake: &FakeNode) -> ApplyReport {
    let jobs = [Job { plan: impatient(plan), remote: fake }];
    apply(&jobs, &mut Memory::default(), &CrashHook::default(), &CancellationToken::new(), &|_| {}).await
}

fn see(fake: &FakeNode) -> Facts {
    block_on(observe(&fake.spec, fake)).unwrap()
}

/// Observes, plans, applies.
fn converge(desired: &Desired, fake: &FakeNode) -> ApplyReport {
    block_on(async {
        let facts = observe(&fake.spec, fake).await.unwrap();
        run(setup(desired, desired.node(&fake.spec.name).unwrap(), &facts), fake).await
    })
}

fn three(engine: &EngineChoice) -> Desired {
    desired(vec![
        node(1, "us-east-1", engine.clone()),
        node(2, "us-west-1", engine.clone()),
        node(3, "europe-central-1", engine.clone()),
    ])
}

/// It runs what the plan says, started with the program and the definition that are there, and a new plan is empty.
fn assert_converged(desired: &Desired, fake: &FakeNode) {
    fake.changes();
    let facts = see(fake);
    let spec = desired.node(&fake.spec.name).unwrap();
    let plan = setup(desired, spec, &facts);
    assert!(plan.is_empty(), "{}", dry_run(&[plan]));
    fake.change(|state| {
        for service in state.services.values() {
            assert!(service.running);
            let contained = spec.engine.container().is_some() && service.unit.argv[0].contains("docker");
            let (program, definition) = service.started_with.clone().unwrap();
            assert_eq!(definition, service.unit.definition_sha256());
            assert!(contained || program == desired.binary.sha256, "an old program runs");
        }
        assert!(!state.files.contains_key("/etc/gorgo/hf-token"), "the token is gone");
    });
    assert_eq!(fake.changes(), Vec::<String>::new(), "looking changes nothing");
}

#[test]
fn an_empty_host_with_the_emulator() {
    let desired = three(&emulator());
    let fake = FakeNode::new(desired.nodes[0].clone());
    let plan = setup(&desired, &desired.nodes[0], &see(&fake));
    assert_snapshot!(dry_run(&[plan]), @r#"
    node1: 1. make folders
           sudo install -d -m 0755 /opt/gorgo /var/lib/gorgo /var/lib/gorgo/done /var/lib/gorgo/models
    node1: 2. upload gorgo (12.3 MB, sha256 93f5f3d4602a)
           program 1 -> /opt/gorgo/bin/gorgo (0755)
    node1: 3. write /etc/gorgo/engine.env
           64 bytes -> /etc/gorgo/engine.env (0600)
    node1: 4. install gorgo-engine.service
           install gorgo-engine.service
    node1: 5. start gorgo-engine.service
           restart gorgo-engine.service
    node1: 6. wait until the engine has answered a completion
           POST http://127.0.0.1:30000/v1/completions for at most 60 s
    node1: 7. note what engine was started with
           226 bytes -> /var/lib/gorgo/done/engine (0600)
    node1: 8. issue a certificate for agent of node1 (valid until 2027-04-15): it has none
           a new key and a certificate of gorgo://lab/agent/node1 for 10.0.0.1 -> /etc/gorgo/agent.pem.new (0600)
    node1: 9. put /etc/gorgo/agent.pem in its place
           sudo sh -c 'set -e; if [ -d "$2/." ]; then chown --reference="$2/." "$1.new"; fi; chmod 0400 "$1.new"; sync -f "$1.new"; mv -f "$1.new" "$1"' take /etc/gorgo/agent.pem /var/lib/gorgo/agent
    node1: 10. write /etc/gorgo/agent.env
           63 bytes -> /etc/gorgo/agent.env (0600)
    node1: 11. install gorgo-agent.service
           install gorgo-agent.service
    node1: 12. start gorgo-agent.service
           restart gorgo-agent.service
    node1: 13. wait until the agent takes requests
           GET http://127.0.0.1:8001/admin/v1/status for at most 60 s
    node1: 14. note what agent was started with
           226 bytes -> /var/lib/gorgo/done/agent (0600)
    "#);
    assert_eq!(converge(&desired, &fake).nodes, [("node1".to_owned(), Outcome::Done(14))]);
    assert_converged(&desired, &fake);
    assert_snapshot!(dry_run(&[setup(&desired, &desired.nodes[0], &see(&fake))]), @"node1: nothing to do");
}

#[test]
fn a_node_with_an_a100() {
    let mut desired = desired(vec![node(1, "us-east-1", EngineChoice::Sglang(container()))]);
    desired.hf_token = Some(token());
    let fake = FakeNode::new(desired.nodes[0].clone()).with_gpus(&[A100]);
    let text = dry_run(&[setup(&desired, &desired.nodes[0], &see(&fake))]);
    assert!(!text.contains("hf_hush"), "a dry run shows no secrets");
    assert_snapshot!(text, @r#"
    node1: 1. make folders
           sudo install -d -m 0755 /opt/gorgo /var/lib/gorgo /var/lib/gorgo/done /var/lib/gorgo/models
    node1: 2. upload gorgo (12.3 MB, sha256 93f5f3d4602a)
           program 1 -> /opt/gorgo/bin/gorgo (0755)
    node1: 3. pull lmsysorg/sglang:v0.5.19-cu129
           sudo docker pull --quiet lmsysorg/sglang:v0.5.19-cu129
    node1: 4. check that a container gets a CUDA context
           sudo docker run --rm --gpus all --entrypoint python3 lmsysorg/sglang:v0.5.19-cu129 -c 'import torch; torch.zeros(1, device='\''cuda'\''); print(torch.cuda.device_count())'
    node1: 5. write the Hugging Face token (0600, until the model is there)
           a secret -> /etc/gorgo/hf-token (0600)
    node1: 6. download mistralai/Mistral-7B-Instruct-v0.3 (about 15.4 GB)
           sudo docker run --rm --network host --volume /var/lib/gorgo/models:/models --env 'HF_HOME=/models' --volume /etc/gorgo/hf-token:/run/hf-token:ro --env 'HF_TOKEN_PATH=/run/hf-token' --entrypoint python3 lmsysorg/sglang:v0.5.19-cu129 -c 'import sys; from huggingface_hub import snapshot_download; snapshot_download(sys.argv[1], ignore_patterns=['\''consolidated*'\'', '\''original/*'\'', '\''*.gguf'\'', '\''*.pth'\''])' mistralai/Mistral-7B-Instruct-v0.3
    node1: 7. remove the token
           sudo rm -f /etc/gorgo/hf-token
    node1: 8. note that the model is complete
           34 bytes -> /var/lib/gorgo/done/model-mistralai-Mistral-7B-Instruct-v0.3 (0600)
    node1: 9. write /etc/gorgo/engine.env
           64 bytes -> /etc/gorgo/engine.env (0600)
    node1: 10. install gorgo-engine.service
           install gorgo-engine.service
    node1: 11. start gorgo-engine.service
           restart gorgo-engine.service
    node1: 12. wait until the engine has answered a completion
           POST http://127.0.0.1:30000/v1/completions for at most 1800 s
    node1: 13. note what engine was started with
           166 bytes -> /var/lib/gorgo/done/engine (0600)
    node1: 14. issue a certificate for agent of node1 (valid until 2027-04-15): it has none
           a new key and a certificate of gorgo://lab/agent/node1 for 10.0.0.1 -> /etc/gorgo/agent.pem.new (0600)
    node1: 15. put /etc/gorgo/agent.pem in its place
           sudo sh -c 'set -e; if [ -d "$2/." ]; then chown --reference="$2/." "$1.new"; fi; chmod 0400 "$1.new"; sync -f "$1.new"; mv -f "$1.new" "$1"' take /etc/gorgo/agent.pem /var/lib/gorgo/agent
    node1: 16. write /etc/gorgo/agent.env
           63 bytes -> /etc/gorgo/agent.env (0600)
    node1: 17. install gorgo-agent.service
           install gorgo-agent.service
    node1: 18. start gorgo-agent.service
           restart gorgo-agent.service
    node1: 19. wait until the agent takes requests
           GET http://127.0.0.1:8001/admin/v1/status for at most 60 s
    node1: 20. note what agent was started with
           226 bytes -> /var/lib/gorgo/done/agent (0600)
    "#);
    assert!(converge(&desired, &fake).failed().is_empty());
    assert_converged(&desired, &fake);
}

/// What a plan says that cannot be carried out: one line per reason.
#[test]
fn what_stands_in_the_way_is_told_at_once_with_a_way_out() {
    type Fault = fn(&mut Facts, &mut Desired);
    let sglang = EngineChoice::Sglang(container());
    let cases: [(&str, &EngineChoice, Fault, &[&str]); 17] = [
        ("a good node", &sglang, |_, _| {}, &[]),
        (
            "no systemd",
            &sglang,
            |facts, _| facts.supervised = false,
            &["the machine does not run systemd, which supervises the services"],
        ),
        ("a password", &sglang, |facts, _| facts.sudo = false, &["sudo asks for a password"]),
        (
            "arm",
            &sglang,
            |facts, _| facts.arch = "aarch64".into(),
            &["the machine is aarch64, the program to install is for x86_64"],
        ),
        (
            "arm with its program",
            &sglang,
            |facts, desired| {
                facts.arch = "aarch64".into();
                desired.binary.arch = "aarch64".into();
            },
            &[],
        ),
        (
            "old glibc",
            &sglang,
            |facts, _| facts.glibc = Some((2, 27)),
            &["the machine has glibc 2.27, the program needs 2.28"],
        ),
        ("musl", &sglang, |facts, _| facts.glibc = None, &["the machine has no glibc; the program needs 2.28"]),
        (
            "static",
            &sglang,
            |facts, desired| {
                facts.glibc = None;
                desired.binary.glibc = None;
            },
            &[],
        ),
        ("clock", &sglang, |facts, _| facts.clock_ahead_ms = -31_000, &["its clock is 31.0 s behind this machine's"]),
        ("clock in bounds", &sglang, |facts, _| facts.clock_ahead_ms = 29_000, &[]),
        (
            "full disk",
            &sglang,
            |facts, _| facts.disk_free = 50_000_000_000,
            &["50.0 GB are free on the disk of /var/lib, 55.5 GB are needed"],
        ),
        (
            "half full disk with the image there",
            &sglang,
            |facts, _| {
                facts.disk_free = 50_000_000_000;
                facts.images.insert("lmsysorg/sglang:v0.5.19-cu129".into());
            },
            &[],
        ),
        ("no card", &sglang, |facts, _| facts.gpus.clear(), &["`nvidia-smi` shows no GPU"]),
        (
            "old driver",
            &sglang,
            |facts, _| facts.gpus[0].driver = "535.1".into(),
            &["the NVIDIA driver is 535.1; the images of sglang need 570 or newer"],
        ),
        (
            "vLLM on a driver for CUDA 12",
            &EngineChoice::Vllm(container()),
            |_, _| {},
            &["the NVIDIA driver is 570.148.08; the images of vllm need 580 or newer"],
        ),
        ("no docker", &sglang, |facts, _| facts.docker = None, &["Docker is not installed"]),
        (
            "everything at once",
            &emulator(),
            |facts, _| (facts.sudo, facts.supervised, facts.disk_free) = (false, false, 0),
            &[
                "the machine does not run systemd, which supervises the services",
                "sudo asks for a password",
                "0.0 GB are free on the disk of /var/lib, 0.1 GB are needed",
            ],
        ),
    ];
    for (what, engine, fault, expected) in cases {
        let mut desired = desired(vec![node(1, "us-east-1", engine.clone())]);
        let fake = FakeNode::new(desired.nodes[0].clone()).with_gpus(&[A100]);
        let mut facts = see(&fake);
        fault(&mut facts, &mut desired);
        let plan = setup(&desired, &desired.nodes[0], &facts);
        assert_eq!(plan.refusals.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{what}");
        assert!(plan.refusals.iter().all(|refusal| !refusal.hint.is_empty()));
        assert_eq!(plan.steps.is_empty(), !expected.is_empty(), "{what}: a refusal comes before any step");
    }
}

#[test]
fn only_what_differs_is_done() {
    let desired = three(&emulator());
    let fake = FakeNode::new(desired.nodes[0].clone());
    converge(&desired, &fake);
    let names = |desired: &Desired| -> Vec<String> {
        let plan = setup(desired, &desired.nodes[0], &see(&fake));
        plan.steps.into_iter().map(|step| step.name).collect()
    };
    let restart = |role: &str| ["forget", "start", "wait", "record"].map(|what| format!("{role} {what}")).to_vec();
    let mut agent_installed = restart("agent");
    agent_installed.insert(1, "agent install".into());

    let strategy = Desired { strategy: "least-load".into(), ..desired.clone() };
    assert_eq!(names(&strategy), agent_installed, "another strategy");
    let mut fewer = desired.clone();
    fewer.nodes.pop();
    assert_eq!(names(&fewer), agent_installed, "another peer");
    let newer = Desired { binary: binary("program 2"), ..desired.clone() };
    assert_eq!(names(&newer), [vec!["binary".to_owned()], restart("engine"), restart("agent")].concat());

    let mut later = desired.clone();
    later.certificates.now += 60 * 86_400;
    let renewed = ["certificate agent", "certificate agent place"];
    assert_eq!(names(&later), renewed, "a certificate is renewed without a restart");

    fake.change(|state| state.services.get_mut(Role::Agent.unit()).unwrap().running = false);
    assert_eq!(names(&desired), restart("agent"), "a service that was stopped");
    fake.change(|state| {
        state.services.get_mut(Role::Agent.unit()).unwrap().running = true;
        state.sick = true;
    });
    assert_eq!(names(&desired), ["agent wait"], "an agent that is not ready yet");
}

#[test]
fn a_central_router_stands_beside_the_agent_and_sees_all_agents() {
    let mut desired = three(&emulator());
    desired.proxies.push(ProxySpec { max_concurrent: Some(10), ..router_on(3) });
    let fake = FakeNode::new(desired.nodes[2].clone());
    converge(&desired, &fake);
    assert_converged(&desired, &fake);
    let argv = fake.change(|state| state.services[Role::Proxy.unit()].unit.argv.join(" "));
    assert_snapshot!(argv, @"/opt/gorgo/bin/gorgo proxy start --listen 10.0.0.3:8080 --admin 127.0.0.1:8081 --strategy gorgo-proxy --max-concurrent 10 --replica name=node1,url=mtls://10.0.0.1:8443,region=us-east-1,engine=agent --replica name=node2,url=mtls://10.0.0.2:8443,region=us-west-1,engine=agent --replica name=node3,url=mtls://10.0.0.3:8443,region=europe-central-1,engine=agent --identity /etc/gorgo/proxy.pem");
}

/// A router on the third node.
fn routed(mut desired: Desired, strategy: &str) -> Desired {
    desired.proxies = vec![ProxySpec { strategy: strategy.into(), ..router_on(3) }];
    desired
}

#[test]
fn a_router_comes_to_a_node_and_goes_without_touching_the_rest() {
    let plain = three(&emulator());
    let fake = FakeNode::new(plain.nodes[2].clone());
    converge(&plain, &fake);
    fake.changes();
    // This gorgo is another than the one on the node, which stays.
    let desired = routed(Desired { binary: binary("program 2"), ..plain }, "gorgo");
    let deploy = |desired: &Desired, exchange| deploy_proxy(desired, &fake.spec, &see(&fake), exchange);
    assert_snapshot!(dry_run(&[deploy(&desired, false)]), @r#"
    node3: 1. issue a certificate for proxy of node3 (valid until 2027-04-15): it has none
           a new key and a certificate of gorgo://lab/proxy/node3 for 10.0.0.3, 127.0.0.1, ::1 -> /etc/gorgo/proxy.pem.new (0600)
    node3: 2. put /etc/gorgo/proxy.pem in its place
           sudo sh -c 'set -e; if [ -d "$2/." ]; then chown --reference="$2/." "$1.new"; fi; chmod 0400 "$1.new"; sync -f "$1.new"; mv -f "$1.new" "$1"' take /etc/gorgo/proxy.pem /var/lib/gorgo/proxy
    node3: 3. write /etc/gorgo/proxy.env
           63 bytes -> /etc/gorgo/proxy.env (0600)
    node3: 4. install gorgo-proxy.service
           install gorgo-proxy.service
    node3: 5. start gorgo-proxy.service
           restart gorgo-proxy.service
    node3: 6. wait until the proxy takes requests
           GET http://127.0.0.1:8081/admin/v1/status for at most 60 s
    node3: 7. note what proxy was started with
           226 bytes -> /var/lib/gorgo/done/proxy (0600)
    "#);
    assert!(block_on(run(deploy(&desired, false), &fake)).failed().is_empty());
    assert!(deploy(&desired, false).is_empty(), "a second run changes nothing");
    let other = routed(desired.clone(), "least-load");
    let names = |plan: Plan| plan.steps.into_iter().map(|step| step.name).collect::<Vec<_>>();
    assert_eq!(
        names(deploy(&other, false)),
        ["forget", "install", "start", "wait", "record"].map(|it| format!("proxy {it}"))
    );
    assert!(names(deploy(&desired, true)).contains(&"binary".to_owned()), "asked for by name");
    block_on(run(deploy(&desired, true), &fake));
    assert_converged(&desired, &fake);

    block_on(run(remove_proxy(&fake.spec, &see(&fake)), &fake));
    assert!(remove_proxy(&fake.spec, &see(&fake)).is_empty());
    fake.change(|state| assert!(!state.files.keys().any(|path| path.contains("proxy")), "nothing of it is left"));
    assert_converged(&Desired { proxies: Vec::new(), ..desired }, &fake);
}

#[test]
fn a_router_cut_short_at_every_operation_is_there_or_gone_after_the_next_run() {
    let desired = routed(three(&emulator()), "gorgo");
    for how in [Break::Before, Break::After] {
        for after in 0..25 {
            let fake = FakeNode::new(desired.nodes[2].clone());
            let tried = |plan: fn(&Desired, &FakeNode, &Facts) -> Plan| {
                fake.change(|state| state.breaks = Some((after, how)));
                block_on(async {
                    if let Ok(facts) = observe(&fake.spec, &fake).await {
                        run(plan(&desired, &fake, &facts), &fake).await;
                    }
                });
                fake.change(|state| state.breaks = None);
                let again = plan(&desired, &fake, &see(&fake));
                assert!(block_on(run(again, &fake)).failed().is_empty(), "{after} {how:?}");
                assert!(plan(&desired, &fake, &see(&fake)).is_empty(), "{after} {how:?}");
            };
            tried(|desired, fake, facts| deploy_proxy(desired, &fake.spec, facts, false));
            assert!(see(&fake).service(Role::Proxy).running, "on a node that had nothing");
            tried(|_, fake, facts| remove_proxy(&fake.spec, facts));
            assert!(!see(&fake).service(Role::Proxy).installed);
        }
    }
}

#[test]
fn a_router_is_not_put_where_it_cannot_run() {
    type Fault = fn(&mut Facts, &mut Desired);
    let cases: [(Fault, &[&str]); 4] = [
        (|_, _| {}, &[]),
        (|facts, _| facts.sudo = false, &["sudo asks for a password"]),
        (
            |facts, _| (facts.arch, facts.disk_free) = ("aarch64".into(), 1_000),
            &[
                "the machine is aarch64, the program to install is for x86_64",
                "0.0 GB are free on the disk of /var/lib, 0.1 GB are needed",
            ],
        ),
        (
            |_, desired| desired.proxies[0].listen = "0.0.0.0:8080".parse().unwrap(),
            &["its proxy would take requests at 0.0.0.0:8080, which the Internet can reach, in plain text"],
        ),
    ];
    for (fault, expected) in cases {
        let mut desired = routed(three(&emulator()), "gorgo");
        let mut facts = see(&FakeNode::new(desired.nodes[2].clone()));
        fault(&mut facts, &mut desired);
        let plan = deploy_proxy(&desired, &desired.nodes[2], &facts, false);
        assert_eq!(plan.refusals.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        assert_eq!(plan.steps.is_empty(), !expected.is_empty());
    }
}

#[test]
fn a_cluster_is_taken_down_and_its_models_stay() {
    let desired = desired(vec![node(1, "us-east-1", emulator())]);
    let fake = FakeNode::new(desired.nodes[0].clone());
    converge(&desired, &fake);
    let plan = down(&fake.spec, &see(&fake), false);
    assert_snapshot!(dry_run(std::slice::from_ref(&plan)), @r#"
    node1: 1. stop and remove gorgo-agent.service
           remove gorgo-agent.service
    node1: 2. stop and remove gorgo-engine.service
           remove gorgo-engine.service
    node1: 3. remove all files but the models
           sudo sh -c 'rm -rf "$1" "$2" "$3"; cd "$4" 2>/dev/null || exit 0; for entry in *; do [ "$entry" = models ] || rm -rf "$entry"; done' remove /opt/gorgo /etc/gorgo /run/gorgo /var/lib/gorgo
    "#);
    block_on(run(plan, &fake));
    assert!(down(&fake.spec, &see(&fake), false).is_empty());
    converge(&desired, &fake);
    assert_converged(&desired, &fake);
}

#[test]
fn each_machine_gets_the_program_for_its_kind_or_nothing() {
    let arm = AgentBinary { arch: "aarch64".into(), ..binary("program for arm") };
    let one = desired(vec![node(1, "us-east-1", emulator()), node(2, "us-east-1", emulator())]);
    let both = Desired { others: vec![arm], ..one.clone() };
    let fakes = one.nodes.iter().map(|spec| FakeNode::new(spec.clone())).collect::<Vec<_>>();
    fakes[1].change(|state| state.arch = "aarch64");

    let refused = setup(&one, &fakes[1].spec, &see(&fakes[1]));
    assert_eq!(refused.steps, [], "nothing is uploaded");
    assert_snapshot!(dry_run(&[refused]), @"
    node2: cannot be set up: the machine is aarch64, the program to install is for x86_64
      hint: `scripts/release` on a machine that is aarch64 builds one; name it with `--agent-binary PATH`, once for each kind of machine
    ");
    for (fake, wanted) in fakes.iter().zip([PROGRAM, "program for arm"]) {
        converge(&both, fake);
        assert_eq!(setup(&both, &fake.spec, &see(fake)).steps, []);
        assert_converged(&both.on_machine(fake.change(|state| state.arch)), fake);
        assert_eq!(fake.change(|state| String::from_utf8(state.files[BINARY].clone()).unwrap()), wanted);
    }
    let newer = Desired { binary: binary("program 2"), ..both };
    let uploads = |fake: &FakeNode| upload(&newer, &fake.spec, &see(fake)).steps.len();
    assert!(uploads(&fakes[0]) > 0);
    assert_eq!(uploads(&fakes[1]), 0, "its program is the same");
}

#[test]
fn a_new_program_and_back() {
    let desired = desired(vec![node(1, "us-east-1", emulator())]);
    let fake = FakeNode::new(desired.nodes[0].clone());
    let newer = Desired { binary: binary("program 2"), ..desired.clone() };
    let program = || fake.change(|state| String::from_utf8(state.files[BINARY].clone()).unwrap());

    let refused = upload(&newer, &fake.spec, &see(&fake));
    assert_eq!(refused.refusals[0].to_string(), "nothing is installed on it");
    converge(&desired, &fake);
    assert_eq!(rollback(&fake.spec, &see(&fake)).refusals.len(), 1, "there is no program of before");

    block_on(run(upload(&newer, &fake.spec, &see(&fake)), &fake));
    assert_eq!(program(), "program 2");
    assert_converged(&newer, &fake);
    assert!(upload(&newer, &fake.spec, &see(&fake)).is_empty());

    block_on(run(rollback(&fake.spec, &see(&fake)), &fake));
    assert_eq!(program(), PROGRAM);
    assert_converged(&desired, &fake);

    let twice = rollback(&fake.spec, &see(&fake));
    assert_eq!(twice.steps, [], "a second one does not go forward again");
    assert_eq!(
        twice.refusals[0].to_string(),
        "there is no program of before to go back to: an upload keeps one, and a rollback uses it up"
    );
}

#[test]
fn a_rollback_that_was_cut_short_anywhere_is_completed_and_never_turned_round() {
    let desired = desired(vec![node(1, "us-east-1", emulator())]);
    let newer = Desired { binary: binary("program 2"), ..desired.clone() };
    for how in [Break::Before, Break::After] {
        let mut whole = false;
        let mut after = 0;
        while !whole {
            let fake = FakeNode::new(desired.nodes[0].clone());
            converge(&desired, &fake);
            block_on(run(upload(&newer, &fake.spec, &see(&fake)), &fake));
            let plan = rollback(&fake.spec, &see(&fake));
            fake.change(|state| state.breaks = Some((after, how)));
            whole = block_on(run(plan, &fake)).failed().is_empty();
            fake.change(|state| state.breaks = None);
            let again = rollback(&fake.spec, &see(&fake));
            assert!(!whole || !again.refusals.is_empty(), "a second one after a whole one");
            block_on(run(again, &fake));
            assert_eq!(fake.change(|state| state.files[BINARY].clone()), PROGRAM.as_bytes(), "{after}");
            assert_converged(&desired, &fake);
            after += 1;
        }
        assert!((8..30).contains(&after), "{after} operations");
    }
}

#[test]
fn a_token_that_was_left_behind_goes_with_the_next_set_up_whatever_the_engine() {
    let emulated = desired(vec![node(1, "us-east-1", emulator())]);
    let contained = desired(vec![node(1, "us-east-1", EngineChoice::Sglang(container()))]);
    let left = "/etc/gorgo/hf-token";
    for wanted in [&emulated, &contained] {
        let fake = FakeNode::new(wanted.nodes[0].clone()).with_gpus(&[A100]);
        fake.change(|state| state.files.insert(left.into(), b"hf_hush".to_vec()));
        converge(wanted, &fake);
        assert!(!fake.change(|state| state.files.contains_key(left)));
        assert_converged(wanted, &fake);
        fake.change(|state| state.files.insert(left.into(), b"hf_hush".to_vec()));
        let names: Vec<String> = setup(wanted, &fake.spec, &see(&fake)).steps.into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["hf-token removal"]);
        block_on(run(down(&fake.spec, &see(&fake), false), &fake));
        assert!(!fake.change(|state| state.files.contains_key(left)), "a tear-down removes it, too");
    }
    let fake = FakeNode::new(emulated.nodes[0].clone());
    fake.change(|state| state.files.insert(left.into(), b"hf_hush".to_vec()));
    block_on(run(down(&fake.spec, &see(&fake), false), &fake));
    assert!(!fake.change(|state| state.files.contains_key(left)), "even where nothing else is");
}

#[test]
fn what_runs_and_is_stopped_is_known_before() {
    let desired = desired(vec![node(1, "us-east-1", emulator())]);
    let fake = FakeNode::new(desired.nodes[0].clone());
    let newer = Desired { binary: binary("program 2"), ..desired.clone() };
    let interrupts = |plan: Plan| plan.interrupts(&see(&fake)).into_iter().collect::<Vec<_>>();
    assert_eq!(interrupts(setup(&desired, &fake.spec, &see(&fake))), [], "nothing runs yet");
    converge(&desired, &fake);
    assert_eq!(interrupts(setup(&desired, &fake.spec, &see(&fake))), []);
    assert_eq!(interrupts(upload(&newer, &fake.spec, &see(&fake))), [Role::Engine, Role::Agent]);
    let strategy = Desired { strategy: "random".into(), ..desired.clone() };
    assert_eq!(interrupts(setup(&strategy, &fake.spec, &see(&fake))), [Role::Agent]);
    fake.change(|state| state.files.retain(|path, _| !path.ends_with("done/agent")));
    assert_eq!(interrupts(setup(&desired, &fake.spec, &see(&fake))), [], "a set-up that was cut short goes on");
}

/// Runs until the connection breaks at the given operation, then again without a fault.
fn interrupted(desired: &Desired, fake: &FakeNode, after: u32, how: Break) -> bool {
    fake.change(|state| state.breaks = Some((after, how)));
    let spec = desired.node(&fake.spec.name).unwrap();
    let ended = block_on(async {
        let Ok(facts) = observe(&fake.spec, fake).await else { return false };
        let plan = setup(desired, spec, &facts);
        run(plan, fake).await.failed().is_empty()
    });
    fake.change(|state| state.breaks = None);
    let again = converge(desired, fake);
    assert!(again.failed().is_empty(), "{again}");
    assert_converged(desired, fake);
    ended
}

#[test]
fn cut_short_at_every_operation_the_next_run_converges() {
    let mut with_token = desired(vec![node(1, "us-east-1", EngineChoice::Sglang(container()))]);
    with_token.hf_token = Some(token());
    for desired in [three(&emulator()), with_token] {
        for how in [Break::Before, Break::After] {
            let mut whole = false;
            let mut after = 0;
            while !whole {
                let fake = FakeNode::new(desired.nodes[0].clone()).with_gpus(&[A100]);
                whole = interrupted(&desired, &fake, after, how);
                after += 1;
            }
            assert!((15..60).contains(&after), "{after} operations");
        }
    }
}

#[test]
fn interrupted_by_the_user_it_ends_after_the_step() {
    let desired = desired(vec![node(1, "us-east-1", emulator())]);
    let fake = FakeNode::new(desired.nodes[0].clone());
    let plan = setup(&desired, &fake.spec, &see(&fake));
    let steps = plan.steps.len();
    let (stop, seen) = (CancellationToken::new(), Mutex::new(Vec::new()));
    let events = |event: crate::cluster::event::Event| {
        if event.step.starts_with("upload") {
            stop.cancel();
        }
        seen.lock().unwrap().push(event.to_string());
    };
    let mut journal = Memory::default();
    let jobs = [Job { plan, remote: &fake }];
    let report = block_on(apply(&jobs, &mut journal, &CrashHook::default(), &stop, &events));
    assert_eq!(report.nodes, [("node1".to_owned(), Outcome::Interrupted(steps - 2))]);
    assert!(report.interrupted() && report.failed().is_empty());
    let done: Vec<&str> = journal.0.iter().map(|(_, step)| step.as_str()).collect();
    assert_eq!(done, ["folders", "binary"]);
    assert_eq!(seen.lock().unwrap().len(), 4, "each step begins and ends");
    converge(&desired, &fake);
    assert_converged(&desired, &fake);
}

#[test]
fn one_node_fails_and_the_others_do_not() {
    let desired = three(&emulator());
    let fakes: Vec<FakeNode> = desired.nodes.iter().map(|node| FakeNode::new(node.clone())).collect();
    fakes[1].change(|state| state.sick = true);
    let plans: Vec<Plan> = fakes.iter().map(|fake| setup(&desired, &fake.spec, &see(fake))).collect();
    let jobs: Vec<Job<'_>> =
        plans.into_iter().zip(&fakes).map(|(plan, fake)| Job { plan: impatient(plan), remote: fake }).collect();
    let mut journal = Memory::default();
    let report = block_on(apply(&jobs, &mut journal, &CrashHook::default(), &CancellationToken::new(), &|_| {}));
    assert_eq!(report.failed(), ["node2"]);
    assert_snapshot!(report.to_string(), @"
    node2: failed to wait until the agent takes requests: not after 0 s: none of its 1 replicas is healthy
      hint: `gorgo cluster logs node2 --service agent` may tell why
    ");
    fakes[1].change(|state| state.sick = false);
    for fake in &fakes {
        converge(&desired, fake);
        assert_converged(&desired, fake);
    }
}

fn a_wish() -> impl Strategy<Value = Desired> {
    let engines =
        prop_oneof![Just(emulator()), Just(EngineChoice::Sglang(container())), Just(EngineChoice::Vllm(container()))];
    (engines, 1usize..4, any::<bool>(), any::<bool>(), 0u32..3, 1u8..3).prop_map(
        |(engine, nodes, token_there, proxy, limit, program)| {
            let mut wish = three(&engine);
            wish.nodes.truncate(nodes);
            wish.hf_token = token_there.then(token);
            wish.max_concurrent = (limit > 0).then_some(limit);
            wish.binary = binary(&format!("program {program}"));
            wish.proxies.extend(proxy.then(|| ProxySpec { strategy: "gorgo".into(), ..router_on(1) }));
            wish
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever was there before, and wherever earlier runs were cut off.
    #[test]
    fn any_wish_is_reached_from_any_state(
        wishes in prop::collection::vec((a_wish(), prop::option::of((0u32..40, any::<bool>()))), 1..5),
        last in a_wish(),
    ) {
        let fake = FakeNode::new(last.nodes[0].clone()).with_gpus(&[GH200]);
        for (wish, cut) in &wishes {
            fake.change(|state| state.breaks = cut.map(|(after, early)| (after, if early { Break::Before } else { Break::After })));
            block_on(async {
                if let Ok(facts) = observe(&wish.nodes[0], &fake).await {
                    run(setup(wish, &wish.nodes[0], &facts), &fake).await;
                }
            });
        }
        fake.change(|state| state.breaks = None);
        // a token that a cut run has left is removed by the next run that wants a container
        let report = converge(&last, &fake);
        prop_assert!(report.failed().is_empty(), "{}", report);
        let facts = see(&fake);
        let plan = setup(&last, &last.nodes[0], &facts);
        prop_assert!(plan.is_empty(), "{}", dry_run(&[plan]));
        fake.change(|state| {
            for (unit, service) in state.services.iter().filter(|(unit, _)| *unit != Role::Proxy.unit()) {
                let (program, definition) = service.started_with.clone().unwrap();
                prop_assert_eq!(&definition, &service.unit.definition_sha256(), "{}", unit);
                prop_assert!(service.unit.argv[0].contains("docker") || program == last.binary.sha256);
            }
            Ok(())
        })?;
    }
}

#[test]
fn checksums_are_those_of_everybody() {
    assert_eq!(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
