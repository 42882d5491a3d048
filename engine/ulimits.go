package engine

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"
)

func rlimitName(ulimit string) string { return "RLIMIT_" + strings.ToUpper(ulimit) }

// checkUlimits refuses unknown names and soft limits above hard ones, and
// brings what is above this process' own hard limits down to them, with a
// warning each: without CAP_SYS_RESOURCE nothing can raise them.
func (h *hostFacts) checkUlimits(list []*units.Ulimit) (checked []*units.Ulimit, warnings []string, err error) {
	for _, u := range list {
		most, known := h.rlimits[rlimitName(u.Name)]
		if !known {
			return nil, nil, invalidf("invalid ulimit type: %s", u.Name)
		}
		c := *u
		// -1 is "unlimited" and, as an unsigned number, above everything.
		if uint64(c.Soft) > uint64(c.Hard) {
			return nil, nil, invalidf("ulimit %s: soft limit must not exceed the hard limit", u.Name)
		}
		if !h.raiseLimits && uint64(c.Hard) > most {
			warnings = append(warnings, fmt.Sprintf(
				"ulimit %s: %s is above %d, the most this engine may set (it lacks CAP_SYS_RESOURCE); lowered",
				u.Name, limitText(c.Hard), most))
			c.Hard = int64(most)
			if uint64(c.Soft) > most {
				c.Soft = int64(most)
			}
		}
		checked = append(checked, &c)
	}
	return checked, warnings, nil
}

func limitText(v int64) string {
	if v == -1 {
		return "unlimited"
	}
	return fmt.Sprint(uint64(v))
}

// clampOOMScore raises an oom_score_adj that this process may not set.
func (h *hostFacts) clampOOMScore(adj int) (int, string) {
	if h.raiseLimits || adj >= h.oomScoreAdj {
		return adj, ""
	}
	return h.oomScoreAdj, fmt.Sprintf(
		"oom-score-adj %d is below %d, the least this engine may set (it lacks CAP_SYS_RESOURCE); raised", adj, h.oomScoreAdj)
}
