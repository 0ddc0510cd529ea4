package main

import (
	"fmt"
	"time"
)

// runHot: n members of one group send to it all at once, w messages in flight each. They are
// not pushed, so that what is measured is how fast one conversation takes messages.
func runHot(o *Options, result *Result) (bool, error) {
	count, each := defaulted(o.Connections, 64), int64(defaulted(o.Entries, 600))
	members := userNames(o.Tag, "h", count)
	group := o.Tag + "-hot"
	sessions, err := connectAll(o, members, false, 1<<15)
	if err != nil {
		return false, err
	}
	if _, err := sessions[0].Create(group, members[1:]); err != nil {
		return false, err
	}
	usage := StartUsage(o.Processes)
	begin := now()
	err = parallel(count, count, func(i int) error {
		return sessions[i].Feed(int64(o.Window), 0, each, o.BodyBytes, func(int64) string { return group })
	})
	if err != nil {
		return false, err
	}
	seconds := float64(now()-begin) / 1e9
	usage.Stop()
	acked := int64(count) * each
	head, err := headOf(sessions[0], group)
	if err != nil {
		return false, err
	}
	result.Put("senders", count)
	result.Put("acked", acked)
	result.Put("acked_per_second", float64(acked)/seconds)
	// Its creation is the first entry: whatever is above was stored twice, below is lost.
	result.Put("doubles", max(0, head-acked-1))
	result.Put("lost", max(0, acked+1-head))
	usage.Put(result, "message", acked)
	for _, session := range sessions {
		session.Close()
	}
	return head == acked+1, nil
}

func headOf(session *Session, group string) (int64, error) {
	changed, _, err := session.Sync(NewEndpoint(fmt.Sprint(time.Now().UnixNano())))
	if err != nil {
		return 0, err
	}
	for _, c := range changed {
		if c.Conversation == group {
			return c.Head, nil
		}
	}
	return 0, fmt.Errorf("%s is in no sync", group)
}
