//! What a scenario found: a table, each claim with whether it held, and the exit code.

use std::process::ExitCode;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};

use crate::load::{Ledger, MissKind, Misses};

/// One claim of a scenario.
#[derive(Debug, Clone)]
struct Finding {
    what: String,
    value: String,
    held: Option<bool>,
}

/// All findings of one run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// A number that is only told.
    pub fn tell(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.findings.push(Finding { what: what.into(), value: value.into(), held: None });
    }

    /// A claim and whether it held.
    pub fn check(&mut self, what: impl Into<String>, value: impl Into<String>, held: bool) {
        self.findings.push(Finding { what: what.into(), value: value.into(), held: Some(held) });
    }

    /// Whether every claim held, and there was one.
    pub fn held(&self) -> bool {
        let mut claims = self.findings.iter().filter_map(|finding| finding.held).peekable();
        claims.peek().is_some() && claims.all(|held| held)
    }

    /// 0 if every claim held.
    pub fn exit_code(&self) -> ExitCode {
        if self.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// As a table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header(["what", "value", "held"]);
        for finding in &self.findings {
            let held = match finding.held {
                None => "",
                Some(true) => "yes",
                Some(false) => "NO",
            };
            table.add_row([finding.what.as_str(), finding.value.as_str(), held]);
        }
        table.to_string()
    }

    /// Requests sent and failed, and every retry by cause; `allowed` says which
    /// retries a client has to expect.
    pub fn traffic(&mut self, ledger: &Ledger, names: &[String], allowed: impl Fn(&MissKind) -> bool) {
        let failures = ledger.failures();
        self.check("requests sent", ledger.sent.to_string(), ledger.sent > 0);
        self.check("requests failed", failures.to_string(), failures == 0);
        self.check(
            "requests answered",
            ledger.answered.to_string(),
            ledger.answered + failures == ledger.sent && ledger.answered > 0,
        );
        for (kind, misses) in &ledger.failed {
            self.check(format!("failed in {}", told(kind, names)), example(misses), false);
        }
        if ledger.retried.is_empty() {
            self.tell("retries", "none");
        }
        for (kind, misses) in &ledger.retried {
            let held = allowed(kind);
            let value = if held { misses.count.to_string() } else { example(misses) };
            self.check(format!("retried in {}", told(kind, names)), value, held);
        }
    }
}

fn told(kind: &MissKind, names: &[String]) -> String {
    let node = names.get(kind.node).map_or("a node", String::as_str);
    format!("{}: {}, {node}", kind.phase, kind.cause)
}

fn example(misses: &Misses) -> String {
    format!("{}, such as: {}", misses.count, misses.example)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_claims_has_not_held() {
        let mut report = Report::default();
        report.tell("rate", "100/s");
        assert!(!report.held());
    }

    #[test]
    fn one_claim_that_did_not_hold_is_enough() {
        let mut report = Report::default();
        report.check("digests equal", "yes", true);
        assert!(report.held());
        report.check("requests failed", "1", false);
        assert!(!report.held());
        assert!(report.table().contains("NO"));
    }
}
