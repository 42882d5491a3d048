package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/credentials"
	"github.com/berth-containers/berth/cmd/berth/internal/imageref"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// authFor is what the registry of an image is shown: the header of a request,
// "" for nothing. Credentials that cannot be read are no reason not to ask: the
// image may be public.
func (a *app) authFor(repo string) string {
	f, err := credentials.Open()
	var auth *registry.AuthConfig
	if err == nil {
		auth, err = f.Get(credentials.ServerOf(repo))
	}
	header := ""
	if err == nil && auth != nil {
		header, err = credentials.Header(auth)
	}
	if err != nil {
		fmt.Fprintf(a.err, "WARNING: %v\n", err)
	}
	return header
}

func newPush(a *app) *cobra.Command {
	var allTags, quiet bool
	var platform string
	cmd := verb("push [OPTIONS] NAME[:TAG]", "Upload an image to a registry", 1, 1, func(cmd *cobra.Command, args []string) error {
		ref := imageref.Parse(args[0])
		switch {
		case ref.Digest != "":
			return errors.New("cannot push a digest reference")
		case allTags && ref.Tag != "":
			return errors.New("tag can't be used with --all-tags/-a")
		case !allTags && ref.Tag == "":
			ref.Tag = "latest"
			if !quiet {
				fmt.Fprintln(a.out, "Using default tag: latest")
			}
		}
		return a.push(cmd.Context(), ref, platform, quiet)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&allTags, "all-tags", "a", false, "Push all tags of an image to the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&platform, "platform", "", `Push only an image for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	cmd.ValidArgsFunction = firstOnly(a.completeImages, noFiles)
	return cmd
}

func (a *app) push(ctx context.Context, ref imageref.Ref, platform string, quiet bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	body, err := c.ImagePush(ctx, client.PushOptions{Repo: ref.Repo, Tag: ref.Tag, Platform: platform, Auth: a.authFor(ref.Repo)})
	if err != nil {
		return err
	}
	if err := a.showTransfer(body, quiet); err != nil || !quiet {
		return err
	}
	_, err = fmt.Fprintln(a.out, canonical(ref))
	return err
}

// login are the flags of login.
type login struct {
	user, password string
	stdin          bool
}

func newLogin(a *app) *cobra.Command {
	var l login
	cmd := verb("login [OPTIONS] [SERVER]", "Log in to a registry", 0, 1, func(cmd *cobra.Command, args []string) error {
		server := ""
		if len(args) > 0 {
			server = args[0]
		}
		given := cmd.Flags().Changed("password")
		switch {
		case given && l.stdin:
			return errors.New("--password and --password-stdin are mutually exclusive")
		case l.stdin && l.user == "":
			return errors.New("the --password-stdin option requires --username to be set")
		case given:
			fmt.Fprintln(a.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
		}
		return a.login(cmd.Context(), &l, credentials.Server(server))
	})
	fs := cmd.Flags()
	fs.StringVarP(&l.user, "username", "u", "", "Username")
	fs.StringVarP(&l.password, "password", "p", "", "Password or access token")
	fs.BoolVar(&l.stdin, "password-stdin", false, "Take the password from standard input")
	cmd.ValidArgsFunction = noCompletion
	return cmd
}

func (a *app) login(ctx context.Context, l *login, server string) error {
	f, err := credentials.Open()
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	known, err := f.Get(server)
	if err != nil {
		return err
	}
	if known != nil && l.user == "" && l.password == "" {
		fmt.Fprintln(a.out, "Authenticating with existing credentials...")
		err := a.logInWith(ctx, c, f, known)
		if err == nil || !terminal.Is(a.in) {
			return err
		}
		fmt.Fprintf(a.err, "berth: %v\n", err)
	}
	auth := &registry.AuthConfig{Username: l.user, Password: l.password, ServerAddress: server}
	if err := a.askCredentials(auth, known, l.stdin); err != nil {
		return err
	}
	return a.logInWith(ctx, c, f, auth)
}

// logInWith has the registry try the credentials and keeps them.
func (a *app) logInWith(ctx context.Context, c *client.Client, f *credentials.File, auth *registry.AuthConfig) error {
	answer, err := c.Login(ctx, auth)
	if err != nil {
		return err
	}
	keep := *auth
	if answer.IdentityToken != "" {
		keep.IdentityToken, keep.Password = answer.IdentityToken, ""
	}
	readable, err := f.Put(&keep)
	if err != nil {
		return err
	}
	if readable {
		fmt.Fprintf(a.err, "WARNING! Your credentials are stored unencrypted in '%s'.\n"+
			"Configure a credential helper (credsStore) there to remove this warning.\n", f.Path)
	}
	fmt.Fprintln(a.out, answer.Status)
	return nil
}

// askCredentials completes what the flags gave, from standard input.
func (a *app) askCredentials(auth, known *registry.AuthConfig, stdin bool) error {
	if stdin {
		text, err := io.ReadAll(a.in)
		if err != nil {
			return fmt.Errorf("read password: %w", err)
		}
		if auth.Password = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"); auth.Password == "" {
			return errors.New("the password on standard input is empty")
		}
		return nil
	}
	if auth.Username != "" && auth.Password != "" {
		return nil
	}
	if !terminal.Is(a.in) {
		return &hinted{error: errors.New("cannot ask for a user name and password: standard input is not a terminal"),
			hint: "use --username with --password-stdin"}
	}
	if auth.Username == "" {
		before := ""
		if known != nil {
			before = known.Username
		}
		if before != "" {
			fmt.Fprintf(a.out, "Username (%s): ", before)
		} else {
			fmt.Fprint(a.out, "Username: ")
		}
		line, err := readLine(a.in)
		if err != nil {
			return err
		}
		if auth.Username = strings.TrimSpace(line); auth.Username == "" {
			auth.Username = before
		}
		if auth.Username == "" {
			return errors.New("a user name is needed")
		}
	}
	if auth.Password == "" {
		fmt.Fprint(a.out, "Password: ")
		secret, err := a.readSecret()
		fmt.Fprintln(a.out)
		if err != nil {
			return err
		}
		if auth.Password = secret; secret == "" {
			return errors.New("a password is needed")
		}
	}
	return nil
}

// readLine reads a line, and nothing of what follows it.
func readLine(f *os.File) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for {
		if n, err := f.Read(b); n == 0 {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", fmt.Errorf("read from the terminal: %w", err)
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
}

// readSecret reads a line that the terminal does not show.
func (a *app) readSecret() (string, error) {
	raw, err := terminal.MakeRaw(a.in)
	if err != nil {
		return "", err
	}
	a.raw = raw
	defer func() {
		a.restore()
		a.raw = nil
	}()
	var line []byte
	b := make([]byte, 1)
	for {
		if n, err := a.in.Read(b); n == 0 {
			return "", fmt.Errorf("read from the terminal: %w", err)
		}
		switch c := b[0]; c {
		case '\r', '\n':
			return string(line), nil
		case 0x03: // ctrl-c, which is no signal in this mode
			return "", exitStatus(130)
		case 0x04: // ctrl-d
			return "", errors.New("a password is needed")
		case 0x7f, 0x08:
			line = line[:max(0, len(line)-1)]
		case 0x15: // ctrl-u
			line = nil
		default:
			line = append(line, c)
		}
	}
}

func newLogout(a *app) *cobra.Command {
	cmd := verb("logout [SERVER]", "Log out from a registry", 0, 1, func(_ *cobra.Command, args []string) error {
		server := ""
		if len(args) > 0 {
			server = args[0]
		}
		server = credentials.Server(server)
		f, err := credentials.Open()
		if err != nil {
			return err
		}
		found, err := f.Remove(server)
		if err != nil {
			return err
		}
		if found {
			fmt.Fprintf(a.out, "Removing login credentials for %s\n", server)
		} else {
			fmt.Fprintf(a.out, "Not logged in to %s\n", server)
		}
		return nil
	})
	cmd.ValidArgsFunction = noCompletion
	return cmd
}
