//! What is freed is there for the next allocation.

/// Page faults of this thread so far, without input and output.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux has it");
    let after_name = stat.rsplit(')').next().expect("a name in brackets");
    after_name.split_whitespace().nth(7).and_then(|n| n.parse().ok()).expect("proc(5): minflt")
}

/// 2 GiB is where a threshold as large as an `int` would give the heap's end back.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn more_than_two_gigabytes_are_kept() {
    const VARIABLE: &str = "LTH_TEST_KEEPS_MEMORY";
    let name = "memory::more_than_two_gigabytes_are_kept";
    if std::env::var_os(VARIABLE).is_none() {
        // In a process of its own: what is kept is kept for good, and a test is a thread that started before.
        let exe = std::env::current_exe().expect("a test has a file");
        let child = std::process::Command::new(exe)
            .args(["--exact", name])
            .env(VARIABLE, "1")
            .env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
            .output();
        let child = child.expect("it runs");
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    assert!(lth_kernels::keep_freed_memory());
    // 3 GiB of which only the first page of each block is touched.
    let round = || {
        let before = page_faults();
        let mut blocks: Vec<Vec<u8>> = (0..48).map(|_| Vec::with_capacity(64 << 20)).collect();
        blocks.iter_mut().for_each(|block| block.push(1));
        drop(blocks);
        page_faults() - before
    };
    let first = round();
    let again = round();
    assert!(again < 24, "{again} pages came anew, {first} the first time");
}
