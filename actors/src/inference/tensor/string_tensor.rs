//! Tensors of strings, built and read byte by byte.
//!
//! The binding's own functions go through C strings and UTF-8, and so would
//! refuse or cut what the protocol allows in BYTES: any byte, NUL included. Hence
//! the unsafe code, each piece with its reason.

#![allow(unsafe_code)]

use std::ptr;

use bytes::Bytes;
use ort::AsPointer;
use ort::memory::Allocator;
use ort::value::{DynTensor, DynValue, TensorElementType};

/// A tensor of the given shape whose elements are the given bytes.
pub(crate) fn build(shape: &[i64], elements: &[Bytes]) -> ort::Result<DynTensor> {
    let mut tensor = DynTensor::new(&Allocator::default(), TensorElementType::String, shape)?;
    if tensor.shape().num_elements() != elements.len() {
        return Err(ort::Error::new(format!("{} elements do not fill {shape:?}", elements.len())));
    }
    let api = ort::api();
    for (index, element) in elements.iter().enumerate() {
        let mut buffer = ptr::null_mut();
        // SAFETY: the tensor is alive, of type string, and has more than `index`
        // elements. The runtime answers with a buffer of exactly the length asked
        // for, which stays valid until the element is resized again.
        unsafe {
            ort::Error::result_from_status((api.GetResizedStringTensorElementBuffer)(
                tensor.ptr_mut(),
                index,
                element.len(),
                &mut buffer,
            ))?;
            if !element.is_empty() {
                ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast::<u8>(), element.len());
            }
        }
    }
    Ok(tensor)
}

/// The elements of a tensor of strings: all their bytes, and where each begins.
pub(crate) struct StringElements {
    content: Vec<u8>,
    starts: Vec<usize>,
}

impl StringElements {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let ends = self.starts.iter().skip(1).copied().chain([self.content.len()]);
        self.starts.iter().copied().zip(ends).map(|(start, end)| &self.content[start..end])
    }
}

/// Reads a tensor of strings with `count` elements.
pub(crate) fn read(value: &DynValue, count: usize) -> ort::Result<StringElements> {
    let api = ort::api();
    let mut length = 0;
    // SAFETY: the value is alive; a value that is no string tensor makes the call
    // fail, and nothing is written then.
    unsafe { ort::Error::result_from_status((api.GetStringTensorDataLength)(value.ptr(), &mut length))? };
    let mut content = vec![0_u8; length];
    let mut starts = vec![0_usize; count];
    if count > 0 {
        // SAFETY: both buffers are as long as the call is told; the runtime fails
        // if they are shorter than what it has to write.
        unsafe {
            ort::Error::result_from_status((api.GetStringTensorContent)(
                value.ptr(),
                content.as_mut_ptr().cast(),
                content.len(),
                starts.as_mut_ptr(),
                starts.len(),
            ))?;
        }
    }
    let in_order = starts.is_sorted() && starts.last().is_none_or(|last| *last <= content.len());
    if !in_order {
        return Err(ort::Error::new("the runtime gave offsets that are out of order"));
    }
    Ok(StringElements { content, starts })
}
