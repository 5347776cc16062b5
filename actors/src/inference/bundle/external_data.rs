//! Where an ONNX file keeps tensors outside itself, found by walking its
//! protobuf fields: only names and locations are held in memory, whatever the
//! size of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::{BundleError, MEMBERS_MAX, NAME_BYTES_MAX};

/// Graphs within attributes of nodes within graphs; the runtime itself gives up
/// earlier.
const DEPTH_MAX: usize = 100;
const LOCATION_KEY: &str = "location";

/// The messages of `onnx.proto` on the way to a tensor.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Message {
    /// What stands in a field of this message; `None`: nothing that leads on.
    fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Function, 7) | (Self::Graph, 1) => Self::Node,
            (Self::Function, 11) | (Self::Node, 5) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Self::Tensor,
            _ => return None,
        })
    }
}

const TENSOR_NAME: u64 = 8;
const TENSOR_EXTERNAL_DATA: u64 = 13;
const ENTRY_KEY: u64 = 1;
const ENTRY_VALUE: u64 = 2;

/// Locations outside the file, each with the first tensor that names it.
/// Whether the tensor also says that its data is there does not matter.
/// Blocking; reads no more of the file than it has to.
///
/// # Errors
/// The file cannot be read, or its fields do not fit into each other.
pub fn external_data(file: &Path) -> Result<BTreeMap<String, String>, BundleError> {
    let cannot_read = |error| BundleError::io(file, error);
    let opened = File::open(file).map_err(cannot_read)?;
    let end = opened.metadata().map_err(cannot_read)?.len();
    let mut walker = Walker { file, input: BufReader::new(opened), position: 0, found: BTreeMap::new() };
    walker.walk(Message::Model, end, 0)?;
    Ok(walker.found)
}

struct Walker<'a> {
    file: &'a Path,
    input: BufReader<File>,
    position: u64,
    found: BTreeMap<String, String>,
}

impl Walker<'_> {
    fn walk(&mut self, message: Message, end: u64, depth: usize) -> Result<(), BundleError> {
        if depth > DEPTH_MAX {
            return Err(self.malformed("graphs are nested too deeply"));
        }
        while let Some((number, field_end)) = self.next_field(end)? {
            match message.field(number) {
                Some(Message::Tensor) => self.tensor(field_end)?,
                Some(inner) => self.walk(inner, field_end, depth + 1)?,
                None => self.skip_to(field_end)?,
            }
        }
        Ok(())
    }

    fn tensor(&mut self, end: u64) -> Result<(), BundleError> {
        let mut name = String::new();
        let mut locations = Vec::new();
        while let Some((number, field_end)) = self.next_field(end)? {
            match number {
                TENSOR_NAME => name = self.text(field_end)?,
                TENSOR_EXTERNAL_DATA => locations.extend(self.location(field_end)?),
                _ => self.skip_to(field_end)?,
            }
        }
        for location in locations {
            self.found.entry(location).or_insert_with(|| name.clone());
        }
        if self.found.len() > MEMBERS_MAX {
            return Err(BundleError::TooMany { what: "files of external data", limit: MEMBERS_MAX });
        }
        Ok(())
    }

    /// The location that an entry of `external_data` tells, if it tells one.
    fn location(&mut self, end: u64) -> Result<Option<String>, BundleError> {
        let (mut key, mut value) = (String::new(), String::new());
        while let Some((number, field_end)) = self.next_field(end)? {
            match number {
                ENTRY_KEY => key = self.text(field_end)?,
                ENTRY_VALUE => value = self.text(field_end)?,
                _ => self.skip_to(field_end)?,
            }
        }
        Ok((key == LOCATION_KEY).then_some(value))
    }

    /// The next field that has a length, and where it ends; the others are
    /// passed over.
    fn next_field(&mut self, end: u64) -> Result<Option<(u64, u64)>, BundleError> {
        while self.position < end {
            let key = self.varint(end)?;
            if key > u64::from(u32::MAX) {
                return Err(self.malformed("there is no field of such a number"));
            }
            match key & 7 {
                0 => {
                    self.varint(end)?;
                }
                1 => self.skip(8, end)?,
                2 => {
                    let length = self.varint(end)?;
                    let field_end = self.position.checked_add(length).filter(|field_end| *field_end <= end);
                    let field_end =
                        field_end.ok_or_else(|| self.malformed("a field is longer than what it is in"))?;
                    return Ok(Some((key >> 3, field_end)));
                }
                5 => self.skip(4, end)?,
                _ => return Err(self.malformed("there is no such kind of field")),
            }
        }
        Ok(None)
    }

    fn varint(&mut self, end: u64) -> Result<u64, BundleError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            if self.position >= end {
                return Err(self.malformed("a number is cut off"));
            }
            let mut byte = [0];
            self.read(&mut byte)?;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number does not end"))
    }

    fn text(&mut self, end: u64) -> Result<String, BundleError> {
        let length = (end - self.position) as usize;
        if length > NAME_BYTES_MAX {
            return Err(self.malformed("a name is too long"));
        }
        let mut text = vec![0; length];
        self.read(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), BundleError> {
        self.input.read_exact(bytes).map_err(|error| BundleError::io(self.file, error))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, bytes: u64, end: u64) -> Result<(), BundleError> {
        if end - self.position < bytes {
            return Err(self.malformed("a number is cut off"));
        }
        self.skip_to(self.position + bytes)
    }

    fn skip_to(&mut self, position: u64) -> Result<(), BundleError> {
        let distance = (position - self.position).cast_signed();
        self.input.seek_relative(distance).map_err(|error| BundleError::io(self.file, error))?;
        self.position = position;
        Ok(())
    }

    fn malformed(&self, reason: &'static str) -> BundleError {
        BundleError::NotOnnx { reason, offset: self.position }
    }
}
