//! What the golden fixtures do not prove: every boundary of rounding, odd JSON, and that what the sources quote
//! stands in SPEC.md.

use crate::header::Header;
use crate::json::{quote, read_array, read_object, read_string};
use crate::sha256::sha256;
use crate::tensor::Float;
use crate::trits::{pack, unpack, Plane};
use crate::Error;
use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::Path;

/// The value of a positive pattern with `fraction` bits of significand; that of infinity is the next power of 2.
fn value(pattern: u32, fraction: i32, bias: i32) -> f64 {
    let (exponent, low) = (pattern >> fraction, pattern & ((1 << fraction) - 1));
    let significand = if exponent > 0 { low | 1 << fraction } else { low };
    f64::from(significand) * 2_f64.powi(exponent.max(1) as i32 - bias - fraction)
}

/// Between each two neighbours, what lies on the lower, and just below, on and just above the middle.
fn check_rounding(dtype: &str, infinity: u32, fraction: i32, bias: i32) {
    let float = Float::named(dtype).unwrap();
    let round = |bits: u32| {
        u32::from_le_bytes([&float.encode(&[f32::from_bits(bits)])[..], &[0; 2]].concat().try_into().unwrap())
    };
    for low in 0..infinity {
        let [exact, next] = [low, low + 1].map(|pattern| value(pattern, fraction, bias));
        let middle = (((exact + next) / 2.0) as f32).to_bits();
        let cases = [
            ((exact as f32).to_bits(), low),
            (middle - 1, low),
            (middle, low + low % 2),
            (middle + 1, low + 1),
        ];
        for (bits, wanted) in cases {
            assert_eq!(round(bits), wanted, "{dtype} {bits:08x}");
            assert_eq!(round(bits | 1 << 31), wanted | 0x8000, "{dtype} -{bits:08x}");
        }
    }
    assert_eq!(round(0x7F7F_FFFF), infinity);
}

#[test]
fn rounding_is_right_at_every_boundary() {
    check_rounding("F16", 0x7C00, 10, 15);
    check_rounding("BF16", 0x7F80, 7, 127);
}

#[test]
fn sha256_of_known_messages() {
    let known = [
        ("abc".to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".to_string(),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        ("a".repeat(1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ];
    for (message, digest) in known {
        for size in [64, 640, 1 << 20] {
            let found = sha256(message.as_bytes().chunks(size).map(Ok)).unwrap_or_default();
            assert_eq!(found.map(|byte| format!("{byte:02x}")).concat(), digest);
        }
    }
}

#[test]
fn planes_of_any_size_are_refused_where_the_bytes_do_not_fit() {
    let most = u64::from(u32::MAX);
    for (rows, columns) in [(most, most), (most, 1), (1, most)] {
        assert!(matches!(unpack(Plane { rows, columns }, &[121]), Err(Error::Broken("PACK-1", _))));
        assert!(matches!(pack(Plane { rows, columns }, &[0]), Err(Error::Broken("PACK-1", _))));
    }
    for (rows, columns) in [(most, 0), (0, most)] {
        assert_eq!(unpack(Plane { rows, columns }, &[]).ok(), Some(vec![]));
        assert_eq!(pack(Plane { rows, columns }, &[]).ok(), Some(vec![]));
    }
}

#[test]
fn the_pieces_of_a_plane_are_as_right_as_the_whole() {
    let plane = Plane { rows: 6, columns: 10 }; // the bytes from 10 on are padded
    for (at, byte, clause) in
        [(3, 243, "PACK-2"), (15, 255, "PACK-2"), (10, 0, "PACK-3"), (19, 242, "PACK-3")]
    {
        let mut packed = [121; 20];
        packed[at] = byte;
        for (start, end) in (0..20).flat_map(|start| (start..=20).map(move |end| (start, end))) {
            let found = plane.check(start as u64, &packed[start..end]);
            match (start..end).contains(&at) {
                true => assert!(
                    matches!(found, Err(Error::Broken(c, d)) if c == clause && d == format!("{byte} at byte {at}"))
                ),
                false => assert!(found.is_ok()),
            }
        }
    }
}

#[test]
fn messages_do_not_repeat_what_a_file_says_at_length() {
    let long = [&[0xDA, 0xFF, 0xFF][..], &[1; 0xFFFF]].concat(); // a str of control characters
    let cases: [(&str, &[u8], &[u8]); 3] = [
        ("VER-1", b"\x81", b"\x00"),
        ("MP-3", b"\x82\xA8metadata\x80", b"\x00"),
        ("ENT-2", b"\x81\xA7tensors\x91\x81\xA4kind", b""),
    ];
    for (wanted, before, after) in cases {
        match Header::parse(&[before, &long[..], after].concat(), 0) {
            Err(Error::Broken(clause, detail)) => {
                assert!(clause == wanted && detail.len() < 1000, "{detail}")
            }
            _ => panic!("no {wanted}"),
        }
    }
}

#[test]
fn json_is_read_and_written() {
    let text = "\u{0}\"\\/\u{8}\u{c}\n\r\t\u{7f}é\u{ffff}😀";
    assert_eq!(read_string(&quote(text)).as_deref(), Some(text));
    assert_eq!(
        read_string(r#""\ud83d\uDE00\u00e9\/\b\f\n\r\t\"""#).as_deref(),
        Some("😀é/\u{8}\u{c}\n\r\t\"")
    );
    for wrong in ["", "\"", "a", r#""\"#, r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\n""#] {
        assert_eq!(read_string(wrong), None, "{wrong}");
    }
    let object =
        read_object(r#" {"a,b" : [1.5, {"c": ":]}\""}, []], "n":-12,"a,b":[ "x" , "\\", "[,]" ] } "#)
            .unwrap();
    assert_eq!(object.len(), 2);
    assert_eq!(object["n"], "-12");
    assert_eq!(read_array(object["a,b"]), Some(vec![r#""x""#, r#""\\""#, r#""[,]""#]));
    for wrong in ["", "{", "[7]", r#"{"a"}"#, r#"{"a":}"#, "{1:2}", r#"{"a":1:2}"#, r#"{"a":1"#] {
        assert_eq!(read_object(wrong), None, "{wrong}");
    }
    assert_eq!(read_object(&"[".repeat(100_000)), None);
}

/// Text without what Markdown and comments add to it.
fn plain(text: &str) -> String {
    text.replace(['`', '*'], "").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The comments of a source file: what stands before and what stands inside each pair of quotation marks.
fn quotations(source: &str) -> Vec<(String, String)> {
    let comments = source
        .lines()
        .filter_map(|line| line.split_once("//"))
        .map(|(_, comment)| comment.trim_start_matches(['/', '!']));
    let comments = plain(&comments.collect::<Vec<_>>().join("\n"));
    let parts: Vec<&str> = comments.split('"').collect();
    assert_eq!(parts.len() % 2, 1, "quotation marks in pairs");
    parts.chunks_exact(2).map(|pair| (pair[0].to_string(), pair[1].to_string())).collect()
}

#[test]
fn what_is_quoted_stands_in_the_spec_and_every_requirement_is_quoted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = read_to_string(root.join("../../SPEC.md")).unwrap();
    let (spec, mut quoted) = (plain(&text), BTreeSet::new());
    for file in read_dir(root.join("src")).unwrap() {
        let source = read_to_string(file.unwrap().path()).unwrap();
        for (before, sentence) in quotations(&source) {
            let id = before.strip_suffix(". ").and_then(|before| before.rsplit(' ').next()).unwrap_or("");
            if id.contains('-') {
                assert!(spec.contains(&format!("{id}. {sentence}")), "{id}. {sentence:?}");
                quoted.insert(id.to_string());
            }
            for part in sentence.split(" [...] ") {
                assert!(spec.contains(part), "{part:?}");
            }
        }
    }
    let not_here = ["TEN-10", "WRITE-1", "WRITE-2", "WRITE-3"]; // what a reader may do, and what writers have to
    let ids = text
        .lines()
        .filter_map(|line| line.strip_prefix("**")?.split_once(".** "))
        .map(|(id, _)| id.to_string());
    let beyond = ["MM-", "XL-", "IDX-"]; // products, exchange layouts and folders of shards: not of a reader of one file
    let here = ids.filter(|id| !id.contains(' ') && !beyond.iter().any(|chapter| id.starts_with(chapter)));
    let missing: Vec<_> = here.filter(|id| !quoted.contains(id)).collect();
    assert_eq!(missing, not_here);
}
