//! The disk as a power cut could have left it.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::trace::{FileId, Op};

/// Disks write whole sectors.
const SECTOR_BYTES: usize = 512;
/// Ways in which the last write is torn at one point, beside its beginnings.
const RANDOM_TEARS: usize = 3;
/// At most this many changes are dropped one at a time at one point.
const SINGLE_LOSSES_MAX: usize = 12;
/// Random subsets dropped at one point.
const RANDOM_LOSSES: usize = 3;

/// Power goes just before `ops[end]`; `lost` of what was not synced is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Crash {
    pub(crate) end: usize,
    pub(crate) lost: BTreeSet<usize>,
    /// Of this write, only some sectors arrived.
    pub(crate) torn: Option<Torn>,
}

/// A write that arrived in part: those of its first 64 sectors whose bit is
/// set, and the rest if `rest` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Torn {
    pub(crate) op: usize,
    pub(crate) sectors: u64,
    pub(crate) rest: bool,
}

impl Torn {
    fn keeps(&self, sector: usize) -> bool {
        if sector < 64 { self.sectors >> sector & 1 == 1 } else { self.rest }
    }
}

/// Cuts a write at the borders of sectors: the offset of each part, and its bytes.
fn sectors(offset: u64, data: &[u8]) -> Vec<(u64, &[u8])> {
    let mut parts = Vec::new();
    let mut start = 0;
    while start < data.len() {
        let position = offset + start as u64;
        let to_border = SECTOR_BYTES - (position % SECTOR_BYTES as u64) as usize;
        let end = data.len().min(start + to_border);
        parts.push((position, &data[start..end]));
        start = end;
    }
    parts
}

/// A fixed sequence that looks random.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Every point at which the power can go, with the subsets of what was not
/// synced: nothing lost, all lost, each one alone, a few random ones, and the
/// last write torn. At most `crashes_max`, of which those with nothing and all
/// lost are never left out.
///
/// Syncs of the file `lied_about`, if any, are taken for lies.
pub(crate) fn crashes(ops: &[Op], crashes_max: usize, lied_about: Option<FileId>) -> Vec<Crash> {
    let mut seen = HashSet::new();
    let mut always = Vec::new();
    let mut sampled = Vec::new();
    let mut dice = Dice(0x5EED_0F57_A211_1465);
    let mut unsynced: Vec<usize> = Vec::new();
    let mut applied = Applied::default();
    for end in 0..=ops.len() {
        let next = ops.get(end);
        // Notes and range syncs change nothing on the disk: the point after
        // them has the same images and more acknowledged.
        if !matches!(next, Some(Op::Note(_) | Op::SyncRange)) {
            let mut add = |lost: BTreeSet<usize>, torn: Option<Torn>, list: &mut Vec<Crash>| {
                if seen.insert(applied.key(&lost, torn)) {
                    list.push(Crash { end, lost, torn });
                }
            };
            add(BTreeSet::new(), None, &mut always);
            add(unsynced.iter().copied().collect(), None, &mut always);
            for position in 0..unsynced.len().min(SINGLE_LOSSES_MAX) {
                let one = match unsynced.len() <= SINGLE_LOSSES_MAX {
                    true => unsynced[position],
                    false => unsynced[dice.roll(unsynced.len())],
                };
                add(BTreeSet::from([one]), None, &mut sampled);
            }
            if unsynced.len() > 2 {
                for _ in 0..RANDOM_LOSSES {
                    let some = unsynced.iter().copied().filter(|_| dice.roll(2) == 0).collect();
                    add(some, None, &mut sampled);
                }
            }
            let last_write = unsynced.iter().rev().find(|&&op| matches!(ops[op], Op::Write { .. }));
            if let Some(&op) = last_write
                && let Op::Write { offset, data, .. } = &ops[op]
            {
                let count = sectors(*offset, data).len();
                for kept in BTreeSet::from([1, count / 2, count - 1]) {
                    if (1..count).contains(&kept) {
                        let beginning = u64::MAX >> (64 - kept.min(64));
                        add(
                            BTreeSet::new(),
                            Some(Torn { op, sectors: beginning, rest: false }),
                            &mut sampled,
                        );
                    }
                }
                if count > 1 {
                    for _ in 0..RANDOM_TEARS {
                        let some = dice.roll(1 << 32) as u64 | (dice.roll(1 << 32) as u64) << 32;
                        add(
                            BTreeSet::new(),
                            Some(Torn { op, sectors: some, rest: dice.roll(2) == 0 }),
                            &mut sampled,
                        );
                    }
                }
            }
        }
        let Some(next) = next else { break };
        let is_lie = matches!(next, Op::SyncFile { file } if Some(*file) == lied_about);
        if next.can_be_lost() {
            unsynced.push(end);
        } else if !is_lie {
            unsynced.retain(|&op| !next.settles(&ops[op]));
        }
        applied.advance(end, next);
    }
    while always.len() + sampled.len() > crashes_max && !sampled.is_empty() {
        let out = dice.roll(sampled.len());
        sampled.swap_remove(out);
    }
    always.append(&mut sampled);
    always
}

/// What has happened up to a point, as far as it tells images apart.
#[derive(Default)]
struct Applied {
    changes: Vec<usize>,
    notes: usize,
}

impl Applied {
    fn advance(&mut self, position: usize, op: &Op) {
        match op {
            Op::Note(_) => self.notes += 1,
            _ if op.can_be_lost() => self.changes.push(position),
            _ => {}
        }
    }

    fn key(&self, lost: &BTreeSet<usize>, torn: Option<Torn>) -> u64 {
        let mut hasher = DefaultHasher::new();
        for change in self.changes.iter().filter(|change| !lost.contains(change)) {
            change.hash(&mut hasher);
        }
        (self.notes, torn).hash(&mut hasher);
        hasher.finish()
    }
}

/// Builds the image in `dir`, which is empty.
pub(crate) fn build(dir: &Path, ops: &[Op], crash: &Crash) {
    let mut names: BTreeMap<String, Option<FileId>> = BTreeMap::new();
    for (position, op) in ops[..crash.end].iter().enumerate() {
        if crash.lost.contains(&position) {
            continue;
        }
        match op {
            Op::Create { path, file } => {
                names.insert(path.clone(), Some(*file));
            }
            Op::MakeDir { path } => {
                names.insert(path.clone(), None);
            }
            Op::Unlink { path } => {
                names.remove(path);
            }
            Op::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            _ => {}
        }
    }

    let mut files: HashMap<FileId, File> = HashMap::new();
    for (path, file) in &names {
        let path = dir.join(path);
        // A directory whose own making was lost takes its files with it.
        if !path.parent().is_some_and(Path::is_dir) {
            continue;
        }
        match file {
            None => std::fs::create_dir(&path).unwrap(),
            Some(file) => {
                files.insert(*file, File::create(&path).unwrap());
            }
        }
    }
    for (position, op) in ops[..crash.end].iter().enumerate() {
        if crash.lost.contains(&position) {
            continue;
        }
        match op {
            Op::Write { file, offset, data } => {
                let Some(file) = files.get(file) else { continue };
                let Some(torn) = crash.torn.filter(|torn| torn.op == position) else {
                    file.write_all_at(data, *offset).unwrap();
                    continue;
                };
                for (sector, (offset, bytes)) in sectors(*offset, data).into_iter().enumerate() {
                    if torn.keeps(sector) {
                        file.write_all_at(bytes, offset).unwrap();
                    }
                }
            }
            Op::Truncate { file, len } => {
                if let Some(file) = files.get(file) {
                    file.set_len(*len).unwrap();
                }
            }
            _ => {}
        }
    }
}
