//! How soon all nodes of a cluster route by new weights, once they are committed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use starling_bench::figures::{Asked, Row};
use starling_bench::load::Protocol;
use starling_bench::payload::{Inputs, random_request};
use starling_proto::inference::ModelInferRequest;
use starling_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use starling_proto::inference::infer_parameter::ParameterChoice;
use tonic::transport::Channel;

use super::{Bench, Found};
use crate::harness::contestants::{FIRST, Starling, by_default};

const NAME: &str = "weights";
const NODES: usize = 3;
const CHANGES_PER_ROUND: usize = 100;
const VISIBLE_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut starling = Starling::start(bench, NODES)?;
    starling.serve("tiny", &bench.models.tiny, by_default())?;
    starling.push("tiny", "v2", &bench.models.tiny, by_default(), NODES)?;
    let admin = starling.admin()?;
    let served = starling.served(0, Protocol::Grpc, "tiny");
    let signature = bench.signature(&served)?;
    let request = random_request(&signature, &Inputs { batch: 1, ..Inputs::default() }, 0)?;
    let mut nodes = Vec::new();
    for node in 0..NODES {
        let server = format!("http://{}", starling.served(node, Protocol::Grpc, "tiny").server);
        nodes.push(bench.runtime.block_on(GrpcInferenceServiceClient::connect(server))?);
    }
    let (mut p99s, mut medians) = (Vec::new(), Vec::new());
    for round in 1..=bench.pace.rounds {
        eprintln!("  round {round} of {}", bench.pace.rounds);
        let mut took_ms = Vec::with_capacity(CHANGES_PER_ROUND);
        for change in 0..CHANGES_PER_ROUND {
            let of_first = 100_000 + 8_000 * change as u32;
            let weights = [(FIRST, of_first), ("v2", 1_000_000 - of_first)];
            let took = bench.runtime.block_on(async {
                let epoch = admin.set_route("tiny", &weights).await?.log_index;
                let committed = Instant::now();
                let seen = nodes.iter().map(|node| routes_by(node.clone(), &request, epoch));
                futures::future::try_join_all(seen).await?;
                anyhow::Ok(committed.elapsed())
            })?;
            took_ms.push(took.as_secs_f64() * 1e3);
        }
        took_ms.sort_by(f64::total_cmp);
        medians.push(took_ms[CHANGES_PER_ROUND / 2]);
        p99s.push(took_ms[CHANGES_PER_ROUND * 99 / 100]);
    }
    let rows = vec![
        Row::new(NAME, "new weights on all of 3 nodes after the commit, p99, ms", Asked::AtMost(50.0), p99s),
        Row::new(NAME, "the same, p50, ms", Asked::Nothing, medians),
    ];
    Ok(Found { rows, measurements: Vec::new() })
}

/// Asks a node again and again until it answers by this epoch or a later one.
async fn routes_by(
    mut node: GrpcInferenceServiceClient<Channel>,
    request: &ModelInferRequest,
    epoch: u64,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = node.model_infer(request.clone()).await?.into_inner();
        let said = answer.parameters.get("starling_epoch").and_then(|said| said.parameter_choice.as_ref());
        let Some(ParameterChoice::Int64Param(seen)) = said else {
            return Err(anyhow::anyhow!("the answer has no epoch"));
        };
        if u64::try_from(*seen).context("an epoch below 0")? >= epoch {
            return Ok(());
        }
        ensure!(begun.elapsed() < VISIBLE_LIMIT, "epoch {seen} instead of {epoch} after {VISIBLE_LIMIT:?}");
    }
}
