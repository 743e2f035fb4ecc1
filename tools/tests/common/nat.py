"""A network address translator in user space, between the devices `lan` and `wan` of its namespace.

    nat.py PRIVATE OUTSIDE KIND HOST_MAC WORLD_MAC

UDP and TCP over IPv4. KIND is that of nat.rs. The kernel of the namespace has no addresses, so that
it answers nothing itself; whoever talks to us knows where we are without asking.
"""

import random
import select
import socket
import struct
import sys

IPV4 = 0x0800
OUTGOING = 4
TCP, UDP = 6, 17

private, outside = (socket.inet_aton(a) for a in sys.argv[1:3])
kind = sys.argv[3]
host_mac, world_mac = (bytes.fromhex(a.replace(":", "")) for a in sys.argv[4:6])

# (protocol, inner port, and for symmetric ones the far end) to the port outside, and back to
# (inner port, far ends that were spoken to).
outer, inner = {}, {}


def device(name):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4))
    s.bind((name, IPV4))
    return s


def adjusted(checksum, old, new):
    """A checksum after these bytes, an even number of them, were replaced (RFC 1624)."""
    total = ~checksum & 0xFFFF
    for word in struct.unpack("!%dH" % (len(old) // 2), old):
        total += ~word & 0xFFFF
    total += sum(struct.unpack("!%dH" % (len(new) // 2), new))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def rewrite(packet, at_address, address, at_port, port):
    """Puts another address and port into a packet."""
    head = (packet[0] & 15) * 4
    at_sum = head + (16 if packet[9] == TCP else 6)
    old = bytes(packet[at_address : at_address + 4]) + bytes(packet[at_port : at_port + 2])
    new = address + struct.pack("!H", port)
    (ip_sum,) = struct.unpack_from("!H", packet, 10)
    struct.pack_into("!H", packet, 10, adjusted(ip_sum, old[:4], new[:4]))
    (sum_,) = struct.unpack_from("!H", packet, at_sum)
    if packet[9] == TCP or sum_ != 0:
        struct.pack_into("!H", packet, at_sum, adjusted(sum_, old, new) or 0xFFFF)
    packet[at_address : at_address + 4] = new[:4]
    packet[at_port : at_port + 2] = new[4:]


def port_for(protocol, port, far):
    """The port outside of a packet that leaves."""
    key = (protocol, port, far) if kind == "symmetric" else (protocol, port)
    found = outer.get(key)
    if found is None:
        found = random.randint(10000, 60000) if kind == "symmetric" else port
        while (protocol, found) in inner:
            found = random.randint(10000, 60000)
        outer[key] = found
        inner[protocol, found] = (port, set())
    inner[protocol, found][1].add(far)
    return found


def leaves(packet, protocol, head):
    source, target = struct.unpack_from("!HH", packet, head)
    found = port_for(protocol, source, (bytes(packet[16:20]), target))
    rewrite(packet, 12, outside, head, found)
    return True


def enters(packet, protocol, head):
    source, target = struct.unpack_from("!HH", packet, head)
    port, allowed = inner.get((protocol, target), (target, ()))
    asked = (bytes(packet[12:16]), source) in allowed
    if not asked and not (kind == "open" and protocol == UDP):
        return False
    rewrite(packet, 16, private, head + 2, port)
    return True


def main():
    lan, wan = device("lan"), device("wan")
    print("ready", flush=True)
    ways = {
        lan: (leaves, 12, private, wan, "wan", world_mac),
        wan: (enters, 16, outside, lan, "lan", host_mac),
    }
    while True:
        for s in select.select([lan, wan], [], [])[0]:
            data, came = s.recvfrom(65536)
            change, at, address, to, name, mac = ways[s]
            packet = bytearray(data)
            if came[2] == OUTGOING or len(packet) < 20 or packet[0] >> 4 != 4:
                continue
            protocol, head = packet[9], (packet[0] & 15) * 4
            if protocol not in (TCP, UDP) or (kind == "noudp" and protocol == UDP):
                continue
            if len(packet) < head + (20 if protocol == TCP else 8):
                continue
            # Fragments would need to be put together first.
            if packet[6] & 0x3F or packet[7] or bytes(packet[at : at + 4]) != address:
                continue
            if change(packet, protocol, head):
                try:
                    to.sendto(packet, (name, IPV4, 0, 1, mac))
                except OSError:
                    pass


main()
