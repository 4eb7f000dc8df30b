"""What a run writes while it runs: run directory, rollouts, TensorBoard, progress."""
