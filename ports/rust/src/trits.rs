//! Chapter 2: trits and levels.

use crate::error::{ensure, Error, Result};

/// A level has at most four trits.
pub const MAX_DEPTH: usize = 4;

/// `3^p`, for `p` of 0 to 4.
pub const POWERS: [i8; 5] = [1, 3, 9, 27, 81];

/// `H`, the largest level of a depth of at most four.
pub fn largest_level(depth: usize) -> i8 {
    (POWERS[depth] - 1) / 2
}

/// TRIT-1. "A trit MUST be -1, 0 or +1."
pub fn check_trits(trits: &[i8]) -> Result<()> {
    let wrong = trits.iter().find(|t| !(-1..=1).contains(*t));
    ensure(wrong.is_none(), "TRIT-1", || format!("a trit of {wrong:?}"))
}

/// TEN-2. "The depth of a trit tensor MUST be 1, 2, 3 or 4."
pub fn check_depth(depth: u64) -> Result<usize> {
    ensure((1..=4).contains(&depth), "TEN-2", || format!("a depth of {depth}"))?;
    Ok(usize::try_from(depth).unwrap_or(MAX_DEPTH))
}

/// The trits of `levels` as `depth` planes, the least significant first.
pub fn split(levels: &[i8], depth: usize) -> Result<Vec<Vec<i8>>> {
    let largest = largest_level(depth);
    // TRIT-2. "A level of depth d MUST lie in -H..H, where H = (3^d - 1)/2."
    let wrong = levels.iter().find(|k| !(-largest..=largest).contains(*k));
    ensure(wrong.is_none(), "TRIT-2", || format!("a level of {wrong:?} at depth {depth}"))?;
    // "add H and write the sum in base 3: its digits are the trits plus one"
    let plane = |power: &i8| levels.iter().map(|k| (k + largest) / power % 3 - 1).collect();
    Ok(POWERS[..depth].iter().map(plane).collect())
}

/// The levels of planes of equal length, the least significant first; the inverse of `split`.
pub fn join(planes: &[Vec<i8>]) -> Result<Vec<i8>> {
    let depth = check_depth(planes.len() as u64)?;
    planes.iter().try_for_each(|plane| check_trits(plane))?;
    if planes.iter().any(|plane| plane.len() != planes[0].len()) {
        return Err(Error::Unable("planes of different sizes".into()));
    }
    let level = |n: usize| (0..depth).map(|p| planes[p][n] * POWERS[p]).sum();
    Ok((0..planes[0].len()).map(level).collect())
}
