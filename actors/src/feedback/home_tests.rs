//! A home through crashes: whatever is written when the power goes, a reward is
//! neither lost nor counted twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use starling_raft::state::{LogIndex, LogTime};

use super::deltas::{Cell, Sums};
use super::disk::FolderDisk;
use super::home::{Home, HomeLimits, Moment};
use super::item::{Feedback, Said, Verdict};
use super::learnt::Sealed;
use super::ledger::NoCredit;
use super::memory_disk::MemoryDisk;
use super::testing::{OneRollout, feedback};

const LIMITS: HomeLimits = HomeLimits {
    horizon: Duration::from_secs(3_600),
    segment_bytes: 600,
    journal_bytes: 1 << 30,
    aside_bytes: 1 << 20,
};
const ROLLOUT: OneRollout = OneRollout { instead: None };
const DECIDED: u64 = 1_000_000;

fn moment(ledger: &OneRollout) -> Moment<'_> {
    let log_time = LogTime::from_micros(1_000_000);
    Moment { ledger, log_time, applied: LogIndex::new(100), unix_micros: 1, decided: DECIDED }
}

/// What the log has made of the deltas.
#[derive(Debug, Clone, Default, PartialEq)]
struct Log {
    mark: u64,
    sums: BTreeMap<Cell, Sums>,
}

impl Log {
    fn apply(&mut self, sealed: &Sealed) {
        if sealed.number <= self.mark {
            return;
        }
        assert_eq!(sealed.number, self.mark + 1, "deltas come in order");
        self.mark = sealed.number;
        for (cell, more) in sealed.delta.cells() {
            let sums = self.sums.entry(cell.clone()).or_default();
            sums.count += more.count;
            sums.sum += more.sum;
            sums.sum_of_squares += more.sum_of_squares;
        }
        self.sums.retain(|_, sums| *sums != Sums::default());
    }
}

fn retraction(sequence: u64) -> Feedback {
    Feedback { retract: true, said: Said::Nothing, ..feedback(sequence) }
}

fn take<D: super::disk::Disk>(home: &mut Home<D>, items: &[Feedback]) -> Vec<Verdict> {
    let taken = home.take(items, moment(&ROLLOUT)).unwrap();
    home.sync().unwrap();
    taken.iter().map(|taken| taken.answer.verdict).collect()
}

fn drain<D: super::disk::Disk>(home: &mut Home<D>, log: &mut Log) {
    while let Some(sealed) = home.seal().unwrap().cloned() {
        log.apply(&sealed);
        home.committed(sealed.number).unwrap();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Take(Vec<(u64, bool, i8)>),
    Propose { is_answered: bool },
    KeepHouse,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let item = (1_u64..40, prop::bool::weighted(0.2), -4_i8..=4);
    let step = prop_oneof![
        4 => prop::collection::vec(item, 1..6).prop_map(Step::Take),
        2 => any::<bool>().prop_map(|is_answered| Step::Propose { is_answered }),
        1 => Just(Step::KeepHouse),
    ];
    prop::collection::vec(step, 1..40)
}

fn item(sequence: u64, retract: bool, quarters: i8) -> Feedback {
    match retract {
        true => retraction(sequence),
        false => Feedback { said: Said::Number(f64::from(quarters) / 4.0), ..feedback(sequence) },
    }
}

/// Carries steps out; true: the disk failed on the way. What was acknowledged
/// (synced) is noted in `said`.
fn live(
    home: &mut Home<MemoryDisk>,
    steps: &mut std::vec::IntoIter<Step>,
    log: &mut Log,
    said: &mut Vec<Vec<Feedback>>,
) -> bool {
    for step in steps.by_ref() {
        let outcome = match step {
            Step::Take(items) => {
                let items: Vec<_> = items
                    .into_iter()
                    .map(|(sequence, retract, value)| item(sequence, retract, value))
                    .collect();
                // Whether it is acknowledged or not, whoever sent it sends it again.
                said.push(items.clone());
                home.take(&items, moment(&ROLLOUT)).and_then(|_| home.sync())
            }
            Step::Propose { is_answered } => home.seal().map(|sealed| sealed.cloned()).and_then(|sealed| {
                let Some(sealed) = sealed else { return Ok(()) };
                log.apply(&sealed);
                if is_answered { home.committed(sealed.number) } else { Ok(()) }
            }),
            Step::KeepHouse => home.keep_house(LogTime::from_micros(1_000_000), DECIDED),
        };
        if outcome.is_err() {
            return true;
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// However often the power goes, at whatever operation, and whatever of the
    /// unsynced bytes survives: once all is sent again, the log has of each
    /// decision its first acknowledged reward, or nothing if it was retracted.
    #[test]
    fn a_reward_is_neither_lost_nor_doubled_by_any_crash(
        steps in steps(),
        crashes in prop::collection::vec((1_u32..40, any::<u8>()), 0..6),
    ) {
        let mut disk = MemoryDisk::default();
        let mut log = Log::default();
        let mut said = Vec::new();
        let mut steps = steps.into_iter();
        for (operations, kept) in crashes {
            disk.fail_after(operations);
            if let Ok(mut home) = Home::open(disk.clone(), 1, LIMITS) {
                live(&mut home, &mut steps, &mut log, &mut said);
            }
            disk = disk.after_crash(kept);
        }
        let mut home = Home::open(disk, 1, LIMITS).unwrap();
        live(&mut home, &mut steps, &mut log, &mut said);
        for items in &said {
            home.take(items, moment(&ROLLOUT)).unwrap();
        }
        home.sync().unwrap();
        drain(&mut home, &mut log);

        let retracted: BTreeSet<u64> =
            said.iter().flatten().filter(|item| item.retract).map(|item| item.decision.sequence).collect();
        let rewarded: BTreeSet<u64> =
            said.iter().flatten().filter(|item| !item.retract).map(|item| item.decision.sequence).collect();
        let counted: i64 = log.sums.values().map(|sums| sums.count).sum();
        prop_assert_eq!(counted, rewarded.difference(&retracted).count() as i64);
        // What is counted is one of the values that were sent, once.
        for sums in log.sums.values() {
            prop_assert!(sums.count > 0 && sums.sum_of_squares >= 0);
        }
        // And all of it again changes nothing.
        let before = log.clone();
        for items in said.iter().rev() {
            home.take(items, moment(&ROLLOUT)).unwrap();
        }
        drain(&mut home, &mut log);
        prop_assert_eq!(log, before);
    }

    /// Rewards and retractions of different decisions commute.
    #[test]
    fn any_order_of_arrival_gives_the_same_sums(
        rewards in prop::collection::btree_map(1_u64..200, -4_i8..=4, 1..60),
        retracted in prop::collection::btree_set(1_u64..200, 0..20),
        turn in any::<u64>(),
    ) {
        let mut items: Vec<Feedback> =
            rewards.iter().map(|(sequence, value)| item(*sequence, false, *value)).collect();
        items.extend(retracted.iter().map(|sequence| retraction(*sequence)));
        let learn = |items: &[Feedback]| {
            let mut home = Home::open(MemoryDisk::default(), 1, LIMITS).unwrap();
            let mut log = Log::default();
            for some in items.chunks(7) {
                take(&mut home, some);
                drain(&mut home, &mut log);
            }
            log.sums
        };
        let in_order = learn(&items);
        items.sort_by_key(|item| {
            (item.decision.sequence ^ turn ^ u64::from(item.retract)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        prop_assert_eq!(learn(&items), in_order);
    }
}

#[test]
fn a_second_reward_is_a_duplicate_also_after_a_crash_and_through_checkpoints() {
    let disk = MemoryDisk::default();
    let mut home = Home::open(disk.clone(), 1, LIMITS).unwrap();
    for sequence in 1..=100 {
        assert_eq!(take(&mut home, &[feedback(sequence)]), [Verdict::Recorded]);
        home.keep_house(LogTime::from_micros(1_000_000), DECIDED).unwrap();
    }
    let mut home = Home::open(disk.after_crash(0), 1, LIMITS).unwrap();
    let other_value = Feedback { said: Said::Flag(false), ..feedback(3) };
    assert_eq!(take(&mut home, &[feedback(3), other_value]), [Verdict::Duplicate, Verdict::Duplicate]);
    let mut log = Log::default();
    drain(&mut home, &mut log);
    assert_eq!(log.sums.values().map(|sums| sums.count).sum::<i64>(), 100);
}

#[test]
fn a_retraction_takes_back_what_was_credited_however_long_ago_and_only_once() {
    let mut home = Home::open(MemoryDisk::default(), 1, LIMITS).unwrap();
    let mut log = Log::default();
    let half = Feedback { said: Said::Number(0.5), ..feedback(1) };
    take(&mut home, &[half]);
    for sequence in 2..=60 {
        take(&mut home, &[feedback(sequence)]);
        home.keep_house(LogTime::from_micros(1_000_000), DECIDED).unwrap();
    }
    drain(&mut home, &mut log);
    let verdicts = take(&mut home, &[retraction(1), retraction(1), retraction(60), feedback(1)]);
    assert_eq!(verdicts, [Verdict::Retracted, Verdict::Duplicate, Verdict::Retracted, Verdict::Duplicate]);
    drain(&mut home, &mut log);
    assert_eq!(log.sums.values().map(|sums| sums.count).sum::<i64>(), 58);
    assert_eq!(log.sums.values().map(|sums| sums.sum).sum::<i128>(), 58 << 24);
}

#[test]
fn a_reward_and_its_retraction_in_one_request_come_to_nothing() {
    let mut home = Home::open(MemoryDisk::default(), 1, LIMITS).unwrap();
    let verdicts = take(&mut home, &[feedback(1), retraction(1), retraction(2), feedback(2)]);
    assert_eq!(verdicts, [Verdict::Recorded, Verdict::Retracted, Verdict::Retracted, Verdict::Retracted]);
    let mut log = Log::default();
    drain(&mut home, &mut log);
    assert_eq!(log.sums, BTreeMap::new());
}

#[test]
fn nonsense_leaves_the_sums_untouched_and_can_be_corrected() {
    let mut home = Home::open(MemoryDisk::default(), 1, LIMITS).unwrap();
    let said = |said| Feedback { said, ..feedback(1) };
    let items = [said(Said::Number(f64::NAN)), said(Said::Number(1.5)), said(Said::Nothing), feedback(1)];
    assert_eq!(
        take(&mut home, &items),
        [Verdict::Invalid, Verdict::OutOfRange, Verdict::Invalid, Verdict::Recorded]
    );
    let mut never_made = feedback(DECIDED + 1);
    assert_eq!(take(&mut home, &[never_made.clone()]), [Verdict::Unknown]);
    never_made.decision.boot = 9;
    assert_eq!(take(&mut home, &[never_made]), [Verdict::Unknown]);
}

#[test]
fn late_rewards_are_kept_and_not_credited_and_their_bits_are_forgotten() {
    let mut home = Home::open(MemoryDisk::default(), 1, LIMITS).unwrap();
    take(&mut home, &[feedback(1)]);
    home.keep_house(LogTime::from_micros(1_000_000), 1_048_575).unwrap();
    let late = LogTime::from_micros(2 * 3_600_000_000);
    let kept = home.bytes();
    let moment = Moment { log_time: late, decided: 1_048_580, ..moment(&ROLLOUT) };
    let taken = home.take(&[feedback(2), feedback(1_048_576)], moment).unwrap();
    assert_eq!(taken[0].answer.verdict, Verdict::Late);
    assert!(taken[0].answer.reason.contains("feedback_horizon"), "{}", taken[0].answer.reason);
    assert_eq!(taken[1].answer.verdict, Verdict::Recorded);
    home.keep_house(late, 1_048_580).unwrap();
    assert!(home.bytes() > kept);
}

#[test]
fn feedback_without_a_rollout_is_kept_once() {
    let none = OneRollout { instead: Some(NoCredit::NotInExperiment("no rollout".into())) };
    let mut home = Home::open(MemoryDisk::default(), 1, LIMITS).unwrap();
    let taken = home.take(&[feedback(1), feedback(1)], moment(&none)).unwrap();
    assert_eq!(taken[0].answer.verdict, Verdict::NotInExperiment);
    assert_eq!(taken[1].answer.verdict, Verdict::Duplicate);
    assert!(home.seal().unwrap().is_none());
    assert_eq!(take(&mut home, &[retraction(1)]), [Verdict::Retracted]);
}

#[test]
fn a_home_that_has_lost_its_files_goes_on_where_the_log_is() {
    let disk = MemoryDisk::default();
    let mut home = Home::open(disk.clone(), 2, LIMITS).unwrap();
    assert!(home.has_lost_its_place());
    home.go_on_after(57).unwrap();
    assert!(!home.has_lost_its_place());
    let of_before = feedback(1);
    let mut of_now = feedback(1);
    of_now.decision.boot = 2;
    assert_eq!(take(&mut home, &[of_before, of_now]), [Verdict::Late, Verdict::Recorded]);
    // Also if it dies before its first delta.
    let mut home = Home::open(disk.after_crash(0), 3, LIMITS).unwrap();
    assert!(!home.has_lost_its_place());
    assert_eq!(home.seal().unwrap().unwrap().number, 58);
}

#[test]
fn a_folder_is_a_disk_like_the_one_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let disk = || FolderDisk::open(&folder.path().join("feedback"), true).unwrap();
    let mut log = Log::default();
    let mut home = Home::open(disk(), 1, LIMITS).unwrap();
    for sequence in 1..=50 {
        assert_eq!(take(&mut home, &[feedback(sequence)]), [Verdict::Recorded]);
        home.keep_house(LogTime::from_micros(1_000_000), DECIDED).unwrap();
    }
    drop(home);
    let mut home = Home::open(disk(), 2, LIMITS).unwrap();
    assert!(!home.has_lost_its_place());
    let items = [feedback(1), feedback(50), retraction(50), feedback(51)];
    assert_eq!(
        take(&mut home, &items),
        [Verdict::Duplicate, Verdict::Duplicate, Verdict::Retracted, Verdict::Recorded]
    );
    drain(&mut home, &mut log);
    assert_eq!(log.sums.values().map(|sums| sums.count).sum::<i64>(), 50);
}
