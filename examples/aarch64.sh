#!/usr/bin/env bash
# Does the bundle answer the same on ARM? Runs its ONNX Runtime models under emulated aarch64 and compares the answers
# with this machine's. Correctness only: an emulator's latency says nothing about a device, so none is reported.
#
#   apt-get install qemu-user-static debootstrap
#   bash examples/aarch64.sh BUNDLE [CACHE_DIR] [SAMPLES]
#
# CACHE_DIR (~/.cache/kdc-aarch64) keeps a Debian for arm64 with Python, numpy and onnxruntime, about 400 MB. The first
# run makes it, as root since debootstrap needs that; later ones only use it. Compares SAMPLES (200) of the bundle's
# test samples; of texts, tokenizers is installed there, too. PYTHON (python3) is an interpreter of this machine with numpy and onnxruntime; KDC_QEMU_CPU the processor
# to emulate, cortex-a76 (the Raspberry Pi 5's, with int8 dot product) or cortex-a72 (the Pi 4's, without).
# Exit code 1: the answers differ.
set -euo pipefail
bundle=$(cd "${1:?usage: aarch64.sh BUNDLE [CACHE_DIR] [SAMPLES]}" && pwd)
cache=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/kdc-aarch64}
samples=${3:-200}
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
processor=${KDC_QEMU_CPU:-cortex-a76}
root=$cache/root

need() {
    command -v "$1" >/dev/null || { echo "aarch64: $1 is missing: apt-get install $2" >&2; exit 4; }
}

# Debian's packages are unpacked and not configured: that would need to run programs inside, by chroot and binfmt_misc.
# To run one Python, its files are enough: qemu looks for libraries under the folder that -L names.
make_root() {
    need debootstrap debootstrap
    echo "aarch64: making a Debian for arm64 in $cache (once)" >&2
    rm -rf "$cache/part"
    mkdir -p "$cache/part"
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 bookworm "$cache/part/root" >"$cache/log" 2>&1 ||
        { tail -n 3 "$cache/log" >&2; exit 1; }
    for package in "$cache"/part/root/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$cache/part/root"; done
    rm -rf "$cache"/part/root/var/cache/apt/archives/*
    mkdir -p "$cache/part/root/proc" "$cache/part/root/opt"
    rm -rf "$root"
    mv "$cache/part/root" "$root"
}

# The same versions of onnxruntime and numpy as on this machine, so that only the processor differs.
install_wheels() {
    local versions tokenizers wheels
    versions=$("$python" -c 'import numpy, onnxruntime as o; print(f"onnxruntime=={o.__version__} numpy=={numpy.__version__}")')
    tokenizers=$("$python" -c 'import tokenizers as t; print(f"tokenizers=={t.__version__}")' 2>/dev/null || true)
    [ "$(cat "$root/opt/versions" 2>/dev/null)" != "$versions $tokenizers" ] || return 0
    echo "aarch64: installing $versions there" >&2
    wheels=$(mktemp -d)
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --implementation cp \
        --python-version 3.11 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux2014_aarch64 --target "$wheels" $versions
    [ -z "$tokenizers" ] || "$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --no-deps \
        --implementation cp --python-version 3.11 --abi abi3 --platform manylinux2014_aarch64 --target "$wheels" $tokenizers
    rm -rf "$root/opt/python"
    mv "$wheels" "$root/opt/python"
    echo "$versions $tokenizers" >"$root/opt/versions"
}

# onnxruntime reads here which cores it has, and what they can do; the real file's x86 lines would crash it.
describe_processor() {
    local part features
    case $1 in
        cortex-a76)
            part=0xd0b
            features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
            ;;
        cortex-a72) part=0xd08 features="fp asimd evtstrm crc32 cpuid" ;;
        *) echo "aarch64: KDC_QEMU_CPU is $1; known: cortex-a76, cortex-a72" >&2; exit 2 ;;
    esac
    for core in $(seq 0 $(($(nproc) - 1))); do
        printf 'processor\t: %d\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\n' "$core" "$features"
        printf 'CPU variant\t: 0x0\nCPU part\t: %s\nCPU revision\t: 1\n\n' "$part"
    done >"$root/proc/cpuinfo"
}

need qemu-aarch64-static qemu-user-static
"$python" -c 'import numpy, onnxruntime' 2>/dev/null || {
    echo "aarch64: $python has no onnxruntime to compare with: pip install onnxruntime, or name another with PYTHON=" >&2
    exit 4
}
[ -d "$root" ] || make_root
install_wheels
describe_processor "$processor"
"$python" "$here/aarch64_compare.py" "$bundle" "$samples" env "PYTHONPATH=$root/opt/python" PYTHONDONTWRITEBYTECODE=1 \
    qemu-aarch64-static -cpu "$processor" -L "$root" "$root/usr/bin/python3"
