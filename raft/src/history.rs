//! Every event ever, with its index, in immutable checksummed segment files:
//! audit, time travel, watch. Raft may purge its log; this stays.

use serde::Serialize;

use crate::state::{Event, EventClass, LogIndex, LogTime, Principal, RequestId, WallTime};

/// One event, with what its entry said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct HistoryRecord {
    pub log_index: LogIndex,
    pub log_time: LogTime,
    pub wall_time: WallTime,
    pub principal: Principal,
    pub request_id: RequestId,
    pub class: EventClass,
    pub event: Event,
}
