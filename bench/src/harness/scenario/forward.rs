//! Two nodes, one of which has the model: what the way over the other one adds.

use anyhow::{Context, Result};
use starling_bench::figures::{Asked, Row};
use starling_bench::load::Protocol;

use super::{Bench, Found};
use crate::harness::contestants::{FIRST, Starling, by_default};

const NAME: &str = "forward";
const MODEL: &str = "tiny";
const NODES: usize = 2;

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut starling = Starling::start(bench, NODES)?;
    starling.push(MODEL, FIRST, &bench.models.tiny, by_default(), NODES)?;
    let holder = starling.place_on_one(MODEL)?;
    let other = (0..NODES).find(|node| *node != holder).context("there is no other node")?;
    let echo = starling.echo_of(MODEL)?;
    let mut direct = starling.entry(holder, Protocol::Grpc, MODEL, 1)?;
    direct.name = "starling, tiny at the node that has it, 1 client".to_owned();
    let mut forwarded = starling.entry(other, Protocol::Grpc, MODEL, 1)?;
    forwarded.name = "starling, tiny at the other node, 1 client".to_owned();
    let entries = [echo.entry(bench, 1), direct, forwarded];
    let measurements = bench.alternate(NAME, &entries)?;
    let [echo, direct, forwarded] = &measurements;
    let added = forwarded
        .p50s()
        .iter()
        .zip(direct.p50s())
        .zip(echo.p50s())
        .map(|((forwarded, direct), echo)| (forwarded - direct) / echo)
        .collect();
    let rows = vec![Row::new(NAME, "1 client: added p50 / echo's p50", Asked::AtMost(1.2), added)];
    Ok(Found { rows, measurements: measurements.into() })
}
