package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
)

func TestBlake2bIsThatOfTheRFC(t *testing.T) {
	for text, want := range map[string]string{
		"":    "cae66941d9efbd404e4d88758ea67670",
		"abc": "cf4ab791c62b8d2b2109c90275287816",
	} {
		sum := blake2b128([]byte(text))
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%q: %s instead of %s", text, got, want)
		}
	}
}

func TestVectorDigestIsTheServersForShortAndLongIds(t *testing.T) {
	long := ""
	for len(long) < 180 {
		long += "0123456789"
	}
	// From trunkline.core.digest.vector_digest.
	want := "a77eea290c498ed4526cbe88c9e3d7a4"
	if got := vectorDigest(map[string]int64{"a": 1, long: 7, "none": 0}); got != want {
		t.Errorf("%s instead of %s", got, want)
	}
}

func TestHistogramTellsQuantilesToWithinItsStep(t *testing.T) {
	var h Histogram
	for i := int64(1); i <= 1_000_000; i++ {
		h.Add(i * 1000)
	}
	for q, want := range map[float64]float64{0.5: 500, 0.99: 990, 1: 1000} {
		if got := h.Milliseconds(q); got < want || got > want*1.02 {
			t.Errorf("quantile %v: %v instead of %v", q, got, want)
		}
	}
}

func TestAcksAreFoundInTheirFrame(t *testing.T) {
	frame := []byte(`{"t":"acked","acks":[{"id":"m1","conversation":"c","seq":2,"time_ms":9},` +
		`{"id":"m2","conversation":"d","seq":30,"duplicate":true}]}`)
	got := ""
	err := scanAcks(frame, func(a Ack) error {
		got += fmt.Sprintf("%s %s %d %v;", a.ID, a.Conversation, a.Seq, a.Duplicate)
		return nil
	})
	if want := "m1 c 2 false;m2 d 30 true;"; err != nil || got != want {
		t.Errorf("%q, %v instead of %q", got, err, want)
	}
}

func TestReceiverCountsWhatIsTwiceLateAndLost(t *testing.T) {
	message := func(seq, counter int) string {
		return fmt.Sprintf(`{"seq":%d,"sender":"s","time_ms":1,"body":"T#5.%d;text"}`, seq, counter)
	}
	push := func(entries string) []byte {
		return []byte(`{"t":"push","conversation":"c","membership_version":1,"entries":[` +
			entries + `]}`)
	}
	created := `{"seq":1,"sender":"s","time_ms":1,"body":"{\"users\":[\"r\"],\"seq\":4}","kind":"created"}`
	r := NewReceiver(nil, new(atomic.Bool))
	for _, frame := range [][]byte{
		push(created + "," + message(2, 0)),
		push(message(2, 0)), // twice
		push(message(4, 2)), // 3 is missing
		push(message(3, 1)), // late
		push(message(6, 4)), // 5 is lost
	} {
		if err := r.push(frame); err != nil {
			t.Fatal(err)
		}
	}
	if r.delivered.Load() != 4 || r.doubles != 1 || r.disordered != 1 || r.gaps != 2 {
		t.Errorf("delivered %d doubles %d out of order %d gaps %d",
			r.delivered.Load(), r.doubles, r.disordered, r.gaps)
	}
	if lost := r.Lost("c", 8); lost != 3 { // 5, 7, 8
		t.Errorf("lost %d", lost)
	}
}

func TestPulledRunsAreCountedAndMustBeContiguous(t *testing.T) {
	page := func(second int) []byte {
		return []byte(fmt.Sprintf(`{"t":"pulled","request":1,"runs":[{"conversation":"c","after":0,`+
			`"entries":[{"seq":1,"body":"x"},{"seq":%d,"body":"y"}]},{"conversation":"d","after":8,`+
			`"entries":[{"seq":9,"body":"z"}]}],"next":"token"}`, second))
	}
	phone := NewEndpoint("phone")
	phone.Held["d"] = 8
	if count, err := phone.take(page(2)); count != 3 || err != nil {
		t.Errorf("%d entries, %v", count, err)
	}
	if phone.Held["c"] != 2 || phone.Held["d"] != 9 || nextOf(page(2)) != "token" {
		t.Errorf("held %v, next %q", phone.Held, nextOf(page(2)))
	}
	if _, err := NewEndpoint("other").take(page(3)); err == nil {
		t.Error("a hole was taken for a run")
	}
}

func TestIdsRiseAndNameTheirSlot(t *testing.T) {
	first, second := appendID(nil, 1_700_000_000_000, 1, 31), appendID(nil, 1_700_000_000_000, 16, 2)
	if len(first) != 32 || string(first) >= string(second) || slotOf(first) != 31 {
		t.Errorf("%s %s", first, second)
	}
}

func TestMaskedMessagesAreReadBack(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	socket := &Socket{net: here, mask: 7}
	payload := []byte("thirteen byte")
	socket.Queue(payload)
	go socket.Flush()
	wire := make([]byte, 2+4+len(payload))
	if _, err := there.Read(wire); err != nil {
		t.Fatal(err)
	}
	for i := range payload {
		wire[6+i] ^= wire[2+i%4]
	}
	if wire[0] != 0x81 || wire[1] != 0x80|13 || string(wire[6:]) != string(payload) {
		t.Errorf("% x", wire)
	}
}

func TestTokenHasItsKeyIDAndThreeParts(t *testing.T) {
	minter, err := NewMinter("k1", base64.URLEncoding.EncodeToString([]byte("secret")))
	if err != nil {
		t.Fatal(err)
	}
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"k1","typ":"JWT"}`))
	if token := minter.Mint("u"); token[:len(head)+1] != head+"." {
		t.Errorf("%s", token)
	}
}
