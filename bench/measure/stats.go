// Package measure has the statistics of repeated measurements and the loop that
// takes them.
package measure

import (
	"math/rand/v2"
	"slices"
)

// Median is the middle of the values, which need not be sorted; between the two
// middle ones when their number is even. It is 0 for no values.
func Median(values []float64) float64 { return Quantile(values, 0.5) }

// Quantile is the value that the share q, from 0 to 1, of the values do not
// exceed, interpolated between the two nearest (Hyndman and Fan's type 7, that
// of R and NumPy). It is 0 for no values.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return sortedQuantile(slices.Sorted(slices.Values(values)), q)
}

func sortedQuantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	part := at - float64(low)
	return sorted[low]*(1-part) + sorted[low+1]*part
}

// Min is the least value, 0 for no values.
func Min(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return slices.Min(values)
}

// Mean is the arithmetic mean, 0 for no values.
func Mean(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// Ratio is one median divided by another, with the interval in which it would
// be in 95 of 100 repetitions.
type Ratio struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// MedianRatio is Median(a) / Median(b). The interval is the percentile
// bootstrap's, of 1000 resamples drawn from a generator with a fixed seed: the
// same values give the same interval. All is 0 when either has no values or b's
// median is 0.
func MedianRatio(a, b []float64) Ratio {
	if len(a) == 0 || Median(b) == 0 {
		return Ratio{}
	}
	const resamples = 1000
	random := rand.New(rand.NewPCG(1, 2))
	ratios := make([]float64, 0, resamples)
	drawA, drawB := make([]float64, len(a)), make([]float64, len(b))
	for range resamples {
		if mb := resampledMedian(random, b, drawB); mb != 0 {
			ratios = append(ratios, resampledMedian(random, a, drawA)/mb)
		}
	}
	return Ratio{Median(a) / Median(b), Quantile(ratios, 0.025), Quantile(ratios, 0.975)}
}

// resampledMedian is the median of as many values as there are, each drawn from
// all of them. draw is overwritten.
func resampledMedian(random *rand.Rand, values, draw []float64) float64 {
	for i := range draw {
		draw[i] = values[random.IntN(len(values))]
	}
	slices.Sort(draw)
	return sortedQuantile(draw, 0.5)
}
