"""One training run under Accelerate and DeepSpeed: engine, loop, validation, checkpoints, records."""
