//! Rules choose versions by what requests say, over gRPC and REST, on every node
//! alike; and any node explains what was decided.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use starling_chaos::cluster::{Cluster, ClusterConfig, START_LIMIT};
use starling_chaos::digits::{self, MODEL, Prediction};
use starling_chaos::rollouts;
use starling_chaos::scenarios::SETTLE_LIMIT;
use starling_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::{InferParameter, ModelInferRequest};
use tonic::Request;
use tonic::transport::Endpoint;

use crate::{my_turn, site};

const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Versions are in the cluster already, so the manifest brings none.
const MANIFEST: &str = "\
apiVersion: starling/v1
kind: Model
metadata: { name: digits }
spec:
  versions: {}
  route: { v1: 100% }
  rules:
    - { name: gold, when: [{ parameter: tier, equals: gold }], version: v2 }
    - { name: regulars, when: [{ parameter: visits, matches: '^[0-9]{3,}$' }], version: v2 }
    - { name: at-home, when: [{ metadata: x-country, in: [de, at] }], version: v2 }
    - { name: vip, when: [{ parameter: vip, equals: 'true' }], portion: 0%, version: v2 }
";

async fn with_rules() -> Result<Cluster> {
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 2).await?;
    cluster.serve_digits("v1", &site.digits_v1()).await?;
    cluster.admin()?.push(MODEL, "v2", &site.digits_v2()).await?;
    cluster.version_ready(MODEL, "v2", 2, START_LIMIT).await?;
    let manifest = cluster.folder().join("rules.yaml");
    std::fs::write(&manifest, MANIFEST)?;
    let said = rollouts::apply(&mut cluster, &manifest).await?;
    assert!(said.contains("route has 4 rules"), "{said}");
    let said = rollouts::apply(&mut cluster, &manifest).await?;
    assert!(said.contains("model digits: nothing changed"), "{said}");
    let epoch = cluster.admin()?.routes(MODEL).await?.first().context("a route")?.epoch;
    for index in 0..2 {
        cluster.applied(index, epoch, SETTLE_LIMIT).await?;
    }
    Ok(cluster)
}

fn request(cluster: &Cluster, parameters: &[(&str, ParameterChoice)]) -> Result<ModelInferRequest> {
    let mut request = digits::read(&cluster.site().models)?.remove(0).request();
    for (name, choice) in parameters {
        let parameter = InferParameter { parameter_choice: Some(choice.clone()) };
        request.parameters.insert((*name).to_owned(), parameter);
    }
    Ok(request)
}

/// Over gRPC: the version, and the decision.
async fn ask(
    node: SocketAddr,
    request: ModelInferRequest,
    country: Option<&'static str>,
) -> Result<(String, String)> {
    let channel = Endpoint::from_shared(format!("http://{node}"))?.connect().await?;
    let mut request = Request::new(request);
    request.set_timeout(CALL_LIMIT);
    if let Some(country) = country {
        request.metadata_mut().insert("x-country", country.parse()?);
    }
    let answer = GrpcInferenceServiceClient::new(channel).model_infer(request).await?.into_inner();
    let prediction = Prediction::read(&answer)?;
    Ok((prediction.version, prediction.decision))
}

/// Over REST: the version that answered, as its header says.
async fn post(node: SocketAddr, parameters: &Value, country: Option<&str>) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let input = json!({ "name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": vec![0.0; 64] });
    let body = json!({ "inputs": [input], "parameters": parameters }).to_string();
    let header = country.map(|country| format!("X-Country: {country}\r\n")).unwrap_or_default();
    let head = format!(
        "POST /v2/models/{MODEL}/infer HTTP/1.1\r\nhost: node\r\n{header}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let talk = async {
        let mut stream = tokio::net::TcpStream::connect(node).await?;
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(CALL_LIMIT, talk).await??;
    let line = answer.lines().find_map(|line| line.strip_prefix("x-starling-version: "));
    line.map(str::to_owned).with_context(|| format!("no version in {answer}"))
}

#[tokio::test]
async fn what_a_request_says_of_itself_chooses_its_version_on_every_node_and_port() -> Result<()> {
    let _turn = my_turn().await;
    let cluster = with_rules().await?;
    let text = |text: &str| ParameterChoice::StringParam(text.to_owned());
    for node in cluster.nodes() {
        for (parameters, country, expected) in [
            (vec![], None, "v1"),
            (vec![("tier", text("gold"))], None, "v2"),
            (vec![("tier", text("silver"))], Some("fr"), "v1"),
            (vec![("visits", ParameterChoice::Int64Param(1_234))], None, "v2"),
            (vec![("visits", ParameterChoice::Int64Param(7))], None, "v1"),
            (vec![("vip", ParameterChoice::BoolParam(true))], None, "v1"),
            (vec![], Some("at"), "v2"),
        ] {
            let asked = request(&cluster, &parameters)?;
            let (version, _) = ask(node.grpc(), asked, country).await?;
            assert_eq!(version, expected, "{parameters:?} {country:?}");
        }
        for (parameters, country, expected) in [
            (json!({}), None, "v1"),
            (json!({ "tier": "gold" }), None, "v2"),
            (json!({ "visits": 1_234 }), None, "v2"),
            (json!({ "visits": 12.5 }), None, "v1"),
            (json!({ "vip": true }), None, "v1"),
            (json!({}), Some("de"), "v2"),
            (json!({}), Some("fr"), "v1"),
        ] {
            let version = post(node.rest(), &parameters, country).await?;
            assert_eq!(version, expected, "{parameters} {country:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn any_node_explains_a_decision_also_after_the_route_has_moved_on() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = with_rules().await?;
    let text = |text: &str| ParameterChoice::StringParam(text.to_owned());
    let home = cluster.nodes()[1].grpc();
    let gold = request(&cluster, &[("tier", text("gold")), ("routing_key", text("ada"))])?;
    let (version, by_rule) = ask(home, gold, None).await?;
    assert_eq!(version, "v2");
    let plain = request(&cluster, &[("routing_key", text("ada"))])?;
    let (version, by_weight) = ask(home, plain, None).await?;
    assert_eq!(version, "v1");
    let moved = cluster.admin()?.set_route(MODEL, &[("v2", 1_000_000)]).await?.log_index;

    let explained = explain(&mut cluster, &[&by_rule]).await?;
    assert_eq!(explained["version"], json!("v2"));
    assert_eq!(kinds(&explained), ["made", "route", "ruleTaken"]);
    assert_eq!(explained["steps"][2]["says"], json!("rule 1 'gold' decided: v2"));
    let explained = explain(&mut cluster, &[&by_weight]).await?;
    assert_eq!((&explained["version"], &explained["propensity"]), (&json!("v1"), &json!(1.0)));
    assert_eq!(kinds(&explained), ["made", "route", "noRule", "arm"]);
    let bucket = explained["steps"][3]["bucket"].clone();

    cluster.applied(0, moved, SETTLE_LIMIT).await?;
    let of_key = ["--key", "ada", "--model", MODEL];
    let now = explain(&mut cluster, &of_key).await?;
    assert_eq!(now["version"], json!("v2"));
    let at = (moved - 1).to_string();
    let before = explain(&mut cluster, &[&of_key[..], &["--at", &at]].concat()).await?;
    assert_eq!(before["version"], json!("v1"));
    let steps = before["steps"].as_array().context("steps")?;
    assert_eq!(steps.last().context("a step")?["bucket"], bucket, "the same draw as that of the decision");
    let gold =
        explain(&mut cluster, &[&of_key[..], &["--at", &at, "--parameter", "tier=gold"]].concat()).await?;
    assert_eq!(gold["version"], json!("v2"));

    let (code, said) = rollouts::starling_exit(&mut cluster, &["explain", "nonsense"]).await?;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("is not a decision id"), "{said}");
    Ok(())
}

async fn explain(cluster: &mut Cluster, what: &[&str]) -> Result<Value> {
    let words = [&["explain"], what, &["-o", "json"]].concat();
    let text = rollouts::starling(cluster, &words).await?;
    serde_json::from_str(&text).map_err(|error| anyhow!("{error} in {text}"))
}

fn kinds(explained: &Value) -> Vec<&str> {
    let steps = explained["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    steps.iter().filter_map(|step| step["kind"].as_str()).collect()
}
