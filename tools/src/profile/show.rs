//! Reading only: list, explain, detect, diff, verify.

use super::{
    ExplainArgs, JsonArgs, Target, TargetArgs, comparison_line, profile, purpose_name, unknown,
    why_auto,
};
use crate::exit::{Exit, Failure};
use crate::print;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use trunkline::EngineConfig;
use trunkline::hw::nic::Key;
use trunkline::hw::quirks::{self, Quirk};
use trunkline::hw::tune::ethtool;
use trunkline::hw::{Applied, Machine, Nic, Profile, Purpose};

pub fn list(args: &JsonArgs) -> Result<Exit, Failure> {
    let all: Vec<Profile> = Profile::built_in().collect();
    let objects = all
        .iter()
        .map(|p| json!({"name": p.name, "description": p.description, "drivers": p.drivers}));
    let object = json!({"profiles": objects.collect::<Vec<_>>()});
    let line = |p: &Profile| format!("{:10} {:24} {}", p.name, p.drivers.join(","), p.description);
    let lines: Vec<String> = all.iter().map(line).collect();
    print::result(args.json, &object, &lines.join("\n"))?;
    Ok(Exit::Done)
}

fn applied_json(applied: &[Applied]) -> Value {
    let one = |a: &Applied| json!({"setting": a.setting, "value": a.value, "why": a.why});
    applied.iter().map(one).collect()
}

pub fn explain(args: &ExplainArgs) -> Result<Exit, Failure> {
    let machine = Machine::this();
    let profile = Profile::find(&args.name, &machine).map_err(|e| unknown(e.to_string()))?;
    let purpose = Purpose::from(args.purpose);
    let engine = profile.apply(&mut EngineConfig::default(), &machine);
    let wants = profile.nic.wants(purpose);
    let irq = profile.nic.irq_affinity(purpose);
    let mut lines = vec![format!("{}: {}", profile.name, profile.description)];
    lines.push("settings of an engine on this machine".to_owned());
    lines.extend(engine.iter().map(|a| format!("  {a}")));
    lines.push(format!("settings of the interface for {}", purpose_name(purpose)));
    for want in &wants {
        lines.push(format!("  {} = {}: {}", want.key, want.show(), want.why));
    }
    lines.extend(irq.map(|s| format!("  interrupts each on one processor (advice): {}", s.why)));
    lines.extend(profile.gotchas.iter().map(|g| format!("note: {g}")));
    lines.push(format!("counters to watch: {}", profile.counters.join(", ")));
    let object = json!({
        "name": profile.name, "description": profile.description, "drivers": profile.drivers,
        "for": purpose_name(purpose), "gotchas": profile.gotchas, "counters": profile.counters,
        "engine": applied_json(&engine),
        "nic": wants.iter().map(|w| json!({
            "key": w.key.to_string(), "value": w.show(), "why": w.why,
            "disruptive": w.key.disruptive(),
        })).collect::<Vec<_>>(),
        "irq_affinity": irq.map(|s| json!({"value": "one-core", "why": s.why})),
    });
    print::result(args.json, &object, &lines.join("\n"))?;
    Ok(Exit::Done)
}

pub fn detect(args: &JsonArgs) -> Result<Exit, Failure> {
    let machine = Machine::this();
    let found: Vec<&Quirk> = quirks::of(&machine.kernel).collect();
    let mut lines = vec![format!("kernel {}, {} processors", machine.kernel, machine.cores.len())];
    lines.extend(found.iter().map(|q| format!("quirk {}: {}", q.name, q.what)));
    let mut nics = Vec::new();
    for nic in &machine.nics {
        let profile = profile("auto", &machine, nic)?;
        let why = why_auto(&profile, nic);
        let told = ethtool(&nic.name).and_then(|device| device.driver()).ok();
        lines.push(format!(
            "{:12} {:12} {:4} {} rx, {} tx queues  profile {}: {why}",
            nic.name,
            nic.driver,
            if nic.up { "up" } else { "down" },
            nic.rx_queues,
            nic.tx_queues,
            profile.name,
        ));
        nics.push(json!({
            "name": nic.name, "driver": nic.driver, "driver_by_ethtool": told, "up": nic.up,
            "rx_queues": nic.rx_queues, "tx_queues": nic.tx_queues, "numa_node": nic.numa_node,
            "irqs": nic.irqs, "irq_processors": nic.irq_cores, "virtual": nic.is_virtual,
            "profile": profile.name, "profile_why": why,
        }));
    }
    let object = json!({
        "kernel": machine.kernel, "processors": machine.cores.len(),
        "quirks": found.iter().map(|q| json!({"name": q.name, "what": q.what})).collect::<Vec<_>>(),
        "nics": nics,
    });
    print::result(args.json, &object, &lines.join("\n"))?;
    Ok(if machine.nics.is_empty() { Exit::Usage } else { Exit::Done })
}

fn head(target: &Target) -> String {
    let Target { nic, profile, chosen, purpose, .. } = target;
    let purpose = purpose_name(*purpose);
    format!(
        "{} ({}) and profile {} for {purpose}: {chosen}\n{:8} {:32} {:>9} {:>9}",
        nic.name, nic.driver, profile.name, "", "setting", "current", "wanted"
    )
}

pub fn diff(args: &TargetArgs) -> Result<Exit, Failure> {
    let target = Target::open(&args.choice)?;
    let mut lines = vec![head(&target)];
    lines.extend(target.compared.iter().map(comparison_line));
    let exit = target.exit();
    let mut object = target.json();
    object["matches"] = json!(exit == Exit::Done);
    print::result(args.json, &object, &lines.join("\n"))?;
    Ok(exit)
}

pub fn verify(args: &TargetArgs) -> Result<Exit, Failure> {
    let target = Target::open(&args.choice)?;
    let mut lines = vec![head(&target)];
    lines.extend(target.compared.iter().map(comparison_line));
    // What an engine that loads the profile takes from it.
    let engine = target.profile.apply(&mut EngineConfig::default(), &target.machine);
    lines.extend(engine.iter().map(|a| format!("engine   {a}")));
    let advice = advice(&target, Path::new("/proc"));
    lines.extend(advice.iter().map(|text| format!("advice   {text}")));
    let counters = counters(&target);
    for (name, value) in &counters {
        lines.push(format!("counter  {name} = {value}"));
    }
    let exit = target.exit();
    let mut object = target.json();
    object["matches"] = json!(exit == Exit::Done);
    object["engine"] = applied_json(&engine);
    object["advice"] = json!(advice);
    object["counters"] = counters.into_iter().map(|(k, v)| (k, json!(v))).collect::<Value>();
    print::result(args.json, &object, &lines.join("\n"))?;
    Ok(exit)
}

/// The counters that the profile names: of the system, and of the driver.
fn counters(target: &Target) -> Vec<(String, u64)> {
    let folder = Path::new("/sys/class/net").join(&target.nic.name).join("statistics");
    let of_system = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let value = fs::read_to_string(entry.path()).ok()?.trim().parse().ok()?;
        Some((entry.file_name().into_string().ok()?, value))
    });
    let of_driver = target.tuner.ethtool().counters().unwrap_or_default();
    let is_named = |name: &str| target.profile.counters.iter().any(|p| fits(p, name));
    let mut found: Vec<_> = of_system.chain(of_driver).filter(|(name, _)| is_named(name)).collect();
    found.sort();
    found.dedup_by(|a, b| a.0 == b.0);
    found
}

/// Whether a name fits a pattern; `*` at its beginning stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_prefix('*').map_or(pattern == name, |end| name.ends_with(end))
}

/// What no setting does: interrupts, hash, segmentation of a kernel that does it wrong.
fn advice(target: &Target, proc: &Path) -> Vec<String> {
    let mut advice = Vec::new();
    let Target { nic, machine: Machine { kernel, .. }, profile, purpose, compared, .. } = target;
    let hash = compared.iter().find(|c| c.key == Key::Udp4Hash);
    if nic.rx_queues > 1 && hash.is_some_and(|c| c.current.is_none()) {
        advice.push(format!(
            "{} does not tell how it hashes UDP: one busy peer may land on one queue",
            nic.name
        ));
    }
    if profile.nic.irq_affinity(*purpose).is_some() {
        advice.extend(irq_advice(nic, proc));
    }
    advice.extend(quirks::of(kernel).map(|q| format!("kernel {kernel}: {}", q.what)));
    advice
}

/// Where the interrupts are, and who moves them.
fn irq_advice(nic: &Nic, proc: &Path) -> Vec<String> {
    let mut advice = Vec::new();
    let wide = nic.irqs.iter().filter(|irq| {
        let path = proc.join(format!("irq/{irq}/smp_affinity_list"));
        fs::read_to_string(path).is_ok_and(|list| list.trim().contains([',', '-']))
    });
    let wide: Vec<String> = wide.map(u32::to_string).collect();
    if !wide.is_empty() {
        advice.push(format!(
            "interrupts {} may come to several processors: write one to /proc/irq/N/smp_affinity_list",
            wide.join(", ")
        ));
    }
    if !nic.irqs.is_empty() && runs(proc, "irqbalance") {
        let ban: Vec<String> = nic.irqs.iter().map(|irq| format!("--banirq={irq}")).collect();
        advice.push(format!(
            "irqbalance runs and moves interrupts; it need not be stopped, only leave these alone: {}",
            ban.join(" ")
        ));
    }
    advice
}

/// Whether a program of this name runs.
fn runs(proc: &Path, program: &str) -> bool {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let is_number = |name: &str| name.bytes().all(|b| b.is_ascii_digit());
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_number))
        .any(|e| fs::read_to_string(e.path().join("comm")).is_ok_and(|c| c.trim() == program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_counters() {
        assert!(fits("rx_dropped", "rx_dropped") && !fits("rx_dropped", "tx_dropped"));
        assert!(fits("*_allowance_exceeded", "bw_in_allowance_exceeded"));
        assert!(!fits("*_allowance_exceeded", "rx_dropped"));
    }

    #[test]
    fn irqbalance_is_told_of_and_its_ban_list_offered() {
        let scratch = crate::scratch::Scratch::new();
        let proc = scratch.path().join("proc");
        let file = |path: &str, text: &str| {
            let path = proc.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let nic = Nic { irqs: vec![30, 31], ..Nic::default() };
        file("irq/30/smp_affinity_list", "0-3\n");
        file("irq/31/smp_affinity_list", "2\n");
        file("77/comm", "bash\n");
        let told = irq_advice(&nic, &proc);
        assert!(told.len() == 1 && told[0].contains("interrupts 30 may"), "{told:?}");
        file("78/comm", "irqbalance\n");
        let told = irq_advice(&nic, &proc);
        assert!(told[1].contains("--banirq=30 --banirq=31"), "{told:?}");
        assert!(irq_advice(&Nic::default(), &proc).is_empty(), "no interrupts, no advice");
    }
}
