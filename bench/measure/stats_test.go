package measure

import (
	"math"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestQuantile(t *testing.T) {
	tests := []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.5, 7},
		{[]float64{7}, 1, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{4, 1, 3, 2}, 0, 1},
		{[]float64{4, 1, 3, 2}, 1, 4},
		{[]float64{10, 20, 30, 40, 50}, 0.9, 46},
		{[]float64{10, 20, 30, 40, 50}, 0.25, 20},
	}
	for _, tt := range tests {
		if got := Quantile(tt.values, tt.q); !near(got, tt.want) {
			t.Errorf("Quantile(%v, %v) = %v, want %v", tt.values, tt.q, got, tt.want)
		}
	}
}

func TestQuantileLeavesItsInputAlone(t *testing.T) {
	values := []float64{3, 1, 2}
	Median(values)
	if values[0] != 3 || values[1] != 1 || values[2] != 2 {
		t.Errorf("values are now %v", values)
	}
}

func TestMinAndMean(t *testing.T) {
	values := []float64{3, 1, 5}
	if got := Min(values); got != 1 {
		t.Errorf("Min = %v, want 1", got)
	}
	if got := Mean(values); got != 3 {
		t.Errorf("Mean = %v, want 3", got)
	}
	if Min(nil) != 0 || Mean(nil) != 0 {
		t.Errorf("of nothing: Min %v, Mean %v, want 0 and 0", Min(nil), Mean(nil))
	}
}

// spread are 41 values around the middle, evenly.
func spread(middle, width float64) []float64 {
	var values []float64
	for i := range 41 {
		values = append(values, middle+width*float64(i-20)/20)
	}
	return values
}

func TestMedianRatio(t *testing.T) {
	got := MedianRatio(spread(5, 0.5), spread(10, 1))
	if !near(got.Value, 0.5) {
		t.Errorf("value %v, want 0.5", got.Value)
	}
	if got.Low >= 0.5 || got.High <= 0.5 || got.Low < 0.45 || got.High > 0.55 {
		t.Errorf("interval %v to %v, want it around 0.5 and within 10 %%", got.Low, got.High)
	}
	if again := MedianRatio(spread(5, 0.5), spread(10, 1)); again != got {
		t.Errorf("the same values give %v and then %v", got, again)
	}
	wide := MedianRatio(spread(5, 4), spread(10, 8))
	if wide.High-wide.Low <= got.High-got.Low {
		t.Errorf("more noise gives a narrower interval: %v against %v", wide, got)
	}
}

func TestMedianRatioOfNothing(t *testing.T) {
	for _, got := range []Ratio{MedianRatio(nil, []float64{1}), MedianRatio([]float64{1}, nil), MedianRatio([]float64{1}, []float64{0})} {
		if got != (Ratio{}) {
			t.Errorf("got %v, want zeroes", got)
		}
	}
}
