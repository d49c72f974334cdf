//! As much JSON as docs/protocol.md needs. Every JSON object is read, and some text that is none.

use std::collections::HashMap;
use std::str::Chars;

/// The values of a JSON object by their keys, as JSON.
pub fn read_object(text: &str) -> Option<HashMap<String, &str>> {
    let pairs = split(text.trim().strip_prefix('{')?.strip_suffix('}')?, ',');
    let pair = |pair| match split(pair, ':')[..] {
        [key, value] => Some((read_string(key)?, value)),
        _ => None,
    };
    pairs.into_iter().map(pair).collect()
}

/// The values of a JSON array, as JSON.
pub fn read_array(text: &str) -> Option<Vec<&str>> {
    Some(split(text.strip_prefix('[')?.strip_suffix(']')?, ','))
}

/// The characters of a JSON string.
pub fn read_string(text: &str) -> Option<String> {
    let mut characters = text.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut units = Vec::new(); // of UTF-16: two escapes can make one character
    while let Some(character) = characters.next() {
        match character {
            '\\' => units.push(read_escape(&mut characters)?),
            _ => units.extend_from_slice(character.encode_utf16(&mut [0; 2])),
        }
    }
    String::from_utf16(&units).ok()
}

fn read_escape(characters: &mut Chars) -> Option<u16> {
    match characters.next()? {
        'b' => Some(0x08),
        't' => Some(0x09),
        'n' => Some(0x0A),
        'f' => Some(0x0C),
        'r' => Some(0x0D),
        'u' => u16::from_str_radix(&characters.take(4).collect::<String>(), 16).ok(),
        other => Some(other as u16), // a quotation mark or a slash
    }
}

/// The parts of `text` between separators that stand in no string, array or object.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut nesting, mut quoted, mut escaped) = (0, false, false);
    let parts = text.split(|character| {
        match character {
            _ if escaped => {}
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => nesting += 1,
            ']' | '}' if !quoted => nesting -= 1,
            _ => {}
        }
        escaped = quoted && !escaped && character == '\\';
        character == separator && nesting == 0 && !quoted
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// A JSON string of `text`.
pub fn quote(text: &str) -> String {
    let escape = |character| match character {
        '"' | '\\' => format!("\\{character}"),
        '\0'..='\x1F' => format!("\\u{:04x}", character as u32),
        _ => character.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}
