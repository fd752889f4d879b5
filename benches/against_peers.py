"""One update of this project against one update of its peers, in alternating pairs; prints each pair's ratio and the median.

usage: against_peers.py PEER_COMMAND [--pairs 10] [--bench update/cpu/obs3-act1-b256-h256]

PEER_COMMAND is any command whose last line of output holds "... N updates/s". Both sides run in turn, so that a machine
whose speed drifts does not favour one. Needs Python 3.9 and a Rust toolchain.
"""
import argparse
import re
import shlex
import statistics
import subprocess

parser = argparse.ArgumentParser()
parser.add_argument("peer")
parser.add_argument("--pairs", type=int, default=10)
parser.add_argument("--bench", default="update/cpu/obs3-act1-b256-h256")
arguments = parser.parse_args()

UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def ours():
    command = ["cargo", "bench", "--quiet", "--bench", "update", "--", arguments.bench]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    median, unit = re.search(r"time:\s+\[\S+ \S+ (\S+) (\S+)", output).groups()
    return 1 / (float(median) * UNITS[unit])


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
