"""What a grid will cost, before anything is spent: shapes, steps, FLOPs, memory, placement, time."""
