//! Which seeds run, and how a failing one is repeated.

/// Runs `run` for the seeds that the environment asks for, `default` of them starting at `first`
/// otherwise. A run that fails names the command that repeats it.
///
/// `TRUNKLINE_SEED=n` runs that seed only; `TRUNKLINE_SEEDS=n` runs n seeds in every test.
pub fn run(binary: &str, test: &str, first: u64, default: u64, mut run: impl FnMut(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let (first, count) = match (number("TRUNKLINE_SEED"), number("TRUNKLINE_SEEDS")) {
        (Some(seed), _) => (seed, 1),
        (None, count) => (first, count.unwrap_or(default)),
    };
    for seed in first..first + count {
        let _repeat = Repeat { binary, test, seed };
        if std::env::var_os("TRUNKLINE_TRACE").is_some() {
            println!("== {test}, seed {seed}");
        }
        run(seed);
    }
}

/// Prints the command that repeats a run when the run panics.
struct Repeat<'a> {
    binary: &'a str,
    test: &'a str,
    seed: u64,
}

impl Drop for Repeat<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { binary, test, seed } = self;
            eprintln!(
                "seed {seed} failed; repeat it with\n  TRUNKLINE_SEED={seed} cargo test -p \
                 trunkline-proto --test {binary} {test} -- --exact --nocapture"
            );
        }
    }
}
