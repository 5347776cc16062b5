//! Why a command failed, and the exit code that says so.

use std::process::ExitCode;

use tonic::Code;

/// A failure, worded for whoever typed the command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The answer is no.
    #[error("{0}")]
    No(String),
    /// Wrong usage, or a local file that cannot be read.
    #[error("{0}")]
    Local(String),
    /// The node does not answer.
    #[error(
        "{server} cannot be reached: {reason}; is a node running there? (`--server HOST:GRPC_PORT` or STARLING_SERVER names another)"
    )]
    Unreachable {
        /// Where.
        server: String,
        /// Why.
        reason: String,
    },
    /// The node answers, with a refusal.
    #[error("{}", .0.message())]
    Refused(Box<tonic::Status>),
    /// A rollout went back to what was before it.
    #[error("{0}")]
    WentBack(String),
    /// A rollout goes on only if a person decides.
    #[error("{0}")]
    NeedsAPerson(String),
    /// It takes too long.
    #[error("{0}")]
    TimedOut(String),
}

impl CliError {
    /// As documented in `starling --help`.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::No(_) => 1,
            Self::Local(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::TimedOut(_) => 6,
            Self::WentBack(_) => 7,
            Self::NeedsAPerson(_) => 8,
            Self::Refused(status) => match status.code() {
                Code::Unavailable | Code::ResourceExhausted => 3,
                Code::NotFound => 4,
                Code::DeadlineExceeded => 6,
                _ => 5,
            },
        }
    }
}

impl From<tonic::Status> for CliError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_help_text() {
        let refused = |code| CliError::from(tonic::Status::new(code, "x")).code();
        assert_eq!(CliError::No("x".into()).code(), 1);
        assert_eq!(CliError::Local("x".into()).code(), 2);
        assert_eq!(CliError::Unreachable { server: "a".into(), reason: "b".into() }.code(), 3);
        assert_eq!(refused(Code::Unavailable), 3);
        assert_eq!(refused(Code::NotFound), 4);
        assert_eq!(refused(Code::FailedPrecondition), 5);
        assert_eq!(refused(Code::InvalidArgument), 5);
        assert_eq!(refused(Code::DeadlineExceeded), 6);
        assert_eq!(CliError::WentBack("x".into()).code(), 7);
        assert_eq!(CliError::NeedsAPerson("x".into()).code(), 8);
    }
}
