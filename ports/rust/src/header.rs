//! Chapter 6: the preamble, the header and its entries.
//!
//! READ-1. "A reader MUST check every limit of 1.4 before it allocates, reads or loops by what the limit bounds."

use crate::messagepack::{Reader, Type};
use crate::sha256::Digest;
use crate::tensor::{elements, Trit, CODE_PLANES};
use crate::{short, Error, Result};
use std::collections::{BTreeSet, HashMap};

const KEYS: [&str; 9] =
    ["codebook", "depth", "dtype", "group_size", "kind", "name", "sha256", "shape", "shift"];
const RAW_KEYS: [&str; 5] = ["dtype", "kind", "name", "sha256", "shape"];

/// The dtypes of raw tensors, by the bytes of an element.
const RAW_DTYPES: [(u64, &[&str]); 4] = [
    (1, &["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"]),
    (2, &["U16", "I16", "F16", "BF16"]),
    (4, &["U32", "I32", "F32"]),
    (8, &["U64", "I64", "F64", "C64"]),
];

/// Gives the minor version and the header's size of a file of `length` that begins with `bytes`: "A reader checks
/// in this order, and reports the first that fails"
pub fn read_preamble(bytes: &[u8], length: u64) -> Result<(u64, u64)> {
    // PRE-1. "A file MUST be at least 64 bytes long."
    ensure!(length >= 64, "PRE-1", "{length} bytes");
    // PRE-2. "The file MUST begin with the eight bytes of the magic."
    ensure!(bytes.starts_with(b"\x89TRIT\r\n\x1a"), "PRE-2", "byte 0: {:02x?}", &bytes[..8]);
    let number = |field: &[u8]| field.iter().rfold(0, |number, byte| number << 8 | u64::from(*byte));
    let (major, minor, flags) = (number(&bytes[8..10]), number(&bytes[10..12]), number(&bytes[12..16]));
    // PRE-3. "The major version MUST be 1."
    ensure!(major == 1, "PRE-3", "byte 8: version {major}.{minor}");
    // PRE-4. "The flags MUST be 0."
    ensure!(flags == 0, "PRE-4", "byte 12: flags of {flags:08x}");
    let (header_size, file_size) = (number(&bytes[16..24]), number(&bytes[24..32]));
    // PRE-5. "The header size MUST lie in 1..67108864."
    ensure!((1..=67_108_864).contains(&header_size), "PRE-5", "byte 16: {header_size}");
    // PRE-6. "The file size MUST equal the length of the file."
    ensure!(file_size == length, "PRE-6", "byte 24: {file_size}, not {length}");
    // PRE-7. "The header MUST end within the file."
    ensure!(64 + header_size <= length, "PRE-7", "byte 16: {header_size} in a file of {length}");
    Ok((minor, header_size))
}

/// What the header of a file of version 1.`minor` says.
#[derive(Default)]
pub struct Header {
    pub minor: u64,
    pub metadata: Vec<(String, String)>,
    pub tensors: Vec<Tensor>,
    pub ignored: BTreeSet<String>, // of the keys that a newer version has added, the first hundred
}

/// An entry of the directory.
pub struct Tensor {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub trit: Option<Trit>, // none for a raw tensor
    pub segments: Vec<Segment>,
}

/// A run of bytes of the file that holds one plane or one raw tensor.
#[derive(Clone, Copy)]
pub struct Segment {
    pub digest: Digest,
    pub size: u64,
    pub offset: u64, // 0 before chapter 7 gives it
}

type Entry<'a> = HashMap<&'a str, Reader<'a>>; // where the value of each key stands

impl Header {
    pub fn parse(bytes: &[u8], minor: u64) -> Result<Header> {
        let mut header = Header { minor, ..Header::default() };
        let mut missing = vec!["metadata", "tensors", "version"];
        let mut reader = Reader { header: bytes, at: 0, nesting: 0 };
        let size = reader.expect(Type::Map)?;
        reader.map(size, |reader, key| {
            missing.retain(|known| *known != key);
            match key {
                "metadata" => header.read_metadata(reader),
                "tensors" => header.read_directory(reader),
                "version" => header.read_version(reader),
                _ => header.ignore(key).and_then(|()| reader.skip()),
            }
        })?;
        // MP-5. "The header MUST be exactly one value, with nothing cut off and nothing after it."
        ensure!(reader.at == bytes.len(), "MP-5", "more at header byte {}", reader.at);
        // HDR-1. "The header MUST have the keys metadata, tensors and version."
        ensure!(missing.is_empty(), "HDR-1", "no {}", missing.join(", "));
        Ok(header)
    }

    fn read_metadata(&mut self, reader: &mut Reader) -> Result<()> {
        let size = reader.expect(Type::Map)?;
        // HDR-5. "The metadata MUST hold at most 1024 pairs."
        ensure!(size <= 1024, "HDR-5", "{size} pairs");
        self.metadata = reader.map(size, |reader, key| {
            check_name(key)?;
            let length = reader.expect(Type::Str)?;
            // HDR-6. "A metadata value MUST be at most 1048576 bytes long."
            ensure!(length <= 1_048_576, "HDR-6", "{length} bytes at {key:?}");
            Ok((key.into(), reader.text(length)?.into()))
        })?;
        Ok(())
    }

    fn read_directory(&mut self, reader: &mut Reader) -> Result<()> {
        let size = reader.expect(Type::Array)?;
        // HDR-4. "The header MUST hold at most 1048576 entries."
        ensure!(size <= 1_048_576, "HDR-4", "{size} entries");
        self.tensors = reader.array(size, |reader| self.read_entry(reader))?;
        let wrong = self.tensors.windows(2).find(|pair| pair[0].name >= pair[1].name);
        // HDR-3. "The entries MUST stand in strictly increasing order of the UTF-8 bytes of their names."
        ensure!(wrong.is_none(), "HDR-3", "tensor {:?}", wrong.map_or("", |pair| &pair[1].name));
        Ok(())
    }

    fn read_version(&mut self, reader: &mut Reader) -> Result<()> {
        let size = reader.expect(Type::Array)?;
        ensure!(size == 2, "TYPE-1", "a version of {size} integers");
        let version = reader.array(size, |reader| reader.expect(Type::Integer))?;
        // HDR-2. "The version in the header MUST equal the version in the preamble."
        ensure!(version == [1, self.minor], "HDR-2", "version {version:?}");
        Ok(())
    }

    fn ignore(&mut self, key: &str) -> Result<()> {
        // VER-1. "A key that is not in the table of the header, or of the entry's kind, MUST NOT stand there
        // in a file of minor version 0."
        ensure!(self.minor > 0, "VER-1", "key {}", short(key));
        if self.ignored.len() < 100 {
            self.ignored.insert(short(key));
        }
        Ok(())
    }

    /// Reads an entry: first which keys there are, then the values, as `kind` stands behind some of them.
    fn read_entry(&mut self, reader: &mut Reader) -> Result<Tensor> {
        let mut entry = Entry::new();
        let size = reader.expect(Type::Map)?;
        reader.map(size, |reader, key| {
            match KEYS.contains(&key) {
                true => drop(entry.insert(key, *reader)),
                false => self.ignore(key)?,
            }
            reader.skip()
        })?;
        let kind = text(&entry, "kind")?;
        // ENT-2. "The kind of an entry MUST be trit or raw."
        ensure!(kind == "trit" || kind == "raw", "ENT-2", "a kind of {}", short(&kind));
        for key in KEYS {
            if kind == "trit" || RAW_KEYS.contains(&key) {
                get(&entry, key)?;
            } else if entry.contains_key(key) {
                self.ignore(key)?;
            }
        }
        let name = text(&entry, "name")?;
        check_name(&name)?;
        let tensor = read_tensor(&entry, name.clone(), &kind);
        tensor.map_err(|error| error.within(format!("tensor {name:?}")))
    }
}

fn get<'a>(entry: &Entry<'a>, key: &str) -> Result<Reader<'a>> {
    // ENT-1. "An entry MUST have every key of its kind."
    entry.get(key).copied().ok_or_else(|| Error::Broken("ENT-1", format!("no {key}")))
}

fn text(entry: &Entry, key: &str) -> Result<String> {
    let mut reader = get(entry, key)?;
    let length = reader.expect(Type::Str)?;
    reader.text(length).map(String::from)
}

fn read_tensor(entry: &Entry, name: String, kind: &str) -> Result<Tensor> {
    let (mut axes, mut sha256, dtype) = (get(entry, "shape")?, get(entry, "sha256")?, text(entry, "dtype")?);
    let rank = axes.expect(Type::Array)?;
    // SHAPE-1. "The rank of a tensor MUST be at most 8."
    ensure!(rank <= 8, "SHAPE-1", "a rank of {rank}");
    let shape = axes.array(rank, |reader| reader.expect(Type::Integer))?;
    if kind == "raw" {
        let row = RAW_DTYPES.iter().find(|(_, names)| names.contains(&dtype.as_str()));
        // RAW-1. "The dtype of a raw tensor MUST be one of the table."
        let (bytes, _) = row.ok_or_else(|| Error::Broken("RAW-1", short(&dtype)))?;
        let (size, digest) = (elements(&shape)? * bytes, read_digest(&mut sha256)?);
        let segments = vec![Segment { digest, size, offset: 0 }];
        return Ok(Tensor { name, dtype, shape, trit: None, segments });
    }
    let trit = read_trit(entry, &shape, &dtype)?;
    let (size, planes) = (sha256.expect(Type::Array)?, 0..CODE_PLANES + trit.depth);
    ensure!(size == planes.len() as u64, "ENT-3", "{size} digests for {planes:?}");
    let sized = |(digest, part)| Segment { digest, size: trit.plane(part).size(), offset: 0 };
    let segments = sha256.array(size, read_digest)?.into_iter().zip(planes).map(sized).collect();
    Ok(Tensor { name, dtype, shape, trit: Some(trit), segments })
}

fn read_trit(entry: &Entry, shape: &[u64], dtype: &str) -> Result<Trit> {
    let integer = |key| get(entry, key)?.expect(Type::Integer);
    let numbers = [integer("depth")?, integer("shift")?, integer("group_size")?];
    let mut codebook = get(entry, "codebook")?;
    let length = codebook.expect(Type::Bin)?;
    Trit::new(shape, dtype, numbers, codebook.bytes(length)?)
}

fn read_digest(reader: &mut Reader) -> Result<Digest> {
    let length = reader.expect(Type::Bin)?;
    // ENT-3. "An entry MUST hold one digest of 32 bytes for each of its segments."
    let digest = reader.bytes(length)?.try_into();
    digest.map_err(|_| Error::Broken("ENT-3", format!("a digest of {length} bytes")))
}

fn check_name(name: &str) -> Result<()> {
    // NAME-1. "A name or a metadata key MUST be 1 to 512 bytes long."
    ensure!((1..=512).contains(&name.len()), "NAME-1", "a name of {} bytes", name.len());
    // "U+0000..U+001F, U+007F..U+009F, [...] U+2028..U+202E, U+2066..U+2069, U+FEFF"
    let control = |c| matches!(c as u32, 0..=0x1F | 0x7F..=0x9F | 0x2028..=0x202E | 0x2066..=0x2069 | 0xFEFF);
    // NAME-2. "A name or a metadata key MUST NOT hold a control character."
    ensure!(!name.contains(control), "NAME-2", "the name {name:?}");
    Ok(())
}

impl Tensor {
    /// Checks a piece of a segment, which begins at its byte `start`.
    pub fn check(&self, part: usize, start: u64, piece: &[u8]) -> Result<()> {
        if let Some(trit) = &self.trit {
            return trit.plane(part).check(start, piece);
        }
        let most = if self.dtype == "BOOL" { 1 } else { 255 };
        for (at, &byte) in (start..).zip(piece) {
            // RAW-2. "Every byte of a raw tensor of dtype BOOL MUST be 0 or 1."
            ensure!(byte <= most, "RAW-2", "{byte} at byte {at}");
        }
        Ok(())
    }
}
