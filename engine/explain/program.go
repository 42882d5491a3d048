package explain

import "fmt"

// Program is the list of system calls by which a container's process is made.
type Program struct {
	// Calls counts them; Steps are what they are for, in order.
	Calls int
	Steps []string
	// Listing is the whole program as text, a line each.
	Listing string
	// Problem is why there is none.
	Problem string `json:",omitempty"`
	// Rebuilt tells that it is what a start would do now: the container does not run.
	Rebuilt bool
}

func (p *Program) answers() []string {
	if p.Problem != "" {
		return []string{fmt.Sprintf("It cannot be said: %s.", p.Problem)}
	}
	which := "Its process was made by"
	if p.Rebuilt {
		which = "A start would make its process by"
	}
	shown := p.Steps
	const ends = 4
	if len(shown) > 2*ends+1 {
		shown = append(append(append([]string{}, shown[:ends]...), fmt.Sprintf("… %d more …", len(shown)-2*ends)), shown[len(shown)-ends:]...)
	}
	text := ""
	for i, s := range shown {
		if i > 0 {
			text += ", "
		}
		text += s
	}
	return []string{
		fmt.Sprintf("%s a program of %s in %s: %s. berth explain --program shows all of it.",
			which, count(p.Calls, "system call", "system calls"), count(len(p.Steps), "step", "steps"), text),
	}
}
