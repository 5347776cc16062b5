//! Routes as they go over the wire.

use starling_proto::admin::agreement::Kind;
use starling_proto::admin::request_condition::{Attribute as AttributeWire, Test as TestWire};
use starling_proto::admin::{
    Agreement as AgreementWire, AnswerComparison, DistanceAgreement, ExactAgreement, OutputAgreement,
    RequestCondition, Route as RouteWire, RouteRule, RouteShadow, TextList, ToleranceAgreement,
    TopOneAgreement, WeightedVersion,
};
use starling_raft::state::routes::rules::{Attribute, Condition, Rule, Test};
use starling_raft::state::routes::shadows::{Agreement, Comparison, Shadow};
use starling_raft::state::{Model, Ordinal, Route};

/// A route without traffic, its versions by label.
pub(super) fn route(model: &Model, route: &Route) -> RouteWire {
    let label = |ordinal| label(model, ordinal);
    let weights = route
        .weights
        .iter()
        .map(|(ordinal, weight)| WeightedVersion { version: label(*ordinal), weight_ppm: weight.get() });
    RouteWire {
        model: model.name.to_string(),
        epoch: route.epoch.get(),
        weights: weights.collect(),
        rules: route.rules.iter().map(|one| rule(one, label(one.version))).collect(),
        shadows: route.shadows.iter().map(|one| shadow(one, label(one.version))).collect(),
        ..RouteWire::default()
    }
}

/// A version's label; of one that is gone, its ordinal.
pub(super) fn label(model: &Model, ordinal: Ordinal) -> String {
    model.versions.get(&ordinal).map_or_else(|| ordinal.to_string(), |version| version.label.to_string())
}

pub(super) fn rule<V>(rule: &Rule<V>, version: String) -> RouteRule {
    RouteRule {
        name: rule.name.to_string(),
        when: conditions(&rule.when),
        portion_ppm: rule.portion.get(),
        version,
    }
}

pub(super) fn shadow<V>(shadow: &Shadow<V>, version: String) -> RouteShadow {
    RouteShadow {
        version,
        when: conditions(&shadow.when),
        portion_ppm: shadow.portion.get(),
        comparison: Some(comparison(&shadow.comparison)),
    }
}

/// Conditions, in their order.
pub(crate) fn conditions(conditions: &[Condition]) -> Vec<RequestCondition> {
    let wire = |condition: &Condition| RequestCondition {
        attribute: Some(match &condition.attribute {
            Attribute::Parameter(name) => AttributeWire::Parameter(name.clone()),
            Attribute::Metadata(name) => AttributeWire::Metadata(name.clone()),
        }),
        test: Some(match &condition.test {
            Test::Equals(text) => TestWire::Equals(text.clone()),
            Test::In(texts) => TestWire::In(TextList { texts: texts.clone() }),
            Test::Matches(pattern) => TestWire::Matches(pattern.clone()),
        }),
    };
    conditions.iter().map(wire).collect()
}

/// What counts as agreement.
pub(crate) fn comparison(comparison: &Comparison) -> AnswerComparison {
    let outputs = comparison
        .outputs
        .iter()
        .map(|(output, how)| OutputAgreement { output: output.clone(), agreement: Some(agreement(*how)) });
    AnswerComparison { outputs: outputs.collect(), others: Some(agreement(comparison.others)) }
}

fn agreement(agreement: Agreement) -> AgreementWire {
    let kind = match agreement {
        Agreement::Exact => Kind::Exact(ExactAgreement {}),
        Agreement::TopOne => Kind::TopOne(TopOneAgreement {}),
        Agreement::Tolerance { absolute_nano, relative_nano } => {
            Kind::Tolerance(ToleranceAgreement { absolute_nano, relative_nano })
        }
        Agreement::Distance { max } => Kind::Distance(DistanceAgreement { max_ppm: max.get() }),
    };
    AgreementWire { kind: Some(kind) }
}
