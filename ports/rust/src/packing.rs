//! Chapter 3: five rows of trits a byte.

use crate::error::{broken, ensure, Error, Result};
use crate::trits::check_trits;

const ROWS_PER_BYTE: usize = 5;
const POWERS: [u8; 6] = [1, 3, 9, 27, 81, 243];
/// The largest sum of five digits: `2 * (1 + 3 + 9 + 27 + 81)`.
const MAX_BYTE: u8 = 242;

/// The size of a plane of trits.
#[derive(Clone, Copy, Debug)]
pub struct Plane {
    /// `R`.
    pub rows: u64,
    /// `C`.
    pub columns: u64,
}

/// A requirement that packed bytes break, and at which of them.
#[derive(Debug, PartialEq)]
pub struct Flaw {
    /// PACK-2 or PACK-3 (or RAW-2, of the bytes of a raw tensor).
    pub clause: &'static str,
    /// The first byte that breaks it, counted from the segment's first.
    pub at: u64,
}

impl Plane {
    /// The bytes that the plane takes packed; none if that is above 2^64 - 1.
    ///
    /// PACK-1. "A plane of R rows and C columns MUST be packed as ceil(R/5) rows of C bytes"
    pub fn size(self) -> Option<u64> {
        self.byte_rows().checked_mul(self.columns)
    }

    /// The first flaw of `bytes`, a part of the packed plane that begins at its byte `start`.
    pub fn flaw(self, start: u64, bytes: &[u8]) -> Option<Flaw> {
        // PACK-2. "Every byte of a packed plane MUST be at most 242."
        if let Some(n) = bytes.iter().position(|&byte| byte > MAX_BYTE) {
            return Some(Flaw { clause: "PACK-2", at: start + n as u64 });
        }
        // PACK-3. "A trit that pads the last byte row MUST be 0."
        let last_row = self.byte_rows().saturating_sub(1).checked_mul(self.columns)?;
        let before = usize::try_from(last_row.saturating_sub(start)).unwrap_or(usize::MAX);
        let (shift, padding) = self.padding();
        let wrong = bytes.iter().skip(before).position(|byte| byte / shift != padding)?;
        Some(Flaw { clause: "PACK-3", at: start + (before + wrong) as u64 })
    }

    fn byte_rows(self) -> u64 {
        self.rows.div_ceil(ROWS_PER_BYTE as u64)
    }

    /// `3^used`, and what a byte of the last row divided by it has to be: the digit 1 for each
    /// trit of padding, `1 + 3 + ... = (3^unused - 1) / 2`.
    fn padding(self) -> (u8, u8) {
        let used = (self.rows % ROWS_PER_BYTE as u64) as usize;
        let unused = (ROWS_PER_BYTE - used) % ROWS_PER_BYTE;
        (POWERS[ROWS_PER_BYTE - unused], (POWERS[unused] - 1) / 2)
    }
}

/// Packs the trits of a plane, given in C order.
pub fn pack(plane: Plane, trits: &[i8]) -> Result<Vec<u8>> {
    let count = plane.rows.checked_mul(plane.columns);
    ensure(count == Some(trits.len() as u64), "PACK-1", || format!("{} trits", trits.len()))?;
    check_trits(trits)?;
    if trits.is_empty() {
        return Ok(Vec::new()); // "A plane of no rows or no columns takes no bytes."
    }
    let columns = usize::try_from(plane.columns).unwrap_or(usize::MAX); // at most the trits
    let pack_byte_row = |rows: &[i8]| -> Vec<u8> {
        let digit =
            |i, j| rows.get(i * columns + j).map_or(1, |trit: &i8| (trit + 1).unsigned_abs());
        // "byte[r, j] = sum over i = 0..4 of (t[5r+i, j] + 1) * 3^i"
        let byte = |j| (0..ROWS_PER_BYTE).map(|i| digit(i, j) * POWERS[i]).sum();
        (0..columns).map(byte).collect()
    };
    Ok(trits.chunks(columns.saturating_mul(ROWS_PER_BYTE)).flat_map(pack_byte_row).collect())
}

/// The trits of a packed plane in C order; the inverse of `pack`.
pub fn unpack(plane: Plane, bytes: Vec<u8>) -> Result<Vec<i8>> {
    let packed = Packed::new(plane, bytes)?;
    let count = packed.bytes.len().saturating_mul(ROWS_PER_BYTE);
    let columns = packed.columns.max(1);
    let trits = (0..count).map(|n| (n / columns, n % columns));
    let rows = usize::try_from(plane.rows).unwrap_or(usize::MAX);
    Ok(trits.take_while(|&(row, _)| row < rows).map(|(row, j)| packed.trit(row, j)).collect())
}

/// A packed plane in memory that obeys PACK-1 to PACK-3.
pub struct Packed {
    columns: usize,
    bytes: Vec<u8>,
}

impl Packed {
    /// READ-2. "A reader MUST NOT give out data that breaks PACK-2, PACK-3 or RAW-2."
    pub fn new(plane: Plane, bytes: Vec<u8>) -> Result<Packed> {
        let found = bytes.len();
        ensure(plane.size() == Some(found as u64), "PACK-1", || format!("{found} bytes"))?;
        if let Some(Flaw { clause, at }) = plane.flaw(0, &bytes) {
            return Err(broken(clause, format!("byte {at} of the plane")));
        }
        let too_large = |_| Error::Unable("more columns than this machine can count".into());
        Ok(Packed { columns: usize::try_from(plane.columns).map_err(too_large)?, bytes })
    }

    /// The trit at `row` and `column`: "t[5r+i, j] = byte[r, j] // 3^i % 3 - 1".
    pub fn trit(&self, row: usize, column: usize) -> i8 {
        let byte = self.bytes[row / ROWS_PER_BYTE * self.columns + column];
        TRITS[row % ROWS_PER_BYTE][byte as usize]
    }
}

/// `TRITS[i][byte]` is the trit `i` of a byte.
static TRITS: [[i8; 256]; ROWS_PER_BYTE] = {
    let mut table = [[0; 256]; ROWS_PER_BYTE];
    let mut n = 0;
    while n < 256 * ROWS_PER_BYTE {
        let (i, byte) = (n / 256, n % 256);
        table[i][byte] = (byte / POWERS[i] as usize % 3) as i8 - 1;
        n += 1;
    }
    table
};
