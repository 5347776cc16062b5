//! How enumerations of the administration contract look in JSON and YAML: as the
//! words of manifests, not as their numbers.

use serde::Serializer;

use crate::admin::{
    Correction, DeviceKind, InstanceMode, OnFailure, OnInconclusive, RolloutEnding, RolloutPhase,
    RolloutVerdict, StageKind,
};

macro_rules! words {
    ($($function:ident: $enumeration:ty, $prefix:literal;)+) => {
        $(pub(crate) fn $function<S: Serializer>(number: &i32, to: S) -> Result<S::Ok, S::Error> {
            let name = <$enumeration>::try_from(*number).map_or("", |value| value.as_str_name());
            to.serialize_str(&word(name, $prefix))
        })+
    };
}

words! {
    instance_mode: InstanceMode, "INSTANCE_MODE_";
    device_kind: DeviceKind, "DEVICE_KIND_";
    on_failure: OnFailure, "ON_FAILURE_";
    on_inconclusive: OnInconclusive, "ON_INCONCLUSIVE_";
    correction: Correction, "CORRECTION_";
    rollout_phase: RolloutPhase, "ROLLOUT_PHASE_";
    rollout_ending: RolloutEnding, "ROLLOUT_ENDING_";
    stage_kind: StageKind, "STAGE_KIND_";
    rollout_verdict: RolloutVerdict, "ROLLOUT_VERDICT_";
}

/// `ROLLOUT_ENDING_ROLLED_BACK` is `rolledBack`; a number that this binary does
/// not know is `unknown`.
fn word(name: &str, prefix: &str) -> String {
    let parts = name.strip_prefix(prefix).unwrap_or("UNKNOWN").split('_').map(str::to_lowercase);
    let mut word = String::new();
    for part in parts {
        let mut letters = part.chars();
        match letters.next() {
            Some(first) if !word.is_empty() => word.extend(first.to_uppercase().chain(letters)),
            Some(first) => word.extend(std::iter::once(first).chain(letters)),
            None => {}
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enumerations_are_written_as_manifests_write_them() {
        assert_eq!(word("INSTANCE_MODE_LOCAL", "INSTANCE_MODE_"), "local");
        assert_eq!(word("ROLLOUT_ENDING_ROLLED_BACK", "ROLLOUT_ENDING_"), "rolledBack");
        assert_eq!(word("CORRECTION_BENJAMINI_HOCHBERG", "CORRECTION_"), "benjaminiHochberg");
        assert_eq!(word("", "ON_FAILURE_"), "unknown");
    }
}
