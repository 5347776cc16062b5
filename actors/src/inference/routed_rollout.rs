//! A rollout that owns a route, as requests meet it: who takes part, by which
//! salts arms are drawn, and what they are called. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_raft::state::bucket::Bucket;
use starling_raft::state::rollouts::Rollout;
use starling_raft::state::{LogIndex, Ordinal, PartsPerMillion, RolloutName};

use super::routing_table::{DrawPurpose, RoutedVersion};

/// What routing needs of a rollout.
#[derive(Debug)]
pub struct RoutedRollout {
    /// Which.
    pub name: RolloutName,
    /// The entry that started it: tells runs of one name apart.
    pub started_at: LogIndex,
    /// Whether the stable version answers what another one fails.
    pub retries_on_stable: bool,
    /// Answers whoever takes no part.
    pub stable: Arc<RoutedVersion>,
    /// Of the traffic that no rule and no pin decides.
    pub enrolment: PartsPerMillion,
    revision: LogIndex,
    enrolment_salt: Vec<u8>,
    arm_salt: Vec<u8>,
    arm_names: BTreeMap<Ordinal, String>,
}

/// Salts the draws of one run of a rollout for one purpose.
fn salt(purpose: DrawPurpose, rollout: &Rollout) -> Vec<u8> {
    [&[purpose.letter()][..], rollout.salt().as_bytes()].concat()
}

impl RoutedRollout {
    pub(super) fn new(rollout: &Rollout, stable: &Arc<RoutedVersion>) -> Self {
        let named = |version: Ordinal| Some((version, rollout.arm_name(version)?.to_owned()));
        Self {
            name: rollout.name.clone(),
            started_at: rollout.started_at,
            retries_on_stable: rollout.retries_on_stable(),
            stable: Arc::clone(stable),
            enrolment: rollout.enrolment(),
            revision: rollout.revision,
            enrolment_salt: salt(DrawPurpose::Enrolment, rollout),
            arm_salt: salt(DrawPurpose::Arm, rollout),
            arm_names: rollout.versions().into_iter().filter_map(named).collect(),
        }
    }

    /// Rewards change a rollout often, and nothing that is looked at here.
    pub(super) fn is_made_from(&self, rollout: &Rollout) -> bool {
        self.started_at == rollout.started_at && self.revision == rollout.revision
    }

    /// For drawing the arm.
    pub(super) fn arm_salt(&self) -> &[u8] {
        &self.arm_salt
    }

    /// Where a key falls among those who may take part; `None`: all do.
    pub fn enrolment_bucket(&self, key: &[u8]) -> Option<Bucket> {
        (self.enrolment != PartsPerMillion::WHOLE).then(|| Bucket::of(&self.enrolment_salt, key))
    }

    /// Whether that bucket takes part.
    pub fn enrols(&self, bucket: Option<Bucket>) -> bool {
        bucket.is_none_or(|bucket| bucket.get() < self.enrolment.get())
    }

    /// Of taking part, for a key drawn at random.
    pub fn enrolled_probability(&self) -> f64 {
        f64::from(self.enrolment.get()) / 1_000_000.0
    }

    /// Of taking no part, for a key drawn at random.
    pub fn left_out_probability(&self) -> f64 {
        f64::from(self.enrolment.rest().get()) / 1_000_000.0
    }

    /// What people call a version inside it.
    pub fn arm_name(&self, version: Ordinal) -> Option<&str> {
        self.arm_names.get(&version).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::HashMap;

    use starling_raft::state::NodeId;
    use starling_raft::state::rollouts::spec::Strategy;

    use super::super::decision_ids::DecisionIds;
    use super::super::decision_parameters::{DecisionParameters, Parameters, text_parameter};
    use super::super::router::{RouteRequest, Routed, route};
    use super::super::routing_table::RoutingTable;
    use super::super::rule_matching::Attributes;
    use super::super::test_states::{TestState, ab_test, canary};
    use super::*;

    fn cluster() -> TestState {
        let mut cluster = TestState::default();
        for _ in 0..2 {
            let ordinal = cluster.register("digits");
            cluster.ready("digits", ordinal);
        }
        cluster.route("digits", &[("v1", 1_000_000)]);
        cluster
    }

    fn table_of(cluster: &TestState) -> RoutingTable {
        RoutingTable::default().updated(&cluster.state).unwrap()
    }

    fn ask(table: &RoutingTable, version: &str, key: &str) -> Routed {
        let ids = DecisionIds::new(NodeId::new(1_000), 1);
        let attributes = Attributes::default();
        let request = RouteRequest { model: "digits", version, key: Some(key), attributes };
        route(table, request, || ids.next()).unwrap()
    }

    fn said(routed: &Routed) -> (Option<String>, Option<String>) {
        let decided =
            DecisionParameters { routed: routed.clone(), answered_by: NodeId::new(1), retried_on: None };
        let mut parameters = Parameters::new();
        decided.write(&mut parameters);
        let text = |name: &str| text_parameter(&parameters, name).map(str::to_owned);
        (text("starling_rollout"), text("starling_arm"))
    }

    #[test]
    fn who_takes_no_part_gets_the_stable_version_and_the_rest_are_split_by_arm() {
        let mut cluster = cluster();
        let mut spec = ab_test("digits", &[("control", "v1", 500_000), ("treatment", "v2", 500_000)]);
        let Strategy::AbTest(experiment) = &mut spec.strategy else { panic!("an A/B test") };
        experiment.enrolment = PartsPerMillion::new(400_000).unwrap();
        cluster.start_rollout("ab", spec);
        let table = table_of(&cluster);
        let mut counts: HashMap<(bool, u64), u32> = HashMap::new();
        for number in 0..20_000 {
            let routed = ask(&table, "", &format!("user-{number}"));
            let enrolled = routed.decision.arm.is_some();
            let ordinal = routed.version.id.ordinal.get();
            *counts.entry((enrolled, ordinal)).or_default() += 1;
            assert_eq!(enrolled, routed.decision.enrolment.unwrap().get() < 400_000);
            assert_eq!(routed.propensity, if enrolled { 0.2 } else { 0.6 });
            let arm = enrolled.then_some(if ordinal == 1 { "control" } else { "treatment" });
            assert_eq!(said(&routed), (Some("ab".into()), arm.map(str::to_owned)));
        }
        assert_eq!(counts.get(&(false, 2)), None, "who takes no part gets the stable version");
        for (group, expected) in [((false, 1), 12_000_i64), ((true, 1), 4_000), ((true, 2), 4_000)] {
            let count = i64::from(counts[&group]);
            assert!((count - expected).abs() < 300, "{count} of about {expected} are {group:?}");
        }
    }

    #[test]
    fn pins_and_other_models_are_no_part_of_a_rollout() {
        let mut cluster = cluster();
        cluster.start_rollout("canary", canary("digits", "v1", "v2", 100_000));
        let pinned = ask(&table_of(&cluster), "v2", "ada");
        assert_eq!((pinned.propensity, said(&pinned)), (1.0, (None, None)));
    }

    #[test]
    fn a_candidate_and_the_stable_version_are_named_where_there_are_no_arms() {
        let mut cluster = cluster();
        cluster.start_rollout("canary", canary("digits", "v1", "v2", 500_000));
        let table = table_of(&cluster);
        for number in 0..100 {
            let routed = ask(&table, "", &format!("user-{number}"));
            let arm = if routed.version.id.ordinal == Ordinal::new(1) { "stable" } else { "candidate" };
            assert_eq!(said(&routed), (Some("canary".into()), Some(arm.into())));
            assert_eq!((routed.decision.enrolment, routed.propensity), (None, 0.5));
        }
    }

    #[test]
    fn runs_of_one_name_draw_apart() {
        let mut cluster = cluster();
        cluster.start_rollout("canary", canary("digits", "v1", "v2", 500_000));
        let first = table_of(&cluster);
        cluster.abort_rollout("canary");
        cluster.start_rollout("canary", canary("digits", "v1", "v2", 500_000));
        let second = table_of(&cluster);
        let same = (0..10_000)
            .filter(|number| {
                let key = format!("user-{number}");
                ask(&first, "", &key).version.id == ask(&second, "", &key).version.id
            })
            .count();
        assert!((4_800..=5_200).contains(&same), "{same} of 10000");
    }

    #[test]
    fn a_table_is_rebuilt_when_a_rollout_begins_and_ends() {
        let mut cluster = cluster();
        let before = table_of(&cluster);
        cluster.start_rollout("canary", canary("digits", "v1", "v2", 100_000));
        let within = before.updated(&cluster.state).unwrap();
        assert_eq!(within.model("digits").unwrap().rollout.as_ref().unwrap().name.as_str(), "canary");
        assert!(within.updated(&cluster.state).is_none());
        cluster.abort_rollout("canary");
        let after = within.updated(&cluster.state).unwrap();
        assert!(after.model("digits").unwrap().rollout.is_none());
        assert_eq!(said(&ask(&after, "", "ada")), (None, None));
    }
}
