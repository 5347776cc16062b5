//! Why a measurement cannot be made.

/// Said before or instead of a measurement. A request that fails during one is
/// counted, and is no error.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Not an address.
    #[error("'{0}' is not HOST:PORT")]
    Address(String),
    /// Nobody answers there.
    #[error("{server} cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        server: String,
        /// Why.
        reason: String,
    },
    /// The server answers, with a refusal.
    #[error("{message}")]
    Refused {
        /// The gRPC code, or the nearest to the HTTP status.
        code: tonic::Code,
        /// The server's words.
        message: String,
    },
    /// The model is known and cannot answer.
    #[error("model '{model}' at {server} is not ready; load it there or wait, then try again")]
    NotReady {
        /// Which.
        model: String,
        /// Where.
        server: String,
    },
    /// What was asked contradicts itself or the model's signature.
    #[error("{0}")]
    Asked(String),
    /// The server speaks, but not the protocol that was asked for.
    #[error("{server} does not answer as {protocol} does: {reason}; is that its {protocol} port?")]
    Protocol {
        /// Where.
        server: String,
        /// What was expected.
        protocol: &'static str,
        /// What came.
        reason: String,
    },
    /// This machine does not do what the generator needs of it.
    #[error("the load generator cannot run: {0}")]
    Local(#[from] std::io::Error),
}
