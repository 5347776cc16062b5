//! Which version owns which bucket, and who moves when weights change.

use proptest::prelude::*;
use starling_raft::state::bucket::{BUCKETS, Bucket};
use starling_raft::state::ownership::{INTERVALS_MAX, Interval, OwnershipTable};
use starling_raft::state::{Ordinal, PartsPerMillion};

use crate::log::ppm;

type Weights = Vec<(Ordinal, PartsPerMillion)>;

fn weights(parts: &[u32]) -> Weights {
    let named = (1..).map(Ordinal::new).zip(parts.iter().copied());
    named.filter(|(_, part)| *part > 0).map(|(ordinal, part)| (ordinal, ppm(part))).collect()
}

fn intervals(table: &OwnershipTable) -> Vec<(u32, u32, u64)> {
    table.intervals().iter().map(|i| (i.start, i.end, i.owner.get())).collect()
}

fn owned(table: &OwnershipTable, owner: Ordinal) -> u32 {
    let mine = table.intervals().iter().filter(|interval| interval.owner == owner);
    mine.map(|interval| interval.end - interval.start).sum()
}

/// Buckets whose owner differs.
fn moved(old: &OwnershipTable, new: &OwnershipTable) -> u32 {
    let mut cuts: Vec<u32> = [old, new].iter().flat_map(|t| t.intervals().iter().map(|i| i.end)).collect();
    cuts.sort_unstable();
    let mut start = 0;
    let mut moved = 0;
    for end in cuts {
        let bucket = Bucket::new(start);
        if end > start && bucket.is_some_and(|bucket| old.owner(bucket) != new.owner(bucket)) {
            moved += end - start;
        }
        start = end;
    }
    moved
}

fn total_variation(old: &Weights, new: &Weights) -> u32 {
    let weight = |weights: &Weights, owner| {
        weights.iter().find(|(named, _)| *named == owner).map_or(0, |(_, weight)| weight.get())
    };
    new.iter().map(|(owner, part)| part.get().saturating_sub(weight(old, *owner))).sum()
}

fn assert_sound(table: &OwnershipTable, weights: &Weights) {
    let mut end = 0;
    for interval in table.intervals() {
        assert_eq!(interval.start, end);
        assert!(interval.end > interval.start);
        end = interval.end;
    }
    assert_eq!(end, BUCKETS);
    assert!(table.intervals().windows(2).all(|pair| pair[0].owner != pair[1].owner));
    for (owner, weight) in weights {
        assert_eq!(owned(table, *owner), weight.get());
    }
}

/// Computed by another implementation of the rule.
#[test]
fn reweighting_gives_the_expected_intervals() {
    let halves = OwnershipTable::new(&weights(&[500_000, 500_000]));
    assert_eq!(
        intervals(&halves.reweighted(&weights(&[600_000, 400_000]))),
        [(0, 500_000, 1), (500_000, 900_000, 2), (900_000, 1_000_000, 1)]
    );
    assert_eq!(
        intervals(&halves.reweighted(&weights(&[400_000, 400_000, 200_000]))),
        [(0, 400_000, 1), (400_000, 500_000, 3), (500_000, 900_000, 2), (900_000, 1_000_000, 3)]
    );
    let quarters = OwnershipTable::new(&weights(&[250_000; 4]));
    assert_eq!(
        intervals(&quarters.reweighted(&weights(&[100_000, 200_000, 300_000, 400_000]))),
        [
            (0, 100_000, 1),
            (100_000, 150_000, 3),
            (150_000, 250_000, 4),
            (250_000, 450_000, 2),
            (450_000, 500_000, 4),
            (500_000, 750_000, 3),
            (750_000, 1_000_000, 4)
        ]
    );
    let canary = OwnershipTable::new(&weights(&[950_000, 50_000]));
    assert_eq!(intervals(&canary.reweighted(&weights(&[0, 1_000_000]))), [(0, 1_000_000, 2)]);
}

/// Of 20,000 real keys, as many move as another implementation counted.
#[test]
fn as_many_keys_move_as_expected() {
    for (old, new, expected) in [
        (vec![500_000, 500_000], vec![600_000, 400_000], 2_052),
        (vec![250_000; 4], vec![100_000, 200_000, 300_000, 400_000], 4_018),
        (vec![950_000, 50_000], vec![0, 1_000_000], 18_990),
        (vec![500_000, 500_000], vec![400_000, 400_000, 200_000], 4_102),
    ] {
        let before = OwnershipTable::new(&weights(&old));
        let after = before.reweighted(&weights(&new));
        let moved = (0..20_000)
            .map(|user| Bucket::of(b"exp-1", format!("user-{user}").as_bytes()))
            .filter(|bucket| before.owner(*bucket) != after.owner(*bucket))
            .count();
        assert_eq!(moved, expected, "{old:?} -> {new:?}");
    }
}

#[test]
fn a_ramp_nests() {
    let mut table = OwnershipTable::new(&weights(&[1_000_000]));
    let mut in_it: Vec<u32> = Vec::new();
    for percent in [1, 5, 25, 50, 100] {
        table = table.reweighted(&weights(&[1_000_000 - percent * 10_000, percent * 10_000]));
        let owner_of = |bucket: &u32| table.owner(Bucket::new(*bucket).unwrap());
        assert!(in_it.iter().all(|bucket| owner_of(bucket) == Some(Ordinal::new(2))));
        in_it = (0..BUCKETS).step_by(997).filter(|b| owner_of(b) == Some(Ordinal::new(2))).collect();
        assert!(!in_it.is_empty());
    }
    assert_eq!(intervals(&table), [(0, 1_000_000, 2)]);
}

#[test]
fn a_thousand_random_changes_of_four_arms_stay_below_200_intervals() {
    for seed in 1..=20_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut parts = [250_000_u32; 4];
        let mut table = OwnershipTable::new(&weights(&parts));
        for _ in 0..1_000 {
            let (from, to) = (next(4) as usize, next(4) as usize);
            let step = parts[from].min(next(20_000) as u32);
            parts[from] -= step;
            parts[to] += step;
            table = table.reweighted(&weights(&parts));
            assert!(table.intervals().len() < 200, "seed {seed}: {}", table.intervals().len());
        }
        assert_sound(&table, &weights(&parts));
    }
}

#[test]
fn a_table_cut_too_finely_is_laid_out_anew() {
    let ends = (1..=INTERVALS_MAX as u32 + 2).map(|end| end * 200);
    let mut cut: Vec<Interval> = ends
        .map(|end| Interval { start: end - 200, end, owner: Ordinal::new(1 + u64::from(end / 200) % 2) })
        .collect();
    let last = cut.last_mut().unwrap();
    last.end = BUCKETS;
    let table = OwnershipTable::from_intervals(cut);
    let ones = owned(&table, Ordinal::new(1));
    let after = table.reweighted(&weights(&[ones - 50, BUCKETS - ones + 50]));
    assert_eq!(intervals(&after), [(0, ones - 50, 1), (ones - 50, BUCKETS, 2)]);
}

/// One to six arms, some with nothing.
fn any_weights() -> impl Strategy<Value = Weights> {
    proptest::collection::vec(0..=BUCKETS, 0..6).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts.push(BUCKETS);
        let mut start = 0;
        let parts: Vec<u32> = cuts.iter().map(|end| end - std::mem::replace(&mut start, *end)).collect();
        weights(&parts)
    })
}

proptest! {
    #[test]
    fn any_series_of_weights_tiles_all_buckets_and_moves_exactly_the_minimum(
        series in proptest::collection::vec(any_weights(), 2..12)
    ) {
        let mut table = OwnershipTable::new(&series[0]);
        assert_sound(&table, &series[0]);
        for pair in series.windows(2) {
            let next = table.reweighted(&pair[1]);
            assert_sound(&next, &pair[1]);
            prop_assert_eq!(moved(&table, &next), total_variation(&pair[0], &pair[1]));
            table = next;
        }
    }

    #[test]
    fn every_bucket_has_the_owner_of_its_interval(weights in any_weights(), bucket in 0..BUCKETS) {
        let table = OwnershipTable::new(&weights);
        let inside = |interval: &&Interval| interval.start <= bucket && bucket < interval.end;
        let expected = table.intervals().iter().find(inside).map(|interval| interval.owner);
        prop_assert!(expected.is_some());
        prop_assert_eq!(table.owner(Bucket::new(bucket).unwrap()), expected);
    }
}

/// The salt and keys of a million people, always the same.
fn owner_of_key(table: &OwnershipTable, number: u32) -> Ordinal {
    let bucket = Bucket::of(b"a\x02\0\0\0\0\0\0\0", format!("user-{number}").as_bytes());
    table.owner(bucket).unwrap()
}

#[test]
fn a_million_keys_are_split_as_the_weights_say() {
    let parts = [400_000, 300_000, 200_000, 90_000, 10_000];
    let table = OwnershipTable::new(&weights(&[500_000, 500_000])).reweighted(&weights(&parts));
    let mut counts = [0_u32; 5];
    for number in 0..1_000_000 {
        counts[owner_of_key(&table, number).get() as usize - 1] += 1;
    }
    let squares = counts.iter().zip(parts).map(|(count, part)| {
        let surplus = f64::from(*count) - f64::from(part);
        surplus * surplus / f64::from(part)
    });
    let chi_square: f64 = squares.sum();
    // Four degrees of freedom: beyond this with probability 0.001.
    assert!(chi_square < 18.467, "{chi_square} of {counts:?}");
}

#[test]
fn only_keys_whose_version_shrinks_move_and_as_many_as_must() {
    let before = weights(&[400_000, 300_000, 200_000, 100_000]);
    let after = weights(&[250_000, 350_000, 200_000, 200_000]);
    let old = OwnershipTable::new(&before);
    let new = old.reweighted(&after);
    assert_eq!((moved(&old, &new), total_variation(&before, &after)), (150_000, 150_000));
    let mut moved_keys = 0_i32;
    for number in 0..1_000_000 {
        let (from, to) = (owner_of_key(&old, number), owner_of_key(&new, number));
        if from != to {
            assert_eq!(from, Ordinal::new(1), "the only one that shrinks");
            moved_keys += 1;
        }
    }
    // Five standard deviations of a binomial of 0.15.
    assert!((moved_keys - 150_000).abs() < 1_786, "{moved_keys} of 1000000");
}
