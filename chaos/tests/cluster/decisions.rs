//! What was decided, and what the request said of itself, can be asked of any node.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use starling_chaos::caller::{Caller, Targets};
use starling_chaos::cluster::{Cluster, ClusterConfig};
use starling_chaos::digits::{self, MODEL};
use starling_chaos::process::run_to_end;
use starling_proto::inference::InferParameter;
use starling_proto::inference::infer_parameter::ParameterChoice;

use crate::{my_turn, site};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_decision_is_found_from_any_node_with_the_variables_of_its_request() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 2).await?;
    cluster.serve_digits("v2", &site.digits_v2()).await?;
    let (first, second) = (cluster.nodes()[0].grpc(), cluster.nodes()[1].grpc());
    let home = cluster.nodes()[0].node_id().context("the first node has an id")?;

    let image = digits::read(&site.models)?.remove(0);
    let mut request = image.request();
    request.id = "order-17".to_owned();
    for (name, choice) in [
        ("amount", ParameterChoice::DoubleParam(12.5)),
        ("channel", ParameterChoice::StringParam("web".to_owned())),
        ("is_new", ParameterChoice::BoolParam(true)),
        ("visits", ParameterChoice::Int64Param(7)),
    ] {
        request.parameters.insert(name.to_owned(), InferParameter { parameter_choice: Some(choice) });
    }
    let mut client = Caller::new(Targets::new(vec![first]), 0);
    let response = client.infer(&request, |_| {}).await.map_err(|miss| anyhow!(miss.message))?;
    let decision = match &response.parameters.get("starling_decision").context("a decision")?.parameter_choice
    {
        Some(ParameterChoice::StringParam(text)) => text.clone(),
        other => panic!("{other:?}"),
    };

    // Asked of the other node, which asks the one that the id names.
    let server = second.to_string();
    let asked = ["--server", &server, "get", "decisions", MODEL, "--decision", &decision, "-o", "json"];
    let (code, text) = run_to_end(&site, &asked, COMMAND_LIMIT).await?;
    assert_eq!(code, Some(0), "{text}");
    let records: Value = serde_json::from_str(&text)?;
    let record = &records[0];
    assert_eq!(records.as_array().map(Vec::len), Some(1), "{text}");
    assert_eq!(record["decision"], json!(decision));
    assert_eq!((&record["model"], &record["version"]), (&json!(MODEL), &json!("v2")));
    assert_eq!((&record["request_id"], &record["outcome"]), (&json!("order-17"), &json!("OK")));
    assert_eq!((&record["answered_by"], &record["routing_key"]), (&json!(home), &json!("absent")));
    assert_eq!(
        record["parameters"],
        json!({ "amount": 12.5, "channel": "web", "is_new": true, "visits": 7 })
    );
    assert!(record["latency_us"].as_u64().is_some_and(|micros| micros > 0), "{text}");

    let asked = ["--server", &server, "get", "decisions", "--decision", "AAAA"];
    let (code, text) = run_to_end(&site, &asked, COMMAND_LIMIT).await?;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("'AAAA' is not a decision id"), "{text}");
    Ok(())
}
