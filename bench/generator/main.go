// Generator loads a running server over loopback and checks what comes back: nothing lost,
// nothing twice, nothing out of order.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// Options are the flags.
type Options struct {
	Server        Server
	Processes     Processes
	Tag           string
	Connections   int
	Deaf          int
	Window        int
	Conversations int
	BodyBytes     int
	Rate          int
	Entries       int
	Rounds        int
	Messages      int64
	Warm, Length  time.Duration
	Metrics       string
	Pace          int
	Between       string
	ShowJSON      bool
}

// scenarios by name; each returns whether every check held.
var scenarios = map[string]func(*Options, *Result) (bool, error){
	"pairs":     runPairs,
	"group":     runGroup,
	"idle":      runIdle,
	"sync":      runSync,
	"history":   runHistory,
	"herd":      runHerd,
	"returning": runReturning,
	"hot":       runHot,
	"ready":     runReady,
}

func parse() (string, *Options, error) {
	o := &Options{}
	scenario := flag.String("scenario", "pairs", "pairs, group, idle, sync, history, herd, returning, hot, ready")
	flag.StringVar(&o.Server.Address, "address", "127.0.0.1:8780", "where the server listens")
	keyID := flag.String("key-id", "bench", "the key id that tokens name")
	secret := flag.String("secret", "", "the key's secret, base64url")
	pids := flag.String("pids", "", "the server's processes, for its CPU and memory: 1,2")
	databases := flag.String("stores", "", "processes of databases that work for the server: 3,4")
	others := flag.String("beside", "", "processes of its that no message waits for: 5,6")
	flag.StringVar(&o.Tag, "tag", strconv.FormatInt(time.Now().UnixMilli(), 36),
		"opens the names of users and groups: another tag, other users")
	flag.IntVar(&o.Connections, "n", 0, "pairs; members; connections; returning (64, 500, 1000, 100)")
	flag.IntVar(&o.Window, "w", 32, "pairs, hot: messages in flight of each sender")
	flag.IntVar(&o.Conversations, "zipf", 0, "pairs: over so many conversations, Zipf-distributed")
	flag.IntVar(&o.BodyBytes, "body", 300, "bytes of a body")
	flag.IntVar(&o.Rate, "rate", 200, "group: messages a second")
	flag.IntVar(&o.Deaf, "deaf", 0, "group: members besides that are welcomed and then read nothing")
	flag.IntVar(&o.Entries, "entries", 0, "herd: entries behind (1000); hot: messages of each (600); sync, returning: conversations (2000)")
	flag.IntVar(&o.Rounds, "rounds", 5, "sync, history: rounds of which the median is told")
	flag.Int64Var(&o.Messages, "messages", 0, "pairs: stop after so many acks, whatever the time")
	flag.DurationVar(&o.Warm, "warm", 2*time.Second, "pairs, group: not measured at first")
	flag.DurationVar(&o.Length, "length", 10*time.Second, "pairs, group: measured")
	flag.StringVar(&o.Metrics, "metrics", "", "herd: address of the server's /metrics")
	flag.IntVar(&o.Pace, "pace", 0, "pairs with one in flight: most messages a second of all senders (0: no bound)")
	flag.StringVar(&o.Between, "between", "", "history, herd: a command that is run between writing and reading")
	flag.BoolVar(&o.ShowJSON, "json", false, "print one line of JSON")
	flag.Parse()
	var err error
	if o.Server.Minter, err = NewMinter(*keyID, *secret); err != nil {
		return "", nil, fmt.Errorf("-secret: %w", err)
	}
	if o.Processes, err = ParseProcesses(*pids); err != nil {
		return "", nil, err
	}
	if stores, err = ParseProcesses(*databases); err != nil {
		return "", nil, err
	}
	if beside, err = ParseProcesses(*others); err != nil {
		return "", nil, err
	}
	return *scenario, o, nil
}

// between runs the command that goes between writing and reading, if there is one.
func (o *Options) between() error {
	if o.Between == "" {
		return nil
	}
	command := exec.Command("sh", "-c", o.Between)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("-between: %w", err)
	}
	return nil
}

func run() (bool, error) {
	name, options, err := parse()
	if err != nil {
		return false, err
	}
	scenario, known := scenarios[name]
	if !known {
		return false, fmt.Errorf("no scenario %q", name)
	}
	result := &Result{}
	result.Put("scenario", name)
	correct, err := scenario(options, result)
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	result.Put("correct", correct)
	line := result.Line()
	if options.ShowJSON {
		encoded, err := json.Marshal(result)
		if err != nil {
			return false, err
		}
		line = string(encoded)
	}
	fmt.Println(line)
	return correct, nil
}

func main() {
	correct, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "generator:", err)
		os.Exit(2)
	}
	if !correct {
		os.Exit(1)
	}
}
