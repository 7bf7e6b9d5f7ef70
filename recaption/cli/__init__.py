"""What commands share: arguments, the terminal, what Slurm and this machine say of a run's tasks."""
