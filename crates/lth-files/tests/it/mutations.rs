//! What every reader of this project is held to, also in crates that use no other: their tests include this file by path.
//!
//! From a small file that is whole come hundreds that are not: cut to every length, every byte changed in several ways, and
//! random changes of a fixed seed. A reader may take them or refuse them; it may not panic, nor take more memory than in
//! proportion to the file, and what it says is a line.
#![allow(unsafe_code)] // an allocator that counts, in tests alone

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What reading may take, whatever a file claims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Bytes for tables, buffers and messages.
    pub(crate) base: usize,
    /// Bytes for each byte of the file.
    pub(crate) per_byte: usize,
}

/// Holds `read` to every mutation of `valid`, which itself must be taken. `read` gives the message of a refusal.
#[track_caller]
pub(crate) fn check(valid: &[u8], n_random: usize, memory: Memory, mut read: impl FnMut(&[u8]) -> Result<(), String>) {
    read(valid).expect("the file is whole");
    let (mut n_taken, mut n_refused) = (0, 0);
    let mut hold = |what: &dyn Fn() -> String, bytes: &[u8]| {
        let (result, peak) = peak_of(|| catch_unwind(AssertUnwindSafe(|| read(bytes))));
        let most = memory.base + memory.per_byte * bytes.len();
        assert!(peak <= most, "{}: took {peak} bytes for {}, at most {most}", what(), bytes.len());
        match result {
            Ok(Ok(())) => n_taken += 1,
            Ok(Err(message)) => {
                n_refused += 1;
                assert!(!message.is_empty() && !message.contains(char::is_control), "{}: {message:?}", what());
            }
            Err(_) => panic!("{}: it panicked", what()),
        }
    };
    for n in 0..valid.len() {
        hold(&|| format!("cut to {n} bytes"), &valid[..n]);
    }
    let mut bytes = valid.to_vec();
    for place in 0..valid.len() {
        let old = valid[place];
        for new in [old ^ 1, old ^ 0x80, !old, 0, 0xff, b'\n'] {
            if new != old {
                bytes[place] = new;
                hold(&|| format!("byte {place} is {new:#04x} instead of {old:#04x}"), &bytes);
            }
        }
        bytes[place] = old;
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for n in 0..n_random {
        let bytes = random.mutation(valid);
        hold(&|| format!("random mutation {n}"), &bytes);
    }
    assert!(n_refused > 0, "all of {n_taken} mutations were taken");
}

/// xorshift64*: no crate is needed for it.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }

    /// One to four changes: bytes overwritten by what breaks counters, taken out, said twice, or put elsewhere.
    fn mutation(&mut self, valid: &[u8]) -> Vec<u8> {
        const NUMBERS: [&[u8]; 8] = [
            &[0xff; 8],
            &[0; 8],
            &[0xff, 0xff, 0xff, 0x7f],
            &[0x7f, 0xff, 0xff, 0xff],
            b"18446744073709551615",
            b"-1",
            b"1e308",
            b"[[[[[[[[",
        ];
        let mut bytes = valid.to_vec();
        for _ in 0..=self.below(4) {
            let (at, n) = (self.below(bytes.len()), 1 + self.below(16));
            let end = bytes.len().min(at + n);
            match self.below(5) {
                0 => bytes[at..end].iter_mut().for_each(|byte| *byte = self.below(256) as u8),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let again = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    drop(bytes.splice(to..to, again));
                }
                3 => {
                    let number = NUMBERS[self.below(NUMBERS.len())];
                    let end = bytes.len().min(at + number.len());
                    drop(bytes.splice(at..end, number.iter().copied()));
                }
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        bytes
    }
}

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// What `run` gives, and the most bytes that this thread held at once while it ran.
pub(crate) fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = run();
    (result, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(change: isize) {
    // Not while a thread ends.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came; the counters are cells of this thread that allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
