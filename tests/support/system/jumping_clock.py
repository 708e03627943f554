"""A clock that can be made to jump under a running process: of that process and its children alone, for real."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jumped(void) {
    static volatile long *seconds;
    if (!seconds) {
        int file = open(getenv("JUMPING_CLOCK"), O_RDONLY);
        seconds = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        close(file);
    }
    return *seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += jumped();
    return answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    if (now) *now = time.tv_sec;
    return time.tv_sec;
}
"""


class JumpingClock:
    """Processes started with `environment` read the machine's clock, moved by what `jump` said last."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.fail(
                "This test compiles a clock and there is no C compiler: install gcc, or set GAZETTEER_NO_COMPILER=1 to "
                "leave such tests out.",
                pytrace=False,
            )
        source, library, self._seconds = folder / "clock.c", folder / "clock.so", folder / "clock.seconds"
        source.write_text(SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(self._seconds)}
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """From now on, show the machine's time and so many seconds more."""
        with self._seconds.open("r+b" if self._seconds.exists() else "wb") as file:  # the same file: it is mapped
            file.write(struct.pack("l", seconds))
