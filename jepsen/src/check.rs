//! Judges a whole history: one register per model, each on its own, since a
//! history is linearizable if its parts per object are (Herlihy and Wing, 1990).

use std::collections::BTreeSet;
use std::fmt;

use super::history::{Answer, Operation};
use super::linearizability::is_linearizable;
use super::route_register::{EpochKnowledge, RouteRegister, RouteState, timed_operations};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// All operations.
    pub operations: usize,
    /// Those whose answer never came.
    pub unknown: usize,
    /// Those that certainly had no effect.
    pub refused: usize,
    /// Registers judged.
    pub models: usize,
    /// Models whose operations cannot have happened one at a time.
    pub not_linearizable: Vec<String>,
    /// Models without a first read, which cannot be judged.
    pub without_start: Vec<String>,
}

impl Verdict {
    /// Whether every register passed, and there was something to judge.
    pub fn is_linearizable(&self) -> bool {
        self.models > 0 && self.not_linearizable.is_empty() && self.without_start.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, unknown, refused, models, .. } = self;
        write!(
            f,
            "{operations} operations on {models} routes ({unknown} without an answer, {refused} refused): "
        )?;
        if self.is_linearizable() {
            return write!(f, "linearizable");
        }
        write!(f, "NOT linearizable")?;
        if !self.not_linearizable.is_empty() {
            write!(f, "; broken: {}", self.not_linearizable.join(", "))?;
        }
        if !self.without_start.is_empty() {
            write!(f, "; without a first read: {}", self.without_start.join(", "))?;
        }
        Ok(())
    }
}

/// The first operation on each model must be a read that was answered before
/// any other began: it tells where the register started.
pub fn check(history: &[Operation]) -> Verdict {
    let models: BTreeSet<&str> = history.iter().map(|operation| operation.model.as_str()).collect();
    let count = |answer: Answer| history.iter().filter(|operation| operation.answer == answer).count();
    let mut verdict = Verdict {
        operations: history.len(),
        unknown: count(Answer::Unknown),
        refused: count(Answer::Refused),
        models: models.len(),
        not_linearizable: Vec::new(),
        without_start: Vec::new(),
    };
    for model in models {
        let first =
            history.iter().filter(|operation| operation.model == model).min_by_key(|first| first.called_ns);
        let Some(Answer::Value { epoch, value }) = first.map(|first| first.answer) else {
            verdict.without_start.push(model.to_owned());
            continue;
        };
        let register = RouteRegister { initial: RouteState { value, epoch: EpochKnowledge::Known(epoch) } };
        if !is_linearizable(&register, &timed_operations(history, model)) {
            verdict.not_linearizable.push(model.to_owned());
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Call;

    fn operation(client: usize, times: (u64, u64), call: Call, answer: Answer) -> Operation {
        Operation {
            client,
            model: "digits".into(),
            called_ns: times.0,
            returned_ns: (answer != Answer::Unknown).then_some(times.1),
            call,
            answer,
        }
    }

    fn started_with(operations: Vec<Operation>) -> bool {
        let first = operation(0, (0, 1), Call::Read, Answer::Value { epoch: 10, value: 0 });
        let history: Vec<Operation> = std::iter::once(first).chain(operations).collect();
        check(&history).is_linearizable()
    }

    #[test]
    fn a_good_history_passes() {
        assert!(started_with(vec![
            operation(1, (2, 9), Call::Write { value: 5 }, Answer::Written { epoch: 11 }),
            operation(2, (3, 4), Call::Read, Answer::Value { epoch: 10, value: 0 }),
            operation(2, (5, 6), Call::Read, Answer::Value { epoch: 11, value: 5 }),
            operation(3, (10, 12), Call::WriteAt { epoch: 11, value: 7 }, Answer::Written { epoch: 12 }),
            operation(1, (11, 13), Call::WriteAt { epoch: 11, value: 8 }, Answer::OtherEpoch),
            operation(2, (14, 15), Call::Write { value: 7 }, Answer::Unchanged),
        ]));
    }

    #[test]
    fn a_stale_read_is_caught() {
        assert!(!started_with(vec![
            operation(1, (2, 3), Call::Write { value: 5 }, Answer::Written { epoch: 11 }),
            operation(2, (4, 5), Call::Read, Answer::Value { epoch: 10, value: 0 }),
        ]));
    }

    #[test]
    fn an_acknowledged_write_that_vanished_is_caught() {
        assert!(!started_with(vec![
            operation(1, (2, 3), Call::Write { value: 5 }, Answer::Written { epoch: 11 }),
            operation(1, (4, 5), Call::Write { value: 6 }, Answer::Written { epoch: 12 }),
            operation(2, (6, 7), Call::Read, Answer::Value { epoch: 11, value: 5 }),
        ]));
    }

    #[test]
    fn two_winners_of_one_epoch_are_caught() {
        assert!(!started_with(vec![
            operation(1, (2, 5), Call::WriteAt { epoch: 10, value: 5 }, Answer::Written { epoch: 11 }),
            operation(2, (2, 5), Call::WriteAt { epoch: 10, value: 6 }, Answer::Written { epoch: 12 }),
        ]));
    }

    #[test]
    fn a_value_under_another_epoch_is_caught() {
        assert!(!started_with(vec![
            operation(1, (2, 3), Call::Write { value: 5 }, Answer::Written { epoch: 11 }),
            operation(2, (4, 5), Call::Read, Answer::Value { epoch: 12, value: 5 }),
        ]));
    }

    #[test]
    fn epochs_that_go_back_are_caught() {
        assert!(!started_with(vec![operation(
            1,
            (2, 3),
            Call::Write { value: 5 },
            Answer::Written { epoch: 9 }
        ),]));
    }

    #[test]
    fn a_write_without_an_answer_may_be_seen_later_under_a_new_epoch() {
        let lost = operation(1, (2, 3), Call::Write { value: 5 }, Answer::Unknown);
        let seen = |epoch| operation(2, (4, 5), Call::Read, Answer::Value { epoch, value: 5 });
        assert!(started_with(vec![lost.clone(), seen(17)]));
        assert!(!started_with(vec![lost, seen(10)]));
    }

    #[test]
    fn a_refused_write_must_not_be_seen() {
        assert!(!started_with(vec![
            operation(1, (2, 3), Call::Write { value: 5 }, Answer::Refused),
            operation(2, (4, 5), Call::Read, Answer::Value { epoch: 11, value: 5 }),
        ]));
    }

    #[test]
    fn nothing_to_judge_is_no_pass() {
        assert!(!check(&[]).is_linearizable());
        let write_only = [operation(1, (2, 3), Call::Write { value: 5 }, Answer::Written { epoch: 11 })];
        assert!(!check(&write_only).is_linearizable());
    }
}
