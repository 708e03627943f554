"""What an operator needs: plan, submit, schedule, verify, see how far a run is."""

from pathlib import Path

LAUNCH = Path(__file__).resolve().parent / "launch"
"""Files to start clusters, schedules and containers with; `gazetteer launch` copies them."""
