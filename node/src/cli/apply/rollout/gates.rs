//! `gates` of manifests: what must hold of the candidate.

use starling_raft::state::PartsPerMillion;
use starling_raft::state::rollouts::spec::{Gate, GateTest};

use super::super::fields::{Field, FieldError, alternative};
use super::{Read, count_or};

/// A gate says nothing with fewer.
pub const MIN_SAMPLES: u64 = 100;
/// How often a gate may be wrong, over all looks together: 5 %.
const ALPHA_PPM: u32 = 50_000;

const KNOWN: &[&str] = &[
    "errorRate",
    "errorRateDifference",
    "latencyP50",
    "latencyP90",
    "latencyP95",
    "latencyP99",
    "agreement",
    "rewardDifference",
];

/// A list of gates.
pub fn gates(field: &Field<'_>) -> Read<Vec<Gate>> {
    field.list()?.iter().map(gate).collect()
}

/// 5 %.
pub fn default_alpha() -> PartsPerMillion {
    PartsPerMillion::new(ALPHA_PPM).unwrap_or_default()
}

fn gate(field: &Field<'_>) -> Read<Gate> {
    let (chosen, inner) = alternative(field, KNOWN)
        .map_err(|error| FieldError { problem: format!("no such gate: {}", error.problem), ..error })?;
    let inner = inner.unwrap_or_else(|| field.nothing_at(chosen));
    let mut fields = inner.fields()?;
    let min_samples = count_or(&mut fields, "minSamples", MIN_SAMPLES);
    let alpha = fields.or("alpha", default_alpha(), Field::probability);
    let test = match chosen {
        "errorRate" => {
            let max = fields.need("max", "max: 1%");
            fields.finish()?;
            GateTest::ErrorRate { max: max?.portion()? }
        }
        "errorRateDifference" => {
            let max = fields.need("max", "max: 0.5%");
            fields.finish()?;
            GateTest::ErrorRateDifference { max: max?.portion()? }
        }
        "agreement" => {
            let min = fields.need("min", "min: 98%");
            fields.finish()?;
            GateTest::Agreement { min: min?.portion()? }
        }
        "rewardDifference" => {
            let max_drop = fields.need("maxDrop", "maxDrop: 0.01");
            fields.finish()?;
            GateTest::RewardDifference { max_drop: max_drop?.micro()? }
        }
        latency => {
            let max_ratio = fields.need("maxRatio", "maxRatio: 1.2");
            fields.finish()?;
            let percent: u32 = latency.trim_start_matches("latencyP").parse().unwrap_or(99);
            let quantile = PartsPerMillion::new(percent * 10_000).unwrap_or_default();
            GateTest::LatencyRatio { quantile, max_ratio: max_ratio?.micro()? }
        }
    };
    Ok(Gate { test, min_samples: min_samples?, alpha: alpha? })
}
