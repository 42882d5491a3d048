package oci

import (
	"encoding/json"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
)

// config is specs.Spec as far as it concerns Linux. The JSON package prepares
// itself for every type it might meet; the other platforms' cost 0.2 ms.
type config struct {
	Version     string            `json:"ociVersion"`
	Process     *specs.Process    `json:"process"`
	Root        *specs.Root       `json:"root"`
	Hostname    string            `json:"hostname"`
	Domainname  string            `json:"domainname"`
	Mounts      []specs.Mount     `json:"mounts"`
	Hooks       *specs.Hooks      `json:"hooks"`
	Annotations map[string]string `json:"annotations"`
	Linux       *specs.Linux      `json:"linux"`

	// Not for Linux containers; refused by name.
	Solaris, Windows, VM, ZOS, FreeBSD json.RawMessage
}

// ParseSpec reads a config.json. A missing linux section is an empty one; a
// section for another platform is an ErrUnsupported.
func ParseSpec(b []byte) (*specs.Spec, error) {
	var c config
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("config.json: %w", err))
	}
	for name, section := range map[string]json.RawMessage{
		"solaris": c.Solaris, "windows": c.Windows, "vm": c.VM, "zos": c.ZOS, "freebsd": c.FreeBSD,
	} {
		if len(section) > 0 && string(section) != "null" {
			return nil, unsupported(name)
		}
	}
	if c.Linux == nil {
		c.Linux = &specs.Linux{}
	}
	return &specs.Spec{
		Version: c.Version, Process: c.Process, Root: c.Root, Hostname: c.Hostname, Domainname: c.Domainname,
		Mounts: c.Mounts, Hooks: c.Hooks, Annotations: c.Annotations, Linux: c.Linux,
	}, nil
}
