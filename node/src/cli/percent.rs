//! Weights as people write them: `90%`, `2.5%`, `90`; exactly, in parts per million.

use std::fmt;
use std::str::FromStr;

use starling_raft::state::PartsPerMillion;

const PPM_PER_PERCENT: u32 = 10_000;
const FRACTION_DIGITS_MAX: usize = 4;

/// A percentage, kept as parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(PartsPerMillion);

impl Percent {
    /// From parts per million, as the wire has them.
    pub fn from_ppm(ppm: u32) -> Option<Self> {
        PartsPerMillion::new(ppm).ok().map(Self)
    }

    /// In parts per million.
    pub fn ppm(self) -> u32 {
        self.0.get()
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not a percentage from 0 to 100 with at most {FRACTION_DIGITS_MAX} decimals, as in 90% or 2.5%"
            )
        };
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits_only(whole) || !digits_only(fraction) || fraction.len() > FRACTION_DIGITS_MAX {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let fraction: u32 = format!("{fraction:0<FRACTION_DIGITS_MAX$}").parse().map_err(|_| wrong())?;
        let ppm =
            whole.checked_mul(PPM_PER_PERCENT).and_then(|ppm| ppm.checked_add(fraction)).ok_or_else(wrong)?;
        PartsPerMillion::new(ppm).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.ppm() / PPM_PER_PERCENT, self.ppm() % PPM_PER_PERCENT);
        if fraction == 0 {
            return write!(f, "{whole}%");
        }
        let decimals = format!("{fraction:04}");
        write!(f, "{whole}.{}%", decimals.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn percentages_are_exact() {
        for (text, ppm, shown) in [
            ("90%", 900_000, "90%"),
            ("90", 900_000, "90%"),
            ("2.5%", 25_000, "2.5%"),
            ("0.0001%", 1, "0.0001%"),
            ("100", 1_000_000, "100%"),
            ("0", 0, "0%"),
            ("33.3333", 333_333, "33.3333%"),
        ] {
            let percent: Percent = text.parse().unwrap();
            assert_eq!(percent.ppm(), ppm, "{text}");
            assert_eq!(percent.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_percentage_is_refused() {
        for text in ["", "%", "-1", "101", "100.0001", "1.23456", "1e2", "ninety", ".5", "4294967295999"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
