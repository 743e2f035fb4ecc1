// Echo from Go, through cgo: the same host and client as echo.c.
//
//	echo                                       both in this process
//	echo host ADDRESS                          until interrupted
//	echo client ADDRESS FINGERPRINT TEXT...
//
// Build, with the library installed:  go build echo.go
// Otherwise say where header and library are:
//
//	CGO_CFLAGS=-I../../include CGO_LDFLAGS="-L/lib/folder -Wl,-rpath,/lib/folder" go build echo.go
package main

/*
#cgo LDFLAGS: -ltrunkline
#include <stdlib.h>
#include <trunkline.h>
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"
)

// The words for an error belong to the thread of the call that failed, and goroutines change
// threads unless they are told not to.
func init() { runtime.LockOSThread() }

// Ends the program when a call that must work does not.
func must(result C.trunk_result, what string) {
	if result != C.TRUNK_OK {
		fail(what, C.GoString(C.trunk_last_error())+" ("+C.GoString(C.trunk_result_str(result))+")")
	}
}

func fail(what, why string) {
	fmt.Fprintf(os.Stderr, "%s: %s\n", what, why)
	os.Exit(1)
}

// Memory that C may point into: Go's own must not hold pointers when C is given it. All of it is
// freed together; the engine has copied it by then.
type arena []unsafe.Pointer

func (a *arena) zeroed(size C.size_t) unsafe.Pointer {
	memory := C.calloc(1, size)
	if memory == nil {
		fail("arena", "no memory")
	}
	*a = append(*a, memory)
	return memory
}

func (a *arena) text(text string) *C.char {
	copied := C.CString(text)
	*a = append(*a, unsafe.Pointer(copied))
	return copied
}

func (a *arena) free() {
	for _, memory := range *a {
		C.free(memory)
	}
}

// Listens as a new identity; returns where, and the fingerprint.
func listenAt(engine *C.trunk_engine, where string) (string, []byte) {
	var a arena
	defer a.free()
	pem := (*C.char)(a.zeroed(2048))
	var size C.size_t
	must(C.trunk_identity_generate(nil, pem, 2048, &size), "new identity")
	identity := (*C.trunk_identity)(a.zeroed(C.sizeof_trunk_identity))
	C.trunk_identity_init(identity)
	identity.pem, identity.pem_size = pem, size

	config := (*C.trunk_listen_config)(a.zeroed(C.sizeof_trunk_listen_config))
	C.trunk_listen_config_init(config)
	config.address, config.identity = a.text(where), identity
	var listener C.trunk_listener
	must(C.trunk_listen(engine, config, &listener), "listen")
	var address [64]C.char
	must(C.trunk_listener_address(engine, listener, &address[0], 64, nil), "address")
	fingerprint := make([]byte, C.TRUNK_FINGERPRINT_BYTES)
	must(C.trunk_identity_fingerprint(identity, (*C.uint8_t)(&fingerprint[0])), "fingerprint")
	return C.GoString(&address[0]), fingerprint
}

// Connects, opens a channel of messages, and sends all texts; nothing of this waits.
func ask(engine *C.trunk_engine, where string, fingerprint []byte, texts []string) C.trunk_conn {
	var a arena
	defer a.free()
	trust := (*C.trunk_trust)(a.zeroed(C.sizeof_trunk_trust))
	C.trunk_trust_init(trust)
	trust.kind, trust.pin_count = C.TRUNK_TRUST_PINS, 1
	pin := C.CBytes(fingerprint)
	a = append(a, pin)
	trust.pins = (*C.uint8_t)(pin)

	addresses := (**C.char)(a.zeroed(C.size_t(unsafe.Sizeof(uintptr(0)))))
	*addresses = a.text(where)
	config := (*C.trunk_connect_config)(a.zeroed(C.sizeof_trunk_connect_config))
	C.trunk_connect_config_init(config)
	config.addresses, config.address_count, config.trust = addresses, 1, trust
	var conn C.trunk_conn
	must(C.trunk_connect(engine, config, &conn), "connect")

	var options C.trunk_channel_options
	C.trunk_channel_options_init(&options)
	options.kind = C.TRUNK_KIND_MESSAGES
	var channel C.trunk_channel
	result := C.trunk_channel_open(engine, conn, a.text("echo"), &options, &channel)
	for i := 0; i < len(texts) && result == C.TRUNK_OK; i++ {
		data := []byte(texts[i] + "\x00") // never empty, so that it has an address
		result = C.trunk_send(engine, channel, unsafe.Pointer(&data[0]), C.size_t(len(texts[i])))
	}
	if result == C.TRUNK_OK {
		result = C.trunk_channel_close(engine, channel) // the end of what we send
	}
	// These two: the connection has failed in the meantime. An item will say why.
	if result != C.TRUNK_ERR_NO_CONNECTION && result != C.TRUNK_ERR_INVALID_HANDLE {
		must(result, "send")
	}
	return conn
}

// Deals with one item; whether the client's connection is gone.
func step(engine *C.trunk_engine, item *C.trunk_item, ours C.trunk_conn) bool {
	mine := item.conn == ours
	switch item._type {
	case C.TRUNK_ITEM_INCOMING:
		C.trunk_accept(engine, item.conn) // if it cannot be, an item will say why
	case C.TRUNK_ITEM_REQUEST:
		// It may have ended by now: then TRUNK_ITEM_CLOSED is next, and there is nothing to do.
		C.trunk_channel_accept(engine, item.channel, nil)
	case C.TRUNK_ITEM_DATA:
		if mine {
			fmt.Println(string(C.GoBytes(unsafe.Pointer(item.data), C.int(item.size))))
		} else if C.trunk_send_item(engine, item.channel, item, 0) != C.TRUNK_OK {
			C.trunk_channel_reset(engine, item.channel, 1) // sends and does not read
		}
	case C.TRUNK_ITEM_EOF:
		if mine {
			C.trunk_close(engine, ours, 0, nil, C.TRUNK_LINGER_DEFAULT)
		} else {
			C.trunk_channel_close(engine, item.channel)
		}
	case C.TRUNK_ITEM_STATUS:
		// A union is an array of bytes to cgo.
		status := *(**C.trunk_status_change)(unsafe.Pointer(&item.detail))
		if status.new_status >= C.TRUNK_STATUS_CLOSED_BY_PEER {
			if mine {
				fail("lost", fmt.Sprintf("%s (%d)", C.GoString(status.reason_text), status.reason))
			}
			C.trunk_close(engine, item.conn, 0, nil, C.TRUNK_LINGER_NONE)
		}
	case C.TRUNK_ITEM_DEAD:
		return mine
	}
	return false
}

// Until the client's connection is gone; without one, for ever. Items are in C's memory: they point
// to more of it, which Go's collector must not follow.
func run(engine *C.trunk_engine, ours C.trunk_conn) {
	const capacity = 32
	var a arena
	defer a.free()
	place := a.zeroed(capacity * C.sizeof_trunk_item)
	items := (*[capacity]C.trunk_item)(place)
	for done := false; !done; {
		var count C.size_t
		must(C.trunk_recv_many(engine, 0, &items[0], capacity, C.TRUNK_WAIT_FOREVER, &count), "receive")
		for i := range items[:count] {
			done = step(engine, &items[i], ours) || done
		}
		must(C.trunk_message_release(&items[0], count), "release")
	}
}

func main() {
	var engine *C.trunk_engine
	var ours C.trunk_conn
	must(C.trunk_engine_new(nil, &engine), "engine")
	switch arguments := os.Args[1:]; {
	case len(arguments) == 0:
		where, fingerprint := listenAt(engine, "127.0.0.1:0")
		ours = ask(engine, where, fingerprint, []string{"hello", "from", "one process"})
	case len(arguments) == 2 && arguments[0] == "host":
		where, fingerprint := listenAt(engine, arguments[1])
		fmt.Printf("%s %x\n", where, fingerprint)
	case len(arguments) > 3 && arguments[0] == "client":
		var a arena
		fingerprint := make([]byte, C.TRUNK_FINGERPRINT_BYTES)
		must(C.trunk_fingerprint_parse(a.text(arguments[2]), (*C.uint8_t)(&fingerprint[0])), "fingerprint")
		a.free()
		ours = ask(engine, arguments[1], fingerprint, arguments[3:])
	default:
		fmt.Fprintln(os.Stderr, "usage: echo | echo host ADDRESS | echo client ADDRESS FINGERPRINT TEXT...")
		os.Exit(2)
	}
	run(engine, ours)
	must(C.trunk_shutdown(engine, C.TRUNK_LINGER_DEFAULT, nil), "shutdown")
	must(C.trunk_engine_destroy(engine), "destroy")
}
