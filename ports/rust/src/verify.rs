//! Chapter 9: "what it means to verify a file".

use crate::document::{Document, Opened};
use crate::error::{short, Error, Finding, Result};
use crate::preamble::PREAMBLE;
use std::path::Path;

/// What a verifier says of a file that it could read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It conforms.
    Valid,
    /// It breaks this requirement, the first found.
    Invalid(&'static str),
    /// "A file that breaks PRE-3 or PRE-4 is *unsupported* rather than invalid"
    Unsupported(&'static str),
}

/// Verifies a file in constant memory beside its header, and tells `report` of each finding.
///
/// VERIFY-1. "A verifier MUST find valid every file that conforms, and invalid or unsupported every
/// other."
///
/// VERIFY-2. "A verifier MUST name the requirement, and where it applies the tensor and the offset
/// in the file, of what it finds."
pub fn verify(path: &Path, report: &mut dyn FnMut(&str)) -> Result<Verdict> {
    let mut first = None;
    let mut found = |finding: Finding| {
        report(&finding.to_string());
        first.get_or_insert(finding.clause);
    };
    match check_file(path, &mut found) {
        Ok(ignored) => ignored.iter().for_each(|line| report(line)),
        // "A defect in the preamble or header ends the verification with that one finding"
        Err(Error::Broken(finding)) => found(finding),
        Err(unable) => return Err(unable),
    }
    Ok(match first {
        None => Verdict::Valid,
        Some(clause @ ("PRE-3" | "PRE-4")) => Verdict::Unsupported(clause),
        Some(clause) => Verdict::Invalid(clause),
    })
}

/// Checks a file in its own order; gives what is to be said of ignored keys.
fn check_file(path: &Path, found: &mut dyn FnMut(Finding)) -> Result<Vec<String>> {
    let opened = Opened::open(path)?;
    let document = opened.document()?;
    let mut end = PREAMBLE + document.preamble.header_size;
    for segment in &document.segments {
        check_gap(&document, end, segment.offset)?.map(&mut *found);
        document.check_segment(segment)?.into_iter().for_each(&mut *found);
        end = segment.end();
    }
    check_gap(&document, end, document.source.length)?.map(found);
    document.source.check_length()?;
    Ok(ignored_keys(&document))
}

/// LAY-3. "Every byte that belongs to neither preamble, header nor segment MUST be zero."
fn check_gap(document: &Document, start: u64, end: u64) -> Result<Option<Finding>> {
    let mut buffer = [0; 64]; // no gap is longer than 63 bytes
    let gap = &mut buffer[..(end - start) as usize];
    document.source.read(start, gap)?;
    let wrong = gap.iter().position(|&byte| byte != 0);
    Ok(wrong.map(|n| Finding { clause: "LAY-3", detail: format!("byte {}", start + n as u64) }))
}

/// "a verifier says which it ignored"
fn ignored_keys(document: &Document) -> Vec<String> {
    let ignored = &document.header.ignored;
    let lines = ignored.keys.iter().map(|key| format!("ignored the unknown key {}", short(key)));
    let others = ignored.count - ignored.keys.len() as u64;
    lines.chain((others > 0).then(|| format!("ignored {others} more unknown keys"))).collect()
}
