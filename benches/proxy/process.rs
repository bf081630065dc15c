//! Child processes of this binary, and what `/proc` says of them.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child as Process, Command, Stdio};
use std::thread::available_parallelism;

use anyhow::Context;

/// Clock ticks per second of `/proc/PID/stat`: 100 on every Linux that matters.
const TICKS: f64 = 100.0;

/// A child that ends when this is dropped.
pub(super) struct Child {
    process: Process,
}

impl Child {
    /// Starts this binary in another role and reads the addresses that it prints, one per line.
    pub(super) fn start(arguments: &[String], addresses: usize) -> anyhow::Result<(Self, Vec<SocketAddr>)> {
        let own = env::current_exe().context("failed to find this binary")?;
        let mut process = Command::new(own)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start a child process")?;
        let stdout = process.stdout.take().context("the child has no stdout")?;
        let child = Self { process };
        let mut lines = BufReader::new(stdout).lines();
        let mut found = Vec::new();
        while found.len() < addresses {
            let line = lines.next().context("the child ended early")?.context("failed to read from the child")?;
            found.push(line.parse().with_context(|| format!("the child said: {line}"))?);
        }
        Ok((child, found))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).unwrap_or_default()
    }

    /// CPU time used so far by all its threads, s; not a number where there is no `/proc`.
    pub(super) fn cpu_s(&mut self) -> f64 {
        let stat = self.read("stat");
        // Fields 14 and 15; the name before may hold spaces and ends with the last parenthesis.
        let ticks = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
        let ticks: Option<Vec<f64>> = ticks.map(|fields| fields.filter_map(|field| field.parse().ok()).collect());
        ticks.filter(|ticks| ticks.len() == 2).map_or(f64::NAN, |ticks| (ticks[0] + ticks[1]) / TICKS)
    }

    /// Resident memory, MB; not a number where there is no `/proc`.
    pub(super) fn rss_mb(&mut self) -> f64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map_or(f64::NAN, |kib| kib / 1024.0)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Either may fail only because it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}
