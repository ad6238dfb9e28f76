//! The knobs of K-FAC.

use crate::layer::Block;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// How the damped curvature is inverted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Factored Tikhonov damping and Cholesky: `(G + √λ/π)⁻¹ ∇ (A + π√λ)⁻¹`, `π = √(mean diag A / mean diag G)`.
    #[default]
    Inverse,
    /// Exact Tikhonov damping in eigenbases: `Q_G [(Q_Gᵀ ∇ Q_A) ⊘ (d_G d_Aᵀ + λ)] Q_Aᵀ`; λ acts at every step.
    Eigen,
    /// The eigen form with `s = E[(Q_Gᵀ ∇ₙ Q_A)²]` of single examples in place of `d_G d_Aᵀ` (George et al. 2018,
    /// arXiv 1806.03884), refreshed at every factor update. Meant for rare decompositions: at each of them `s`
    /// starts again from `d_G d_Aᵀ`.
    Ekfac,
}

/// Which labels the curvature is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fisher {
    /// The training labels: no second backward pass. The default of the distributed codes.
    #[default]
    Empirical,
    /// Labels drawn from the model's own softmax, with one more backward pass.
    True,
}

/// When a refreshed decomposition becomes current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresh {
    /// Before the gradient of the same step is preconditioned, as in the textbook. The host waits for the
    /// decompositions, which costs nothing where they run on the host anyway.
    #[default]
    Immediate,
    /// At the beginning of the next step: the host never waits for the device, and one gradient out of a refresh
    /// period is preconditioned with the decompositions before (the very first one with the identity).
    Deferred,
}

/// The knobs of K-FAC.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How the damped curvature is inverted.
    pub form: Form,
    /// λ. Not portable between codes that scale their factors differently; here factors are exact.
    pub damping: f64,
    /// Weight of the old running average.
    pub ema_old: f64,
    /// κ of the KL clip `ν = min(1, √(κ/|Σ η²⟨v, ∇⟩|))`; `None` does not clip.
    pub clip: Option<f64>,
    /// Steps from one factor update to the next.
    pub factor_period: u64,
    /// Steps from one refresh of the decompositions to the next.
    pub inverse_period: u64,
    /// Which labels the curvature is of.
    pub fisher: Fisher,
    /// When a refreshed decomposition becomes current.
    pub refresh: Refresh,
    /// Whether inverses are applied to the inputs and output gradients of dense blocks, where the batch is small
    /// enough that this takes fewer operations than applying them to the gradient (inverse form only).
    pub low_rank: bool,
    /// Factors of more rows are taken for block-diagonal, with diagonal blocks of near equal size and about so many rows at
    /// most, whole input channels of a convolution in each; every one is decomposed by itself. 0 takes none for it. Damping
    /// is that of whole factors. Not with [`Form::Ekfac`].
    pub split_factors: usize,
    /// Names of blocks that are not preconditioned, such as `layer1.conv1`: they follow their plain gradient, as
    /// do all parameters that belong to no block (scales and shifts of normalisation layers).
    pub exclude: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            form: Form::Inverse,
            damping: 0.003,
            ema_old: 0.95,
            clip: Some(0.001),
            factor_period: 1,
            inverse_period: 10,
            fisher: Fisher::Empirical,
            refresh: Refresh::Immediate,
            low_rank: true,
            split_factors: 0,
            exclude: Vec::new(),
        }
    }
}

impl Options {
    /// Whether these options make sense for a network with these blocks.
    ///
    /// # Errors
    /// With the option, what was expected, and the names there are.
    pub fn check(&self, blocks: &[Block]) -> Result<(), OptionsError> {
        let range = |name, value: f64, fits: bool, expected| {
            if fits { Ok(()) } else { Err(OptionsError::Range { name, value, expected }) }
        };
        range("damping", self.damping, self.damping > 0.0 && self.damping.is_finite(), "positive and finite")?;
        range("ema_old", self.ema_old, (0.0..1.0).contains(&self.ema_old), "at least 0 and below 1")?;
        let clip = self.clip.unwrap_or(1.0);
        range("clip", clip, clip > 0.0, "positive, or none")?;
        range("factor_period", self.factor_period as f64, self.factor_period > 0, "at least 1")?;
        range("inverse_period", self.inverse_period as f64, self.inverse_period > 0, "at least 1")?;
        let splits = self.form != Form::Ekfac || self.split_factors == 0;
        range(
            "split_factors",
            self.split_factors as f64,
            splits,
            "0 with EKFAC, whose second moments are in whole bases",
        )?;
        let unknown = self.exclude.iter().find(|name| blocks.iter().all(|block| block.name != **name));
        match unknown {
            Some(name) => Err(OptionsError::Unknown {
                name: name.clone(),
                known: blocks.iter().map(|block| block.name.clone()).collect(),
            }),
            None => Ok(()),
        }
    }
}

/// Options that make no sense.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionsError {
    /// A number is out of its range.
    Range {
        /// The option.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        expected: &'static str,
    },
    /// A block to be excluded does not exist.
    Unknown {
        /// Its name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { name, value, expected } => write!(f, "{name} is {value}; it must be {expected}"),
            Self::Unknown { name, known } => {
                write!(f, "no block is called {name:?}; exclude some of {known:?}, or nothing")
            }
        }
    }
}

impl core::error::Error for OptionsError {}
