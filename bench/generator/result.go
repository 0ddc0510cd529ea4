package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Result is what a scenario found, in the order in which it is shown.
type Result struct {
	names  []string
	values []any
}

// Put adds one figure.
func (r *Result) Put(name string, value any) {
	if f, ok := value.(float64); ok {
		value = math.Round(f*1000) / 1000
	}
	r.names = append(r.names, name)
	r.values = append(r.values, value)
}

// Float is a figure that was added, 0 if none was.
func (r *Result) Float(name string) float64 {
	for i, added := range r.names {
		if f, ok := r.values[i].(float64); ok && added == name {
			return f
		}
	}
	return 0
}

// MarshalJSON keeps the order.
func (r *Result) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	for i, name := range r.names {
		value, err := json.Marshal(r.values[i])
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, ",%q:%s", name, value)
	}
	if out.Len() == 0 {
		return []byte("{}"), nil
	}
	out.Bytes()[0] = '{'
	out.WriteByte('}')
	return out.Bytes(), nil
}

// Line is the result for a reader.
func (r *Result) Line() string {
	parts := make([]string, len(r.names))
	for i, name := range r.names {
		value := fmt.Sprint(r.values[i])
		if f, ok := r.values[i].(float64); ok {
			value = strconv.FormatFloat(f, 'f', -1, 64)
			if f >= 1000 {
				value = strconv.FormatFloat(f, 'f', 0, 64)
			}
		}
		parts[i] = strings.ReplaceAll(name, "_", " ") + " " + value
	}
	return strings.Join(parts, "  ")
}

// stores are the processes of databases that work for the server, for their CPU.
var stores Processes

// beside are processes of the server that no message waits for: an archiver, a cold tier.
var beside Processes

// Usage measures the processor time of the server, its stores and the generator over some work.
type Usage struct {
	server    Processes
	storesCPU float64
	besideCPU float64
	seconds   float64
	serverCPU float64
	ownCPU    float64
	machine   float64
}

// StartUsage begins to measure.
func StartUsage(server Processes) *Usage {
	return &Usage{server, -stores.CPUSeconds(), -beside.CPUSeconds(), -float64(now()) / 1e9, -server.CPUSeconds(), -ownCPUSeconds(),
		-machineCPUSeconds()}
}

// Stop ends it.
func (u *Usage) Stop() {
	u.seconds += float64(now()) / 1e9
	u.ownCPU += ownCPUSeconds()
	u.serverCPU += u.server.CPUSeconds()
	u.storesCPU += stores.CPUSeconds()
	u.besideCPU += beside.CPUSeconds()
	u.machine += machineCPUSeconds()
}

// Put adds the shares of one core that both took, and that everything else on the machine took;
// and the server's time for one of count operations.
func (u *Usage) Put(r *Result, what string, count int64) {
	r.Put("generator_cpu_share", u.ownCPU/u.seconds)
	if len(u.server) > 0 {
		r.Put("server_cpu_share", u.serverCPU/u.seconds)
		r.Put("others_cpu_share", max(0, u.machine-u.ownCPU-u.serverCPU-u.storesCPU-u.besideCPU)/u.seconds)
		if count > 0 {
			r.Put("server_cpu_us_per_"+what, u.serverCPU/float64(count)*1e6)
		}
		if count > 0 && len(stores) > 0 {
			r.Put("stores_cpu_us_per_"+what, u.storesCPU/float64(count)*1e6)
		}
	}
}
