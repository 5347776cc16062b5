//! What the recorder wrote down: every change, sync and note, in order.

use std::collections::HashMap;
use std::path::Path;

/// Stands for one file or directory, whatever it is called.
pub(crate) type FileId = usize;

/// One record, with files told apart by identity instead of name.
#[derive(Debug)]
pub(crate) enum Op {
    Write {
        file: FileId,
        offset: u64,
        data: Vec<u8>,
    },
    Truncate {
        file: FileId,
        len: u64,
    },
    Create {
        path: String,
        file: FileId,
    },
    MakeDir {
        path: String,
    },
    Unlink {
        path: String,
    },
    Rename {
        from: String,
        to: String,
    },
    SyncFile {
        file: FileId,
    },
    SyncDir {
        path: String,
    },
    /// Asks the kernel to begin writing; promises nothing.
    SyncRange,
    Note(String),
}

impl Op {
    /// Whether a power cut can take it back.
    pub(crate) fn can_be_lost(&self) -> bool {
        !matches!(self, Self::SyncFile { .. } | Self::SyncDir { .. } | Self::SyncRange | Self::Note(_))
    }

    /// Whether it makes everything before it on `other`'s file or directory durable.
    pub(crate) fn settles(&self, other: &Op) -> bool {
        match (self, other) {
            (
                Self::SyncFile { file },
                Self::Write { file: written, .. } | Self::Truncate { file: written, .. },
            ) => file == written,
            (
                Self::SyncDir { path: dir },
                Self::Create { path, .. } | Self::MakeDir { path } | Self::Unlink { path },
            ) => dir == parent(path),
            (Self::SyncDir { path: dir }, Self::Rename { from, to }) => {
                dir == parent(from) && dir == parent(to)
            }
            _ => false,
        }
    }
}

/// The file that was made under this name.
pub(crate) fn file_called(ops: &[Op], name: &str) -> FileId {
    let made = ops.iter().find_map(|op| match op {
        Op::Create { path, file } if path == name => Some(*file),
        _ => None,
    });
    made.unwrap_or_else(|| panic!("{name} was never made"))
}

/// How often the beginning of a segment of `file` was written over by another.
pub(crate) fn reused_segments(ops: &[Op], file: FileId, segment_bytes: u64) -> usize {
    let mut begun = HashMap::new();
    let mut reused = 0;
    for op in ops {
        let Op::Write { file: written, offset, data } = op else { continue };
        if *written != file || offset % segment_bytes != 0 {
            continue;
        }
        // The same header may be written again with more behind it.
        let header: Vec<u8> = data.iter().take(20).copied().collect();
        if begun.insert(*offset, header.clone()).is_some_and(|before| before != header) {
            reused += 1;
        }
    }
    reused
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Reads a trace.
pub(crate) fn read(path: &Path) -> Vec<Op> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut files: HashMap<String, FileId> = HashMap::new();
    let mut next_file = 0;
    let mut ops = Vec::new();
    while !rest.is_empty() {
        let kind = take(&mut rest, 1)[0];
        let path_len = u32::from_le_bytes(take(&mut rest, 4).try_into().unwrap());
        let to_len = u32::from_le_bytes(take(&mut rest, 4).try_into().unwrap());
        let position = u64::from_le_bytes(take(&mut rest, 8).try_into().unwrap());
        let data_len = u64::from_le_bytes(take(&mut rest, 8).try_into().unwrap());
        let path = String::from_utf8(take(&mut rest, path_len as usize).to_vec()).unwrap();
        let to = String::from_utf8(take(&mut rest, to_len as usize).to_vec()).unwrap();
        let data = take(&mut rest, data_len as usize).to_vec();
        ops.push(match kind {
            b'W' => Op::Write { file: files[&path], offset: position, data },
            b'T' => Op::Truncate { file: files[&path], len: position },
            b'C' => {
                files.insert(path.clone(), next_file);
                next_file += 1;
                Op::Create { path, file: next_file - 1 }
            }
            b'M' => Op::MakeDir { path },
            b'U' => {
                files.remove(&path);
                Op::Unlink { path }
            }
            b'R' => {
                let file = files.remove(&path).unwrap();
                files.insert(to.clone(), file);
                Op::Rename { from: path, to }
            }
            b'S' => match files.get(&path) {
                Some(file) => Op::SyncFile { file: *file },
                None => Op::SyncDir { path },
            },
            b'P' => Op::SyncRange,
            b'N' => Op::Note(String::from_utf8(data).unwrap()),
            other => panic!("the trace has a record of kind {other}"),
        });
    }
    ops
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(len);
    *rest = after;
    taken
}
