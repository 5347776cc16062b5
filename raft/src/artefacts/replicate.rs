//! Makes a majority of voters hold an artefact, before the log may speak of it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use starling_proto::peer::ReplicateRequest;
use starling_proto::peer::artefacts_client::ArtefactsClient;
use tokio::time::{Instant, sleep, timeout_at};

use super::{ArtefactError, Flockmates};
use crate::state::{ArtefactDigest, NodeId};

const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Asks the other voters to fetch it from here, all at once, until a majority
/// of all voters holds it. Those still fetching then go on.
pub(super) async fn replicate(
    flockmates: &Arc<dyn Flockmates>,
    digest: ArtefactDigest,
    size_bytes: u64,
    deadline: Instant,
) -> Result<(), ArtefactError> {
    let (own, voters) = (flockmates.this_node(), flockmates.voters());
    let needed = voters.len() / 2 + 1;
    let mut holders = usize::from(voters.contains(&own));
    if !voters.is_empty() && holders >= needed {
        return Ok(());
    }
    let request =
        ReplicateRequest { sha256: digest.bytes().to_vec().into(), size_bytes, holders: vec![own.get()] };
    let others = voters.iter().filter(|voter| **voter != own);
    let mut answers: FuturesUnordered<_> =
        others.map(|voter| ask_until(flockmates, *voter, request.clone(), deadline)).collect();
    let mut faults = Vec::new();
    while let Some((voter, answer)) = answers.next().await {
        match answer {
            Ok(()) => holders += 1,
            Err(fault) => faults.push(format!("node {voter}: {fault}")),
        }
        if holders >= needed {
            return Ok(());
        }
    }
    if voters.is_empty() {
        faults.push("this node does not know who votes yet; try again".to_owned());
    }
    Err(ArtefactError::NoMajority { digest, holders, voters: voters.len(), reason: faults.join("; ") })
}

/// Again and again until it holds it: a voter may just be restarting.
async fn ask_until(
    flockmates: &Arc<dyn Flockmates>,
    voter: NodeId,
    request: ReplicateRequest,
    deadline: Instant,
) -> (NodeId, Result<(), String>) {
    loop {
        let fault = match flockmates.channel(voter) {
            Err(unavailable) => unavailable.reason,
            Ok(channel) => {
                let mut client = ArtefactsClient::new(channel);
                match timeout_at(deadline, client.replicate(request.clone())).await {
                    Ok(Ok(_)) => return (voter, Ok(())),
                    Ok(Err(status)) => status.message().to_owned(),
                    Err(_) => "no answer in time".to_owned(),
                }
            }
        };
        if Instant::now() + RETRY_PAUSE >= deadline {
            return (voter, Err(fault));
        }
        sleep(RETRY_PAUSE).await;
    }
}
