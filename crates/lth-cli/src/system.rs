//! What the machine and the process say of themselves.

use std::path::Path;

use lth_data::download;

use crate::failure::{Blame, Result};

/// Cores that this process may use.
pub fn n_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Prepares the process for networks: the pool that everything computes in, and feature maps, which are freed and wanted again
/// at every step, stay in its memory. Comes before anything large is allocated.
///
/// # Errors
/// As [`set_threads`].
pub fn prepare(n_threads: Option<u32>) -> Result {
    lth_kernels::keep_freed_memory();
    set_threads(n_threads)
}

/// Makes the pool that everything computes in. This thread is one of several: what it calls need not wake another to begin.
///
/// # Errors
/// If there is one already.
pub fn set_threads(n_threads: Option<u32>) -> Result {
    let n = n_threads.map_or_else(n_cores, |n| n as usize);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n);
    // A pool of this thread alone would do nothing for others while this one waits for them.
    let pool = if n > 1 { pool.use_current_thread() } else { pool };
    pool.build_global().usage()
}

/// The command line as it was typed, but for the path of the program, and for the user name and password of an address.
pub fn command_line() -> Vec<String> {
    let mut arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let program = arguments.next().unwrap_or_default();
    let name = Path::new(&program).file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let own: Vec<String> = if name == "xtask" { vec!["cargo".into(), name] } else { vec![name] };
    public_command(own, arguments)
}

fn public_command(mut command: Vec<String>, arguments: impl Iterator<Item = String>) -> Vec<String> {
    for argument in arguments {
        // Whatever follows --mirror is meant as an address, even where `http://` is missing.
        let is_address = argument.contains("://") || command.last().is_some_and(|before| before == "--mirror");
        command.push(match argument.strip_prefix("--mirror=") {
            Some(address) => format!("--mirror={}", download::public(address)),
            None if is_address => download::public(&argument),
            None => argument,
        });
    }
    command
}

/// The process's largest resident memory so far in bytes; `None` where the system does not tell.
pub fn peak_memory() -> Option<u64> {
    peak_memory_of("self")
}

/// The same of another process that still runs, by its number.
pub fn peak_memory_of(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The processor's name, if known.
pub fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::public_command;

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_that_of_a_running_process() {
        let peak = super::peak_memory().expect("Linux tells");
        assert!((1 << 20..1 << 40).contains(&peak));
    }

    #[test]
    fn a_password_is_no_part_of_the_recorded_command() {
        let of = |text: &str| public_command(Vec::new(), text.split(' ').map(str::to_owned)).join(" ");
        for mirror in ["--mirror ", "--mirror="] {
            for address in ["http://me:secret@host/a", "me:secret@host/a", "https://me:sec/ret@host/a"] {
                let said = of(&format!("reproduce {mirror}{address} --seed 1"));
                assert!(said.ends_with("host/a --seed 1") && !said.contains("me:"), "{said}");
            }
        }
        let plain = "reproduce --weights a@b.pth --mirror http://host/a@b --out ftp:a@b";
        assert_eq!(of(plain), plain);
    }
}
