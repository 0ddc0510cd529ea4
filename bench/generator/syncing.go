package main

import (
	"fmt"
	"time"
)

const changedConversations = 10

// runSync: a member of 2,000 conversations syncs: with an empty endpoint, with nothing new,
// and with 10 conversations changed, which it then pulls.
func runSync(o *Options, result *Result) (bool, error) {
	count := defaulted(o.Entries, 2000)
	user := o.Tag + "-member"
	bot, groups, err := makeGroups(o, user, count)
	if err != nil {
		return false, err
	}
	usage := StartUsage(o.Processes)
	colds, coldRequests, err := coldSyncs(o, user, count)
	if err != nil {
		return false, err
	}
	session, err := Connect(o.Server, user, "phone", false, 1<<17)
	if err != nil {
		return false, err
	}
	phone := NewEndpoint("phone")
	begin := now()
	changed, _, err := session.Sync(phone)
	if err != nil {
		return false, err
	}
	entries, _, err := session.CatchUp(phone, changed)
	if err != nil {
		return false, err
	}
	caughtUp := float64(now()-begin) / 1e6
	warm := &warmSyncs{bot: bot, session: session, phone: phone, groups: groups, body: o.BodyBytes}
	for round := 0; round < o.Rounds; round++ {
		if err := warm.round(round); err != nil {
			return false, err
		}
	}
	usage.Stop()
	result.Put("conversations", count)
	result.Put("changed_ms", median(warm.changed))
	result.Put("changed_sync_ms", median(warm.changedSync))
	result.Put("changed_requests", warm.changedRequests)
	result.Put("nothing_ms", median(warm.nothing))
	result.Put("nothing_requests", warm.nothingRequests)
	result.Put("cold_first_ms", colds[0])
	result.Put("cold_ms", median(colds))
	result.Put("cold_requests", coldRequests)
	result.Put("cold_and_pulled_ms", caughtUp)
	result.Put("pulled_entries", entries)
	usage.Put(result, "sync", 0)
	bot.Close()
	session.Close()
	return true, nil
}

// makeGroups makes count groups of a bot and user, with 5 messages in each.
func makeGroups(o *Options, user string, count int) (*Session, []string, error) {
	const messages = 5
	bot, err := Connect(o.Server, o.Tag+"-bot", "phone", true, 1<<15)
	if err != nil {
		return nil, nil, err
	}
	groups := make([]string, count)
	for i := range groups {
		groups[i] = fmt.Sprintf("%s-g%d", o.Tag, i)
		if _, err := bot.Create(groups[i], []string{user}); err != nil {
			return nil, nil, err
		}
	}
	return bot, groups, bot.Feed(feedWindow, 0, int64(messages*count), o.BodyBytes, func(n int64) string {
		return groups[n%int64(count)]
	})
}

// coldSyncs syncs endpoints that the server has never seen, to the last page.
func coldSyncs(o *Options, user string, count int) (times []float64, requests int, err error) {
	for round := 0; round < o.Rounds; round++ {
		endpoint := NewEndpoint(fmt.Sprintf("cold%d", round))
		session, err := Connect(o.Server, user, endpoint.Name, false, 1<<17)
		if err != nil {
			return nil, 0, err
		}
		begin := now()
		changed, asked, err := session.Sync(endpoint)
		session.Close()
		if err != nil {
			return nil, 0, err
		}
		times, requests = append(times, float64(now()-begin)/1e6), asked
		if len(changed) != count {
			return nil, 0, fmt.Errorf("a cold sync of %d instead of %d", len(changed), count)
		}
	}
	return times, requests, nil
}

// warmSyncs are those of an endpoint that holds everything.
type warmSyncs struct {
	bot, session                     *Session
	phone                            *Endpoint
	groups                           []string
	body                             int
	changed, changedSync, nothing    []float64
	changedRequests, nothingRequests int
}

func (w *warmSyncs) round(number int) error {
	begin := now()
	changed, requests, err := w.session.Sync(w.phone)
	if err != nil {
		return err
	}
	w.nothing, w.nothingRequests = append(w.nothing, float64(now()-begin)/1e6), requests
	if len(changed) != 0 {
		return fmt.Errorf("a sync of %d where nothing was new", len(changed))
	}
	stride := len(w.groups) / changedConversations
	first := int64(1_000_000 + number*changedConversations)
	err = w.bot.Feed(feedWindow, first, changedConversations, w.body, func(n int64) string {
		return w.groups[int(n)*stride+number%stride]
	})
	if err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	begin = now()
	if changed, requests, err = w.session.Sync(w.phone); err != nil {
		return err
	}
	w.changedSync = append(w.changedSync, float64(now()-begin)/1e6)
	if len(changed) != changedConversations {
		return fmt.Errorf("a sync of %d instead of %d", len(changed), changedConversations)
	}
	ranges := make([]Range, len(changed))
	for i, c := range changed {
		ranges[i] = Range{c.Conversation, w.phone.Held[c.Conversation], c.Head}
	}
	entries, pulls, err := w.session.Pull(w.phone, ranges)
	if err != nil {
		return err
	}
	w.changed = append(w.changed, float64(now()-begin)/1e6)
	w.changedRequests = requests + pulls
	if entries != changedConversations {
		return fmt.Errorf("pulled %d entries instead of %d", entries, changedConversations)
	}
	names := make([]string, len(changed))
	for i, c := range changed {
		names[i] = c.Conversation
	}
	return w.session.Confirm(w.phone, names)
}
