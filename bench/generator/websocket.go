package main

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"time"
)

const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA

	dialTimeout = 20 * time.Second
	// A server that says nothing for so long has failed the run.
	silenceTimeout = 60 * time.Second
)

var errSilent = errors.New("the server said nothing for a minute")

// Socket is the client's end of a WebSocket (RFC 6455). Reads belong to one goroutine; writes
// are gathered by Queue and leave with Flush, in one system call.
type Socket struct {
	net     net.Conn
	reader  *bufio.Reader
	unread  int    // bytes of the message handed out last, still in the reader
	large   []byte // holds messages that the reader's buffer cannot
	writing sync.Mutex
	out     []byte
	mask    uint32
}

// Dial connects and makes the opening handshake. readBytes is the size of the read buffer.
func Dial(address, path, subprotocol string, readBytes int) (*Socket, error) {
	conn, err := net.DialTimeout("tcp", address, dialTimeout)
	if err != nil {
		return nil, err
	}
	s := &Socket{net: conn, reader: bufio.NewReaderSize(conn, readBytes), mask: 0x9E3779B9}
	if err := s.handshake(address, path, subprotocol); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *Socket) handshake(address, path, subprotocol string) error {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	key := base64.StdEncoding.EncodeToString(nonce[:])
	s.net.SetDeadline(time.Now().Add(dialTimeout))
	defer s.net.SetDeadline(time.Time{})
	_, err := fmt.Fprintf(s.net, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\n"+
		"Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Protocol: %s\r\n\r\n", path, address, key, subprotocol)
	if err != nil {
		return err
	}
	text := textproto.NewReader(s.reader)
	status, err := text.ReadLine()
	if err != nil {
		return err
	}
	header, err := text.ReadMIMEHeader()
	if err != nil {
		return err
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	switch {
	case !strings.HasPrefix(status, "HTTP/1.1 101"):
		return fmt.Errorf("handshake refused: %s", status)
	case header.Get("Sec-Websocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]):
		return errors.New("handshake: wrong Sec-WebSocket-Accept")
	case header.Get("Sec-Websocket-Protocol") != subprotocol:
		return fmt.Errorf("handshake: subprotocol %q", header.Get("Sec-Websocket-Protocol"))
	}
	return nil
}

// Queue adds one text message to what the next Flush writes.
func (s *Socket) Queue(payload []byte) {
	s.writing.Lock()
	s.queue(opText, payload)
	s.writing.Unlock()
}

func (s *Socket) queue(opcode byte, payload []byte) {
	size := len(payload)
	s.out = append(s.out, 0x80|opcode)
	switch {
	case size < 126:
		s.out = append(s.out, 0x80|byte(size))
	case size < 1<<16:
		s.out = append(s.out, 0x80|126)
		s.out = binary.BigEndian.AppendUint16(s.out, uint16(size))
	default:
		s.out = append(s.out, 0x80|127)
		s.out = binary.BigEndian.AppendUint64(s.out, uint64(size))
	}
	s.mask = s.mask*1664525 + 1013904223
	s.out = binary.LittleEndian.AppendUint32(s.out, s.mask)
	start := len(s.out)
	s.out = append(s.out, payload...)
	xor(s.out[start:], s.mask)
}

// xor masks in place, eight bytes a step.
func xor(data []byte, mask uint32) {
	wide := uint64(mask)<<32 | uint64(mask)
	for len(data) >= 8 {
		binary.LittleEndian.PutUint64(data, binary.LittleEndian.Uint64(data)^wide)
		data = data[8:]
	}
	for i := range data {
		data[i] ^= byte(mask >> (8 * (i & 3)))
	}
}

// Flush writes what was queued.
func (s *Socket) Flush() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.net.Write(s.out)
	s.out = s.out[:0]
	return err
}

// Idle says whether nothing more can be read without waiting.
func (s *Socket) Idle() bool { return s.reader.Buffered() <= s.unread }

// Next returns the next text message, valid until the call after it. Pings are answered.
func (s *Socket) Next() ([]byte, error) {
	for {
		opcode, payload, err := s.message()
		if err != nil {
			return nil, err
		}
		switch opcode {
		case opText:
			return payload, nil
		case opPing:
			s.writing.Lock()
			s.queue(opPong, payload)
			s.writing.Unlock()
			if err := s.Flush(); err != nil {
				return nil, err
			}
		case opPong:
		case opClose:
			if len(payload) >= 2 {
				return nil, fmt.Errorf("closed by the server: %d %s",
					binary.BigEndian.Uint16(payload), payload[2:])
			}
			return nil, io.EOF
		default:
			return nil, fmt.Errorf("a WebSocket message of type %d", opcode)
		}
	}
}

func (s *Socket) message() (byte, []byte, error) {
	if _, err := s.reader.Discard(s.unread); err != nil {
		return 0, nil, err
	}
	s.unread = 0
	head, err := s.reader.Peek(2)
	if err != nil {
		return 0, nil, err
	}
	opcode, size, headBytes := head[0], int(head[1]), 2
	if opcode&0x80 == 0 {
		return 0, nil, errors.New("a fragmented WebSocket message")
	}
	switch size {
	case 126:
		headBytes = 4
		if head, err = s.reader.Peek(headBytes); err != nil {
			return 0, nil, err
		}
		size = int(binary.BigEndian.Uint16(head[2:]))
	case 127:
		headBytes = 10
		if head, err = s.reader.Peek(headBytes); err != nil {
			return 0, nil, err
		}
		size = int(binary.BigEndian.Uint64(head[2:]))
	}
	if _, err = s.reader.Discard(headBytes); err != nil {
		return 0, nil, err
	}
	if size <= s.reader.Size() {
		payload, err := s.reader.Peek(size)
		s.unread = size
		return opcode & 0xF, payload, err
	}
	if cap(s.large) < size {
		s.large = make([]byte, size)
	}
	_, err = io.ReadFull(s.reader, s.large[:size])
	return opcode & 0xF, s.large[:size], err
}

// Bound limits how long reads may still wait; zero: silenceTimeout from now.
func (s *Socket) Bound(wait time.Duration) {
	if wait == 0 {
		wait = silenceTimeout
	}
	s.net.SetReadDeadline(time.Now().Add(wait))
}

// Deafen lets the kernel take little of what nobody reads.
func (s *Socket) Deafen() error {
	return s.net.(*net.TCPConn).SetReadBuffer(4096)
}

// Close ends the connection without a closing handshake.
func (s *Socket) Close() { s.net.Close() }
