//! The dtypes of 5.1 and the rounding of 5.3, on bit patterns.

/// What a trit tensor decodes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dtype {
    /// binary32.
    F32,
    /// binary16.
    F16,
    /// bfloat16: "binary32 cut to its upper 16 bits".
    BF16,
}

impl Dtype {
    /// The dtype of a name in the header.
    pub fn named(name: &str) -> Option<Dtype> {
        [Dtype::F32, Dtype::F16, Dtype::BF16].into_iter().find(|dtype| dtype.facts().0 == name)
    }

    /// The name, the bytes of an element, and the pattern of plus infinity, the first that is not
    /// finite.
    pub fn facts(self) -> (&'static str, usize, u32) {
        match self {
            Dtype::F32 => ("F32", 4, 0x7F80_0000),
            Dtype::F16 => ("F16", 2, 0x7C00),
            Dtype::BF16 => ("BF16", 2, 0x7F80),
        }
    }

    /// The pattern in this dtype of a binary32 that is no NaN, given as its pattern.
    ///
    /// TEN-8. "A weight decoded to binary16 or bfloat16 MUST be the exact value rounded once, to
    /// nearest, ties to even."
    pub fn round(self, bits: u32) -> u32 {
        let (sign, magnitude) = (bits >> 31, bits & 0x7FFF_FFFF);
        match self {
            Dtype::F32 => bits,
            Dtype::F16 => sign << 15 | round_to_f16(magnitude),
            Dtype::BF16 => sign << 15 | drop_bits(magnitude, 16),
        }
    }
}

/// Patterns increase with the values, so that a carry out of the significand steps the exponent, at
/// last to infinity: what `drop_bits` rounds up to is the next pattern whichever it is.
fn round_to_f16(magnitude: u32) -> u32 {
    const BIAS: u32 = (127 - 15) << 23; // the difference of the two formats' exponents
    const SMALLEST_NORMAL: u32 = 113 << 23; // 2^-14
    const TOO_LARGE: u32 = 143 << 23; // 2^16
    if magnitude >= TOO_LARGE {
        return Dtype::F16.facts().2;
    }
    if magnitude >= SMALLEST_NORMAL {
        return drop_bits(magnitude - BIAS, 23 - 10);
    }
    // The significand times 2^(exponent - 150), in units of the smallest subnormal, 2^-24. Dropping
    // 25 of its 24 bits leaves less than a half, as dropping more would.
    let (exponent, significand) = (magnitude >> 23, magnitude & 0x7F_FFFF | 0x80_0000);
    drop_bits(significand, (126 - exponent).min(25))
}

/// `bits / 2^count` rounded to the nearest integer, ties to even; `count` is at least 1.
fn drop_bits(bits: u32, count: u32) -> u32 {
    let (kept, rest, half) = (bits >> count, bits & ((1 << count) - 1), 1 << (count - 1));
    kept + u32::from(rest > half || rest == half && kept % 2 == 1)
}
