package network

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// dockerChain is where Docker asks others to put rules into its table: it sets
// the policy of forwarding to drop and asks this chain first.
// https://docs.docker.com/engine/network/packet-filtering-firewalls/
func dockerChain() *nftables.Chain {
	return &nftables.Chain{Name: "DOCKER-USER", Table: &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4}}
}

// dockerComment marks our rules in Docker's chain.
func dockerComment(link string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, "berth "+link)
}

// addDockerRules queues two rules into Docker's chain, where it exists, in place
// of earlier ones: `-i berth0 -j ACCEPT` and `-o berth0 -j ACCEPT`. What containers are
// open to is still for our own table to say.
func addDockerRules(c *nftables.Conn, link string) error {
	found, err := hasDockerChain(c)
	if err != nil || !found {
		return err
	}
	if err := deleteDockerRules(c, link); err != nil {
		return err
	}
	ch := dockerChain()
	t := &table{link: link}
	for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		exprs := append(t.link4(key, true), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
		c.InsertRule(&nftables.Rule{Table: ch.Table, Chain: ch, Exprs: exprs, UserData: dockerComment(link)})
	}
	return nil
}

// deleteDockerRules queues the deletion of what addDockerRules made.
func deleteDockerRules(c *nftables.Conn, link string) error {
	found, err := hasDockerChain(c)
	if err != nil || !found {
		return err
	}
	ch := dockerChain()
	rules, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return fmt.Errorf("list rules of chain %s: %w", ch.Name, err)
	}
	for _, r := range rules {
		if !bytes.Equal(r.UserData, dockerComment(link)) {
			continue
		}
		r.Table, r.Chain = ch.Table, ch
		if err := c.DelRule(r); err != nil {
			return fmt.Errorf("delete rule of chain %s: %w", ch.Name, err)
		}
	}
	return nil
}

func hasDockerChain(c *nftables.Conn) (bool, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("list firewall chains: %w", err)
	}
	want := dockerChain()
	return slices.ContainsFunc(chains, func(ch *nftables.Chain) bool {
		return ch.Name == want.Name && ch.Table.Name == want.Table.Name
	}), nil
}

// Warnings tells what of the host's configuration a person should know about,
// one sentence each: what we changed for everybody, and whose rules drop our
// containers' traffic. Rules of iptables' legacy kernel interface are not seen.
func (s *Store) Warnings() ([]string, error) {
	var found []string
	changes, err := readHostChanges(s.opts.RunDir)
	if err != nil {
		return nil, err
	}
	if on, err := forwardingIsOn(); err != nil {
		return nil, err
	} else if !on {
		found = append(found, "net.ipv4.ip_forward is off: containers reach neither the outside nor are they reached from it")
	} else if changes.EnabledForwarding {
		found = append(found, "net.ipv4.ip_forward was switched on: this host now routes between its networks")
	}
	s.fw.Lock()
	defer s.fw.Unlock()
	c, err := s.firewall()
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list firewall chains: %w", s.abandon(c, err))
	}
	docker, err := hasDockerChain(c)
	if err != nil {
		return nil, s.abandon(c, err)
	}
	for _, ch := range chains {
		if w := s.warnOf(ch, docker); w != "" {
			found = append(found, w)
		}
	}
	return found, nil
}

// warnOf tells what a chain does to forwarded traffic of ours.
func (s *Store) warnOf(ch *nftables.Chain, docker bool) string {
	family, link := ch.Table.Family, s.opts.BridgeLink
	switch {
	case !forwards(ch) || ch.Table.Name == link:
		return ""
	case ch.Table.Name == "firewalld":
		return fmt.Sprintf("firewalld rejects forwarded traffic of containers unless told: firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload", link)
	case ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop:
		return ""
	case docker && family == nftables.TableFamilyIPv4 && ch.Table.Name == "filter":
		return "" // our rules in DOCKER-USER accept
	}
	return fmt.Sprintf("chain %s of firewall table %s drops forwarded traffic of containers unless its rules accept it: accept input and output interface %s there", ch.Name, ch.Table.Name, link)
}
