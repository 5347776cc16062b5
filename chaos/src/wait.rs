//! Waiting for a condition: polled, with a deadline, and with the last reason
//! why it did not hold.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

const POLL_EVERY: Duration = Duration::from_millis(25);

/// Asks `probe` until it is `Ok`; after `limit` fails with `what` and the last
/// error. A probe that hangs counts against the limit as well.
pub async fn until<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + limit;
    let mut last_error = None;
    loop {
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last_error = Some(error),
            Err(_) => {}
        }
        if Instant::now() + POLL_EVERY >= deadline {
            let seconds = limit.as_secs_f64();
            return match last_error {
                Some(error) => Err(error).with_context(|| format!("{what}: not within {seconds:.1} s")),
                None => bail!("{what}: no answer within {seconds:.1} s"),
            };
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}
