package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const drainSeconds = 30

// pairs is the load of senders on receivers while it runs.
type pairs struct {
	options            *Options
	senders            []*Sender
	receivers          []*Receiver
	online             map[string]*Receiver
	stop, recording    atomic.Bool
	closing            atomic.Bool
	sending, receiving sync.WaitGroup
	failed             chan error
}

// runPairs: n senders with w messages in flight each to their single conversations, and n
// receivers online. With -zipf the conversations are spread evenly over the senders; each
// sender's k-th is with user k, and the first n users are online.
func runPairs(o *Options, result *Result) (bool, error) {
	p, err := newPairs(o)
	if err != nil {
		return false, err
	}
	if o.Conversations > 0 {
		if err := p.open(); err != nil {
			return false, err
		}
	}
	usage, err := p.measure()
	if err != nil {
		return false, err
	}
	return p.report(result, usage)
}

func newPairs(o *Options) (*pairs, error) {
	count := defaulted(o.Connections, 64)
	p := &pairs{options: o, online: map[string]*Receiver{}, failed: make(chan error, count)}
	peers := max(count, (o.Conversations+count-1)/count)
	names := userNames(o.Tag, "r", peers)
	sessions, err := connectAll(o, names[:count], true, 1<<16)
	if err != nil {
		return nil, err
	}
	for i, session := range sessions {
		session.Bound(o.Warm + o.Length + time.Hour)
		receiver := NewReceiver(session, &p.recording)
		p.receivers = append(p.receivers, receiver)
		p.online[names[i]] = receiver
		receiver.Start(&p.receiving, &p.closing)
	}
	sessions, err = connectAll(o, userNames(o.Tag, "s", count), true, 1<<15)
	if err != nil {
		return nil, err
	}
	for i, session := range sessions {
		session.Bound(o.Warm + o.Length + time.Hour)
		to := names[i : i+1]
		if o.Conversations > 0 {
			to = names[:(o.Conversations-i+count-1)/count]
		}
		p.senders = append(p.senders, NewSender(session, to, o.BodyBytes, &p.stop, &p.recording))
	}
	return p, nil
}

// open makes every conversation before anything is measured, and gives workers time to learn
// who watches: of several, the receiver's hears of a new conversation only when it was made.
func (p *pairs) open() error {
	err := parallel(len(p.senders), len(p.senders), func(i int) error {
		return p.senders[i].Open(16)
	})
	for i, sender := range p.senders {
		sender.Zipf(int64(i))
	}
	time.Sleep(time.Second)
	for _, sender := range p.senders {
		for _, outgoing := range sender.outgoing {
			outgoing.ackedMessages = 0
			if receiver := p.online[outgoing.to]; receiver != nil {
				receiver.From(outgoing.id, outgoing.acked)
			}
		}
	}
	return err
}

func (p *pairs) acked() (count int64) {
	for _, sender := range p.senders {
		count += sender.acked.Load()
	}
	return count
}

// measure drives the load: warm-up, the measured time, the drain.
func (p *pairs) measure() (*Usage, error) {
	for _, sender := range p.senders {
		p.sending.Add(1)
		go func(s *Sender) {
			defer p.sending.Done()
			if err := s.Run(p.options.Window, p.interval()); err != nil {
				p.failed <- fmt.Errorf("%s: %w", s.session.User, err)
			}
		}(sender)
	}
	if err := p.wait(p.options.Warm, 0); err != nil {
		return nil, err
	}
	usage := StartUsage(p.options.Processes)
	p.recording.Store(true)
	err := p.wait(p.options.Length, p.options.Messages)
	p.recording.Store(false)
	usage.Stop()
	p.stop.Store(true)
	if err != nil {
		return nil, err
	}
	return usage, p.drain()
}

// interval is the time between two messages of one sender; 0: as soon as there is room.
func (p *pairs) interval() time.Duration {
	if p.options.Pace == 0 {
		return 0
	}
	return time.Second * time.Duration(len(p.senders)) / time.Duration(p.options.Pace)
}

// wait returns when the time is over, or, with messages, when so many are acked.
func (p *pairs) wait(length time.Duration, messages int64) error {
	end := time.Now().Add(length)
	for messages > 0 || time.Now().Before(end) {
		if messages > 0 && p.acked() >= messages {
			return nil
		}
		select {
		case err := <-p.failed:
			return err
		case <-time.After(min(20*time.Millisecond, max(0, time.Until(end))+time.Millisecond)):
		}
	}
	return nil
}

// drain waits until all is acked and all that is acked has come, then ends the connections.
func (p *pairs) drain() error {
	done := make(chan struct{})
	go func() { p.sending.Wait(); close(done) }()
	select {
	case <-done:
	case err := <-p.failed:
		return err
	case <-time.After(drainSeconds * time.Second):
		return fmt.Errorf("not everything was acked within %d s", drainSeconds)
	}
	for end := time.Now().Add(drainSeconds * time.Second); time.Now().Before(end); {
		if p.delivered() >= p.expected() {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.closing.Store(true)
	for _, receiver := range p.receivers {
		receiver.session.Close()
	}
	for _, sender := range p.senders {
		sender.session.Close()
	}
	p.receiving.Wait()
	return nil
}

func (p *pairs) delivered() (count int64) {
	for _, receiver := range p.receivers {
		count += receiver.delivered.Load()
	}
	return count
}

// expected counts the acked messages of conversations whose receiver is online.
func (p *pairs) expected() (count int64) {
	for _, sender := range p.senders {
		for _, outgoing := range sender.outgoing {
			if p.online[outgoing.to] != nil {
				count += outgoing.ackedMessages
			}
		}
	}
	return count
}

func (p *pairs) report(result *Result, usage *Usage) (bool, error) {
	total, err := totalOf(p.receivers)
	if err != nil {
		return false, err
	}
	var latency Histogram
	refused := map[string]int64{}
	var acked, lost, misplaced int64
	for _, sender := range p.senders {
		latency.Merge(&sender.latency)
		acked += sender.measured
		for code, count := range sender.refused {
			refused[code] += count
		}
		for _, outgoing := range sender.outgoing {
			misplaced += outgoing.misplaced
			if receiver := p.online[outgoing.to]; receiver != nil {
				lost += receiver.Lost(outgoing.id, outgoing.acked)
			}
		}
	}
	disordered := total.disordered
	if len(refused) == 0 { // a message sent again after a refusal rightly comes later
		disordered += total.shuffled
	}
	result.Put("pairs", len(p.senders))
	result.Put("in_flight", p.options.Window)
	result.Put("conversations", max(len(p.senders), p.options.Conversations))
	result.Put("seconds", usage.seconds)
	result.Put("acked_per_second", float64(acked)/usage.seconds)
	result.Put("delivered_per_second", float64(total.measured)/usage.seconds)
	putLatency(result, "ack", &latency)
	putLatency(result, "delivery", &total.latency)
	result.Put("acked", p.acked())
	result.Put("lost", lost)
	result.Put("doubles", total.doubles)
	result.Put("out_of_order", disordered)
	result.Put("gaps", total.gaps)
	result.Put("acks_misplaced", misplaced)
	result.Put("refused", refused)
	usage.Put(result, "message", acked)
	return lost == 0 && total.doubles == 0 && disordered == 0 && misplaced == 0, nil
}

func putLatency(result *Result, what string, latency *Histogram) {
	result.Put(what+"_p50_ms", latency.Milliseconds(0.5))
	result.Put(what+"_p99_ms", latency.Milliseconds(0.99))
	result.Put(what+"_max_ms", latency.Milliseconds(1))
}
