package render

import (
	"fmt"
	"time"

	"github.com/docker/go-units"

	"github.com/berth-containers/berth/cmd/berth/internal/client"
)

// OperationTable is the table of berth system ops.
const OperationTable = "{{.ID}}\t{{.Operation}}\t{{.Object}}\t{{.Running}}\t{{.WaitingFor}}"

// OperationHeader has the headings of [Operation].
func OperationHeader() Header {
	return Header{
		"ID": "ID", "Operation": "OPERATION", "Object": "OBJECT", "Running": "RUNNING", "Since": "SINCE",
		"WaitingFor": "WAITING FOR", "WaitingSince": "WAITING SINCE", "Left": "LEFT", "Cancelled": "CANCELLED",
	}
}

// Operation is a line of berth system ops.
type Operation struct {
	Cancelled    bool
	ID           string
	Left         string
	Object       string
	Operation    string
	Running      string
	Since        string
	WaitingFor   string
	WaitingSince string
}

// NewOperation makes a line.
func NewOperation(o *client.Operation, trunc bool, now time.Time) Operation {
	line := Operation{
		Cancelled: o.Cancelled, ID: o.ID, Object: o.Object, Operation: o.Kind,
		Running: units.HumanDuration(now.Sub(o.Since)), Since: o.Since.Format(time.RFC3339Nano),
		WaitingFor: o.WaitingFor,
	}
	if !o.WaitingSince.IsZero() {
		line.WaitingSince = o.WaitingSince.Format(time.RFC3339Nano)
	}
	if !o.WaitingUntil.IsZero() {
		line.Left = fmt.Sprintf("%d s", max(0, int(o.WaitingUntil.Sub(now).Round(time.Second)/time.Second)))
		line.WaitingFor += ", " + line.Left + " left"
	}
	if o.Cancelled {
		line.WaitingFor += " (cancelled)"
	}
	if trunc && len(o.Object) == 64 {
		line.Object = ShortID(o.Object)
	}
	return line
}
