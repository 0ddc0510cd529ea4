package main

import "time"

// runReady: asks until the server acknowledges a message, and tells the time of day of that.
func runReady(o *Options, result *Result) (bool, error) {
	end := time.Now().Add(max(o.Length, time.Minute))
	for attempt := int64(0); ; attempt++ {
		err := sendOne(o, attempt)
		if err == nil {
			result.Put("ready_unix_ms", time.Now().UnixMilli())
			result.Put("attempts", attempt+1)
			return true, nil
		}
		if time.Now().After(end) {
			return false, err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func sendOne(o *Options, number int64) error {
	session, err := Connect(o.Server, o.Tag+"-first", "phone", false, 4096)
	if err != nil {
		return err
	}
	defer session.Close()
	id := appendID(nil, time.Now().UnixMilli(), number, 0)
	session.Queue(appendSend(nil, id, "to", o.Tag+"-second", o.BodyBytes, now(), number))
	if err := session.Flush(); err != nil {
		return err
	}
	acked := false
	return session.acks(0, func(Ack) error { acked = true; return nil }, func() bool { return acked })
}
