//! Whether callers feel a shadow that gets a copy of every request: one that
//! sleeps, and one that is the same model and works as hard.

use std::path::Path;

use anyhow::Result;
use starling_bench::figures::{Asked, Row, ratios};
use starling_bench::load::{LoadSpec, Protocol};
use starling_proto::admin::{
    self as wire, BatchingSettings, InstanceMode, RouteShadow, VersionSettings, agreement,
};

use super::{Bench, Found};
use crate::harness::contestants::{Starling, by_default};

const CLIENTS_AT_PEAK: usize = 16;
/// Of the peak.
const QUARTER: f64 = 0.25;
const SHADOW: &str = "shadow";
const WHOLE_PPM: u32 = 1_000_000;

/// Its instance waits for a batch that never becomes full: it holds what it is
/// given for a second, and burns no core.
pub(super) fn run_sleep(bench: &Bench) -> Result<Found> {
    let sleeping = VersionSettings {
        mode: InstanceMode::Dedicated.into(),
        batching: Some(BatchingSettings {
            max_batch: 65_536,
            max_queue_delay_us: 1_000_000,
            ..BatchingSettings::default()
        }),
        ..VersionSettings::default()
    };
    let figure = "p99 at a quarter of the peak, tiny with a shadow that sleeps / without";
    run_with(bench, "shadow-sleep", &bench.models.tiny, sleeping, (figure, 1.1))
}

pub(super) fn run_same(bench: &Bench) -> Result<Found> {
    let name = "shadow-same";
    let figure = "p99 at a quarter of the peak, tiny with a shadow of the same model / without";
    let mut found = run_with(bench, name, &bench.models.tiny, by_default(), (figure, 1.3))?;
    let figure = "p99 at a quarter of the peak, mlp with a shadow of the same model / without";
    let of_mlp = run_with(bench, name, &bench.models.mlp, by_default(), (figure, 1.3))?;
    found.rows.extend(of_mlp.rows);
    found.measurements.extend(of_mlp.measurements);
    Ok(found)
}

/// Two models that are the same file, one of which has a shadow, take turns.
fn run_with(
    bench: &Bench,
    name: &str,
    file: &Path,
    shadow: VersionSettings,
    (figure, at_most): (&str, f64),
) -> Result<Found> {
    let mut starling = Starling::start(bench, 1)?;
    starling.serve("plain", file, by_default())?;
    starling.serve("shadowed", file, by_default())?;
    starling.push("shadowed", SHADOW, file, shadow, 1)?;
    let admin = starling.admin()?;
    bench.runtime.block_on(admin.set_shadows("shadowed", vec![of_everything()]))?;
    let peak = starling.entry(0, Protocol::Grpc, "plain", CLIENTS_AT_PEAK)?;
    let rate = bench.expectant_turn(&peak)?.sample.rate * QUARTER;
    let mut entries =
        [starling.entry(0, Protocol::Grpc, "plain", 1)?, starling.entry(0, Protocol::Grpc, "shadowed", 1)?];
    for (entry, whose) in entries.iter_mut().zip(["without a shadow", "with a shadow"]) {
        entry.load = LoadSpec::open(rate, bench.pace.warm_up, bench.pace.duration);
        entry.name = format!("{rate:.0} requests per second, {whose}");
    }
    let measurements = bench.alternate(name, &entries)?;
    let [plain, shadowed] = &measurements;
    let rows = vec![
        Row::new(name, figure, Asked::AtMost(at_most), ratios(&shadowed.p99s(), &plain.p99s())),
        Row::new(
            name,
            "copies that ran, of all",
            Asked::Nothing,
            vec![share_that_ran(bench, &mut starling)?],
        ),
    ];
    Ok(Found { rows, measurements: measurements.into() })
}

fn of_everything() -> RouteShadow {
    let exact = wire::Agreement { kind: Some(agreement::Kind::Exact(wire::ExactAgreement {})) };
    RouteShadow {
        version: SHADOW.to_owned(),
        when: Vec::new(),
        portion_ppm: WHOLE_PPM,
        comparison: Some(wire::AnswerComparison { outputs: Vec::new(), others: Some(exact) }),
    }
}

/// A shadow that got no copies is not felt either, so the table says how many ran.
fn share_that_ran(bench: &Bench, starling: &mut Starling<'_>) -> Result<f64> {
    let admin = starling.admin()?;
    let routes = bench.runtime.block_on(admin.routes("shadowed"))?;
    let traffic = || routes.iter().flat_map(|route| &route.shadow_traffic);
    let ran: u64 = traffic().map(|traffic| traffic.compared + traffic.errors).sum();
    let copies: u64 = traffic().map(|traffic| traffic.copies).sum();
    Ok(ran as f64 / copies.max(1) as f64)
}
