//! Tensor data as JSON, nested or flat, and as the protocol's raw bytes: both
//! ways, one element type at a time. REST and the command line read and write it.
//!
//! JSON is gathered into columns of one kind, so that a long list of numbers
//! costs eight bytes an element and no more, whatever order the keys come in.

use std::fmt::Write as _;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Elements in row-major order, as JSON wrote them.
#[derive(Debug, Clone, PartialEq)]
enum Elements {
    None,
    Bools(Vec<u8>),
    Integers(Vec<i64>),
    /// With values that no `i64` holds.
    Wide(Vec<i128>),
    Floats(Vec<f64>),
    /// Each after its length, as raw BYTES have it.
    Strings(Vec<u8>),
}

/// The `data` of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorJson {
    elements: Elements,
    count: usize,
    /// Length at each depth; one entry where the data is flat.
    nesting: Vec<usize>,
}

impl TensorJson {
    /// Lengths of the lists, outermost first.
    pub(crate) fn nesting(&self) -> Vec<i64> {
        self.nesting.iter().map(|length| *length as i64).collect()
    }

    /// How many elements there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// As raw bytes of the type; the error names what does not fit.
    pub(crate) fn into_raw(self, datatype: &str, shape: &[i64]) -> Result<Vec<u8>, String> {
        self.check_shape(shape)?;
        match datatype {
            "BOOL" => self.bools(),
            "INT8" => self.integers::<1>(datatype, i128::from(i8::MIN), i128::from(i8::MAX)),
            "INT16" => self.integers::<2>(datatype, i128::from(i16::MIN), i128::from(i16::MAX)),
            "INT32" => self.integers::<4>(datatype, i128::from(i32::MIN), i128::from(i32::MAX)),
            "INT64" => self.integers::<8>(datatype, i128::from(i64::MIN), i128::from(i64::MAX)),
            "UINT8" => self.integers::<1>(datatype, 0, i128::from(u8::MAX)),
            "UINT16" => self.integers::<2>(datatype, 0, i128::from(u16::MAX)),
            "UINT32" => self.integers::<4>(datatype, 0, i128::from(u32::MAX)),
            "UINT64" => self.integers::<8>(datatype, 0, i128::from(u64::MAX)),
            "FP32" => self.floats(datatype, |value| {
                let narrow = value as f32;
                narrow.is_finite().then_some(narrow.to_le_bytes())
            }),
            "FP64" => self.floats(datatype, |value| Some(value.to_le_bytes())),
            "BYTES" => self.strings(),
            "FP16" | "BF16" => {
                Err(format!("{datatype} has no JSON form; send it as binary tensor data (binary_data_size)"))
            }
            _ => Err(format!("datatype '{datatype}' is not known")),
        }
    }

    /// A flat list needs the right number of elements; nested lists need the
    /// shape itself.
    fn check_shape(&self, shape: &[i64]) -> Result<(), String> {
        let wanted = shape.iter().try_fold(1_usize, |product, length| {
            usize::try_from(*length).ok().and_then(|length| product.checked_mul(length))
        });
        let Some(wanted) = wanted else {
            return Err(format!("shape {shape:?} must have lengths of 0 or more"));
        };
        if self.count != wanted {
            return Err(format!("shape {shape:?} has {wanted} elements, data has {}", self.count));
        }
        let nested_as = self.nesting();
        if nested_as.len() > 1 && nested_as != shape && wanted > 0 {
            return Err(format!("data is nested as {nested_as:?}, shape says {shape:?}"));
        }
        Ok(())
    }

    fn bools(self) -> Result<Vec<u8>, String> {
        match self.elements {
            Elements::None => Ok(Vec::new()),
            Elements::Bools(bools) => Ok(bools),
            other => Err(mismatch("BOOL", &other)),
        }
    }

    fn integers<const BYTES: usize>(self, datatype: &str, min: i128, max: i128) -> Result<Vec<u8>, String> {
        let mut raw = Vec::with_capacity(self.count * BYTES);
        let mut push = |value: i128| {
            if value < min || value > max {
                return Err(format!("{value} is out of the range of {datatype}"));
            }
            raw.extend_from_slice(&value.to_le_bytes()[..BYTES]);
            Ok(())
        };
        match self.elements {
            Elements::None => {}
            Elements::Integers(values) => values.into_iter().try_for_each(|value| push(i128::from(value)))?,
            Elements::Wide(values) => values.into_iter().try_for_each(push)?,
            // Some clients write whole numbers as 1.0.
            Elements::Floats(values) => {
                for value in values {
                    if value.fract() != 0.0 || value.abs() > 2_f64.powi(53) {
                        return Err(format!("{value} is no whole number, {datatype} needs one"));
                    }
                    push(value as i128)?;
                }
            }
            other => return Err(mismatch(datatype, &other)),
        }
        Ok(raw)
    }

    /// JSON has no infinite numbers: one that becomes infinite was too large.
    fn floats<const BYTES: usize>(
        self,
        datatype: &str,
        narrow: impl Fn(f64) -> Option<[u8; BYTES]>,
    ) -> Result<Vec<u8>, String> {
        let mut raw = Vec::with_capacity(self.count * BYTES);
        let mut push = |value: f64| {
            let bytes = narrow(value).ok_or_else(|| format!("{value} is out of the range of {datatype}"))?;
            raw.extend_from_slice(&bytes);
            Ok::<_, String>(())
        };
        match self.elements {
            Elements::None => {}
            Elements::Integers(values) => values.into_iter().try_for_each(|value| push(value as f64))?,
            Elements::Wide(values) => values.into_iter().try_for_each(|value| push(value as f64))?,
            Elements::Floats(values) => values.into_iter().try_for_each(push)?,
            other => return Err(mismatch(datatype, &other)),
        }
        Ok(raw)
    }

    fn strings(self) -> Result<Vec<u8>, String> {
        match self.elements {
            Elements::None => Ok(Vec::new()),
            Elements::Strings(raw) => Ok(raw),
            other => Err(mismatch("BYTES", &other)),
        }
    }
}

fn mismatch(datatype: &str, found: &Elements) -> String {
    let found = match found {
        Elements::None => "nothing",
        Elements::Bools(_) => "booleans",
        Elements::Integers(_) | Elements::Wide(_) | Elements::Floats(_) => "numbers",
        Elements::Strings(_) => "strings",
    };
    format!("datatype is {datatype}, data has {found}")
}

/// What the visitor fills.
struct Gathered {
    elements: Elements,
    count: usize,
    nesting: Vec<usize>,
    /// The depth at which elements stand, once one was seen.
    leaf_depth: Option<usize>,
}

impl Gathered {
    fn bool(&mut self, value: bool) -> Result<(), String> {
        match &mut self.elements {
            Elements::None => self.elements = Elements::Bools(vec![u8::from(value)]),
            Elements::Bools(bools) => bools.push(u8::from(value)),
            _ => return Err("data mixes booleans with other values".into()),
        }
        Ok(())
    }

    fn integer(&mut self, value: i128) -> Result<(), String> {
        let small = i64::try_from(value).ok();
        match (&mut self.elements, small) {
            (Elements::None, Some(small)) => self.elements = Elements::Integers(vec![small]),
            (Elements::None, None) => self.elements = Elements::Wide(vec![value]),
            (Elements::Integers(values), Some(small)) => values.push(small),
            (Elements::Integers(values), None) => {
                let mut wide: Vec<i128> = values.iter().map(|value| i128::from(*value)).collect();
                wide.push(value);
                self.elements = Elements::Wide(wide);
            }
            (Elements::Wide(values), _) => values.push(value),
            (Elements::Floats(values), _) => values.push(value as f64),
            _ => return Err("data mixes numbers with other values".into()),
        }
        Ok(())
    }

    fn float(&mut self, value: f64) -> Result<(), String> {
        match &mut self.elements {
            Elements::None => self.elements = Elements::Floats(vec![value]),
            Elements::Integers(values) => {
                let mut floats: Vec<f64> = values.iter().map(|value| *value as f64).collect();
                floats.push(value);
                self.elements = Elements::Floats(floats);
            }
            Elements::Wide(values) => {
                let mut floats: Vec<f64> = values.iter().map(|value| *value as f64).collect();
                floats.push(value);
                self.elements = Elements::Floats(floats);
            }
            Elements::Floats(values) => values.push(value),
            _ => return Err("data mixes numbers with other values".into()),
        }
        Ok(())
    }

    fn string(&mut self, value: &str) -> Result<(), String> {
        let length = u32::try_from(value.len()).map_err(|_| "a string is longer than 4 GiB".to_owned())?;
        if self.elements == Elements::None {
            self.elements = Elements::Strings(Vec::new());
        }
        let Elements::Strings(raw) = &mut self.elements else {
            return Err("data mixes strings with other values".into());
        };
        raw.extend_from_slice(&length.to_le_bytes());
        raw.extend_from_slice(value.as_bytes());
        Ok(())
    }
}

/// Visits one value at a depth: a list of such, or an element.
struct AtDepth<'a> {
    gathered: &'a mut Gathered,
    depth: usize,
}

impl AtDepth<'_> {
    fn element<E: Error>(self, push: impl FnOnce(&mut Gathered) -> Result<(), String>) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::custom("data must be a list"));
        }
        if *self.gathered.leaf_depth.get_or_insert(self.depth) != self.depth {
            return Err(E::custom("data is nested unevenly"));
        }
        self.gathered.count += 1;
        push(self.gathered).map_err(E::custom)
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for AtDepth<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AtDepth<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number, a boolean, a string, or a list of such")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.element(|gathered| gathered.bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.element(|gathered| gathered.integer(i128::from(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.element(|gathered| gathered.integer(i128::from(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.element(|gathered| gathered.float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.element(|gathered| gathered.string(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if self.gathered.leaf_depth.is_some_and(|leaf_depth| self.depth >= leaf_depth) {
            return Err(A::Error::custom("data is nested unevenly"));
        }
        let mut length = 0;
        while list.next_element_seed(AtDepth { gathered: self.gathered, depth: self.depth + 1 })?.is_some() {
            length += 1;
        }
        match self.gathered.nesting.get(self.depth) {
            Some(known) if *known != length && self.depth > 0 => {
                Err(A::Error::custom("data is nested unevenly"))
            }
            Some(_) => {
                self.gathered.nesting[self.depth] = length;
                Ok(())
            }
            None => {
                // Inner lists end before outer ones: keep a place for those.
                self.gathered.nesting.resize(self.depth + 1, UNKNOWN_LENGTH);
                self.gathered.nesting[self.depth] = length;
                Ok(())
            }
        }
    }
}

/// Of a list that has not ended yet.
const UNKNOWN_LENGTH: usize = usize::MAX;

impl<'de> Deserialize<'de> for TensorJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut gathered =
            Gathered { elements: Elements::None, count: 0, nesting: Vec::new(), leaf_depth: None };
        deserializer.deserialize_any(AtDepth { gathered: &mut gathered, depth: 0 })?;
        let Gathered { elements, count, nesting, .. } = gathered;
        Ok(Self { elements, count, nesting })
    }
}

/// Raw bytes as a flat JSON list, appended to `json`. NaN and infinities, which
/// JSON lacks, become null.
pub(crate) fn write_json(datatype: &str, raw: &[u8], json: &mut String) -> Result<(), String> {
    match datatype {
        "BOOL" => write_list(raw, json, |[byte]: [u8; 1], json| {
            json.push_str(if byte == 0 { "false" } else { "true" })
        }),
        "INT8" => write_list(raw, json, |bytes, json| display(i8::from_le_bytes(bytes), json)),
        "INT16" => write_list(raw, json, |bytes, json| display(i16::from_le_bytes(bytes), json)),
        "INT32" => write_list(raw, json, |bytes, json| display(i32::from_le_bytes(bytes), json)),
        "INT64" => write_list(raw, json, |bytes, json| display(i64::from_le_bytes(bytes), json)),
        "UINT8" => write_list(raw, json, |bytes, json| display(u8::from_le_bytes(bytes), json)),
        "UINT16" => write_list(raw, json, |bytes, json| display(u16::from_le_bytes(bytes), json)),
        "UINT32" => write_list(raw, json, |bytes, json| display(u32::from_le_bytes(bytes), json)),
        "UINT64" => write_list(raw, json, |bytes, json| display(u64::from_le_bytes(bytes), json)),
        "FP32" => write_list(raw, json, |bytes, json| {
            let value = f32::from_le_bytes(bytes);
            float(value, value.is_finite(), json);
        }),
        "FP64" => write_list(raw, json, |bytes, json| {
            let value = f64::from_le_bytes(bytes);
            float(value, value.is_finite(), json);
        }),
        "BYTES" => write_strings(raw, json),
        _ => Err(format!("{datatype} has no JSON form; ask for it as binary tensor data (binary_data)")),
    }
}

fn write_list<const BYTES: usize>(
    raw: &[u8],
    json: &mut String,
    write: impl Fn([u8; BYTES], &mut String),
) -> Result<(), String> {
    let (elements, rest) = raw.as_chunks::<BYTES>();
    if !rest.is_empty() {
        return Err(format!("{} bytes are no whole number of elements of {BYTES}", raw.len()));
    }
    json.reserve(elements.len() * 4 + 2);
    json.push('[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write(*element, json);
    }
    json.push(']');
    Ok(())
}

fn display(value: impl std::fmt::Display, json: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(json, "{value}");
}

/// Debug writes the shortest digits that read back the same, and `1.0` for one.
fn float(value: impl std::fmt::Debug, finite: bool, json: &mut String) {
    if !finite {
        return json.push_str("null");
    }
    let _ = write!(json, "{value:?}");
}

fn write_strings(mut raw: &[u8], json: &mut String) -> Result<(), String> {
    json.push('[');
    let mut first = true;
    while !raw.is_empty() {
        let (length, rest) = raw.split_first_chunk::<4>().ok_or("BYTES break off inside a length")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (element, rest) = rest.split_at_checked(length).ok_or("BYTES break off inside an element")?;
        raw = rest;
        let text = std::str::from_utf8(element).map_err(
            |_| "an element is not UTF-8, which JSON needs; ask for it as binary tensor data (binary_data)",
        )?;
        if !first {
            json.push(',');
        }
        first = false;
        let quoted = serde_json::to_string(text).map_err(|error| error.to_string())?;
        json.push_str(&quoted);
    }
    json.push(']');
    Ok(())
}

#[cfg(test)]
mod tests;
