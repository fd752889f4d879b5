#!/usr/bin/env bash
# Every figure of docs/cuda.md that needs a GPU, in one run on a machine that has one.
#
# usage: benches/gpu.sh [OUT]     results go to the folder OUT, gpu-results if it is not named
#
# With cargo it builds what it runs; without, PREBUILT names a folder that holds what `benches/gpu.sh build FOLDER` put
# there on another machine. What is missing (compute-sanitizer, Python with PyTorch) is said and left out.
set -euo pipefail
cd "$(dirname "$0")/.."

build() { # build FOLDER: the program, the tests on a GPU and the bench of devices
    mkdir -p "$1"
    executable() { grep -o "\"executable\":\"[^\"]*/$1\"" | cut -d'"' -f4; }
    cp "$(cargo build --release --bin sac --message-format=json | executable sac)" "$1/sac"
    cp "$(cargo test --release --test gpu --no-run --message-format=json | executable 'gpu-[^"]*')" "$1/gpu"
    cp "$(cargo bench --bench devices --no-run --message-format=json | executable 'devices-[^"]*')" "$1/devices"
}

if [ "${1:-}" = build ]; then
    build "$2"
    exit
fi

out=$(realpath -m "${1:-gpu-results}")
mkdir -p "$out"
built=
if command -v cargo >/dev/null; then
    built=$out/bin
    build "$built"
    PREBUILT=$built
fi
bin=$(realpath "${PREBUILT:?there is no cargo; name a folder of prebuilt programs in PREBUILT}")
export SAC_REQUIRE_GPU=1
failed=0
step() { # step NAME COMMAND…: runs it, keeps what it prints, and goes on if it fails
    local name=$1
    shift
    echo "== $name: $*"
    if "$@" >"$out/$name.txt" 2>&1; then echo "ok"; else
        echo "FAILED"
        failed=1
    fi
    tail -n 25 "$out/$name.txt"
}

step machine nvidia-smi
step parity "$bin/gpu" --nocapture --test-threads 1
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
        step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 "$bin/gpu" --test-threads 1 actions metrics learning \
            fused_intermediates a_run_on_the_device
    done
else
    echo "== left out: memcheck, racecheck and synccheck, because there is no compute-sanitizer"
fi

# One update against PyTorch's best, in alternating pairs.
if python3 -c 'import torch' 2>/dev/null; then
    for pair in 1 2 3; do
        step "update-$pair" "$bin/devices" --bench --quick cuda
        step "torch-$pair" python3 benches/peers/update_torch.py 17 6 256 256
    done
else
    echo "== left out: PyTorch, because there is none"
fi
step devices "$bin/devices" --bench full

# Many agents at once, beside those of JAX.
step seeds "$bin/devices" --bench seeds cuda
if python3 -c 'import jax, optax' 2>/dev/null; then
    for seeds in 1 8 64 256; do
        step "jax-$seeds" python3 benches/peers/update_jax.py 17 6 256 256 256 fp32 "$seeds"
    done
else
    echo "== left out: JAX, because there is none"
fi
rm -rf "$out/seeds"
step pendulum-64 bash -c "time '$bin/sac' pendulum --device cuda --seeds 0..64 --out '$out/seeds'"
step runs-64 "$bin/sac" runs "$out/seeds"
step compare-64 "$bin/sac" compare "$out/seeds"

# Pendulum by the defaults, five seeds.
rm -rf "$out/runs" "$out/tf32"
for seed in 0 1 2 3 4; do
    step "pendulum-$seed" "$bin/sac" pendulum --device cuda --seed "$seed" --out "$out/runs/$seed"
    step "return-$seed" "$bin/sac" eval "$out/runs/$seed" --episodes 1000 --seed 0
done
# A whole run on the device, with its evaluations and checkpoints and without.
time_of() { bash -c 'time "$@"' time_of "$@"; }
step time time_of "$bin/sac" pendulum --steps 20000 --device cuda --out "$out/runs/20000"
step time-return "$bin/sac" eval "$out/runs/20000" --episodes 1000 --seed 0
step time-alone time_of "$bin/sac" pendulum --steps 20000 --device cuda --eval-every 0 --checkpoint-every 0 \
    --out "$out/runs/20000-alone"
# In tf32: the same, and what the policies are worth.
for seed in 0 1 2 3 4; do
    step "tf32-$seed" "$bin/sac" pendulum --device cuda --precision tf32 --seed "$seed" --out "$out/tf32/$seed"
    step "tf32-return-$seed" "$bin/sac" eval "$out/tf32/$seed" --episodes 1000 --seed 0
done
# The same seed gives the same run.
step pendulum-again "$bin/sac" pendulum --device cuda --seed 0 --out "$out/runs/again"
step identical cmp "$out/runs/0/policy.safetensors" "$out/runs/again/policy.safetensors"
step auto "$bin/sac" pendulum --device auto --steps 1000 --out "$out/runs/auto"
[ -z "$built" ] || rm -r "$built"
exit $failed
