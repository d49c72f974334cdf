//! Chapter 6.2: canonical MessagePack, read value by value without making anything of it.

use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    Integer,
    Str,
    Bin,
    Array,
    Map,
}

/// A place in the header, and the number of arrays and maps that are open there.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub header: &'a [u8],
    pub at: usize,
    pub nesting: usize,
}

impl<'a> Reader<'a> {
    /// Reads the head of a value: an integer, or the length or count of what is to be read next.
    pub fn expect(&mut self, wanted: Type) -> Result<u64> {
        let (found, number) = self.head()?;
        // TYPE-1. "A value in the header MUST have the type that the tables of this chapter give it."
        ensure!(found == wanted, "TYPE-1", "{found:?}, not {wanted:?}, before header byte {}", self.at);
        Ok(number)
    }

    /// Reads the values of an array; the list grows with what is there, not with what is claimed.
    pub fn array<T>(&mut self, size: u64, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        // MP-6. "Arrays and maps MUST be nested at most 8 deep."
        ensure!(self.nesting < 8, "MP-6", "before header byte {}", self.at);
        self.nesting += 1;
        let values = (0..size).map(|_| read(self)).collect();
        self.nesting -= 1;
        values
    }

    /// Reads the pairs of a map; `read` is given the keys.
    pub fn map<T>(
        &mut self,
        size: u64,
        mut read: impl FnMut(&mut Self, &'a str) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut last = None;
        self.array(size, |reader| {
            let (found, length) = reader.head()?;
            // MP-3. "The keys of a map MUST be str in strictly increasing order of their UTF-8 bytes."
            ensure!(found == Type::Str, "MP-3", "{found:?} as a key before header byte {}", reader.at);
            let key = reader.text(length)?;
            ensure!(last < Some(key), "MP-3", "the key before header byte {}", reader.at); // compares bytes
            last = Some(key);
            read(reader, key)
        })
    }

    /// Passes over any value, which has to be canonical.
    pub fn skip(&mut self) -> Result<()> {
        match self.head()? {
            (Type::Integer, _) => Ok(()),
            (Type::Str, length) => self.text(length).map(drop),
            (Type::Bin, length) => self.bytes(length).map(drop),
            (Type::Array, size) => self.array(size, Self::skip).map(drop),
            (Type::Map, size) => self.map(size, |reader, _| reader.skip()).map(drop),
        }
    }

    pub fn text(&mut self, length: u64) -> Result<&'a str> {
        // MP-4. "Every str MUST be well-formed UTF-8."
        let text = std::str::from_utf8(self.bytes(length)?);
        text.map_err(|error| Error::Broken("MP-4", format!("{error}, before header byte {}", self.at)))
    }

    pub fn bytes(&mut self, length: u64) -> Result<&'a [u8]> {
        let left = &self.header[self.at..];
        // MP-5. "The header MUST be exactly one value, with nothing cut off and nothing after it."
        ensure!(length <= left.len() as u64, "MP-5", "{length} bytes are due at header byte {}", self.at);
        self.at += length as usize;
        Ok(&left[..length as usize])
    }

    fn head(&mut self) -> Result<(Type, u64)> {
        use Type::*;
        let first = self.bytes(1)?[0];
        Ok(match first {
            0x00..=0x7F => (Integer, first.into()),
            0x80..=0x8F => (Map, (first & 0x0F).into()),
            0x90..=0x9F => (Array, (first & 0x0F).into()),
            0xA0..=0xBF => (Str, (first & 0x1F).into()),
            0xC4..=0xC6 => (Bin, self.number(first - 0xC4, &[(1, 0), (2, 1 << 8), (4, 1 << 16)])?),
            0xCC..=0xCE => (Integer, self.number(first - 0xCC, &[(1, 128), (2, 1 << 8), (4, 1 << 16)])?),
            0xCF => (Integer, self.number(0, &[(8, 1 << 32)])?),
            0xD9..=0xDB => (Str, self.number(first - 0xD9, &[(1, 32), (2, 1 << 8), (4, 1 << 16)])?),
            0xDC..=0xDD => (Array, self.number(first - 0xDC, &[(2, 16), (4, 1 << 16)])?),
            0xDE..=0xDF => (Map, self.number(first - 0xDE, &[(2, 16), (4, 1 << 16)])?),
            // MP-1. "Every value in the header MUST be an unsigned integer, a str, a bin, an array or a map."
            _ => return Err(Error::Broken("MP-1", format!("{first:02x} before header byte {}", self.at))),
        })
    }

    /// A big-endian number of one of the `forms`: its bytes, and the least number that needs so many.
    fn number(&mut self, form: u8, forms: &[(u64, u64)]) -> Result<u64> {
        let (size, least) = forms[form as usize];
        let number = self.bytes(size)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        // MP-2. "Every integer and every length MUST be in its shortest form."
        ensure!(number >= least, "MP-2", "{number} in {size} bytes before header byte {}", self.at);
        Ok(number)
    }
}
