"""One update of this project against one update of its peers, in alternating pairs; prints each pair's ratio and the median.
Within a pair each side gives the median of what it measures several times.

usage: against_peers.py PEER_COMMAND [--pairs 10] [--bench update/cpu/obs3-act1-b256-h256]

PEER_COMMAND is any command whose last line of output holds "... N updates/s". Both sides run in turn, so that a machine
whose speed drifts does not favour one. Needs Python 3.9 and a Rust toolchain.
"""
import argparse
import json
import os
import pathlib
import re
import shlex
import statistics
import subprocess

parser = argparse.ArgumentParser()
parser.add_argument("peer")
parser.add_argument("--pairs", type=int, default=10)
parser.add_argument("--bench", default="update/cpu/obs3-act1-b256-h256")
arguments = parser.parse_args()


def ours():
    command = ["cargo", "bench", "--quiet", "--bench", "update", "--", arguments.bench]
    subprocess.run(command, check=True, capture_output=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    estimates = json.loads((target / "criterion" / arguments.bench / "new" / "estimates.json").read_text())
    return 1e9 / estimates["median"]["point_estimate"]


def peers():
    output = subprocess.run(shlex.split(arguments.peer), check=True, capture_output=True, text=True).stdout
    return float(re.findall(r"([\d.]+) updates/s", output)[-1])


ours()  # builds
ratios = []
for pair in range(1, arguments.pairs + 1):
    us, them = ours(), peers()
    ratios.append(us / them)
    print(f"pair {pair}: ours {us:.1f} updates/s, peer {them:.1f} updates/s, ratio {us / them:.2f}", flush=True)
print(f"median ratio {statistics.median(ratios):.2f}")
