package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/berth-containers/berth/errdefs"
	"github.com/berth-containers/berth/kernel/lsm"
	"github.com/berth-containers/berth/oci"
	"github.com/moby/profiles/apparmor"
)

// appArmorDefault is the profile of containers that name none: Docker's
// docker-default under a name of our own, loaded when it is first needed.
const appArmorDefault = "berth-default"

// appArmorProfiles lists what the kernel has loaded, a line each.
const appArmorProfiles = "/sys/kernel/security/apparmor/profiles"

// appArmorParser compiles a profile for the kernel and loads it.
const appArmorParser = "apparmor_parser"

// checkAppArmor refuses a profile that this host could not apply.
func (s *securityOptions) checkAppArmor(h *hostFacts) error {
	if s.appArmor == "" || s.appArmor == unconfined || h.appArmor {
		return nil
	}
	return errdefs.WithHint(errUnsupported("--security-opt apparmor="+s.appArmor+" on a kernel without AppArmor"),
		"leave the option out: where there is no AppArmor a Landlock layer denies mounts")
}

// appArmor loads the default profile.
type appArmor struct {
	mu     sync.Mutex
	loaded bool
}

// profile is the AppArmor profile of a starting container: the one asked for,
// unconfined when privileged, else the default. It is empty where there is no
// AppArmor or no way to load a profile: then Landlock confines (see
// oci.LandlockAnnotation).
func (a *appArmor) profile(sec *securityOptions, privileged bool, h *hostFacts) (string, error) {
	switch {
	case !h.appArmor || sec.appArmor == unconfined:
		return sec.appArmor, nil // empty or unconfined
	case sec.appArmor != "" && sec.appArmor != appArmorDefault:
		return sec.appArmor, checkLoaded(sec.appArmor)
	case sec.appArmor == "" && privileged:
		return unconfined, nil
	}
	err := a.ensure()
	if errors.Is(err, errdefs.ErrUnsupported) && sec.appArmor == "" {
		return "", nil // Info says so
	}
	return appArmorDefault, err
}

// ensure loads the default profile unless the kernel has it. Somebody may have
// unloaded it since the last start.
func (a *appArmor) ensure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	loaded, err := apparmor.IsLoaded(appArmorDefault)
	if err == nil && loaded || errors.Is(err, os.ErrNotExist) && a.loaded {
		return nil
	}
	if _, err := exec.LookPath(appArmorParser); err != nil {
		return errdefs.WithHint(errUnsupported("load AppArmor profile "+appArmorDefault+" without "+appArmorParser), "install the package apparmor")
	}
	if err := apparmor.InstallDefault(appArmorDefault); err != nil {
		return fmt.Errorf("load AppArmor profile %s: %w", appArmorDefault, err)
	}
	a.loaded = true
	return nil
}

// checkLoaded refuses a profile that the kernel does not have. Where the list
// cannot be read (securityfs is not mounted) the kernel's refusal must do.
func checkLoaded(profile string) error {
	loaded, err := apparmor.IsLoaded(profile)
	if err != nil || loaded {
		return nil
	}
	// A profile may be a stack or a namespace's (":ns:name", "a//&b").
	if strings.ContainsAny(profile, ":&") {
		return nil
	}
	return errdefs.WithHint(invalidf("AppArmor profile %s is not loaded", profile), "load it with apparmor_parser -r FILE; see "+appArmorProfiles)
}

// canLoad says whether containers are confined by AppArmor when they name no
// profile.
func (a *appArmor) canLoad(h *hostFacts) bool {
	if !h.appArmor {
		return false
	}
	if _, err := exec.LookPath(appArmorParser); err == nil {
		return true
	}
	loaded, err := apparmor.IsLoaded(appArmorDefault)
	return err == nil && loaded
}

// shown is the profile as inspect shows it.
func (a *appArmor) shown(rec *record, h *hostFacts) string {
	sec, err := parseSecurityOpt(rec.HostConfig.SecurityOpt, h)
	switch {
	case err != nil || !h.appArmor:
		return ""
	case sec.appArmor != "":
		return sec.appArmor
	case rec.HostConfig.Privileged:
		return unconfined
	case a.canLoad(h):
		return appArmorDefault
	}
	return ""
}

// checkLandlock refuses an annotation that no start could follow.
func checkLandlock(annotations map[string]string, h *hostFacts) error {
	value, asked := annotations[oci.LandlockAnnotation]
	switch {
	case !asked || value == "off":
		return nil
	case value != "default" && value != "strict":
		return invalidf("annotation %s=%s: must be off, default or strict", oci.LandlockAnnotation, value)
	case h.landlock < landlockVersion:
		return errdefs.WithHint(errUnsupported("annotation "+oci.LandlockAnnotation+"="+value+" on a kernel without Landlock"),
			"it needs Linux 5.19 with landlock among the security modules (lsm=landlock,...); leave the annotation out, or say off")
	}
	return nil
}

// landlockVersion is the version of the interface a layer needs.
const landlockVersion = 2

// appArmorRemove takes the name of a profile to be unloaded (aa-remove-unknown(8)).
const appArmorRemove = "/sys/kernel/security/apparmor/.remove"

// removeAppArmor unloads the default profile; one that is not loaded is no
// error.
func removeAppArmor() error {
	if !lsm.AppArmor() {
		return nil
	}
	if loaded, err := apparmor.IsLoaded(appArmorDefault); err != nil || !loaded {
		return nil // without securityfs it was not loaded by us either
	}
	if err := os.WriteFile(appArmorRemove, []byte(appArmorDefault), 0); err != nil {
		return fmt.Errorf("unload AppArmor profile %s: %w", appArmorDefault, err)
	}
	return nil
}
