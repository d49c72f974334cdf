//! Just as much JSON as docs/protocol.md needs.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

const MAX_NESTING: usize = 32;

/// A JSON value.
#[derive(Debug, PartialEq)]
pub enum Json {
    /// null, true or false.
    Word(String),
    /// A number, as it was written.
    Number(String),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, its keys in any order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The value that `text` is; none if it is not JSON.
    pub fn parse(text: &str) -> Option<Json> {
        let mut parser = Parser { chars: text.chars().peekable() };
        let value = parser.value(0)?;
        parser.space();
        parser.chars.next().is_none().then_some(value)
    }

    /// The value at a key of an object; the last one where there are several.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(pairs) => {
                pairs.iter().rev().find(|pair| pair.0 == key).map(|pair| &pair.1)
            }
            _ => None,
        }
    }

    /// The characters of a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The digits of an integer.
    pub fn integer(&self) -> Option<&str> {
        match self {
            Json::Number(digits) if !digits.contains(['.', 'e', 'E']) => Some(digits),
            _ => None,
        }
    }
}

/// `text` as a JSON string.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..='\x1F' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character)); // into a String: cannot fail
            }
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
}

/// Each method gives none where the text is not JSON.
impl Parser<'_> {
    fn value(&mut self, nesting: usize) -> Option<Json> {
        self.space();
        match self.chars.peek()? {
            '{' if nesting < MAX_NESTING => self.object(nesting),
            '[' if nesting < MAX_NESTING => self.list(nesting),
            '"' => self.string().map(Json::Text),
            'a'..='z' => {
                let word = self.run(|c| c.is_ascii_lowercase());
                matches!(&*word, "null" | "true" | "false").then_some(Json::Word(word))
            }
            '-' | '0'..='9' => self.number(),
            _ => None,
        }
    }

    fn object(&mut self, nesting: usize) -> Option<Json> {
        let mut pairs = Vec::new();
        self.items('}', |parser| {
            let key = parser.string()?;
            parser.space();
            parser.expect(':')?;
            pairs.push((key, parser.value(nesting + 1)?));
            Some(())
        })?;
        Some(Json::Object(pairs))
    }

    fn list(&mut self, nesting: usize) -> Option<Json> {
        let mut values = Vec::new();
        self.items(']', |parser| {
            values.push(parser.value(nesting + 1)?);
            Some(())
        })?;
        Some(Json::List(values))
    }

    /// Items with commas between them, from an opening bracket to the closing one.
    fn items(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.chars.next();
        self.space();
        if self.chars.next_if_eq(&close).is_some() {
            return Some(());
        }
        loop {
            self.space();
            item(self)?;
            self.space();
            match self.chars.next()? {
                ',' => {}
                end => return (end == close).then_some(()),
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            match self.chars.next()? {
                '"' => return Some(text),
                '\\' => text.push(self.escape()?),
                '\0'..='\x1F' => return None,
                character => text.push(character),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.chars.next()? {
            character @ ('"' | '\\' | '/') => character,
            'b' => '\x08',
            'f' => '\x0C',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.escaped_unit(),
            _ => return None,
        })
    }

    /// A UTF-16 unit in hexadecimal, or two, escaped each, where the first is a high surrogate.
    fn escaped_unit(&mut self) -> Option<char> {
        let mut units = vec![self.hexadecimal()?];
        if (0xD800..0xDC00).contains(&units[0]) {
            self.expect('\\')?;
            self.expect('u')?;
            units.push(self.hexadecimal()?);
        }
        char::decode_utf16(units).next()?.ok()
    }

    fn hexadecimal(&mut self) -> Option<u16> {
        let digit = |_| self.chars.next()?.to_digit(16);
        let unit = (0..4).map(digit).try_fold(0, |unit, digit| Some(unit << 4 | digit?))?;
        u16::try_from(unit).ok()
    }

    /// A number: what Rust reads as one, without leading zeros; a little more than JSON (`1.`).
    fn number(&mut self) -> Option<Json> {
        let digits = self.run(|c| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E'));
        let after_zero = digits.trim_start_matches('-').strip_prefix('0').unwrap_or("");
        let plain = !after_zero.starts_with(|c: char| c.is_ascii_digit());
        (plain && digits.parse::<f64>().is_ok()).then_some(Json::Number(digits))
    }

    fn run(&mut self, wanted: impl Fn(char) -> bool) -> String {
        std::iter::from_fn(|| self.chars.next_if(|&c| wanted(c))).collect()
    }

    fn space(&mut self) {
        self.run(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
    }

    fn expect(&mut self, character: char) -> Option<()> {
        self.chars.next_if_eq(&character).map(drop)
    }
}
