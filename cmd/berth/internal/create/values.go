package create

import (
	"errors"
	"fmt"
	"math/big"
	"sort"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }
func (l *list) Type() string       { return "list" }

// mapping is a flag of key=value that may be given several times.
type mapping map[string]string

func (m *mapping) String() string {
	pairs := make([]string, 0, len(*m))
	for k, v := range *m {
		pairs = append(pairs, k+"="+v)
	}
	sort.Strings(pairs)
	return strings.Join(pairs, ",")
}

func (m *mapping) Set(v string) error {
	key, value, _ := strings.Cut(v, "=")
	if key == "" {
		return fmt.Errorf("invalid value %q: want key=value", v)
	}
	if *m == nil {
		*m = mapping{}
	}
	(*m)[key] = value
	return nil
}

func (m *mapping) Type() string { return "map" }

// byteSize is a number of bytes with an optional unit (b, k, m, g).
type byteSize int64

func (b *byteSize) String() string {
	if *b == 0 {
		return "" // no default in the help text
	}
	return units.BytesSize(float64(*b))
}

func (b *byteSize) Set(v string) error {
	n, err := units.RAMInBytes(v)
	*b = byteSize(n)
	return err
}

func (b *byteSize) Type() string { return "bytes" }

// swapSize is a byteSize that may be -1 for unlimited.
type swapSize int64

func (s *swapSize) String() string { return (*byteSize)(s).String() }

func (s *swapSize) Set(v string) error {
	if v == "-1" {
		*s = -1
		return nil
	}
	return (*byteSize)(s).Set(v)
}

func (s *swapSize) Type() string { return "bytes" }

// nanoCPUs is a decimal number of CPUs, held in 1e-9 CPUs.
type nanoCPUs int64

func (c *nanoCPUs) String() string {
	if *c == 0 {
		return ""
	}
	return big.NewRat(int64(*c), 1e9).FloatString(3)
}

func (c *nanoCPUs) Set(v string) error {
	cpus, ok := new(big.Rat).SetString(v)
	if !ok {
		return fmt.Errorf("invalid number of CPUs %q", v)
	}
	nano := cpus.Mul(cpus, big.NewRat(1e9, 1))
	if !nano.IsInt() || !nano.Num().IsInt64() {
		return fmt.Errorf("invalid number of CPUs %q: more than 9 decimals or too large", v)
	}
	*c = nanoCPUs(nano.Num().Int64())
	return nil
}

func (c *nanoCPUs) Type() string { return "decimal" }

// ulimits are name=soft[:hard].
type ulimits []*container.Ulimit

func (u *ulimits) String() string {
	var all []string
	for _, l := range *u {
		all = append(all, l.String())
	}
	return strings.Join(all, ",")
}

func (u *ulimits) Set(v string) error {
	l, err := units.ParseUlimit(v)
	if err != nil {
		return err
	}
	for i, old := range *u {
		if old.Name == l.Name {
			(*u)[i] = l
			return nil
		}
	}
	*u = append(*u, l)
	return nil
}

func (u *ulimits) Type() string { return "ulimit" }

// weights are PATH:WEIGHT of block devices.
type weights []*blkiodev.WeightDevice

func (w *weights) String() string { return joinDevices(*w) }

func (w *weights) Set(v string) error {
	path, text, err := deviceSetting(v)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n != 0 && (n < 10 || n > 1000) {
		return fmt.Errorf("invalid weight for device: %s", v)
	}
	*w = append(*w, &blkiodev.WeightDevice{Path: path, Weight: uint16(n)})
	return nil
}

func (w *weights) Type() string { return "list" }

// rates are PATH:RATE of block devices.
type rates struct {
	all []*blkiodev.ThrottleDevice
	// sizes tells that a rate is in bytes and may have a unit.
	sizes bool
}

func (r *rates) String() string { return joinDevices(r.all) }

func (r *rates) Set(v string) error {
	path, text, err := deviceSetting(v)
	if err != nil {
		return err
	}
	var rate uint64
	if r.sizes {
		var n int64
		n, err = units.RAMInBytes(text)
		rate = uint64(n)
	} else {
		rate, err = strconv.ParseUint(text, 10, 64)
	}
	if err != nil {
		return fmt.Errorf("invalid rate for device: %s: the correct format is <device-path>:<number>%s", v,
			map[bool]string{true: "[<unit>]", false: ""}[r.sizes])
	}
	r.all = append(r.all, &blkiodev.ThrottleDevice{Path: path, Rate: rate})
	return nil
}

func (r *rates) Type() string { return "list" }

func deviceSetting(v string) (path, value string, err error) {
	path, value, ok := strings.Cut(v, ":")
	if !ok || value == "" {
		return "", "", fmt.Errorf("bad format: %s", v)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return "", "", fmt.Errorf("bad format for device path: %s", v)
	}
	return path, value, nil
}

func joinDevices[T fmt.Stringer](all []T) string {
	var texts []string
	for _, d := range all {
		texts = append(texts, d.String())
	}
	return strings.Join(texts, ",")
}

// gpus are requests for GPUs: all, a number, or key=value fields.
type gpus []container.DeviceRequest

func (g *gpus) String() string { return "" }

func (g *gpus) Set(v string) error {
	fields, err := splitFields(v)
	if err != nil {
		return err
	}
	req := container.DeviceRequest{}
	seen := map[string]bool{}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			key, value = "count", field
		}
		if seen[key] {
			return fmt.Errorf("gpu request key %q can be specified only once", key)
		}
		seen[key] = true
		if err := setGPU(&req, key, value); err != nil {
			return err
		}
	}
	if !seen["count"] && req.DeviceIDs == nil {
		req.Count = 1
	}
	if req.Options == nil {
		req.Options = map[string]string{}
	}
	if req.Capabilities == nil {
		req.Capabilities = [][]string{{"gpu"}}
	}
	*g = append(*g, req)
	return nil
}

func setGPU(req *container.DeviceRequest, key, value string) error {
	switch key {
	case "driver":
		req.Driver = value
	case "count":
		if value == "all" {
			req.Count = -1
			return nil
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("invalid gpu count %q: want a number or all", value)
		}
		req.Count = n
	case "device":
		req.DeviceIDs = strings.Split(value, ",")
	case "capabilities":
		req.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
	case "options":
		opts := mapping{}
		for _, pair := range strings.Split(value, ",") {
			if err := opts.Set(pair); err != nil {
				return err
			}
		}
		req.Options = opts
	default:
		return errors.New("unexpected key '" + key + "' in gpu request")
	}
	return nil
}

func (g *gpus) Type() string { return "gpu-request" }
