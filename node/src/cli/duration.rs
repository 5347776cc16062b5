//! Durations as people write them: `500us`, `2ms`, `10s`, `1m 30s`.

/// In whole microseconds; what is finer is cut off.
pub fn micros(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a duration such as 500us, 2ms or 10s");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    u64::try_from(duration.as_micros()).map_err(|_| wrong())
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
    fn what_is_no_duration_is_refused() {
        for text in ["", "soon", "5", "-2ms"] {
            assert_eq!(micros(text), Err(format!("'{text}' is not a duration such as 500us, 2ms or 10s")));
        }
    }
}
