package main

import (
	"sync/atomic"
	"time"
)

// runReturning: pairs with one message in flight send at a fixed rate, first alone, then while
// members of many conversations, who hold everything, all return at once, again and again.
func runReturning(o *Options, result *Result) (bool, error) {
	count, conversations := defaulted(o.Connections, 100), defaulted(o.Entries, 2000)
	members := userNames(o.Tag, "m", count)
	bot, err := Connect(o.Server, o.Tag+"-bot", "phone", true, 1<<15)
	if err != nil {
		return false, err
	}
	for _, group := range userNames(o.Tag, "g", conversations) {
		if _, err := bot.Create(group, members); err != nil {
			return false, err
		}
	}
	phones := make([]*Endpoint, count)
	err = parallel(count, 4, func(i int) error {
		phones[i] = NewEndpoint(members[i] + "-phone")
		return comeBack(o, members[i], phones[i])
	})
	if err != nil {
		return false, err
	}
	alone, alright, err := pairsBeside(o, "alone")
	if err != nil {
		return false, err
	}
	var stop atomic.Bool
	var rounds atomic.Int64
	returned := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !stop.Load() {
			err = parallel(count, count, func(i int) error {
				return comeBack(o, members[i], phones[i])
			})
			rounds.Add(1)
		}
		returned <- err
	}()
	begin := time.Now()
	beside, correct, err := pairsBeside(o, "beside")
	stop.Store(true)
	if err := <-returned; err != nil {
		return false, err
	}
	if err != nil {
		return false, err
	}
	result.Put("members", count)
	result.Put("conversations", conversations)
	result.Put("returned_per_second", float64(rounds.Load()*int64(count))/time.Since(begin).Seconds())
	for _, name := range []string{"acked_per_second", "ack_p50_ms", "ack_p99_ms"} {
		result.Put(name, beside.Float(name))
	}
	result.Put("alone_p99_ms", alone.Float("ack_p99_ms"))
	result.Put("p99_ratio", beside.Float("ack_p99_ms")/alone.Float("ack_p99_ms"))
	return alright && correct, nil
}

// pairsBeside are pairs with users of their own, and what they measured.
func pairsBeside(o *Options, tag string) (*Result, bool, error) {
	of := *o
	of.Tag, of.Connections, of.Window = o.Tag+"-"+tag, 32, 1
	of.Pace = defaulted(o.Pace, 500)
	result := &Result{}
	correct, err := runPairs(&of, result)
	return result, correct, err
}
