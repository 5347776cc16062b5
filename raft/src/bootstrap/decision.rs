//! What a node without a cluster does next, as a function of what it knows.
//!
//! Why there is never a second founder. A founder holds the grants of N nodes,
//! its own among them. A node has one grant at a time, made durable before it is
//! answered, and takes it back only when the candidate itself has said that it
//! durably renounced that candidacy, which a candidate does only before it
//! founds. [`Settings::check`] sees to it that any two sets of N nodes share
//! one; so whoever founds holds a grant that no other founder can have.
//!
//! Why it does not get stuck while all are there. Only the node with the lowest
//! UUID asks. If two asked, because they saw different nodes, the higher one
//! renounces as soon as it sees the lower one, and those who granted it are
//! free again. A granted candidate that is gone for good blocks the start, on
//! purpose: its silence is no proof that it has not founded a cluster. The way
//! out is an empty data directory for the nodes that granted it (they belong to
//! no cluster, so nothing is lost).

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::{Candidacy, Identity};
use crate::state::{ClusterId, NodeUuid};

/// How this node was told to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `--join`, without duplicates.
    pub seeds: Vec<String>,
    /// `--bootstrap-expect`.
    pub expect: Option<u32>,
    /// Where this node says it listens for peers.
    pub own_address: String,
}

/// What a seed answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The address that was dialled.
    pub dialled: String,
    /// Where it says it listens.
    pub peer_address: String,
    /// Who it is.
    pub node_uuid: NodeUuid,
    /// The cluster it belongs to.
    pub cluster_id: Option<ClusterId>,
    /// Its `--bootstrap-expect`; 0: it never bootstraps.
    pub expect: u32,
    /// The number of its own candidacy.
    pub candidacy: u32,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nobody else can found a cluster: found one.
    Found,
    /// There is a cluster: ask these to be let in.
    Join {
        /// The cluster.
        cluster_id: ClusterId,
        /// Addresses of its members.
        addresses: Vec<String>,
    },
    /// Grant yourself, then ask these for their grants.
    Ask {
        /// On whose behalf.
        candidacy: Candidacy,
        /// Addresses of the others.
        addresses: Vec<String>,
    },
    /// Give up the own candidacy in favour of a lower UUID.
    Renounce {
        /// Whose turn it is.
        in_favour_of: NodeUuid,
    },
    /// Take back the grant: the candidate has renounced what it was for.
    Release {
        /// What it was for.
        candidacy: Candidacy,
    },
    /// Nothing to be done before something changes.
    Wait {
        /// What for, for people.
        reason: String,
    },
    /// Never with these settings.
    Refuse {
        /// Why, and what to do.
        reason: String,
    },
}

impl Settings {
    /// Refuses what cannot end in exactly one cluster.
    ///
    /// If the list names at most N - 1 others, a founder needs all of them. If
    /// it names N or more nodes, only those take part, and N must be more than
    /// half of them: any two sets of N then have a node in common.
    pub fn check(&self) -> Result<(), String> {
        let Some(expect) = self.expect else { return Ok(()) };
        let (seeds, needed) = (self.seeds.len(), expect as usize);
        if needed == 0 {
            return Err("--bootstrap-expect must be at least 1".to_owned());
        }
        if seeds + 1 < needed {
            return Err(format!(
                "--bootstrap-expect {needed} needs the addresses of at least {} other nodes in --join, one address per node; it has {seeds}",
                needed - 1
            ));
        }
        if seeds >= 2 * needed {
            return Err(format!(
                "--bootstrap-expect {needed} must be more than half of the {seeds} nodes in --join, or they could form two clusters; raise it, or name fewer nodes",
            ));
        }
        Ok(())
    }

    /// Nodes outside a list that names enough nodes do not stand or vote.
    fn only_seeds_take_part(&self, expect: u32) -> bool {
        self.seeds.len() >= expect as usize
    }
}

/// The next step of a node that belongs to no cluster. `bound_for` is the
/// cluster it was on its way into when it was interrupted; `seen` what the
/// seeds answered just now; `grants` who has granted its current candidacy.
pub fn next_step(
    identity: &Identity,
    bound_for: Option<ClusterId>,
    settings: &Settings,
    seen: &[Seen],
    grants: &BTreeSet<NodeUuid>,
) -> Step {
    if let Some(reason) = one_uuid_at_two_addresses(identity, settings, seen) {
        return Step::Refuse { reason };
    }
    if let Some(step) = cluster_seen(bound_for, seen) {
        return step;
    }
    if let Some(cluster_id) = bound_for {
        if settings.seeds.is_empty() {
            return Step::Refuse {
                reason: format!(
                    "this node was on its way into cluster {cluster_id} when it was interrupted; start it with --join and the peer address of a member, or with an empty data directory"
                ),
            };
        }
        return Step::Wait { reason: format!("a member of cluster {cluster_id} among the --join addresses") };
    }
    match settings.expect {
        Some(expect) => meet(identity, expect, settings, seen, grants),
        None if settings.seeds.is_empty() => found_alone(identity),
        None => {
            Step::Wait { reason: "a node that belongs to a cluster among the --join addresses".to_owned() }
        }
    }
}

fn one_uuid_at_two_addresses(identity: &Identity, settings: &Settings, seen: &[Seen]) -> Option<String> {
    let mut listens_at = BTreeMap::from([(identity.node_uuid, settings.own_address.as_str())]);
    for seed in seen {
        let first = listens_at.entry(seed.node_uuid).or_insert(&seed.peer_address);
        if *first != seed.peer_address {
            return Some(format!(
                "two nodes, at {first} and {}, have the same UUID {}: one data directory is a copy of the other; start one of them with an empty data directory",
                seed.peer_address, seed.node_uuid
            ));
        }
    }
    None
}

fn cluster_seen(bound_for: Option<ClusterId>, seen: &[Seen]) -> Option<Step> {
    let mut clusters: BTreeMap<ClusterId, Vec<String>> = BTreeMap::new();
    for seed in seen {
        if let Some(cluster_id) = seed.cluster_id {
            clusters.entry(cluster_id).or_default().push(seed.dialled.clone());
        }
    }
    if clusters.len() > 1 {
        let named: Vec<String> =
            clusters.iter().map(|(id, addresses)| format!("{id} at {}", addresses.join(", "))).collect();
        return Some(Step::Refuse {
            reason: format!(
                "the --join addresses belong to different clusters ({}); name nodes of one only",
                named.join("; ")
            ),
        });
    }
    let (cluster_id, addresses) = clusters.pop_first()?;
    if let Some(expected) = bound_for.filter(|expected| *expected != cluster_id) {
        return Some(Step::Refuse {
            reason: format!(
                "this node was on its way into cluster {expected}, but the --join addresses belong to cluster {cluster_id}; correct --join, or start with an empty data directory"
            ),
        });
    }
    Some(Step::Join { cluster_id, addresses })
}

fn found_alone(identity: &Identity) -> Step {
    match identity.granted {
        Some(candidacy) if candidacy.node_uuid != identity.node_uuid => Step::Refuse {
            reason: format!(
                "this data directory has granted its bootstrap vote to node {} and must not found a cluster of its own; start it with the --join and --bootstrap-expect it had, or with an empty data directory",
                candidacy.node_uuid
            ),
        },
        _ => Step::Found,
    }
}

fn meet(
    identity: &Identity,
    expect: u32,
    settings: &Settings,
    seen: &[Seen],
    grants: &BTreeSet<NodeUuid>,
) -> Step {
    let own = identity.node_uuid;
    if let Some(other) = seen.iter().find(|seed| seed.expect != 0 && seed.expect != expect) {
        return Step::Refuse {
            reason: format!(
                "this node has --bootstrap-expect {expect}, the one at {} has {}; give all the same",
                other.dialled, other.expect
            ),
        };
    }
    if grants.len() >= expect as usize {
        return Step::Found;
    }
    if let Some(candidacy) = identity.granted.filter(|candidacy| renounced(candidacy, identity, seen)) {
        return Step::Release { candidacy };
    }

    let mut taking_part: BTreeMap<NodeUuid, &str> = seen
        .iter()
        .filter(|seed| seed.expect == expect)
        .map(|seed| (seed.node_uuid, seed.dialled.as_str()))
        .collect();
    if !settings.only_seeds_take_part(expect) {
        taking_part.entry(own).or_insert(&settings.own_address);
    }

    let holds_own_grant = identity.granted.is_some_and(|candidacy| candidacy.node_uuid == own);
    match taking_part.keys().next() {
        Some(lowest) if *lowest == own => {}
        Some(lowest) if holds_own_grant => return Step::Renounce { in_favour_of: *lowest },
        Some(lowest) => {
            return Step::Wait {
                reason: format!(
                    "node {lowest} to found the cluster ({} of {expect} nodes are here)",
                    taking_part.len()
                ),
            };
        }
        None => return Step::Wait { reason: "any of the --join addresses to answer".to_owned() },
    }
    if let Some(candidacy) = identity.granted.filter(|candidacy| candidacy.node_uuid != own) {
        return Step::Wait {
            reason: format!(
                "node {}, to which this node has granted its bootstrap vote (if it is gone for good, start this node with an empty data directory)",
                candidacy.node_uuid
            ),
        };
    }
    if taking_part.len() < expect as usize {
        return Step::Wait { reason: format!("{} of {expect} nodes to be here", taking_part.len()) };
    }
    Step::Ask {
        candidacy: Candidacy { node_uuid: own, number: identity.candidacy },
        addresses: taking_part
            .iter()
            .filter(|(node_uuid, _)| **node_uuid != own && !grants.contains(node_uuid))
            .map(|(_, address)| (*address).to_owned())
            .collect(),
    }
}

fn renounced(candidacy: &Candidacy, identity: &Identity, seen: &[Seen]) -> bool {
    if candidacy.node_uuid == identity.node_uuid {
        return candidacy.number < identity.candidacy;
    }
    seen.iter().any(|seed| seed.node_uuid == candidacy.node_uuid && seed.candidacy > candidacy.number)
}

/// Answers a request for this node's grant, changing `identity` if it grants.
/// `Err` says why not.
pub fn grant(
    identity: &mut Identity,
    own_expect: Option<u32>,
    candidacy: Candidacy,
    their_expect: u32,
) -> Result<(), String> {
    if let Some(cluster_id) = identity.cluster_id.or(identity.founding) {
        return Err(format!("this node belongs to cluster {cluster_id}"));
    }
    match own_expect {
        Some(expect) if expect == their_expect => {}
        Some(expect) => {
            return Err(format!(
                "this node has --bootstrap-expect {expect}, the candidate has {their_expect}; give all the same"
            ));
        }
        None => return Err("this node has no --bootstrap-expect and grants nobody".to_owned()),
    }
    match identity.granted {
        Some(held) if held.node_uuid != candidacy.node_uuid => {
            Err(format!("this node has granted node {}", held.node_uuid))
        }
        Some(held) if held.number > candidacy.number => {
            Err(format!("candidacy {} was renounced", candidacy.number))
        }
        _ => {
            identity.granted = Some(candidacy);
            Ok(())
        }
    }
}

/// Gives up the own candidacy, unless it has already founded: false then.
pub fn renounce(identity: &mut Identity) -> bool {
    if identity.founding.is_some() || identity.cluster_id.is_some() {
        return false;
    }
    identity.candidacy += 1;
    if identity.granted.is_some_and(|held| held.node_uuid == identity.node_uuid) {
        identity.granted = None;
    }
    true
}

/// Takes back a grant whose candidate has renounced.
pub fn release(identity: &mut Identity, candidacy: Candidacy) {
    if identity.granted == Some(candidacy) {
        identity.granted = None;
    }
}

/// Claims the right to found `cluster_id`, if `candidacy` still stands.
pub fn claim(identity: &mut Identity, candidacy: Candidacy, cluster_id: ClusterId) -> bool {
    let stands = identity.cluster_id.is_none()
        && identity.founding.is_none()
        && identity.granted == Some(candidacy)
        && candidacy.node_uuid == identity.node_uuid
        && candidacy.number == identity.candidacy;
    if stands {
        identity.founding = Some(cluster_id);
    }
    stands
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
