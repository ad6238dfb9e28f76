//! What a method that looks at gradients alone does in the blocks of its share.

use super::bases::Bases;
use super::division::Share;
use crate::backend::Backend;
use crate::layer::Block;

/// A method that looks at gradients alone; whoever holds it says when what is called, and keeps what all have in common.
pub(super) trait Rule<B: Backend>: Send {
    /// The blocks it treats as matrices; all other parameters are plain.
    fn blocks(&self) -> &[Block];

    /// Writes the direction of `gradient`, in the blocks of its share and in all plain parameters.
    fn follow(&mut self, backend: &mut B, gradient: &B::Buffer, direction: &mut B::Buffer) -> Result<(), B::Error>;

    /// Takes over this share of the work. What it keeps beside running averages begins anew.
    fn divide(&mut self, backend: &mut B, share: &Share) -> Result<(), B::Error>;

    /// Its bases, if it has any.
    fn bases(&mut self) -> Option<&mut Bases<B>> {
        None
    }

    /// The same, to be read.
    fn known_bases(&self) -> Option<&Bases<B>> {
        None
    }

    /// Goes on with new bases.
    fn turn(&mut self, backend: &mut B) -> Result<(), B::Error> {
        let _ = backend;
        Ok(())
    }

    /// A number that the report shows as damping.
    fn damping(&self) -> f64 {
        0.0
    }

    /// Flat buffers that it goes on with, in the layout of the parameters, and how many steps they are of.
    fn moments(&mut self) -> (&mut [B::Buffer], u64) {
        (&mut [], 0)
    }

    /// Takes note that the buffers are of so many steps.
    fn resume(&mut self, counted: u64) {
        let _ = counted;
    }
}
