//! The segments of one class: sealed ones, and the one that is written to.

use std::fs;
use std::io;
use std::path::Path;

use super::Retention;
use super::segment::{Extent, Open, Place, Recovered, Sealed, SegmentName, class_word, fsync_dir, with_path};
use super::view::{LaneView, SegmentView};
use crate::state::{EventClass, WallTime};

/// Events of one class, encoded, to be appended together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    frames: Vec<u8>,
    extent: Option<Extent>,
}

impl Batch {
    pub(super) fn push(&mut self, place: Place, wall_time: WallTime, frame: &[u8]) {
        self.frames.extend_from_slice(frame);
        let first = self.extent.map_or(place, |extent| extent.first);
        let events = self.extent.map_or(0, |extent| extent.events) + 1;
        self.extent = Some(Extent { first, last: place, events, last_wall_time: wall_time });
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    class: EventClass,
    /// In order of first index. They may overlap after an import: each is in
    /// order, and equal places hold equal events.
    sealed: Vec<Sealed>,
    open: Option<Open>,
}

impl Lane {
    pub(super) fn open(dir: &Path, class: EventClass) -> io::Result<Self> {
        let mut lane = Self { class, sealed: Vec::new(), open: None };
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(dir).map_err(|error| with_path(error, dir))? {
            let name = entry.map_err(|error| with_path(error, dir))?.file_name();
            names.extend(name.into_string().ok().filter(|name| name.starts_with(class_word(class))));
        }
        names.sort();
        for name in names {
            let path = dir.join(&name);
            if name.ends_with(".tmp") {
                fs::remove_file(&path).map_err(|error| with_path(error, &path))?;
                continue;
            }
            let unknown = || {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{} is not a history segment that this binary can read; update starling on this node, or move the file away if it is not starling's",
                        path.display()
                    ),
                )
            };
            if let Some(stem) = name.strip_suffix(".open") {
                let parsed: SegmentName = stem.parse().map_err(|()| unknown())?;
                match Open::recover(dir, &path, parsed)? {
                    Recovered::Open(open) if lane.open.is_none() => lane.open = Some(*open),
                    Recovered::Open(open) => lane.sealed.push(open.seal(dir)?),
                    Recovered::Sealed(sealed) => lane.sealed.push(sealed),
                    Recovered::Nothing => {}
                }
                continue;
            }
            let stem = name.strip_suffix(".seg").ok_or_else(unknown)?;
            let parsed: SegmentName = stem.parse().map_err(|()| unknown())?;
            lane.sealed.push(Sealed::open(&path, parsed)?);
        }
        lane.sort();
        Ok(lane)
    }

    /// Whether this event, and so every one before it, is here already.
    pub(super) fn has(&self, place: Place) -> bool {
        self.last().is_some_and(|last| place <= last)
    }

    pub(super) fn last(&self) -> Option<Place> {
        let sealed = self.sealed.iter().map(|sealed| sealed.last).max();
        sealed.max(self.open.as_ref().map(|open| open.extent.last))
    }

    pub(super) fn open_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.size_bytes)
    }

    pub(super) fn sealed(&self) -> &[Sealed] {
        &self.sealed
    }

    pub(super) fn append(&mut self, dir: &Path, batch: &Batch) -> io::Result<()> {
        let Some(extent) = batch.extent else { return Ok(()) };
        match &mut self.open {
            Some(open) => open.append(extent, &batch.frames),
            None => {
                self.open = Some(Open::create(dir, self.class, extent, &batch.frames)?);
                Ok(())
            }
        }
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.open.as_mut().map_or(Ok(()), Open::sync)
    }

    pub(super) fn seal(&mut self, dir: &Path) -> io::Result<()> {
        if let Some(open) = self.open.take() {
            self.sealed.push(open.seal(dir)?);
            self.sort();
        }
        Ok(())
    }

    /// Puts a fetched, verified file in its place.
    pub(super) fn adopt(&mut self, dir: &Path, aside: &Path, fetched: Sealed) -> io::Result<()> {
        // What is appended from now on comes after the fetched events, so the
        // open segment must not go on from before them.
        if self.open.as_ref().is_some_and(|open| open.first_index() <= fetched.last.index) {
            self.seal(dir)?;
        }
        if self.sealed.iter().any(|local| local.contains(&fetched)) {
            return fs::remove_file(aside).map_err(|error| with_path(error, aside));
        }
        let place = dir.join(format!("{}.seg", fetched.name));
        let fetched = fetched.rename(place)?;
        fsync_dir(dir)?;
        let (contained, kept): (Vec<Sealed>, Vec<Sealed>) =
            self.sealed.drain(..).partition(|local| fetched.contains(local));
        self.sealed = kept;
        for local in contained.iter().filter(|local| local.path() != fetched.path()) {
            fs::remove_file(local.path()).map_err(|error| with_path(error, &local.path()))?;
        }
        self.sealed.push(fetched);
        self.sort();
        Ok(())
    }

    pub(super) fn expire(
        &mut self,
        dir: &Path,
        retention: Retention,
        now: WallTime,
    ) -> io::Result<Vec<String>> {
        let mut removed = Vec::new();
        let mut total_bytes: u64 = self.sealed.iter().map(|sealed| sealed.size_bytes).sum();
        // The newest sealed segment stays: it says where the history ends.
        while self.sealed.len() > 1 {
            let oldest = &self.sealed[0];
            let age_micros = now.as_unix_micros().saturating_sub(oldest.last_wall_time.as_unix_micros());
            let too_old = retention.max_age.is_some_and(|max| u128::from(age_micros) > max.as_micros());
            let too_many = retention.max_bytes.is_some_and(|max| total_bytes > max);
            if !too_old && !too_many {
                break;
            }
            fs::remove_file(oldest.path()).map_err(|error| with_path(error, &oldest.path()))?;
            total_bytes -= oldest.size_bytes;
            removed.push(oldest.info().name);
            self.sealed.remove(0);
        }
        if !removed.is_empty() {
            fsync_dir(dir)?;
        }
        Ok(removed)
    }

    pub(super) fn view(&self) -> LaneView {
        let sealed = self.sealed.iter().map(|sealed| SegmentView {
            path: sealed.path(),
            path_once_sealed: None,
            last: sealed.last,
            end: sealed.body_end(),
        });
        let open = self.open.iter().map(|open| {
            let (path, path_once_sealed) = open.view();
            SegmentView {
                path,
                path_once_sealed: Some(path_once_sealed),
                last: open.extent.last,
                end: open.size_bytes,
            }
        });
        LaneView { segments: sealed.chain(open).collect() }
    }

    fn sort(&mut self) {
        self.sealed.sort_by_key(|sealed| (sealed.name.first_index, sealed.last));
    }
}
