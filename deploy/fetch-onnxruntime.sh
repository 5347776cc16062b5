#!/bin/sh
# Puts ONNX Runtime's shared library into a folder and prints its path.
#
#   deploy/fetch-onnxruntime.sh [FOLDER]      default: .cache/onnxruntime
#
# It comes from the official onnxruntime wheel, through pip as pip is configured
# on this machine. Version and checksums are pinned here. A library that is
# there already is checked and kept. Needs python3 with pip.
set -eu

version=1.32.0
folder=${1:-.cache/onnxruntime}/$version
library=$folder/libonnxruntime.so

fail() {
    echo "fetch-onnxruntime: $*" >&2
    exit 1
}

machine=$(uname -m)
case "$(uname -s)-$machine" in
Linux-x86_64)
    wheel_sha256=99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8
    ;;
Linux-aarch64)
    wheel_sha256=e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054
    ;;
*)
    fail "there is no pinned wheel for $(uname -s) on $machine; install ONNX Runtime $version yourself and set ORT_DYLIB_PATH to its shared library"
    ;;
esac

# The library's own checksum is written beside it once it is whole.
if [ -f "$library.sha256" ] && (cd "$folder" && sha256sum --check --status libonnxruntime.so.sha256); then
    echo "$library"
    exit 0
fi

python3 -m pip --version >/dev/null 2>&1 ||
    fail "python3 with pip is needed to download ONNX Runtime (Debian: apt-get install python3-pip)"

mkdir -p "$folder"
download=$(mktemp -d "$folder/download.XXXXXX")
trap 'rm -rf "$download"' EXIT INT TERM

# The tags name a wheel that holds the same library for every Python.
echo "fetching ONNX Runtime $version for $machine" >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --implementation cp --python-version 3.12 --abi cp312 --platform "manylinux_2_28_$machine" \
    --dest "$download" "onnxruntime==$version" >&2 ||
    fail "pip could not download onnxruntime $version; its message is above"

wheel=$(echo "$download"/onnxruntime-*.whl)
echo "$wheel_sha256  $wheel" | sha256sum --check --status ||
    fail "$(basename "$wheel") does not have the pinned checksum; nothing was installed"

python3 - "$wheel" "onnxruntime/capi/libonnxruntime.so.$version" "$download/libonnxruntime.so" <<'PYTHON'
import shutil
import sys
import zipfile

wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(target, "wb") as library:
    shutil.copyfileobj(source, library)
PYTHON

(cd "$download" && sha256sum libonnxruntime.so >libonnxruntime.so.sha256)
mv "$download/libonnxruntime.so" "$library"
mv "$download/libonnxruntime.so.sha256" "$library.sha256"
echo "$library"
