//! One vector of floats behind one trait, so that every kernel is written once.
//!
//! A kernel is an `#[inline(always)]` generic function; a `#[target_feature]` wrapper per instruction set (in
//! [`super::table`]) makes the machine code. The methods are safe to call only inside such a wrapper, or for
//! [`Lanes`], anywhere.

/// A floating-point type that the kernels compute in.
pub(crate) trait Float:
    Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + std::ops::Add<Output = Self>
    + std::ops::AddAssign
    + std::ops::Mul<Output = Self>
    + 'static
{
    fn of(value: f64) -> Self;
}

impl Float for f32 {
    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }
}

impl Float for f64 {
    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }
}

/// Lanes of the widest vector.
pub(crate) const MAX_LANES: usize = 16;

/// A vector register of `LANES` numbers.
///
/// # Safety
/// Every method needs the instruction set that the implementor stands for; loads and stores touch `LANES` numbers
/// from the pointer on, without alignment.
pub(crate) trait Vector: Copy {
    type Elem: Float;
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(value: Self::Elem) -> Self;
    unsafe fn load(from: *const Self::Elem) -> Self;
    unsafe fn store(self, to: *mut Self::Elem);
    /// The first `n` numbers, fewer than `LANES`, and zeros.
    #[inline(always)]
    unsafe fn load_first(from: *const Self::Elem, n: usize) -> Self {
        let mut all = [Self::Elem::default(); MAX_LANES];
        // SAFETY: the caller gives `n` readable numbers.
        unsafe {
            std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), n);
            Self::load(all.as_ptr())
        }
    }
    /// Stores the first `n` numbers, fewer than `LANES`.
    #[inline(always)]
    unsafe fn store_first(self, to: *mut Self::Elem, n: usize) {
        let mut all = [Self::Elem::default(); MAX_LANES];
        // SAFETY: the caller gives `n` writable numbers.
        unsafe {
            self.store(all.as_mut_ptr());
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
        }
    }
    /// The first `n` numbers, or as many as there are lanes, and zeros.
    #[inline(always)]
    unsafe fn load_up_to(from: *const Self::Elem, n: usize) -> Self {
        // SAFETY: the caller gives so many readable numbers.
        unsafe { if n < Self::LANES { Self::load_first(from, n) } else { Self::load(from) } }
    }
    /// Stores the first `n` numbers, or as many as there are lanes.
    #[inline(always)]
    unsafe fn store_up_to(self, to: *mut Self::Elem, n: usize) {
        // SAFETY: the caller gives so many writable numbers.
        unsafe { if n < Self::LANES { self.store_first(to, n) } else { self.store(to) } }
    }
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { self.fma(other, Self::zero()) }
    }
    /// 0 for what is 0 or less; NaN stays NaN.
    unsafe fn rectified(self) -> Self;
    /// `self * other + plus`.
    unsafe fn fma(self, other: Self, plus: Self) -> Self;
    /// The sums over the lanes of four vectors.
    unsafe fn sums(of: [Self; 4]) -> [Self::Elem; 4];
    /// `to[lane * width + k] = rows[k][lane]`: four rows become four columns.
    unsafe fn store_transposed(rows: [Self; 4], to: *mut Self::Elem, width: usize);
}

/// Plain arrays: the portable path, the path for f64, and the one that Miri can run.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Lanes<T, const N: usize>([T; N]);

macro_rules! portable {
    ($t:ty, $n:literal) => {
        impl Vector for Lanes<$t, $n> {
            type Elem = $t;
            const LANES: usize = $n;
            #[inline(always)]
            unsafe fn zero() -> Self {
                Self([0.0; $n])
            }
            #[inline(always)]
            unsafe fn splat(value: $t) -> Self {
                Self([value; $n])
            }
            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self {
                // SAFETY: the caller gives `LANES` readable numbers; an array needs only its element's alignment.
                Self(unsafe { from.cast::<[$t; $n]>().read() })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                // SAFETY: the caller gives `LANES` writable numbers.
                unsafe { to.cast::<[$t; $n]>().write(self.0) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
            }
            #[inline(always)]
            unsafe fn rectified(self) -> Self {
                Self(self.0.map(|v| if v <= 0.0 { 0.0 } else { v }))
            }
            // Two roundings: without the FMA feature `mul_add` is a call into libm.
            #[inline(always)]
            unsafe fn fma(self, other: Self, plus: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] * other.0[i] + plus.0[i]))
            }
            #[inline(always)]
            unsafe fn sums(of: [Self; 4]) -> [$t; 4] {
                of.map(|vector| vector.0.iter().sum())
            }
            #[inline(always)]
            unsafe fn store_transposed(rows: [Self; 4], to: *mut $t, width: usize) {
                for lane in 0..$n {
                    // SAFETY: the caller gives four writable numbers in each of `LANES` rows.
                    unsafe { to.add(lane * width).cast::<[$t; 4]>().write(rows.map(|row| row.0[lane])) }
                }
            }
        }
    };
}
portable!(f32, 8);
portable!(f64, 4);

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    /// Eight f32 of AVX2 with FMA.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub(crate) struct Ymm(__m256);

    /// Sixteen f32 of AVX-512F.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub(crate) struct Zmm(__m512);

    // SAFETY (all blocks of this module): the trait's contract gives the instruction set and valid pointers.
    impl Vector for Ymm {
        type Elem = f32;
        const LANES: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm256_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm256_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm256_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the trait.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm256_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn rectified(self) -> Self {
            // SAFETY: see the trait.
            unsafe {
                let stays = _mm256_cmp_ps::<_CMP_NLE_UQ>(self.0, _mm256_setzero_ps());
                Self(_mm256_and_ps(stays, self.0))
            }
        }
        #[inline(always)]
        unsafe fn fma(self, other: Self, plus: Self) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm256_fmadd_ps(self.0, other.0, plus.0) })
        }
        #[inline(always)]
        unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
            // SAFETY: see the trait.
            unsafe {
                let low = _mm256_hadd_ps(of[0].0, of[1].0);
                let high = _mm256_hadd_ps(of[2].0, of[3].0);
                let both = _mm256_hadd_ps(low, high);
                let sum = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps::<1>(both));
                let mut out = [0.0; 4];
                _mm_storeu_ps(out.as_mut_ptr(), sum);
                out
            }
        }
        #[inline(always)]
        unsafe fn store_transposed(rows: [Self; 4], to: *mut f32, width: usize) {
            // SAFETY: see the trait.
            unsafe {
                let [a, b, c, d] = rows.map(|row| row.0);
                let [ab_low, ab_high] =
                    [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)].map(|v| _mm256_castps_pd(v));
                let [cd_low, cd_high] =
                    [_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)].map(|v| _mm256_castps_pd(v));
                let lanes = [
                    _mm256_unpacklo_pd(ab_low, cd_low),
                    _mm256_unpackhi_pd(ab_low, cd_low),
                    _mm256_unpacklo_pd(ab_high, cd_high),
                    _mm256_unpackhi_pd(ab_high, cd_high),
                ];
                for (lane, quad) in lanes.into_iter().enumerate() {
                    let quad = _mm256_castpd_ps(quad);
                    _mm_storeu_ps(to.add(lane * width), _mm256_castps256_ps128(quad));
                    _mm_storeu_ps(to.add((lane + 4) * width), _mm256_extractf128_ps::<1>(quad));
                }
            }
        }
    }

    impl Vector for Zmm {
        type Elem = f32;
        const LANES: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm512_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the trait.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn load_first(from: *const f32, n: usize) -> Self {
            // SAFETY: see the trait; what is masked out is not touched.
            Self(unsafe { _mm512_maskz_loadu_ps((1 << n) - 1, from) })
        }
        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, n: usize) {
            // SAFETY: see the trait; what is masked out is not touched.
            unsafe { _mm512_mask_storeu_ps(to, (1 << n) - 1, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn rectified(self) -> Self {
            // SAFETY: see the trait.
            unsafe {
                let stays = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(self.0, _mm512_setzero_ps());
                Self(_mm512_maskz_mov_ps(stays, self.0))
            }
        }
        #[inline(always)]
        unsafe fn fma(self, other: Self, plus: Self) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { _mm512_fmadd_ps(self.0, other.0, plus.0) })
        }
        #[inline(always)]
        unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
            // SAFETY: see the trait.
            unsafe {
                let [a, b, c, d] = of.map(|vector| vector.0);
                let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                // every 128-bit lane: the partial sums of a, b, c, d
                let lanes = _mm512_add_ps(
                    _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd),
                    _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd),
                );
                let low = _mm512_castps512_ps256(lanes);
                let high = _mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b11_10_11_10>(lanes, lanes));
                let half = _mm256_add_ps(low, high);
                let sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
                let mut out = [0.0; 4];
                _mm_storeu_ps(out.as_mut_ptr(), sum);
                out
            }
        }
        #[inline(always)]
        unsafe fn store_transposed(rows: [Self; 4], to: *mut f32, width: usize) {
            // SAFETY: see the trait.
            unsafe {
                let [a, b, c, d] = rows.map(|row| row.0);
                let [ab_low, ab_high] =
                    [_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)].map(|v| _mm512_castps_pd(v));
                let [cd_low, cd_high] =
                    [_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)].map(|v| _mm512_castps_pd(v));
                let lanes = [
                    _mm512_unpacklo_pd(ab_low, cd_low),
                    _mm512_unpackhi_pd(ab_low, cd_low),
                    _mm512_unpacklo_pd(ab_high, cd_high),
                    _mm512_unpackhi_pd(ab_high, cd_high),
                ];
                for (lane, quad) in lanes.into_iter().enumerate() {
                    let quad = _mm512_castpd_ps(quad);
                    _mm_storeu_ps(to.add(lane * width), _mm512_castps512_ps128(quad));
                    _mm_storeu_ps(to.add((lane + 4) * width), _mm512_extractf32x4_ps::<1>(quad));
                    _mm_storeu_ps(to.add((lane + 8) * width), _mm512_extractf32x4_ps::<2>(quad));
                    _mm_storeu_ps(to.add((lane + 12) * width), _mm512_extractf32x4_ps::<3>(quad));
                }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod arm {
    use super::Vector;
    use std::arch::aarch64::*;

    /// Four f32 of NEON.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub(crate) struct Neon(float32x4_t);

    impl Vector for Neon {
        type Elem = f32;
        const LANES: usize = 4;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see the trait.
            Self(unsafe { vdupq_n_f32(0.0) })
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { vdupq_n_f32(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { vld1q_f32(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the trait.
            unsafe { vst1q_f32(to, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { vaddq_f32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { vsubq_f32(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn fma(self, other: Self, plus: Self) -> Self {
            // SAFETY: see the trait.
            Self(unsafe { vfmaq_f32(plus.0, self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
            // SAFETY: see the trait.
            unsafe { of.map(|vector| vaddvq_f32(vector.0)) }
        }
        #[inline(always)]
        unsafe fn store_transposed(rows: [Self; 4], to: *mut f32, width: usize) {
            // SAFETY: see the trait.
            unsafe {
                let [a, b, c, d] = rows.map(|row| row.0);
                let [ab_low, ab_high] = [vzip1q_f32(a, b), vzip2q_f32(a, b)].map(|v| vreinterpretq_f64_f32(v));
                let [cd_low, cd_high] = [vzip1q_f32(c, d), vzip2q_f32(c, d)].map(|v| vreinterpretq_f64_f32(v));
                let lanes = [
                    vzip1q_f64(ab_low, cd_low),
                    vzip2q_f64(ab_low, cd_low),
                    vzip1q_f64(ab_high, cd_high),
                    vzip2q_f64(ab_high, cd_high),
                ];
                for (lane, quad) in lanes.into_iter().enumerate() {
                    vst1q_f32(to.add(lane * width), vreinterpretq_f32_f64(quad));
                }
            }
        }
    }
}
