//! The text of an API key, and its hash.

use std::fmt;

use anyhow::anyhow;
use sha2::{Digest as _, Sha256};

use crate::model::Secret;

/// How every key begins, so that people and scanners for leaked secrets recognise one.
const PREFIX: &str = "gorgo-";
/// Bytes of the id: enough that two keys of one file never have the same.
const ID_BYTES: usize = 8;
/// Bytes of the secret.
const SECRET_BYTES: usize = 32;

/// A new key: `gorgo-ID-SECRET`, both hexadecimal.
#[derive(Clone, Debug)]
pub struct Token {
    id: String,
    text: Secret,
}

impl Token {
    /// A key of random bits from the operating system.
    ///
    /// # Errors
    /// The operating system gives none.
    pub fn generate() -> anyhow::Result<Self> {
        let mut bytes = [0; ID_BYTES + SECRET_BYTES];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut bytes).map_err(|_| anyhow!("the operating system gives no random bytes"))?;
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8; ID_BYTES + SECRET_BYTES]) -> Self {
        let (id, secret) = bytes.split_at(ID_BYTES);
        let id = hex(id);
        let text = Secret::new(format!("{PREFIX}{id}-{}", hex(secret)));
        Self { id, text }
    }

    /// What it is looked up by; no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole text, for the one who is to use it.
    #[must_use]
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// What the file keeps of it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(self.text.reveal())
    }
}

/// The id in the text of a key; `None` = it is none of ours.
#[must_use]
pub fn id(text: &str) -> Option<&str> {
    let (id, _) = text.strip_prefix(PREFIX)?.split_once('-')?;
    (id.len() == 2 * ID_BYTES).then_some(id)
}

/// SHA-256 of the text of a key.
#[derive(Clone, Copy, Debug)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn parse(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Are they equal? All bytes are looked at, so that the time tells nothing about where two hashes differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let differing =
            self.0.iter().zip(&other.0).fold(0, |differing, (a, b)| std::hint::black_box(differing | (a ^ b)));
        differing == 0
    }
}

/// Hexadecimal digits.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Hash, Token, id};

    #[test]
    fn a_key_is_its_id_and_its_secret() {
        let mut bytes = [0xab; 40];
        bytes[0] = 0x01;
        let token = Token::of(&bytes);
        let secret = "ab".repeat(32);
        assert_eq!(token.text().reveal(), format!("gorgo-01ababababababab-{secret}"));
        assert_eq!((token.id(), id(token.text().reveal())), ("01ababababababab", Some("01ababababababab")));
        assert!(!format!("{token:?}").contains(&secret), "never shown by accident");
        for foreign in ["", "sk-abc", "gorgo-", "gorgo-01", "gorgo-01ab-x", "01ababababababab-x"] {
            assert_eq!(id(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn keys_differ() {
        let [a, b] = [Token::generate().unwrap(), Token::generate().unwrap()];
        assert!(a.id() != b.id() && !a.hash().matches(&b.hash()));
        assert!(a.hash().matches(&Hash::of(a.text().reveal())));
    }

    #[test]
    fn hashes_are_written_and_read() {
        // FIPS 180-4: the digest of "abc".
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hash::of("abc").to_string(), abc);
        assert!(Hash::parse(abc).unwrap().matches(&Hash::of("abc")));
        let last = abc.replace("5ad", "5ac");
        let first = abc.replace("ba7", "aa7");
        for other in [&last, &first] {
            assert!(!Hash::parse(other).unwrap().matches(&Hash::of("abc")), "{other}");
        }
        for bad in ["", "ba", &abc[1..], &abc.replace('b', "g"), &format!("+{}", &abc[1..])] {
            assert!(Hash::parse(bad).is_none(), "{bad}");
        }
    }
}
