//! Frozen pieces of what a route says beside its weights. Frozen as they are: a
//! change is a new piece in a new version of whatever contains it.

use super::pieces::{VersionRefV1, parts_per_million, rule_name};
use super::{CodecError, Decode, Encode};
use crate::state::routes::rules::{Attribute, Condition, Rule, Test};
use crate::state::routes::shadows::{Agreement, Comparison, Shadow};
use crate::state::{Ordinal, VersionRef};

#[derive(Encode, Decode)]
enum AttributeV1 {
    Parameter(String),
    Metadata(String),
}

#[derive(Encode, Decode)]
enum TestV1 {
    Equals(String),
    In(Vec<String>),
    Matches(String),
}

#[derive(Encode, Decode)]
pub(super) struct ConditionV1 {
    attribute: AttributeV1,
    test: TestV1,
}

/// `V` says which version: by reference in commands, by ordinal elsewhere.
#[derive(Encode, Decode)]
pub(super) struct RuleV1<V> {
    name: String,
    when: Vec<ConditionV1>,
    portion_ppm: u32,
    version: V,
}

#[derive(Encode, Decode)]
enum AgreementV1 {
    Exact,
    Tolerance { absolute_nano: u64, relative_nano: u64 },
    TopOne,
    Distance { max_ppm: u32 },
}

#[derive(Encode, Decode)]
pub(super) struct ShadowV1<V> {
    version: V,
    portion_ppm: u32,
    when: Vec<ConditionV1>,
    comparison: ComparisonV1,
}

#[derive(Encode, Decode)]
pub(super) struct ComparisonV1 {
    outputs: Vec<(String, AgreementV1)>,
    others: AgreementV1,
}

/// How a stored version is written and read.
pub(super) trait FrozenVersion: Sized {
    /// What it stands for.
    type Live;

    fn freeze(live: &Self::Live) -> Self;

    fn thaw(self) -> Result<Self::Live, CodecError>;
}

impl FrozenVersion for u64 {
    type Live = Ordinal;

    fn freeze(live: &Ordinal) -> Self {
        live.get()
    }

    fn thaw(self) -> Result<Ordinal, CodecError> {
        Ok(Ordinal::new(self))
    }
}

impl FrozenVersion for VersionRefV1 {
    type Live = VersionRef;

    fn freeze(live: &VersionRef) -> Self {
        live.into()
    }

    fn thaw(self) -> Result<VersionRef, CodecError> {
        self.try_into()
    }
}

impl From<&Condition> for ConditionV1 {
    fn from(live: &Condition) -> Self {
        let attribute = match &live.attribute {
            Attribute::Parameter(name) => AttributeV1::Parameter(name.clone()),
            Attribute::Metadata(name) => AttributeV1::Metadata(name.clone()),
        };
        let test = match &live.test {
            Test::Equals(text) => TestV1::Equals(text.clone()),
            Test::In(texts) => TestV1::In(texts.clone()),
            Test::Matches(pattern) => TestV1::Matches(pattern.clone()),
        };
        Self { attribute, test }
    }
}

impl From<ConditionV1> for Condition {
    fn from(frozen: ConditionV1) -> Self {
        let attribute = match frozen.attribute {
            AttributeV1::Parameter(name) => Attribute::Parameter(name),
            AttributeV1::Metadata(name) => Attribute::Metadata(name),
        };
        let test = match frozen.test {
            TestV1::Equals(text) => Test::Equals(text),
            TestV1::In(texts) => Test::In(texts),
            TestV1::Matches(pattern) => Test::Matches(pattern),
        };
        Self { attribute, test }
    }
}

impl<V: FrozenVersion> RuleV1<V> {
    pub(super) fn new(live: &Rule<V::Live>) -> Self {
        Self {
            name: live.name.to_string(),
            when: live.when.iter().map(Into::into).collect(),
            portion_ppm: live.portion.get(),
            version: V::freeze(&live.version),
        }
    }

    pub(super) fn thaw(self) -> Result<Rule<V::Live>, CodecError> {
        Ok(Rule {
            name: rule_name(&self.name)?,
            when: self.when.into_iter().map(Into::into).collect(),
            portion: parts_per_million(self.portion_ppm)?,
            version: self.version.thaw()?,
        })
    }
}

impl<V: FrozenVersion> ShadowV1<V> {
    pub(super) fn new(live: &Shadow<V::Live>) -> Self {
        Self {
            version: V::freeze(&live.version),
            portion_ppm: live.portion.get(),
            when: live.when.iter().map(Into::into).collect(),
            comparison: (&live.comparison).into(),
        }
    }

    pub(super) fn thaw(self) -> Result<Shadow<V::Live>, CodecError> {
        Ok(Shadow {
            version: self.version.thaw()?,
            portion: parts_per_million(self.portion_ppm)?,
            when: self.when.into_iter().map(Into::into).collect(),
            comparison: self.comparison.try_into()?,
        })
    }
}

impl From<&Comparison> for ComparisonV1 {
    fn from(live: &Comparison) -> Self {
        let outputs = live.outputs.iter().map(|(name, agreement)| (name.clone(), (*agreement).into()));
        Self { outputs: outputs.collect(), others: live.others.into() }
    }
}

impl TryFrom<ComparisonV1> for Comparison {
    type Error = CodecError;

    fn try_from(frozen: ComparisonV1) -> Result<Self, CodecError> {
        let mut outputs = Vec::with_capacity(frozen.outputs.len());
        for (name, agreement) in frozen.outputs {
            outputs.push((name, agreement.try_into()?));
        }
        Ok(Self { outputs, others: frozen.others.try_into()? })
    }
}

impl From<Agreement> for AgreementV1 {
    fn from(live: Agreement) -> Self {
        match live {
            Agreement::Exact => Self::Exact,
            Agreement::Tolerance { absolute_nano, relative_nano } => {
                Self::Tolerance { absolute_nano, relative_nano }
            }
            Agreement::TopOne => Self::TopOne,
            Agreement::Distance { max } => Self::Distance { max_ppm: max.get() },
        }
    }
}

impl TryFrom<AgreementV1> for Agreement {
    type Error = CodecError;

    fn try_from(frozen: AgreementV1) -> Result<Self, CodecError> {
        Ok(match frozen {
            AgreementV1::Exact => Self::Exact,
            AgreementV1::Tolerance { absolute_nano, relative_nano } => {
                Self::Tolerance { absolute_nano, relative_nano }
            }
            AgreementV1::TopOne => Self::TopOne,
            AgreementV1::Distance { max_ppm } => Self::Distance { max: parts_per_million(max_ppm)? },
        })
    }
}
