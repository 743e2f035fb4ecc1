use super::*;
use crate::io::detect::{self, probe};
use crate::io::{Driver, DriverChoice, Waker};
use crate::sys::linux::isolate::forbid;
use std::thread;

/// Without set-up flags, and woken by eventfd.
pub(crate) fn plain(config: &DriverConfig) -> UringDriver {
    let driver = UringDriver::with(config, &[], false).unwrap();
    assert!(!driver.wakes_by_message() && driver.flags().0.is_empty());
    driver
}

fn available() -> bool {
    let error = UringDriver::new(&DriverConfig::default()).err();
    if let Some(error) = &error {
        eprintln!("skipped: {error}");
    }
    error.is_none()
}

/// A sandbox that forbids io_uring: `auto` takes mio and says why, `uring` is an error in words.
#[test]
fn refusals_lead_to_mio_with_a_reason() {
    for (errno, word) in
        [(libc::EPERM, "seccomp"), (libc::ENOSYS, "no io_uring"), (libc::ENOMEM, "lockable memory")]
    {
        let test = move || {
            forbid(libc::SYS_io_uring_setup, errno).unwrap();
            let error = UringDriver::new(&DriverConfig::default()).unwrap_err();
            assert!(matches!(error, DriverError::Unavailable { driver: "uring", .. }));
            assert!(error.to_string().contains(word), "{error}");
            let report = probe();
            assert_eq!(report.chosen, DriverChoice::Mio);
            assert!(report.why_not_uring.as_ref().is_some_and(|w| w.contains(word)), "{report}");
            assert_eq!(detect::choose(DriverChoice::Auto).unwrap(), DriverChoice::Mio);
            assert!(detect::choose(DriverChoice::Uring).unwrap_err().to_string().contains(word));
        };
        thread::spawn(test).join().unwrap();
    }
}

/// A kernel that knows no flag is asked for ever fewer of them.
#[test]
fn flags_are_given_up_one_by_one() {
    if !available() {
        return;
    }
    let ring = Ring::new(8, 16, &Flag::ALL).unwrap();
    let (used, missing) = ring.flag_names();
    assert_eq!(used.len() + missing.len(), Flag::ALL.len());
    // DEFER_TASKRUN needs SINGLE_ISSUER: the kernel answers EINVAL until it is gone.
    let ring = Ring::new(8, 16, &[Flag::DeferTaskrun, Flag::SubmitAll]).unwrap();
    assert_eq!(ring.flag_names().0, ["SUBMIT_ALL"]);
}

/// Dropped on a thread that may not use the ring: memory is leaked, nothing else happens, and
/// wakers go on being harmless.
#[test]
fn dropping_on_a_foreign_thread_does_no_harm() {
    if !available() {
        return;
    }
    let (driver, waker): (UringDriver, Waker) = thread::spawn(|| {
        let mut driver = UringDriver::new(&DriverConfig::default()).unwrap();
        driver.add_socket(UdpSocket::bind(("127.0.0.1", 0)).unwrap()).unwrap();
        driver.poll(Some(Duration::ZERO), &mut Batch::default()).unwrap();
        let waker = driver.waker();
        (driver, waker)
    })
    .join()
    .unwrap();
    drop(driver);
    waker.wake();
}

/// Rings are really gone after a drop: they can be made again and again.
#[test]
fn many_drivers_one_after_another() {
    if !available() {
        return;
    }
    for _ in 0..50 {
        let mut driver = UringDriver::new(&DriverConfig::default()).unwrap();
        driver.add_socket(UdpSocket::bind(("127.0.0.1", 0)).unwrap()).unwrap();
        driver.poll(Some(Duration::ZERO), &mut Batch::default()).unwrap();
    }
}
