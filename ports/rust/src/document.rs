//! 8.1: a file that is open, whose preamble, header and layout are right, and its segments.

use crate::error::{Error, Finding, Result};
use crate::header::{Header, Kind, Tensor};
use crate::layout::{layout, Segment};
use crate::packing::{Flaw, Packed};
use crate::preamble::Preamble;
use crate::sha256::{sha256, Digest, Sha256};
use crate::source::Source;
use std::path::Path;

const CHUNK: u64 = 1 << 16;

/// An open file and the bytes of its header, which a `Document` points into.
pub struct Opened {
    source: Source,
    preamble: Preamble,
    header: Vec<u8>,
}

/// A file that conforms as far as can be known without its segments.
pub struct Document<'a> {
    /// Where to read.
    pub source: &'a Source,
    /// Its preamble.
    pub preamble: &'a Preamble,
    /// Its header.
    pub header: Header<'a>,
    /// Its segments, in the order of the file.
    pub segments: Vec<Segment>,
}

impl Opened {
    /// Opens a file and checks its preamble.
    pub fn open(path: &Path) -> Result<Opened> {
        let source = Source::open(path)?;
        let preamble = Preamble::read(&source)?;
        let header = preamble.read_header(&source)?;
        Ok(Opened { source, preamble, header })
    }

    /// Checks the header and the layout.
    pub fn document(&self) -> Result<Document<'_>> {
        let header = Header::parse(&self.header, self.preamble.minor)?;
        let segments = layout(self.preamble.header_size, &header.tensors, self.source.length)?;
        Ok(Document { source: &self.source, preamble: &self.preamble, header, segments })
    }
}

impl<'a> Document<'a> {
    /// The tensor that a segment is of.
    pub fn tensor(&self, segment: &Segment) -> &Tensor<'a> {
        &self.header.tensors[segment.tensor]
    }

    /// Reads a segment piece by piece and gives all that is wrong with it, at most one finding for
    /// its digest and one for its bytes.
    pub fn check_segment(&self, segment: &Segment) -> Result<Vec<Finding>> {
        let tensor = self.tensor(segment);
        let (mut hash, mut flaw) = (Sha256::default(), None);
        let mut buffer = vec![0; segment.size.min(CHUNK) as usize];
        let mut start = 0;
        while start < segment.size {
            let chunk = &mut buffer[..(segment.size - start).min(CHUNK) as usize];
            self.source.read(segment.offset + start, chunk)?;
            hash.update(chunk);
            flaw = flaw.or_else(|| find_flaw(tensor, segment.part, start, chunk));
            start += chunk.len() as u64;
        }
        let flaw = flaw.map(|Flaw { clause, at }| {
            let byte = segment.offset + at;
            Finding { clause, detail: format!("{}, byte {byte}", place(tensor, segment)) }
        });
        Ok(wrong_digest(tensor, segment, &hash.finish()).into_iter().chain(flaw).collect())
    }

    /// Reads a whole plane of a trit tensor; `None` for a raw one.
    pub fn read_plane(&self, segment: &Segment) -> Result<Option<Packed>> {
        let tensor = self.tensor(segment);
        let Some(plane) = tensor.plane(segment.part) else { return Ok(None) };
        let mut bytes = Vec::new();
        let no_memory = |_| Error::Unable("no memory for a plane".into());
        // The layout has tied the size to the length of the file, but not to the machine's memory.
        let size = usize::try_from(segment.size).unwrap_or(usize::MAX);
        bytes.try_reserve_exact(size).map_err(no_memory)?;
        bytes.resize(size, 0);
        self.source.read(segment.offset, &mut bytes)?;
        // READ-3. "A reader that has read a whole segment MUST compare its digest, unless its
        // caller has asked it not to."
        if let Some(finding) = wrong_digest(tensor, segment, &sha256(&bytes)) {
            return Err(Error::Broken(finding));
        }
        Packed::new(plane, bytes).map(Some).map_err(|error| error.within(&place(tensor, segment)))
    }
}

fn find_flaw(tensor: &Tensor, part: usize, start: u64, bytes: &[u8]) -> Option<Flaw> {
    match (&tensor.kind, tensor.plane(part)) {
        (_, Some(plane)) => plane.flaw(start, bytes),
        // RAW-2. "Every byte of a raw tensor of dtype BOOL MUST be 0 or 1."
        (Kind::Raw { dtype: "BOOL", .. }, _) => {
            let wrong = bytes.iter().position(|&byte| byte > 1)?;
            Some(Flaw { clause: "RAW-2", at: start + wrong as u64 })
        }
        _ => None,
    }
}

/// SEG-1. "The SHA-256 of each segment MUST equal its digest in the directory."
fn wrong_digest(tensor: &Tensor, segment: &Segment, digest: &Digest) -> Option<Finding> {
    let Segment { offset, size, .. } = segment;
    let detail = || format!("{}, {size} bytes from {offset} on", place(tensor, segment));
    let wrong = tensor.digests[segment.part] != digest;
    wrong.then(|| Finding { clause: "SEG-1", detail: detail() })
}

fn place(tensor: &Tensor, segment: &Segment) -> String {
    format!("tensor {:?}, segment {}", tensor.name, segment.part)
}
