"""To be imported before the project's packages: those of the checkout that this file lies in, not installed ones."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
