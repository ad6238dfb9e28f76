//! The scalars there are kernels for, and their vectors on an instruction set.

use core::marker::PhantomData;
use kronfleet_core::scalar::Scalar;
use pulp::{Arch, Simd, WithSimd};

/// `f32` or `f64`.
///
/// The methods are the vocabulary of the kernels: vectors of an instruction set known at run time.
pub trait Real: Scalar + faer::traits::RealField {
    /// As many scalars as a register of `A` holds.
    type Vector<A: Simd>: Copy;

    /// How many that is.
    fn lanes<A: Simd>() -> usize;
    /// The same value in every lane.
    fn splat<A: Simd>(simd: A, value: Self) -> Self::Vector<A>;
    /// `a + b`.
    fn add<A: Simd>(simd: A, a: Self::Vector<A>, b: Self::Vector<A>) -> Self::Vector<A>;
    /// `a·b + c`, fused where the instruction set can.
    fn fused<A: Simd>(simd: A, a: Self::Vector<A>, b: Self::Vector<A>, c: Self::Vector<A>) -> Self::Vector<A>;
    /// `value` where it is greater than `largest` or not a number, else `largest`, lane by lane.
    fn larger<A: Simd>(simd: A, largest: Self::Vector<A>, value: Self::Vector<A>) -> Self::Vector<A>;
    /// `then` where `value` equals `other` or is not a number, else `otherwise`, lane by lane.
    fn matching<A: Simd>(
        simd: A,
        value: Self::Vector<A>,
        other: Self::Vector<A>,
        then: Self::Vector<A>,
        otherwise: Self::Vector<A>,
    ) -> Self::Vector<A>;
    /// All whole vectors of a slice.
    fn vectors<A: Simd>(slice: &[Self]) -> &[Self::Vector<A>];
    /// All whole vectors of a slice, to write.
    fn vectors_mut<A: Simd>(slice: &mut [Self]) -> &mut [Self::Vector<A>];
    /// The vector that starts with `slice`; lanes past its end are 0.
    fn partial<A: Simd>(simd: A, slice: &[Self]) -> Self::Vector<A>;
    /// Stores as many lanes as `slice` has room for.
    fn store<A: Simd>(simd: A, slice: &mut [Self], value: Self::Vector<A>);
}

/// As many scalars as a register of this machine holds.
pub(crate) fn lanes<S: Real>() -> usize {
    struct Lanes<S>(PhantomData<S>);

    impl<S: Real> WithSimd for Lanes<S> {
        type Output = usize;

        #[inline(always)]
        fn with_simd<A: Simd>(self, _: A) -> usize {
            S::lanes::<A>()
        }
    }

    Arch::new().dispatch(Lanes::<S>(PhantomData))
}

macro_rules! real {
    ($scalar:ident, $vector:ident, $lanes:ident, $splat:ident, $add:ident, $fused:ident, $read:ident, $write:ident,
     $load:ident, $store:ident, $greater:ident, $equal:ident, $select:ident) => {
        impl Real for $scalar {
            type Vector<A: Simd> = A::$vector;

            #[inline(always)]
            fn lanes<A: Simd>() -> usize {
                A::$lanes
            }

            #[inline(always)]
            fn splat<A: Simd>(simd: A, value: Self) -> A::$vector {
                simd.$splat(value)
            }

            #[inline(always)]
            fn add<A: Simd>(simd: A, a: A::$vector, b: A::$vector) -> A::$vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn fused<A: Simd>(simd: A, a: A::$vector, b: A::$vector, c: A::$vector) -> A::$vector {
                simd.$fused(a, b, c)
            }

            #[inline(always)]
            fn larger<A: Simd>(simd: A, largest: A::$vector, value: A::$vector) -> A::$vector {
                let number = simd.$select(simd.$equal(value, value), largest, value);
                simd.$select(simd.$greater(value, largest), value, number)
            }

            #[inline(always)]
            fn matching<A: Simd>(
                simd: A,
                value: A::$vector,
                other: A::$vector,
                then: A::$vector,
                otherwise: A::$vector,
            ) -> A::$vector {
                let number = simd.$select(simd.$equal(value, value), otherwise, then);
                simd.$select(simd.$equal(value, other), then, number)
            }

            #[inline(always)]
            fn vectors<A: Simd>(slice: &[Self]) -> &[A::$vector] {
                A::$read(slice).0
            }

            #[inline(always)]
            fn vectors_mut<A: Simd>(slice: &mut [Self]) -> &mut [A::$vector] {
                A::$write(slice).0
            }

            #[inline(always)]
            fn partial<A: Simd>(simd: A, slice: &[Self]) -> A::$vector {
                simd.$load(slice)
            }

            #[inline(always)]
            fn store<A: Simd>(simd: A, slice: &mut [Self], value: A::$vector) {
                simd.$store(slice, value);
            }
        }
    };
}

real!(
    f32,
    f32s,
    F32_LANES,
    splat_f32s,
    add_f32s,
    mul_add_e_f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    partial_load_f32s,
    partial_store_f32s,
    greater_than_f32s,
    equal_f32s,
    select_f32s
);
real!(
    f64,
    f64s,
    F64_LANES,
    splat_f64s,
    add_f64s,
    mul_add_e_f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    partial_load_f64s,
    partial_store_f64s,
    greater_than_f64s,
    equal_f64s,
    select_f64s
);
