//! The tiny model at a steady rate, alone and while other clients saturate a
//! dedicated one.

use std::time::Duration;

use anyhow::Result;
use starling_bench::figures::{Asked, Measurement, Row, ratios};
use starling_bench::generator;
use starling_bench::load::{LoadSpec, Protocol};
use starling_proto::admin::InstanceMode;

use super::{Bench, Found};
use crate::harness::contestants::{Starling, by_default, mode};

const NAME: &str = "two-models";
const TINY_RATE: f64 = 1_000.0;
const SATURATING_CLIENTS: usize = 16;

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut starling = Starling::start(bench, 1)?;
    starling.serve("tiny", &bench.models.tiny, by_default())?;
    starling.serve("mlp", &bench.models.mlp, mode(InstanceMode::Dedicated))?;
    let mut tiny = starling.entry(0, Protocol::Grpc, "tiny", 1)?;
    tiny.load = LoadSpec::open(TINY_RATE, bench.pace.warm_up, bench.pace.duration);
    let saturating = starling.entry(0, Protocol::Grpc, "mlp", SATURATING_CLIENTS)?;
    let mut endless = saturating.load.clone();
    // Ended by this scenario.
    endless.ending = starling_bench::load::Ending::After(Duration::from_secs(3_600));
    let mut alone = Measurement::new(NAME, "tiny at 1,000 per second, alone");
    let mut beside = Measurement::new(NAME, "tiny at 1,000 per second, mlp saturated");
    for round in 1..=bench.pace.rounds {
        eprintln!("  round {round} of {}", bench.pace.rounds);
        alone.rounds.push(bench.expectant_turn(&tiny)?.sample);
        let others = generator::start(&saturating.served.server, &saturating.payload, &endless)?;
        let turn = bench.expectant_turn(&tiny);
        others.stop();
        others.finish()?;
        let mut sample = turn?.sample;
        // It would be that of both models.
        sample.server_cpu_us = 0.0;
        beside.rounds.push(sample);
    }
    let rows = vec![Row::new(
        NAME,
        "tiny's p99 while mlp is saturated / alone",
        Asked::AtMost(5.0),
        ratios(&beside.p99s(), &alone.p99s()),
    )];
    Ok(Found { rows, measurements: vec![alone, beside] })
}
