"""What a process knows of the host that it runs on: keys, signals, time limits, memory, logs."""
