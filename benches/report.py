#!/usr/bin/env python3
"""Measures what docs/benchmarks.md shows, and writes that document.

  python3 benches/report.py                       everything: an hour and a half, as root
  python3 benches/report.py --measure floor,peers some of it; the rest stays as it was
  python3 benches/report.py --measure none        only the document, from the figures in docs/benchmarks
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "benchmarks"
BIN = ROOT / "target" / "release"
PARTS = ["floor", "peers", "scale", "loss", "fairness"]
# Gb/s; see `targets`.
REFERENCE_FLOOR = 19.8


def run(command, out=None):
    print("+", " ".join(str(word) for word in command), file=sys.stderr, flush=True)
    with open(out, "wb") if out else open("/dev/null", "wb") as stdout:
        subprocess.run(command, check=True, stdout=stdout, cwd=ROOT)


def measure(parts, rounds, seconds):
    OUT.mkdir(exist_ok=True)
    run(["cargo", "build", "--release", "--bin", "trunkline"])
    if set(parts) - {"floor"}:
        run(["cargo", "build", "--release", "-p", "trunkline-peers", "--features", "peers"])
        run(["cargo", "build", "--release", "-p", "trunkline-link"])
    bench = [BIN / "trunkline", "bench", "--json", "--floor", "--rounds", str(rounds)]
    bench += ["-t", str(seconds)]
    if "floor" in parts:
        for driver in ["uring", "mio"]:
            run([*bench, "--driver", driver], OUT / f"floor-{driver}.json")
            spin = ["--driver", driver, "--scenario", "latency", "--busy-poll"]
            run([*bench, *spin], OUT / f"spin-{driver}.json")
        many = ["--scenario", "small", "--channels", "200"]
        run([*bench, *many], OUT / "channels.json")
    peers = BIN / "peers"
    timing = ["--rounds", str(rounds), "--seconds", str(seconds)]
    if "peers" in parts:
        run([peers, *timing, "--json", OUT / "peers.json", "--svg", OUT])
    if "scale" in parts:
        run([peers, "scale", "--rounds", "3", "--json", OUT / "scale.json", "--svg", OUT])
    loss = [sys.executable, ROOT / "benches" / "loss.py"]
    if "loss" in parts:
        run([*loss, "--json", OUT / "loss.json", "--svg", OUT / "loss.svg"])
        fast = ["--rate", "200Mbit", "--peer", "trunkline,quinn", "--rounds", "1"]
        run([*loss, *fast, "--json", OUT / "loss-200.json"])
    if "fairness" in parts:
        both = ["--fairness", "--rtt-under-load"]
        run([*loss, *both, "--json", OUT / "fairness.json"])


def load(name):
    path = OUT / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def number(value):
    if value is None:
        return "–"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or value == 0 else 4
    return f"{value:,.{digits}f}"


def table(head, rows):
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def runs(name):
    report = load(name)
    return {run["scenario"]: run for run in report["runs"]} if report else {}


# What a scenario's ratio stands beside.
BESIDE = {
    "bulk": "GSO + AES-128-GCM over plain UDP",
    "small": "single UDP packets",
    "datagrams": "single UDP packets",
    "latency": "UDP ping-pong",
    "loaded": "p99 of the same connection without load",
}


def floors():
    rows = []
    for name in ["floor-uring", "floor-mio", "spin-uring", "spin-mio"]:
        for scenario, r in runs(name).items():
            main = {
                "bulk": f"{r['goodput_gbps']:.1f} Gb/s",
                "small": f"{r['messages_per_s'] / 1e6:.1f} M/s",
                "datagrams": f"{r['messages_per_s'] / 1e6:.1f} M/s",
            }.get(scenario)
            rtt = r["rtt_us"]
            if main is None:
                main = f"p50 {rtt['p50']:.0f} µs, p99 {rtt['p99']:.0f} µs"
            low, high = r["spread"]["ratio"]
            waits = ", busy polling" if name.startswith("spin") else ""
            ratio = f"{r['ratio']:.2f} ({low:.2f}–{high:.2f})"
            rows.append([scenario + waits, r["driver"], main, BESIDE[scenario], ratio])
    head = ["scenario", "driver", "median", "beside", "ratio (min–max)"]
    return table(head, rows)


def peer_rows():
    report = load("peers")
    if not report:
        return {}
    return {
        t["workload"]: {row["peer"]: row for row in t["rows"]} for t in report["workloads"]
    }


def targets():
    """The figures that this project aims at, and what was measured."""
    peers, rows = peer_rows(), []

    def median(workload, peer, extra=None):
        row = peers.get(workload, {}).get(peer)
        if not row:
            return None
        return row["extra"].get(extra) if extra else row["median"]

    def beside(workload, one, other):
        rounds = [peers.get(workload, {}).get(name, {}).get("rounds", []) for name in (one, other)]
        ratios = [a["main"] / b["main"] for a, b in zip(*rounds) if a and b]
        return statistics.median(ratios) if ratios else None

    def per_s(what, aim, measured, floor):
        # Rates are meant at a bulk floor of REFERENCE_FLOOR, and scale with that of the run.
        aim = aim * floor / REFERENCE_FLOOR
        add(what, f"≥ {aim:.1f} M/s", f"{measured / 1e6:.1f} M/s", measured / 1e6 >= aim)

    def add(what, aim, measured, met):
        rows.append([what, aim, measured, "yes" if met else "no"])

    for driver in ["uring", "mio"]:
        r, spin = runs(f"floor-{driver}"), runs(f"spin-{driver}")
        if not r:
            continue
        add(f"bulk, {driver}", "≥ 0.85 of the AES + GSO floor", f"{r['bulk']['ratio']:.2f}",
            r["bulk"]["ratio"] >= 0.85)
        for scenario, aim, what in [("small", 12, "64-byte reliable messages, inline"),
                                    ("datagrams", 8, "64-byte datagrams, delivered")]:
            per_s(f"{what}, {driver}", aim, r[scenario]["messages_per_s"], r[scenario]["floor_gbps"])
        add(f"round trip p50, blocking, {driver}", "≤ 1.3 × the UDP floor",
            f"{r['latency']['ratio']:.2f}", r["latency"]["ratio"] <= 1.3)
        share = r["latency"]["rtt_us"]["p99"] / r["latency"]["rtt_us"]["p50"]
        add(f"round trip p99, {driver}", "≤ 2.5 × p50", f"{share:.2f}", share <= 2.5)
        if spin:
            ratio = spin["latency"]["ratio"]
            add(f"round trip p50, busy polling, {driver}", "≤ 1.5 × the spinning floor",
                f"{ratio:.2f}", ratio <= 1.5)
        ratio = r["loaded"]["ratio"]
        add(f"priority 0 beside half of the bulk load, p99, {driver}", "≤ 3 × without load",
            f"{ratio:.2f}", ratio <= 3)
    many = runs("channels").get("small")
    if many:
        what = "64-byte messages over 200 channels"
        per_s(what, 8, many["messages_per_s"], many["floor_gbps"])
    if peers:
        own, tcp = median("bulk", "trunkline"), median("bulk", "tcp")
        quic = max(median("bulk", "quinn") or 0, median("bulk", "s2n-quic") or 0)
        add("bulk beside TCP + TLS", "ahead", f"{own / tcp:.2f} ×", own > tcp)
        if quic:
            add("bulk beside the best QUIC", "≥ 2.5 ×", f"{own / quic:.2f} ×", own >= 2.5 * quic)
        ratio = beside("bulk", "trunkline-queued", "floor")
        if ratio:
            add("bulk, queued API", "≥ 0.75 of the floor", f"{ratio:.2f}", ratio >= 0.75)
        own, tcp = median("bulk-large", "trunkline"), median("bulk-large", "tcp")
        add("bulk, largest packets", "≥ 1.2 × TCP + TLS", f"{own / tcp:.2f} ×", own >= 1.2 * tcp)
        queued = median("small", "trunkline-queued")
        if queued:
            floor = median("bulk", "floor") or REFERENCE_FLOOR
            per_s("64-byte messages through poll groups", 5, queued * 1e6, floor)
        ratio = beside("tick", "trunkline", "floor")
        if ratio:
            add("1,000 connections × 30/s: server CPU", "≤ 1.5 × sendto + AES", f"{ratio:.2f}",
                ratio <= 1.5)
        own, enet = median("tick", "trunkline"), median("tick", "enet")
        add("the same", "below unencrypted ENet", f"{own:.2f} cores, ENet {enet:.2f}", own < enet)
        p99 = median("tick", "trunkline", "p99_down_us")
        if p99:
            add("1,000 connections × 30/s: p99", "≤ 5 ms", f"{p99 / 1e3:.1f} ms", p99 <= 5_000)
        for workload, aim in [("handshakes", 3000), ("resumed", 5000)]:
            rate = median(workload, "trunkline")
            add(f"new connections, {workload}", f"≥ {aim:,}/s of a server core",
                f"{rate:,.0f}/s", rate >= aim)
        kib = median("memory", "trunkline")
        add("idle connection, resident", "≤ 6 KiB", f"{kib:.1f} KiB", kib <= 6)
    return table(["what", "aim", "measured", "met"], rows)


def comparisons():
    report, out = load("peers"), []
    if not report:
        return ""
    for t in report["workloads"]:
        name = t["workload"]
        out.append(f"### {t['title']}\n")
        out.append(f"![{name}](benchmarks/{name}.svg)\n")
        rows = []
        for row in t["rows"]:
            if row.get("refused"):
                rows.append([row["peer"], "–", "–", "–", row["refused"]])
                continue
            spread = f"{number(row['min'])}–{number(row['max'])}"
            beside = ", ".join(f"{k} {number(v)}" for k, v in row["extra"].items())
            ratio = number(row.get("ratio"))
            rows.append([row["peer"], number(row["median"]), spread, ratio, beside])
        better = "more" if t["higher_is_better"] else "less"
        head = ["transport", f"{t['unit']} ({better} is better)", "min–max",
                "Trunkline ÷ it", "beside"]
        out.append(table(head, rows) + "\n")
    return "\n".join(out)


def about():
    report = load("peers")
    if not report:
        return ""
    seen = {}
    for t in report["workloads"]:
        for row in t["rows"]:
            seen.setdefault(row["peer"], row["about"])
    return table(["transport", "set up as"], seen.items())


def host():
    report = load("peers") or load("scale")
    if not report:
        return ""
    h = report["host"]
    versions = ", ".join(f"{name} {version}" for name, version in h["versions"].items())
    memory = h["memory"] / 2**30
    return (f"{h['cpus']} × {h['cpu']} (a virtual machine), {memory:.0f} GiB, "
            f"Linux {h['kernel']}; {versions}.")


def scale():
    report, out = load("scale"), []
    if not report:
        return ""
    head = ["messages/s", "server ns/message", "client ns/message", "server cores",
            "server bytes each", "p99 µs", "lost %"]
    for s in report["series"]:
        out.append(f"### {s['title']}\n")
        for chart in [s["name"], f"{s['name']}-memory"]:
            if (OUT / f"{chart}.svg").exists():
                out.append(f"![{chart}](benchmarks/{chart}.svg)\n")
        rows = [
            [f"{p['x']:,g}", f"{p['messages_per_s']:,.0f}", f"{p['server_ns']:,.0f}",
             f"{p['client_ns']:,.0f}", number(p["server_cores"]),
             f"{p['server_bytes']:,.0f}" if p["server_bytes"] else "–",
             f"{p['p99_us']:,.0f}" if p["p99_us"] else "–", number(p["lost_percent"])]
            for p in s["points"]
        ]
        out.append(table([s["axis"], *head], rows) + "\n")
    return "\n".join(out)


def loss():
    faster = loss_table("loss-200")
    chart = "![loss](benchmarks/loss.svg)\n\n"
    return chart + loss_table("loss") + ("\n\n" + faster if faster else "")


def loss_table(name):
    report = load(name)
    if not report:
        return ""
    peers = report["settings"]["peer"]
    rows, level, ahead = [], 0, 0
    for cell in report["grid"]:
        medians = [cell["peers"].get(peer, {}).get("median_mbps") for peer in peers]
        ratio = cell.get("ratio")
        level += ratio is not None and ratio >= 0.95
        ahead += ratio is not None and ratio > 1
        name = f"{cell['rtt_ms']:g} ms, {cell['loss_percent']:g} %"
        rows.append([name, *(number(m) for m in medians), number(ratio)])
    settings = report["settings"]
    text = (f"{settings['rate']} line, queue of {settings['queue']}, {settings['rounds']} rounds: "
            f"at least 0.95 of quinn in {level} of {len(rows)} cells, ahead in {ahead}.\n\n")
    return text + table(["round trip, loss", *peers, "Trunkline ÷ quinn"], rows)


def fairness():
    report, out = load("fairness"), []
    if not report:
        return ""

    def median(entry, pick):
        values = [pick(r) for r in entry["rounds"]]
        return statistics.median(values) if values else None

    if report.get("fairness"):
        rows = [
            [" + ".join(e["pair"]),
             *(number(median(e, lambda r, n=n: r["flows"][n]["goodput_mbps"])) for n in (0, 1)),
             f"{e['jain']:.4f}" if e["jain"] else "–"]
            for e in report["fairness"]
        ]
        head = ["two flows, 20 ms", "first, Mb/s", "second, Mb/s", "index of Jain"]
        out.append(table(head, rows))
    if report.get("rtt_under_load"):
        rows = [
            [e["peer"], number(median(e, lambda r: r["goodput_mbps"])),
             number(median(e, lambda r: r["idle"]["p50_ms"])),
             *(number(median(e, lambda r, q=q: r["loaded"][q])) for q in ["p50_ms", "p99_ms"])]
            for e in report["rtt_under_load"]
        ]
        head = ["bulk transfer", "Mb/s", "idle p50, ms", "beside it p50, ms", "p99, ms"]
        out.append(table(head, rows))
    return "\n\n".join(out)


def document():
    frame = (ROOT / "docs" / "benchmarks.in.md").read_text()
    parts = {"host": host, "targets": targets, "floors": floors, "peers": comparisons,
             "about": about, "scale": scale, "loss": loss, "fairness": fairness}
    for name, part in parts.items():
        frame = frame.replace(f"<!-- {name} -->", part().strip())
    (ROOT / "docs" / "benchmarks.md").write_text(frame)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", default=",".join(PARTS), metavar="PART,…",
                        help=f"{', '.join(PARTS)}, or none (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    args = parser.parse_args()
    parts = [] if args.measure == "none" else args.measure.split(",")
    unknown = set(parts) - set(PARTS)
    if unknown:
        parser.error(f"--measure: no such part: {', '.join(sorted(unknown))}")
    if parts:
        measure(parts, args.rounds, args.seconds)
    document()


if __name__ == "__main__":
    main()
