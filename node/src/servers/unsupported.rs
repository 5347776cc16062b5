//! Parts of the protocol that are deliberately not there, and what is said about
//! each: the reason, and what to do instead. Over gRPC it is UNIMPLEMENTED, over
//! REST 501; none of them is among the extensions that the server names.

use starling_actors::inference::InferError;
use tonic::Status;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsupported {
    SharedMemory,
    Trace,
    Logging,
    Generate,
    Sequences,
}

impl Unsupported {
    /// What of a request asks for it.
    pub(super) fn of(self, part: &str) -> InferError {
        InferError::Unimplemented(format!("{part}: {}", self.text()))
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::SharedMemory => {
                "shared memory is not supported: a request may run on another node; send the contents in raw_input_contents, over REST as binary tensor data"
            }
            Self::Trace => {
                "trace settings are not supported: every answer names its request in x-request-id and its decision in x-starling-decision, and the log lines of the request carry both"
            }
            Self::Logging => {
                "log settings cannot be changed over the wire: set log_level and log_format where the node is started"
            }
            Self::Generate => {
                "generate is not supported: models take and give tensors; send them to infer, or over one gRPC stream to ModelStreamInfer"
            }
            Self::Sequences => {
                "sequences are not supported: no state is kept between requests; give the state to the model as an input and take it back as an output"
            }
        }
    }
}

impl From<Unsupported> for Status {
    fn from(part: Unsupported) -> Self {
        Self::unimplemented(part.text())
    }
}
