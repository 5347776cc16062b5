//! What it costs a request that a bandit of four arms chooses its version,
//! beside a model with one.

use anyhow::Result;
use starling_bench::figures::{Asked, Row, ratios};
use starling_bench::load::Protocol;

use super::{Bench, Found};
use crate::harness::contestants::{FIRST, Starling, by_default};

const NAME: &str = "bandit";
const CLIENTS: usize = 16;
const ARMS: [&str; 4] = [FIRST, "v2", "v3", "v4"];
/// No reward comes, so the weights stay where they begin.
const MANIFEST: &str = "\
apiVersion: starling/v1
kind: Rollout
metadata: { name: arms }
spec:
  model: arms
  from: v1
  strategy:
    bandit:
      arms:
        - { name: a, version: v1, weight: 25% }
        - { name: b, version: v2, weight: 25% }
        - { name: c, version: v3, weight: 25% }
        - { name: d, version: v4, weight: 25% }
      policy: { thompson: {} }
      reward: { conversion: {} }
      publishEvery: 1s
";

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut starling = Starling::start(bench, 1)?;
    starling.serve("plain", &bench.models.tiny, by_default())?;
    for arm in ARMS {
        starling.push("arms", arm, &bench.models.tiny, by_default(), 1)?;
    }
    let manifest = bench.file("bandit.yaml");
    std::fs::write(&manifest, MANIFEST)?;
    starling.apply(&manifest)?;
    let entries = [
        starling.entry(0, Protocol::Grpc, "plain", CLIENTS)?,
        starling.entry(0, Protocol::Grpc, "arms", CLIENTS)?,
    ];
    let measurements = bench.alternate(NAME, &entries)?;
    let [plain, arms] = &measurements;
    let rows = vec![Row::new(
        NAME,
        "requests per second, a bandit of 4 arms / a plain route, 16 clients",
        Asked::AtLeast(0.95),
        ratios(&arms.rates(), &plain.rates()),
    )];
    Ok(Found { rows, measurements: measurements.into() })
}
