//! `starling get decisions`: what the nodes decided of late. Every node is asked,
//! or the one that a decision's id names.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use starling_proto::admin::decision_variable::Value;
use starling_proto::admin::{DecisionRecord, DecisionVariable, ListDecisionsRequest, ListRequest, Node};
use starling_raft::state::decision::Decision;

use super::CliError;
use super::connection::admin;
use super::output::{self, OutputFormat};

const NODE_LIMIT: Duration = Duration::from_secs(5);
const COLUMNS: &[&str] =
    &["decision", "model", "version", "epoch", "arrived", "latency", "outcome", "ran on", "parameters"];

/// Asks, and prints, newest first. A node that does not answer is named on stderr.
pub async fn run(
    server: &str,
    format: OutputFormat,
    model: String,
    decision: String,
    limit: u32,
) -> Result<(), CliError> {
    let home = match decision.as_str() {
        "" => None,
        text => {
            Some(text.parse::<Decision>().map_err(|error| CliError::Local(error.to_string()))?.node.get())
        }
    };
    let request = ListRequest { model: String::new(), stale: true };
    let nodes = admin(server).await?.list_nodes(request).await?.into_inner().nodes;
    let mut records = Vec::new();
    for node in nodes.iter().filter(|node| home.is_none_or(|home| home == node.node_id)) {
        let asked = ListDecisionsRequest { model: model.clone(), decision: decision.clone(), limit };
        match tokio::time::timeout(NODE_LIMIT, ask(node, asked)).await {
            Ok(Ok(found)) => records.extend(found),
            Ok(Err(error)) => eprintln!("warning: node {}: {error}", node.node_id),
            Err(_) => eprintln!("warning: node {} did not answer within {NODE_LIMIT:?}", node.node_id),
        }
    }
    records.sort_by_key(|record| std::cmp::Reverse(record.arrived_unix_us));
    records.truncate(limit as usize);
    if records.is_empty() && !decision.is_empty() {
        let home = home.unwrap_or_default();
        return Err(CliError::No(format!(
            "decision {decision} is not among the newest that node {home} keeps (config key `decision_records`)"
        )));
    }
    match format {
        OutputFormat::Table | OutputFormat::Wide => {
            output::print_table(COLUMNS, records.iter().map(row).collect())
        }
        OutputFormat::Json | OutputFormat::Yaml => {
            output::print_document(format, &records.iter().map(document).collect::<Vec<_>>())
        }
    }
}

async fn ask(node: &Node, request: ListDecisionsRequest) -> Result<Vec<DecisionRecord>, CliError> {
    let mut client = admin(&node.grpc_address).await?;
    Ok(client.list_decisions(request).await?.into_inner().records)
}

fn row(record: &DecisionRecord) -> Vec<String> {
    let parameters: Vec<String> = record
        .parameters
        .iter()
        .map(|parameter| match value(parameter) {
            Json::String(text) => format!("{}={text}", parameter.name),
            other => format!("{}={other}", parameter.name),
        })
        .collect();
    vec![
        record.decision.clone(),
        record.model.clone(),
        record.version.clone(),
        record.epoch.to_string(),
        arrived(record),
        format!("{:.2} ms", record.latency_us as f64 / 1_000.0),
        record.outcome.clone(),
        if record.answered_by == 0 { "-".to_owned() } else { record.answered_by.to_string() },
        parameters.join(" "),
    ]
}

/// Parameters as an object from name to value.
fn document(record: &DecisionRecord) -> Json {
    let parameters: Map<String, Json> =
        record.parameters.iter().map(|parameter| (parameter.name.clone(), value(parameter))).collect();
    json!({
        "decision": record.decision,
        "model": record.model,
        "version": record.version,
        "ordinal": record.ordinal,
        "epoch": record.epoch,
        "request_id": record.request_id,
        "principal": record.principal,
        "routing_key": record.routing_key,
        "parameters": parameters,
        "parameters_left_out": record.parameters_left_out,
        "arrived": arrived(record),
        "arrived_unix_us": record.arrived_unix_us,
        "latency_us": record.latency_us,
        "outcome": record.outcome,
        "answered_by": record.answered_by,
    })
}

fn value(parameter: &DecisionVariable) -> Json {
    match &parameter.value {
        None => Json::Null,
        Some(Value::BoolValue(value)) => json!(value),
        Some(Value::Int64Value(value)) => json!(value),
        Some(Value::DoubleValue(value)) => json!(value),
        Some(Value::StringValue(value)) => json!(value),
        Some(Value::Uint64Value(value)) => json!(value),
    }
}

fn arrived(record: &DecisionRecord) -> String {
    let micros = i64::try_from(record.arrived_unix_us).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| "-".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_every_kind_are_shown_by_name() {
        let parameter = |name: &str, value| DecisionVariable { name: name.to_owned(), value: Some(value) };
        let record = DecisionRecord {
            decision: "d".into(),
            outcome: "OK".into(),
            arrived_unix_us: 1_700_000_000_000_000,
            latency_us: 1_250,
            parameters: vec![
                parameter("amount", Value::DoubleValue(12.5)),
                parameter("channel", Value::StringValue("web".into())),
                parameter("is_new", Value::BoolValue(true)),
                parameter("visits", Value::Uint64Value(7)),
            ],
            ..DecisionRecord::default()
        };
        let parameters = json!({ "amount": 12.5, "channel": "web", "is_new": true, "visits": 7 });
        assert_eq!(document(&record)["parameters"], parameters);
        assert_eq!(row(&record)[4..7], ["2023-11-14T22:13:20Z", "1.25 ms", "OK"]);
        assert_eq!(row(&record)[7..], ["-", "amount=12.5 channel=web is_new=true visits=7"]);
    }
}
