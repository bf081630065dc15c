//! Dates as text: ISO 8601 (RFC 3339), UTC, microseconds.

/// Days from 1970-01-01 to the first of March of year 0 of the proleptic Gregorian calendar, counted backwards.
const DAYS_BEFORE_1970: i64 = 719_468;
/// Days of 400 years.
const ERA_DAYS: i64 = 146_097;
const DAY_S: i64 = 86_400;

/// `2027-02-18` for seconds since 1970.
#[must_use]
pub fn day(seconds: u64) -> String {
    let (year, month, day) = civil(seconds as i64 / DAY_S);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-11-20T07:00:00.000000Z` for microseconds since 1970.
#[must_use]
pub fn iso(micros: u64) -> String {
    let (seconds, fraction) = ((micros / 1_000_000) as i64, micros % 1_000_000);
    let (year, month, day) = civil(seconds.div_euclid(DAY_S));
    let rest = seconds.rem_euclid(DAY_S);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// Microseconds since 1970 of a UTC date with or without a fraction (`Z` or `+00:00` at the end); `None` for anything else.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    let (date, clock) = text.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let days = days(year, month, day);
    let fits = (1970..=9999).contains(&year) && civil(days) == (year, month, day);
    if !fits || hour > 23 || minute > 59 || second > 59 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let seconds = days * DAY_S + hour * 3600 + minute * 60 + second;
    Some(u64::try_from(seconds).ok()? * 1_000_000 + micros)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let parts: Vec<&str> = text.split(separator).collect();
    let digits = |part: &&str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !parts.iter().all(digits) {
        return None;
    }
    let values: Vec<i64> = parts.iter().filter_map(|part| part.parse().ok()).collect();
    values.try_into().ok()
}

/// Days since 1970 of a date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - DAYS_BEFORE_1970
}

/// The date so many days after 1970-01-01 (the same source, `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_BEFORE_1970;
    let era = days.div_euclid(ERA_DAYS);
    let day_of_era = days.rem_euclid(ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert_eq, proptest};

    use super::{day, iso, parse};

    #[test]
    fn known_days() {
        let cases = [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_800_000_000, "2027-01-15"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
        ];
        for (seconds, text) in cases {
            assert_eq!(day(seconds), text);
        }
    }

    #[test]
    fn known_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_757_932_245_123_456, "2025-09-15T10:30:45.123456Z"),
        ];
        for (micros, text) in cases {
            assert_eq!((iso(micros).as_str(), parse(text)), (text, Some(micros)));
        }
        assert_eq!(parse("2025-09-15T10:30:45+00:00"), Some(1_757_932_245_000_000));
        for bad in [
            "",
            "yesterday",
            "2025-09-15",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:00:00",
            "2025-01-01T00:00:00.xZ",
            "-2025-01-01T00:00:00Z",
            "2025-01-01T00:00:00+02:00",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(micros in 0u64..250_000_000_000_000_000) {
            prop_assert_eq!(parse(&iso(micros)), Some(micros));
        }
    }
}
