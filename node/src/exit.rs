//! Exit codes of `starling`, documented in docs/cli.md.

/// What was asked for could not be done; the reason is on stderr.
pub(crate) const FAILED: u8 = 1;
/// A bad flag, setting or start-up condition: nothing was done.
pub(crate) const CANNOT_START: u8 = 2;
