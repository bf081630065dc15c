//! A host key made before its machine is, so that even the first connection is checked.
//!
//! The private half travels in the machine's cloud-init text and is kept nowhere here: not in argv, not on disk, not in the inventory.
//! Limits: at the provider it is as safe as the launch request; on the machine root finds it in cloud-init's files, and whoever may ask the
//! metadata service, which is every process there, can read it. That is who may run code on the node anyway; such a process could pose as
//! this one node towards gorgo from elsewhere, and as no other. A node that must not trust its own users gets a new host key by hand, or is
//! launched without one of ours.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::model::Secret;

/// The only type that gorgo makes: short, fast, and known to every OpenSSH since 6.5 (2014).
const KIND: &str = "ssh-ed25519";
/// First bytes of a private key file (OpenSSH, `PROTOCOL.key`).
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Private keys are padded to this many bytes when they are not encrypted (`PROTOCOL.key`, cipher `none`).
const BLOCK: usize = 8;
/// Characters in one line of the file; OpenSSH writes as many.
const LINE: usize = 70;

/// A fresh host key.
#[derive(Clone)]
pub struct HostKey {
    public: String,
    private: Secret,
}

impl HostKey {
    /// Makes one from the operating system's random numbers.
    ///
    /// # Errors
    /// The operating system gives none.
    pub fn generate() -> anyhow::Result<Self> {
        let random = |bytes: &mut [u8]| {
            SystemRandom::new()
                .fill(bytes)
                .map_err(|_| anyhow::anyhow!("the operating system gives no random numbers for a host key"))
        };
        let (mut seed, mut check) = ([0; 32], [0; 4]);
        random(&mut seed)?;
        random(&mut check)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed");
        let point = pair.public_key().as_ref();
        let public = format!("{KIND} {}", STANDARD.encode(public_blob(point)));
        Ok(Self { public, private: Secret::new(private_file(&seed, point, check)) })
    }

    /// `ssh-ed25519 AAAA…`.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The cloud-init text that makes this the machine's only host key.
    #[must_use]
    pub fn cloud_config(&self) -> Secret {
        let mut text = "#cloud-config\nssh_deletekeys: true\nssh_keys:\n  ed25519_private: |\n".to_owned();
        for line in self.private.reveal().lines() {
            text += &format!("    {line}\n");
        }
        text += &format!("  ed25519_public: {}\n", self.public);
        Secret::new(text)
    }
}

/// Shows the public half only.
impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({})", self.public)
    }
}

/// A length, then the bytes (RFC 4251, section 5).
fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("parts of a key are short");
    to.extend(length.to_be_bytes());
    to.extend(bytes);
}

/// Kind and point (RFC 8709, section 4).
fn public_blob(point: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    string(&mut blob, KIND.as_bytes());
    string(&mut blob, point);
    blob
}

/// The file that OpenSSH reads, not encrypted. `check` stands there twice: with a passphrase it would tell a wrong one.
fn private_file(seed: &[u8], point: &[u8], check: [u8; 4]) -> String {
    let mut secret = [check, check].concat();
    string(&mut secret, KIND.as_bytes());
    string(&mut secret, point);
    string(&mut secret, &[seed, point].concat());
    string(&mut secret, b"");
    let padding = secret.len().next_multiple_of(BLOCK) - secret.len();
    secret.extend((1..).take(padding));
    let mut file = MAGIC.to_vec();
    string(&mut file, b"none");
    string(&mut file, b"none");
    string(&mut file, b"");
    file.extend(1_u32.to_be_bytes());
    string(&mut file, &public_blob(point));
    string(&mut file, &secret);
    let text = STANDARD.encode(file);
    let mut lines = vec!["-----BEGIN OPENSSH PRIVATE KEY-----".to_owned()];
    lines.extend(text.as_bytes().chunks(LINE).map(|line| String::from_utf8_lossy(line).into_owned()));
    lines.push("-----END OPENSSH PRIVATE KEY-----\n".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::{HostKey, private_file, public_blob};

    #[test]
    fn no_two_keys_are_alike_and_only_the_public_half_is_shown() {
        let (one, other) = (HostKey::generate().unwrap(), HostKey::generate().unwrap());
        assert_ne!(one.public(), other.public());
        let shown = format!("{one:?} {:?}", one.cloud_config());
        assert!(shown.contains(one.public()) && !shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn the_vector_of_rfc_8032() {
        let hex = |text: &str| {
            let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect::<Vec<_>>()
        };
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let point = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        assert_eq!(ring::signature::KeyPair::public_key(&pair).as_ref(), point);
        assert_eq!(public_blob(&point).len(), 51);
        assert!(private_file(&seed, &point, [0; 4]).lines().all(|line| line.len() <= 70));
    }

    #[test]
    fn openssh_reads_what_cloud_init_is_given() {
        let key = HostKey::generate().unwrap();
        let text = key.cloud_config();
        let file: String = text
            .reveal()
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .map(|line| format!("{line}\n"))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, file).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let Ok(read) = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output() else { return };
        assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), key.public(), "{read:?}");
        let start = "#cloud-config\nssh_deletekeys: true\nssh_keys:\n  ed25519_private: |\n    -----BEGIN OPENSSH PRIVATE KEY-----\n";
        assert!(text.reveal().starts_with(start));
        assert!(text.reveal().ends_with(&format!("\n  ed25519_public: {}\n", key.public())));
    }
}
