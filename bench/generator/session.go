package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Server says where the server is and how its tokens are made.
type Server struct {
	Address string
	Minter  Minter
}

// Limits are those of `welcome` that matter here.
type Limits struct {
	UsersPerOperation int `json:"users_per_operation"`
}

// Changed is one conversation of a `synced` frame.
type Changed struct {
	Conversation string `json:"conversation"`
	Head         int64  `json:"head"`
	First        int64  `json:"first"`
}

// Frame holds the fields of every frame that is decoded whole: all but those of the hot path.
type Frame struct {
	Type          string    `json:"t"`
	Request       int       `json:"request"`
	ID            string    `json:"id"`
	Code          string    `json:"code"`
	Message       string    `json:"message"`
	Retryable     bool      `json:"retryable"`
	RetryAfter    float64   `json:"retry_after_seconds"`
	Limits        Limits    `json:"limits"`
	Cursor        int64     `json:"cursor"`
	Conversations []Changed `json:"conversations"`
	Next          string    `json:"next"`
	VectorWanted  bool      `json:"vector_wanted"`
}

// Refused is the server's `error` or `goodbye`.
type Refused struct{ Frame }

func (r Refused) Error() string {
	return fmt.Sprintf("%s %s: %s", r.Type, r.Code, r.Message)
}

// Session is a connection that was welcomed.
type Session struct {
	*Socket
	User    string
	Limits  Limits
	request int
}

// Connect opens a connection of user's endpoint and waits for `welcome`.
func Connect(server Server, user, endpoint string, push bool, readBytes int) (*Session, error) {
	socket, err := Dial(server.Address, "/v1", "trunkline.json", readBytes)
	if err != nil {
		return nil, err
	}
	session := &Session{Socket: socket, User: user}
	hello := map[string]any{"t": "hello", "token": server.Minter.Mint(user), "endpoint": endpoint,
		"versions": []int{1}, "user": user, "push": push, "agent": "bench"}
	if err := session.write(hello); err != nil {
		socket.Close()
		return nil, err
	}
	welcome, err := session.await("welcome", 0)
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("%s: %w", user, err)
	}
	session.Limits = welcome.Limits
	return session, nil
}

func (s *Session) write(frame any) error {
	payload, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	s.Queue(payload)
	return s.Flush()
}

// await reads up to the frame of this type, and of this request unless it is 0. Pushes and
// notices in between are dropped: only what a scenario sets up is read in this way.
func (s *Session) await(kind string, request int) (Frame, error) {
	s.Bound(0)
	for {
		payload, err := s.Next()
		if err != nil {
			return Frame{}, err
		}
		if bytes.HasPrefix(payload, tagPush) {
			continue
		}
		var frame Frame
		if err := json.Unmarshal(payload, &frame); err != nil {
			return Frame{}, err
		}
		switch {
		case frame.Type == kind && (request == 0 || frame.Request == request):
			return frame, nil
		case frame.Type == "error" || frame.Type == "goodbye":
			return Frame{}, Refused{frame}
		}
	}
}

// Operate sends a membership operation and returns the seq of its entry.
func (s *Session) Operate(operation map[string]any) (int64, error) {
	if err := s.write(operation); err != nil {
		return 0, err
	}
	var seq int64
	err := s.acks(0, func(ack Ack) error { seq = ack.Seq; return nil }, func() bool { return seq > 0 })
	return seq, err
}

// acks reads `acked` frames until done, at most for so long (see Bound); what else comes is
// dropped, but for refusals.
func (s *Session) acks(wait time.Duration, each func(Ack) error, done func() bool) error {
	s.Bound(wait)
	for !done() {
		payload, err := s.Next()
		if err != nil {
			return err
		}
		if bytes.HasPrefix(payload, tagAcked) {
			if err := scanAcks(payload, each); err != nil {
				return err
			}
		} else if err := refusal(payload); err != nil {
			return err
		}
	}
	return nil
}

// refusal returns the error that a frame is, if it is one.
func refusal(payload []byte) error {
	if !bytes.HasPrefix(payload, []byte(`{"t":"error"`)) &&
		!bytes.HasPrefix(payload, []byte(`{"t":"goodbye"`)) {
		return nil
	}
	var frame Frame
	if err := json.Unmarshal(payload, &frame); err != nil {
		return err
	}
	return Refused{frame}
}

// Create makes a group and adds its users in operations of the server's size. It returns head.
func (s *Session) Create(group string, users []string) (int64, error) {
	chunk := s.Limits.UsersPerOperation
	operation, head := "create", int64(0)
	for number := 0; number == 0 || len(users) > 0; number++ {
		count := min(chunk, len(users))
		var err error
		head, err = s.Operate(map[string]any{"t": operation, "conversation": group,
			"id": fmt.Sprintf("%s-%d", operation, number), "users": users[:count]})
		if err != nil {
			return 0, fmt.Errorf("%s %s: %w", operation, group, err)
		}
		operation, users = "add", users[count:]
	}
	return head, nil
}

const feedWindow = 64

// Feed sends count messages of size bytes, so many in flight, each to the conversation that
// target names for its number; it returns when all are acked. Counters go on from first.
func (s *Session) Feed(inFlight, first, count int64, size int, target func(int64) string) error {
	milliseconds := time.Now().UnixMilli()
	var sent, acked int64
	var id, frame []byte
	for acked < count {
		for ; sent < count && sent-acked < inFlight; sent++ {
			id = appendID(id[:0], milliseconds, first+sent, 0)
			frame = appendSend(frame[:0], id, "conversation", target(sent), size, now(), first+sent)
			s.Queue(frame)
		}
		if err := s.Flush(); err != nil {
			return err
		}
		before := acked
		err := s.acks(0, func(Ack) error { acked++; return nil }, func() bool { return acked > before })
		if err != nil {
			return err
		}
	}
	return nil
}
