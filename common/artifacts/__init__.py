"""The contract between the stages: plans, committed shards, files that are whole or absent, schemas, checkpoints."""
