//! `ListDecisions`: what this node decided of late.

use std::sync::Arc;

use starling_actors::inference::decision_records::{DecisionRecord, KeySource, RecordFilter};
use starling_proto::admin::decision_variable::Value;
use starling_proto::admin::{
    DecisionRecord as DecisionRecordWire, DecisionVariable, ListDecisionsRequest, ListDecisionsResponse,
};
use starling_proto::inference::infer_parameter::ParameterChoice;
use tonic::Status;

use super::invalid;
use crate::servers::Node;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 10_000;

pub(super) async fn list(
    node: Arc<Node>,
    request: ListDecisionsRequest,
) -> Result<ListDecisionsResponse, Status> {
    let running = node.running()?;
    let ListDecisionsRequest { model, decision, limit } = request;
    let decision = match decision.as_str() {
        "" => None,
        text => Some(text.parse().map_err(invalid)?),
    };
    let limit = if limit == 0 { LIMIT_DEFAULT } else { limit.min(LIMIT_MAX) } as usize;
    let records = running.inference.decision_records(&RecordFilter { model, decision, limit });
    Ok(ListDecisionsResponse { records: records.into_iter().map(record_wire).collect() })
}

fn record_wire(record: DecisionRecord) -> DecisionRecordWire {
    let version = &record.version;
    DecisionRecordWire {
        decision: record.decision.to_string(),
        model: version.key.model.to_string(),
        version: version.version.label.to_string(),
        ordinal: version.version.ordinal.get(),
        epoch: record.decision.epoch.get(),
        request_id: record.request_id,
        principal: record.principal.as_str().to_owned(),
        routing_key: match record.key {
            KeySource::Absent => "absent",
            KeySource::Header => "header",
            KeySource::Parameter => "parameter",
        }
        .into(),
        parameters: record.parameters.into_iter().map(variable_wire).collect(),
        parameters_left_out: record.parameters_left_out,
        arrived_unix_us: record.arrived_unix_micros,
        latency_us: u64::try_from(record.latency.as_micros()).unwrap_or(u64::MAX),
        outcome: record.outcome.into(),
        answered_by: record.answered_by.map_or(0, |node_id| node_id.get()),
    }
}

fn variable_wire((name, choice): (String, ParameterChoice)) -> DecisionVariable {
    let value = match choice {
        ParameterChoice::BoolParam(value) => Value::BoolValue(value),
        ParameterChoice::Int64Param(value) => Value::Int64Value(value),
        ParameterChoice::DoubleParam(value) => Value::DoubleValue(value),
        ParameterChoice::StringParam(value) => Value::StringValue(value),
        ParameterChoice::Uint64Param(value) => Value::Uint64Value(value),
    };
    DecisionVariable { name, value: Some(value) }
}
