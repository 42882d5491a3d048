package cli

import (
	"flag"
	"os"
	"testing"
)

// asBerth in the environment makes the test binary the berth command, so that
// tests have a process with terminal, signals and exit code.
const asBerth = "BERTH_TEST_AS_BERTH"

// record asks the docker command line what it requests and writes
// testdata/requests.txt anew: go test -run TestRequests -record
var record = flag.Bool("record", false, "record what the docker command requests")

func TestMain(m *testing.M) {
	if os.Getenv(asBerth) != "" {
		os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	flag.Parse()
	os.Exit(m.Run())
}
