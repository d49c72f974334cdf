//! `trit verify FILE` and `trit serve`, as docs/protocol.md asks.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use trit::serve::{serve, verdict_json};
use trit::verify::{verify, Verdict};

const UNABLE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match &arguments[..] {
        [command, file] if command == "verify" => verify_file(Path::new(file)),
        [command] if command == "serve" => {
            serve(&mut io::stdin().lock(), &mut io::stdout().lock()).map(|()| 0)
        }
        _ => Err(io::Error::other("usage: trit verify FILE | trit serve")),
    };
    ExitCode::from(result.unwrap_or_else(|error| {
        note(&error.to_string());
        UNABLE
    }))
}

fn verify_file(path: &Path) -> io::Result<u8> {
    let verdict = verify(path, &mut note).map_err(|error| io::Error::other(error.to_string()))?;
    writeln!(io::stdout(), "{}", verdict_json(verdict))?;
    Ok(match verdict {
        Verdict::Valid => 0,
        Verdict::Invalid(_) => 1,
        Verdict::Unsupported(_) => 3,
    })
}

/// A line on standard error; one that cannot be written is of no use to anybody.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
