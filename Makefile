# Berth's outside. The two commands to know: "make demo" and "make test"
# (both as root, on Debian 12 or newer with Go; they install what else they need).

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=

BINDIR  = $(PREFIX)/bin
MANDIR  = $(PREFIX)/share/man
UNITDIR = $(PREFIX)/lib/systemd/system
CONFDIR = /etc/berth

# What --version shows; without a git checkout give VERSION=x.y.z.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Go stamps the commit into the binaries, and fails where git refuses to read
# the checkout (root in a user's directory): it is told not to try there.
VCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)

LDFLAGS = -s -w -X main.version=$(VERSION) -X github.com/berth-containers/berth/cmd/berth/internal/cli.version=$(VERSION)

BIN      = bin
BINARIES = berth berthd berth-oci
COMPLETIONS = \
	share/bash-completion/completions/berth \
	share/zsh/site-functions/_berth \
	share/fish/vendor_completions.d/berth.fish

export CGO_ENABLED = 0

.PHONY: build install uninstall demo clean-host test test-arm64 crash upgrade lint soak hostile bench clean help

# berth-oci has an entry point of its own (cmd/berth-oci/internal/early). The copies are
# for speed: the linker writes a file through a mapping, page by page, and so it
# stays in the page cache; a copy lies there in large folios, and each start of
# the program takes 0.15 ms less.
build: ## build berth, berthd and berth-oci into bin/ (BIN, BINARIES)
	@for b in $(BINARIES); do \
		entry=; [ $$b != berth-oci ] || entry='-E berth_oci_entry'; \
		$(GO) build -trimpath -buildvcs=$(VCS) -ldflags "$(LDFLAGS) $$entry" -o $(BIN)/$$b ./cmd/$$b && \
		cp -p $(BIN)/$$b $(BIN)/.$$b && mv $(BIN)/.$$b $(BIN)/$$b || exit; \
	done

install: build ## install binaries, systemd units, completions and man pages (PREFIX, DESTDIR)
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(UNITDIR) $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man8
	install -m 755 $(BINARIES:%=bin/%) $(DESTDIR)$(BINDIR)
	for unit in dist/systemd/*; do \
		sed 's|/usr/local/bin/|$(BINDIR)/|' $$unit >$(DESTDIR)$(UNITDIR)/$${unit##*/} || exit; \
	done
	install -d $(dir $(COMPLETIONS:%=$(DESTDIR)$(PREFIX)/%))
	bin/berth completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/berth
	bin/berth completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_berth
	bin/berth completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/berth.fish
	bin/berth gen-man $(DESTDIR)$(MANDIR)/man1
	install -m 644 docs/man/*.8 $(DESTDIR)$(MANDIR)/man8
	install -d $(DESTDIR)$(CONFDIR)
	test -e $(DESTDIR)$(CONFDIR)/berthd.toml || install -m 644 dist/berthd.toml $(DESTDIR)$(CONFDIR)
	@echo 'installed; with systemd: systemctl daemon-reload && systemctl enable --now berthd.socket'

uninstall: ## remove what install put there; images, containers and an edited configuration stay
	rm -f $(BINARIES:%=$(DESTDIR)$(BINDIR)/%)
	rm -f $(patsubst dist/systemd/%,$(DESTDIR)$(UNITDIR)/%,$(wildcard dist/systemd/*))
	rm -f $(COMPLETIONS:%=$(DESTDIR)$(PREFIX)/%)
	rm -f $(DESTDIR)$(MANDIR)/man1/berth.1 $(DESTDIR)$(MANDIR)/man1/berth-*.1
	rm -f $(patsubst docs/man/%,$(DESTDIR)$(MANDIR)/man8/%,$(wildcard docs/man/*.8))
	cmp -s dist/berthd.toml $(DESTDIR)$(CONFDIR)/berthd.toml && rm $(DESTDIR)$(CONFDIR)/berthd.toml || true
	rmdir $(DESTDIR)$(CONFDIR) 2>/dev/null || true

demo: ## a real server in a limited container, its engine killed under it
	@./demo/demo.sh

clean-host: ## remove all that Berth has on this host, containers and images included
	@./demo/clean-host.sh

# What the tests use of Debian: other runtimes and tools to compare with, engines
# that run with berth-oci, a registry, a compiler for the race detector.
TEST_PACKAGES = ca-certificates gcc libc6-dev git jq e2fsprogs xfsprogs perl zstd util-linux xz-utils \
	busybox-static mmdebstrap erofs-utils skopeo docker-registry nftables iproute2 runc crun \
	podman conmon buildah containerd docker.io uidmap catatonit bash-completion zsh fish containernetworking-plugins iptables fuse-overlayfs slirp4netns libseccomp-dev criu

test: ## run all tests, as root after installing what they use
	@[ "$$(id -u)" -ne 0 ] || ./demo/install-packages.sh $(TEST_PACKAGES) >/dev/null
	@./test/run

test-arm64: ## run berth-oci and its machine code on an emulated arm64 machine, as root, 2 minutes
	$(GO) test -count=1 -tags arm64vm -v ./test/arm64

crash: ## kill engine and keeper at every point of every operation (CRASH=NAME,... for some), 5 minutes
	BERTH_CRASH_WHOLE=$(or $(CRASH),all) $(GO) test -count=1 -timeout 30m ./test/crash
	BERTH_POWERLOSS_ALL=1 $(GO) test -count=1 -timeout 30m -run TestPowerLoss ./engine

upgrade: ## replace engine and keeper of the binaries in OLD=DIR, of an earlier release, under running containers
	BERTH_OLD_BIN=$(abspath $(OLD)) $(GO) test -count=1 -run TestUpgrade -v ./test/crash

lint: ## formatting, vet and staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt on these'; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

SOAK ?= 20000
soak: ## make, use and remove containers, SOAK operations in all, and see that nothing grows
	BERTH_SOAK_OPERATIONS=$(SOAK) $(GO) test -vet=off -count=1 -timeout 3h -v -run TestSoak ./test/docker

hostile: ## containers that do their worst, at full size: minutes, and 2 GiB of disk
	BERTH_TEST_BIG=1 $(GO) test -vet=off -count=1 -timeout 1h -v -run TestHostile ./test/docker

bench: build ## compare with runc, crun, podman and docker; writes docs/benchmarks
	$(GO) run ./bench

clean: ## remove what build made
	rm -rf bin

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 12
