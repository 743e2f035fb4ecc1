"""Tables and the chart of loss.py."""

import math
import statistics

# Below this share of quinn's goodput a cell is explained.
ENOUGH = 0.95
COLOURS = {"trunkline": "own", "quinn": "second", "tcp-cubic": "third", "tcp-bbr": "fourth"}
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}"
    ".title{font-size:15px;font-weight:600;fill:#24292f}.small{font-size:11px}"
    ".own{fill:#2f81f7}.second{fill:#8c959f}.third{fill:#bf8700}.fourth{fill:#8250df}"
    ".axis{stroke:#8c959f;stroke-width:1}.grid{stroke:#8c959f;stroke-width:.5;stroke-dasharray:2 3}"
    "@media(prefers-color-scheme:dark){text{fill:#9da7b3}.title{fill:#e6edf3}}"
)


def table(head, rows):
    """Columns as wide as they have to be; the first is left."""
    rows = [head, *rows]
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    lines = []
    for row in rows:
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def number(value, digits=2):
    return "–" if value is None else f"{value:.{digits}f}"


def grid_table(cells, peers):
    both = {"trunkline", "quinn"} <= set(peers)
    head = ["round trip, loss", *peers] + (["trunkline/quinn"] if both else [])
    rows = []
    for cell in cells:
        row = [f"{cell['rtt_ms']:g} ms, {cell['loss_percent']:g} %"]
        row += [number(cell["peers"][peer]["median_mbps"]) for peer in peers]
        rows.append(row + ([number(cell["ratio"])] if both else []))
    text = "Goodput in Mb/s, median of rounds\n" + table(head, rows)
    notes = [note for cell in cells for note in explain(cell)]
    return "\n".join([text, *notes])


def explain(cell):
    """What the link counted in cells where Trunkline is behind."""
    if cell["ratio"] is None or cell["ratio"] >= ENOUGH:
        return
    yield f"behind quinn at {cell['rtt_ms']:g} ms, {cell['loss_percent']:g} %, medians of the link:"
    for peer in ("trunkline", "quinn"):
        ways = [r["link"] for r in cell["peers"][peer]["rounds"] if r.get("link")]
        median = lambda way, key: statistics.median(link[way][key] for link in ways)
        data = {key: median("a_to_b", key) for key in ("packets", "lost", "dropped", "queue_most")}
        drops = median("a_to_b", "device_dropped")
        yield (f"  {peer}: {data['packets']:.0f} packets, {data['lost']:.0f} lost, "
               f"{data['dropped']:.0f} dropped by the queue ({data['queue_most'] / 1e3:.0f} kB at most), "
               f"{drops:.0f} by the device; {median('b_to_a', 'packets'):.0f} packets back")


def fairness_table(found):
    rows = []
    for entry in found:
        rates = [[r["flows"][n]["goodput_mbps"] for r in entry["rounds"]] for n in (0, 1)]
        medians = [number(statistics.median(r) if r else None) for r in rates]
        rows.append([" + ".join(entry["pair"]), *medians, number(entry["jain"], 4)])
    head = ["two flows", "first Mb/s", "second Mb/s", "Jain"]
    return "Two flows through one queue, medians of rounds\n" + table(head, rows)


def rtt_table(found):
    keys = [("idle", "p50_ms"), ("loaded", "p50_ms"), ("loaded", "p95_ms"), ("loaded", "p99_ms")]
    rows = []
    for entry in found:
        rounds = entry["rounds"]
        median = lambda pick: statistics.median(map(pick, rounds)) if rounds else None
        row = [entry["peer"], number(median(lambda r: r["goodput_mbps"]))]
        row += [number(median(lambda r: r[part][key]), 1) for part, key in keys]
        rows.append(row)
    head = ["peer", "Mb/s", "idle ms", "loaded ms", "p95", "p99"]
    return "Round trip of ICMP beside a bulk transfer, medians of rounds\n" + table(head, rows)


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def chart(cells, peers, rate):
    """One panel for each round trip, a group of bars for each loss."""
    trips = list(dict.fromkeys(cell["rtt_ms"] for cell in cells))
    losses = list(dict.fromkeys(cell["loss_percent"] for cell in cells))
    bar, gap, left, top, height = 12, 14, 48, 84, 220
    group = bar * len(peers) + gap
    panel = group * len(losses) + 28
    width = max(left + panel * len(trips) + 12, 420)
    most = max([f["median_mbps"] or 0 for c in cells for f in c["peers"].values()] + [1])
    step = 10 ** math.floor(math.log10(most)) / 2
    most = math.ceil(most / step) * step
    scale = height / most
    bottom = top + height
    title = f"Goodput over links that lose and delay, {rate}"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 56}" '
        f'width="{width}" height="{bottom + 56}" role="img">',
        f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>",
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
        '<text x="12" y="42">Mb/s delivered, median of rounds; more is better; loss each way</text>',
    ]
    for n, peer in enumerate(peers):
        x = 12 + n * 100
        out.append(f'<rect class="{COLOURS[peer]}" x="{x}" y="54" width="10" height="10"/>')
        out.append(f'<text x="{x + 15}" y="63">{escape(peer)}</text>')
    for quarter in range(5):
        value = most * quarter / 4
        y = bottom - value * scale
        out.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{width - 12}" y2="{y:.1f}"/>')
        out.append(f'<text class="small" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for p, trip in enumerate(trips):
        start = left + p * panel
        middle = start + (panel - 28) / 2
        out.append(f'<text x="{middle:.1f}" y="{bottom + 40}" text-anchor="middle">{trip:g} ms</text>')
        for g, loss in enumerate(losses):
            cell = next(c for c in cells if (c["rtt_ms"], c["loss_percent"]) == (trip, loss))
            x = start + g * group + gap / 2
            for n, peer in enumerate(peers):
                value = cell["peers"][peer]["median_mbps"] or 0
                tall = value * scale
                name = escape(f"{peer}, {trip:g} ms, {loss:g} %: {value:.2f} Mb/s")
                out.append(
                    f'<rect class="{COLOURS[peer]}" x="{x + n * bar:.1f}" y="{bottom - tall:.1f}" '
                    f'width="{bar - 1}" height="{tall:.1f}"><title>{name}</title></rect>')
            out.append(
                f'<text class="small" x="{x + bar * len(peers) / 2:.1f}" y="{bottom + 18}" '
                f'text-anchor="middle">{loss:g} %</text>')
    out.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{width - 12}" y2="{bottom}"/>')
    return "\n".join([*out, "</svg>"]) + "\n"
