//! Chapters 4 and 5: steps, the fields of a trit tensor, and its weights.

use crate::trits::{check_depth, join, largest_level, Plane, POWERS};
use crate::{short, Error, Result};

/// The planes of codes, which come before those of levels.
pub const CODE_PLANES: usize = 3;

fn read_codebook(bytes: &[u8]) -> Result<Vec<f32>> {
    // CB-1. "A codebook MUST hold exactly 27 steps of binary32."
    ensure!(bytes.len() == 27 * 4, "CB-1", "a codebook of {} bytes", bytes.len());
    let bits = |bytes: &[u8]| bytes.iter().rfold(0, |bits, byte| bits << 8 | u32::from(*byte));
    let steps: Vec<f32> = bytes.chunks(4).map(|bytes| f32::from_bits(bits(bytes))).collect();
    // CB-2. "Every step MUST be positive, normal and finite."
    ensure!(steps.iter().all(|step| step.is_normal() && *step > 0.0), "CB-2", "{steps:?}");
    // CB-3. "The steps MUST be strictly increasing."
    ensure!(steps.windows(2).all(|pair| pair[0] < pair[1]), "CB-3", "{steps:?}");
    // CB-4. "The low six bits of every step's significand MUST be zero."
    ensure!(steps.iter().all(|step| step.to_bits() % 64 == 0), "CB-4", "{steps:?}");
    Ok(steps)
}

/// The number of elements of a shape.
pub fn elements(shape: &[u64]) -> Result<u64> {
    let mut axes = shape.iter().filter(|axis| **axis > 0);
    let product = axes.try_fold(1_u64, |product, axis| product.checked_mul(*axis));
    // SHAPE-2. "The product of a tensor's non-zero axes MUST be at most 2^48."
    ensure!(product.map_or(false, |product| product <= 1 << 48), "SHAPE-2", "a shape of {shape:?}");
    Ok(shape.iter().product())
}

/// The fields of a trit tensor of K `columns`.
pub struct Trit {
    pub depth: usize,
    pub shift: usize,
    pub group_size: u64,
    pub codebook: Vec<f32>,
    rows: u64,
    columns: u64,
}

impl Trit {
    /// Checks what an entry says; the `numbers` are depth, shift and group size.
    pub fn new(shape: &[u64], dtype: &str, numbers: [u64; 3], codebook: &[u8]) -> Result<Trit> {
        let elements = elements(shape)?;
        // TEN-1. "A trit tensor MUST have a rank of at least 1 and no axis of 0."
        ensure!(!shape.is_empty() && elements > 0, "TEN-1", "a shape of {shape:?}");
        let columns = shape[shape.len() - 1];
        let depth = check_depth(numbers[0])?;
        let [_, shift, group_size] = numbers;
        // TEN-3. "The sum of depth and shift MUST be at most 4."
        ensure!(shift <= 4 - depth as u64, "TEN-3", "a shift of {shift} at depth {depth}");
        // TEN-4. "The group size MUST lie in 1..65536."
        ensure!((1..=65536).contains(&group_size), "TEN-4", "a group size of {group_size}");
        // TEN-5. "The dtype of a trit tensor MUST be F32, F16 or BF16."
        let float = Float::named(dtype).ok_or_else(|| Error::Broken("TEN-5", short(dtype)))?;
        let (codebook, shift) = (read_codebook(codebook)?, shift as usize);
        let trit = Trit { depth, shift, group_size, codebook, rows: elements / columns, columns };
        let largest = trit.weight(26, shift, largest_level(depth));
        // CB-5. "The largest value, step[26] * 3^shift * H, rounded to the tensor's dtype, MUST be finite."
        ensure!(largest.total_cmp(&float.overflow).is_lt(), "CB-5", "a largest value of {largest:e}");
        Ok(trit)
    }

    /// "first the three planes of its codes (rows by G), [...] then its d planes of levels (rows by K)"
    pub fn plane(&self, part: usize) -> Plane {
        let groups = (self.columns + self.group_size - 1) / self.group_size; // G
        Plane { rows: self.rows, columns: if part < CODE_PLANES { groups } else { self.columns } }
    }

    /// TEN-6. "A weight MUST decode to step[c] * 3^shift * k, exactly, in binary32."
    /// TEN-7. "A weight of level 0 MUST decode to +0."
    fn weight(&self, code: u8, shift: usize, level: i8) -> f32 {
        self.codebook[code as usize] * f32::from(POWERS[shift] as i8 * level)
    }

    /// The levels, codes and weights of the first planes of the tensor, at least one of them of levels.
    /// TEN-9. "The top d' planes of a tensor of depth d MUST be read as a tensor of depth d' whose shift is
    /// greater by d - d'."
    pub fn decode(&self, mut codes: Vec<Vec<i8>>) -> Result<(Vec<i8>, Vec<u8>, Vec<f32>)> {
        let mut levels = codes.split_off(CODE_PLANES);
        let shift = self.shift + self.depth - levels.len();
        levels.reverse(); // "the **most** significant first"
        let levels = join(&levels)?;
        // CODE-1. "A code MUST lie in 0..26." It does: "c = (t_0 + 1) + 3*(t_1 + 1) + 9*(t_2 + 1)"
        let codes: Vec<u8> = join(&codes)?.into_iter().map(|c| (c + 13) as u8).collect();
        let (columns, groups) = (self.columns as usize, self.plane(0).columns as usize);
        let code = |n: usize| codes[n / columns * groups + n % columns / self.group_size as usize];
        let weights = levels.iter().enumerate().map(|(n, k)| self.weight(code(n), shift, *k)).collect();
        Ok((levels, codes, weights))
    }
}

/// A dtype that a trit tensor can be decoded to.
pub struct Float {
    name: &'static str,
    size: usize,           // in bytes
    overflow: f32,         // the least value that is too large
    round: fn(u32) -> u32, // from the pattern of a binary32 to the nearest of this dtype
}

/// "The largest value overflows where it is at least 2^128 (F32), 65520 (F16), or 2^128 − 2^119 (BF16)."
static FLOATS: [Float; 3] = [
    Float { name: "F32", size: 4, overflow: f32::INFINITY, round: |bits| bits },
    Float { name: "F16", size: 2, overflow: 65520.0, round: round_to_f16 },
    Float { name: "BF16", size: 2, overflow: 3.396_177_5e38, round: |bits| drop_bits(bits, 16) },
];

impl Float {
    pub fn named(name: &str) -> Option<&'static Float> {
        FLOATS.iter().find(|float| float.name == name)
    }

    /// TEN-8. "A weight decoded to binary16 or bfloat16 MUST be the exact value rounded once, to nearest, ties
    /// to even."
    pub fn encode(&self, weights: &[f32]) -> Vec<u8> {
        let bits = weights.iter().map(|weight| (self.round)(weight.to_bits()));
        bits.flat_map(|bits| bits.to_le_bytes().into_iter().take(self.size)).collect()
    }
}

/// Patterns increase with the values: a carry out of the significand steps the exponent, at last to infinity.
fn round_to_f16(bits: u32) -> u32 {
    let magnitude = bits & 0x7FFF_FFFF;
    let rounded = match magnitude >> 23 {
        143.. => 0x7C00,                                        // 2^16 or more: infinity
        113.. => drop_bits(magnitude - ((127 - 15) << 23), 13), // a normal number, of another bias
        exponent => drop_bits(magnitude & 0x7F_FFFF | 0x80_0000, (126 - exponent).min(25)), // units of 2^-24
    };
    bits >> 31 << 15 | rounded
}

/// `bits / 2^count` rounded to the nearest integer, ties to even.
fn drop_bits(bits: u32, count: u32) -> u32 {
    let (kept, rest, half) = (bits >> count, bits & ((1 << count) - 1), 1 << (count - 1));
    kept + u32::from(rest > half || rest == half && kept % 2 == 1)
}
