"""One update of this project against one update of its peers, in alternating pairs; prints each pair's ratio and the median.
Within a pair each side gives the median of what it measures several times.

usage: against_peers.py PEER_COMMAND [--pairs 10] [--bench update/cpu/obs3-act1-b256-h256]

PEER_COMMAND is any command that, where PEER_FOREVER is set, prints a line which holds "... N updates/s" again and again. It
is begun once, and stands still (SIGSTOP) while our side runs, so that a pair takes seconds, and a machine whose speed drifts
favours neither side. What it measured across a stop is dropped. Needs Python 3.9 and a Rust toolchain.
"""
import argparse
import json
import os
import pathlib
import re
import shlex
import signal
import statistics
import subprocess

parser = argparse.ArgumentParser()
parser.add_argument("peer")
parser.add_argument("--pairs", type=int, default=10)
parser.add_argument("--bench", default="update/cpu/obs3-act1-b256-h256")
arguments = parser.parse_args()


def ours():
    command = ["cargo", "bench", "--quiet", "--bench", "update", "--", arguments.bench]
    command += ["--warm-up-time", "0.5", "--measurement-time", "1.5", "--sample-size", "20"]
    subprocess.run(command, check=True, capture_output=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    estimates = json.loads((target / "criterion" / arguments.bench / "new" / "estimates.json").read_text())
    return 1e9 / estimates["median"]["point_estimate"]


def next_figure(peer):
    for line in peer.stdout:
        if figures := re.findall(r"([\d.]+) updates/s", line):
            return float(figures[-1])
    raise SystemExit("the peer has ended")


ours()  # builds
ratios = []
forever = dict(os.environ, PEER_FOREVER="1")
with subprocess.Popen(shlex.split(arguments.peer), env=forever, stdout=subprocess.PIPE, text=True) as peer:
    next_figure(peer)  # it has started and warmed up
    for pair in range(1, arguments.pairs + 1):
        peer.send_signal(signal.SIGSTOP)
        us = ours()
        peer.send_signal(signal.SIGCONT)
        next_figure(peer)
        them = next_figure(peer)
        ratios.append(us / them)
        print(f"pair {pair}: ours {us:.1f} updates/s, peer {them:.1f} updates/s, ratio {us / them:.2f}", flush=True)
    peer.kill()
low, middle, high = statistics.quantiles(ratios, n=4)
print(f"median ratio {middle:.2f}, half of them from {low:.2f} to {high:.2f}")
