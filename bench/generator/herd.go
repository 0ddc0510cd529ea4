package main

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// runHerd: the members of one group return at once, all of them equally far behind; each
// syncs, pulls and confirms.
func runHerd(o *Options, result *Result) (bool, error) {
	count, behind := defaulted(o.Connections, 500), defaulted(o.Entries, 1000)
	group, members := o.Tag+"-herd", userNames(o.Tag, "m", count)
	bot, err := Connect(o.Server, o.Tag+"-bot", "phone", true, 1<<15)
	if err != nil {
		return false, err
	}
	if _, err := bot.Create(group, members); err != nil {
		return false, err
	}
	phones := make([]*Endpoint, count)
	err = parallel(count, 16, func(i int) error {
		phones[i] = NewEndpoint(members[i] + "-phone")
		return comeBack(o, members[i], phones[i])
	})
	if err != nil {
		return false, err
	}
	if err := bot.Feed(feedWindow, 0, int64(behind), o.BodyBytes, func(int64) string { return group }); err != nil {
		return false, err
	}
	time.Sleep(time.Second)
	if err := o.between(); err != nil {
		return false, err
	}
	readsBefore, err := readCounters(o.Metrics)
	if err != nil {
		return false, err
	}
	var completed Histogram
	finished := make(chan int64, count)
	heldBefore := phones[0].Held[group]
	usage := StartUsage(o.Processes)
	begin := now()
	err = parallel(count, count, func(i int) error {
		err := comeBack(o, members[i], phones[i])
		finished <- now() - begin
		return err
	})
	usage.Stop()
	if err != nil {
		return false, err
	}
	incomplete := 0
	for _, phone := range phones {
		completed.Add(<-finished)
		if phone.Held[group] != heldBefore+int64(behind) {
			incomplete++
		}
	}
	result.Put("members", count)
	result.Put("entries_behind", behind)
	result.Put("last_complete_seconds", completed.Milliseconds(1)/1000)
	result.Put("median_complete_seconds", completed.Milliseconds(0.5)/1000)
	result.Put("incomplete", incomplete)
	if err := putReads(result, o.Metrics, readsBefore); err != nil {
		return false, err
	}
	usage.Put(result, "entry", int64(count*behind))
	return incomplete == 0, nil
}

// comeBack connects, syncs, pulls and confirms everything, and leaves.
func comeBack(o *Options, user string, phone *Endpoint) error {
	session, err := Connect(o.Server, user, phone.Name, true, 1<<15)
	if err != nil {
		return err
	}
	defer session.Close()
	changed, _, err := session.Sync(phone)
	if err != nil {
		return err
	}
	_, _, err = session.CatchUp(phone, changed)
	return err
}

const readsMetric = "trunkline_tier_reads_total"

// readCounters returns the store's reads of each tier, from the server's Prometheus metrics;
// nothing without an address.
func readCounters(address string) (map[string]float64, error) {
	if address == "" {
		return nil, nil
	}
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	counters := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		labels, found := strings.CutPrefix(lines.Text(), readsMetric+`{tier="`)
		if !found {
			continue
		}
		tier, rest, _ := strings.Cut(labels, `"`)
		_, value, _ := strings.Cut(rest, "} ")
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", readsMetric, err)
		}
		counters[tier] = number
	}
	return counters, lines.Err()
}

func putReads(result *Result, address string, before map[string]float64) error {
	after, err := readCounters(address)
	if err != nil || after == nil {
		return err
	}
	if len(after) == 0 {
		return fmt.Errorf("%s is not among the metrics", readsMetric)
	}
	reads, total := map[string]float64{}, 0.0
	for tier, count := range after {
		reads[tier] = count - before[tier]
		total += reads[tier]
	}
	result.Put("tier_reads", reads)
	result.Put("tier_reads_total", total)
	return nil
}
