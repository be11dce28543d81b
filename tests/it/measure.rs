//! Runs a program to its end and measures it.
//!
//! With `PROPULSIOND_MEASURE=1` each run prints its time and memory, and the maximum so far. A run that ends with a user's
//! mistake may take a second and 100 MB at most.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use propulsiond::clock::{Clock, Timestamp};

use crate::daemon::{LIMIT, signal};

/// The limits of a run that ends with a mistake.
const MOST: (Duration, u64) = (Duration::from_secs(1), 100_000);

static RUNS: AtomicU64 = AtomicU64::new(0);
static LONGEST_MILLIS: AtomicU64 = AtomicU64::new(0);
static LARGEST_KIB: AtomicU64 = AtomicU64::new(0);

/// Runs the program within the limit. If measuring, prints time and memory, and fails if they exceed the limits.
pub(crate) fn run(command: &mut Command) -> Output {
    let (output, took, peak) = watched(command);
    if std::env::var_os("PROPULSIOND_MEASURE").is_some() {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let is_mistake = test.starts_with("broken::") || matches!(output.status.code(), Some(2 | 3));
        let so_far = if is_mistake { most_so_far(took, peak) } else { String::new() };
        eprintln!("{:>6} ms {peak:>6} KiB  {test}: {}{so_far}", took.as_millis(), arguments.join(" "));
        assert!(
            !is_mistake || (took, peak) <= (MOST.0, u64::MAX) && peak <= MOST.1,
            "{took:?}, {peak} KiB: {output:?}"
        );
    }
    output
}

fn most_so_far(took: Duration, peak: u64) -> String {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let longest = LONGEST_MILLIS.fetch_max(millis, Ordering::Relaxed).max(millis);
    let largest = LARGEST_KIB.fetch_max(peak, Ordering::Relaxed).max(peak);
    let runs = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    format!("  [of {runs} so far: at most {longest} ms, {largest} KiB]")
}

/// Returns the output, the time, and the largest sample of the memory, in KiB.
fn watched(command: &mut Command) -> (Output, Duration, u64) {
    let clock = Clock::start();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let readers = [read_all(child.stdout.take().unwrap()), read_all(child.stderr.take().unwrap())];
    let (_tick, ticks) = mpsc::channel::<()>();
    let (mut peak, mut late) = (0, false);
    let status = loop {
        peak = peak.max(peak_memory(id));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if clock.now().since(Timestamp::ZERO) > LIMIT && !std::mem::replace(&mut late, true) {
            signal(id, "KILL");
        }
        // The channel carries no message: the call waits a millisecond.
        assert!(ticks.recv_timeout(Duration::from_millis(1)).is_err());
    };
    let took = clock.now().since(Timestamp::ZERO);
    let [stdout, stderr] = readers.map(|reader| reader.join().unwrap());
    let output = Output { status, stdout, stderr };
    assert!(!late, "it did not end: {}", crate::daemon::text(&output));
    (output, took, peak)
}

fn read_all(mut stream: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}
