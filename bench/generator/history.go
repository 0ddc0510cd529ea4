package main

import "fmt"

// runHistory: how long 80 entries at the end of a conversation of 3,000 take, and 1,000 from its
// middle. Each round asks for another range: a range asked again may come from a page kept.
func runHistory(o *Options, result *Result) (bool, error) {
	const total, newest, middle, length = 3000, 80, 1000, 1000
	user := o.Tag + "-reader"
	bot, err := Connect(o.Server, o.Tag+"-writer", "phone", true, 1<<15)
	if err != nil {
		return false, err
	}
	group := o.Tag + "-history"
	head, err := bot.Create(group, []string{user})
	if err != nil {
		return false, err
	}
	if err := bot.Feed(feedWindow, 0, total, o.BodyBytes, func(int64) string { return group }); err != nil {
		return false, err
	}
	head += total
	if err := o.between(); err != nil {
		return false, err
	}
	readsBefore, err := readCounters(o.Metrics)
	if err != nil {
		return false, err
	}
	session, err := Connect(o.Server, user, "phone", false, 1<<17)
	if err != nil {
		return false, err
	}
	few, _, fewRequests, err := pullOften(session, Range{group, head - newest, head}, o.Rounds)
	if err != nil {
		return false, err
	}
	many, first, manyRequests, err := pullOften(session, Range{group, middle, middle + length}, o.Rounds)
	if err != nil {
		return false, err
	}
	result.Put("newest_80_ms", few)
	result.Put("newest_80_requests", fewRequests)
	result.Put("range_1000_ms", many)
	result.Put("range_1000_first_ms", first)
	result.Put("range_1000_requests", manyRequests)
	if err := putReads(result, o.Metrics, readsBefore); err != nil {
		return false, err
	}
	bot.Close()
	session.Close()
	return true, nil
}

// pullOften returns the median in milliseconds of 4 pulls a round, each of a range that begins
// and ends one earlier than that before it, the time of the first, for which nothing was opened
// before, and the requests of one.
func pullOften(session *Session, asked Range, rounds int) (often, first float64, requests int, err error) {
	var times []float64
	for round := 0; round < 4*rounds; round++ {
		begin := now()
		entries, asks, err := session.Pull(NewEndpoint("phone"), []Range{asked})
		if err != nil {
			return 0, 0, 0, err
		}
		asked.After, asked.UpTo = asked.After-1, asked.UpTo-1
		times, requests = append(times, float64(now()-begin)/1e6), asks
		if int64(entries) != asked.UpTo-asked.After {
			return 0, 0, 0, fmt.Errorf("%d entries instead of %d", entries, asked.UpTo-asked.After)
		}
	}
	first = times[0]
	return median(times), first, requests, nil
}
