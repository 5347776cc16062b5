//! Who this node is: `data/identity.json`, written aside, fsynced, renamed.
//!
//! The file names a cluster only after the log store's own marker for it is
//! synced. So the two together tell a first start that was interrupted from a
//! lost disk:
//!
//! | file names a cluster | store has the marker | what it is                           |
//! |----------------------|----------------------|--------------------------------------|
//! | no                   | no                   | a first start, interrupted or not    |
//! | no                   | yes                  | interrupted on the way in: go on     |
//! | there is no file     | yes                  | the identity is lost: refuse         |
//! | yes                  | yes, the same        | a member                             |
//! | yes                  | no, or another       | the log is lost: refuse              |

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::flock::StartError;
use crate::state::{ClusterId, NodeId, NodeUuid};

/// The file's name within the data directory.
pub const IDENTITY_FILE: &str = "identity.json";

const FORMAT_VERSION: u32 = 1;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Version of this file's format.
    pub format: u32,
    /// Made at the first start, never changed.
    pub node_uuid: NodeUuid,
    /// The cluster this node belongs to, once it does.
    pub cluster_id: Option<ClusterId>,
    /// Its id there.
    pub node_id: Option<NodeId>,
    /// How many times a process has started under this identity. Decision ids
    /// carry it.
    pub boot: u32,
    /// Orders this node's gossip over its restarts. Never goes back.
    pub gossip_generation: u64,
    /// The candidacy that has this node's one bootstrap grant.
    pub granted: Option<Candidacy>,
    /// This node's own candidacy number: raised when it renounces the last one.
    pub candidacy: u32,
    /// The cluster that this node has won the right to found. Set until its
    /// founding entries are committed.
    pub founding: Option<ClusterId>,
}

/// One attempt of one node to become the founder. A node that renounces an
/// attempt raises its number, which frees those who granted the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidacy {
    /// Who wants to found.
    pub node_uuid: NodeUuid,
    /// Which of its attempts.
    pub number: u32,
}

/// What file and store say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Belongs to no cluster. If it was interrupted on its way into one, it may
    /// enter only that one, and found none.
    Stranger {
        /// The cluster it was on its way into.
        bound_for: Option<ClusterId>,
    },
    /// Won the right to found this cluster; the founding may be half done and
    /// is to be finished (every step may be repeated).
    Founder {
        /// The cluster.
        cluster_id: ClusterId,
    },
    /// A member.
    Member {
        /// Its cluster.
        cluster_id: ClusterId,
        /// Its id there.
        node_id: NodeId,
    },
}

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk said no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
    /// Not what this binary writes.
    #[error(
        "{path} cannot be read: {reason}; restore it from a backup, or remove the node from its cluster and start it with an empty data directory"
    )]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A member whose log is gone.
    #[error(
        "{path} says that this node is node {node_id} of cluster {cluster_id}, but the log beside it is not: the disk was lost or mixed up. A node must never vote without its log: on a living node run `starling node remove {node_id}`, then start this one with an empty data directory and --join"
    )]
    LogLost {
        /// Where.
        path: PathBuf,
        /// The cluster.
        cluster_id: ClusterId,
        /// The id.
        node_id: NodeId,
    },
    /// A log without the identity that wrote it.
    #[error(
        "the log beside {path} belongs to cluster {cluster_id}, but the file that says which node it is is gone; restore the file, or remove the node from its cluster and start with an empty data directory"
    )]
    IdentityLost {
        /// Where the file should be.
        path: PathBuf,
        /// The cluster.
        cluster_id: ClusterId,
    },
    /// The log is that of another cluster than the one to be founded.
    #[error(
        "the log in {path} belongs to cluster {found}, this node was to found {expected}; start it with an empty data directory"
    )]
    OtherCluster {
        /// The data directory.
        path: PathBuf,
        /// What the log says.
        found: ClusterId,
        /// What the identity says.
        expected: ClusterId,
    },
}

impl From<IdentityError> for StartError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::LogLost { .. }
            | IdentityError::IdentityLost { .. }
            | IdentityError::OtherCluster { .. } => StartError::Fenced(error.to_string()),
            IdentityError::Io { ref path, .. } | IdentityError::Unreadable { ref path, .. } => {
                StartError::DataDir {
                    path: path.parent().unwrap_or(path).to_owned(),
                    reason: error.to_string(),
                }
            }
        }
    }
}

/// The file and what it says, kept the same. Cheap to clone. Every change is on
/// disk when the call returns; the calls block for an fsync.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    path: PathBuf,
    current: Arc<Mutex<Identity>>,
}

impl IdentityStore {
    /// Reads the file, or makes a new identity; counts this start, durably.
    /// The data directory must exist and be locked by this process.
    pub fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let path = data_dir.join(IDENTITY_FILE);
        let mut identity = match read(&path)? {
            Some(identity) => identity,
            None => Identity::new(NodeUuid::new(Uuid::new_v4())),
        };
        identity.boot += 1;
        identity.gossip_generation = unix_seconds().max(identity.gossip_generation + 1);
        write(&path, &identity)?;
        Ok(Self { path, current: Arc::new(Mutex::new(identity)) })
    }

    /// What the file says now.
    pub fn current(&self) -> Identity {
        self.lock().clone()
    }

    /// What the file and the log store's marker say together.
    pub fn standing(&self, marker: Option<ClusterId>) -> Result<Standing, IdentityError> {
        standing(&self.path, &self.current(), marker)
    }

    /// Changes the identity as `change` says, if it changes anything, and
    /// answers with what `change` does. On an error nothing has changed.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Identity) -> T) -> Result<T, IdentityError> {
        let mut current = self.lock();
        let mut changed = current.clone();
        let answer = change(&mut changed);
        if changed != *current {
            write(&self.path, &changed)?;
            *current = changed;
        }
        Ok(answer)
    }

    /// Names the cluster and the id in it. Call it only once the log store's
    /// marker for this cluster is synced.
    pub fn enter(&self, cluster_id: ClusterId, node_id: NodeId) -> Result<(), IdentityError> {
        self.update(|identity| {
            identity.cluster_id = Some(cluster_id);
            identity.node_id = Some(node_id);
        })
    }

    /// The founding entries are committed: from now on a member like any other.
    pub fn founded(&self) -> Result<(), IdentityError> {
        self.update(|identity| identity.founding = None)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Identity> {
        // A panic while the lock was held cannot have left it half changed.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Identity {
    fn new(node_uuid: NodeUuid) -> Self {
        Self {
            format: FORMAT_VERSION,
            node_uuid,
            cluster_id: None,
            node_id: None,
            boot: 0,
            gossip_generation: 0,
            granted: None,
            candidacy: 0,
            founding: None,
        }
    }
}

fn standing(path: &Path, identity: &Identity, marker: Option<ClusterId>) -> Result<Standing, IdentityError> {
    if let (Some(cluster_id), Some(node_id)) = (identity.cluster_id, identity.node_id) {
        if marker != Some(cluster_id) {
            return Err(IdentityError::LogLost { path: path.to_owned(), cluster_id, node_id });
        }
        return Ok(match identity.founding {
            Some(cluster_id) => Standing::Founder { cluster_id },
            None => Standing::Member { cluster_id, node_id },
        });
    }
    match (identity.founding, marker) {
        (Some(expected), Some(found)) if expected != found => {
            Err(IdentityError::OtherCluster { path: path.to_owned(), found, expected })
        }
        (Some(cluster_id), _) => Ok(Standing::Founder { cluster_id }),
        // The file is written at every start before any marker is: on its
        // first boot an identity cannot have one.
        (None, Some(cluster_id)) if identity.boot <= 1 => {
            Err(IdentityError::IdentityLost { path: path.to_owned(), cluster_id })
        }
        (None, bound_for) => Ok(Standing::Stranger { bound_for }),
    }
}

fn read(path: &Path) -> Result<Option<Identity>, IdentityError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IdentityError::Io { path: path.to_owned(), source }),
    };
    let unreadable = |reason: String| IdentityError::Unreadable { path: path.to_owned(), reason };
    let identity: Identity = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if identity.format != FORMAT_VERSION {
        return Err(unreadable(format!(
            "it has format {}, this binary knows {FORMAT_VERSION}",
            identity.format
        )));
    }
    if identity.cluster_id.is_some() != identity.node_id.is_some() {
        return Err(unreadable("it must name a cluster and a node id, or neither".to_owned()));
    }
    Ok(Some(identity))
}

/// After this returns, a crash finds the new file; before, the old one; never half of one.
fn write(path: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let write = || -> io::Result<()> {
        let aside = path.with_extension("json.tmp");
        let mut bytes = serde_json::to_vec_pretty(identity)?;
        bytes.push(b'\n');
        let mut file = File::create(&aside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        match path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| IdentityError::Io { path: path.to_owned(), source })
}

/// Only a start value that lies above what an older copy of the file would
/// continue from; the order itself comes from counting up.
fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since_epoch| since_epoch.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn cluster(number: u128) -> ClusterId {
        ClusterId::new(Uuid::from_u128(number))
    }

    #[test]
    fn a_restart_keeps_the_uuid_counts_the_boot_and_raises_the_generation() {
        let dir = tempfile::tempdir().unwrap();
        let first = IdentityStore::open(dir.path()).unwrap().current();
        let second = IdentityStore::open(dir.path()).unwrap().current();
        assert_eq!(second.node_uuid, first.node_uuid);
        assert_eq!((first.boot, second.boot), (1, 2));
        assert!(second.gossip_generation > first.gossip_generation);
    }

    #[test]
    fn a_clock_set_back_does_not_take_the_generation_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(dir.path()).unwrap();
        let far_future = 90_000_000_000;
        store.update(|identity| identity.gossip_generation = far_future).unwrap();
        assert_eq!(IdentityStore::open(dir.path()).unwrap().current().gossip_generation, far_future + 1);
    }

    #[test]
    fn file_and_marker_together_tell_a_first_start_from_a_lost_disk() {
        let dir = tempfile::tempdir().unwrap();
        let first_start = IdentityStore::open(dir.path()).unwrap();
        assert_eq!(first_start.standing(None).unwrap(), Standing::Stranger { bound_for: None });
        assert!(matches!(
            first_start.standing(Some(cluster(7))).unwrap_err(),
            IdentityError::IdentityLost { .. }
        ));

        let store = IdentityStore::open(dir.path()).unwrap();
        assert_eq!(
            store.standing(Some(cluster(7))).unwrap(),
            Standing::Stranger { bound_for: Some(cluster(7)) }
        );

        store.enter(cluster(7), NodeId::new(1004)).unwrap();
        let reopened = IdentityStore::open(dir.path()).unwrap();
        assert_eq!(
            reopened.standing(Some(cluster(7))).unwrap(),
            Standing::Member { cluster_id: cluster(7), node_id: NodeId::new(1004) }
        );
        for marker in [None, Some(cluster(8))] {
            let refusal = reopened.standing(marker).unwrap_err();
            assert!(matches!(refusal, IdentityError::LogLost { .. }));
            assert!(refusal.to_string().contains("starling node remove 1004"), "{refusal}");
            assert!(matches!(StartError::from(refusal), StartError::Fenced(_)));
        }
    }

    #[test]
    fn a_founding_is_taken_up_again_wherever_it_was_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(dir.path()).unwrap();
        store.update(|identity| identity.founding = Some(cluster(7))).unwrap();
        let founder = Standing::Founder { cluster_id: cluster(7) };
        assert_eq!(store.standing(None).unwrap(), founder);
        assert_eq!(store.standing(Some(cluster(7))).unwrap(), founder);
        assert!(matches!(store.standing(Some(cluster(8))).unwrap_err(), IdentityError::OtherCluster { .. }));

        store.enter(cluster(7), NodeId::new(1000)).unwrap();
        assert_eq!(store.standing(Some(cluster(7))).unwrap(), founder);
        assert!(matches!(store.standing(None).unwrap_err(), IdentityError::LogLost { .. }));

        store.founded().unwrap();
        assert_eq!(
            store.standing(Some(cluster(7))).unwrap(),
            Standing::Member { cluster_id: cluster(7), node_id: NodeId::new(1000) }
        );
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(IDENTITY_FILE), b"{\"format\": 1").unwrap();
        let refusal = IdentityStore::open(dir.path()).unwrap_err();
        assert!(matches!(refusal, IdentityError::Unreadable { .. }));
        assert!(refusal.to_string().contains("restore it from a backup"), "{refusal}");
    }

    #[test]
    fn a_temporary_file_left_by_a_crash_is_no_identity() {
        let dir = tempfile::tempdir().unwrap();
        let before = IdentityStore::open(dir.path()).unwrap().current();
        fs::write(dir.path().join("identity.json.tmp"), b"{ half").unwrap();
        assert_eq!(IdentityStore::open(dir.path()).unwrap().current().node_uuid, before.node_uuid);
    }
}
