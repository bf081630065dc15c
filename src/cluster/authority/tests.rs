use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use insta::assert_snapshot;
use rcgen::{KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, KeyUsage, RevocationOptionsBuilder,
    UnknownStatusPolicy, anchor_from_trusted_cert,
};

use super::{Authority, authority_params, hex};
use crate::cluster::certificate::{EARLY_S, LIFE_S, Request, Revoked};
use crate::cluster::plan::{Plan, dry_run, sha256};
use crate::cluster::step::{Action, Content, Step};
use crate::cluster::testing::NOW;
use crate::model::{Identity, Part};

fn request(node: &str) -> Request {
    Request {
        identity: Identity::new("lab", Part::Agent, node).unwrap(),
        addresses: [[10, 0, 0, 1].into(), "fd00::1".parse().unwrap()].into(),
        not_before: NOW - EARLY_S,
        not_after: NOW + LIFE_S,
    }
}

fn authority(folder: &Path) -> Authority {
    Authority::new(folder.join("clusters/lab"), "lab")
}

fn plan(nodes: &[&str]) -> Plan {
    let step = |node: &&str| {
        Step::put("agent certificate", "issue", "/etc/gorgo/agent.pem.new", Content::Certificate(request(node)))
    };
    Plan { node: "n".into(), steps: nodes.iter().map(step).collect(), ..Plan::default() }
}

fn secrets(plan: &Plan) -> Vec<String> {
    let secret = |step: &Step| match &step.action {
        Action::Put { content: Content::Secret(secret), .. } => Some(secret.reveal().to_owned()),
        _ => None,
    };
    plan.steps.iter().filter_map(secret).collect()
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

fn verified(pem: &str, at: u64, usage: KeyUsage) -> Result<(), webpki::Error> {
    let all = certificates(pem);
    let anchors = [anchor_from_trusted_cert(&all[1]).unwrap()];
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
    let parsed = EndEntityCert::try_from(&all[0]).unwrap();
    parsed.verify_for_usage(algorithms, &anchors, &[], at, usage, None, None).map(|_| ())
}

#[test]
fn a_certificate_is_for_one_process_its_addresses_its_life_and_both_ends_of_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let pem = authority(folder.path()).issue(&request("node1")).unwrap().reveal().to_owned();
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
    for usage in [KeyUsage::client_auth, KeyUsage::server_auth] {
        for at in [NOW - EARLY_S, NOW, NOW + LIFE_S] {
            verified(&pem, at, usage()).unwrap();
        }
        verified(&pem, NOW - EARLY_S - 1, usage()).expect_err("too early");
        verified(&pem, NOW + LIFE_S + 1, usage()).expect_err("too late");
    }
    let all = certificates(&pem);
    let parsed = EndEntityCert::try_from(&all[0]).unwrap();
    assert_eq!(parsed.valid_uri_names().collect::<Vec<_>>(), ["gorgo://lab/agent/node1"]);
    let names = |address: &str| {
        let address: std::net::IpAddr = address.parse().unwrap();
        parsed.verify_is_valid_for_subject_name(&ServerName::IpAddress(address.into())).is_ok()
    };
    assert_eq!(["10.0.0.1", "fd00::1", "10.0.0.2", "127.0.0.1"].map(names), [true, true, false, false]);
}

#[test]
fn each_certificate_has_its_own_key_and_number() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let issued: Vec<String> =
        (0..20).map(|_| authority.issue(&request("node1")).unwrap().reveal().to_owned()).collect();
    let serial = |pem: &String| EndEntityCert::try_from(&certificates(pem)[0]).unwrap().serial().to_vec();
    assert_eq!(issued.iter().map(serial).collect::<BTreeSet<_>>().len(), 20);
    let key = |pem: &String| pem.split_once("-----BEGIN CERTIFICATE").unwrap().0.to_owned();
    assert_eq!(issued.iter().map(key).collect::<BTreeSet<_>>().len(), 20);
}

#[test]
fn looking_makes_nothing_and_filling_notes_what_was_issued() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let seen = authority.look(NOW).unwrap();
    assert_eq!((seen.now, seen.authority, seen.issued.len()), (NOW, None, 0));
    assert!(!folder.path().join("clusters").exists(), "a dry run leaves no trace");
    authority.fill(&mut [Plan::default()]).unwrap();
    assert!(!folder.path().join("clusters").exists(), "nor does a plan without certificates");

    let mut plans = [plan(&["node1", "node2"]), plan(&["node3"])];
    let shown = dry_run(&plans);
    assert_snapshot!(shown.lines().take(2).collect::<Vec<_>>().join("\n"), @"
    n: 1. issue
           a new key and a certificate of gorgo://lab/agent/node1 for 10.0.0.1, fd00::1 -> /etc/gorgo/agent.pem.new (0600)
    ");
    authority.fill(&mut plans).unwrap();
    assert_eq!((secrets(&plans[0]).len(), secrets(&plans[1]).len()), (2, 1));
    assert!(!dry_run(&plans).contains("PRIVATE"));
    let seen = authority.look(NOW).unwrap();
    let names: Vec<&str> = seen.issued.keys().map(String::as_str).collect();
    assert_eq!(names, ["gorgo://lab/agent/node1", "gorgo://lab/agent/node2", "gorgo://lab/agent/node3"]);
    let issued = &seen.issued["gorgo://lab/agent/node3"];
    assert_eq!(issued.sha256, sha256(&secrets(&plans[1])[0]));
    assert_eq!((Some(&issued.authority), issued.not_after), (seen.authority.as_ref(), NOW + LIFE_S));
    for file in ["ca.pem", "certificates.json"] {
        let mode = fs::metadata(folder.path().join("clusters/lab").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn the_ca_stays_and_a_lost_one_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let first = authority(folder.path());
    let of_first = first.issue(&request("node1")).unwrap().reveal().to_owned();
    let again = authority(folder.path()).issue(&request("node1")).unwrap().reveal().to_owned();
    assert_eq!(certificates(&of_first)[1], certificates(&again)[1], "the CA on disk");
    fs::remove_file(folder.path().join("clusters/lab/ca.pem")).unwrap();
    let other = first.issue(&request("node1")).unwrap().reveal().to_owned();
    assert_ne!(certificates(&of_first)[1], certificates(&other)[1]);
    let key = of_first.split_once("-----BEGIN CERTIFICATE").unwrap().0;
    let own = of_first[key.len()..].split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    let other_ca = other.rsplit_once("-----BEGIN CERTIFICATE").unwrap().1;
    let mixed = format!("{key}{own}-----BEGIN CERTIFICATE{other_ca}");
    verified(&mixed, NOW, KeyUsage::client_auth()).expect_err("not from that one");
}

/// Serial numbers that the list in a file has, if it is signed by the CA in the same file; empty without one.
fn revoked_in(pem: &str) -> Vec<Vec<u8>> {
    let Some(at) = pem.find("-----BEGIN X509 CRL") else { return Vec::new() };
    let list = CertificateRevocationListDer::from_pem_slice(&pem.as_bytes()[at..]).unwrap();
    let parsed = BorrowedCertRevocationList::from_der(&list).unwrap();
    let checked: CertRevocationList<'_> = parsed.to_owned().unwrap().into();
    let lists = [&checked];
    let options = RevocationOptionsBuilder::new(&lists).unwrap().with_status_policy(UnknownStatusPolicy::Deny).build();
    let all = certificates(pem);
    let anchors = [anchor_from_trusted_cert(&all[1]).unwrap()];
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    let own = EndEntityCert::try_from(&all[0]).unwrap();
    own.verify_for_usage(algorithms, &anchors, &[], now, KeyUsage::client_auth(), Some(options), None).unwrap();
    parsed.into_iter().map(|entry| entry.unwrap().serial_number.to_vec()).collect()
}

fn filled(authority: &Authority, node: &str) -> String {
    let mut plans = [plan(&[node])];
    authority.fill(&mut plans).unwrap();
    secrets(&plans[0]).remove(0)
}

#[test]
fn what_is_revoked_stands_in_a_signed_list_in_every_file_until_its_life_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let serial = |pem: &str| EndEntityCert::try_from(&certificates(pem)[0]).unwrap().serial().to_vec();
    let revoke = |node: &str, dry_run| authority.revoke(&[node.to_owned()], NOW, dry_run);
    let error = revoke("node1", false).unwrap_err().to_string();
    assert_eq!(error, "`node1` has no certificate of this cluster's CA: `gorgo cluster setup` makes them");
    let mut gone: Vec<Vec<u8>> = Vec::new();
    for _ in 0..10 {
        let stolen = filled(&authority, "node1");
        let renewed = filled(&authority, "node1");
        let whose: BTreeSet<String> = ["gorgo://lab/agent/node1".to_owned()].into();
        assert_eq!(revoke("node1", true).unwrap(), whose);
        assert_eq!(revoke("node1", false).unwrap(), whose);
        assert_eq!(revoke("node1", false).unwrap(), BTreeSet::new(), "once is enough");
        gone.extend([serial(&stolen), serial(&renewed)]);
    }
    gone.sort();
    let other = filled(&authority, "node2");
    let mut told = revoked_in(&other);
    told.sort();
    assert_eq!(told, gone);
    let seen = authority.look(NOW).unwrap();
    assert_eq!((seen.revoked.len(), seen.issued["gorgo://lab/agent/node2"].told.len()), (20, 20));
    assert_eq!(authority.look(NOW + LIFE_S + 1).unwrap().revoked.len(), 0, "nobody would take them any more");
    fs::remove_file(folder.path().join("clusters/lab/ca.pem")).unwrap();
    assert_eq!(revoked_in(&filled(&authority, "node2")), Vec::<Vec<u8>>::new(), "those of another CA");
}

#[test]
fn one_node_without_a_certificate_and_none_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    filled(&authority, "node1");
    for other in ["node2", "no name", "another/node1"] {
        let error = authority.revoke(&["node1".to_owned(), other.to_owned()], NOW, false).unwrap_err().to_string();
        assert!(error.contains(&format!("`{other}` has no certificate")), "{error}");
        assert_eq!(authority.look(NOW).unwrap().revoked.len(), 0);
    }
    let path = folder.path().join("clusters/lab/certificates.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut older: serde_json::Value = serde_json::from_str(&text).unwrap();
    older["issued"]["gorgo://lab/agent/node1"].as_object_mut().unwrap().remove("serial").unwrap();
    fs::write(&path, older.to_string()).unwrap();
    filled(&authority, "node1");
    let error = authority.revoke(&["node1".to_owned()], NOW, false).unwrap_err().to_string();
    assert!(error.contains("did not note its number"), "the one before is good still, and has no number: {error}");
}

#[test]
fn the_list_has_numbers_as_certificates_have_them_and_a_ca_that_was_made_before_there_were_lists_signs_it() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    filled(&authority, "node1");
    let key = KeyPair::generate().unwrap();
    let mut params = authority_params("lab");
    params.key_usages.retain(|usage| *usage != KeyUsagePurpose::CrlSign);
    let older = format!("{}{}", key.serialize_pem(), params.self_signed(&key).unwrap().pem());
    fs::write(folder.path().join("clusters/lab/ca.pem"), older).unwrap();
    let open = authority.open().unwrap();
    let numbers = ["0080", "00ff01", "01", "7f", "7fffffffffffffffffffffffffffffffffffffff"];
    let entry = Revoked { identity: "x".into(), at: NOW, not_after: NOW, authority: "ca".into() };
    let revoked = numbers.map(|number| (number.to_owned(), entry.clone())).into();
    let made = open.issue(&request("node1"), &revoked).unwrap();
    let told: Vec<String> = revoked_in(&made.text).iter().map(|serial| hex(serial)).collect();
    assert_eq!(told, numbers);
    for nonsense in ["1", "xy", "é"] {
        assert!(open.list(NOW, &[(nonsense.to_owned(), entry.clone())].into()).is_err(), "{nonsense}");
    }
}

#[test]
fn a_ca_that_has_lost_what_it_revoked_issues_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    filled(&authority, "node1");
    fs::remove_file(folder.path().join("clusters/lab/certificates.json")).unwrap();
    let attempts = [
        authority.look(NOW).map(|_| ()),
        authority.fill(&mut [plan(&["node1"])]),
        authority.issue(&request("node1")).map(|_| ()),
        authority.revoke(&["node1".to_owned()], NOW, false).map(|_| ()),
    ];
    for attempt in attempts {
        let error = format!("{:#}", attempt.unwrap_err());
        assert!(error.contains("certificates.json is gone and with it what was revoked"), "{error}");
    }
    fs::remove_file(folder.path().join("clusters/lab/ca.pem")).unwrap();
    filled(&authority, "node1");
}

#[test]
fn files_that_cannot_be_understood_are_left_alone() {
    let cases = [("ca.pem", "nonsense", "is no CA"), ("certificates.json", "{}", "cannot be understood")];
    for (file, text, wanted) in cases {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority(folder.path());
        fs::create_dir_all(folder.path().join("clusters/lab")).unwrap();
        let path = folder.path().join("clusters/lab").join(file);
        fs::write(&path, text).unwrap();
        for error in [authority.look(NOW).map(|_| ()), authority.fill(&mut [plan(&["node1"])])] {
            let error = format!("{:#}", error.unwrap_err());
            assert!(error.contains(wanted) && error.contains(file), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
