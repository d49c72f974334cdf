//! docs/protocol.md: answers to requests, one JSON object a line.

use crate::decode::decode;
use crate::document::{Document, Opened};
use crate::error::{Error, Result};
use crate::header::{Kind, Tensor};
use crate::json::{quote, Json};
use crate::packing::{pack, unpack, Plane};
use crate::rounding::Dtype;
use crate::trits::{check_depth, join, split};
use crate::verify::{verify, Verdict};
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

const MAX_REQUEST: usize = 1 << 20;

/// Answers each request of `input` on `output`, until `input` ends.
pub fn serve(input: &mut dyn BufRead, output: &mut dyn Write) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        input.take(MAX_REQUEST as u64 + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() > MAX_REQUEST && line.last() != Some(&b'\n') {
            input.skip_until(b'\n')?;
            line.clear();
        }
        writeln!(output, "{}", respond(&line))?;
        output.flush()?;
    }
}

/// The verdict as JSON.
pub fn verdict_json(verdict: Verdict) -> String {
    let (word, clause) = match verdict {
        Verdict::Valid => ("valid", "null".into()),
        Verdict::Invalid(clause) => ("invalid", quote(clause)),
        Verdict::Unsupported(clause) => ("unsupported", quote(clause)),
    };
    object([("verdict", quote(word)), ("clause", clause)])
}

fn respond(line: &[u8]) -> String {
    let request = std::str::from_utf8(line).ok().and_then(Json::parse);
    let seq = request.as_ref().and_then(|request| request.get("seq")?.integer());
    let unreadable = unable("not a JSON object of at most 1 MiB");
    let answer = match request.as_ref().map_or(unreadable, answer) {
        Ok(result) => ("result", result),
        Err(Error::Broken(finding)) => ("result", object([("error", quote(finding.clause))])),
        Err(Error::Unable(reason)) => ("skipped", quote(&reason)),
    };
    object([("seq", seq.unwrap_or("null").into()), answer])
}

fn answer(request: &Json) -> Result<String> {
    match text(request, "cmd")? {
        "verify" => verify(path(request)?, &mut |_| ()).map(verdict_json),
        "header" => answer_header(request),
        "decode" => answer_decode(request),
        "pack" => {
            let packed = pack(plane(request)?, &trits(request, "trits")?)?;
            Ok(object([("packed", hex(&packed))]))
        }
        "unpack" => {
            let trits = unpack(plane(request)?, bytes(request.get("packed"))?)?;
            Ok(object([("trits", signed_hex(&trits))]))
        }
        "split" => {
            let depth = check_depth(depth_of(request)?)?;
            let planes = split(&trits(request, "levels")?, depth)?;
            Ok(object([("planes", list(planes.iter().map(|plane| signed_hex(plane))))]))
        }
        "join" => {
            let Some(Json::List(planes)) = request.get("planes") else {
                return unable("no planes");
            };
            let planes: Result<Vec<_>> =
                planes.iter().map(|p| bytes(Some(p)).map(signed)).collect();
            Ok(object([("levels", signed_hex(&join(&planes?)?))]))
        }
        other => unable(&format!("no {other}")),
    }
}

fn answer_header(request: &Json) -> Result<String> {
    let opened = Opened::open(path(request)?)?;
    let document = opened.document()?;
    let Document { preamble, header, .. } = &document;
    Ok(object([
        ("identity", hex(&preamble.identity)),
        ("version", format!("[1, {}]", preamble.minor)),
        ("metadata", object(header.metadata.iter().map(|(key, value)| (*key, quote(value))))),
        ("tensors", list(header.tensors.iter().zip(offsets(&document)).map(describe))),
    ]))
}

/// The offsets of the segments of each tensor, "in the order of the entry's digests".
fn offsets(document: &Document) -> Vec<Vec<u64>> {
    let mut offsets = vec![Vec::new(); document.header.tensors.len()];
    for segment in &document.segments {
        offsets[segment.tensor].push(segment.offset); // the file has a tensor's parts in this order
    }
    offsets
}

fn describe((tensor, offsets): (&Tensor, Vec<u64>)) -> String {
    let mut fields = vec![
        ("name", quote(tensor.name)),
        ("shape", format!("{:?}", tensor.shape)),
        ("offsets", format!("{offsets:?}")),
    ];
    fields.extend(match &tensor.kind {
        Kind::Raw { dtype, .. } => vec![("kind", quote("raw")), ("dtype", quote(dtype))],
        Kind::Trit(trit) => {
            let codebook: Vec<u8> = trit.codebook.iter().flat_map(|s| s.to_le_bytes()).collect();
            vec![
                ("kind", quote("trit")),
                ("dtype", quote(trit.dtype.facts().0)),
                ("depth", trit.depth.to_string()),
                ("shift", trit.shift.to_string()),
                ("group_size", trit.group_size.to_string()),
                ("codebook", hex(&codebook)),
            ]
        }
    });
    object(fields)
}

fn answer_decode(request: &Json) -> Result<String> {
    let dtype = match request.get("dtype").and_then(Json::text) {
        Some(name) => Some(Dtype::named(name).ok_or(Error::Unable(format!("no dtype {name}")))?),
        None => None,
    };
    let depth = match request.get("depth") {
        None | Some(Json::Word(_)) => None,
        Some(_) => Some(depth_of(request)?),
    };
    let opened = Opened::open(path(request)?)?;
    let document = opened.document()?;
    let (name, tensors) = (text(request, "tensor")?, &document.header.tensors);
    let found = tensors.binary_search_by(|tensor| tensor.name.cmp(name));
    let Ok(n) = found else { return unable(&format!("no tensor {name}")) };
    let mut fields = vec![("shape", format!("{:?}", tensors[n].shape))];
    let asked = depth.filter(|_| matches!(tensors[n].kind, Kind::Trit { .. }));
    let digests = decode(&document, n, asked.map(check_depth).transpose()?, dtype)?;
    fields.extend(digests.iter().map(|(key, digest)| (*key, hex(digest))));
    Ok(object(fields))
}

fn unable<T>(reason: &str) -> Result<T> {
    Err(Error::Unable(reason.into()))
}

fn text<'a>(request: &'a Json, key: &str) -> Result<&'a str> {
    let text = request.get(key).and_then(Json::text);
    text.ok_or_else(|| Error::Unable(format!("no string {key}")))
}

fn path(request: &Json) -> Result<&Path> {
    text(request, "file").map(Path::new)
}

fn integer(request: &Json, key: &str) -> Result<u64> {
    let digits = request.get(key).and_then(Json::integer);
    let value = digits.and_then(|digits| digits.parse().ok());
    value.ok_or_else(|| Error::Unable(format!("no integer {key} that is not negative")))
}

/// A depth, 0 for a negative one: TEN-2 refuses both.
fn depth_of(request: &Json) -> Result<u64> {
    let digits = request.get("depth").and_then(Json::integer);
    if digits.is_some_and(|digits| digits.starts_with('-')) { Ok(0) } else { integer(request, "depth") }
}

fn plane(request: &Json) -> Result<Plane> {
    Ok(Plane { rows: integer(request, "rows")?, columns: integer(request, "columns")? })
}

fn trits(request: &Json, key: &str) -> Result<Vec<i8>> {
    bytes(request.get(key)).map(signed)
}

/// The bytes of a string of hexadecimal digits.
fn bytes(json: Option<&Json>) -> Result<Vec<u8>> {
    let digits = json.and_then(Json::text).map(str::as_bytes);
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(&pair[0])? << 4 | digit(pair.get(1)?)?).ok();
    let bytes = digits.and_then(|digits| digits.chunks(2).map(byte).collect());
    bytes.ok_or_else(|| Error::Unable("an array that is not in hexadecimal".into()))
}

/// A JSON string of the bytes in lowercase hexadecimal.
fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    quote(&digits.map(|digit| char::from(b"0123456789abcdef"[digit as usize])).collect::<String>())
}

fn signed(bytes: Vec<u8>) -> Vec<i8> {
    bytes.into_iter().map(u8::cast_signed).collect()
}

fn signed_hex(values: &[i8]) -> String {
    hex(&values.iter().map(|value| value.cast_unsigned()).collect::<Vec<u8>>())
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let pairs = fields.into_iter().map(|(key, value)| format!("{}: {value}", quote(key)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}
