package engine

// beChild is a process that embeds an engine, to be killed by a test.
func beChild(string) int { return 2 }
