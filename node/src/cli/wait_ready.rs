//! Waiting until a version may be routed to.

use std::time::{Duration, Instant};

use starling_proto::admin::admin_client::AdminClient;
use starling_proto::admin::{ListRequest, Version};
use tonic::transport::Channel;

use super::CliError;

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Asks until the version, named by label or ordinal, is ready. Fails if it
/// fails, or after `timeout`.
pub async fn wait_until_ready(
    client: &mut AdminClient<Channel>,
    model: &str,
    wanted: &str,
    timeout: Duration,
) -> Result<(), CliError> {
    let deadline = Instant::now() + timeout;
    loop {
        let request = ListRequest { model: model.to_owned(), stale: false };
        let versions = client.list_versions(request).await?.into_inner().versions;
        let named = |version: &&Version| version.label == wanted || version.ordinal.to_string() == wanted;
        match versions.iter().find(named) {
            Some(version) if version.phase == "ready" => return Ok(()),
            Some(version) if version.phase == "failed" => {
                return Err(CliError::No(format!(
                    "version '{wanted}' of model '{model}' failed: {}",
                    version.reason
                )));
            }
            _ => {}
        }
        if Instant::now() >= deadline {
            return Err(CliError::TimedOut(format!(
                "version '{wanted}' of model '{model}' was not ready within {} s; `starling get versions {model}` says where it is loaded, `--timeout` waits longer",
                timeout.as_secs()
            )));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
