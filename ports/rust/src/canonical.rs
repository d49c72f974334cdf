//! 6.2: canonical `MessagePack`, read value by value without making anything of it.

use crate::error::{broken, ensure, short, Result};
use crate::preamble::PREAMBLE;

const MAX_NESTING: usize = 8;

/// A place in the header, with the number of arrays and maps that are open there.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    nesting: usize,
}

/// The types of MP-1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    Integer,
    Str,
    Bin,
    Array,
    Map,
}

impl<'a> Reader<'a> {
    /// A reader of the whole header.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0, nesting: 0 }
    }

    /// An integer.
    pub fn integer(&mut self) -> Result<u64> {
        self.typed(Type::Integer)
    }

    /// A str.
    pub fn str(&mut self) -> Result<&'a str> {
        self.typed(Type::Str).and_then(|length| self.text(length))
    }

    /// A bin.
    pub fn bin(&mut self) -> Result<&'a [u8]> {
        self.typed(Type::Bin).and_then(|length| self.take(length))
    }

    /// The count of an array, whose values are then read by `values` or `list`.
    pub fn array(&mut self) -> Result<u64> {
        self.typed(Type::Array)
    }

    /// The count of a map, whose pairs are then read by `pairs`.
    pub fn map(&mut self) -> Result<u64> {
        self.typed(Type::Map)
    }

    /// The `count` values of an array, each as `read` gives it.
    pub fn list<T>(&mut self, count: u64, read: fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut list = Vec::new(); // grows with what is there, not with what is claimed
        self.values(count, |reader| read(reader).map(|value| list.push(value)))?;
        Ok(list)
    }

    /// Lets `read` read each of the `count` values of an array (or pairs of a map).
    pub fn values(
        &mut self,
        count: u64,
        mut read: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        // MP-6. "Arrays and maps MUST be nested at most 8 deep."
        ensure(self.nesting < MAX_NESTING, "MP-6", || self.place())?;
        self.nesting += 1;
        (0..count).try_for_each(|_| read(self))?;
        self.nesting -= 1;
        Ok(())
    }

    /// Lets `read` read the value at each of the `count` keys of a map.
    pub fn pairs(
        &mut self,
        count: u64,
        mut read: impl FnMut(&mut Self, &'a str) -> Result<()>,
    ) -> Result<()> {
        let mut last = None;
        self.values(count, |reader| {
            // MP-3. "The keys of a map MUST be str in strictly increasing order of their UTF-8
            // bytes." (A str of Rust is compared by them.)
            let start = *reader;
            let (found, length) = reader.head()?;
            ensure(found == Type::Str, "MP-3", || format!("no str as a key, {}", start.place()))?;
            let key = reader.text(length)?;
            let increasing = last.is_none_or(|last| last < key);
            ensure(increasing, "MP-3", || format!("key {}, {}", short(key), start.place()))?;
            last = Some(key);
            read(reader, key)
        })
    }

    /// Passes over any value, which has to be canonical.
    pub fn skip(&mut self) -> Result<()> {
        match self.head()? {
            (Type::Integer, _) => Ok(()),
            (Type::Str, length) => self.text(length).map(drop),
            (Type::Bin, length) => self.take(length).map(drop),
            (Type::Array, count) => self.values(count, Self::skip),
            (Type::Map, count) => self.pairs(count, |reader, _| reader.skip()),
        }
    }

    /// MP-5. "The header MUST be exactly one value, with nothing cut off and nothing after it."
    pub fn end(&self) -> Result<()> {
        ensure(self.at == self.bytes.len(), "MP-5", || format!("more bytes, {}", self.place()))
    }

    /// Where the reader is, for messages.
    pub fn place(&self) -> String {
        format!("byte {}", PREAMBLE + self.at as u64)
    }

    /// TYPE-1. "A value in the header MUST have the type that the tables of this chapter give it."
    ///
    /// A value of another type that also breaks a rule of encoding is reported with that.
    fn typed(&mut self, wanted: Type) -> Result<u64> {
        let mut start = *self;
        let (found, value) = self.head()?;
        if found == wanted {
            return Ok(value);
        }
        let error = broken("TYPE-1", format!("{found:?}, not {wanted:?}, {}", start.place()));
        start.skip().and(Err(error))
    }

    /// What the first bytes of a value say: an integer, or the length or count of what follows.
    fn head(&mut self) -> Result<(Type, u64)> {
        let first = self.take(1)?[0];
        let low = |mask| Ok(u64::from(first & mask));
        let (found, value) = match first {
            0x00..=0x7F => (Type::Integer, low(0x7F)),
            0x80..=0x8F => (Type::Map, low(0x0F)),
            0x90..=0x9F => (Type::Array, low(0x0F)),
            0xA0..=0xBF => (Type::Str, low(0x1F)),
            0xC4 => (Type::Bin, self.number(1, 0)),
            0xC5 => (Type::Bin, self.number(2, 1 << 8)),
            0xC6 => (Type::Bin, self.number(4, 1 << 16)),
            0xCC => (Type::Integer, self.number(1, 128)),
            0xCD => (Type::Integer, self.number(2, 1 << 8)),
            0xCE => (Type::Integer, self.number(4, 1 << 16)),
            0xCF => (Type::Integer, self.number(8, 1 << 32)),
            0xD9 => (Type::Str, self.number(1, 32)),
            0xDA => (Type::Str, self.number(2, 1 << 8)),
            0xDB => (Type::Str, self.number(4, 1 << 16)),
            0xDC => (Type::Array, self.number(2, 16)),
            0xDD => (Type::Array, self.number(4, 1 << 16)),
            0xDE => (Type::Map, self.number(2, 16)),
            0xDF => (Type::Map, self.number(4, 1 << 16)),
            // MP-1. "Every value in the header MUST be an unsigned integer, a str, a bin, an array
            // or a map."
            _ => return Err(broken("MP-1", format!("{first:02x} before {}", self.place()))),
        };
        Ok((found, value?))
    }

    /// A big-endian number of `size` bytes, which a shorter form holds if it is below `least`.
    fn number(&mut self, size: u64, least: u64) -> Result<u64> {
        let bytes = self.take(size)?;
        let value = bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
        // MP-2. "Every integer and every length MUST be in its shortest form."
        ensure(value >= least, "MP-2", || {
            format!("{value} in {size} bytes before {}", self.place())
        })?;
        Ok(value)
    }

    fn text(&mut self, length: u64) -> Result<&'a str> {
        // MP-4. "Every str MUST be well-formed UTF-8."
        std::str::from_utf8(self.take(length)?)
            .map_err(|error| broken("MP-4", format!("{error}, before {}", self.place())))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let cut_off = || broken("MP-5", format!("{length} bytes wanted, {}", self.place()));
        let length = usize::try_from(length).map_err(|_| cut_off())?;
        let bytes = self.bytes[self.at..].get(..length).ok_or_else(cut_off)?;
        self.at += length;
        Ok(bytes)
    }
}
