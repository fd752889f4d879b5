"""Wall time of training on an environment of Gymnasium, with this project and with Stable-Baselines3, in alternating pairs.

usage: against_sb3.py [--environment HalfCheetah-v5] [--steps 20000] [--batch 256] [--pairs 1] [--threads 2]

Both, as the preset mujoco has it: two hidden layers of 256, learning rates 3e-4, γ 0.99, τ 0.005, a tuned temperature, 10 000
random steps and then an update after each step; no evaluation, no checkpoint. A time is that of the whole process. Run it
with a Python that has stable_baselines3 and the environment, which both sides then use; needs a Rust toolchain as well.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("--environment", default="HalfCheetah-v5")
parser.add_argument("--steps", type=int, default=20_000)
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--pairs", type=int, default=1)
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()

ROOT = pathlib.Path(__file__).resolve().parent.parent
THEIRS = """
import sys
import torch
from stable_baselines3 import SAC
environment, steps, batch, seed, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
SAC("MlpPolicy", environment, learning_starts=10_000, batch_size=batch, seed=seed, device="cpu").learn(steps)
"""


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "sac"], check=True, cwd=ROOT)
sac = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "sac"
environment, steps, batch = arguments.environment, str(arguments.steps), str(arguments.batch)
threads = str(arguments.threads)
ratios = []
with tempfile.TemporaryDirectory() as temporary:
    for pair in range(1, arguments.pairs + 1):
        run = [sac, f"gym:{environment}", "--preset", "mujoco", "--steps", steps, "--batch", batch]
        run += ["--seed", str(pair), "--threads", threads]
        run += ["--python", sys.executable, "--eval-every", "0", "--checkpoint-every", "0", "--quiet"]
        us = seconds([*run, "--out", pathlib.Path(temporary) / f"run-{pair}"])
        them = seconds([sys.executable, "-c", THEIRS, environment, steps, batch, str(pair), threads])
        ratios.append(us / them)
        print(f"pair {pair}: ours {us:.1f} s, stable_baselines3 {them:.1f} s, ratio {us / them:.3f}", flush=True)
print(f"median ratio {statistics.median(ratios):.3f}")
