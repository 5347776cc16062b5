//! Durations as people write them: `500us`, `2ms`, `10s`, `1m 30s`.

/// In whole microseconds; what is finer is cut off.
pub fn micros(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a duration such as 500us, 2ms or 10s");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    u64::try_from(duration.as_micros()).map_err(|_| wrong())
}

/// In whole milliseconds, also in days and weeks: `500ms`, `1h 30m`, `14d`.
pub fn millis(text: &str) -> Result<u64, String> {
    const UNITS: &[(&str, u64)] = &[
        ("ms", 1),
        ("s", 1_000),
        ("min", 60_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
        ("w", 604_800_000),
    ];
    let wrong = || format!("'{text}' is not a duration such as 500ms, 30s, 5m, 1h or 14d");
    let mut total: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, millis) = UNITS.iter().find(|(known, _)| *known == unit).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total = number.checked_mul(*millis).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    Ok(total)
}

/// As [`millis`] reads it again, in as few words as are exact.
pub fn from_millis(millis: u64) -> String {
    const UNITS: &[(&str, u64)] =
        &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = millis;
    let mut words = Vec::new();
    for (unit, size) in UNITS {
        if rest >= *size {
            words.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}

/// As [`micros`] reads it again, in the largest unit that is exact.
pub fn from_micros(micros: u64) -> String {
    match micros {
        0 => "0s".to_owned(),
        _ if micros.is_multiple_of(1_000_000) => format!("{}s", micros / 1_000_000),
        _ if micros.is_multiple_of(1_000) => format!("{}ms", micros / 1_000),
        _ => format!("{micros}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (number, text) in
            [(0, "0s"), (500, "500us"), (2_000, "2ms"), (10_000_000, "10s"), (1_500, "1500us")]
        {
            assert_eq!(from_micros(number), text);
            assert_eq!(micros(text), Ok(number));
        }
        assert_eq!(micros("1m 30s"), Ok(90_000_000));
    }

    #[test]
    fn days_and_weeks_are_read_in_milliseconds() {
        for (text, number, shown) in [
            ("500ms", 500, "500ms"),
            ("10m", 600_000, "10m"),
            ("90min", 5_400_000, "1h 30m"),
            ("1h 30m", 5_400_000, "1h 30m"),
            ("1d12h", 129_600_000, "1d 12h"),
            ("2w", 1_209_600_000, "14d"),
            ("0s", 0, "0s"),
        ] {
            assert_eq!(millis(text), Ok(number), "{text}");
            assert_eq!(from_millis(number), shown);
        }
        for text in ["", "5", "m", "5 m", "1.5h", "-1s", "1y", "99999999999999999999s", "400000000000w"] {
            let refusal = format!("'{text}' is not a duration such as 500ms, 30s, 5m, 1h or 14d");
            assert_eq!(millis(text), Err(refusal));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "soon", "5", "-2ms"] {
            assert_eq!(micros(text), Err(format!("'{text}' is not a duration such as 500us, 2ms or 10s")));
        }
    }
}
