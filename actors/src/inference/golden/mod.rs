//! Golden samples: requests with the answers that a version must give. They are
//! tried when it is pushed and at every load, before it takes other requests.
//!
//! ```json
//! {
//!   "request":  {"inputs":  [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]},
//!   "response": {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [3]}]},
//!   "rtol": 1e-5,
//!   "atol": 0
//! }
//! ```
//!
//! `request` and `response` are what the protocol has over REST. Outputs that
//! the response does not name are not looked at.

mod compare;
mod sample;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_proto::inference::ModelInferResponse;
use starling_raft::state::Signature;

use super::bundle;
use super::served_version::ServedVersion;
use super::session::ModelSession;
use super::tensor::check;
use super::tensor::respond::respond;
use super::time_limit::with_time_limit;
use sample::GoldenSample;

/// Of one sample, where a session is only looked at.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(30);

/// A sample that cannot be read, cannot be run, or is answered otherwise.
#[derive(Debug, thiserror::Error)]
#[error("golden sample '{sample}' {reason}")]
pub(crate) struct NotReproduced {
    sample: String,
    reason: String,
}

/// The samples of a version, whose path is its file or folder. Blocking.
fn read_all(path: &Path) -> Result<Vec<GoldenSample>, NotReproduced> {
    let unreadable = |reason| NotReproduced { sample: bundle::GOLDEN_FOLDER.to_owned(), reason };
    let files =
        bundle::golden_samples(path).map_err(|error| unreadable(format!("cannot be listed: {error}")))?;
    files.iter().map(|file| GoldenSample::read(file)).collect()
}

/// Tries the samples of the version at `path` on a session. Blocking.
pub(crate) fn try_on(
    session: &mut ModelSession,
    signature: &Signature,
    path: &Path,
) -> Result<(), NotReproduced> {
    for sample in read_all(path)? {
        let answer = with_time_limit(TRIAL_TIME_MAX, |options| {
            let checked = check::check("pushed", signature, sample.request.clone())
                .map_err(|error| error.to_string())?;
            let checked = Arc::new(checked);
            session.fill(std::slice::from_ref(&checked));
            let ran = session.run(options).map_err(|error| error.to_string())?;
            Ok(respond(signature, &checked, &ran.columns, None))
        });
        sample.hold_against(answer.unwrap_or_else(|| Err("the runtime gave no options".to_owned())))?;
    }
    Ok(())
}

/// Sends the samples of a version through its queue, as requests.
pub(crate) async fn reproduce(version: &Arc<ServedVersion>) -> Result<(), NotReproduced> {
    let path = version.plan.file.clone();
    let read = tokio::task::spawn_blocking(move || read_all(&path)).await;
    let samples = read.unwrap_or_else(|error| {
        Err(NotReproduced {
            sample: bundle::GOLDEN_FOLDER.to_owned(),
            reason: format!("cannot be read: {error}"),
        })
    })?;
    for sample in samples {
        let deadline = Instant::now() + version.plan.max_run_time();
        let answer = version.infer(sample.request.clone(), Instant::now(), Some(deadline)).await;
        let answer = answer.map(|answer| answer.response).map_err(|error| error.to_string());
        sample.hold_against(answer)?;
        if let Ok(checked) = check::check(version.model(), &version.effective, sample.request)
            && checked.rows <= version.max_batch
        {
            version.pulse.probe_with(checked);
        }
    }
    Ok(())
}

impl GoldenSample {
    fn hold_against(&self, answer: Result<ModelInferResponse, String>) -> Result<(), NotReproduced> {
        let refuse = |reason| NotReproduced { sample: self.name.clone(), reason };
        let answer = answer.map_err(|error| refuse(format!("cannot be run: {error}")))?;
        compare::compare(self, &answer)
            .map_err(|difference| refuse(format!("is not reproduced: {difference}")))
    }
}

#[cfg(test)]
mod tests;
