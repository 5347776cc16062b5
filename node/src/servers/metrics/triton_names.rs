//! What the versions on this node have counted, under the names that dashboards
//! made for Triton read: `nv_inference_*`. The same counters as ModelStatistics.

use std::fmt::Write;

use starling_actors::inference::Failures;
use starling_proto::inference::{InferStatistics, ModelStatistics, StatisticDuration};

/// One counter by model and version: its name, its help text, its value.
type Series = (&'static str, &'static str, fn(&ModelStatistics) -> u64);

const SERIES: [Series; 8] = [
    ("request_success", "Requests that were answered.", |counts| {
        of(counts, |parts| parts.success.as_ref()).count
    }),
    ("count", "Rows of batches that were answered.", |counts| counts.inference_count),
    ("exec_count", "Runs of the session.", |counts| counts.execution_count),
    ("request_duration_us", "Time of answered requests in microseconds, in all.", |counts| {
        micros(counts, |parts| parts.success.as_ref())
    }),
    ("queue_duration_us", "Of that, waiting in the queue.", |counts| {
        micros(counts, |parts| parts.queue.as_ref())
    }),
    ("compute_input_duration_us", "Of that, checking, decoding and concatenating.", |counts| {
        micros(counts, |parts| parts.compute_input.as_ref())
    }),
    ("compute_infer_duration_us", "Of that, running.", |counts| {
        micros(counts, |parts| parts.compute_infer.as_ref())
    }),
    ("compute_output_duration_us", "Of that, splitting and encoding.", |counts| {
        micros(counts, |parts| parts.compute_output.as_ref())
    }),
];

/// In Prometheus' text format; appended.
pub(super) fn write(counted: &[(ModelStatistics, Failures)], text: &mut String) {
    for (name, help, value) in SERIES {
        head(name, help, text);
        for (counts, _) in counted {
            let (model, version) = (&counts.name, &counts.version);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "nv_inference_{name}{{model=\"{model}\",version=\"{version}\"}} {}",
                value(counts)
            );
        }
    }
    head("request_failure", "Requests that were not answered, by why.", text);
    for (counts, failures) in counted {
        let (model, version) = (&counts.name, &counts.version);
        for (reason, count) in [
            ("OTHER", failures.other),
            ("BACKEND", failures.backend),
            ("CANCELED", failures.cancelled),
            ("REJECTED", failures.rejected),
        ] {
            let _ = writeln!(
                text,
                "nv_inference_request_failure{{model=\"{model}\",reason=\"{reason}\",version=\"{version}\"}} {count}"
            );
        }
    }
}

fn head(name: &str, help: &str, text: &mut String) {
    let _ = writeln!(text, "# HELP nv_inference_{name} {help}\n# TYPE nv_inference_{name} counter");
}

fn of(
    counts: &ModelStatistics,
    part: impl Fn(&InferStatistics) -> Option<&StatisticDuration>,
) -> StatisticDuration {
    counts.inference_stats.as_ref().and_then(part).copied().unwrap_or_default()
}

fn micros(counts: &ModelStatistics, part: impl Fn(&InferStatistics) -> Option<&StatisticDuration>) -> u64 {
    of(counts, part).ns / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashboards_made_for_triton_find_their_series() {
        let duration = |count, ns| Some(StatisticDuration { count, ns });
        let counts = ModelStatistics {
            name: "identity".into(),
            version: "1".into(),
            inference_count: 5,
            execution_count: 2,
            inference_stats: Some(InferStatistics {
                success: duration(3, 29_548_029),
                queue: duration(3, 249_755),
                compute_input: duration(3, 189_660),
                compute_infer: duration(3, 28_831_393),
                compute_output: duration(3, 261_663),
                ..InferStatistics::default()
            }),
            ..ModelStatistics::default()
        };
        let failures = Failures { rejected: 4, cancelled: 1, ..Failures::default() };
        let mut text = String::new();
        write(&[(counts, failures)], &mut text);
        for line in [
            "# TYPE nv_inference_request_success counter",
            r#"nv_inference_request_success{model="identity",version="1"} 3"#,
            r#"nv_inference_request_failure{model="identity",reason="OTHER",version="1"} 0"#,
            r#"nv_inference_request_failure{model="identity",reason="BACKEND",version="1"} 0"#,
            r#"nv_inference_request_failure{model="identity",reason="CANCELED",version="1"} 1"#,
            r#"nv_inference_request_failure{model="identity",reason="REJECTED",version="1"} 4"#,
            r#"nv_inference_count{model="identity",version="1"} 5"#,
            r#"nv_inference_exec_count{model="identity",version="1"} 2"#,
            r#"nv_inference_request_duration_us{model="identity",version="1"} 29548"#,
            r#"nv_inference_queue_duration_us{model="identity",version="1"} 249"#,
            r#"nv_inference_compute_input_duration_us{model="identity",version="1"} 189"#,
            r#"nv_inference_compute_infer_duration_us{model="identity",version="1"} 28831"#,
            r#"nv_inference_compute_output_duration_us{model="identity",version="1"} 261"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
