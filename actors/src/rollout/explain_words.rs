//! The steps of an explanation in the words of people.

use std::fmt;

use starling_raft::state::PartsPerMillion;
use starling_raft::state::bucket::{BUCKETS, Bucket};

use super::explain::Step;

impl Step {
    /// One word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Made { .. } => "made",
            Self::Route { .. } => "route",
            Self::Pinned => "pinned",
            Self::RuleNotMet { .. } => "ruleNotMet",
            Self::RuleLeftOut { .. } => "ruleLeftOut",
            Self::RuleTaken { .. } => "ruleTaken",
            Self::NoRule { .. } => "noRule",
            Self::Enrolment { .. } => "enrolment",
            Self::Arm { .. } => "arm",
        }
    }

    /// The bucket that was drawn, and the first and one past the last that it was
    /// held against, where one was drawn.
    pub fn draw(&self) -> Option<(Bucket, u32, u32)> {
        match self {
            Self::RuleLeftOut { bucket, portion, .. } => Some((*bucket, 0, portion.get())),
            Self::RuleTaken { bucket, portion, .. } => bucket.map(|bucket| (bucket, 0, portion.get())),
            Self::Enrolment { bucket, enrolment, .. } => bucket.map(|bucket| (bucket, 0, enrolment.get())),
            Self::Arm { bucket, start, end, .. } => Some((*bucket, *start, *end)),
            Self::Made { .. }
            | Self::Route { .. }
            | Self::Pinned
            | Self::RuleNotMet { .. }
            | Self::NoRule { .. } => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made { node, boot, sequence } => {
                write!(f, "node {node} decided it, as number {sequence} since its start number {boot}")
            }
            Self::Route { epoch, weights } => {
                write!(f, "the route of epoch {epoch} was in force:")?;
                weights.iter().try_for_each(|(version, weight)| write!(f, " {version}={}", percent(*weight)))
            }
            Self::Pinned => write!(
                f,
                "the request named its version itself, so nothing was drawn; `starling get decisions --decision ID` shows which, while the node keeps it"
            ),
            Self::RuleNotMet { index, name } => {
                write!(f, "rule {} '{name}' asks for what the request does not say", u32::from(*index) + 1)
            }
            Self::RuleLeftOut { index, name, bucket, portion } => write!(
                f,
                "rule {} '{name}' takes {} of its segment: bucket {} of {BUCKETS} is not below {}",
                u32::from(*index) + 1,
                percent(*portion),
                bucket.get(),
                portion.get()
            ),
            Self::RuleTaken { index, name, bucket, portion, version } => {
                write!(f, "rule {} '{name}' decided: {version}", u32::from(*index) + 1)?;
                match bucket {
                    Some(bucket) => write!(
                        f,
                        "; it takes {} of its segment, and bucket {} of {BUCKETS} is below {}",
                        percent(*portion),
                        bucket.get(),
                        portion.get()
                    ),
                    None if *portion == PartsPerMillion::WHOLE => Ok(()),
                    None => write!(f, "; it takes {} of its segment", percent(*portion)),
                }
            }
            Self::NoRule { rules: 1 } => write!(f, "the one rule did not take it"),
            Self::NoRule { rules } => write!(f, "none of the {rules} rules took it"),
            Self::Enrolment { rollout, bucket: None, .. } => {
                write!(f, "rollout '{rollout}' owned the weights, and everybody takes part")
            }
            Self::Enrolment { rollout, bucket: Some(bucket), enrolment, stable } => {
                let (bucket, threshold) = (bucket.get(), enrolment.get());
                write!(
                    f,
                    "rollout '{rollout}' enrols {}: bucket {bucket} of {BUCKETS} is ",
                    percent(*enrolment)
                )?;
                match bucket < threshold {
                    true => write!(f, "below {threshold}, so it takes part"),
                    false => write!(f, "not below {threshold}, so it gets the stable version, {stable}"),
                }
            }
            Self::Arm { bucket, start, end, version, arm, weight } => {
                let bucket = bucket.get();
                write!(f, "bucket {bucket} of {BUCKETS} lies in {start}..{end}, which {version} owns")?;
                if let Some(arm) = arm {
                    write!(f, " (arm '{arm}')")?;
                }
                write!(f, "; all of it is {}", percent(*weight))
            }
        }
    }
}

fn percent(weight: PartsPerMillion) -> String {
    format!("{}%", f64::from(weight.get()) / 10_000.0)
}
