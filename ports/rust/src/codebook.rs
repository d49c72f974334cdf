//! Chapter 4: the codebook.

use crate::error::{ensure, Result};

const STEPS: usize = 27;
const SMALLEST_NORMAL: u32 = 0x0080_0000;
const LARGEST_FINITE: u32 = 0x7F7F_FFFF;

/// 27 steps, as the bit patterns of binary32.
pub type Codebook = [u32; STEPS];

/// Reads a codebook and checks all that does not depend on the tensor.
pub fn read_codebook(bytes: &[u8]) -> Result<Codebook> {
    // CB-1. "A codebook MUST hold exactly 27 steps of binary32."
    ensure(bytes.len() == 4 * STEPS, "CB-1", || format!("{} bytes", bytes.len()))?;
    let mut steps = [0; STEPS];
    for (step, bytes) in steps.iter_mut().zip(bytes.chunks_exact(4)) {
        *step = bytes.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
    }
    // CB-2. "Every step MUST be positive, normal and finite."
    let normal = |step: &u32| (SMALLEST_NORMAL..=LARGEST_FINITE).contains(step);
    ensure_each(&steps, normal, "CB-2")?;
    // CB-3. "The steps MUST be strictly increasing."
    let increasing = steps.windows(2).all(|pair| pair[0] < pair[1]);
    ensure(increasing, "CB-3", || "a step is not above the one before".into())?;
    // CB-4. "The low six bits of every step's significand MUST be zero."
    ensure_each(&steps, |step| step % 64 == 0, "CB-4")?;
    Ok(steps)
}

fn ensure_each(steps: &Codebook, holds: impl Fn(&u32) -> bool, clause: &'static str) -> Result<()> {
    let wrong = steps.iter().position(|step| !holds(step));
    ensure(wrong.is_none(), clause, || format!("step {wrong:?} of {steps:08x?}"))
}

/// The pattern of `step * factor`; infinity if that is 2^128 or more.
///
/// The 18 significant bits of a step and the 6 of a factor of at most 40 give at most 24: the
/// product is exact.
pub fn weight(step: u32, factor: i8) -> u32 {
    (f32::from_bits(step) * f32::from(factor)).to_bits()
}
