//! 5.3 and 5.4: the values of a tensor, as digests of them.

use crate::document::Document;
use crate::error::{Error, Result};
use crate::header::Kind;
use crate::layout::Segment;
use crate::packing::Packed;
use crate::rounding::Dtype;
use crate::sha256::{Digest, Sha256};
use crate::tensor::{Trit, CODE_PLANES};
use crate::trits::{largest_level, POWERS};

/// SHA-256 digests of what a tensor holds, by name. Of a trit tensor: `levels` as int8, `codes` as
/// uint8, `values` as little-endian bit patterns, each in C order. Of a raw one: `values`, its bytes.
pub type Decoded = Vec<(&'static str, Digest)>;

/// Decodes the tensor of index `n`, read at `depth` where that is below its own, to `dtype` or else
/// its own.
pub fn decode(
    document: &Document,
    n: usize,
    depth: Option<usize>,
    dtype: Option<Dtype>,
) -> Result<Decoded> {
    let of_tensor = |segment: &&Segment| segment.tensor == n;
    let segments: Vec<&Segment> = document.segments.iter().filter(of_tensor).collect();
    let tensor = &document.header.tensors[n];
    let Kind::Trit(trit) = &tensor.kind else {
        if let Some(finding) = document.check_segment(segments[0])?.into_iter().next() {
            return Err(Error::Broken(finding));
        }
        let mut values = [0; 32];
        values.copy_from_slice(tensor.digests[0]); // as the segment's was just found equal
        return Ok(vec![("values", values)]);
    };
    let depth = depth.map_or(trit.depth, |depth| depth.min(trit.depth));
    let mut planes = Vec::new();
    for segment in &segments[..CODE_PLANES + depth] {
        planes.extend(document.read_plane(segment)?);
    }
    let (codes, weights) = planes.split_at(CODE_PLANES);
    Ok(decode_trit(trit, codes, weights, dtype.unwrap_or(trit.dtype)))
}

fn decode_trit(trit: &Trit, codes: &[Packed], weights: &[Packed], dtype: Dtype) -> Decoded {
    let depth = weights.len();
    let table = trit.weights(depth, dtype);
    let mut hashes = [(); 3].map(|()| Sha256::default());
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    // All of these fit, as the planes are in memory.
    let [rows, columns, size] = [trit.rows, trit.columns, trit.group_size].map(|n| n as usize);
    for row in 0..rows {
        for (group, start) in (0..columns).step_by(size).enumerate() {
            let code = code(codes, row, group);
            levels.clear();
            values.clear();
            for column in start..columns.min(start + size) {
                let k = level(weights, row, column);
                levels.push(k.cast_unsigned());
                let bits = table[code as usize][(k + largest_level(depth)).unsigned_abs() as usize];
                values.extend_from_slice(&bits.to_le_bytes()[..dtype.facts().1]);
            }
            hashes[0].update(&levels);
            hashes[1].update(&[code]);
            hashes[2].update(&values);
        }
    }
    ["levels", "codes", "values"].into_iter().zip(hashes.map(Sha256::finish)).collect()
}

/// "`c = (t_0 + 1) + 3*(t_1 + 1) + 9*(t_2 + 1)`", of planes of which the least significant is first.
///
/// CODE-1. "A code MUST lie in 0..26." ("Any three trits make a code")
fn code(planes: &[Packed], row: usize, group: usize) -> u8 {
    let digit = |(plane, power): (&Packed, i8)| (plane.trit(row, group) + 1) * power;
    planes.iter().zip(POWERS).map(digit).sum::<i8>().unsigned_abs()
}

/// The level whose trits stand in `planes`, of which the most significant is first.
fn level(planes: &[Packed], row: usize, column: usize) -> i8 {
    planes.iter().fold(0, |k, plane| 3 * k + plane.trit(row, column))
}
