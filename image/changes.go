package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/berth-containers/berth/errdefs"
)

// ApplyChanges applies Dockerfile instructions to an image config, as `docker
// import --change` and `docker commit --change` do. Known are CMD, ENTRYPOINT,
// ENV, EXPOSE, HEALTHCHECK, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR. The error is an
// errdefs.ErrInvalid that quotes the instruction.
func ApplyChanges(config *dockerspec.DockerOCIImageConfig, changes []string) error {
	for _, change := range changes {
		word, args, _ := strings.Cut(strings.TrimSpace(change), " ")
		args = strings.TrimSpace(args)
		if err := applyChange(config, strings.ToUpper(word), args); err != nil {
			return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("change %q: %w", change, err))
		}
	}
	return nil
}

func applyChange(config *dockerspec.DockerOCIImageConfig, word, args string) error {
	if args == "" {
		return errors.New("it has no argument")
	}
	switch word {
	case "CMD":
		config.Cmd = command(args, config.Shell)
	case "ENTRYPOINT":
		config.Entrypoint = command(args, config.Shell)
	case "ENV":
		return eachPair(args, func(k, v string) { config.Env = setEnv(config.Env, k, v) })
	case "EXPOSE":
		return expose(config, strings.Fields(args))
	case "HEALTHCHECK":
		check, err := healthcheck(args)
		config.Healthcheck = check
		return err
	case "ONBUILD":
		word, _, _ := strings.Cut(args, " ")
		switch strings.ToUpper(word) {
		case "ONBUILD", "FROM", "MAINTAINER": // they would make no sense later
			return fmt.Errorf("%q cannot be a trigger", word)
		}
		config.OnBuild = append(config.OnBuild, args)
	case "SHELL":
		shell := execForm(args)
		if len(shell) == 0 {
			return errors.New("it wants a JSON list")
		}
		config.Shell = shell
	case "LABEL":
		if config.Labels == nil {
			config.Labels = map[string]string{}
		}
		return eachPair(args, func(k, v string) { config.Labels[k] = v })
	case "STOPSIGNAL":
		config.StopSignal = args
	case "USER":
		config.User = args
	case "VOLUME":
		if config.Volumes == nil {
			config.Volumes = map[string]struct{}{}
		}
		for _, v := range list(args) {
			config.Volumes[v] = struct{}{}
		}
	case "WORKDIR":
		if !strings.HasPrefix(args, "/") {
			args = strings.TrimSuffix(config.WorkingDir, "/") + "/" + args
		}
		config.WorkingDir = args
	default:
		return fmt.Errorf("%q is not an instruction that can be used here", word)
	}
	return nil
}

// command reads the exec form (a JSON list) or wraps the shell form.
func command(args string, shell []string) []string {
	if exec := execForm(args); exec != nil {
		return exec
	}
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), args)
}

// healthcheck reads [--interval=D] [--timeout=D] [--start-period=D]
// [--start-interval=D] [--retries=N] CMD command, or NONE.
func healthcheck(args string) (*dockerspec.HealthcheckConfig, error) {
	h := &dockerspec.HealthcheckConfig{}
	times := map[string]*time.Duration{
		"--interval": &h.Interval, "--timeout": &h.Timeout,
		"--start-period": &h.StartPeriod, "--start-interval": &h.StartInterval,
	}
	for strings.HasPrefix(args, "--") {
		option, rest, _ := strings.Cut(args, " ")
		args = strings.TrimSpace(rest)
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch to := times[name]; {
		case to != nil:
			*to, err = time.ParseDuration(value)
		case name == "--retries":
			h.Retries, err = strconv.Atoi(value)
		default:
			err = errors.New("unknown option")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", option, err)
		}
	}
	word, command, _ := strings.Cut(args, " ")
	command = strings.TrimSpace(command)
	switch word = strings.ToUpper(word); {
	case word == "NONE" && command == "":
		h.Test = []string{"NONE"}
	case word != "CMD" || command == "":
		return nil, errors.New("it is neither CMD with a command nor NONE")
	default:
		h.Test = []string{"CMD-SHELL", command}
		var exec []string
		if json.Unmarshal([]byte(command), &exec) == nil {
			h.Test = append([]string{"CMD"}, exec...)
		}
	}
	return h, nil
}

// list reads a JSON list or words.
func list(args string) []string {
	if exec := execForm(args); exec != nil {
		return exec
	}
	return strings.Fields(args)
}

// execForm reads a JSON list of words; nil is none.
func execForm(args string) []string {
	var exec []string
	if json.Unmarshal([]byte(args), &exec) != nil {
		return nil
	}
	return exec
}

func setEnv(env []string, key, value string) []string {
	for i, e := range env {
		if k, _, _ := strings.Cut(e, "="); k == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

func expose(config *dockerspec.DockerOCIImageConfig, ports []string) error {
	if config.ExposedPorts == nil {
		config.ExposedPorts = map[string]struct{}{}
	}
	for _, port := range ports {
		number, proto, ok := strings.Cut(port, "/")
		if !ok {
			proto = "tcp"
		}
		proto = strings.ToLower(proto)
		first, last, err := portRange(number)
		if err != nil || !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
			return fmt.Errorf("%q is not a port", port)
		}
		for p := first; p <= last; p++ {
			config.ExposedPorts[fmt.Sprintf("%d/%s", p, proto)] = struct{}{}
		}
	}
	return nil
}

// portRange reads "80" or "8000-8010".
func portRange(s string) (first, last uint64, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	if first, err = strconv.ParseUint(from, 10, 16); err != nil {
		return 0, 0, err
	}
	last, err = strconv.ParseUint(to, 10, 16)
	if err == nil && (first == 0 || last < first) {
		err = errors.New("not a range")
	}
	return first, last, err
}

// eachPair reads "key=value key2="with space"" or, as Docker once had it,
// "key the rest is the value".
func eachPair(args string, set func(key, value string)) error {
	words, err := splitWords(args)
	if err != nil {
		return err
	}
	if !strings.Contains(words[0], "=") {
		key, value, ok := strings.Cut(args, " ")
		if !ok {
			return errors.New("it has no value")
		}
		set(key, strings.TrimSpace(value))
		return nil
	}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return fmt.Errorf("%q is not KEY=VALUE", w)
		}
		set(key, value)
	}
	return nil
}

// splitWords splits at spaces outside quotes and removes quotes and the
// backslashes that protect a character.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("it has no argument")
	}
	return words, nil
}
