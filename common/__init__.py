"""What the stages share: settings, artifacts, schemas, channel mathematics, models and metrics.

Nothing in here imports a stage (generate, train or evaluate).
"""
