"""Echo from Python, through cffi: the same host and client as echo.c.

    python3 echo.py                                both in this process
    python3 echo.py host ADDRESS                   until interrupted
    python3 echo.py client ADDRESS FINGERPRINT TEXT...

Needs cffi (pip install cffi), the library where the system finds it or named by $TRUNKLINE_LIBRARY,
and its header, named by $TRUNKLINE_HEADER unless it is in ../../include or /usr/include.
"""

import ctypes.util
import os
import pathlib
import re
import sys

import cffi


def declarations(header):
    """Reduces trunkline.h to what cffi reads: constants, types and functions of C, without
    comments, conditions and the initialisers at the end, which are macros."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", header, flags=re.DOTALL)
    text = text[: text.index("#define TRUNK_DEFINE_INIT")]
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", text, flags=re.DOTALL)
    number = r"#define TRUNK_\w+ -?\d+"
    lines = text.splitlines()
    return "\n".join(line for line in lines if line[:1] != "#" or re.fullmatch(number, line))


def find_header():
    here = pathlib.Path(__file__).resolve().parent
    places = [os.environ.get("TRUNKLINE_HEADER"), here / "../../include/trunkline.h",
              "/usr/local/include/trunkline.h", "/usr/include/trunkline.h"]
    for place in filter(None, places):
        if pathlib.Path(place).is_file():
            return pathlib.Path(place).read_text(encoding="utf-8")
    sys.exit("trunkline.h is not found: set TRUNKLINE_HEADER")


ffi = cffi.FFI()
ffi.cdef(declarations(find_header()))
library = os.environ.get("TRUNKLINE_LIBRARY") or ctypes.util.find_library("trunkline")
if library is None:
    sys.exit("libtrunkline is not found: set TRUNKLINE_LIBRARY")
lib = ffi.dlopen(library)


def must(result, what):
    """Ends the program when a call that must work does not."""
    if result != lib.TRUNK_OK:
        why, code = ffi.string(lib.trunk_last_error()), ffi.string(lib.trunk_result_str(result))
        sys.exit(f"{what}: {why.decode()} ({code.decode()})")


def new(name):
    """A struct with its defaults. What its fields point to must be kept by the caller: an
    assignment of a pointer does not keep what it points to."""
    value = ffi.new(f"{name} *")
    must(getattr(lib, f"{name}_init_sized")(value, ffi.sizeof(value[0])), name)
    return value


def listen_at(engine, where):
    """Listens as a new identity; returns where, and the fingerprint."""
    pem, size = ffi.new("char[2048]"), ffi.new("size_t *")
    must(lib.trunk_identity_generate(ffi.NULL, pem, 2048, size), "new identity")
    identity, config = new("trunk_identity"), new("trunk_listen_config")
    identity.pem, identity.pem_size = pem, size[0]
    address_text = ffi.new("char[]", where.encode())
    config.address, config.identity = address_text, identity
    listener, address = ffi.new("trunk_listener *"), ffi.new("char[64]")
    must(lib.trunk_listen(engine, config, listener), "listen")
    must(lib.trunk_listener_address(engine, listener[0], address, 64, ffi.NULL), "address")
    fingerprint = ffi.new("uint8_t[]", lib.TRUNK_FINGERPRINT_BYTES)
    must(lib.trunk_identity_fingerprint(identity, fingerprint), "fingerprint")
    return ffi.string(address).decode(), fingerprint


def ask(engine, where, fingerprint, texts):
    """Connects, opens a channel of messages, and sends all texts; nothing of this waits."""
    trust, config = new("trunk_trust"), new("trunk_connect_config")
    trust.kind, trust.pins, trust.pin_count = lib.TRUNK_TRUST_PINS, fingerprint, 1
    address = ffi.new("char[]", where.encode())
    addresses = ffi.new("char *[]", [address])
    config.addresses, config.address_count, config.trust = addresses, 1, trust
    conn, channel = ffi.new("trunk_conn *"), ffi.new("trunk_channel *")
    must(lib.trunk_connect(engine, config, conn), "connect")
    options = new("trunk_channel_options")
    options.kind = lib.TRUNK_KIND_MESSAGES
    result = lib.trunk_channel_open(engine, conn[0], b"echo", options, channel)
    for data in (text.encode() for text in texts):
        result = result or lib.trunk_send(engine, channel[0], data, len(data))
    result = result or lib.trunk_channel_close(engine, channel[0])  # the end of what we send
    # These two: the connection has failed in the meantime. An item will say why.
    if result not in (lib.TRUNK_ERR_NO_CONNECTION, lib.TRUNK_ERR_INVALID_HANDLE):
        must(result, "send")
    return conn[0]


def step(engine, item, ours):
    """Deals with one item; whether the client's connection is gone."""
    mine = item.conn == ours
    if item.type == lib.TRUNK_ITEM_INCOMING:
        lib.trunk_accept(engine, item.conn)  # if it cannot be, an item will say why
    elif item.type == lib.TRUNK_ITEM_REQUEST:
        # It may have ended by now: then TRUNK_ITEM_CLOSED is next, and there is nothing to do.
        lib.trunk_channel_accept(engine, item.channel, ffi.NULL)
    elif item.type == lib.TRUNK_ITEM_DATA and mine:
        print(ffi.buffer(item.data, item.size)[:].decode())
    elif item.type == lib.TRUNK_ITEM_DATA:
        if lib.trunk_send_item(engine, item.channel, ffi.addressof(item), 0) != lib.TRUNK_OK:
            lib.trunk_channel_reset(engine, item.channel, 1)  # sends and does not read
    elif item.type == lib.TRUNK_ITEM_EOF and mine:
        lib.trunk_close(engine, ours, 0, b"done", lib.TRUNK_LINGER_DEFAULT)
    elif item.type == lib.TRUNK_ITEM_EOF:
        lib.trunk_channel_close(engine, item.channel)
    elif item.type == lib.TRUNK_ITEM_STATUS:
        status = item.detail.status
        if status.new_status >= lib.TRUNK_STATUS_CLOSED_BY_PEER:
            if mine:
                sys.exit(f"lost: {ffi.string(status.reason_text).decode()} ({status.reason})")
            lib.trunk_close(engine, item.conn, 0, ffi.NULL, lib.TRUNK_LINGER_NONE)
    return item.type == lib.TRUNK_ITEM_DEAD and mine


def run(engine, ours):
    """Until the client's connection is gone; without one, until interrupted."""
    items, count, done = ffi.new("trunk_item[32]"), ffi.new("size_t *"), False
    while not done:
        # A second at most, for Ctrl-C: Python looks at signals between calls.
        must(lib.trunk_recv_many(engine, 0, items, 32, 10**9, count), "receive")
        for i in range(count[0]):
            done |= step(engine, items[i], ours)
        must(lib.trunk_message_release(items, count[0]), "release")


def main(arguments):
    place, ours = ffi.new("trunk_engine **"), 0
    must(lib.trunk_engine_new(ffi.NULL, place), "engine")
    engine = place[0]
    if not arguments:
        where, fingerprint = listen_at(engine, "127.0.0.1:0")
        ours = ask(engine, where, fingerprint, ["hello", "from", "one process"])
    elif len(arguments) == 2 and arguments[0] == "host":
        where, fingerprint = listen_at(engine, arguments[1])
        print(where, bytes(fingerprint).hex(), flush=True)
    elif len(arguments) > 3 and arguments[0] == "client":
        fingerprint = ffi.new("uint8_t[]", lib.TRUNK_FINGERPRINT_BYTES)
        must(lib.trunk_fingerprint_parse(arguments[2].encode(), fingerprint), "fingerprint")
        ours = ask(engine, arguments[1], fingerprint, arguments[3:])
    else:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        run(engine, ours)
    except KeyboardInterrupt:
        pass
    must(lib.trunk_shutdown(engine, lib.TRUNK_LINGER_DEFAULT, ffi.NULL), "shutdown")
    must(lib.trunk_engine_destroy(engine), "destroy")


if __name__ == "__main__":
    main(sys.argv[1:])
