//! Which decisions this node can have made, and which are too old to be
//! rewarded: marks of how far it had counted at which log time.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_raft::state::LogTime;

use super::records::{StoredBoots, StoredLife};

/// A life that ended in a crash may have decided so many times after its last mark.
pub const DECISIONS_AFTER_MARK_MAX: u64 = 1 << 22;
/// A mark for the horizon is kept so many times per horizon.
const MARKS_PER_HORIZON: u32 = 64;

/// One life of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Life {
    began: Option<LogTime>,
    decided: u64,
    has_ended: bool,
    /// Log time and decisions until then; both grow.
    marks: Vec<(LogTime, u64)>,
}

/// Whether a decision is one of this node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Age {
    /// It may be rewarded.
    Young,
    /// It may not any more.
    Late(String),
    /// It was never made.
    Never(String),
}

/// All lives of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boots {
    /// Rewards of earlier lives are not known.
    first: u32,
    current: u32,
    horizon: Duration,
    lives: BTreeMap<u32, Life>,
}

impl Boots {
    /// Of a node that begins its `current`-th life, with what it knew (`None`:
    /// nothing, as at its first start with feedback).
    pub(super) fn open(current: u32, horizon: Duration, stored: Option<StoredBoots>) -> Self {
        let mut boots = match stored {
            None => Self { first: current, current, horizon, lives: BTreeMap::new() },
            Some(stored) => {
                let lives = stored.lives.into_iter().map(|life| (life.boot, Life::from(life))).collect();
                Self { first: stored.first, current, horizon, lives }
            }
        };
        boots.lives.entry(current).or_default().has_ended = false;
        boots
    }

    pub(super) fn stored(&self) -> StoredBoots {
        let lives = self.lives.iter().map(|(boot, life)| StoredLife {
            boot: *boot,
            decided: life.decided,
            has_ended: life.has_ended,
            mark_times: life.marks.iter().map(|(time, _)| time.as_micros()).collect(),
            mark_sequences: life.marks.iter().map(|(_, sequence)| *sequence).collect(),
            began: life.began.map(LogTime::as_micros),
        });
        StoredBoots { first: self.first, lives: lives.collect() }
    }

    /// This life has decided so often by now. True: that is worth writing down.
    pub fn mark(&mut self, now: LogTime, decided: u64) -> bool {
        let every = (self.horizon / MARKS_PER_HORIZON).as_micros() as u64;
        // At a start, what this node has applied may be older than what it had.
        let now = self.newest_mark().map_or(now, |newest| newest.max(now));
        let life = self.lives.entry(self.current).or_default();
        let is_first = life.began.is_none();
        life.began.get_or_insert(now);
        let has_changed = decided > life.decided;
        life.decided = life.decided.max(decided);
        let is_due = life
            .marks
            .last()
            .is_none_or(|(last, until)| now.as_micros() >= last.as_micros() + every && life.decided > *until);
        if is_due {
            life.marks.push((now, life.decided));
        }
        is_first || has_changed
    }

    /// This life decides no more.
    pub fn end(&mut self, now: LogTime, decided: u64) {
        self.mark(now, decided);
        self.lives.entry(self.current).or_default().has_ended = true;
    }

    /// Of a decision with this number, while this life has decided `decided` times.
    pub fn age(&self, now: LogTime, decided: u64, boot: u32, sequence: u64) -> Age {
        if boot == 0 || sequence == 0 || boot > self.current {
            return Age::Never(format!("this node has started {} times, not {boot}", self.current));
        }
        if boot < self.first {
            return Age::Late(format!(
                "it was decided in start {boot} of its node, which keeps rewards since start {} only",
                self.first
            ));
        }
        let life = self.lives.get(&boot);
        let may_have_decided = match life {
            _ if boot == self.current => decided,
            Some(life) if life.has_ended => life.decided,
            Some(life) => life.decided.saturating_add(DECISIONS_AFTER_MARK_MAX),
            None => DECISIONS_AFTER_MARK_MAX,
        };
        if sequence > may_have_decided {
            return Age::Never(format!("its node has not decided {sequence} times in its start {boot}"));
        }
        if life.is_some_and(|life| life.too_old(self.oldest(now)).is_some_and(|last| sequence <= last)) {
            return Age::Late(format!(
                "it was decided more than {} ago (config key `feedback_horizon`)",
                in_words(self.horizon)
            ));
        }
        Age::Young
    }

    /// The last decision of each life that is too old by now, where there is one;
    /// what is only about decisions before it is dropped.
    pub fn forget(&mut self, now: LogTime) -> Vec<(u32, u64)> {
        let oldest = self.oldest(now);
        let mut forgotten = Vec::new();
        // Whatever was decided in lives before one was decided before it began.
        let began_long_ago = |life: &Life| life.began.is_some_and(|began| began <= oldest);
        let newest_old = self.lives.iter().rev().find(|(_, life)| began_long_ago(life));
        if let Some(first) = newest_old.map(|(boot, _)| *boot).filter(|boot| *boot > self.first) {
            self.first = first;
            let kept = self.lives.split_off(&first);
            forgotten.extend(
                std::mem::replace(&mut self.lives, kept).into_keys().map(|boot| (boot, u64::MAX - 1)),
            );
        }
        for (boot, life) in &mut self.lives {
            let Some(last) = life.too_old(oldest) else { continue };
            life.marks.retain(|(_, until)| *until >= last);
            forgotten.push((*boot, last));
        }
        forgotten
    }

    fn newest_mark(&self) -> Option<LogTime> {
        self.lives.values().filter_map(|life| life.marks.last()).map(|(time, _)| *time).max()
    }

    fn oldest(&self, now: LogTime) -> LogTime {
        let horizon = u64::try_from(self.horizon.as_micros()).unwrap_or(u64::MAX);
        LogTime::from_micros(now.as_micros().saturating_sub(horizon))
    }
}

impl Life {
    /// The last decision that had been made by then.
    fn too_old(&self, oldest: LogTime) -> Option<u64> {
        let marks = self.marks.iter().rev();
        let mut before = marks.skip_while(|(time, _)| *time > oldest);
        before.next().map(|(_, sequence)| *sequence)
    }
}

impl From<StoredLife> for Life {
    fn from(stored: StoredLife) -> Self {
        let times = stored.mark_times.into_iter().map(LogTime::from_micros);
        let marks = times.zip(stored.mark_sequences).collect();
        let began = stored.began.map(LogTime::from_micros);
        Self { began, decided: stored.decided, has_ended: stored.has_ended, marks }
    }
}

fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 172_800 => format!("{} days", seconds / 86_400),
        seconds if seconds >= 7_200 => format!("{} hours", seconds / 3_600),
        seconds => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn day(number: u64) -> LogTime {
        LogTime::from_micros(number * 86_400_000_000)
    }

    #[test]
    fn what_was_never_decided_is_told_from_what_was() {
        let boots = Boots::open(3, 30 * DAY, Some(StoredBoots { first: 1, lives: vec![] }));
        assert_eq!(boots.age(day(1), 10, 3, 10), Age::Young);
        assert!(matches!(boots.age(day(1), 10, 3, 11), Age::Never(_)));
        assert!(matches!(boots.age(day(1), 10, 4, 1), Age::Never(_)));
        assert!(matches!(boots.age(day(1), 10, 0, 1), Age::Never(_)));
        assert!(matches!(boots.age(day(1), 10, 3, 0), Age::Never(_)));
    }

    #[test]
    fn a_life_that_crashed_may_have_decided_after_its_last_mark_and_one_that_ended_not() {
        let mut boots = Boots::open(1, 30 * DAY, None);
        boots.mark(day(1), 100);
        let crashed = Boots::open(2, 30 * DAY, Some(boots.stored()));
        assert_eq!(crashed.age(day(1), 0, 1, 100 + DECISIONS_AFTER_MARK_MAX), Age::Young);
        assert!(matches!(crashed.age(day(1), 0, 1, 101 + DECISIONS_AFTER_MARK_MAX), Age::Never(_)));
        boots.end(day(1), 120);
        let ended = Boots::open(2, 30 * DAY, Some(boots.stored()));
        assert_eq!(ended.age(day(1), 0, 1, 120), Age::Young);
        assert!(matches!(ended.age(day(1), 0, 1, 121), Age::Never(_)));
    }

    #[test]
    fn decisions_before_the_horizon_are_late_also_of_earlier_lives() {
        let mut boots = Boots::open(1, 30 * DAY, None);
        boots.mark(day(1), 100);
        boots.mark(day(10), 200);
        let mut boots = Boots::open(2, 30 * DAY, Some(boots.stored()));
        boots.mark(day(20), 50);
        assert_eq!(boots.age(day(30), 60, 1, 1), Age::Young);
        let late = boots.age(day(31), 60, 1, 100);
        assert_eq!(
            late,
            Age::Late("it was decided more than 30 days ago (config key `feedback_horizon`)".into())
        );
        assert_eq!(boots.age(day(31), 60, 1, 101), Age::Young);
        assert!(matches!(boots.age(day(40), 60, 1, 200), Age::Late(_)));
        assert_eq!(boots.age(day(40), 60, 2, 50), Age::Young);
        assert_eq!(boots.forget(day(45)), [(1, 200)]);
        assert_eq!(boots.forget(day(50)), [(1, u64::MAX - 1), (2, 50)]);
        // Nor what the first life may have decided after its last mark.
        assert!(matches!(boots.age(day(50), 60, 1, 201), Age::Late(_)));
        assert_eq!(boots.age(day(50), 60, 2, 51), Age::Young);
    }

    #[test]
    fn a_node_whose_memory_is_younger_than_itself_says_so() {
        let boots = Boots::open(5, 30 * DAY, None);
        assert!(matches!(boots.age(day(1), 9, 4, 1), Age::Late(_)));
        assert_eq!(boots.age(day(1), 9, 5, 9), Age::Young);
    }

    #[test]
    fn marks_are_few() {
        let mut boots = Boots::open(1, 64 * DAY, None);
        for hour in 0..240 {
            boots.mark(LogTime::from_micros(hour * 3_600_000_000), hour.min(100));
        }
        assert_eq!(boots.lives[&1].marks.len(), 6);
    }
}
