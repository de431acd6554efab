//! Tells the crate whether it is compiled with optimisation, which `cfg` does not.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(optimised)");
    if is_optimised(std::env::var("OPT_LEVEL").ok().as_deref()) {
        println!("cargo::rustc-cfg=optimised");
    }
}

/// Of cargo's `OPT_LEVEL`: `0` to `3`, `s` or `z`.
pub(crate) fn is_optimised(level: Option<&str>) -> bool {
    level.is_some_and(|level| level != "0")
}
