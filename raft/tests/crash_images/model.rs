//! What must be in the log after a crash, from the notes of what was asked and acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::{LogId, Vote};
use starling_raft::raft_types::TypeConfig;

use crate::workload::{Request, content};

/// Everything asked so far; what was acknowledged is settled.
#[derive(Debug, Default, Clone)]
pub(crate) struct Model {
    entries: BTreeMap<u64, Version>,
    /// Taken out by a truncation; nothing was acknowledged at that index since.
    truncated: BTreeMap<u64, Vec<Version>>,
    vote: Option<VoteOf<TypeConfig>>,
    marked: bool,
    /// Purges may happen late: what they cover may be there or not.
    purged_to: Option<u64>,
    unacknowledged: BTreeMap<u64, Request>,
}

/// Which entry stands at an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    term: u64,
    bytes: usize,
}

/// What a reopened log says.
pub(crate) struct Found {
    pub(crate) entries: Vec<EntryOf<TypeConfig>>,
    pub(crate) last_log_id: Option<LogIdOf<TypeConfig>>,
    pub(crate) purged: Option<LogIdOf<TypeConfig>>,
    pub(crate) vote: Option<VoteOf<TypeConfig>>,
    pub(crate) marked: bool,
}

impl Model {
    /// Takes in one note.
    pub(crate) fn note(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (verb, id) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        match verb {
            "ask" => {
                let request = Request::parse(words);
                if let Request::Purge { index, .. } = request {
                    self.purged_to = self.purged_to.max(Some(index));
                }
                self.unacknowledged.insert(id, request);
            }
            "done" => {
                let request = self.unacknowledged.remove(&id).unwrap();
                self.settle(&request);
            }
            other => panic!("an unknown note: {other}"),
        }
    }

    fn settle(&mut self, request: &Request) {
        match *request {
            Request::Vote { term, node, committed } => self.vote = Some(vote(term, node, committed)),
            Request::Append { term, first, count, bytes } => {
                for index in first..first + count {
                    self.entries.insert(index, Version { term, bytes });
                    self.truncated.remove(&index);
                }
            }
            Request::Truncate { from } => {
                for (index, version) in self.entries.split_off(&from) {
                    self.truncated.entry(index).or_default().push(version);
                }
            }
            Request::Purge { .. } => {}
            Request::Marker => self.marked = true,
        }
    }

    /// `Err(why)` if something acknowledged is gone, or something is there that was never asked for.
    /// A disk that lies may also bring back what was truncated, as long as nothing was acknowledged in
    /// its place: no promise is broken, and the leader truncates it again.
    pub(crate) fn check(&self, found: &Found, the_disk_lies: bool) -> Result<(), String> {
        self.check_vote(found)?;
        if self.marked && !found.marked {
            return Err("the marker is gone".to_owned());
        }
        if let Some(purged) = found.purged
            && Some(purged.index) > self.purged_to
        {
            return Err(format!("purged to {purged}, which nobody asked for"));
        }

        let there: BTreeMap<u64, &EntryOf<TypeConfig>> =
            found.entries.iter().map(|entry| (entry.log_id.index, entry)).collect();
        let first = found.purged.map_or(0, |purged| purged.index + 1);
        if there.keys().copied().ne(first..first + there.len() as u64) {
            return Err("there is a gap".to_owned());
        }
        let last = found.entries.last().map(|entry| entry.log_id).or(found.purged);
        if found.last_log_id != last {
            return Err(format!("the log says it ends with {:?}, but {last:?} is last", found.last_log_id));
        }

        for (index, entry) in &there {
            let mut allowed = self.allowed_at(*index);
            if the_disk_lies {
                allowed.extend(self.truncated.get(index).into_iter().flatten());
            }
            if !allowed.iter().any(|version| matches_version(entry, *version)) {
                return Err(format!("entry {} is none of {allowed:?}", entry.log_id));
            }
        }
        for index in self.required() {
            if !there.contains_key(&index) {
                return Err(format!("entry {index} was acknowledged and is gone"));
            }
        }
        Ok(())
    }

    fn check_vote(&self, found: &Found) -> Result<(), String> {
        let mut allowed = vec![self.vote];
        for request in self.unacknowledged.values() {
            if let Request::Vote { term, node, committed } = *request {
                allowed.push(Some(vote(term, node, committed)));
            }
        }
        if allowed.contains(&found.vote) {
            return Ok(());
        }
        Err(format!("the vote is {:?}, expected one of {allowed:?}", found.vote))
    }

    fn allowed_at(&self, index: u64) -> Vec<Version> {
        let mut allowed: Vec<_> = self.entries.get(&index).copied().into_iter().collect();
        for request in self.unacknowledged.values() {
            if let Request::Append { term, first, count, bytes } = *request
                && (first..first + count).contains(&index)
            {
                allowed.push(Version { term, bytes });
            }
        }
        allowed
    }

    /// Indices that must be there.
    fn required(&self) -> BTreeSet<u64> {
        let cut = self.unacknowledged.values().filter_map(|request| match request {
            Request::Truncate { from } => Some(*from),
            _ => None,
        });
        let end = cut.min().unwrap_or(u64::MAX);
        let start = self.purged_to.map_or(0, |purged| purged + 1);
        self.entries.keys().copied().filter(|index| (start..end).contains(index)).collect()
    }
}

fn vote(term: u64, node: u64, committed: bool) -> VoteOf<TypeConfig> {
    if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) }
}

fn matches_version(entry: &EntryOf<TypeConfig>, version: Version) -> bool {
    let index = entry.log_id.index;
    entry.log_id == LogId::new(LeaderId { term: version.term, node_id: 1 }, index)
        && entry.payload == content(version.term, index, version.bytes)
}
