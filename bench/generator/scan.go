package main

import (
	"bytes"
	"errors"
)

// The frames of the hot path are found by their field names instead of being decoded: the
// server writes JSON without spaces, and a quote within a string is escaped, so that
// `"seq":` can stand for nothing but the field.

var (
	tagAcked  = []byte(`{"t":"acked"`)
	tagPush   = []byte(`{"t":"push"`)
	tagPulled = []byte(`{"t":"pulled"`)

	fieldID           = []byte(`"id":"`)
	fieldConversation = []byte(`"conversation":"`)
	fieldSeq          = []byte(`"seq":`)
	fieldDuplicate    = []byte(`"duplicate":true`)
	fieldNext         = []byte(`"next":"`)
	messageMark       = []byte(markOpen)

	errFrame = errors.New("a frame without the fields that belong to it")
)

// Ack is one entry of an `acked` frame; the slices are valid as long as the frame.
type Ack struct {
	ID, Conversation []byte
	Seq              int64
	Duplicate        bool
}

// after returns what follows the first field in data.
func after(data, field []byte) ([]byte, bool) {
	i := bytes.Index(data, field)
	if i < 0 {
		return nil, false
	}
	return data[i+len(field):], true
}

// text returns the string whose opening quote was just passed. Ids here hold no escapes.
func text(data []byte) []byte {
	if i := bytes.IndexByte(data, '"'); i >= 0 {
		return data[:i]
	}
	return nil
}

// number returns the digits at the start of data, and how many there are.
func number(data []byte) (value int64, digits int) {
	for digits < len(data) && data[digits] >= '0' && data[digits] <= '9' {
		value = value*10 + int64(data[digits]-'0')
		digits++
	}
	return value, digits
}

// scanAcks calls each for every ack of an `acked` frame.
func scanAcks(frame []byte, each func(Ack) error) error {
	rest, found := after(frame[len(tagAcked):], fieldID)
	for found {
		end := bytes.IndexByte(rest, '}')
		if end < 0 {
			return errFrame
		}
		object := rest[:end]
		ack := Ack{ID: text(object)}
		var ok bool
		if object, ok = after(object, fieldConversation); !ok {
			return errFrame
		}
		ack.Conversation = text(object)
		if object, ok = after(object, fieldSeq); !ok {
			return errFrame
		}
		ack.Seq, _ = number(object)
		ack.Duplicate = bytes.Contains(object, fieldDuplicate)
		if err := each(ack); err != nil {
			return err
		}
		rest, found = after(rest[end:], fieldID)
	}
	return nil
}

// scanEntries calls each for every entry in data, with what stands behind its `seq`.
func scanEntries(data []byte, each func(seq int64, entry []byte)) {
	rest, found := after(data, fieldSeq)
	for found {
		seq, digits := number(rest)
		rest = rest[digits:]
		next := bytes.Index(rest, fieldSeq)
		if next < 0 {
			each(seq, rest)
			return
		}
		each(seq, rest[:next])
		rest = rest[next+len(fieldSeq):]
	}
}

// pushed returns the conversation of a `push` frame and its entries.
func pushed(frame []byte) (conversation, entries []byte, err error) {
	rest, found := after(frame, fieldConversation)
	if !found {
		return nil, nil, errFrame
	}
	return text(rest), rest, nil
}

// nextOf returns the token of a page's `next`, empty on the last page. It stands behind all
// the rest, and is short beside a page.
func nextOf(frame []byte) string {
	tail := frame
	if len(tail) > 1<<16 {
		tail = tail[len(tail)-1<<16:]
	}
	if rest, found := after(tail, fieldNext); found {
		return string(text(rest))
	}
	return ""
}
