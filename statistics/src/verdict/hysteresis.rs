//! A step follows only several verdicts in a row, so that one look never decides.
//!
//! The state is two small integers: it lives in the log and folds the same everywhere.

use std::num::NonZeroU32;

use super::Verdict;

/// How many verdicts in a row it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hysteresis {
    /// Passes in a row before a step passes.
    pub passes: NonZeroU32,
    /// Failures in a row before a step fails.
    pub failures: NonZeroU32,
}

impl Default for Hysteresis {
    /// Two passes; one failure: always-valid verdicts need no second opinion, but
    /// going on can wait a little, going back cannot.
    fn default() -> Self {
        Self { passes: NonZeroU32::MIN.saturating_add(1), failures: NonZeroU32::MIN }
    }
}

/// The verdicts in a row so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streak {
    /// Passes since the last verdict that was none.
    pub passes: u32,
    /// Failures since the last pass.
    pub failures: u32,
}

/// What the streak amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Not enough in a row.
    NotYet,
    /// The step passes.
    Pass,
    /// The step fails.
    Fail,
}

impl Hysteresis {
    /// The streak after one more verdict, and what it amounts to.
    ///
    /// An open verdict ends a row of passes, since nothing is promoted on silence,
    /// but leaves a row of failures as it is: silence acquits nobody.
    #[must_use]
    pub fn after(&self, streak: Streak, verdict: &Verdict) -> (Streak, Settled) {
        let streak = match verdict {
            Verdict::Pass => Streak { passes: streak.passes.saturating_add(1), failures: 0 },
            Verdict::Fail => Streak { passes: 0, failures: streak.failures.saturating_add(1) },
            Verdict::Inconclusive(_) => Streak { passes: 0, failures: streak.failures },
        };
        let settled = if streak.failures >= self.failures.get() {
            Settled::Fail
        } else if streak.passes >= self.passes.get() {
            Settled::Pass
        } else {
            Settled::NotYet
        };
        (streak, settled)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::verdict::Reason;

    /// Verdicts as letters (p, f, ?) to what each look amounts to (P, F, .).
    fn looks(passes: u32, failures: u32, verdicts: &str) -> String {
        let hysteresis = Hysteresis {
            passes: NonZeroU32::new(passes).unwrap(),
            failures: NonZeroU32::new(failures).unwrap(),
        };
        let mut streak = Streak::default();
        let mut said = String::new();
        for letter in verdicts.chars() {
            let verdict = match letter {
                'p' => Verdict::Pass,
                'f' => Verdict::Fail,
                _ => Verdict::Inconclusive(Reason::StillOpen),
            };
            let (next, settled) = hysteresis.after(streak, &verdict);
            streak = next;
            said.push(match settled {
                Settled::Pass => 'P',
                Settled::Fail => 'F',
                Settled::NotYet => '.',
            });
        }
        said
    }

    #[test]
    fn verdicts_settle_a_step_only_in_a_row() {
        let table = [
            (1, 1, "p", "P"),
            (1, 1, "f", "F"),
            (1, 1, "???", "..."),
            (3, 1, "pp?ppp", ".....P"),
            (3, 2, "ppfppp", ".....P"),
            (2, 2, "fpfpf", "....."),
            (2, 2, "ff", ".F"),
            // Silence between two failures acquits nobody.
            (2, 2, "f??f", "...F"),
            (2, 3, "fpffpfff", ".......F"),
            (2, 2, "pppp", ".PPP"),
        ];
        for (passes, failures, verdicts, expected) in table {
            assert_eq!(looks(passes, failures, verdicts), expected, "{verdicts}");
        }
        assert_eq!(Hysteresis::default().passes.get(), 2);
        assert_eq!(Hysteresis::default().failures.get(), 1);
    }
}
