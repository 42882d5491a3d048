// Package volume keeps named storage: directories that outlive containers, and
// file systems that are mounted while a container uses them.
//
// A volume is a directory below the store's root, as Docker lays it out:
//
//	NAME/volume.json   what it is
//	NAME/_data         what containers see
//
// It appears with everything in it or not at all: it is made under another name
// and renamed. Names with a dot in front belong to the store: what is being
// made, and what is being removed.
//
// The store counts no references on disk. Who uses a volume is what the
// engine's records of containers say; it tells by [Store.Hold] at every start.
package volume
