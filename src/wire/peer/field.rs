//! Varints and fields, written and read.

use super::Malformed;

/// Payload in the making.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A field with a number.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        put(&mut self.bytes, u64::from(field) << 1);
        put(&mut self.bytes, value);
    }

    /// A field with bytes.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        put(&mut self.bytes, u64::from(field) << 1 | 1);
        put(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// A field with hashes; none, no field.
    pub(super) fn hashes(&mut self, field: u32, hashes: &[u32]) {
        if hashes.is_empty() {
            return;
        }
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        self.bytes(field, &bytes);
    }

    /// The frame of this kind around it, written behind what is in `out`.
    pub(super) fn close(self, kind: u32, out: &mut Vec<u8>) {
        put(out, u64::from(kind));
        put(out, self.bytes.len() as u64);
        out.extend_from_slice(&self.bytes);
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a payload, in order.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// The next field. Numbers of fields beyond 32 bits are none of ours: they come as `u32::MAX`, which nobody uses.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = u32::try_from(key >> 1).unwrap_or(u32::MAX);
        let value = if key & 1 == 0 { Value::Number(self.varint()?) } else { Value::Bytes(self.bytes()?) };
        Ok(Some((field, value)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let (value, length) = varint(self.rest)?.ok_or(Malformed::Short)?;
        self.rest = &self.rest[length..];
        Ok(value)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Short)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(bytes)
    }
}

/// The number at the front and its length in bytes; `None` = its end has not come.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, Malformed> {
    let mut value = 0_u64;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && byte > 1 {
            return Err(Malformed::Number);
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    Ok(None)
}

/// Four bytes each.
pub(super) fn hashes(bytes: &[u8]) -> Result<Vec<u32>, Malformed> {
    let (hashes, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Malformed::Hashes(bytes.len()));
    }
    Ok(hashes.iter().map(|hash| u32::from_le_bytes(*hash)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{Malformed, Reader, Value, Writer, put, varint};

    #[test]
    fn numbers_end_where_they_say() {
        let cases = [
            (&[][..], Ok(None)),
            (&[0], Ok(Some((0, 1)))),
            (&[0x7f, 9], Ok(Some((127, 1)))),
            (&[0x80, 1], Ok(Some((128, 2)))),
            (&[0x80], Ok(None)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Ok(Some((u64::MAX, 10)))),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], Err(Malformed::Number)),
            (&[0xff; 10], Err(Malformed::Number)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(varint(bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn fields_come_back_as_they_were_written(numbers: [u64; 3], bytes in prop::collection::vec(any::<u8>(), 0..300), field in 0_u32..5000) {
            let mut writer = Writer::default();
            writer.number(field, numbers[0]);
            writer.bytes(field + 1, &bytes);
            writer.number(1, numbers[1]);
            let mut reader = Reader::new(&writer.bytes);
            prop_assert_eq!(reader.next(), Ok(Some((field, Value::Number(numbers[0])))));
            prop_assert_eq!(reader.next(), Ok(Some((field + 1, Value::Bytes(&bytes)))));
            prop_assert_eq!(reader.next(), Ok(Some((1, Value::Number(numbers[1])))));
            prop_assert_eq!(reader.next(), Ok(None));
            let mut number = Vec::new();
            put(&mut number, numbers[2]);
            prop_assert_eq!(varint(&number), Ok(Some((numbers[2], number.len()))));
            prop_assert_eq!(varint(&number[..number.len() - 1]), Ok(None));
        }
    }
}
