//! Twice as many requests as can be answered, of a model that takes milliseconds:
//! as much must be answered as at the peak, and what is admitted must not wait long.

use std::time::Duration;

use anyhow::{Result, bail};
use starling_bench::figures::{Asked, Measurement, Row, median, ratios};
use starling_bench::load::{LoadSpec, Protocol};

use super::{Bench, Found};
use crate::harness::contest::Turn;
use crate::harness::contestants::{Starling, by_default};
use crate::harness::models::SLOW_LAYERS;

const NAME: &str = "overload";
const MODEL: &str = "slow";
/// Few do not fill every batch. Of more than these, a node may refuse some, since a
/// queue of milliseconds gets long; they ask again at once, and that is no peak.
const CLIENTS_TRIED: [usize; 4] = [4, 8, 16, 32];
/// Turns by which each count is judged.
const TURNS_PER_COUNT: usize = 3;
/// 2 ms are asked for, and a quiet moment must not undercut them.
const COMPUTE_MIN_US: f64 = 2_200.0;
const LAYERS_MAX: usize = 4_096;
/// Queues and estimates need a while to settle.
const LONGER: u32 = 2;
/// A caller who gives up waits so much longer than a request takes at 0.9 load.
const DEADLINE_OF_P99: f64 = 2.0;

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let one_row = make_slow_enough(bench)?;
    let mut starling = Starling::start(bench, 1)?;
    starling.serve(MODEL, &bench.models.slow, by_default())?;
    let measurement = |contestant: &str| Measurement {
        scenario: NAME.to_owned(),
        contestant: contestant.to_owned(),
        rounds: Vec::new(),
    };
    let clients = clients_at_peak(bench, &mut starling)?;
    let mut peak = measurement(&format!("slow, peak: {clients} clients"));
    let mut near = measurement("slow at 0.9 of the peak");
    let mut twice = measurement("slow at twice the peak");
    let mut with_deadline = measurement("slow at twice the peak, deadline 2 × p99 of 0.9 load");
    for round in 1..=bench.pace.rounds {
        eprintln!("  round {round} of {}", bench.pace.rounds);
        let mut entry = starling.entry(0, Protocol::Grpc, MODEL, clients)?;
        peak.rounds.push(answered(bench.turn(&entry)?)?);
        // The median so far, so that one slow round does not set the rate of another.
        let peak_rate = median(&peak.rates());
        let open = |share: f64| {
            LoadSpec::open(share * peak_rate, bench.pace.warm_up * LONGER, bench.pace.duration * LONGER)
        };
        entry.load = open(0.9);
        near.rounds.push(bench.turn(&entry)?.sample);
        entry.load = open(2.0);
        twice.rounds.push(answered(bench.turn(&entry)?)?);
        let p99 = median(&near.p99s());
        let deadline = Duration::from_secs_f64(p99 * DEADLINE_OF_P99 / 1e6);
        let signature = bench.signature(&entry.served)?;
        entry.payload = bench.payload(Protocol::Grpc, &entry.served.server, &signature, Some(deadline))?;
        entry.load.timeout = deadline;
        with_deadline.rounds.push(answered(bench.turn(&entry)?)?);
    }
    let row = |figure: &str, asked, rounds| Row::new(NAME, figure, asked, rounds);
    let rows = vec![
        row("2 × peak: goodput / peak", Asked::AtLeast(0.9), ratios(&twice.rates(), &peak.rates())),
        row(
            "2 × peak: p99 of admitted / p99 at 0.9",
            Asked::AtMost(2.0),
            ratios(&twice.p99s(), &near.p99s()),
        ),
        row(
            "2 × peak, deadlines: goodput / peak",
            Asked::Nothing,
            ratios(&with_deadline.rates(), &peak.rates()),
        ),
        row(
            "2 × peak, deadlines: p99 of admitted / p99 at 0.9",
            Asked::Nothing,
            ratios(&with_deadline.p99s(), &near.p99s()),
        ),
        row("one row of the slow model, µs", Asked::Nothing, vec![one_row]),
    ];
    Ok(Found { rows, measurements: vec![peak, near, twice, with_deadline] })
}

/// Adds layers until a row takes long enough on this machine; says how long, in
/// microseconds.
fn make_slow_enough(bench: &Bench) -> Result<f64> {
    let mut layers = SLOW_LAYERS;
    while layers <= LAYERS_MAX {
        bench.models.write_slow(layers)?;
        let run_us = bench.raw(&bench.models.slow, 1, 1, bench.pace.duration / 4)?.run_us;
        if run_us >= COMPUTE_MIN_US {
            return Ok(run_us);
        }
        layers *= 2;
    }
    bail!("a row of {LAYERS_MAX} layers takes less than {COMPUTE_MIN_US} µs here")
}

/// The count of clients with the most answers per second, each by the median of
/// several turns.
fn clients_at_peak(bench: &Bench, starling: &mut Starling<'_>) -> Result<usize> {
    let mut rates = CLIENTS_TRIED.map(|clients| (clients, Vec::new()));
    for _ in 0..TURNS_PER_COUNT {
        for (clients, rates) in &mut rates {
            let entry = starling.entry(0, Protocol::Grpc, MODEL, *clients)?;
            rates.push(bench.turn(&entry)?.sample.rate);
        }
    }
    let best = rates.iter().max_by(|(_, one), (_, other)| median(one).total_cmp(&median(other)));
    Ok(best.map_or(CLIENTS_TRIED[0], |(clients, _)| *clients))
}

/// Refusals are what is measured here; nothing but refusals is a defect.
fn answered(turn: Turn) -> Result<starling_bench::figures::Sample> {
    if turn.outcome.answered == 0 {
        let examples: Vec<String> = turn
            .outcome
            .errors
            .iter()
            .map(|(code, failures)| format!("{code}: {}", failures.example))
            .collect();
        bail!("nothing was admitted: {}", examples.join("; "));
    }
    Ok(turn.sample)
}
