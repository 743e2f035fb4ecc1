//! For tests: a thread with a network, or with forbidden system calls, of its own.

use std::io;
use std::process::Command;

/// Gives this thread an empty network with a loopback interface of `mtu`. `false` when that is not
/// allowed.
pub(crate) fn private_network(mtu: u32) -> bool {
    // SAFETY: takes no pointers; concerns this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    let mtu = mtu.to_string();
    run("ip", &["link", "set", "lo", "mtu", &mtu, "up"])
}

/// Runs a command in this thread's network.
pub(crate) fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

/// Makes one system call fail with `errno` on this thread, for good, as a sandbox would.
pub(crate) fn forbid(call: i64, errno: i32) -> io::Result<()> {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_EQUAL, 0, 1, call as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers only; concerns this thread only.
    let quiet = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if quiet != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the program lives through the call, which copies it; concerns this thread only.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs the test of this name in a process of its own, in which the call gives `true`; the caller's
/// gives `false` when that has passed.
pub(crate) fn in_own_process(name: &str) -> bool {
    const MARK: &str = "TRUNKLINE_TEST_OWN_PROCESS";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    // The name of a test does not begin with that of its crate.
    let name = name.split_once("::").map_or(name, |(_, rest)| rest);
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{output:?}");
    false
}

/// Lets this process open so many more descriptors; gives what to
/// [restore](restore_descriptors).
pub(crate) fn limit_descriptors(more: u64) -> u64 {
    let used: Vec<u64> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let free = (0..).filter(|fd| !used.contains(fd)).nth(more as usize);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value of the right type.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    let before = limit.rlim_cur;
    set_descriptors(free.unwrap());
    before
}

/// Takes the limit back.
pub(crate) fn restore_descriptors(before: u64) {
    set_descriptors(before);
}

fn set_descriptors(most: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to a live value of the right type.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = most;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}
