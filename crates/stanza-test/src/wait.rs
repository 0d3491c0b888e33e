//! Waiting for conditions.

use std::time::{Duration, Instant};

/// How long a condition may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `probe` gives something.
///
/// # Panics
/// When it does not within 20 seconds; `what` says what was waited for.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Polls until `condition` holds.
///
/// # Panics
/// When it does not within 20 seconds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
