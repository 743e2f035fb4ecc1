//! Processor cycles of a thread, from the hardware counters of the machine where it has them.

/// Counts the cycles of one thread.
#[derive(Debug)]
pub struct Cycles {
    counter: imp::Counter,
    /// Those in the kernel too.
    kernel: bool,
}

impl Cycles {
    /// Of the calling thread from now on. `None` where there are no counters, as on most virtual
    /// machines, or none that we may use (`kernel.perf_event_paranoid`).
    pub fn of_this_thread() -> Option<Self> {
        let open = |kernel| Some(Self { counter: imp::Counter::open(kernel)?, kernel });
        open(true).or_else(|| open(false))
    }

    /// Until now. Where several programs share the counters, an estimate from the part of the time
    /// in which we had one.
    pub fn read(&mut self) -> Option<u64> {
        self.counter.read()
    }

    /// Whether those in the kernel are in it.
    pub const fn with_kernel(&self) -> bool {
        self.kernel
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use perf_event::events::{Event, Hardware};
    use perf_event::{Builder, CountAndTime};

    #[derive(Debug)]
    pub struct Counter(perf_event::Counter);

    impl Counter {
        pub fn open(kernel: bool) -> Option<Self> {
            Self::of(Hardware::CPU_CYCLES.into(), kernel)
        }

        pub fn of(event: Event, kernel: bool) -> Option<Self> {
            let mut builder = Builder::new().kind(event);
            builder.exclude_kernel(!kernel);
            let mut counter = builder.build().ok()?;
            counter.enable().ok()?;
            Some(Self(counter))
        }

        pub fn read(&mut self) -> Option<u64> {
            let CountAndTime { count, time_enabled, time_running } =
                self.0.read_count_and_time().ok()?;
            if time_running == 0 {
                return None;
            }
            let scale = u128::from(time_enabled) * u128::from(count) / u128::from(time_running);
            u64::try_from(scale).ok()
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    #[derive(Debug)]
    pub enum Counter {}

    impl Counter {
        pub const fn open(_kernel: bool) -> Option<Self> {
            None
        }

        pub const fn read(&mut self) -> Option<u64> {
            match *self {}
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::imp::Counter;
    use super::*;
    use perf_event::events::Software;
    use std::time::{Duration, Instant};

    fn spin(time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    /// The thread's own time stands for cycles where a machine has no counter for them.
    #[test]
    fn a_counter_counts_its_own_thread() {
        let Some(mut counter) = Counter::of(Software::TASK_CLOCK.into(), false) else {
            eprintln!("skipped: no counters for us");
            return;
        };
        spin(Duration::from_millis(20));
        let own = counter.read().unwrap();
        assert!(own > 1_000_000, "{own} ns");
        let other = std::thread::spawn(move || {
            let before = counter.read().unwrap();
            spin(Duration::from_millis(50));
            counter.read().unwrap() - before
        });
        let blocked = other.join().unwrap();
        assert!(blocked < 40_000_000, "{blocked} ns while this thread waited");
    }

    #[test]
    fn cycles_grow_where_there_are_any() {
        let Some(mut cycles) = Cycles::of_this_thread() else {
            eprintln!("skipped: no hardware counters");
            return;
        };
        spin(Duration::from_millis(20));
        assert!(cycles.read().is_none_or(|cycles| cycles > 1_000_000));
    }
}
