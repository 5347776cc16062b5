//! Three nodes, all of them saturated: heartbeats must get through.

use anyhow::{Result, ensure};
use starling_bench::figures::{Asked, Measurement, Row, Sample};
use starling_bench::generator;
use starling_bench::load::{LoadSpec, Protocol};

use super::{Bench, Found};
use crate::harness::contestants::{Starling, by_default};

const NAME: &str = "elections";
const MODEL: &str = "tiny";
const NODES: usize = 3;
const CLIENTS_PER_NODE: usize = 64;

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut starling = Starling::start(bench, NODES)?;
    starling.serve(MODEL, &bench.models.tiny, by_default())?;
    let before = starling.term()?;
    let load = LoadSpec::closed(CLIENTS_PER_NODE, bench.pace.warm_up, bench.pace.saturation);
    let mut all_running = Vec::new();
    for node in 0..NODES {
        let entry = starling.entry(node, Protocol::Grpc, MODEL, CLIENTS_PER_NODE)?;
        all_running.push(generator::start(&entry.served.server, &entry.payload, &load)?);
    }
    let mut measurements = Vec::new();
    for (node, running) in all_running.into_iter().enumerate() {
        let outcome = running.finish()?;
        ensure!(outcome.answered > 0, "node {} answered nothing", node + 1);
        let sample = Sample::of(&outcome);
        measurements.push(Measurement {
            scenario: NAME.to_owned(),
            contestant: format!("tiny at node {} of 3, 64 clients", node + 1),
            rounds: vec![sample],
        });
    }
    // A term is an election that began; with the pre-vote each of them unseats a leader.
    let elections = starling.term()?.saturating_sub(before) as f64;
    let seconds = bench.pace.saturation.as_secs();
    let figure = format!("elections within {seconds} s of a saturated data plane");
    let rows = vec![Row::new(NAME, figure, Asked::AtMost(0.0), vec![elections])];
    Ok(Found { rows, measurements })
}
