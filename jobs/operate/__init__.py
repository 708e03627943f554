"""What an operator needs: plan, submit, schedule, verify, see how far a run is."""
