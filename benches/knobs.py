#!/usr/bin/env python3
"""What each setting changes: `trunkline bench` with and without it, in turn. See --help."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = """\
Build first; nothing else should run on the machine:

  cargo build --release -p trunkline-tools
  python3 benches/knobs.py
  python3 benches/knobs.py --knob busy-poll,gso --rounds 9 --seconds 2 --json knobs.json
  python3 benches/knobs.py --client 192.0.2.7 --pin FINGERPRINT     against `trunkline bench -s`

Each round runs a scenario as it is and then with each setting, so that all see the same machine.
What is shown is the median of the rounds' ratios: above 1 more of the figure, below 1 less.
Against a server, settings concern this side; start the server with the same ones where both count."""

# Each scenario's figure, and whether more of it is better.
FIGURES = {
    "bulk": ("goodput_gbps", "Gb/s", True),
    "small": ("messages_per_s", "M/s", True),
    "datagrams": ("messages_per_s", "M/s", True),
    "latency": ("p50_us", "µs p50", False),
    "loaded": ("p99_us", "µs p99", False),
    "tick": ("server_cores", "cores", False),
}


@dataclass
class Knob:
    """A setting: options, or the engine's part of a profile, and where it may show."""

    name: str
    what: str
    scenarios: list
    options: list = None
    engine: str = None


KNOBS = [
    Knob("mio", "driver mio in place of io_uring", ["bulk", "small", "latency", "tick"],
         ["--driver", "mio"]),
    Knob("tls", "TLS over TCP in place of UDP", ["bulk", "small", "latency"], ["--link", "tls"]),
    Knob("busy-poll", "busy polling, 1 ms", ["bulk", "small", "latency", "loaded", "tick"],
         ["--busy-poll=1000"]),
    Knob("gso", "no GSO", ["bulk", "small", "datagrams"], engine="gso = false"),
    Knob("gro", "no GRO", ["bulk", "small", "datagrams"], engine="gro = false"),
    Knob("trains-16", "trains of 16 packets (up to 64)", ["bulk", "small"],
         engine="gso_segments = 16"),
    Knob("packet-1200", "packets of 1200 bytes (1452)", ["bulk", "small"], ["--mtu", "1200"]),
    Knob("packet-8952", "packets of 8952 bytes: jumbo frames", ["bulk", "small"],
         ["--max-mtu", "8952"]),
    Knob("packet-65507", "packets of 65507 bytes: loopback only", ["bulk", "small"],
         ["--max-mtu", "65507"]),
    Knob("copy", "messages copied, not lent", ["bulk"], ["--copy"]),
    Knob("messages-1k", "messages of 1 KiB (64 KiB)", ["bulk"], ["-l", "1024"]),
    Knob("channels-100", "100 channels", ["small"], ["--channels", "100"]),
    Knob("connections-10", "10 connections", ["bulk", "small"], ["-P", "10"]),
    Knob("socket-256k", "socket buffers of 256 KiB (4 MiB)", ["bulk", "small", "datagrams"],
         engine="socket_buffer_bytes = 262144"),
    Knob("rx-64", "64 receive buffers (256)", ["bulk", "small"], engine="rx_buffers = 64"),
    Knob("stats-file", "figures kept in a file", ["bulk", "small", "latency", "tick"],
         ["--stats-file", "{folder}/stats"]),
]


def profile(folder, knob):
    """A profile with one setting of the engine."""
    name, value = knob.engine.split(" = ")
    path = Path(folder) / f"{knob.name}.toml"
    path.write_text(f'name = "{knob.name}"\ndescription = "{knob.what}"\ndrivers = []\n'
                    f'[engine.{name}]\nvalue = {value}\nwhy = "to see what it does"\n')
    return ["--profile", str(path)]


def measure(given, scenario, options):
    """The figure of one run."""
    where = ["-c", given.client] if given.client else []
    for pin in given.pin:
        where += ["--pin", pin]
    command = [given.program, "bench", "--json", "--scenario", scenario, "-t", str(given.seconds),
               *where, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    run = json.loads(done.stdout)["runs"][0]
    figure = run["per_round"][FIGURES[scenario][0]][0]
    if not figure:
        raise SystemExit(f"{' '.join(command)}: no {FIGURES[scenario][0]}")
    return figure


def rounds(given, knobs, folder):
    """Figures by scenario and knob, one for each round; `None` is the run without any."""
    figures = {}
    scenarios = [name for name in FIGURES if any(name in knob.scenarios for knob in knobs)]
    for number in range(1, given.rounds + 1):
        for scenario in scenarios:
            turn = [None, *(knob for knob in knobs if scenario in knob.scenarios)]
            # Nobody is always first.
            at = number % len(turn)
            for knob in turn[at:] + turn[:at]:
                name = knob.name if knob else None
                say(f"round {number} of {given.rounds}: {scenario}, {name or 'as it is'}")
                options = []
                if knob:
                    options = profile(folder, knob) if knob.engine else knob.options
                    options = [option.format(folder=folder) for option in options]
                values = figures.setdefault(scenario, {}).setdefault(name, [])
                values.append(measure(given, scenario, options))
    say("")
    return figures


def say(text):
    """Progress: one line on a terminal, else one a step."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def shown(value, unit):
    return f"{value / 1e6:.2f}" if unit == "M/s" else f"{value:.3g}"


def table(figures, knobs):
    """For docs/tuning.md."""
    lines = ["| setting | scenario | figure | without | with | ratio | min–max |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for knob in knobs:
        for scenario in knob.scenarios:
            _, unit, more = FIGURES[scenario]
            without, value = figures[scenario][None], figures[scenario][knob.name]
            ratios = [b / a for a, b in zip(without, value)]
            medians = [shown(statistics.median(values), unit) for values in (without, value)]
            better = "" if more else " (less is better)"
            lines.append(
                f"| {knob.what} | {scenario} | {unit}{better} | {medians[0]} | {medians[1]} | "
                f"**{statistics.median(ratios):.2f}** | {min(ratios):.2f}–{max(ratios):.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "target" / "release" / "trunkline"))
    parser.add_argument("--knob", help="only these, by name, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="measured in each run")
    parser.add_argument("--client", metavar="ADDRESS", help="of a server that runs already")
    parser.add_argument("--pin", action="append", default=[], metavar="FINGERPRINT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures of all rounds")
    given = parser.parse_args()
    names = given.knob.split(",") if given.knob else [knob.name for knob in KNOBS]
    unknown = set(names) - {knob.name for knob in KNOBS}
    if unknown or given.rounds < 1:
        known = ", ".join(knob.name for knob in KNOBS)
        parser.error(f"no setting {', '.join(sorted(unknown))}; there are {known}" if unknown
                     else "--rounds: at least 1")
    knobs = [knob for knob in KNOBS if knob.name in names]
    with tempfile.TemporaryDirectory() as folder:
        figures = rounds(given, knobs, folder)
    if given.json:
        plain = {scenario: {name or "as it is": values for name, values in by_knob.items()}
                 for scenario, by_knob in figures.items()}
        given.json.write_text(json.dumps(plain, indent=1) + "\n")
    print(table(figures, knobs))


if __name__ == "__main__":
    main()
