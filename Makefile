# make help lists the targets.

# gocv wraps all of OpenCV; these drop what postern does not call, and with it the
# libraries that only that would load. All four belong together. One place for
# builds and tests, so that gocv, slow to compile, is compiled once.
export PKG_CONFIG_PATH := $(CURDIR)/cross/pkgconfig
export CGO_CFLAGS      := -O2 -g -ffunction-sections -fdata-sections
export CGO_CXXFLAGS    := $(CGO_CFLAGS)
export CGO_LDFLAGS     := -O2 -g -Wl,--gc-sections -Wl,--as-needed
# No path of this machine gets into what is built, so that packages come out the same
# everywhere, from the same objects that the tests use.
export GOFLAGS         := -trimpath

# A Go that set-up fetched comes first; where the system's was new enough there is none.
export PATH := $(CURDIR)/.cache/go/bin:$(PATH)

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILT    ?= $(shell git show -s --format=%cs 2>/dev/null)
LDFLAGS   = -X main.version=$(VERSION) -X main.built=$(BUILT)
FUZZTIME ?= 10s
SOAKTIME ?= 1h
ROUNDS   ?= 1000
CUTS     ?= 500
QEMUROUNDS ?= 5
ARGS     ?=
CPUS     ?=
DATA     ?=

.DEFAULT_GOAL := help
.PHONY: bench-api clients web screens help setup doctor build run test race bench lint fmt fuzz soak kill fleet-sim powercut diskfull eio vuln benchstore models eval cover cross qemu deb deb-test clean bench-peers

help: ## list the targets
	@echo "make TARGET; the first ones to try: run, test, doctor"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r t d; do printf '  %-13s %s\n' "$$t" "$$d"; done

setup: ## install what is missing (OpenCV, Go, LiteRT, test faces)
	@cross/setup.sh

doctor: ## list what is needed, what is here and what to install
	@cross/doctor.sh

build: ## compile bin/postern
	@mkdir -p bin
	go build -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/postern ./agent/cmd/postern

run: setup build ## start the agent on a sample feed; open the printed address
	@cross/demo.sh $(ARGS)

test: setup ## run all tests
	go test ./...

# The detector's pointer checks would end the process inside bbolt on files that tests damage.
race: setup ## run the tests under the race detector
	TEST_NO_CHECKPTR=1 go test -race -short -timeout 30m -gcflags='go.etcd.io/bbolt/...=-d=checkptr=0' ./...

bench: setup build ## measure each stage of a match, live rate, memory and first decision
	@cross/sample.sh feed.avi first.avi
	@bin/postern bench .cache/faces/obama.jpg .cache/faces/obama2.jpg --feed .cache/sample/feed.avi --first .cache/sample/first.avi $(ARGS)

bench-api: setup build ## load a started agent, at api.parallel=2 (CPUS=0 keeps the agent on one core, at 1)
	@AGENT_CPUS="$(CPUS)" AGENT_FLAGS="--set api.parallel=$(if $(CPUS),1,2)" cross/clients/agent.sh sh -c 'bin/postern bench api .cache/faces/obama.jpg .cache/faces/obama2.jpg --url $$API_URL --key $$API_KEY $(ARGS)'

benchstore: setup build ## measure durable decisions, loading of templates, and encryption
	@bin/postern bench store .cache/faces/obama.jpg $(ARGS)

vuln: setup ## look for known vulnerabilities (VULNDB=address of the database)
	@cross/vuln.sh

lint: setup ## gofmt, go vet, staticcheck, shellcheck
	@cross/lint.sh

fmt: ## format the Go files
	gofmt -w $$(cross/gofiles.sh)

fuzz: setup ## run each fuzz target for FUZZTIME (10s)
	@cross/fuzz.sh $(FUZZTIME)

soak: setup build ## run the agent for SOAKTIME (1h), watching memory and native objects
	@cross/sample.sh feed.avi
	TEST_SOAK_FILM=$(CURDIR)/.cache/sample/feed.avi TEST_SOAK=$(SOAKTIME) go test -count=1 -timeout=0 -v -run=Soak ./agent/cmd/postern

kill: setup ## kill -9 a process that writes, rotates, erases, restores … ROUNDS (1000) times; nothing acknowledged may be lost
	TEST_KILL_ROUNDS=$(ROUNDS) go test -count=1 -timeout=0 -v -run='^TestKill(Chores|Restore|Migration)?$$' ./agent/store

powercut: setup ## open what CUTS (500) power cuts at random moments leave (needs /dev/fuse)
	TEST_CUTS=$(CUTS) go test -count=1 -timeout=0 -v -run='^TestPowerCut' ./agent/store

oracle: setup ## kill, stop and cut a fleet ROUNDS (1000) times on both brokers; nothing may be lost or doubled
	TEST_ORACLE_ROUNDS=$(ROUNDS) go test -count=1 -timeout=0 -v -run=Oracle ./agent/cmd/fleet

fleet-sim: setup ## a fleet of DEVICES (1000) in one process with its hub: connect, throughput, latency, memory
	TEST_FLEET_DEVICES=$(DEVICES) go test -count=1 -timeout=0 -v -run='^TestFleetSim$$' ./agent/cmd/fleet

diskfull: setup ## run every writing verb on a small file system with less and less room
	$$(test "$$(id -u)" = 0 || echo unshare -Urm) env PATH="$$PATH" go test -count=1 -v -run='^TestDiskFull' ./agent/store

eio: setup ## let the kernel fail a sync of a writing process, ROUNDS (1000) times (needs strace)
	TEST_EIO=$(ROUNDS) go test -count=1 -timeout=0 -v -run='^TestSyncFails$$' ./agent/store

models: ## rebuild the shipped models from their source packages (ARGS=--check compares)
	@models/build/build.sh $(ARGS)

# The documents that quote figures; they are read only where ARGS says --check or --write.
FIGURES = README.md docs/evaluation.md $(wildcard models/*/MODEL_CARD.md)

eval: setup build ## measure every figure that README, cards and docs quote, DATA=folder (ARGS=--check compares, --write replaces)
	@test -n "$(DATA)" || { echo "make eval: say where the faces are: make eval DATA=folder" >&2; exit 2; }
	@bin/postern eval figures --data $(DATA) $(ARGS) $(if $(filter --check --write,$(ARGS)),$(FIGURES))
	@bin/postern eval figures --data $(DATA) --model models/fr-feature-512-mirror-int8 --only faces $(ARGS) $(if $(filter --check --write,$(ARGS)),$(FIGURES))

eval-liveness: setup build ## liveness on drawn attacks, from the portraits or DATA=folder
	@bin/postern eval liveness --data $(or $(DATA),.cache/faces) $(ARGS)

bench-peers: setup build ## postern beside its peers on the same pictures, DATA=folder, ARGS='--pairs N'
	@test -n "$(DATA)" || { echo "make bench-peers: say where the faces are: make bench-peers DATA=folder" >&2; exit 2; }
	@models/peers/run.sh --data $(DATA) $(ARGS)

cover: setup ## test coverage, each function and in total
	@mkdir -p bin
	go test -coverprofile=bin/cover.out -coverpkg=./... ./...
	@go tool cover -func=bin/cover.out | tail -n 1
	@echo "by line: go tool cover -html=bin/cover.out"

clients: setup build ## drive a started agent with clients of others
	@cross/clients.sh

web: setup build ## drive the pages in a headless Chromium (PARTS=hosted or kiosk)
	@cross/web/run.sh

screens: setup build ## take the pictures of each screen for docs/screens
	@PARTS=screens cross/web/run.sh

cross: setup ## compile for amd64 and arm64, with and without OpenCV, and check the result
	@VERSION=$(VERSION) cross/build.sh

qemu: cross ## run the arm64 program under qemu, beside this machine's
	@ROUNDS=$(QEMUROUNDS) cross/qemu.sh

deb: cross ## make the Debian packages, an SBOM for each and SHA256SUMS (ARGS=--check: twice, and lintian)
	@cross/deb.sh $(ARGS)

deb-test: deb ## install, upgrade, remove and purge the packages in a clean root (needs root)
	@cross/deb-test.sh

clean: ## remove what was built; what set-up fetched stays in .cache
	rm -rf bin dist .cache/sample
