package engine

import (
	"bufio"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// A member of the tree is killed also when its parent has been killed just
// before, which makes it another's child; one that has its number is not.
func TestKillMemberWhoseParentIsGone(t *testing.T) {
	parent := exec.Command("sh", "-c", "setsid sleep 1000 & echo $!; wait")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	tree := treeOf(parent.Process.Pid, []int{parent.Process.Pid, child})
	if len(tree) != 2 {
		t.Errorf("tree %v", tree)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed
	if killed, err := killMember(child, tree[child].started+1); killed || err != nil {
		t.Errorf("another process of that number: %v, %v", killed, err)
	}
	if killed, err := killMember(child, tree[child].started); !killed || err != nil {
		t.Errorf("the orphan: %v, %v", killed, err)
	}
}
