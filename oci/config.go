package oci

import (
	"encoding/json"
	"fmt"
	"math"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-containers/berth/errdefs"
)

// ParseSpec reads a config.json. A missing linux section is an empty one; a
// section for another platform is an ErrUnsupported.
func ParseSpec(b []byte) (*specs.Spec, error) {
	s, ok := readSpec(string(b))
	if !ok {
		s = &specs.Spec{}
		if err := json.Unmarshal(b, s); err != nil {
			return nil, errdefs.As(errdefs.ErrInvalid, fmt.Errorf("config.json: %w", err))
		}
	}
	switch {
	case s.Solaris != nil:
		return nil, unsupported("solaris")
	case s.Windows != nil:
		return nil, unsupported("windows")
	case s.VM != nil:
		return nil, unsupported("vm")
	case s.ZOS != nil:
		return nil, unsupported("zos")
	case s.FreeBSD != nil:
		return nil, unsupported("freebsd")
	}
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	return s, nil
}

// ParseProcess reads a process description.
func ParseProcess(b []byte) (*specs.Process, error) {
	r := &specReader{jsonReader{text: string(b)}}
	if pr := r.process(); r.done() {
		return &pr, nil
	}
	pr := &specs.Process{}
	return pr, json.Unmarshal(b, pr)
}

// readSpec reads a configuration by hand: what most have in full, what few have
// with package encoding/json. It is not ok when that package must read all.
func readSpec(text string) (s *specs.Spec, ok bool) {
	r := &specReader{jsonReader{text: text}}
	s = r.spec()
	return s, r.done()
}

// specReader reads the types of the specification. Each method is the list of
// one type's fields, in the specification's order.
type specReader struct{ jsonReader }

// rest reads a value with package encoding/json.
func rest[T any](r *specReader) (v T) {
	if json.Unmarshal(r.raw(), &v) != nil {
		r.giveUp()
	}
	return v
}

func (r *specReader) spec() *specs.Spec {
	s := &specs.Spec{}
	r.object(func(name string) uint64 {
		switch name {
		case "ociVersion":
			s.Version = r.str()
			return 1 << 0
		case "process":
			s.Process = optional(&r.jsonReader, r.process)
			return 1 << 1
		case "root":
			s.Root = optional(&r.jsonReader, r.root)
			return 1 << 2
		case "hostname":
			s.Hostname = r.str()
			return 1 << 3
		case "domainname":
			s.Domainname = r.str()
			return 1 << 4
		case "mounts":
			s.Mounts = list(&r.jsonReader, r.mount)
			return 1 << 5
		case "hooks":
			s.Hooks = rest[*specs.Hooks](r)
			return 1 << 6
		case "annotations":
			s.Annotations = r.strMap()
			return 1 << 7
		case "linux":
			s.Linux = optional(&r.jsonReader, r.linux)
			return 1 << 8
		}
		return 0
	})
	return s
}

func (r *specReader) root() (v specs.Root) {
	r.object(func(name string) uint64 {
		switch name {
		case "path":
			v.Path = r.str()
			return 1 << 0
		case "readonly":
			v.Readonly = r.boolean()
			return 1 << 1
		}
		return 0
	})
	return v
}

func (r *specReader) process() (v specs.Process) {
	r.object(func(name string) uint64 {
		switch name {
		case "terminal":
			v.Terminal = r.boolean()
			return 1 << 0
		case "consoleSize":
			v.ConsoleSize = rest[*specs.Box](r)
			return 1 << 1
		case "user":
			v.User = r.user()
			return 1 << 2
		case "args":
			v.Args = strs[string](&r.jsonReader)
			return 1 << 3
		case "commandLine":
			v.CommandLine = r.str()
			return 1 << 4
		case "env":
			v.Env = strs[string](&r.jsonReader)
			return 1 << 5
		case "cwd":
			v.Cwd = r.str()
			return 1 << 6
		case "capabilities":
			v.Capabilities = optional(&r.jsonReader, r.capabilities)
			return 1 << 7
		case "rlimits":
			v.Rlimits = list(&r.jsonReader, r.rlimit)
			return 1 << 8
		case "noNewPrivileges":
			v.NoNewPrivileges = r.boolean()
			return 1 << 9
		case "apparmorProfile":
			v.ApparmorProfile = r.str()
			return 1 << 10
		case "oomScoreAdj":
			v.OOMScoreAdj = optional(&r.jsonReader, func() int { return int(r.signed()) })
			return 1 << 11
		case "scheduler":
			v.Scheduler = rest[*specs.Scheduler](r)
			return 1 << 12
		case "selinuxLabel":
			v.SelinuxLabel = r.str()
			return 1 << 13
		case "ioPriority":
			v.IOPriority = rest[*specs.LinuxIOPriority](r)
			return 1 << 14
		case "execCPUAffinity":
			v.ExecCPUAffinity = rest[*specs.CPUAffinity](r)
			return 1 << 15
		}
		return 0
	})
	return v
}

func (r *specReader) user() (v specs.User) {
	r.object(func(name string) uint64 {
		switch name {
		case "uid":
			v.UID = r.uint32()
			return 1 << 0
		case "gid":
			v.GID = r.uint32()
			return 1 << 1
		case "umask":
			v.Umask = optional(&r.jsonReader, r.uint32)
			return 1 << 2
		case "additionalGids":
			v.AdditionalGids = list(&r.jsonReader, r.uint32)
			return 1 << 3
		case "username":
			v.Username = r.str()
			return 1 << 4
		}
		return 0
	})
	return v
}

func (r *specReader) uint32() uint32 { return uint32(r.unsigned(math.MaxUint32)) }

func (r *specReader) uint64() uint64 { return r.unsigned(math.MaxUint64) }

func (r *specReader) capabilities() (v specs.LinuxCapabilities) {
	r.object(func(name string) uint64 {
		switch name {
		case "bounding":
			v.Bounding = strs[string](&r.jsonReader)
			return 1 << 0
		case "effective":
			v.Effective = strs[string](&r.jsonReader)
			return 1 << 1
		case "inheritable":
			v.Inheritable = strs[string](&r.jsonReader)
			return 1 << 2
		case "permitted":
			v.Permitted = strs[string](&r.jsonReader)
			return 1 << 3
		case "ambient":
			v.Ambient = strs[string](&r.jsonReader)
			return 1 << 4
		}
		return 0
	})
	return v
}

func (r *specReader) rlimit() (v specs.POSIXRlimit) {
	r.object(func(name string) uint64 {
		switch name {
		case "type":
			v.Type = r.str()
			return 1 << 0
		case "hard":
			v.Hard = r.uint64()
			return 1 << 1
		case "soft":
			v.Soft = r.uint64()
			return 1 << 2
		}
		return 0
	})
	return v
}

func (r *specReader) mount() (v specs.Mount) {
	r.object(func(name string) uint64 {
		switch name {
		case "destination":
			v.Destination = r.str()
			return 1 << 0
		case "type":
			v.Type = r.str()
			return 1 << 1
		case "source":
			v.Source = r.str()
			return 1 << 2
		case "options":
			v.Options = strs[string](&r.jsonReader)
			return 1 << 3
		case "uidMappings":
			v.UIDMappings = list(&r.jsonReader, r.idMapping)
			return 1 << 4
		case "gidMappings":
			v.GIDMappings = list(&r.jsonReader, r.idMapping)
			return 1 << 5
		}
		return 0
	})
	return v
}

func (r *specReader) idMapping() (v specs.LinuxIDMapping) {
	r.object(func(name string) uint64 {
		switch name {
		case "containerID":
			v.ContainerID = r.uint32()
			return 1 << 0
		case "hostID":
			v.HostID = r.uint32()
			return 1 << 1
		case "size":
			v.Size = r.uint32()
			return 1 << 2
		}
		return 0
	})
	return v
}

func (r *specReader) linux() (v specs.Linux) {
	r.object(func(name string) uint64 {
		switch name {
		case "uidMappings":
			v.UIDMappings = list(&r.jsonReader, r.idMapping)
			return 1 << 0
		case "gidMappings":
			v.GIDMappings = list(&r.jsonReader, r.idMapping)
			return 1 << 1
		case "sysctl":
			v.Sysctl = r.strMap()
			return 1 << 2
		case "resources":
			v.Resources = optional(&r.jsonReader, r.resources)
			return 1 << 3
		case "cgroupsPath":
			v.CgroupsPath = r.str()
			return 1 << 4
		case "namespaces":
			v.Namespaces = list(&r.jsonReader, r.namespace)
			return 1 << 5
		case "devices":
			v.Devices = list(&r.jsonReader, r.device)
			return 1 << 6
		case "netDevices":
			v.NetDevices = rest[map[string]specs.LinuxNetDevice](r)
			return 1 << 7
		case "seccomp":
			v.Seccomp = optional(&r.jsonReader, r.seccomp)
			return 1 << 8
		case "rootfsPropagation":
			v.RootfsPropagation = r.str()
			return 1 << 9
		case "maskedPaths":
			v.MaskedPaths = strs[string](&r.jsonReader)
			return 1 << 10
		case "readonlyPaths":
			v.ReadonlyPaths = strs[string](&r.jsonReader)
			return 1 << 11
		case "mountLabel":
			v.MountLabel = r.str()
			return 1 << 12
		case "intelRdt":
			v.IntelRdt = rest[*specs.LinuxIntelRdt](r)
			return 1 << 13
		case "memoryPolicy":
			v.MemoryPolicy = rest[*specs.LinuxMemoryPolicy](r)
			return 1 << 14
		case "personality":
			v.Personality = rest[*specs.LinuxPersonality](r)
			return 1 << 15
		case "timeOffsets":
			v.TimeOffsets = rest[map[string]specs.LinuxTimeOffset](r)
			return 1 << 16
		}
		return 0
	})
	return v
}

func (r *specReader) namespace() (v specs.LinuxNamespace) {
	r.object(func(name string) uint64 {
		switch name {
		case "type":
			v.Type = specs.LinuxNamespaceType(r.str())
			return 1 << 0
		case "path":
			v.Path = r.str()
			return 1 << 1
		}
		return 0
	})
	return v
}

func (r *specReader) device() (v specs.LinuxDevice) {
	r.object(func(name string) uint64 {
		switch name {
		case "path":
			v.Path = r.str()
			return 1 << 0
		case "type":
			v.Type = r.str()
			return 1 << 1
		case "major":
			v.Major = r.signed()
			return 1 << 2
		case "minor":
			v.Minor = r.signed()
			return 1 << 3
		case "fileMode":
			v.FileMode = optional(&r.jsonReader, func() os.FileMode { return os.FileMode(r.uint32()) })
			return 1 << 4
		case "uid":
			v.UID = optional(&r.jsonReader, r.uint32)
			return 1 << 5
		case "gid":
			v.GID = optional(&r.jsonReader, r.uint32)
			return 1 << 6
		}
		return 0
	})
	return v
}

func (r *specReader) resources() (v specs.LinuxResources) {
	r.object(func(name string) uint64 {
		switch name {
		case "devices":
			v.Devices = list(&r.jsonReader, r.deviceRule)
			return 1 << 0
		case "memory":
			v.Memory = optional(&r.jsonReader, r.memory)
			return 1 << 1
		case "cpu":
			v.CPU = optional(&r.jsonReader, r.cpu)
			return 1 << 2
		case "pids":
			v.Pids = optional(&r.jsonReader, r.pids)
			return 1 << 3
		case "blockIO":
			v.BlockIO = rest[*specs.LinuxBlockIO](r)
			return 1 << 4
		case "hugepageLimits":
			v.HugepageLimits = rest[[]specs.LinuxHugepageLimit](r)
			return 1 << 5
		case "network":
			v.Network = rest[*specs.LinuxNetwork](r)
			return 1 << 6
		case "rdma":
			v.Rdma = rest[map[string]specs.LinuxRdma](r)
			return 1 << 7
		case "unified":
			v.Unified = r.strMap()
			return 1 << 8
		}
		return 0
	})
	return v
}

func (r *specReader) deviceRule() (v specs.LinuxDeviceCgroup) {
	r.object(func(name string) uint64 {
		switch name {
		case "allow":
			v.Allow = r.boolean()
			return 1 << 0
		case "type":
			v.Type = r.str()
			return 1 << 1
		case "major":
			v.Major = optional(&r.jsonReader, r.signed)
			return 1 << 2
		case "minor":
			v.Minor = optional(&r.jsonReader, r.signed)
			return 1 << 3
		case "access":
			v.Access = r.str()
			return 1 << 4
		}
		return 0
	})
	return v
}

func (r *specReader) memory() (v specs.LinuxMemory) {
	r.object(func(name string) uint64 {
		switch name {
		case "limit":
			v.Limit = optional(&r.jsonReader, r.signed)
			return 1 << 0
		case "reservation":
			v.Reservation = optional(&r.jsonReader, r.signed)
			return 1 << 1
		case "swap":
			v.Swap = optional(&r.jsonReader, r.signed)
			return 1 << 2
		case "kernel":
			//lint:ignore SA1019 deprecated, and still given
			v.Kernel = optional(&r.jsonReader, r.signed)
			return 1 << 3
		case "kernelTCP":
			v.KernelTCP = optional(&r.jsonReader, r.signed)
			return 1 << 4
		case "swappiness":
			v.Swappiness = optional(&r.jsonReader, r.uint64)
			return 1 << 5
		case "disableOOMKiller":
			v.DisableOOMKiller = optional(&r.jsonReader, r.boolean)
			return 1 << 6
		case "useHierarchy":
			v.UseHierarchy = optional(&r.jsonReader, r.boolean)
			return 1 << 7
		case "checkBeforeUpdate":
			v.CheckBeforeUpdate = optional(&r.jsonReader, r.boolean)
			return 1 << 8
		}
		return 0
	})
	return v
}

func (r *specReader) cpu() (v specs.LinuxCPU) {
	r.object(func(name string) uint64 {
		switch name {
		case "shares":
			v.Shares = optional(&r.jsonReader, r.uint64)
			return 1 << 0
		case "quota":
			v.Quota = optional(&r.jsonReader, r.signed)
			return 1 << 1
		case "burst":
			v.Burst = optional(&r.jsonReader, r.uint64)
			return 1 << 2
		case "period":
			v.Period = optional(&r.jsonReader, r.uint64)
			return 1 << 3
		case "realtimeRuntime":
			v.RealtimeRuntime = optional(&r.jsonReader, r.signed)
			return 1 << 4
		case "realtimePeriod":
			v.RealtimePeriod = optional(&r.jsonReader, r.uint64)
			return 1 << 5
		case "cpus":
			v.Cpus = r.str()
			return 1 << 6
		case "mems":
			v.Mems = r.str()
			return 1 << 7
		case "idle":
			v.Idle = optional(&r.jsonReader, r.signed)
			return 1 << 8
		}
		return 0
	})
	return v
}

func (r *specReader) pids() (v specs.LinuxPids) {
	r.object(func(name string) uint64 {
		if name == "limit" {
			v.Limit = optional(&r.jsonReader, r.signed)
			return 1
		}
		return 0
	})
	return v
}

func (r *specReader) seccomp() (v specs.LinuxSeccomp) {
	r.object(func(name string) uint64 {
		switch name {
		case "defaultAction":
			v.DefaultAction = specs.LinuxSeccompAction(r.str())
			return 1 << 0
		case "defaultErrnoRet":
			v.DefaultErrnoRet = optional(&r.jsonReader, r.uint)
			return 1 << 1
		case "architectures":
			v.Architectures = strs[specs.Arch](&r.jsonReader)
			return 1 << 2
		case "flags":
			v.Flags = strs[specs.LinuxSeccompFlag](&r.jsonReader)
			return 1 << 3
		case "listenerPath":
			v.ListenerPath = r.str()
			return 1 << 4
		case "listenerMetadata":
			v.ListenerMetadata = r.str()
			return 1 << 5
		case "syscalls":
			v.Syscalls = list(&r.jsonReader, r.syscall)
			return 1 << 6
		}
		return 0
	})
	return v
}

func (r *specReader) uint() uint { return uint(r.uint64()) }

func (r *specReader) syscall() (v specs.LinuxSyscall) {
	r.object(func(name string) uint64 {
		switch name {
		case "names":
			v.Names = strs[string](&r.jsonReader)
			return 1 << 0
		case "action":
			v.Action = specs.LinuxSeccompAction(r.str())
			return 1 << 1
		case "errnoRet":
			v.ErrnoRet = optional(&r.jsonReader, r.uint)
			return 1 << 2
		case "args":
			v.Args = list(&r.jsonReader, r.syscallArg)
			return 1 << 3
		}
		return 0
	})
	return v
}

func (r *specReader) syscallArg() (v specs.LinuxSeccompArg) {
	r.object(func(name string) uint64 {
		switch name {
		case "index":
			v.Index = r.uint()
			return 1 << 0
		case "value":
			v.Value = r.uint64()
			return 1 << 1
		case "valueTwo":
			v.ValueTwo = r.uint64()
			return 1 << 2
		case "op":
			v.Op = specs.LinuxSeccompOperator(r.str())
			return 1 << 3
		}
		return 0
	})
	return v
}
