//! From a request to the version that answers it: a pure function of the table,
//! the key and the number of the decision. No clock, no random number, no I/O.

use std::sync::Arc;

use starling_raft::state::bucket::Bucket;
use starling_raft::state::decision::Decision;
use starling_raft::state::{Epoch, Phase};

use super::InferError;
use super::decision_ids::Ticket;
use super::routed_rollout::RoutedRollout;
use super::routing_table::{RoutedModel, RoutedVersion, RoutingTable};
use super::rule_matching::Attributes;

/// What routing looks at.
#[derive(Debug, Clone, Copy)]
pub struct RouteRequest<'a> {
    /// As the client names it.
    pub model: &'a str,
    /// An ordinal or a label pins the version; empty: the route decides.
    pub version: &'a str,
    /// Equal keys get equal versions at one epoch.
    pub key: Option<&'a str>,
    /// What rules may ask for.
    pub attributes: Attributes<'a>,
}

/// Which version, and why.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The model.
    pub model: Arc<RoutedModel>,
    /// Its version that answers.
    pub version: Arc<RoutedVersion>,
    /// What explains the choice.
    pub decision: Decision,
    /// How probable this choice was for a key drawn at random, given what the
    /// request says of itself: 1 if the version was pinned or a rule chose it; in
    /// a rollout, of being on this side of the enrolment as well.
    pub propensity: f64,
    /// The key decided; the same key gets the same version again.
    pub sticky: bool,
}

/// Decides. `ticket` is drawn only if there is something to decide.
pub fn route(
    table: &RoutingTable,
    request: RouteRequest<'_>,
    ticket: impl FnOnce() -> Ticket,
) -> Result<Routed, InferError> {
    let model = find_model(table, request.model)?;
    if !request.version.is_empty() {
        let version = find_ready_version(model, request.version)?;
        return Ok(Routed {
            model: Arc::clone(model),
            version: Arc::clone(version),
            decision: decision_of(model, ticket()),
            propensity: 1.0,
            sticky: false,
        });
    }
    let Some(route) = &model.route else { return Err(no_route(model)) };
    let ticket = ticket();
    let own_key = ticket.as_key();
    let key = request.key.map_or(&own_key[..], str::as_bytes);
    let mut decision = decision_of(model, ticket);
    let chosen = |version: &Arc<RoutedVersion>, decision, propensity| Routed {
        model: Arc::clone(model),
        version: Arc::clone(version),
        decision,
        propensity,
        sticky: request.key.is_some(),
    };
    if let Some(rule) = model.rules.iter().find(|rule| rule.takes(request.attributes, key)) {
        decision.rule = Some(rule.index);
        return Ok(chosen(&rule.version, decision, 1.0));
    }
    let mut enrolled_probability = 1.0;
    if let Some(rollout) = &model.rollout {
        decision.enrolment = rollout.enrolment_bucket(key);
        if !rollout.enrols(decision.enrolment) {
            return Ok(chosen(&rollout.stable, decision, rollout.left_out_probability()));
        }
        enrolled_probability = rollout.enrolled_probability();
    }
    let bucket = Bucket::of(&model.arm_salt, key);
    decision.arm = Some(bucket);
    let owner = route.table.owner(bucket).and_then(|ordinal| model.version(ordinal));
    let Some(version) = owner else {
        return Err(InferError::Internal(format!(
            "the route of model '{}' at epoch {} leaves bucket {} without an owner",
            model.model.name,
            route.epoch,
            bucket.get()
        )));
    };
    Ok(chosen(version, decision, enrolled_probability * version.propensity))
}

impl Routed {
    /// The rollout that drew, if one did: not where a pin or a rule decided.
    pub fn rollout(&self) -> Option<&RoutedRollout> {
        let drawn = self.decision.arm.is_some() || self.decision.enrolment.is_some();
        self.model.rollout.as_ref().filter(|_| drawn)
    }

    /// What its arm is called, if it takes part.
    pub fn arm_name(&self) -> Option<&str> {
        self.decision.arm?;
        self.rollout()?.arm_name(self.version.id.ordinal)
    }

    /// Whether a rollout chose another version than the stable one.
    pub fn is_on_trial(&self) -> bool {
        self.rollout().is_some_and(|rollout| rollout.stable.id != self.version.id)
    }

    /// Who answers, should the version that was chosen fail.
    pub fn retried_on(&self) -> Option<&Arc<RoutedVersion>> {
        let rollout = self.rollout().filter(|rollout| rollout.retries_on_stable)?;
        (rollout.stable.id != self.version.id).then_some(&rollout.stable)
    }
}

/// The model, or the refusal that clients of the protocol know.
pub fn find_model<'a>(table: &'a RoutingTable, name: &str) -> Result<&'a Arc<RoutedModel>, InferError> {
    table.model(name).ok_or_else(|| {
        InferError::NotFound(format!("Request for unknown model: '{}' is not found", shortened(name)))
    })
}

/// The version, ready or not.
pub fn find_version<'a>(model: &'a RoutedModel, wanted: &str) -> Result<&'a Arc<RoutedVersion>, InferError> {
    model.version_named(wanted).ok_or_else(|| {
        InferError::NotFound(format!(
            "Request for unknown model: '{}' version {} is not found",
            model.model.name,
            shortened(wanted)
        ))
    })
}

fn find_ready_version<'a>(
    model: &'a RoutedModel,
    wanted: &str,
) -> Result<&'a Arc<RoutedVersion>, InferError> {
    let version = find_version(model, wanted)?;
    let name = &model.model.name;
    let label = &version.version.label;
    match &version.version.phase {
        Phase::Ready => Ok(version),
        Phase::Registered => Err(InferError::Unavailable(format!(
            "version '{label}' of model '{name}' is not ready: it is being loaded; try again, or watch `starling get versions {name}`"
        ))),
        Phase::Failed(reason) => Err(InferError::Unavailable(format!(
            "version '{label}' of model '{name}' is not ready: it could not be loaded: {reason}"
        ))),
    }
}

fn no_route(model: &RoutedModel) -> InferError {
    let name = &model.model.name;
    InferError::Unavailable(format!(
        "model '{name}' has no route: none of its versions is ready; see `starling get versions {name}`"
    ))
}

/// Of a request that nothing was drawn for yet.
fn decision_of(model: &RoutedModel, ticket: Ticket) -> Decision {
    Decision {
        node: ticket.node,
        boot: ticket.boot,
        sequence: ticket.sequence,
        model_id: model.model.id,
        epoch: Epoch::new(model.epoch()),
        rule: None,
        enrolment: None,
        arm: None,
    }
}

/// Names come from outside: an answer does not repeat a megabyte.
fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 128;
    text.chars().take(CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::HashMap;

    use proptest::prelude::*;
    use starling_raft::state::{NodeId, Ordinal};

    use super::*;
    use crate::inference::decision_ids::DecisionIds;
    use crate::inference::routing_table::{DrawPurpose, salt};
    use crate::inference::test_states::TestState;

    fn two_versions(v2_ppm: u32) -> TestState {
        let mut cluster = TestState::default();
        let first = cluster.register("digits");
        cluster.ready("digits", first);
        let second = cluster.register("digits");
        cluster.ready("digits", second);
        cluster.route("digits", &[("v1", 1_000_000 - v2_ppm), ("v2", v2_ppm)]);
        cluster
    }

    fn table_of(cluster: &TestState) -> RoutingTable {
        RoutingTable::default().updated(&cluster.state).unwrap()
    }

    fn ask<'a>(version: &'a str, key: Option<&'a str>) -> RouteRequest<'a> {
        RouteRequest { model: "digits", version, key, attributes: Attributes::default() }
    }

    fn ids() -> DecisionIds {
        DecisionIds::new(NodeId::new(1_000), 1)
    }

    fn refusal(table: &RoutingTable, request: RouteRequest<'_>) -> InferError {
        route(table, request, || ids().next()).unwrap_err()
    }

    #[test]
    fn an_unknown_model_is_refused_in_the_words_clients_know() {
        let request = RouteRequest { model: "nope", ..ask("", None) };
        let error = refusal(&table_of(&two_versions(0)), request);
        assert!(
            matches!(&error, InferError::NotFound(text) if text == "Request for unknown model: 'nope' is not found")
        );
    }

    #[test]
    fn an_unknown_version_is_refused_in_the_words_clients_know() {
        let error = refusal(&table_of(&two_versions(0)), ask("9", None));
        assert!(
            matches!(&error, InferError::NotFound(text) if text == "Request for unknown model: 'digits' version 9 is not found")
        );
        let error = refusal(&table_of(&two_versions(0)), ask("no such/label", None));
        assert!(matches!(error, InferError::NotFound(_)));
    }

    #[test]
    fn a_version_is_pinned_by_ordinal_or_label_with_probability_one() {
        let table = table_of(&two_versions(0));
        for name in ["2", "v2"] {
            let routed = route(&table, ask(name, Some("key")), || ids().next()).unwrap();
            assert_eq!(routed.version.id.ordinal, Ordinal::new(2));
            assert_eq!(routed.propensity, 1.0);
            assert!(!routed.sticky);
            assert_eq!(routed.decision.arm, None);
        }
    }

    #[test]
    fn a_pinned_version_that_is_being_loaded_is_unavailable() {
        let mut cluster = two_versions(0);
        cluster.register("digits");
        let error = refusal(&table_of(&cluster), ask("v3", None));
        assert!(matches!(&error, InferError::Unavailable(text) if text.contains("it is being loaded")));
    }

    #[test]
    fn a_pinned_version_that_failed_says_why() {
        let mut cluster = two_versions(0);
        let third = cluster.register("digits");
        cluster.failed("digits", third, "operator Foo is unknown");
        let error = refusal(&table_of(&cluster), ask("3", None));
        assert!(matches!(&error, InferError::Unavailable(text) if text.ends_with("operator Foo is unknown")));
    }

    #[test]
    fn a_model_without_a_ready_version_is_unavailable() {
        let mut cluster = TestState::default();
        cluster.register("digits");
        let error = refusal(&table_of(&cluster), ask("", None));
        assert!(matches!(&error, InferError::Unavailable(text) if text.contains("has no route")));
    }

    #[test]
    fn the_decision_names_node_boot_number_model_epoch_and_bucket() {
        let cluster = two_versions(250_000);
        let routed = route(&table_of(&cluster), ask("", Some("ada")), || ids().next()).unwrap();
        let decision = routed.decision;
        assert_eq!((decision.node.get(), decision.boot, decision.sequence), (1_000, 1, 1));
        assert_eq!(decision.model_id, 2);
        assert_eq!(decision.epoch.get(), cluster.index);
        assert_eq!(decision.rule, None);
        assert_eq!(decision.enrolment, None);
        assert_eq!(decision.arm, Some(Bucket::of(&salt(DrawPurpose::Arm, 2), b"ada")));
        assert!(routed.sticky);
    }

    #[test]
    fn the_propensity_is_the_weight_of_the_version_that_answers() {
        let table = table_of(&two_versions(100_000));
        for number in 0..100 {
            let key = format!("key-{number}");
            let routed = route(&table, ask("", Some(&key)), || ids().next()).unwrap();
            let expected = if routed.version.id.ordinal == Ordinal::new(2) { 0.1 } else { 0.9 };
            assert_eq!(routed.propensity, expected);
        }
    }

    #[test]
    fn requests_without_a_key_follow_the_weights_and_are_not_sticky() {
        let table = table_of(&two_versions(250_000));
        let ids = ids();
        let mut counts: HashMap<Ordinal, u32> = HashMap::new();
        for _ in 0..10_000 {
            let routed = route(&table, ask("", None), || ids.next()).unwrap();
            assert!(!routed.sticky);
            *counts.entry(routed.version.id.ordinal).or_default() += 1;
        }
        let second = counts[&Ordinal::new(2)];
        assert!((2_300..=2_700).contains(&second), "{second} of 10000 instead of about 2500");
    }

    #[test]
    fn enrolment_and_arm_are_salted_apart() {
        assert_ne!(salt(DrawPurpose::Arm, 1), salt(DrawPurpose::Enrolment, 1));
        assert_ne!(salt(DrawPurpose::Arm, 1), salt(DrawPurpose::Arm, 2));
    }

    #[test]
    fn a_table_is_rebuilt_only_where_something_changed() {
        let mut cluster = two_versions(0);
        let other = cluster.register("other");
        cluster.ready("other", other);
        let table = table_of(&cluster);
        assert!(table.updated(&cluster.state).is_none());
        cluster.route("digits", &[("v2", 1_000_000)]);
        let newer = table.updated(&cluster.state).unwrap();
        assert!(Arc::ptr_eq(table.model("other").unwrap(), newer.model("other").unwrap()));
        assert!(!Arc::ptr_eq(table.model("digits").unwrap(), newer.model("digits").unwrap()));
        cluster.delete("other");
        assert!(newer.updated(&cluster.state).unwrap().model("other").is_none());
    }

    #[test]
    fn the_representative_is_the_heaviest_version() {
        let table = table_of(&two_versions(600_000));
        assert_eq!(table.model("digits").unwrap().representative().unwrap().ordinal_text, "2");
        let table = table_of(&two_versions(400_000));
        assert_eq!(table.model("digits").unwrap().representative().unwrap().ordinal_text, "1");
    }

    proptest! {
        #[test]
        fn equal_keys_get_equal_versions_from_tables_built_apart(
            key in ".{0,40}",
            v2_ppm in 0..=1_000_000_u32,
        ) {
            let cluster = two_versions(v2_ppm);
            let here = table_of(&cluster);
            // The other node has seen every state on the way.
            let there = table_of(&two_versions(0)).updated(&cluster.state).unwrap();
            let elsewhere = DecisionIds::new(NodeId::new(1_009), 7);
            let ours = route(&here, ask("", Some(&key)), || ids().next()).unwrap();
            let theirs = route(&there, ask("", Some(&key)), || elsewhere.next()).unwrap();
            prop_assert_eq!(ours.version.id, theirs.version.id);
            prop_assert_eq!(ours.decision.arm, theirs.decision.arm);
            prop_assert_eq!(ours.decision.epoch, theirs.decision.epoch);
        }

        #[test]
        fn a_ramp_keeps_whoever_was_in_it(key in ".{1,40}", small in 1..500_000_u32, more in 0..500_000_u32) {
            let mut cluster = two_versions(small);
            let before = route(&table_of(&cluster), ask("", Some(&key)), || ids().next()).unwrap();
            if more > 0 {
                cluster.route("digits", &[("v1", 1_000_000 - small - more), ("v2", small + more)]);
            }
            let after = route(&table_of(&cluster), ask("", Some(&key)), || ids().next()).unwrap();
            if before.version.id.ordinal == Ordinal::new(2) {
                prop_assert_eq!(after.version.id.ordinal, Ordinal::new(2));
            }
        }
    }
}
