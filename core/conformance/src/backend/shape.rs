//! Empty shapes and wrong shapes.

use super::bound::same_bits;
use super::data::{done, fetch, upload, values};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Eigen, Gemm, Invert, Map, MapJob, Outer, ReduceJob, Solve};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Empty regions and empty lists of jobs are legal and write nothing.
pub fn empty_work_does_nothing<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let cases = (0..4_usize, 0..4_usize).prop_flat_map(|(n, offset)| (Just(n), Just(offset), values(16)));
    check.hold(cases, |(n, offset, content)| {
        let mut backend = make();
        let one = B::Scalar::of(1.0);
        let x = upload(&mut backend, &content.0);
        let mut out = upload(&mut backend, &content.0);
        let mut lines = upload(&mut backend, &content.0);
        let (none, wide, high) =
            (Region::matrix(offset, 0, 0), Region::matrix(offset, 0, n), Region::matrix(offset, n, 0));
        done(backend.gemm(&[], &x, &x, &mut out));
        done(backend.gemm(&[Gemm::product(wide, Region::matrix(0, n, n), wide)], &x, &x, &mut out));
        done(backend.gemm(&[Gemm::product(Region::matrix(0, n, n), high, high)], &x, &x, &mut out));
        done(backend.map(Map::Tanh, &[], Some(&x), None, &mut out));
        for empty in [none, wide, high] {
            done(backend.map(Map::Fill(one), &[MapJob::unary(empty, empty)], Some(&x), None, &mut out));
            done(backend.reduce(&[ReduceJob::sum(empty, empty)], &x, None, &mut out));
        }
        done(backend.reduce(&[], &x, None, &mut out));
        done(backend.symmetric_product(&[], &x, &mut out));
        done(backend.symmetric_product(&[Outer { alpha: one, x: wide, beta: one, c: none }], &x, &mut out));
        let ticket = done(backend.cholesky(&[], &mut out));
        done(backend.verdict(ticket, &mut []));
        let ticket = done(backend.cholesky(&[none], &mut out));
        let mut sound = [false];
        done(backend.verdict(ticket, &mut sound));
        if !sound[0] {
            return Err("the empty matrix is reported not to be positive definite".into());
        }
        done(backend.cholesky_solve(&[], &x, &mut out));
        done(backend.cholesky_solve(&[Solve { factor: none, x: wide }], &x, &mut out));
        done(backend.cholesky_invert(&[Invert { factor: none, out: none }], &x, &mut out));
        done(backend.symmetric_eigen(&[], &mut out, &mut lines));
        done(backend.symmetric_eigen(&[Eigen { matrix: none, values: Region::vector(0, 0) }], &mut out, &mut lines));
        done(backend.upload(&[], &mut out, offset));
        let nothing = done(backend.download(&out, offset..offset));
        done(backend.finish(nothing, &mut []));
        let mut empty = done(backend.allocate(0));
        done(backend.fill(one, Region::matrix(0, 0, 0), &mut empty));
        let before = fetch(&mut backend, &x);
        same_bits(
            "before and after empty work",
            &[before.clone(), before],
            &[fetch(&mut backend, &out), fetch(&mut backend, &lines)],
        )
    })
}

/// A product of no columns leaves `β·c`, a sum of nothing too.
pub fn empty_sums_are_zero<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let cases = (0..9_usize, 0..9_usize)
        .prop_flat_map(|(m, n)| (Just(m), Just(n), values(m * n), prop::sample::select(vec![0.0, 1.0, -0.5])));
    check.hold(cases, |(m, n, content, beta)| {
        let mut backend = make();
        let (one, beta) = (B::Scalar::of(1.0), B::Scalar::of(beta));
        let nothing = upload(&mut backend, &[]);
        let target = Region::matrix(0, m, n);
        let mut product = upload(&mut backend, &content.0);
        let job = Gemm { alpha: one, a: Region::matrix(0, m, 0), b: Region::matrix(0, 0, n), beta, c: target };
        done(backend.gemm(&[job], &nothing, &nothing, &mut product));
        let mut sum = upload(&mut backend, &content.0);
        let (x, out) = (Region::matrix(0, m, 0), target.block(0, 0, m, n.min(1)));
        if n > 0 {
            done(backend.reduce(&[ReduceJob { alpha: one, x, y: x, beta, out }], &nothing, None, &mut sum));
        }
        let scaled = |count: usize| -> Vec<B::Scalar> {
            let old = content.0.iter().map(|&value| B::Scalar::of(value)).enumerate();
            old.map(|(at, old)| match at < count {
                true if beta == B::Scalar::of(0.0) => beta,
                true => beta * old,
                false => old,
            })
            .collect()
        };
        let value = |content: Vec<B::Scalar>| -> Vec<B::Scalar> {
            // Zeros of both signs are equal.
            content.into_iter().map(|value| value + B::Scalar::of(0.0)).collect()
        };
        same_bits(
            "β·c and what an empty sum left",
            &[value(scaled(m * n)), value(scaled(if n > 0 { m } else { 0 }))],
            &[value(fetch(&mut backend, &product)), value(fetch(&mut backend, &sum))],
        )
    })
}

/// Wrong shapes are bugs and panic, with both shapes; so does reaching outside a buffer.
pub fn wrong_shapes_panic<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    check.hold((1..9_usize, 10..19_usize, 20..29_usize), |(m, n, k)| {
        let one = B::Scalar::of(1.0);
        let matrix = |rows, columns| Region::matrix(0, rows, columns);
        let product = |a, b, c| Gemm::product(a, b, c);
        let calls: [(&str, &[usize], Call<'_, B>); 9] = [
            ("gemm with an inner dimension that differs", &[k, n], &|backend, x, out| {
                done(backend.gemm(&[product(matrix(m, k), matrix(n, n), matrix(m, n))], x, x, out));
            }),
            ("gemm into another shape", &[m, k], &|backend, x, out| {
                done(backend.gemm(&[product(matrix(m, m), matrix(m, n), matrix(k, n))], x, x, out));
            }),
            ("map over two shapes", &[m, n], &|backend, x, out| {
                let job = MapJob::unary(matrix(m, k), matrix(n, k));
                done(backend.map(Map::Tanh, &[job], Some(x), None, out));
            }),
            ("reduce into a third extent", &[n, k], &|backend, x, out| {
                let job = ReduceJob::sum(matrix(m, n), matrix(m, k));
                done(backend.reduce(&[job], x, None, out));
            }),
            ("symmetric product into another shape", &[m, n], &|backend, x, out| {
                let job = Outer { alpha: one, x: matrix(m, k), beta: one, c: matrix(n, n) };
                done(backend.symmetric_product(&[job], x, out));
            }),
            ("Cholesky of a matrix that is not square", &[m, n], &|backend, _, out| {
                let _ = done(backend.cholesky(&[matrix(m, n)], out));
            }),
            ("solve with a factor of another extent", &[m, n], &|backend, x, out| {
                done(backend.cholesky_solve(&[Solve { factor: matrix(m, m), x: matrix(n, k) }], x, out));
            }),
            ("upload behind the end", &[], &|backend, _, out| {
                done(backend.upload(&[one, one], out, LEN - 1));
            }),
            ("map behind the end", &[], &|backend, x, out| {
                let far = Region::matrix(LEN - 1, m + 1, 1);
                done(backend.map(Map::Tanh, &[MapJob::unary(matrix(m + 1, 1), far)], Some(x), None, out));
            }),
        ];
        for (what, shapes, call) in calls {
            let mut backend = make();
            let x = done(backend.allocate(LEN));
            let mut out = done(backend.allocate(LEN));
            let outcome = catch_unwind(AssertUnwindSafe(|| call(&mut backend, &x, &mut out)));
            let Err(payload) = outcome else { return Err(format!("{what} does not panic")) };
            let text = payload.downcast_ref::<String>().cloned();
            let text =
                text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
            if let Some(missing) = shapes.iter().find(|extent| !text.contains(&extent.to_string())) {
                return Err(format!("{what} panics without saying {missing}: {text}"));
            }
        }
        Ok(())
    })
}

/// A call with a source and a target.
type Call<'a, B> = &'a dyn Fn(&mut B, &<B as Backend>::Buffer, &mut <B as Backend>::Buffer);

/// Longer than any matrix here.
const LEN: usize = 1024;
