//! What a program file needs of a machine, read from the file itself.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use sha2::{Digest as _, Sha256};

use crate::cli::exit::Failure;
use crate::cluster::desired::AgentBinary;

/// Start of a symbol version of the GNU C library.
const GLIBC: &[u8] = b"GLIBC_2.";

/// Reads the program that nodes are to get.
pub(super) fn inspect(path: PathBuf) -> Result<AgentBinary, Failure> {
    let shown = path.display().to_string();
    let bytes =
        fs::read(&path).with_context(|| format!("cannot read the program `{shown}`")).map_err(Failure::usage)?;
    let Some(arch) = arch(&bytes) else {
        let error = anyhow!("`{shown}` is not a Linux program for x86_64 or aarch64");
        return Err(
            Failure::usage(error).with_hint("name a file with `--agent-binary PATH`; `scripts/release` builds one")
        );
    };
    let sum = Sha256::digest(&bytes);
    let sha256 = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(AgentBinary { sha256, bytes: bytes.len() as u64, arch: arch.to_owned(), glibc: glibc(&bytes), path })
}

/// The program that runs now.
pub(super) fn own() -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe().context("cannot tell where this program is")?)
}

/// The machine as `uname -m` says it: bytes 18 and 19 of a little-endian 64-bit ELF file.
fn arch(bytes: &[u8]) -> Option<&'static str> {
    let head = bytes.get(..20)?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    match u16::from_le_bytes([head[18], head[19]]) {
        62 => Some("x86_64"),
        183 => Some("aarch64"),
        _ => None,
    }
}

/// The newest version of the C library that any symbol asks for; `None` = a static program, or another library.
fn glibc(bytes: &[u8]) -> Option<(u32, u32)> {
    let places = memchr::memmem::find_iter(bytes, GLIBC);
    let minor = |at: usize| {
        let digits = bytes[at + GLIBC.len()..].iter().take_while(|byte| byte.is_ascii_digit()).take(4);
        let text: String = digits.map(|byte| char::from(*byte)).collect();
        text.parse::<u32>().ok()
    };
    places.filter_map(minor).max().map(|minor| (2, minor))
}

#[cfg(test)]
mod tests {
    use super::{arch, glibc, inspect};
    use crate::cli::Exit;

    #[test]
    fn machine_and_library_are_read_from_the_file() {
        let elf = |machine: u16| [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 11], &machine.to_le_bytes()].concat();
        assert_eq!((arch(&elf(62)), arch(&elf(183)), arch(&elf(8))), (Some("x86_64"), Some("aarch64"), None));
        assert_eq!((arch(b""), arch(b"#!/bin/sh\necho not a program\n")), (None, None));
        assert_eq!(glibc(b"\0GLIBC_2.4\0GLIBC_2.28\0GLIBC_2.17\0GLIBC_PRIVATE\0"), Some((2, 28)));
        assert_eq!(glibc(b"no such thing GLIBC_2."), None);
    }

    #[test]
    fn this_very_program_can_be_inspected() {
        let found = inspect(std::env::current_exe().unwrap()).unwrap();
        assert_eq!((found.sha256.len(), found.arch.as_str()), (64, std::env::consts::ARCH));
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("script");
        std::fs::write(&text, "#!/bin/sh\n").unwrap();
        assert_eq!(inspect(text).unwrap_err().exit, Exit::Usage);
    }
}
