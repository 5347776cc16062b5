//! The cluster as a whole: its identity, its feature level and its clock.

use serde::Serialize;

use super::{ClusterId, Event, FeatureLevel, LogTime, Rejection, State, WallTime};

/// The feature level of this binary: what it can read and decide.
pub const FEATURE_LEVEL_SUPPORTED: FeatureLevel = FeatureLevel::new(4);

/// What holds for the whole cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Absent until the founding entry is applied.
    pub id: Option<ClusterId>,
    /// What every member can read.
    pub feature_level: FeatureLevel,
    /// Log time of the last entry.
    pub log_time: LogTime,
    /// Leader's wall clock at the last entry.
    pub wall_time: WallTime,
}

/// What is asked of the cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterCommand {
    /// The first command of every log.
    Found {
        /// Made by the node that initialises.
        cluster_id: ClusterId,
    },
    /// Allow what a higher level brings, once all members can read it.
    RaiseFeatureLevel {
        /// The level.
        level: FeatureLevel,
    },
    /// Every node records its state digest when it applies this.
    Checkpoint,
}

/// What happened to the cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ClusterEvent {
    /// It exists.
    ClusterFounded {
        /// Its identity.
        cluster_id: ClusterId,
    },
    /// More may be written from now on.
    FeatureLevelRaised {
        /// The level.
        level: FeatureLevel,
    },
    /// Digests were taken.
    CheckpointTaken {},
}

impl ClusterEvent {
    /// The event's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ClusterFounded { .. } => "ClusterFounded",
            Self::FeatureLevelRaised { .. } => "FeatureLevelRaised",
            Self::CheckpointTaken {} => "CheckpointTaken",
        }
    }
}

impl Cluster {
    /// Log time never goes back, whatever a new leader thinks.
    pub(super) fn advance_clock(&mut self, log_time: LogTime, wall_time: WallTime) {
        self.log_time = self.log_time.max(log_time);
        self.wall_time = wall_time;
    }
}

pub(super) fn decide(state: &State, command: &ClusterCommand) -> Result<Vec<Event>, Rejection> {
    let events = match command {
        ClusterCommand::Found { cluster_id } => match state.cluster.id {
            Some(id) if id == *cluster_id => vec![],
            Some(id) => return Err(Rejection::AlreadyFounded(id.to_string())),
            None => vec![
                ClusterEvent::ClusterFounded { cluster_id: *cluster_id },
                ClusterEvent::FeatureLevelRaised { level: FeatureLevel::new(1) },
            ],
        },
        ClusterCommand::RaiseFeatureLevel { level } => {
            if *level <= state.cluster.feature_level {
                return Ok(vec![]);
            }
            for member in state.members.iter() {
                if member.max_feature_level < *level {
                    return Err(Rejection::FeatureLevelTooHigh {
                        wanted: *level,
                        node: member.node_id,
                        max: member.max_feature_level,
                    });
                }
            }
            vec![ClusterEvent::FeatureLevelRaised { level: *level }]
        }
        ClusterCommand::Checkpoint => vec![ClusterEvent::CheckpointTaken {}],
    };
    Ok(events.into_iter().map(Event::Cluster).collect())
}

pub(super) fn evolve(state: &mut State, event: &ClusterEvent) {
    match event {
        ClusterEvent::ClusterFounded { cluster_id } => state.cluster.id = Some(*cluster_id),
        ClusterEvent::FeatureLevelRaised { level } => state.cluster.feature_level = *level,
        ClusterEvent::CheckpointTaken {} => {}
    }
}
