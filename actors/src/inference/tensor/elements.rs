//! Single elements of raw contents: cut out, as numbers, as text for people.

use bytes::Bytes;
use half::{bf16, f16};
use starling_raft::state::models::DataType;

use super::bytes_elements::{self, LENGTH_BYTES};
use super::data_type::element_bytes;

/// The text of an element is cut here.
const SHOWN_BYTES_MAX: usize = 64;

/// The elements of one tensor.
pub(crate) struct Elements<'a> {
    raw: &'a [u8],
    cut: Cut,
}

enum Cut {
    /// Each has so many bytes.
    Every(usize),
    /// BYTES: where each begins, and where the last ends.
    At(Vec<usize>),
}

impl<'a> Elements<'a> {
    /// Of contents that fit their type; of others, as many as do.
    pub(crate) fn of(data_type: DataType, raw: &'a Bytes) -> Self {
        let cut = match element_bytes(data_type) {
            Some(size) => Cut::Every(size),
            None => Cut::At(bytes_elements::starts(raw)),
        };
        Self { raw, cut }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.cut {
            Cut::Every(size) => self.raw.len() / size,
            Cut::At(starts) => starts.len() - 1,
        }
    }

    /// `None`: there are not so many.
    pub(crate) fn get(&self, index: usize) -> Option<&'a [u8]> {
        match &self.cut {
            Cut::Every(size) => self.raw.get(index * size..(index + 1) * size),
            Cut::At(starts) => self.raw.get(starts.get(index)? + LENGTH_BYTES..*starts.get(index + 1)?),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// The value of a floating-point element; `None`: it is of another type.
pub(crate) fn float(data_type: DataType, element: &[u8]) -> Option<f64> {
    Some(match data_type {
        DataType::Fp16 => f16::from_le_bytes(element.try_into().ok()?).to_f64(),
        DataType::Bf16 => bf16::from_le_bytes(element.try_into().ok()?).to_f64(),
        DataType::Fp32 => f32::from_le_bytes(element.try_into().ok()?).into(),
        DataType::Fp64 => f64::from_le_bytes(element.try_into().ok()?),
        _ => return None,
    })
}

/// The value of an integer element; `None`: it is of another type.
pub(crate) fn integer(data_type: DataType, element: &[u8]) -> Option<i128> {
    let signed = match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => true,
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => false,
        _ => return None,
    };
    let negative = signed && element.last().is_some_and(|byte| *byte >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide.get_mut(..element.len())?.copy_from_slice(element);
    Some(i128::from_le_bytes(wide))
}

/// For messages; long texts are cut.
pub(crate) fn show(data_type: DataType, element: &[u8]) -> String {
    if data_type == DataType::Fp32
        && let Ok(bytes) = element.try_into()
    {
        return f32::from_le_bytes(bytes).to_string();
    }
    if let Some(number) = float(data_type, element) {
        return number.to_string();
    }
    if let Some(number) = integer(data_type, element) {
        return number.to_string();
    }
    if data_type == DataType::Bool {
        return (element != [0]).to_string();
    }
    let shown = &element[..element.len().min(SHOWN_BYTES_MAX)];
    format!("{:?}", String::from_utf8_lossy(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width_keep_their_sign_and_value() {
        assert_eq!(integer(DataType::Int8, &[0xff]), Some(-1));
        assert_eq!(integer(DataType::Uint8, &[0xff]), Some(255));
        assert_eq!(integer(DataType::Int16, &(-300_i16).to_le_bytes()), Some(-300));
        assert_eq!(integer(DataType::Uint32, &u32::MAX.to_le_bytes()), Some(4_294_967_295));
        assert_eq!(integer(DataType::Int64, &i64::MIN.to_le_bytes()), Some(-9_223_372_036_854_775_808));
        assert_eq!(integer(DataType::Uint64, &u64::MAX.to_le_bytes()), Some(18_446_744_073_709_551_615));
        assert_eq!(integer(DataType::Fp32, &[0; 4]), None);
    }

    #[test]
    fn elements_read_as_people_write_them() {
        assert_eq!(show(DataType::Fp32, &0.1_f32.to_le_bytes()), "0.1");
        assert_eq!(show(DataType::Fp16, &f16::from_f32(1.5).to_le_bytes()), "1.5");
        assert_eq!(show(DataType::Bf16, &bf16::from_f32(-2.0).to_le_bytes()), "-2");
        assert_eq!(show(DataType::Fp64, &f64::NAN.to_le_bytes()), "NaN");
        assert_eq!(show(DataType::Int16, &(-7_i16).to_le_bytes()), "-7");
        assert_eq!(show(DataType::Bool, &[1]), "true");
        assert_eq!(show(DataType::Bytes, "a\"b".as_bytes()), "\"a\\\"b\"");
        assert_eq!(show(DataType::Bytes, &[b'x'; 100]).len(), 66);
    }
}
