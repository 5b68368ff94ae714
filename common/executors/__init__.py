"""Who runs the shards of a plan: this process, or a batch system."""
