package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// runGroup: one sender writes to a group of n members, all online, at a fixed rate.
func runGroup(o *Options, result *Result) (bool, error) {
	count := defaulted(o.Connections, 500)
	members := userNames(o.Tag, "m", count)
	sender, err := Connect(o.Server, o.Tag+"-sender", "phone", true, 1<<15)
	if err != nil {
		return false, err
	}
	group := o.Tag + "-group"
	deaf := userNames(o.Tag, "deaf", o.Deaf)
	head, err := sender.Create(group, append(deaf, members...))
	if err != nil {
		return false, err
	}
	var recording, closing atomic.Bool
	var reading sync.WaitGroup
	sessions, err := connectAll(o, members, true, 1<<14)
	if err != nil {
		return false, err
	}
	receivers := make([]*Receiver, count)
	for i, session := range sessions {
		session.Bound(longest(o))
		receivers[i] = NewReceiver(session, &recording)
		receivers[i].of([]byte(group)).last = head
		receivers[i].Start(&reading, &closing)
	}
	silent, err := connectDeaf(o, deaf)
	if err != nil {
		return false, err
	}
	growth := watchGrowth(o.Processes)
	ticker := newTicker(sender, group, o)
	usage, err := ticker.run(&recording)
	if err != nil {
		return false, err
	}
	expected := ticker.sent * int64(count)
	for end := time.Now().Add(drainSeconds * time.Second); time.Now().Before(end); {
		if deliveredTo(receivers) >= expected && ticker.acked.Load() == ticker.sent {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	closing.Store(true)
	result.Put("grown_mib", growth()/1024)
	sender.Close()
	for _, session := range append(sessions, silent...) {
		session.Close()
	}
	reading.Wait()
	return reportGroup(o, result, ticker, receivers, usage)
}

// watchGrowth looks at the memory of processes until the function that it returns is called, which
// tells by how much it had grown at most, in KiB.
func watchGrowth(processes Processes) func() float64 {
	before := processes.ResidentKiB()
	end, most := make(chan struct{}), make(chan float64)
	go func() {
		highest := before
		for {
			highest = max(highest, processes.ResidentKiB())
			select {
			case <-end:
				most <- highest - before
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() float64 {
		close(end)
		return <-most
	}
}

// connectDeaf connects members that are welcomed and read nothing from then on.
func connectDeaf(o *Options, users []string) ([]*Session, error) {
	sessions, err := connectAll(o, users, true, 1<<12)
	if err != nil {
		return nil, err
	}
	for _, session := range sessions {
		if err := session.Deafen(); err != nil {
			return nil, err
		}
	}
	return sessions, nil
}

// longest is how long a reader may have to wait for the last message.
func longest(o *Options) time.Duration {
	return o.Warm + o.Length + 2*drainSeconds*time.Second
}

func deliveredTo(receivers []*Receiver) (count int64) {
	for _, receiver := range receivers {
		count += receiver.delivered.Load()
	}
	return count
}

func reportGroup(o *Options, result *Result, ticker *ticker, receivers []*Receiver,
	usage *Usage) (bool, error) {
	total, err := totalOf(receivers)
	if err != nil {
		return false, err
	}
	lost := ticker.sent*int64(len(receivers)) - deliveredTo(receivers)
	unacked := ticker.sent - ticker.acked.Load()
	result.Put("members", len(receivers))
	result.Put("rate", o.Rate)
	result.Put("seconds", usage.seconds)
	result.Put("deliveries_per_second", float64(total.measured)/usage.seconds)
	putLatency(result, "delivery", &total.latency)
	putLatency(result, "ack", &ticker.latency)
	result.Put("sent", ticker.sent)
	result.Put("unacked", unacked)
	result.Put("lost", lost)
	result.Put("doubles", total.doubles)
	result.Put("out_of_order", total.disordered+total.shuffled)
	result.Put("gaps", total.gaps)
	result.Put("latest_send_ms", float64(ticker.latest)/1e6)
	usage.Put(result, "delivery", total.measured)
	return lost == 0 && unacked == 0 && total.doubles == 0 && total.disordered+total.shuffled == 0, nil
}

// ticker sends at a fixed rate, whether or not answers come.
type ticker struct {
	session *Session
	group   string
	options *Options
	sent    int64
	latest  int64 // how late the latest send left, in nanoseconds
	acked   atomic.Int64
	latency Histogram
	failed  chan error
}

func newTicker(session *Session, group string, o *Options) *ticker {
	return &ticker{session: session, group: group, options: o, failed: make(chan error, 1)}
}

func (t *ticker) run(recording *atomic.Bool) (*Usage, error) {
	interval := int64(time.Second) / int64(t.options.Rate)
	warm := int64(t.options.Warm) / interval
	count := warm + int64(t.options.Length)/interval
	base := time.Now().UnixMilli()
	sentAt := make([]int64, count) // by slot; the reader sees an element only after its send
	go t.read(sentAt, count, recording)
	var usage *Usage
	var id, frame []byte
	begin := now()
	for n := int64(0); n < count; n++ {
		if n == warm {
			usage = StartUsage(t.options.Processes)
			recording.Store(true)
		}
		due := begin + n*interval
		if wait := due - now(); wait > 0 {
			time.Sleep(time.Duration(wait))
		}
		at := now()
		t.latest = max(t.latest, at-due)
		atomic.StoreInt64(&sentAt[n], at)
		id = appendID(id[:0], base, n, int(n&0xFFFF))
		frame = appendSend(frame[:0], id, "conversation", t.group, t.options.BodyBytes, at, n)
		t.session.Queue(frame)
		if err := t.session.Flush(); err != nil {
			return nil, err
		}
		t.sent++
		select {
		case err := <-t.failed:
			return nil, err
		default:
		}
	}
	recording.Store(false)
	usage.Stop()
	return usage, nil
}

// read takes the acks, which come in the order of the sends.
func (t *ticker) read(sentAt []int64, count int64, recording *atomic.Bool) {
	next := int64(0)
	err := t.session.acks(longest(t.options), func(ack Ack) error {
		if slotOf(ack.ID) != int(next&0xFFFF) {
			return fmt.Errorf("an ack of %q instead of number %d", ack.ID, next)
		}
		if recording.Load() {
			t.latency.Add(now() - atomic.LoadInt64(&sentAt[next]))
		}
		next++
		t.acked.Store(next)
		return nil
	}, func() bool { return next == count })
	if err != nil {
		t.failed <- err
	}
}
