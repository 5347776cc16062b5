//! Answers to recent commands, so that a retry gets the first answer instead of
//! being carried out again.

use imbl::{OrdMap, Vector};

use super::{LogTime, Outcome, RequestId};

/// Answers older than this are forgotten: ten minutes of log time.
pub const REMEMBERED_MICROS: u64 = 10 * 60 * 1_000_000;
/// And never more than this many.
pub const REMEMBERED_MAX: usize = 100_000;

/// The remembered answers, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecentRequests {
    outcomes: OrdMap<RequestId, Outcome>,
    in_order: Vector<(LogTime, RequestId)>,
}

impl RecentRequests {
    /// The first answer to this request, if it is remembered.
    pub fn answer_to(&self, request_id: RequestId) -> Option<&Outcome> {
        self.outcomes.get(&request_id)
    }

    /// In the order of their log times: for snapshots.
    pub fn iter(&self) -> impl Iterator<Item = (LogTime, RequestId, &Outcome)> {
        self.in_order.iter().filter_map(|(log_time, request_id)| {
            self.outcomes.get(request_id).map(|outcome| (*log_time, *request_id, outcome))
        })
    }

    pub(crate) fn remember(&mut self, request_id: RequestId, log_time: LogTime, outcome: Outcome) {
        self.outcomes.insert(request_id, outcome);
        self.in_order.push_back((log_time, request_id));
        if self.in_order.len() > REMEMBERED_MAX {
            self.forget_oldest();
        }
    }

    pub(super) fn forget_old(&mut self, now: LogTime) {
        while let Some((log_time, _)) = self.in_order.front() {
            if log_time.plus_micros(REMEMBERED_MICROS) >= now {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, request_id)) = self.in_order.pop_front() {
            self.outcomes.remove(&request_id);
        }
    }
}
