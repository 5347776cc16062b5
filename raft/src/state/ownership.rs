//! Which version owns which of the million buckets.
//!
//! A change of weights moves exactly the total-variation distance between the
//! old and the new weights, which is the minimum: whoever shrinks gives up only
//! its surplus, whoever grows keeps all it had. So a ramp nests: who was in the
//! 5 % is in the 25 %.
//!
//! Every change may cut intervals further. Ordinary changes heal as much as they
//! cut (1,000 random changes of 4 arms stay below 200 intervals); should a table
//! come to more than [`INTERVALS_MAX`] all the same, it is laid out anew, once
//! moving more than the minimum. What a table is after a series of changes is
//! part of the history: this rule may never change, only be replaced by another
//! from some feature level on.

use super::bucket::{BUCKETS, Bucket};
use super::{Ordinal, PartsPerMillion};

/// A table with more intervals is laid out anew.
pub const INTERVALS_MAX: usize = 4_096;

/// Intervals that tile `0..BUCKETS`, in order, neighbours with different owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnershipTable {
    intervals: Vec<Interval>,
}

/// Buckets `start..end` and whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// First bucket.
    pub start: u32,
    /// One past the last.
    pub end: u32,
    /// Whose.
    pub owner: Ordinal,
}

impl OwnershipTable {
    /// The first table of a route: contiguous ranges in the order given. The
    /// weights sum to the whole.
    pub fn new(weights: &[(Ordinal, PartsPerMillion)]) -> Self {
        let mut start = 0;
        let mut intervals = Vec::with_capacity(weights.len());
        for (owner, weight) in weights {
            let end = start + weight.get();
            intervals.push(Interval { start, end, owner: *owner });
            start = end;
        }
        Self::from_intervals(intervals)
    }

    /// From intervals that tile the buckets; equal neighbours are merged.
    pub fn from_intervals(intervals: Vec<Interval>) -> Self {
        let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
        for interval in intervals.into_iter().filter(|interval| interval.start < interval.end) {
            match merged.last_mut() {
                Some(last) if last.owner == interval.owner => last.end = interval.end,
                _ => merged.push(interval),
            }
        }
        Self { intervals: merged }
    }

    /// The intervals, in order.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// Who owns a bucket. Logarithmic in the number of intervals.
    pub fn owner(&self, bucket: Bucket) -> Option<Ordinal> {
        let after = self.intervals.partition_point(|interval| interval.start <= bucket.get());
        let interval = self.intervals.get(after.checked_sub(1)?)?;
        (bucket.get() < interval.end).then_some(interval.owner)
    }

    /// The table for new weights, which sum to the whole. Owners that shrink
    /// give up their last buckets; owners that grow take these in order.
    pub fn reweighted(&self, weights: &[(Ordinal, PartsPerMillion)]) -> Self {
        let target = |owner: Ordinal| {
            weights.iter().find(|(named, _)| *named == owner).map_or(0, |(_, weight)| weight.get())
        };
        let mut kept: Vec<(Ordinal, u32)> = Vec::new();
        let mut intervals: Vec<Interval> = Vec::with_capacity(self.intervals.len() + weights.len());
        let mut freed: Vec<(u32, u32)> = Vec::new();
        for interval in &self.intervals {
            let position = match kept.iter().position(|(owner, _)| *owner == interval.owner) {
                Some(position) => position,
                None => {
                    kept.push((interval.owner, 0));
                    kept.len() - 1
                }
            };
            let room = target(interval.owner) - kept[position].1;
            let keep = room.min(interval.end - interval.start);
            kept[position].1 += keep;
            let cut = interval.start + keep;
            intervals.push(Interval { start: interval.start, end: cut, owner: interval.owner });
            freed.push((cut, interval.end));
        }
        let mut freed = freed.into_iter().filter(|(start, end)| start < end);
        let mut current = freed.next();
        for (owner, weight) in weights {
            let has = kept.iter().find(|(named, _)| named == owner).map_or(0, |(_, count)| *count);
            let mut wanted = weight.get() - has;
            while wanted > 0 {
                let Some((start, end)) = current else { break };
                let take = wanted.min(end - start);
                intervals.push(Interval { start, end: start + take, owner: *owner });
                wanted -= take;
                current = if start + take < end { Some((start + take, end)) } else { freed.next() };
            }
        }
        intervals.sort_by_key(|interval| interval.start);
        debug_assert_eq!(intervals.iter().map(|i| i.end - i.start).sum::<u32>(), BUCKETS);
        let table = Self::from_intervals(intervals);
        if table.intervals.len() > INTERVALS_MAX { Self::new(weights) } else { table }
    }
}
