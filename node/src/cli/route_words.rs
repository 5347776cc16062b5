//! Rules and shadows of routes in a line each.

use starling_proto::admin::agreement::Kind;
use starling_proto::admin::request_condition::{Attribute, Test};
use starling_proto::admin::{Agreement, AnswerComparison, RequestCondition, Route, RouteRule, RouteShadow};

use super::get::percent;

/// Of a route that has any: one line for each, in the order in which they are tried.
pub fn lines(route: &Route) -> Vec<String> {
    let rules = (1..).zip(&route.rules).map(|(number, rule)| rule_line(number, rule));
    rules.chain(route.shadows.iter().map(shadow_line)).collect()
}

/// `rule 1 gold: 10% of parameter tier = gold -> v2`
pub fn rule_line(number: u32, rule: &RouteRule) -> String {
    let segment = segment(rule.portion_ppm, &rule.when);
    format!("rule {number} {}: {segment} -> {}", rule.name, rule.version)
}

/// `shadow v3: everything, compared topOne`
pub fn shadow_line(shadow: &RouteShadow) -> String {
    let segment = segment(shadow.portion_ppm, &shadow.when);
    let compared = shadow.comparison.as_ref().map(comparison).unwrap_or_default();
    format!("shadow {}: {segment}, compared {compared}", shadow.version)
}

fn segment(portion_ppm: u32, when: &[RequestCondition]) -> String {
    let conditions: Vec<String> = when.iter().map(condition).collect();
    let whom = if conditions.is_empty() { "everything".to_owned() } else { conditions.join(" and ") };
    if portion_ppm == 1_000_000 { whom } else { format!("{} of {whom}", percent(portion_ppm)) }
}

fn condition(condition: &RequestCondition) -> String {
    let attribute = match &condition.attribute {
        Some(Attribute::Parameter(name)) => format!("parameter {name}"),
        Some(Attribute::Metadata(name)) => format!("metadata {name}"),
        None => "nothing".to_owned(),
    };
    match &condition.test {
        Some(Test::Equals(text)) => format!("{attribute} = {text}"),
        Some(Test::In(list)) => format!("{attribute} in [{}]", list.texts.join(", ")),
        Some(Test::Matches(pattern)) => format!("{attribute} matches \"{pattern}\""),
        None => attribute,
    }
}

fn comparison(comparison: &AnswerComparison) -> String {
    let others = comparison.others.as_ref().map(agreement).unwrap_or_default();
    if comparison.outputs.is_empty() {
        return others;
    }
    let mut parts: Vec<String> = Vec::with_capacity(comparison.outputs.len() + 1);
    for output in &comparison.outputs {
        let how = output.agreement.as_ref().map(agreement).unwrap_or_default();
        parts.push(format!("{}: {how}", output.output));
    }
    parts.push(format!("others: {others}"));
    parts.join(", ")
}

fn agreement(agreement: &Agreement) -> String {
    match &agreement.kind {
        Some(Kind::Exact(_)) => "exact".to_owned(),
        Some(Kind::TopOne(_)) => "topOne".to_owned(),
        Some(Kind::Tolerance(tolerance)) => {
            let number = |nano: u64| nano as f64 / 1e9;
            let (absolute, relative) = (number(tolerance.absolute_nano), number(tolerance.relative_nano));
            format!("tolerance absolute {absolute:e} relative {relative:e}")
        }
        Some(Kind::Distance(distance)) => format!("distance {}", percent(distance.max_ppm)),
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use starling_proto::admin::{OutputAgreement, TextList, ToleranceAgreement, TopOneAgreement};

    use super::*;

    fn condition_of(attribute: Attribute, test: Test) -> RequestCondition {
        RequestCondition { attribute: Some(attribute), test: Some(test) }
    }

    #[test]
    fn rules_and_shadows_are_shown_in_a_line_each() {
        let countries = TextList { texts: vec!["de".into(), "at".into()] };
        let rule = RouteRule {
            name: "gold".into(),
            when: vec![
                condition_of(Attribute::Parameter("tier".into()), Test::Equals("gold".into())),
                condition_of(Attribute::Metadata("x-country".into()), Test::In(countries)),
            ],
            portion_ppm: 100_000,
            version: "v2".into(),
        };
        let tolerance = ToleranceAgreement { absolute_nano: 1_000, relative_nano: 10_000 };
        let outputs = vec![OutputAgreement {
            output: "scores".into(),
            agreement: Some(Agreement { kind: Some(Kind::Tolerance(tolerance)) }),
        }];
        let others = Some(Agreement { kind: Some(Kind::TopOne(TopOneAgreement {})) });
        let shadow = RouteShadow {
            version: "v3".into(),
            when: vec![],
            portion_ppm: 1_000_000,
            comparison: Some(AnswerComparison { outputs, others }),
        };
        let route = Route { rules: vec![rule], shadows: vec![shadow], ..Route::default() };
        assert_eq!(
            lines(&route),
            [
                "rule 1 gold: 10% of parameter tier = gold and metadata x-country in [de, at] -> v2",
                "shadow v3: everything, compared scores: tolerance absolute 1e-6 relative 1e-5, others: topOne",
            ]
        );
    }
}
