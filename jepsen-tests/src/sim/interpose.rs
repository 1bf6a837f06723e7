//! The process's clocks and its source of randomness, under the simulation.
//!
//! Every library here asks the C library for the time and for random bytes: the
//! node's deadlines, `HashMap`'s seeds, openraft's election time-outs, uuids. The
//! definitions below stand before the C library's when the program is linked.
//! Outside a simulation they pass every call on to the kernel.

#![expect(
    unsafe_code,
    reason = "the C library's functions are C's, and take pointers"
)]

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::random::mix;

/// Simulated monotonic time begins here: nothing may compute with a moment
/// before the start of the clock.
const MONOTONIC_START: Duration = Duration::from_secs(100_000);
/// Simulated wall clocks begin here, in 2030: far from the machine's own.
const WALL_START_SECONDS: i64 = 1_893_456_000;

static SIMULATED: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// A clock is being read by the code below.
    static READING: Cell<bool> = const { Cell::new(false) };
    /// The world's time, where no host's runtime runs.
    static WORLD: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// How far the wall clock of the host that runs is ahead, in milliseconds.
    static WALL_AHEAD_MS: Cell<i64> = const { Cell::new(0) };
}

/// From now on this process is a simulation: every clock stands until the world
/// moves it, and what is random follows from `seed`. There is no way back.
pub(super) fn begin(seed: u64) {
    RANDOM.store(mix(seed), Ordering::SeqCst);
    SIMULATED.store(true, Ordering::SeqCst);
}

/// Sets the time where no host runs.
pub(super) fn set_world_time(elapsed: Duration) {
    WORLD.set(elapsed);
}

/// Sets how far the wall clock of the host that runs next is ahead.
pub(super) fn set_wall_ahead_ms(ahead_ms: i64) {
    WALL_AHEAD_MS.set(ahead_ms);
}

/// The monotonic clock as the code that runs now sees it.
fn monotonic() -> Duration {
    if READING.replace(true) {
        // A runtime is being made, and asks for its first moment.
        return MONOTONIC_START + WORLD.get();
    }
    let now = if tokio::runtime::Handle::try_current().is_ok() {
        since_zero(tokio::time::Instant::now().into_std())
    } else {
        MONOTONIC_START + WORLD.get()
    };
    READING.set(false);
    now
}

fn since_zero(moment: std::time::Instant) -> Duration {
    // SAFETY: on Linux an `Instant` is a plain count of seconds and nanoseconds,
    // for which all zeros is a value.
    let zero: std::time::Instant = unsafe { std::mem::zeroed() };
    moment.duration_since(zero)
}

/// `clock_gettime(2)`.
///
/// # Safety
/// `time` must be valid for a write, as the C function demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    if !SIMULATED.load(Ordering::Relaxed) {
        // SAFETY: the arguments are the caller's.
        let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return i32::try_from(result).unwrap_or(-1);
    }
    let mut now = monotonic();
    if clock == libc::CLOCK_REALTIME {
        now -= MONOTONIC_START;
    }
    let mut seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut nanos = i64::from(now.subsec_nanos());
    if clock == libc::CLOCK_REALTIME {
        let ahead_ms = WALL_AHEAD_MS.get();
        seconds += WALL_START_SECONDS + ahead_ms.div_euclid(1000);
        nanos += ahead_ms.rem_euclid(1000) * 1_000_000;
        seconds += nanos / 1_000_000_000;
        nanos %= 1_000_000_000;
    }
    // SAFETY: the caller's promise.
    unsafe {
        (*time).tv_sec = seconds;
        (*time).tv_nsec = nanos;
    }
    0
}

/// `getrandom(2)`.
///
/// # Safety
/// `buffer` must be valid for `length` bytes, as the C function demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    if !SIMULATED.load(Ordering::Relaxed) {
        // SAFETY: the arguments are the caller's.
        let result = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(result).unwrap_or(-1);
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        let word = RANDOM.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        chunk.copy_from_slice(&mix(word).to_le_bytes()[..chunk.len()]);
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
