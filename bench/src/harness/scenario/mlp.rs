//! A model that gains from batches: batching on and off, and local and dedicated
//! instances beside what transport and sessions allow.

use anyhow::Result;
use starling_bench::figures::{Asked, Row, bounds, ratios};
use starling_bench::load::Protocol;
use starling_proto::admin::InstanceMode;

use super::{Bench, Found, raw_measurement};
use crate::harness::contestants::{Starling, by_default, mode, unbatched};

const NAME: &str = "mlp";

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let file = &bench.models.mlp;
    let mut starling = Starling::start(bench, 1)?;
    starling.serve("mlp", file, by_default())?;
    starling.serve("mlp-unbatched", file, unbatched())?;
    starling.serve("mlp-local", file, mode(InstanceMode::Local))?;
    starling.serve("mlp-dedicated", file, mode(InstanceMode::Dedicated))?;
    let echo = starling.echo_of("mlp")?;
    let mut entries = vec![echo.entry(bench, 16), echo.entry(bench, 64)];
    for (model, clients) in [
        ("mlp", 64),
        ("mlp-unbatched", 64),
        ("mlp-local", 16),
        ("mlp-local", 64),
        ("mlp-dedicated", 16),
        ("mlp-dedicated", 64),
        ("mlp", 1),
        ("mlp", 16),
    ] {
        entries.push(starling.entry(0, Protocol::Grpc, model, clients)?);
    }
    let batch = bench.best_batch(file)?;
    let cores = bench.cores();
    let mut raw = Vec::new();
    // The session loop takes its turn after the first entry of each round.
    let mut failed = None;
    let mut measurements = bench.alternate_with(NAME, &entries, |entry, _| {
        if entry == 0 {
            match bench.raw(file, cores, batch, bench.pace.duration) {
                Ok(report) => raw.push(report.rows_per_second),
                Err(error) => failed = Some(error),
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let [echo_16, echo_64, on, off, local_16, local_64, dedicated_16, dedicated_64, ..] = &measurements[..]
    else {
        unreachable!("a measurement per entry")
    };
    let (bound_16, bound_64) = (bounds(&echo_16.rates(), &raw), bounds(&echo_64.rates(), &raw));
    let row = |figure: &str, asked, rounds| Row::new(NAME, figure, asked, rounds);
    let at_least = Asked::AtLeast;
    let rows = vec![
        row("64 clients: batching on / off, rate", at_least(2.0), ratios(&on.rates(), &off.rates())),
        row("64 clients: batching on / off, p99", Asked::AtMost(1.0), ratios(&on.p99s(), &off.p99s())),
        row("local, 16 clients: rate / bound", at_least(0.80), ratios(&local_16.rates(), &bound_16)),
        row("local, 64 clients: rate / bound", at_least(0.90), ratios(&local_64.rates(), &bound_64)),
        row("dedicated, 16 clients: rate / bound", at_least(0.70), ratios(&dedicated_16.rates(), &bound_16)),
        row("dedicated, 64 clients: rate / bound", at_least(0.75), ratios(&dedicated_64.rates(), &bound_64)),
    ];
    let name = format!("session loop of mlp, {cores} threads, batches of {batch}, rows");
    measurements.push(raw_measurement(NAME, name, &raw));
    Ok(Found { rows, measurements })
}
