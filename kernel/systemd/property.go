package systemd

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Property is a setting of a unit, of those in org.freedesktop.systemd1(5).
type Property struct {
	Name      string
	signature string
	value     func(*encoder)
}

func text(name, v string) Property {
	return Property{name, "s", func(e *encoder) { e.string(v) }}
}

func flag(name string, v bool) Property {
	return Property{name, "b", func(e *encoder) { e.bool(v) }}
}

func number(name string, v uint64) Property {
	return Property{name, "t", func(e *encoder) { e.uint64(v) }}
}

func bytes(name string, v []byte) Property {
	return Property{name, "ay", func(e *encoder) {
		e.array(1, func() {
			for _, b := range v {
				e.byte(b)
			}
		})
	}}
}

// encodeProperties writes a(sv).
func encodeProperties(e *encoder, list []Property) {
	e.array(8, func() {
		for _, p := range list {
			e.align(8)
			e.string(p.Name)
			e.signature(p.signature)
			p.value(e)
		}
	})
}

// infinity is how properties say "no limit".
const infinity = math.MaxUint64

// Limits are the properties for a value of a control file, none for a
// file that systemd does not manage. It must know those it does: when it reloads
// its units it writes its own figures.
func Limits(file, value string) ([]Property, error) {
	switch file {
	case "memory.max":
		return amount("MemoryMax", value)
	case "memory.limit_in_bytes": // this and the next two are of cgroup v1
		return amount("MemoryLimit", strings.Replace(value, "-1", "max", 1))
	case "cpu.shares":
		return amount("CPUShares", value)
	case "blkio.weight":
		return amount("BlockIOWeight", value)
	case "memory.high":
		return amount("MemoryHigh", value)
	case "memory.low":
		return amount("MemoryLow", value)
	case "memory.min":
		return amount("MemoryMin", value)
	case "memory.swap.max":
		return amount("MemorySwapMax", value)
	case "pids.max":
		return amount("TasksMax", value)
	case "cpu.weight":
		return amount("CPUWeight", value)
	case "io.weight":
		if first, _, _ := strings.Cut(value, "\n"); strings.Contains(first, ":") { // of one device
			return nil, nil
		}
		value, _, _ = strings.Cut(strings.TrimPrefix(value, "default "), "\n")
		return amount("IOWeight", value)
	case "cpu.max":
		return quota(value)
	case "cpuset.cpus":
		return list("AllowedCPUs", value)
	case "cpuset.mems":
		return list("AllowedMemoryNodes", value)
	}
	return nil, nil
}

func amount(name, value string) ([]Property, error) {
	n, err := parseNumber(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return []Property{number(name, n)}, nil
}

func parseNumber(s string) (uint64, error) {
	if s == "max" {
		return infinity, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// quota turns "QUOTA PERIOD" into time per second, in whole hundredths of a
// second as systemd keeps it.
func quota(value string) ([]Property, error) {
	q, p, both := strings.Cut(value, " ")
	limit, err := parseNumber(q)
	if err != nil {
		return nil, fmt.Errorf("CPUQuotaPerSecUSec: %w", err)
	}
	period := uint64(100000)
	var out []Property
	if both {
		if period, err = strconv.ParseUint(p, 10, 32); err != nil || period == 0 {
			return nil, fmt.Errorf("CPUQuotaPeriodUSec: %q is no period", p)
		}
		out = append(out, number("CPUQuotaPeriodUSec", period))
	}
	if limit != infinity {
		if limit > math.MaxUint64/1000000 {
			return nil, fmt.Errorf("CPUQuotaPerSecUSec: %q is too much", q)
		}
		const step = 10000
		limit = (limit*1000000/period + step - 1) / step * step
	}
	return append(out, number("CPUQuotaPerSecUSec", limit)), nil
}

// list turns "0-2,7" into a mask: bit N of byte M is number 8M+N.
func list(name, value string) ([]Property, error) {
	var mask []byte
	if value == "" { // all that the parent has
		return []Property{bytes(name, nil)}, nil
	}
	for part := range strings.SplitSeq(strings.TrimSpace(value), ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		z, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || z < a {
			return nil, fmt.Errorf("%s: %q is no list of numbers", name, value)
		}
		for n := a; n <= z; n++ {
			for int(n/8) >= len(mask) {
				mask = append(mask, 0)
			}
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return []Property{bytes(name, mask)}, nil
}
