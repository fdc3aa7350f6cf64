# Every target makes the virtual environment first, if it is not there.
#   make demo    find targets in the bundled 16-bit scenes and in a video made on the spot, and
#                compare with the known truth
#   make test    all tests
#   make test-core   those of prediction in an environment without PyTorch; part of make test
#   make check   style, types, import rules
#   make check-containers   images, compose, dashboard, alerts and Kubernetes manifest, by their own tools
#   make docs    the site, into build/site; warnings and dead links stop it
#   make bench   speed against other codes, as ratios within one run
#   make fuzz    spoiled files before every command for an hour; FUZZ_SECONDS=600 for ten minutes.
#                What breaks a promise is kept in build/fuzz, with the command that shows it again
#   make soak    commands killed at 50 points each, full disks, threads, forks; SOAK_POINTS=5 for less
#   make bench-serve  the service beside the library in a loop, and its latencies
#   make soak-serve   two hours of overload, load, attacks, killed workers; single ones and shorter:
#                python tests/siege --help
#   make cluster-kill   workers, nodes and drivers of a Ray cluster of two nodes on this machine
#                killed at 20 moments; KILL_MOMENTS=4 for less
#   make bench-archive   archives: overhead beside the network, memory, scaling, listing; an hour, or
#                BENCH_ARCHIVE="--frames 10000" for less and BENCH_ARCHIVE=--dry for a trial
#   make bench-gpu   training speed on a GPU; BENCH_GPU="--device cpu --dry" tries it without one.
#                Without installing: PYTHONPATH=src python benchmarks/bench_gpu.py

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Without PyTorch: what pip install brings, and video.
CORE := .venv-core/bin
CORE_READY := .venv-core/.ready

FUZZ_SECONDS ?= 3600
SOAK_POINTS ?= 50
KILL_MOMENTS ?= 20

NEW_ENOUGH = @$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || { echo "pinglow needs Python 3.11 or newer; call make with PYTHON=python3.11"; exit 1; }

.PHONY: demo test test-core check check-containers docs bench bench-archive bench-gpu bench-serve \
  fuzz soak soak-serve cluster-kill clean

demo: $(CORE_READY)
	$(CORE)/pinglow predict examples/images --out demo-out --save mask,overlay,html,csv,jsonl
	$(CORE)/pinglow evaluate --data examples --split demo --model pinglow-fast --save panels --out demo-out
	$(CORE)/python examples/make_clip.py demo-out/clip.mkv
	$(CORE)/pinglow predict demo-out/clip.mkv --track --out demo-out/clip --save overlay,jsonl
	@echo
	@echo "pinglow works: it found targets in still frames and followed others through a video."
	@echo "Open demo-out/html/index.html in a browser, or the picture demo-out/overlays/000000_overlay.png."
	@echo "More: right and wrong beside each other in demo-out/panels, the video demo-out/clip/overlays/clip_overlay.mp4,"
	@echo "      the tables demo-out/targets.csv and demo-out/clip/targets.jsonl."

# A process on each of two cores: threads of their own would only wait for each other. One that is done
# takes over half of what the other has left. Many tests start processes, which read compiled modules.
TEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
IN_TWO := -n 2 --dist worksteal

test: $(READY) test-core
	$(TEST) $(BIN)/python -m pytest $(IN_TWO)

test-core: $(CORE_READY)
	$(TEST) $(CORE)/python -m pytest tests/core $(IN_TWO)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check-containers: $(READY)
	$(BIN)/python -m pytest tests/containers

docs: $(READY)
	$(BIN)/pip install --quiet --editable '.[docs]'
	mkdir -p build/docs
	$(BIN)/typer pinglow.cli.main utils docs --name pinglow --output build/docs/cli.md
	$(BIN)/python tools/recipe_reference.py > build/docs/recipes.md
	$(BIN)/zensical build --strict --clean

bench: $(READY)
	$(BIN)/python benchmarks/bench_startup.py
	$(BIN)/python benchmarks/bench_metrics.py
	$(BIN)/python benchmarks/bench_losses.py
	$(BIN)/python benchmarks/bench_training.py
	$(BIN)/python benchmarks/bench_inference.py

bench-archive: $(READY)
	$(BIN)/python benchmarks/bench_archive.py $(BENCH_ARCHIVE)

bench-gpu: $(READY)
	$(BIN)/python benchmarks/bench_gpu.py $(BENCH_GPU)

bench-serve: $(READY)
	$(BIN)/python benchmarks/serve_speed.py

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz --seconds $(FUZZ_SECONDS)

soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/soak.py --points $(SOAK_POINTS)

# What takes minutes first.
soak-serve: $(READY)
	$(BIN)/python tests/siege drain
	$(BIN)/python tests/siege kill
	$(BIN)/python tests/siege attacks
	$(BIN)/python tests/siege schema
	$(BIN)/python tests/siege overload
	$(BIN)/python tests/siege soak

cluster-kill: $(READY)
	$(BIN)/python tools/cluster_kill.py --moments $(KILL_MOMENTS)

$(READY): pyproject.toml
	$(NEW_ENOUGH)
	$(PYTHON) -m venv .venv
	# uv installs several times as fast.
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip install --quiet --python .venv --editable '.[dev,all]' \
	  || $(BIN)/pip install --quiet --editable '.[dev,all]'
	# It asks for numpy < 2 but runs without; only the tests and the benchmark use it.
	$(BIN)/pip install --quiet --no-deps PyIRSTDMetrics
	touch $@

$(CORE_READY): pyproject.toml
	$(NEW_ENOUGH)
	$(PYTHON) -m venv .venv-core
	$(CORE)/pip install --quiet uv
	$(CORE)/uv pip install --quiet --python .venv-core --editable '.[video]' pytest pytest-xdist \
	  || $(CORE)/pip install --quiet --editable '.[video]' pytest pytest-xdist
	touch $@

clean:
	rm -rf .venv .venv-core demo-out
