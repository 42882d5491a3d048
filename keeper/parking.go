package keeper

import "sync"

// parking is where those who move bytes stop for a hand-over: each where nothing is
// in its hands.
type parking struct {
	mu sync.Mutex
	// changed tells of both of these: movers is how many move, on that they are to
	// stop.
	changed *sync.Cond
	movers  int
	on      bool
	// streams have outputs that are being read, by how many.
	streams map[*stdio]int
}

func newParking() *parking {
	p := &parking{streams: map[*stdio]int{}}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// move calls f, which moves bytes, until it says that it is over; f returns false
// only to be parked.
func (p *parking) move(f func() (over bool)) {
	for over := false; !over; {
		p.mu.Lock()
		for p.on {
			p.changed.Wait()
		}
		p.movers++
		p.mu.Unlock()
		over = f()
		p.mu.Lock()
		p.movers--
		p.changed.Broadcast()
		p.mu.Unlock()
	}
}

// reads notes that an output of the streams is read, or is no more.
func (p *parking) reads(s *stdio, more int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams[s] += more; p.streams[s] == 0 {
		delete(p.streams, s)
	}
}

// read are the streams of which an output is read.
func (p *parking) read() map[*stdio]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[*stdio]bool{}
	for s := range p.streams {
		all[s] = true
	}
	return all
}

// isOn says that whoever moves bytes is to stop.
func (p *parking) isOn() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.on
}

// set begins or ends the parking.
func (p *parking) set(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = on
	p.changed.Broadcast()
}

// awaitEmpty returns when nobody moves.
func (p *parking) awaitEmpty() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.movers > 0 {
		p.changed.Wait()
	}
}

// awaitOff returns when nobody is to stop.
func (p *parking) awaitOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.on {
		p.changed.Wait()
	}
}
