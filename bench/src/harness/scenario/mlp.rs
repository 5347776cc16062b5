//! A model that gains from batches: batching on and off, and local and dedicated
//! instances beside what transport and sessions allow.

use anyhow::Result;
use starling_bench::figures::{Asked, Row, bounds, ratios};
use starling_bench::load::Protocol;
use starling_proto::admin::InstanceMode;

use super::{Bench, Found};
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
    let mut ours = |model, clients| starling.entry(0, Protocol::Grpc, model, clients);
    let entries = [
        echo.entry(bench, 16),
        echo.entry(bench, 64),
        ours("mlp", 64)?,
        ours("mlp-unbatched", 64)?,
        ours("mlp-local", 16)?,
        ours("mlp-local", 64)?,
        ours("mlp-dedicated", 16)?,
        ours("mlp-dedicated", 64)?,
        ours("mlp", 1)?,
        ours("mlp", 16)?,
    ];
    let (measurements, sessions) = bench.alternate_beside_sessions(NAME, &entries, file)?;
    let [echo_16, echo_64, on, off, local_16, local_64, dedicated_16, dedicated_64, ..] = &measurements;
    let raw = sessions.rates();
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
    Ok(Found { rows, measurements: measurements.into_iter().chain([sessions]).collect() })
}
