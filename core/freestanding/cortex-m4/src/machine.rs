//! What an operating system would have brought: start, heap, stack, faults, exit. All of this program's unsafe code.

use core::alloc::{GlobalAlloc, Layout};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::ptr::{addr_of, addr_of_mut};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
// Linked for its critical section.
use cortex_m as _;
use cortex_m_rt::{ExceptionFrame, STACK_PAINT_VALUE, entry, exception};
use cortex_m_semihosting::debug;
use cortex_m_semihosting::hio::{self, HostStream};
use embedded_alloc::LlffHeap;

/// What the heap has of the [256 KiB of memory](../memory.x); the stack has what is left.
const HEAP: usize = 192 << 10;

#[entry]
fn begin() -> ! {
    static mut MEMORY: [u8; HEAP] = [0; HEAP];
    // SAFETY: nothing was allocated yet, this happens once (`entry` is called by the start-up code alone, which the macro
    // sees to), and `MEMORY`, which the macro has made a `&'static mut`, is used for nothing else.
    unsafe { ALLOCATOR.heap.init(MEMORY.as_mut_ptr() as usize, HEAP) };
    let well = crate::program();
    let (depth, room) = stack();
    // Without its last painted word the stack may have grown into the heap.
    exit(well && depth < room && print(depth, room).is_ok())
}

fn print(depth: usize, room: usize) -> fmt::Result {
    let mut console = Console::open()?;
    writeln!(console, "stack: {depth} B of {room} B at most")?;
    writeln!(console, "program: {} B of flash", flash())
}

/// Standard output of the machine that debugs or emulates this one.
pub(crate) struct Console(HostStream);

impl Console {
    pub(crate) fn open() -> Result<Self, fmt::Error> {
        hio::hstdout().map(Self).map_err(|()| fmt::Error)
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_all(text.as_bytes()).map_err(|()| fmt::Error)
    }
}

fn exit(well: bool) -> ! {
    // Where nobody listens, the call returns.
    loop {
        debug::exit(if well { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    }
}

fn give_up(facts: impl fmt::Display) -> ! {
    // There is nobody to tell that even this failed.
    let _ = Console::open().and_then(|mut console| writeln!(console, "{facts}"));
    exit(false)
}

#[panic_handler]
fn panic(facts: &PanicInfo<'_>) -> ! {
    give_up(facts)
}

// SAFETY: it reads the frame that the hardware has pushed and never returns to what failed.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    give_up(format_args!("hard fault: {frame:?}"))
}

/// A heap that counts.
struct Counting {
    heap: LlffHeap,
    in_use: AtomicUsize,
    peak: AtomicUsize,
    blocks: AtomicUsize,
}

#[global_allocator]
static ALLOCATOR: Counting = Counting {
    heap: LlffHeap::empty(),
    in_use: AtomicUsize::new(0),
    peak: AtomicUsize::new(0),
    blocks: AtomicUsize::new(0),
};

// SAFETY: every block comes from `heap` and goes back to it with the layout it was asked for; counting touches no block.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is handed on as it is.
        let block = unsafe { self.heap.alloc(layout) };
        if !block.is_null() {
            let in_use = self.in_use.fetch_add(layout.size(), Relaxed) + layout.size();
            self.peak.fetch_max(in_use, Relaxed);
            self.blocks.fetch_add(1, Relaxed);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.in_use.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { self.heap.dealloc(block, layout) }
    }
}

/// What the heap has given since the last call: the most bytes in use at once, and the number of blocks.
pub(crate) fn heap() -> (usize, usize) {
    let peak = ALLOCATOR.peak.swap(ALLOCATOR.in_use.load(Relaxed), Relaxed);
    (peak, ALLOCATOR.blocks.swap(0, Relaxed))
}

/// How deep the stack has been, and how deep it may be, in bytes. The start-up code has painted it.
fn stack() -> (usize, usize) {
    // The linker script's, at both ends of the stack; they have addresses and no values.
    unsafe extern "C" {
        static _stack_start: u32;
        static mut _stack_end: u32;
    }
    let (top, bottom) = (addr_of!(_stack_start), addr_of_mut!(_stack_end));
    let room = top as usize - bottom as usize;
    let painted = |word: &usize| {
        // SAFETY: `word` counts whole words between the two ends, which is memory that nobody but the stack writes to.
        // Volatile, because the compiler knows of no object there.
        unsafe { bottom.add(*word).read_volatile() == STACK_PAINT_VALUE }
    };
    let free = (0..room / size_of::<u32>()).take_while(painted).count();
    (room - free * size_of::<u32>(), room)
}

/// What code, constants and the initial values of variables take, in bytes.
fn flash() -> usize {
    // The linker script's: where the initial values of variables lie in flash, and the variables in memory.
    unsafe extern "C" {
        static __sidata: u32;
        static __sdata: u32;
        static __edata: u32;
    }
    // Flash begins at 0, and the initial values come last in it.
    addr_of!(__sidata) as usize + (addr_of!(__edata) as usize - addr_of!(__sdata) as usize)
}
