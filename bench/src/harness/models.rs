//! The models of the comparison. Two are files of the checkout; two are made here,
//! the same ones each time, since random weights are not worth committing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::onnx::Chain;

const SEED: u64 = 20_261_124;
const MLP_WIDTHS: [usize; 4] = [512, 1_024, 1_024, 16];
const SLOW_WIDTH: usize = 512;
const SLOW_OUTPUTS: usize = 16;
/// A row takes some milliseconds on most cores; `write_slow` makes more where it does not.
pub const SLOW_LAYERS: usize = 96;

/// Where the ONNX files are.
#[derive(Debug, Clone)]
pub struct Models {
    /// 64 → 8, one matrix: what is measured is the server.
    pub tiny: PathBuf,
    /// 512 → 1024 → 1024 → 16.
    pub mlp: PathBuf,
    /// The same with other weights, for a switch of versions.
    pub mlp_2: PathBuf,
    /// Gradient boosting on 30 columns.
    pub trees: PathBuf,
    /// Takes 2 ms and more.
    pub slow: PathBuf,
}

impl Models {
    /// Writes the generated ones into `folder`; `checkout` has the others.
    pub fn make(checkout: &Path, folder: &Path) -> Result<Self> {
        let models = Self {
            tiny: checkout.join("models/tiny/tiny.onnx"),
            mlp: folder.join("mlp.onnx"),
            mlp_2: folder.join("mlp-2.onnx"),
            trees: checkout.join("models/trees/trees.onnx"),
            slow: folder.join("slow.onnx"),
        };
        for committed in [&models.tiny, &models.trees] {
            if !committed.is_file() {
                bail!("{} is not there; run this in a checkout of Starling", committed.display());
            }
        }
        write(&models.mlp, &mlp(SEED, &MLP_WIDTHS))?;
        write(&models.mlp_2, &mlp(SEED + 1, &MLP_WIDTHS))?;
        models.write_slow(SLOW_LAYERS)?;
        Ok(models)
    }

    /// Writes the slow model again, with so many layers.
    pub fn write_slow(&self, layers: usize) -> Result<()> {
        write(&self.slow, &slow(SEED, layers))
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn mlp(seed: u64, widths: &[usize]) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut chain = Chain::default();
    let layers = widths.len() - 1;
    for (layer, ends) in widths.windows(2).enumerate() {
        let (from, to) = (ends[0], ends[1]);
        let (matrix, bias) = (format!("w{layer}"), format!("b{layer}"));
        chain.weight(&matrix, &[from, to], &uniform(&mut random, from, from * to));
        chain.weight(&bias, &[to], &uniform(&mut random, from, to));
        chain.then("Gemm", &[&matrix, &bias]);
        if layer + 1 < layers {
            chain.then("Relu", &[]);
        }
    }
    chain.into_model("mlp", widths[0], widths[layers])
}

/// One matrix again and again: much to compute, little to keep.
fn slow(seed: u64, layers: usize) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut chain = Chain::default();
    chain.weight("w", &[SLOW_WIDTH, SLOW_WIDTH], &uniform(&mut random, SLOW_WIDTH, SLOW_WIDTH * SLOW_WIDTH));
    chain.weight(
        "last",
        &[SLOW_WIDTH, SLOW_OUTPUTS],
        &uniform(&mut random, SLOW_WIDTH, SLOW_WIDTH * SLOW_OUTPUTS),
    );
    for _ in 0..layers {
        chain.then("MatMul", &["w"]);
        chain.then("Tanh", &[]);
    }
    chain.then("MatMul", &["last"]);
    chain.into_model("slow", SLOW_WIDTH, SLOW_OUTPUTS)
}

/// Keeps the variance of what goes through a layer of so many inputs.
fn uniform(random: &mut StdRng, inputs: usize, count: usize) -> Vec<f32> {
    let reach = (3.0 / inputs as f32).sqrt();
    (0..count).map(|_| random.random_range(-reach..reach)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_models_are_the_same_each_time_and_as_large_as_their_weights() {
        let small = |seed| mlp(seed, &[32, 64, 8]);
        assert_eq!(small(SEED), small(SEED));
        assert_ne!(small(SEED), small(SEED + 1));
        let weights = (32 * 64 + 64 + 64 * 8 + 8) * 4;
        assert!((weights..weights + 500).contains(&small(SEED).len()));
    }
}
