//! Reading an oracle file and holding numbers against it, within the file's tolerance.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use starling_statistics::{Alpha, Interval};

#[derive(Deserialize)]
struct Oracle {
    schema: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    pub input: Value,
    pub expected: Value,
    tol: f64,
}

/// Whether a check knew the case. `false`: the next check is asked.
pub type Known = bool;

impl Case {
    pub fn number(&self, key: &str) -> f64 {
        number(&self.input[key], &self.name, key)
    }

    pub fn count(&self, key: &str) -> u64 {
        self.number(key) as u64
    }

    pub fn alpha(&self, key: &str) -> Alpha {
        Alpha::new(self.number(key)).unwrap()
    }

    pub fn numbers(&self, key: &str) -> Vec<f64> {
        numbers(&self.input[key])
    }

    /// `got` must be what stands under `path` (parts parted by dots).
    pub fn expect(&self, path: &str, got: f64) {
        let expected = path.split('.').fold(&self.expected, |value, key| match key.parse::<usize>() {
            Ok(index) => &value[index],
            Err(_) => &value[key],
        });
        let expected = number(expected, &self.name, path);
        let off = (got - expected).abs();
        assert!(
            off <= self.tol * expected.abs().max(1.0),
            "{}: {path} is {got}, the oracle says {expected} (off by {off:e})",
            self.name
        );
    }

    pub fn expect_interval(&self, lower: &str, upper: &str, got: Interval) {
        self.expect(lower, got.lower());
        self.expect(upper, got.upper());
    }
}

fn number(value: &Value, case: &str, key: &str) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{case}: {key} is no number: {value}"))
}

pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

pub fn counts(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

/// Runs every case of a file through the checks; exactly `expected_cases` must be there.
pub fn check(file: &str, expected_cases: usize, checks: &[fn(&Case) -> Known]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracles").join(file);
    let oracle: Oracle = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(oracle.schema, "starling-oracle/1");
    assert_eq!(oracle.cases.len(), expected_cases, "{file} has gained or lost cases");
    for case in &oracle.cases {
        let known = checks.iter().filter(|check| check(case)).count();
        assert_eq!(known, 1, "{file}: {known} checks know the case `{}`", case.name);
    }
}
