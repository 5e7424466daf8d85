"""What a run will take, told beforehand: memory, disk and time."""
