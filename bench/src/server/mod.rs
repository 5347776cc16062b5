//! What the generator asks a server besides inferences: signature, readiness,
//! statistics.

mod grpc;
mod rest;

use std::ops::Sub;
use std::time::Duration;

use serde::Serialize;

use crate::BenchError;
use crate::load::Protocol;

/// Each question must be answered within.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// One input of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// As the protocol writes it, such as FP32.
    pub datatype: String,
    /// -1 for an axis of any length.
    pub shape: Vec<i64>,
}

/// What a model takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The model's name.
    pub model: String,
    /// The version that was asked for; empty: the server chooses.
    pub version: String,
    /// In the server's order.
    pub inputs: Vec<TensorSpec>,
}

/// Cumulative counts of a model, over all its versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Runs of the model.
    pub executions: u64,
    /// Rows.
    pub inferences: u64,
    /// Successful requests, from their entry to the end of their answer.
    pub success: Spent,
    /// Waiting.
    pub queue: Spent,
    /// Preparing inputs.
    pub input: Spent,
    /// Computing.
    pub infer: Spent,
    /// Preparing outputs.
    pub output: Spent,
}

/// How often, and how long altogether.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Requests.
    pub count: u64,
    /// Nanoseconds of all of them.
    pub nanos: u64,
}

impl Sub for Spent {
    type Output = Self;

    /// What came since; nothing where the server was started anew.
    fn sub(self, earlier: Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            nanos: self.nanos.saturating_sub(earlier.nanos),
        }
    }
}

impl Spent {
    fn mean_us(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.nanos as f64 / self.count as f64 / 1_000.0 }
    }
}

/// Means per request on the server's side, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ServerTimes {
    /// From entry to the end of the answer.
    pub request_us: f64,
    /// Waiting.
    pub queue_us: f64,
    /// Preparing inputs.
    pub input_us: f64,
    /// Computing.
    pub infer_us: f64,
    /// Preparing outputs.
    pub output_us: f64,
    /// Rows per run of the model.
    pub batch_mean: f64,
}

impl ServerTimes {
    /// What happened between two readings; `None`: no request was answered.
    pub fn between(before: &Statistics, after: &Statistics) -> Option<Self> {
        let success = after.success - before.success;
        if success.count == 0 {
            return None;
        }
        let runs = after.executions.saturating_sub(before.executions);
        let rows = after.inferences.saturating_sub(before.inferences);
        Some(Self {
            request_us: success.mean_us(),
            queue_us: (after.queue - before.queue).mean_us(),
            input_us: (after.input - before.input).mean_us(),
            infer_us: (after.infer - before.infer).mean_us(),
            output_us: (after.output - before.output).mean_us(),
            batch_mean: if runs == 0 { 0.0 } else { rows as f64 / runs as f64 },
        })
    }

    /// Everything but computing.
    pub fn besides_compute_us(&self) -> f64 {
        self.queue_us + self.input_us + self.output_us
    }

    /// The four parts, of the whole.
    pub fn accounted_for(&self) -> f64 {
        (self.besides_compute_us() + self.infer_us) / self.request_us
    }
}

/// A server of the protocol, and one model there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModel {
    /// HOST:PORT of the protocol's port.
    pub server: String,
    /// Over what it is asked.
    pub protocol: Protocol,
    /// The model.
    pub model: String,
    /// Empty: the server chooses.
    pub version: String,
}

impl ServedModel {
    /// The signature of a model that is ready. Errors: nobody there, no such model,
    /// not ready.
    pub async fn signature(&self) -> Result<Signature, BenchError> {
        self.check_address()?;
        let work = async {
            match self.protocol {
                Protocol::Grpc => grpc::signature(self).await,
                Protocol::Rest | Protocol::RestBinary => rest::signature(self).await,
            }
        };
        self.in_time(work).await
    }

    /// The model's statistics, or `None` where the server does not offer them.
    pub async fn statistics(&self) -> Option<Statistics> {
        let work = async {
            match self.protocol {
                Protocol::Grpc => grpc::statistics(self).await,
                Protocol::Rest | Protocol::RestBinary => rest::statistics(self).await,
            }
        };
        self.in_time(work).await.ok()
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
        tokio::time::timeout(QUESTION_TIMEOUT, work).await.unwrap_or_else(|_| {
            Err(self.unreachable(format!("no answer within {} s", QUESTION_TIMEOUT.as_secs())))
        })
    }

    fn check_address(&self) -> Result<(), BenchError> {
        let port = self.server.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            return Err(BenchError::Address(self.server.clone()));
        }
        Ok(())
    }

    fn unreachable(&self, reason: impl ToString) -> BenchError {
        BenchError::Unreachable { server: self.server.clone(), reason: reason.to_string() }
    }

    fn not_ready(&self) -> BenchError {
        BenchError::NotReady { model: self.model.clone(), server: self.server.clone() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spent(count: u64, micros: u64) -> Spent {
        Spent { count, nanos: micros * 1_000 }
    }

    #[test]
    fn means_are_of_what_happened_between_the_readings() {
        let before = Statistics {
            executions: 10,
            inferences: 10,
            success: spent(10, 1_000),
            queue: spent(10, 100),
            ..Statistics::default()
        };
        let after = Statistics {
            executions: 15,
            inferences: 30,
            success: spent(30, 3_000),
            queue: spent(30, 500),
            input: spent(20, 100),
            infer: spent(20, 1_400),
            output: spent(20, 80),
        };
        let times = ServerTimes::between(&before, &after).unwrap();
        let expected = ServerTimes {
            request_us: 100.0,
            queue_us: 20.0,
            input_us: 5.0,
            infer_us: 70.0,
            output_us: 4.0,
            batch_mean: 4.0,
        };
        assert_eq!(times, expected);
        assert_eq!(times.besides_compute_us(), 29.0);
        assert!((times.accounted_for() - 0.99).abs() < 1e-9);
        assert_eq!(ServerTimes::between(&after, &after), None);
    }

    #[tokio::test]
    async fn an_address_without_a_port_is_refused_before_it_is_dialled() {
        let model = ServedModel {
            server: "localhost".into(),
            protocol: Protocol::Grpc,
            model: "m".into(),
            version: String::new(),
        };
        let error = model.signature().await.unwrap_err();
        assert_eq!(error.to_string(), "'localhost' is not HOST:PORT");
    }
}
