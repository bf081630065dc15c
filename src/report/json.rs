//! JSON as result files hold it: indented objects, lists on one line, numbers without digits that are noise.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::Error as _;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// `value` as a file's text, with a final line end.
pub(super) fn text(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Compact::default()))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(serde_json::Error::custom)
}

/// Objects take a line per key; everything between `[` and `]` that is no object stays on its line, so that the 201 points of a
/// distribution do not take 201 lines.
#[derive(Default)]
struct Compact {
    depth: usize,
    has_value: bool,
}

impl Compact {
    fn line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| writer.write_all(b"  "))
    }
}

impl Formatter for Compact {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let scale = if value.abs() < 1.0 { 1e6 } else { 1e3 };
        let rounded = (value * scale).round() / scale;
        // Values so large that the scaling overflows have no decimals to lose.
        write!(writer, "{:?}", if rounded.is_finite() { rounded } else { value })
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        self.has_value = false;
        writer.write_all(b"{")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",")?;
        }
        self.line(writer)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        if self.has_value {
            self.line(writer)?;
        }
        writer.write_all(b"}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};
    use serde_json::json;

    use super::text;

    #[test]
    fn lists_stay_on_a_line_and_noise_is_cut() {
        let value = json!({"a": [1.0, 2.5, 0.1234567891, null], "b": [{"c": 123.456789}, {}], "d": {"e": 12}, "f": []});
        insta::assert_snapshot!(text(&value).unwrap(), @r#"
        {
          "a": [1.0, 2.5, 0.123457, null],
          "b": [{
            "c": 123.457
          }, {}],
          "d": {
            "e": 12
          },
          "f": []
        }
        "#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in -1e12..1e12_f64) {
            let read: f64 = serde_json::from_str(&text(&value).unwrap()).unwrap();
            prop_assert!((read - value).abs() <= 5.1e-4 + value.abs() * 1e-15, "{value} {read}");
        }
    }
}
