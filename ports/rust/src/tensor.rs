//! Chapter 5: trit tensors.

use crate::codebook::{weight, Codebook};
use crate::error::{ensure, Result};
use crate::packing::Plane;
use crate::rounding::Dtype;
use crate::trits::{largest_level, MAX_DEPTH, POWERS};

const MAX_RANK: usize = 8;
const MAX_ELEMENTS: u64 = 1 << 48;
const MAX_GROUP: u64 = 65536;

/// The planes of codes, which come before those of weights.
pub const CODE_PLANES: usize = 3;

/// The fields of a trit tensor, checked.
#[derive(Debug)]
pub struct Trit {
    /// `d`.
    pub depth: usize,
    /// The power of 3 that the levels are to be multiplied by.
    pub shift: usize,
    /// Weights in a group.
    pub group_size: u64,
    /// The dtype of the source.
    pub dtype: Dtype,
    /// The steps.
    pub codebook: Codebook,
    /// The product of all axes but the last.
    pub rows: u64,
    /// `K`, the last axis.
    pub columns: u64,
}

/// SHAPE-1. "The rank of a tensor MUST be at most 8."
pub fn check_rank(rank: u64) -> Result<()> {
    ensure(rank <= MAX_RANK as u64, "SHAPE-1", || format!("a rank of {rank}"))
}

/// The number of elements of a shape.
pub fn elements(shape: &[u64]) -> Result<u64> {
    // SHAPE-2. "The product of a tensor's non-zero axes MUST be at most 2^48."
    let mut axes = shape.iter().filter(|axis| **axis > 0);
    let product = axes.try_fold(1, |product: u64, axis| product.checked_mul(*axis));
    let product = product.filter(|product| *product <= MAX_ELEMENTS);
    ensure(product.is_some(), "SHAPE-2", || format!("a shape of {shape:?}"))?;
    Ok(if shape.contains(&0) { 0 } else { product.unwrap_or(0) })
}

/// `rows` and `K` of the shape of a trit tensor.
pub fn matrix(shape: &[u64]) -> Result<(u64, u64)> {
    let elements = elements(shape)?;
    // TEN-1. "A trit tensor MUST have a rank of at least 1 and no axis of 0."
    ensure(!shape.is_empty() && elements > 0, "TEN-1", || format!("a shape of {shape:?}"))?;
    let columns = shape[shape.len() - 1];
    Ok((elements / columns, columns))
}

/// TEN-3. "The sum of depth and shift MUST be at most 4."
pub fn check_shift(depth: usize, shift: u64) -> Result<usize> {
    let most = MAX_DEPTH - depth;
    ensure(shift <= most as u64, "TEN-3", || format!("a shift of {shift} at depth {depth}"))?;
    Ok(usize::try_from(shift).unwrap_or(most))
}

/// TEN-4. "The group size MUST lie in 1..65536."
pub fn check_group_size(size: u64) -> Result<u64> {
    ensure((1..=MAX_GROUP).contains(&size), "TEN-4", || format!("a group size of {size}"))?;
    Ok(size)
}

impl Trit {
    /// CB-5. "The largest value, step\[26\] * 3^shift * H, rounded to the tensor's dtype, MUST be
    /// finite."
    pub fn check_largest(&self) -> Result<()> {
        let factor = POWERS[self.shift] * largest_level(self.depth);
        let largest = self.dtype.round(weight(self.codebook[26], factor));
        let (name, _, infinity) = self.dtype.facts();
        ensure(largest < infinity, "CB-5", || format!("{factor} times step 26 in {name}"))
    }

    /// The size of a plane: "first the three planes of its codes (`rows` by `G`), [...] then its d
    /// planes of levels (`rows` by `K`)".
    pub fn plane(&self, part: usize) -> Plane {
        let groups = self.columns.div_ceil(self.group_size); // G
        let columns = if part < CODE_PLANES { groups } else { self.columns };
        Plane { rows: self.rows, columns }
    }

    /// The patterns of all weights of a depth of at most the tensor's, by code and then by level,
    /// from `-H` on.
    ///
    /// TEN-6. "A weight MUST decode to step\[c\] * 3^shift * k, exactly, in binary32."
    ///
    /// TEN-7. "A weight of level 0 MUST decode to +0."
    ///
    /// TEN-9. "The top d' planes of a tensor of depth d MUST be read as a tensor of depth d' whose
    /// shift is greater by d - d'."
    pub fn weights(&self, depth: usize, dtype: Dtype) -> Vec<Vec<u32>> {
        let scale = POWERS[self.shift + self.depth - depth];
        let levels = -largest_level(depth)..=largest_level(depth);
        let of_step = |&step: &u32| {
            let factors = levels.clone().map(|k| scale * k);
            factors.map(|factor| dtype.round(weight(step, factor))).collect()
        };
        self.codebook.iter().map(of_step).collect()
    }
}
