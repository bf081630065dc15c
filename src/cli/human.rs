//! Numbers for people: always with a unit, never more digits than they carry.

/// Shown where a quantity is not known.
pub(crate) const UNKNOWN: &str = "-";

/// Milliseconds: `0.42 ms`, `12.3 ms`, `840 ms`, `12.3 s` from ten seconds on.
pub(crate) fn ms(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2} ms"),
        size if size < 100.0 => format!("{value:.1} ms"),
        size if size < 10_000.0 => format!("{value:.0} ms"),
        _ => format!("{:.1} s", value / 1000.0),
    }
}

/// A span of time in its two largest units: `4 s`, `2 min 05 s`, `3 h 07 min`, `2 d 04 h`.
pub(crate) fn duration_s(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {:02} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {:02} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// How old a reading is: `80 ms ago`, `4 s ago`, `2 min 05 s ago`.
pub(crate) fn age_ms(age: f64) -> String {
    if age < 1000.0 { format!("{:.0} ms ago", age.max(0.0)) } else { format!("{} ago", duration_s(age / 1000.0)) }
}

/// Bytes in powers of 1024: `512 B`, `1.5 KiB`, `12.0 MiB`.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // 1023.95 would be printed as "1024.0" of the smaller unit.
        if scaled < 1023.95 {
            break;
        }
        scaled /= 1024.0;
        unit = larger;
    }
    format!("{scaled:.1} {unit}")
}

/// A price in US cents per hour: `$1.99/h`.
pub(crate) fn price(cents: u64) -> String {
    format!("${}.{:02}/h", cents / 100, cents % 100)
}

/// A share of 0..=1 as a percentage: `95.1 %`.
pub(crate) fn share(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

/// A count with its thousands apart: `12,345`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A weight or a rank: up to six decimals, no trailing zeros.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

/// `show(value)`, or [`UNKNOWN`].
pub(crate) fn or_unknown<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), show)
}

#[cfg(test)]
mod tests {
    use super::{age_ms, bytes, count, duration_s, ms, number, or_unknown, price, share};

    /// Checks one way to show numbers against a table.
    fn table<T: Copy + std::fmt::Debug>(show: impl Fn(T) -> String, cases: &[(T, &str)]) {
        for (value, wanted) in cases {
            assert_eq!(show(*value), *wanted, "{value:?}");
        }
    }

    #[test]
    fn numbers_carry_their_unit_and_no_false_precision() {
        table(ms, &[(0.0, "0.00 ms"), (0.421, "0.42 ms"), (12.34, "12.3 ms"), (840.4, "840 ms"), (12_345.0, "12.3 s")]);
        table(ms, &[(-5.5, "-5.50 ms"), (-250.0, "-250 ms")]);
        table(duration_s, &[(4.9, "4 s"), (125.0, "2 min 05 s"), (11_220.0, "3 h 07 min"), (187_200.0, "2 d 04 h")]);
        table(duration_s, &[(-1.0, "0 s"), (59.99, "59 s"), (60.0, "1 min 00 s")]);
        table(age_ms, &[(80.4, "80 ms ago"), (4_200.0, "4 s ago"), (-3.0, "0 ms ago")]);
        table(
            bytes,
            &[
                (0, "0 B"),
                (1_536, "1.5 KiB"),
                (1_048_575, "1.0 MiB"),
                (5 << 30, "5.0 GiB"),
                (u64::MAX, "16777216.0 TiB"),
            ],
        );
        table(price, &[(0, "$0.00/h"), (199, "$1.99/h"), (1_592, "$15.92/h"), (5, "$0.05/h")]);
        table(share, &[(0.951, "95.1 %"), (1.0, "100.0 %"), (0.0, "0.0 %")]);
        table(count, &[(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")]);
        table(number, &[(1.0, "1"), (0.276, "0.276"), (0.094, "0.094"), (-0.0, "0"), (120.0, "120"), (1e-9, "0")]);
        table(|value| or_unknown(value, ms), &[(None, "-"), (Some(1.0), "1.00 ms")]);
    }
}
