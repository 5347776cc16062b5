//! The tiny model beside an echo: what routing, admission, metrics, batching and
//! response parameters cost.

use anyhow::Result;
use starling_bench::figures::{Asked, Row, ratios};
use starling_bench::load::Protocol;
use starling_bench::server::ServerTimes;

use super::{Bench, Found};
use crate::harness::contestants::{Starling, by_default};

const NAME: &str = "tiny";

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut starling = Starling::start(bench, 1)?;
    starling.serve(NAME, &bench.models.tiny, by_default())?;
    let echo = starling.echo_of(NAME)?;
    let mut ours = |clients| starling.entry(0, Protocol::Grpc, NAME, clients);
    let entries =
        [echo.entry(bench, 1), ours(1)?, echo.entry(bench, 16), ours(16)?, echo.entry(bench, 64), ours(64)?];
    let mut of_one_client: Vec<ServerTimes> = Vec::new();
    let measurements = bench.alternate_with(NAME, &entries, |entry, outcome| {
        if entry == 1 {
            of_one_client.extend(outcome.server);
        }
        Ok(())
    })?;
    let [echo_1, ours_1, echo_16, ours_16, echo_64, ours_64] = &measurements;
    let row = |figure: &str, asked, rounds| Row::new(NAME, figure, asked, rounds);
    let times = |figure: fn(&ServerTimes) -> f64| of_one_client.iter().map(figure).collect::<Vec<_>>();
    let rows = vec![
        row("16 clients: rate / echo's", Asked::AtLeast(0.90), ratios(&ours_16.rates(), &echo_16.rates())),
        row("64 clients: rate / echo's", Asked::AtLeast(0.90), ratios(&ours_64.rates(), &echo_64.rates())),
        row("1 client: p50 / echo's", Asked::AtMost(1.3), ratios(&ours_1.p50s(), &echo_1.p50s())),
        row("16 clients: p99 / echo's", Asked::AtMost(1.0), ratios(&ours_16.p99s(), &echo_16.p99s())),
        row(
            "1 client: in the server besides compute, µs",
            Asked::AtMost(40.0),
            times(ServerTimes::besides_compute_us),
        ),
        row(
            "1 client: the four parts / the whole request",
            Asked::AtLeast(0.95),
            times(ServerTimes::accounted_for),
        ),
        row("1 client: rate / echo's", Asked::Nothing, ratios(&ours_1.rates(), &echo_1.rates())),
        row("64 clients: p99 / echo's", Asked::Nothing, ratios(&ours_64.p99s(), &echo_64.p99s())),
    ];
    Ok(Found { rows, measurements: measurements.into() })
}
