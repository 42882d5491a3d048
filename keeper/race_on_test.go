//go:build race

package keeper

// raceDetector multiplies the memory of everything.
const raceDetector = true
