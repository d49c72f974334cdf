//! Chapters 2 and 3: trits, levels, and five rows of trits a byte.

use crate::Result;

pub const POWERS: [u8; 6] = [1, 3, 9, 27, 81, 243];

/// `H`, the largest level of a depth.
pub fn largest_level(depth: usize) -> i8 {
    (POWERS[depth] / 2) as i8
}

pub fn check_depth(depth: u64) -> Result<usize> {
    // TEN-2. "The depth of a trit tensor MUST be 1, 2, 3 or 4."
    ensure!((1..=4).contains(&depth), "TEN-2", "a depth of {depth}");
    Ok(depth as usize)
}

fn check_trits(trits: &[i8]) -> Result<()> {
    // TRIT-1. "A trit MUST be -1, 0 or +1."
    ensure!(trits.iter().all(|t| (-1..=1).contains(t)), "TRIT-1", "another digit");
    Ok(())
}

/// The trits of `levels` as `depth` planes, the least significant first.
pub fn split(levels: &[i8], depth: usize) -> Result<Vec<Vec<i8>>> {
    let largest = largest_level(depth);
    // TRIT-2. "A level of depth d MUST lie in -H..H, where H = (3^d - 1)/2."
    ensure!(levels.iter().all(|k| (-largest..=largest).contains(k)), "TRIT-2", "above {largest}");
    // "add H and write the sum in base 3: its digits are the trits plus one"
    let trit = |k: &i8, power: &u8| ((k + largest) as u8 / power % 3) as i8 - 1;
    Ok(POWERS[..depth].iter().map(|power| levels.iter().map(|k| trit(k, power)).collect()).collect())
}

/// The levels of planes, the least significant first; the inverse of `split`.
pub fn join(planes: &[Vec<i8>]) -> Result<Vec<i8>> {
    check_depth(planes.len() as u64)?;
    let mut levels = vec![0; planes[0].len()];
    for plane in planes.iter().rev() {
        check_trits(plane)?;
        ensure!(plane.len() == levels.len(), "PACK-1", "planes of different sizes");
        levels.iter_mut().zip(plane).for_each(|(k, t)| *k = 3 * *k + t);
    }
    Ok(levels)
}

/// A plane of trits, `R` by `C`; both are so small that nothing here overflows.
#[derive(Clone, Copy)]
pub struct Plane {
    pub rows: u64,
    pub columns: u64,
}

impl Plane {
    /// PACK-1. "A plane of R rows and C columns MUST be packed as ceil(R/5) rows of C bytes"
    pub fn size(self) -> u64 {
        (self.rows + 4) / 5 * self.columns
    }

    /// Checks a piece of the packed plane, which begins at its byte `start`.
    pub fn check(self, start: u64, piece: &[u8]) -> Result<()> {
        let (used, padded_row) = ((self.rows % 5) as usize, self.rows / 5 * self.columns);
        let zeros = POWERS[5 - used] / 2; // each the digit 1: 1 + 3 + ...
        for (at, &byte) in (start..).zip(piece) {
            // PACK-2. "Every byte of a packed plane MUST be at most 242."
            ensure!(byte <= 242, "PACK-2", "{byte} at byte {at}");
            // PACK-3. "A trit that pads the last byte row MUST be 0."
            ensure!(at < padded_row || byte / POWERS[used] == zeros, "PACK-3", "{byte} at byte {at}");
        }
        Ok(())
    }
}

/// Packs the trits of a plane, given in C order.
pub fn pack(plane: Plane, trits: &[i8]) -> Result<Vec<u8>> {
    ensure!(trits.len() as u64 == plane.rows * plane.columns, "PACK-1", "{} trits", trits.len());
    check_trits(trits)?;
    let columns = plane.columns as usize;
    let digit = |row, j| trits.get(row * columns + j).map_or(1, |trit| (trit + 1) as u8);
    // "byte[r, j] = sum over i = 0..4 of (t[5r+i, j] + 1) * 3^i"
    let byte = |r, j| (0..5).map(|i| digit(5 * r + i, j) * POWERS[i]).sum();
    Ok((0..plane.size() as usize).map(|n| byte(n / columns, n % columns)).collect())
}

/// The trits of a packed plane in C order; the inverse of `pack`.
pub fn unpack(plane: Plane, packed: &[u8]) -> Result<Vec<i8>> {
    ensure!(packed.len() as u64 == plane.size(), "PACK-1", "{} bytes", packed.len());
    plane.check(0, packed)?;
    let columns = plane.columns as usize;
    // "t[5r+i, j] = byte[r, j] // 3^i % 3 - 1"
    let trit = |row, j| (packed[row / 5 * columns + j] / POWERS[row % 5] % 3) as i8 - 1;
    Ok((0..plane.rows as usize * columns).map(|n| trit(n / columns, n % columns)).collect())
}
