//! What becomes of one piece of feedback. Pure.

use starling_statistics::sums::Fixed;

use super::boots::Age;
use super::item::{Answer, Feedback, Said, Verdict};
use super::ledger::{Credit, Ledger, NoCredit, NoReward};
use super::rewarded::Standing;

/// What is to be done with it.
#[derive(Debug, Clone, PartialEq)]
pub enum Ruling {
    /// Nothing.
    Refuse(Answer),
    /// Nothing: the decision has its reward, or has lost it.
    Duplicate,
    /// Keep it aside.
    Aside(Answer),
    /// It is the decision's reward, and counts for an arm.
    Credit(Credit, Fixed),
    /// It is the decision's reward, and counts for nobody.
    Uncredited(Answer),
    /// Take back what the decision's reward was credited to.
    TakeBack,
    /// The reward may come later, and will not count.
    NeverCredit,
}

/// Judges by what is known of the decision and of its reward.
pub fn judge(feedback: &Feedback, age: Age, standing: Standing, ledger: &dyn Ledger) -> Ruling {
    if let Said::Number(number) = feedback.said
        && !number.is_finite()
    {
        return Ruling::Refuse(Answer::because(Verdict::Invalid, format!("{number} is no finite number")));
    }
    match age {
        Age::Young => {}
        Age::Late(reason) => return Ruling::Aside(Answer::because(Verdict::Late, reason)),
        Age::Never(reason) => return Ruling::Aside(Answer::because(Verdict::Unknown, reason)),
    }
    if feedback.retract {
        return match standing {
            Standing { retracted: true, .. } => Ruling::Duplicate,
            Standing { rewarded: true, .. } => Ruling::TakeBack,
            _ => Ruling::NeverCredit,
        };
    }
    if standing.rewarded {
        return Ruling::Duplicate;
    }
    let credit = match ledger.credit_to(&feedback.decision) {
        Ok(credit) => credit,
        Err(NoCredit::Unknown(reason)) => return Ruling::Aside(Answer::because(Verdict::Unknown, reason)),
        Err(NoCredit::Late(reason)) => return Ruling::Aside(Answer::because(Verdict::Late, reason)),
        Err(NoCredit::NotInExperiment(_)) if feedback.said == Said::Nothing => return nothing_said(),
        Err(NoCredit::NotInExperiment(reason)) => {
            return Ruling::Uncredited(Answer::because(Verdict::NotInExperiment, reason));
        }
    };
    let reward = match credit.rule.reward(&feedback.said) {
        Ok(reward) => reward,
        Err(NoReward::Invalid(reason)) => return Ruling::Refuse(Answer::because(Verdict::Invalid, reason)),
        Err(NoReward::OutOfRange(reason)) => {
            return Ruling::Refuse(Answer::because(Verdict::OutOfRange, reason));
        }
    };
    if standing.retracted {
        let reason = "it had been retracted before it came";
        return Ruling::Uncredited(Answer::because(Verdict::Retracted, reason));
    }
    Ruling::Credit(credit, reward)
}

fn nothing_said() -> Ruling {
    Ruling::Refuse(Answer::because(Verdict::Invalid, NoReward::nothing_said().to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::testing::{OneRollout, feedback};
    use super::*;

    const NEW: Standing = Standing { rewarded: false, retracted: false };
    const REWARDED: Standing = Standing { rewarded: true, retracted: false };
    const RETRACTED: Standing = Standing { rewarded: false, retracted: true };

    fn ruling(feedback: &Feedback, standing: Standing) -> Ruling {
        judge(feedback, Age::Young, standing, &OneRollout::default())
    }

    fn said(said: Said) -> Feedback {
        Feedback { said, ..feedback(1) }
    }

    fn verdict(ruling: Ruling) -> Verdict {
        match ruling {
            Ruling::Refuse(answer) | Ruling::Aside(answer) | Ruling::Uncredited(answer) => answer.verdict,
            Ruling::Duplicate => Verdict::Duplicate,
            Ruling::Credit(..) => Verdict::Recorded,
            Ruling::TakeBack | Ruling::NeverCredit => Verdict::Retracted,
        }
    }

    #[test]
    fn the_first_reward_counts_and_no_other_whatever_its_value() {
        assert!(matches!(ruling(&feedback(1), NEW), Ruling::Credit(_, Fixed::ONE)));
        assert_eq!(ruling(&feedback(1), REWARDED), Ruling::Duplicate);
        assert_eq!(ruling(&said(Said::Number(0.5)), REWARDED), Ruling::Duplicate);
    }

    #[test]
    fn a_retraction_counts_once_and_may_come_first() {
        let retraction = Feedback { retract: true, ..said(Said::Nothing) };
        assert_eq!(ruling(&retraction, REWARDED), Ruling::TakeBack);
        assert_eq!(ruling(&retraction, Standing { rewarded: true, retracted: true }), Ruling::Duplicate);
        assert_eq!(ruling(&retraction, NEW), Ruling::NeverCredit);
        assert_eq!(ruling(&retraction, RETRACTED), Ruling::Duplicate);
        let Ruling::Uncredited(answer) = ruling(&feedback(1), RETRACTED) else { panic!("it must not count") };
        assert_eq!(answer.verdict, Verdict::Retracted);
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_known_of_the_decision() {
        let nan = said(Said::Number(f64::NAN));
        assert_eq!(
            verdict(judge(&nan, Age::Late("".into()), REWARDED, &OneRollout::default())),
            Verdict::Invalid
        );
        assert_eq!(verdict(ruling(&said(Said::Number(f64::INFINITY)), NEW)), Verdict::Invalid);
        assert_eq!(verdict(ruling(&said(Said::Nothing), NEW)), Verdict::Invalid);
        assert_eq!(verdict(ruling(&said(Said::Number(7.0)), NEW)), Verdict::OutOfRange);
        assert_eq!(verdict(ruling(&said(Said::Label("cow".into())), NEW)), Verdict::OutOfRange);
    }

    #[test]
    fn what_cannot_be_credited_is_told_apart() {
        let of =
            |answer: NoCredit| judge(&feedback(1), Age::Young, NEW, &OneRollout { instead: Some(answer) });
        let reason = || "because".to_owned();
        assert!(matches!(of(NoCredit::NotInExperiment(reason())), Ruling::Uncredited(_)));
        assert_eq!(verdict(of(NoCredit::NotInExperiment(reason()))), Verdict::NotInExperiment);
        assert_eq!(verdict(of(NoCredit::Unknown(reason()))), Verdict::Unknown);
        assert_eq!(verdict(of(NoCredit::Late(reason()))), Verdict::Late);
        let ledger = OneRollout::default();
        assert_eq!(verdict(judge(&feedback(1), Age::Late(reason()), NEW, &ledger)), Verdict::Late);
        assert_eq!(verdict(judge(&feedback(1), Age::Never(reason()), NEW, &ledger)), Verdict::Unknown);
    }
}
