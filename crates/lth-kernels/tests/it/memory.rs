//! What is freed is there for the next allocation.

/// Page faults of this thread so far, without input and output.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux has it");
    let after_name = stat.rsplit(')').next().expect("a name in brackets");
    after_name.split_whitespace().nth(7).and_then(|n| n.parse().ok()).expect("proc(5): minflt")
}

/// Whether this is a process for the test `name` alone; if not, one is run, and must succeed. What is kept is kept for good,
/// and a test is a thread that started before.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_own_process(name: &str) -> bool {
    const VARIABLE: &str = "LTH_TEST_KEEPS_MEMORY";
    if std::env::var_os(VARIABLE).is_some() {
        return true;
    }
    let exe = std::env::current_exe().expect("a test has a file");
    let child = std::process::Command::new(exe)
        .args(["--exact", name])
        .env(VARIABLE, "1")
        .env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
        .output();
    let child = child.expect("it runs");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// 2 GiB is where a threshold as large as an `int` would give the heap's end back.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn more_than_two_gigabytes_are_kept() {
    if !is_own_process("memory::more_than_two_gigabytes_are_kept") {
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

/// The kernel says of every mapping whether huge pages are wanted for it.
#[test]
#[allow(unsafe_code)] // an allocator's methods are
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn large_blocks_are_asked_for_in_huge_pages() {
    use std::alloc::{GlobalAlloc, Layout};

    if !is_own_process("memory::large_blocks_are_asked_for_in_huge_pages") {
        return;
    }
    let layout = Layout::from_size_align(256 << 20, 4).expect("a size");
    // SAFETY: the block is not used, and given back with its layout.
    let flags = || unsafe {
        let block = lth_kernels::Allocator.alloc(layout);
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux has it");
        // Of the mapping that the block's last byte lies in.
        let last = block.addr() + layout.size() - 1;
        let range = |line: &str| {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
        };
        let mut lines = maps.lines().skip_while(|line| range(line).is_none_or(|range| !range.contains(&last)));
        let flags = lines.find_map(|line| line.strip_prefix("VmFlags:")).map(str::to_owned);
        lth_kernels::Allocator.dealloc(block, layout);
        flags
    };
    let wants = |flags: &str| flags.split(' ').any(|flag| flag == "hg");
    let before = flags();
    assert!(before.as_deref().is_none_or(|flags| !wants(flags)), "nobody has asked: {before:?}");
    assert!(lth_kernels::keep_freed_memory());
    let after = flags();
    // Not every kernel has huge pages, and says so of a mapping.
    let can_say = after.is_some() && std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    assert_eq!(after.as_deref().is_some_and(wants), can_say, "{after:?}");
}
