//! Gradient boosting on 30 columns, beside what transport and sessions allow.

use anyhow::Result;
use starling_bench::figures::{Asked, Row, bounds, ratios};
use starling_bench::load::Protocol;

use super::{Bench, Found, raw_measurement};
use crate::harness::contestants::{Starling, by_default};

const NAME: &str = "trees";
const CLIENTS: usize = 16;

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let file = &bench.models.trees;
    let mut starling = Starling::start(bench, 1)?;
    starling.serve(NAME, file, by_default())?;
    let echo = starling.echo_of(NAME)?;
    let entries = [echo.entry(bench, CLIENTS), starling.entry(0, Protocol::Grpc, NAME, CLIENTS)?];
    let batch = bench.best_batch(file)?;
    let cores = bench.cores();
    let mut raw = Vec::new();
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
    let [echo, ours] = &measurements[..] else { unreachable!("a measurement per entry") };
    let bound = bounds(&echo.rates(), &raw);
    let rows =
        vec![Row::new(NAME, "16 clients: rate / bound", Asked::AtLeast(0.80), ratios(&ours.rates(), &bound))];
    let name = format!("session loop of trees, {cores} threads, batches of {batch}, rows");
    measurements.push(raw_measurement(NAME, name, &raw));
    Ok(Found { rows, measurements })
}
