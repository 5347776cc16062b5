//! Gradient boosting on 30 columns, beside what transport and sessions allow.

use anyhow::Result;
use starling_bench::figures::{Asked, Row, bounds, ratios};
use starling_bench::load::Protocol;

use super::{Bench, Found};
use crate::harness::contestants::{Starling, by_default};

const NAME: &str = "trees";
const CLIENTS: usize = 16;

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let file = &bench.models.trees;
    let mut starling = Starling::start(bench, 1)?;
    starling.serve(NAME, file, by_default())?;
    let echo = starling.echo_of(NAME)?;
    let entries = [echo.entry(bench, CLIENTS), starling.entry(0, Protocol::Grpc, NAME, CLIENTS)?];
    let (measurements, sessions) = bench.alternate_beside_sessions(NAME, &entries, file)?;
    let [echo, ours] = &measurements;
    let bound = bounds(&echo.rates(), &sessions.rates());
    let rows =
        vec![Row::new(NAME, "16 clients: rate / bound", Asked::AtLeast(0.80), ratios(&ours.rates(), &bound))];
    Ok(Found { rows, measurements: measurements.into_iter().chain([sessions]).collect() })
}
