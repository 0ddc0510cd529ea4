package main

import (
	"bytes"
	"fmt"
)

// Endpoint is what a device keeps between its connections: last contiguous seqs and a cursor.
type Endpoint struct {
	Name   string
	Held   map[string]int64
	Cursor int64
}

// NewEndpoint holds nothing.
func NewEndpoint(name string) *Endpoint {
	return &Endpoint{Name: name, Held: map[string]int64{}}
}

// Sync asks what changed until the last page came. It returns that and the requests made.
func (s *Session) Sync(e *Endpoint) (changed []Changed, requests int, err error) {
	question := map[string]any{"t": "sync", "cursor": e.Cursor,
		"vector_digest": vectorDigest(e.Held)}
	for {
		s.request++
		requests++
		question["request"] = s.request
		if err := s.write(question); err != nil {
			return nil, requests, err
		}
		page, err := s.await("synced", s.request)
		if err != nil {
			return nil, requests, err
		}
		if page.VectorWanted {
			if _, sent := question["vector"]; sent {
				return nil, requests, fmt.Errorf("the vector was sent and is wanted again")
			}
			question["vector"] = e.Held
			continue
		}
		changed = append(changed, page.Conversations...)
		if page.Next == "" {
			e.Cursor = page.Cursor
			return changed, requests, nil
		}
		question["next"] = page.Next
	}
}

// Range is after+1..UpTo of a conversation; UpTo 0: to the end of the view.
type Range struct {
	Conversation string `json:"conversation"`
	After        int64  `json:"after"`
	UpTo         int64  `json:"up_to,omitempty"`
}

// Pull reads ranges to their last page, checking that every run goes on contiguously from
// what came before it. It returns entries and requests, and moves what the endpoint holds.
func (s *Session) Pull(e *Endpoint, ranges []Range) (entries, requests int, err error) {
	for _, asked := range ranges {
		e.Held[asked.Conversation] = asked.After
	}
	question := map[string]any{"t": "pull", "ranges": ranges}
	for {
		s.request++
		requests++
		question["request"] = s.request
		if err := s.write(question); err != nil {
			return entries, requests, err
		}
		page, err := s.awaitPulled()
		if err != nil {
			return entries, requests, err
		}
		count, err := e.take(page)
		entries += count
		if err != nil {
			return entries, requests, err
		}
		next := nextOf(page)
		if next == "" {
			return entries, requests, nil
		}
		question = map[string]any{"t": "pull", "next": next}
	}
}

func (s *Session) awaitPulled() ([]byte, error) {
	s.Bound(0)
	for {
		payload, err := s.Next()
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(payload, tagPulled) {
			return payload, nil
		}
		if err := refusal(payload); err != nil {
			return nil, err
		}
	}
}

// take walks over the runs of a page.
func (e *Endpoint) take(page []byte) (entries int, err error) {
	rest, found := after(page, fieldConversation)
	for found {
		conversation := string(text(rest))
		run := rest
		next := bytes.Index(rest, fieldConversation)
		if next >= 0 {
			run = rest[:next]
		}
		last := e.Held[conversation]
		scanEntries(run, func(seq int64, _ []byte) {
			if seq != last+1 && err == nil {
				err = fmt.Errorf("pulled %d after %d of %s", seq, last, conversation)
			}
			last = seq
			entries++
		})
		e.Held[conversation] = last
		if err != nil || next < 0 {
			return entries, err
		}
		rest = rest[next+len(fieldConversation):]
	}
	return entries, nil
}

// Confirm tells the server what the endpoint holds of these conversations.
func (s *Session) Confirm(e *Endpoint, conversations []string) error {
	const most = 500 // conversations a frame, to stay below every frame limit
	for len(conversations) > 0 {
		count := min(most, len(conversations))
		offsets := map[string]int64{}
		for _, conversation := range conversations[:count] {
			offsets[conversation] = e.Held[conversation]
		}
		s.request++
		err := s.write(map[string]any{"t": "confirm", "offsets": offsets, "request": s.request})
		if err != nil {
			return err
		}
		if _, err := s.await("done", s.request); err != nil {
			return err
		}
		conversations = conversations[count:]
	}
	return nil
}

// CatchUp pulls and confirms all that a sync found; it returns entries and requests.
func (s *Session) CatchUp(e *Endpoint, changed []Changed) (entries, requests int, err error) {
	var ranges []Range
	var names []string
	for _, c := range changed {
		ranges = append(ranges, Range{c.Conversation, max(e.Held[c.Conversation], c.First-1), c.Head})
		names = append(names, c.Conversation)
	}
	const most = 200 // ranges a pull
	for len(ranges) > 0 {
		count := min(most, len(ranges))
		got, asked, err := s.Pull(e, ranges[:count])
		entries, requests = entries+got, requests+asked
		if err != nil {
			return entries, requests, err
		}
		ranges = ranges[count:]
	}
	return entries, requests + (len(names)+499)/500, s.Confirm(e, names)
}
