//! Ctrl-C: the first one asks the command to end properly, the second one ends the process.

use crate::exit::Exit;
use std::thread;

/// Calls `on_first` from a thread of its own at the first SIGINT, SIGTERM or SIGHUP.
pub fn watch(on_first: impl FnOnce() + Send + 'static) {
    watch_both(on_first, || {});
}

/// The same; `on_second` is called before the second one ends the process. Whoever `on_first` was for
/// may hang then: it must wait for nobody.
#[cfg(unix)]
pub fn watch_both(
    on_first: impl FnOnce() + Send + 'static,
    on_second: impl FnOnce() + Send + 'static,
) {
    let interrupts = match trunkline::sys::signal::Interrupts::install() {
        Ok(interrupts) => interrupts,
        Err(e) => {
            tracing::warn!("signals cannot be watched: {e}");
            return;
        }
    };
    let watcher = move || {
        if !matches!(interrupts.wait(None), Ok(true)) {
            return;
        }
        on_first();
        if matches!(interrupts.wait(None), Ok(true)) {
            on_second();
            std::process::exit(i32::from(Exit::Interrupted as u8));
        }
    };
    if let Err(e) = thread::Builder::new().name("signals".into()).spawn(watcher) {
        tracing::warn!("signals cannot be watched: {e}");
    }
}

/// The system's default, which ends the process, stays in place here.
#[cfg(not(unix))]
pub fn watch_both(
    _on_first: impl FnOnce() + Send + 'static,
    _on_second: impl FnOnce() + Send + 'static,
) {
}
