package render

import (
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
)

// ClientVersion describes the command.
type ClientVersion struct {
	Version    string
	APIVersion string `json:"ApiVersion"`
	GitCommit  string
	GoVersion  string
	Os         string
	Arch       string
	BuildTime  string `json:",omitempty"`
}

// Versions are the command's and the engine's.
type Versions struct {
	Client ClientVersion
	Server *system.VersionResponse
}

// Version prints versions as people read them.
func Version(w io.Writer, v *Versions) error {
	t := tabwriter.NewWriter(w, 20, 1, 1, ' ', 0)
	c := v.Client
	fmt.Fprintln(t, "Client:")
	fields(t, " ", [][2]string{
		{"Version", c.Version}, {"API version", c.APIVersion}, {"Go version", c.GoVersion},
		{"Git commit", c.GitCommit}, {"Built", c.BuildTime}, {"OS/Arch", c.Os + "/" + c.Arch},
	})
	if v.Server == nil {
		return t.Flush()
	}
	fmt.Fprintln(t)
	if name := v.Server.Platform.Name; name != "" {
		fmt.Fprintf(t, "Server: %s\n", name)
	} else {
		fmt.Fprintln(t, "Server:")
	}
	s := v.Server
	components := s.Components
	if len(components) == 0 {
		components = []system.ComponentVersion{{Name: "Engine", Version: s.Version}}
	}
	for _, component := range components {
		fmt.Fprintf(t, " %s:\n", component.Name)
		fields(t, "  ", componentFields(s, component))
	}
	return t.Flush()
}

// componentFields are the lines of a part of the server. The engine's own come from
// the answer's fields, any other's from its details.
func componentFields(s *system.VersionResponse, c system.ComponentVersion) [][2]string {
	if c.Name == "Engine" {
		return [][2]string{
			{"Version", s.Version}, {"API version", apiRange(s)}, {"Go version", s.GoVersion},
			{"Git commit", s.GitCommit}, {"Built", s.BuildTime}, {"OS/Arch", s.Os + "/" + s.Arch},
			{"Kernel", s.KernelVersion},
		}
	}
	lines := [][2]string{{"Version", c.Version}}
	names := make([]string, 0, len(c.Details))
	for name := range c.Details {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		lines = append(lines, [2]string{name, c.Details[name]})
	}
	return lines
}

func apiRange(s *system.VersionResponse) string {
	if s.MinAPIVersion == "" {
		return s.APIVersion
	}
	return s.APIVersion + " (minimum version " + s.MinAPIVersion + ")"
}

// fields prints name and value of each field that has one.
func fields(w io.Writer, indent string, all [][2]string) {
	for _, f := range all {
		if f[1] != "" {
			fmt.Fprintf(w, "%s%s:\t%s\n", indent, f[0], f[1])
		}
	}
}

// Info prints what an engine says of itself and its host.
func Info(w io.Writer, clientVersion string, i *system.Info) error {
	var b strings.Builder
	line := func(indent int, name string, value any) {
		if s := fmt.Sprint(value); s != "" {
			fmt.Fprintf(&b, "%s%s: %s\n", strings.Repeat(" ", indent), name, s)
		}
	}
	fmt.Fprintln(&b, "Client:")
	line(1, "Version", clientVersion)
	fmt.Fprintln(&b, "\nServer:")
	line(1, "Containers", i.Containers)
	line(2, "Running", i.ContainersRunning)
	line(2, "Paused", i.ContainersPaused)
	line(2, "Stopped", i.ContainersStopped)
	line(1, "Images", i.Images)
	line(1, "Server Version", i.ServerVersion)
	line(1, "Storage Driver", i.Driver)
	for _, pair := range i.DriverStatus {
		line(2, pair[0], pair[1])
	}
	line(1, "Logging Driver", i.LoggingDriver)
	line(1, "Cgroup Driver", i.CgroupDriver)
	line(1, "Cgroup Version", i.CgroupVersion)
	fmt.Fprintln(&b, " Plugins:")
	line(2, "Volume", strings.Join(i.Plugins.Volume, " "))
	line(2, "Network", strings.Join(i.Plugins.Network, " "))
	line(2, "Log", strings.Join(i.Plugins.Log, " "))
	line(1, "Runtimes", strings.Join(runtimes(i), " "))
	line(1, "Default Runtime", i.DefaultRuntime)
	line(1, "Init Binary", i.InitBinary)
	securityOptions(&b, i.SecurityOptions)
	cdiDevices(&b, i)
	line(1, "Kernel Version", i.KernelVersion)
	line(1, "Operating System", i.OperatingSystem)
	line(1, "OSType", i.OSType)
	line(1, "Architecture", i.Architecture)
	line(1, "CPUs", i.NCPU)
	line(1, "Total Memory", units.BytesSize(float64(i.MemTotal)))
	line(1, "Name", i.Name)
	line(1, "ID", i.ID)
	line(1, "Root Dir", i.DockerRootDir)
	line(1, "Debug Mode", i.Debug)
	line(1, "HTTP Proxy", i.HTTPProxy)
	line(1, "HTTPS Proxy", i.HTTPSProxy)
	line(1, "No Proxy", i.NoProxy)
	if len(i.Labels) > 0 {
		fmt.Fprintln(&b, " Labels:\n  "+strings.Join(i.Labels, "\n  "))
	}
	registries(&b, i)
	line(1, "Live Restore Enabled", i.LiveRestoreEnabled)
	if i.FirewallBackend != nil {
		line(1, "Firewall Backend", i.FirewallBackend.Driver)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func runtimes(i *system.Info) []string {
	names := make([]string, 0, len(i.Runtimes))
	for name := range i.Runtimes {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// securityOptions prints options in the form name=seccomp,profile=builtin.
// cdiDevices lists where devices are described, and which are.
func cdiDevices(b *strings.Builder, i *system.Info) {
	if len(i.CDISpecDirs) > 0 {
		fmt.Fprintln(b, " CDI spec directories:")
	}
	for _, dir := range i.CDISpecDirs {
		fmt.Fprintf(b, "  %s\n", dir)
	}
	if len(i.DiscoveredDevices) > 0 {
		fmt.Fprintln(b, " Discovered Devices:")
	}
	for _, d := range i.DiscoveredDevices {
		fmt.Fprintf(b, "  %s: %s\n", d.Source, d.ID)
	}
}

func securityOptions(b *strings.Builder, options []string) {
	if len(options) == 0 {
		return
	}
	fmt.Fprintln(b, " Security Options:")
	for _, option := range options {
		for _, pair := range strings.Split(option, ",") {
			switch key, value, _ := strings.Cut(pair, "="); key {
			case "name":
				fmt.Fprintf(b, "  %s\n", value)
			case "profile":
				fmt.Fprintf(b, "   Profile: %s\n", value)
			case "abi":
				fmt.Fprintf(b, "   ABI: %s\n", value)
			}
		}
	}
}

func registries(b *strings.Builder, i *system.Info) {
	if i.RegistryConfig == nil {
		return
	}
	var insecure []string
	for _, index := range i.RegistryConfig.IndexConfigs {
		if !index.Secure {
			insecure = append(insecure, index.Name)
		}
	}
	sort.Strings(insecure)
	for _, net := range i.RegistryConfig.InsecureRegistryCIDRs {
		insecure = append(insecure, net.String())
	}
	if len(insecure) > 0 {
		fmt.Fprintln(b, " Insecure Registries:\n  "+strings.Join(insecure, "\n  "))
	}
	if len(i.RegistryConfig.Mirrors) > 0 {
		fmt.Fprintln(b, " Registry Mirrors:\n  "+strings.Join(i.RegistryConfig.Mirrors, "\n  "))
	}
}

// The tables of berth system df.
const (
	DiskUsageTable          = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
	DiskUsageImageTable     = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}"
	DiskUsageContainerTable = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}"
)

// DiskUsageHeader has the headings of [DiskUsage].
func DiskUsageHeader() Header {
	return Header{"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
}

// DiskUsage is a line of berth system df.
type DiskUsage struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

func newDiskUsage(kind string, total, active, size, reclaimable int64) DiskUsage {
	d := DiskUsage{
		Type: kind, TotalCount: strconv.FormatInt(total, 10), Active: strconv.FormatInt(active, 10),
		Size: units.HumanSize(float64(size)), Reclaimable: units.HumanSize(float64(reclaimable)),
	}
	if size > 0 {
		d.Reclaimable += fmt.Sprintf(" (%d%%)", reclaimable*100/size)
	}
	return d
}

// NewDiskUsage makes the lines, one per kind of thing the engine told of.
func NewDiskUsage(u *client.DiskUsage) []DiskUsage {
	var lines []DiskUsage
	if i := u.ImageUsage; i != nil {
		lines = append(lines, newDiskUsage("Images", i.TotalCount, i.ActiveCount, i.TotalSize, i.Reclaimable))
	} else if u.Images != nil {
		lines = append(lines, oldImageUsage(u))
	}
	if c := u.ContainerUsage; c != nil {
		lines = append(lines, newDiskUsage("Containers", c.TotalCount, c.ActiveCount, c.TotalSize, c.Reclaimable))
	} else if u.Containers != nil {
		lines = append(lines, oldContainerUsage(u.Containers))
	}
	if v := u.VolumeUsage; v != nil {
		lines = append(lines, newDiskUsage("Local Volumes", v.TotalCount, v.ActiveCount, v.TotalSize, v.Reclaimable))
	} else if u.Volumes != nil {
		lines = append(lines, oldVolumeUsage(u.Volumes))
	}
	if c := u.BuildCacheUsage; c != nil {
		lines = append(lines, newDiskUsage("Build Cache", c.TotalCount, c.ActiveCount, c.TotalSize, c.Reclaimable))
	}
	return lines
}

// oldImageUsage adds up what engines before API 1.52 list.
func oldImageUsage(u *client.DiskUsage) DiskUsage {
	var active, used int64
	for _, i := range u.Images {
		if i.Containers > 0 {
			active++
			used += i.Size
			if i.SharedSize > 0 {
				used -= i.SharedSize
			}
		}
	}
	return newDiskUsage("Images", int64(len(u.Images)), active, u.LayersSize, max(0, u.LayersSize-used))
}

func oldContainerUsage(list []container.Summary) DiskUsage {
	var active, size, reclaimable int64
	for _, c := range list {
		size += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			active++
		default:
			reclaimable += c.SizeRw
		}
	}
	return newDiskUsage("Containers", int64(len(list)), active, size, reclaimable)
}

func oldVolumeUsage(list []volume.Volume) DiskUsage {
	var active, size, reclaimable int64
	for _, v := range list {
		if v.UsageData == nil || v.UsageData.Size < 0 {
			continue
		}
		size += v.UsageData.Size
		if v.UsageData.RefCount > 0 {
			active++
		} else {
			reclaimable += v.UsageData.Size
		}
	}
	return newDiskUsage("Local Volumes", int64(len(list)), active, size, reclaimable)
}

// DiskUsageDetails are the single things of berth system df -v.
type DiskUsageDetails struct {
	Images     []Image
	Containers []Container
	Volumes    []Volume
}

// NewDiskUsageDetails makes the lines of each thing.
func NewDiskUsageDetails(u *client.DiskUsage, trunc bool, now time.Time) DiskUsageDetails {
	images, containers, volumes := u.Images, u.Containers, u.Volumes
	if u.ImageUsage != nil {
		images = u.ImageUsage.Items
	}
	if u.ContainerUsage != nil {
		containers = u.ContainerUsage.Items
	}
	if u.VolumeUsage != nil {
		volumes = u.VolumeUsage.Items
	}
	d := DiskUsageDetails{Images: []Image{}, Containers: []Container{}, Volumes: []Volume{}}
	for i := range images {
		d.Images = append(d.Images, firstName(&images[i], trunc, now))
	}
	for i := range containers {
		c := containers[i]
		c.SizeRootFs = 0 // the image's size is counted above
		d.Containers = append(d.Containers, NewContainer(&c, trunc, now))
	}
	for i := range volumes {
		d.Volumes = append(d.Volumes, NewVolume(&volumes[i]))
	}
	return d
}

func firstName(i *image.Summary, trunc bool, now time.Time) Image {
	return NewImages(i, trunc, false, now)[0]
}
