//! What a program file needs of a machine, read from the file itself.

use std::env::consts::ARCH;
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

/// The programs that nodes are to get, at most one for each kind of machine; for machines of its own kind this one, unless one is named.
pub(super) fn named(paths: &[PathBuf]) -> Result<Vec<AgentBinary>, Failure> {
    let mut programs: Vec<AgentBinary> = Vec::new();
    for path in paths {
        let program = inspect(path.clone())?;
        if let Some(other) = programs.iter().find(|other| other.arch == program.arch) {
            let (first, second, arch) = (other.path.display(), program.path.display(), &program.arch);
            let error = anyhow!("--agent-binary: `{first}` and `{second}` are both for {arch}");
            return Err(Failure::usage(error).with_hint("wanted one program for each kind of machine"));
        }
        programs.push(program);
    }
    if programs.iter().all(|program| program.arch != ARCH) {
        match own().and_then(inspect) {
            Ok(own) => programs.push(own),
            // Of another system than Linux: what was named has to do.
            Err(_) if !programs.is_empty() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(programs)
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
    use std::path::{Path, PathBuf};

    use super::{ARCH, arch, glibc, inspect, named};
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
    fn one_program_for_each_kind_of_machine() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, machine: u16| -> PathBuf {
            let path = folder.path().join(name);
            let head = [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 11], &machine.to_le_bytes()].concat();
            std::fs::write(&path, [head, name.into()].concat()).unwrap();
            path
        };
        let (intel, again, arm) = (program("intel", 62), program("again", 62), program("arm", 183));
        let own = std::env::current_exe().unwrap();
        let paths = |paths: &[&Path]| {
            let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
            let programs = named(&paths)?;
            Ok::<_, crate::cli::exit::Failure>(programs.into_iter().map(|program| program.path).collect::<Vec<_>>())
        };
        let (mine, foreign) = if ARCH == "x86_64" { (&intel, &arm) } else { (&arm, &intel) };
        assert_eq!(paths(&[]).unwrap(), vec![own.clone()]);
        assert_eq!(paths(&[mine]).unwrap(), vec![mine.clone()]);
        assert_eq!(paths(&[foreign]).unwrap(), [foreign.clone(), own], "this one for machines of its kind");
        assert_eq!(paths(&[foreign, mine]).unwrap(), [foreign.clone(), mine.clone()]);
        let failure = paths(&[&intel, &arm, &again]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let shown = failure.to_string();
        assert!(shown.contains("intel` and `") && shown.contains("again` are both for x86_64"), "{shown}");
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
