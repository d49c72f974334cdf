//! 6.1: the preamble.

use crate::error::{broken, ensure, Result};
use crate::sha256::{sha256, Digest};
use crate::source::Source;

/// The bytes of the preamble.
pub const PREAMBLE: u64 = 64;

const MAGIC: [u8; 8] = *b"\x89TRIT\r\n\x1a";
const MAJOR: u16 = 1;
const MAX_HEADER: u64 = 67_108_864;

/// The fields of the preamble that are not constants.
#[derive(Debug)]
pub struct Preamble {
    /// The minor version; the major one is 1.
    pub minor: u16,
    /// The header size in bytes.
    pub header_size: u64,
    /// "The header's digest is the file's *identity*."
    pub identity: Digest,
}

impl Preamble {
    /// Reads the preamble: "A reader checks in this order, and reports the first that fails".
    pub fn read(source: &Source) -> Result<Preamble> {
        let length = source.length;
        // PRE-1. "A file MUST be at least 64 bytes long."
        ensure(length >= PREAMBLE, "PRE-1", || format!("{length} bytes"))?;
        let mut bytes = [0; PREAMBLE as usize];
        source.read(0, &mut bytes)?;
        // PRE-2. "The file MUST begin with the eight bytes of the magic."
        ensure(bytes[..8] == MAGIC, "PRE-2", || format!("{:02x?}", &bytes[..8]))?;
        let major = u16::from_le_bytes([bytes[8], bytes[9]]);
        let minor = u16::from_le_bytes([bytes[10], bytes[11]]);
        // PRE-3. "The major version MUST be 1."
        ensure(major == MAJOR, "PRE-3", || format!("version {major}.{minor}"))?;
        // PRE-4. "The flags MUST be 0."
        let flags = little_endian(&bytes[12..16]);
        ensure(flags == 0, "PRE-4", || format!("flags of {flags:08x}"))?;
        // PRE-5. "The header size MUST lie in 1..67108864."
        let header_size = little_endian(&bytes[16..24]);
        ensure((1..=MAX_HEADER).contains(&header_size), "PRE-5", || header_size.to_string())?;
        // PRE-6. "The file size MUST equal the length of the file."
        let file_size = little_endian(&bytes[24..32]);
        ensure(file_size == length, "PRE-6", || format!("{file_size} is not {length}"))?;
        // PRE-7. "The header MUST end within the file."
        ensure(header_size <= length - PREAMBLE, "PRE-7", || header_size.to_string())?;
        let mut identity = [0; 32];
        identity.copy_from_slice(&bytes[32..]);
        Ok(Preamble { minor, header_size, identity })
    }

    /// Reads the header's bytes, at most 64 MiB of them.
    pub fn read_header(&self, source: &Source) -> Result<Vec<u8>> {
        let size = usize::try_from(self.header_size).map_err(|_| broken("PRE-5", "too large"))?;
        let mut bytes = vec![0; size];
        source.read(PREAMBLE, &mut bytes)?;
        // PRE-8. "The SHA-256 of the header's bytes MUST equal the digest in the preamble."
        let equal = sha256(&bytes) == self.identity;
        ensure(equal, "PRE-8", || "the header has another digest".into())?;
        Ok(bytes)
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}
