package report

// method explains the figures; what differs between runs is in Results.Notes.
const method = `## Method

- **Time** is from just before fork of the command to just after its exit was collected, by a small process that does nothing
  else. "Wall" is the median; "× Berth" is the median in Berth's. In brackets: the interval in which the ratio of medians is in 95 of
  100 resamples (percentile bootstrap).
- **Turns.** The candidates take turns, in every round in another random order, so that the machine's other work and what one leaves to
  do to the kernel (taking a network namespace apart takes longer than making it) meet all alike. In the paced loop there
  is a pause before each command. Rounds to warm up are not counted.
- **CPU** is the processor time of everything in the candidate's own cgroup: command, container and daemons, of processes that nobody
  waits for as well. Kernel threads are not in it. For runtimes it is the median of single runs, for engines the whole loop's,
  idle daemons included, divided by the number of commands. It includes the measuring process's own, about that of
  "a process".
- **Peak** memory, page faults and context switches are getrusage(2)'s, of the command and the processes it has waited for; for
  Docker and Berth that is the client only. The least that can be shown is the measuring process's own size, about 2 MiB.
- **A process** is a fork, exec and exit of the same static program without any container, for scale.
- **Berth keeper** is what Berth's engine needs for the same container: a request to the running keeper, and its answer when the
  container has ended and nothing of it is left. No command is started. It shows the candidate's own time only.
- **runc-new** is the newest release, built with the Go of this machine.
- **Bundles.** All runtimes get the same config.json (ociVersion 1.0.2, no terminal) but for the cgroup's name, and the same root
  filesystem on the host's disk; their state is on a tmpfs. The default spec is that of "runc spec". The Docker-like one has Docker's
  mounts, capabilities, seccomp profile, masked paths and device rules, 256 MiB of memory, one processor and 256 processes.
- **Engines** run the same image, Debian's busybox-static, from their own stores on the same disk, with their defaults but for paths, so
  Docker uses runc and podman crun. Docker's and Berth's daemons are running, as they would be. A health check's time is that between
  begin and end of a probe by the engine's own clock; podman's are run by systemd.
- **Images** come from Debian's docker-registry on loopback, and from a file: Debian with Python, in three gzipped layers. Each round
  begins with an empty store on a path of its own, in an ext4 of their own in which nothing is removed before the end. "The top layer changed" is a second image
  with the same two layers below a small one. Peak memory is that of the command or of the daemons, whichever is more. containerd-new is
  the newest release, built with the Go of this machine, with its own client.
- **Berth's snapshotters** get the same image from the same file, each into a new store; then containers of it are run one after the
  other and one is created. The room is the blocks of all files of the store, the unpacked layers and the blobs they came from.
- **Memory** is the sum of Pss in smaps_rollup of all processes of the engine, not of the containers, five seconds after the
  last start, compared with a daemon freshly started that has run one container.
- **Many containers** have 64 MiB of memory, half a processor, 64 processes, no network and a log, and sleep. They are started by
  several callers at once, each running the engine's command for one after the other; the listing is its command ps. Berth starts a
  thousand, the peers fewer, for they take longer: rates fall with the number.
- **Place.** Everything runs in namespaces of its own (mount, network, process ids), with their own directory for run-time files. In the network there is
  nothing but what the engines make.
`
