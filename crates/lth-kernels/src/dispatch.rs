//! Which vector instructions this machine has, and functions compiled once for each set.

/// A set of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "other machines have the baseline alone"))]
pub(crate) enum Isa {
    /// What every machine of the architecture has (on aarch64 that includes NEON).
    Baseline,
    /// AVX2, FMA, BMI1 and POPCNT.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, and all of [`Isa::Avx2`].
    Avx512,
}

/// The best set of this machine. Detection is cached by the standard library.
#[inline]
pub(crate) fn isa() -> Isa {
    #[cfg(test)]
    if let Some(isa) = tests::forced() {
        return isa;
    }
    detect()
}

/// What this machine has, asked for in this one place: a set counts only with every feature that its kernels are compiled
/// for.
#[cfg(target_arch = "x86_64")]
pub(crate) fn detect() -> Isa {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma") && has!("bmi1") && has!("popcnt")) {
        Isa::Baseline
    } else if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
        Isa::Avx512
    } else {
        Isa::Avx2
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn detect() -> Isa {
    Isa::Baseline
}

/// Compiles a function once for each [`Isa`] and picks one at run time.
///
/// The body is ordinary Rust that vectorises by itself; whatever it calls must be
/// `#[inline(always)]`, or it stays on baseline instructions. Rust never contracts `a * b + c`, so
/// without an explicit `mul_add` all versions give the same bits.
///
/// Generics are written twice, declared and used: `fn add[T: Real][T](...)`.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident [$($declare:tt)*] [$($apply:tt)*]
        ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)] // plain slices and numbers: a struct would hide the aliasing from the compiler
        $vis fn $name<$($declare)*>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)] // as above
            fn body<$($declare)*>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,popcnt")]
            #[allow(clippy::too_many_arguments)] // as above
            fn avx2<$($declare)*>($($arg: $ty),*) $(-> $ret)? {
                body::<$($apply)*>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,popcnt")]
            #[allow(clippy::too_many_arguments)] // as above
            fn avx512<$($declare)*>($($arg: $ty),*) $(-> $ret)? {
                body::<$($apply)*>($($arg),*)
            }

            match $crate::dispatch::isa() {
                // SAFETY: `isa` returns a set only after the machine said that it has it.
                #[cfg(target_arch = "x86_64")]
                $crate::dispatch::Isa::Avx512 => unsafe { avx512::<$($apply)*>($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::dispatch::Isa::Avx2 => unsafe { avx2::<$($apply)*>($($arg),*) },
                _ => body::<$($apply)*>($($arg),*),
            }
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
    }

    pub(super) fn forced() -> Option<Isa> {
        FORCED.get()
    }

    /// Runs `f` on this thread once for each set that the machine has.
    pub(crate) fn for_each_isa(mut f: impl FnMut(Isa)) {
        for isa in [Isa::Baseline, Isa::Avx2, Isa::Avx512] {
            if isa <= detect() {
                FORCED.set(Some(isa));
                f(isa);
                FORCED.set(None);
            }
        }
    }

    multiversion! {
        fn dot[const N: usize][N](a: &[f32; N], b: &[f32; N]) -> f32 {
            a.iter().zip(b).map(|(a, b)| a * b).sum()
        }
    }

    /// A function that is compiled for a feature that nobody asked the machine for ends in an illegal instruction, on
    /// machines that a test rarely sees: so what the sources enable is held against what [`detect`] asks for.
    #[test]
    fn every_feature_that_something_is_compiled_for_is_asked_for() {
        let sources = [
            ("dispatch.rs", include_str!("dispatch.rs")),
            ("table.rs", include_str!("conv/kernel/table.rs")),
            ("compress.rs", include_str!("compress.rs")),
        ];
        let code = |file: &'static str| file.split("#[cfg(test)]\npub(crate) mod tests").next().unwrap();
        let asked: Vec<&str> =
            code(sources[0].1).split("has!(\"").skip(1).map(|s| s.split('"').next().unwrap()).collect();
        let mut n_enabled = 0;
        for (file, text) in sources {
            let attributes = code(text).split("enable = \"").skip(1).map(|s| s.split('"').next().unwrap());
            let tables = code(text).split("kernels!(").skip(1).map(|s| s.split(['[', ']']).nth(1).unwrap());
            for list in attributes.chain(tables) {
                let features: Vec<&str> =
                    list.split(',').map(|s| s.trim().trim_matches('"')).filter(|s| !s.is_empty()).collect();
                for feature in features {
                    // NEON is part of aarch64.
                    let is_known = asked.contains(&feature) || feature == "neon";
                    assert!(is_known, "{file} enables `{feature}`, detection asks for {asked:?}");
                    n_enabled += 1;
                }
            }
        }
        // Two of `multiversion`, the tables of AVX2, AVX-512 and NEON, and what moves kept values together on both.
        assert_eq!(n_enabled, 4 + 8 + 2 + 4 + 1 + 3 + 6);
    }

    #[test]
    fn every_version_gives_the_same_bits() {
        let a = std::array::from_fn::<f32, 37, _>(|i| 1.0 / (i as f32 + 1.0));
        let b = std::array::from_fn::<f32, 37, _>(|i| (i as f32).sin());
        let mut seen = Vec::new();
        for_each_isa(|_| seen.push(dot(&a, &b).to_bits()));
        assert!(seen.iter().all(|bits| *bits == seen[0]), "{seen:?}");
    }
}
