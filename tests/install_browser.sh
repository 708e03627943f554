#!/bin/sh
# The atlas is tested in a real browser. Install headless Chromium where that is allowed; say so where it is not.
if command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq >/dev/null && apt-get install -y -qq chromium chromium-driver >/dev/null 2>&1 && exit 0
fi
echo "No Chromium and no right to install it: the browser tests will fail." \
    "Install chromium and chromium-driver, or set GAZETTEER_NO_BROWSER=1 to leave those tests out." >&2
