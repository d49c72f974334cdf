//! Chapters 7 to 9: where segments lie, how they are read, and what it means to verify a file.

use crate::header::{read_preamble, Header, Segment, Tensor};
use crate::sha256::{sha256, Digest};
use crate::tensor::CODE_PLANES;
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const PIECE: usize = 1 << 16; // bytes of a segment that are read at once

/// Gives all segments their offsets; gives their tensors and parts in the order of the file.
fn layout(header_size: u64, tensors: &mut [Tensor], length: u64) -> Result<Vec<(usize, usize)>> {
    let parts = |(n, tensor): (usize, &Tensor)| (0..tensor.segments.len()).map(move |part| (n, part));
    let mut order: Vec<_> = tensors.iter().enumerate().flat_map(parts).collect();
    // LAY-1. "The segments MUST stand in this order: the raw tensors, in directory order; the three code planes
    // of every trit tensor, tensor by tensor; then the most significant weight plane of every trit tensor, then
    // the next plane of every tensor that has one, and so on." The sort is stable.
    order.sort_by_key(|&(n, part)| if tensors[n].trit.is_some() { part.max(CODE_PLANES - 1) } else { 0 });
    // LAY-2. "The first segment MUST begin at align(64 + header size), and each other one at align(end of the
    // one before)."
    let mut end = align(64 + header_size);
    for &(n, part) in &order {
        let segment = &mut tensors[n].segments[part];
        segment.offset = end;
        // LAY-5. "The end of the file MUST be at most 2^63 - 1." No sum is above 2^63 + 2^51 + 63.
        end = align(end + segment.size);
        ensure!(end < 1 << 63, "LAY-5", "tensor {:?} ends at {end}", tensors[n].name);
    }
    // LAY-4. "The file MUST end at align(end of the last segment), or at align(64 + header size) where there are
    // no segments."
    ensure!(end == length, "LAY-4", "the last segment ends at {end} of {length}");
    Ok(order)
}

fn align(x: u64) -> u64 {
    (x + 63) / 64 * 64
}

/// A file that conforms as far as can be known without its segments.
pub struct TritFile {
    file: File,
    length: u64,
    header_size: u64,
    pub identity: Digest, // "The header's digest is the file's *identity*."
    pub header: Header,
    order: Vec<(usize, usize)>, // of the segments
}

impl TritFile {
    pub fn open(path: &Path) -> Result<TritFile> {
        if !fs::metadata(path)?.is_file() {
            return Err(Error::Unable("not a regular file".into())); // to open a FIFO would wait for a writer
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let preamble = read(&file, 0, length.min(64))?;
        let (minor, header_size) = read_preamble(&preamble, length)?;
        let header = read(&file, 64, header_size)?;
        let identity = sha256([Ok(&header)])?;
        // PRE-8. "The SHA-256 of the header's bytes MUST equal the digest in the preamble."
        ensure!(preamble.ends_with(&identity), "PRE-8", "byte 32: another digest");
        let mut header = Header::parse(&header, minor)?;
        let order = layout(header_size, &mut header.tensors, length)?;
        Ok(TritFile { file, length, header_size, identity, header, order })
    }

    /// Checks a segment piece by piece, and gives each to `take`, of which the last may turn out to be damaged.
    /// READ-2. "A reader MUST NOT give out data that breaks PACK-2, PACK-3 or RAW-2."
    /// READ-3. "A reader that has read a whole segment MUST compare its digest, unless its caller has asked it
    /// not to."
    pub fn scan(&self, tensor: &Tensor, part: usize, mut take: impl FnMut(&[u8])) -> Result<()> {
        let Segment { digest, size, offset } = tensor.segments[part];
        let place = || format!("tensor {:?}, {size} bytes at {offset}", tensor.name);
        let pieces = (0..size).step_by(PIECE).map(|start| {
            let piece = read(&self.file, offset + start, (size - start).min(PIECE as u64))?;
            tensor.check(part, start, &piece).map_err(|error| error.within(place()))?;
            take(&piece);
            Ok(piece)
        });
        // SEG-1. "The SHA-256 of each segment MUST equal its digest in the directory."
        ensure!(sha256(pieces)? == digest, "SEG-1", "{}", place());
        Ok(())
    }

    fn check_gap(&self, start: u64, end: u64) -> Result<()> {
        let gap = read(&self.file, start, end - start)?;
        // LAY-3. "Every byte that belongs to neither preamble, header nor segment MUST be zero."
        ensure!(gap.iter().all(|byte| *byte == 0), "LAY-3", "bytes {start} to {end} are {gap:02x?}");
        Ok(())
    }
}

/// READ-4. "A reader MUST report as an error a file that ends before what its header promises."
fn read(mut file: &File, offset: u64, size: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size as usize]; // a header, a piece or a gap: at most 64 MiB
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// VERIFY-1. "A verifier MUST find valid every file that conforms, and invalid or unsupported every other."
/// VERIFY-2. "A verifier MUST name the requirement, and where it applies the tensor and the offset in the file,
/// of what it finds."
pub fn verify(path: &Path) -> Result<TritFile> {
    let file = TritFile::open(path)?;
    let mut end = 64 + file.header_size;
    for &(n, part) in &file.order {
        let tensor = &file.header.tensors[n];
        let Segment { offset, size, .. } = tensor.segments[part];
        file.check_gap(end, offset)?;
        file.scan(tensor, part, |_| ())?;
        end = offset + size;
    }
    file.check_gap(end, file.length)?;
    if file.file.metadata()?.len() != file.length {
        return Err(Error::Unable("the file changed while it was read".into()));
    }
    Ok(file)
}
