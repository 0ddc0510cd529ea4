package main

import (
	"bytes"
	"math/rand"
	"strconv"
	"time"
)

const (
	// A body opens with a mark: `T#<nanoseconds>.<counter>;`, then words.
	markOpen  = "T#"
	poolBytes = 1 << 16

	counterDigits = 11
	slotDigits    = 4
	idBytes       = 12 + 4 + 1 + counterDigits + slotDigits
)

var (
	started = time.Now()
	pool    = words()
)

// now is the time since the generator started, in nanoseconds.
func now() int64 { return int64(time.Since(started)) }

// words is text to cut bodies from, the same in every run.
func words() []byte {
	random := rand.New(rand.NewSource(1))
	var text bytes.Buffer
	for text.Len() < 2*poolBytes {
		for letters := 2 + random.Intn(8); letters > 0; letters-- {
			text.WriteByte("etaoinshrdlucmfwypvbgkjqxz"[min(random.Intn(26), random.Intn(26))])
		}
		text.WriteByte(' ')
	}
	return text.Bytes()
}

// appendBody appends a body of exactly size bytes (if the mark fits) with its mark.
func appendBody(out []byte, size int, at, counter int64) []byte {
	start := len(out)
	out = append(out, markOpen...)
	out = strconv.AppendInt(out, at, 10)
	out = append(out, '.')
	out = strconv.AppendInt(out, counter, 10)
	out = append(out, ';')
	if left := size - (len(out) - start); left > 0 {
		offset := int(counter*61) & (poolBytes - 1)
		out = append(out, pool[offset:offset+left]...)
	}
	return out
}

// readMark finds the mark in an entry: when it was sent, and its sender's counter.
func readMark(entry []byte) (at, counter int64, found bool) {
	rest, found := after(entry, messageMark)
	if !found {
		return 0, 0, false
	}
	at, digits := number(rest)
	if digits >= len(rest) || rest[digits] != '.' {
		return 0, 0, false
	}
	counter, _ = number(rest[digits+1:])
	return at, counter, true
}

// appendID appends a client message id of UUIDv7's form that rises with the counter; the slot
// stands in it, so that the ack finds what it belongs to.
func appendID(out []byte, milliseconds, counter int64, slot int) []byte {
	out = appendHex(out, milliseconds, 12)
	out = append(out, "70008"...)
	out = appendHex(out, counter, counterDigits)
	return appendHex(out, int64(slot), slotDigits)
}

// slotOf is the slot within an id, or -1 if the id is not one of appendID.
func slotOf(id []byte) int {
	if len(id) != idBytes {
		return -1
	}
	slot, err := strconv.ParseUint(string(id[idBytes-slotDigits:]), 16, 32)
	if err != nil {
		return -1
	}
	return int(slot)
}

func appendHex(out []byte, value int64, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		out = append(out, "0123456789abcdef"[value>>shift&0xF])
	}
	return out
}

// appendSend appends a `send` frame. Field is `to` or `conversation`, target its value.
func appendSend(out []byte, id []byte, field, target string, size int, at, counter int64) []byte {
	out = append(out, `{"t":"send","id":"`...)
	out = append(out, id...)
	out = append(out, `","`...)
	out = append(out, field...)
	out = append(out, `":"`...)
	out = append(out, target...)
	out = append(out, `","body":"`...)
	out = appendBody(out, size, at, counter)
	return append(out, `"}`...)
}

// singleConversation is the id of the conversation of two users.
func singleConversation(one, other string) string {
	if other < one {
		one, other = other, one
	}
	return "single:" + strconv.Itoa(len(one)) + ":" + one + strconv.Itoa(len(other)) + ":" + other
}
