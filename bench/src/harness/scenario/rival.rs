//! Triton beside Starling, on the same cores with the same requests. Triton's
//! Python backend, since that is what PyPI has: not its best.

use anyhow::{Context, Result};
use starling_bench::figures::{Asked, Row, ratios};
use starling_bench::load::Protocol;

use super::{Bench, Found};
use crate::harness::contest::Entry;
use crate::harness::contestants::{Starling, by_default};
use crate::harness::triton::Triton;

const NAME: &str = "rival";
const CLIENTS: [usize; 3] = [1, 16, 64];
/// What is asked of Starling, as a multiple of the rival's rate.
const ASKED: [(&str, f64); 2] = [("tiny", 1.8), ("mlp", 1.5)];

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut starling = Starling::start(bench, 1)?;
    let files = [&bench.models.tiny, &bench.models.mlp];
    let mut described = Vec::new();
    for ((model, _), file) in ASKED.iter().zip(files) {
        starling.serve(model, file, by_default())?;
        let signature = bench.signature(&starling.served(0, Protocol::Grpc, model))?;
        let answer = starling.answer_of(model)?;
        let output = answer.outputs.first().context("an answer without outputs")?;
        let columns = *output.shape.last().context("an output without axes")?;
        described.push((signature, output.name.clone(), columns, file));
    }
    let models: Vec<_> = described
        .iter()
        .map(|(signature, output, columns, file)| (signature, output.as_str(), *columns, file.as_path()))
        .collect();
    let triton = Triton::start(bench, &models)?;
    let mut entries = Vec::new();
    for (signature, ..) in &described {
        for clients in CLIENTS {
            let served = triton.served(&signature.model);
            let payload = bench.payload(Protocol::Grpc, &served.server, signature, None)?;
            entries.push(Entry {
                name: format!("triton (Python backend), {}, clients: {clients}", signature.model),
                served,
                // Its Python process would not be counted.
                pid: None,
                payload,
                load: bench.clients(clients),
            });
            entries.push(starling.entry(0, Protocol::Grpc, &signature.model, clients)?);
        }
    }
    let measurements = bench.alternate_all(NAME, &entries)?;
    let mut rows = Vec::new();
    let points = ASKED.iter().flat_map(|asked| CLIENTS.iter().map(move |clients| (asked, clients)));
    for (((model, times), clients), pair) in points.zip(measurements.chunks_exact(2)) {
        let [theirs, ours] = pair else { continue };
        rows.push(Row::new(
            NAME,
            format!("{model}, clients: {clients}: rate / Triton's"),
            Asked::AtLeast(*times),
            ratios(&ours.rates(), &theirs.rates()),
        ));
        rows.push(Row::new(
            NAME,
            format!("{model}, clients: {clients}: p99 / Triton's"),
            Asked::AtMost(1.0),
            ratios(&ours.p99s(), &theirs.p99s()),
        ));
    }
    Ok(Found { rows, measurements })
}
