#!/usr/bin/env python3
"""A peer of the plain protocol that shares nothing with the engine: Python's ssl and msgpack.

Frames are a 16-bit length, a 16-bit channel id and the body, inside TLS 1.3. On channel 0 stand
msgpack arrays [name, id, is_answer]; a frame of length 0 ends a channel.

    peer.py client PORT CAFILE ALPN SCENARIO [ARGUMENT...]
    peer.py server CERT KEY ALPN SCENARIO [ARGUMENT...]

ALPN is what to offer or to agree on; "-" is none. The server prints "port N" first. Everything else
that is printed, a line each, is what happened; interop.rs reads it.
"""

import hashlib
import os
import random
import selectors
import socket
import ssl
import struct
import sys
import time

import msgpack

PATIENCE = 120.0
FRAME = 48 * 1024
RECEIVE = 256 * 1024


def say(*words):
    print(*words, flush=True)


def frame(channel, body=b""):
    return struct.pack(">HH", len(body), channel) + body


def request(name, channel, is_answer, *more):
    return msgpack.packb([name, channel, is_answer, *more])


class Source:
    """So many bytes that nobody can guess."""

    def __init__(self, length):
        self.left = length
        self.hash = hashlib.sha256()
        self.block = os.urandom(1 << 20)

    def take(self):
        start = random.randrange(len(self.block) - FRAME)
        piece = self.block[start : start + min(FRAME, self.left)]
        self.left -= len(piece)
        self.hash.update(piece)
        return piece


class Channel:
    def __init__(self, name, number, ours):
        self.name, self.number, self.ours = name, number, ours
        self.open = False
        self.declined = False
        self.source = None
        self.echo = False
        self.received = 0
        self.hash = hashlib.sha256()
        self.text = b""
        self.ended = False  # by the peer
        self.finished = False  # by us
        self.finish_at = None


class Link:
    """One TLS connection, on one thread."""

    def __init__(self, sock, context, server_side, name=None):
        self.sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector = selectors.DefaultSelector()
        self.selector.register(sock, selectors.EVENT_READ)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=name
        )
        self.up = False
        self.unsent = memoryview(b"")
        self.queue = []  # frames that go before everything else
        self.input = bytearray()
        self.messages = msgpack.Unpacker()
        self.channels = {}
        self.answers = []
        self.on_request = lambda channel: True
        self.close_notify = self.fin = self.shut = False
        self.error = None
        self.read_size, self.read_pause, self.next_read = RECEIVE, 0.0, 0.0
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass

    # ---- what scenarios do

    def ask(self, name, number, *more):
        channel = self.channels[number] = Channel(name, number, True)
        self.send(0, request(name, number, False, *more))
        return channel

    def send(self, channel, body=b""):
        self.queue.append(frame(channel, body))

    def finish(self, channel):
        channel.finished = True
        self.send(channel.number)

    def run(self, done=lambda: False, patience=PATIENCE):
        """Until `done`, or the peer has ended the connection."""
        end = time.monotonic() + patience
        while not done() and not self.fin and self.error is None:
            if time.monotonic() > end:
                say("patience", "ended")
                sys.exit(1)
            self.step()

    def handshake(self):
        self.run(lambda: self.up)
        return self.error is None and self.up

    def close(self):
        """close_notify and FIN, when everything is sent."""
        if self.shut:
            return
        self.shut = True
        self.run(lambda: not self.queue and not self.sources())
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        self.drain()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def end(self):
        """Waits for the peer's end and prints it."""
        self.run()
        self.close()
        words = ["close_notify"] * self.close_notify + ["fin"] * self.fin
        say("end", *words, *([] if self.error is None else [self.error]))
        self.sock.close()

    # ---- the event loop

    def sources(self):
        return [c for c in self.channels.values() if c.open and c.source and c.source.left]

    def step(self):
        self.fill()
        self.flush()
        writing = len(self.unsent) > 0 or self.outgoing.pending > 0
        now = time.monotonic()
        reading = now >= self.next_read
        events = selectors.EVENT_READ * reading | selectors.EVENT_WRITE * writing
        wait = 0.05 if reading else max(0.0, self.next_read - now)
        if events == 0:
            time.sleep(wait)
            return
        self.selector.modify(self.sock, events)
        for _, mask in self.selector.select(wait):
            if mask & selectors.EVENT_READ:
                self.receive()

    def fill(self):
        if not self.up:
            return
        while self.outgoing.pending + len(self.unsent) < RECEIVE:
            if self.queue:
                data = self.queue.pop(0)
            else:
                ready = self.sources()
                if not ready:
                    return
                channel = random.choice(ready)
                data = frame(channel.number, channel.source.take())
                self.settle(channel)
            self.tls.write(data)

    def flush(self):
        while True:
            if not len(self.unsent):
                self.unsent = memoryview(self.outgoing.read())
            if not len(self.unsent):
                return
            try:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                return self.failed(error)

    def drain(self):
        end = time.monotonic() + PATIENCE
        while len(self.unsent) or self.outgoing.pending:
            if self.error is not None or time.monotonic() > end:
                return
            self.flush()
            time.sleep(0.001)

    def failed(self, error):
        if self.error is None:
            self.error = type(error).__name__

    def receive(self):
        try:
            data = self.sock.recv(self.read_size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            return self.failed(error)
        self.next_read = time.monotonic() + self.read_pause if self.read_pause else 0.0
        if data:
            self.incoming.write(data)
        else:
            self.fin = True
            self.incoming.write_eof()
        try:
            if not self.up:
                self.tls.do_handshake()
                self.up = True
            while not self.close_notify:
                data = self.tls.read(65536)
                # Nothing is how Python tells of close_notify, if it was not sent before.
                self.close_notify = not data
                self.input += data
            self.parse()
        except ssl.SSLWantReadError:
            self.parse()
        except ssl.SSLZeroReturnError:
            self.close_notify = True
            self.parse()
        except ssl.SSLError as error:
            self.parse()
            self.flush()
            # Not every number of an alert has a name in Python.
            self.error = error.reason or " ".join(map(str, error.args))

    def parse(self):
        at = 0
        view = bytes(self.input)
        while len(view) - at >= 4:
            length, number = struct.unpack_from(">HH", view, at)
            if len(view) - at - 4 < length:
                break
            body = view[at + 4 : at + 4 + length]
            at += 4 + length
            if number == 0:
                self.messages.feed(body)
                for message in self.messages:
                    # What else there is on a native link is none of ours.
                    if isinstance(message[0], str):
                        self.control(*message[:3])
            else:
                self.data(number, body)
        del self.input[:at]

    def control(self, name, number, is_answer):
        if is_answer:
            channel = self.channels[number]
            assert channel.name == name, (channel.name, name)
            channel.open = True
            self.answers.append(number)
            return
        channel = Channel(name, number, False)
        if self.on_request(channel):
            channel.open = True
            self.channels[number] = channel
            self.send(0, request(name, number, True))
        else:
            self.send(number)

    def data(self, number, body):
        channel = self.channels.get(number)
        if channel is None:
            return
        if not body:
            if channel.ours and not channel.open:
                channel.declined = True
            channel.ended = True
            channel.open = False
            return
        channel.received += len(body)
        channel.hash.update(body)
        if channel.received < 4096:
            channel.text += body
        if channel.echo:
            self.send(number, body)
        self.settle(channel)

    def settle(self, channel):
        """The side that asked for a channel ends it when all came and all went."""
        done = channel.finish_at is not None and channel.received >= channel.finish_at
        if done and not channel.source.left and not channel.finished:
            self.finish(channel)


# ---- scenarios with one connection


def bulk(link, length):
    """Sends and receives `length` bytes on each of three channels at the same time."""
    length = int(length)

    def wants(channel):
        channel.source = Source(length)
        return True

    link.on_request = wants
    for name, number in (("bulk-a", 20000), ("bulk-b", 40000)):
        channel = link.ask(name, number)
        channel.source, channel.finish_at = Source(length), length

    def done():
        all_there = len(link.channels) == 3
        return all_there and all(c.ended or c.finished for c in link.channels.values())

    link.run(done)
    for c in link.channels.values():
        end = "eof" if c.ended else "finished"
        say("channel", c.name, c.received, c.hash.hexdigest(), c.source.hash.hexdigest(), end)
    link.end()


def declines(link):
    """Is declined, and declines."""
    link.on_request = lambda channel: channel.name != "no"
    no = link.ask("no", 5)
    link.run(lambda: no.declined)
    say("declined", no.number)
    # The id is free again, and the connection goes on.
    yes = link.ask("echo", 5)
    link.run(lambda: yes.open)
    link.send(5, b"still here")
    link.run(lambda: yes.received == 10)
    say("echoed", yes.text.decode())
    link.finish(yes)
    link.end()


def forms(link):
    """Requests in every form that the protocol allows."""
    # A map with keys that nobody knows, beside one that is known.
    extra = {"colour": "blue", "priority": 2, 7: [1, {}], "nested": {"a": [None]}}
    link.ask("echo", 1, extra)
    # Nothing in place of the map, and more elements than anybody knows.
    link.ask("echo", 2, None, 99, "more", [1, 2])
    # Ids of the other half; the largest there is.
    link.ask("echo", 0x8000)
    link.ask("echo", 0xFFFE)
    # Several messages in one frame.
    several = b"".join(request("echo", n, False) for n in (10, 11, 12))
    link.send(0, several)
    # Messages cut at every place.
    cut = request("echo", 20, False) + request("echo", 21, False, {"weight": 3})
    for byte in cut:
        link.send(0, bytes([byte]))
    # A name of the greatest length, with letters of several bytes; none at all.
    long = "\u00e9" * 512
    link.ask(long, 30)
    link.ask("", 31)
    # Integers in forms that are longer than necessary.
    link.send(0, b"\x93\xa4echo\xce\x00\x00\x00\x28\xc2" + b"\x93\xd9\x04echo\xd1\x00\x29\xc2")
    # Empty frames of channel 0, and data and an end for channels that nobody knows.
    link.send(0)
    link.send(777, b"lost")
    link.send(778)
    for number in (10, 11, 12, 20, 21, 40, 41):
        link.channels[number] = Channel("echo", number, True)
    numbers = sorted(link.channels)
    link.run(lambda: sorted(link.answers) == numbers)
    for number in numbers:
        link.send(number, b"to %d" % number)
    link.run(lambda: all(c.text == b"to %d" % n for n, c in link.channels.items()))
    say("echoed", *numbers)
    # Ids that nobody can have: refused.
    reserved = link.ask("echo", 0xFFFF)
    link.run(lambda: reserved.declined)
    say("declined", 0xFFFF)
    for number in numbers:
        link.finish(link.channels[number])
    link.ask("over", 50)
    link.end()


def slow(link, length, start, size, pause, chatter=""):
    """Reads slowly what comes on a channel that the other side asks for, until it has ended, perhaps
    talking all the time."""
    channels = []
    link.on_request = lambda channel: channels.append(channel) or True
    if chatter:
        link.ask(chatter, 20000)
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    link.run(lambda: channels)
    link.flush()
    link.step()
    link.next_read = time.monotonic() + float(start)
    link.read_size, link.read_pause = int(size), float(pause)

    def done():
        if chatter and not link.queue:
            link.send(20000, b"and so on " * 20)
        return channels[0].ended

    link.run(done)
    channel = channels[0]
    say("channel", channel.name, channel.received, channel.hash.hexdigest())
    say("complete" if channel.received == int(length) else "incomplete")
    link.end()


def bye(link, how):
    """Ends the connection: cleanly, without close_notify, or with a reset."""
    channel = link.ask("echo", 1)
    link.run(lambda: channel.open)
    link.send(1, b"last words")
    link.run(lambda: channel.received == 10)
    link.drain()
    say("echoed", channel.text.decode())
    if how == "clean":
        link.close()
        link.end()
    elif how == "fin":
        link.sock.shutdown(socket.SHUT_WR)
        link.shut = True
        link.end()
    else:
        link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.sock.close()
        say("end", "reset by us")


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def map_of(*pairs):
    """A request whose map has these pairs, even twice the same key."""
    body = b"".join(msgpack.packb(k) + msgpack.packb(v) for k, v in pairs)
    return b"\x94\xa1x\x01\xc2" + bytes([0x80 | len(pairs)]) + body


# Each with what our side has to say about it.
MALFORMED = [
    (b"\xc1", "a byte that msgpack never uses"),
    (b"\x93\xa1x\xc1\xc2", "a byte that msgpack never uses"),
    (msgpack.packb(5), "message is not an array"),
    (msgpack.packb({"name": "x"}), "message is not an array"),
    (msgpack.packb(None), "message is not an array"),
    (msgpack.packb([]), "message is empty"),
    (msgpack.packb([True, 1, False]), "neither a name nor a type"),
    (msgpack.packb([b"x", 1, False]), "neither a name nor a type"),
    (msgpack.packb([["x"], 1, False]), "neither a name nor a type"),
    (msgpack.packb(["x"]), "fewer than 3 elements"),
    (msgpack.packb(["x", 1]), "fewer than 3 elements"),
    (request("n" * 1025, 1, False), "name is longer than 1024 bytes"),
    (b"\x93\xa2\xc3\x28\x01\xc2", "name is not UTF-8"),
    (request("x", "1", False), "channel is not an unsigned 16-bit integer"),
    (request("x", 65536, False), "channel is not an unsigned 16-bit integer"),
    (request("x", -1, False), "channel is not an unsigned 16-bit integer"),
    (request("x", 1.5, False), "channel is not an unsigned 16-bit integer"),
    (request("x", None, False), "channel is not an unsigned 16-bit integer"),
    (request("x", 0, False), "channel is 0"),
    (request("x", 1, 0), "is_answer is not a boolean"),
    (request("x", 1, None), "is_answer is not a boolean"),
    (request("x", 1, False, []), "options is not a map"),
    (request("x", 1, False, 7), "options is not a map"),
    (map_of(("kind", 3)), "options.kind is not 0, 1 or 2"),
    (map_of(("kind", "bytes")), "options.kind is not 0, 1 or 2"),
    (map_of(("kind", 0), ("kind", 0)), "options.kind comes twice"),
    (map_of(("priority", 8)), "options.priority is not in 0..=7"),
    (map_of(("weight", 0)), "options.weight is not in 1..=255"),
    (map_of(("window", -1)), "options.window is not an unsigned 64-bit integer"),
    (map_of(("since", "now")), "options.since is not an unsigned 64-bit integer"),
    (map_of(("latest", 1)), "options.latest is not a boolean"),
    (map_of(("expires_ms", 1 << 32)), "options.expires_ms is not an unsigned 32-bit integer"),
    (map_of(("declined", "no")), "options.declined is not an unsigned 32-bit integer"),
    (map_of(("reason", 1)), "options.reason is not a string"),
    (map_of(("reason", "r" * 128)), "options.reason is longer than 127 bytes"),
    (request("x", 1, False, {"deep": nested(3)}), "control message nesting"),
    (b"\x91" * 40, "control message nesting"),
    (b"\xdb\xff\xff\xff\xff", "control message size"),
    (b"\x93\xdb\xff\xff\xff\xff", "control message size"),
    (b"\xdd\xff\xff\xff\xff", "control message size"),
    (b"\x94\xa1x\x01\xc2\xdf\xff\xff\xff\xff", "control message size"),
    (b"\x94\xa1x\x01\xc2\x81\xa1k\xc6\xff\xff\xff\xff", "control message size"),
    (b"\x94\xa1x\x01\xc2\x81\xa1k\xc9\xff\xff\xff\xff", "control message size"),
    (request("x", 1, False, {"k": b"0" * 17000}), "control message size"),
    (request("x", 1, False) + b"\xc1", "a byte that msgpack never uses"),
    (request("x", 1, False) * 2, "channel is in use"),
]


def malformed(link, which):
    """Sends the control message of this number. The connection has to end."""
    data, error = MALFORMED[int(which)]
    say("expects", error)
    for start in range(0, len(data), 50000):
        link.send(0, data[start : start + 50000])
    link.end()


# ---- clients that are none


def outcome(name, start, text):
    say("stranger", name, "%.2f" % (time.monotonic() - start), text)


def raw(port, name, act):
    """A TCP connection that is no TLS; prints how the other side ends it."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(30)
        try:
            act(sock)
            size = 0
            while data := sock.recv(4096):
                size += len(data)
            outcome(name, start, "fin after %d bytes" % size)
        except OSError as error:
            outcome(name, start, type(error).__name__)


def client_hello(context):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="trunkline")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def strangers(port, context_of):
    """Clients of all sorts with which nothing can be begun."""

    def trickle(sock):
        # One byte at a time keeps nobody waiting for longer than nothing at all.
        sock.settimeout(0.1)
        for byte in client_hello(context_of("mux/0")):
            sock.sendall(bytes([byte]))
            try:
                if not sock.recv(1, socket.MSG_PEEK):
                    return
            except TimeoutError:
                pass
        sock.settimeout(30)

    hello = client_hello(context_of("mux/0"))
    raw(port, "http", lambda s: s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    raw(port, "noise", lambda s: s.sendall(random.Random(7).randbytes(20000)))
    raw(port, "long-record", lambda s: s.sendall(b"\x16\x03\x01\xff\xff" + bytes(70000)))
    raw(port, "empty-records", lambda s: s.sendall(b"\x16\x03\x01\x00\x00" * 1000))
    raw(port, "alert", lambda s: s.sendall(b"\x15\x03\x01\x00\x02\x02\x28"))
    raw(port, "plaintext-data", lambda s: s.sendall(b"\x17\x03\x03\x00\x05hello"))
    raw(port, "silent", lambda s: None)
    raw(port, "half-hello", lambda s: s.sendall(hello[:60]))
    raw(port, "trickle", trickle)
    raw(port, "hello-only", lambda s: s.sendall(hello))
    raw(port, "shut-down", lambda s: s.shutdown(socket.SHUT_WR))
    raw(port, "hello-shut-down", lambda s: (s.sendall(hello), s.shutdown(socket.SHUT_WR)))

    for name, alpn, version in (
        ("unknown-alpn", "h2", None),
        ("tls-1.2", "mux/0", ssl.TLSVersion.TLSv1_2),
        # Proves nothing beyond TLS: a native client has to say more.
        ("native-silent", "trunkline/1", None),
    ):
        context = context_of(alpn)
        if version:
            context.minimum_version, context.maximum_version = version, version
        start = time.monotonic()
        link = Link(socket.create_connection(("127.0.0.1", port)), context, False, "trunkline")
        link.run()
        outcome(name, start, link.error or "fin")
        link.sock.close()


def hold(port, count):
    """Many TCP connections that say nothing; prints how many were ended, and when it is told to."""
    socks = []
    for _ in range(int(count)):
        socks.append(socket.create_connection(("127.0.0.1", port)))
    say("holding", len(socks))
    ended = 0
    for sock in socks:
        sock.settimeout(30)
        try:
            while sock.recv(4096):
                pass
            ended += 1
        except TimeoutError:
            pass
        except OSError:
            ended += 1
    say("ended", ended)


SCENARIOS = {f.__name__: f for f in (bulk, declines, forms, slow, bye, malformed)}


def main():
    role, first, second, alpn, scenario, *arguments = sys.argv[1:]
    server = role == "server"

    def context_of(protocol):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        if server:
            context.load_cert_chain(first, second)
        else:
            context.load_verify_locations(second)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if protocol != "-":
            context.set_alpn_protocols([protocol])
        return context

    if scenario == "strangers":
        return strangers(int(first), context_of)
    if scenario == "hold":
        return hold(int(first), *arguments)
    if scenario == "malformed" and not arguments:
        return say("cases", len(MALFORMED))
    if server:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            say("port", listener.getsockname()[1])
            listener.settimeout(PATIENCE)
            sock = listener.accept()[0]
        link = Link(sock, context_of(alpn), True)
    else:
        sock = socket.create_connection(("127.0.0.1", int(first)))
        link = Link(sock, context_of(alpn), False, "trunkline")
    if not link.handshake():
        return say("handshake", "failed", link.error)
    agreed = link.tls.selected_alpn_protocol() or "-"
    say("handshake", link.tls.version(), agreed)
    SCENARIOS[scenario](link, *arguments)


main()
