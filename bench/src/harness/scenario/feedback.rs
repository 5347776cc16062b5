//! How much feedback one node takes, in batches, each on its disk before it is
//! answered.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use starling_bench::figures::{Asked, Row};
use starling_bench::load::Protocol;
use starling_bench::payload::{Inputs, random_request};
use starling_proto::feedback::feedback_client::FeedbackClient;
use starling_proto::feedback::feedback_item::Said;
use starling_proto::feedback::{FeedbackItem, FeedbackVerdict, RecordRequest};
use starling_proto::inference::ModelInferRequest;
use starling_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use starling_proto::inference::infer_parameter::ParameterChoice;
use tonic::transport::Channel;

use super::{Bench, Found};
use crate::harness::contestants::{FIRST, Starling, by_default};

const NAME: &str = "feedback";
const ITEMS_PER_REQUEST: usize = 1_000;
const REQUESTS_AT_ONCE: usize = 4;
/// Each decision is rewarded once, so each round needs decisions of its own.
const DECISIONS_PER_ROUND: usize = 40_000;
const PREDICTIONS_AT_ONCE: usize = 32;
/// Ends by itself no sooner than the measurement.
const MANIFEST: &str = "\
apiVersion: starling/v1
kind: Rollout
metadata: { name: rewarded }
spec:
  model: rewarded
  from: v1
  strategy:
    bandit:
      arms:
        - { name: a, version: v1, weight: 50% }
        - { name: b, version: v2, weight: 50% }
      policy: { thompson: {} }
      reward: { conversion: {} }
      publishEvery: 1s
";

pub(super) fn run(bench: &Bench) -> Result<Found> {
    let mut starling = Starling::start(bench, 1)?;
    for arm in [FIRST, "v2"] {
        starling.push("rewarded", arm, &bench.models.tiny, by_default(), 1)?;
    }
    let manifest = bench.file("feedback.yaml");
    std::fs::write(&manifest, MANIFEST)?;
    starling.apply(&manifest)?;
    let served = starling.served(0, Protocol::Grpc, "rewarded");
    let signature = bench.signature(&served)?;
    let request = random_request(&signature, &Inputs { batch: 1, ..Inputs::default() }, 0)?;
    let server = format!("http://{}", served.server);
    let (predictions, feedback) = bench.runtime.block_on(async {
        let predictions = GrpcInferenceServiceClient::connect(server.clone()).await?;
        anyhow::Ok((predictions, FeedbackClient::connect(server).await?))
    })?;
    let mut per_second = Vec::new();
    for round in 1..=bench.pace.rounds {
        eprintln!("  round {round} of {}", bench.pace.rounds);
        let decisions = bench.runtime.block_on(decide(&predictions, &request))?;
        let begun = Instant::now();
        bench.runtime.block_on(reward(&feedback, decisions))?;
        per_second.push(DECISIONS_PER_ROUND as f64 / begun.elapsed().as_secs_f64());
    }
    let rows = vec![Row::new(
        NAME,
        "feedback taken by one node per second, batches of 1,000, on disk before each answer",
        Asked::AtLeast(20_000.0),
        per_second,
    )];
    Ok(Found { rows, measurements: Vec::new() })
}

/// Decisions, as many as a round rewards.
async fn decide(
    client: &GrpcInferenceServiceClient<Channel>,
    request: &ModelInferRequest,
) -> Result<Vec<String>> {
    let asked = (0..DECISIONS_PER_ROUND).map(|_| {
        let mut client = client.clone();
        async move {
            let answer = client.model_infer(request.clone()).await?.into_inner();
            let said =
                answer.parameters.get("starling_decision").and_then(|said| said.parameter_choice.clone());
            match said {
                Some(ParameterChoice::StringParam(decision)) => Ok(decision),
                _ => Err(anyhow::anyhow!("the answer has no decision")),
            }
        }
    });
    let mut answers = futures::stream::iter(asked).buffer_unordered(PREDICTIONS_AT_ONCE);
    let mut decisions = Vec::with_capacity(DECISIONS_PER_ROUND);
    while let Some(decision) = answers.next().await {
        decisions.push(decision?);
    }
    Ok(decisions)
}

/// All of them, each with a reward; every one must be credited.
async fn reward(client: &FeedbackClient<Channel>, decisions: Vec<String>) -> Result<()> {
    let requests: Vec<RecordRequest> = decisions.chunks(ITEMS_PER_REQUEST).map(request).collect();
    let sent = requests.into_iter().map(|request| {
        let mut client = client.clone();
        async move { client.record(request).await }
    });
    let mut answers = futures::stream::iter(sent).buffer_unordered(REQUESTS_AT_ONCE);
    while let Some(answer) = answers.next().await {
        let results = answer?.into_inner().results;
        let other = results.iter().find(|result| result.verdict() != FeedbackVerdict::Recorded);
        ensure!(other.is_none(), "a reward was not credited: {:?}", other.context("there is one")?);
    }
    Ok(())
}

fn request(decisions: &[String]) -> RecordRequest {
    let item = |(place, decision): (usize, &String)| FeedbackItem {
        decision: decision.clone(),
        said: Some(Said::Flag(place % 3 == 0)),
        ..FeedbackItem::default()
    };
    RecordRequest { items: decisions.iter().enumerate().map(item).collect(), wait_counted: false }
}
