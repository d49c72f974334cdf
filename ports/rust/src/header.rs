//! 6.3 and 6.4: the header and its entries.

use crate::canonical::Reader;
use crate::codebook::read_codebook;
use crate::error::{broken, ensure, short, Result};
use crate::packing::Plane;
use crate::rounding::Dtype;
use crate::sha256::Digest;
use crate::tensor::{
    check_group_size, check_rank, check_shift, elements, matrix, Trit, CODE_PLANES,
};
use crate::trits::check_depth;

const MAX_TENSORS: u64 = 1_048_576;
const MAX_METADATA: u64 = 1024;
const MAX_VALUE: usize = 1_048_576;
const MAX_NAME: usize = 512;
/// Ignored keys that are kept to be told; the others are counted.
const MAX_TOLD: usize = 16;

const TRIT_KEYS: [&str; 9] =
    ["codebook", "depth", "dtype", "group_size", "kind", "name", "sha256", "shape", "shift"];
const RAW_KEYS: [&str; 5] = ["dtype", "kind", "name", "sha256", "shape"];

/// The dtypes of raw tensors, by their bytes an element.
const RAW_DTYPES: [(u64, &[&str]); 4] = [
    (1, &["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"]),
    (2, &["U16", "I16", "F16", "BF16"]),
    (4, &["U32", "I32", "F32"]),
    (8, &["U64", "I64", "F64", "C64"]),
];

/// What the header says. The strings are those of its bytes.
pub struct Header<'a> {
    /// Pairs, in the order of their keys.
    pub metadata: Vec<(&'a str, &'a str)>,
    /// The directory.
    pub tensors: Vec<Tensor<'a>>,
    /// What a newer version added.
    pub ignored: Ignored<'a>,
}

/// An entry of the directory.
pub struct Tensor<'a> {
    /// Its name, unique in the file.
    pub name: &'a str,
    /// Its axes.
    pub shape: Vec<u64>,
    /// "one digest of 32 bytes for each of its segments"
    pub digests: Vec<&'a [u8]>,
    /// What else depends on the kind.
    pub kind: Kind<'a>,
}

/// The two kinds of tensors.
pub enum Kind<'a> {
    /// Levels and codes; boxed, as most of its size is the codebook.
    Trit(Box<Trit>),
    /// One segment of plain elements.
    Raw {
        /// One of the table in 6.4.
        dtype: &'a str,
        /// The bytes of the segment.
        size: u64,
    },
}

/// The unknown keys of a file of a newer minor version, and otherwise none.
pub struct Ignored<'a> {
    minor: u16,
    /// How many there were.
    pub count: u64,
    /// The first of them.
    pub keys: Vec<&'a str>,
}

impl<'a> Header<'a> {
    /// Reads the header of a file of version 1.`minor`.
    pub fn parse(bytes: &'a [u8], minor: u16) -> Result<Header<'a>> {
        let (mut metadata, mut tensors, mut version) = (None, None, None);
        let mut ignored = Ignored { minor, count: 0, keys: Vec::new() };
        let mut reader = Reader::new(bytes);
        let count = reader.map()?;
        reader.pairs(count, |reader, key| {
            match key {
                "metadata" => metadata = Some(read_metadata(reader)?),
                "tensors" => tensors = Some(read_directory(reader, &mut ignored)?),
                "version" => version = Some(read_version(reader)?),
                _ => reader.skip().and_then(|()| ignored.add(key))?,
            }
            Ok(())
        })?;
        reader.end()?;
        // HDR-1. "The header MUST have the keys metadata, tensors and version."
        let (Some(metadata), Some(tensors), Some(version)) = (metadata, tensors, version) else {
            return Err(broken("HDR-1", "a key is missing"));
        };
        // HDR-2. "The version in the header MUST equal the version in the preamble."
        ensure(version == [1, u64::from(minor)], "HDR-2", || format!("version {version:?}"))?;
        Ok(Header { metadata, tensors, ignored })
    }
}

fn read_metadata<'a>(reader: &mut Reader<'a>) -> Result<Vec<(&'a str, &'a str)>> {
    let count = reader.map()?;
    // HDR-5. "The metadata MUST hold at most 1024 pairs."
    ensure(count <= MAX_METADATA, "HDR-5", || format!("{count} pairs"))?;
    let mut metadata = Vec::new();
    reader.pairs(count, |reader, key| {
        check_name(key)?;
        let value = reader.str()?;
        // HDR-6. "A metadata value MUST be at most 1048576 bytes long."
        ensure(value.len() <= MAX_VALUE, "HDR-6", || format!("{} at {key:?}", value.len()))?;
        metadata.push((key, value));
        Ok(())
    })?;
    Ok(metadata)
}

fn read_directory<'a>(
    reader: &mut Reader<'a>,
    ignored: &mut Ignored<'a>,
) -> Result<Vec<Tensor<'a>>> {
    let count = reader.array()?;
    // HDR-4. "The header MUST hold at most 1048576 entries."
    ensure(count <= MAX_TENSORS, "HDR-4", || format!("{count} entries"))?;
    let mut tensors: Vec<Tensor> = Vec::new(); // grows with what is there, not with what is claimed
    reader.values(count, |reader| {
        let tensor = read_entry(reader, ignored)?;
        // HDR-3. "The entries MUST stand in strictly increasing order of the UTF-8 bytes of their
        // names."
        let increasing = tensors.last().is_none_or(|last| last.name < tensor.name);
        ensure(increasing, "HDR-3", || format!("tensor {:?}", tensor.name))?;
        tensors.push(tensor);
        Ok(())
    })?;
    Ok(tensors)
}

fn read_version(reader: &mut Reader) -> Result<Vec<u64>> {
    let count = reader.array()?;
    ensure(count == 2, "TYPE-1", || format!("a version of {count} integers"))?;
    reader.list(count, Reader::integer)
}

fn check_name(name: &str) -> Result<()> {
    // NAME-1. "A name or a metadata key MUST be 1 to 512 bytes long."
    ensure((1..=MAX_NAME).contains(&name.len()), "NAME-1", || format!("{} bytes", name.len()))?;
    // NAME-2. "A name or a metadata key MUST NOT hold a control character."
    ensure(!name.chars().any(is_control), "NAME-2", || format!("{name:?}"))
}

/// "U+0000..U+001F, U+007F..U+009F, and those that reorder or hide text: U+2028..U+202E,
/// U+2066..U+2069, U+FEFF"
fn is_control(character: char) -> bool {
    matches!(character, '\u{0}'..='\u{1F}' | '\u{7F}'..='\u{9F}' | '\u{2028}'..='\u{202E}'
        | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// Where the values of an entry stand, in the order of `TRIT_KEYS`. They can only be read when all
/// are known, since `kind`, which says how, comes after others.
struct Fields<'a>([Option<Reader<'a>>; TRIT_KEYS.len()]);

impl<'a> Fields<'a> {
    fn read(reader: &mut Reader<'a>, ignored: &mut Ignored<'a>) -> Result<Fields<'a>> {
        let mut fields = [None; TRIT_KEYS.len()];
        let count = reader.map()?;
        reader.pairs(count, |reader, key| {
            let value = *reader;
            reader.skip()?;
            match TRIT_KEYS.iter().position(|known| *known == key) {
                Some(n) => fields[n] = Some(value),
                None => ignored.add(key)?,
            }
            Ok(())
        })?;
        Ok(Fields(fields))
    }

    /// ENT-1. "An entry MUST have every key of its kind."
    fn get(&self, key: &str) -> Result<Reader<'a>> {
        let n = TRIT_KEYS.iter().position(|known| *known == key);
        n.and_then(|n| self.0[n]).ok_or_else(|| broken("ENT-1", format!("no {key}")))
    }

    /// The kind of the entry, once all of its keys are there and no others.
    fn check_keys(&self, ignored: &mut Ignored<'a>) -> Result<&'a str> {
        let kind = self.get("kind")?.str()?;
        let keys: &[&str] = match kind {
            "trit" => &TRIT_KEYS,
            "raw" => &RAW_KEYS,
            // ENT-2. "The kind of an entry MUST be trit or raw."
            _ => return Err(broken("ENT-2", format!("a kind of {}", short(kind)))),
        };
        keys.iter().try_for_each(|key| self.get(key).map(drop))?;
        self.ignore_all_but(keys, ignored)?;
        Ok(kind)
    }

    /// Ignores the keys of the other kind.
    fn ignore_all_but(&self, keys: &[&str], ignored: &mut Ignored<'a>) -> Result<()> {
        let present = TRIT_KEYS.iter().zip(&self.0).filter(|(_, value)| value.is_some());
        let mut unknown = present.map(|(key, _)| *key).filter(|key| !keys.contains(key));
        unknown.try_for_each(|key| ignored.add(key))
    }
}

impl<'a> Ignored<'a> {
    /// VER-1. "A key that is not in the table of the header, or of the entry's kind, MUST NOT stand
    /// there in a file of minor version 0."
    fn add(&mut self, key: &'a str) -> Result<()> {
        ensure(self.minor > 0, "VER-1", || format!("key {}", short(key)))?;
        self.count += 1;
        if self.keys.len() < MAX_TOLD {
            self.keys.push(key);
        }
        Ok(())
    }
}

fn read_entry<'a>(reader: &mut Reader<'a>, ignored: &mut Ignored<'a>) -> Result<Tensor<'a>> {
    let start = *reader;
    let fields = Fields::read(reader, ignored);
    let named = fields.and_then(|fields| {
        let kind = fields.check_keys(ignored)?;
        Ok((fields.get("name")?.str()?, kind, fields))
    });
    let place = || format!("entry at {}", start.place());
    let (name, kind, fields) = named.map_err(|error| error.within(&place()))?;
    let tensor = || format!("tensor {}", short(name));
    read_tensor(name, kind, &fields).map_err(|error| error.within(&tensor()))
}

fn read_tensor<'a>(
    name: &'a str,
    kind: &str,
    fields: &Fields<'a>,
) -> Result<Tensor<'a>> {
    check_name(name)?;
    let shape = read_shape(fields.get("shape")?)?;
    let read = if kind == "raw" { read_raw } else { read_trit };
    let (kind, digests) = read(fields, &shape)?;
    Ok(Tensor { name, shape, digests, kind })
}

type KindAndDigests<'a> = (Kind<'a>, Vec<&'a [u8]>);

fn read_raw<'a>(fields: &Fields<'a>, shape: &[u64]) -> Result<KindAndDigests<'a>> {
    let dtype = fields.get("dtype")?.str()?;
    // RAW-1. "The dtype of a raw tensor MUST be one of the table."
    let row = RAW_DTYPES.iter().find(|(_, names)| names.contains(&dtype));
    let &(bytes, _) = row.ok_or_else(|| broken("RAW-1", format!("a dtype of {}", short(dtype))))?;
    let size = elements(shape)?.checked_mul(bytes);
    let size = size.ok_or_else(|| broken("SHAPE-2", format!("a shape of {shape:?}")))?;
    let digest = read_digest(&mut fields.get("sha256")?)?;
    Ok((Kind::Raw { dtype, size }, vec![digest]))
}

fn read_trit<'a>(fields: &Fields<'a>, shape: &[u64]) -> Result<KindAndDigests<'a>> {
    let (rows, columns) = matrix(shape)?;
    let depth = check_depth(fields.get("depth")?.integer()?)?;
    let shift = check_shift(depth, fields.get("shift")?.integer()?)?;
    let group_size = check_group_size(fields.get("group_size")?.integer()?)?;
    let name = fields.get("dtype")?.str()?;
    // TEN-5. "The dtype of a trit tensor MUST be F32, F16 or BF16."
    let dtype =
        Dtype::named(name).ok_or_else(|| broken("TEN-5", format!("a dtype of {}", short(name))))?;
    let codebook = read_codebook(fields.get("codebook")?.bin()?)?;
    let trit = Trit { depth, shift, group_size, dtype, codebook, rows, columns };
    trit.check_largest()?;
    let digests = read_digests(fields.get("sha256")?, CODE_PLANES + depth)?;
    Ok((Kind::Trit(Box::new(trit)), digests))
}

fn read_shape(mut reader: Reader) -> Result<Vec<u64>> {
    let rank = reader.array()?;
    check_rank(rank)?;
    reader.list(rank, Reader::integer)
}

fn read_digests(mut reader: Reader<'_>, wanted: usize) -> Result<Vec<&[u8]>> {
    let count = reader.array()?;
    // ENT-3. "An entry MUST hold one digest of 32 bytes for each of its segments."
    ensure(count == wanted as u64, "ENT-3", || format!("{count} digests, not {wanted}"))?;
    reader.list(count, read_digest)
}

fn read_digest<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let digest = reader.bin()?;
    let found = digest.len();
    ensure(found == size_of::<Digest>(), "ENT-3", || format!("a digest of {found} bytes"))?;
    Ok(digest)
}

impl Tensor<'_> {
    /// The number of segments.
    pub fn segments(&self) -> usize {
        self.digests.len()
    }

    /// The plane of trits that a segment of a trit tensor holds.
    pub fn plane(&self, part: usize) -> Option<Plane> {
        match &self.kind {
            Kind::Trit(trit) => Some(trit.plane(part)),
            Kind::Raw { .. } => None,
        }
    }

    /// The bytes of a segment; none if they are too many to count.
    pub fn segment_size(&self, part: usize) -> Option<u64> {
        match &self.kind {
            Kind::Trit(trit) => trit.plane(part).size(),
            Kind::Raw { size, .. } => Some(*size),
        }
    }
}
