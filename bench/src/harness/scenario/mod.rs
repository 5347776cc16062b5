//! Each figure that is asked for, by what has to run to measure it.

mod bandit;
mod elections;
mod feedback;
mod forward;
mod memory;
mod mlp;
mod overload;
mod rest;
mod rival;
mod shadow;
mod switch;
mod tiny;
mod trees;
mod two_models;
mod weights;

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;

use super::contest::{Bench, Found};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Scenario {
    Tiny,
    Rest,
    Mlp,
    Trees,
    Forward,
    TwoModels,
    Overload,
    Switch,
    Elections,
    Memory,
    Weights,
    Bandit,
    Feedback,
    ShadowSleep,
    ShadowSame,
    Rival,
}

impl Scenario {
    /// What needs nothing but this checkout.
    pub fn all_of_ours() -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|scenario| *scenario != Self::Rival).collect()
    }

    /// One line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Tiny => "a model that costs nothing, beside an echo",
            Self::Rest => "the same over REST with binary tensors, beside gRPC",
            Self::Mlp => "a model that gains from batches, beside what transport and sessions allow",
            Self::Trees => "gradient boosting, beside the same bound",
            Self::Forward => "a request that another node has to run",
            Self::TwoModels => "a small model while another one is saturated",
            Self::Overload => "twice as many requests as can be answered",
            Self::Switch => "a new version, loaded and switched to at half load",
            Self::Elections => "whether saturated nodes lose their leader",
            Self::Memory => "an idle node with three models",
            Self::Weights => "how soon all nodes route by new weights",
            Self::Bandit => "a bandit that chooses among four versions, beside a plain route",
            Self::Feedback => "how many rewards one node takes, durably",
            Self::ShadowSleep => "a shadow of every request that sleeps, beside none",
            Self::ShadowSame => "a shadow of every request that is the same model, beside none",
            Self::Rival => "Triton with its Python backend, on the same cores",
        }
    }

    /// Whether failed requests are part of it, or have a row of their own there.
    pub fn expects_failures(self) -> bool {
        matches!(self, Self::Overload | Self::Switch)
    }

    /// Starts what it needs, measures, and stops it.
    pub fn run(self, bench: &Bench) -> Result<Found> {
        match self {
            Self::Tiny => tiny::run(bench),
            Self::Rest => rest::run(bench),
            Self::Mlp => mlp::run(bench),
            Self::Trees => trees::run(bench),
            Self::Forward => forward::run(bench),
            Self::TwoModels => two_models::run(bench),
            Self::Overload => overload::run(bench),
            Self::Switch => switch::run(bench),
            Self::Elections => elections::run(bench),
            Self::Memory => memory::run(bench),
            Self::Weights => weights::run(bench),
            Self::Bandit => bandit::run(bench),
            Self::Feedback => feedback::run(bench),
            Self::ShadowSleep => shadow::run_sleep(bench),
            Self::ShadowSame => shadow::run_same(bench),
            Self::Rival => rival::run(bench),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .write_str(self.to_possible_value().as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}
