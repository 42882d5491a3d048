package keeper

// clientMains are the programs by which tests play an engine that is killed.
func clientMains() map[string]func(args []string) int { return nil }
