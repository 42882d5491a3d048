package render

import "github.com/moby/moby/api/types/container"

// How berth diff prints: a line per change, or a table.
const (
	ChangeLine  = "{{.Type}} {{.Path}}"
	ChangeTable = "{{.Type}}\t{{.Path}}"
)

// ChangeHeader has the headings of [Change].
func ChangeHeader() Header { return Header{"Type": "CHANGE TYPE", "Path": "PATH"} }

// Change is a line of berth diff.
type Change struct{ Type, Path string }

// NewChange makes a line.
func NewChange(c *container.FilesystemChange) Change { return Change{c.Kind.String(), c.Path} }
