//! The tiny model over REST with binary tensors, beside gRPC.

use anyhow::Result;
use starling_bench::figures::{Asked, Row, ratios};
use starling_bench::load::Protocol;

use super::{Bench, Found};
use crate::harness::contestants::{Starling, by_default};

const NAME: &str = "rest";
const MODEL: &str = "tiny";
const CLIENTS: usize = 16;

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut starling = Starling::start(bench, 1)?;
    starling.serve(MODEL, &bench.models.tiny, by_default())?;
    let entries = [
        starling.entry(0, Protocol::Grpc, MODEL, CLIENTS)?,
        starling.entry(0, Protocol::RestBinary, MODEL, CLIENTS)?,
        starling.entry(0, Protocol::Rest, MODEL, CLIENTS)?,
    ];
    let measurements = bench.alternate(NAME, &entries)?;
    let [grpc, binary, json] = &measurements;
    let rows = vec![
        Row::new(
            NAME,
            "16 clients: REST binary's rate / gRPC's",
            Asked::AtLeast(0.6),
            ratios(&binary.rates(), &grpc.rates()),
        ),
        Row::new(
            NAME,
            "16 clients: REST JSON's rate / gRPC's",
            Asked::Nothing,
            ratios(&json.rates(), &grpc.rates()),
        ),
    ];
    Ok(Found { rows, measurements: measurements.into() })
}
