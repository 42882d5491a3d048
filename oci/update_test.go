package oci

import (
	"encoding/json"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestMergeResources: a change leaves in the record what it does not name.
func TestMergeResources(t *testing.T) {
	for _, c := range []struct{ name, recorded, change, want string }{
		{"nothing before", `{}`, `{"memory":{"limit":5},"pids":{"limit":0}}`, `{"memory":{"limit":5},"pids":{"limit":0}}`},
		{"zero is unset", `{"memory":{"limit":5,"swap":7}}`, `{"memory":{"limit":0,"reservation":3}}`, `{"memory":{"limit":5,"reservation":3,"swap":7}}`},
		{"no limit", `{"memory":{"limit":5,"swap":7}}`, `{"memory":{"limit":-1}}`, `{"memory":{"limit":-1,"swap":-1}}`},
		{"cpu", `{"cpu":{"shares":2,"cpus":"0"}}`, `{"cpu":{"idle":0,"burst":0,"mems":"1"}}`, `{"cpu":{"shares":2,"burst":0,"cpus":"0","mems":"1","idle":0}}`},
		{"devices of a throttle", `{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":1,"rate":2}]}}`,
			`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":1,"rate":3},{"major":9,"minor":1,"rate":4}]}}`,
			`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":1,"rate":3},{"major":9,"minor":1,"rate":4}]}}`},
		{"by name", `{"unified":{"a.b":"1"},"rdma":{"x":{"hcaHandles":1}},"hugepageLimits":[{"pageSize":"2MB","limit":1}]}`,
			`{"unified":{"c.d":"2"},"rdma":{"x":{"hcaObjects":2}},"hugepageLimits":[{"pageSize":"2MB","limit":2}]}`,
			`{"hugepageLimits":[{"pageSize":"2MB","limit":2}],"rdma":{"x":{"hcaObjects":2}},"unified":{"a.b":"1","c.d":"2"}}`},
		{"device rules as a whole", `{"devices":[{"allow":true,"access":"r"}]}`, `{"devices":[{"allow":false,"access":"w"}]}`, `{"devices":[{"allow":false,"access":"w"}]}`},
	} {
		var recorded, change specs.LinuxResources
		parseResources(t, c.recorded, &recorded)
		parseResources(t, c.change, &change)
		got, err := json.Marshal(mergeResources(&recorded, &change))
		if err != nil || string(got) != c.want {
			t.Errorf("%s:\n got %s (%v)\nwant %s", c.name, got, err, c.want)
		}
		if after, _ := json.Marshal(&recorded); string(after) != remarshal(t, c.recorded) {
			t.Errorf("%s: the record itself became %s", c.name, after)
		}
	}
}

func parseResources(t *testing.T, s string, into *specs.LinuxResources) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), into); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
}

func remarshal(t *testing.T, s string) string {
	var r specs.LinuxResources
	parseResources(t, s, &r)
	b, _ := json.Marshal(&r)
	return string(b)
}

// TestEffective: what is counted together is set together.
func TestEffective(t *testing.T) {
	for _, c := range []struct{ name, recorded, change, want string }{
		{"swap stays the sum", `{"memory":{"limit":5,"swap":9}}`, `{"memory":{"limit":6}}`, `{"memory":{"limit":6,"swap":9}}`},
		{"limit under a new sum", `{"memory":{"limit":5,"swap":9}}`, `{"memory":{"swap":7}}`, `{"memory":{"limit":5,"swap":7}}`},
		{"no limit at all", `{"memory":{"limit":5,"swap":9}}`, `{"memory":{"limit":-1}}`, `{"memory":{"limit":-1}}`},
		{"idle no more", `{"cpu":{"shares":7,"idle":1}}`, `{"cpu":{"idle":0}}`, `{"cpu":{"shares":7,"idle":0}}`},
		{"the same device rules", `{"devices":[{"allow":true,"access":"r"}]}`, `{"devices":[{"allow":true,"access":"r"}]}`, `{}`},
	} {
		var recorded, change specs.LinuxResources
		parseResources(t, c.recorded, &recorded)
		parseResources(t, c.change, &change)
		got, err := json.Marshal(effective(&recorded, mergeResources(&recorded, &change), &change))
		if err != nil || string(got) != c.want {
			t.Errorf("%s:\n got %s (%v)\nwant %s", c.name, got, err, c.want)
		}
	}
}

// TestReplaceMember: the rest of a configuration stays as it is.
func TestReplaceMember(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"a":1,"linux":{"b":[2],"resources":{"c":3}}}`, `{"a":1,"linux":{"b":[2],"resources":{"pids":{"limit":4}}}}`},
		{`{"Linux":null}`, `{"Linux":{"resources":{"pids":{"limit":4}}}}`},
		{`{}`, `{"linux":{"resources":{"pids":{"limit":4}}}}`},
	} {
		limit := int64(4)
		got, err := replaceMember([]byte(c.in), []string{"linux", "resources"}, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}})
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %s (%v), want %s", c.in, got, err, c.want)
		}
	}
}
