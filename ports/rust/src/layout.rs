//! Chapter 7: "The layout is a function of the directory".

use crate::error::{broken, ensure, Result};
use crate::header::{Kind, Tensor};
use crate::preamble::PREAMBLE;
use crate::tensor::CODE_PLANES;
use crate::trits::MAX_DEPTH;

const ALIGNMENT: u64 = 64;
const MAX_END: u64 = (1 << 63) - 1;

/// A run of bytes of the file that holds one plane or one raw tensor.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The index of its tensor in the directory.
    pub tensor: usize,
    /// Its index among the tensor's segments, in the order of their digests.
    pub part: usize,
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
}

impl Segment {
    /// The end of the segment; the layout has proved that it is below 2^63.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

/// The segments of a file of `length` bytes, in the order of the file.
pub fn layout(header_size: u64, tensors: &[Tensor], length: u64) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    // LAY-2. "The first segment MUST begin at align(64 + header size), and each other one at
    // align(end of the one before)."
    let mut end = end_of(PREAMBLE, Some(header_size))?;
    for (tensor, part) in order(tensors) {
        let (offset, size) = (end, tensors[tensor].segment_size(part));
        end = end_of(offset, size)?;
        segments.push(Segment { tensor, part, offset, size: size.unwrap_or(0) });
    }
    // LAY-4. "The file MUST end at align(end of the last segment), or at align(64 + header size)
    // where there are no segments."
    ensure(end == length, "LAY-4", || format!("the last segment ends at {end} of {length}"))?;
    Ok(segments)
}

/// LAY-1. "The segments MUST stand in this order: the raw tensors, in directory order; the three
/// code planes of every trit tensor, tensor by tensor; then the most significant weight plane of
/// every trit tensor, then the next plane of every tensor that has one, and so on."
fn order<'a>(tensors: &'a [Tensor]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let of_kind = move |raw: bool| {
        let all = tensors.iter().enumerate();
        all.filter(move |(_, tensor)| matches!(tensor.kind, Kind::Raw { .. }) == raw)
    };
    let raw = of_kind(true).map(|(n, _)| (n, 0));
    let codes = of_kind(false).flat_map(|(n, _)| (0..CODE_PLANES).map(move |part| (n, part)));
    let weights = (CODE_PLANES..CODE_PLANES + MAX_DEPTH).flat_map(move |part| {
        of_kind(false)
            .filter(move |(_, tensor)| part < tensor.segments())
            .map(move |(n, _)| (n, part))
    });
    raw.chain(codes).chain(weights)
}

/// `align(offset + size)`, where the next segment begins or the file ends.
///
/// LAY-5. "The end of the file MUST be at most 2^63 - 1."
fn end_of(offset: u64, size: Option<u64>) -> Result<u64> {
    let end = size.and_then(|size| offset.checked_add(size)?.checked_next_multiple_of(ALIGNMENT));
    let end = end.filter(|end| *end <= MAX_END);
    end.ok_or_else(|| broken("LAY-5", "the segments end above 2^63 - 1"))
}
