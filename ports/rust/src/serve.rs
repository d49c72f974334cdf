//! docs/protocol.md: answers to requests, one JSON object a line.

use crate::file::{verify, TritFile};
use crate::header::{Header, Tensor};
use crate::json::{quote, read_array, read_object, read_string};
use crate::sha256::sha256;
use crate::tensor::{Float, Trit, CODE_PLANES};
use crate::trits::{check_depth, join, pack, split, unpack, Plane};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fmt::LowerHex;
use std::io::{BufRead, Write};

/// Answers each line of `input` on `output`, until `input` ends.
pub fn serve(input: impl BufRead, mut output: impl Write) -> Result<()> {
    for line in input.split(b'\n') {
        let line = line?;
        let request = Request(std::str::from_utf8(&line).ok().and_then(read_object).unwrap_or_default());
        let seq = request.get("seq", read_integer).map_or("null".into(), |seq| seq.to_string());
        let answer = match request.answer() {
            Ok(result) => format!(r#""result": {{{result}}}"#),
            Err(Error::Broken(clause, _)) => format!(r#""result": {{"error": "{clause}"}}"#),
            Err(Error::Unable(reason)) => format!(r#""skipped": {}"#, quote(&reason)),
        };
        writeln!(output, r#"{{"seq": {seq}, {answer}}}"#)?;
        output.flush()?;
    }
    Ok(())
}

/// The values of a request by their keys, as JSON.
struct Request<'a>(HashMap<String, &'a str>);

/// What gives a String gives the fields of a JSON object.
impl Request<'_> {
    fn answer(&self) -> Result<String> {
        Ok(match self.get("cmd", read_string)?.as_str() {
            "verify" => verdict(verify(self.get("file", read_string)?.as_ref()))?.0,
            "header" => header(&TritFile::open(self.get("file", read_string)?.as_ref())?),
            "decode" => self.decode()?,
            "pack" => format!(r#""packed": {}"#, hex(&pack(self.plane()?, &self.get("trits", read_trits)?)?)),
            "unpack" => {
                format!(r#""trits": {}"#, hex(&unpack(self.plane()?, &self.get("packed", read_hex)?)?))
            }
            "split" => {
                let planes = split(&self.get("levels", read_trits)?, self.depth()?)?;
                format!(r#""planes": {}"#, list(planes.iter().map(|plane| hex(plane))))
            }
            "join" => {
                let read = |json: &str| read_array(json)?.into_iter().map(read_trits).collect();
                let planes: Vec<_> = self.get("planes", read)?;
                format!(r#""levels": {}"#, hex(&join(&planes)?))
            }
            other => return Err(Error::Unable(format!("no {other}"))),
        })
    }

    fn decode(&self) -> Result<String> {
        let file = TritFile::open(self.get("file", read_string)?.as_ref())?;
        let name = self.get("tensor", read_string)?;
        let tensor = file.header.tensors.iter().find(|tensor| tensor.name == name);
        let tensor = tensor.ok_or_else(|| Error::Unable(format!("no tensor {name}")))?;
        let shape = &tensor.shape;
        let trit = match &tensor.trit {
            Some(trit) => trit,
            None => {
                file.scan(tensor, 0, |_| ())?;
                return Ok(format!(r#""shape": {shape:?}, "values": {}"#, hex(&tensor.segments[0].digest)));
            }
        };
        let whole = self.get("depth", |json| Some(json == "null"))?;
        let depth = if whole { trit.depth } else { self.depth()?.min(trit.depth) };
        let float = self.get("dtype", |json| Float::named(&read_string(json)?))?;
        let read_plane = |part| {
            let mut bytes = Vec::new();
            file.scan(tensor, part, |piece| bytes.extend_from_slice(piece))?;
            unpack(trit.plane(part), &bytes)
        };
        let planes = (0..CODE_PLANES + depth).map(read_plane).collect::<Result<_>>()?;
        let (levels, codes, weights) = trit.decode(planes)?;
        let digest = |bytes: Vec<u8>| sha256([Ok(bytes)]).map(|digest| hex(&digest));
        let levels = digest(levels.into_iter().map(|k| k as u8).collect())?;
        let (codes, values) = (digest(codes)?, digest(float.encode(&weights))?);
        Ok(format!(r#""shape": {shape:?}, "levels": {levels}, "codes": {codes}, "values": {values}"#))
    }

    /// The value of a key, where there is one that can be read.
    fn get<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Result<T> {
        let value = self.0.get(key).and_then(|json| read(json));
        value.ok_or_else(|| Error::Unable(format!("no {key} that makes sense")))
    }

    fn depth(&self) -> Result<usize> {
        let depth = self.get("depth", read_integer)?;
        check_depth(depth.try_into().unwrap_or(0)) // below 0 is as wrong as 0
    }

    fn plane(&self) -> Result<Plane> {
        let size = |key| self.get(key, |json| json.parse::<u32>().ok());
        Ok(Plane { rows: size("rows")?.into(), columns: size("columns")?.into() })
    }
}

/// The verdict that comes of `verify`, and the exit status that tells it.
pub fn verdict(verified: Result<TritFile>) -> Result<(String, u8)> {
    let (verdict, clause, status) = match verified {
        Ok(_) => ("valid", "null".into(), 0),
        // "A file that breaks PRE-3 or PRE-4 is *unsupported* rather than invalid"
        Err(Error::Broken(clause @ ("PRE-3" | "PRE-4"), _)) => ("unsupported", quote(clause), 3),
        Err(Error::Broken(clause, _)) => ("invalid", quote(clause), 1),
        Err(unable) => return Err(unable),
    };
    Ok((format!(r#""verdict": "{verdict}", "clause": {clause}"#), status))
}

fn header(file: &TritFile) -> String {
    let Header { minor, metadata, tensors, .. } = &file.header;
    let metadata = metadata.iter().map(|(key, value)| format!("{}: {}", quote(key), quote(value)));
    let metadata = metadata.collect::<Vec<_>>().join(", ");
    let (identity, tensors) = (hex(&file.identity), list(tensors.iter().map(describe)));
    let lists = format!(r#""metadata": {{{metadata}}}, "tensors": {tensors}"#);
    format!(r#""identity": {identity}, "version": [1, {minor}], {lists}"#)
}

fn describe(tensor: &Tensor) -> String {
    let (name, dtype, shape) = (quote(&tensor.name), quote(&tensor.dtype), &tensor.shape);
    let offsets: Vec<_> = tensor.segments.iter().map(|segment| segment.offset).collect();
    let fields = format!(r#""name": {name}, "dtype": {dtype}, "shape": {shape:?}, "offsets": {offsets:?}"#);
    match &tensor.trit {
        None => format!(r#"{{{fields}, "kind": "raw"}}"#),
        Some(Trit { depth, shift, group_size, codebook, .. }) => {
            let codebook = hex(&codebook.iter().flat_map(|step| step.to_le_bytes()).collect::<Vec<_>>());
            let numbers = format!(r#""depth": {depth}, "shift": {shift}, "group_size": {group_size}"#);
            format!(r#"{{{fields}, "kind": "trit", {numbers}, "codebook": {codebook}}}"#)
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// An array in hexadecimal.
fn hex(array: &[impl LowerHex]) -> String {
    quote(&array.iter().map(|value| format!("{value:02x}")).collect::<String>())
}

fn read_hex(json: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<_>> = read_string(json)?.chars().map(|digit| digit.to_digit(16)).collect();
    digits?.chunks(2).map(|pair| Some((pair[0] << 4 | pair.get(1)?) as u8)).collect()
}

fn read_integer(json: &str) -> Option<i64> {
    json.parse().ok()
}

fn read_trits(json: &str) -> Option<Vec<i8>> {
    Some(read_hex(json)?.into_iter().map(|byte| byte as i8).collect())
}
