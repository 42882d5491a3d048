package network

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// table is the plan of our nftables table, of family ip and named as the bridge. In nft's
// language, with the bridge berth0 on 172.29.0.0/16:
//
//	map by_addr { type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service }
//	map by_port { type inet_proto . inet_service : ipv4_addr . inet_service }
//	chain raw { type filter hook prerouting priority raw
//		iifname berth0 ip daddr 127.0.0.0/8 drop
//		iifname berth0 ip saddr 127.0.0.0/8 drop }
//	chain prerouting { type nat hook prerouting priority dstnat
//		ip daddr 127.0.0.0/8 return
//		dnat ip to meta l4proto . ip daddr . th dport map @by_addr
//		fib daddr type local dnat ip to meta l4proto . th dport map @by_port }
//	chain output { type nat hook output priority dstnat
//		dnat ip to meta l4proto . ip daddr . th dport map @by_addr
//		fib daddr type local dnat ip to meta l4proto . th dport map @by_port }
//	chain postrouting { type nat hook postrouting priority srcnat
//		oifname != berth0 ip saddr 172.29.0.0/16 masquerade
//		oifname berth0 ip saddr 127.0.0.0/8 masquerade
//		oifname berth0 ip saddr 172.29.0.0/16 ct status dnat masquerade }
//	chain forward { type filter hook forward priority filter
//		oifname != berth0 accept
//		iifname berth0 accept
//		ct state established,related accept
//		ct status dnat accept
//		drop }
//
// A published port is an element of a map: the number of rules, and what a
// packet costs, does not grow with the containers.
type table struct {
	table          *nftables.Table
	byAddr, byPort *nftables.Set
	link           string
	subnet         netip.Prefix
}

func newTable(link string, subnet netip.Prefix) *table {
	t := &nftables.Table{Name: link, Family: nftables.TableFamilyIPv4}
	target := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	return &table{
		table: t, link: link, subnet: subnet,
		byAddr: &nftables.Set{Table: t, Name: "by_addr", IsMap: true, Concatenation: true, DataType: target,
			KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeIPAddr, nftables.TypeInetService),
			Comment: "ports published on one address"},
		byPort: &nftables.Set{Table: t, Name: "by_port", IsMap: true, Concatenation: true, DataType: target,
			KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
			Comment: "ports published on every address"},
	}
}

// elements returns the lease's ports as elements of the two maps.
func (t *table) elements(l *lease) (byAddr, byPort []nftables.SetElement) {
	for _, b := range l.Ports {
		e := nftables.SetElement{
			Val:     append(addrWord(l.IP), portWord(b.ContainerPort)...),
			Comment: l.ContainerID[:min(12, len(l.ContainerID))],
		}
		if b.everywhere() {
			e.Key = append(protoWord(b.number()), portWord(b.HostPort)...)
			byPort = append(byPort, e)
			continue
		}
		e.Key = append(append(protoWord(b.number()), addrWord(b.hostIP())...), portWord(b.HostPort)...)
		byAddr = append(byAddr, e)
	}
	return byAddr, byPort
}

// In a concatenation each part fills words of 4 bytes.
func protoWord(p uint8) []byte     { return []byte{p, 0, 0, 0} }
func portWord(p uint16) []byte     { return append(binary.BigEndian.AppendUint16(nil, p), 0, 0) }
func addrWord(a netip.Addr) []byte { b := a.As4(); return b[:] }

// add queues the whole table, in place of one that exists.
func (t *table) add(c *nftables.Conn, byAddr, byPort []nftables.SetElement) error {
	c.AddTable(t.table) // or the deletion of a table that is not there fails
	c.DelTable(t.table)
	c.AddTable(t.table)
	if err := c.AddSet(t.byAddr, byAddr); err != nil {
		return err
	}
	if err := c.AddSet(t.byPort, byPort); err != nil {
		return err
	}
	t.addRaw(c)
	t.addDestination(c, "prerouting", nftables.ChainHookPrerouting)
	t.addDestination(c, "output", nftables.ChainHookOutput)
	t.addSource(c)
	t.addForward(c)
	return nil
}

// addRaw drops what route_localnet would let a container do: speak to services
// the host keeps on loopback, or speak as the host's loopback. Before connection
// tracking, so that answers to the host's own loopback connections, whose destination
// still is the bridge here, pass.
func (t *table) addRaw(c *nftables.Conn) {
	ch := t.chain(c, "raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	t.rule(c, ch, "containers do not reach the host's loopback",
		t.link4(expr.MetaKeyIIFNAME, true), destinationIn(loopback), verdict(expr.VerdictDrop))
	t.rule(c, ch, "containers do not pose as the host's loopback",
		t.link4(expr.MetaKeyIIFNAME, true), sourceIn(loopback), verdict(expr.VerdictDrop))
}

// addDestination translates published ports, in prerouting for packets that arrive and
// in output for the host's own. A packet that arrives for a loopback address is
// forged by a machine next to the host, to reach a port published on 127.0.0.1.
func (t *table) addDestination(c *nftables.Conn, name string, hook *nftables.ChainHook) {
	ch := t.chain(c, name, nftables.ChainTypeNAT, hook, nftables.ChainPriorityNATDest)
	if hook == nftables.ChainHookPrerouting {
		t.rule(c, ch, "loopback addresses from outside", destinationIn(loopback), verdict(expr.VerdictReturn))
	}
	t.rule(c, ch, "ports published on one address", lookupTarget(t.byAddr, true), translate())
	t.rule(c, ch, "ports published on every address", toThisHost(), lookupTarget(t.byPort, false), translate())
}

// addSource replaces source addresses that the receiver could not answer to, or
// would answer past us.
func (t *table) addSource(c *nftables.Conn) {
	ch := t.chain(c, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	t.rule(c, ch, "containers to the outside",
		t.link4(expr.MetaKeyOIFNAME, false), sourceIn(t.subnet), masquerade())
	t.rule(c, ch, "the host's loopback to published ports",
		t.link4(expr.MetaKeyOIFNAME, true), sourceIn(loopback), masquerade())
	t.rule(c, ch, "containers to published ports",
		t.link4(expr.MetaKeyOIFNAME, true), sourceIn(t.subnet), destinationTranslated(), masquerade())
}

// addForward lets containers out, answers and published ports in, and nothing else
// in. Other traffic the host routes is left to others.
func (t *table) addForward(c *nftables.Conn) {
	ch := t.chain(c, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	t.rule(c, ch, "not to containers", t.link4(expr.MetaKeyOIFNAME, false), verdict(expr.VerdictAccept))
	t.rule(c, ch, "between containers", t.link4(expr.MetaKeyIIFNAME, true), verdict(expr.VerdictAccept))
	t.rule(c, ch, "answers", answers(), verdict(expr.VerdictAccept))
	t.rule(c, ch, "published ports", destinationTranslated(), verdict(expr.VerdictAccept))
	t.rule(c, ch, "containers are closed otherwise", verdict(expr.VerdictDrop))
}

func (t *table) chain(c *nftables.Conn, name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return c.AddChain(&nftables.Chain{Name: name, Table: t.table, Type: typ, Hooknum: hook, Priority: prio, Policy: &accept})
}

func (t *table) rule(c *nftables.Conn, ch *nftables.Chain, comment string, parts ...[]expr.Any) {
	r := &nftables.Rule{Table: t.table, Chain: ch, UserData: userdata.AppendString(nil, userdata.TypeComment, comment)}
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	c.AddRule(r)
}

var loopback = netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)

// The expressions use register 1 of 16 bytes, which is also registers 8 to 11
// (NFT_REG32_00 to 03) of 4 bytes each.
const reg, word0, word1, word2 = unix.NFT_REG_1, unix.NFT_REG32_00, unix.NFT_REG32_01, unix.NFT_REG32_02

// link4 is `iifname berth0`, or != when not is.
func (t *table) link4(key expr.MetaKey, is bool) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, t.link)
	return []expr.Any{&expr.Meta{Key: key, Register: reg}, &expr.Cmp{Op: equal(is), Register: reg, Data: name}}
}

func equal(is bool) expr.CmpOp {
	if is {
		return expr.CmpOpEq
	}
	return expr.CmpOpNeq
}

// Offsets in the IPv4 header and, for both TCP and UDP, in the transport header.
const sourceOffset, destinationOffset, portOffset = 12, 16, 2

func sourceIn(p netip.Prefix) []expr.Any      { return addressIn(sourceOffset, p) }
func destinationIn(p netip.Prefix) []expr.Any { return addressIn(destinationOffset, p) }

func addressIn(offset uint32, p netip.Prefix) []expr.Any {
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: addrWord(p.Masked().Addr())},
	}
}

// toThisHost is `fib daddr type local`.
func toThisHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// lookupTarget loads what the packet's destination is published for; a packet
// whose destination is not in the map leaves the rule.
func lookupTarget(m *nftables.Set, byAddr bool) []expr.Any {
	key := []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: word0}}
	port := uint32(word1)
	if byAddr {
		key = append(key, &expr.Payload{DestRegister: word1, Base: expr.PayloadBaseNetworkHeader, Offset: destinationOffset, Len: 4})
		port = word2
	}
	return append(key,
		&expr.Payload{DestRegister: port, Base: expr.PayloadBaseTransportHeader, Offset: portOffset, Len: 2},
		&expr.Lookup{SourceRegister: word0, DestRegister: word0, IsDestRegSet: true, SetName: m.Name, SetID: m.ID})
}

// translate sends the packet to the address and port lookupTarget left.
func translate() []expr.Any {
	return []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: word0, RegProtoMin: word1, Specified: true}}
}

func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

// answers is `ct state established,related`.
func answers() []expr.Any {
	return conntrackBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// destinationTranslated is `ct status dnat`.
func destinationTranslated() []expr.Any {
	const ipsDstNAT = 1 << 5 // enum ip_conntrack_status, linux/netfilter/nf_conntrack_common.h
	return conntrackBits(expr.CtKeySTATUS, ipsDstNAT)
}

func conntrackBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}
