//! The machine and this process as Linux describes them.

use std::fs;
use std::thread;

/// Cores and processor; a speed without its machine is not a result.
pub(crate) fn describe() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{cores} cores, {}", name.map_or("unknown processor", |(_, name)| name))
}

/// Resident memory of this process, bytes; 0 where `/proc` does not tell.
pub(crate) fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok()).unwrap_or(0) * 1024
}
