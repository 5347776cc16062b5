//! The id of a decision: one text per decision, readable for ever.

use proptest::prelude::*;
use starling_raft::state::bucket::{BUCKETS, Bucket};
use starling_raft::state::decision::Decision;
use starling_raft::state::{Epoch, NodeId};

const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn ordinary() -> Decision {
    Decision {
        node: NodeId::new(1_007),
        boot: 3,
        sequence: 123_456,
        model_id: 42,
        epoch: Epoch::new(77),
        rule: None,
        enrolment: Some(Bucket::new(0).unwrap()),
        arm: Some(Bucket::new(999_999).unwrap()),
    }
}

fn largest() -> Decision {
    Decision {
        node: NodeId::new(u64::MAX),
        boot: u32::MAX,
        sequence: u64::MAX,
        model_id: u64::MAX,
        epoch: Epoch::new(u64::MAX),
        rule: Some(u16::MAX),
        enrolment: Some(Bucket::new(999_999).unwrap()),
        arm: Some(Bucket::new(999_999).unwrap()),
    }
}

fn smallest() -> Decision {
    Decision {
        node: NodeId::new(0),
        boot: 0,
        sequence: 0,
        model_id: 0,
        epoch: Epoch::new(0),
        rule: None,
        enrolment: None,
        arm: None,
    }
}

/// Format 1, for ever.
#[test]
fn known_decisions_have_known_ids() {
    let ids = [
        "Ae8HA8DEBypNAAHAhD2m",
        "AQAAAAAAAAAAgA",
        "Af___________wH_____D____________wH___________8B____________AYCABMCEPcCEPQk",
    ];
    let decisions = [ordinary(), smallest(), largest()];
    assert_eq!(decisions.map(|decision| decision.to_string()), ids);
    assert_eq!(ids.map(str::parse), decisions.map(Ok));
}

#[test]
fn encoding_appends_to_what_is_there() {
    let mut text = "starling:".to_owned();
    ordinary().encode_into(&mut text);
    assert_eq!(text, format!("starling:{}", ordinary()));
}

#[test]
fn what_is_no_id_is_refused_with_its_beginning() {
    for text in ["", "A", "AB", "hello world", "ünïcödé", "====", &"A".repeat(1_000), "AQ", "AQAAAAAAAAAA"]
    {
        let error = text.parse::<Decision>().unwrap_err();
        assert_eq!(error.0, text.chars().take(100).collect::<String>());
    }
}

fn any_decision() -> impl Strategy<Value = Decision> {
    let number = || prop_oneof![any::<u64>(), 0..300_u64, Just(u64::MAX)];
    let bucket = || proptest::option::of((0..BUCKETS).prop_map(|bucket| Bucket::new(bucket).unwrap()));
    (
        number(),
        any::<u32>(),
        number(),
        number(),
        number(),
        proptest::option::of(any::<u16>()),
        bucket(),
        bucket(),
    )
        .prop_map(|(node, boot, sequence, model_id, epoch, rule, enrolment, arm)| Decision {
            node: NodeId::new(node),
            boot,
            sequence,
            model_id,
            epoch: Epoch::new(epoch),
            rule,
            enrolment,
            arm,
        })
}

proptest! {
    #[test]
    fn any_decision_reads_back(decision in any_decision()) {
        prop_assert_eq!(decision.to_string().parse(), Ok(decision));
    }

    #[test]
    fn another_text_is_refused_or_is_another_decision(
        decision in any_decision(),
        at in any::<prop::sample::Index>(),
        with in prop::sample::select(ALPHABET.chars().chain(['=', '+', ' ', 'é']).collect::<Vec<_>>()),
    ) {
        let id = decision.to_string();
        let mut changed: Vec<char> = id.chars().collect();
        let at = at.index(changed.len());
        changed[at] = with;
        let changed: String = changed.into_iter().collect();
        if changed != id {
            prop_assert_ne!(changed.parse::<Decision>(), Ok(decision));
        }
    }

    #[test]
    fn a_shorter_or_longer_text_is_refused_or_is_another_decision(
        decision in any_decision(), cut in 1..4_usize, more in "[A-Za-z0-9_-]{1,4}"
    ) {
        let id = decision.to_string();
        prop_assert_ne!(id[..id.len() - cut].parse::<Decision>(), Ok(decision));
        prop_assert_ne!(format!("{id}{more}").parse::<Decision>(), Ok(decision));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,90}") {
        let read = text.parse::<Decision>();
        if let Ok(decision) = read {
            prop_assert_eq!(decision.to_string(), text);
        }
    }
}
