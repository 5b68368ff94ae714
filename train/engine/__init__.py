"""What every training shares: loop, checkpoints, devices, curves."""
