"""What several tests share: harnesses, faults, programs."""
