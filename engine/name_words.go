package engine

import (
	"math/rand/v2"
	"strconv"
)

// generateName makes adjective_noun; after a collision a digit is added.
func generateName(attempt int) string {
	name := nameAdjectives[rand.IntN(len(nameAdjectives))] + "_" + nameNouns[rand.IntN(len(nameNouns))]
	if attempt > 0 {
		name += strconv.Itoa(rand.IntN(10))
	}
	return name
}

var nameAdjectives = [...]string{
	"able", "agile", "ample", "azure", "bold", "brave", "breezy", "bright", "brisk", "buoyant",
	"calm", "candid", "clear", "clever", "coastal", "cosy", "crisp", "curious", "daring", "deep",
	"distant", "eager", "early", "easy", "fair", "fearless", "festive", "fleet", "fluent", "fond",
	"frank", "fresh", "gallant", "gentle", "glad", "golden", "graceful", "grand", "happy", "hardy",
	"hearty", "hopeful", "humble", "jolly", "jovial", "keen", "kind", "leeward", "lively", "lofty",
	"loyal", "lucid", "lucky", "lunar", "mellow", "merry", "mighty", "misty", "modest", "neat",
	"nimble", "noble", "northern", "patient", "placid", "plucky", "polar", "polite", "proud", "quick",
	"quiet", "rapid", "ready", "robust", "rosy", "sandy", "serene", "sharp", "silent", "silver",
	"sincere", "smooth", "snug", "solar", "sound", "southern", "spry", "stable", "stately", "steady",
	"stoic", "stormy", "sturdy", "sunny", "swift", "tidal", "tidy", "tranquil", "trusty", "upbeat",
	"valiant", "vivid", "warm", "wary", "western", "windward", "wise", "witty", "zealous", "zesty",
}

var nameNouns = [...]string{
	"albatross", "anchor", "atoll", "ballast", "barge", "bark", "beacon", "bollard", "bosun", "bow",
	"breaker", "brig", "buoy", "cabin", "canal", "canoe", "cape", "capstan", "captain", "caravel",
	"channel", "chart", "clipper", "coast", "compass", "cooper", "coral", "cormorant", "corvette", "cove",
	"crane", "crest", "current", "cutter", "deck", "delta", "dinghy", "dock", "dolphin", "dory",
	"estuary", "ferry", "fjord", "flotilla", "frigate", "galleon", "galley", "gull", "gunwale", "halyard",
	"harbour", "haven", "hawser", "headland", "helm", "heron", "hull", "inlet", "island", "jetty",
	"jib", "junk", "kayak", "keel", "ketch", "lagoon", "lantern", "lighter", "lighthouse", "longboat",
	"lugger", "mainsail", "mariner", "marlin", "mast", "mooring", "narwhal", "navigator", "oar", "ocean",
	"orca", "osprey", "otter", "packet", "pelican", "petrel", "pier", "pilot", "pinnace", "plover",
	"porpoise", "port", "prow", "puffin", "quay", "reef", "rigger", "rudder", "sail", "schooner",
	"seal", "sextant", "shoal", "skiff", "skipper", "sloop", "spar", "spinnaker", "starboard", "stern",
	"strait", "tender", "tern", "tide", "tiller", "trawler", "trident", "tugboat", "voyager", "walrus",
	"wave", "wharf", "whaler", "wherry", "windlass", "xebec", "yacht", "yawl", "yardarm", "zephyr",
}
