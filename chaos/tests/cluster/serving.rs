//! What clients see of a node whose models hang, break down, or get more than
//! they can do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::future::join_all;
use starling_chaos::admin::channel;
use starling_chaos::cluster::{Cluster, ClusterConfig, START_LIMIT};
use starling_chaos::wait;
use starling_proto::admin as wire;
use starling_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::model_infer_request::InferInputTensor;
use starling_proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelReadyRequest, ServerReadyRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::{my_turn, site};

const LIMIT: Duration = Duration::from_secs(30);
const HANGING: &str = "hanging";
const HEALTHY: &str = "healthy";
/// Of `slow_loop`: more trips than there is time.
const FOR_EVER: i64 = i64::MAX;

fn test_model(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join("models/testdata").join(format!("{name}.onnx"))
}

/// Runs one by one, on one dedicated instance, for half a second at most.
fn settings() -> wire::VersionSettings {
    wire::VersionSettings {
        batching: Some(wire::BatchingSettings { disabled: true, ..Default::default() }),
        max_run_time_ms: 500,
        mode: wire::InstanceMode::Dedicated.into(),
        ..Default::default()
    }
}

async fn serve(
    cluster: &mut Cluster,
    model: &str,
    file: &str,
    settings: wire::VersionSettings,
) -> Result<()> {
    let bytes = Bytes::from(std::fs::read(test_model(file))?);
    cluster.admin()?.push_with(model, "v1", bytes, Some(settings)).await?;
    let nodes = cluster.running().len();
    cluster.version_ready(model, "v1", nodes, START_LIMIT).await
}

/// One row for `slow_loop`.
fn loop_request(trips: i64) -> ModelInferRequest {
    request(HANGING, "trips", "INT64", vec![1, 1], trips.to_le_bytes().to_vec())
}

/// One row for `matmul`.
fn healthy_request() -> ModelInferRequest {
    request(HEALTHY, "x", "FP32", vec![1, 64], vec![0; 256])
}

fn request(model: &str, input: &str, datatype: &str, shape: Vec<i64>, raw: Vec<u8>) -> ModelInferRequest {
    let input = InferInputTensor {
        name: input.to_owned(),
        datatype: datatype.to_owned(),
        shape,
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    }
}

#[derive(Clone)]
struct Client(GrpcInferenceServiceClient<Channel>);

impl Client {
    fn of(node: SocketAddr) -> Result<Self> {
        Ok(Self(GrpcInferenceServiceClient::new(channel(&node)?)))
    }

    async fn infer(&self, request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
        let mut client = self.0.clone();
        let answer = tokio::time::timeout(LIMIT, client.model_infer(request)).await;
        answer
            .map_err(|_| Status::unknown("no answer within the limit of the test"))?
            .map(tonic::Response::into_inner)
    }

    async fn model_ready(&self, model: &str) -> Result<bool> {
        let request = ModelReadyRequest { name: model.to_owned(), version: String::new() };
        Ok(self.0.clone().model_ready(request).await?.into_inner().ready)
    }

    async fn server_ready(&self) -> Result<bool> {
        Ok(self.0.clone().server_ready(ServerReadyRequest {}).await?.into_inner().ready)
    }
}

/// Status and head of an answer over HTTP/1.1.
fn http(address: SocketAddr, request: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, answer))
}

fn get(address: SocketAddr, path: &str) -> Result<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
    Ok(http(address, &request)?.0)
}

#[tokio::test]
async fn a_run_that_hangs_is_ended_and_neither_its_model_nor_another_one_stops_answering() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = Cluster::start(&site()?, ClusterConfig::patient(), 1).await?;
    serve(&mut cluster, HANGING, "slow_loop", settings()).await?;
    serve(&mut cluster, HEALTHY, "matmul", wire::VersionSettings::default()).await?;
    let client = Client::of(cluster.node(0).grpc())?;

    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.infer(loop_request(FOR_EVER)).await }
    });
    let mut answered_meanwhile = 0;
    while !hanging.is_finished() {
        client.infer(healthy_request()).await.context("the healthy model")?;
        answered_meanwhile += 1;
    }
    let status = hanging.await?.expect_err("it cannot end");
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("max_run_time of 500ms"), "{status}");
    assert!(answered_meanwhile > 10, "{answered_meanwhile}");

    client.infer(loop_request(1)).await.context("the instance that replaced it")?;
    assert!(client.model_ready(HANGING).await? && client.server_ready().await?);
    Ok(())
}

#[tokio::test]
async fn a_version_that_breaks_down_again_and_again_is_left_out_until_it_works_again() -> Result<()> {
    let _turn = my_turn().await;
    let config = ClusterConfig::patient().arg("--health-probe-interval", "200ms");
    let mut cluster = Cluster::start(&site()?, config, 2).await?;
    serve(&mut cluster, HANGING, "slow_loop", settings()).await?;
    let (first, second) = (cluster.node(0).grpc(), cluster.node(1).grpc());
    let (client, other) = (Client::of(first)?, Client::of(second)?);
    let node_of = |response: &ModelInferResponse| match &response.parameters["starling_node"].parameter_choice
    {
        Some(ParameterChoice::StringParam(node)) => node.clone(),
        Some(ParameterChoice::Int64Param(node)) => node.to_string(),
        Some(ParameterChoice::Uint64Param(node)) => node.to_string(),
        other => format!("{other:?}"),
    };
    let own = node_of(&client.infer(loop_request(1)).await?);
    let others = node_of(&other.infer(loop_request(1)).await?);
    assert_ne!(own, others);

    // Five in a row, before a probe gets its turn in between.
    let hanging = (0..5).map(|_| client.infer(loop_request(FOR_EVER)));
    for outcome in join_all(hanging).await {
        let code = outcome.expect_err("it cannot end").code();
        assert!(matches!(code, Code::Internal | Code::Unavailable | Code::ResourceExhausted), "{code:?}");
    }
    wait::until("the other node to answer for it", LIMIT, || async {
        let answered_by = node_of(&client.infer(loop_request(1)).await?);
        ensure!(answered_by == others, "node {answered_by} answers");
        Ok(())
    })
    .await?;
    // While one answers for the other, both are ready.
    assert!(client.model_ready(HANGING).await? && client.server_ready().await?);
    wait::until("it to answer itself again", LIMIT, || async {
        let answered_by = node_of(&client.infer(loop_request(1)).await?);
        ensure!(answered_by == own, "node {answered_by} answers");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_says_that_it_is_not_ready_while_its_only_copy_does_not_work() -> Result<()> {
    let _turn = my_turn().await;
    let config = ClusterConfig::patient().arg("--health-probe-interval", "200ms");
    let mut cluster = Cluster::start(&site()?, config, 1).await?;
    serve(&mut cluster, HANGING, "slow_loop", settings()).await?;
    let (grpc, rest, metrics) = (cluster.node(0).grpc(), cluster.node(0).rest(), cluster.node(0).metrics());
    let client = Client::of(grpc)?;
    assert_eq!((get(rest, "/v2/models/hanging/ready")?, get(metrics, "/readyz")?), (200, 200));

    let hanging = tokio::spawn({
        let client = client.clone();
        async move { join_all((0..5).map(|_| client.infer(loop_request(FOR_EVER)))).await }
    });
    wait::until("it to say so everywhere", LIMIT, || async {
        let asked_at = Instant::now();
        let said = (client.model_ready(HANGING).await?, client.server_ready().await?);
        let rest_said = (get(rest, "/v2/models/hanging/ready")?, get(metrics, "/readyz")?);
        ensure!(asked_at.elapsed() < Duration::from_secs(5), "health took {:?}", asked_at.elapsed());
        ensure!(said == (false, false) && rest_said != (200, 200), "{said:?} {rest_said:?}");
        Ok(())
    })
    .await?;
    hanging.await?;
    wait::until("it to be ready again", LIMIT, || async {
        ensure!(client.model_ready(HANGING).await? && client.server_ready().await?, "not yet");
        ensure!(get(rest, "/v2/models/hanging/ready")? == 200 && get(metrics, "/readyz")? == 200);
        Ok(())
    })
    .await?;
    client.infer(loop_request(1)).await?;
    Ok(())
}

#[tokio::test]
async fn more_than_can_be_done_is_refused_at_once_with_advice_and_the_rest_is_answered_in_time() -> Result<()>
{
    let _turn = my_turn().await;
    let mut cluster = Cluster::start(&site()?, ClusterConfig::patient(), 1).await?;
    serve(&mut cluster, HANGING, "slow_loop", wire::VersionSettings { max_run_time_ms: 0, ..settings() })
        .await?;
    let client = Client::of(cluster.node(0).grpc())?;

    // About 20 ms each, however fast the machine is.
    let mut trips = 4_000;
    loop {
        let began = Instant::now();
        client.infer(loop_request(trips)).await?;
        if began.elapsed() >= Duration::from_millis(20) {
            break;
        }
        trips *= 2;
    }
    for _ in 0..5 {
        client.infer(loop_request(trips)).await?;
    }
    let asked = (0..300).map(|_| client.infer(loop_request(trips)));
    let (mut answered, mut refused) = (0, 0);
    for outcome in join_all(asked).await {
        match outcome {
            Ok(_) => answered += 1,
            Err(status) if status.code() == Code::ResourceExhausted => {
                refused += 1;
                let pushback = status.metadata().get("grpc-retry-pushback-ms").context("no advice")?;
                ensure!(pushback.to_str()?.parse::<u64>()? >= 1);
                ensure!(status.message().contains(HANGING), "{status}");
            }
            Err(status) => bail!("{status}"),
        }
    }
    assert!(answered >= 10 && refused >= 100, "{answered} answered, {refused} refused");

    // Over REST while others ask for more than can be done.
    let rest = cluster.node(0).rest();
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let client = client.clone();
        crowd.spawn(async move {
            loop {
                if client.infer(loop_request(trips)).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
    }
    let body =
        format!(r#"{{"inputs":[{{"name":"trips","datatype":"INT64","shape":[1,1],"data":[{trips}]}}]}}"#);
    let post = format!(
        "POST /v2/models/hanging/infer HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let refusal = wait::until("a refusal over REST", LIMIT, || async {
        let post = post.clone();
        let (status, answer) = tokio::task::spawn_blocking(move || http(rest, &post)).await??;
        ensure!(status == 429, "{answer}");
        Ok(answer)
    })
    .await?;
    assert!(refusal.to_lowercase().contains("\r\nretry-after: 1\r\n"), "{refusal}");
    crowd.shutdown().await;
    Ok(())
}
