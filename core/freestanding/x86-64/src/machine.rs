//! What std and the C library would have brought: entry point, memory, console, exit. x86-64 Linux.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

// The kernel jumps here with a stack that no call has aligned yet.
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {begin}", "ud2", begin = sym begin);

extern "C" fn begin() -> ! {
    exit(crate::program())
}

const WRITE: usize = 1;
const EXIT_GROUP: usize = 231;
const STANDARD_OUTPUT: usize = 1;

fn exit(status: u8) -> ! {
    // SAFETY: `exit_group` takes a number and does not return.
    unsafe {
        asm!("syscall", in("rax") EXIT_GROUP, in("rdi") usize::from(status), options(noreturn));
    }
}

/// Standard output.
pub(crate) struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let written: isize;
            // SAFETY: `write` reads `rest.len()` bytes from a valid slice; the kernel changes rax, rcx and r11 only.
            unsafe {
                asm!(
                    "syscall",
                    inlateout("rax") WRITE as isize => written,
                    in("rdi") STANDARD_OUTPUT,
                    in("rsi") rest.as_ptr(),
                    in("rdx") rest.len(),
                    lateout("rcx") _,
                    lateout("r11") _,
                    options(nostack),
                );
            }
            let written = usize::try_from(written).map_err(|_| fmt::Error)?;
            rest = rest.get(written..).ok_or(fmt::Error)?;
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(facts: &PanicInfo<'_>) -> ! {
    // There is nobody to tell that even this failed.
    let _ = writeln!(Console, "{facts}");
    exit(101)
}

// The alloc library was compiled for unwinding and names these; nothing here unwinds.

/// Never called.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Never called.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    exit(102)
}

const ARENA: usize = 256 << 20;

/// Memory that is handed out once and never taken back: training allocates almost nothing after its first steps.
/// Pages that are not touched cost nothing.
struct Arena {
    memory: UnsafeCell<[u8; ARENA]>,
    used: AtomicUsize,
}

// SAFETY: every byte of `memory` is handed out to one owner only, which `used` sees to.
unsafe impl Sync for Arena {}

#[global_allocator]
static MEMORY: Arena = Arena { memory: UnsafeCell::new([0; ARENA]), used: AtomicUsize::new(0) };

// SAFETY: blocks are aligned, inside the arena and disjoint, since `used` only grows; nothing unwinds.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.memory.get().cast::<u8>();
        let mut start = 0;
        let reserve = |used: usize| {
            start = (base as usize + used).next_multiple_of(layout.align()) - base as usize;
            start.checked_add(layout.size()).filter(|&end| end <= ARENA)
        };
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve) {
            // SAFETY: `start` lies inside the arena, as `reserve` has checked.
            Ok(_) => unsafe { base.add(start) },
            Err(_) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

// The compiler calls these by name, and there is no C library to have them. They are written in assembly, because a loop
// over bytes would be compiled to a call of itself.

/// Copies `len` bytes that do not overlap.
///
/// # Safety
/// Both ranges must be valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both ranges; the direction flag is clear by the calling convention.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") target => _,
            inout("rsi") source => _,
            options(nostack, preserves_flags),
        );
    }
    target
}

/// Copies `len` bytes that may overlap.
///
/// # Safety
/// Both ranges must be valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    if (target as usize).wrapping_sub(source as usize) >= len {
        // SAFETY: going upwards, nothing is overwritten before it is read.
        return unsafe { memcpy(target, source, len) };
    }
    // SAFETY: going downwards from the last byte, nothing is overwritten before it is read; the caller vouches for both
    // ranges, which are not empty here, and the direction flag is cleared again.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") len => _,
            inout("rdi") target.add(len - 1) => _,
            inout("rsi") source.add(len - 1) => _,
            options(nostack),
        );
    }
    target
}

/// Fills `len` bytes.
///
/// # Safety
/// The range must be valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(target: *mut u8, value: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the range; the direction flag is clear by the calling convention.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") len => _,
            inout("rdi") target => _,
            in("al") value as u8,
            options(nostack, preserves_flags),
        );
    }
    target
}

/// Compares `len` bytes.
///
/// # Safety
/// Both ranges must be valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    for at in 0..len {
        // SAFETY: the caller vouches for both ranges. Volatile, so that this loop is not compiled to a call of itself.
        let (one, other) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
        if one != other {
            return i32::from(one) - i32::from(other);
        }
    }
    0
}

/// Whether `len` bytes differ.
///
/// # Safety
/// Both ranges must be valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    // SAFETY: the caller vouches for the same ranges.
    unsafe { memcmp(one, other, len) }
}
