package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"sort"
	"sync/atomic"
	"time"
)

// Outgoing is a single conversation as its only sender knows it.
type Outgoing struct {
	to    string
	id    string
	acked int64 // highest acknowledged seq; 1 is the conversation's creation
	ackedMessages,
	misplaced int64 // acks whose seq was not the one after the last
}

// slot is one place of the window: a message in flight.
type slot struct {
	sentAt  int64
	counter int64
	target  int32
}

// Sender keeps its window full of messages to its conversations.
type Sender struct {
	session   *Session
	size      int
	outgoing  []*Outgoing
	weights   []float64 // running sums; empty: the first conversation gets all
	random    *rand.Rand
	slots     []slot
	base      int64 // milliseconds that its ids start with
	counter   int64
	inFlight  int
	stop      *atomic.Bool
	recording *atomic.Bool
	acked     atomic.Int64
	measured  int64
	latency   Histogram
	refused   map[string]int64
	id, frame []byte
}

// NewSender takes what all senders share and its own users to send to.
func NewSender(session *Session, to []string, size int, stop, recording *atomic.Bool) *Sender {
	s := &Sender{session: session, size: size, stop: stop, recording: recording,
		base: time.Now().UnixMilli(), refused: map[string]int64{},
		random: rand.New(rand.NewSource(int64(len(to))))}
	for _, user := range to {
		s.outgoing = append(s.outgoing, &Outgoing{to: user, acked: 1,
			id: singleConversation(session.User, user)})
	}
	return s
}

// Zipf spreads what follows over the conversations: the k-th gets a share of 1/k.
func (s *Sender) Zipf(seed int64) {
	s.random = rand.New(rand.NewSource(seed))
	s.weights = make([]float64, len(s.outgoing))
	sum := 0.0
	for k := range s.weights {
		sum += 1 / float64(k+1)
		s.weights[k] = sum
	}
}

func (s *Sender) pick() int32 {
	if len(s.weights) == 0 {
		return 0
	}
	drawn := s.random.Float64() * s.weights[len(s.weights)-1]
	return int32(sort.SearchFloat64s(s.weights, drawn))
}

// Open sends one message to each conversation, so that all of them exist.
func (s *Sender) Open(window int) error {
	next := int32(0)
	return s.drive(window, func() (int32, bool) {
		next++
		return next - 1, int(next) <= len(s.outgoing)
	})
}

// Run sends with a full window until it is told to stop and the last is acked. With an interval
// a message waits until so long after the one before, which makes sense with a window of one.
func (s *Sender) Run(window int, interval time.Duration) error {
	due := now() + rand.Int63n(int64(interval)+1)
	return s.drive(window, func() (int32, bool) {
		if interval > 0 {
			time.Sleep(time.Duration(due - now()))
			due = max(due+int64(interval), now())
		}
		return s.pick(), !s.stop.Load()
	})
}

func (s *Sender) drive(window int, target func() (int32, bool)) error {
	s.slots = make([]slot, window)
	refill := func(place int) {
		if chosen, more := target(); more {
			s.slots[place] = slot{now(), s.counter, chosen}
			s.counter++
			s.inFlight++
			s.queue(place)
		}
	}
	for place := range s.slots {
		refill(place)
	}
	if err := s.session.Flush(); err != nil {
		return err
	}
	for s.inFlight > 0 {
		frame, err := s.session.Next()
		if err != nil {
			return err
		}
		if bytes.HasPrefix(frame, tagAcked) {
			err = s.acknowledged(frame, refill)
		} else {
			err = s.refusedBy(frame)
		}
		if err != nil {
			return err
		}
		if s.session.Idle() {
			if err := s.session.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Sender) queue(place int) {
	message := &s.slots[place]
	s.id = appendID(s.id[:0], s.base, message.counter, place)
	s.frame = appendSend(s.frame[:0], s.id, "to", s.outgoing[message.target].to, s.size,
		message.sentAt, message.counter)
	s.session.Queue(s.frame)
}

func (s *Sender) acknowledged(frame []byte, refill func(int)) error {
	at, recording, count := now(), s.recording.Load(), int64(0)
	err := scanAcks(frame, func(ack Ack) error {
		place := slotOf(ack.ID)
		if place < 0 || place >= len(s.slots) {
			return fmt.Errorf("an ack of %q, which was not sent", ack.ID)
		}
		message := &s.slots[place]
		outgoing := s.outgoing[message.target]
		if string(ack.Conversation) != outgoing.id {
			return fmt.Errorf("an ack of %q in %q", ack.ID, ack.Conversation)
		}
		if ack.Seq != outgoing.acked+1 {
			outgoing.misplaced++
		}
		outgoing.acked = max(outgoing.acked, ack.Seq)
		outgoing.ackedMessages++
		if recording {
			s.latency.Add(at - message.sentAt)
		}
		count++
		s.inFlight--
		refill(place)
		return nil
	})
	s.acked.Add(count)
	if recording {
		s.measured += count
	}
	return err
}

// refusedBy waits and sends again, with the same id, what was refused and may be retried.
func (s *Sender) refusedBy(payload []byte) error {
	refused := refusal(payload)
	if refused == nil {
		return nil
	}
	var frame Frame
	if err := json.Unmarshal(payload, &frame); err != nil {
		return err
	}
	place := slotOf([]byte(frame.ID))
	if !frame.Retryable || place < 0 || place >= len(s.slots) {
		return refused
	}
	s.refused[frame.Code]++
	time.Sleep(time.Duration(max(frame.RetryAfter, 0.01) * float64(time.Second)))
	s.queue(place)
	return nil
}
