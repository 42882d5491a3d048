package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
	"github.com/berth-containers/berth/cmd/berth/internal/live"
	"github.com/berth-containers/berth/cmd/berth/internal/terminal"
)

// live is berth top without a container: a view of all that fills the terminal.
func (a *app) live(ctx context.Context, args []string) error {
	if len(args) > 1 {
		return &usageError{message: "'berth top --live' accepts at most 1 argument, a part of the names to show", command: "berth top"}
	}
	if !terminal.Is(a.in) || !terminal.Is(a.out) || os.Getenv("TERM") == "dumb" {
		return &hinted{
			error: errors.New("berth top without a container needs a terminal"),
			hint:  "name a container, or use: berth stats --no-stream",
		}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	o := live.Options{
		In: a.in, Out: a.out, Client: c, Colours: os.Getenv("NO_COLOR") == "",
		Explain: func(ctx context.Context, id string, width int) (string, error) {
			raw, err := c.ContainerExplain(ctx, id)
			if err != nil {
				return "", err
			}
			var e client.Explanation
			if err := json.Unmarshal(raw, &e); err != nil {
				return "", fmt.Errorf("decode the engine's explanation: %w", err)
			}
			return explanation(&e, width), nil
		},
	}
	if len(args) == 1 {
		o.Filter = args[0]
	}
	err = live.Run(ctx, o)
	var ended live.Ended
	if errors.As(err, &ended) {
		return exitStatus(128 + int(ended)) // as a shell tells of a command that a signal ended
	}
	return err
}
