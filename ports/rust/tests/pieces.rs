//! The pieces below the file, where it can be swept through all values of their small domains.

use trit::canonical::Reader;
use trit::error::{Error, Result};
use trit::json::{quote, Json};
use trit::packing::{pack, unpack, Plane};
use trit::rounding::Dtype;
use trit::sha256::{sha256, Sha256};
use trit::tensor::elements;
use trit::trits::{join, largest_level, split};

fn clause<T>(result: Result<T>) -> &'static str {
    match result {
        Ok(_) => "none",
        Err(Error::Broken(finding)) => finding.clause,
        Err(Error::Unable(_)) => "unable",
    }
}

#[test]
fn every_level_is_split_and_joined() {
    for depth in 1..=4 {
        let largest = largest_level(depth);
        let levels: Vec<i8> = (-largest..=largest).collect();
        assert_eq!(levels.len(), 3_usize.pow(u32::try_from(depth).unwrap()));
        assert_eq!(join(&split(&levels, depth).unwrap()).unwrap(), levels);
        assert_eq!(clause(split(&[largest + 1], depth)), "TRIT-2");
        assert_eq!(clause(split(&[-largest - 1], depth)), "TRIT-2");
    }
    assert_eq!(split(&[5], 3).unwrap(), [[-1], [-1], [1]]);
    assert_eq!(clause(join(&[])), "TEN-2");
}

#[test]
fn every_byte_is_five_trits_or_none() {
    for byte in 0..=255 {
        let plane = Plane { rows: 5, columns: 1 };
        match unpack(plane, vec![byte]) {
            Ok(trits) => assert_eq!(pack(plane, &trits).unwrap(), [byte]),
            broken => assert_eq!((clause(broken), byte > 242), ("PACK-2", true)),
        }
    }
}

#[test]
fn only_zeros_pad_a_byte() {
    for rows in 1..=5_u32 {
        for byte in 0..=242_u32 {
            let padded = (rows..5).all(|i| byte / 3_u32.pow(i) % 3 == 1);
            let found = unpack(Plane { rows: rows.into(), columns: 1 }, vec![byte as u8]);
            assert_eq!(clause(found), if padded { "none" } else { "PACK-3" });
        }
    }
}

#[test]
fn the_flaw_of_a_part_is_counted_from_the_start_of_the_plane() {
    let plane = Plane { rows: 6, columns: 10 };
    let mut packed = [121; 20];
    packed[13] = 0;
    for start in 0..20 {
        let flaw = plane.flaw(start, &packed[start as usize..]);
        assert_eq!(flaw.map(|flaw| flaw.at), (start <= 13).then_some(13));
        assert_eq!(plane.flaw(start, &[]), None);
    }
}

#[test]
fn sizes_that_overflow_are_refused() {
    let most = u64::MAX;
    for (rows, columns) in [(most, most), (most, 6), (6, most), (1 << 63, 1 << 63)] {
        assert_eq!(clause(unpack(Plane { rows, columns }, vec![121])), "PACK-1");
        assert_eq!(clause(pack(Plane { rows, columns }, &[0])), "PACK-1");
    }
    assert_eq!(unpack(Plane { rows: most, columns: 0 }, vec![]).unwrap(), []);
    assert_eq!(clause(elements(&[most, most, most])), "SHAPE-2");
    assert_eq!(elements(&[1 << 48, 0]).unwrap(), 0);
    assert_eq!(elements(&[]).unwrap(), 1);
}

/// The value of a positive finite binary16 or bfloat16, with `fraction` bits of significand.
fn value(pattern: u32, fraction: u32, bias: i32) -> f64 {
    let (exponent, low) = (pattern >> fraction, pattern & ((1 << fraction) - 1));
    let significand = if exponent > 0 { low | 1 << fraction } else { low };
    f64::from(significand)
        * 2_f64.powi(exponent.max(1).cast_signed() - bias - fraction.cast_signed())
}

/// Between each two neighbours, what lies on, just below and just above the middle.
fn check_rounding(dtype: Dtype, infinity: u32, fraction: u32, bias: i32) {
    #[allow(clippy::cast_possible_truncation)]
    let pattern = |value: f64| (value as f32).to_bits();
    for low in 0..infinity {
        let [exact, next] = [low, low + 1].map(|bits| value(bits, fraction, bias));
        let middle = pattern(f64::midpoint(exact, next));
        let even = low + low % 2;
        let cases =
            [(pattern(exact), low), (middle - 1, low), (middle, even), (middle + 1, low + 1)];
        for (bits, wanted) in cases {
            assert_eq!(dtype.round(bits), wanted, "{bits:08x}");
            assert_eq!(dtype.round(bits | 1 << 31), wanted | 0x8000, "-{bits:08x}");
        }
    }
    assert_eq!(dtype.round(0x7F7F_FFFF), infinity);
    assert_eq!(dtype.round(1), 0);
}

#[test]
fn binary16_is_rounded_right_at_every_boundary() {
    check_rounding(Dtype::F16, 0x7C00, 10, 15);
}

#[test]
fn bfloat16_is_rounded_right_at_every_boundary() {
    check_rounding(Dtype::BF16, 0x7F80, 7, 127);
}

#[test]
fn sha256_of_known_messages() {
    // FIPS 180-4's examples, and python3 -c 'import hashlib; print(hashlib.sha256(b"a" * 10**6).hexdigest())'
    let known = [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            &"a".repeat(1_000_000),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ),
    ];
    for (message, digest) in known {
        let found: String = sha256(message.as_bytes()).map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(found, digest);
    }
}

#[test]
fn sha256_does_not_depend_on_the_pieces() {
    let message: Vec<u8> = (0..=250).collect();
    for first in 0..130 {
        for second in first..200 {
            let mut hash = Sha256::default();
            hash.update(&message[..first]);
            hash.update(&message[first..second]);
            hash.update(&message[second..]);
            assert_eq!(hash.finish(), sha256(&message));
        }
    }
}

#[test]
fn each_form_of_messagepack_is_read_only_where_it_is_the_shortest() {
    let forms: [(u8, usize, u64); 13] = [
        (0xC4, 1, 0),
        (0xC5, 2, 1 << 8),
        (0xC6, 4, 1 << 16),
        (0xCC, 1, 128),
        (0xCD, 2, 1 << 8),
        (0xCE, 4, 1 << 16),
        (0xCF, 8, 1 << 32),
        (0xD9, 1, 32),
        (0xDA, 2, 1 << 8),
        (0xDB, 4, 1 << 16),
        (0xDC, 2, 16),
        (0xDD, 4, 1 << 16),
        (0xDF, 4, 1 << 16),
    ];
    for (first, size, least) in forms {
        let read = |value: u64| {
            let mut bytes = vec![first];
            bytes.extend_from_slice(&value.to_be_bytes()[8 - size..]);
            if (0xC4..=0xC6).contains(&first) || first >= 0xD9 {
                bytes.resize(bytes.len() + value as usize, 0); // strs, bins, arrays of zeros
            }
            let mut reader = Reader::new(&bytes);
            clause(reader.skip().and_then(|()| reader.end()))
        };
        let wanted = if first == 0xDF { "MP-3" } else { "none" }; // zeros are no keys
        assert_eq!(read(least), wanted, "{first:02x}");
        if least > 0 {
            assert_eq!(read(least - 1), "MP-2", "{first:02x}");
        }
    }
}

#[test]
fn no_first_byte_and_no_cut_makes_a_reader_panic() {
    for first in 0..=255_u8 {
        for fill in [0x00, 0x80, 0x91, 0xA1, 0xFF] {
            for length in 0..12 {
                let bytes = [vec![first], vec![fill; length]].concat();
                let found = clause(Reader::new(&bytes).skip());
                let never = matches!(first, 0xC0..=0xC3 | 0xC7..=0xCB | 0xD0..=0xD8 | 0xE0..);
                assert_eq!(found == "MP-1" && fill != 0xFF, never && fill != 0xFF, "{bytes:02x?}");
            }
        }
    }
    let deep = |depth: usize| [vec![0x91; depth - 1], vec![0x90]].concat();
    assert_eq!(clause(Reader::new(&deep(8)).skip()), "none");
    assert_eq!(clause(Reader::new(&deep(9)).skip()), "MP-6");
    assert_eq!(clause(Reader::new(&deep(1 << 20)).skip()), "MP-6");
}

#[test]
fn json_is_read_and_written() {
    let text = "\u{0}\"\\/\u{8}\u{c}\n\r\t\u{7f}é\u{ffff}😀";
    assert_eq!(Json::parse(&quote(text)), Some(Json::Text(text.into())));
    assert_eq!(Json::parse(r#" "\ud83d\uDE00\u00e9\/" "#), Some(Json::Text("😀é/".into())));
    for wrong in [
        "",
        "[",
        "[1,]",
        "{\"a\"}",
        "{\"a\":1,}",
        "\"",
        "\"\\x\"",
        "\"\\ud83d\"",
        "\"\\ude00\"",
        "\"\\ud83d\\n\"",
        "\"\\u12\"",
        "01",
        "-",
        "+1",
        "nul",
        "1 2",
        "\"\n\"",
        "[1}",
        "Infinity",
    ] {
        assert_eq!(Json::parse(wrong), None, "{wrong}");
    }
    let object = Json::parse(r#"{"a": [1.5, -2e3, {}, []], "n": -12, "a": true}"#).unwrap();
    assert_eq!(object.get("a"), Some(&Json::Word("true".into())));
    assert_eq!(object.get("n").and_then(Json::integer), Some("-12"));
    assert_eq!(Json::parse("1.0").unwrap().integer(), None);
}
