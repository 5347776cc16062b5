//! Feedback between its messages and its types: parsed here, once.

use starling_proto::feedback as wire;
use starling_proto::feedback::feedback_item::Said as SaidWire;

use super::item::{Answer, Feedback, Said, Verdict, WORD_BYTES_MAX};

/// What the message says, or why it says nothing.
pub fn from_wire(item: wire::FeedbackItem) -> Result<Feedback, Answer> {
    let invalid = |reason: String| Answer::because(Verdict::Invalid, reason);
    let decision = item.decision.parse().map_err(|error| invalid(format!("{error}")))?;
    let said = match item.said {
        None if !item.retract => return Err(invalid("there is no value, label or flag".to_owned())),
        None => Said::Nothing,
        Some(SaidWire::Value(number)) if !number.is_finite() => {
            return Err(invalid(format!("{number} is no finite number")));
        }
        Some(SaidWire::Value(number)) => Said::Number(number),
        Some(SaidWire::Flag(flag)) => Said::Flag(flag),
        Some(SaidWire::Label(label)) => Said::Label(word("label", label)?),
    };
    Ok(Feedback {
        decision,
        said,
        unit: if item.unit.is_empty() { None } else { Some(word("unit", item.unit)?) },
        retract: item.retract,
        observed_unix_micros: Some(item.observed_unix_us).filter(|micros| *micros > 0),
    })
}

/// The message that says the same.
pub fn to_wire(feedback: Feedback) -> wire::FeedbackItem {
    wire::FeedbackItem {
        decision: feedback.decision.to_string(),
        said: match feedback.said {
            Said::Nothing => None,
            Said::Number(number) => Some(SaidWire::Value(number)),
            Said::Flag(flag) => Some(SaidWire::Flag(flag)),
            Said::Label(label) => Some(SaidWire::Label(label)),
        },
        unit: feedback.unit.unwrap_or_default(),
        retract: feedback.retract,
        observed_unix_us: feedback.observed_unix_micros.unwrap_or_default(),
    }
}

/// An answer as it is sent.
pub fn answer_to_wire(answer: Answer) -> wire::FeedbackResult {
    let verdict = match answer.verdict {
        Verdict::Recorded => wire::FeedbackVerdict::Recorded,
        Verdict::Stored => wire::FeedbackVerdict::Stored,
        Verdict::Duplicate => wire::FeedbackVerdict::Duplicate,
        Verdict::Retracted => wire::FeedbackVerdict::Retracted,
        Verdict::NotInExperiment => wire::FeedbackVerdict::NotInExperiment,
        Verdict::Late => wire::FeedbackVerdict::Late,
        Verdict::OutOfRange => wire::FeedbackVerdict::OutOfRange,
        Verdict::Unknown => wire::FeedbackVerdict::Unknown,
        Verdict::Invalid => wire::FeedbackVerdict::Invalid,
    };
    wire::FeedbackResult { verdict: verdict.into(), reason: answer.reason, counted: answer.counted }
}

/// `None`: a verdict that this binary does not know.
pub fn answer_from_wire(result: wire::FeedbackResult) -> Option<Answer> {
    let verdict = match result.verdict() {
        wire::FeedbackVerdict::Unspecified => return None,
        wire::FeedbackVerdict::Recorded => Verdict::Recorded,
        wire::FeedbackVerdict::Stored => Verdict::Stored,
        wire::FeedbackVerdict::Duplicate => Verdict::Duplicate,
        wire::FeedbackVerdict::Retracted => Verdict::Retracted,
        wire::FeedbackVerdict::NotInExperiment => Verdict::NotInExperiment,
        wire::FeedbackVerdict::Late => Verdict::Late,
        wire::FeedbackVerdict::OutOfRange => Verdict::OutOfRange,
        wire::FeedbackVerdict::Unknown => Verdict::Unknown,
        wire::FeedbackVerdict::Invalid => Verdict::Invalid,
    };
    Some(Answer { verdict, reason: result.reason, counted: result.counted })
}

fn word(what: &str, word: String) -> Result<String, Answer> {
    if word.len() <= WORD_BYTES_MAX {
        return Ok(word);
    }
    let reason = format!("the {what} has {} bytes, and {WORD_BYTES_MAX} are allowed", word.len());
    Err(Answer::because(Verdict::Invalid, reason))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::testing::{decision, feedback};
    use super::*;

    #[test]
    fn feedback_comes_back_as_it_was_sent() {
        let saids = [Said::Number(-2.5), Said::Flag(true), Said::Label("cat".into())];
        for said in saids {
            let sent =
                Feedback { said, unit: Some("u".into()), observed_unix_micros: Some(7), ..feedback(3) };
            assert_eq!(from_wire(to_wire(sent.clone())), Ok(sent));
        }
        let retraction = Feedback { said: Said::Nothing, retract: true, ..feedback(3) };
        assert_eq!(from_wire(to_wire(retraction.clone())), Ok(retraction));
        for verdict in Verdict::ALL {
            let answer = Answer { counted: true, ..Answer::because(verdict, "why") };
            assert_eq!(answer_from_wire(answer_to_wire(answer.clone())), Some(answer));
        }
    }

    #[test]
    fn what_says_nothing_is_refused_with_the_reason() {
        let reason = |change: fn(&mut wire::FeedbackItem)| {
            let mut item = to_wire(feedback(3));
            change(&mut item);
            let answer = from_wire(item).unwrap_err();
            assert_eq!(answer.verdict, Verdict::Invalid);
            answer.reason
        };
        assert_eq!(reason(|item| item.said = None), "there is no value, label or flag");
        assert_eq!(reason(|item| item.said = Some(SaidWire::Value(f64::NAN))), "NaN is no finite number");
        assert!(reason(|item| item.decision = "AAAA".into()).contains("'AAAA' is not a decision id"));
        assert_eq!(reason(|item| item.unit = "u".repeat(257)), "the unit has 257 bytes, and 256 are allowed");
        let mut torn = decision(3).to_string();
        torn.pop();
        assert!(from_wire(wire::FeedbackItem { decision: torn, ..Default::default() }).is_err());
    }
}
