package report

import (
	"fmt"
	"strings"
)

// writeSnapshotters writes what Berth's ways of keeping layers cost.
func (r *Results) writeSnapshotters(b *strings.Builder) {
	if len(r.Snapshotters) == 0 {
		return
	}
	b.WriteString("## Berth's snapshotters\n\n")
	for _, name := range r.cases(Snapshots) {
		t := table{head: []string{"", "wall ms", "min", "× " + DefaultSnapshotter, "CPU ms", "n"}}
		own := r.timing(Snapshots, name, Tight, DefaultSnapshotter)
		for _, c := range r.candidates(Snapshots, name) {
			m := r.timing(Snapshots, name, Tight, c)
			t.add(append(append([]string{c}, timeCells(m, own)...), fmt.Sprint(len(m.WallMS)))...)
		}
		fmt.Fprintf(b, "### %s\n\n%s\n", name, &t)
	}
	t := table{head: []string{"", "the store with the image, MiB", "a container created, MiB"}}
	for _, s := range r.Snapshotters {
		t.add(s.Candidate, figure(float64(s.ImageKiB)/1024), figure(float64(s.ContainerKiB)/1024))
	}
	fmt.Fprintf(b, "### Room on the disk\n\n%s\n", &t)
}
