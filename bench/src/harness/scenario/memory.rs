//! What an idle node with three models keeps in memory, besides the models.

use std::time::{Duration, Instant};

use anyhow::Result;
use starling_bench::figures::{Asked, Row};

use super::{Bench, Found};
use crate::harness::contestants::{Starling, by_default};
use crate::harness::machine;

const NAME: &str = "memory";
/// Idle once it has not moved for so long.
const STEADY_FOR: Duration = Duration::from_secs(2);
const STEADY_LIMIT: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(200);
const MIB: f64 = 1_048_576.0;

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut starling = Starling::start(bench, 1)?;
    let empty = steady_resident_bytes(starling.pid(0))?;
    let models = [("tiny", &bench.models.tiny), ("mlp", &bench.models.mlp), ("trees", &bench.models.trees)];
    let mut files = 0;
    for (model, file) in models {
        starling.serve(model, file, by_default())?;
        files += std::fs::metadata(file)?.len();
    }
    let with_models = steady_resident_bytes(starling.pid(0))?;
    let mib = |bytes: u64| vec![bytes as f64 / MIB];
    // Their files are the least that the models can take, so this counts too much
    // rather than too little.
    let besides = with_models.saturating_sub(files);
    let rows = vec![
        Row::new(NAME, "idle, three models, besides their files, MiB", Asked::AtMost(120.0), mib(besides)),
        Row::new(NAME, "idle, three models, all of it, MiB", Asked::Nothing, mib(with_models)),
        Row::new(NAME, "idle, no model, MiB", Asked::Nothing, mib(empty)),
    ];
    Ok(Found { rows, measurements: Vec::new() })
}

/// The last value once it has stood still to 1 % for a while, or the limit is over.
fn steady_resident_bytes(pid: u32) -> Result<u64> {
    let begin = Instant::now();
    let mut since = Instant::now();
    let mut reference = machine::resident_bytes(pid)?;
    loop {
        std::thread::sleep(POLL_EVERY);
        let now = machine::resident_bytes(pid)?;
        if now.abs_diff(reference) > reference / 100 {
            (reference, since) = (now, Instant::now());
        }
        if since.elapsed() >= STEADY_FOR || begin.elapsed() >= STEADY_LIMIT {
            return Ok(now);
        }
    }
}
