//! What can go wrong: a requirement of the SPEC is broken, or something cannot be done.

use std::fmt;

/// Why a file is refused or a request not answered.
#[derive(Debug)]
pub enum Error {
    /// A requirement is broken.
    Broken(Finding),
    /// The file cannot be read, or the request makes no sense.
    Unable(String),
}

/// A requirement that is broken, and where.
#[derive(Debug)]
pub struct Finding {
    /// The id of the requirement, like `PACK-2`.
    pub clause: &'static str,
    /// What was found, with the tensor and the byte where there are such.
    pub detail: String,
}

/// The result of everything that reads.
pub type Result<T> = std::result::Result<T, Error>;

/// The error of breaking `clause`.
pub fn broken(clause: &'static str, detail: impl Into<String>) -> Error {
    let detail = detail.into();
    Error::Broken(Finding { clause, detail })
}

/// Goes on only if the requirement `clause` `holds`.
pub fn ensure(holds: bool, clause: &'static str, detail: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(broken(clause, detail()))
    }
}

/// The beginning of a string of a file, escaped: it may be of any length and act on a terminal.
pub fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

impl Error {
    /// The same error, whose `place` is now known.
    #[must_use]
    pub fn within(self, place: &str) -> Error {
        match self {
            Error::Broken(Finding { clause, detail }) => {
                broken(clause, format!("{place}: {detail}"))
            }
            unable @ Error::Unable(_) => unable,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.clause, self.detail)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Broken(finding) => finding.fmt(f),
            Error::Unable(reason) => reason.fmt(f),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::Unable(error.to_string())
    }
}
