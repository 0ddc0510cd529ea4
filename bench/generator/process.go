package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const ticksPerSecond = 100 // USER_HZ, the same on every Linux

// Processes are the server's: the pids given, and their children, who are found anew each time.
type Processes []int

// ParseProcesses takes pids with commas between them.
func ParseProcesses(list string) (Processes, error) {
	var pids Processes
	for _, field := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("-pids: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// stat returns the fields of /proc/PID/stat behind the command's name.
func stat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil // it has ended since it was listed
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}

// all returns the pids with every descendant.
func (p Processes) all() []int {
	children := map[int][]int{}
	paths, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range paths {
		if pid, err := strconv.Atoi(filepath.Base(path)); err == nil {
			if fields := stat(pid); len(fields) > 1 {
				parent, _ := strconv.Atoi(fields[1])
				children[parent] = append(children[parent], pid)
			}
		}
	}
	found := append([]int(nil), p...)
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}

// CPUSeconds is the processor time, user and system, that they have used.
func (p Processes) CPUSeconds() float64 {
	ticks := 0
	for _, pid := range p.all() {
		if fields := stat(pid); len(fields) > 12 {
			user, _ := strconv.Atoi(fields[11])
			system, _ := strconv.Atoi(fields[12])
			ticks += user + system
		}
	}
	return float64(ticks) / ticksPerSecond
}

// ResidentKiB is the memory that they hold.
func (p Processes) ResidentKiB() float64 {
	pages := 0
	for _, pid := range p.all() {
		if fields := stat(pid); len(fields) > 21 {
			resident, _ := strconv.Atoi(fields[21])
			pages += resident
		}
	}
	return float64(pages) * float64(os.Getpagesize()) / 1024
}

// machineCPUSeconds is the processor time that everything on this machine has used.
func machineCPUSeconds() float64 {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	ticks := 0
	for i, field := range strings.Fields(line) {
		// "cpu", user, nice, system, idle, iowait, irq, softirq, steal; guests are within user.
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		used, _ := strconv.Atoi(field)
		ticks += used
	}
	return float64(ticks) / ticksPerSecond
}

// ownCPUSeconds is the processor time that this generator has used.
func ownCPUSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
