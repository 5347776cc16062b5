//! `kind: Rollout` of manifests: from YAML to a plan that is known to be right,
//! as far as that can be known without the cluster.

mod experiments;
mod gates;
mod strategies;

use serde_json::Value;
use starling_raft::state::rollouts::RolloutSpec;
use starling_raft::state::rollouts::spec::{Millis, OnFailure, OnInconclusive, Strategy};
use starling_raft::state::{RolloutName, VersionRef};

use super::fields::{Field, FieldError, Fields, alternative};

/// How long gates may go on not telling.
pub const INCONCLUSIVE_AFTER: Millis = Millis::from_secs(3_600);
/// How often the leader looks.
pub const INTERVAL: Millis = Millis::from_secs(5);

/// A version as a manifest names it; `None`: whichever has the whole route.
pub type Wanted = Option<VersionRef>;

type Read<T> = Result<T, FieldError>;

/// One rollout, as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutManifest {
    /// What people call it.
    pub name: RolloutName,
    /// What it is to do.
    pub spec: RolloutSpec<Wanted>,
}

/// Reads one document whose kind is known to be `Rollout`.
pub fn read(document: &Value) -> Read<RolloutManifest> {
    let document = Field::new("", document);
    let mut fields = document.fields()?;
    let (_, _) = (fields.get("apiVersion"), fields.get("kind"));
    let metadata = fields.need("metadata", "metadata: { name: digits-v2 }");
    let spec = fields.need("spec", "spec: { model: digits, to: v2, strategy: … }");
    fields.finish().map_err(without_dot)?;
    let metadata = rooted(&metadata.map_err(without_dot)?, "metadata");
    let spec = rooted(&spec.map_err(without_dot)?, "spec");
    let mut fields = metadata.fields()?;
    let name = fields.need("name", "name: digits-v2");
    fields.finish()?;
    Ok(RolloutManifest { name: name?.parsed()?, spec: read_spec(&spec)? })
}

/// The document itself has no name.
fn without_dot(error: FieldError) -> FieldError {
    FieldError { path: error.path.trim_start_matches('.').to_owned(), ..error }
}

fn rooted<'a>(field: &Field<'a>, name: &str) -> Field<'a> {
    field.at(name)
}

fn read_spec(spec: &Field<'_>) -> Read<RolloutSpec<Wanted>> {
    let mut fields = spec.fields()?;
    let model = fields.need("model", "model: digits");
    let from = fields.get("from");
    let to = fields.get("to");
    let strategy = fields
        .need("strategy", "strategy: { canary: { steps: [{ weight: 10%, pause: 5m }, { weight: 100% }] } }");
    let gates = fields.get("gates");
    let on_failure = fields.get("onFailure");
    let on_inconclusive = fields.get("onInconclusive");
    let inconclusive_after = fields.get("inconclusiveAfter");
    let retry_on_stable = fields.get("retryOnStable");
    let interval = fields.get("interval");
    let notify = fields.get("notify");
    fields.finish()?;
    let (model, strategy_field) = (model?, strategy?);
    Ok(RolloutSpec {
        model: model.parsed()?,
        from: from.map(|from| from.parsed()).transpose()?,
        strategy: read_strategy(&strategy_field, spec, to.as_ref())?,
        gates: gates.map_or(Ok(Vec::new()), |gates| gates::gates(&gates))?,
        on_failure: on_failure.map_or(Ok(OnFailure::Rollback), |field| {
            field.one_of(&[("rollback", OnFailure::Rollback), ("hold", OnFailure::Hold)])
        })?,
        on_inconclusive: on_inconclusive.map_or(Ok(OnInconclusive::Hold), |field| {
            field.one_of(&[
                ("hold", OnInconclusive::Hold),
                ("rollback", OnInconclusive::Rollback),
                ("promote", OnInconclusive::Promote),
            ])
        })?,
        inconclusive_after: inconclusive_after.map_or(Ok(INCONCLUSIVE_AFTER), |field| field.duration())?,
        retry_on_stable: retry_on_stable.map_or(Ok(false), |field| field.flag())?,
        interval: interval.map_or(Ok(INTERVAL), |field| field.duration())?,
        webhooks: notify.map_or(Ok(Vec::new()), |notify| read_webhooks(&notify))?,
    })
}

fn read_strategy(field: &Field<'_>, spec: &Field<'_>, to: Option<&Field<'_>>) -> Read<Strategy<Wanted>> {
    const KNOWN: &[&str] = &["blueGreen", "canary", "shadow", "abTest", "bandit"];
    let (chosen, inner) = alternative(field, KNOWN)?;
    let inner = inner.unwrap_or_else(|| field.nothing_at(chosen));
    let candidate = || -> Read<Wanted> {
        let to = to.ok_or_else(|| FieldError {
            path: format!("{}.to", spec.path()),
            problem: format!("is missing; {chosen} needs the version that is tried, such as `to: v2`"),
        })?;
        to.parsed().map(Some)
    };
    let no_candidate = || match to {
        Some(to) => Err(to.wrong(format!("is not for {chosen}, whose versions are its arms"))),
        None => Ok(()),
    };
    match chosen {
        "blueGreen" => strategies::blue_green(&inner, candidate()?),
        "canary" => strategies::canary(&inner, candidate()?),
        "shadow" => strategies::shadow(&inner, candidate()?),
        "abTest" => no_candidate().and_then(|()| experiments::ab_test(&inner)),
        _ => no_candidate().and_then(|()| experiments::bandit(&inner)),
    }
}

fn read_webhooks(notify: &Field<'_>) -> Read<Vec<String>> {
    let mut webhooks = Vec::new();
    for target in notify.list()? {
        let mut fields = target.fields()?;
        let webhook = fields.need("webhook", "webhook: https://example.org/rollouts");
        fields.finish()?;
        let webhook = webhook?;
        let url = webhook.text()?;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(webhook.wrong(format!("is '{url}' and must begin with http:// or https://")));
        }
        webhooks.push(url);
    }
    Ok(webhooks)
}

/// A count of things, with a default.
fn count_or(fields: &mut Fields<'_>, name: &'static str, default: u64) -> Read<u64> {
    fields.or(name, default, Field::count)
}

#[cfg(test)]
mod tests;
