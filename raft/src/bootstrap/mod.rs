//! The first start of a node: it meets the others, and either founds a cluster
//! or joins one.
//!
//! [`decision`] is pure and holds the rules; [`begin`] asks the seeds, does what
//! the rules say, and asks again.

pub mod decision;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use starling_proto::peer::membership_client::MembershipClient;
use starling_proto::peer::{GrantRequest, ProbeRequest};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use uuid::Uuid;

use self::decision::{Seen, Settings, Step, next_step};
use crate::dial::dial;
use crate::flock::StartError;
use crate::identity::{Candidacy, Identity, IdentityError, IdentityStore};
use crate::join::{Admitted, Introduction, JoinError, ask_to_join};
use crate::state::{ClusterId, NodeUuid};

const PROBE_DEADLINE: Duration = Duration::from_secs(2);
const GRANT_DEADLINE: Duration = Duration::from_secs(5);
const ROUND_PAUSE_MIN: Duration = Duration::from_millis(100);
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(2);
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How a node without a cluster came to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// It has the sole right to found this cluster; the identity file says so
    /// already.
    Found {
        /// The new cluster's id.
        cluster_id: ClusterId,
    },
    /// A cluster has let it in.
    Join(Admitted),
}

/// Brings a stranger to a cluster. Waits without end for others to appear, and
/// says in the log what for; ends early only with a refusal. The Membership
/// service must already be served on `settings.own_address`, with the same
/// identity. Cancelling is safe: what was granted or claimed is in the identity
/// file, and the next start goes on from there.
pub async fn begin(
    identity: &IdentityStore,
    bound_for: Option<ClusterId>,
    settings: &Settings,
    introduction: &Introduction,
) -> Result<Beginning, StartError> {
    settings.check().map_err(StartError::Refused)?;
    let mut meeting = Meeting::new(identity, settings)?;
    let mut pause = ROUND_PAUSE_MIN;
    loop {
        let seen = meeting.probe_seeds().await;
        let step = next_step(&identity.current(), bound_for, settings, &seen, &meeting.grants);
        match step {
            Step::Refuse { reason } => return Err(StartError::Refused(reason)),
            Step::Found => {
                if let Some(cluster_id) = meeting.claim().await? {
                    return Ok(Beginning::Found { cluster_id });
                }
            }
            Step::Join { cluster_id, addresses } => {
                match meeting.join(cluster_id, &addresses, introduction).await {
                    Ok(admitted) => return Ok(Beginning::Join(admitted)),
                    Err(JoinError::Refused(reason)) => return Err(StartError::Refused(reason)),
                    Err(JoinError::Unavailable(reason)) => {
                        meeting.say(&format!("cluster {cluster_id} to let it in: {reason}"))
                    }
                }
            }
            Step::Ask { candidacy, addresses } => {
                meeting.ask(candidacy, &addresses).await?;
                pause = ROUND_PAUSE_MIN;
                if meeting.grants.len() >= settings.expect.unwrap_or(1) as usize {
                    continue;
                }
                meeting.say("the other nodes to grant it the right to found the cluster");
            }
            Step::Renounce { in_favour_of } => {
                tracing::info!(%in_favour_of, "renounces its own candidacy");
                meeting.grants.clear();
                meeting
                    .update(|identity| {
                        decision::renounce(identity);
                    })
                    .await?;
                pause = ROUND_PAUSE_MIN;
            }
            Step::Release { candidacy } => {
                tracing::info!(candidate = %candidacy.node_uuid, "takes its grant back from a candidate that renounced");
                meeting.update(move |identity| decision::release(identity, candidacy)).await?;
                pause = ROUND_PAUSE_MIN;
            }
            Step::Wait { reason } => meeting.say(&reason),
        }
        sleep(pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(ROUND_PAUSE_MAX);
    }
}

struct Meeting<'a> {
    identity: &'a IdentityStore,
    settings: &'a Settings,
    seeds: BTreeMap<String, MembershipClient<Channel>>,
    /// Who has granted the current candidacy.
    grants: BTreeSet<NodeUuid>,
    said: Option<(String, Instant)>,
}

impl<'a> Meeting<'a> {
    fn new(identity: &'a IdentityStore, settings: &'a Settings) -> Result<Self, StartError> {
        let mut seeds = BTreeMap::new();
        for address in &settings.seeds {
            let channel = dial(address).map_err(|error| StartError::Refused(format!("--join: {error}")))?;
            seeds.insert(address.clone(), MembershipClient::new(channel));
        }
        Ok(Self { identity, settings, seeds, grants: BTreeSet::new(), said: None })
    }

    async fn probe_seeds(&self) -> Vec<Seen> {
        let request = ProbeRequest {
            node_uuid: self.identity.current().node_uuid.to_string(),
            peer_address: self.settings.own_address.clone(),
            bootstrap_expect: self.settings.expect.unwrap_or(0),
        };
        let probes =
            self.seeds.iter().map(|(address, client)| probe(address, client.clone(), request.clone()));
        join_all(probes).await.into_iter().flatten().collect()
    }

    /// Grants itself, then asks the others, all at once.
    async fn ask(&mut self, candidacy: Candidacy, addresses: &[String]) -> Result<(), StartError> {
        let expect = self.settings.expect.unwrap_or(0);
        let granted =
            self.update(move |identity| decision::grant(identity, Some(expect), candidacy, expect)).await?;
        if granted.is_err() {
            return Ok(());
        }
        self.grants.insert(candidacy.node_uuid);
        let request = GrantRequest {
            candidate_uuid: candidacy.node_uuid.to_string(),
            bootstrap_expect: expect,
            candidacy: candidacy.number,
        };
        let asked = addresses
            .iter()
            .filter_map(|address| self.seeds.get(address))
            .map(|client| ask_for_grant(client.clone(), request.clone()));
        let answers: Vec<Option<NodeUuid>> = join_all(asked).await;
        self.grants.extend(answers.into_iter().flatten());
        Ok(())
    }

    /// The cluster that this node may found, if its candidacy still stands.
    async fn claim(&self) -> Result<Option<ClusterId>, StartError> {
        let cluster_id = ClusterId::new(Uuid::new_v4());
        let founds_alone = self.settings.expect.is_none();
        let claimed = self
            .update(move |identity| {
                let candidacy = Candidacy { node_uuid: identity.node_uuid, number: identity.candidacy };
                if founds_alone {
                    // Its own grant is all it needs.
                    identity.granted.get_or_insert(candidacy);
                }
                decision::claim(identity, candidacy, cluster_id)
            })
            .await?;
        Ok(claimed.then_some(cluster_id))
    }

    async fn join(
        &self,
        cluster_id: ClusterId,
        addresses: &[String],
        introduction: &Introduction,
    ) -> Result<Admitted, JoinError> {
        let request = introduction.newcomer(self.identity.current().node_uuid);
        let mut last = JoinError::Unavailable("no member answered".to_owned());
        for client in addresses.iter().filter_map(|address| self.seeds.get(address)) {
            match ask_to_join(client.clone(), request.clone()).await {
                Ok(admitted) if admitted.cluster_id == cluster_id => return Ok(admitted),
                Ok(admitted) => {
                    last = JoinError::Unavailable(format!("it answered for cluster {}", admitted.cluster_id));
                }
                Err(JoinError::Refused(reason)) => return Err(JoinError::Refused(reason)),
                Err(unavailable) => last = unavailable,
            }
        }
        Err(last)
    }

    /// Changes the identity file off the runtime: it waits for an fsync.
    async fn update<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Identity) -> T + Send + 'static,
    ) -> Result<T, StartError> {
        update_identity(self.identity, change).await.map_err(StartError::from)
    }

    /// Says what this node waits for: when that changes, and now and then.
    fn say(&mut self, reason: &str) {
        let news = match &self.said {
            Some((said, at)) => said != reason || at.elapsed() >= SAY_AGAIN_AFTER,
            None => true,
        };
        if news {
            tracing::info!(seeds = ?self.settings.seeds, "waits for {reason}");
            self.said = Some((reason.to_owned(), Instant::now()));
        }
    }
}

/// [`IdentityStore::update`] off the runtime's threads.
pub(crate) async fn update_identity<T: Send + 'static>(
    identity: &IdentityStore,
    change: impl FnOnce(&mut Identity) -> T + Send + 'static,
) -> Result<T, IdentityError> {
    let identity = identity.clone();
    match tokio::task::spawn_blocking(move || identity.update(change)).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

async fn probe(address: &str, mut client: MembershipClient<Channel>, request: ProbeRequest) -> Option<Seen> {
    let answer = timeout(PROBE_DEADLINE, client.probe(request)).await.ok()?.ok()?.into_inner();
    let Ok(node_uuid) = answer.node_uuid.parse() else {
        tracing::warn!(address, uuid = answer.node_uuid, "a seed answered without a valid node UUID");
        return None;
    };
    let cluster_id = match answer.cluster_id.as_str() {
        "" => None,
        text => Some(text.parse().ok()?),
    };
    Some(Seen {
        dialled: address.to_owned(),
        peer_address: answer.peer_address,
        node_uuid,
        cluster_id,
        expect: answer.bootstrap_expect,
        candidacy: answer.candidacy,
    })
}

/// Who granted, if it did.
async fn ask_for_grant(mut client: MembershipClient<Channel>, request: GrantRequest) -> Option<NodeUuid> {
    let answer = timeout(GRANT_DEADLINE, client.grant(request)).await.ok()?.ok()?.into_inner();
    if !answer.granted {
        tracing::info!(
            node = answer.node_uuid,
            reason = answer.reason,
            "a node did not grant its bootstrap vote"
        );
        return None;
    }
    answer.node_uuid.parse().ok()
}
