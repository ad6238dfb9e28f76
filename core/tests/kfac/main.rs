//! K-FAC and training on a small backend in double precision, against plain loops.

mod channels;
mod dense;
mod division;
mod drift;
mod ekfac;
mod elastic;
mod eva;
mod factor;
mod gradients;
mod memory;
mod methods;
mod optimiser;
mod overlapped;
mod partial;
mod preconditioner;
mod restored;
mod split;
mod trainer;
