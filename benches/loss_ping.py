"""Round trips of ICMP: `loss_ping.py ADDRESS SECONDS` prints percentiles as JSON. For loss.py, on
machines without `ping`."""

import json
import os
import select
import socket
import struct
import sys
import time

GAP = 0.02
PATIENCE = 2.0


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def main():
    address, seconds = sys.argv[1], float(sys.argv[2])
    mine = os.getpid() & 0xFFFF
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sent, times = {}, []
    begun = time.perf_counter()
    due, number = begun, 0
    while True:
        now = time.perf_counter()
        if now - begun < seconds:
            if now >= due:
                bare = struct.pack("!BBHHH", 8, 0, 0, mine, number)
                packet = struct.pack("!BBHHH", 8, 0, checksum(bare), mine, number)
                sent[number] = time.perf_counter()
                sock.sendto(packet, (address, 0))
                number, due = (number + 1) & 0xFFFF, due + GAP
            wait = due - time.perf_counter()
        else:
            wait = begun + seconds + PATIENCE - now
            if not sent or wait <= 0:
                break
        if select.select([sock], [], [], max(0.0, wait))[0]:
            data = sock.recv(2048)
            at = time.perf_counter()
            header = (data[0] & 15) * 4
            kind, _, _, whose, which = struct.unpack("!BBHHH", data[header:header + 8])
            if kind == 0 and whose == mine and which in sent:
                times.append((at - sent.pop(which)) * 1e3)
    times.sort()
    if not times:
        sys.exit("loss_ping.py: no answer")
    pick = lambda share: times[min(len(times) - 1, int(share * len(times)))]
    print(json.dumps({
        "count": len(times), "lost": len(sent), "min_ms": times[0], "p50_ms": pick(0.5),
        "p95_ms": pick(0.95), "p99_ms": pick(0.99), "max_ms": times[-1],
    }))


if __name__ == "__main__":
    main()
