//! The `x-starling-*` headers, the same over gRPC (as metadata) and REST: what a
//! request may say beside its body, and what its answer says. Over gRPC, where
//! the parameters are as easy to read, an answer repeats them only if asked to.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use starling_actors::inference::{InferError, Parameters, RequestContext};
use starling_proto::inference::ModelInferRequest;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_raft::state::Principal;

use super::parameters;

// As names, which need not be parsed for every request.
const KEY: HeaderName = HeaderName::from_static("x-starling-key");
const MIN_EPOCH: HeaderName = HeaderName::from_static("x-starling-min-epoch");
const QUIET: HeaderName = HeaderName::from_static("x-starling-quiet");
const METADATA: HeaderName = HeaderName::from_static("x-starling-metadata");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Parameters with this prefix are repeated as headers.
const PARAMETER_PREFIX: &str = "starling_";
const HEADER_PREFIX: &str = "x-starling-";
/// Longest routing key; only its hash is used.
const ROUTING_KEY_BYTES_MAX: usize = 1024;

/// What a request says beside its body. A header wins over the parameter of the
/// same meaning.
pub(super) fn request_context<'a>(
    headers: &'a HeaderMap,
    request: &ModelInferRequest,
    principal: Principal,
) -> Result<RequestContext<'a>, InferError> {
    let now = Instant::now();
    let parameters = parameters::read(request)?;
    let call_deadline = grpc_timeout(headers)?.and_then(|timeout| now.checked_add(timeout));
    let routing_key = match text(headers, &KEY)? {
        Some(key) => Some(key.to_owned()),
        None => parameters.routing_key,
    };
    if routing_key.as_ref().is_some_and(|key| key.len() > ROUTING_KEY_BYTES_MAX) {
        return Err(InferError::InvalidArgument(format!(
            "the routing key is longer than {ROUTING_KEY_BYTES_MAX} bytes; send a hash of it"
        )));
    }
    Ok(RequestContext {
        principal,
        deadline: call_deadline,
        routing_key: routing_key.filter(|key| !key.is_empty()),
        min_epoch: min_epoch(headers)?,
        arrived: now,
        metadata: Some(headers),
        quiet: parameters.quiet || text(headers, &QUIET)?.is_some_and(|quiet| quiet == "true"),
    })
}

/// How long the caller of a gRPC method waits.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, InferError> {
    let Some(value) = text(headers, &GRPC_TIMEOUT)? else { return Ok(None) };
    let wrong = || InferError::InvalidArgument(format!("{GRPC_TIMEOUT} '{value}' is not a gRPC timeout"));
    let (digits, unit) = value.split_at_checked(value.len().saturating_sub(1)).ok_or_else(wrong)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(wrong()),
    };
    Ok(Some(timeout))
}

fn min_epoch(headers: &HeaderMap) -> Result<Option<u64>, InferError> {
    let Some(value) = text(headers, &MIN_EPOCH)? else { return Ok(None) };
    match value.parse() {
        Ok(epoch) => Ok(Some(epoch)),
        Err(_) => Err(InferError::InvalidArgument(format!(
            "{MIN_EPOCH} '{value}' is not an epoch (a whole number)"
        ))),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, InferError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(InferError::InvalidArgument(format!("header {name} has characters outside ASCII"))),
    }
}

/// Whether the answer to a gRPC request is to repeat its parameters as metadata.
pub(super) fn metadata_is_wanted(headers: &HeaderMap) -> bool {
    headers.get(&METADATA).is_some_and(|value| value == "true")
}

/// Those parameters of an answer that say something of its decision, as headers.
pub(super) fn response_headers<'a>(
    parameters: impl IntoIterator<Item = (&'a str, &'a ParameterChoice)>,
    headers: &mut HeaderMap,
) {
    for (key, choice) in parameters {
        if let Some((name, value)) = response_header(key, choice) {
            headers.insert(name, value);
        }
    }
}

/// As they stand in a message.
pub(super) fn choices(parameters: &Parameters) -> impl Iterator<Item = (&str, &ParameterChoice)> {
    parameters
        .iter()
        .filter_map(|(key, parameter)| Some((key.as_str(), parameter.parameter_choice.as_ref()?)))
}

fn response_header(key: &str, choice: &ParameterChoice) -> Option<(HeaderName, HeaderValue)> {
    let name = match key {
        // Known words cost no allocation.
        "starling_decision" => HeaderName::from_static("x-starling-decision"),
        "starling_epoch" => HeaderName::from_static("x-starling-epoch"),
        "starling_version" => HeaderName::from_static("x-starling-version"),
        "starling_node" => HeaderName::from_static("x-starling-node"),
        "starling_propensity" => HeaderName::from_static("x-starling-propensity"),
        "starling_rollout" => HeaderName::from_static("x-starling-rollout"),
        "starling_arm" => HeaderName::from_static("x-starling-arm"),
        "starling_sticky" => HeaderName::from_static("x-starling-sticky"),
        _ => {
            let word = key.strip_prefix(PARAMETER_PREFIX)?;
            format!("{HEADER_PREFIX}{}", word.replace('_', "-")).parse().ok()?
        }
    };
    let mut value = match choice {
        ParameterChoice::BoolParam(true) => HeaderValue::from_static("true"),
        ParameterChoice::BoolParam(false) => HeaderValue::from_static("false"),
        ParameterChoice::Int64Param(number) => HeaderValue::from(*number),
        ParameterChoice::Uint64Param(number) => HeaderValue::from(*number),
        ParameterChoice::DoubleParam(number) => number.to_string().parse().ok()?,
        ParameterChoice::StringParam(text) => text.parse().ok()?,
    };
    // HTTP/2 remembers headers to send them in one byte the next time. One that is
    // new in every answer would push out all the others.
    value.set_sensitive(key == "starling_decision");
    Some((name, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;
    use starling_proto::inference::InferParameter;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn context(headers: &HeaderMap) -> Result<RequestContext<'_>, InferError> {
        request_context(headers, &ModelInferRequest::default(), Principal::local())
    }

    #[test]
    fn headers_of_a_request_are_read() {
        let headers = headers(&[(KEY, "user-7"), (MIN_EPOCH, "42"), (QUIET, "true"), (GRPC_TIMEOUT, "5S")]);
        let context = context(&headers).unwrap();
        assert_eq!(context.routing_key.as_deref(), Some("user-7"));
        assert_eq!(context.min_epoch, Some(42));
        assert!(context.quiet);
        let left = context.deadline.unwrap() - Instant::now();
        assert!(left > Duration::from_secs(4) && left <= Duration::from_secs(5), "{left:?}");
    }

    #[test]
    fn grpc_timeouts_have_eight_digits_at_most_and_a_unit() {
        let read = |value: &str| grpc_timeout(&headers(&[(GRPC_TIMEOUT, value)]));
        assert_eq!(read("100m").unwrap(), Some(Duration::from_millis(100)));
        assert_eq!(read("7u").unwrap(), Some(Duration::from_micros(7)));
        assert_eq!(read("99999999H").unwrap(), Some(Duration::from_secs(359_999_996_400)));
        for wrong in ["", "S", "123456789S", "1x", "-1S", "1ü"] {
            let outcome = headers_or_none(wrong).map(|headers| grpc_timeout(&headers));
            assert!(outcome.is_none_or(|outcome| outcome.is_err()), "{wrong}");
        }
    }

    fn headers_or_none(value: &str) -> Option<HeaderMap> {
        let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        Some(HeaderMap::from_iter([(GRPC_TIMEOUT, value)]))
    }

    #[test]
    fn metadata_is_repeated_for_those_who_say_true() {
        assert!(metadata_is_wanted(&headers(&[(METADATA, "true")])));
        assert!(!metadata_is_wanted(&headers(&[(METADATA, "yes")])));
        assert!(!metadata_is_wanted(&headers(&[])));
    }

    #[test]
    fn an_epoch_that_is_no_number_is_refused() {
        let headers = headers(&[(MIN_EPOCH, "new")]);
        assert!(matches!(context(&headers), Err(InferError::InvalidArgument(_))));
    }

    #[test]
    fn an_answer_repeats_its_starling_parameters_as_headers() {
        let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
        let parameters = Parameters::from([
            ("starling_epoch".to_owned(), parameter(ParameterChoice::Int64Param(9))),
            ("starling_sticky".to_owned(), parameter(ParameterChoice::BoolParam(false))),
            ("starling_some_thing".to_owned(), parameter(ParameterChoice::StringParam("a".into()))),
            ("other".to_owned(), parameter(ParameterChoice::Int64Param(1))),
        ]);
        let mut found = HeaderMap::new();
        response_headers(choices(&parameters), &mut found);
        let expected = headers(&[
            (HeaderName::from_static("x-starling-epoch"), "9"),
            (HeaderName::from_static("x-starling-sticky"), "false"),
            (HeaderName::from_static("x-starling-some-thing"), "a"),
        ]);
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn header_values_of_any_kind_are_read_or_refused(
            name in prop::sample::select(vec![KEY, MIN_EPOCH, QUIET, GRPC_TIMEOUT]),
            value in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(name, value)]);
                let read = request_context(&headers, &ModelInferRequest::default(), Principal::local());
                prop_assert!(matches!(read, Ok(_) | Err(InferError::InvalidArgument(_))), "{:?}", read);
            }
        }
    }
}
