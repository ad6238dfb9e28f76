//! Memory, tickets and counts.

use super::bound::same_bits;
use super::data::{Values, done, fetch, upload, values};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Buffer, Gemm, Map, MapJob};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use proptest::prelude::*;

/// New buffers hold zeros; what is uploaded anywhere comes back to the bit, from any range or several, with its surroundings.
pub fn uploads_come_back<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let cases = (0..40_usize, 0..40_usize, 0..40_usize)
        .prop_flat_map(|(before, len, after)| (Just(before), values(len), Just(after), 0..=before, 0..=after));
    check.hold(cases, |(before, values, after, first, last)| {
        let mut backend = make();
        let source: Vec<B::Scalar> = values.0.iter().map(|&value| B::Scalar::of(value)).collect();
        let mut buffer = done(backend.allocate(before + source.len() + after));
        if buffer.len() != before + source.len() + after {
            return Err(format!("a buffer of {} scalars says it has {}", before + source.len() + after, buffer.len()));
        }
        done(backend.upload(&source, &mut buffer, before));
        let mut expected = vec![B::Scalar::of(0.0); before + source.len() + after];
        expected[before..before + source.len()].copy_from_slice(&source);
        let range = first..before + source.len() + last;
        let seen = done(backend.fetch(&buffer, range.clone()));
        same_bits("what was uploaded and what came back", &[expected[range.clone()].to_vec()], &[seen])?;
        // Neighbours, and what lies far apart, in any order.
        let all = expected.len();
        for ranges in [vec![range, 0..all], vec![all.saturating_sub(1)..all, 0..1.min(all)]] {
            let mut seen = Vec::new();
            done(backend.read(&buffer, ranges.iter().cloned(), |part| seen.push(part.to_vec())));
            let expected: Vec<_> = ranges.into_iter().map(|range| expected[range].to_vec()).collect();
            same_bits("what was uploaded and what was read", &expected, &seen)?;
        }
        Ok(())
    })
}

/// A ticket sees every earlier write and no later one, by whatever operation and in whatever order tickets are finished.
pub fn tickets_are_snapshots<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let cases = (1..12_usize).prop_flat_map(|n| (Just(n), values(n * n), values(n * n), 0..4_usize, any::<bool>()));
    check.hold(cases, |(n, first, second, writer, reversed)| {
        let mut backend = make();
        let square = Region::matrix(0, n, n);
        let mut buffer = upload(&mut backend, &first.0);
        let other = upload(&mut backend, &second.0);
        let early = done(backend.download(&buffer, 0..n * n));
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        match writer {
            0 => {
                let content: Vec<B::Scalar> = second.0.iter().map(|&value| B::Scalar::of(value)).collect();
                done(backend.upload(&content, &mut buffer, 0));
            }
            1 => done(backend.axpby(one, &other, zero, &mut buffer, square)),
            2 => done(backend.map(
                Map::Sum(one, one),
                &[MapJob { x: square, y: square, out: square }],
                Some(&other),
                Some(&other),
                &mut buffer,
            )),
            _ => done(backend.gemm(&[Gemm::product(square, square, square)], &other, &other, &mut buffer)),
        }
        let late = done(backend.download(&buffer, 0..n * n));
        let (mut before, mut after) = (vec![zero; n * n], vec![zero; n * n]);
        if reversed {
            done(backend.finish(late, &mut after));
            done(backend.finish(early, &mut before));
        } else {
            done(backend.finish(early, &mut before));
            done(backend.finish(late, &mut after));
        }
        let expected: Vec<B::Scalar> = first.0.iter().map(|&value| B::Scalar::of(value)).collect();
        same_bits("the content and an early ticket", &[expected], &[before])?;
        let content = fetch(&mut backend, &buffer);
        same_bits("the content and a late ticket", &[content], &[after])
    })
}

/// `host` shows inputs and outputs as they are, and what it writes is seen by later work.
pub fn host_work_reads_and_writes<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let cases = (0..20_usize, 0..20_usize).prop_flat_map(|(n, m)| (values(n), values(n), values(m)));
    check.hold(cases, |(x, y, z)| {
        let mut backend = make();
        let input = upload(&mut backend, &x.0);
        let (mut one, mut other) = (upload(&mut backend, &y.0), upload(&mut backend, &z.0));
        let round = |values: &Values| values.0.iter().map(|&value| B::Scalar::of(value)).collect::<Vec<_>>();
        done(backend.host([&input], [&mut one, &mut other], |[input], [one, other]| {
            for (target, &value) in one.iter_mut().zip(input) {
                *target += value;
            }
            other.fill(B::Scalar::of(3.0));
        }));
        let sums = round(&x).into_iter().zip(round(&y)).map(|(x, y)| y + x).collect();
        let expected = [round(&x), sums, vec![B::Scalar::of(3.0); z.0.len()]];
        let seen = [fetch(&mut backend, &input), fetch(&mut backend, &one), fetch(&mut backend, &other)];
        same_bits("what the host wrote and what is there", &expected, &seen)
    })
}

/// Allocations, copies, products and factorisations are counted where they are done.
pub fn work_is_counted<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    check.hold((1..20_usize, 1..20_usize, 1..20_usize), |(m, n, k)| {
        let mut backend = make();
        let before = *backend.counters();
        let a = upload(&mut backend, &vec![1.0; m * k]);
        let b = upload(&mut backend, &vec![1.0; k * n]);
        let mut c = upload(&mut backend, &vec![0.0; m * n]);
        let product = Gemm::product(Region::matrix(0, m, k), Region::matrix(0, k, n), Region::matrix(0, m, n));
        done(backend.gemm(&[product], &a, &b, &mut c));
        let products = *backend.counters();
        let mut matrix = upload(&mut backend, &[4.0]);
        let ticket = done(backend.cholesky(&[Region::matrix(0, 1, 1)], &mut matrix));
        done(backend.verdict(ticket, &mut [false]));
        let _ = done(backend.fetch(&c, 0..m * n));
        let after = *backend.counters();
        let counted = |what: &str, expected: usize, from: u64, to: u64| match to - from {
            seen if seen == expected as u64 => Ok(()),
            seen => Err(format!("{seen} {what} counted instead of {expected}")),
        };
        counted("flops of a product", 2 * m * n * k, before.flops, products.flops)?;
        counted("factorisations", 1, before.factorisations, after.factorisations)?;
        counted("scalars uploaded", m * k + k * n + m * n + 1, before.uploaded, after.uploaded)?;
        counted("scalars downloaded", m * n, before.downloaded, after.downloaded)?;
        counted("allocations", 4, before.allocations, after.allocations)?;
        counted("scalars allocated", m * k + k * n + m * n + 1, before.allocated, after.allocated)
    })
}
