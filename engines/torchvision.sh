#!/usr/bin/env bash
# torchvision.sh PYTHON FOLDER: put a wheel of torchvision for a CPU build of torch into FOLDER, unless one is there.
#
# The registry's torchvision is built for CUDA and does not import beside a CPU build of torch. Debian has the source.
# PYTHON has torch, and setuptools before 81. Apt gets lists of its own, so those of the system stay as they are.
# Image processors use none of the compiled operators. The names of these are built, because torchvision does not import
# without them; the kernels and the readers of image files are left out, which take most of the time.
set -euo pipefail
python=$(realpath -s "$1")
mkdir -p "$2"
folder=$(realpath "$2")
compgen -G "$folder/torchvision-*.whl" >/dev/null && exit
work=$folder/source
rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/tree"
cd "$work"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" >sources.list
apt=(apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root
	-o Dir::State::lists="$work/lists" -o Dir::Cache::archives="$work/archives"
	-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
"${apt[@]}" update
"${apt[@]}" source --download-only --tar-only pytorch-vision
tar -xf pytorch-vision_*.orig.tar.* -C tree --strip-components=1
cd tree
rm -r torchvision/csrc/ops/{autocast,autograd,cpu,quantized}
sed -i '/^ *make_image_extension(),$/d' setup.py
export FORCE_CUDA=0 BUILD_VERSION="$(cat version.txt)+cpu" MAX_JOBS="${MAX_JOBS:-2}"
for part in VIDEO_CODEC FFMPEG; do export "TORCHVISION_USE_$part=0"; done
"$python" setup.py -q bdist_wheel --dist-dir "$folder"
rm -rf "$work"
