//! The load header of ORCA: a client (or its load balancer) that asks with
//! `endpoint-load-metrics-format` hears with its answer how loaded this node is.

use http::{HeaderMap, HeaderName, HeaderValue};

const FORMAT: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");
const METRICS: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// How the load is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadFormat {
    Text,
    Json,
}

impl LoadFormat {
    /// What a request asks for; unknown formats are as good as none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get(FORMAT)?.as_bytes() {
            b"text" => Some(Self::Text),
            b"json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Says it: requests that are queued, running or forwarded here.
    pub(super) fn write(self, requests_in_flight: usize, headers: &mut HeaderMap) {
        let text = match self {
            Self::Text => format!("TEXT named_metrics.requests_in_flight={requests_in_flight}"),
            Self::Json => {
                format!("JSON {{\"named_metrics\":{{\"requests_in_flight\":{requests_in_flight}}}}}")
            }
        };
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(METRICS, value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_load_is_said_in_the_format_that_is_asked_for_and_only_then() {
        assert_eq!(LoadFormat::of(&HeaderMap::new()), None);
        for (asked, expected) in [
            ("text", "TEXT named_metrics.requests_in_flight=3"),
            ("json", r#"JSON {"named_metrics":{"requests_in_flight":3}}"#),
        ] {
            let asked = HeaderMap::from_iter([(FORMAT, HeaderValue::from_static(asked))]);
            let mut said = HeaderMap::new();
            LoadFormat::of(&asked).unwrap().write(3, &mut said);
            assert_eq!(said.get(METRICS).unwrap(), expected);
        }
    }
}
