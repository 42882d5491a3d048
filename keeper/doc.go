// Package keeper is the one process that stands behind all containers of a
// host, and the client by which the engine speaks to it.
//
// The keeper is the parent of every container's init and of every process
// executed in one. It holds their pipes and terminals, writes their logs,
// reaps their exits and keeps the exit codes until the engine has taken note.
// The engine may be killed, crash or be upgraded at any moment: containers run
// on unstalled and nothing they print or return is lost.
//
// # What is on disk
//
// Below the root (by default /run/berth, which a reboot empties):
//
//	keeper.sock                      the socket, mode 0600
//	keeper.lock                      flock held for the keeper's life
//	keeper.log                       the keeper's own messages
//	containers/                      flock held while a keeper starts or ends
//	containers/ID/spec.json          written before the container is started
//	containers/ID/exit.json          a [Status], written before the exit is announced
//	containers/ID/exec/EXECID.json   the same for an executed process
//
// A directory without exit.json belongs to a running container or, when a
// keeper finds it at its own start, to a container whose keeper was killed:
// such a container has lost its stdio and its parent, so what is left of it is
// killed through its cgroup and its exit is recorded as [ExitCodeLost].
//
// # Protocol
//
// One connection per request over a unix stream socket; peers other than root
// and the keeper's own user are refused. A message is an eight byte header
// ("BK", the protocol's major version, the number of descriptors that travel
// with the header, the body's length as a big endian 32 bit number) and a JSON
// body. The client sends one [request], the keeper answers with one [response].
// Three operations go on afterwards: after "attach" the connection carries the
// raw bytes of the streams, after "events" further responses, after an "exec" whose
// output is captured a second response, at the exit. A connection that
// said "hello" keeps the keeper from ending itself for want of work.
//
// Within a major version operations and fields are only added. An unknown
// operation is answered with [errdefs.ErrUnsupported].
//
// A request is carried out even if its sender dies while it is in progress. A
// start or an exec can be called off: by "abort", a second message on its
// connection. What has been made is then ended, hooks included; the answer says so,
// also when the kernel does not let go of the process yet.
//
// # Logs
//
// The format is that of Docker's json-file driver, byte for byte: a line longer
// than 16 KiB is split into entries that share one time and of which only the
// last ends in a newline. A line is written as soon as its stream has nothing
// more to read, a burst of lines in one write. Rotation moves the full file
// away and makes a new one, never truncates: a follower reads the old file to
// its end and opens the path again. Where the engine compresses rotated files,
// it does so under a lock that the keeper does not wait for. When the disk is full the container is
// neither stalled nor told: entries are dropped and counted, and when there is
// space again an entry on stderr, "berth: N log entries (M bytes) lost here: …",
// takes their place.
//
// # Clients
//
// Output goes to every attached client from the moment it attached. A client
// that reads slowly slows the container down, one that is gone does not. An
// exit is announced when all output is in the log; a slow client gets the rest
// after that, at its own pace. The output of an executed process is only for
// attached clients; what its children print after its end is read and dropped.
//
// # Its life
//
// [Connect] starts a keeper when there is none, in a session of its own. It
// remains in its starter's cgroup: a service manager must be told to leave it
// there (systemd: KillMode=process). It ends itself when no process runs and no
// client is connected for ten seconds. SIGTERM makes it end all containers, as
// a host that shuts down does.
//
// It is not a subreaper. A container's init and what is executed in it are its
// own children; whatever else a container without a pid namespace of its own
// leaves behind is killed through the cgroup and reaped by the host's init.
//
// # Upgrades
//
// A keeper becomes another program without ending, by execve(2): the process, its
// children and the descriptors stay. "upgrade" names the program, which is first
// asked whether it can go on ("keep --takeover N --check-takeover"). Then starts,
// ends and whoever moves bytes stop where nothing is in their hands; what is known
// goes into a memory file, and the new program goes on from there. Attached clients
// notice nothing. Other connections are closed, and made again by their clients; who
// connects meanwhile waits in the socket's queue. A program that cannot go on is
// ErrUnsupported, and all is as before.
//
// # What the keeper does not do
//
// It does not choose names, prepare filesystems or networks, restart anything,
// pause or limit anything. It trusts root: who can open the socket can start
// any process. It only makes sure that a malformed request ends nothing but
// its own connection.
package keeper
