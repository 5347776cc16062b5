//! Strategies with several arms: `abTest`, `bandit`.

use starling_raft::state::rollouts::spec::{
    Arm, Bandit, BanditPolicy, Correction, Experiment, Micro, Millis, Reward, RewardKind, StopRule, Strategy,
};
use starling_raft::state::{PartsPerMillion, VersionRef};

use super::super::fields::{Field, FieldError, alternative};
use super::{Read, Wanted, count_or, gates};

const ARMS_SUCH_AS: &str = "arms: { v1: 50%, v2: 50% }";
const PERCENT_PPM: u32 = 10_000;
/// Nothing is decided with fewer rewards in any arm.
pub const MIN_REWARDS: u64 = 100;
/// After this a test ends without a winner: 14 days.
pub const MAX_DURATION: Millis = Millis::from_secs(14 * 24 * 3_600);
/// How often a bandit's weights may be published.
pub const PUBLISH_EVERY: Millis = Millis::from_secs(10);
/// Rewards after which ε is half.
pub const HALF_AFTER: u64 = 1_000;

/// Fixed weights, and the better one wins.
pub fn ab_test(field: &Field<'_>) -> Read<Strategy<Wanted>> {
    let mut fields = field.fields()?;
    let arms = fields.need("arms", ARMS_SUCH_AS);
    let metric = fields.or("metric", conversion(), reward);
    let alpha = fields.or("alpha", gates::default_alpha(), Field::probability);
    let correction = fields.or("correction", Correction::Holm, |field| {
        field.one_of(&[
            ("holm", Correction::Holm),
            ("bonferroni", Correction::Bonferroni),
            ("benjaminiHochberg", Correction::BenjaminiHochberg),
            ("none", Correction::None),
        ])
    });
    let decide_automatically =
        fields.or("decide", true, |field| field.one_of(&[("auto", true), ("manual", false)]));
    let enrolment = fields.or("enrolment", PartsPerMillion::WHOLE, Field::portion);
    let min_rewards = count_or(&mut fields, "minRewards", MIN_REWARDS);
    let max_duration = fields.or("maxDuration", MAX_DURATION, Field::duration);
    fields.finish()?;
    Ok(Strategy::AbTest(Experiment {
        arms: read_arms(&arms?)?,
        metric: metric?,
        alpha: alpha?,
        correction: correction?,
        decide_automatically: decide_automatically?,
        enrolment: enrolment?,
        min_rewards: min_rewards?,
        max_duration: max_duration?,
    }))
}

/// Weights follow rewards.
pub fn bandit(field: &Field<'_>) -> Read<Strategy<Wanted>> {
    let mut fields = field.fields()?;
    let arms = fields.need("arms", ARMS_SUCH_AS);
    let policy = fields.or("policy", BanditPolicy::Thompson, policy);
    let reward = fields.or("reward", conversion(), reward);
    let floor = fields.or("floor", percent(1), Field::portion);
    let half_life = fields.get("halfLife");
    let publish_every = fields.or("publishEvery", PUBLISH_EVERY, Field::duration);
    let enrolment = fields.or("enrolment", PartsPerMillion::WHOLE, Field::portion);
    let stop = fields.named("stop");
    fields.finish()?;
    Ok(Strategy::Bandit(Bandit {
        arms: read_arms(&arms?)?,
        policy: policy?,
        reward: reward?,
        floor: floor?,
        half_life: half_life.map(|field| field.duration()).transpose()?,
        publish_every: publish_every?,
        enrolment: enrolment?,
        stop: stop.map(|stop| stop_rule(&stop)).transpose()?,
    }))
}

fn policy(field: &Field<'_>) -> Read<BanditPolicy> {
    const KNOWN: &[&str] = &["thompson", "epsilonGreedy", "ucb1", "topTwoThompson"];
    let (chosen, inner) = alternative(field, KNOWN)?;
    let inner = inner.unwrap_or_else(|| field.nothing_at(chosen));
    let mut fields = inner.fields()?;
    match chosen {
        "epsilonGreedy" => {
            let epsilon = fields.or("epsilon", percent(10), Field::probability);
            let half_after = count_or(&mut fields, "halfAfter", HALF_AFTER);
            fields.finish()?;
            Ok(BanditPolicy::EpsilonGreedy { epsilon: epsilon?, half_after: half_after? })
        }
        "topTwoThompson" => {
            let leader = fields.or("leader", percent(50), Field::probability);
            fields.finish()?;
            Ok(BanditPolicy::TopTwoThompson { leader: leader? })
        }
        "ucb1" => fields.finish().map(|()| BanditPolicy::Ucb1),
        _ => fields.finish().map(|()| BanditPolicy::Thompson),
    }
}

fn stop_rule(field: &Field<'_>) -> Read<StopRule> {
    let mut fields = field.fields()?;
    let probability_best = fields.or("probabilityBest", percent(95), Field::probability);
    let min_rewards = count_or(&mut fields, "minRewards", MIN_REWARDS);
    fields.finish()?;
    Ok(StopRule { probability_best: probability_best?, min_rewards: min_rewards? })
}

/// `conversion`, `mean`, or an object with one of them and what goes with it.
fn reward(field: &Field<'_>) -> Read<Reward> {
    if field.entries().is_none() {
        let kind =
            field.one_of(&[("conversion", RewardKind::Conversion), ("mean", RewardKind::Unbounded)])?;
        return Ok(Reward { kind, ..conversion() });
    }
    let mut fields = field.fields()?;
    let (is_conversion, mean) = (fields.named("conversion"), fields.named("mean"));
    let lower_is_better = fields.or("lowerIsBetter", false, Field::flag);
    let labels = fields.or("labels", Vec::new(), labels);
    fields.finish()?;
    let kind = match (is_conversion, mean) {
        (Some(conversion), None) => conversion.fields()?.finish().map(|()| RewardKind::Conversion)?,
        (None, Some(mean)) => bounds(&mean)?,
        (None, None) => RewardKind::Conversion,
        (Some(_), Some(_)) => {
            return Err(field.wrong("has both conversion and mean, and a reward is one of them"));
        }
    };
    Ok(Reward { kind, higher_is_better: !lower_is_better?, labels: labels? })
}

fn bounds(field: &Field<'_>) -> Read<RewardKind> {
    let mut fields = field.fields()?;
    let (least, greatest) = (fields.get("min"), fields.get("max"));
    fields.finish()?;
    let (least, greatest) = match (least, greatest) {
        (None, None) => return Ok(RewardKind::Unbounded),
        (Some(least), Some(greatest)) => (least, greatest),
        _ => return Err(field.wrong("has one bound; write both, such as { min: 0, max: 100 }, or none")),
    };
    let (floor, ceiling) = (least.micro()?, greatest.micro()?);
    if floor >= ceiling {
        return Err(greatest.wrong(format!("must be greater than min, which is {}", least.text()?)));
    }
    Ok(RewardKind::Bounded { floor, ceiling })
}

fn labels(field: &Field<'_>) -> Read<Vec<(String, Micro)>> {
    let entries =
        field.entries().ok_or_else(|| field.wrong("must say what labels count for, such as { click: 1 }"))?;
    entries.iter().map(|(label, reward)| Ok(((*label).to_owned(), reward.micro()?))).collect()
}

/// `{ v1: 50%, v2: 50% }`, or a list whose arms may have names of their own and
/// share evenly where no weight is said.
fn read_arms(field: &Field<'_>) -> Read<Vec<Arm<Wanted>>> {
    let mut arms = Vec::new();
    if let Some(entries) = field.entries() {
        for (version, weight) in entries {
            let name = parse_at(&weight, version)?;
            arms.push(Arm { name, version: Some(parse_at(&weight, version)?), weight: weight.portion()? });
        }
        return Ok(arms);
    }
    let elements = field.list()?;
    let mut unweighted = 0;
    for element in &elements {
        let mut fields = element.fields()?;
        let (name, version) = (fields.get("name"), fields.need("version", "version: v2"));
        let weight = fields.get("weight");
        fields.finish()?;
        let version = version?;
        unweighted += usize::from(weight.is_none());
        arms.push(Arm {
            name: name.map_or_else(|| version.parsed(), |name| name.parsed())?,
            version: Some(version.parsed::<VersionRef>()?),
            weight: weight.map_or_else(|| Ok(PartsPerMillion::default()), |weight| weight.portion())?,
        });
    }
    if unweighted > 0 && unweighted < elements.len() {
        return Err(field.wrong(format!(
            "{unweighted} of {} arms have no weight; give one to each, or to none for equal parts",
            elements.len()
        )));
    }
    if unweighted > 0 {
        share_evenly(&mut arms);
    }
    Ok(arms)
}

/// The first ones get what cannot be shared.
fn share_evenly(arms: &mut [Arm<Wanted>]) {
    let count = u32::try_from(arms.len()).unwrap_or(u32::MAX).max(1);
    let whole = PartsPerMillion::WHOLE.get();
    for (index, arm) in arms.iter_mut().enumerate() {
        let extra = u32::from((index as u32) < whole % count);
        arm.weight = PartsPerMillion::new(whole / count + extra).unwrap_or_default();
    }
}

fn parse_at<T: std::str::FromStr<Err: std::fmt::Display>>(field: &Field<'_>, text: &str) -> Read<T> {
    text.parse()
        .map_err(|error: T::Err| FieldError { path: field.path().to_owned(), problem: error.to_string() })
}

fn conversion() -> Reward {
    Reward { kind: RewardKind::Conversion, higher_is_better: true, labels: Vec::new() }
}

fn percent(percent: u32) -> PartsPerMillion {
    PartsPerMillion::new(percent * PERCENT_PPM).unwrap_or_default()
}
