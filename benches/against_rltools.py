"""10 000 steps of Pendulum-v1 with this project and with RLtools, in alternating pairs; prints each pair's times and ratio.

usage: against_rltools.py RLTOOLS [--pairs 10] [--threads 1] [--blas-lib-dir DIR] [--blas-lib openblas] [--cxx g++]

RLTOOLS is a checkout of rl-tools/rl-tools; of its submodules none is needed. Needs Python 3.9, a Rust toolchain, a C++17
compiler, and OpenBLAS: the one that --blas-lib-dir and --blas-lib name, or else the one of the Python package
scipy-openblas32 if this Python has it, or else the system's. Its headers are not needed: RLtools declares what it calls.

Both: two hidden layers of 64, batch 100, 100 random steps, 9 900 updates of both critics, policy, temperature and targets,
replay of 10 000, learning rates 1e-3, γ 0.99, τ 0.005; no evaluation, no log. A time is that of the whole process, so ours
includes what a run leaves on disk. --threads are ours; RLtools has one, as it asks for itself. Known to differ: RLtools
computes the target of the critics twice, once for each, and follows the actions' gradient through both critics for the whole
batch, where this project does so once, and through the smaller critic of each row; Adam's ε is 1e-7 there and 1e-8 here.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("rltools", type=pathlib.Path)
parser.add_argument("--pairs", type=int, default=10)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--blas-lib-dir")
parser.add_argument("--blas-lib", default="openblas")
parser.add_argument("--cxx", default="g++")
arguments = parser.parse_args()

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = """
steps = 10_000
random_steps = 100
first_update = 101
policy_hidden = [64, 64]
critic_hidden = [64, 64]
batch_size = 100
replay_capacity = 10_000
tau = 0.005
initial_alpha = 0.5
eval_every = 0
checkpoint_every = 0
"""


def build_ours():
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "sac"], check=True, cwd=ROOT)
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "sac"


def build_theirs(program):
    directory, library = arguments.blas_lib_dir, arguments.blas_lib
    if directory is None:
        try:
            import scipy_openblas32
            directory, library = scipy_openblas32.get_lib_dir(), scipy_openblas32.get_library()
        except ImportError:
            pass
    command = [arguments.cxx, "-std=c++17", "-Ofast", "-march=native", "-DRL_TOOLS_BACKEND_ENABLE_OPENBLAS"]
    command += ["-I", arguments.rltools / "include", "-I", arguments.rltools / "src" / "rl" / "zoo"]
    if library.startswith("scipy_"):  # that build of OpenBLAS prefixes its symbols
        command += [f"-D{name}=scipy_{name}" for name in ("cblas_sgemm", "cblas_dgemm")]
    command += [ROOT / "benches" / "peers" / "rltools_pendulum.cpp", "-o", program]
    if directory is not None:
        command += ["-L", directory, f"-Wl,-rpath,{directory}"]
    subprocess.run([*command, f"-l{library}"], check=True)


def seconds(command, **environment):
    start = time.perf_counter()
    output = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment}).stdout
    return time.perf_counter() - start, output


with tempfile.TemporaryDirectory() as temporary:
    temporary = pathlib.Path(temporary)
    config, theirs = temporary / "config.toml", temporary / "rltools_pendulum"
    config.write_text(CONFIG)
    ours = build_ours()
    build_theirs(theirs)
    ratios = []
    for pair in range(1, arguments.pairs + 1):
        run = [ours, "pendulum", "--config", config, "--seed", str(pair), "--threads", str(arguments.threads)]
        us, _ = seconds([*run, "--quiet", "--out", temporary / f"run-{pair}"])
        them, line = seconds([theirs, str(pair)], OPENBLAS_NUM_THREADS="1")
        assert " steps=10000 hidden=64 batch=100 updates=9900 " in line, line
        ratios.append(us / them)
        print(f"pair {pair}: ours {us:.3f} s, rltools {them:.3f} s, ratio {us / them:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")
