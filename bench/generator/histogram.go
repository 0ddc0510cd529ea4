package main

import "math/bits"

const (
	stepBits = 6 // 64 steps per power of two: a quantile is exact to 1.6 %
	steps    = 1 << stepBits
)

// Histogram counts durations in nanoseconds without keeping them.
type Histogram struct {
	buckets [64 * steps]int64
	count   int64
	max     int64
}

// Add counts one duration.
func (h *Histogram) Add(nanoseconds int64) {
	if nanoseconds < 0 {
		nanoseconds = 0
	}
	h.buckets[bucketOf(nanoseconds)]++
	h.count++
	if nanoseconds > h.max {
		h.max = nanoseconds
	}
}

func bucketOf(value int64) int {
	shift := bits.Len64(uint64(value)) - stepBits - 1
	if shift <= 0 {
		return int(value)
	}
	return shift*steps + int(value>>shift)
}

// upperEdge is the largest value of a bucket.
func upperEdge(bucket int) int64 {
	if bucket < 2*steps {
		return int64(bucket)
	}
	shift := bucket/steps - 1
	return int64(bucket-shift*steps+1)<<shift - 1
}

// Merge adds what other counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
	if other.max > h.max {
		h.max = other.max
	}
}

// Milliseconds returns the quantile q (0 to 1); 0 if nothing was counted.
func (h *Histogram) Milliseconds(q float64) float64 {
	if h.count == 0 {
		return 0
	}
	rank := int64(q * float64(h.count-1))
	for bucket, n := range h.buckets {
		if rank -= n; rank < 0 {
			if edge := upperEdge(bucket); edge < h.max {
				return float64(edge) / 1e6
			}
			break
		}
	}
	return float64(h.max) / 1e6
}
