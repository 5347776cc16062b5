//! Log time of a moment that a person names by the wall clock: by the events
//! around it, which carry both.

use starling_proto::admin::DropRolloutLearningRequest;
use starling_raft::state::LogTime;
use tonic::Status;

use super::super::{Caller, lists};
use super::{history, unknown};
use crate::servers::Node;
use crate::servers::node::Running;

/// One moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    wall_us: u64,
    log_us: u64,
}

/// Both ends of the window that is to be forgotten.
pub(super) async fn of_window(
    node: &Node,
    caller: &Caller,
    request: &DropRolloutLearningRequest,
) -> Result<(LogTime, LogTime), Status> {
    if request.to_unix_us < request.from_unix_us {
        return Err(Status::invalid_argument("the window ends before it begins; swap --from and --to"));
    }
    let running = node.running()?;
    let applied = lists::state(running, false, caller.timeout).await?;
    let rollout = applied.state.rollouts.get(&request.name).ok_or_else(|| unknown(&request.name))?;
    let start =
        Moment { wall_us: rollout.started_wall.as_unix_micros(), log_us: rollout.started.as_micros() };
    let indexes = (rollout.started_at.get(), applied.index.get());
    let from = log_time(running, start, indexes, request.from_unix_us).await?;
    let to = log_time(running, start, indexes, request.to_unix_us).await?;
    Ok((from, to))
}

/// Halves the range of log indexes until the events on both sides of the moment
/// are found. A wall clock that once jumped back makes it as wrong as the jump.
async fn log_time(
    running: &Running,
    start: Moment,
    (mut first, mut last): (u64, u64),
    wall_us: u64,
) -> Result<LogTime, Status> {
    let (mut before, mut after) = (start, None);
    while first < last {
        let middle = first + (last - first) / 2 + 1;
        match history::page(running, middle, 1).await?.first() {
            Some(record) if record.log_index.get() <= last => {
                let found = Moment {
                    wall_us: record.wall_time.as_unix_micros(),
                    log_us: record.log_time.as_micros(),
                };
                if found.wall_us <= wall_us {
                    (before, first) = (found, record.log_index.get());
                } else {
                    (after, last) = (Some(found), middle - 1);
                }
            }
            _ => last = middle - 1,
        }
    }
    Ok(LogTime::from_micros(between(before, after, wall_us)))
}

/// As far after the one as the wall clock says, and never beyond the other.
fn between(before: Moment, after: Option<Moment>, wall_us: u64) -> u64 {
    let log_us = before.log_us.saturating_add(wall_us.saturating_sub(before.wall_us));
    after.map_or(log_us, |after| log_us.min(after.log_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_lies_between_the_events_around_it() {
        let moment = |wall_us, log_us| Moment { wall_us, log_us };
        assert_eq!(between(moment(1_000, 10), None, 1_500), 510);
        assert_eq!(between(moment(1_000, 10), Some(moment(2_000, 200)), 1_100), 110);
        // The log stood still while nobody led.
        assert_eq!(between(moment(1_000, 10), Some(moment(2_000, 200)), 1_900), 200);
        assert_eq!(between(moment(1_000, 10), None, 500), 10);
    }
}
