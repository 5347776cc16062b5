//! Moments as people write and read them: RFC 3339, or `1h ago`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::duration;

/// Microseconds since the Unix epoch.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    parse_at(text, u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

fn parse_at(text: &str, now_us: u64) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no moment such as 2026-11-25T14:00:00Z, '1h ago' or now");
    if text == "now" {
        return Ok(now_us);
    }
    if let Some(ago) = text.strip_suffix("ago") {
        let millis = duration::millis(ago.trim()).map_err(|_| wrong())?;
        return Ok(now_us.saturating_sub(millis.saturating_mul(1_000)));
    }
    let timestamp: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    u64::try_from(timestamp.as_microsecond()).map_err(|_| wrong())
}

/// To the second; `-` for none.
pub(super) fn shown(unix_us: u64) -> String {
    let micros = i64::try_from(unix_us).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(timestamp) if unix_us > 0 => format!("{timestamp:.0}"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_absolute_or_count_back_from_now() {
        let now = 1_764_079_200_000_000;
        assert_eq!(parse_at("now", now), Ok(now));
        assert_eq!(parse_at("1h ago", now), Ok(now - 3_600_000_000));
        assert_eq!(parse_at("1d 12h ago", now), Ok(now - 129_600_000_000));
        assert_eq!(parse_at("2025-11-25T14:00:00Z", now), Ok(now));
        assert_eq!(shown(now), "2025-11-25T14:00:00Z");
        assert_eq!(shown(0), "-");
        for text in ["", "yesterday", "ago", "1 ago", "2025-11-25"] {
            let refusal = format!("'{text}' is no moment such as 2026-11-25T14:00:00Z, '1h ago' or now");
            assert_eq!(parse_at(text, now), Err(refusal));
        }
    }
}
