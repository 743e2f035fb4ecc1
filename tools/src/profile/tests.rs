//! Applying and taking back on a made-up device and made-up folders like `/sys` and `/proc`. What
//! they hold is compared with what they held before, not with the journal.

use super::change::{self, Done, Here, Kept, Outcome};
use super::exit;
use super::journal::{self, Journal, Owner, path};
use super::lock::{self, Lock};
use super::script::script;
use crate::exit::Exit;
use crate::scratch::Scratch;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use trunkline::hw::nic::Key;
use trunkline::hw::tune::{Coalescing, Comparison, Ethtool, Feature, Flow, Rings, Standing, Tuner};
use trunkline::hw::{Machine, Nic, Profile, Purpose};

/// What the device holds, and what it does not do.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    rings: Option<Rings>,
    channels: Option<(u32, u32)>,
    coalescing: Option<Coalescing>,
    features: BTreeMap<String, (bool, bool)>,
    hash: Option<[u64; 2]>,
    /// Changes until one fails.
    fails_after: Option<u32>,
    /// It refuses another hash.
    hash_fixed: bool,
    /// Longest rings that it takes, whatever it says; longer ones are an invalid argument.
    rings_really: Option<u32>,
    /// Microseconds of moderation come in steps of this.
    usecs_step: Option<u32>,
    /// Another number of channels sets the rings to the driver's default, which is not what they
    /// are at first.
    channels_reset_rings: bool,
    /// Microseconds of moderation cannot be set while it follows the load, and are another number
    /// once it does.
    adaptive_owns_usecs: bool,
}

#[derive(Clone)]
struct Fake(Rc<RefCell<State>>);

fn lacks<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

impl Fake {
    fn change(&self, make: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        match &mut state.fails_after {
            Some(0) => return Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(left) => *left -= 1,
            None => {}
        }
        make(&mut state);
        Ok(())
    }
}

impl Ethtool for Fake {
    fn driver(&self) -> io::Result<String> {
        Ok("fake".to_owned())
    }
    fn rings(&self) -> io::Result<Rings> {
        self.0.borrow().rings.map_or_else(lacks, Ok)
    }
    fn set_rings(&self, rings: Rings) -> io::Result<()> {
        if self.0.borrow().rings_really.is_some_and(|most| rings.rx.max(rings.tx) > most) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.change(|s| s.rings = Some(rings))
    }
    fn channels(&self) -> io::Result<(u32, u32)> {
        self.0.borrow().channels.map_or_else(lacks, Ok)
    }
    fn set_channels(&self, combined: u32) -> io::Result<()> {
        self.change(|s| {
            s.channels = s.channels.map(|(_, max)| (combined, max));
            if s.channels_reset_rings {
                s.rings = s.rings.map(|rings| Rings { rx: 256, tx: 256, ..rings });
            }
        })
    }
    fn coalescing(&self) -> io::Result<Coalescing> {
        self.0.borrow().coalescing.map_or_else(lacks, Ok)
    }
    fn set_coalescing(&self, mut to: Coalescing) -> io::Result<()> {
        let now = self.0.borrow().clone();
        if now.adaptive_owns_usecs && to.adaptive_rx != 0 {
            if now.coalescing.is_some_and(|c| c.adaptive_rx != 0 && c.rx_usecs != to.rx_usecs) {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            to.rx_usecs = 30;
        }
        if let Some(step) = now.usecs_step {
            (to.rx_usecs, to.tx_usecs) = (to.rx_usecs / step * step, to.tx_usecs / step * step);
        }
        self.change(|s| s.coalescing = Some(to))
    }
    fn features(&self) -> io::Result<Vec<Feature>> {
        let state = self.0.borrow();
        let feature = |(name, (on, changeable)): (&String, &(bool, bool))| Feature {
            name: name.clone(),
            on: *on,
            changeable: *changeable,
        };
        Ok(state.features.iter().map(feature).collect())
    }
    fn set_feature(&self, name: &str, on: bool) -> io::Result<()> {
        self.change(|s| s.features.get_mut(name).unwrap().0 = on)
    }
    fn hash(&self, flow: Flow) -> io::Result<u64> {
        self.0.borrow().hash.map_or_else(lacks, |hash| Ok(hash[flow as usize]))
    }
    fn set_hash(&self, flow: Flow, fields: u64) -> io::Result<()> {
        if self.0.borrow().hash_fixed {
            return lacks();
        }
        self.change(|s| s.hash.as_mut().unwrap()[flow as usize] = fields)
    }
    fn counters(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(Vec::new())
    }
}

const FILES: [(&str, &str); 8] = [
    ("sys/class/net/eth0/gro_flush_timeout", "0"),
    ("sys/class/net/eth0/napi_defer_hard_irqs", "0"),
    ("sys/class/net/eth0/mtu", "1500"),
    ("proc/sys/net/core/rmem_max", "212992"),
    ("proc/sys/net/core/wmem_max", "99999999"),
    ("proc/sys/net/core/netdev_max_backlog", "1000"),
    ("proc/sys/net/core/busy_poll", "0"),
    ("proc/sys/net/core/busy_read", "0"),
];

/// The network namespace of the tests.
const NETNS: u64 = 4_026_531_840;

fn owner(boot: &str, index: u32) -> Owner {
    Owner::new(boot, "eth0", index, NETNS)
}

/// An interface of this machine.
fn called(name: &str, index: u32) -> Nic {
    Nic { name: name.to_owned(), index, ..Nic::default() }
}

/// A device with its folders.
struct Lab {
    scratch: Scratch,
    state: Rc<RefCell<State>>,
}

/// An Intel 10 Gb/s device as its driver leaves it: UDP hashed on addresses only.
fn intel() -> State {
    let features = [("rx-gro", (true, true)), ("tx-udp-segmentation", (false, true))];
    State {
        rings: Some(Rings { rx: 512, tx: 512, max_rx: 4096, max_tx: 2048 }),
        channels: Some((2, 8)),
        coalescing: Some(Coalescing { adaptive_rx: 1, rx_usecs: 50, ..Default::default() }),
        features: features.map(|(name, state)| (name.to_owned(), state)).into(),
        hash: Some([0x30, 0x30]),
        ..State::default()
    }
}

impl Lab {
    fn new(state: State) -> Self {
        let scratch = Scratch::new();
        for (file, text) in FILES {
            let file = scratch.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{text}\n")).unwrap();
        }
        Self { scratch, state: Rc::new(RefCell::new(state)) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn tuner(&self) -> Tuner {
        let fake = Box::new(Fake(Rc::clone(&self.state)));
        Tuner::new("eth0", fake, self.at("sys"), self.at("proc"))
    }

    fn compare(&self, profile: &str, purpose: Purpose) -> Vec<Comparison> {
        let profile = Profile::find(profile, &Machine::default()).unwrap();
        self.tuner().compare(&profile.nic.wants(purpose), 4)
    }

    /// Everything that the device and the folders hold.
    fn snapshot(&self) -> (State, Vec<String>) {
        let state = State { fails_after: None, ..self.state.borrow().clone() };
        let read = |(file, _): &(&str, &str)| fs::read_to_string(self.at(file)).unwrap();
        (state, FILES.iter().map(read).map(|text| text.trim().to_owned()).collect())
    }

    fn apply_as(&self, index: u32, profile: &str, purpose: Purpose) -> Outcome {
        let profile = Profile::find(profile, &Machine::default()).unwrap();
        let folder = self.at("state");
        journal::folder(&folder).unwrap();
        let _lock = Lock::take(&folder).unwrap();
        let (mut journal, _) = Journal::open(&folder, &owner("boot", index)).unwrap();
        let wants = profile.nic.wants(purpose);
        change::carry_out(&self.tuner(), &wants, 4, true, &mut journal)
    }

    fn apply(&self, profile: &str, purpose: Purpose) -> Result<Vec<Done>, Vec<Done>> {
        let outcome = self.apply_as(7, profile, purpose);
        if outcome.failed { Err(outcome.done) } else { Ok(outcome.done) }
    }

    /// Everything of the interface itself goes.
    fn unplug(&self) {
        fs::remove_dir_all(self.at("sys/class/net/eth0")).unwrap();
        *self.state.borrow_mut() = State::default();
    }

    fn restore_as(&self, index: Option<u32>) -> Vec<Done> {
        let nics: Vec<Nic> = index.map(|index| called("eth0", index)).into_iter().collect();
        let kept = self.kept("boot", NETNS, &nics).unwrap();
        change::undo(&self.tuner(), &kept.entries, kept.gone.is_none())
    }

    fn kept(&self, boot: &str, netns: u64, nics: &[Nic]) -> Result<Kept, String> {
        change::kept(&self.at("state"), "eth0", &Here { boot, netns, nics })
    }

    fn restore(&self) -> Vec<Done> {
        self.restore_as(Some(7))
    }
}

fn find<'a>(compared: &'a [Comparison], key: &Key) -> &'a Comparison {
    compared.iter().find(|c| c.key == *key).unwrap()
}

#[test]
fn what_is_applied_matches_and_what_is_restored_is_as_before() {
    for profile in ["ixgbe", "i40e", "mlx5", "generic", "ena", "virtio"] {
        for purpose in [Purpose::Latency, Purpose::Throughput] {
            let lab = Lab::new(intel());
            let before = lab.snapshot();
            let done = lab.apply(profile, purpose).unwrap();
            assert!(done.iter().any(|d| d.what == "set"), "{profile}: {done:?}");
            assert_ne!(lab.snapshot(), before);
            let differing = lab.compare(profile, purpose);
            let differing = differing.iter().find(|c| c.standing == Standing::Differs);
            assert_eq!(differing, None, "{profile}");
            // Another purpose on top: the oldest values come back all the same.
            lab.apply(profile, Purpose::Latency).unwrap();
            assert!(lab.restore().iter().all(|d| d.what != "failed"));
            assert_eq!(lab.snapshot(), before, "{profile}");
        }
    }
}

#[test]
fn values_are_fitted_to_the_device() {
    let lab = Lab::new(intel());
    lab.apply("ixgbe", Purpose::Throughput).unwrap();
    let (state, files) = lab.snapshot();
    let rings = state.rings.unwrap();
    assert_eq!((rings.rx, rings.tx), (4096, 2048), "the device takes 2048");
    assert_eq!((state.channels, state.hash), (Some((4, 8)), Some([0xf0, 0xf0])));
    assert_eq!(files[3..5], ["8388608", "99999999"], "more is as good");
    let compared = lab.compare("ixgbe", Purpose::Throughput);
    assert_eq!(find(&compared, &Key::TxRing).clamped_from, Some(4096));
}

#[test]
fn what_the_device_lacks_is_said_and_left() {
    let lab = Lab::new(State::default());
    let compared = lab.compare("i40e", Purpose::Throughput);
    for key in [Key::RxRing, Key::Channels, Key::RxUsecs, Key::Udp4Hash] {
        assert!(matches!(find(&compared, &key).standing, Standing::Skipped(_)), "{key}");
    }
    // A fixed feature is left as well.
    let mut state = intel();
    state.features.insert("tx-udp-segmentation".to_owned(), (false, false));
    state.hash_fixed = true;
    let lab = Lab::new(state);
    let uso = Key::Feature("tx-udp-segmentation".to_owned());
    let compared = lab.compare("i40e", Purpose::Throughput);
    assert!(
        matches!(&find(&compared, &uso).standing, Standing::Skipped(why) if why.contains("fixed"))
    );
    // That the hash is fixed shows only when it is set.
    let done = lab.apply("i40e", Purpose::Throughput).unwrap();
    let hash = done.iter().find(|d| d.key == Key::Udp4Hash).unwrap();
    assert_eq!(hash.what, "skipped");
    assert!(done.iter().any(|d| d.key == Key::RxRing && d.what == "set"));
}

#[test]
fn a_value_that_is_refused_is_an_error_and_everything_is_taken_back() {
    let mut state = intel();
    state.rings_really = Some(2048);
    let lab = Lab::new(state);
    let before = lab.snapshot();
    let outcome = lab.apply_as(7, "ixgbe", Purpose::Throughput);
    assert!(outcome.failed);
    let ring = outcome.done.iter().find(|d| d.key == Key::RxRing && d.what == "failed").unwrap();
    for word in ["refuses ring.rx = 4096", "up to 4096", "nvalid argument"] {
        assert!(ring.text.contains(word), "{word}: {}", ring.text);
    }
    // What came before it had been set.
    let channels = outcome.done.iter().filter(|d| d.key == Key::Channels).map(|d| d.what);
    assert_eq!(channels.collect::<Vec<_>>(), ["set", "restored"]);
    assert_eq!(lab.snapshot(), before);
    assert_eq!(outcome.exit(), Exit::Failed);
    assert_eq!(exit(&lab.compare("ixgbe", Purpose::Throughput)), Exit::Failed);
}

#[test]
fn apply_ends_as_diff_does_right_after_it() {
    let (refusing, rounding, resetting, fixed, plain) = (
        State { rings_really: Some(2048), ..intel() },
        State { usecs_step: Some(50), ..intel() },
        State { channels_reset_rings: true, ..intel() },
        State { hash_fixed: true, ..intel() },
        intel(),
    );
    for (state, profile, ends, differs) in [
        (plain, "ixgbe", Exit::Done, None),
        (refusing, "ixgbe", Exit::Failed, None),
        (rounding, "i40e", Exit::Failed, Some((Key::RxUsecs, "is 50, not 84"))),
        // Channels come first, so that rings are set after they were set back.
        (resetting, "ixgbe", Exit::Done, None),
        (fixed, "ixgbe", Exit::Failed, Some((Key::Udp4Hash, "is sd, not sdfn"))),
    ] {
        let lab = Lab::new(state);
        let outcome = lab.apply_as(7, profile, Purpose::Throughput);
        let compared = lab.compare(profile, Purpose::Throughput);
        assert_eq!((outcome.exit(), exit(&compared)), (ends, ends), "{:?}", outcome.done);
        let told = |d: &&Done| d.what == "differs";
        match differs {
            None => assert_eq!(outcome.done.iter().find(told), None),
            Some((key, text)) => {
                let found = outcome.done.iter().filter(told).find(|d| d.key == key);
                assert_eq!(found.map(|d| d.text.as_str()), Some(text), "{:?}", outcome.done);
            }
        }
    }
}

/// Rings as of someone who chose them; the device sets them to its default with the channels.
fn resetting(rings: Rings) -> State {
    State { rings: Some(rings), channels_reset_rings: true, ..intel() }
}

#[test]
fn what_a_device_moves_by_itself_is_restored_too() {
    let chosen = Rings { rx: 2048, tx: 1024, max_rx: 4096, max_tx: 2048 };
    // As the profile wants them, so that they are not to be changed at all.
    let wanted = Rings { rx: 4096, tx: 2048, ..chosen };
    let moving = State { adaptive_owns_usecs: true, ..intel() };
    for (state, profile, purpose) in [
        (resetting(chosen), "ixgbe", Purpose::Throughput),
        (resetting(chosen), "ixgbe", Purpose::Latency),
        (resetting(wanted), "ixgbe", Purpose::Throughput),
        (
            State { coalescing: Some(coalescing(1, 30)), ..moving.clone() },
            "i40e",
            Purpose::Throughput,
        ),
        // Moderation follows the load when it is restored: that goes off before microseconds are set.
        (State { coalescing: Some(coalescing(0, 77)), ..moving }, "mlx5", Purpose::Latency),
    ] {
        let lab = Lab::new(state);
        let before = lab.snapshot();
        assert!(!lab.apply_as(7, profile, purpose).failed);
        assert_ne!(lab.snapshot(), before);
        // The values of before the first of two are the ones.
        assert!(!lab.apply_as(7, profile, Purpose::Throughput).failed);
        let done = lab.restore();
        let failed = done.iter().find(|d| d.what == "failed");
        assert_eq!((failed, lab.snapshot()), (None, before), "{profile}");
    }
}

fn coalescing(adaptive_rx: u32, rx_usecs: u32) -> Coalescing {
    Coalescing { adaptive_rx, rx_usecs, ..Default::default() }
}

#[test]
fn a_setting_that_matched_and_was_moved_is_told() {
    let wanted = Rings { rx: 4096, tx: 2048, max_rx: 4096, max_tx: 2048 };
    let lab = Lab::new(resetting(wanted));
    let outcome = lab.apply_as(7, "ixgbe", Purpose::Throughput);
    let told = outcome.done.iter().filter(|d| d.what == "differs").map(|d| &d.key);
    assert_eq!(told.collect::<Vec<_>>(), [&Key::RxRing, &Key::TxRing], "{:?}", outcome.done);
    assert_eq!(outcome.exit(), Exit::Failed);
}

#[test]
fn a_change_that_fails_takes_back_what_the_device_moved() {
    let chosen = Rings { rx: 2048, tx: 1024, max_rx: 4096, max_tx: 2048 };
    let lab = Lab::new(State { rings_really: Some(3000), ..resetting(chosen) });
    let before = lab.snapshot();
    let outcome = lab.apply_as(7, "ixgbe", Purpose::Throughput);
    assert!(outcome.failed);
    let failed = outcome.done.iter().filter(|d| d.what == "failed").map(|d| &d.key);
    assert_eq!(failed.collect::<Vec<_>>(), [&Key::RxRing], "{:?}", outcome.done);
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn what_cannot_be_taken_back_is_told_by_how_it_is_in_the_end() {
    let lab = Lab::new(intel());
    lab.apply("ixgbe", Purpose::Throughput).unwrap();
    lab.state.borrow_mut().hash_fixed = true;
    let done = lab.restore();
    let failed: Vec<&Done> = done.iter().filter(|d| d.what == "failed").collect();
    let keys: Vec<&Key> = failed.iter().map(|d| &d.key).collect();
    assert_eq!(keys, [&Key::Udp6Hash, &Key::Udp4Hash], "{done:?}");
    assert!(failed[0].text.starts_with("is sdfn, not sd: "), "{failed:?}");
}

#[test]
fn an_interface_is_found_by_its_number_whatever_it_is_called() {
    let lab = Lab::new(intel());
    lab.apply("ixgbe", Purpose::Throughput).unwrap();
    let now = |nics: &[Nic]| {
        let kept = lab.kept("boot", NETNS, nics).unwrap();
        (kept.nic, kept.gone.is_some())
    };
    assert_eq!(now(&[called("eth0", 7)]), ("eth0".to_owned(), false));
    assert_eq!(now(&[called("lo", 1), called("wan0", 7)]), ("wan0".to_owned(), false));
    assert_eq!(now(&[called("eth0", 8), called("wan0", 7)]), ("wan0".to_owned(), false));
    assert_eq!(now(&[called("eth0", 8), called("wan0", 9)]), ("eth0".to_owned(), true));
    assert_eq!(now(&[]), ("eth0".to_owned(), true));
}

#[test]
fn a_journal_of_another_network_namespace_is_refused() {
    let lab = Lab::new(intel());
    lab.apply("ixgbe", Purpose::Throughput).unwrap();
    let at = path(&lab.at("state"), "eth0");
    let before = fs::read_to_string(&at).unwrap();
    let nics = [called("eth0", 7)];
    let elsewhere = Owner::new("boot", "eth0", 7, NETNS + 1);
    let applied = Journal::open(&lab.at("state"), &elsewhere).err().unwrap().to_string();
    let restored = lab.kept("boot", NETNS + 1, &nics).unwrap_err();
    for error in [applied, restored] {
        for word in ["another network namespace", "net:[4026531840]", &at.display().to_string()] {
            assert!(error.contains(word), "{error}");
        }
    }
    assert_eq!(fs::read_to_string(&at).unwrap(), before, "and stays as it was");
    // One that does not say of which it is: the name has to be the same, too.
    fs::write(&at, before.replace(&format!(",\"netns\":{NETNS}"), "")).unwrap();
    assert_eq!(lab.kept("boot", NETNS, &nics).unwrap().gone, None);
    assert!(lab.kept("boot", NETNS, &[called("wan0", 7)]).unwrap().gone.is_some());
    Journal::open(&lab.at("state"), &owner("boot", 7)).unwrap();
    // That of another boot is of no use anywhere.
    let (_, aside) = Journal::open(&lab.at("state"), &Owner::new("later", "eth0", 7, 1)).unwrap();
    assert!(aside.is_some());
}

#[test]
fn the_journal_of_an_interface_that_is_gone_is_kept_aside() {
    let lab = Lab::new(intel());
    lab.apply("ixgbe", Purpose::Throughput).unwrap();
    let at = path(&lab.at("state"), "eth0");
    let text = fs::read_to_string(&at).unwrap();
    let aside = journal::put_aside(&lab.at("state"), "eth0").unwrap();
    assert_eq!((fs::read_to_string(aside).unwrap(), at.exists()), (text, false));
}

#[test]
fn an_interface_that_was_replaced_meanwhile_is_left() {
    let lab = Lab::new(intel());
    let index = |text: &str| fs::write(lab.at("sys/class/net/eth0/ifindex"), text).unwrap();
    let still = || change::is_still(&lab.at("sys"), &called("eth0", 7));
    index("7\n");
    assert_eq!(still(), Ok(()));
    index("8\n");
    assert!(still().unwrap_err().contains("another interface"));
    lab.unplug();
    assert_eq!(still(), Err("eth0 is gone".to_owned()));
}

#[test]
fn the_system_gets_its_settings_back_when_the_interface_is_gone() {
    // The interface went, or another one has its name now: that one is left alone.
    for index in [None, Some(8)] {
        let lab = Lab::new(intel());
        let before = lab.snapshot().1;
        assert!(!lab.apply_as(7, "ixgbe", Purpose::Latency).failed);
        let sysctl = |lab: &Lab, name| {
            let text = fs::read_to_string(lab.at("proc/sys/net/core").join(name)).unwrap();
            text.trim().to_owned()
        };
        assert_ne!(sysctl(&lab, "rmem_max"), before[3]);
        match index {
            None => lab.unplug(),
            Some(_) => *lab.state.borrow_mut() = State { hash: Some([1 << 4; 2]), ..intel() },
        }
        let other = lab.state.borrow().clone();
        let done = lab.restore_as(index);
        assert_eq!(sysctl(&lab, "rmem_max"), before[3]);
        for done in &done {
            let expected = if matches!(done.key, Key::Sysctl(_)) { "restored" } else { "gone" };
            assert_eq!(done.what, expected, "{done:?}");
        }
        let hash = done.iter().find(|d| d.key == Key::Udp4Hash).unwrap();
        assert!(hash.text.contains("was sd, and went with the interface"), "{hash:?}");
        assert_eq!(*lab.state.borrow(), other);
    }
}

#[test]
fn a_journal_that_is_put_aside_leaves_what_it_had_of_the_system() {
    let lab = Lab::new(intel());
    let before = lab.snapshot().1;
    lab.apply("ixgbe", Purpose::Latency).unwrap();
    // Another interface of that name, and the oldest value is that of before the first one.
    *lab.state.borrow_mut() = intel();
    lab.apply_as(8, "i40e", Purpose::Throughput);
    let stale = path(&lab.at("state"), "eth0").with_extension("stale");
    assert!(fs::read_to_string(stale).unwrap().contains("hash.udp4"));
    assert!(lab.restore_as(Some(8)).iter().all(|d| d.what != "failed"));
    let (state, files) = lab.snapshot();
    assert_eq!(files, before);
    assert_eq!(state, intel());
}

#[test]
fn one_process_at_a_time() {
    let folder = Scratch::new();
    let held = Lock::take(folder.path()).unwrap();
    let error = Lock::take(folder.path()).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let at = lock::path(folder.path()).display().to_string();
    let text = error.to_string();
    assert!(text.contains(&format!("process {} ", std::process::id())) && text.contains(&at));
    // One that has not written its number yet.
    fs::write(lock::path(folder.path()), "").unwrap();
    let text = Lock::take(folder.path()).err().unwrap().to_string();
    assert!(text.contains("another process") && text.contains(&at), "{text}");
    drop(held);
    Lock::take(folder.path()).unwrap();
}

/// Who can open the file can lock it, and then nobody could change anything.
#[test]
fn nobody_else_can_take_the_lock() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let folder = Scratch::new();
    let at = lock::path(folder.path());
    let mode = || fs::metadata(&at).unwrap().permissions().mode() & 0o7777;
    drop(Lock::take(folder.path()).unwrap());
    assert_eq!(mode(), 0o600);
    assert_eq!(fs::read_to_string(&at).unwrap(), "", "no process has it, and none is named");
    fs::set_permissions(&at, fs::Permissions::from_mode(0o666)).unwrap();
    drop(Lock::take(folder.path()).unwrap());
    assert_eq!(mode(), 0o600, "that of an existing one, too");
    // Where the name leads elsewhere, nothing is written there.
    let other = folder.path().join("other");
    fs::write(&other, "mine").unwrap();
    fs::remove_file(&at).unwrap();
    symlink(&other, &at).unwrap();
    let error = Lock::take(folder.path()).err().unwrap().to_string();
    assert!(error.contains(&at.display().to_string()), "{error}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
}

#[test]
fn disruptive_settings_wait_for_a_word() {
    let compared = Lab::new(intel()).compare("i40e", Purpose::Throughput);
    let without = change::to_change(&compared, false);
    assert!(!without.is_empty() && without.iter().all(|c| !c.key.disruptive()));
    assert!(change::to_change(&compared, true).iter().any(|c| c.key == Key::RxRing));
}

#[test]
fn a_failure_in_the_middle_takes_everything_back() {
    // A value that nothing takes, at the end.
    let lab = Lab::new(intel());
    let before = lab.snapshot();
    let compared = lab.compare("i40e", Purpose::Latency);
    let mut changes = change::to_change(&compared, true);
    assert!(changes.len() > 5);
    let mut broken = (*changes.last().unwrap()).clone();
    broken.wanted = u64::MAX;
    *changes.last_mut().unwrap() = &broken;
    journal::folder(&lab.at("state")).unwrap();
    let (mut journal, _) = Journal::open(&lab.at("state"), &owner("boot", 7)).unwrap();
    let done = change::make(&lab.tuner(), &compared, &changes, &mut journal).unwrap_err();
    assert_eq!(done.iter().filter(|d| d.what == "failed").count(), 1, "{done:?}");
    assert!(done.iter().filter(|d| d.what == "restored").count() >= changes.len() - 2);
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn after_being_killed_in_the_middle_restore_undoes_what_the_journal_has() {
    for fails_after in 0..6 {
        let lab = Lab::new(intel());
        let before = lab.snapshot();
        // From then on the device refuses everything, also taking back: as if nothing ran any more.
        lab.state.borrow_mut().fails_after = Some(fails_after);
        lab.apply("mlx5", Purpose::Throughput).unwrap_err();
        lab.state.borrow_mut().fails_after = None;
        // And the last line was being written.
        let journal = path(&lab.at("state"), "eth0");
        let text = fs::read_to_string(&journal).unwrap();
        fs::write(&journal, format!("{text}{{\"key\":\"ring.r")).unwrap();
        assert_eq!(lab.snapshot() == before, fails_after == 0);
        assert!(lab.restore().iter().all(|d| d.what != "failed"));
        assert_eq!(lab.snapshot(), before);
        // A journal with such a line is gone on with.
        lab.apply("mlx5", Purpose::Throughput).unwrap();
        lab.restore();
        assert_eq!(lab.snapshot(), before);
    }
}

#[test]
fn journals_that_are_of_no_use_are_told_apart() {
    let lab = Lab::new(intel());
    let folder = lab.at("state");
    let kept = |boot, index: Option<u32>| {
        let nics: Vec<Nic> = index.map(|index| called("eth0", index)).into_iter().collect();
        lab.kept(boot, NETNS, &nics)
    };
    let error = |boot, index| kept(boot, index).err().unwrap();
    assert!(error("boot", Some(7)).contains("nothing to restore"));
    lab.apply("generic", Purpose::Throughput).unwrap();
    assert!(error("later", Some(7)).contains("another boot"));
    let gone = |index| kept("boot", index).unwrap().gone;
    assert!(gone(None).unwrap().contains("is gone"));
    assert!(gone(Some(8)).unwrap().contains("another interface"));
    assert_eq!(gone(Some(7)), None);
    // A new journal begins beside it.
    let (_, aside) = Journal::open(&folder, &owner("later", 7)).unwrap();
    assert!(fs::read_to_string(aside.unwrap()).unwrap().contains("gro_flush_timeout"));
    assert_eq!(
        kept("later", Some(7)).unwrap().entries,
        Vec::new(),
        "sysctls end with the boot, too"
    );
    fs::write(path(&folder, "eth0"), "nonsense\n").unwrap();
    assert!(error("later", Some(7)).contains("is no journal"));
}

#[test]
fn scripts_are_quoted_and_have_the_reasons() {
    let compared = Lab::new(intel()).compare("ixgbe", Purpose::Throughput);
    let text = script("a\ntitle", "it's", &change::to_change(&compared, true));
    for line in [
        "# a title",
        "nic='it'\\''s'",
        "ethtool -L \"$nic\" combined 4",
        "ethtool -G \"$nic\" rx 4096",
        "ethtool -C \"$nic\" rx-usecs 1",
        "ethtool -N \"$nic\" rx-flow-hash udp4 sdfn",
        "ethtool -K \"$nic\" 'tx-udp-segmentation' on",
        "echo 20000 > \"/sys/class/net/$nic/gro_flush_timeout\"",
        "sysctl -w 'net.core.rmem_max=8388608'",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    let mut shell = std::process::Command::new("sh");
    let folder = Scratch::new();
    let file = folder.path().join("script.sh");
    fs::write(&file, &text).unwrap();
    assert!(shell.arg("-n").arg(&file).status().unwrap().success(), "{text}");
}
