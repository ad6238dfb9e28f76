//! The inverse and the eigen form behind one face.

use super::super::division::{Bundle, Division, Share};
use super::super::eigen::{Eigen, Refreshed};
use super::super::inverse::Inverse;
use super::super::moments::Moments;
use super::super::{Captures, Form, Report};
use crate::backend::Backend;
use crate::factor::KroneckerFactors;
use crate::layer::Block;
use crate::scalar::Scalar;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// Decomposes and applies.
pub(super) enum Solver<B: Backend> {
    Inverse(Box<Inverse<B>>),
    Eigen(Box<Eigen<B>>),
}

impl<B: Backend> Solver<B> {
    pub(super) fn new(
        backend: &mut B,
        form: Form,
        factors: &KroneckerFactors<B>,
        members: &[usize],
        parameters: usize,
        share: &Share,
    ) -> Result<Self, B::Error> {
        Ok(match form {
            Form::Inverse => Self::Inverse(Box::new(Inverse::new(backend, factors, share)?)),
            Form::Eigen | Form::Ekfac => {
                Self::Eigen(Box::new(Eigen::new(backend, factors, members, parameters, form == Form::Ekfac, share)?))
            }
        })
    }

    /// EKFAC's second moments, if it is EKFAC.
    pub(super) fn moments(&mut self) -> Option<&mut Moments<B>> {
        match self {
            Self::Inverse(_) => None,
            Self::Eigen(eigen) => eigen.moments(),
        }
    }

    /// Waits for a refresh that was begun; answers whether there was one.
    pub(super) fn settle(
        &mut self,
        backend: &mut B,
        factors: &KroneckerFactors<B>,
        report: &mut Report,
    ) -> Result<bool, B::Error> {
        match self {
            Self::Inverse(inverse) => inverse.settle(backend, factors, report),
            Self::Eigen(eigen) => eigen.settle(backend, factors, report),
        }
    }

    /// What a refresh has made of decompositions that are not current yet.
    pub(super) fn shadow(&mut self) -> Vec<&mut B::Buffer> {
        match self {
            Self::Inverse(inverse) => vec![inverse.refreshed().0],
            Self::Eigen(eigen) => {
                let Refreshed { vectors, values } = eigen.refreshed();
                vec![vectors.0, values.0]
            }
        }
    }

    pub(super) fn decompositions(
        &mut self,
        backend: &mut B,
        division: &Division<B>,
    ) -> Result<Bundle<B::Scalar>, B::Error> {
        match self {
            Self::Inverse(inverse) => {
                let (inverses, layout) = inverse.refreshed();
                division.decompositions(backend, (layout, inverses), None)
            }
            Self::Eigen(eigen) => {
                let Refreshed { vectors: (vectors, layout), values: (values, spectra) } = eigen.refreshed();
                division.decompositions(backend, (layout, vectors), Some((values, spectra)))
            }
        }
    }

    pub(super) fn take_decompositions(
        &mut self,
        backend: &mut B,
        division: &Division<B>,
        bundle: &Bundle<B::Scalar>,
    ) -> Result<(), B::Error> {
        match self {
            Self::Inverse(inverse) => division.take_decompositions(backend, bundle, inverse.refreshed().0, None),
            Self::Eigen(eigen) => {
                let Refreshed { vectors, values } = eigen.refreshed();
                division.take_decompositions(backend, bundle, vectors.0, Some(values.0))
            }
        }
    }

    /// Puts in place of the refreshed decompositions of a block what leaves its gradient as it is at damping λ.
    pub(super) fn leave_alone(&mut self, backend: &mut B, block: usize, damping: f64) -> Result<(), B::Error> {
        match self {
            Self::Inverse(inverse) => inverse.leave_alone(backend, block),
            // The product of two eigenvalues and λ are 1.
            Self::Eigen(eigen) => {
                eigen.leave_alone(backend, block, B::Scalar::of(libm::sqrt(f64::max(0.0, 1.0 - damping))))
            }
        }
    }

    /// `v ←` the preconditioned gradient in every block that is held.
    pub(super) fn apply(
        &mut self,
        backend: &mut B,
        (blocks, members): (&[Block], &[usize]),
        (damping, passes): (f64, Option<&dyn Captures<B>>),
        gradient: &B::Buffer,
        scratch: &mut B::Buffer,
        v: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        match self {
            Self::Inverse(inverse) => inverse.apply(backend, blocks, members, passes, gradient, scratch, v),
            Self::Eigen(eigen) => eigen.apply(backend, damping, gradient, scratch, v),
        }
    }

    pub(super) fn promote(&mut self, backend: &mut B) -> Result<(), B::Error> {
        match self {
            Self::Inverse(inverse) => {
                inverse.promote();
                Ok(())
            }
            Self::Eigen(eigen) => eigen.promote(backend),
        }
    }
}
