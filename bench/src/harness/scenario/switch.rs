//! A new version is pushed, loaded and switched to while the old one is at half
//! load: nothing may fail, and loading may not be felt much.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use starling_bench::figures::{Asked, Measurement, Row, Sample};
use starling_bench::generator;
use starling_bench::load::{Ending, LoadSpec, Protocol};

use super::{Bench, Found};
use crate::harness::contestants::{Starling, by_default};

const NAME: &str = "switch";
const MODEL: &str = "mlp";
const CLIENTS_AT_PEAK: usize = 64;
const WHOLE_ROUTE_PPM: u32 = 1_000_000;
/// Fine enough to say what came before the push.
const SLICE: Duration = Duration::from_millis(100);
/// Ended by this scenario.
const LONGEST: Duration = Duration::from_secs(600);

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut rounds = Rounds::default();
    for round in 1..=bench.pace.rounds {
        eprintln!("  round {round} of {}", bench.pace.rounds);
        // A new node each time: a version that was loaded before comes faster.
        one_round(bench, &mut rounds)?;
    }
    let row = |figure: &str, asked, rounds| Row::new(NAME, figure, asked, rounds);
    let measurement = |contestant: &str, rounds| Measurement {
        scenario: NAME.to_owned(),
        contestant: contestant.to_owned(),
        rounds,
    };
    let worst = rounds.failed.iter().copied().fold(0.0, f64::max);
    let rows = vec![
        row("failed requests, worst round", Asked::AtMost(0.0), vec![worst]),
        row("p99 from the push to after the switch / steady p99", Asked::AtMost(2.0), rounds.ratio),
        row("from the push to the switch, s", Asked::Nothing, rounds.took_seconds),
    ];
    let measurements = vec![
        measurement("mlp at half load, before the push", rounds.before),
        measurement("mlp at half load, from the push to after the switch", rounds.during),
    ];
    Ok(Found { rows, measurements })
}

#[derive(Default)]
struct Rounds {
    failed: Vec<f64>,
    ratio: Vec<f64>,
    took_seconds: Vec<f64>,
    before: Vec<Sample>,
    during: Vec<Sample>,
}

fn one_round(bench: &Bench, rounds: &mut Rounds) -> Result<()> {
    let mut starling = Starling::start(bench, 1)?;
    starling.serve(MODEL, &bench.models.mlp, by_default())?;
    let entry = starling.entry(0, Protocol::Grpc, MODEL, CLIENTS_AT_PEAK)?;
    let peak = bench.expectant_turn(&entry)?.sample.rate;
    let warm_up = bench.pace.warm_up * 2;
    let load = LoadSpec {
        ending: Ending::After(LONGEST),
        slice: SLICE,
        ..LoadSpec::open(peak / 2.0, warm_up, LONGEST)
    };
    let running = generator::start(&entry.served.server, &entry.payload, &load)?;
    std::thread::sleep(warm_up + bench.pace.around_switch);
    let pushed_at = running.elapsed().saturating_sub(warm_up);
    let begin = Instant::now();
    starling.push(MODEL, "v2", &bench.models.mlp_2, by_default(), 1)?;
    let admin = starling.admin()?;
    bench.runtime.block_on(admin.set_route(MODEL, &[("v2", WHOLE_ROUTE_PPM)]))?;
    rounds.took_seconds.push(begin.elapsed().as_secs_f64());
    std::thread::sleep(bench.pace.around_switch);
    let ended_at = running.elapsed().saturating_sub(warm_up);
    running.stop();
    let outcome = running.finish()?;
    let before = outcome.window(Duration::ZERO, pushed_at);
    let during = outcome.window(pushed_at, ended_at);
    let steady_p99 = before.p99_us.context("nothing was answered before the push")?;
    let switch_p99 = during.p99_us.context("nothing was answered during the switch")?;
    if let Some((code, failures)) = outcome.errors.first_key_value() {
        eprintln!("  {} requests failed with {code}: {}", failures.count, failures.example);
    }
    rounds.failed.push(outcome.failed as f64);
    rounds.ratio.push(switch_p99 / steady_p99);
    let sample = |window: starling_bench::outcome::Window, length: Duration, p99_us| Sample {
        rate: window.answered as f64 / length.as_secs_f64(),
        p50_us: 0.0,
        p99_us,
        failed: window.failed,
        generator_cpu_us: outcome.generator_cpu_us,
        server_cpu_us: 0.0,
    };
    rounds.before.push(sample(before, pushed_at, steady_p99));
    rounds.during.push(sample(during, ended_at.saturating_sub(pushed_at), switch_p99));
    Ok(())
}
