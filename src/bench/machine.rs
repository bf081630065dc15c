//! The machine that measures: a speed without it is not a result.

use crate::report::schema::Machine;

/// What this machine tells about itself. Processor and memory come from Linux's `/proc`; elsewhere they stay unknown.
#[must_use]
pub fn describe() -> Machine {
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    Machine {
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        cores,
        cpu: std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| cpu_model(&text)),
        memory_bytes: std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_bytes(&text)),
    }
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::{cpu_model, describe, memory_bytes};

    #[test]
    fn proc_files_are_read_and_odd_ones_ignored() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n").as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(memory_bytes("MemTotal:       2048 kB\nMemFree: 1 kB"), Some(2 * 1024 * 1024));
        assert_eq!((cpu_model("nothing"), memory_bytes("MemTotal: many")), (None, None));
    }

    #[test]
    fn this_machine_has_a_core() {
        assert!(describe().cores >= 1);
    }
}
