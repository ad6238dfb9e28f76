//! How curvature is used.

use clap::{Args, ValueEnum};
use kronfleet_core::preconditioner as core;

/// What is done to the gradient before the base optimiser takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Nothing: plain SGD or Adam.
    None,
    /// Kronecker-factored curvature.
    Kfac,
    /// K-FAC with re-estimated eigenvalues (George et al. 2018).
    Ekfac,
    /// K-FAC with mean vectors in place of matrices (Zhang et al. 2023).
    Eva,
    /// Whitened by fourth roots of the gradients' second moments, as long as the gradient (Gupta et al. 2018).
    Shampoo,
    /// Adam in Shampoo's eigenbases (Vyas et al. 2024), by --momentum, --beta2 and --epsilon.
    Soap,
    /// Momentum, by --momentum, with all its singular values near 1 (Jordan et al. 2024).
    Muon,
}

impl Method {
    /// As it is chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kfac => "kfac",
            Self::Ekfac => "ekfac",
            Self::Eva => "eva",
            Self::Shampoo => "shampoo",
            Self::Soap => "soap",
            Self::Muon => "muon",
        }
    }

    /// Whether it has momentum of its own, so that the base optimiser is plain gradient descent.
    pub fn has_momentum(self) -> bool {
        matches!(self, Self::Soap | Self::Muon)
    }

    /// Whether gradients are looked at in bases that are decomposed now and then.
    pub fn has_bases(self) -> bool {
        matches!(self, Self::Shampoo | Self::Soap)
    }
}

/// How damping enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Factored damping, by Cholesky: cheap.
    Inverse,
    /// Exact damping, by eigendecomposition.
    Eigen,
}

/// Which labels the curvature is measured at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fisher {
    /// The training labels.
    Empirical,
    /// Labels drawn from the model, by one more backward pass.
    True,
}

/// How curvature is used.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Curvature")]
pub struct KfacSettings {
    /// What is done to the gradient
    #[arg(long, value_enum, default_value_t = Method::Kfac)]
    pub preconditioner: Method,
    /// How damping enters
    #[arg(long, value_enum, default_value_t = Form::Inverse)]
    pub form: Form,
    /// Which labels the curvature is measured at
    #[arg(long, value_enum, default_value_t = Fisher::Empirical)]
    pub fisher: Fisher,
    /// Damping λ; Shampoo's is in units of the mean eigenvalue and 0.0001 by default
    #[arg(
        long,
        default_value = "0.03",
        default_value_if("preconditioner", "shampoo", "0.0001"),
        value_name = "LAMBDA",
        value_parser = super::positive
    )]
    pub damping: f64,
    /// Adapt the damping to how well the quadratic model predicts (Levenberg-Marquardt)
    #[arg(long)]
    pub adaptive_damping: bool,
    /// Bound κ on the size of a step in the metric of the curvature; 0 switches it off
    #[arg(long, default_value = "0.001", value_name = "KAPPA", value_parser = super::not_negative)]
    pub kl_clip: f64,
    /// Weight of the old running average at each factor update
    #[arg(long, default_value = "0.95", value_name = "SHARE", value_parser = super::fraction)]
    pub ema: f64,
    /// Iterations between factor updates
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub factor_every: u64,
    /// Iterations between decompositions
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub inverse_every: u64,
    /// Use a decomposition one iteration after it was asked for, so that no iteration waits for its verdict
    #[arg(long)]
    pub deferred_refresh: bool,
    /// Always apply inverses to the gradient, even where applying them to a small batch's inputs and output gradients
    /// takes fewer operations
    #[arg(long)]
    pub no_low_rank: bool,
    /// Take factors of more than N rows for block-diagonal, with diagonal blocks of about N rows at most, each decomposed by
    /// itself; 0 takes none for it
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub split_factors: usize,
    /// Leave this layer to the base optimiser; may be given several times
    #[arg(long, value_name = "LAYER")]
    pub skip_layer: Vec<String>,
}

impl KfacSettings {
    /// The same for K-FAC; `None` without it.
    pub fn options(&self) -> Option<core::Options> {
        let form = match (self.preconditioner, self.form) {
            (Method::None | Method::Eva | Method::Shampoo | Method::Soap | Method::Muon, _) => return None,
            (Method::Ekfac, _) => core::Form::Ekfac,
            (Method::Kfac, Form::Inverse) => core::Form::Inverse,
            (Method::Kfac, Form::Eigen) => core::Form::Eigen,
        };
        Some(core::Options {
            form,
            damping: self.damping,
            ema_old: self.ema,
            clip: self.clip(),
            factor_period: self.factor_every,
            inverse_period: self.inverse_every,
            fisher: match self.fisher {
                Fisher::Empirical => core::Fisher::Empirical,
                Fisher::True => core::Fisher::True,
            },
            refresh: if self.deferred_refresh { core::Refresh::Deferred } else { core::Refresh::Immediate },
            low_rank: !self.no_low_rank,
            split_factors: self.split_factors,
            exclude: self.skip_layer.clone(),
        })
    }

    /// κ of the KL clip, if there is one.
    pub fn clip(&self) -> Option<f64> {
        (self.kl_clip > 0.0).then_some(self.kl_clip)
    }
}
