//! What `IS_OPTIMISED` says, from cargo's variable to the constant.

#[path = "../../build.rs"]
#[expect(dead_code, clippy::print_stdout, reason = "its `main` speaks to cargo")]
mod build;

#[test]
fn only_level_0_and_no_level_are_slow() {
    for level in ["1", "2", "3", "s", "z"] {
        assert!(build::is_optimised(Some(level)), "{level}");
    }
    assert!(!build::is_optimised(Some("0")));
    assert!(!build::is_optimised(None));
}

#[test]
fn this_build_is_optimised_as_its_profile_says() {
    // No profile of this workspace leaves the kernels at level 0.
    assert!(std::hint::black_box(lth_kernels::IS_OPTIMISED));
}
