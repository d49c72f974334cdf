//! A reader, verifier and decoder of `.trit` files, written from SPEC.md and docs/protocol.md alone.
//!
//! The modules stand in the SPEC's order, and each uses only those above it. What stands in quotation marks in
//! a comment is the SPEC's; the id before it is the requirement that the next line checks.
#![forbid(unsafe_code)]

/// Returns the error of breaking a requirement, unless that holds.
macro_rules! ensure {
    ($holds:expr, $clause:literal, $($detail:tt)+) => {
        if !$holds {
            return Err($crate::Error::Broken($clause, format!($($detail)+)));
        }
    };
}

mod trits; // chapters 2 and 3
mod tensor; // chapters 4 and 5
mod messagepack; // 6.2
mod sha256; // FIPS 180-4
mod header; // chapter 6
mod file; // chapters 7 to 9
mod json;
mod serve; // docs/protocol.md

#[cfg(test)]
#[path = "../tests/pieces.rs"]
mod pieces;

use std::io::{stdin, stdout, Write};
use std::process::ExitCode;

/// Why a file is refused, or a request not answered.
pub enum Error {
    Broken(&'static str, String), // a requirement, and what was found where
    Unable(String),               // the file cannot be read, or the request makes no sense
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The same error, of which the `place` is now known.
    pub fn within(self, place: String) -> Error {
        match self {
            Error::Broken(clause, detail) => Error::Broken(clause, format!("{place}: {detail}")),
            unable => unable,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::Unable(error.to_string())
    }
}

/// The beginning of a string of a file, which can be of any length, and escaped, as it can act on a terminal.
fn short(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let status = match &arguments[..] {
        [command, file] if command == "verify" => verify(file.as_ref()),
        [command] if command == "serve" => serve::serve(stdin().lock(), stdout().lock()).map(|()| 0),
        _ => Err(Error::Unable("usage: trit verify FILE | trit serve".into())),
    };
    match status {
        Ok(status) => ExitCode::from(status),
        Err(Error::Broken(_, reason) | Error::Unable(reason)) => {
            eprintln!("{reason}");
            ExitCode::from(2)
        }
    }
}

/// Prints the verdict on a file, and on standard error what was found; gives the exit status.
fn verify(path: &std::path::Path) -> Result<u8> {
    let verified = file::verify(path);
    match &verified {
        Ok(file) => file.header.ignored.iter().for_each(|key| eprintln!("ignored the unknown key {key}")),
        Err(Error::Broken(clause, detail)) => eprintln!("{clause}: {detail}"),
        Err(Error::Unable(_)) => {}
    }
    let (verdict, status) = serve::verdict(verified)?;
    writeln!(stdout(), "{{{verdict}}}")?;
    Ok(status)
}
