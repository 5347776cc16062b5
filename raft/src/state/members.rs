//! Who belongs to the cluster. (Who votes is Raft's own membership.)

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use serde::Serialize;

use super::{EntryContext, Event, FeatureLevel, NodeId, NodeUuid, Rejection, State};

/// Added to the index of the join entry to make a node id, so that an id never
/// collides with a small number that a person made up.
pub const NODE_ID_OFFSET: u64 = 1_000;

/// The founder is the one member that Raft knows before any join entry.
pub const FOUNDER_NODE_ID: NodeId = NodeId::new(NODE_ID_OFFSET);

/// Removed node ids that are remembered, so that whoever still uses one is told.
pub const REMOVED_MAX: usize = 10_000;

/// Members of one cluster.
pub const MEMBERS_MAX: usize = 1_000;
/// Labels of one member.
pub const LABELS_MAX: usize = 64;
/// Longest label key, label value, address or version of a member. Bytes.
pub const WORD_BYTES_MAX: usize = 256;

/// Where a node can be reached, as `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Addresses {
    /// Other nodes: Raft, gossip, artefacts, forwarded predictions.
    pub peer: String,
    /// Clients over gRPC: predictions and administration.
    pub grpc: String,
    /// Clients over REST.
    pub rest: String,
    /// Prometheus.
    pub metrics: String,
}

/// One node, as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Given by the cluster.
    pub node_id: NodeId,
    /// Made by the node.
    pub node_uuid: NodeUuid,
    /// As last announced; gossip may know newer ones.
    pub addresses: Addresses,
    /// Free words, such as zone=a.
    pub labels: BTreeMap<String, String>,
    /// What its binary can read.
    pub max_feature_level: FeatureLevel,
    /// Its binary's version.
    pub starling_version: String,
    /// Work and leadership are kept away from it.
    pub draining: bool,
}

/// All members, in order of id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    by_id: OrdMap<NodeId, Arc<Member>>,
    /// The latest [`REMOVED_MAX`] removed ids, and the UUID that each had.
    removed: OrdMap<NodeId, NodeUuid>,
}

/// What is asked about members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberCommand {
    /// A new node wants in, or a member says that it came back. The same UUID
    /// gets the same id.
    Join {
        /// Made by the node.
        node_uuid: NodeUuid,
        /// Where it listens.
        addresses: Addresses,
        /// Free words.
        labels: BTreeMap<String, String>,
        /// What its binary can read.
        max_feature_level: FeatureLevel,
        /// Its binary's version.
        starling_version: String,
    },
    /// Keep work and leadership away.
    Drain {
        /// Whom.
        node_id: NodeId,
    },
    /// Give work back.
    Undrain {
        /// Whom.
        node_id: NodeId,
    },
    /// Replace a member's labels. Needs feature level 2.
    SetLabels {
        /// Whose.
        node_id: NodeId,
        /// All of them.
        labels: BTreeMap<String, String>,
    },
    /// Take it out for good. Its id is never used again.
    Remove {
        /// Whom.
        node_id: NodeId,
    },
}

/// What happened to members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum MemberEvent {
    /// A new member.
    NodeJoined {
        /// Its id.
        node_id: NodeId,
        /// Its own UUID.
        node_uuid: NodeUuid,
        /// Where it listens.
        addresses: Addresses,
        /// Free words.
        labels: BTreeMap<String, String>,
        /// What its binary can read.
        max_feature_level: FeatureLevel,
        /// Its binary's version.
        starling_version: String,
    },
    /// A member came back with other addresses, labels or another binary.
    NodeAnnounced {
        /// Its id.
        node_id: NodeId,
        /// Where it listens now.
        addresses: Addresses,
        /// Free words.
        labels: BTreeMap<String, String>,
        /// What its binary can read.
        max_feature_level: FeatureLevel,
        /// Its binary's version.
        starling_version: String,
    },
    /// Work is kept away from now on.
    NodeDrained {
        /// Whose.
        node_id: NodeId,
    },
    /// Work may come back.
    NodeUndrained {
        /// Whose.
        node_id: NodeId,
    },
    /// No longer a member.
    NodeRemoved {
        /// Who.
        node_id: NodeId,
    },
    /// A member's labels were replaced. From feature level 2 on.
    NodeLabelsSet {
        /// Whose.
        node_id: NodeId,
        /// All of them.
        labels: BTreeMap<String, String>,
    },
}

impl MemberEvent {
    /// The event's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NodeJoined { .. } => "NodeJoined",
            Self::NodeAnnounced { .. } => "NodeAnnounced",
            Self::NodeDrained { .. } => "NodeDrained",
            Self::NodeUndrained { .. } => "NodeUndrained",
            Self::NodeRemoved { .. } => "NodeRemoved",
            Self::NodeLabelsSet { .. } => "NodeLabelsSet",
        }
    }
}

impl Members {
    /// In order of id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.by_id.values()
    }

    /// By id.
    pub fn get(&self, node_id: NodeId) -> Option<&Arc<Member>> {
        self.by_id.get(&node_id)
    }

    /// By the node's own UUID.
    pub fn by_uuid(&self, node_uuid: NodeUuid) -> Option<&Arc<Member>> {
        self.iter().find(|member| member.node_uuid == node_uuid)
    }

    /// Puts a member in as it is: for snapshots.
    pub(crate) fn insert(&mut self, member: Member) {
        self.by_id.insert(member.node_id, Arc::new(member));
    }

    /// Whether this id belonged to a node that was removed. Whoever still uses
    /// it is to be refused and told so; a removed node that wants back gets a
    /// new id.
    pub fn was_removed(&self, node_id: NodeId) -> bool {
        self.removed.contains_key(&node_id)
    }

    /// The removed ids that are remembered, in order: for snapshots.
    pub fn removed(&self) -> impl Iterator<Item = (NodeId, NodeUuid)> {
        self.removed.iter().map(|(node_id, node_uuid)| (*node_id, *node_uuid))
    }

    /// Remembers a removed id; beyond [`REMOVED_MAX`] the smallest (the oldest
    /// member) is forgotten.
    pub(crate) fn remember_removed(&mut self, node_id: NodeId, node_uuid: NodeUuid) {
        self.removed.insert(node_id, node_uuid);
        if self.removed.len() > REMOVED_MAX {
            self.removed = self.removed.without_min().1;
        }
    }

    fn update(&mut self, node_id: NodeId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.by_id.get_mut(&node_id) {
            change(Arc::make_mut(member));
        }
    }
}

pub(super) fn decide(
    state: &State,
    context: &EntryContext,
    command: &MemberCommand,
) -> Result<Vec<Event>, Rejection> {
    let members = &state.members;
    let events = match command {
        MemberCommand::Join { node_uuid, addresses, labels, max_feature_level, starling_version } => {
            if *max_feature_level < state.cluster.feature_level {
                return Err(Rejection::NodeTooOld {
                    cluster: state.cluster.feature_level,
                    node: *max_feature_level,
                });
            }
            require_short_words(addresses, starling_version)?;
            require_short_labels(labels)?;
            match members.by_uuid(*node_uuid) {
                Some(member)
                    if member.addresses == *addresses
                        && member.labels == *labels
                        && member.max_feature_level == *max_feature_level
                        && member.starling_version == *starling_version =>
                {
                    vec![]
                }
                Some(member) => vec![MemberEvent::NodeAnnounced {
                    node_id: member.node_id,
                    addresses: addresses.clone(),
                    labels: labels.clone(),
                    max_feature_level: *max_feature_level,
                    starling_version: starling_version.clone(),
                }],
                None if members.by_id.len() >= MEMBERS_MAX => {
                    return Err(limit("the number of members", MEMBERS_MAX));
                }
                None => vec![MemberEvent::NodeJoined {
                    node_id: next_node_id(state, context),
                    node_uuid: *node_uuid,
                    addresses: addresses.clone(),
                    labels: labels.clone(),
                    max_feature_level: *max_feature_level,
                    starling_version: starling_version.clone(),
                }],
            }
        }
        MemberCommand::Drain { node_id } => {
            let member = members.get(*node_id).ok_or(Rejection::UnknownNode(*node_id))?;
            if member.draining {
                return Ok(vec![]);
            }
            require_another_server(state, *node_id)?;
            vec![MemberEvent::NodeDrained { node_id: *node_id }]
        }
        MemberCommand::Undrain { node_id } => {
            let member = members.get(*node_id).ok_or(Rejection::UnknownNode(*node_id))?;
            if !member.draining {
                return Ok(vec![]);
            }
            vec![MemberEvent::NodeUndrained { node_id: *node_id }]
        }
        MemberCommand::SetLabels { node_id, labels } => {
            let member = members.get(*node_id).ok_or(Rejection::UnknownNode(*node_id))?;
            require_short_labels(labels)?;
            if member.labels == *labels {
                return Ok(vec![]);
            }
            vec![MemberEvent::NodeLabelsSet { node_id: *node_id, labels: labels.clone() }]
        }
        MemberCommand::Remove { node_id } => {
            if members.was_removed(*node_id) {
                return Ok(vec![]);
            }
            members.get(*node_id).ok_or(Rejection::UnknownNode(*node_id))?;
            require_another_server(state, *node_id)?;
            vec![MemberEvent::NodeRemoved { node_id: *node_id }]
        }
    };
    Ok(events.into_iter().map(Event::Member).collect())
}

pub(super) fn evolve(state: &mut State, event: &MemberEvent) {
    let members = &mut state.members;
    match event {
        MemberEvent::NodeJoined {
            node_id,
            node_uuid,
            addresses,
            labels,
            max_feature_level,
            starling_version,
        } => members.insert(Member {
            node_id: *node_id,
            node_uuid: *node_uuid,
            addresses: addresses.clone(),
            labels: labels.clone(),
            max_feature_level: *max_feature_level,
            starling_version: starling_version.clone(),
            draining: false,
        }),
        MemberEvent::NodeAnnounced { node_id, addresses, labels, max_feature_level, starling_version } => {
            members.update(*node_id, |member| {
                member.addresses = addresses.clone();
                member.labels = labels.clone();
                member.max_feature_level = *max_feature_level;
                member.starling_version = starling_version.clone();
            })
        }
        MemberEvent::NodeDrained { node_id } => members.update(*node_id, |member| member.draining = true),
        MemberEvent::NodeUndrained { node_id } => {
            members.update(*node_id, |member| member.draining = false);
        }
        MemberEvent::NodeLabelsSet { node_id, labels } => {
            members.update(*node_id, |member| member.labels = labels.clone());
        }
        MemberEvent::NodeRemoved { node_id } => {
            if let Some(member) = members.by_id.remove(node_id) {
                members.remember_removed(*node_id, member.node_uuid);
            }
            state.rollouts.forget_node(*node_id);
        }
    }
}

/// The first member is the founder, whose id Raft knew before any entry.
fn next_node_id(state: &State, context: &EntryContext) -> NodeId {
    if state.members.by_id.is_empty() && state.members.removed.is_empty() {
        return FOUNDER_NODE_ID;
    }
    NodeId::new(NODE_ID_OFFSET + context.log_index.get())
}

fn require_short_words(addresses: &Addresses, starling_version: &str) -> Result<(), Rejection> {
    let Addresses { peer, grpc, rest, metrics } = addresses;
    let words = [peer.as_str(), grpc, rest, metrics, starling_version];
    if words.iter().any(|word| word.len() > WORD_BYTES_MAX) {
        return Err(limit("the length of an address or a starling version, in bytes,", WORD_BYTES_MAX));
    }
    Ok(())
}

fn require_short_labels(labels: &BTreeMap<String, String>) -> Result<(), Rejection> {
    if labels.len() > LABELS_MAX {
        return Err(limit("the number of labels of a node", LABELS_MAX));
    }
    if labels.iter().any(|(key, value)| key.len().max(value.len()) > WORD_BYTES_MAX) {
        return Err(limit("the length of a label's key or value, in bytes,", WORD_BYTES_MAX));
    }
    Ok(())
}

fn limit(what: &str, limit: usize) -> Rejection {
    Rejection::LimitReached { what: what.to_owned(), limit: limit as u64 }
}

fn require_another_server(state: &State, node_id: NodeId) -> Result<(), Rejection> {
    let another = state.members.iter().any(|member| member.node_id != node_id && !member.draining);
    if another { Ok(()) } else { Err(Rejection::LastNode(node_id)) }
}
