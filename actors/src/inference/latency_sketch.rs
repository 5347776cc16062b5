//! How long answers took, in buckets of equal relative width: sketches of all
//! nodes merge exactly, and a quantile read from the merged one is within
//! [`RELATIVE_ACCURACY`] of the true one.
//!
//! This is the DDSketch of Masson, Rim and Lee (VLDB 2019) over whole
//! microseconds. It is our own because merging must be exact over the wire,
//! and counts must be integers: a sum of floating-point numbers depends on the
//! order in which nodes report.

use std::time::Duration;

use starling_proto::peer::LatencySketch as WireSketch;

/// A quantile is at most so far from the true value, relative to it. All nodes
/// must agree on it: changing it needs a new feature level.
pub const RELATIVE_ACCURACY: f64 = 0.01;

/// Longer times count as this one.
pub const LATENCY_MICROS_MAX: u64 = 3_600_000_000;

/// Bucket `i` holds values in `(GAMMA^(i-1), GAMMA^i]`; bucket 0 holds 0 and 1.
const GAMMA: f64 = (1.0 + RELATIVE_ACCURACY) / (1.0 - RELATIVE_ACCURACY);

/// `ceil(ln(LATENCY_MICROS_MAX) / ln(GAMMA)) + 1`: no sketch has more.
pub const BUCKETS_MAX: usize = 1_102;

/// Counts per bucket, from the lowest to the highest that is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LatencySketch {
    first_bucket: usize,
    counts: Vec<u64>,
    sum_micros: u64,
}

impl LatencySketch {
    /// Counts one answer.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(LATENCY_MICROS_MAX);
        self.add(bucket_of(micros), 1);
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }

    /// Adds all that another sketch has counted.
    pub fn merge(&mut self, other: &Self) {
        for (offset, count) in other.counts.iter().enumerate() {
            self.add(other.first_bucket + offset, *count);
        }
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// How many answers it has counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The value below which `quantile` (0 to 1) of all answers lie, in
    /// microseconds; `None` if there are none.
    pub fn quantile_micros(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (quantile.clamp(0.0, 1.0) * (count - 1) as f64) as u64;
        let mut seen: u64 = 0;
        for (offset, in_bucket) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*in_bucket);
            if seen > rank {
                return Some(value_of(self.first_bucket + offset));
            }
        }
        None
    }

    /// What came since an earlier reading of the same counts: each value in
    /// seconds, and how many.
    pub fn since(&self, before: &Self) -> impl Iterator<Item = (f64, u64)> {
        let earlier = |bucket: usize| {
            let offset = bucket.checked_sub(before.first_bucket);
            offset.and_then(|offset| before.counts.get(offset)).copied().unwrap_or(0)
        };
        self.counts.iter().enumerate().filter_map(move |(offset, count)| {
            let bucket = self.first_bucket + offset;
            let more = count.saturating_sub(earlier(bucket));
            (more > 0).then(|| (value_of(bucket) / 1e6, more))
        })
    }

    /// The value of this rank in microseconds, counted from 1 for the shortest;
    /// `None` beyond the last.
    pub fn at_rank_micros(&self, rank: u64) -> Option<f64> {
        let mut seen: u64 = 0;
        for (offset, in_bucket) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*in_bucket);
            if seen >= rank.max(1) {
                return Some(value_of(self.first_bucket + offset));
            }
        }
        None
    }

    /// How many took so long at most, to the accuracy of the sketch.
    pub fn count_at_most(&self, latency: Duration) -> u64 {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(LATENCY_MICROS_MAX);
        let buckets = (bucket_of(micros) + 1).saturating_sub(self.first_bucket);
        self.counts.iter().take(buckets).fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The sum of all, in whole microseconds.
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros
    }

    /// For the wire.
    pub fn to_wire(&self) -> WireSketch {
        WireSketch {
            first_bucket: self.first_bucket as u32,
            counts: self.counts.clone(),
            sum_us: self.sum_micros,
        }
    }

    /// From the wire. Buckets that no node of ours would use count as the last.
    pub fn from_wire(wire: &WireSketch) -> Self {
        let mut sketch = Self { sum_micros: wire.sum_us, ..Self::default() };
        for (offset, count) in wire.counts.iter().enumerate().take(BUCKETS_MAX) {
            let bucket = (wire.first_bucket as usize).saturating_add(offset);
            sketch.add(bucket.min(BUCKETS_MAX - 1), *count);
        }
        sketch
    }

    fn add(&mut self, bucket: usize, count: u64) {
        if count == 0 {
            return;
        }
        if self.counts.is_empty() {
            self.first_bucket = bucket;
        }
        if bucket < self.first_bucket {
            let missing = self.first_bucket - bucket;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.first_bucket = bucket;
        }
        let offset = bucket - self.first_bucket;
        if offset >= self.counts.len() {
            self.counts.resize(offset + 1, 0);
        }
        self.counts[offset] = self.counts[offset].saturating_add(count);
    }
}

fn bucket_of(micros: u64) -> usize {
    if micros <= 1 {
        return 0;
    }
    let bucket = ((micros as f64).ln() / GAMMA.ln()).ceil();
    (bucket as usize).min(BUCKETS_MAX - 1)
}

/// The value with the same relative distance to both ends of the bucket.
fn value_of(bucket: usize) -> f64 {
    if bucket == 0 {
        return 1.0;
    }
    2.0 * GAMMA.powi(bucket as i32) / (GAMMA + 1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn sketch_of(latencies_micros: &[u64]) -> LatencySketch {
        let mut sketch = LatencySketch::default();
        for micros in latencies_micros {
            sketch.record(Duration::from_micros(*micros));
        }
        sketch
    }

    #[test]
    fn an_empty_sketch_has_no_quantile() {
        assert_eq!(LatencySketch::default().quantile_micros(0.5), None);
    }

    #[test]
    fn the_longest_latency_fits_the_last_bucket() {
        assert_eq!(bucket_of(LATENCY_MICROS_MAX), BUCKETS_MAX - 1);
        assert_eq!(sketch_of(&[u64::MAX / 2]).first_bucket, BUCKETS_MAX - 1);
    }

    #[test]
    fn those_that_took_so_long_at_most_are_counted() {
        let sketch = sketch_of(&[100, 200, 300]);
        let at_most = |micros| sketch.count_at_most(Duration::from_micros(micros));
        assert_eq!([at_most(0), at_most(90), at_most(150), at_most(310), at_most(u64::MAX)], [0, 0, 1, 3, 3]);
        assert_eq!(sketch.sum_micros(), 600);
    }

    #[test]
    fn a_hundred_known_latencies_have_known_quantiles() {
        let latencies: Vec<u64> = (1..=100).map(|n| n * 100).collect();
        let sketch = sketch_of(&latencies);
        let p50 = sketch.quantile_micros(0.5).unwrap();
        let p99 = sketch.quantile_micros(0.99).unwrap();
        assert!((4_950.0..=5_100.0).contains(&p50), "{p50}");
        assert!((9_800.0..=10_000.0).contains(&p99), "{p99}");
    }

    #[test]
    fn a_wire_sketch_with_impossible_buckets_stays_small() {
        let wire = WireSketch { first_bucket: u32::MAX, counts: vec![1; 50_000], sum_us: 7 };
        let sketch = LatencySketch::from_wire(&wire);
        assert_eq!(sketch.first_bucket, BUCKETS_MAX - 1);
        assert_eq!(sketch.counts, vec![BUCKETS_MAX as u64]);
    }

    proptest! {
        #[test]
        fn merged_parts_equal_the_whole_in_any_order(
            latencies in prop::collection::vec(0..5_000_000_000_u64, 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let (left, right) = latencies.split_at(cut.index(latencies.len() + 1).min(latencies.len()));
            let whole = sketch_of(&latencies);
            let mut left_first = sketch_of(left);
            left_first.merge(&sketch_of(right));
            let mut right_first = sketch_of(right);
            right_first.merge(&sketch_of(left));
            prop_assert_eq!(&left_first, &whole);
            prop_assert_eq!(&right_first, &whole);
        }

        #[test]
        fn the_wire_changes_nothing(latencies in prop::collection::vec(0..5_000_000_000_u64, 0..200)) {
            let sketch = sketch_of(&latencies);
            prop_assert_eq!(LatencySketch::from_wire(&sketch.to_wire()), sketch);
        }

        #[test]
        fn every_quantile_is_within_the_relative_accuracy(
            mut latencies in prop::collection::vec(1..LATENCY_MICROS_MAX, 1..200),
            quantile in 0.0..=1.0_f64,
        ) {
            let sketch = sketch_of(&latencies);
            latencies.sort_unstable();
            let exact = latencies[(quantile * (latencies.len() - 1) as f64) as usize] as f64;
            let estimate = sketch.quantile_micros(quantile).unwrap();
            prop_assert!((estimate - exact).abs() <= exact * (RELATIVE_ACCURACY + 1e-9));
        }
    }
}
