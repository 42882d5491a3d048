// Package arm64 runs berth-oci and tests of what is written in machine code, or by
// call numbers, on an emulated arm64 machine: everything is compiled here.
package arm64
