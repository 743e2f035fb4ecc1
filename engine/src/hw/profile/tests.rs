//! Profiles: the files of the library, the choice, mistakes in files.

use super::*;
use crate::config::Pinning;
use crate::hw::Nic;
use crate::hw::nic::{Key, Purpose};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

fn machine(cores: usize, nics: &[(&str, usize)]) -> Machine {
    let nic = |(driver, rx_queues): &(&str, usize)| Nic {
        name: "eth0".into(),
        driver: (*driver).to_owned(),
        up: true,
        rx_queues: *rx_queues,
        ..Nic::default()
    };
    Machine {
        cores: (0..cores).collect(),
        nics: nics.iter().map(nic).collect(),
        ..Machine::default()
    }
}

#[test]
fn every_profile_of_the_library_is_usable_and_has_reasons() {
    assert_eq!(Profile::built_in().count(), BUILT_IN.len(), "all of them parse");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../hw-profiles");
    assert_eq!(fs::read_dir(folder).unwrap().count(), BUILT_IN.len(), "none is forgotten");
    let mut drivers = BTreeSet::new();
    for (file, profile) in BUILT_IN.iter().zip(Profile::built_in()) {
        assert_eq!(profile.name, file.0);
        assert!(profile.drivers.iter().all(|driver| drivers.insert(driver.clone())), "{file:?}");
        assert!(!profile.counters.is_empty() && !profile.gotchas.is_empty(), "{file:?}");
        for purpose in [Purpose::Latency, Purpose::Throughput] {
            let wants = profile.nic.wants(purpose);
            assert!(!wants.is_empty(), "{file:?}");
            // Of no effect on the engine's sockets, which never wait in a read.
            let busy = wants.iter().find(|want| want.key.to_string().contains("busy"));
            assert_eq!(busy, None, "{file:?}");
        }
        for cores in [0, 1, 2, 300] {
            let mut config = EngineConfig::default();
            let told = profile.apply(&mut config, &machine(cores, &[("x", 500)]));
            config.validate().unwrap();
            assert!(!told.is_empty() && config.shards <= cores.max(1));
        }
    }
}

#[test]
fn auto_takes_the_profile_of_the_first_interface() {
    let name = |m: &Machine| Profile::find("auto", m).unwrap().name;
    assert_eq!(name(&machine(4, &[("virtio_net", 2), ("lo", 1)])), "virtio");
    assert_eq!(name(&machine(4, &[("lo", 1)])), "loopback");
    assert_eq!(name(&machine(4, &[("something_new", 8)])), "generic");
    assert_eq!(name(&machine(4, &[])), "generic");
    let mut config = EngineConfig::default();
    let virtual_machine = machine(4, &[("virtio_net", 2)]);
    let told =
        Profile::find("virtio", &virtual_machine).unwrap().apply(&mut config, &virtual_machine);
    assert_eq!((config.shards, config.rx_buffers), (2, 512));
    assert!(told.iter().any(|a| a.setting == "shards" && a.to_string().contains("queues")));
}

#[test]
fn files_are_read_and_mistakes_are_named() {
    let path = std::env::temp_dir().join(format!("profile-{}.toml", std::process::id()));
    let file = path.to_str().unwrap();
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        Profile::find(file, &machine(8, &[]))
    };
    let head = "name = \"mine\"\ndescription = \"\"\ndrivers = []\n";
    let good = format!(
        "{head}[engine.pin]\nvalue = true\nwhy = \"because I say so\"\n\
         [engine.busy_poll_us]\nvalue = 50\nwhy = \"because I say so\"\n"
    );
    let mut config = EngineConfig { shards: 3, ..EngineConfig::default() };
    load(&good).unwrap().apply(&mut config, &machine(8, &[]));
    assert_eq!(config.pin, Pinning::Cores((0..8).collect()));
    assert_eq!(config.busy_poll, Some(Duration::from_micros(50)));
    for (text, word) in [
        (format!("{head}[engine.pins]\nvalue = true\nwhy = \"because I say so\"\n"), "pins"),
        (format!("{head}[engine.gso]\nvalue = 3\nwhy = \"because I say so\"\n"), "boolean"),
        (format!("{head}[engine.gso]\nvalue = true\nwhy = \"\"\n"), "gso has no reason"),
        (
            format!("{head}[engine.rx_buffers]\nvalue = 1\nwhy = \"because I say so\"\n"),
            "rx_buffers",
        ),
        (
            format!("{head}[engine.gso_segments]\nvalue = 65\nwhy = \"because I say so\"\n"),
            "gso_segments must lie in 1..=64",
        ),
        (
            format!("{head}[engine.pacing_burst]\nvalue = 1\nwhy = \"because I say so\"\n"),
            "pacing_burst must lie in 2..=64",
        ),
        (
            format!("{head}[engine.placement]\nvalue = \"far\"\nwhy = \"because I say so\"\n"),
            "near",
        ),
        (format!("{head}[engine.placement]\nvalue = \"near\"\nwhy = \"\"\n"), "placement has no"),
        ("drivers = []".to_owned(), "name"),
        (format!("{head}[nic.both.rx_rings]\nvalue = 1\nwhy = \"because I say so\"\n"), "rx_rings"),
        (
            format!("{head}[nic.both.rx_ring]\nvalue = 1\nwhy = \"         x\"\n"),
            "ring.rx has no reason",
        ),
        (format!("{head}[nic.latency.mtu]\nvalue = 9\nwhy = \"because I say so\"\n"), "1280 to"),
        (
            format!("{head}[nic.both.udp4_hash]\nvalue = \"xyz\"\nwhy = \"because I say so\"\n"),
            "sdfn",
        ),
        (
            format!(
                "{head}[nic.both.sysctls.\"kernel.panic\"]\nvalue = 1\nwhy = \"because I say so\"\n"
            ),
            "kernel.panic",
        ),
    ] {
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains(file), "{error}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(Profile::find(file, &machine(1, &[])), Err(ProfileError::File { .. })));
    let unknown = Profile::find("nonsense", &machine(1, &[])).unwrap_err().to_string();
    assert!(unknown.contains("nonsense") && unknown.contains("loopback"), "{unknown}");
}

#[test]
#[cfg(unix)]
fn interfaces_are_read_from_a_tree_like_sys() {
    let root = std::env::temp_dir().join(format!("sys-{}", std::process::id()));
    let net = root.join("class/net");
    let nic = |name: &str, files: &[(&str, &str)], queues: usize| {
        for (file, text) in files {
            fs::create_dir_all(net.join(name)).unwrap();
            fs::write(net.join(name).join(file), text).unwrap();
        }
        for n in 0..queues {
            fs::create_dir_all(net.join(name).join(format!("queues/rx-{n}"))).unwrap();
        }
    };
    nic("lo", &[("type", "772\n"), ("operstate", "unknown\n")], 1);
    nic("eth0", &[("type", "1\n"), ("operstate", "down\n")], 2);
    nic("ens5", &[("type", "1\n"), ("operstate", "up\n")], 4);
    nic("br0", &[("type", "1\n"), ("uevent", "DEVTYPE=bridge\nINTERFACE=br0\n")], 1);
    nic("ifb0", &[("type", "1\n"), ("uevent", "INTERFACE=ifb0\n")], 1);
    nic("odd0", &[("type", "1\n"), ("uevent", "INTERFACE=odd0\n")], 1);
    let driver = root.join("bus/pci/drivers/ena");
    fs::create_dir_all(&driver).unwrap();
    fs::create_dir_all(net.join("ens5/device")).unwrap();
    std::os::unix::fs::symlink(&driver, net.join("ens5/device/driver")).unwrap();
    let file = |path: &str, text: &str| {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    };
    file("class/net/ens5/device/numa_node", "1\n");
    for irq in [30, 31, 32, 33] {
        file(&format!("class/net/ens5/device/msi_irqs/{irq}"), "msix\n");
    }
    // Where it comes to goes before where it may; several are no answer, and nor is nothing.
    file("proc/irq/30/smp_affinity_list", "0-7\n");
    file("proc/irq/30/effective_affinity_list", "6\n");
    file("proc/irq/31/smp_affinity_list", "4\n");
    file("proc/irq/31/effective_affinity_list", "\n");
    file("proc/irq/32/smp_affinity_list", "0-7\n");
    file("devices/system/node/node0/cpulist", "0-3,8\n");
    file("devices/system/node/node1/cpulist", "4-7\n");
    file("devices/system/node/has_cpu", "0-1\n");
    file("devices/system/cpu/cpu0/topology/thread_siblings_list", "0,4\n");
    file("devices/system/cpu/cpu1/topology/thread_siblings_list", "1\n");
    file("proc/net/route", "Iface\tDestination\tGateway\nens5\t00000000\t0101010A\n");
    let asked = |name: &str| match name {
        "eth0" => Some("veth".to_owned()),
        "ifb0" => Some("ifb".to_owned()),
        "odd0" => None,
        known => panic!("{known} is told by /sys"),
    };
    let read = Machine::read(&root, &root.join("proc"), vec![0, 1], &asked);
    let names: Vec<_> = read.nics.iter().map(|n| (&*n.name, &*n.driver, n.is_virtual)).collect();
    assert_eq!(
        names,
        [
            ("ens5", "ena", false),
            ("lo", "lo", true),
            ("br0", "bridge", true),
            ("eth0", "veth", true),
            ("ifb0", "ifb", true),
            ("odd0", "unknown", true),
        ]
    );
    for (nic, profile) in read.nics.iter().zip(["ena", "loopback", "generic", "veth", "generic"]) {
        let machine = Machine { nics: vec![nic.clone()], ..Machine::default() };
        assert_eq!(Profile::find("auto", &machine).unwrap().name, profile, "{}", nic.name);
    }
    let first = &read.nics[0];
    assert_eq!((first.rx_queues, first.up, read.nics[3].up), (4, true, false));
    assert_eq!((first.numa_node, &first.irq_cores[..]), (Some(1), &[4, 6][..]));
    assert_eq!(read.nodes, [(0, vec![0, 1, 2, 3, 8]), (1, vec![4, 5, 6, 7])]);
    assert_eq!(read.siblings, [[0, 4]], "a core with one thread has none");
    fs::remove_dir_all(&root).unwrap();
    // Whatever this machine is, it has a profile.
    let mut config = EngineConfig::default();
    assert!(!config.load_profile("auto").unwrap().is_empty());
    config.validate().unwrap();
}

#[test]
fn a_purpose_goes_before_what_is_for_both() {
    let profile = Profile::find("ice", &machine(1, &[])).unwrap();
    let value = |purpose, key| {
        let wants = profile.nic.wants(purpose);
        wants.iter().find(|want| want.key == key).map(super::super::nic::Want::show)
    };
    assert_eq!(value(Purpose::Latency, Key::RxUsecs).as_deref(), Some("0"));
    assert_eq!(value(Purpose::Throughput, Key::RxUsecs).as_deref(), Some("80"));
    for purpose in [Purpose::Latency, Purpose::Throughput] {
        assert_eq!(value(purpose, Key::Udp4Hash).as_deref(), Some("sdfn"));
        assert_eq!(value(purpose, Key::Channels).as_deref(), Some("cores"));
        let wants = profile.nic.wants(purpose);
        for want in &wants {
            assert_eq!(want.key.to_string().parse::<Key>().as_ref(), Ok(&want.key));
            assert_eq!(want.value.and_then(|v| want.key.parse(&want.key.show(v))), want.value);
        }
    }
}

#[test]
fn a_kernel_that_mangles_trains_gets_none() {
    for (kernel, gso) in [("7.1.4", false), ("7.1.5", true), ("6.12.1", true)] {
        let mut config = EngineConfig::default();
        let machine = Machine { kernel: kernel.to_owned(), ..machine(2, &[]) };
        let told = Profile::find("generic", &machine).unwrap().apply(&mut config, &machine);
        assert_eq!(config.gso, gso, "{kernel}");
        let said = told.iter().find(|a| a.setting == "gso").unwrap();
        assert_eq!(
            (said.value.as_str(), said.why.contains("mangle")),
            (if gso { "true" } else { "false" }, !gso)
        );
    }
}

/// A machine of two nodes with four processors each, whose interface is on the second.
fn two_nodes(queues: usize) -> Machine {
    let nic = Nic {
        numa_node: Some(1),
        irq_cores: vec![4, 6],
        ..machine(0, &[("ice", queues)]).nics[0].clone()
    };
    Machine {
        nodes: vec![(0, vec![0, 1, 2, 3]), (1, vec![4, 5, 6, 7])],
        nics: vec![nic],
        ..machine(8, &[])
    }
}

#[test]
fn shards_are_put_near_the_interface_and_beside_its_interrupts() {
    for (queues, chosen, word) in [
        (2, vec![5, 7], "processors 5,7"),
        (3, vec![5, 7, 4], "take its interrupts"),
        (5, vec![5, 7, 4, 6, 0], "more shards than"),
    ] {
        let mut config = EngineConfig::default();
        let machine = two_nodes(queues);
        let told = Profile::find("ice", &machine).unwrap().apply(&mut config, &machine);
        let Pinning::Cores(cores) = &config.pin else { panic!() };
        assert_eq!(cores[..config.shards], chosen);
        let said = told.iter().find(|a| a.setting == "placement").unwrap();
        assert!(said.value.contains(word), "{said}");
        config.validate().unwrap();
    }
    // Where nothing is known of nodes and interrupts, it is the order of the system.
    let mut config = EngineConfig::default();
    let plain = machine(3, &[("ice", 2)]);
    Profile::find("ice", &plain).unwrap().apply(&mut config, &plain);
    assert_eq!(config.pin, Pinning::Cores(vec![0, 1, 2]));
    // A processor that the process may not use is not chosen, however near it is.
    let mut config = EngineConfig::default();
    let narrow = Machine { cores: vec![1, 4, 5], ..two_nodes(2) };
    Profile::find("ice", &narrow).unwrap().apply(&mut config, &narrow);
    assert_eq!(config.pin, Pinning::Cores(vec![5, 4, 1]));
}

/// The order in which Linux counts: the first threads of all cores, then the second ones.
#[test]
fn threads_of_one_core_are_told_apart_from_cores() {
    let with = |cores: Vec<usize>, irq_cores: Vec<usize>, queues: usize| {
        let nic = Nic { irq_cores, ..machine(0, &[("ice", queues)]).nics[0].clone() };
        let siblings = (0..4).map(|core| vec![core, core + 4]).collect();
        Machine { cores, siblings, nics: vec![nic], ..Machine::default() }
    };
    let all = || (0..8).collect::<Vec<usize>>();
    assert_eq!(with(all(), vec![], 1).near(), all());
    // 4 shares a core with 0; 1 and 2 have theirs to themselves until 5 and 6 come.
    assert_eq!(with(all(), vec![0], 1).near(), [1, 2, 3, 5, 6, 7, 4, 0]);
    assert_eq!(with(all(), vec![0, 4], 1).near(), [1, 2, 3, 5, 6, 7, 0, 4]);
    // As other systems count: the threads of a core one after the other.
    let other = Machine { siblings: vec![vec![0, 1], vec![2, 3]], ..with(all(), vec![], 1) };
    assert_eq!(other.near(), [0, 2, 4, 5, 6, 7, 1, 3]);
    // Four threads a core; and one whose sibling the process may not use has it to itself.
    let four = Machine { siblings: vec![(0..4).collect(), (4..8).collect()], ..other };
    assert_eq!(four.near(), [0, 4, 1, 5, 2, 6, 3, 7]);
    assert_eq!(with(vec![4, 5, 1], vec![], 1).near(), [4, 5, 1]);
    // A node goes before all of this.
    let far = Machine { nodes: vec![(1, vec![3, 7])], ..with(all(), vec![7], 1) };
    let nic = Nic { numa_node: Some(1), ..far.nics[0].clone() };
    let far = Machine { nics: vec![nic], ..far };
    assert_eq!(far.near(), [3, 7, 0, 1, 2, 4, 5, 6]);
    for (irqs, queues, word) in [
        (vec![], 4, "processors 0,1,2,3"),
        (vec![], 5, "processors 0,1,2,3,4 (some are threads of one core)"),
        (vec![0], 7, "(some are threads of a core that takes its interrupts)"),
        (vec![0], 8, "(some take its interrupts, too)"),
    ] {
        let machine = with(all(), irqs, queues);
        let told = Profile::find("ice", &machine).unwrap();
        let told = told.apply(&mut EngineConfig::default(), &machine);
        let said = told.iter().find(|a| a.setting == "placement").unwrap();
        assert!(said.value.ends_with(word), "{queues}: {said}");
    }
}

#[test]
fn processors_that_were_named_before_stay_where_the_profile_does_not_pin() {
    let reason = "why = \"because I say so\"";
    let apply = |placement: &str, pin: Option<bool>, named: Vec<usize>| {
        let pin =
            pin.map_or(String::new(), |pin| format!("[engine.pin]\nvalue = {pin}\n{reason}\n"));
        let text = format!(
            "name = \"mine\"\ndescription = \"\"\ndrivers = []\n{pin}\
             [engine.shards]\nvalue = 4\n{reason}\n\
             [engine.placement]\nvalue = \"{placement}\"\n{reason}\n"
        );
        let mut config = EngineConfig { pin: Pinning::Cores(named), ..EngineConfig::default() };
        let told = Profile::parse("mine", &text).unwrap().apply(&mut config, &two_nodes(2));
        let said = told.into_iter().find(|a| a.setting == "placement").unwrap().value;
        (config.pin, said)
    };
    for how in ["near", "any"] {
        let (pin, said) = apply(how, None, vec![3]);
        assert_eq!(pin, Pinning::Cores(vec![3]), "{how}");
        assert_eq!(said, "of no effect: fewer processors than shards", "{how}");
        let (pin, said) = apply(how, None, vec![3, 1, 2, 0, 7]);
        assert_eq!(pin, Pinning::Cores(vec![3, 1, 2, 0, 7]), "{how}");
        assert!(said.starts_with("processors 3,1,2,0"), "{said}");
        assert!(apply(how, Some(false), vec![3]).1.contains("not pinned"));
    }
    let (pin, said) = apply("near", Some(true), vec![3]);
    assert_eq!(pin, Pinning::Cores(vec![5, 7, 4, 6, 0, 1, 2, 3]));
    assert!(said.starts_with("processors 5,7,4,6"), "{said}");
}

#[test]
fn trains_and_bursts_are_taken_over() {
    let of = |name: &str| {
        let mut config = EngineConfig::default();
        let machine = machine(2, &[]);
        let told = Profile::find(name, &machine).unwrap().apply(&mut config, &machine);
        let told: Vec<_> = told.iter().map(|a| a.setting).collect();
        let (train, burst) = (config.gso_segments, config.connection.pacing_burst);
        (train, burst, told.contains(&"gso_segments"), told.contains(&"pacing_burst"))
    };
    assert_eq!(of("generic"), (64, 16, false, false));
    assert_eq!(of("r8169"), (32, 16, true, false));
    assert_eq!(of("ena"), (64, 10, false, true));
}

/// Who reads a number wants to know whose it is.
#[test]
fn every_number_says_where_it_is_from() {
    const SOURCES: [&str; 6] = [
        "judgement, not measured",
        "not measured here",
        "default",
        "all that there is",
        "driver's word",
        "has one queue",
    ];
    for (name, text) in BUILT_IN {
        let table: toml::Table = text.parse().unwrap();
        let mut open: Vec<(String, &toml::Value)> =
            ["engine", "nic"].map(|part| (part.to_owned(), &table[part])).into();
        let mut seen = 0;
        while let Some((path, value)) = open.pop() {
            let Some(of) = value.as_table() else { panic!("{name}: {path}") };
            let Some(why) = of.get("why").and_then(toml::Value::as_str) else {
                open.extend(of.iter().map(|(key, value)| (format!("{path}.{key}"), value)));
                continue;
            };
            let is_choice = ["engine.pin", "engine.placement"].contains(&path.as_str());
            let is_number = of["value"].as_integer().is_some_and(|number| number != 0);
            if is_choice || is_number {
                seen += 1;
                assert!(SOURCES.iter().any(|s| why.contains(s)), "{name}: {path}: {why}");
            }
        }
        assert!(seen > 3, "{name}");
        // Both of its drivers take more than what it names.
        assert!(name != "azure" || !text.contains("all that there is"));
    }
}
