//! 8.1: positional reads of a regular file, "that fail cleanly".

use crate::error::{Error, Result};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An open file, and how long it was when it was opened.
pub struct Source {
    file: File,
    /// The length in bytes.
    pub length: u64,
}

impl Source {
    /// Opens a regular file. Opening a FIFO would wait for a writer, so the path is asked first; the
    /// open file is asked again, as the path may have changed its meaning.
    pub fn open(path: &Path) -> Result<Source> {
        regular(&fs::metadata(path)?)?;
        let file = File::open(path)?;
        let length = regular(&file.metadata()?)?;
        Ok(Source { file, length })
    }

    /// READ-4. "A reader MUST report as an error a file that ends before what its header promises."
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.file.read_exact_at(buffer, offset);
        read.map_err(|error| Error::Unable(format!("reading from byte {offset} on: {error}")))
    }

    /// Ends with an error if the length is no longer what it was.
    pub fn check_length(&self) -> Result<()> {
        match regular(&self.file.metadata()?)? {
            length if length == self.length => Ok(()),
            _ => Err(Error::Unable("the file changed while it was read".into())),
        }
    }
}

fn regular(metadata: &Metadata) -> Result<u64> {
    if metadata.is_file() {
        Ok(metadata.len())
    } else {
        Err(Error::Unable("not a regular file".into()))
    }
}
