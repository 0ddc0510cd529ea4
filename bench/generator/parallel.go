package main

import (
	"fmt"
	"sort"
	"sync"
)

// parallel runs work for 0..count-1, at most width at a time, and returns the first error.
func parallel(count, width int, work func(int) error) error {
	var group sync.WaitGroup
	var once sync.Once
	var first error
	turns := make(chan int)
	for i := 0; i < width; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for turn := range turns {
				if err := work(turn); err != nil {
					once.Do(func() { first = err })
				}
			}
		}()
	}
	for i := 0; i < count; i++ {
		turns <- i
	}
	close(turns)
	group.Wait()
	return first
}

// connectAll opens one session for each user.
func connectAll(o *Options, users []string, push bool, readBytes int) ([]*Session, error) {
	sessions := make([]*Session, len(users))
	err := parallel(len(users), 32, func(i int) (err error) {
		sessions[i], err = Connect(o.Server, users[i], users[i]+"-phone", push, readBytes)
		return err
	})
	return sessions, err
}

// userNames are tag-kind0, tag-kind1 and so on.
func userNames(tag, kind string, count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%s%d", tag, kind, i)
	}
	return names
}

// defaulted is value, or otherwise where it is 0.
func defaulted(value, otherwise int) int {
	if value == 0 {
		return otherwise
	}
	return value
}

// median sorts its argument.
func median(values []float64) float64 {
	sort.Float64s(values)
	return values[len(values)/2]
}
