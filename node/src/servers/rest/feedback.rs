//! `POST /v1/feedback`: one object, an array of them, or a line each (NDJSON).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use starling_actors::feedback::item::{Answer, Feedback, ITEMS_MAX, Verdict};
use starling_actors::feedback::wire::from_wire;
use starling_proto::feedback::FeedbackItem;

use super::error::RestError;
use super::json_response;
use crate::feedback_json::{item_of_text, item_of_value};
use crate::servers::{Node, feedback, limits};

/// About a hundred thousand pieces.
const BODY_BYTES_MAX: usize = 16 << 20;
const LINES: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];

/// `?wait=counted`
#[derive(Debug, Deserialize)]
pub(super) struct Wishes {
    wait: Option<String>,
}

/// What a body holds.
enum Sent {
    One(Box<Result<Feedback, Answer>>),
    Many(Vec<Result<Feedback, Answer>>),
}

/// Answers each piece, in order; of many, those that were not taken are told by
/// their verdicts, and the status is 200.
pub(super) async fn record(
    State(node): State<Arc<Node>>,
    Query(Wishes { wait }): Query<Wishes>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RestError> {
    let wait_counted = match wait.as_deref() {
        None => false,
        Some("counted") => true,
        Some(other) => return Err(RestError::bad_request(format!("wait is '{other}', must be 'counted'"))),
    };
    limits::check_head(&headers, BODY_BYTES_MAX)?;
    let body = limits::read(body, BODY_BYTES_MAX, node.settings.header_read_timeout).await?;
    let sent = match has_lines(&headers) {
        true => Sent::Many(of_lines(&body)?),
        false => of_document(&body)?,
    };
    let timeout = node.settings.admin_timeout;
    match sent {
        Sent::One(item) => {
            let answers = feedback::record(&node, vec![*item], wait_counted, timeout).await?;
            let answer = answers.first().ok_or_else(|| RestError::bad_request("there is no feedback"))?;
            Ok(json_response(status_of(answer.verdict), &shown(answer)))
        }
        Sent::Many(mut items) => {
            let mut results = Vec::with_capacity(items.len());
            while !items.is_empty() {
                let rest = items.split_off(items.len().min(ITEMS_MAX));
                let answers = feedback::record(&node, items, wait_counted, timeout).await?;
                results.extend(answers.iter().map(shown));
                items = rest;
            }
            Ok(json_response(StatusCode::OK, &json!({ "results": results })))
        }
    }
}

fn has_lines(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    LINES.iter().any(|lines| kind.eq_ignore_ascii_case(lines))
}

fn of_lines(body: &[u8]) -> Result<Vec<Result<Feedback, Answer>>, RestError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| RestError::bad_request(format!("the body is not UTF-8: {error}")))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(lines.map(|line| parsed(item_of_text(line))).collect())
}

fn of_document(body: &[u8]) -> Result<Sent, RestError> {
    let document = serde_json::from_slice(body)
        .map_err(|error| RestError::bad_request(format!("the body is not JSON: {error}")))?;
    match document {
        Value::Array(items) => Ok(Sent::Many(items.into_iter().map(item_of_value).map(parsed).collect())),
        Value::Object(_) => Ok(Sent::One(Box::new(parsed(item_of_value(document))))),
        _ => Err(RestError::bad_request(
            "the body must be an object such as {\"decision\": \"…\", \"value\": 1}, or an array of such",
        )),
    }
}

fn parsed(item: Result<FeedbackItem, String>) -> Result<Feedback, Answer> {
    item.map_err(|reason| Answer::because(Verdict::Invalid, reason)).and_then(from_wire)
}

fn shown(answer: &Answer) -> Value {
    let mut shown = json!({ "verdict": answer.verdict.name(), "counted": answer.counted });
    if !answer.reason.is_empty() {
        shown["reason"] = Value::from(answer.reason.as_str());
    }
    shown
}

fn status_of(verdict: Verdict) -> StatusCode {
    match verdict {
        Verdict::Recorded | Verdict::Duplicate | Verdict::Retracted | Verdict::NotInExperiment => {
            StatusCode::OK
        }
        Verdict::Stored => StatusCode::ACCEPTED,
        Verdict::Late => StatusCode::GONE,
        Verdict::Unknown => StatusCode::NOT_FOUND,
        Verdict::OutOfRange | Verdict::Invalid => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn bodies_are_an_object_an_array_or_lines() {
        assert!(matches!(of_document(b"{\"decision\": \"A\", \"value\": 1}"), Ok(Sent::One(_))));
        let Ok(Sent::Many(items)) = of_document(b"[{\"decision\": \"A\", \"value\": 1}, 7]") else {
            panic!("an array is many");
        };
        assert_eq!(items.len(), 2);
        assert!(items.iter().all(Result::is_err));
        assert_eq!(of_lines(b"{}\n\n nonsense \n").unwrap().len(), 2);
        let refused = of_document(b"7").err().unwrap();
        assert!(refused.text().contains("must be an object"), "{}", refused.text());
        let kind =
            |kind: &str| has_lines(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]));
        assert!(kind("application/x-ndjson") && kind("Application/JSONL; charset=utf-8"));
        assert!(!kind("application/json"));
    }

    #[test]
    fn a_verdict_on_one_piece_is_a_status() {
        let statuses: Vec<u16> = Verdict::ALL.iter().map(|verdict| status_of(*verdict).as_u16()).collect();
        assert_eq!(statuses, [200, 202, 200, 200, 200, 410, 400, 404, 400]);
    }
}
