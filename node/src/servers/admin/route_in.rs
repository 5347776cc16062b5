//! Rules and shadows as they come over the wire: checked, each mistake named with
//! the path of its field and what would be right.

use std::fmt::Display;

use starling_actors::inference::rule_matching::compile_pattern;
use starling_proto::admin::agreement::Kind;
use starling_proto::admin::request_condition::{Attribute as AttributeWire, Test as TestWire};
use starling_proto::admin::{
    Agreement as AgreementWire, AnswerComparison, ConfigureRouteRequest, RequestCondition, RouteRule,
    RouteShadow,
};
use starling_raft::state::routes::rules::{Attribute, Condition, Rule, TEXT_BYTES_MAX, TEXTS_MAX, Test};
use starling_raft::state::routes::shadows::{Agreement, Comparison, Shadow};
use starling_raft::state::{PartsPerMillion, VersionRef};
use tonic::Status;

/// Rules and shadows; absent: to be left as they are.
pub(super) type Configuration = (Option<Vec<Rule<VersionRef>>>, Option<Vec<Shadow<VersionRef>>>);

/// Those of a request, or the first mistake in it.
pub(super) fn configuration(request: &ConfigureRouteRequest) -> Result<Configuration, Status> {
    let rules = request.rules.as_ref().map(|rules| each("rules", &rules.rules, rule)).transpose()?;
    let shadows =
        request.shadows.as_ref().map(|shadows| each("shadows", &shadows.shadows, shadow)).transpose()?;
    Ok((rules, shadows))
}

fn rule(path: &str, wire: &RouteRule) -> Result<Rule<VersionRef>, Status> {
    Ok(Rule {
        name: wire.name.parse().map_err(|error| wrong(&format!("{path}.name"), error))?,
        when: conditions(&format!("{path}.when"), &wire.when)?,
        portion: portion(&format!("{path}.portion_ppm"), wire.portion_ppm)?,
        version: wire.version.parse().map_err(|error| wrong(&format!("{path}.version"), error))?,
    })
}

fn shadow(path: &str, wire: &RouteShadow) -> Result<Shadow<VersionRef>, Status> {
    Ok(Shadow {
        version: wire.version.parse().map_err(|error| wrong(&format!("{path}.version"), error))?,
        portion: portion(&format!("{path}.portion_ppm"), wire.portion_ppm)?,
        when: conditions(&format!("{path}.when"), &wire.when)?,
        comparison: comparison(&format!("{path}.comparison"), wire.comparison.as_ref())?,
    })
}

/// Conditions that must all hold; `path` is where they stand in the request.
pub(crate) fn conditions(path: &str, wire: &[RequestCondition]) -> Result<Vec<Condition>, Status> {
    each(path, wire, |path, condition| {
        let attribute = attribute(path, condition.attribute.as_ref())?;
        let test = test(path, condition.test.as_ref())?;
        Ok(Condition { attribute, test })
    })
}

fn attribute(path: &str, wire: Option<&AttributeWire>) -> Result<Attribute, Status> {
    match wire {
        Some(AttributeWire::Parameter(name)) if name.is_empty() => {
            Err(wrong(&format!("{path}.parameter"), "is empty and must name a request parameter"))
        }
        Some(AttributeWire::Parameter(name)) => {
            Ok(Attribute::Parameter(bounded(&format!("{path}.parameter"), name)?))
        }
        Some(AttributeWire::Metadata(name)) => {
            let path = format!("{path}.metadata");
            let name = bounded(&path, name)?.to_lowercase();
            match http::HeaderName::from_bytes(name.as_bytes()) {
                Ok(_) => Ok(Attribute::Metadata(name)),
                Err(_) => Err(wrong(
                    &path,
                    format!("'{name}' is no name of metadata, such as x-country or user-agent"),
                )),
            }
        }
        None => Err(wrong(path, "names neither a `parameter` nor `metadata` of the request")),
    }
}

fn test(path: &str, wire: Option<&TestWire>) -> Result<Test, Status> {
    match wire {
        Some(TestWire::Equals(text)) => Ok(Test::Equals(bounded(&format!("{path}.equals"), text)?)),
        Some(TestWire::In(list)) => {
            let path = format!("{path}.in");
            if list.texts.is_empty() || list.texts.len() > TEXTS_MAX {
                let count = list.texts.len();
                return Err(wrong(&path, format!("has {count} texts and must have 1 to {TEXTS_MAX}")));
            }
            Ok(Test::In(each(&path, &list.texts, |path, text| bounded(path, text))?))
        }
        Some(TestWire::Matches(pattern)) => {
            let path = format!("{path}.matches");
            compile_pattern(pattern).map_err(|error| wrong(&path, error))?;
            Ok(Test::Matches(bounded(&path, pattern)?))
        }
        None => Err(wrong(path, "has no test: one of `equals`, `in` and `matches`")),
    }
}

/// What counts as agreement; absent: the same class in each row.
pub(crate) fn comparison(path: &str, wire: Option<&AnswerComparison>) -> Result<Comparison, Status> {
    let Some(wire) = wire else {
        return Ok(Comparison { outputs: Vec::new(), others: Agreement::TopOne });
    };
    let mut outputs = each(&format!("{path}.outputs"), &wire.outputs, |path, output| {
        if output.output.is_empty() {
            return Err(wrong(&format!("{path}.output"), "is empty and must name an output of the model"));
        }
        let how = agreement(&format!("{path}.agreement"), output.agreement.as_ref())?;
        Ok((bounded(&format!("{path}.output"), &output.output)?, how))
    })?;
    outputs.sort_by(|(one, _), (other, _)| one.cmp(other));
    if let Some((name, _)) = outputs.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| &pair[0]) {
        return Err(wrong(&format!("{path}.outputs"), format!("name output '{name}' twice")));
    }
    let others = match &wire.others {
        Some(_) => agreement(&format!("{path}.others"), wire.others.as_ref())?,
        None => Agreement::TopOne,
    };
    Ok(Comparison { outputs, others })
}

fn agreement(path: &str, wire: Option<&AgreementWire>) -> Result<Agreement, Status> {
    match wire.and_then(|wire| wire.kind.as_ref()) {
        Some(Kind::Exact(_)) => Ok(Agreement::Exact),
        Some(Kind::TopOne(_)) => Ok(Agreement::TopOne),
        Some(Kind::Tolerance(tolerance)) => Ok(Agreement::Tolerance {
            absolute_nano: tolerance.absolute_nano,
            relative_nano: tolerance.relative_nano,
        }),
        Some(Kind::Distance(distance)) => {
            Ok(Agreement::Distance { max: portion(&format!("{path}.distance.max_ppm"), distance.max_ppm)? })
        }
        None => Err(wrong(path, "is none of `exact`, `top_one`, `tolerance` and `distance`")),
    }
}

/// A portion, which is at most the whole.
fn portion(path: &str, ppm: u32) -> Result<PartsPerMillion, Status> {
    PartsPerMillion::new(ppm)
        .map_err(|_| wrong(path, format!("is {}% and must be from 0% to 100%", f64::from(ppm) / 10_000.0)))
}

fn bounded(path: &str, text: &str) -> Result<String, Status> {
    if text.len() > TEXT_BYTES_MAX {
        let bytes = text.len();
        return Err(wrong(path, format!("has {bytes} bytes and may have {TEXT_BYTES_MAX}")));
    }
    Ok(text.to_owned())
}

fn each<W, T>(
    path: &str,
    list: &[W],
    read: impl Fn(&str, &W) -> Result<T, Status>,
) -> Result<Vec<T>, Status> {
    list.iter().enumerate().map(|(index, wire)| read(&format!("{path}[{index}]"), wire)).collect()
}

fn wrong(path: &str, problem: impl Display) -> Status {
    Status::invalid_argument(format!("{path}: {problem}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_proto::admin::{
        DistanceAgreement, OutputAgreement, RouteRules, RouteShadows, TextList, ToleranceAgreement,
        TopOneAgreement,
    };
    use tonic::Code;

    use super::super::route_out;
    use super::*;

    fn condition(attribute: AttributeWire, test: TestWire) -> RequestCondition {
        RequestCondition { attribute: Some(attribute), test: Some(test) }
    }

    fn gold() -> RequestCondition {
        condition(AttributeWire::Parameter("tier".into()), TestWire::Equals("gold".into()))
    }

    fn rule_wire() -> RouteRule {
        let countries = TextList { texts: vec!["de".into(), "at".into()] };
        RouteRule {
            name: "gold".into(),
            when: vec![
                gold(),
                condition(AttributeWire::Metadata("x-country".into()), TestWire::In(countries)),
                condition(AttributeWire::Metadata("user-agent".into()), TestWire::Matches("^ios".into())),
            ],
            portion_ppm: 100_000,
            version: "v2".into(),
        }
    }

    fn agreement_wire(kind: Kind) -> Option<AgreementWire> {
        Some(AgreementWire { kind: Some(kind) })
    }

    fn shadow_wire() -> RouteShadow {
        let tolerance = Kind::Tolerance(ToleranceAgreement { absolute_nano: 1_000, relative_nano: 10_000 });
        let outputs = vec![OutputAgreement { output: "scores".into(), agreement: agreement_wire(tolerance) }];
        let others = agreement_wire(Kind::TopOne(TopOneAgreement {}));
        RouteShadow {
            version: "v3".into(),
            when: vec![gold()],
            portion_ppm: 1_000_000,
            comparison: Some(AnswerComparison { outputs, others }),
        }
    }

    fn request(rule: RouteRule, shadow: RouteShadow) -> ConfigureRouteRequest {
        ConfigureRouteRequest {
            model: "digits".into(),
            rules: Some(RouteRules { rules: vec![rule] }),
            shadows: Some(RouteShadows { shadows: vec![shadow] }),
            ..ConfigureRouteRequest::default()
        }
    }

    #[test]
    fn what_is_read_is_written_again_as_it_was() {
        let (rules, shadows) = configuration(&request(rule_wire(), shadow_wire())).unwrap();
        let label = |version: &VersionRef| version.to_string();
        let rules: Vec<RouteRule> =
            rules.unwrap().iter().map(|rule| route_out::rule(rule, label(&rule.version))).collect();
        let shadows: Vec<RouteShadow> =
            shadows.unwrap().iter().map(|shadow| route_out::shadow(shadow, label(&shadow.version))).collect();
        assert_eq!(rules, [rule_wire()]);
        assert_eq!(shadows, [shadow_wire()]);
    }

    #[test]
    fn what_is_absent_is_left_as_it_is() {
        assert_eq!(configuration(&ConfigureRouteRequest::default()).unwrap(), (None, None));
    }

    #[test]
    fn mistakes_are_named_with_their_field_and_what_would_be_right() {
        let with_condition = |condition: RequestCondition| {
            request(RouteRule { when: vec![condition], ..rule_wire() }, shadow_wire())
        };
        let distance = Kind::Distance(DistanceAgreement { max_ppm: 2_000_000 });
        let comparison = AnswerComparison { outputs: vec![], others: agreement_wire(distance) };
        let parameter = || AttributeWire::Parameter("tier".into());
        for (request, expected) in [
            (
                request(RouteRule { name: "no name".into(), ..rule_wire() }, shadow_wire()),
                "rules[0].name: rule name 'no name' must have 1 to 64 characters",
            ),
            (
                request(RouteRule { portion_ppm: 1_500_000, ..rule_wire() }, shadow_wire()),
                "rules[0].portion_ppm: is 150% and must be from 0% to 100%",
            ),
            (
                request(RouteRule { version: "v 1".into(), ..rule_wire() }, shadow_wire()),
                "rules[0].version: version label 'v 1' must have",
            ),
            (
                with_condition(condition(parameter(), TestWire::Matches("a(b".into()))),
                "rules[0].when[0].matches: 'a(b' is not a regular expression: unclosed group",
            ),
            (
                with_condition(condition(parameter(), TestWire::In(TextList::default()))),
                "rules[0].when[0].in: has 0 texts and must have 1 to 64",
            ),
            (
                with_condition(condition(
                    AttributeWire::Metadata("x country".into()),
                    TestWire::Equals("de".into()),
                )),
                "rules[0].when[0].metadata: 'x country' is no name of metadata",
            ),
            (
                with_condition(RequestCondition { attribute: None, ..gold() }),
                "rules[0].when[0]: names neither a `parameter` nor `metadata`",
            ),
            (
                with_condition(RequestCondition { test: None, ..gold() }),
                "rules[0].when[0]: has no test: one of `equals`, `in` and `matches`",
            ),
            (
                with_condition(condition(parameter(), TestWire::Equals("x".repeat(257)))),
                "rules[0].when[0].equals: has 257 bytes and may have 256",
            ),
            (
                request(rule_wire(), RouteShadow { comparison: Some(comparison), ..shadow_wire() }),
                "shadows[0].comparison.others.distance.max_ppm: is 200% and must be from 0% to 100%",
            ),
        ] {
            let status = configuration(&request).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().starts_with(expected), "{}", status.message());
        }
    }

    #[test]
    fn names_of_metadata_are_kept_in_lower_case() {
        let upper = condition(AttributeWire::Metadata("X-Country".into()), TestWire::Equals("de".into()));
        let conditions = conditions("when", &[upper]).unwrap();
        assert_eq!(conditions[0].attribute, Attribute::Metadata("x-country".into()));
    }
}
