package main

import (
	"errors"
	"time"
)

// runIdle: memory of the server for each connection that was welcomed and says nothing.
func runIdle(o *Options, result *Result) (bool, error) {
	if len(o.Processes) == 0 {
		return false, errors.New("needs -pids")
	}
	count := defaulted(o.Connections, 1000)
	// The first connections make what the server makes once.
	if _, err := connectAll(o, userNames(o.Tag, "first", 50), true, 4096); err != nil {
		return false, err
	}
	time.Sleep(time.Second)
	before := o.Processes.ResidentKiB()
	begin := now()
	sessions, err := connectAll(o, userNames(o.Tag, "idle", count), true, 4096)
	if err != nil {
		return false, err
	}
	connected := float64(now()-begin) / 1e9
	time.Sleep(2 * time.Second)
	after := o.Processes.ResidentKiB()
	usage := StartUsage(o.Processes)
	time.Sleep(3 * time.Second)
	usage.Stop()
	result.Put("connections", len(sessions))
	result.Put("kib_per_connection", (after-before)/float64(count))
	result.Put("connects_per_second", float64(count)/connected)
	usage.Put(result, "connection", 0)
	for _, session := range sessions {
		session.Close()
	}
	return true, nil
}
