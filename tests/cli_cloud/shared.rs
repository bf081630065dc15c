//! An account that several people and clusters share: whose each machine is, and nothing changed unasked.

use std::fs;

use insta::assert_snapshot;

use super::lab::Lab;

/// Output without the account's ids and addresses.
fn masked(lab: &Lab, text: &str) -> String {
    lab.machines().iter().fold(text.to_owned(), |text, machine| {
        let id = machine["id"].as_str().expect("an id");
        let place =
            format!("{}-{}", machine["name"].as_str().expect("a name"), machine["region"].as_str().expect("a region"));
        text.replace(id, &format!("{place:32}"))
    })
}

#[test]
fn a_list_says_whose_each_machine_is() {
    let lab = Lab::new("--speed 0.01").with_key();
    let launch = "launch east --type gpu_1x_a10 --yes --region";
    fs::write(lab.path("lab.toml"), "[cluster]\nname = \"lab\"\n").expect("writes");
    assert_eq!(lab.gorgo(&format!("{launch} us-east-1")).code, Some(0));
    assert_eq!(
        lab.gorgo("--config lab.toml launch eu --type gpu_1x_a10 --yes --region europe-central-1").code,
        Some(0)
    );
    let far = "launch far --type gpu_1x_a10 --yes --region us-west-1";
    let mut elsewhere = lab.command(&far.split(' ').collect::<Vec<_>>());
    elsewhere.env("GORGO_STATE_DIR", lab.path("another-computer"));
    assert_eq!(super::ran(elsewhere).code, Some(0));
    let list = lab.gorgo("list");
    assert_snapshot!(masked(&lab, &format!("{}{}", list.out, list.err)), @"
    NAME  NODE                     ID                                STATUS   ADDRESS  REGION            TYPE          PRICE
    east  east                     east-us-east-1                    booting  -        us-east-1         gpu_1x_a10  $1.29/h
    eu    eu of lab                eu-europe-central-1               booting  -        europe-central-1  gpu_1x_a10  $1.29/h
    far   far of gorgo, elsewhere  far-us-west-1                     booting  -        us-west-1         gpu_1x_a10  $1.29/h
    3 machines, $3.87/h; 1 of them in cluster gorgo, $1.29/h
    ");
    let status = lab.gorgo("status");
    assert_snapshot!(masked(&lab, &format!("{}{}", status.out, status.err)), @"
    NODE  MACHINE                           STATE    ADDRESS  REGION     TYPE          PRICE
    east  east-us-east-1                    booting  -        us-east-1  gpu_1x_a10  $1.29/h
    1 node, $1.29/h
    the account has 2 more machines, $2.58/h, not of this cluster; `gorgo list` shows whose
    ");
    let taken = lab.gorgo("launch far --type gpu_1x_a10 --region us-east-1 --yes");
    assert!(taken.code == Some(2) && taken.err.contains("another cluster or another computer"), "{}", taken.err);
    assert_eq!(lab.gorgo("terminate --all --yes").code, Some(0));
    let left: Vec<String> = lab.machines().iter().map(|it| it["name"].to_string()).collect();
    assert_eq!(left, ["\"eu\"", "\"far\""], "all of this cluster, and no other");
    assert_eq!(lab.gorgo("terminate --all --yes").err, "cluster gorgo has no nodes\n");
}

#[test]
fn whatever_changes_the_account_asks_first_and_can_be_shown_only() {
    let lab = Lab::new("").with_key();
    assert_eq!(lab.gorgo("filesystems create data --region us-east-1 --yes").code, Some(0));
    assert_eq!(lab.gorgo("launch east --type gpu_1x_a10 --region us-east-1 --yes").code, Some(0));
    fs::write(lab.path("other.pub"), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIabc other@host\n").expect("writes");
    let all = || {
        let lists = ["ssh-keys", "firewall", "filesystems"].map(|what| lab.gorgo(&format!("{what} list --json")).out);
        let names: Vec<String> = lab.machines().iter().map(|it| it["name"].to_string()).collect();
        format!("{lists:?} {names:?}")
    };
    let before = all();
    let changes = [
        "ssh-keys add other.pub",
        "ssh-keys delete mine",
        "firewall replace --rule tcp:22:0.0.0.0/0:ssh --rule tcp:443:0.0.0.0/0",
        "firewall sync",
        "filesystems create more --region us-east-1",
        "filesystems delete data",
        "launch west --type gpu_1x_a10 --region us-west-1",
        "restart east",
        "terminate east",
        "terminate --all",
    ];
    for change in changes {
        let asked = lab.gorgo(change);
        assert_eq!(asked.code, Some(2), "{change}: {}", asked.err);
        assert!(
            asked.err.contains("error: this wants a yes") && asked.err.contains("\n\nhint: `--yes`"),
            "{}",
            asked.err
        );
        let dry = lab.gorgo(&format!("{change} --dry-run"));
        assert_eq!(dry.code, Some(0), "{change}: {}", dry.err);
        let (_, plan) = asked.err.split_once("it would be:\n").expect("the plan");
        assert!(plan.starts_with(dry.out.trim_end()), "{change}: shown and asked alike: {} {plan}", dry.out);
        assert_eq!(all(), before, "{change}");
    }
}

#[test]
fn of_several_things_those_that_can_be_deleted_are() {
    let lab = Lab::new("").with_key();
    for name in ["one", "two"] {
        assert_eq!(lab.gorgo(&format!("filesystems create {name} --region us-east-1 --yes")).code, Some(0));
    }
    let launched = lab.gorgo("launch east --type gpu_1x_a10 --region us-east-1 --filesystem one --yes");
    assert_eq!(launched.code, Some(0), "{}", launched.err);
    let deleted = lab.gorgo("filesystems delete one two --yes");
    assert_eq!(deleted.code, Some(3), "{}", deleted.err);
    assert!(
        deleted.err.contains("deleted two\n") && deleted.err.contains("filesystems/filesystem-in-use"),
        "{}",
        deleted.err
    );
    let left = lab.gorgo("filesystems list").out;
    assert!(left.contains("one") && !left.contains("two"), "{left}");
    assert_eq!(lab.gorgo("filesystems delete one --yes").code, Some(1), "it is in use");
}

#[test]
fn what_a_launch_names_is_looked_for_before_anything_is_asked_for() {
    let lab = Lab::new("").with_key();
    assert_eq!(lab.gorgo("filesystems create data --region us-east-1 --yes").code, Some(0));
    let launch = "launch east --type gpu_1x_a10 --region us-west-1 --yes";
    let refused = |line: &str| {
        let ran = lab.gorgo(line);
        assert_eq!((ran.code, lab.machines().len()), (Some(2), 0), "{}", ran.err);
        ran.err
    };
    assert_snapshot!(refused(&format!("{launch} --filesystem dota")), @"
    error: the account has no file system `dota`; did you mean `data`?

    hint: `gorgo filesystems create dota --region us-west-1` makes one; there are: data
    ");
    assert_snapshot!(refused(&format!("{launch} --filesystem data")), @"
    error: the file system `data` is in us-east-1, and `east` is to be in us-west-1

    hint: only machines of its own region can have it: launch the others without it
    ");
    assert_snapshot!(refused(&format!("{launch} --image lambda-stack-24-40")), @"
    error: unknown image family `lambda-stack-24-40`; did you mean `lambda-stack-24-04`?

    hint: known families: gpu-base-24-04, lambda-stack-22-04, lambda-stack-24-04
    ");
    assert_snapshot!(refused(&format!("{launch} --ssh-key yours")), @"
    error: the account has no SSH key `yours`

    hint: it has: mine
    ");
    assert_snapshot!(refused("--provider local launch east --type a10 --region us-east-1 --yes --image lambda-stack-24-04"), @"
    error: `gorgo launch --image` does not work with provider `local`

    hint: only Lambda has accounts; use `--provider lambda`
    ");
}
