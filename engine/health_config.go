package engine

import (
	"slices"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
)

// What a health check that leaves a field at zero means, as with Docker.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
)

// healthLeast is the shortest time a health check may name.
const healthLeast = time.Millisecond

// The kinds of a health check's test: its first word.
const (
	healthNone  = "NONE"
	healthCmd   = "CMD"
	healthShell = "CMD-SHELL"
)

// mergeHealth completes a request's health check with the image's, field by
// field.
func mergeHealth(req *container.HealthConfig, img *dockerspec.HealthcheckConfig) *container.HealthConfig {
	if img == nil {
		return req
	}
	h := container.HealthConfig{}
	if req != nil {
		h = *req
	}
	if len(h.Test) == 0 {
		h.Test = slices.Clone(img.Test)
	}
	for _, f := range []struct{ to, from *time.Duration }{
		{&h.Interval, &img.Interval}, {&h.Timeout, &img.Timeout},
		{&h.StartPeriod, &img.StartPeriod}, {&h.StartInterval, &img.StartInterval},
	} {
		if *f.to == 0 {
			*f.to = *f.from
		}
	}
	if h.Retries == 0 {
		h.Retries = img.Retries
	}
	return &h
}

// checkHealth refuses health checks that cannot be run.
func checkHealth(h *container.HealthConfig) error {
	if h == nil {
		return nil
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval},
	} {
		if f.d != 0 && f.d < healthLeast {
			return invalidf("%s in Healthcheck cannot be less than %s", f.name, healthLeast)
		}
	}
	if h.Retries < 0 {
		return invalidf("Retries in Healthcheck cannot be negative")
	}
	if len(h.Test) == 0 {
		return nil
	}
	switch kind := h.Test[0]; kind {
	case healthNone, "":
		return nil
	case healthCmd, healthShell:
		if len(h.Test) < 2 || h.Test[1] == "" {
			return invalidf("health check of the kind %s has no command", kind)
		}
		return nil
	default:
		return invalidf("unknown kind of health check %q: there are %s, %s and %s", kind, healthCmd, healthShell, healthNone)
	}
}

// healthCommand is what a container's health check runs; nil: it has none.
func healthCommand(cfg *container.Config) []string {
	h := cfg.Healthcheck
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	switch h.Test[0] {
	case healthCmd:
		return h.Test[1:]
	case healthShell:
		shell := cfg.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(slices.Clone([]string(shell)), h.Test[1:]...)
	}
	return nil
}

func orElse[T comparable](v, zero T) T {
	var none T
	if v == none {
		return zero
	}
	return v
}
