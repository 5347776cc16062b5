//! What a run was measured on, and what the system says about a process.

use std::time::Duration;

use anyhow::{Context, Result};
use starling_bench::figures::Machine;

/// Of this machine, now. Linux only.
pub fn read() -> Result<Machine> {
    let cpuinfo = read_file("/proc/cpuinfo")?;
    let processor = value_of(&cpuinfo, "model name").unwrap_or("an unnamed processor").to_owned();
    let meminfo = read_file("/proc/meminfo")?;
    let memory_kib: f64 = value_of(&meminfo, "MemTotal").and_then(first_number).unwrap_or(0.0);
    let load = read_file("/proc/loadavg")?;
    Ok(Machine {
        processor,
        cores: std::thread::available_parallelism()?.get(),
        memory_gib: memory_kib / f64::from(1 << 20),
        kernel: format!("Linux {}", read_file("/proc/sys/kernel/osrelease")?.trim()),
        load_before: first_number(&load).unwrap_or(0.0),
    })
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = read_file(&format!("/proc/{pid}/status"))?;
    let kib = value_of(&status, "VmRSS").and_then(first_number).context("no VmRSS in its status")?;
    Ok(kib as u64 * 1024)
}

/// Processor time that a process has used, in steps of 10 ms.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = read_file(&format!("/proc/{pid}/stat"))?;
    ticks_of(&stat)
        .map(|ticks| Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
        .with_context(|| format!("/proc/{pid}/stat is not what it should be"))
}

/// User and system time. The name in parentheses may hold anything.
fn ticks_of(stat: &str) -> Option<u64> {
    const USER: usize = 11;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(USER);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let of_key = |line: &'a str| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    };
    text.lines().find_map(of_key)
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

fn read_file(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_hides_nothing() {
        let stat = "42 (a) name (b) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 1000 1 1";
        assert_eq!(ticks_of(stat), Some(300));
    }

    #[test]
    fn values_are_found_by_their_whole_key() {
        let status = "VmRSSomething:\t1 kB\nVmRSS:\t   2048 kB\n";
        assert_eq!(value_of(status, "VmRSS").and_then(first_number), Some(2_048.0));
    }
}
