#!/bin/sh
# What the tests need beyond Python packages: a headless Chromium for the atlas, the libraries that OpenCV (a
# dependency of groundingdino-py) loads, a C compiler for a clock that jumps and a C++ one for torch.compile. Install them
# where that is allowed; say so where it is not.
missing=""
command -v chromium >/dev/null 2>&1 && command -v chromedriver >/dev/null 2>&1 || missing="chromium chromium-driver"
ldconfig -p 2>/dev/null | grep -q libGL.so.1 || missing="$missing libgl1 libglib2.0-0"
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
command -v g++ >/dev/null 2>&1 || missing="$missing g++"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    # shellcheck disable=SC2086 # a list of packages
    apt-get update -qq >/dev/null && apt-get install -y -qq $missing >/dev/null 2>&1 && exit 0
fi
echo "Missing and not to be installed from here: $missing. The tests that need them will fail;" \
    "GAZETTEER_NO_BROWSER=1 leaves the browser tests out, GAZETTEER_NO_COMPILER=1 those that compile." >&2
