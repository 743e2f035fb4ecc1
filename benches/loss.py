#!/usr/bin/env python3
"""Bulk transfers over links that lose and delay: Trunkline, quinn and TCP, each between two network
namespaces with `link-emulator` in the middle. See --help."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import loss_report as report

ROOT = Path(__file__).resolve().parent.parent
PORT = 4433
# Name, what `peers` calls it, congestion control of TCP.
PEERS = {
    "trunkline": ("trunkline", "cubic"),
    "quinn": ("quinn", "cubic"),
    "tcp-cubic": ("tcp", "cubic"),
    "tcp-bbr": ("tcp", "bbr"),
}
PAIRS = [("trunkline", "trunkline"), ("trunkline", "tcp-cubic"), ("quinn", "quinn")]
# Longest pause of the emulator, in microseconds, that a measurement may have in it.
STALL_US = 100_000
REPEATS = 2
# What the kernel may use for one TCP connection, as the other peers: more than is ever under way.
TCP_BUFFER = 16 << 20
# What is counted are whole messages; so many of them make a figure, if that takes no longer than
# this many times what was asked for.
MESSAGE, PACKET = 64 << 10, 1452
ENOUGH_MESSAGES, LONGEST = 100, 5
EXAMPLE = """\
Build first, then run as root (a round of the whole grid takes a quarter of an hour):

  cargo build --release -p trunkline-link
  cargo build --release -p trunkline-peers --features peers
  python3 benches/loss.py --rounds 3 --json loss.json --svg loss.svg
  python3 benches/loss.py --loss 0,1 --rtt 20 --peer trunkline,quinn --rounds 1
  python3 benches/loss.py --fairness --rtt-under-load

Loss and delay are the same in both directions: acknowledgements are lost too. What is lost has used
its time on the line. All peers of a round have the same seed: the n-th packet of a direction is
lost for all of them or for none. Goodput is what the server delivered to its user, by its clock."""


class Failed(Exception):
    """A measurement came to nothing."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Link:
    """A link while it is used as a context; `counters` afterwards."""

    def __init__(self, options, rtt_ms, loss_percent, queue, seed):
        # A link does not wait for a processor; it needs little of one.
        self.command = [
            "nice", "-n", "-15", options.emulator, "--json", "--seed", str(seed), "--rate", options.rate,
            "--queue", queue, "--delay", f"{rtt_ms / 2:g}ms", "--loss", f"{loss_percent:g}%",
        ]
        self.process = self.counters = None
        self.children = []

    def __enter__(self):
        try:
            return self.up()
        except BaseException:
            self.__exit__()
            raise

    def up(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the link was not made: exit status {self.process.wait()}")
        ready = json.loads(line)
        self.sides = {side: ready[side]["netns"] for side in "ab"}
        self.server = ready["b"]["address"]
        for side in "ab":
            for name in ("rmem", "wmem"):
                value = f"net.ipv4.tcp_{name}=4096 131072 {TCP_BUFFER}"
                self.run(side, ["sysctl", "-q", "-w", value])
        return self

    def inside(self, side, command):
        return ["ip", "netns", "exec", self.sides[side], *command]

    def run(self, side, command, timeout=60):
        done = subprocess.run(
            self.inside(side, command), stdout=subprocess.PIPE, text=True, timeout=timeout
        )
        if done.returncode != 0:
            raise Failed(f"{command[0]}: exit status {done.returncode}")
        return done.stdout

    def start(self, side, command):
        child = subprocess.Popen(self.inside(side, command), stdout=subprocess.PIPE, text=True)
        self.children.append(child)
        return child

    def __exit__(self, *_):
        for child in self.children:
            child.terminate()
            try:
                child.wait(2)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        text, _ = self.process.communicate(timeout=20)
        lines = text.strip().splitlines()
        last = json.loads(lines[-1]) if lines else {}
        self.counters = last if "a_to_b" in last else None

    def stalled(self):
        """Microseconds that the machine let the link stand still, if figures suffer from it."""
        counters = self.counters or {}
        late = max((counters[way]["late_max_us"] for way in ("a_to_b", "b_to_a") if counters), default=0)
        return late if late > STALL_US else 0


def serve(options, link, peer, port):
    name, tcp = PEERS[peer]
    listen = f"{link.server}:{port}"
    command = [options.peers, "serve", "--peer", name, "--listen", listen, "--tcp-congestion", tcp]
    if not link.start("b", command).stdout.readline():
        raise Failed(f"{peer}: the server did not start")


def seconds_for(options, rtt, loss):
    """Longer where so little goes through that single messages count: the rate of a sender that
    halves its window at every loss (Mathis et al.) says what to expect."""
    if not rtt or not loss:
        return options.seconds
    expected = PACKET * 8 / (rtt / 1e3) * 1.22 / (loss / 100) ** 0.5
    wanted = ENOUGH_MESSAGES * MESSAGE * 8 / expected
    return min(max(options.seconds, wanted), options.seconds * LONGEST)


def drive(options, link, peer, port, *more, seconds=None):
    name, tcp = PEERS[peer]
    seconds = seconds or options.seconds
    return link.start("a", [
        options.peers, "drive", "--peer", name, "--connect", f"{link.server}:{port}", "--json",
        "--seconds", str(seconds), "--warm-up", str(options.warm_up),
        "--tcp-congestion", tcp, *more,
    ])


def result(options, peer, child):
    try:
        text, _ = child.communicate(timeout=options.seconds * LONGEST + options.warm_up + 60)
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{peer}: does not end") from e
    if child.returncode != 0:
        raise Failed(f"{peer}: exit status {child.returncode}")
    return json.loads(text)


def undisturbed(link_of, measure):
    """Measures again where the machine stood still meanwhile. What is still disturbed says so."""
    for attempt in range(REPEATS + 1):
        link = link_of()
        failure, figure = None, {}
        try:
            with link:
                figure = measure(link)
        except Failed as why:
            failure = why
        stalled = link.stalled()
        if not stalled:
            break
        say(f"  the machine stood still for {stalled / 1e6:.2f} s" + (", again" if attempt < REPEATS else ""))
    if failure:
        raise failure
    return {**figure, "disturbed": bool(stalled), "link": link.counters}


def bulk(options, peer, rtt, loss, seed):
    def measure(link):
        serve(options, link, peer, PORT)
        seconds = seconds_for(options, rtt, loss)
        return result(options, peer, drive(options, link, peer, PORT, seconds=seconds))
    return undisturbed(lambda: Link(options, rtt, loss, options.queue, seed), measure)


def grid(options, cells):
    """Every round has every cell through every peer once. `cells` has what was measured also when
    this is interrupted."""
    cells += [
        {"rtt_ms": rtt, "loss_percent": loss, "peers": {peer: {"rounds": []} for peer in options.peer}}
        for rtt in options.rtt for loss in options.loss
    ]
    for number in range(options.rounds):
        for n, cell in enumerate(cells):
            rtt, loss = cell["rtt_ms"], cell["loss_percent"]
            at = f"round {number + 1} of {options.rounds}: {rtt:g} ms, {loss:g} %"
            for peer, figures in cell["peers"].items():
                try:
                    figure = bulk(options, peer, rtt, loss, options.seed + number * len(cells) + n)
                    say(f"{at}, {peer}: {figure['goodput_mbps']:.2f} Mb/s")
                except Failed as why:
                    say(f"{at}, {peer}: {why}")
                    figure = {"failed": str(why)}
                figures["rounds"].append(figure)


def summarize(cells):
    for cell in cells:
        for figures in cell["peers"].values():
            good = [r["goodput_mbps"] for r in figures["rounds"] if "goodput_mbps" in r]
            figures["median_mbps"] = statistics.median(good) if good else None
        own, other = (cell["peers"].get(p, {}).get("median_mbps") for p in ("trunkline", "quinn"))
        cell["ratio"] = own / other if own is not None and other else None


def jain(rates):
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 0.0


def fairness(options, found):
    """Two flows that begin together at one bottleneck; what they deliver after the warm-up."""
    ports = (PORT, PORT + 10)
    for pair in [p for p in PAIRS if all(peer in options.peer for peer in p)]:
        rounds = []
        for number in range(options.rounds):
            def measure(link):
                for peer, port in zip(pair, ports):
                    serve(options, link, peer, port)
                flows = [
                    (peer, drive(options, link, peer, port, "--interval", "0.5"))
                    for peer, port in zip(pair, ports)
                ]
                return {"flows": [result(options, peer, child) for peer, child in flows]}
            try:
                figure = undisturbed(
                    lambda: Link(options, options.fair_rtt, 0, options.fair_queue, options.seed + number),
                    measure)
            except Failed as why:
                say(f"{' + '.join(pair)}: {why}")
                continue
            rates = [flow["goodput_mbps"] for flow in figure["flows"]]
            figure["jain"] = jain(rates)
            rounds.append(figure)
            say(f"{' + '.join(pair)}: {rates[0]:.2f} + {rates[1]:.2f} Mb/s, {figure['jain']:.4f}")
        median = statistics.median(r["jain"] for r in rounds) if rounds else None
        found.append({"pair": pair, "jain": median, "rounds": rounds})


def rtt_under_load(options, found):
    """Round trips of ICMP without load, and beside a bulk transfer through the same queue."""
    for peer in options.peer:
        rounds = []
        for number in range(options.rounds):
            def measure(link):
                def ping(seconds):
                    command = [sys.executable, str(ROOT / "benches/loss_ping.py"), link.server, str(seconds)]
                    text, _ = link.start("a", command).communicate(timeout=60 + seconds)
                    return json.loads(text)
                idle = ping(2)
                serve(options, link, peer, PORT)
                child = drive(options, link, peer, PORT)
                time.sleep(options.warm_up + 0.2)
                loaded = ping(options.seconds - 0.5)
                return {**result(options, peer, child), "idle": idle, "loaded": loaded}
            try:
                figure = undisturbed(
                    lambda: Link(options, options.fair_rtt, 0, options.load_queue, options.seed + number),
                    measure)
            except Failed as why:
                say(f"{peer}: {why}")
                continue
            rounds.append(figure)
            say(f"{peer}: {figure['goodput_mbps']:.2f} Mb/s, round trip "
                f"{figure['idle']['p50_ms']:.1f} ms idle, {figure['loaded']['p50_ms']:.1f} ms loaded")
        found.append({"peer": peer, "rounds": rounds})


def numbers(text):
    try:
        values = [float(part.strip().rstrip("%")) for part in text.split(",")]
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from e
    if any(not 0 <= value < 10_000 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is out of range")
    return values


def peers(text):
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PEERS)}")
    return names


def arguments():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser = argparse.ArgumentParser(
        description="Goodput of bulk transfers over links that lose and delay.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--loss", type=numbers, default=[0, 0.1, 1, 5], metavar="PERCENT,…",
        help="losses, each way (default 0,0.1,1,5)")
    add("--rtt", type=numbers, default=[1, 20, 100], metavar="MS,…",
        help="round trips without load (default 1,20,100)")
    add("--rate", default="100Mbit", help="of the line, up to 200Mbit (default %(default)s)")
    add("--queue", default="100ms", metavar="TIME|BYTES",
        help="in front of the line, in the grid (default %(default)s)")
    add("--peer", type=peers, default=list(PEERS), metavar="NAME,…",
        help=f"default {','.join(PEERS)}")
    add("--rounds", type=int, default=3, help="default %(default)s; medians are printed")
    add("--seconds", type=float,
        help="measured (default 8, 20 with --fairness alone); up to 5 times that in slow cells")
    add("--warm-up", type=float, default=3.0, help="seconds before that (default 3)")
    add("--seed", type=int, default=1, help="of the first cell (default 1)")
    add("--fairness", action="store_true",
        help="instead: two flows through one queue, 20 ms, and the index of Jain")
    add("--rtt-under-load", action="store_true",
        help="instead: round trips beside a bulk transfer through a queue of 250 ms, 20 ms")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    add("--svg", type=Path, metavar="FILE", help="write a chart of the grid there")
    add("--peers", default=target / "peers", help="the program (default %(default)s)")
    add("--emulator", default=target / "link-emulator", help="the program (default %(default)s)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    options.fair_rtt, options.fair_queue, options.load_queue = 20, "100ms", "250ms"
    if options.seconds is None:
        options.seconds = 20.0 if options.fairness and not options.rtt_under_load else 8.0
    if not options.seconds >= 1 or not options.warm_up >= 0:
        parser.error("--seconds must be at least 1, --warm-up at least 0")
    if os.geteuid() != 0:
        parser.error("network namespaces need root")
    for program, package in ((options.peers, "trunkline-peers --features peers"),
                             (options.emulator, "trunkline-link")):
        if not os.access(program, os.X_OK):
            parser.error(f"{program} is not there: cargo build --release -p {package}")
    options.peers, options.emulator = str(options.peers), str(options.emulator)
    return options


def without_missing(options):
    """Leaves out what the kernel has not."""
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    for name in list(options.peer):
        if PEERS[name][0] == "tcp" and PEERS[name][1] not in known:
            say(f"{name} is left out: the kernel has {', '.join(known)} only")
            options.peer.remove(name)
    return not options.peer


def finish(options, everything):
    """Prints and writes what there is."""
    cells = everything["grid"]
    summarize(cells)
    if cells:
        print(report.grid_table(cells, options.peer))
    if everything["fairness"]:
        print(report.fairness_table(everything["fairness"]))
    if everything["rtt_under_load"]:
        print(report.rtt_table(everything["rtt_under_load"]))
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    if options.svg and cells:
        options.svg.write_text(report.chart(cells, options.peer, options.rate))


def main():
    options = arguments()
    # So that links are taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if without_missing(options):
        return 1
    settings = {
        key: getattr(options, key)
        for key in ("rate", "queue", "rounds", "seconds", "warm_up", "seed", "peer")
    }
    everything = {"settings": settings, "kernel": os.uname().release, "cpus": os.cpu_count()}
    everything |= {"grid": [], "fairness": [], "rtt_under_load": []}
    try:
        if not options.fairness and not options.rtt_under_load:
            grid(options, everything["grid"])
        if options.fairness:
            fairness(options, everything["fairness"])
        if options.rtt_under_load:
            rtt_under_load(options, everything["rtt_under_load"])
    finally:
        finish(options, everything)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except Failed as failure:
        sys.exit(f"loss.py: {failure}")
