package main

import (
	"bytes"
	"sync"
	"sync/atomic"
)

// Received is what one receiver has of one conversation.
type Received struct {
	last        int64 // highest seq seen
	lastCounter int64
	missing     map[int64]bool // below last, not seen
}

// Receiver reads pushes on one connection and checks each conversation's order.
type Receiver struct {
	session    *Session
	recording  *atomic.Bool
	delivered  atomic.Int64 // messages of this run, each once
	measured   int64        // those of them while recording
	latency    Histogram
	doubles    int64
	disordered int64 // after a later one, by seq
	shuffled   int64 // after a later one, by the sender's counter
	gaps       int64
	received   map[string]*Received
	latest     *Received
	latestName []byte
	err        error
}

// NewReceiver takes a session that was pushed nothing yet.
func NewReceiver(session *Session, recording *atomic.Bool) *Receiver {
	return &Receiver{session: session, recording: recording, received: map[string]*Received{}}
}

// Start reads until the session is closed.
func (r *Receiver) Start(group *sync.WaitGroup, closing *atomic.Bool) {
	group.Add(1)
	go func() {
		defer group.Done()
		if err := r.read(); err != nil && !closing.Load() {
			r.err = err
		}
	}()
}

func (r *Receiver) read() error {
	for {
		frame, err := r.session.Next()
		if err != nil {
			return err
		}
		if bytes.HasPrefix(frame, tagPush) {
			if err := r.push(frame); err != nil {
				return err
			}
		} else if err := refusal(frame); err != nil {
			return err
		}
	}
}

func (r *Receiver) push(frame []byte) error {
	conversation, entries, err := pushed(frame)
	if err != nil {
		return err
	}
	state := r.of(conversation)
	at, recording := now(), r.recording.Load()
	messages := int64(0)
	scanEntries(entries, func(seq int64, entry []byte) {
		if !state.take(r, seq) {
			return
		}
		sent, counter, found := readMark(entry)
		if !found {
			return // not a message: the conversation's creation, a join
		}
		messages++
		if counter <= state.lastCounter {
			r.shuffled++
		}
		state.lastCounter = counter
		if recording {
			r.latency.Add(at - sent)
		}
	})
	r.delivered.Add(messages)
	if recording {
		r.measured += messages
	}
	return nil
}

// take notes a seq and says whether it is new.
func (s *Received) take(r *Receiver, seq int64) bool {
	if seq == s.last+1 {
		s.last = seq
		return true
	}
	if seq > s.last {
		r.gaps++
		if s.missing == nil {
			s.missing = map[int64]bool{}
		}
		for between := s.last + 1; between < seq; between++ {
			s.missing[between] = true
		}
		s.last = seq
		return true
	}
	if s.missing[seq] {
		delete(s.missing, seq)
		r.disordered++
		return true
	}
	r.doubles++
	return false
}

// of finds the state of a conversation; most frames are of the same one as the frame before.
func (r *Receiver) of(conversation []byte) *Received {
	if r.latest != nil && bytes.Equal(conversation, r.latestName) {
		return r.latest
	}
	state := r.received[string(conversation)]
	if state == nil {
		state = &Received{lastCounter: -1}
		r.received[string(conversation)] = state
	}
	r.latest, r.latestName = state, append(r.latestName[:0], conversation...)
	return state
}

// From forgets what came of a conversation, which is quiet: it is checked from behind this seq.
func (r *Receiver) From(conversation string, seq int64) {
	state := r.of([]byte(conversation))
	state.last, state.missing = seq, nil
	r.delivered.Store(0)
}

// Lost counts what is missing of a conversation whose last acknowledged seq this is.
func (r *Receiver) Lost(conversation string, acked int64) int64 {
	state := r.received[conversation]
	if state == nil {
		return acked
	}
	return int64(len(state.missing)) + max(0, acked-state.last)
}

// Totals are the sums over receivers.
type Totals struct {
	latency                                       Histogram
	measured, doubles, disordered, shuffled, gaps int64
}

// totalOf sums up, and returns the first receiver's error.
func totalOf(receivers []*Receiver) (*Totals, error) {
	total := &Totals{}
	for _, r := range receivers {
		total.latency.Merge(&r.latency)
		total.measured += r.measured
		total.doubles += r.doubles
		total.disordered += r.disordered
		total.shuffled += r.shuffled
		total.gaps += r.gaps
		if r.err != nil {
			return nil, r.err
		}
	}
	return total, nil
}
